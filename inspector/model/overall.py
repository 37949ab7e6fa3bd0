"""How unusual a picture's features are as a whole, wherever the cause may lie.

A surface that is subtly uneven, or a hairline crack across it, shows in no single place but in the statistics
of all: a Gaussian fitted to the globally pooled features of a pretrained network, after Rippel, Mertens and
Merhof (ICPR 2020), with the standard deviation of every channel beside its mean.

A part is as unusual as its most unusual place or as the whole, whichever is more, both measured against the
same normal parts. The map says so as well: it is multiplied until its image score is that of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inspector.model.records import Scoring
from inspector.model.scoring import image_score, smooth

LEAST = 1e-6  # image score of a map that is 0 everywhere, which nothing raises
COMPONENTS = 256  # in which the Gaussian is told from a round one; more would be noise


class Overall(nn.Module):
    """The distance of a picture's statistics from those of normal parts, in standard deviations.

    statistics: the mean of every channel of every level, then the standard deviation; D in all.
    """

    centre: Tensor  # (D,)
    scale: Tensor  # (D,) that makes each statistic count the same
    components: Tensor  # (COMPONENTS, D): directions in which normal parts differ from each other …
    stretch: Tensor  # (COMPONENTS,) … and what a step along each counts beside one along any other
    gain: Tensor  # from distance …
    offset: Tensor  # … to image score

    def __init__(self, channels: Sequence[int]):
        super().__init__()
        count = 2 * sum(channels)
        self.register_buffer("centre", torch.zeros(count))
        self.register_buffer("scale", torch.ones(count))
        self.register_buffer("components", torch.zeros(COMPONENTS, count))
        self.register_buffer("stretch", torch.zeros(COMPONENTS))
        self.register_buffer("gain", torch.zeros(()))
        self.register_buffer("offset", torch.zeros(()))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features of each level, (B, C, H, W) -> (B,)."""
        x = (statistics(features) - self.centre) * self.scale
        along = (x @ self.components.T).square() * self.stretch
        return (along.sum(dim=1) + x.square().sum(dim=1)).clamp(min=0).sqrt()

    def raised(self, error: Tensor, features: Sequence[Tensor], scoring: Scoring) -> Tensor:
        """A map, not smoothed, whose image score is at least that of the whole: (B, S, S) -> (B, S, S)."""
        with torch.autocast(error.device.type, enabled=False):
            score = image_score(smooth(error, scoring.sigma), scoring)
            whole = self.offset + self.gain * self(features)
            times: Tensor = (whole / score.clamp(min=LEAST)).clamp(min=1)
            return error * times[:, None, None]

    @torch.no_grad()
    def calibrate(self, distances: Tensor, scores: Tensor) -> None:
        """Make distances scores: of the same normal parts, (n,) each, with the same mean and deviation."""
        gain = scores.std(correction=0) / distances.std(correction=0).clamp(min=1e-9)
        self.gain.copy_(gain)
        self.offset.copy_(scores.mean() - gain * distances.mean())

    @torch.no_grad()
    def fit(self, rows: Tensor, regularisation: float) -> None:
        """From statistics of normal parts, (n, D).

        Directions in which they differ by little count no more than regularisation, in shares of the mean
        variance, lets them.
        """
        x = rows.double()
        self.centre.copy_(x.mean(dim=0))
        deviation = x.std(dim=0, correction=0)
        quiet = deviation < 1e-3 * deviation.mean()  # a channel that is always 0 says nothing
        self.scale.copy_(torch.where(quiet, 0.0, 1 / deviation.clamp(min=1e-12)))
        x = (x - self.centre) * self.scale
        _, values, vectors = torch.linalg.svd(x, full_matrices=False)
        variance = values.square() / len(x)
        floor = regularisation * float(variance.sum()) / x.shape[1] + 1e-12
        few = min(COMPONENTS, len(variance))
        # along a component a step counts 1 / (variance + floor), across all of them 1 / floor; as multiples
        # of the latter, which the distance is divided by in the end, where it does not matter
        self.components.zero_()
        self.components[:few] = vectors[:few]
        self.stretch.zero_()
        self.stretch[:few] = floor / (variance[:few] + floor) - 1


def statistics(features: Sequence[Tensor]) -> Tensor:
    """Features of each level, (B, C, H, W) -> (B, D)."""
    pooled = [f.float().flatten(2) for f in features]
    return torch.cat([f.mean(dim=2) for f in pooled] + [f.std(dim=2, correction=0) for f in pooled], dim=1)
