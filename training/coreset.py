"""Few features that stand for many: greedy k-center, as in PatchCore (Roth et al., CVPR 2022).

Chosen at random, most slots would hold what is common, and what is rare but normal would be an anomaly.
"""

from __future__ import annotations

import torch
from torch import Tensor


def coreset(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Which rows to take so that every other is near one: (n, C) -> (count,), repeated if n < count.

    Each is the one farthest from those chosen before it, the first is random: at most twice as far off as
    the best choice would be (Gonzalez 1985).
    """
    x = rows - rows.mean(dim=0)
    square = x.square().sum(dim=1)
    distance = torch.full_like(square, float("inf"))
    latest = int(torch.randint(len(x), (1,), generator=generator))
    chosen = []
    for _ in range(min(count, len(x))):
        chosen.append(latest)
        distance = torch.minimum(distance, square + square[latest] - 2 * (x @ x[latest]))
        latest = int(distance.argmax())
    index = torch.tensor(chosen, device=rows.device)
    return index.repeat(-(-count // len(index)))[:count]
