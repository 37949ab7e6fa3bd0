import numpy as np
import pytest
import torch

from inspector.model.memory import Memory


def expected(z: np.ndarray, m: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Equations 7 to 10 and the L1 normalisation, one row at a time, in float64."""
    n = len(m)
    weights = []
    for row in z:
        d = np.array([row @ s / (np.linalg.norm(row) * np.linalg.norm(s)) for s in m])
        w = np.exp(d / temperature) / np.exp(d / temperature).sum()
        shrunk = np.array([max(v - 1 / n, 0) * v / (abs(v - 1 / n) + 1e-12) for v in w])
        weights.append(shrunk / np.abs(shrunk).sum())
    return np.array(weights), np.array(weights) @ m


@pytest.mark.parametrize("temperature", [1.0, 0.2, 0.05])
def test_equations_7_to_10(temperature: float) -> None:
    torch.manual_seed(0)
    memory = Memory(slots=11, dim=6, temperature=temperature).double()
    memory.address(torch.zeros(1, 1, 6, dtype=torch.float64))  # a zero feature must not raise
    z = torch.randn(2, 5, 6)
    weights, values = expected(z.reshape(-1, 6).numpy(), memory.slots.detach().numpy(), temperature)
    read, addressing = memory.float()(z)
    np.testing.assert_allclose(addressing.weights.detach().reshape(-1, 11), weights, atol=2e-5)
    np.testing.assert_allclose(read.detach().reshape(-1, 6), values, atol=2e-5)
    assert not addressing.empty.any()


def test_weights_sum_to_one_and_are_sparse() -> None:
    torch.manual_seed(0)
    _, addressing = Memory(50, 8, 0.05)(torch.randn(1, 30, 8))
    torch.testing.assert_close(addressing.weights.sum(-1), torch.ones(1, 30))
    assert (addressing.weights == 0).float().mean() > 0.5


def test_a_row_shrunk_to_nothing_reads_the_mean_and_passes_gradients() -> None:
    memory = Memory(8, 4, 0.05)
    with torch.no_grad():
        memory.slots.copy_(torch.ones(8, 4) * torch.arange(1, 9)[:, None])  # all in one direction
    z = torch.randn(1, 3, 4, requires_grad=True)
    read, addressing = memory(z)
    assert addressing.empty.all()
    torch.testing.assert_close(addressing.weights, torch.full((1, 3, 8), 1 / 8))
    torch.testing.assert_close(read, memory.slots.mean(0).expand(1, 3, 4))
    read.sum().backward()
    assert memory.slots.grad is not None
    assert memory.slots.grad.isfinite().all()
    assert memory.slots.grad.abs().sum() > 0


def test_nan_features_stay_nan() -> None:
    read, _ = Memory(8, 4, 0.05)(torch.full((1, 1, 4), torch.nan))
    assert read.isnan().all()


def test_shrinkage_is_computed_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    memory, z = Memory(11, 6, 0.05), torch.randn(1, 5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        read, _ = memory(z)
    torch.testing.assert_close(read, memory(z)[0])
