"""What is found on normal parts: banks that hold them, and how large errors usually are."""

import pytest
import torch
from torch import Tensor, nn

from inspector.model.bank import MemoryBank
from inspector.model.network import build
from inspector.model.records import Architecture
from inspector.model.restore import Restorer
from training.banks import ALIKE, PRIOR, QUIETEST, ROUNDING, fill, rounding, settle, usual

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


def two_halves(generator: torch.Generator, noise_above: float) -> Tensor:
    """A part, (1, 4, 8, 8): noise of 1 in the lower half, of another colour, and of this in the upper one."""
    part = torch.rand(1, 4, 8, 8, generator=generator)
    part[:, :, :4] *= noise_above
    part[:, 0, 4:] += 20
    return part


def test_rough_places_may_lie_farther_off_than_smooth_ones() -> None:
    """The upper half of a part is smooth, the lower one rough and of another colour."""
    generator = torch.Generator().manual_seed(0)

    def part() -> Tensor:
        return two_halves(generator, 0.1)

    bank = MemoryBank(200, 4, 8)
    parts = [part() for _ in range(60)]
    fill(nn.ModuleList([bank]), ([p] for p in parts), len(parts), generator)
    new = torch.cat([part() for _ in range(20)])
    distances, _ = bank.nearest(bank.rows(new))
    plain, known = distances.reshape(-1, 8, 8), bank(new)
    scratched = part()
    scratched[:, :, 1, 1] += 0.1  # less than rough places differ by
    plain_scratch, _ = bank.nearest(bank.rows(scratched))
    assert float(plain_scratch[0, 9]) < float(plain[:, 4:].max())
    assert float(bank(scratched)[0, 1, 1]) > float(known[:, 4:].max())


def test_what_is_usual_round_a_slot_is_that_of_the_features_nearest_to_it_and_its_like() -> None:
    generator = torch.Generator().manual_seed(1)
    bank = MemoryBank(2 * ALIKE, 3, 4)
    bank.slots.copy_(torch.randn(2 * ALIKE, 3, generator=generator))
    bank.slots[ALIKE:] += 100  # two kinds of surface
    rows = bank.slots.repeat(50, 1)
    rows += 0.3 * torch.randn(rows.shape, generator=generator) * (1 + (rows[:, :1] > 50) * 3)
    settle(bank, rows)
    distance, slot = torch.cdist(rows.double(), bank.slots.double()).min(dim=1)
    found = []
    for kind in (slot < ALIKE, slot >= ALIKE):
        share = float(PRIOR / (PRIOR + kind.sum()))
        mean = distance[kind].mean().lerp(distance.mean(), share)
        square = distance[kind].square().mean().lerp(distance.square().mean(), share)
        found.append((slot[kind], float(mean), float((square - mean**2).sqrt())))
    (quiet, low, fine), (rough, high, coarse) = found
    overall = float(torch.cat([distance[slot < ALIKE] - low, distance[slot >= ALIKE] - high]).std())
    assert bank.usual[rough].numpy() == pytest.approx(high, rel=1e-3)
    assert bank.spread[rough].numpy() == pytest.approx(coarse, rel=1e-2)
    assert fine < QUIETEST * overall
    assert bank.usual[quiet].numpy() == pytest.approx(float(distance.mean()), rel=1e-3)
    assert bank.spread[quiet].numpy() == pytest.approx(QUIETEST * overall, rel=1e-2)


def test_a_quiet_place_is_not_magnified() -> None:
    """The upper half of a part is as good as empty; a little other light there is no scratch."""
    generator = torch.Generator().manual_seed(0)

    def part() -> Tensor:
        return two_halves(generator, 0.001)

    bank = MemoryBank(200, 4, 8)
    fill(nn.ModuleList([bank]), ([part()] for _ in range(60)), 60, generator)
    lit = part()
    lit[:, :, :4] += 0.05  # fifty times what it varies by
    scratched = part()
    scratched[:, :, 1, 1] += 0.5
    normal = bank(torch.cat([part() for _ in range(20)]))
    assert float(bank(lit)[:, :4].max()) < float(normal[:, 4:].max())
    assert float(bank(scratched)[0, 1, 1]) > float(normal.max())


def test_without_others_than_the_slots_distances_stay_as_they_are() -> None:
    bank = MemoryBank(5, 3, 4)
    bank.usual.fill_(7)
    settle(bank, torch.empty(0, 3))
    assert bank.usual.tolist() == [0] * 5
    assert bank.spread.tolist() == [1] * 5


def test_parts_that_are_all_the_same_have_no_spread_finer_than_rounding() -> None:
    same = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    bank = MemoryBank(8, 3, 4)
    fill(nn.ModuleList([bank]), ([same] for _ in range(6)), 6, torch.Generator().manual_seed(0))
    far = (bank.slots - bank.slots.mean(dim=0)).square().sum(dim=1).mean().sqrt()
    assert float(bank.spread.min()) >= ROUNDING * float(far) * 0.999
    assert bank(same).isfinite().all()


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("slots", [20, 200])  # fewer and more than features
def test_a_level_that_says_the_same_everywhere_gives_numbers(value: float, slots: int) -> None:
    same = torch.full((1, 256, 4, 4), value)
    bank = MemoryBank(slots, 256, 4)
    fill(nn.ModuleList([bank]), ([same] for _ in range(6)), 6, torch.Generator().manual_seed(0))
    assert bank.spread.min() > 0
    assert rounding(nn.ModuleList([bank])).isfinite().all()
    assert float(bank(same).abs().max()) < 100
    assert bank(same + 1).isfinite().all()


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
    near.spread.fill_(0.1)
    assert float(rounding(nn.ModuleList([near]))) == pytest.approx(10 * float(small))
