import os
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from inspector.errors import ModelError, TrainingError
from inspector.model import bundle as bundles
from inspector.model.engine import Engine
from inspector.model.feature import FeatureAutoencoder
from inspector.model.network import build
from inspector.model.records import FEATURE_PRESETS, Architecture
from training import feature, fit
from training.data import Pictures, list_images, read_image
from training.feature import Cache, FeatureObjective, fit_statistics, moments
from training.options import TrainOptions

BACKBONE = "test_efficientnet"
TINY = Architecture(method="feature", backbone=BACKBONE, size=64, dim=16, depth=1, slots=20, bank=12)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Twelve pictures of a disc that moves a little."""
    rng, folder = np.random.default_rng(0), tmp_path / "good"
    folder.mkdir()
    for i in range(12):
        image = rng.integers(90, 110, (96, 96, 3)).astype(np.uint8)
        cv2.circle(image, (48 + i % 4, 48), 24, (40, 90, 200), -1)
        cv2.imwrite(str(folder / f"{i:02}.png"), image)
    return list_images(folder)


@pytest.fixture
def options(tmp_path: Path) -> TrainOptions:
    """Of a backbone with random weights in a file."""
    torch.manual_seed(0)
    weights = tmp_path / "backbone.safetensors"
    safetensors.torch.save_file(timm.create_model(BACKBONE).state_dict(), weights)
    return TrainOptions(
        architecture=TINY,
        epochs=4,
        batch=4,
        learning_rate=2e-3,
        held_out=0.25,
        backbone_weights=str(weights),
        device="cpu",
        threads=1,
    )


@pytest.mark.parametrize("zooms", [(1.0,), (1.0, 0.5)])
def test_it_learns_and_the_bundle_needs_no_other_file(
    images: list[Path], options: TrainOptions, tmp_path: Path, zooms: tuple[float, ...]
) -> None:
    asked = replace(options, epochs=15, architecture=replace(TINY, bank=20, zooms=zooms))
    bundle = fit.train(images, tmp_path / "models", asked, progress=False)
    assert len(bundle.provenance["findings"]["weights"]) == 3 + 3 * len(zooms)
    curve = bundle.provenance["curve"]
    assert curve[-1]["error"] < 0.9 * curve[0]["error"]
    Path(options.backbone_weights).unlink()
    engine = Engine(bundles.load(bundle.path), "cpu")
    good = read_image(images[0])
    bad = good.copy()
    cv2.line(bad, (20, 20), (70, 80), (255, 255, 255), 6)
    assert engine.score(bad).score > engine.score(good).score
    assert bundle.provenance["memory"]["slots_read"] > 0.5


def test_a_stopped_run_goes_on_to_the_same_result(
    images: list[Path], options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit.train(images, tmp_path / "whole", options, progress=False)
    original, calls = FeatureObjective.losses, []

    def losses(self: FeatureObjective, network, *args):  # type: ignore[no-untyped-def]
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, network, *args)

    monkeypatch.setattr(FeatureObjective, "losses", losses)
    with pytest.raises(TrainingError, match="run the same command again"):
        fit.train(images, tmp_path / "pieces", options, progress=False)
    pieces = fit.train(images, tmp_path / "pieces", options, progress=False)
    assert pieces.weights_sha256 == whole.weights_sha256


def prepared(
    images: list[Path], options: TrainOptions
) -> tuple[FeatureAutoencoder, Pictures, FeatureObjective]:
    network = build(options.architecture)
    assert isinstance(network, FeatureAutoencoder)
    pictures = Pictures(images, options.preprocessing())
    objective = FeatureObjective(options)
    objective.prepare(network.eval(), pictures, range(len(images)))
    return network, pictures, objective


def test_whitened_features_of_normal_parts_are_centred_and_of_one_scale(
    images: list[Path], options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature, "REGULARISATION", 1e-6)
    network, _, objective = prepared(images, options)
    finest = (
        network.whitened(objective.cache.of(range(12)))[0][:, :, ::2, ::2].transpose(0, 1).flatten(1).double()
    )
    covariance = torch.cov(finest)
    assert finest.mean(dim=1).abs().max() < 1e-2
    assert torch.allclose(covariance.diagonal(), torch.ones(len(covariance)).double(), atol=0.1)
    assert (covariance - torch.diag(covariance.diagonal())).abs().max() < 0.1


def test_tokens_are_uncorrelated_and_centred(images: list[Path], options: TrainOptions) -> None:
    network, _, objective = prepared(images, options)
    tokens = network.tokens(objective.cache.of(range(12))).flatten(2).transpose(0, 1).flatten(1).double()
    covariance = torch.cov(tokens)
    assert tokens.mean(dim=1).abs().max() < 1e-3
    off = covariance - torch.diag(covariance.diagonal())
    assert off.abs().max() < 0.05 * covariance.diagonal().max()


def test_it_learns_in_sixteen_bits_too(images: list[Path], options: TrainOptions, tmp_path: Path) -> None:
    bundle = fit.train(images, tmp_path / "recipe", replace(options, precision="bfloat16"), progress=False)
    assert np.isfinite(Engine(bundle, "cpu", threads=1).score(read_image(images[1])).score)


def test_features_that_do_not_fit_into_memory_are_computed_again(
    images: list[Path], options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, pictures, objective = prepared(images, options)
    monkeypatch.setattr(feature, "CACHE_BYTES", 0)
    without = Cache(network, pictures)
    assert not without.kept
    for a, b in zip(without.of([3]), objective.cache.of([3]), strict=True):
        assert torch.allclose(a, b, atol=1e-3)


def test_the_usual_error_is_that_of_the_held_out_parts(images: list[Path], options: TrainOptions) -> None:
    network, pictures, objective = prepared(images, options)
    objective.finish(network, pictures, [0, 1, 2])
    errors = network.errors(network.reproduce(objective.cache.of([0, 1, 2])))
    assert torch.allclose(network.centre, torch.stack([e.mean() for e in errors]), atol=1e-5)
    assert torch.allclose(network.spread, torch.stack([e.std() for e in errors]), atol=1e-4)


def test_more_tokens_than_channels_are_not_needed(images: list[Path], options: TrainOptions) -> None:
    wide = replace(options, architecture=replace(TINY, dim=2048))
    network, _, objective = prepared(images[:2], wide)
    fit_statistics(network, [objective.cache.of([0])])
    assert network.tokens(objective.cache.of([0])).isfinite().all()


def test_moments_are_numpys() -> None:
    x = np.random.default_rng(0).normal(3, 2, (100, 5))
    mean, covariance = moments(torch.from_numpy(part) for part in np.array_split(x, 7))
    assert mean.numpy() == pytest.approx(x.mean(axis=0))
    assert covariance.numpy() == pytest.approx(np.cov(x.T, bias=True))


def test_missing_weights_are_named_before_training(images: list[Path], options: TrainOptions) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.pth do not exist"):
        fit.train(images, Path("unused"), replace(options, backbone_weights="nowhere.pth"), progress=False)


def test_options_of_the_method() -> None:
    chosen = TrainOptions.of(method="feature", preset="small", backbone="resnet18", backbone_weights="w.pth")
    assert chosen.architecture == replace(FEATURE_PRESETS["small"], backbone="resnet18")
    assert chosen.backbone_weights == "w.pth"
    assert chosen.preprocessing().mean == (0.485, 0.456, 0.406)
