"""A memory that is not learned but chosen: features of normal parts, to measure distances from.

After PatchCore (Roth et al., CVPR 2022), a bank for each level by itself: on which scale a defect shows
differs from part to part, and the level that shows it must not drown in the others. How far off a normal
place lies depends on what it shows: more where the surface is rough or bright. So each slot knows how far
from it is usual, if that is more than elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inspector.model.memory import linear

COLUMNS = 100  # that slots are laid out in, at most, to look for the nearest


class MemoryBank(nn.Module):
    """N features of normal parts, measured against on a grid of side × side places."""

    slots: Tensor  # (N, C)
    usual: Tensor  # (N,) mean distance of normal features whose nearest slot it is, or of all if that is more
    spread: Tensor  # (N,) its standard deviation, or a share of that of all
    centre: Tensor  # (C,)

    def __init__(self, slots: int, channels: int, side: int):
        super().__init__()
        self.side = side
        self.register_buffer("slots", torch.zeros(slots, channels))
        self.register_buffer("usual", torch.zeros(slots))
        self.register_buffer("spread", torch.ones(slots))
        self.near: nn.Linear | None = None  # for inference: x·s - |s|²/2 for each slot s, centred

    def forward(self, features: Tensor) -> Tensor:
        """How far every place is from its nearest slot, in standard deviations above what is usual there:
        (B, C, H, W) -> (B, side, side).
        """
        distance, slot = self.nearest(self.rows(features))
        return ((distance - self.usual[slot]) / self.spread[slot]).reshape(-1, self.side, self.side)

    def nearest(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Distance to the nearest slot, and which that is: (..., n, C) -> (..., n) twice."""
        if self.near is not None:  # |x - s|² = |x|² - 2 (x·s - |s|²/2)
            x = rows - self.centre
            closest, slot = highest(self.near(x))
            return (x.square().sum(dim=-1) - 2 * closest).clamp(min=0).sqrt(), slot
        centre = self.slots.mean(dim=0)  # nearer to the origin, less is lost to rounding
        distance, slot = torch.cdist(rows - centre, self.slots - centre).min(dim=-1)
        return distance, slot

    def for_inference(self) -> None:
        """Centre the slots once; they are not to change any more."""
        self.centre = self.slots.mean(dim=0)
        slots = self.slots - self.centre
        self.near = linear(slots, -slots.square().sum(dim=1) / 2)

    def rows(self, features: Tensor) -> Tensor:
        """Features as they are compared: (B, C, H, W) -> (B, side², C)."""
        same = features.shape[-2:] == (self.side, self.side)
        pooled = features if same else F.adaptive_avg_pool2d(features, self.side)
        return pooled.flatten(2).transpose(1, 2)


def highest(x: Tensor) -> tuple[Tensor, Tensor]:
    """x.max(dim=-1) in half its time, for a CPU looks for an index number by number.

    (..., n) -> (...) twice.
    """
    columns = x.reshape(*x.shape[:-1], -1, gcd(x.shape[-1], COLUMNS))
    top, column = columns.amax(dim=-2).max(dim=-1)
    place = column[..., None, None].expand(*column.shape, columns.shape[-2], 1)
    return top, column + columns.shape[-1] * columns.gather(-1, place).squeeze(-1).argmax(dim=-1)


def banked(sides: Sequence[int], scales: int) -> list[tuple[int, int]]:
    """(index of the level, places a side) of each bank: each level at its own scale, then at coarser ones."""
    return [(k, side >> step) for step in range(scales) for k, side in enumerate(sides) if side >> step]
