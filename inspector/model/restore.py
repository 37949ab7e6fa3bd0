"""The restore method: the autoencoder restores the normal part, and a head judges what it had to change.

The autoencoder is the paper's at half the resolution, trained to give back the normal part when it is shown a
damaged one; what it restores is smooth in any case. The head reads part and restored part (after DRAEM,
Zavrtanik et al., ICCV 2021) in two U-Nets: one sees the whole part coarsely and knows where it looks, the
other sees every detail and what the first one thought of its surroundings. All of these are learned from
parts alone.

The head knows painted damage only. What was never painted shows in the distance of features from banks of
normal ones (PatchCore, Roth et al., CVPR 2022), of a small backbone that has learned what surfaces have in
common from drawn ones, and comes with the package. It sees the part in several sizes: a hairline shows when
enlarged, a pin out of place when reduced. What the head says counts as one of these errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inspector.errors import ModelError
from inspector.model.backbone import Backbone, normalisation
from inspector.model.bank import MemoryBank, banked
from inspector.model.network import Autoencoder, Reconstruction
from inspector.model.records import Architecture, Scoring
from inspector.model.scoring import blur
from inspector.model.weighing import Weighing

COARSE = (32, 64, 96, 128)  # channels at strides 4, 8, 16 and 32 of the input
FINE = (24, 48, 96, 128)  # channels at strides 2, 4, 8 and 16
CONTEXT = 8  # channels that the coarse net hands to the fine one, its logit among them
FLOOR = 0.3  # share of the mean variation that a place has at least
UNUSUAL = (-4.0, 12.0)  # standard deviations beyond which more says no more
LOUD = 12.0  # standard deviations beyond which an error grows as its logarithm
RARE = -3.0  # about the logit before anything is learned: few pixels are damaged


class UNet(nn.Module):
    """(B, C, h, w) -> (B, out, h, w); h and w multiples of what the strides ask for."""

    def __init__(self, channels: int, widths: Sequence[int], out: int):
        super().__init__()
        first, steps = widths[0], list(pairwise(widths))
        level = nn.BatchNorm2d(channels, affine=False)  # or the faint ones among the inputs are not heard
        self.stem = nn.Sequential(level, _unit(channels, first), _unit(first, first))
        self.down = nn.ModuleList(nn.Sequential(_unit(a, b, stride=2), _unit(b, b)) for a, b in steps)
        self.narrow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in steps)
        self.up = nn.ModuleList(_unit(a, a) for a, _ in steps)
        self.out = nn.Conv2d(first, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        levels = [self.stem(x.contiguous(memory_format=torch.channels_last))]
        for down in self.down:
            levels.append(down(levels[-1]))
        z = levels[-1]
        for narrow, up, skip in zip(reversed(self.narrow), reversed(self.up), levels[-2::-1], strict=True):
            z = up(skip + F.interpolate(narrow(z), skip.shape[-2:], mode="bilinear", align_corners=False))
        out: Tensor = self.out(z)
        return out


def _unit(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


class MeanPart(nn.Module):
    """The last step of the decoder: what it draws is added to the mean part, (B, 3, h, w) -> (-1, 1).

    Parts that lie alike are restored from the first step on, and what is drawn are their differences.
    """

    typical: Tensor  # (3, h, w) the mean of normal parts, before the tanh

    def __init__(self, side: int):
        super().__init__()
        self.register_buffer("typical", torch.zeros(3, side, side))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return torch.tanh(self.typical + x)


class Restorer(Autoencoder, Weighing):
    """The paper's autoencoder and the head. Its preprocessing must map intensities to [-1, 1].

    Errors are the damage that the head sees, then the distances of the backbone's features from the banks.
    """

    usual: Tensor  # (S/2, S/2) mean error of normal parts at each place
    variation: Tensor  # (S/2, S/2) its standard deviation
    judging: Tensor  # () bool, whether these two are found
    where: Tensor  # (1, 2, S/4, S/4) row and column, from -1 to 1
    mean: Tensor  # (1, 3, 1, 1) what the backbone takes for 0, in [-1, 1]
    std: Tensor  # (1, 3, 1, 1) and for 1 more

    def __init__(self, architecture: Architecture):
        a = architecture
        if a.patch < 4:
            raise ModelError(
                f"architecture.patch is {a.patch}: expected 4, 8, 16 or 32 for the method restore"
            )
        super().__init__(replace(a, size=a.size // 2, patch=a.patch // 2))
        self.architecture = a
        half = a.size // 2
        self.decoder[-1] = MeanPart(half)
        self.coarse = UNet(4 * 7 + 2, COARSE, CONTEXT)
        self.fine = UNet(4 * 6 + 1 + CONTEXT, FINE, 1)
        eye = self.backbone = (
            Backbone(a.backbone, a.levels, a.size, a.zooms) if a.backbone and a.bank else None
        )
        self.banked = banked(eye.sides, a.scales) if eye else []
        banks = [MemoryBank(a.bank, eye.channels[k], side) for k, side in self.banked] if eye else []
        self.banks = nn.ModuleList(banks)
        self.weigh(1 + len(self.banks))
        self.register_buffer("usual", torch.zeros(half, half))
        self.register_buffer("variation", torch.ones(half, half))
        self.register_buffer("judging", torch.zeros((), dtype=torch.bool))
        line = torch.linspace(-1, 1, half // 2)
        self.register_buffer(
            "where", torch.stack(torch.meshgrid(line, line, indexing="ij"))[None], persistent=False
        )
        for name, values in zip(("mean", "std"), normalisation(a.backbone), strict=True):
            at_zero = -1 if name == "mean" else 0
            scale = torch.tensor([2 * v + at_zero for v in values]).view(1, 3, 1, 1)
            self.register_buffer(name, scale, persistent=False)
        self.to(memory_format=torch.channels_last)

    def encode(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, S/patch, S/patch)."""
        return super().encode(halved(x))

    def reconstruct(self, x: Tensor) -> Reconstruction:
        """The normal part that x should be."""
        z, addressing = self.bottleneck(self.encode(x))
        return Reconstruction(x, enlarged(self.decoder(z), 2), addressing)

    def evidence(self, x: Tensor, y: Tensor) -> Tensor:
        """What was changed, pixel by pixel, and how unusual that is at its place.

        x, y: part and restored part, (B, 3, S, S) -> (B, 4·3 + 1, S/2, S/2).
        """
        change = x - y
        floor = FLOOR * self.variation.mean() + 1e-3
        with torch.autocast(x.device.type, enabled=False):
            strong = strength(halved(change))
        unusual = ((strong - self.usual) / (self.variation + floor)).clamp(*UNUSUAL)
        return torch.cat([unshuffled(change), unusual], dim=1)

    def overview(self, x: Tensor, evidence: Tensor) -> Tensor:
        """What the coarse net thinks of x and evidence, (B, CONTEXT, S/4, S/4)."""
        change = evidence[:, :12].reshape(len(x), 3, 4, *evidence.shape[2:]).mean(dim=2)  # of 2 x 2 pixels
        seen = unshuffled(torch.cat([halved(x), change, evidence[:, 12:]], dim=1))
        context: Tensor = self.coarse(beside(seen, self.where.expand(len(x), -1, -1, -1)))
        return context

    def detail(self, x: Tensor, evidence: Tensor, context: Tensor) -> Tensor:
        """Logit of damage, of the whole part or a piece of all three, (B, 1, S/2, S/2)."""
        logit: Tensor = self.fine(beside(unshuffled(x), evidence, enlarged(context, 2))) + RARE
        return logit

    def sources(self) -> list[str]:
        """What the errors come from, in their order: levels of the backbone, of a part of so many pixels."""
        seen = self.backbone.sources() if self.backbone else []
        return ["damage seen by the head", *(f"bank, {seen[k]}, {s} x {s}" for k, s in self.banked)]

    def features(self, x: Tensor) -> list[Tensor]:
        """What is compared with the banks: (B, 3, S, S) -> (B, C, side, side) of each level at each size."""
        levels = self.backbone((x - self.mean) / self.std) if self.backbone else []
        return [f.float() for f in levels]

    def damage(self, reconstruction: Reconstruction) -> Tensor:
        """Logit of damage, (B, S/2, S/2)."""
        x, y = reconstruction.target.float(), reconstruction.output.float()
        evidence = self.evidence(x, y)
        return self.detail(x, evidence, self.overview(x, evidence))[:, 0].float()

    def errors(self, reconstruction: Reconstruction) -> list[Tensor]:
        """Softplus of the logit, above 0 everywhere and like the logit where that is high, (B, S/2, S/2); the
        error of each bank (see MemoryBank), (B, side, side).
        """
        errors = [F.softplus(self.damage(reconstruction))] if 0 in self.read else []
        read = [k - 1 for k in self.read if k > 0]
        levels = self.features(reconstruction.target) if read else []
        with torch.autocast(reconstruction.target.device.type, enabled=False):  # 16 bits lose small distances
            return errors + [self.banks[k](levels[self.banked[k][0]]) for k in read]

    def unusual(self, errors: Sequence[Tensor]) -> list[Tensor]:
        """Standard deviations above the usual error, beyond LOUD their logarithm: a coarse error that hardly
        varies on good parts would drown the place that finer ones tell.
        """
        return [quieter(z) for z in super().unusual(errors)]

    def errors_of(self, x: Tensor) -> list[Tensor]:
        """See errors(), of a picture."""
        return self.errors(self.reconstruct(x))

    def error_map(self, reconstruction: Reconstruction, scoring: Scoring) -> Tensor:
        """(B, S, S): standard deviations above the usual error of normal parts, weighted mean, >= 0."""
        return self.weighed(self.errors(reconstruction))


def strength(change: Tensor) -> Tensor:
    """Mean size of the change round each place: (B, 3, h, w) -> (B, 1, h, w)."""
    return blur(change.abs().mean(dim=1, keepdim=True), 1.0, 3)


def quieter(z: Tensor) -> Tensor:
    """As it is up to LOUD, from there on LOUD + log(1 + z - LOUD): any shape -> the same."""
    return z.clamp(max=LOUD) + (z - LOUD).clamp(min=0).log1p()


def halved(x: Tensor) -> Tensor:
    """Mean of 2 x 2 places: (B, C, H, W) -> (B, C, H/2, W/2); some slices do it faster than avg_pool2d."""
    lines = x[..., ::2, :] + x[..., 1::2, :]
    return (lines[..., ::2] + lines[..., 1::2]) / 4


def unshuffled(x: Tensor) -> Tensor:
    """F.pixel_unshuffle(x, 2) in a quarter of its time: (B, C, H, W) -> (B, 4 · C, H/2, W/2)."""
    return torch.stack([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=2).flatten(1, 2)


def beside(*maps: Tensor) -> Tensor:
    """Channels of all maps, (B, C, h, w) each, channels last: few at a time are faster to bring there."""
    return torch.cat([m.contiguous(memory_format=torch.channels_last) for m in maps], dim=1)


def enlarged(x: Tensor, factor: int) -> Tensor:
    """(B, C, h, w) -> (B, C, factor·h, factor·w)."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
