"""The memory of normal patterns (paper, section 3.2; Gong et al. 2019, MemAE)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inspector.model.tracing import converting

EPSILON = 1e-12


class Addressing(NamedTuple):
    """How each token read the memory, for the entropy loss and for statistics.

    weights: (B, L, N), every row sums to 1. empty: (B, L) bool, rows that the shrinkage emptied.
    """

    weights: Tensor
    empty: Tensor


class Memory(nn.Module):
    """Replaces every feature by a mixture of N learned slots, so that only what was learned can leave."""

    asleep = False  # while training lets features by, for they are not worth remembering yet

    def __init__(self, slots: int, dim: int, temperature: float):
        super().__init__()
        self.temperature = temperature
        self.match: nn.Linear | None = None  # the slots' directions …
        self.read: nn.Linear | None = None  # … and the slots, for inference
        self.slots = nn.Parameter(torch.empty(slots, dim).uniform_(-(dim**-0.5), dim**-0.5))  # (N, C)

    def for_inference(self) -> None:
        """Normalise the slots once; they are not to change any more."""
        slots = self.slots.detach()
        directions = F.normalize(slots, dim=-1, eps=EPSILON) / self.temperature
        self.match, self.read = linear(directions), linear(slots.T)

    def forward(self, z: Tensor) -> tuple[Tensor, Addressing]:
        """z: (B, L, C) -> what the memory holds instead (B, L, C), and how it was addressed."""
        with torch.autocast(z.device.type, enabled=False):  # the shrinkage needs more than 16 bits
            addressing = self.address(z.float())
            if self.read is not None:
                return self.read(addressing.weights), addressing
            return addressing.weights @ self.slots, addressing  # ẑ = ŵM, eq. 9

    @torch.no_grad()
    def start_from(self, features: Tensor) -> None:
        """Fill the slots with the first N of these features (tokens, C), repeating them if they are fewer."""
        index = torch.arange(len(self.slots), device=features.device) % len(features)
        self.slots.copy_(features[index])

    def address(self, z: Tensor) -> Addressing:
        """Addressing weights of the features z: (B, L, C)."""
        count = self.slots.shape[0]
        z = F.normalize(z, dim=-1, eps=EPSILON)
        if self.match is not None:
            return _shrunk(self.match(z).softmax(dim=-1))
        cosine = z @ F.normalize(self.slots, dim=-1, eps=EPSILON).T  # eq. 7
        w = (cosine / self.temperature).softmax(dim=-1)  # (B, L, N), eq. 8
        excess = w - 1 / count
        shrunk = excess.clamp(min=0) * w / (excess.abs() + EPSILON)  # eq. 10, λ = 1/N
        total = shrunk.sum(dim=-1, keepdim=True)
        empty = total <= 0
        # A row that matches all slots alike is shrunk to nothing. It keeps its unshrunk weights: they sum
        # to 1 as all others do, pass gradients, and let NaN through, where 0/0 or a zero row would not.
        weights = torch.where(total > 0, shrunk / total.clamp(min=EPSILON), w)  # L1 norm
        return Addressing(weights, empty.squeeze(-1))


def linear(matrix: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A fixed linear layer: x -> x @ matrix.T + bias; matrix: (O, I), bias: (O,)."""
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias is not None, device="meta")
    layer.weight = nn.Parameter(matrix.contiguous(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


def _shrunk(w: Tensor) -> Addressing:
    """Equation 10 without gradients, in fewer passes: ε matters only to a weight within 1e-10 of λ."""
    least = 1 / w.shape[-1]
    # both let NaN through; the quicker one OpenVINO does not know
    shrunk = w * (w > least) if converting() else F.threshold(w, least, 0.0)
    total = shrunk.sum(dim=-1, keepdim=True)
    empty = ~(total > 0)
    kept = empty.to(w.dtype)  # a choice by multiplying: torch.where takes longer than all the rest
    return Addressing(shrunk.add_(w * kept).div_(total + kept), empty.squeeze(-1))
