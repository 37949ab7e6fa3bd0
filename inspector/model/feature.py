"""The feature method: the autoencoder in the feature space of a frozen pretrained backbone.

Backbone (the encoder) → tokens → memory → coordinate attention → decoder → the backbone's features at several
depths. What the memory of normal parts cannot express is not reproduced, and the cosine error shows it. So
is found what does not belong where it is; what was never seen anywhere shows in the distance of the features
from a bank of normal ones, over small places and over larger ones, where noise averages out. The map is a
weighted mean of these errors; training finds the weights on synthetic defects.

Features are whitened: of the directions in which they vary over normal parts each counts the same, so that a
small deviation in a quiet direction is seen (Rippel et al. 2021 make the case for pretrained features).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inspector.errors import ModelError
from inspector.model.backbone import Backbone
from inspector.model.bank import MemoryBank, banked
from inspector.model.memory import Addressing, Memory
from inspector.model.network import Bottleneck, Reconstruction
from inspector.model.records import Architecture, Scoring
from inspector.model.weighing import Weighing

STRIDE = 16  # the tokens' grid is the coarsest level that is at least this fine
WIDTH = 48  # channels of the decoder where it is finer than the tokens' grid


class Levels(NamedTuple):
    """Features, (B, C, H, W): raw of each level at each size, whitened as drawn of each level read."""

    target: list[Tensor]
    output: list[Tensor]
    addressing: Addressing | None


class Linear(nn.Conv2d):
    """A fixed affine map of every f × f patch of a level, its weights found from features of normal parts."""

    def __init__(self, channels: int, out: int, patch: int = 1):
        super().__init__(channels, out, patch, stride=patch)
        self.requires_grad_(requires_grad=False)

    def set(self, mean: Tensor, matrix: Tensor) -> None:
        """Make it (x - mean) @ matrix; mean: (C·f·f,), matrix: (C·f·f, out)."""
        self.weight.copy_(matrix.T.reshape(self.weight.shape))
        if self.bias is not None:
            self.bias.copy_(-mean @ matrix)


class Block(nn.Module):
    """Depthwise 5 × 5, then two 1 × 1, with a shortcut (after ConvNeXt, Liu et al. 2022)."""

    def __init__(self, dim: int):
        super().__init__()
        self.spatial = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.norm = nn.GroupNorm(1, dim)
        self.mix = nn.Sequential(nn.Conv2d(dim, 2 * dim, 1), nn.GELU(), nn.Conv2d(2 * dim, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) -> (B, C, H, W)."""
        out: Tensor = x + self.mix(self.norm(self.spatial(x)))
        return out


class FeatureDecoder(nn.Module):
    """From what the memory gave, (B, dim, grid, grid), to the features of every level, (B, C, side, side)."""

    def __init__(self, dim: int, depth: int, grid: int, channels: list[int], sides: list[int]):
        super().__init__()
        self.sides, self.grid = sides, grid
        self.body = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), *(Block(dim) for _ in range(depth)))
        self.finer = nn.ModuleDict(
            {str(side): _enlarge(dim, side // grid) for side in set(sides) if side > grid}
        )
        self.heads = nn.ModuleList(
            nn.Conv2d(WIDTH if side > grid else dim, c, 1) for c, side in zip(channels, sides, strict=True)
        )

    def forward(self, z: Tensor, levels: Sequence[int]) -> list[Tensor]:
        """z: (B, dim, grid, grid) -> (B, C, side, side) for each of these levels."""
        z = self.body(z)
        wanted = {self.sides[k] for k in levels}
        fine = {int(side): enlarge(z) for side, enlarge in self.finer.items() if int(side) in wanted}
        sides = [(k, self.sides[k]) for k in levels]
        return [self.heads[k](fine[s] if s > self.grid else F.adaptive_avg_pool2d(z, s)) for k, s in sides]


def _enlarge(dim: int, factor: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(dim, WIDTH * factor**2, 1), nn.PixelShuffle(factor), nn.GELU(), Block(WIDTH)
    )


class FeatureAutoencoder(Weighing):
    """See the module. In a Reconstruction, target (raw) and output (whitened) are (B, F): levels, flattened.

    Errors are those of the decoder, level by level, then the distances from the banks, if there are any.
    """

    def __init__(self, architecture: Architecture):
        super().__init__(architecture)
        a = architecture
        self.backbone = Backbone(a.backbone, a.levels, a.size, a.zooms)
        depths = len(self.backbone.levels)
        channels, sides = self.backbone.channels[:depths], self.backbone.sides[:depths]
        self.grid = min((s for s in sides if s * STRIDE >= a.size), default=max(sides))
        if any(max(s, self.grid) % min(s, self.grid) for s in sides):
            raise ModelError(
                f"architecture.size is {a.size}: backbone {a.backbone} gives features of {sides} a side, "
                "which do not divide each other; take a multiple of 32"
            )
        self.whiten = nn.ModuleList(Linear(c, c) for c in channels)
        self.embed = nn.ModuleList(
            Linear(c, a.dim, max(1, side // self.grid)) for c, side in zip(channels, sides, strict=True)
        )
        self.bottleneck = Bottleneck(a.dim, a)
        self.decoder = FeatureDecoder(a.dim, a.depth, self.grid, channels, sides)
        seen = self.backbone
        self.banked = banked([min(s, self.grid) for s in seen.sides], a.scales) if a.bank else []
        self.banks = nn.ModuleList(MemoryBank(a.bank, seen.channels[k], side) for k, side in self.banked)
        self.weigh(depths + len(self.banks))

    @property
    def memory(self) -> Memory | None:
        """The memory, where the architecture has one."""
        return self.bottleneck.memory

    @property
    def drawn(self) -> list[int]:
        """Levels whose decoder error is read."""
        return [k for k in self.read if k < len(self.whiten)]

    def encode(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, dim, grid, grid): the tokens that go into the memory."""
        return self.tokens(self.backbone(x))

    def tokens(self, features: list[Tensor]) -> Tensor:
        """Raw features of each level -> (B, dim, grid, grid)."""
        with torch.autocast(features[0].device.type, enabled=False):
            z = torch.zeros((), device=features[0].device)
            for embed, f in zip(self.embed, features[: len(self.embed)], strict=True):  # of the first size
                z = z + self._on_grid(embed(f.float()))
        return z

    def _on_grid(self, z: Tensor) -> Tensor:
        if z.shape[-1] == self.grid:
            return z
        return F.interpolate(z, (self.grid, self.grid), mode="bilinear", align_corners=False)

    def whitened(self, features: Sequence[Tensor]) -> list[Tensor]:
        """What the decoder is to give: raw features of each level, whitened."""
        with torch.autocast(features[0].device.type, enabled=False):  # it magnifies what 16 bits lose
            first = features[: len(self.whiten)]  # of the first size
            return [whiten(f.float()) for whiten, f in zip(self.whiten, first, strict=True)]

    def reproduce(self, features: list[Tensor]) -> Levels:
        """Raw features of each level, (B, C, H, W), and what the decoder makes of them."""
        raw = [f.float() for f in features]
        if not self.drawn:
            return Levels(raw, [], None)
        z, addressing = self.bottleneck(self.tokens(features))
        return Levels(raw, [y.float() for y in self.decoder(z, self.drawn)], addressing)

    def reconstruct(self, x: Tensor) -> Reconstruction:
        """The features as the memory of normal parts can express them."""
        levels = self.reproduce(self.backbone(x))
        flat = [torch.cat([y.flatten(1) for y in side], dim=1) for side in (levels.target, levels.output)]
        return Reconstruction(flat[0], flat[1], levels.addressing)

    def errors(self, levels: Levels) -> list[Tensor]:
        """Cosine error of each level, in [0, 2], and each bank's error (see MemoryBank): (B, side, side)."""
        count, target = len(self.whiten), levels.target
        measured = [(self.banks[k - count], self.banked[k - count][0]) for k in self.read if k >= count]
        with torch.autocast(target[0].device.type, enabled=False):  # whitening magnifies what 16 bits lose
            pairs = zip(self.drawn, levels.output, strict=True)
            drawn = [cosine_error(self.whiten[k](target[k]), y) for k, y in pairs]
            return drawn + [bank(target[level]) for bank, level in measured]

    def error_map(self, reconstruction: Reconstruction, scoring: Scoring) -> Tensor:
        """(B, S, S): standard deviations above the usual error of normal parts, weighted mean, >= 0."""
        return self.weighed(self.errors(self._levels(reconstruction)))

    def anomaly_map(self, x: Tensor, scoring: Scoring) -> Tensor:
        """(B, S, S), the same, of x: (B, 3, S, S)."""
        return self.weighed(self.errors_of(x))

    def errors_of(self, x: Tensor) -> list[Tensor]:
        """See errors(), of a picture."""
        return self.errors(self.reproduce(self.backbone(x)))

    def views(self, reconstruction: Reconstruction) -> dict[str, Tensor]:
        """The errors that go into the map: features are no picture."""
        maps = self.unusual(self.errors(self._levels(reconstruction)))
        return {
            f"{source}, weight {weight:.2f}": error
            for source, weight, error in zip(self.sources(), self.weight.tolist(), maps, strict=True)
        }

    def sources(self) -> list[str]:
        """What the errors come from, in their order; a level is one of the backbone's."""
        seen = self.backbone.sources()
        banks = [f"bank, {seen[k]}, {side} x {side}" for k, side in self.banked]
        return [f"decoder, level {k}" for k in self.backbone.levels] + banks

    def _levels(self, reconstruction: Reconstruction) -> Levels:
        shapes = list(zip(self.backbone.channels, self.backbone.sides, strict=True))
        target = _apart(reconstruction.target, shapes)
        output = _apart(reconstruction.output, shapes[: len(self.whiten)])
        return Levels(target, output, reconstruction.addressing)


def _apart(flat: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Levels of these channels and sides that were flattened one after the other: (B, F) -> (B, C, s, s)."""
    pieces = torch.split(flat, [c * side * side for c, side in shapes], dim=1)
    return [p.reshape(-1, c, side, side) for p, (c, side) in zip(pieces, shapes, strict=True)]


def cosine_error(x: Tensor, y: Tensor) -> Tensor:
    """1 - cosine of the angle between two feature maps at every position: (B, C, H, W) twice -> (B, H, W).

    F.cosine_similarity takes up to ten times as long.
    """
    x, y = x.float(), y.float()
    lengths = (x.square().sum(dim=1) * y.square().sum(dim=1)).clamp(min=1e-12).sqrt()
    return 1 - (x * y).sum(dim=1) / lengths
