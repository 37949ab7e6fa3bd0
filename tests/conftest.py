"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import pytest

from tests.recorder import Recorder
from tests.station import Station, write_bundle, write_pictures


@pytest.fixture
def plc():
    """An independent Modbus server that records every write."""
    recorder = Recorder()
    yield recorder
    recorder.stop()


@pytest.fixture
def station(tmp_path, plc):
    """A folder with pictures and a calibrated bundle; station.toml is the test's to write."""
    one = Station(tmp_path, plc.port)
    write_pictures(tmp_path / "pictures", 8)
    write_bundle(tmp_path / "data" / "models" / "part")
    yield one
    if one.daemon is not None and one.daemon.poll() is None:
        one.kill()
