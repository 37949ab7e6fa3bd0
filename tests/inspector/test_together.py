"""Frames of several cameras that wait for one model, scored in batches as on a GPU."""

import shutil
from collections import Counter

import cv2
import numpy as np
import pytest

from inspector.model import bundle as bundles
from inspector.model.engine import Engine
from tests.station import camera
from training.data import read_image

PASS = 1


def test_frames_of_several_cameras_that_wait_are_scored_together_and_each_gets_its_own_verdict(station, plc):
    names = ("one", "two", "three")
    for number, name in enumerate(names):
        shutil.copytree(station.root / "pictures", station.root / name)
        for file in (station.root / name).iterdir():
            cv2.imwrite(str(file), np.roll(cv2.imread(str(file)), 7 * number + 1))
    station.write(
        *(
            camera(
                name,
                base=100 + 20 * number,
                plc=200 + 20 * number,
                trigger="camera",
                ring_slots=8,
                folder={"path": name, "repeat": False, "fps": 20.0},
            )
            for number, name in enumerate(names)
        )
    )
    station.start("tests.together")
    assert station.daemon.wait(timeout=60) == 0, station.said()
    with station.log() as log:
        rows = log.inspections(limit=None)
    assert sorted((row.camera, row.source) for row in rows) == sorted(
        (name, f"{k:03}.png") for name in names for k in range(8)
    )
    engine = Engine(bundles.active(station.data / "models" / "part"), "cpu")
    for row in rows:
        image = read_image(station.root / row.camera / row.source)
        assert row.score == pytest.approx(engine.score(image).score, rel=1e-4)
        assert row.verdict == PASS
    at_once = Counter(row.stages["model"] for row in rows)
    assert max(at_once.values()) == 2, "three that wait go as two and one"
    for number in range(3):
        assert plc.verdicts(100 + 20 * number) == [(s, PASS) for s in range(1, 9)]
