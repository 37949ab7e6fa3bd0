"""Several errors of a part made one map: each in standard deviations above the usual, their weighted mean."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from inspector.model.enlarging import enlarged_sum
from inspector.model.network import Network


class Weighing(Network):
    """A network with several errors, of each of which it knows what is usual on normal parts."""

    centre: Tensor  # (errors,) mean of held-out normal parts
    spread: Tensor  # (errors,) its standard deviation
    weight: Tensor  # (errors,) in the map, sum 1
    read: list[int]  # which errors are computed

    def weigh(self, errors: int) -> None:
        """Have this many errors, which count the same until training says otherwise."""
        self.register_buffer("centre", torch.zeros(errors))
        self.register_buffer("spread", torch.ones(errors))
        self.register_buffer("weight", torch.full((errors,), 1 / errors))
        self.read = list(range(errors))

    def for_inference(self) -> None:
        """Errors that have no weight are not computed any more."""
        super().for_inference()
        self.read = [k for k, weight in enumerate(self.weight.tolist()) if weight]

    @abstractmethod
    def errors_of(self, x: Tensor) -> list[Tensor]:
        """Of x, (B, 3, S, S), each error that is read: (B, side, side)."""

    def unusual(self, errors: Sequence[Tensor]) -> list[Tensor]:
        """Each of these in standard deviations above the usual one."""
        return [(e - self.centre[k]) / self.spread[k] for k, e in zip(self.read, errors, strict=True)]

    def weighed(self, errors: Sequence[Tensor]) -> Tensor:
        """The map of the errors that are read: (B, side, side) each -> (B, S, S), >= 0."""
        by_side: dict[int, Tensor] = {}  # each size is enlarged once
        for k, error in zip(self.read, self.unusual(errors), strict=True):
            side, part = error.shape[-1], self.weight[k] * error
            by_side[side] = by_side[side] + part if side in by_side else part
        return enlarged_sum(list(by_side.values()), self.architecture.size).clamp(min=0)
