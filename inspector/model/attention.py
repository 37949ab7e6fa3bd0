"""Coordinate attention (paper, section 3.3; Hou et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CoordinateAttention(nn.Module):
    """Gates every channel by where it is: one gate along the height, one along the width."""

    def __init__(self, dim: int, reduction: int = 32):
        super().__init__()
        hidden = max(8, dim // reduction)
        self.shared = nn.Sequential(nn.Conv2d(dim, hidden, 1), nn.BatchNorm2d(hidden), nn.Hardswish())
        self.height = nn.Conv2d(hidden, dim, 1)
        self.width = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) -> (B, C, H, W)."""
        h, w = x.shape[-2:]
        rows = x.mean(dim=3, keepdim=True)  # (B, C, H, 1)
        columns = x.mean(dim=2, keepdim=True).transpose(2, 3)  # (B, C, W, 1)
        f = self.shared(torch.cat([rows, columns], dim=2))  # (B, hidden, H + W, 1)
        f_rows, f_columns = f.split([h, w], dim=2)
        gate_h = self.height(f_rows).sigmoid()  # (B, C, H, 1)
        gate_w = self.width(f_columns.transpose(2, 3)).sigmoid()  # (B, C, 1, W)
        gated: Tensor = x * gate_h * gate_w
        return gated
