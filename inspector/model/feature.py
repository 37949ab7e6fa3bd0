"""The feature method: the autoencoder in the feature space of a frozen pretrained backbone.

Backbone (the encoder) → tokens → memory → coordinate attention → decoder → the backbone's features at several
depths. What the memory of normal parts cannot express is not reproduced, and the cosine error shows it.

Features are whitened: of the directions in which they vary over normal parts each counts the same, so that a
small deviation in a quiet direction is seen (Rippel et al. 2021 make the case for pretrained features).
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inspector.errors import ModelError
from inspector.model.backbone import Backbone
from inspector.model.memory import Memory
from inspector.model.network import Bottleneck, Network, Reconstruction
from inspector.model.records import Architecture, Scoring

STRIDE = 16  # the tokens' grid is the coarsest level that is at least this fine
WIDTH = 48  # channels of the decoder where it is finer than the tokens' grid


class Levels(NamedTuple):
    """Whitened features of each level, (B, C, H, W): those of the part and those that came out."""

    target: list[Tensor]
    output: list[Tensor]


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

    def forward(self, z: Tensor) -> list[Tensor]:
        """z: (B, dim, grid, grid) -> one (B, C, side, side) for each level."""
        z = self.body(z)
        fine = {int(side): enlarge(z) for side, enlarge in self.finer.items()}
        inputs = [fine[s] if s > self.grid else F.adaptive_avg_pool2d(z, s) for s in self.sides]
        return [head(x) for head, x in zip(self.heads, inputs, strict=True)]


def _enlarge(dim: int, factor: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(dim, WIDTH * factor**2, 1), nn.PixelShuffle(factor), nn.GELU(), Block(WIDTH)
    )


class FeatureAutoencoder(Network):
    """See the module. In a Reconstruction, target and output are (B, F): the whitened levels, flattened."""

    centre: Tensor  # (levels,) mean error of held-out normal parts
    spread: Tensor  # (levels,) its standard deviation

    def __init__(self, architecture: Architecture):
        super().__init__(architecture)
        a = architecture
        self.backbone = Backbone(a.backbone, a.levels, a.size)
        channels, sides = self.backbone.channels, self.backbone.sides
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
        self.register_buffer("centre", torch.zeros(len(sides)))
        self.register_buffer("spread", torch.ones(len(sides)))

    @property
    def memory(self) -> Memory | None:
        """The memory, where the architecture has one."""
        return self.bottleneck.memory

    def encode(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, dim, grid, grid): the tokens that go into the memory."""
        return self.tokens(self.backbone(x))

    def tokens(self, features: list[Tensor]) -> Tensor:
        """Raw features of each level -> (B, dim, grid, grid)."""
        with torch.autocast(features[0].device.type, enabled=False):
            z = torch.zeros((), device=features[0].device)
            for embed, f in zip(self.embed, features, strict=True):
                z = z + self._on_grid(embed(f.float()))
        return z

    def _on_grid(self, z: Tensor) -> Tensor:
        if z.shape[-1] == self.grid:
            return z
        return F.interpolate(z, (self.grid, self.grid), mode="bilinear", align_corners=False)

    def reproduce(self, features: list[Tensor]) -> tuple[Levels, Reconstruction]:
        """What reconstruct() does from the backbone's features on, (B, C, H, W) for each level."""
        with torch.autocast(features[0].device.type, enabled=False):  # whitening magnifies what 16 bits lose
            target = [whiten(f.float()) for whiten, f in zip(self.whiten, features, strict=True)]
        z, addressing = self.bottleneck(self.tokens(features))
        levels = Levels(target, [y.float() for y in self.decoder(z)])
        flat = [torch.cat([y.flatten(1) for y in side], dim=1) for side in levels]
        return levels, Reconstruction(flat[0], flat[1], addressing)

    def reconstruct(self, x: Tensor) -> Reconstruction:
        """The features as the memory of normal parts can express them."""
        return self.reproduce(self.backbone(x))[1]

    def level_errors(self, reconstruction: Reconstruction) -> list[Tensor]:
        """Cosine error of each level, (B, side, side) in [0, 2]."""
        ends = [0]
        shapes = list(zip(self.backbone.channels, self.backbone.sides, strict=True))
        for channels, side in shapes:
            ends.append(ends[-1] + channels * side * side)
        x, y = reconstruction.target, reconstruction.output
        return [
            cosine_error(x[:, a:b].reshape(-1, c, s, s), y[:, a:b].reshape(-1, c, s, s))
            for (a, b), (c, s) in zip(pairwise(ends), shapes, strict=True)
        ]

    def error_map(self, reconstruction: Reconstruction, scoring: Scoring) -> Tensor:
        """(B, S, S): standard deviations above the usual error of normal parts, mean of the levels, >= 0."""
        size = self.architecture.size
        total = torch.zeros((), device=reconstruction.target.device)
        for error in self._unusual(reconstruction):
            total = total + F.interpolate(error[:, None], (size, size), mode="bilinear", align_corners=False)
        return (total[:, 0] / len(self.centre)).clamp(min=0)

    def views(self, reconstruction: Reconstruction) -> dict[str, Tensor]:
        """The error of each level, as it goes into the map: features are no picture."""
        return {f"error at {e.shape[1]} × {e.shape[2]}": e for e in self._unusual(reconstruction)}

    def _unusual(self, reconstruction: Reconstruction) -> list[Tensor]:
        """Error of each level in standard deviations above the usual one: (B, side, side)."""
        errors = self.level_errors(reconstruction)
        return [(e - c) / s for e, c, s in zip(errors, self.centre, self.spread, strict=True)]


def cosine_error(x: Tensor, y: Tensor) -> Tensor:
    """1 - cosine of the angle between two feature maps at every position: (B, C, H, W) twice -> (B, H, W)."""
    return 1 - F.cosine_similarity(x.float(), y.float(), dim=1, eps=1e-6)
