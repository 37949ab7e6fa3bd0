"""Drift on numbers: what is told, when it is over, and that nothing is told for long where nothing moves."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp, kstwobign

from inspector.drift import (
    FALSE_ALARMS,
    QUANTITIES,
    SMALLEST,
    WINDOW,
    Comparison,
    Drift,
    Reference,
    distance,
    effective,
    least,
)
from training.false_alarms import MOVES, measure

TODAY = date(2026, 5, 9)
NORMAL = {"score": 1.0, "brightness": 0.5, "sharpness": 0.01, "highlight": 0.8}


def parts(count: int, seed: int = 0, **factors: float) -> list[dict[str, float]]:
    generator = np.random.default_rng(seed)
    return [
        {
            name: value * factors.get(name, 1.0) * float(generator.normal(1.0, 0.05))
            for name, value in NORMAL.items()
        }
        for _ in range(count)
    ]


def calibrated(told: tuple[str, ...] = ()) -> Drift:
    rows = parts(300, seed=99)
    return Drift({name: np.array([row[name] for row in rows]) for name in QUANTITIES}, told)


def feed(drift: Drift, rows: list[dict[str, float]], day: date = TODAY) -> list[tuple[str, ...]]:
    """What was told, part by part."""
    told = []
    for row in rows:
        drift.add(day, row)
        if drift.change():
            told.append(drift.moved)
    return told


def test_the_distance_is_that_of_scipy() -> None:
    generator = np.random.default_rng(0)
    one, other = np.sort(generator.normal(size=80)), np.sort(generator.normal(0.3, size=50).round(1))
    assert distance(one, other) == pytest.approx(ks_2samp(one, other).statistic)


def test_all_looks_of_a_day_together_spend_no_more_than_the_day_has() -> None:
    """SMALLEST set aside, the p-values that suffice sum up to less than FALSE_ALARMS."""
    counts = (100_000, 100_000)
    asked = [least(look, *counts) for look in range(1, 4)]
    assert asked == [SMALLEST] * 3
    n, m = 600, 100
    thresholds = [least(look, n, m) for look in range(1, 60)]
    assert thresholds == sorted(thresholds)
    spent = sum(kstwobign.sf(found / (1 / n + 1 / m) ** 0.5) for found in thresholds)
    assert 2 * len(QUANTITIES) * spent < FALSE_ALARMS


def test_a_change_is_told_once_and_names_what_has_moved() -> None:
    drift = calibrated()
    assert feed(drift, parts(400)) == []
    assert drift.message() == "parts are as they were at calibration"
    assert feed(drift, parts(1000, 1, brightness=0.85)) == [("brightness",)]
    assert re.search(r"brightness 0\.42\d*, was 0\.\d+ \(-1[3-6]%\)", drift.message())
    assert "look at light and exposure" in drift.message()


@pytest.mark.parametrize(
    ("factors", "moved", "advice"),
    [
        ({"sharpness": 0.7}, ("sharpness",), "lens, focus"),
        ({"sharpness": 0.7, "brightness": 0.8}, ("brightness", "sharpness"), "light, exposure and lens"),
        ({"highlight": 0.85}, ("highlight",), "light and exposure"),
        ({"score": 1.2}, ("score",), "light and lens are as they were"),
    ],
)
def test_a_dirty_lens_is_told_from_changed_parts(
    factors: dict[str, float], moved: tuple[str, ...], advice: str
) -> None:
    drift = calibrated()
    feed(drift, parts(WINDOW, 1, **factors))
    assert drift.moved == moved
    assert advice in drift.message()


def test_what_is_over_is_told_once_too() -> None:
    drift = calibrated()
    assert feed(drift, parts(WINDOW, 1, score=1.2)) == [("score",)]
    assert feed(drift, parts(700, 2)) == [()], "the day's comparison still holds the first parts at 200"


def test_a_slow_change_is_seen_in_the_whole_day_before_a_window_shows_it() -> None:
    drift = calibrated()
    told = feed(drift, parts(3200, 1, score=1.03))
    assert told[0] == ("score",)
    assert drift.watches["score"].day.moved


def test_over_midnight_what_has_moved_stays_told() -> None:
    drift = calibrated()
    assert feed(drift, parts(800, 1, brightness=0.85)) == [("brightness",)]
    assert feed(drift, parts(800, 2, brightness=0.85), TODAY + timedelta(1)) == []
    assert drift.parts_today == 800


def test_a_daemon_started_anew_does_not_tell_again_what_was_told() -> None:
    drift = calibrated(told=("brightness",))
    assert drift.moved == ("brightness",)
    assert feed(drift, parts(WINDOW - 1, 1, brightness=0.85)) == []
    assert feed(drift, parts(400, 1, brightness=0.85)) == []
    over = calibrated(told=("brightness",))
    assert feed(over, parts(400, 1)) == [()]


def test_what_an_older_version_has_not_measured_is_left_out() -> None:
    drift = calibrated()
    for row in parts(WINDOW, 1, highlight=0.85):
        drift.add(TODAY, row | {"highlight": None})
    assert drift.moved == ()
    assert drift.watches["highlight"].moved is None


def test_of_parts_that_were_rejected_light_and_lens_are_followed_and_the_score_is_not() -> None:
    drift = calibrated()
    for row in parts(WINDOW, 1, score=9.0, brightness=0.85):
        drift.add(TODAY, row, passed=False)
    assert drift.moved == ("brightness",)
    assert drift.watches["score"].moved is None
    assert drift.parts_today == WINDOW


def alike(count: int, seed: int, correlation: float) -> np.ndarray:
    """A stationary autoregression of first order."""
    generator = np.random.default_rng(seed)
    values = [generator.normal()]
    for noise in generator.normal(scale=(1 - correlation**2) ** 0.5, size=count - 1):
        values.append(correlation * values[-1] + noise)
    return np.array(values)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_alike_neighbours_count_as_the_variance_of_their_mean_says(correlation: float) -> None:
    samples = [alike(200, seed, correlation) for seed in range(400)]
    worth = 1 / float(np.var([sample.mean() for sample in samples]))
    assert float(np.median([effective(sample) for sample in samples])) == pytest.approx(worth, rel=0.3)


def test_a_window_that_lies_off_by_chance_counts_no_more_than_the_calibrations_neighbours_let_it() -> None:
    """By itself it looked like several times as many independent parts, and was told: 6 of 5,000 days."""
    generator = np.random.default_rng(0)
    off = 1.3 + alike(WINDOW, 1, 0.5)
    for correlation, moved in ((0.0, True), (0.9, False)):
        reference = Reference.of(alike(600, 2, correlation))
        window = Comparison()
        window.look(reference, off)
        assert window.moved is moved
        assert window.distance is not None
        assert SMALLEST < window.distance < 1
    beyond = Comparison()
    beyond.look(Reference.of(alike(600, 2, 0.9)), 9 + generator.normal(size=WINDOW))
    assert beyond.moved


def test_parts_whose_neighbours_are_alike_raise_no_alarm_by_that() -> None:
    """Counted as independent, each of these days raises more than one alarm."""
    row = measure("nothing", 598, 400, stations=5, alike=0.9)
    assert row.days == 100
    assert row.alarms <= 2
    assert measure("light -15 %", 598, 300, stations=1, alike=0.9).alarms == 20


@pytest.mark.parametrize("calibration", [100, 598])
def test_nothing_is_told_over_many_parts_where_nothing_moves(calibration: int) -> None:
    """160,000 parts, 400 camera-days; results/drift.md has more."""
    row = measure("nothing", calibration, 400, stations=20)
    assert row.days == 400
    assert row.alarms <= 1 + 3 * FALSE_ALARMS * row.days


def test_a_change_of_the_light_is_told_the_same_day() -> None:
    row = measure("light -15 %", 598, 300, stations=1)
    assert row.alarms == row.days
    assert row.after == WINDOW
    assert "light -15 %" in MOVES


def test_the_table_in_the_readme_is_the_one_that_was_measured() -> None:
    root = Path(__file__).parents[2]
    rows = json.loads((root / "results" / "drift.json").read_text())["rows"]
    still = [row for row in rows if row["move"] == "nothing"]
    assert all(row["alarms"] <= FALSE_ALARMS * row["days"] and row["days"] >= 5000 for row in still)
    assert (root / "results" / "drift.md").read_text().strip() in (root / "README.md").read_text()
