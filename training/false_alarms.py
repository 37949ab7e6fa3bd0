"""How often drift is told that is none, and how soon one that is: simulated parts, day after day.

    python -m training.false_alarms

Each station is calibrated on parts of its own; its days are compared with them as a running station's are.
Scores are gamma distributed, brightness, sharpness and highlight vary by 2 %, 10 % and 2 % from part to part.
Neighbours are independent, or alike: an autoregression of first order with this correlation, through
calibration and days.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from math import sqrt
from pathlib import Path

import numpy as np
from scipy.signal import lfilter
from scipy.special import gammaincinv, ndtr
from tqdm import tqdm

from inspector.drift import FALSE_ALARMS, QUANTITIES, Drift, Floats

DAYS = 20  # of each station
MOVES = {  # what has moved, and the factors on score, brightness, sharpness and highlight
    "nothing": (1.0, 1.0, 1.0, 1.0),
    "light -15 %": (1.0, 0.85, 1.0, 0.85),
    "sharpness -15 %": (1.0, 1.0, 0.85, 1.0),
    "score +25 %": (1.25, 1.0, 1.0, 1.0),
    "score +10 %": (1.1, 1.0, 1.0, 1.0),
}
ALIKE = (0.5, 0.9)


@dataclass(frozen=True)
class Row:
    """Camera-days with so many calibration parts and parts a day: how many raised an alarm, and after how
    many parts of the day half of those had (None without any). alike: correlation of neighbours.
    """

    move: str
    alike: float
    calibration: int
    parts: int
    days: int
    alarms: int
    after: int | None


def measure(
    move: str,
    calibration: int,
    parts: int,
    stations: int,
    seed: int = 0,
    days: int = DAYS,
    alike: float = 0.0,
) -> Row:
    """Follow stations for days; an alarm is a change of what has moved that says something has."""
    generator = np.random.default_rng([seed, list(MOVES).index(move), calibration, parts, int(alike * 1000)])
    after: list[int] = []
    for _ in range(stations):
        reference = _draw(generator, calibration, MOVES["nothing"], alike)
        drift = Drift(reference)
        for day in range(days):
            if move != "nothing":
                drift = Drift(reference)  # each day is the first of its change
            after += _follow(
                drift, date(2026, 1, 1) + timedelta(day), _draw(generator, parts, MOVES[move], alike)
            )
    half = int(np.median(after)) if after else None
    return Row(move, alike, calibration, parts, stations * days, len(after), half)


def _follow(drift: Drift, day: date, values: dict[str, Floats]) -> list[int]:
    """After how many parts of the day the first alarm came, if any."""
    columns = [values[name].tolist() for name in QUANTITIES]
    found = []
    for index, row in enumerate(zip(*columns, strict=True), start=1):
        drift.add(day, dict(zip(QUANTITIES, row, strict=True)))
        if index % 100 == 0 and drift.change() and drift.moved:
            found.append(index)
    return found[:1]


def _draw(
    generator: np.random.Generator, count: int, factors: Sequence[float], alike: float
) -> dict[str, Floats]:
    score, brightness, sharpness, highlight = (_standard(generator, count, alike) for _ in QUANTITIES)
    gamma = np.asarray(gammaincinv(9.0, ndtr(score)), dtype=np.float64)
    drawn = (gamma / 9.0, 0.5 + 0.01 * brightness, 0.01 + 0.001 * sharpness, 0.8 + 0.016 * highlight)
    return {name: factor * one for name, factor, one in zip(QUANTITIES, factors, drawn, strict=True)}


def _standard(generator: np.random.Generator, count: int, alike: float) -> Floats:
    """Standard normal; each value correlates with the one before it."""
    noise = generator.normal(size=count)
    noise[1:] *= sqrt(1 - alike**2)
    found: Floats = lfilter([1.0], [1.0, -alike], noise)
    return found


def table(rows: Sequence[Row]) -> str:
    """In Markdown."""
    lines = [
        "| what has moved | neighbours alike | calibration parts | parts a day | camera-days | with an alarm "
        "| after parts |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.move} | {r.alike:g} | {r.calibration} | {r.parts} | {r.days} "
        f"| {r.alarms} ({r.alarms / r.days:.2%}) | {'–' if r.after is None else r.after} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write <out>/drift.json and drift.md."""
    parser = argparse.ArgumentParser(prog="python -m training.false_alarms")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--stations", type=int, default=250, help=f"of {DAYS} days each")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    plan = [("nothing", n, parts, 0.0) for n in (100, 598) for parts in (300, 2000)]
    plan += [("nothing", n, parts, alike) for alike in ALIKE for n, parts in ((100, 300), (598, 2000))]
    plan += [(move, 598, 2000, 0.0) for move in MOVES if move != "nothing"]
    plan += [("light -15 %", 598, 2000, alike) for alike in ALIKE]
    rows = []
    for move, n, parts, alike in tqdm(plan, unit="row"):
        stations = asked.stations if move == "nothing" else max(asked.stations // 10, 1)
        rows.append(measure(move, n, parts, stations, asked.seed, alike=alike))
    asked.out.mkdir(parents=True, exist_ok=True)
    record = {"bound": FALSE_ALARMS, "seed": asked.seed, "rows": [asdict(row) for row in rows]}
    (asked.out / "drift.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    (asked.out / "drift.md").write_text(table(rows), "utf-8")
    sys.stdout.write(table(rows))


if __name__ == "__main__":
    main()
