"""On which day of the week weaker light is told: `python -m tests.weaker_light --data SETS [--seeds 10]`.

The weeks of tests/week.py without models: 100 calibration parts, then each day's normal parts, each as often
as makes 100, from day 4 on with 15 % less light. A seed is an order of the parts. Brightness, sharpness and
highlight are followed as the daemon follows them. On a day before, whatever is told is a false alarm; where a
day has few parts (screw: 20), repeating them makes more of these than there are on a line.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict
from datetime import date
from pathlib import Path

import numpy as np

from inspector.appearance import measure
from inspector.drift import LIGHT, WINDOW, Drift
from tests.week import LIGHT_DAY, parts_of, seen

FOLLOWED = ("brightness", "sharpness", "highlight")
WHITE = 0.999  # a highlight from here on lies where the sensor gave all it could


def told(data: Path, name: str, seed: int) -> tuple[dict[int, set[str]], float]:
    """What has moved on each day from day 2 on; the share of calibration parts that are overexposed."""
    parts = parts_of(data, name, seed)
    kept = [asdict(measure(seen(path, 1), None)) for path in parts.second]
    drift = Drift({one: np.array([values[one] for values in kept]) for one in FOLLOWED})
    found = {}
    for day, paths in enumerate(parts.days, start=2):
        values = [asdict(measure(seen(path, day), None)) for path in paths]
        for number in range(WINDOW):
            drift.add(date(2026, 1, day), values[number % len(values)])
        found[day] = set(drift.moved)
    return found, float(np.mean([values["highlight"] >= WHITE for values in kept]))


def row(name: str, weeks: list[dict[int, set[str]]], white: list[float]) -> str:
    """Of one set, all seeds: days with a false alarm, weeks with light told on the day, and by what."""
    early = sum(bool(days[day]) for days in weeks for day in range(2, LIGHT_DAY))
    same_day = [days[LIGHT_DAY] & LIGHT for days in weeks]
    by = Counter(one for moved in same_day for one in moved)
    shown = ", ".join(f"{one} {count}" for one, count in sorted(by.items())) or "–"
    return (
        f"| {name} | {early} of {len(weeks) * (LIGHT_DAY - 2)} | {sum(map(bool, same_day))} of {len(weeks)} "
        f"| {shown} | {np.mean(white):.0%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of categories in the MVTec layout")
    parser.add_argument("--categories", nargs="+", default=["mvtec_screw", "magnetic_tile"])
    parser.add_argument("--seeds", type=int, default=10)
    asked = parser.parse_args()
    early = f"false alarms, days 2 to {LIGHT_DAY - 1}"
    print(f"| set | {early} | light told on day {LIGHT_DAY} | by | overexposed |")
    print("|---|---|---|---|---|")
    for name in asked.categories:
        weeks, white = zip(*(told(asked.data, name, seed) for seed in range(asked.seeds)), strict=True)
        print(row(name, list(weeks), list(white)), flush=True)


if __name__ == "__main__":
    main()
