"""Which of the parts that passed are worth learning from. Pure: no files, no log.

Scores are compared by their rank among those of the same bundle: two bundles have two scales, and scores of
some methods are below zero, so that no share of the threshold means anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from operator import attrgetter

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.model.preprocess import Image

NEAR_THRESHOLD = 0.1  # share of the passes, the highest scores: an escape is most likely among them
TIMES, SCORES = 8, 5  # strata that parts are drawn from in turn
APART = 0.4  # share of all parts that no night ever trains on
SIDE = 32  # pixels of a thumbnail
ALIKE = (
    0.5  # grey levels, mean difference of two thumbnails; noise of a camera leaves less, another part more
)


@dataclass(frozen=True)
class Passed:
    """A part that passed. time: seconds on any scale; key: whatever tells it from the others."""

    key: int
    time: float
    score: float
    bundle: str
    sha256: str


def kept_apart(sha256: str) -> bool:
    """Whether this picture is for calibration and gate alone, tonight and in every other night."""
    return int(sha256[:8], 16) / 2**32 < APART


def well_under(parts: Sequence[Passed], share: float = NEAR_THRESHOLD) -> list[Passed]:
    """Without the highest share of each bundle's scores, in the order given."""
    place = ranks(parts)
    return [part for part in parts if place[part.key] <= 1 - share]


def ranks(parts: Iterable[Passed]) -> dict[int, float]:
    """Of each key, the share of its bundle's scores that are not above its own: (0, 1]."""
    found: dict[int, float] = {}
    for _, group in groupby(sorted(parts, key=attrgetter("bundle", "score")), key=attrgetter("bundle")):
        them = list(group)
        found |= {part.key: (number + 1) / len(them) for number, part in enumerate(them)}
    return found


def spread(parts: Sequence[Passed], seed: int) -> list[Passed]:
    """All of them in an order of which any beginning is spread over time and score.

    Parts are dealt from TIMES x SCORES strata in turn; a quiet night counts as much as a busy hour, a part
    that was hard to judge as much as an easy one.
    """
    if not parts:
        return []
    place, rng = ranks(parts), np.random.default_rng((seed, 10))
    first = min(part.time for part in parts)
    span = max(part.time for part in parts) - first or 1.0
    strata: dict[tuple[int, int], list[Passed]] = {}
    for part in sorted(parts, key=attrgetter("key")):
        when = min(TIMES - 1, int((part.time - first) / span * TIMES))
        level = min(SCORES - 1, int(place[part.key] * SCORES))
        strata.setdefault((when, level), []).append(part)
    dealt = [[them[i] for i in rng.permutation(len(them))] for _, them in sorted(strata.items())]
    order = rng.permutation(len(dealt))
    rounds = zip_longest(*(dealt[i] for i in order))
    return [part for one in rounds for part in one if part is not None]


class Distinct:
    """Tells pictures from those that were seen before: the same part seen twice teaches nothing new."""

    def __init__(self) -> None:
        self._seen: list[NDArray[np.float32]] = []

    def add(self, image: Image) -> bool:
        """Whether this picture, (H, W) or (H, W, 3), is unlike all before; then it is one of them."""
        small = thumbnail(image)
        for other in self._seen:
            if other.shape == small.shape and float(np.abs(other - small).mean()) < ALIKE:
                return False
        self._seen.append(small)
        return True


def thumbnail(image: Image) -> NDArray[np.float32]:
    """(H, W) or (H, W, 3), uint8 or uint16 -> (SIDE, SIDE) grey, 0 to 255."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    small = cv2.resize(grey.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small / 257 if image.dtype == np.uint16 else small, np.float32)
