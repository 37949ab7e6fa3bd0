"""How many waiting pictures go to the model at once: as many as pay and leave each part that waits time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, takewhile
from statistics import median

import numpy as np

from inspector.model.preprocess import Image

MOST = 8
PAYS = 0.9  # a part must cost at most this share of what it costs in half the batch
SPARE = 2.0  # times the time measured …
ANSWER_MS = 5.0  # … and this for every part's row and wire must be left to every part that waits


def sizes(together: int) -> list[int]:
    """1, 2, 4 … up to together, and MOST."""
    return [1 << n for n in range(min(max(together, 1), MOST).bit_length())]


class Pace:
    """What the network takes for batches, of the sizes that pay."""

    def __init__(self, times_ms: dict[int, list[float]] | None = None) -> None:
        """times_ms: of some runs of each size, in milliseconds a batch; none of them: one at a time."""
        times_ms = times_ms or {1: [0.0]}
        usual = {size: median(times) for size, times in sorted(times_ms.items())}
        self.slowest_ms = {1: 0.0}  # of one it does not matter: it goes in any case
        for half, size in pairwise(usual):
            if usual[size] / size > PAYS * usual[half] / half:
                break
            self.slowest_ms[size] = max(times_ms[size])

    def choose(self, images: Sequence[Image], left_ms: float, each_ms: float = 0.0) -> int:
        """How many of the first go together.

        left_ms: to the first deadline of any part that waits. each_ms: to make one ready for the network.
        """
        alike = sum(1 for _ in takewhile(lambda image: _kind(image) == _kind(images[0]), images))
        if images[0].dtype != np.uint8:
            alike = 1  # rare, and not made ready for more: Engine.warm_up()
        return max(
            size
            for size, ms in self.slowest_ms.items()
            if size == 1 or (size <= alike and SPARE * (ms + size * each_ms) + ANSWER_MS * size <= left_ms)
        )

    def whole(self, count: int) -> int:
        """The largest size that so many pictures fill."""
        return max(size for size in self.slowest_ms if size <= count)


def _kind(image: Image) -> tuple[object, int]:
    return image.dtype, image.ndim
