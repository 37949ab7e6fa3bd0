"""The threshold as an order statistic of the scores of normal parts: no distribution is assumed.

Let x(k) be the k-th smallest of n independent scores. The false-reject rate of "reject when score > x(k)"
follows Beta(n - k + 1, k), or lies below it where scores repeat. The smallest k at which this rate is at most
the asked one with the asked confidence is the threshold (Wilks 1941; a distribution-free tolerance bound).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, isfinite, log1p

import numpy as np
from scipy.special import betainc, betaincinv
from tqdm import tqdm

from inspector.errors import TrainingError
from inspector.model.engine import Engine
from inspector.model.preprocess import Image
from inspector.model.records import Threshold


@dataclass(frozen=True)
class OrderStatistic:
    """value is the rank-th smallest of n scores and proves a false-reject rate of proven_rate.

    missing: how many more normal parts are needed before any rank proves the rate asked for; 0 when proven.
    """

    value: float
    rank: int
    n: int
    proven_rate: float
    missing: int


def parts_needed(rate: float, confidence: float) -> int:
    """The fewest normal parts that can prove this rate: with them, only their highest score does.

    299 for 1 % at 95 %. Raises TrainingError for numbers that are not between 0 and 1.
    """
    _check(rate, confidence)
    return ceil(log1p(-confidence) / log1p(-rate))


def order_statistic(scores: Sequence[float], rate: float, confidence: float) -> OrderStatistic:
    """The lowest threshold that keeps the false-reject rate at or below rate, with this confidence.

    With too few scores for any proof the highest is taken, and proven_rate says what it does prove.
    Raises TrainingError without scores, and for a score, rate or confidence that is impossible.
    """
    _check(rate, confidence)
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    n = len(ordered)
    if n == 0:
        raise TrainingError("no normal parts to calibrate on: expected at least one")
    if not np.isfinite(ordered).all():
        raise TrainingError(f"{int((~np.isfinite(ordered)).sum())} of {n} scores are not finite numbers")
    ranks = np.arange(1, n + 1)
    proves = betainc(n - ranks + 1, ranks, rate) >= confidence
    rank = int(ranks[proves][0]) if proves.any() else n
    return OrderStatistic(
        value=float(ordered[rank - 1]),
        rank=rank,
        n=n,
        proven_rate=float(betaincinv(n - rank + 1, rank, confidence)),
        missing=0 if proves.any() else parts_needed(rate, confidence) - n,
    )


def calibrate(
    engine: Engine,
    pictures: Iterable[tuple[str, Image]],
    *,
    rate: float = 0.01,
    confidence: float = 0.95,
    source: str,
    total: int | None = None,
    progress: bool = True,
) -> Threshold:
    """Score normal parts on this engine and set the threshold for its device and precision.

    pictures: (name, image) of parts that were not trained on; total: how many, for the progress bar.
    Raises TrainingError for a score that is not finite; DataError and ModelError from reading and scoring.
    """
    _check(rate, confidence)
    scores = []
    for name, image in tqdm(pictures, desc="calibrating", unit="part", total=total, disable=not progress):
        score = engine.score(image).score
        if not isfinite(score):
            raise TrainingError(f"{name} scores {score}: the model is broken; train it anew")
        scores.append(score)
    found = order_statistic(scores, rate, confidence)
    return Threshold(
        value=found.value,
        target_rate=rate,
        confidence=confidence,
        proven_rate=found.proven_rate,
        n=found.n,
        rank=found.rank,
        method="order-statistic",
        device=engine.device,
        precision=engine.precision,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        scores_sha256=hashlib.sha256(np.asarray(scores, "<f8").tobytes()).hexdigest(),
        source=source,
        self_test=engine.answer(),
    )


def _check(rate: float, confidence: float) -> None:
    for name, value in (("rate", rate), ("confidence", confidence)):
        if not 0 < value < 1:
            raise TrainingError(f"{name} is {value}: expected a number between 0 and 1")
