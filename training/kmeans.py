"""Spherical k-means: the directions that features of normal parts have, for a memory to start from."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

ROUNDS = 10


def kmeans(tokens: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Centres of spherical k-means, as long as the tokens are in the mean: (tokens, C) -> (count, C)."""
    unit = F.normalize(tokens, dim=1)
    order = torch.randperm(len(unit), generator=generator)
    centres = unit[order.repeat(-(-count // len(unit)))[:count].to(unit.device)].clone()
    for _ in range(ROUNDS):
        nearest = torch.cat([(piece @ centres.T).argmax(dim=1) for piece in torch.split(unit, 4096)])
        sums = torch.zeros_like(centres).index_add_(0, nearest, unit)
        used = torch.bincount(nearest, minlength=count) > 0
        centres = torch.where(used[:, None], F.normalize(sums, dim=1), centres)
    return torch.mul(centres, torch.linalg.vector_norm(tokens, dim=1).mean())
