"""From reconstruction to score map to image score.

Gaussian windows are separable and mirror the border: no zero padding, hence no bright frame round the map.
A single map is filtered by matrix products, G X Gᵀ, with the mirror folded into G, which is zero but for a
band; the many planes of SSIM by depthwise convolutions over channels that lie side by side in memory.
"""

from __future__ import annotations

from functools import cache
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from inspector.model.records import Scoring
from inspector.model.tracing import converting

SSIM_SIGMA = 1.5
SSIM_RADIUS = 5  # a window of 11
DATA_RANGE = 2.0  # pictures are in [-1, 1]
STRETCH = 32  # pixels that are looked at together when the highest are wanted
TRUNCATE = 4.0  # the smoothing window ends at 4 σ, as scipy's does


def gaussian(sigma: float, radius: int) -> NDArray[np.float64]:
    """(2 · radius + 1,) window, sum 1."""
    kernel = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    return np.asarray(kernel / kernel.sum())


def gaussian_matrix(size: int, sigma: float, radius: int) -> Tensor:
    """(size, size) matrix that filters a line of pixels; the border is mirrored (scipy "mirror")."""
    offsets, kernel = np.arange(-radius, radius + 1), gaussian(sigma, radius)
    period = max(2 * size - 2, 1)
    positions = np.abs((np.arange(size)[:, None] + offsets) % period)
    positions = np.minimum(positions, period - positions)  # mirror, without repeating the edge
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], positions), kernel)
    return torch.from_numpy(matrix)


@cache  # whole and for good: a CUDA graph reads these where they lie
def _matrix(size: int, sigma: float, radius: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # the cache serves training and inference alike
        return gaussian_matrix(size, sigma, radius).to(device, torch.float32)


def blur(x: Tensor, sigma: float, radius: int) -> Tensor:
    """Gaussian filter over the last two dimensions: (..., H, W) -> (..., H, W), float32."""
    h, w = int(x.shape[-2]), int(x.shape[-1])
    if x.numel() == h * w and not converting():  # OpenVINO knows no strided views
        return _turned(_turned(x.reshape(h, w), sigma, radius), sigma, radius).reshape(x.shape)
    return _matrix(h, sigma, radius, x.device) @ x @ _matrix(w, sigma, radius, x.device).T


def _turned(x: Tensor, sigma: float, radius: int) -> Tensor:
    """Filtered along its lines and transposed: (H, W) -> (W, H). Twice is the whole filter."""
    bands = _bands(x.shape[1], sigma, radius, x.device)
    count, _, reach = bands.shape
    step = (x.shape[1] - reach) // max(count - 1, 1)
    x = x.contiguous()
    seen = x.as_strided((count, reach, x.shape[0]), (step, 1, x.shape[1]), x.storage_offset())
    return torch.bmm(bands, seen).flatten(0, 1)


@cache
def _bands(size: int, sigma: float, radius: int, device: torch.device) -> Tensor:
    """(n, size / n, reach): the rows of _matrix() in n blocks, each cut to an equal stretch of columns.

    The stretches begin at equal steps, so that no picture is copied, and hold all that is not zero. n is what
    leaves the fewest products.
    """
    with torch.inference_mode(False):
        counts = [n for n in range(1, size + 1) if size % n == 0 and size // n > radius]
        count = min(counts, key=lambda n: size // n + radius * (n - 1), default=1)
        height, reach = size // count, size // count + radius * (count - 1)
        blocks = _matrix(size, sigma, radius, device).view(count, height, size)
        starts = [block * (height - radius) for block in range(count)]
        pieces = [block[:, at : at + reach] for block, at in zip(blocks, starts, strict=True)]
        return torch.stack(pieces).contiguous()


@cache
def _window(planes: int, sigma: float, radius: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        kernel = torch.from_numpy(gaussian(sigma, radius)).to(device, torch.float32)
        return kernel.view(1, 1, -1, 1).repeat(planes, 1, 1, 1)


def blur_inside(x: Tensor, sigma: float, radius: int) -> Tensor:
    """The same without a border: (B, P, H, W) -> (B, P, H - 2 · radius, W - 2 · radius), for many planes."""
    window = _window(x.shape[1], sigma, radius, x.device)
    x = F.conv2d(x.contiguous(memory_format=torch.channels_last), window, groups=x.shape[1])
    return F.conv2d(x, window.transpose(2, 3), groups=x.shape[1]).contiguous()


def ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity round every pixel: (B, C, H, W) in [-1, 1] twice -> (B, C, H, W).

    Wang et al. 2004: Gaussian window 11, σ 1.5, K1 0.01, K2 0.03, data range 2.
    """
    c1, c2 = (0.01 * DATA_RANGE) ** 2, (0.03 * DATA_RANGE) ** 2
    # planes one after the other but for the blur: arithmetic is slow on every fourth three numbers
    x, y = (F.pad(p.contiguous(), [SSIM_RADIUS] * 4, mode="reflect") for p in (x, y))
    moments = torch.cat([x, y, x * x + y * y, x * y], dim=1)
    mx, my, squares, mxy = blur_inside(moments, SSIM_SIGMA, SSIM_RADIUS).chunk(4, dim=1)
    means, product = mx * mx + my * my, mx * my
    return (2 * product + c1) * (2 * (mxy - product) + c2) / ((means + c1) * (squares - means + c2))


def l2_map(x: Tensor, y: Tensor) -> Tensor:
    """Squared error of every pixel, summed over the channels (eq. 11): (B, C, H, W) twice -> (B, H, W)."""
    return (x - y).square().sum(dim=1)


def picture_error(x: Tensor, y: Tensor, scoring: Scoring) -> Tensor:
    """Weighted L2 and SSIM error of every pixel: (B, C, H, W) in [-1, 1] twice -> (B, H, W) float32."""
    with torch.autocast(x.device.type, enabled=False):
        x, y = x.float().contiguous(), y.float().contiguous()
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
    if pixels.shape[1] % STRETCH == 0 and count < pixels.shape[1] // STRETCH:
        # the highest pixels lie in as many stretches: in those with the highest peaks
        stretches = pixels.reshape(len(pixels), -1, STRETCH)
        best = stretches.amax(dim=2).topk(count, dim=1, sorted=False).indices
        pixels = stretches.gather(1, best[:, :, None].expand(-1, -1, STRETCH)).flatten(1)
    return pixels.topk(count, dim=1).values.mean(dim=1)
