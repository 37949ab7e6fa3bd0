"""Contact sheets: parts beside their heatmaps, to be looked at.

Heatmaps are drawn on the calibrated scale: the colour at a pixel depends on map / threshold alone, so that a
good part looks good. Yellow begins at the threshold; what lies below stays cool and faint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.errors import DataError
from inspector.model.preprocess import Image

RGB = NDArray[np.uint8]

PICTURE = 176  # pixels a side of one picture; a tile is two of them, part and heatmap
CAPTION = 36
GAP = 8
ACROSS = 5  # tiles in a row
INK, PAPER = (30, 30, 30), 255
OUTLINE, PEAK = (0, 255, 80), (255, 255, 255)
RIGHT, WRONG = (20, 120, 40), (190, 20, 20)

# map / threshold, red, green, blue, opacity; the colours are those of the station's own heatmaps
SCALE = np.array(
    [
        (0.0, 38, 50, 110, 0.0),
        (0.5, 30, 110, 170, 0.12),
        (0.9999, 90, 190, 150, 0.4),
        (1.0, 255, 220, 40, 0.6),
        (1.5, 240, 110, 20, 0.7),
        (2.0, 180, 0, 30, 0.75),
    ]
)


@dataclass(frozen=True)
class Tile:
    """One part: image (H, W) or (H, W, 3) uint8/uint16, map (S, S) of the same field, mask (H, W) or None."""

    image: Image
    map: NDArray[np.float32]
    mask: NDArray[np.bool_] | None
    name: str
    score: float
    defective: bool


def overlay(image: RGB, score_map: NDArray[np.float32], threshold: float) -> RGB:
    """The map over the image (H, W, 3), on the calibrated scale; the map (S, S) is resized to the image."""
    size = (image.shape[1], image.shape[0])
    resized = cv2.resize(score_map, size, interpolation=cv2.INTER_LINEAR)
    ratio = np.asarray(resized, dtype=np.float64) / max(threshold, 1e-12)
    *colour, opacity = (np.interp(ratio, SCALE[:, 0], SCALE[:, k]) for k in range(1, 5))
    grey = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=-1)
    mixed = grey * (1 - opacity[..., None]) + np.stack(colour, axis=-1) * opacity[..., None]
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def write(path: Path, title: str, threshold: float, sections: Sequence[tuple[str, Sequence[Tile]]]) -> None:
    """Write a sheet of titled sections as PNG or JPEG, by the suffix. Raises DataError if it cannot."""
    width = ACROSS * (2 * PICTURE + GAP) + GAP
    parts = [_heading(title, width, 0.6), _legend(width)]
    for heading, tiles in sections:
        parts.append(_heading(heading, width, 0.5))
        drawn = [_tile(tile, threshold) for tile in tiles]
        parts += [_row(drawn[k : k + ACROSS], width) for k in range(0, len(drawn), ACROSS)]
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet = cv2.cvtColor(np.concatenate(parts), cv2.COLOR_RGB2BGR)
    if not cv2.imwrite(str(path), sheet):
        raise DataError(f"{path} could not be written: check the suffix (.png, .jpg), space and permissions.")


def _tile(tile: Tile, threshold: float) -> RGB:
    side = (PICTURE, PICTURE)
    picture = np.asarray(cv2.resize(_rgb8(tile.image), side, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    heat = overlay(picture, tile.map, threshold)
    if tile.mask is not None:
        mask = cv2.resize(tile.mask.astype(np.float32), side, interpolation=cv2.INTER_AREA) > 0
        outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(heat, outline, -1, OUTLINE, 1)
    row, column = np.unravel_index(np.argmax(tile.map), tile.map.shape)
    peak = [int((k + 0.5) * PICTURE / n) for k, n in zip((column, row), tile.map.shape[::-1], strict=True)]
    cv2.circle(heat, peak, 5, PEAK, 1, cv2.LINE_AA)
    rejected = tile.score > threshold
    verdict = {
        (True, True): "REJECT",
        (True, False): "ESCAPE",
        (False, True): "FALSE REJECT",
        (False, False): "PASS",
    }[tile.defective, rejected]
    caption = np.full((CAPTION, 2 * PICTURE, 3), PAPER, np.uint8)
    _text(caption, tile.name, (1, 14), 0.4)
    compared = f"{tile.score:.4g} {'>' if rejected else '<='} {threshold:.4g}  {verdict}"
    _text(caption, compared, (1, 29), 0.4, RIGHT if rejected == tile.defective else WRONG)
    return np.concatenate([np.concatenate([picture, heat], axis=1), caption])


def _rgb8(image: Image) -> RGB:
    eight = (image >> 8 if image.dtype == np.uint16 else image).astype(np.uint8)
    return np.asarray(cv2.cvtColor(eight, cv2.COLOR_GRAY2RGB) if eight.ndim == 2 else eight, dtype=np.uint8)


def _row(tiles: Sequence[RGB], width: int) -> RGB:
    row = np.full((PICTURE + CAPTION + GAP, width, 3), PAPER, np.uint8)
    for k, tile in enumerate(tiles):
        left = GAP + k * (2 * PICTURE + GAP)
        row[: tile.shape[0], left : left + tile.shape[1]] = tile
    return row


def _heading(text: str, width: int, size: float) -> RGB:
    strip = np.full((30, width, 3), PAPER, np.uint8)
    _text(strip, text, (GAP, 20), size)
    return strip


def _legend(width: int) -> RGB:
    """The colour scale from 0 to twice the threshold, over mid-grey."""
    strip = np.full((34, width, 3), PAPER, np.uint8)
    length = 2 * PICTURE
    ramp = np.tile(np.linspace(0, 2, length, dtype=np.float32), (14, 1))
    strip[:14, GAP : GAP + length] = overlay(np.full((14, length, 3), 128, np.uint8), ramp, 1.0)
    for k, label in enumerate(("0", "threshold", "twice the threshold")):
        _text(strip, label, (GAP + k * length // 2, 28), 0.35)
    _text(strip, "green: mask of the defect; circle: highest value of the map", (length + 160, 12), 0.4)
    return strip


def _text(
    canvas: RGB, text: str, at: tuple[int, int], size: float, colour: tuple[int, int, int] = INK
) -> None:
    ascii_only = text.encode("ascii", "replace").decode()  # all that the font has
    cv2.putText(canvas, ascii_only, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)
