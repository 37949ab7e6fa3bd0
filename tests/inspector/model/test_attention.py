import numpy as np
import torch
from numpy.typing import NDArray

from inspector.model.attention import CoordinateAttention

Array = NDArray[np.float64]


def test_against_numpy() -> None:
    torch.manual_seed(0)
    layer = CoordinateAttention(16)
    layer(torch.randn(4, 16, 5, 3))  # running statistics that are not 0 and 1
    layer.eval()
    x = torch.randn(2, 16, 5, 3)
    p = {name: t.detach().double().numpy() for name, t in layer.state_dict().items()}

    def shared(f: Array) -> Array:  # (B, C, L)
        f = np.einsum("oc,bcl->bol", p["shared.0.weight"][..., 0, 0], f) + p["shared.0.bias"][:, None]
        f = (f - p["shared.1.running_mean"][:, None]) / np.sqrt(p["shared.1.running_var"][:, None] + 1e-5)
        f = f * p["shared.1.weight"][:, None] + p["shared.1.bias"][:, None]
        out: Array = f * np.clip(f + 3, 0, 6) / 6  # h-swish
        return out

    def gate(f: Array, name: str) -> Array:
        f = np.einsum("oc,bcl->bol", p[f"{name}.weight"][..., 0, 0], f) + p[f"{name}.bias"][:, None]
        out: Array = 1 / (1 + np.exp(-f))
        return out

    a = x.double().numpy()
    rows, columns = shared(a.mean(3)), shared(a.mean(2))
    expected = a * gate(rows, "height")[..., None] * gate(columns, "width")[:, :, None]
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-5)


def test_hidden_width_is_at_least_eight() -> None:
    assert CoordinateAttention(64).shared[0].out_channels == 8
    assert CoordinateAttention(768).shared[0].out_channels == 24
