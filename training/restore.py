"""Training of the restore method: normal parts are damaged, and the network is to undo and to find it.

First the autoencoder learns to restore: without its memory, then with one that starts from what its encoder
has come to see of normal parts. From there on the encoder stays, or a few slots would win all that it sees.
Then all of the autoencoder stays as it is, and the head learns to judge what it changed; at once they would
disturb each other, for what the head reads would not stay the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from inspector.model.network import Network
from inspector.model.restore import RARE, MeanPart, Restorer, halved, strength
from inspector.model.scoring import ssim_map
from training import shapes
from training.banks import fill, rounding, usual
from training.blend import beside_the_taught
from training.data import Pictures
from training.defects import foreground
from training.losses import Objective, entropy, l2_loss
from training.options import TrainOptions
from training.painting import Image, Mask, Painted, lying, painted
from training.variants import Variants

RESTORING = 0.2  # share of the steps in which the autoencoder learns
SLEEPING = 0.5  # share of these in which it learns without its memory
FAINT = 0.1  # of its usual start, of what the decoder adds to the mean part
HEAD_RATE = 1.5  # the head's learning rate, in shares of the autoencoder's
WARM_UP = 0.1  # share of the steps of each stage in which the learning rate rises
WEIGHT_DECAY = 0.01
CROPS = 2  # pieces of each part that the fine net sees, of half its side
ANYWHERE = 0.15  # share of the pieces that need not show the part itself
ALARMS = 5.0  # weight of false alarms
FEW = 4.0  # damaged pixels, below which a spot counts for less
FOCUS = 1.0  # the higher, the less do small false alarms cost
PATIENCE = 0.5  # from 0 (all damage must be found) to 1 (what is hard to find is given up soon)
PARTS = 200  # that the mean part and the usual error are found from
Corner = tuple[int, int]  # row and column
SMALLEST = 32  # pixels a side of a piece, for smaller ones cannot be painted on
WITHIN = 0.98  # of the tanh's range, the mean part
SMOOTH = 9  # pixels a side over which the usual error is averaged


class RestoreObjective(Objective):
    """L2 + SSIM of what was restored, then the losses of both maps of the head."""

    def __init__(self, options: TrainOptions) -> None:
        super().__init__(options)
        self._regions: dict[int, Mask] = {}
        self._trained: Sequence[int] = ()

    def prepare(self, network: Network, pictures: Pictures, indices: Sequence[int]) -> None:
        """The backbone's weights, the memory's slots as for the paper's method, the mean part.

        Patches come from the parts trained on alone. Raises ModelError.
        """
        super().prepare(network, pictures, indices)
        a = self.options.architecture
        if (backbone := cast(Restorer, network).backbone) is not None:
            backbone.load(a.backbone, self.options.backbone_weights, a.size)
        net, rng = cast(Restorer, network), np.random.default_rng((self.options.seed, 9))
        drawn, line = cast(MeanPart, net.decoder[-1]), cast(nn.ConvTranspose2d, net.decoder[-2])
        with torch.no_grad():
            mean, chosen = torch.zeros_like(drawn.typical), rng.permutation(np.asarray(indices))[:PARTS]
            for index in chosen.tolist():
                part, _ = self._part(pictures, index, rng)
                mean += halved(_tensor([part], mean.device))[0] / len(chosen)
            drawn.typical.copy_(mean.clamp(-WITHIN, WITHIN).atanh())
            line.weight.mul_(FAINT)

    def waking(self) -> float:
        """In the first stage, in steps: many parts have few epochs. 0 where there is no sleep."""
        share = RESTORING * SLEEPING if self.options.memory_after else 0.0
        return int(share * self.steps) / self.steps

    def go_on(self, network: Network, pictures: Pictures, indices: Sequence[int]) -> None:
        """The usual error is found anew, once the autoencoder has learned what is new."""
        self._trained = indices
        cast(Restorer, network).judging.fill_(False)

    @torch.no_grad()
    def finish(self, network: Network, pictures: Pictures, indices: Sequence[int]) -> None:
        """Fill the banks with the features of the parts trained on; find what is usual on others.

        Where there are no others the head alone is read: a bank's distance of what it holds is but rounding.
        """
        net = cast(Restorer, network)
        if len(net.banks):
            self._fill(net, pictures)
        usual(net, (net.errors_of(pictures.batch([i], net.usual.device)) for i in indices))
        net.weight.zero_()
        net.weight[0] = 1
        if len(net.banks) and set(indices).isdisjoint(self._trained):
            net.spread[1:] = torch.maximum(net.spread[1:], rounding(net.banks))
            scoring = self.options.chosen_scoring()
            net.weight.copy_(beside_the_taught(net, pictures, indices, scoring, self.options.seed))
        self.findings = {"weights": dict(zip(net.sources(), net.weight.tolist(), strict=True))}

    def _fill(self, net: Restorer, pictures: Pictures) -> None:
        variants = Variants(pictures, self.options.symmetries, self.options.seed)
        parts = variants.of(self._trained)
        unwatched = None  # tqdm is silent where its output is no terminal
        shown = tqdm(parts, desc="banks", unit="part", leave=False, disable=unwatched)
        seen = (net.features(variants.batch([i], net.usual.device)) for i in shown)
        banked = ([levels[k] for k, _ in net.banked] for levels in seen)
        fill(net.banks, banked, len(parts), torch.Generator().manual_seed(self.options.seed))

    def optimizer(self, network: Network) -> torch.optim.Optimizer:
        """AdamW; its rate follows rate()."""
        learned = [p for p in network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in learned if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.options.learning_rate, betas=(0.9, 0.99))

    def rate(self, done: float) -> float:
        """In each stage a short rise, then half a cosine."""
        first = done < RESTORING
        stage = done / RESTORING if first else (done - RESTORING) / (1 - RESTORING)
        most = 1.0 if first else HEAD_RATE
        return most * min(1.0, stage / WARM_UP + 0.01) * (0.5 + 0.5 * cos(pi * stage))

    def losses(
        self, network: Network, pictures: Pictures, indices: Sequence[int], rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Losses of one batch."""
        net = cast(Restorer, network)
        samples, corners = zip(*(self._sample(pictures, i, rng) for i in indices), strict=True)
        if self.done < RESTORING:
            return self._restoring(net, pictures, samples)
        if not net.judging:
            self._measure(net, pictures)
        return self._judging(net, samples, [corner for two in corners for corner in two])

    def _restoring(self, net: Restorer, pictures: Pictures, samples: Sequence[Painted]) -> dict[str, Tensor]:
        o, device = self.options, net.usual.device
        self._rouse(net, pictures)
        wakes = self.waking() if net.memory is not None else 0.0
        net.encoder.requires_grad_(not wakes or self.done < wakes)
        normal = _tensor([s.normal for s in samples], device)
        reconstruction = net.reconstruct(_tensor([s.damaged for s in samples], device))
        with torch.autocast(device.type, enabled=False):
            x, y = (F.avg_pool2d(t.float(), 2) for t in (normal, reconstruction.output))
            l2, ssim = l2_loss(x, y), (1 - ssim_map(x, y)).mean()
            parts = {"l2": l2, "ssim": ssim}
            loss = o.reconstruction_weight * (l2 + o.ssim_weight * ssim)
            if reconstruction.addressing is not None:
                parts["entropy"] = entropy(reconstruction.addressing.weights)
                loss = loss + o.entropy_weight * parts["entropy"]
        return {"loss": loss, **parts}

    def _judging(
        self, net: Restorer, samples: Sequence[Painted], corners: Sequence[Corner]
    ) -> dict[str, Tensor]:
        device, learning = net.usual.device, net.training
        x = _tensor([s.damaged for s in samples], device)
        mask = torch.from_numpy(np.stack([s.mask for s in samples])).to(device)[:, None].float()
        with torch.no_grad():
            net.eval()  # the autoencoder stays as it is, the statistics of its normalisation too
            evidence = net.evidence(x, net.reconstruct(x).output.float())
            net.train(learning)
        context = net.overview(x, evidence)
        side = net.architecture.size
        piece, facts, around, where = (_cut(t, corners, side) for t in (x, evidence, context, mask))
        logit = net.detail(piece, facts, around)
        with torch.autocast(device.type, enabled=False):
            fine = found_loss(logit.float(), F.avg_pool2d(where, 2))
            coarse = found_loss(context[:, :1].float() + RARE, F.avg_pool2d(mask, 4))
        return {"loss": fine + 0.5 * coarse, "fine": fine, "coarse": coarse}

    @torch.no_grad()
    def _measure(self, net: Restorer, pictures: Pictures) -> None:
        """Find the usual error of normal parts at each place, before the head reads it."""
        learning = net.training
        net.eval()
        rng = np.random.default_rng((self.options.seed, 6))
        chosen = rng.permutation(np.asarray(self._trained))[:PARTS].tolist()
        total, square = torch.zeros_like(net.usual), torch.zeros_like(net.usual)
        for index in chosen:
            image, _ = self._part(pictures, index, rng)
            x = _tensor([image], net.usual.device)
            error = strength(F.avg_pool2d(x - net.reconstruct(x).output.float(), 2))[0, 0]
            total, square = total + error / len(chosen), square + error.square() / len(chosen)
        mean, second = (
            F.avg_pool2d(t[None], SMOOTH, 1, SMOOTH // 2, count_include_pad=False)[0] for t in (total, square)
        )
        net.usual.copy_(mean)
        net.variation.copy_((second - mean.square()).clamp(min=0).sqrt())
        net.judging.fill_(True)
        net.train(learning)

    def _part(self, pictures: Pictures, index: int, rng: np.random.Generator) -> tuple[Image, Mask]:
        """A normal part as it may lie, and where it is in the picture."""
        image = _rgb(pictures[index])
        if index not in self._regions:
            self._regions[index] = foreground(image)
        image, region = lying(image, self._regions[index], self.options.symmetries, rng)
        return image, region if region.any() else np.ones_like(region)

    def _sample(
        self, pictures: Pictures, index: int, rng: np.random.Generator
    ) -> tuple[Painted, list[Corner]]:
        image, region = self._part(pictures, index, rng)
        donor, _ = self._part(pictures, int(rng.choice(self._trained or [index])), rng)
        corners = [_corner(region, rng) for _ in range(CROPS)]
        size = piece_size(region.shape[0])
        windows = [(slice(top, top + size), slice(left, left + size)) for top, left in corners]
        return painted(image, donor, region, windows, rng), corners


def _corner(region: Mask, rng: np.random.Generator) -> Corner:
    """Where a piece begins, in multiples of 4: round a place of the part more often than not."""
    side, size = region.shape[0], piece_size(region.shape[0])
    if rng.random() < ANYWHERE:
        place = rng.uniform(0, side - size + 1, 2)
    else:
        place = np.array(shapes.somewhere(region, rng)) - rng.uniform(0.2, 0.8, 2) * size
    top, left = np.clip(place, 0, side - size).astype(int) // 4 * 4
    return int(top), int(left)


def piece_size(side: int) -> int:
    """Pixels a side of what the fine net is shown of a part."""
    return min(side, max(SMALLEST, side // 2 // 16 * 16))


def _cut(x: Tensor, corners: Sequence[Corner], side: int) -> Tensor:
    """CROPS pieces of every element of x, (B, C, h, w) -> (CROPS·B, C, k, k), whatever x's resolution."""
    step = side // x.shape[-1]
    size = piece_size(side) // step
    places = [(k // CROPS, top // step, left // step) for k, (top, left) in enumerate(corners)]
    return torch.stack([x[i, :, r : r + size, c : c + size] for i, r, c in places])


def found_loss(logit: Tensor, share: Tensor) -> Tensor:
    """Loss of a map: logits and damaged share of each pixel, (B, 1, h, w) twice -> scalar.

    Some painted damage cannot be seen: one piece of a ground surface looks like another. So a missed pixel
    costs a bounded amount (the Lq loss of Zhang and Sabuncu 2018), and what cannot be told from normal is
    given up instead of making the normal suspect. False alarms cost as in focal loss (Lin et al. 2017). All
    is normalised piece by piece, or a scratch would count for nothing beside half a part.
    """
    p, over = logit.sigmoid(), (1, 2, 3)
    missed = (1 - (p + 1e-6) ** PATIENCE) / PATIENCE
    alarm = F.softplus(logit) * p.detach() ** FOCUS
    damaged = share.sum(over)
    pixels = (share * missed).sum(over) / (damaged + FEW) + ALARMS * ((1 - share) * alarm).mean(over)
    dice = 1 - (2 * (p * share).sum(over) + 1) / (p.square().sum(over) + share.square().sum(over) + 1)
    return (pixels + dice).mean()


def _rgb(image: NDArray[np.generic]) -> Image:
    eight = image if image.dtype == np.uint8 else image >> 8  # type: ignore[operator]  # uint16
    return np.ascontiguousarray(
        eight if eight.ndim == 3 else np.repeat(eight[..., None], 3, axis=2), np.uint8
    )


def _tensor(images: Sequence[Image], device: torch.device) -> Tensor:
    """(B, 3, S, S) in [-1, 1]."""
    return torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
