"""How much each error counts in the map, found on synthetic defects.

On a texture the coarse levels see what the fine ones drown in, on a thread it is the other way round. Which
it is shows on the part's own held-out normals, as they are and damaged; no real defect is needed. Each error
counts by how far damage moves its image score over the variance of that score from good part to good part:
Fisher's discriminant with errors taken for independent (Dudoit et al., JASA 2002), which few parts suffice
for. What the errors do together may speak for other weights. But the parts are few, and synthetic defects are
not the real ones: of the blends that do as well within one standard error the one nearest to the discriminant
is taken (Breiman et al., Classification and Regression Trees, 1984). An error that was itself taught by
synthetic defects on these parts is not judged by them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from inspector.model.preprocess import tensor
from inspector.model.records import Scoring
from inspector.model.scoring import image_score, smooth
from inspector.model.weighing import Weighing
from training.data import Pictures
from training.defects import damage
from training.trial import eight_bit

SIZE = 96  # pixels a side of the maps that are compared
DEFECTIVE = 120  # damaged parts
SHARES = (0.0, 0.5, 1.0, 2.0, 4.0)  # of what a source of errors begins with
GAIN = 1e-4  # what a change must be worth
STEPS = (0.0, 0.25, 0.5, 0.75)  # of the way from the discriminant to the best ones
PRIOR = 15  # parts that the errors' mean variance is worth beside the variance found of each
RESAMPLED = 200  # times, for the standard error
TAUGHT = 1.0  # what an error that was taught by synthetic damage counts beside all others together


@torch.no_grad()
def blended(
    network: Weighing, pictures: Pictures, indices: Sequence[int], scoring: Scoring, seed: int
) -> Tensor:
    """Weights, (errors,), with which these parts are told best from themselves with a synthetic defect."""
    rng = np.random.default_rng((seed, 7))
    good, bad = _compared(network, pictures, indices, scoring, rng)
    both, start = torch.cat([good, bad]), discriminant(good, bad, scoring)
    best = _ascent(lambda weight: separation(_scores(both, weight, scoring), len(good)), start)
    return _simplest(lambda weight: _scores(both, weight, scoring), len(good), start, best, rng)


@torch.no_grad()
def beside_the_taught(
    network: Weighing, pictures: Pictures, indices: Sequence[int], scoring: Scoring, seed: int
) -> Tensor:
    """Weights, (errors,), where the first error is of a network that was taught by such defects.

    How well it tells them says nothing of others. So the discriminant is asked about the rest alone, and the
    first counts TAUGHT times what they do together, both in units of how far they go on good parts.
    """
    good, bad = _compared(network, pictures, indices, scoring, np.random.default_rng((seed, 7)))
    rest = discriminant(good[:, 1:], bad[:, 1:], scoring)
    first = torch.cat([torch.ones(1), torch.zeros(len(rest))]).to(rest)
    rest = torch.cat([torch.zeros(1).to(rest), rest])
    spreads = [_scores(good, weight, scoring).std(correction=0).clamp(min=1e-6) for weight in (first, rest)]
    weight = TAUGHT * first / spreads[0] + rest / spreads[1]
    return weight / weight.sum()


def _compared(
    network: Weighing,
    pictures: Pictures,
    indices: Sequence[int],
    scoring: Scoring,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Smoothed maps of all errors, (n, errors, SIZE, SIZE), of these parts and of damaged copies in turns."""
    device = network.centre.device
    good = [_maps(network, pictures.batch([i], device)) for i in indices]
    bad = []
    for k in range(DEFECTIVE):
        i, other = indices[k % len(indices)], int(rng.choice(np.asarray(indices)))
        defect = damage(eight_bit(pictures[i]), rng, donor=eight_bit(pictures[other]))
        bad.append(_maps(network, tensor(defect.image, pictures.preprocessing, device)))
    both = smooth(torch.cat([*good, *bad]), scoring.sigma * SIZE / network.architecture.size)
    return both[: len(good)], both[len(good) :]


def discriminant(good: Tensor, bad: Tensor, scoring: Scoring) -> Tensor:
    """Weights by shift over variance of each error's image score: maps (n, errors, S, S) twice -> (errors,).

    All alike where damage moves none.
    """
    normal, damaged = (
        torch.stack([image_score(error, scoring) for error in maps.unbind(1)]).double()
        for maps in (good, bad)
    )
    shift = (damaged.median(dim=1).values - normal.median(dim=1).values).clamp(min=0)
    variance = normal.var(dim=1, correction=0)
    steadied = (len(good) * variance + PRIOR * variance.mean()) / (len(good) + PRIOR)
    weight = shift / (steadied + 1e-12) if shift.any() else torch.ones_like(shift)
    return (weight / weight.sum()).to(good.dtype)


def separation(scores: Tensor, good: int) -> float:
    """AUROC, made smooth so that margins count where it is 1, of scores (n,), the good parts' first."""
    normal, defective = scores[:good].double(), scores[good:].double()
    margin = (defective[:, None] - normal[None]) / normal.std().clamp(min=1e-9)
    return float(margin.sigmoid().mean())


def _scores(maps: Tensor, weight: Tensor, scoring: Scoring) -> Tensor:
    """(n,) from maps (n, errors, S, S)."""
    return image_score(torch.einsum("nehw,e->nhw", maps, weight), scoring)


def _simplest(
    scores: Callable[[Tensor], Tensor], good: int, start: Tensor, best: Tensor, rng: np.random.Generator
) -> Tensor:
    """The first step from these weights that is within one standard error of the best."""
    reached = scores(best)
    enough = separation(reached, good) - _error(reached, good, rng)
    for step in STEPS:
        weight = start.lerp(best, step)
        if separation(scores(weight), good) >= enough:
            return weight
    return best


def _error(scores: Tensor, good: int, rng: np.random.Generator) -> float:
    """Standard error of the separation: bootstrap over the parts, each with its damaged copies."""
    copies = [np.arange(good + part, len(scores), good) for part in range(good)]
    found = []
    for _ in range(RESAMPLED):
        drawn = rng.integers(good, size=good)
        if len(set(drawn)) > 1:
            picked = np.concatenate([drawn, *(copies[part] for part in drawn)])
            found.append(separation(scores[torch.from_numpy(picked)], good))
    return float(np.std(found)) if found else 0.0


def _maps(network: Weighing, x: Tensor) -> Tensor:
    """(1, errors, SIZE, SIZE): each in standard deviations above the usual error."""
    errors = network.unusual(network.errors_of(x))
    how = {"size": (SIZE, SIZE), "mode": "bilinear", "align_corners": False}
    return torch.cat([F.interpolate(e[:, None], **how) for e in errors], dim=1)  # type: ignore[arg-type]  # mypy takes how's values together


def _ascent(quality: Callable[[Tensor], float], start: Tensor) -> Tensor:
    """Weights from which no other share of a single source is better: (errors,) -> (errors,), sum 1."""
    shares, best = torch.ones_like(start), quality(start)
    improved = True
    while improved:
        improved = False
        for source, share in product(range(len(shares)), SHARES):
            tried = shares.clone()
            tried[source] = share
            weight = tried * start
            if weight.sum() > 0 and (found := quality(weight / weight.sum())) > best + GAIN:
                shares, best, improved = tried, found, True
    return shares * start / (shares * start).sum()
