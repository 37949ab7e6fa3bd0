"""The paper's network, computed again from its equations in float64 numpy, from the weights alone.

Memory (eq. 7 to 10), coordinate attention, SSIM and smoothing have such a test of their own beside them; here
is the rest: the encoder (eq. 1 to 6), the decoder, and the whole way from a picture to its reconstruction.
"""

from math import erf

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inspector.model.decoder import Decoder
from inspector.model.network import Autoencoder
from inspector.model.records import Architecture
from tests.inspector.model.test_memory import expected as memory_expected

Array = NDArray[np.float64]
State = dict[str, Array]
SMALL = Architecture(size=32, patch=8, dim=16, depth=2, heads=4, slots=12)


def state(module: torch.nn.Module) -> State:
    return {name: t.detach().double().numpy() for name, t in module.state_dict().items()}


def network(seed: int) -> Autoencoder:
    """One that has seen data: statistics that are not 0 and 1, a class token and biases that are not 0."""
    torch.manual_seed(seed)
    net = Autoencoder(SMALL)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        net(torch.randn(8, 3, 32, 32))
    return net.eval()


def layer_norm(z: Array, p: State, name: str) -> Array:
    centred = z - z.mean(-1, keepdims=True)
    out: Array = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return out * p[f"{name}.weight"] + p[f"{name}.bias"]


def attention(z: Array, p: State, name: str, heads: int) -> Array:
    """Equations 1 to 3 for one picture: (tokens, C)."""
    w, b = p[f"{name}.qkv.weight"], p[f"{name}.qkv.bias"]
    c = z.shape[1]
    d = c // heads
    found = []
    for h in range(heads):
        q, k, v = (
            z @ w[part * c + h * d : part * c + (h + 1) * d].T + b[part * c + h * d : part * c + (h + 1) * d]
            for part in range(3)
        )
        scores = np.exp(q @ k.T / np.sqrt(d))
        found.append(scores / scores.sum(1, keepdims=True) @ v)
    return np.concatenate(found, axis=1) @ p[f"{name}.proj.weight"].T + p[f"{name}.proj.bias"]


def mlp(z: Array, p: State, name: str) -> Array:
    hidden = z @ p[f"{name}.fc1.weight"].T + p[f"{name}.fc1.bias"]
    gelu = hidden * 0.5 * (1 + np.vectorize(erf)(hidden / np.sqrt(2)))
    return gelu @ p[f"{name}.fc2.weight"].T + p[f"{name}.fc2.bias"]


def encoder(picture: Array, p: State, a: Architecture) -> Array:
    """Equations 4 to 6: (3, S, S) -> (tokens, C), the class token dropped at the end."""
    side = a.size // a.patch
    weight, bias = p["encoder.patch_embed.proj.weight"], p["encoder.patch_embed.proj.bias"]
    patches = [
        picture[:, r * a.patch : (r + 1) * a.patch, c * a.patch : (c + 1) * a.patch].ravel()
        for r in range(side)
        for c in range(side)
    ]
    z = np.array(patches) @ weight.reshape(a.dim, -1).T + bias
    z = np.vstack([p["encoder.cls_token"][0], z]) + p["encoder.pos_embed"][0]
    for block in (f"encoder.blocks.{i}" for i in range(a.depth)):
        z = z + attention(layer_norm(z, p, f"{block}.norm1"), p, f"{block}.attn", a.heads)
        z = z + mlp(layer_norm(z, p, f"{block}.norm2"), p, f"{block}.mlp")
    return layer_norm(z, p, "encoder.norm")[1:]


def transposed(x: Array, weight: Array, bias: Array | None, stride: int) -> Array:
    """Every input pixel stamps its kernel on the output; padding 1 cuts the rim: (C, h, w) -> (D, H, W)."""
    _, h, w = x.shape
    k = weight.shape[2]
    out = np.zeros((weight.shape[1], (h - 1) * stride + k, (w - 1) * stride + k))
    for r, c in np.ndindex(h, w):
        out[:, r * stride : r * stride + k, c * stride : c * stride + k] += np.tensordot(
            x[:, r, c], weight, 1
        )
    out = out[:, 1:-1, 1:-1]
    return out if bias is None else out + bias[:, None, None]


def decoder(z: Array, p: State, patch: int, prefix: str = "") -> Array:
    """Section 3.4: five times transposed convolution, normalisation, ReLU; then the last, and tanh."""
    doublings = int(np.log2(patch))
    strides = [1] * (5 - doublings) + [2] * doublings
    for i, stride in enumerate(strides):
        z = transposed(z, p[f"{prefix}{3 * i}.weight"], None, stride)
        mean, var, gain, shift = (
            p[f"{prefix}{3 * i + 1}.{n}"][:, None, None]
            for n in ("running_mean", "running_var", "weight", "bias")
        )
        z = np.maximum((z - mean) / np.sqrt(var + 1e-5) * gain + shift, 0)
    return np.tanh(transposed(z, p[f"{prefix}15.weight"], p[f"{prefix}15.bias"], 1))


def coordinate_attention(x: Array, p: State, prefix: str) -> Array:
    """Section 3.3 for one picture: (C, h, w)."""

    def shared(f: Array) -> Array:
        f = p[f"{prefix}shared.0.weight"][..., 0, 0] @ f + p[f"{prefix}shared.0.bias"][:, None]
        f = (f - p[f"{prefix}shared.1.running_mean"][:, None]) / np.sqrt(
            p[f"{prefix}shared.1.running_var"][:, None] + 1e-5
        )
        f = f * p[f"{prefix}shared.1.weight"][:, None] + p[f"{prefix}shared.1.bias"][:, None]
        out: Array = f * np.clip(f + 3, 0, 6) / 6
        return out

    def gate(f: Array, name: str) -> Array:
        f = p[f"{prefix}{name}.weight"][..., 0, 0] @ shared(f) + p[f"{prefix}{name}.bias"][:, None]
        out: Array = 1 / (1 + np.exp(-f))
        return out

    return x * gate(x.mean(2), "height")[:, :, None] * gate(x.mean(1), "width")[:, None, :]


@pytest.mark.parametrize("seed", [0, 1])
def test_equations_1_to_6(seed: int) -> None:
    net = network(seed)
    x = torch.randn(2, 3, 32, 32)
    got = net.encode(x).detach().flatten(2).transpose(1, 2).numpy()
    want = [encoder(picture, state(net), SMALL) for picture in x.double().numpy()]
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize("patch", [4, 16, 32])
def test_the_decoder(patch: int) -> None:
    torch.manual_seed(0)
    layers = Decoder(24, patch)
    layers(torch.randn(4, 24, 3, 2))
    z = torch.randn(1, 24, 3, 2)
    got = layers.eval()(z)[0].detach().numpy()
    np.testing.assert_allclose(got, decoder(z[0].double().numpy(), state(layers), patch), atol=1e-4)


def test_from_the_picture_to_its_reconstruction() -> None:
    net = network(0)
    p = state(net)
    x = torch.randn(1, 3, 32, 32)
    r = net(x)
    weights, read = memory_expected(
        encoder(x[0].double().numpy(), p, SMALL), p["bottleneck.memory.slots"], SMALL.temperature
    )
    gated = coordinate_attention(read.T.reshape(16, 4, 4), p, "bottleneck.attention.")
    np.testing.assert_allclose(r.addressing.weights[0].detach(), weights, atol=1e-3)
    np.testing.assert_allclose(r.output[0].detach(), decoder(gated, p, SMALL.patch, "decoder."), atol=1e-3)
    assert r.output.std() > 0.05  # a network that draws nothing would prove nothing
