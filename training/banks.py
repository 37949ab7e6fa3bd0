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
ALIKE = 30  # slots that are taken together, or too few features tell how far from one is usual
PRIOR = 10  # features that the mean of all is worth beside those of ALIKE slots
PIECE = 4096  # features that are looked at together
FAINTEST = 1e-6  # share of the features that float32 cannot tell from nothing
QUIETEST = 0.6  # of how much distances differ from what is usual at all slots: no spread is finer
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
        rows = torch.cat(pool)
        chosen = coreset(rows, len(bank.slots), generator)
        bank.slots.copy_(rows[chosen])
        others = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        others[chosen] = False
        settle(bank, rows[others])


@torch.no_grad()
def settle(bank: MemoryBank, rows: Tensor) -> None:
    """Find how far from each slot, and from those most like it, these other normal features are, (n, C).

    From the few that there may be the mean of all is not forgotten. A rough place is forgiven what is usual
    there; a quiet one is not magnified, or a little other light on an empty background drowns the part. With
    none, distances stay as they are.
    """
    bank.usual.zero_()
    bank.spread.fill_(1)
    if not len(rows):
        return
    found = [bank.nearest(piece) for piece in torch.split(rows, PIECE)]
    distance, slot = (torch.cat(values) for values in zip(*found, strict=True))
    seen = torch.stack([torch.ones_like(distance), distance, distance.square()]).double()
    of_slot = torch.zeros(3, len(bank.slots)).to(seen).index_add_(1, slot, seen)
    slots = bank.slots - bank.slots.mean(dim=0)
    alike = torch.cdist(slots, slots).topk(min(ALIKE, len(slots)), largest=False).indices
    count, total, square = of_slot[:, alike].sum(dim=2) + PRIOR * seen.mean(dim=1, keepdim=True)
    usual = total / count
    spread = (square / count - usual.square()).clamp(min=0).sqrt()
    overall = float((distance - usual[slot]).std(correction=0))
    bank.usual.copy_(usual.clamp(min=float(distance.double().mean())))
    bank.spread.copy_(spread.clamp(min=QUIETEST * overall)).clamp_(min=_noise(bank))


@torch.no_grad()
def usual(network: Weighing, parts: Iterable[list[Tensor]]) -> None:
    """Set centre and spread of each error from those of held-out normal parts, (1, side, side) each."""
    for k, of_parts in enumerate(zip(*parts, strict=True)):
        values = torch.cat(of_parts)
        network.centre[k] = values.mean()
        network.spread[k] = values.std(correction=min(1, len(values.flatten()) - 1)).clamp(min=1e-6)


def rounding(banks: nn.ModuleList) -> Tensor:
    """What each bank's error is uncertain by, (banks,): no spread may be finer."""
    return torch.stack([_noise(bank) / bank.spread.min() for bank in cast(Iterable[MemoryBank], banks)])


def _noise(bank: MemoryBank) -> Tensor:
    """What distances are uncertain by; above 0 where all slots are the same as well."""
    centred = (bank.slots - bank.slots.mean(dim=0)).square().sum(dim=1).mean().sqrt()
    return torch.maximum(ROUNDING * centred, FAINTEST * bank.slots.norm(dim=1).mean()).clamp(min=FAINTEST)
