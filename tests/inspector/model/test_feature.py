from dataclasses import replace

import numpy as np
import pytest
import torch

from inspector.errors import ModelError
from inspector.model.feature import FeatureAutoencoder, Linear, cosine_error
from inspector.model.network import build
from inspector.model.records import FEATURE_PRESETS, Architecture, Scoring

TINY = Architecture(
    method="feature", backbone="test_efficientnet", size=64, dim=16, depth=1, slots=10, bank=6
)


def network(**changes: object) -> FeatureAutoencoder:
    torch.manual_seed(0)
    net = build(replace(TINY, **changes))  # type: ignore[arg-type]
    assert isinstance(net, FeatureAutoencoder)
    return net.eval()


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit", "test_resnet"])
@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("attention", [True, False])
def test_every_backbone_gives_a_map(name: str, memory: bool, attention: bool) -> None:
    net = network(backbone=name, memory=memory, attention=attention)
    x = torch.randn(2, 3, 64, 64)
    r = net.reconstruct(x)
    assert r.target.shape == r.output.shape
    assert (r.addressing is None) == (not memory)
    score_map = net.error_map(r, Scoring())
    assert score_map.shape == (2, 64, 64)
    assert score_map.isfinite().all()
    assert (score_map >= 0).all()
    assert net.encode(x).shape == (2, 16, net.grid, net.grid)


def test_banks_see_the_part_in_each_size_asked_for_and_the_decoder_in_the_first() -> None:
    net = network(zooms=(1.0, 0.5))
    x = torch.randn(2, 3, 64, 64)
    alone = network()
    own = alone.state_dict()
    shared = {k: v for k, v in net.state_dict().items() if k in own and v.shape == own[k].shape}
    assert own.keys() - shared.keys() == {"centre", "spread", "weight"}
    alone.load_state_dict(shared, strict=False)
    assert torch.equal(net.encode(x), alone.encode(x))
    errors = net.errors_of(x)
    assert [e.shape[-1] for e in errors] == [8, 4, 2, 4, 4, 2, 4, 2, 1]
    for ours, its in zip(errors[:6], alone.errors_of(x), strict=True):
        torch.testing.assert_close(ours, its)
    assert net.sources()[3:] == [
        f"bank, level {level} of {size} x {size}, {side} x {side}"
        for size, sides in ((64, (4, 4, 2)), (32, (4, 2, 1)))
        for level, side in zip(net.backbone.levels, sides, strict=True)
    ]
    r = net.reconstruct(x)
    torch.testing.assert_close(net.error_map(r, Scoring()), net.anomaly_map(x, Scoring()))


def test_the_size_that_is_reconstructed_comes_first() -> None:
    with pytest.raises(ModelError, match=r"zooms is \[0\.5, 1\.0\]: expected 1 first"):
        replace(TINY, zooms=(0.5, 1.0))
    with pytest.raises(ModelError, match=r"zooms is \[1\.0, 0\.5\]: expected 1 alone where there is no bank"):
        replace(TINY, zooms=(1.0, 0.5), bank=0)


def test_level_errors_are_the_cosine_of_the_whitened_features() -> None:
    net = network()
    features = net.backbone(torch.randn(2, 3, 64, 64))
    levels = net.reproduce(features)
    errors = net.errors(levels)[:3]  # the distances from the banks come after them
    for error, x, y in zip(errors, net.whitened(features), levels.output, strict=True):
        a, b = x.double().numpy(), y.detach().double().numpy()
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        assert error.detach().numpy() == pytest.approx(1 - (a * b).sum(axis=1) / norms, abs=1e-5)


def test_the_map_counts_deviations_from_the_usual_error() -> None:
    net = network()
    r = net.reconstruct(torch.randn(1, 3, 64, 64))
    net.centre.fill_(10.0)
    assert net.error_map(r, Scoring()).max() == 0
    net.centre.zero_()
    once = net.error_map(r, Scoring())
    net.spread.fill_(0.5)
    assert torch.allclose(net.error_map(r, Scoring()), 2 * once)


def test_a_part_that_is_reproduced_has_no_error() -> None:
    x = torch.randn(2, 8, 5, 5)
    assert torch.allclose(cosine_error(x, 3 * x), torch.zeros(2, 5, 5), atol=1e-6)
    assert torch.allclose(cosine_error(x, -x), torch.full((2, 5, 5), 2.0), atol=1e-6)


def test_a_fixed_map_does_what_it_was_set_to() -> None:
    layer = Linear(3, 2, 2)
    mean, matrix = torch.randn(12), torch.randn(12, 2)
    layer.set(mean, matrix)
    x = torch.randn(1, 3, 4, 4)
    patch = x[0, :, 2:4, 0:2].reshape(-1)
    assert torch.allclose(layer(x)[0, :, 1, 0], (patch - mean) @ matrix, atol=1e-5)


def test_only_memory_attention_and_decoder_learn() -> None:
    net = network()
    learned = {name.split(".")[0] for name, p in net.named_parameters() if p.requires_grad}
    assert learned == {"bottleneck", "decoder"}
    net.train()
    net.reconstruct(torch.randn(2, 3, 64, 64)).output.square().sum().backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)


def test_sizes_and_names_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ModelError, match=r"architecture\.backbone is empty"):
        Architecture(method="feature")
    with pytest.raises(ModelError, match="take a multiple of 32"):
        network(size=72)
    with pytest.raises(ModelError, match=r"architecture\.bank is -1"):
        replace(TINY, bank=-1)
    with pytest.raises(ModelError, match=r"architecture\.size is 0"):
        replace(TINY, size=0)
    assert FEATURE_PRESETS["small"].method == "feature"
