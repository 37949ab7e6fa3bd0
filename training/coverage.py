"""Does a calibration keep its promise? Simulated on scores whose true distribution is known.

    python -m training.coverage

Of each distribution n scores are drawn, over and over; the threshold that calibration gives for them has a
true false-reject rate, and the share of repetitions in which it is at most the one asked for is the coverage.
The order statistic must reach the confidence asked for wherever it claims to (n large enough), to within the
noise of the simulation; what the highest score and the fitted tail reach below that is shown beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from scipy.special import betainc
from tqdm import tqdm

from training import tail
from training.calibrate import CONFIDENCE, RATE, extrapolated, order_statistic, parts_needed
from training.distributions import DISTRIBUTIONS, Distribution, Floats

SIZES = (100, 200, 300, 500, 598, 1000, 2000, 5000)
REPETITIONS = 2000


@dataclass(frozen=True)
class Row:
    """One distribution and number of parts: the shares of the repetitions in which the true rate is at most
    the one asked, for the order statistic (the highest score, where proven is False) and the fitted tail.

    exact: what the binomial says that the order statistic reaches, whatever the distribution. The medians are
    of the true false-reject rate. None where no tail is fitted.
    """

    distribution: str
    n: int
    proven: bool
    exact: float
    order_statistic: float
    order_statistic_median: float
    tail: float | None
    tail_median: float | None


def measure(
    sizes: Sequence[int] = SIZES,
    repetitions: int = REPETITIONS,
    rate: float = RATE,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    *,
    progress: bool = True,
) -> list[Row]:
    """Coverage of every distribution at every size."""
    rows = []
    with tqdm(
        total=len(DISTRIBUTIONS) * len(sizes) * repetitions, unit="calibration", disable=not progress
    ) as bar:
        for place, (name, distribution) in enumerate(DISTRIBUTIONS.items()):
            for n in sizes:
                generator = np.random.default_rng([seed, place, n])
                rows.append(_row(name, distribution, generator, n, repetitions, rate, confidence, bar))
    return rows


def _row(
    name: str,
    distribution: Distribution,
    generator: np.random.Generator,
    n: int,
    repetitions: int,
    rate: float,
    confidence: float,
    bar: tqdm[Any],
) -> Row:
    proven = n >= parts_needed(rate, confidence)
    fitted = not proven and n >= tail.fewest_parts()
    ranked, beyond = np.empty(repetitions), np.empty(repetitions)
    for index in range(repetitions):
        scores = distribution.draw(generator, (n,))
        ranked[index] = order_statistic(scores, rate, confidence).value
        if fitted:
            beyond[index] = extrapolated(scores, rate, confidence).value
        bar.update()
    rank = order_statistic(range(n), rate, confidence).rank
    exact = float(betainc(n - rank + 1, rank, rate))
    share, median = _kept(distribution, ranked, rate)
    tail_share, tail_median = _kept(distribution, beyond, rate) if fitted else (None, None)
    return Row(name, n, proven, exact, share, median, tail_share, tail_median)


def _kept(distribution: Distribution, thresholds: Floats, rate: float) -> tuple[float, float]:
    true = distribution.exceeded(thresholds)
    return float(np.mean(true <= rate)), float(np.median(true))


def table(rows: Sequence[Row], rate: float, confidence: float) -> str:
    """The rows in Markdown: a line for each number of parts, a column for each distribution."""
    names = list(dict.fromkeys(row.distribution for row in rows))
    lines = [
        f"| parts | threshold | exact | {' | '.join(names)} |",
        f"|---|---|---|{'---|' * len(names)}",
    ]
    for n in dict.fromkeys(row.n for row in rows):
        of_n = [row for row in rows if row.n == n]
        kind = f"proven: ≥ {confidence:.1%} promised" if of_n[0].proven else "highest score, no promise"
        shares = " | ".join(f"{row.order_statistic:.1%}" for row in of_n)
        lines.append(f"| {n} | {kind} | {of_n[0].exact:.1%} | {shares} |")
        if of_n[0].tail is not None:
            shares = " | ".join("-" if row.tail is None else f"{row.tail:.1%}" for row in of_n)
            lines.append(f"| {n} | extrapolated: {confidence:.1%} aimed at | – | {shares} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write <out>/coverage.json and coverage.md."""
    parser = argparse.ArgumentParser(prog="python -m training.coverage", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), metavar="N")
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--confidence", type=float, default=CONFIDENCE)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    began = perf_counter()
    rows = measure(asked.sizes, asked.repetitions, asked.rate, asked.confidence, asked.seed)
    record = {
        "rate": asked.rate,
        "confidence": asked.confidence,
        "repetitions": asked.repetitions,
        "seed": asked.seed,
        "seconds": round(perf_counter() - began, 1),
        "rows": [asdict(row) for row in rows],
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "coverage.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
    noise = (asked.confidence * (1 - asked.confidence) / asked.repetitions) ** 0.5
    page = (
        f"Share of {asked.repetitions} simulated calibrations whose true false-reject rate is at most "
        f"{asked.rate:.2%}; each share is uncertain by {noise:.1%} (one standard error). Command: "
        "`python -m training.coverage`\n\n" + table(rows, asked.rate, asked.confidence)
    )
    (asked.out / "coverage.md").write_text(page, "utf-8")
    sys.stdout.write(page)


if __name__ == "__main__":
    main()
