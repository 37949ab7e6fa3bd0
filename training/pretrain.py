"""Learn the weights of the backbone "drawn" from drawn surfaces: `python -m training.pretrain --out FILE`.

No photograph is needed and none is used. A run that was stopped goes on from its latest checkpoint.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from math import cos, pi
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm

from inspector.errors import ModelError, TrainingError
from inspector.model.backbone import DRAWN, Backbone
from training import checkpoint
from training.environment import versions
from training.episodes import EACH, EPISODES, PLAIN, SHOWN, Batch, batch, episode_loss, patterns_loss
from training.fields import SIDE
from training.patterns import Pattern

LEVELS = (2, 3, 4)  # strides 8, 16 and 32
WARM_UP, WEIGHT_DECAY = 300, 0.02  # the first in steps
NOT_LEARNED = ("out", "work", "workers", "threads", "start")  # options that change no weight, or by contents
KEPT = 500  # steps from checkpoint to checkpoint


def main(given: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m training.pretrain", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument(
        "--work", type=Path, default=Path("pretraining"), help="pictures, 2 GB, and checkpoint"
    )
    parser.add_argument("--start", type=Path, help="weights to go on from, such as those of a run before")
    parser.add_argument("--first", type=int, default=0, help="number of the first kind of surface")
    parser.add_argument("--patterns", type=int, default=6000, help="kinds of surfaces")
    parser.add_argument("--instances", type=int, default=12, help="pictures of each")
    parser.add_argument("--steps", type=int, default=18_000)
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw and damage pictures")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(given)
    try:
        check(args)
        torch.set_num_threads(args.threads)
        pretrain(args)
    except (TrainingError, ModelError, OSError, safetensors.SafetensorError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def check(args: argparse.Namespace) -> None:
    """Raises TrainingError for numbers that nothing can be learned with, or a file that cannot be one."""
    least = {"patterns": EPISODES, "instances": EACH, "steps": 1, "workers": 1, "threads": 1}
    for name, lowest in (least | {"first": 0, "seed": 0}).items():
        if getattr(args, name) < lowest:
            raise TrainingError(f"--{name} is {getattr(args, name)}: expected {lowest} or more")
    if not 0 < args.rate <= 1:
        raise TrainingError(f"--rate is {args.rate}: expected more than 0, at most 1")
    if args.out.is_dir():
        raise TrainingError(f"--out {args.out} is a folder: expected a file to write")


def pretrain(args: argparse.Namespace) -> None:
    """Draw, learn, write. Raises TrainingError."""
    torch.manual_seed(args.seed)
    network = Pupil(args.patterns)
    if args.start:
        network.backbone.load(DRAWN, str(args.start), SHOWN)
    drawn = surfaces(args.work, args.first, args.patterns, args.instances, args.workers)
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.rate, weight_decay=WEIGHT_DECAY)
    folder = args.work / run_name(args)
    progress = checkpoint.load(folder, network, optimizer)
    begun, before = time.monotonic(), progress.seconds
    source = Lessons(drawn, args.seed, progress.step, args.steps)
    loader = DataLoader(
        source, batch_size=None, num_workers=args.workers, prefetch_factor=4, multiprocessing_context="spawn"
    )
    with tqdm(total=args.steps, initial=progress.step, desc="pretraining", unit="step", disable=None) as bar:
        for lesson in loader:
            for group in optimizer.param_groups:
                group["lr"] = args.rate * rate(progress.step, args.steps)
            losses = network.losses(lesson)
            optimizer.zero_grad()
            losses["loss"].backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            progress.step += 1
            for name, loss in losses.items():
                progress.sums[name] = progress.sums.get(name, 0.0) + loss.item()
            bar.update()
            if progress.step % KEPT == 0 or progress.step == args.steps:
                progress.seconds = before + time.monotonic() - begun
                steps = (progress.step - 1) % KEPT + 1
                progress.curve.append({k: v / steps for k, v in progress.sums.items()})
                bar.write(f"{progress.step}: {progress.curve[-1]}", file=sys.stderr)
                progress.sums = {}
                checkpoint.save(folder, network, optimizer, progress)
    write(network.backbone, args, progress)


def run_name(args: argparse.Namespace) -> str:
    """Of the checkpoint's folder: another for each run that learns something else."""
    begun = sha256(args.start.read_bytes()).hexdigest()[:8] if args.start else "nothing"
    kinds = f"{args.first}+{args.patterns}x{args.instances}"
    return f"seed{args.seed}-{kinds}-{args.steps}-{args.rate:g}-from-{begun}"


def rate(step: int, steps: int) -> float:
    """Factor of the learning rate: a short rise, then half a cosine."""
    return min(1.0, step / WARM_UP + 0.01) * (0.5 + 0.5 * cos(pi * step / steps))


class Pupil(nn.Module):
    """The backbone, learning, and at each of its levels a guess at the pattern."""

    def __init__(self, patterns: int):
        super().__init__()
        self.backbone = Backbone(DRAWN, LEVELS, SHOWN)
        self.backbone.requires_grad_(requires_grad=True)
        self.heads = nn.ModuleList(nn.Linear(c, patterns) for c in self.backbone.channels)
        self.to(memory_format=torch.channels_last)

    def losses(self, lesson: Batch) -> dict[str, Tensor]:
        """Of one batch; "loss" is the one to minimise."""
        self.backbone.model.train()
        x = lesson.pictures.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            levels = self.backbone.features(x)
        levels = [f.float() for f in levels]
        logits = [head(f[:PLAIN].mean(dim=(2, 3))) for head, f in zip(self.heads, levels, strict=True)]
        told = patterns_loss(logits, lesson.patterns)
        found = torch.stack([episode_loss(f[PLAIN:], lesson.masks) for f in levels]).sum()
        right = (logits[-1].argmax(dim=1) == lesson.patterns).float().mean()
        return {"loss": told + found, "patterns": told, "episodes": found, "right": right}


class Lessons(IterableDataset[Batch]):
    """Batches, each drawn from its own seed: those left of a resumed run are the same."""

    def __init__(self, drawn: Path, seed: int, first: int, end: int):
        self.drawn, self.seed, self.first, self.end = drawn, seed, first, end

    def __iter__(self) -> Iterator[Batch]:
        cv2.setNumThreads(1)
        drawn = np.load(self.drawn, mmap_mode="r")
        worker = torch.utils.data.get_worker_info()
        start, stride = (self.first + worker.id, worker.num_workers) if worker else (self.first, 1)
        for step in range(start, self.end, stride):
            yield batch(drawn, np.random.default_rng((self.seed, 11, step)))


def surfaces(work: Path, first: int, patterns: int, instances: int, workers: int) -> Path:
    """(patterns, instances, SIDE, SIDE, 3) uint8 in a file, drawn unless it is there and whole."""
    path = work / f"surfaces-{first}+{patterns}x{instances}.npy"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        out = np.lib.format.open_memmap(fresh, "w+", np.uint8, (patterns, instances, SIDE, SIDE, 3))
        with ProcessPoolExecutor(workers, get_context("spawn"), _alone) as pool:
            drawn = pool.map(_draw, range(first, first + patterns), [instances] * patterns, chunksize=8)
            for k, images in enumerate(tqdm(drawn, "surfaces", patterns, unit="pattern", disable=None)):
                out[k] = images
        out.flush()
        fresh.replace(path)
    return path


def _alone() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _draw(number: int, instances: int) -> NDArray[np.uint8]:
    pattern = Pattern(number)
    return np.stack([pattern.draw(k) for k in range(instances)])


def write(backbone: Backbone, args: argparse.Namespace, progress: checkpoint.Progress) -> None:
    """The weights as float16, with what they were made by in the file's header."""
    tensors = {
        name: (t.half() if t.is_floating_point() else t).contiguous()
        for name, t in backbone.model.state_dict().items()
    }
    asked = {k: str(v) for k, v in vars(args).items() if k not in NOT_LEARNED}
    last = {k: f"{v:.4f}" for k, v in progress.curve[-1].items()} if progress.curve else {}
    about = asked | {f"last_{k}": v for k, v in last.items()} | {"seconds": f"{progress.seconds:.0f}"}
    about |= {name: str(version) for name, version in versions().items()}
    about |= {f"start_{k}": v for k, v in header(args.start).items()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    fresh = args.out.with_suffix(".new")
    safetensors.torch.save_file(tensors, fresh, metadata=about)
    fresh.chmod(0o644)
    fresh.replace(args.out)


def header(weights: Path | None) -> dict[str, str]:
    """What a file that pretraining wrote says about how it was made."""
    if weights is None or weights.suffix != ".safetensors":
        return {}
    with safetensors.safe_open(weights, framework="pt") as file:
        return file.metadata() or {}


if __name__ == "__main__":
    sys.exit(main())
