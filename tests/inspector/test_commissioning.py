"""The calibration's pictures: whatever a kill cuts short, one set is there whole."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from inspector.nightly import commissioning
from inspector.normals import from_folder
from inspector.settings import load
from tests.station import Station, camera, write_pictures


@pytest.fixture
def settings(tmp_path):
    station = Station(tmp_path, 5020)
    station.write(camera(trigger="camera"), plc="enabled = false")
    return load(station.config)


def copy(settings, folder):
    """A calibration that has scored all of a folder."""
    kept = commissioning.Calibration(settings, "part")
    for _ in kept.copied(from_folder(folder)).pictures:
        pass
    return kept


def kept(settings):
    return {
        digest for _, digest in commissioning.pictures(commissioning.Calibration(settings, "part").folder)
    }


def killed_at(step, take_up):
    """Whether a process that takes the set up gets as far as this change of a folder, where it is killed."""
    child = os.fork()
    if child == 0:
        left = [step]

        def hook(event, _):
            if event in ("os.rename", "os.remove", "os.rmdir"):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        take_up()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_kill_at_any_step_leaves_the_old_or_the_new_set_whole(settings, tmp_path):
    for name, count in (("one", 3), ("other", 5)):
        write_pictures(tmp_path / name, count)
    sets = []
    for name in ("one", "other"):
        copy(settings, tmp_path / name).take_up()
        sets.append(kept(settings))
    assert [len(one) for one in sets] == [3, 5]
    seen, step = [], 0
    copy(settings, tmp_path / "one").take_up()
    while killed_at(step, copy(settings, tmp_path / "other").take_up):
        seen.append(kept(settings))
        assert seen[-1] in sets
        copy(settings, tmp_path / "one").take_up()
        assert kept(settings) == sets[0]
        step += 1
    assert sets[0] in seen
    assert sets[1] in seen
    assert kept(settings) == sets[1]
    assert [one.name for one in (settings.station.data / "calibration").iterdir()] == ["part"]
