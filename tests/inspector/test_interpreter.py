"""What holds up verdicts: collections that walk through torch, and threads that keep their turn."""

import gc
import sys

import pytest

from inspector.bench import station
from inspector.daemon import Daemon
from inspector.interpreter import prompt


def test_what_is_loaded_is_frozen_and_thawed_again_whatever_happens():
    before = sys.getswitchinterval(), gc.get_freeze_count()
    with pytest.raises(ZeroDivisionError), prompt():
        assert gc.get_freeze_count() > 10_000
        assert sys.getswitchinterval() < 0.001
        _ = 1 / 0
    assert (sys.getswitchinterval(), gc.get_freeze_count()) == before


def test_the_bench_runs_the_daemon_as_the_line_does(monkeypatch):
    frozen = []
    run = Daemon.run

    def looked_at(daemon):
        frozen.append(gc.get_freeze_count())
        run(daemon)

    monkeypatch.setattr(Daemon, "run", looked_at)
    station.measure(station.stub_judge, parts=3, fps=50, size=64, cameras=1)
    assert frozen[0] > 10_000
