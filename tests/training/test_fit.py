import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from inspector.errors import TrainingError
from inspector.model import bundle as bundles
from inspector.model.bundle import Bundle
from inspector.model.engine import Engine
from inspector.model.network import build
from inspector.model.records import PRESETS, Architecture
from training import checkpoint, fit
from training.data import list_images, read_image
from training.losses import Objective
from training.options import EPOCHS, LEARNING_RATE, TrainOptions

TINY = Architecture(size=32, patch=8, dim=16, depth=1, heads=2, slots=10)
OPTIONS = TrainOptions(
    architecture=TINY, epochs=3, batch=4, learning_rate=2e-3, held_out=0.2, device="cpu", threads=1
)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Twelve pictures of a bright bar that moves a little."""
    rng, folder = np.random.default_rng(0), tmp_path / "good"
    folder.mkdir()
    for i in range(12):
        image = rng.integers(40, 60, (48, 48)).astype(np.uint8)
        image[10 + i % 3 : 30, 20:30] = 200
        cv2.imwrite(str(folder / f"{i:02}.png"), image)
    return list_images(folder)


def weights_of(bundle: Bundle) -> dict[str, torch.Tensor]:
    return bundles.weights(bundle)


def same(a: Bundle, b: Bundle) -> bool:
    return a.weights_sha256 == b.weights_sha256 and a.provenance["curve"] == b.provenance["curve"]


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, number: signal.Signals) -> None:
    """Send ourselves a signal in the middle of this step."""
    original, calls = Objective.losses, []

    def losses(self: Objective, network, *args):  # type: ignore[no-untyped-def]
        if network.training:
            calls.append(1)
            if len(calls) == step:
                os.kill(os.getpid(), number)
        return original(self, network, *args)

    monkeypatch.setattr(Objective, "losses", losses)


def test_it_learns_and_says_from_what(images: list[Path], tmp_path: Path) -> None:
    bundle = fit.train(images, tmp_path / "models", replace(OPTIONS, epochs=12), progress=False)
    curve = bundle.provenance["curve"]
    assert len(curve) == 12
    assert curve[-1]["loss"] < 0.6 * curve[0]["loss"]
    used = {"slots_read", "slots_first", "empty_rows"}
    assert set(curve[-1]) == {"loss", "l2", "ssim", "entropy", "held_out", *used}
    assert all(0 <= curve[-1][name] <= 1 for name in used)
    trained, held_out = bundle.provenance["trained_on"], bundle.provenance["held_out"]
    assert (len(trained), len(held_out)) == (10, 2)
    assert sorted(name for name, _ in trained + held_out) == [p.name for p in images]
    assert bundle.provenance["memory"]["slots"] == 10
    assert 0 <= bundle.provenance["memory"]["entropy"] <= bundle.provenance["memory"]["entropy_max"]
    assert bundle.threshold is None
    assert bundle.preprocessing.size == 32
    engine = Engine(bundle, "cpu")
    scores = [engine.score(read_image(p)).score for p in images if p.name in {name for name, _ in held_out}]
    assert scores == pytest.approx(bundle.provenance["held_out_scores"], rel=1e-4)
    assert {p.name for p in (tmp_path / "models").iterdir()} == {bundle.id, "reports"}


def test_the_same_seed_gives_the_same_weights(images: list[Path], tmp_path: Path) -> None:
    first = fit.train(images, tmp_path / "a", OPTIONS, progress=False)
    assert same(first, fit.train(images, tmp_path / "b", OPTIONS, progress=False))
    assert not same(first, fit.train(images, tmp_path / "c", replace(OPTIONS, seed=1), progress=False))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 5])  # of 9; an epoch has 3
def test_a_stopped_run_goes_on_to_the_same_result(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, step: int
) -> None:
    before = signal.getsignal(number)
    whole = fit.train(images, tmp_path / "whole", OPTIONS, progress=False)
    with monkeypatch.context() as patch:
        stop_at(patch, step, number)
        with pytest.raises(TrainingError, match=rf"stopped at step {step} of 9.*same command again"):
            fit.train(images, tmp_path / "pieces", OPTIONS, progress=False)
    assert signal.getsignal(number) is before
    assert bundles.listing(tmp_path / "pieces") == []
    torch.manual_seed(12345)  # what happened to the global generator meanwhile must not matter
    resumed = fit.train(images, tmp_path / "pieces", OPTIONS, progress=False)
    assert same(whole, resumed)
    assert not (tmp_path / "pieces" / "training").exists()


def test_a_run_that_nobody_will_resume_writes_nothing_before_its_bundle(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "CHECKPOINT_SECONDS", 0.0)
    written: list[Path] = []
    monkeypatch.setattr(checkpoint, "save", lambda folder, *_: written.append(folder))
    with monkeypatch.context() as patch:
        stop_at(patch, 5, signal.SIGTERM)
        with pytest.raises(TrainingError, match=r"stopped at step 5 of 9$"):
            fit.train(images, tmp_path / "m", OPTIONS, progress=False, resumable=False)
    fit.train(images, tmp_path / "m", OPTIONS, progress=False, resumable=False)
    assert written == []
    fit.train(images, tmp_path / "n", OPTIONS, progress=False)
    assert written, "the patch shows what would have been written"


def test_a_checkpoint_of_another_run_is_kept_and_not_used(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 4, signal.SIGINT)
        with pytest.raises(TrainingError):
            fit.train(images, tmp_path / "m", OPTIONS, progress=False)
    (kept,) = (tmp_path / "m" / "training").iterdir()
    other = fit.train(images[:-1], tmp_path / "m", OPTIONS, progress=False)
    assert len(other.provenance["trained_on"]) + len(other.provenance["held_out"]) == 11
    assert "unfinished runs of other images" in caplog.text
    assert (kept / checkpoint.FILE).exists()
    assert same(
        fit.train(images, tmp_path / "m", OPTIONS, progress=False),
        fit.train(images, tmp_path / "n", OPTIONS, progress=False),
    )


def test_a_damaged_checkpoint_is_named(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 4, signal.SIGINT)
        with pytest.raises(TrainingError):
            fit.train(images, tmp_path / "m", OPTIONS, progress=False)
    (folder,) = (tmp_path / "m" / "training").iterdir()
    path = folder / checkpoint.FILE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TrainingError, match=rf"{checkpoint.FILE} is damaged.*remove it"):
        fit.train(images, tmp_path / "m", OPTIONS, progress=False)


def test_a_killed_run_goes_on_at_its_last_epoch(images: list[Path], tmp_path: Path) -> None:
    script = f"""
import os
from pathlib import Path
from training import fit
from training.losses import Objective
from tests.training.test_fit import OPTIONS
fit.CHECKPOINT_SECONDS = 0
original, calls = Objective.losses, []
def losses(self, network, *args):
    calls.append(network.training)
    if sum(calls) == 8:
        os.kill(os.getpid(), 9)
    return original(self, network, *args)
Objective.losses = losses
images = [Path(p) for p in {[str(p) for p in images]}]
fit.train(images, Path({str(tmp_path / "m")!r}), OPTIONS, progress=False)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL
    (folder,) = (tmp_path / "m" / "training").iterdir()
    network = build(TINY)
    assert checkpoint.load(folder, network, torch.optim.Adam(network.parameters())).step == 6
    resumed = fit.train(images, tmp_path / "m", OPTIONS, progress=False)
    assert same(resumed, fit.train(images, tmp_path / "n", OPTIONS, progress=False))


def test_a_diverging_run_is_stopped(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Objective.losses

    def losses(self: Objective, *args):  # type: ignore[no-untyped-def]
        found = original(self, *args)
        return found | {"loss": found["loss"] * torch.nan}

    monkeypatch.setattr(Objective, "losses", losses)
    with pytest.raises(TrainingError, match="diverged in epoch 1: the loss is nan; lower learning_rate"):
        fit.train(images, tmp_path / "m", OPTIONS, progress=False)


def test_too_few_images(images: list[Path], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="1 images are too few"):
        fit.train(images[:1], tmp_path / "m", OPTIONS, progress=False)


def test_a_place_that_cannot_be_written(images: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="cannot be written"):
        fit.train(images, tmp_path / "file", OPTIONS, progress=False)


@pytest.mark.parametrize("memory", [True, False])
def test_without_memory_there_is_nothing_to_count(images: list[Path], tmp_path: Path, memory: bool) -> None:
    options = replace(OPTIONS, architecture=replace(TINY, memory=memory), epochs=1, held_out=0.0)
    provenance = fit.train(images, tmp_path / "m", options, progress=False).provenance
    assert (provenance["memory"] is not None) == memory
    assert ("entropy" in provenance["curve"][0]) == memory
    assert provenance["held_out_scores"] == []
    assert "held_out" not in provenance["curve"][0]


def test_the_memory_sleeps_until_features_mean_something(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For one of four epochs; stopped right before it wakes, and right after, the result is the same."""
    options = replace(OPTIONS, epochs=4)
    whole = fit.train(images, tmp_path / "whole", options, progress=False)
    assert [("entropy" in e, "slots_first" in e) for e in whole.provenance["curve"]] == [
        (False, False),
        *3 * [(True, True)],
    ]
    assert whole.provenance["memory"]["slots_first"] >= 0.5
    for step in (3, 4):  # an epoch has 3
        with monkeypatch.context() as patch:
            stop_at(patch, step, signal.SIGINT)
            with pytest.raises(TrainingError, match=f"stopped at step {step} of 12"):
                fit.train(images, tmp_path / f"at{step}", options, progress=False)
        assert same(whole, fit.train(images, tmp_path / f"at{step}", options, progress=False))
    awake = fit.train(images, tmp_path / "awake", replace(options, memory_after=0.0), progress=False)
    assert all("entropy" in e for e in awake.provenance["curve"])


def test_the_memory_starts_from_features_of_the_parts(images: list[Path], tmp_path: Path) -> None:
    """A step of nearly nothing leaves the slots where they began: on features, which they then match."""
    barely = replace(OPTIONS, epochs=1, learning_rate=1e-9)
    for slots_from, first in (("features", 0.8), ("random", 0.0)):
        bundle = fit.train(
            images, tmp_path / slots_from, replace(barely, slots_from=slots_from), progress=False
        )
        assert bundle.provenance["memory"]["slots_first"] >= first
    assert bundle.provenance["memory"]["slots_first"] < 0.8


def test_every_preset_has_its_epochs_and_rate() -> None:
    assert set(EPOCHS) == set(LEARNING_RATE) == set(PRESETS)
    assert TrainOptions.of(method="paper", preset="paper") == TrainOptions()
    chosen = TrainOptions.of(
        method="paper", preset="tiny", epochs=7, seed=3, roi=(0, 0, 8, 8), threads=2, device="cpu"
    )
    assert (chosen.epochs, chosen.seed, chosen.preprocessing().roi) == (7, 3, (0, 0, 8, 8))
    assert chosen.preprocessing().size == chosen.architecture.size == PRESETS["tiny"].size
    for preset in PRESETS:  # however few the parts, it is the steps that end a training
        restore = TrainOptions.of(method="restore", preset=preset)
        assert 0 < restore.steps <= restore.epochs
