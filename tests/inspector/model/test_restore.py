from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from inspector.errors import BundleError, ModelError
from inspector.model.backbone import Backbone, normalisation
from inspector.model.network import build
from inspector.model.records import RESTORE_PRESETS, Architecture, Scoring, from_json, preset
from inspector.model.restore import LOUD, UNUSUAL, MeanPart, Restorer, quieter, strength

TINY = Architecture(method="restore", size=64, patch=8, dim=16, depth=1, heads=2, slots=10)


def restorer(architecture: Architecture = TINY) -> Restorer:
    torch.manual_seed(0)
    network = build(architecture)
    assert isinstance(network, Restorer)
    return network.eval()


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("size", [64, 48])  # 48: no multiple of the head's coarsest stride
def test_part_restored_part_and_map_have_the_input_s_size(memory: bool, size: int) -> None:
    network = restorer(replace(TINY, memory=memory, size=size))
    x = torch.rand(2, 3, size, size) * 2 - 1
    r = network(x)
    assert r.target is x
    assert r.output.shape == x.shape
    assert r.output.abs().max() <= 1
    assert (r.addressing is None) is not memory
    score_map = network.error_map(r, Scoring())
    assert score_map.shape == (2, size, size)
    assert score_map.isfinite().all()
    assert score_map.min() > 0  # heatmaps are drawn in shares of the threshold


def test_the_autoencoder_works_at_half_the_resolution() -> None:
    network = restorer()
    assert network.architecture == TINY
    assert network.encode(torch.rand(1, 3, 64, 64)).shape == (1, 16, 8, 8)
    fine = torch.zeros(1, 3, 64, 64)
    fine[..., ::2] = 1  # stripes of one pixel are grey to it
    torch.testing.assert_close(network.encode(fine), network.encode(torch.full_like(fine, 0.5)))


def test_evidence_is_the_change_and_how_unusual_it_is_there() -> None:
    network = restorer()
    x, y = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    x[..., :32] = 0.5
    network.usual.fill_(0.1)
    network.usual[16:] = 0.5
    network.variation.fill_(0.1)
    evidence = network.evidence(x, y)
    assert evidence.shape == (1, 13, 32, 32)
    torch.testing.assert_close(evidence[:, :12], torch.nn.functional.pixel_unshuffle(x - y, 2))
    unusual = evidence[0, 12]
    assert unusual[4, 4] > 2 * unusual[28, 4].abs()  # the same change, usual only below
    assert unusual[28, 28] < 0 < unusual[4, 4] <= UNUSUAL[1]


def test_the_strength_of_a_change_does_not_depend_on_its_sign() -> None:
    change = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(strength(change), strength(-change))
    assert strength(change).shape == (2, 1, 16, 16)


def test_what_is_drawn_is_added_to_the_mean_part() -> None:
    drawn, mean = MeanPart(8), torch.rand(3, 8, 8) - 0.5
    drawn.typical.copy_(mean.atanh())
    torch.testing.assert_close(drawn(torch.zeros(2, 3, 8, 8)), mean.expand(2, -1, -1, -1))
    assert (drawn(torch.full((1, 3, 8, 8), 0.2)) > mean).all()


def test_beyond_the_loudest_an_error_grows_slowly_and_never_falls() -> None:
    z = torch.tensor([-3.0, 0.0, LOUD, LOUD + 1, 1e6])
    quiet = quieter(z)
    torch.testing.assert_close(quiet[:3], z[:3])
    assert (quiet.diff() > 0).all()
    assert quiet[4] < 3 * LOUD
    assert quieter(torch.tensor([float("nan")])).isnan().all()  # never a pass


def test_one_coarse_error_that_never_varies_does_not_drown_the_place() -> None:
    network = restorer(replace(TINY, backbone="drawn", bank=20, scales=1))
    network.centre.zero_()
    network.spread.fill_(1)
    network.spread[3] = 1e-6
    network.weight.copy_(torch.tensor([0.3, 0.0, 0.0, 0.7]))
    head, coarse = torch.zeros(1, 32, 32), torch.full((1, 2, 2), 0.1)
    head[0, 5, 20], coarse[0, 1, 1] = 500.0, 0.11
    errors = [head, *(torch.zeros(1, side, side) for _, side in network.banked[:-1]), coarse]
    row, column = divmod(int(network.weighed(errors).argmax()), 64)
    assert (row // 2, column // 2) == (5, 20)


def test_a_piece_is_judged_as_the_whole_is_away_from_its_border() -> None:
    network = restorer(replace(TINY, size=256))
    x = torch.rand(1, 3, 256, 256) * 2 - 1
    evidence = network.evidence(x, x * 0.9)
    context = network.overview(x, evidence)
    whole = network.detail(x, evidence, context)
    piece = network.detail(x[..., 64:192, 64:192], evidence[..., 32:96, 32:96], context[..., 16:48, 16:48])
    torch.testing.assert_close(piece[..., 30:34, 30:34], whole[..., 62:66, 62:66], atol=1e-3, rtol=0)


def test_a_bundle_s_weights_hold_all_that_was_found() -> None:
    network, other = restorer(), build(TINY).eval()
    network.usual.fill_(0.3)
    network.judging.fill_(True)
    other.load_state_dict(network.state_dict())
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(network.anomaly_map(x, Scoring()), other.anomaly_map(x, Scoring()))


def test_its_presets_are_its_own() -> None:
    assert preset("small", "restore") == RESTORE_PRESETS["small"]
    assert preset("paper", "restore") == replace(
        preset("paper"), method="restore", backbone="drawn", bank=2000, zooms=(0.375, 0.75, 1.5)
    )
    with pytest.raises(ModelError, match="preset 'huge'"):
        preset("huge", "restore")


def test_the_backbone_sees_the_part_as_it_was_taught_to() -> None:
    network = restorer(replace(TINY, backbone="drawn", bank=20, scales=1))
    assert network.backbone is not None
    intensities = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in normalisation("drawn"))
    wanted = network.backbone((intensities - mean) / std)
    for seen, level in zip(network.features(2 * intensities - 1), wanted, strict=True):
        torch.testing.assert_close(seen, level, rtol=1e-4, atol=1e-5)
    assert network.sources() == [
        "damage seen by the head",
        *(f"bank, level {k} of 64 x 64, {side} x {side}" for k, side in ((2, 8), (3, 4), (4, 2))),
    ]


def test_the_backbone_sees_the_part_in_each_size_asked_for() -> None:
    network = restorer(replace(TINY, backbone="drawn", bank=20, zooms=(0.5, 0.75, 1.0, 1.5)))
    backbone = network.backbone
    assert backbone is not None
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    features = network.features(x)
    assert [f.shape[-1] for f in features] == [4, 2, 1, 6, 3, 2, 8, 4, 2, 12, 6, 3]
    for k, size in enumerate((32, 48, 64, 96)):
        seen = F.interpolate(x, (size, size), mode="bilinear", antialias=size < 64)
        alone = Backbone("drawn", (), size)
        alone.load_state_dict(backbone.state_dict())
        wanted = alone((seen - network.mean) / network.std)
        for feature, level in zip(features[3 * k : 3 * k + 3], wanted, strict=True):
            torch.testing.assert_close(feature, level, rtol=1e-3, atol=1e-4)
    assert [tuple(e.shape[1:]) for e in network.errors_of(x)[1:]] == [f.shape[2:] for f in features]
    assert network.sources()[-1] == "bank, level 4 of 96 x 96, 3 x 3"


@pytest.mark.parametrize("zooms", [(), (0.1,), (float("nan"),), (1.0, -1.0)])
def test_sizes_in_which_nothing_is_seen_are_refused(zooms: tuple[float, ...]) -> None:
    with pytest.raises(ModelError, match=r"architecture\.zooms is .*: expected factors that leave 8 pixels"):
        replace(TINY, zooms=zooms)


def test_other_methods_see_the_part_in_one_size() -> None:
    with pytest.raises(ModelError, match=r"architecture\.zooms is \[0\.5, 1\.0\]: the method paper sees"):
        replace(preset("tiny"), zooms=(0.5, 1.0))


def test_a_backbone_of_one_size_alone_says_so() -> None:
    a = replace(TINY, size=112, backbone="vit_tiny_patch16_224", bank=20, zooms=(0.5, 1.0))
    with pytest.raises(ModelError, match="the backbone takes no picture of 56 × 56 pixels"):
        restorer(a)


def test_a_bundle_that_names_no_sizes_is_read_as_it_was_written() -> None:
    a = from_json(Architecture, {"method": "restore", "bank": 20, "backbone": "drawn", "scales": 3}, "a")
    assert a.zooms == (1.0,)
    assert a.scales == 3


def test_banks_without_a_backbone_are_refused() -> None:
    with pytest.raises(ModelError, match=r"architecture\.backbone is empty: the banks of restore"):
        replace(TINY, bank=20)


def test_a_bundle_from_before_is_passed_over_with_a_reason() -> None:
    with pytest.raises(BundleError, match=r"bundle.json: architecture: .* another version, train anew"):
        from_json(Architecture, {"method": "restore", "bank": 20}, "bundle.json: architecture")


def test_a_patch_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ModelError, match=r"architecture.patch is 2: expected 4, 8, 16 or 32 for"):
        restorer(replace(TINY, patch=2))


def test_the_banks_measure_what_the_backbone_sees_on_each_scale() -> None:
    network = restorer(replace(TINY, backbone="drawn", bank=20, scales=2))
    assert [side for _, side in network.banked] == [8, 4, 2, 4, 2, 1]
    errors = network.errors_of(torch.rand(2, 3, 64, 64))
    assert [tuple(e.shape) for e in errors] == [(2, 32, 32), *((2, side, side) for _, side in network.banked)]
    assert len(network.sources()) == len(errors)
    assert network.sources()[-1] == "bank, level 4 of 64 x 64, 1 x 1"


def test_what_has_no_weight_is_not_computed() -> None:
    network = restorer(replace(TINY, backbone="drawn", bank=20, scales=1))
    x = torch.rand(1, 3, 64, 64)
    network.weight.copy_(torch.tensor([0.0, 0.5, 0.0, 0.5]))
    whole = network.anomaly_map(x, Scoring())
    network.for_inference()
    assert network.read == [1, 3]
    assert len(network.errors_of(x)) == 2
    torch.testing.assert_close(network.anomaly_map(x, Scoring()), whole)
