import numpy as np
import pytest
import torch

from inspector.model.bank import MemoryBank, highest


def test_the_distance_is_that_of_the_nearest_slot() -> None:
    torch.manual_seed(0)
    bank = MemoryBank(40, 7, 5)
    bank.slots.normal_(mean=3.0)
    features = torch.randn(2, 7, 5, 5)
    slots, rows = bank.slots.double().numpy(), features.double().numpy().transpose(0, 2, 3, 1)
    expected = np.linalg.norm(rows[:, :, :, None] - slots, axis=-1).min(axis=-1)
    assert bank(features).numpy() == pytest.approx(expected, rel=1e-4)


def test_features_finer_than_the_grid_are_averaged() -> None:
    bank = MemoryBank(3, 2, 2)
    bank.slots.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0], [5.0, 5.0]]))
    features = torch.zeros(1, 2, 4, 4)
    features[0, :, :2, :2] = torch.tensor([[0.0, 2.0], [2.0, 0.0]])  # 1 in the mean
    features[0, :, 2:, 2:] = 3.0
    assert torch.allclose(bank(features), torch.tensor([[[0.0, 0.0], [0.0, 8**0.5]]]), atol=1e-5)


def test_what_is_in_the_bank_has_no_distance_however_far_from_the_origin() -> None:
    torch.manual_seed(0)
    bank = MemoryBank(30, 16, 1)
    bank.slots.normal_().add_(1000.0)
    assert bank(bank.slots[:, :, None, None]).max() < 0.02


@pytest.mark.parametrize("inferring", [False, True])
def test_a_distance_is_measured_by_what_is_usual_round_its_slot(inferring: bool) -> None:
    torch.manual_seed(0)
    bank = MemoryBank(40, 7, 5)
    bank.slots.normal_(mean=3.0)
    bank.usual.uniform_(0.5, 2)
    bank.spread.uniform_(0.1, 3)
    features = torch.randn(2, 7, 5, 5)
    slots, rows = bank.slots.double().numpy(), features.double().numpy().transpose(0, 2, 3, 1)
    distances = np.linalg.norm(rows[:, :, :, None] - slots, axis=-1)
    slot = distances.argmin(axis=-1)
    expected = (distances.min(axis=-1) - bank.usual.numpy()[slot]) / bank.spread.numpy()[slot]
    if inferring:
        bank.for_inference()
    assert bank(features).numpy() == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("count", [1, 7, 40, 100, 500, 990])
def test_the_highest_and_where_it_is(count: int) -> None:
    x = torch.randn(2, 30, count, generator=torch.Generator().manual_seed(count))
    top, place = highest(x)
    expected = x.max(dim=-1)
    assert torch.equal(top, expected.values)
    assert torch.equal(place, expected.indices)
    x[1, 4, count // 2] = torch.nan
    assert highest(x)[0].isnan().nonzero().tolist() == [[1, 4]]
