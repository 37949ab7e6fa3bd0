"""What is found on normal parts without learning: banks of features, and how large errors usually are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from inspector.model.bank import MemoryBank
from inspector.model.weighing import Weighing
from training.coreset import coreset

POOL = 60_000  # features that a bank is chosen from
ROUNDING = 1e-3  # of a distance, in shares of the features: it is a difference of squares in float32


@torch.no_grad()
def fill(banks: nn.ModuleList, parts: Iterable[list[Tensor]], count: int, generator: torch.Generator) -> None:
    """Fill banks from so many normal parts, of each of which come features for each bank, (1, C, H, W)."""
    pools: list[list[Tensor]] = [[] for _ in banks]
    each = -(-POOL // count)
    for features in parts:
        for pool, bank, level in zip(pools, banks, features, strict=True):
            rows = cast(MemoryBank, bank).rows(level)[0]
            pool.append(rows[torch.randperm(len(rows), generator=generator)[:each].to(rows.device)])
    for pool, bank in zip(pools, cast(Iterable[MemoryBank], banks), strict=True):
        bank.slots.copy_(coreset(torch.cat(pool), len(bank.slots), generator))


@torch.no_grad()
def usual(network: Weighing, parts: Iterable[list[Tensor]]) -> None:
    """Set centre and spread of each error from those of held-out normal parts, (1, side, side) each."""
    for k, of_parts in enumerate(zip(*parts, strict=True)):
        values = torch.cat(of_parts)
        network.centre[k] = values.mean()
        network.spread[k] = values.std(correction=min(1, len(values.flatten()) - 1)).clamp(min=1e-6)


def rounding(banks: nn.ModuleList) -> Tensor:
    """What distances from each bank are uncertain by, (banks,): no spread may be finer."""
    slots = [bank.slots - bank.slots.mean(dim=0) for bank in cast(Iterable[MemoryBank], banks)]
    return ROUNDING * torch.stack([x.square().sum(dim=1).mean().sqrt() for x in slots])
