"""Learn a recipe from normal parts. A run can be stopped at any step and goes on where it was."""

from __future__ import annotations

import logging
import platform
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from math import ceil, isfinite, log
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from inspector.errors import TrainingError
from inspector.model import bundle as bundles
from inspector.model.bundle import Bundle
from inspector.model.engine import describe
from inspector.model.fast import PRECISIONS, emulated
from inspector.model.network import Network, build
from training import checkpoint, distributed, exposure, report
from training.checkpoint import Progress
from training.data import Pictures
from training.losses import Objective, objective
from training.options import TrainOptions
from training.trial import Trial, attempt

__all__ = ["TrainOptions", "train"]

WATCHED = 16  # parts, at most, on which the use of the memory is followed from epoch to epoch …
COUNTED = 128  # … and on which it is counted at the end
CHECKPOINT_SECONDS = 20.0  # at most this often at the end of an epoch; always when stopped
LIBRARIES = ("torch", "timm", "numpy", "opencv-python", "safetensors")
logger = logging.getLogger(__name__)


def train(
    images: Sequence[Path],
    recipe_dir: Path,
    options: TrainOptions,
    *,
    progress: bool = True,
    reports: bool = True,
    start: Bundle | None = None,
    resumable: bool = True,
) -> Bundle:
    """Train on these images of normal parts and store the bundle, uncalibrated and not yet active.

    reports: write what training.report.path_of() names, beside the bundle. start: go on from the weights of
    this bundle, of the same architecture, in place of fresh ones. resumable: leave checkpoints.

    The same images and options go on with an unfinished run. On the CPU the result does not depend on
    interruptions; on a GPU it varies in the last digits. SIGINT and SIGTERM leave a checkpoint.
    Started by torchrun, all processes work on the one run (training.distributed) and return its bundle.
    Raises TrainingError (stopped, diverged, too few images), DataError, ModelError, BundleError.
    """
    try:
        with distributed.joined(options.device):
            return _Run(images, recipe_dir, options, progress, start, resumable).finish(reports)
    except KeyboardInterrupt:
        raise TrainingError("training stopped outside its steps; run the same command again") from None


class _Run:
    """One piece of a training run, from the checkpoint there is to the end or to a signal."""

    def __init__(
        self,
        images: Sequence[Path],
        recipe_dir: Path,
        options: TrainOptions,
        progress: bool,
        start: Bundle | None,
        resumable: bool,
    ) -> None:
        if len(images) < 2:
            raise TrainingError(f"{len(images)} images are too few to train on: expected at least 2")
        if options.precision not in PRECISIONS:
            raise TrainingError(
                f"precision is {options.precision!r}: expected one of {', '.join(PRECISIONS)}"
            )
        if options.threads > 0:
            torch.set_num_threads(options.threads)
        self.options = options
        self.recipe_dir = recipe_dir
        self.resumable = resumable
        self.bar = progress and distributed.leading()
        self.device = distributed.place(options.device)
        if slow := emulated(self.device, options.precision):
            logger.warning("precision: %s", slow)
        self.preprocessing = options.preprocessing()
        if options.exposure == "auto":
            light = exposure.chosen(images, self.preprocessing, progress=self.bar)
            self.preprocessing = replace(self.preprocessing, exposure=light)
        self.pictures = Pictures(images, self.preprocessing, progress=self.bar)
        self.trained, self.held_out = split(len(images), options)
        self.folder = checkpoint.folder_for(recipe_dir, options, self.pictures.sha256)
        torch.manual_seed(options.seed)
        self.network: Network = build(options.architecture).to(self.device)
        self.objective: Objective = objective(options)
        if start is None:
            self.objective.prepare(self.network, self.pictures, self.trained)
        else:
            self.network.load_state_dict(bundles.weights(start))
            self.objective.go_on(self.network, self.pictures, self.trained)
        self.optimizer = self.objective.optimizer(self.network)
        self.progress: Progress = checkpoint.load(self.folder, self.network, self.optimizer)
        self.losses = distributed.parallel(self.objective.losses, self.network)
        self.steps = ceil(len(self.trained) / options.batch)  # an epoch
        self.epochs = min(options.epochs, ceil(options.steps / self.steps) or options.epochs)
        self.objective.epochs, self.objective.steps = self.epochs, self.epochs * self.steps
        self._greet()

    def finish(self, reports: bool) -> Bundle:
        """Train what is left and write the bundle."""
        self._train()
        bundle = self._written(reports) if distributed.leading() else None
        path = distributed.told(str(bundle.path) if bundle else "")
        return bundle or bundles.load(Path(path))

    def _written(self, reports: bool) -> Bundle:
        self.network.eval()
        self.objective.finish(self.network, self.pictures, self.held_out or self.trained)
        trial = attempt(
            self.network,
            self.pictures,
            self.held_out or self.trained[:WATCHED],
            self.options.chosen_scoring(),
            self.options.seed,
        )
        bundle = bundles.write(
            self.recipe_dir,
            self.network.state_dict(),
            self.options.architecture,
            self.preprocessing,
            self.options.chosen_scoring(),
            provenance=self._provenance(trial),
        )
        checkpoint.remove(self.folder)
        if reports:
            report.write(bundle, trial)
        return bundle

    def _train(self) -> None:
        p, total, saved = self.progress, self.epochs * self.steps, time.monotonic()
        with (
            _stop_on_signal() as stop,
            tqdm(total=total, initial=p.step, unit="step", disable=not self.bar) as bar,
        ):
            while p.step < total:
                began = time.monotonic()
                bar.set_description(f"epoch {p.step // self.steps + 1}/{self.epochs}")
                loss = self._step()
                if p.step % self.steps == 0:
                    self._end_epoch()
                p.seconds += time.monotonic() - began
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                bar.update()
                if distributed.anywhere(stop.is_set()):
                    self._save()
                    distributed.told("saved")  # or the end of another process would end this one before it is
                    raise TrainingError(f"training stopped at step {p.step} of {total}{self._way_on()}")
                if p.step % self.steps == 0 and time.monotonic() - saved >= CHECKPOINT_SECONDS:
                    self._save()
                    saved = time.monotonic()
        self._save()

    def _way_on(self) -> str:
        if not self.resumable:
            return ""
        return f"; nothing is lost: run the same command again to go on (checkpoint in {self.folder})"

    def _save(self) -> None:
        if self.resumable and distributed.leading():
            checkpoint.save(self.folder, self.network, self.optimizer, self.progress)

    def _step(self) -> float:
        """One optimiser step. Its batch and its chance follow from seed and step number alone."""
        o, p = self.options, self.progress
        epoch, number = divmod(p.step, self.steps)
        order = np.random.default_rng((o.seed, 1, epoch)).permutation(self.trained)
        batch = order[number * o.batch : (number + 1) * o.batch].tolist()
        indices, weight = distributed.share(batch)
        self.objective.done = p.step / self.objective.steps
        torch.manual_seed(int(np.random.default_rng((o.seed, 2, p.step)).integers(2**62)))
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            chance = np.random.default_rng((o.seed, 3, p.step, *distributed.others()))
            losses = self.losses(self.network, self.pictures, indices, chance)
        told = distributed.mean({name: value.item() for name, value in losses.items()}, weight)
        loss = told["loss"]
        if not isfinite(loss):
            raise TrainingError(
                f"training diverged in epoch {epoch + 1}: the loss is {loss}; lower learning_rate "
                f"(now {o.learning_rate:g})"
            )
        (losses["loss"] * weight).backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        rate = o.learning_rate * self.objective.rate(self.objective.done)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        for name, value in told.items():
            p.sums[name] = p.sums.get(name, 0.0) + value * len(batch)
        p.step += 1
        return loss

    def _end_epoch(self) -> None:
        if not distributed.leading():
            return
        p = self.progress
        entry = {name: value / len(self.trained) for name, value in p.sums.items()}
        if self.held_out:
            entry["held_out"] = self._held_out_loss()
        some = self.trained[:: ceil(len(self.trained) / WATCHED)]
        if memory := memory_statistics(self.network, self.pictures, some, self.options.batch):
            entry |= {name: memory[name] for name in ("slots_read", "slots_first", "empty_rows")}
        p.curve.append(entry)
        p.sums = {}

    @torch.no_grad()
    def _held_out_loss(self) -> float:
        self.network.eval()
        total, rng = 0.0, np.random.default_rng((self.options.seed, 4))
        for indices in _batches(self.held_out, self.options.batch):
            with self._autocast():
                losses = self.objective.losses(self.network, self.pictures, indices, rng)
            total += losses["loss"].item() * len(indices)
        return total / len(self.held_out)

    def _autocast(self) -> torch.autocast:
        precision = self.options.precision
        return torch.autocast(self.device.type, PRECISIONS[precision], enabled=precision != "float32")

    def _provenance(self, trial: Trial) -> dict[str, Any]:
        p = self.pictures

        def named(indices: Sequence[int]) -> list[list[str]]:
            return [[p.files[i].name, p.sha256[i]] for i in indices]

        return {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "parent": None,
            "trained_on": named(self.trained),
            "held_out": named(self.held_out),
            "options": asdict(self.options),
            "device": describe(self.device),
            "processes": distributed.count(),
            "seconds": round(self.progress.seconds, 3),
            "curve": self.progress.curve,
            "memory": memory_statistics(
                self.network, p, self.trained[:: ceil(len(self.trained) / COUNTED)], self.options.batch
            ),
            "held_out_scores": trial.good if self.held_out else [],
            "findings": self.objective.findings,
            "synthetic": trial.summary() if self.held_out else None,
            "libraries": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        }

    def _greet(self) -> None:
        if not distributed.leading():
            return
        if self.progress.step:
            logger.info("going on at step %d with %s", self.progress.step, self.folder)
            return
        if self.folder.parent.is_dir():
            others = sorted(path.name for path in self.folder.parent.iterdir())
            logger.warning(
                "%s holds unfinished runs of other images or options (%s); they are kept, remove them if "
                "they are not wanted",
                self.folder.parent,
                ", ".join(others),
            )


def split(count: int, options: TrainOptions) -> tuple[list[int], list[int]]:
    """Indices to train on and to hold out, each sorted; drawn by the seed."""
    held = min(round(options.held_out * count), count - 1)
    order = np.random.default_rng((options.seed, 0)).permutation(count)
    return sorted(order[held:].tolist()), sorted(order[:held].tolist())


@torch.no_grad()
def memory_statistics(
    network: Network, pictures: Pictures, indices: Sequence[int], batch: int
) -> dict[str, float] | None:
    """How the memory is used over these parts; None without memory.

    entropy: mean of the addressing, in nats, at most entropy_max = log N.
    empty_rows: share of tokens that the shrinkage left with nothing.
    slots_read: share of slots that have weight in any token.
    slots_first: share of slots that are the best match of any token.
    """
    network.eval()
    device = next(network.parameters()).device
    entropies: list[float] = []
    empty = tokens = 0
    read = first = torch.zeros(1, dtype=torch.bool)
    for part in _batches(indices, batch):
        addressing = network.reconstruct(pictures.batch(part, device)).addressing
        if addressing is None:
            return None
        w = addressing.weights.flatten(0, 1)  # (tokens, N)
        entropies += torch.special.entr(w).sum(dim=1).tolist()
        empty += int(addressing.empty.sum())
        tokens += len(w)
        kept = w[~addressing.empty.flatten()]
        read = read | (kept > 0).any(dim=0).cpu()
        best = torch.bincount(kept.argmax(dim=1), minlength=w.shape[1]) > 0
        first = first | best.cpu()
    return {
        "entropy": float(np.mean(entropies)),
        "entropy_max": log(len(read)),
        "empty_rows": empty / tokens,
        "slots": len(read),
        "slots_read": read.float().mean().item(),
        "slots_first": first.float().mean().item(),
    }


def _batches(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second signal acts as it always does."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(number: int, _: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
