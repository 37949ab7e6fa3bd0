"""From reconstruction to score map to image score.

Gaussian windows are applied as two matrix products, G X Gᵀ, with the reflection at the border folded into
G: no zero padding, hence no bright frame round the map, and faster on a CPU than a depthwise convolution.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil

import numpy as np
import torch
from torch import Tensor

from inspector.model.records import Scoring

SSIM_SIGMA = 1.5
SSIM_RADIUS = 5  # a window of 11
DATA_RANGE = 2.0  # pictures are in [-1, 1]
TRUNCATE = 4.0  # the smoothing window ends at 4 σ, as scipy's does


def gaussian_matrix(size: int, sigma: float, radius: int) -> Tensor:
    """(size, size) matrix that filters a line of pixels; the border is mirrored (scipy "mirror")."""
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    period = max(2 * size - 2, 1)
    positions = np.abs((np.arange(size)[:, None] + offsets) % period)
    positions = np.minimum(positions, period - positions)  # mirror, without repeating the edge
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], positions), kernel)
    return torch.from_numpy(matrix)


@lru_cache(maxsize=16)
def _matrix(size: int, sigma: float, radius: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # the cache serves training and inference alike
        return gaussian_matrix(size, sigma, radius).to(device, torch.float32)


def blur(x: Tensor, sigma: float, radius: int) -> Tensor:
    """Gaussian filter over the last two dimensions: (..., H, W) -> (..., H, W), float32."""
    h, w = x.shape[-2:]
    return _matrix(h, sigma, radius, x.device) @ x @ _matrix(w, sigma, radius, x.device).T


def ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity round every pixel: (B, C, H, W) in [-1, 1] twice -> (B, C, H, W).

    Wang et al. 2004: Gaussian window 11, σ 1.5, K1 0.01, K2 0.03, data range 2.
    """
    c1, c2 = (0.01 * DATA_RANGE) ** 2, (0.03 * DATA_RANGE) ** 2
    moments = torch.stack([x, y, x * x, y * y, x * y])
    mx, my, mxx, myy, mxy = blur(moments, SSIM_SIGMA, SSIM_RADIUS).unbind()
    luminance = (2 * mx * my + c1) / (mx * mx + my * my + c1)
    structure = (2 * (mxy - mx * my) + c2) / (mxx - mx * mx + myy - my * my + c2)
    return luminance * structure


def l2_map(x: Tensor, y: Tensor) -> Tensor:
    """Squared error of every pixel, summed over the channels (eq. 11): (B, C, H, W) twice -> (B, H, W)."""
    return (x - y).square().sum(dim=1)


def picture_error(x: Tensor, y: Tensor, scoring: Scoring) -> Tensor:
    """Weighted L2 and SSIM error of every pixel: (B, C, H, W) in [-1, 1] twice -> (B, H, W) float32."""
    with torch.autocast(x.device.type, enabled=False):
        x, y = x.float(), y.float()
        error = scoring.l2_weight * l2_map(x, y)
        if scoring.ssim_weight:
            error = error + scoring.ssim_weight * (1 - ssim_map(x, y)).mean(dim=1)
        return error


def smooth(error: Tensor, sigma: float) -> Tensor:
    """Gaussian-smoothed map (paper, section 4.2): (B, S, S) -> (B, S, S); sigma in pixels, 0 for none."""
    if sigma == 0:
        return error
    return blur(error, sigma, int(TRUNCATE * sigma + 0.5))


def image_score(score_map: Tensor, scoring: Scoring) -> Tensor:
    """(B, S, S) smoothed map -> (B,) image scores. NaN anywhere in a map gives NaN."""
    pixels = score_map.flatten(1)
    if scoring.reduction == "max":
        return pixels.amax(dim=1)
    count = max(1, ceil(scoring.top_share * pixels.shape[1]))
    return pixels.topk(count, dim=1).values.mean(dim=1)
