"""Real processes, started by torchrun, which talk over gloo."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from inspector.errors import TrainingError
from inspector.model import bundle as bundles
from inspector.model.network import build
from tests.station import camera
from tests.training import test_feature, test_fit
from training import benchmark, checkpoint, distributed, fit
from training.data import list_images
from training.options import TrainOptions
from training.shared_norm import SharedNorm

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
PAPER = replace(  # 10 parts: batches of 2 + 1, and a last one that is too small for two
    test_fit.OPTIONS, batch=3, memory_after=0.4, learning_rate=2e-4
)
RESTORE = replace(
    PAPER,
    architecture=replace(test_fit.TINY, method="restore", size=64, backbone="drawn", bank=20, scales=2),
    batch=4,
)
FEATURE = replace(PAPER, architecture=test_feature.TINY, batch=4, symmetries=("flip-x",))


def with_weights(options: TrainOptions, folder: Path) -> TrainOptions:
    """Random ones, from a file."""
    file = folder / "backbone.safetensors"
    if not file.exists():
        torch.manual_seed(0)
        safetensors.torch.save_file(timm.create_model(test_feature.BACKBONE).state_dict(), file)
    return replace(options, backbone_weights=str(file))


def main(folder: Path, kill_at: int) -> None:
    """What each process does: the paper's method, killed at this step, or all three to their ends."""
    fit.CHECKPOINT_SECONDS = 0
    images = list_images(folder / "good")
    if kill_at:
        step = fit._Run._step

        def killed(self: fit._Run) -> float:
            if self.progress.step == kill_at and distributed.rank() == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(self)

        fit._Run._step = killed  # type: ignore[method-assign]
    fit.train(images, folder / "two" / "paper", PAPER, progress=False, reports=False)
    bundle = fit.train(images, folder / "two" / "restore", RESTORE, progress=False, reports=False)
    print(f"process {distributed.rank()} has {bundle.id}\n", end="")  # in one write: two processes share it
    fit.train(
        images, folder / "two" / "feature", with_weights(FEATURE, folder), progress=False, reports=False
    )


def together(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*TORCHRUN, *command], check=False, cwd=folder, env=env, capture_output=True, text=True, timeout=240
    )


def state(bundle: bundles.Bundle) -> torch.Tensor:
    """All floats, the statistics of the norms among them."""
    tensors = bundles.weights(bundle)
    return torch.cat([tensors[name].double().flatten() for name in sorted(tensors) if "num" not in name])


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    rng, folder = np.random.default_rng(0), tmp_path / "good"
    folder.mkdir()
    for i in range(12):
        image = rng.integers(40, 60, (48, 48, 3)).astype(np.uint8)
        image[10 + i % 3 : 30, 20:30] = 200
        cv2.imwrite(str(folder / f"{i:02}.png"), image)
    return list_images(folder)


def test_two_processes_end_where_one_does_though_one_of_them_is_killed(
    images: list[Path], tmp_path: Path
) -> None:
    """Within 1 % of the way that the weights go in three epochs; with norms of each process alone: 18 %."""
    me = str(Path(__file__))
    killed = together(me, str(tmp_path), "7", folder=tmp_path)
    assert killed.returncode != 0
    (folder,) = (tmp_path / "two" / "paper" / "training").iterdir()
    network = build(PAPER.architecture)
    assert checkpoint.load(folder, network, torch.optim.Adam(network.parameters())).step == 4
    assert bundles.listing(tmp_path / "two" / "paper") == []

    done = together(me, str(tmp_path), "0", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (bundle,) = bundles.listing(tmp_path / "two" / "paper")
    one = fit.train(images, tmp_path / "one", PAPER, progress=False, reports=False)
    torch.manual_seed(PAPER.seed)
    start = torch.cat(
        [
            t.double().flatten()
            for n, t in sorted(build(PAPER.architecture).state_dict().items())
            if "num" not in n
        ]
    )
    assert (state(bundle) - state(one)).norm() < 0.01 * (state(one) - start).norm()
    for mine, theirs in zip(one.provenance["curve"], bundle.provenance["curve"], strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-5)
    assert (one.provenance["processes"], bundle.provenance["processes"]) == (1, 2)

    for method in ("restore", "feature"):
        (bundle,) = bundles.listing(tmp_path / "two" / method)
        assert state(bundle).isfinite().all()
        assert len(bundle.provenance["curve"]) == PAPER.epochs
        assert not (bundle.path.parent / "training").exists()
        if method == "restore":
            assert {f"process {k} has {bundle.id}" for k in (0, 1)} <= set(done.stdout.splitlines())


def test_the_command_is_stopped_once_and_goes_on(images: list[Path], tmp_path: Path) -> None:
    """SIGTERM to torchrun in the middle; the same command then ends with one active bundle, told once."""
    (tmp_path / "station.toml").write_text(
        '[station]\nname = "s"\ndata = "data"\n[engine]\ndevice = "cpu"\nthreads = 1\n'
        '[recipe.part]\nnumber = 1\nmethod = "paper"\npreset = "tiny"\n' + camera()
    )
    command = ["-m", "inspector", "train", "--images", "good", "--epochs", "4"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*TORCHRUN, *command],
        cwd=tmp_path,
        env=env,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as first:
        assert first.stderr is not None
        seen = ""
        while "loss=" not in seen:
            seen += (got := first.stderr.read(1))
            assert got, seen
        first.send_signal(signal.SIGTERM)
        seen += first.stderr.read()
    assert first.returncode != 0
    assert "nothing is lost: run the same command again" in seen
    done = together(*command, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "loss=" in done.stderr
    assert "| 0/8 " not in done.stderr  # steps
    (bundle,) = bundles.listing(tmp_path / "data" / "models" / "part")
    assert done.stdout.count(f"bundle {bundle.id[:12]} is active") == 1
    assert done.stdout.count("12 pictures in") == 1


def test_a_norm_alone_is_what_it_was() -> None:
    """A batch is dealt out whole; where nobody else is, nothing is."""
    assert distributed.share([3, 1, 2]) == ([3, 1, 2], 1.0)
    norm = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    SharedNorm.put_into(norm)
    x = torch.rand(4, 3, 5, 5)
    assert isinstance(norm[0], SharedNorm)
    assert torch.equal(norm.eval()(x), torch.nn.BatchNorm2d(3).eval()(x))


def test_a_small_batch_is_everybodys_and_others_are_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    launched(monkeypatch, rank=1, count=3)
    assert distributed.share([5, 6]) == ([5, 6], 1.0)
    assert distributed.share([5, 6, 7, 8]) == ([6], 0.75)
    assert not distributed.leading()


def test_only_training_is_shared(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    launched(monkeypatch, rank=0, count=2)
    assert benchmark.main(["--data", "nowhere"]) == 1
    assert "torchrun started 2 processes of training.benchmark" in capsys.readouterr().err
    with pytest.raises(TrainingError, match=r"of inspector retrain.*only `inspector train`"):
        distributed.refuse("inspector retrain", "start it without torchrun")


def launched(monkeypatch: pytest.MonkeyPatch, rank: int, count: int) -> None:
    """As torchrun tells its processes."""
    for name, value in (("TORCHELASTIC_RUN_ID", "none"), ("RANK", rank), ("WORLD_SIZE", count)):
        monkeypatch.setenv(name, str(value))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
