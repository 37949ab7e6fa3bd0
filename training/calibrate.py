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
from numpy.typing import NDArray
from scipy.special import betainc, betaincinv
from scipy.stats import binom
from tqdm import tqdm

from inspector.errors import TrainingError
from inspector.model.engine import Engine
from inspector.model.preprocess import Image
from inspector.model.records import EXTRAPOLATED, ORDER_STATISTIC, Threshold
from training import tail

RATE, CONFIDENCE = 0.005, 0.95  # asked where nobody asks for anything else

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Chosen:
    """A threshold: rank of n scores are not above value, which proves a false-reject rate of proven_rate.

    missing: how many more normal parts are needed before any rank proves the rate asked for; 0 when proven.
    interval: limits of the score that rate of the parts exceed, each at the confidence; empty unless proven.
    """

    value: float
    rank: int
    n: int
    proven_rate: float
    missing: int
    interval: tuple[float, ...] = ()


def parts_needed(rate: float, confidence: float) -> int:
    """The fewest normal parts that can prove this rate: with them, only their highest score does.

    299 for 1 % at 95 %. Raises TrainingError for numbers that are not between 0 and 1.
    """
    _check(rate, confidence)
    return ceil(log1p(-confidence) / log1p(-rate))


def order_statistic(scores: Sequence[float] | Floats, rate: float, confidence: float) -> Chosen:
    """The lowest threshold that keeps the false-reject rate at or below rate, with this confidence.

    With too few scores for any proof the highest is taken, and proven_rate says what it does prove.
    Raises TrainingError without scores, and for a score, rate or confidence that is impossible.
    """
    ordered = _ordered(scores, rate, confidence)
    n = len(ordered)
    ranks = np.arange(1, n + 1)
    proves = betainc(n - ranks + 1, ranks, rate) >= confidence
    rank = int(ranks[proves][0]) if proves.any() else n
    return Chosen(
        value=float(ordered[rank - 1]),
        rank=rank,
        n=n,
        proven_rate=float(betaincinv(n - rank + 1, rank, confidence)),
        missing=0 if proves.any() else parts_needed(rate, confidence) - n,
        interval=_interval(ordered, rank, rate, confidence) if proves.any() else (),
    )


def _interval(ordered: Floats, rank: int, rate: float, confidence: float) -> tuple[float, float]:
    """x(l) with the largest l that does not lie above the quantile at this confidence, and x(rank)."""
    n = len(ordered)
    lows = np.arange(1, n + 1)
    fits = binom.sf(lows - 1, n, 1 - rate) >= confidence  # at least l of n scores are not above the quantile
    low = int(lows[fits][-1]) if fits.any() else 1
    return float(ordered[low - 1]), float(ordered[rank - 1])


def extrapolated(scores: Sequence[float] | Floats, rate: float, confidence: float) -> Chosen:
    """The threshold from a fitted tail, for fewer parts than a proof takes: its upper confidence limit.

    proven_rate is still what the parts prove, whatever the distribution. Raises TrainingError as
    order_statistic() and tail.fit() do.
    """
    ordered = _ordered(scores, rate, confidence)
    n = len(ordered)
    found = tail.fit(ordered, rate, confidence)
    value = found.interval[1]
    rank = int(np.searchsorted(ordered, value, side="right"))
    return Chosen(
        value=value,
        rank=rank,
        n=n,
        proven_rate=float(betaincinv(n - rank + 1, rank, confidence)),
        missing=max(parts_needed(rate, confidence) - n, 0),
        interval=found.interval,
    )


def _ordered(scores: Sequence[float] | Floats, rate: float, confidence: float) -> Floats:
    _check(rate, confidence)
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    if len(ordered) == 0:
        raise TrainingError("no normal parts to calibrate on: expected at least one")
    if not np.isfinite(ordered).all():
        wrong = int((~np.isfinite(ordered)).sum())
        raise TrainingError(f"{wrong} of {len(ordered)} scores are not finite numbers")
    return ordered


def calibrate(
    engine: Engine,
    pictures: Iterable[tuple[str, Image]],
    *,
    rate: float = RATE,
    confidence: float = CONFIDENCE,
    source: str,
    total: int | None = None,
    progress: bool = True,
) -> Threshold:
    """Score normal parts on this engine and set the threshold for its device and precision.

    pictures: (name, image) of parts that were not trained on; total: how many, for the progress bar.
    Raises TrainingError for a score that is not finite; DataError and ModelError from reading and scoring.
    """
    _check(rate, confidence)
    scores = score_all(engine, pictures, total=total, progress=progress)
    return threshold_of(engine, scores, rate=rate, confidence=confidence, source=source)


def score_all(
    engine: Engine,
    pictures: Iterable[tuple[str, Image]],
    *,
    total: int | None = None,
    progress: bool = True,
    what: str = "calibrating",
) -> list[float]:
    """The scores in order. Raises TrainingError for one that is not finite."""
    scores = []
    for name, image in tqdm(pictures, desc=what, unit="part", total=total, disable=not progress):
        score = engine.score(image).score
        if not isfinite(score):
            raise TrainingError(f"{name} scores {score}: the model is broken; train it anew")
        scores.append(score)
    return scores


def threshold_of(
    engine: Engine,
    scores: Sequence[float],
    *,
    rate: float = RATE,
    confidence: float = CONFIDENCE,
    source: str,
    fit_tail: bool = False,
) -> Threshold:
    """The threshold that these scores of normal parts, taken on this engine, give.

    fit_tail: where they are too few to prove the rate, extrapolate; else the highest is taken.
    Raises TrainingError.
    """
    found, method = order_statistic(scores, rate, confidence), ORDER_STATISTIC
    if fit_tail and found.missing:
        found, method = extrapolated(scores, rate, confidence), EXTRAPOLATED
    return Threshold(
        value=found.value,
        target_rate=rate,
        confidence=confidence,
        proven_rate=found.proven_rate,
        n=found.n,
        rank=found.rank,
        method=method,
        device=engine.device,
        precision=engine.precision,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        scores_sha256=hashlib.sha256(np.asarray(scores, "<f8").tobytes()).hexdigest(),
        source=source,
        self_test=engine.answer(),
        interval=found.interval,
    )


def _check(rate: float, confidence: float) -> None:
    for name, value in (("rate", rate), ("confidence", confidence)):
        if not 0 < value < 1:
            raise TrainingError(f"{name} is {value}: expected a number between 0 and 1")
