"""Score a test set with a calibrated model and measure it. Nothing here may change the model.

Maps and masks are compared at 256 × 256, whatever the method's input size and the camera's resolution, so
that methods of different size are measured alike. Maps are resized linearly (by area where they shrink). A
pixel of the mask is defective where at least half of its area is; a region too small for that keeps every
pixel that it touches, so that no defect vanishes. A defective part whose mask is empty or missing is left out
of the pixel metrics; it counts for the image metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from inspector.errors import DataError, TrainingError
from inspector.model.engine import Engine
from training.data import read_image
from training.datasets import Sample, read_mask
from training.metrics import PixelCurves

SIZE = 256  # pixels a side of the maps and masks that are compared
ASPECT = 0.01  # relative; a mask of another shape than its image belongs to another image

Roi = tuple[int, int, int, int]
Pixels = TypeVar("Pixels", bound=NDArray[np.generic])


@dataclass(frozen=True)
class Evaluation:
    """A test set as the model saw it. scores, brightness, milliseconds: (n,), in the order of samples."""

    samples: tuple[Sample, ...]
    scores: NDArray[np.float64]
    brightness: NDArray[np.float64]  # mean value of each image
    milliseconds: NDArray[np.float64]  # preprocessing, model and map of one part, without reading the file
    pixels: PixelCurves
    without_mask: tuple[Path, ...]  # defective, but left out of the pixel metrics

    @property
    def labels(self) -> NDArray[np.bool_]:
        """(n,), True for defective parts."""
        return np.array([sample.defective for sample in self.samples], dtype=bool)


def evaluate(
    engine: Engine, samples: Sequence[Sample], roi: Roi | None = None, *, progress: bool = True
) -> Evaluation:
    """Score every sample, one at a time as on the line. Raises DataError, TrainingError."""
    scores, brightness, milliseconds, without_mask = [], [], [], []
    pixels = PixelCurves()
    engine.warm_up()
    for sample in tqdm(samples, desc="test set", unit="part", leave=False, disable=not progress):
        image = read_image(sample.path)
        scored = engine.score(image)
        if not np.isfinite(scored.score):
            raise TrainingError(f"{sample.path} scored {scored.score}: training diverged; lower its rate.")
        scores.append(scored.score)
        brightness.append(cropped(image, roi).mean())
        milliseconds.append(sum(scored.stages.values()))
        mask = sample_mask(sample, image.shape[:2], roi)
        if sample.defective and (mask is None or not mask.any()):
            without_mask.append(sample.path)
            continue
        small = None if mask is None else shrunk(mask, SIZE)
        pixels.add(resized(scored.map, SIZE), small)
    return Evaluation(
        tuple(samples),
        np.array(scores),
        np.array(brightness),
        np.array(milliseconds),
        pixels,
        tuple(without_mask),
    )


def sample_mask(sample: Sample, shape: tuple[int, ...], roi: Roi | None) -> NDArray[np.bool_] | None:
    """The sample's mask in the image's shape (H, W), cut to what the model sees. Raises DataError."""
    if sample.mask is None:
        return None
    mask = read_mask(sample.mask)
    if abs(mask.shape[0] * shape[1] / (mask.shape[1] * shape[0]) - 1) > ASPECT:
        raise DataError(
            f"{sample.mask} is {mask.shape[1]} × {mask.shape[0]} and {sample.path} {shape[1]} × {shape[0]}: "
            "expected the mask of this image, in its shape."
        )
    if mask.shape != shape:
        size = (shape[1], shape[0])
        mask = np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) != 0)
    return cropped(mask, roi)


def cropped(image: Pixels, roi: Roi | None) -> Pixels:
    """Image (H, W[, 3]) within roi (x, y, width, height)."""
    if roi is None:
        return image
    x, y, width, height = roi
    return cast(Pixels, image[y : y + height, x : x + width])


def resized(score_map: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """(S, S) → (size, size)."""
    how = cv2.INTER_AREA if score_map.shape[0] > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(score_map, (size, size), interpolation=how), dtype=np.float32)


def shrunk(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """(H, W) → (size, size), True where half is defective; small regions keep all that they touch."""
    height, width = mask.shape
    covered = mask.astype(np.float32)
    # INTER_AREA averages only where no axis grows, so axes that shrink come first
    for shape in ((min(width, size), min(height, size)), (size, size)):
        covered = np.asarray(cv2.resize(covered, shape, interpolation=cv2.INTER_AREA), dtype=np.float32)
    half, touched = covered >= 0.5, covered > 0
    _, region = cv2.connectedComponents(touched.astype(np.uint8), connectivity=8)
    lost = touched & ~np.isin(region, region[half])
    return np.asarray(half | lost)
