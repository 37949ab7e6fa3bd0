from pathlib import Path

import genicam
import pytest


@pytest.fixture
def viky():
    """The GenTL producer in the genicam wheel: three virtual cameras (serials 0, 1, 2) that run free."""
    return Path(genicam.__file__).with_name("viky.cti")
