"""What a network is taught on drawn surfaces, batch by batch.

Most of a batch are instances of any patterns, whose number is to be told: so features come to mean what
surfaces have in common and not where every grain lies. The others are episodes, an inspection in small:
of a pattern some instances make a bank, and damaged places of others must be farther from it than sound ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from inspector.model.backbone import DRAWN, normalisation
from training.defects import KINDS, damage
from training.fields import Chance

SHOWN = 64  # pixels a side of what the network is shown of an instance
PLAIN = 48  # instances whose pattern is to be told
EPISODES = 2
BANKED, SOUND, DAMAGED = 4, 2, 2  # instances of an episode
EACH = BANKED + SOUND + DAMAGED
FEWEST = 0.05  # share of a place that must be damaged before it counts
ENOUGH = 0.25  # from this share on it counts in full
MEAN, STD = (np.array(values, np.float32) for values in normalisation(DRAWN))


class Batch(NamedTuple):
    """pictures: (PLAIN + EPISODES · EACH, 3, SHOWN, SHOWN), normalised. patterns: (PLAIN,) indices.
    masks: (EPISODES, DAMAGED, SHOWN, SHOWN), 1 where damaged.
    """

    pictures: Tensor
    patterns: Tensor
    masks: Tensor


def batch(drawn: NDArray[np.uint8], chance: Chance) -> Batch:
    """drawn: (patterns, instances, side, side, 3) uint8."""
    patterns, instances = drawn.shape[:2]
    plain = chance.integers(patterns, size=PLAIN)
    images = [_seen(drawn[p, chance.integers(instances)], *_view(chance), chance) for p in plain]
    looks = [_look(chance) for _ in plain]
    masks = []
    for p in chance.choice(patterns, EPISODES, replace=False):
        turn, zoom = _view(chance)
        look = _look(chance)
        chosen = chance.choice(instances, EACH, replace=False)
        views = [
            _seen(drawn[p, i], turn + 0.04 * chance.normal(), zoom * (1 - 0.04 * chance.random()), chance)
            for i in chosen
        ]
        for k in range(EACH - DAMAGED, EACH):
            other = views[0] if chance.random() < 0.5 else images[int(chance.integers(PLAIN))]
            defect = damage(
                views[k], chance, donor=other, region=np.ones((SHOWN, SHOWN), np.bool_), kinds=tuple(KINDS)
            )
            views[k] = defect.image
            masks.append(defect.mask)
        images += views
        looks += [look] * EACH
    pictures = np.stack([_lit(i, look, chance) for i, look in zip(images, looks, strict=True)])
    return Batch(
        torch.from_numpy((pictures - MEAN) / STD).permute(0, 3, 1, 2),
        torch.from_numpy(plain),
        torch.from_numpy(np.stack(masks)).float().view(EPISODES, DAMAGED, SHOWN, SHOWN),
    )


def episode_loss(features: Tensor, masks: Tensor) -> Tensor:
    """How far damaged places are from the bank beside sound ones.

    features: (EPISODES · EACH, C, s, s); masks: see Batch -> scalar.
    """
    side = features.shape[-1]
    if side > 2:
        features = F.avg_pool2d(features, 3, 1, 1, count_include_pad=False)
    places = features.flatten(2).transpose(1, 2).reshape(EPISODES, EACH, side**2, -1)
    bank, asked = places[:, :BANKED].flatten(1, 2), places[:, BANKED:].flatten(1, 2)
    square = torch.cdist(asked, bank).square().amin(dim=2)
    logs = (square + 1e-3 * square.detach().mean(dim=1, keepdim=True) + 1e-8).log()
    sound, bad = logs[:, : SOUND * side**2], logs[:, SOUND * side**2 :]
    usual = (2 * sound).logsumexp(dim=1, keepdim=True) / 2 - np.log(sound.shape[1]) / 2
    share = F.adaptive_avg_pool2d(masks, side).flatten(1)
    counts = (share / ENOUGH).clamp(max=1) * (share > FEWEST)
    return (F.softplus(2 * (usual - bad)) * counts).sum() / (counts.sum() + 1e-6)


def _view(chance: Chance) -> tuple[float, float]:
    """Angle in radians and share of the side that is seen: fine surfaces and large shapes."""
    return chance.normal(0, 0.12), np.exp(chance.uniform(np.log(0.4), 0))


def _seen(image: NDArray[np.uint8], turn: float, zoom: float, chance: Chance) -> NDArray[np.uint8]:
    side = image.shape[0]
    width = zoom * side
    row, column = chance.uniform(width / 2, side - width / 2, 2)
    c, s = np.cos(turn) * width / SHOWN, np.sin(turn) * width / SHOWN
    half = (SHOWN - 1) / 2
    back = np.array([[c, -s, column - half * (c - s)], [s, c, row - half * (s + c)]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpAffine(image, back, (SHOWN, SHOWN), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(seen, np.uint8)


class Look(NamedTuple):
    """Light and camera of one line: gain, offset, how far both vary, noise, whether it is out of focus."""

    gain: float
    offset: float
    varies: float
    noise: float
    soft: bool


def _look(chance: Chance) -> Look:
    return Look(
        gain=float(np.exp(chance.normal(0, 0.25))),
        offset=chance.normal(0, 0.1),
        varies=float(chance.choice([0.03, 0.08, 0.2])),
        noise=float(chance.choice([0, 0.01, 0.03, 0.06])),
        soft=chance.random() < 0.25,
    )


def _lit(image: NDArray[np.uint8], look: Look, chance: Chance) -> NDArray[np.float32]:
    """In [0, 1]."""
    x = cv2.blur(image, (3, 3)) if look.soft else image
    gain = look.gain * np.exp(look.varies * (chance.normal() + 0.3 * chance.normal(size=3)))
    offset = look.offset + 0.4 * look.varies * chance.normal()
    x = (x / 255 - 0.5) * gain + 0.5 + offset + look.noise * chance.normal(size=(SHOWN, SHOWN, 1))
    return np.clip(x, 0, 1).astype(np.float32)


def patterns_loss(logits: Sequence[Tensor], patterns: Tensor) -> Tensor:
    """Cross entropy of each level's guess, (PLAIN, patterns): scalar."""
    return torch.stack([F.cross_entropy(guess, patterns, label_smoothing=0.05) for guess in logits]).sum()
