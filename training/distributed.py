"""Several processes, one training: `torchrun --nproc-per-node N -m inspector train …`, on one machine.

Plain data parallelism: every process draws the same batch and takes its slice. Gradients and batch norms are
those of the whole batch and every loss is a mean over parts, so that a step is that of one process up to
rounding; but each process draws its own damage (restore) and symmetries (feature). Every process decodes the
pictures, computes features and prepares statistics, memory and banks; of those the first one's count. The
first alone computes held-out losses, restore's banks, weights of errors and trial, and writes checkpoints,
bundle and report.
An error in one ends all (torchrun sees to it). What torchrun has not started comes through here unchanged.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from inspector.errors import TrainingError
from inspector.model.engine import resolve
from training.shared_norm import SharedNorm

_number = itertools.count()  # of the training in this process
PATIENCE = timedelta(hours=2)  # of the others with what the first does alone


def count() -> int:
    """Processes of this training."""
    return int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def leading() -> bool:
    """Whether this process is the one that speaks and writes."""
    return rank() == 0


def others() -> tuple[int, ...]:
    """What a seed has to know of this process, so that each draws its own chance: nothing for the first."""
    return () if leading() else (rank(),)


def refuse(command: str, instead: str) -> None:
    """Raises TrainingError where torchrun has started several processes of what only one may do."""
    if count() > 1:
        raise TrainingError(
            f"torchrun started {count()} processes of {command}, but only `inspector train` shares its work "
            f"among several: {instead}"
        )


def place(asked: str) -> torch.device:
    """The device of this process. Raises ModelError if it is missing, TrainingError if shared."""
    device = resolve(asked)
    if count() == 1 or device.type != "cuda":
        return device
    if device.index is not None and asked != "auto":
        raise TrainingError(
            f'device is "{asked}", and torchrun started {count()} processes, each of which takes a GPU of '
            'its own: expected "auto", "cuda" or "cpu"'
        )
    if int(os.environ["LOCAL_WORLD_SIZE"]) > (found := torch.cuda.device_count()):
        raise TrainingError(
            f"torchrun started {os.environ['LOCAL_WORLD_SIZE']} processes for {found} GPUs: "
            f"expected --nproc-per-node {found} at most"
        )
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


@contextmanager
def joined(asked: str) -> Iterator[None]:
    """Together with the others that torchrun has started for this training, on place(asked) each."""
    if count() == 1:
        yield
        return
    device = place(asked)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store, me, size = next(rendezvous("env://"))
    store = PrefixStore(f"training {next(_number)}", store)  # a group leaves its traces in it
    dist.init_process_group(backend, store=store, rank=me, world_size=size, timeout=PATIENCE)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Grad strides do not match")  # of axes that are 1 long
        try:
            yield
        except RuntimeError as error:
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            raise TrainingError(
                f"process {rank()} of {count()} has lost another one, whose own message says why; run the "
                "same command again to go on from the last checkpoint"
            ) from error
    if (
        store.add("ready to leave", 1) == size
    ):  # who leaves first would tear what is still on its way to others
        store.set("all may leave", "")
    store.wait(["all may leave"], PATIENCE)
    dist.destroy_process_group()  # not after an error: with others gone it may hang, and none would ever end


def parallel(
    losses: Callable[..., dict[str, Tensor]], network: nn.Module
) -> Callable[..., dict[str, Tensor]]:
    """These losses of this network, with gradients that are the mean of all processes.

    The first one's network becomes everybody's, and its batch norms speak of all processes.
    """
    if count() == 1:
        return losses
    SharedNorm.put_into(network)
    return DistributedDataParallel(
        _Losses(losses, network), find_unused_parameters=True
    )  # it learns in stages


class _Losses(nn.Module):
    """What DistributedDataParallel wants: a module that owns the weights, whose forward gives the losses."""

    def __init__(self, losses: Callable[..., dict[str, Tensor]], network: nn.Module) -> None:
        super().__init__()
        self.losses, self.network = losses, network

    def forward(self, *arguments: object) -> dict[str, Tensor]:
        return self.losses(*arguments)


def share(batch: Sequence[int]) -> tuple[Sequence[int], float]:
    """The slice of a batch for this process, and how much its mean counts in the mean of all processes.

    A batch that is too small for all to get some is everybody's: its mean is the same.
    """
    if len(batch) < count():
        return batch, 1.0
    mine = batch[rank() :: count()]
    return mine, len(mine) * count() / len(batch)


def mean(values: Mapping[str, float], weight: float) -> dict[str, float]:
    """Of what all processes found, with the weights that share() gave."""
    if count() == 1:
        return dict(values)
    total = torch.tensor(list(values.values()), dtype=torch.float64) * weight
    dist.all_reduce(total)
    return dict(zip(values, (total / count()).tolist(), strict=True))


def anywhere(flag: bool) -> bool:
    """Whether it is true in any process; all meet here."""
    return flag if count() == 1 else mean({"": float(flag)}, 1.0)[""] > 0


def agree(*tensors: Tensor) -> None:
    """Overwrite them with the first process's."""
    if count() > 1:
        for tensor in tensors:
            dist.broadcast(tensor.detach(), 0)


def told(text: str) -> str:
    """What the first process says."""
    if count() == 1:
        return text
    said = [text]
    dist.broadcast_object_list(said, device=torch.device("cpu"))
    return said[0]
