"""The fast path says what the plain float32 module says, for each method, preset and precision."""

import copy
import gc
import logging
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from inspector.demo.parts import draw
from inspector.model import fast as making
from inspector.model import packed
from inspector.model.bank import MemoryBank
from inspector.model.engine import Engine
from inspector.model.fast import PRECISIONS
from inspector.model.folding import fold
from inspector.model.network import METHODS, Network, build
from inspector.model.preprocess import picture, tensor
from inspector.model.records import Preprocessing, Scoring, preset
from inspector.model.scoring import image_score, smooth
from inspector.model.weighing import Weighing

# share of the map's peak, and of the score
TOLERANCE = {"float32": 2e-5, "bfloat16": 3e-2}
CPU = torch.device("cpu")


def lively(network: Network) -> Network:
    """Random, but with statistics, banks and weights in the blend of a trained network's kind."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
        if isinstance(module, MemoryBank):
            module.slots.normal_()
            module.usual.fill_(0.7)  # alike: here slots are tied
            module.spread.fill_(1.3)
    if isinstance(network, Weighing):
        some = torch.tensor([0.2, 0.3, 0.0, 0.0, 0.4, 0.1]).repeat(5)  # with banks and without them
        network.weight.copy_(some[: len(network.weight)])
        network.spread.fill_(0.2)
    return network.eval()


def scored(network: Network, x: torch.Tensor, scoring: Scoring, precision: str = "float32"):
    with torch.no_grad(), torch.autocast("cpu", PRECISIONS[precision], enabled=precision != "float32"):
        score_map = smooth(network.anomaly_map(x, scoring), scoring.sigma)
        return score_map, image_score(score_map, scoring)


@pytest.mark.parametrize("size", ["tiny", "small", "paper"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_fast_path_says_what_the_plain_module_says(method: str, size: str, monkeypatch) -> None:
    monkeypatch.setattr(packed, "RUNS", 1)
    torch.manual_seed(0)
    architecture = preset(size, method)
    plain = lively(build(architecture))
    scoring = Scoring(sigma=architecture.size / 96, reduction="top", top_share=0.002)
    preprocessing = Preprocessing(size=architecture.size)
    images = [draw(np.random.default_rng(k))[0] for k in range(2)]
    first, second = (tensor(picture(image, preprocessing), preprocessing, CPU) for image in images)
    expected = scored(plain, second, scoring)
    for precision, tolerance in TOLERANCE.items() if size != "paper" else [("float32", TOLERANCE["float32"])]:
        fast = copy.deepcopy(plain)
        fast.for_inference()
        fold(fast, lambda: scored(fast, first, scoring, precision))  # noqa: B023 - called at once
        for found, wanted in zip(scored(fast, second, scoring, precision), expected, strict=True):
            assert (found - wanted).abs().max() <= tolerance * wanted.abs().max()
        if packed.available(PRECISIONS[precision]):
            assert any(isinstance(m, packed.Packed) for m in fast.modules())
            left = [m for m in fast.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
            assert len(left) <= len([b for b in fast.modules() if isinstance(b, nn.MultiheadAttention)]) + 6


@pytest.mark.parametrize(
    ("backbone", "zooms"),
    [
        ("test_resnet", (1.0,)),
        ("test_vit", (1.0,)),
        ("test_convnext", (1.0,)),
        ("test_efficientnet", (1.0,)),
        ("test_efficientnet", (1.0, 0.6, 1.2)),
        ("test_nfnet", (1.0,)),
    ],
)
def test_any_backbone_can_be_folded(backbone: str, zooms: tuple[float, ...]) -> None:
    torch.manual_seed(0)
    architecture = replace(
        preset("tiny", "feature"), backbone=backbone, size=160, dim=16, depth=1, bank=20, zooms=zooms
    )
    plain = lively(build(architecture))
    x, scoring = torch.randn(1, 3, 160, 160), Scoring(sigma=2.0)
    expected, _ = scored(plain, x, scoring)
    plain.for_inference()
    fold(plain, lambda: scored(plain, x, scoring))
    assert (scored(plain, x, scoring)[0] - expected).abs().max() <= 2e-5 * expected.max()


@pytest.mark.parametrize("alone", [True, False])
def test_whichever_errors_count_the_others_need_not_be_computed(alone: bool) -> None:
    """The blend may leave out any of them: a level's decoder, its banks, all decoders."""
    torch.manual_seed(0)
    architecture = replace(
        preset("tiny", "feature"), backbone="test_efficientnet", size=160, dim=16, depth=1, bank=20
    )
    plain = lively(build(architecture))
    x, scoring, count = torch.randn(1, 3, 160, 160), Scoring(sigma=2.0), len(plain.weight)
    for k in range(count):
        one = torch.eye(count)[k]
        plain.weight.copy_(one if alone else (1 - one) / (count - 1))
        expected, _ = scored(plain, x, scoring)
        fast = copy.deepcopy(plain)
        fast.for_inference()
        assert (scored(fast, x, scoring)[0] - expected).abs().max() <= 2e-5 * expected.max(), k


def test_a_norm_whose_input_others_read_too_is_seen_and_the_network_left_as_it_was(
    stored, monkeypatch, caplog
) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 1, 1), nn.BatchNorm2d(1)
            self.norm.running_var.fill_(100.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return (self.norm(y) + y)[:, 0].abs()  # a reader that is no module

    class OddNetwork(Odd):
        architecture = stored.architecture

        def for_inference(self) -> None:
            pass

        def anomaly_map(self, x: torch.Tensor, scoring: Scoring) -> torch.Tensor:
            return self(x)

    torch.manual_seed(0)
    state = OddNetwork().state_dict()

    def odd(_) -> OddNetwork:
        network = OddNetwork()
        network.load_state_dict(state)
        return network

    monkeypatch.setattr(making, "plain_network", lambda bundle: odd(bundle).eval())
    image = np.random.default_rng(0).integers(0, 256, (70, 80, 3)).astype(np.uint8)
    x = tensor(picture(image, stored.preprocessing), stored.preprocessing, CPU)
    expected = odd(None).eval()(x).detach()
    with caplog.at_level(logging.WARNING):
        found = Engine(stored, "cpu").score(image).map
    assert "not folded" in caplog.text
    np.testing.assert_allclose(found, smooth(expected, 2.0)[0], rtol=1e-5)


@pytest.mark.parametrize("act", list(packed.ACTIVATIONS))
def test_each_activation_is_the_one_that_it_stands_for(act: type[nn.Module]) -> None:
    if not packed.available(torch.float32):
        pytest.skip("torch without oneDNN")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), act()).eval()
    net[1].running_mean.normal_()
    x = 4 * torch.randn(1, 3, 9, 9)
    with torch.inference_mode():
        expected = net(x)
        fold(net, lambda: net(x))
        assert isinstance(net[0], packed.PackedConv)
        torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("act", [None, nn.Tanh()])
@pytest.mark.parametrize("layer", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("outputs", [1, 3, 4])
def test_a_convolution_with_few_outputs_is_one_product(
    layer: type[nn.Module], outputs: int, act: nn.Module | None
) -> None:
    if not packed.available(torch.float32):
        pytest.skip("torch without oneDNN")
    torch.manual_seed(0)
    conv = layer(6, outputs, (3, 5), padding=(1, 2), bias=act is None)
    net = nn.Sequential(conv, *([act] if act else [])).eval()
    x = torch.randn(2, 6, 9, 14)
    with torch.inference_mode():
        expected = net(x)
        fold(net, lambda: net(x))
        assert isinstance(net[0], packed.Narrow)
        torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            net(x[:1, :, :1, :2]), conv_of(conv, act, x[:1, :, :1, :2]), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 3, 3, stride=2, padding=1),
        nn.Conv2d(6, 3, 3),
        nn.Conv2d(6, 3, 2, padding=1),
        nn.Conv2d(6, 3, 3, padding=2, dilation=2),
        nn.Conv2d(6, 3, 3, padding=1, groups=3),
        nn.Conv2d(6, 5, 3, padding=1),
        nn.Conv2d(6, 3, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(6, 3, 4, stride=2, padding=1),
        nn.Linear(6, 3),
    ],
)
def test_other_layers_are_not_taken_for_one(layer: nn.Module) -> None:
    assert not packed.Narrow.fits(layer)


def conv_of(conv: nn.Module, act: nn.Module | None, x: torch.Tensor) -> torch.Tensor:
    y = conv(x)
    return y if act is None else act(y)


@pytest.mark.parametrize("stride", [1, 2])
def test_layers_that_are_used_twice_or_are_of_another_kind_stay_as_they_are(stride: int) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.other = (
                nn.Conv2d(3, 3, 3, stride, 1),
                nn.BatchNorm2d(3),
                nn.Conv2d(3, 3, 1),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(self.norm(self.conv(x))) + self.norm(self.other(self.conv(x)))

    torch.manual_seed(0)
    net = Twice().eval()
    net.norm.running_mean.normal_()
    x = torch.randn(1, 3, 8, 8)
    with torch.inference_mode():
        expected = net(x)
        fold(net, lambda: net(x))
        torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=1e-5)
    assert isinstance(net.norm, nn.BatchNorm2d)


def test_weights_that_were_replaced_go_at_once() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    before = [weakref.ref(module) for module in network if isinstance(module, nn.BatchNorm2d | nn.ReLU)]
    gc.collect()
    gc.disable()  # the daemon freezes what it has loaded: what only a collection frees would stay
    try:
        fold(network, lambda: network(torch.zeros(1, 3, 16, 16)))
        assert [gone() for gone in before] == [None, None]
    finally:
        gc.enable()
