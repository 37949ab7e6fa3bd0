"""Pairs to learn from: a normal part as it may lie, the same damaged, and where.

The damage is that of training/defects.py in windows of many sizes, so that both a scratch and half a part
out of place are seen, and two kinds of its own: large regions of another part, and texture wiped away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from training import shapes
from training.defects import damage

NORMAL = 0.25  # share of the parts that stay as they are
DISPLACED, SMEARED = 0.15, 0.15  # shares of the defects that are of these kinds
WINDOWS = (1.0, 0.5, 0.25)  # sides of the windows that defects are painted in, shares of the part's
LIKELY = (0.3, 0.4, 0.3)
MOST = 4  # defects in one part
SMALLEST = 32  # pixels, of a window
VISIBLE = 12  # grey levels

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]


class Painted(NamedTuple):
    """normal, damaged: (S, S, 3) uint8 RGB. mask: (S, S) bool, where they visibly differ."""

    normal: Image
    damaged: Image
    mask: Mask


def painted(image: Image, donor: Image, region: Mask, rng: np.random.Generator) -> Painted:
    """A part (S, S, 3) as it is or damaged in up to MOST places of its region (S, S)."""
    gain, shift = rng.uniform(0.95, 1.05), rng.uniform(-6, 6)
    image, donor = (np.clip(i * gain + shift, 0, 255).astype(np.uint8) for i in (image, donor))
    bad, mask = image, np.zeros(image.shape[:2], np.bool_)
    if rng.random() >= NORMAL:
        for _ in range(int(rng.integers(1, MOST + 1))):
            bad, more = _one(bad, donor, region, rng)
            mask = mask | more
    return Painted(image, bad, mask)


def _one(image: Image, donor: Image, region: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
    kind = rng.random()
    if kind < DISPLACED:
        return displaced(image, donor, rng)
    window = _window(region, rng)
    piece, patches = np.ascontiguousarray(image[window]), np.ascontiguousarray(donor[window])
    allowed = np.ascontiguousarray(region[window])
    if kind < DISPLACED + SMEARED:
        done, where = smeared(piece, allowed, rng)
    else:
        defect = damage(piece, rng, donor=patches, region=allowed)
        done, where = defect.image, defect.mask
    out, mask = image.copy(), np.zeros(image.shape[:2], np.bool_)
    out[window], mask[window] = done, where
    return out, mask


def _window(region: Mask, rng: np.random.Generator) -> tuple[slice, slice]:
    """A square round a place in the region."""
    side = region.shape[0]
    size = min(side, max(SMALLEST, int(side * rng.choice(WINDOWS, p=LIKELY))))
    row, column = shapes.somewhere(region, rng)
    top, left = (int(np.clip(c - size // 2, 0, side - size)) for c in (row, column))
    return slice(top, top + size), slice(left, left + size)


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
    if "turn" in symmetries:
        side = both.shape[0]
        matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), rng.uniform(0, 360), 1.0)
        both = np.asarray(cv2.warpAffine(both, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE))
    return np.ascontiguousarray(both[..., :3], np.uint8), both[..., 3] > 0
