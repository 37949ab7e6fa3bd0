"""What training minimises (paper, section 3.5), for each method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inspector.model.memory import EPSILON
from inspector.model.network import Network
from inspector.model.scoring import l2_map, ssim_map
from training.data import Pictures
from training.distributed import agree
from training.kmeans import kmeans
from training.options import TrainOptions


def l2_loss(x: Tensor, y: Tensor) -> Tensor:
    """Squared error summed over channels, averaged over pixels (eq. 11): (B, C, H, W) twice -> scalar."""
    return l2_map(x, y).mean()


def ssim_loss(x: Tensor, y: Tensor) -> Tensor:
    """1 - SSIM averaged over all windows (eq. 12): (B, C, H, W) in [-1, 1] twice -> scalar."""
    return (1 - ssim_map(x, y)).mean()


def entropy(weights: Tensor) -> Tensor:
    """Mean entropy of addressing in nats: (..., N) -> scalar.

    Eq. 14 is printed without its minus; only with it does minimising sharpen the addressing, as intended.
    """
    return -(weights * (weights + EPSILON).log()).sum(dim=-1).mean()


class Objective:
    """The paper's loss. Other methods override what they do otherwise; OBJECTIVES names them."""

    done = 0.0  # share of the steps that are done, for a training in stages

    def __init__(self, options: TrainOptions) -> None:
        self.options = options
        self.epochs = options.epochs  # that there will be
        self.steps = options.epochs  # that there will be, in all of them
        self._trained: Sequence[int] = ()
        self.findings: dict[str, Any] = {}  # what finish() found that a report should say, as JSON

    def prepare(self, network: Network, pictures: Pictures, indices: Sequence[int]) -> None:
        """Called once before training with the parts that will be trained on; a resumed run repeats it.

        Slots drawn at random all lie far from the features, which at first are nearly alike: the few that
        happen to be closest win every token and the others never learn. Slots that start as features of
        different places in different parts share the tokens from the first step.
        """
        self._trained = indices
        if network.memory is not None and self.options.slots_from == "features":
            network.memory.start_from(features(network, pictures, indices, self.options))

    def go_on(self, network: Network, pictures: Pictures, indices: Sequence[int]) -> None:
        """Called in place of prepare() where the network has the weights of an earlier training."""
        self._trained = indices

    def optimizer(self, network: Network) -> torch.optim.Optimizer:
        """Adam at a constant rate (section 4.2)."""
        learned = [p for p in network.parameters() if p.requires_grad]
        return torch.optim.Adam(learned, lr=self.options.learning_rate)

    def rate(self, done: float) -> float:
        """Factor of the learning rate when this share of the steps, 0 to 1, is done."""
        return 1.0

    def finish(self, network: Network, pictures: Pictures, indices: Sequence[int]) -> None:
        """Called once after training with the parts that were held out, or all if there are none."""

    def losses(
        self, network: Network, pictures: Pictures, indices: Sequence[int], rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Losses of one batch; "loss" is the one to minimise, the others are for the curve.

        rng: the only source of chance, seeded for each step, so that a resumed run repeats to the bit.
        """
        o = self.options
        self._rouse(network, pictures)
        x = pictures.batch(indices, next(network.parameters()).device)
        reconstruction = network.reconstruct(x)
        with torch.autocast(x.device.type, enabled=False):
            y = reconstruction.output.float()
            l2, ssim = l2_loss(x, y), ssim_loss(x, y)
            loss = o.reconstruction_weight * (l2 + o.ssim_weight * ssim)  # eq. 13
            parts = {"l2": l2, "ssim": ssim}
            if reconstruction.addressing is not None:
                parts["entropy"] = entropy(reconstruction.addressing.weights)
                loss = loss + o.entropy_weight * parts["entropy"]  # eq. 15
        return {"loss": loss, **parts}

    def waking(self) -> float:
        """Share of the steps after which the memory wakes, at the beginning of an epoch."""
        return int(self.options.memory_after * self.epochs) / self.epochs

    def _rouse(self, network: Network, pictures: Pictures) -> None:
        """Let the memory sleep for the first epochs, then start it from k-means of what features have become.

        Slots that are there from the beginning cannot follow the features, which change most at first: a few
        win all tokens, and the others are never learned.
        """
        memory, first = network.memory, self.waking()
        if memory is None or first == 0:
            return
        memory.asleep = self.done < first
        if network.training and self.done == first:  # to the bit: a whole number of steps
            generator = torch.Generator().manual_seed(self.options.seed)
            with torch.autocast(memory.slots.device.type, enabled=False):  # 16 bits would round the centres
                tokens = features(network, pictures, self._trained, self.options)
                memory.start_from(kmeans(tokens, len(memory.slots), generator))
            agree(memory.slots)
            network.train()


@torch.no_grad()
def features(
    network: Network, pictures: Pictures, indices: Sequence[int], options: TrainOptions, parts: int = 64
) -> Tensor:
    """Features that go into the memory, of some of the parts in random order: (tokens, C)."""
    rng = np.random.default_rng((options.seed, 5))
    chosen = rng.permutation(np.asarray(indices))[:parts].tolist()
    device = next(network.parameters()).device
    network.eval()
    maps = [network.encode(pictures.batch([i], device)) for i in chosen]
    tokens = torch.cat(maps).flatten(2).transpose(1, 2).flatten(0, 1)  # (tokens, C)
    return tokens[torch.from_numpy(rng.permutation(len(tokens))).to(device)]


def _feature(options: TrainOptions) -> Objective:
    from training.feature import FeatureObjective  # it is made of what this file defines

    return FeatureObjective(options)


def _restore(options: TrainOptions) -> Objective:
    from training.restore import RestoreObjective

    return RestoreObjective(options)


OBJECTIVES: dict[str, Callable[[TrainOptions], Objective]] = {
    "paper": Objective,
    "restore": _restore,
    "feature": _feature,
}


def objective(options: TrainOptions) -> Objective:
    """The objective of the method that the options ask for."""
    return OBJECTIVES[options.architecture.method](options)
