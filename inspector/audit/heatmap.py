"""Score maps, small enough for a database row and still true at their peaks."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.audit.records import Heatmap, Region
from inspector.errors import LogError

SIDE = 128  # longest side of a packed map


def pack(score_map: NDArray[np.float32], scale: float, region: Region | None = None) -> Heatmap:
    """Max-pool a map (H, W) to at most SIDE and quantise it to 8 bits.

    scale: the value that 255 stands for, in the map's units; larger ones saturate. Twice the threshold
    keeps the threshold in the middle. region: where the map lies in the frame (x, y, width, height).
    A value that is not a number is packed as 255, never as harmless.
    """
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"heatmap scale must be a positive number, found {scale}")
    bounded = np.clip(np.nan_to_num(score_map, nan=scale), 0, scale)
    pooled = _max_pool(bounded, -(-max(score_map.shape) // SIDE))
    levels = np.rint(pooled * (255 / scale)).astype(np.uint8)
    ok, png = cv2.imencode(".png", levels)
    if not ok:
        raise LogError(f"OpenCV could not write a PNG of {levels.shape} {levels.dtype}")
    height, width = levels.shape
    return Heatmap(png=bytes(png), scale=float(scale), width=width, height=height, region=region)


def unpack(heatmap: Heatmap) -> NDArray[np.float32]:
    """The packed map (height, width) in the map's units, to within scale / 510 where it did not saturate."""
    levels = cv2.imdecode(np.frombuffer(heatmap.png, np.uint8), cv2.IMREAD_GRAYSCALE)
    if levels is None or levels.shape != (heatmap.height, heatmap.width):
        raise LogError("a heatmap in the log is not the PNG that was stored; the log is damaged")
    return (levels * np.float32(heatmap.scale / 255)).astype(np.float32)


def _max_pool(values: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    """(H, W), no value below 0 → (⌈H/block⌉, ⌈W/block⌉)."""
    height, width = values.shape
    padding = ((0, -height % block), (0, -width % block))
    padded = np.pad(values, padding, constant_values=0)
    rows, columns = padded.shape[0] // block, padded.shape[1] // block
    pooled: NDArray[np.float32] = (
        padded.reshape(rows, block, -1).max(axis=1).reshape(rows, columns, block).max(axis=2)
    )
    return pooled
