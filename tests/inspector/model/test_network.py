from dataclasses import replace

import pytest
import torch

from inspector.errors import ModelError
from inspector.model.network import Autoencoder, build
from inspector.model.records import PRESETS, Architecture, Scoring, preset

TINY = Architecture(size=32, patch=8, dim=16, depth=1, heads=2, slots=10)


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("attention", [True, False])
def test_shapes_and_switches(memory: bool, attention: bool) -> None:
    network = build(replace(TINY, memory=memory, attention=attention)).eval()
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    r = network(x)
    assert r.target is x
    assert r.output.shape == x.shape
    assert network.anomaly_map(x, Scoring()).shape == (2, 32, 32)
    names = {name.split(".")[1] for name in network.state_dict() if name.startswith("bottleneck")}
    assert names == {n for n, on in (("memory", memory), ("attention", attention)) if on}
    if memory:
        assert r.addressing is not None
        assert r.addressing.weights.shape == (2, 16, 10)
    else:
        assert r.addressing is None


def test_tokens_keep_their_place_and_cls_is_dropped() -> None:
    network = build(TINY).eval()
    assert isinstance(network, Autoencoder)
    x = torch.randn(1, 3, 32, 32)
    tokens = network.encoder.forward_features(x)
    assert tokens.shape == (1, 17, 16)
    z = network.encode(x)
    torch.testing.assert_close(z[0, :, 1, 2], tokens[0, 1 + 1 * 4 + 2])


def test_the_memory_keeps_what_it_was_not_taught_from_leaving() -> None:
    """With one direction in memory every picture is drawn alike, whatever comes in."""
    network = build(TINY).eval()
    assert isinstance(network, Autoencoder)
    assert network.bottleneck.memory is not None
    with torch.no_grad():
        network.bottleneck.memory.slots.fill_(1.0)
    a, b = (network(torch.randn(1, 3, 32, 32)).output for _ in range(2))
    torch.testing.assert_close(a, b)


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    network = build(TINY)
    network(torch.randn(2, 3, 32, 32)).output.square().sum().backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_the_preset_of_the_paper() -> None:
    a = preset("paper")
    assert (a.size, a.patch, a.dim, a.depth, a.heads) == (384, 16, 768, 12, 8)
    assert (a.memory, a.attention) == (True, True)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_build_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        build(PRESETS[name])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"patch": 12}, "architecture.patch is 12"),
        ({"size": 100}, "multiple of the patch"),
        ({"heads": 5}, "multiple of the 5 heads"),
        ({"slots": 1}, "architecture.slots is 1"),
        ({"temperature": 0.0}, "architecture.temperature is 0.0"),
        ({"depth": 0}, "architecture.depth is 0"),
    ],
)
def test_impossible_sizes_are_refused(change: dict[str, float], word: str) -> None:
    with pytest.raises(ModelError, match=word):
        Architecture(**change)  # type: ignore[arg-type]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ModelError, match=r"'magic'.*paper"):
        build(Architecture(method="magic"))
    with pytest.raises(ModelError, match=r"'huge'.*paper, small, tiny"):
        preset("huge")
