"""Scores of normal parts as they might be, with the true share above any threshold: to test promises on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Distribution:
    """draw(generator, shape) gives scores; exceeded(x) is the true share of scores above x."""

    draw: Callable[[np.random.Generator, tuple[int, ...]], Floats]
    exceeded: Callable[[Floats], Floats]


def _mixture(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    rare = generator.random(shape) < RARE
    return np.where(rare, generator.normal(3.0, 1.5, shape), generator.normal(0.0, 1.0, shape))


RARE = 0.1  # share of the second batch of material in the mixture

DISTRIBUTIONS: Mapping[str, Distribution] = {
    "normal": Distribution(lambda g, shape: g.normal(size=shape), stats.norm.sf),
    "gamma, shape 2": Distribution(
        lambda g, shape: g.gamma(2.0, size=shape), lambda x: stats.gamma.sf(x, 2.0)
    ),
    "lognormal, σ 1": Distribution(
        lambda g, shape: g.lognormal(0.0, 1.0, shape), lambda x: stats.lognorm.sf(x, 1.0)
    ),
    "Student's t, 3 dof": Distribution(
        lambda g, shape: g.standard_t(3.0, shape), lambda x: stats.t.sf(x, 3.0)
    ),
    "two batches": Distribution(
        _mixture, lambda x: (1 - RARE) * stats.norm.sf(x) + RARE * stats.norm.sf(x, 3.0, 1.5)
    ),
}
