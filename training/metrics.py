"""How good scores and maps are. Scores and maps: higher means more anomalous. Labels: True is defective.

A metric that is not defined (only one class present, no masks) is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Statistic = Callable[[Bools, Floats], float]

PRO_LIMIT = (
    0.3  # Bergmann et al., MVTec AD, IJCV 2021: the curve is integrated up to this false-positive rate
)


class Interval(NamedTuple):
    """Bounds of a confidence interval."""

    low: float
    high: float


class Rates(NamedTuple):
    """What a threshold does to parts: shares of the good and of the defective ones, with exact intervals."""

    false_reject: float
    false_reject_interval: Interval
    escape: float
    escape_interval: Interval


# ---- image scores ----------------------------------------------------------------------------------------


def image_auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve of (n,) labels and scores; ties count one half."""
    false, true = _operating_points(*_checked(labels, scores))
    return _area(false, true)


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Σ (Rₖ − Rₖ₋₁) Pₖ over the distinct thresholds, without interpolation."""
    false, true = _operating_points(*_checked(labels, scores))
    return _average_precision(false, true)


def f1_max(labels: ArrayLike, scores: ArrayLike) -> float:
    """Largest F1 over all thresholds: an upper bound, as its threshold is read off the test set."""
    false, true = _operating_points(*_checked(labels, scores))
    if not _both(false, true):
        return math.nan
    return float(np.max(2 * true / (true + false + true[-1])))


def rates(labels: ArrayLike, scores: ArrayLike, threshold: float, level: float = 0.95) -> Rates:
    """False rejects (good parts above the threshold) and escapes (defective parts not above it).

    The intervals are Clopper–Pearson: a bootstrap of "none in 41" is [0, 0] and would promise too much.
    """
    defective, values = _checked(labels, scores)
    good_rejected = values[~defective] > threshold
    bad_passed = values[defective] <= threshold
    return Rates(*_proportion(good_rejected, level), *_proportion(bad_passed, level))


def bootstrap(
    statistic: Statistic,
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over images, drawn within each class so that both keep their size.

    It degenerates where the statistic is at its bound: an AUROC of exactly 1 gives [1, 1].
    """
    defective, values = _checked(labels, scores)
    drawn = [statistic(defective[i], values[i]) for i in _resamples(defective, resamples, seed)]
    return _percentiles(drawn, level)


def paired_bootstrap(
    statistic: Statistic,
    labels: ArrayLike,
    scores: ArrayLike,
    reference: ArrayLike,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, Interval]:
    """statistic(scores) − statistic(reference) on the same images, with its interval.

    scores, reference: (n,) or (repeats, n); repeats (seeds) are averaged within each resample of the images,
    so the interval speaks of the images drawn, not of the seeds.
    """
    defective = np.asarray(labels, dtype=bool)
    ours = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    theirs = np.atleast_2d(np.asarray(reference, dtype=np.float64))
    if ours.shape[1] != len(defective) or theirs.shape[1] != len(defective):
        message = f"expected scores (…, {len(defective)}), got {ours.shape} and {theirs.shape}"
        raise ValueError(message)

    def difference(index: NDArray[np.intp]) -> float:
        labels_drawn = defective[index]
        a = np.mean([statistic(labels_drawn, row[index]) for row in ours])
        b = np.mean([statistic(labels_drawn, row[index]) for row in theirs])
        return float(a - b)

    drawn = [difference(i) for i in _resamples(defective, resamples, seed)]
    return difference(np.arange(len(defective))), _percentiles(drawn, level)


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[Bools, Floats]:
    defective, values = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)
    if defective.ndim != 1 or defective.shape != values.shape:
        message = f"labels and scores must be (n,) alike, got {defective.shape} and {values.shape}"
        raise ValueError(message)
    if not np.isfinite(values).all():
        message = "scores hold NaN or infinity: a metric of them would mean nothing"
        raise ValueError(message)
    return defective, values


def _operating_points(defective: Bools, values: Floats) -> tuple[Floats, Floats]:
    """Cumulated false and true positives at each distinct threshold, highest first, (0, 0) in front."""
    order = np.argsort(-values, kind="stable")
    true = np.cumsum(defective[order], dtype=np.float64)
    last = np.append(np.diff(values[order]) != 0, True)[: len(values)]  # last of each run of ties
    false = np.arange(1, len(values) + 1) - true
    return np.append(0.0, false[last]), np.append(0.0, true[last])


def _both(false: Floats, true: Floats) -> bool:
    return bool(false[-1] > 0 and true[-1] > 0)


def _area(false: Floats, true: Floats) -> float:
    if not _both(false, true):
        return math.nan
    return float(np.trapezoid(true, false) / (true[-1] * false[-1]))


def _average_precision(false: Floats, true: Floats) -> float:
    if not _both(false, true):
        return math.nan
    called = true[1:] + false[1:]
    return float(np.sum(np.diff(true) * true[1:] / called) / true[-1])


def _proportion(events: Bools, level: float) -> tuple[float, Interval]:
    if events.size == 0:
        return math.nan, Interval(math.nan, math.nan)
    exact = stats.binomtest(int(events.sum()), events.size).proportion_ci(level, method="exact")
    return float(events.mean()), Interval(float(exact.low), float(exact.high))


def _resamples(defective: Bools, resamples: int, seed: int) -> list[NDArray[np.intp]]:
    generator = np.random.default_rng(seed)
    classes = [c for c in (np.flatnonzero(defective), np.flatnonzero(~defective)) if c.size]
    return [
        np.concatenate([c[generator.integers(c.size, size=c.size)] for c in classes])
        for _ in range(resamples)
    ]


def _percentiles(drawn: list[float], level: float) -> Interval:
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(low), float(high))


# ---- maps ------------------------------------------------------------------------------------------------

NORMAL, DEFECTIVE, OVERLAP = 0, 1, 2


class PixelCurves:
    """Pixel AUROC, average precision and PRO of a whole category, image by image, in bounded memory.

    Every pixel is a value with three masses: normal (0 or 1), defective (0 or 1) and overlap (1 / area of its
    region). Summed above a threshold they give false positives, true positives and the summed per-region
    overlap, so one sorted list of (value, masses) holds all three curves.

    The list is exact up to `capacity` / 2 distinct values. Beyond that neighbours are merged until no entry
    holds more than 8 / capacity of any mass (unless it is a tie). Each merge can move a curve by that share:
    at the default capacity 100 merges stay within 1e-3, in practice within 1e-5, and memory under 250 MB.
    Only the order of the values counts, so the error does not depend on the scale of the maps.
    """

    def __init__(self, capacity: int = 1 << 20) -> None:
        self.capacity = capacity
        self.regions = 0
        self._values: NDArray[np.float32] = np.empty(0, np.float32)
        self._masses: Floats = np.empty((0, 3))
        self._pending: list[tuple[NDArray[np.float32], Floats]] = []
        self._pending_size = 0

    def add(self, score_map: NDArray[np.floating], mask: NDArray[np.generic] | None = None) -> None:
        """Take in one map (H, W) and its mask (H, W), nonzero where defective; None for a good part.

        Sizes may differ from image to image. Regions are 8-connected.
        """
        values = np.asarray(score_map, dtype=np.float32)
        defective = np.zeros(values.shape, bool) if mask is None else np.asarray(mask) != 0
        if values.ndim != 2 or values.shape != defective.shape:
            message = f"map and mask must be (H, W) alike, got {values.shape} and {defective.shape}"
            raise ValueError(message)
        if not np.isfinite(values).all():
            message = "the map holds NaN or infinity: a metric of it would mean nothing"
            raise ValueError(message)
        count, region = cv2.connectedComponents(defective.astype(np.uint8), connectivity=8)
        self.regions += count - 1  # 0 is the background
        weight = 1.0 / np.maximum(np.bincount(region.ravel(), minlength=count), 1)
        weight[0] = 0.0
        masses = np.stack([~defective, defective, weight[region]], axis=-1, dtype=np.float64)
        self._pending.append((values.ravel(), masses.reshape(-1, 3)))
        self._pending_size += values.size
        if self._pending_size >= self.capacity:
            self._settle()

    def auroc(self) -> float:
        """Area under the ROC curve of all pixels together."""
        curve = self._curve()
        return _area(curve[:, NORMAL], curve[:, DEFECTIVE])

    def average_precision(self) -> float:
        """Average precision of all pixels together."""
        curve = self._curve()
        return _average_precision(curve[:, NORMAL], curve[:, DEFECTIVE])

    def pro(self, limit: float = PRO_LIMIT) -> float:
        """Area under mean per-region overlap against false-positive rate, up to limit, divided by limit.

        Paper eq. 16 at every threshold; normal pixels and regions are pooled over the category.
        """
        curve = self._curve()
        if not self.regions or curve[-1, NORMAL] == 0:
            return math.nan
        rate = curve[:, NORMAL] / curve[-1, NORMAL]
        overlap = curve[:, OVERLAP] / self.regions
        inside = rate <= limit
        x = np.append(rate[inside], limit)
        y = np.append(overlap[inside], np.interp(limit, rate, overlap))
        return float(np.trapezoid(y, x) / limit)

    def _curve(self) -> Floats:
        """Masses cumulated from the highest threshold down, zeros in front: (entries + 1, 3)."""
        self._settle()
        return np.concatenate([np.zeros((1, 3)), np.cumsum(self._masses[::-1], axis=0)])

    def _settle(self) -> None:
        if not self._pending:
            return
        values = np.concatenate([self._values, *(v for v, _ in self._pending)])
        masses = np.concatenate([self._masses, *(m for _, m in self._pending)])
        self._pending, self._pending_size = [], 0
        order = np.argsort(values)
        values, masses = values[order], masses[order]
        self._keep(values, masses, np.append(True, np.diff(values) != 0))
        if len(self._values) > self.capacity // 2:
            self._merge()

    def _merge(self) -> None:
        cells = self.capacity // 8  # at most 3 × cells + 1 entries remain
        before = np.cumsum(self._masses, axis=0) - self._masses
        total = np.maximum(self._masses.sum(axis=0), np.finfo(float).tiny)
        cell = np.floor(before / total * cells).sum(axis=1)
        self._keep(self._values, self._masses, np.append(True, np.diff(cell) > 0))

    def _keep(self, values: NDArray[np.float32], masses: Floats, first: Bools) -> None:
        """One entry for each run that begins where first is True."""
        starts = np.flatnonzero(first)
        self._values, self._masses = values[starts], np.add.reduceat(masses, starts, axis=0)
