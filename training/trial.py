"""A trained network tried on parts that it has not seen: held-out normals, as they are and damaged.

The damage is synthetic, so a method can be judged and compared without a single image of a test set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspector.errors import TrainingError
from inspector.model.network import Network
from inspector.model.preprocess import Image, tensor
from inspector.model.records import Preprocessing, Scoring
from inspector.model.scoring import image_score, smooth
from training import metrics
from training.data import Pictures
from training.defects import damage

DEFECTIVE = 100  # damaged parts, at most …
COPIES = 5  # … and of one part
SHOWN = 8  # good and damaged parts that are kept to be looked at

Rgb = NDArray[np.uint8]
Map = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Example:
    """A part as the network saw it.

    image: (S, S, 3). map: (S, S), smoothed. views: what the network shows of its work, pictures (h, w, 3)
    or maps (h, w) on the scale of the map. mask: (S, S), where it was damaged; None for a good part.
    """

    name: str
    image: Rgb
    map: Map
    score: float
    views: dict[str, Rgb | Map]
    mask: Mask | None = None


@dataclass(frozen=True)
class Trial:
    """good, bad: scores of the parts, and of damaged ones; kinds: of the damage, in the order of bad."""

    good: tuple[float, ...]
    bad: tuple[float, ...]
    kinds: tuple[str, ...]
    pixel_auroc: float
    aupro: float
    good_parts: tuple[Example, ...]
    bad_parts: tuple[Example, ...]

    def summary(self) -> dict[str, Any]:
        """How well damaged parts are told from good ones, as JSON; 95 % interval."""
        labels = [False] * len(self.good) + [True] * len(self.bad)
        scores = self.good + self.bad
        return {
            "image_auroc": metrics.image_auroc(labels, scores),
            "image_auroc_interval": list(metrics.bootstrap(metrics.image_auroc, labels, scores)),
            "image_auroc_by_kind": {kind: self._auroc(kind) for kind in sorted(set(self.kinds))},
            "pixel_auroc": self.pixel_auroc,
            "aupro": self.aupro,
            "n_good": len(self.good),
            "n_defective": len(self.bad),
        }

    def _auroc(self, kind: str) -> float:
        bad = [score for score, other in zip(self.bad, self.kinds, strict=True) if other == kind]
        return metrics.image_auroc([False] * len(self.good) + [True] * len(bad), [*self.good, *bad])


def attempt(
    network: Network, pictures: Pictures, indices: Sequence[int], scoring: Scoring, seed: int
) -> Trial:
    """Score these parts, and up to COPIES of each with a synthetic defect. The network is not changed.

    Raises TrainingError for a map that is not finite.
    """
    network.eval()
    rng = np.random.default_rng((seed, 6))
    curves = metrics.PixelCurves()
    good: list[float] = []
    bad: list[float] = []
    kinds: list[str] = []
    good_parts: list[Example] = []
    bad_parts: list[Example] = []
    for i in indices:
        part = _look(network, pictures[i], pictures.preprocessing, scoring, pictures.files[i].name)
        good.append(part.score)
        curves.add(part.map)
        if len(good_parts) < SHOWN:
            good_parts.append(part)
    for k in range(min(DEFECTIVE, COPIES * len(indices))):
        i, other = indices[k % len(indices)], int(rng.choice(np.asarray(indices)))
        defect = damage(eight_bit(pictures[i]), rng, donor=eight_bit(pictures[other]))
        name = f"{pictures.files[i].name}, {defect.kind}"
        part = _look(network, defect.image, pictures.preprocessing, scoring, name, defect.mask)
        bad.append(part.score)
        kinds.append(defect.kind)
        curves.add(part.map, defect.mask)
        if len(bad_parts) < SHOWN:
            bad_parts.append(part)
    return Trial(
        tuple(good),
        tuple(bad),
        tuple(kinds),
        curves.auroc(),
        curves.pro(),
        tuple(good_parts),
        tuple(bad_parts),
    )


@torch.no_grad()
def _look(
    network: Network,
    image: Image,
    preprocessing: Preprocessing,
    scoring: Scoring,
    name: str,
    mask: Mask | None = None,
) -> Example:
    x = tensor(image, preprocessing, next(network.parameters()).device)
    reconstruction = network.reconstruct(x)
    score_map = smooth(network.error_map(reconstruction, scoring), scoring.sigma)
    if not score_map.isfinite().all():
        raise TrainingError(f"training diverged: the map of {name} is not finite; lower learning_rate")
    views = {title: _shown(view[0], preprocessing) for title, view in network.views(reconstruction).items()}
    score = float(image_score(score_map, scoring))
    return Example(name, eight_bit(image), score_map[0].cpu().numpy(), score, views, mask)


def _shown(view: Tensor, preprocessing: Preprocessing) -> Rgb | Map:
    """A map (h, w) as it is; a picture (3, h, w), normalised as the input, as intensities (h, w, 3)."""
    values: Map = view.float().cpu().numpy()
    if values.ndim == 2:
        return values
    mean, std = (np.asarray(v)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
    picture = np.rint(np.clip(values * std + mean, 0, 1) * 255).astype(np.uint8)
    return np.asarray(picture.transpose(1, 2, 0), np.uint8)


def eight_bit(image: Image) -> Rgb:
    """(S, S) or (S, S, 3), uint8 or uint16 -> (S, S, 3) uint8."""
    small = (image >> 8 if image.dtype == np.uint16 else image).astype(np.uint8)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_GRAY2RGB) if small.ndim == 2 else small, np.uint8)
