import torch

from training.coreset import coreset


def chosen(rows: torch.Tensor, count: int, seed: int = 0) -> torch.Tensor:
    return rows[coreset(rows, count, torch.Generator().manual_seed(seed))]


def test_what_is_rare_is_kept() -> None:
    torch.manual_seed(0)
    rows = torch.randn(2000, 8)
    rows[7] += 50
    rows[1234] -= 50
    slots = chosen(rows, 10)
    for rare in (rows[7], rows[1234]):
        assert (slots - rare).norm(dim=1).min() == 0


def test_every_row_is_as_near_as_greedy_choice_promises() -> None:
    """Rows in k tight groups: with k slots, no row is farther off than its group is wide."""
    torch.manual_seed(0)
    groups = 100 * torch.randn(12, 6)
    rows = (groups[:, None] + torch.rand(12, 50, 6)).flatten(0, 1)
    slots = chosen(rows, 12)
    assert torch.cdist(rows, slots).amin(dim=1).max() < 6**0.5


def test_slots_are_rows_and_repeat_where_there_are_too_few() -> None:
    rows = torch.arange(6.0).reshape(3, 2)
    slots = chosen(rows, 7)
    assert slots.shape == (7, 2)
    assert {tuple(s) for s in slots.tolist()} == {tuple(r) for r in rows.tolist()}
    assert torch.equal(chosen(rows, 7), slots)
