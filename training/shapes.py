"""The shapes of synthetic defects: blobs, strokes, Perlin noise; masks and floats only, no images."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]


def somewhere(region: Mask, rng: np.random.Generator) -> tuple[float, float]:
    """(row, column) of a random True pixel of the region (H, W)."""
    flat = np.flatnonzero(region)
    row, column = divmod(int(flat[rng.integers(flat.size)]), region.shape[1])
    return float(row), float(column)


def blob(shape: tuple[int, int], rng: np.random.Generator) -> Mask:
    """An irregular closed shape that fills (H, W) bool: an ellipse whose radius wavers."""
    height, width = shape
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones_like(angles)
    for harmonic in (2, 3, 5):
        radius += rng.uniform(0, 0.7 / harmonic) * np.cos(harmonic * angles + rng.uniform(0, 2 * np.pi))
    radius /= radius.max()
    xs = (0.5 + 0.5 * radius * np.cos(angles)) * (width - 1)
    ys = (0.5 + 0.5 * radius * np.sin(angles)) * (height - 1)
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [np.rint(np.stack([xs, ys], axis=1)).astype(np.int32)], 1)
    return canvas.astype(np.bool_)


def spot(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> Mask:
    """A disc, (H, W) bool."""
    ys, xs = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((ys - centre[0]) ** 2 + (xs - centre[1]) ** 2 <= radius**2, np.bool_)


def stroke(
    shape: tuple[int, ...], start: tuple[float, float], length: float, thick: float, rng: np.random.Generator
) -> Floats:
    """A hand-drawn line from start (row, column) on, thinner at its end: opacity (H, W) in [0, 1]."""
    steps = 24
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, rng.uniform(0.01, 0.2), steps))
    points = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1) * length / steps, axis=0)
    points = np.vstack([np.zeros((1, 2)), points]) + np.array([start[1], start[0]])
    finer, bits = 4, 3
    canvas = np.zeros((shape[0] * finer, shape[1] * finer), np.uint8)
    fixed = np.rint(points * finer * 2**bits).astype(np.int32)
    for index in range(steps):
        here = max(1, round(thick * finer * (1 - 0.6 * index / steps)))
        cv2.line(canvas, fixed[index].tolist(), fixed[index + 1].tolist(), 255, here, cv2.LINE_AA, bits)
    small = cv2.resize(canvas, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(small / 255, np.float32)


def perlin(shape: tuple[int, int], cells: int, rng: np.random.Generator) -> Floats:
    """Gradient noise (Perlin 1985) in about [-1, 1], (H, W), `cells` cells along the longer side."""
    height, width = shape
    size = max(height, width) / cells
    angles = rng.uniform(0, 2 * np.pi, (int(height / size) + 2, int(width / size) + 2))
    ys, xs = np.arange(height) / size, np.arange(width) / size
    rows, columns = ys.astype(int), xs.astype(int)
    v, u = (ys - rows)[:, None], (xs - columns)[None]

    def corner(down: int, right: int) -> NDArray[np.float64]:
        angle = angles[np.ix_(rows + down, columns + right)]
        return np.asarray(np.cos(angle) * (u - right) + np.sin(angle) * (v - down))

    fade_v, fade_u = (t**3 * (t * (t * 6 - 15) + 10) for t in (v, u))
    top = corner(0, 0) * (1 - fade_u) + corner(0, 1) * fade_u
    bottom = corner(1, 0) * (1 - fade_u) + corner(1, 1) * fade_u
    return np.asarray((top * (1 - fade_v) + bottom * fade_v) * np.sqrt(2), np.float32)
