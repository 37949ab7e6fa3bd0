"""Training of the feature method: features are computed once, the rest is found or learned from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import cos, pi
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from inspector.model.feature import FeatureAutoencoder, Linear, cosine_error
from inspector.model.network import Network
from training.banks import fill, usual
from training.blend import blended
from training.data import Pictures, room
from training.distributed import leading
from training.kmeans import kmeans
from training.losses import Objective, entropy
from training.variants import Variants

CACHE_BYTES = 4 << 30  # features are kept in memory, as float16, up to this much
REGULARISATION = 0.01  # of the whitening, in shares of the mean variance
PARTS = 150  # that the statistics and the memory's first slots are taken from
TOKENS = 20_000  # that k-means sees
WARM_UP = 0.1  # share of the steps in which the learning rate rises
WEIGHT_DECAY = 0.01
Features = list[Tensor]  # of each level, (B, C, H, W)


class FeatureObjective(Objective):
    """Mean cosine error of all levels, plus the entropy of the addressing."""

    def prepare(self, network: Network, pictures: Pictures, indices: Sequence[int]) -> None:
        """Load the backbone, compute all features, set what is found without learning. Raises ModelError."""
        net = cast(FeatureAutoencoder, network)
        a = self.options.architecture
        net.backbone.load(a.backbone, self.options.backbone_weights, a.size)
        self.variants = Variants(pictures, self.options.symmetries, self.options.seed)
        self.cache = Cache(net, self.variants)
        rng = np.random.default_rng((self.options.seed, 5))
        chosen = sorted(rng.permutation(np.asarray(indices))[:PARTS].tolist())
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        fit_statistics(net, [self.cache.of([i]) for i in chosen])
        if net.memory is not None:
            tokens = torch.cat([net.tokens(self.cache.of([i])).flatten(2)[0].T for i in chosen])
            few = tokens[torch.randperm(len(tokens), generator=generator)[:TOKENS].to(tokens.device)]
            net.memory.start_from(kmeans(few, len(net.memory.slots), generator))
        self._fill(net, indices, generator)

    def go_on(self, network: Network, pictures: Pictures, indices: Sequence[int]) -> None:
        """Whitening, embedding and memory stay, for the decoder knows them; the banks are filled anew."""
        net = cast(FeatureAutoencoder, network)
        self.variants = Variants(pictures, self.options.symmetries, self.options.seed)
        self.cache = Cache(net, self.variants)
        self._fill(net, indices, torch.Generator().manual_seed(self.options.seed))

    def _fill(self, net: FeatureAutoencoder, indices: Sequence[int], generator: torch.Generator) -> None:
        if not len(net.banks):
            return
        parts = self.variants.of(indices)
        levels = (self.cache.of([i]) for i in parts)
        banked = ([features[level] for level, _ in net.banked] for features in levels)
        fill(net.banks, banked, len(parts), generator)

    @torch.no_grad()
    def finish(self, network: Network, pictures: Pictures, indices: Sequence[int]) -> None:
        """Find which errors are usual on these parts, held out where there are any, and what each counts."""
        net = cast(FeatureAutoencoder, network)
        usual(net, (net.errors(net.reproduce(self.cache.of([i]))) for i in indices))
        if len(net.banks):
            scoring = self.options.chosen_scoring()
            net.weight.copy_(blended(net, pictures, indices, scoring, self.options.seed))
        self.findings = {"weights": dict(zip(net.sources(), net.weight.tolist(), strict=True))}

    def optimizer(self, network: Network) -> torch.optim.Optimizer:
        """AdamW; its rate follows rate()."""
        learned = [p for p in network.parameters() if p.requires_grad]
        return torch.optim.AdamW(learned, lr=self.options.learning_rate, weight_decay=WEIGHT_DECAY)

    def rate(self, done: float) -> float:
        """A short rise, then half a cosine."""
        return min(1.0, done / WARM_UP + 0.01) * (0.5 + 0.5 * cos(pi * done))

    def losses(
        self,
        network: Network,
        pictures: Pictures,
        indices: Sequence[int],
        rng: np.random.Generator,
    ) -> dict[str, Tensor]:
        """Losses of one batch."""
        net, o = cast(FeatureAutoencoder, network), self.options
        levels = net.reproduce(self.cache.of(self.variants.drawn(indices, rng) if net.training else indices))
        pairs = zip(net.whitened(levels.target), levels.output, strict=True)
        errors = [cosine_error(x, y).mean() for x, y in pairs]
        error = torch.stack(errors).mean()
        parts = {"error": error}
        loss = o.reconstruction_weight * error
        if levels.addressing is not None:
            parts["entropy"] = entropy(levels.addressing.weights)
            loss = loss + o.entropy_weight * parts["entropy"]
        return {"loss": loss, **parts}


class Cache:
    """Features of all parts, computed once and kept as float16 on the device or in memory, if there is room;
    else computed when asked for.
    """

    def __init__(self, network: FeatureAutoencoder, pictures: Pictures | Variants):
        self.network, self.pictures = network, pictures
        self.device = next(network.parameters()).device
        sizes = zip(network.backbone.channels, network.backbone.sides, strict=True)
        needed = 2 * len(pictures) * sum(c * side * side for c, side in sizes)
        self.kept: list[Features] = []
        near = needed <= room(self.device)
        if near or needed <= CACHE_BYTES:
            place = self.device if near else torch.device("cpu")
            quiet = None if leading() else True  # None: where nobody watches
            parts = tqdm(range(len(pictures)), desc="features", unit="part", leave=False, disable=quiet)
            self.kept = [[f.half().to(place) for f in self._computed([i])] for i in parts]

    def of(self, indices: Sequence[int]) -> Features:
        """Features of these parts, (B, C, H, W) float32 for each level."""
        if not self.kept:
            return [f.half().float() for f in self._computed(indices)]  # as if they had been kept
        levels = zip(*(self.kept[i] for i in indices), strict=True)
        with torch.autocast(self.device.type, enabled=False):  # bfloat16's would refuse float16
            return [torch.cat(level).to(self.device).float() for level in levels]

    def _computed(self, indices: Sequence[int]) -> Features:
        features: Features = self.network.backbone(self.pictures.batch(indices, self.device))
        return features


@torch.no_grad()
def fit_statistics(network: FeatureAutoencoder, features: Sequence[Features]) -> None:
    """Set whitening and embedding from features of some parts, a list of levels for each part.

    Whitening: of each level by itself. Embedding: principal components of all levels together, standardised
    channel by channel, each level with the same weight, components scaled by the 4th root of their variance.
    """
    standard = []
    for level, whiten in enumerate(network.whiten):
        mean, covariance = moments(_vectors(f[level], 1, network.grid) for f in features)
        values, vectors = torch.linalg.eigh(covariance)
        scale = (values.clamp(min=0) + REGULARISATION * values.mean()).rsqrt()
        cast(Linear, whiten).set(mean.float(), (vectors * scale).float())
        standard.append((mean, covariance.diagonal().clamp(min=1e-12).rsqrt()))

    def stacked(part: Features) -> Tensor:
        """Standardised patches of all levels at each place of the grid: (grid², ΣC·f·f)."""
        rows = []
        for f, embed, (mean, scale) in zip(part[: len(standard)], network.embed, standard, strict=True):
            patch = cast(Linear, embed).kernel_size[0]
            x = (f.double() - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1)
            x = F.pixel_unshuffle(x, patch) if patch > 1 else x
            if x.shape[-1] < network.grid:
                x = F.interpolate(x, (network.grid,) * 2, mode="bilinear", align_corners=False)
            rows.append(x / x.shape[1] ** 0.5)
        return torch.cat(rows, dim=1).flatten(2)[0].T

    mean, covariance = moments(stacked(part) for part in features)
    values, vectors = torch.linalg.eigh(covariance)
    dim = min(network.architecture.dim, len(values))
    values, vectors = values[-dim:].flip(0), vectors[:, -dim:].flip(1)
    projection = vectors / values.clamp(min=1e-12).pow(0.25)
    start = 0
    for embed, (centre, scale) in zip(network.embed, standard, strict=True):
        layer = cast(Linear, embed)
        count = layer.weight[0].numel()
        each = layer.kernel_size[0] ** 2
        part = slice(start, start + count)
        matrix = torch.zeros(count, network.architecture.dim, dtype=torch.float64, device=projection.device)
        matrix[:, :dim] = projection[part] * (scale / count**0.5).repeat_interleave(each)[:, None]
        offset = torch.zeros(network.architecture.dim, dtype=torch.float64, device=projection.device)
        offset[:dim] = mean[part] @ projection[part]
        layer.set(centre.repeat_interleave(each).float(), matrix.float())
        if layer.bias is not None:
            layer.bias.sub_(offset.float())
        start += count


def moments(rows: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean (C,) and covariance (C, C) of rows that come in pieces (n, C), in float64."""
    count, total, square = 0, torch.zeros(()), torch.zeros(())
    for piece in rows:
        x = piece.double()
        count, total, square = count + len(x), total + x.sum(dim=0), square + x.T @ x
    mean = total / count
    return mean, square / count - mean[:, None] * mean[None]


def _vectors(level: Tensor, patch: int, grid: int) -> Tensor:
    """Features of one level at most `grid` places a side: (1, C, H, W) -> (n, C)."""
    step = max(1, level.shape[-1] // grid) * patch
    return level[0, :, ::step, ::step].flatten(1).T
