"""An unfinished training run on disk: one safetensors file, tensors and, as JSON in its header, the rest.

Its folder is named after what the run was asked to do and the images it got, so that a run finds its own
checkpoint and never another's.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from inspector.errors import TrainingError
from training.options import TrainOptions

FORMAT = 1
FILE = "checkpoint.safetensors"


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0  # optimiser steps done
    seconds: float = 0.0  # spent training, over all pieces
    sums: dict[str, float] = field(default_factory=dict)  # losses of the epoch in hand, weighted by parts
    curve: list[dict[str, float]] = field(default_factory=list)  # one entry for each finished epoch


def folder_for(recipe_dir: Path, options: TrainOptions, sha256: Sequence[str]) -> Path:
    """Where the checkpoint of this run belongs. Device and threads may change between pieces."""
    asked = {k: v for k, v in asdict(options).items() if k not in ("device", "threads")}
    key = json.dumps([FORMAT, asked, list(sha256)], sort_keys=True)
    return recipe_dir / "training" / hashlib.sha256(key.encode()).hexdigest()[:16]


def save(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write the checkpoint, whole or not at all. Raises TrainingError when it cannot be written."""
    tensors = {f"network.{name}": t for name, t in network.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": t for name, t in moments.items()}
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    fresh = folder / (FILE + ".new")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(tensors, fresh, metadata={"progress": json.dumps(asdict(progress))})
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(folder / FILE)
    except (OSError, safetensors.SafetensorError) as error:
        raise TrainingError(
            f"{folder / FILE} cannot be written ({error}); free space and run it again"
        ) from error


def load(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Put network and optimizer where the checkpoint left off; a fresh Progress when there is none.

    Raises TrainingError when the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return Progress()
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            progress = Progress(**json.loads(file.metadata()["progress"]))
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        network.load_state_dict(_under("network.", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for name, t in _under("optimizer.", tensors).items():
            index, moment = name.split(".", 1)
            state.setdefault(int(index), {})[moment] = t
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    except (OSError, safetensors.SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path} is damaged ({error}); remove it to start anew") from error
    return progress


def remove(folder: Path) -> None:
    """Forget a finished run."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.is_dir() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
