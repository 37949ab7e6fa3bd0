"""The restore method's training in stages."""

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from inspector.errors import TrainingError
from inspector.model import bundle as bundles
from inspector.model.engine import Engine
from inspector.model.network import Network, build
from inspector.model.records import Architecture
from inspector.model.restore import Restorer, halved
from training.data import Pictures, list_images, read_image
from training.fit import train
from training.options import TrainOptions
from training.restore import RESTORING, SLEEPING, RestoreObjective, found_loss

TINY = Architecture(
    method="restore",
    size=64,
    patch=8,
    dim=16,
    depth=1,
    heads=2,
    slots=10,
    backbone="drawn",
    bank=50,
    scales=2,
)
OPTIONS = TrainOptions(
    architecture=TINY, epochs=2, batch=4, learning_rate=2e-3, held_out=0.2, device="cpu", threads=1
)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Ten pictures of a bright bar that moves a little, one of them with 16 bits."""
    rng, folder = np.random.default_rng(0), tmp_path / "good"
    folder.mkdir()
    for i in range(10):
        image = rng.integers(40, 60, (72, 72)).astype(np.uint8)
        image[20 + i % 3 : 50, 30:45] = 200
        cv2.imwrite(str(folder / f"{i:02}.png"), image if i else image.astype(np.uint16) * 256)
    return list_images(folder)


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Send ourselves a signal in the middle of this step."""
    original, calls = RestoreObjective.losses, []

    def losses(
        self: RestoreObjective,
        network: Network,
        pictures: Pictures,
        indices: Sequence[int],
        rng: np.random.Generator,
    ) -> dict[str, torch.Tensor]:
        if network.training:
            calls.append(1)
            if len(calls) == step:
                os.kill(os.getpid(), signal.SIGINT)
        return original(self, network, pictures, indices, rng)

    monkeypatch.setattr(RestoreObjective, "losses", losses)


def test_it_finds_damage_on_parts_it_has_not_seen(images: list[Path], tmp_path: Path) -> None:
    fine = replace(TINY, scales=1)  # places of 8 pixels, of which the part has 64
    options = replace(OPTIONS, architecture=fine, epochs=60, learning_rate=5e-3)
    bundle = train(images, tmp_path / "recipe", options, progress=False)
    engine = Engine(bundles.load(bundle.path), "cpu", threads=1)
    unseen = {name for name, _ in bundle.provenance["held_out"]}
    rng = np.random.default_rng(5)
    for path in (p for p in images if p.name in unseen):
        part = read_image(path)
        eight = part if part.dtype == np.uint8 else (part >> 8).astype(np.uint8)
        bad = eight.copy()
        bad[30:40, 32:42] = 40 + rng.integers(0, 20, (10, 10))  # a piece of the bar is gone
        good, found = engine.score(part), engine.score(bad)
        assert found.score > good.score
        assert np.hypot(*(np.array(np.unravel_index(found.map.argmax(), found.map.shape)) - [31, 33])) < 10


@pytest.mark.parametrize(
    ("epochs", "step"),  # of two steps each; of 2 the first restores, of 40 the first 8, of these 4 asleep
    [(2, 1), (2, 2), (2, 3), (20, 3), (20, 6)],
)
def test_a_stopped_run_ends_as_one_that_was_not(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, step: int
) -> None:
    options = replace(OPTIONS, epochs=epochs)
    whole = train(images, tmp_path / "whole", options, progress=False)
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(TrainingError, match=f"step {step} of {2 * epochs}"):
            train(images, tmp_path / "pieces", options, progress=False)
    pieces = train(images, tmp_path / "pieces", options, progress=False)
    assert pieces.weights_sha256 == whole.weights_sha256


def learns(images: list[Path], done: float, epochs: int = 2) -> tuple[Restorer, set[str]]:
    """The network after the losses of one batch, and the parts of it that these teach."""
    torch.manual_seed(0)
    network = build(TINY).train()
    assert isinstance(network, Restorer)
    options = replace(OPTIONS, epochs=epochs)
    pictures = Pictures(images, options.preprocessing())
    objective = RestoreObjective(options)
    objective.prepare(network, pictures, range(8))
    network.train()
    objective.done = done
    objective.losses(network, pictures, range(8), np.random.default_rng(1))["loss"].backward()  # type: ignore[no-untyped-call]
    return network, {n.split(".")[0] for n, p in network.named_parameters() if p.grad is not None}


def test_first_the_autoencoder_learns_then_the_head(images: list[Path]) -> None:
    network, taught = learns(images, 0.0)
    assert taught == {"encoder", "bottleneck", "decoder"}
    assert not network.judging
    before = {n: b.clone() for n, b in network.named_buffers()}
    network, taught = learns(images, RESTORING)
    assert taught == {"coarse", "fine"}
    assert network.judging
    assert network.training
    assert network.usual.min() > 0
    assert network.variation.min() >= 0
    still = {n: b for n, b in network.named_buffers() if n.startswith("decoder") and "running_mean" in n}
    assert all(torch.equal(b, torch.zeros_like(b)) for b in still.values())
    assert not all(torch.equal(before[n], b) for n, b in still.items())


def test_the_memory_wakes_knowing_what_the_encoder_sees_which_then_stays(images: list[Path]) -> None:
    network, taught = learns(images, 0.0, epochs=20)
    assert network.memory is not None
    assert network.memory.asleep
    assert taught == {"encoder", "bottleneck", "decoder"}
    assert network.memory.slots.grad is None
    before = network.memory.slots.clone()
    network, taught = learns(images, RESTORING * SLEEPING, epochs=20)
    assert network.memory is not None
    assert not network.memory.asleep
    assert taught == {"bottleneck", "decoder"}
    assert not torch.equal(network.memory.slots, before)
    _, taught = learns(images, 0.5, epochs=20)
    assert taught == {"coarse", "fine"}


def test_the_memory_sleeps_however_few_epochs_there_are() -> None:
    objective = RestoreObjective(replace(OPTIONS, epochs=8))
    objective.epochs, objective.steps = 8, 8 * 75  # as many as 600 parts have with the preset
    assert objective.waking() == 60 / 600


def test_at_first_it_draws_the_mean_part(images: list[Path]) -> None:
    torch.manual_seed(0)
    network = build(TINY).eval()
    assert isinstance(network, Restorer)
    pictures = Pictures(images, OPTIONS.preprocessing())
    RestoreObjective(OPTIONS).prepare(network, pictures, range(10))
    parts = pictures.batch(range(10), torch.device("cpu"))
    with torch.no_grad():
        drawn = network.reconstruct(parts).output
    mean = F.interpolate(halved(parts.mean(dim=0, keepdim=True)), 64, mode="bilinear")
    alike = torch.corrcoef(torch.stack([drawn[0].flatten(), mean.flatten()]))[0, 1]
    assert alike > 0.95


def test_banks_and_weights_are_found_at_the_end(images: list[Path], tmp_path: Path) -> None:
    bundle = train(images, tmp_path / "recipe", OPTIONS, progress=False)
    weights = bundle.provenance["findings"]["weights"]
    assert sum(weights.values()) == pytest.approx(1)
    assert min(weights.values()) >= 0
    assert "damage seen by the head" in weights
    tensors = bundles.weights(bundle)
    for k in range(len(weights) - 1):
        slots = tensors[f"banks.{k}.slots"]
        assert slots.shape[0] == 50
        assert slots.isfinite().all()
        assert slots.std() > 0
    assert (tensors["spread"] != 1).all()
    assert (tensors["centre"] != 0).all()


@pytest.mark.parametrize("held_out", [0.1, 0.0])
def test_with_one_part_held_out_or_none_the_score_is_a_sensible_number(
    images: list[Path], tmp_path: Path, held_out: float
) -> None:
    """With none the banks know all parts, and what they say of them is nothing to go by."""
    options = replace(OPTIONS, held_out=held_out, epochs=10)
    bundle = train(images[:-1], tmp_path / "recipe", options, progress=False)
    assert len(bundle.provenance["held_out"]) == round(held_out * 9)
    weights = bundle.provenance["findings"]["weights"]
    assert (weights["damage seen by the head"] == 1) is (held_out == 0)
    assert 0 <= Engine(bundle, "cpu", threads=1).score(read_image(images[-1])).score < 100


def test_parts_that_are_copies_of_one_another_do_not_make_rounding_an_error(
    images: list[Path], tmp_path: Path
) -> None:
    for path in images[2:9]:
        path.write_bytes(images[1].read_bytes())
    bundle = train(images[1:9], tmp_path / "recipe", replace(OPTIONS, epochs=10), progress=False)
    assert Engine(bundle, "cpu", threads=1).score(read_image(images[9])).score < 100


def test_banks_are_found_anew_where_a_night_goes_on_from_weights(images: list[Path], tmp_path: Path) -> None:
    options = replace(OPTIONS, symmetries=("flip-x",))
    first = train(images[:8], tmp_path / "recipe", options, progress=False)
    warm = train(images[2:], tmp_path / "recipe", options, progress=False, start=first)
    before, after = bundles.weights(first), bundles.weights(warm)
    assert not torch.equal(before["banks.0.slots"], after["banks.0.slots"])
    assert sum(warm.provenance["findings"]["weights"].values()) == pytest.approx(1)


def test_without_banks_the_head_alone_is_read(images: list[Path], tmp_path: Path) -> None:
    plain = replace(OPTIONS, architecture=replace(TINY, bank=0))
    bundle = train(images, tmp_path / "recipe", plain, progress=False)
    assert bundle.provenance["findings"]["weights"] == {"damage seen by the head": 1.0}
    assert np.isfinite(Engine(bundle, "cpu", threads=1).score(read_image(images[1])).score)


def test_the_rate_starts_anew_with_the_head() -> None:
    objective = RestoreObjective(OPTIONS)
    assert objective.rate(0.0) < 0.05
    assert objective.rate(RESTORING * 0.999) < 0.01
    assert objective.rate(RESTORING + 0.1 * (1 - RESTORING)) > 0.9
    assert objective.rate(0.999) < 0.01


def test_finding_the_damage_costs_less_than_missing_it() -> None:
    share = torch.zeros(2, 1, 16, 16)
    share[0, :, 4:8, 4:8] = 1
    found, missed = (found_loss(logit, share) for logit in (12 * share - 6, -6 * torch.ones_like(share)))
    assert found < 0.1 < missed


def test_enough_steps_end_a_run_at_the_end_of_an_epoch(images: list[Path], tmp_path: Path) -> None:
    bundle = train(images, tmp_path / "recipe", replace(OPTIONS, epochs=9, steps=3), progress=False)
    assert len(bundle.provenance["curve"]) == 2  # of two steps each


def test_options_refuse_what_cannot_be() -> None:
    with pytest.raises(TrainingError, match="steps is -1"):
        replace(OPTIONS, steps=-1)
