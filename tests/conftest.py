"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import os

import pytest
import torch

from tests.forked import ForkedStation, Nursery
from tests.libmodbus import LibmodbusRecorder, Missing
from tests.recorder import Recorder
from tests.station import Station, write_bundle, write_pictures

SERVERS = {"pyModbusTCP": Recorder, "libmodbus": LibmodbusRecorder}
if "PYTEST_XDIST_WORKER" in os.environ:  # beside others: one thread, and for what it starts
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)

both = pytest.mark.parametrize("plc", SERVERS, indirect=True)  # for tests of the handshake


def pytest_collection_modifyitems(items):
    """What is marked gpu needs one; no test has to say so twice."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device, torch sees none"))


@pytest.fixture
def plc(request):
    """An independent Modbus server that records every write; `both` marks tests that run on each."""
    try:
        recorder = SERVERS[getattr(request, "param", "pyModbusTCP")]()
    except Missing as missing:
        pytest.skip(str(missing))
    yield recorder
    recorder.close()


@pytest.fixture
def station(tmp_path, plc):
    """A folder with pictures and a calibrated bundle; station.toml is the test's to write."""
    one = Station(tmp_path, plc.port)
    write_pictures(tmp_path / "pictures", 8)
    write_bundle(tmp_path / "data" / "models" / "part")
    yield one
    if one.daemon is not None and one.daemon.poll() is None:
        one.kill()


@pytest.fixture(scope="session")
def nursery():
    """What forks daemons; its imports are paid for once."""
    one = Nursery()
    yield one
    one.close()


@pytest.fixture
def quick_station(tmp_path, plc, nursery):
    """The same as station, with a daemon that starts at once."""
    one = ForkedStation(tmp_path, plc.port)
    one.nursery = nursery
    write_pictures(tmp_path / "pictures", 8)
    write_bundle(tmp_path / "data" / "models" / "part")
    yield one
    if one.daemon is not None and one.daemon.poll() is None:
        one.kill()
