"""Pairs to learn from: a normal part as it may lie, the same damaged, and where.

The damage is that of training/defects.py, and two kinds of its own: large regions of another part, and
texture wiped away. Most is painted in the windows that the head is shown, and on their scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from training import shapes
from training.defects import damage

NORMAL = 0.35  # share of the windows that stay as they are
WHOLE = 0.2  # share of the parts that are also damaged on the scale of the whole part
DISPLACED, SMEARED = 0.3, 0.12  # shares of these kinds, the first on the scale of the whole part alone
MOST = 2  # defects in one window
TURNED = 0.8  # share of the parts that are turned, for turning costs sharpness
VISIBLE = 12  # grey levels

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Window = tuple[slice, slice]  # rows and columns


class Painted(NamedTuple):
    """normal, damaged: (S, S, 3) uint8 RGB. mask: (S, S) bool, where they visibly differ."""

    normal: Image
    damaged: Image
    mask: Mask


def painted(
    image: Image, donor: Image, region: Mask, windows: Sequence[Window], rng: np.random.Generator
) -> Painted:
    """A part (S, S, 3) as it is or damaged in its region (S, S).

    windows: where it is looked at closely; the damage there is on their scale.
    """
    gain, shift = rng.uniform(0.95, 1.05), rng.uniform(-6, 6)
    image, donor = (np.clip(i * gain + shift, 0, 255).astype(np.uint8) for i in (image, donor))
    bad, mask = image, np.zeros(image.shape[:2], np.bool_)
    if rng.random() < WHOLE:
        if rng.random() < DISPLACED:
            bad, mask = displaced(image, donor, rng)
        else:
            bad, mask = _one(image, donor, region, rng)
    for window in windows:
        for _ in range(int(rng.integers(1, MOST + 1)) if rng.random() >= NORMAL else 0):
            piece, patches = np.ascontiguousarray(bad[window]), np.ascontiguousarray(donor[window])
            done, where = _one(piece, patches, np.ascontiguousarray(region[window]), rng)
            bad, mask = bad.copy(), mask.copy()
            bad[window], mask[window] = done, mask[window] | where
    return Painted(image, bad, mask)


def _one(image: Image, donor: Image, region: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
    region = region if region.any() else np.ones_like(region)
    if rng.random() < SMEARED:
        return smeared(image, region, rng)
    defect = damage(image, rng, donor=donor, region=region)
    return defect.image, defect.mask


def displaced(image: Image, donor: Image, rng: np.random.Generator) -> tuple[Image, Mask]:
    """A large region filled from a shifted donor: a part, or much of it, out of place or gone."""
    height, width = image.shape[:2]
    where = _large(image.shape[:2], rng.uniform(0.15, 0.75, 2), rng)
    alpha = cv2.GaussianBlur(where, (0, 0), rng.uniform(0.002, 0.016) * width)
    shift = (int(rng.integers(-height // 3, height // 3 + 1)), int(rng.integers(-width // 3, width // 3 + 1)))
    return _laid(image, np.roll(donor, shift, (0, 1)), alpha)


def smeared(image: Image, region: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
    """Texture wiped away: a region blurred and of another brightness, as glue, burrs and worn places are."""
    side = image.shape[0]
    where = _large(image.shape[:2], rng.uniform(0.05, 0.6, 2), rng, shapes.somewhere(region, rng))
    alpha = cv2.GaussianBlur(where, (0, 0), max(0.5, rng.uniform(0.002, 0.03) * side))
    flat = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.02, 0.15) * side).astype(np.float32)
    step = rng.uniform(5, 50) * rng.choice([-1.0, 1.0])
    return _laid(image, np.clip(flat * rng.uniform(0.7, 1.1) + step, 0, 255), alpha)


def _large(
    shape: tuple[int, int],
    shares: NDArray[np.float64],
    rng: np.random.Generator,
    centre: tuple[float, float] | None = None,
) -> NDArray[np.float32]:
    """A blob or a rectangle of this share of each side, which may reach out: (H, W), 0 or 1."""
    height, width = shape
    tall, wide = (max(4, int(s)) for s in shares * shape)
    form = shapes.blob((tall, wide), rng) if rng.random() < 0.7 else np.ones((tall, wide), np.bool_)
    row, column = centre if centre is not None else (rng.uniform(0, height), rng.uniform(0, width))
    canvas = np.zeros((height + 2 * tall, width + 2 * wide), np.float32)
    top, left = int(row) + tall // 2, int(column) + wide // 2
    canvas[top : top + tall, left : left + wide] = form
    return np.ascontiguousarray(canvas[tall : tall + height, wide : wide + width])


def _laid(image: Image, layer: NDArray[np.generic], alpha: NDArray[np.generic]) -> tuple[Image, Mask]:
    """Layer over image, and where that is seen: one region, not its grains."""
    opacity = np.asarray(alpha, np.float32)[..., None]
    bad = np.rint(image * (1 - opacity) + np.asarray(layer, np.float32) * opacity).astype(np.uint8)
    change = np.abs(bad.astype(np.int16) - image).max(axis=2).astype(np.float32)
    visible = (cv2.GaussianBlur(change, (0, 0), 1) > VISIBLE).astype(np.uint8)
    closed = cv2.morphologyEx(visible, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    return bad, closed.astype(np.bool_) & (opacity[..., 0] > 0.2)


def lying(
    image: Image, region: Mask, symmetries: Sequence[str], rng: np.random.Generator
) -> tuple[Image, Mask]:
    """A part (S, S, 3) and its region (S, S) as it might also lie: mirrored or turned."""
    both = np.dstack([image, region.astype(np.uint8)])
    if "flip-x" in symmetries and rng.random() < 0.5:
        both = both[:, ::-1]
    if "flip-y" in symmetries and rng.random() < 0.5:
        both = both[::-1]
    if "turn-90" in symmetries:
        both = np.rot90(both, int(rng.integers(4)))
    both = np.ascontiguousarray(both)
    if "turn" in symmetries and rng.random() < TURNED:
        side = both.shape[0]
        matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), rng.uniform(0, 360), 1.0)
        how, border = cv2.INTER_CUBIC, cv2.BORDER_REPLICATE
        both = np.asarray(cv2.warpAffine(both, matrix, (side, side), flags=how, borderMode=border))
    return np.ascontiguousarray(both[..., :3], np.uint8), both[..., 3] > 0
