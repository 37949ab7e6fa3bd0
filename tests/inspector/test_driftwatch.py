"""Drift in a running station: a folder camera whose light changes is told the same day, and no other is."""

from __future__ import annotations

import shutil
import urllib.request
from dataclasses import replace

import cv2
import numpy as np
import pytest

from inspector.appearance import measure
from inspector.inquiry import ask
from inspector.model import bundle as bundles
from inspector.model import store
from inspector.model.engine import Engine
from inspector.model.sample import Sample
from tests.station import camera, until, write_bundle

PARTS = 60
WAIT_S = 90


@pytest.fixture
def station(quick_station):
    """Parts of their own brightness each, and a bundle that was calibrated on them."""
    one = quick_station
    shutil.rmtree(one.root / "pictures")
    (one.root / "pictures").mkdir()
    generator = np.random.default_rng(0)
    for number in range(PARTS):
        picture = generator.normal(120 + generator.normal(0, 3), 20, (48, 48))
        cv2.imwrite(
            str(one.root / "pictures" / f"{number:03}.png"), np.clip(picture, 0, 255).astype(np.uint8)
        )
    bundle = write_bundle(one.data / "models" / "part")
    engine = Engine(bundle, "cpu")
    images = [
        cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in sorted((one.root / "pictures").iterdir())
    ]
    seen = [measure(image, None) for image in images]
    sample = Sample(
        np.array([engine.score(image).score for image in images]),
        np.array([one.brightness for one in seen]),
        np.array([one.sharpness for one in seen]),
        np.array([one.highlight for one in seen]),
    )
    highest = replace(bundle.threshold, value=float(sample.scores.max()))
    child = bundles.with_threshold(bundle, highest, sample=sample)
    store.activate(one.data / "models" / "part", child.id, "calibrate")
    return one


def dim(station, factor):
    for file in (station.root / "pictures").iterdir():
        image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(file), (image * factor).astype(np.uint8))


def metrics_port(station):
    return station.port + 1 if station.port < 65535 else station.port - 1


def run(station, fps=50.0):
    station.write(
        camera(trigger="camera", ring_slots=32, folder={"fps": fps, "order": "shuffled"}),
        plc="enabled = false",
        log='frames = "none"',
        more=f"[metrics]\nenabled = true\nport = {metrics_port(station)}",
    )
    station.start()


def drift(station):
    return ask(station.data)["cameras"][0]["drift"]


def looked(station, parts):
    def enough():
        try:
            return drift(station)["parts_today"] >= parts
        except Exception:  # not up yet
            return False

    until(enough, f"{parts} parts are compared", WAIT_S)


def told(station):
    with station.log() as log:
        return list(reversed(log.events(kind="drift")))


def test_light_that_changes_by_15_percent_is_told_once_and_a_new_start_does_not_repeat_it(station):
    dim(station, 0.85)
    run(station)
    looked(station, 400)
    found = drift(station)
    assert found["state"] == "moved"
    assert "brightness" in found["moved"]
    assert "sharpness" not in found["moved"]
    assert found["quantities"]["brightness"]["median"] == pytest.approx(
        0.85 * found["quantities"]["brightness"]["at_calibration"], rel=0.02
    )
    metrics = urllib.request.urlopen(f"http://127.0.0.1:{metrics_port(station)}/metrics", timeout=10)
    assert 'inspector_drift{camera="cam",quantity="brightness"} 1.0' in metrics.read().decode()
    shown = station.command("status").stdout
    assert "MOVED" in shown
    assert "look at light and exposure" in " ".join(shown.split())
    assert station.stop() == 0
    events = told(station)
    assert len(events) == 1
    assert (events[0].severity, events[0].camera) == ("warning", "cam")
    assert "brightness" in events[0].details["moved"]
    parts = found["parts_today"]
    run(station)
    looked(station, parts + 200)
    assert drift(station)["state"] == "moved"
    assert station.stop() == 0
    assert len(told(station)) == 1


def test_light_that_makes_every_part_a_reject_is_told_all_the_same(station):
    dim(station, 0.3)
    run(station)
    looked(station, 200)
    assert "brightness" in drift(station)["moved"]
    assert drift(station)["quantities"]["score"]["distance"] is None
    assert station.stop() == 0
    with station.log() as log:
        assert {row.verdict for row in log.inspections(limit=None)} == {2}
    (event,) = told(station)
    assert "brightness" in event.details["moved"]


def test_parts_as_at_calibration_are_not_told(station):
    run(station)
    looked(station, 600)
    found = drift(station)
    assert (found["state"], found["moved"]) == ("none", [])
    assert "as they were at calibration" in station.command("status").stdout
    assert station.stop() == 0
    assert told(station) == []


def test_a_bundle_from_before_says_that_it_cannot_be_compared(station):
    write_bundle(station.data / "models" / "part", 1e5)
    run(station)

    def state():
        try:
            return drift(station)["message"]
        except Exception:  # not up yet
            return ""

    until(lambda: "run `inspector calibrate`" in state(), "it is said", WAIT_S)
    assert drift(station)["state"] == "not available"
    assert station.stop() == 0
