"""The tail of the scores as a generalised Pareto distribution, for thresholds beyond the parts at hand.

Peaks over threshold (Pickands 1975; Coles 2001, An Introduction to Statistical Modeling of Extreme Values,
chapter 4): what exceeds a high quantile u by y > 0 follows about 1 - (1 + ξ y / σ)^(-1/ξ). With a share ζ of
the scores above u, the score that a share p exceeds lies at u + σ ((ζ / p)^ξ - 1) / ξ. Its confidence limits
are those of its profile likelihood, which follow the skewness that a bootstrap of few scores misses.

ξ is held between 0 and 0.75: a finite end of the scores (ξ < 0) is never taken for granted. How often the
upper limit holds is measured by `python -m training.coverage`, from which BEYOND was chosen too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import chi2, genpareto

from inspector.errors import TrainingError

BEYOND = 0.1  # share of the scores that the tail is fitted to
FEWEST = 10  # scores in the tail
SHAPES = np.linspace(0.0, 0.75, 31)  # of the tail, ξ

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tail:
    """A fitted tail, above the score start, which a share of the parts exceeds.

    estimate: the likeliest score that the asked share exceeds; interval: its limits, each at the asked
    confidence. shape (ξ) and scale (σ) are those of the estimate.
    """

    estimate: float
    interval: tuple[float, float]
    start: float
    share: float
    shape: float
    scale: float

    def exceeded(self, score: Floats) -> Floats:
        """The share of normal parts expected above scores that are not below start."""
        found: Floats = self.share * genpareto.sf(score - self.start, self.shape, scale=self.scale)
        return found


def fewest_parts() -> int:
    """How many parts it takes to fit a tail."""
    return round(FEWEST / BEYOND)


def fit(scores: Sequence[float] | Floats, rate: float, confidence: float) -> Tail:
    """The tail of the scores, and where it passes rate. Raises TrainingError when it cannot be fitted."""
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    n, k = len(ordered), round(len(ordered) * BEYOND)
    if n < fewest_parts():
        raise TrainingError(f"a tail cannot be fitted to {n} parts: expected at least {fewest_parts()}")
    start = float(ordered[n - k - 1])
    above = ordered[n - k :] - start
    if above.max() <= 0 or k / n <= rate:
        raise TrainingError(
            f"a tail cannot be fitted: the highest {k} of {n} scores are all alike"
            if k / n > rate
            else f"a tail is of no use for a rate of {rate:g}: expected less than {BEYOND:g}"
        )
    growth = _growth(k / n / rate)
    unit = float(above.mean())
    profile = _profile(above / unit, growth)
    best, (low, high) = _limits(profile, float(chi2.ppf(2 * confidence - 1, 1)) / 2)
    shape = int(np.argmax(_log_likelihood(above / unit, best / growth)))
    return Tail(
        estimate=start + unit * best,
        interval=(start + unit * low, start + unit * high),
        start=start,
        share=k / n,
        shape=float(SHAPES[shape]),
        scale=float(unit * best / growth[shape]),
    )


def _growth(ratio: float) -> Floats:
    """((ζ / p)^ξ - 1) / ξ for each ξ of SHAPES; its limit at ξ = 0 is log(ζ / p)."""
    log = np.log(ratio)
    safe = np.where(SHAPES == 0, 1.0, SHAPES)
    found: Floats = np.where(SHAPES == 0, log, np.expm1(SHAPES * log) / safe)
    return found


def _log_likelihood(above: Floats, scales: Floats) -> Floats:
    """Of the exceedances (k,) for each ξ of SHAPES with its σ in scales."""
    relative = above[None, :] / scales[:, None]
    safe = np.where(SHAPES == 0, 1.0, SHAPES)[:, None]
    bends = (1 + 1 / safe) * np.log1p(safe * relative)
    found: Floats = -len(above) * np.log(scales) - np.where(SHAPES[:, None] == 0, relative, bends).sum(axis=1)
    return found


def _profile(above: Floats, growth: Floats) -> Callable[[float], float]:
    """Log-likelihood of the exceedance z that the rate asks for, over the best ξ; σ follows from both."""
    return lambda log_z: float(_log_likelihood(above, np.exp(log_z) / growth).max())


def _limits(profile: Callable[[float], float], drop: float) -> tuple[float, tuple[float, float]]:
    """Where the profile is highest, and where it has fallen by drop on either side; z, not its logarithm.

    Exceedances have mean 1. The profile over log z has one peak.
    """
    grid = np.linspace(np.log(1e-2), np.log(1e4), 60)
    values = np.array([profile(float(x)) for x in grid])
    peak = int(values.argmax())
    low, high = float(grid[max(peak - 1, 0)]), float(grid[min(peak + 1, len(grid) - 1)])
    best = float(minimize_scalar(lambda x: -profile(x), bounds=(low, high), method="bounded").x)
    floor = profile(best) - drop

    def above_floor(x: float) -> float:
        return profile(x) - floor

    below = [float(x) for x, value in zip(grid, values, strict=True) if x < best and value < floor]
    beyond = [float(x) for x, value in zip(grid, values, strict=True) if x > best and value < floor]
    left = brentq(above_floor, below[-1], best) if below else float(grid[0])
    right = brentq(above_floor, best, beyond[0]) if beyond else float(grid[-1])
    return float(np.exp(best)), (float(np.exp(left)), float(np.exp(right)))
