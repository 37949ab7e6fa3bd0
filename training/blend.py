"""How much each error counts in the map of the feature method, found on synthetic defects.

On a texture the coarse levels see what the fine ones drown in, on a thread it is the other way round. Which
it is shows on the part's own held-out normals, as they are and damaged. No real defect is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from inspector.model.feature import FeatureAutoencoder
from inspector.model.preprocess import tensor
from inspector.model.records import Scoring
from inspector.model.scoring import image_score, smooth
from training.data import Pictures
from training.defects import damage
from training.trial import eight_bit

SIZE = 96  # pixels a side of the maps that are compared
DEFECTIVE = 120  # damaged parts
SHARES = (0.0, 0.5, 1.0, 2.0, 4.0)  # that a source of errors can have; all begin with 1
GAIN = 1e-4  # what a change must be worth


@torch.no_grad()
def blended(
    network: FeatureAutoencoder, pictures: Pictures, indices: Sequence[int], scoring: Scoring, seed: int
) -> Tensor:
    """Weights, (errors,), with which these parts are told best from themselves with a synthetic defect."""
    rng = np.random.default_rng((seed, 7))
    device = network.centre.device
    good = torch.cat([_maps(network, pictures.batch([i], device)) for i in indices])
    bad = []
    for k in range(DEFECTIVE):
        i, other = indices[k % len(indices)], int(rng.choice(np.asarray(indices)))
        defect = damage(eight_bit(pictures[i]), rng, donor=eight_bit(pictures[other]))
        bad.append(_maps(network, tensor(defect.image, pictures.preprocessing, device)))
    both = smooth(torch.cat([good, *bad]), scoring.sigma * SIZE / network.architecture.size)
    return _ascent(lambda weight: separation(both, weight, len(good), scoring), both.new_ones(both.shape[1]))


def separation(maps: Tensor, weight: Tensor, good: int, scoring: Scoring) -> float:
    """AUROC, made smooth so that margins count where it is 1: maps (n, errors, S, S), the good ones first."""
    scores = image_score(torch.einsum("nehw,e->nhw", maps, weight), scoring).double()
    normal, defective = scores[:good], scores[good:]
    margin = (defective[:, None] - normal[None]) / normal.std().clamp(min=1e-9)
    return float(margin.sigmoid().mean())


def _maps(network: FeatureAutoencoder, x: Tensor) -> Tensor:
    """(1, errors, SIZE, SIZE): each in standard deviations above the usual error."""
    errors = network.unusual(network.reproduce(network.backbone(x)))
    how = {"size": (SIZE, SIZE), "mode": "bilinear", "align_corners": False}
    return torch.cat([F.interpolate(e[:, None], **how) for e in errors], dim=1)  # type: ignore[arg-type]  # mypy takes how's values together


def _ascent(quality: Callable[[Tensor], float], shares: Tensor) -> Tensor:
    """Shares, scaled to sum 1, that no other share of a single source betters: (errors,) -> (errors,)."""
    best = quality(shares / shares.sum())
    improved = True
    while improved:
        improved = False
        for source, share in product(range(len(shares)), SHARES):
            tried = shares.clone()
            tried[source] = share
            if tried.sum() > 0 and (found := quality(tried / tried.sum())) > best + GAIN:
                shares, best, improved = tried, found, True
    return shares / shares.sum()
