"""Maps of several sizes enlarged to one and added up.

Bilinear enlarging is a matrix product along each axis, so the product along the second axis can add as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F


def enlarged_sum(maps: Sequence[Tensor], size: int) -> Tensor:
    """Sum of maps, each bilinearly enlarged: (B, side, side) each, float32 -> (B, size, size)."""
    device = maps[0].device
    with torch.autocast(device.type, enabled=False):  # a map is never rounded to 16 bits
        across = torch.cat([m @ _lines(m.shape[-1], size, device).T for m in maps], dim=1)  # (B, sides, size)
        return _together(tuple(m.shape[-1] for m in maps), size, device) @ across


@cache  # for good: a CUDA graph reads these where they lie
def _lines(side: int, size: int, device: torch.device) -> Tensor:
    """(size, side): enlarges a line of side numbers as F.interpolate does without aligned corners."""
    with torch.inference_mode(False):  # the cache serves training and inference alike
        unit = torch.eye(side)[None]
        return F.interpolate(unit, size, mode="linear", align_corners=False)[0].T.contiguous().to(device)


@cache
def _together(sides: tuple[int, ...], size: int, device: torch.device) -> Tensor:
    """(size, sum of sides): _lines() of each, side by side."""
    with torch.inference_mode(False):
        return torch.cat([_lines(side, size, device) for side in sides], dim=1)
