"""The scores that a threshold was set on, kept beside the weights: what later parts are compared with."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Sample:
    """One entry for each calibration part, float64, in the order in which they were taken.

    scores: (n,). brightness (mean grey, 0 to 1), sharpness and highlight: (n,) each, or (0,) where not
    measured.
    """

    scores: NDArray[np.float64]
    brightness: NDArray[np.float64]
    sharpness: NDArray[np.float64]
    highlight: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))


def to_bytes(sample: Sample) -> bytes:
    """As a safetensors file."""
    arrays = {f.name: np.ascontiguousarray(getattr(sample, f.name), np.float64) for f in fields(Sample)}
    return safetensors.numpy.save(arrays)


def from_bytes(data: bytes) -> Sample:
    """What to_bytes() made. Raises SafetensorError or KeyError for anything else."""
    arrays = safetensors.numpy.load(data)
    arrays.setdefault("highlight", np.empty(0))  # the first bundles were calibrated without it
    return Sample(**{f.name: arrays[f.name] for f in fields(Sample)})
