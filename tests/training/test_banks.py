"""What is found on normal parts: banks that hold them, and how large errors usually are."""

import pytest
import torch
from torch import Tensor, nn

from inspector.model.bank import MemoryBank
from inspector.model.network import build
from inspector.model.records import Architecture
from inspector.model.restore import Restorer
from training.banks import ROUNDING, fill, rounding, usual

SMALL = Architecture(method="restore", size=64, patch=8, dim=16, depth=1, heads=2, slots=10)


def test_each_bank_holds_its_own_features_of_all_parts() -> None:
    generator = torch.Generator().manual_seed(0)
    fine = [torch.randn(1, 2, 4, 4, generator=generator) for _ in range(6)]
    coarse = [torch.randn(1, 3, 2, 2, generator=generator) + 9 for _ in fine]
    banks = nn.ModuleList([MemoryBank(96, 2, 4), MemoryBank(24, 3, 2)])
    fill(banks, (list(part) for part in zip(fine, coarse, strict=True)), len(fine), generator)
    for bank, parts in zip(banks, (fine, coarse), strict=True):
        assert max(float(bank(part).max()) for part in parts) < 0.01
        assert float(bank(parts[0] + 20).min()) > 5


def test_what_is_usual_is_that_of_the_parts_given() -> None:
    network = build(SMALL)
    assert isinstance(network, Restorer)
    parts: list[list[Tensor]] = [[torch.full((1, 4, 4), value)] for value in (1.0, 3.0)]
    usual(network, iter(parts))
    assert float(network.centre) == pytest.approx(2.0)
    assert float(network.spread) == pytest.approx(float(torch.cat([p[0] for p in parts]).std()))
    assert float(network.unusual([torch.full((1, 4, 4), 2.0)])[0].abs().max()) < 1e-6


def test_distances_are_as_uncertain_as_the_slots_are_far_apart() -> None:
    near, far = MemoryBank(50, 3, 4), MemoryBank(50, 3, 4)
    near.slots.copy_(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)))
    far.slots.copy_(100 * near.slots + 7)  # where they lie does not matter
    small, large = rounding(nn.ModuleList([near, far]))
    assert float(large) == pytest.approx(100 * float(small), rel=1e-4)
    assert float(small) == pytest.approx(ROUNDING * 3**0.5, rel=0.2)
