"""Whether parts have moved away from those that the threshold was calibrated on, and in what.

Scores of passed parts, brightness, sharpness and highlight of all that were judged, are each compared with
the calibration parts' own, by the two-sample Kolmogorov-Smirnov distance: once for each WINDOW parts, and for
all of the day whenever they have doubled. Looking again and again must not become an alarm by itself: each
day and camera has FALSE_ALARMS to spend, the i-th look of a day 6 / (π² i²) of its share, so that all of
them together stay below it, however many they are (Bonferroni; no look needs to be independent of another).
A distance below SMALLEST is never told: no two days are quite alike.

That holds for parts that are independent of one another. Parts whose neighbours are alike tell less than
their number: they are counted as effective() says, which is true of an autoregression of first order, and
neighbours of today are taken to be at least as alike as those of the calibration were: a window that lies far
off by chance hardly shows how alike its parts are. What varies more slowly than a window lasts, such as
daylight or batches of material, has moved, and is told so.

Passed parts have no scores above the threshold, so neither have the calibration parts that their scores are
compared with. What only makes more rejects is seen in the verdicts, and here if light or lens have done it.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from math import pi, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import kolmogi

QUANTITIES = ("score", "brightness", "sharpness", "highlight")
LIGHT = frozenset({"brightness", "highlight"})
OF_PASSES = ("score",)  # a rejected part's says what is wrong with it, not how parts are by now
FALSE_ALARMS = 0.001  # a day and camera, at most
WINDOW = 100  # parts
SMALLEST = 0.2  # distance that is worth telling, 0 to 1
OVER = 0.15  # below this distance it is over
FEWEST = 50  # calibration parts to compare with
SHARE = FALSE_ALARMS / (2 * len(QUANTITIES))  # of the windows, or of the days, of one quantity

Floats = NDArray[np.float64]


def distance(reference: Floats, values: Floats) -> float:
    """Two-sample Kolmogorov-Smirnov: the largest difference of the shares below any value. Both sorted."""
    both = np.concatenate([reference, values])
    below = np.searchsorted(reference, both, side="right") / len(reference)
    return float(np.abs(below - np.searchsorted(values, both, side="right") / len(values)).max())


def likeness(values: Floats) -> float:
    """How alike neighbours are, 0 to 1: the lag-1 correlation of values in the order in which they came.

    The estimate is raised by its bias (Kendall 1954), and none below 0 is taken.
    """
    off = values - values.mean()
    spread = float(off @ off)
    found = float(off[:-1] @ off[1:]) / spread if spread > 0 else 0.0
    return min(max(found + (1 + 4 * found) / len(values), 0.0), 1.0)


def effective(values: Floats, at_least: float = 0.0) -> float:
    """How many independent values tell as much as these, which are in the order in which they came.

    n (1 - ρ) / (1 + ρ) with the likeness ρ, as for the mean of an autoregression of first order (Bartlett
    1935). at_least: what ρ is known not to be below.
    """
    alike = max(likeness(values), at_least)
    return max(len(values) * (1 - alike) / (1 + alike), 1.0)


def least(look: int, reference: float, values: float) -> float:
    """The distance that the look-th look of a day (from 1) must find to be told; arguments 2, 3 are counts.

    The limiting distribution is used, which for few parts asks for a little more than the exact one. Whatever
    the counts, values that all lie beyond the reference, at distance 1, are told.
    """
    spent = SHARE * 6 / (pi * look) ** 2
    asked = float(kolmogi(spent)) * sqrt(1 / reference + 1 / values)
    return min(max(SMALLEST, asked), 1.0)


@dataclass(frozen=True, slots=True)
class Reference:
    """The calibration parts' values, sorted, how many independent ones they are worth, and the likeness of
    neighbours.
    """

    ordered: Floats
    count: float
    alike: float
    median: float

    @classmethod
    def of(cls, values: Floats) -> Reference:
        """values: in the order in which they were scored."""
        return cls(np.sort(values), effective(values), likeness(values), float(np.median(values)))


@dataclass(slots=True)
class Comparison:
    """One of the two ways to look at a quantity. moved: None until it has been looked at."""

    looks: int = 0  # of this day
    moved: bool | None = None
    distance: float | None = None
    median: float | None = None

    def look(self, reference: Reference, values: Floats) -> None:
        """Compare values in the order in which they came; once moved, until the distance is small."""
        self.looks += 1
        found = np.sort(values)
        self.distance, self.median = distance(reference.ordered, found), float(np.median(found))
        if self.distance >= least(self.looks, reference.count, effective(values, reference.alike)):
            self.moved = True
        elif not self.moved or self.distance < OVER:
            self.moved = False


@dataclass(slots=True)
class Watch:
    """One quantity of one camera's parts, part by part."""

    reference: Reference
    window: Comparison = field(default_factory=Comparison)
    day: Comparison = field(default_factory=Comparison)
    _recent: array[float] = field(default_factory=lambda: array("d"))
    _today: array[float] = field(default_factory=lambda: array("d"))

    def add(self, value: float) -> None:
        """The next part's."""
        self._recent.append(value)
        self._today.append(value)
        if len(self._recent) >= WINDOW:
            self.window.look(self.reference, np.array(self._recent))
            self._recent = array("d")
        if len(self._today) == WINDOW << self.day.looks:
            self.day.look(self.reference, np.array(self._today))

    def begin_day(self) -> None:
        """What has moved stays so until a look of the new day says otherwise; the window goes on."""
        self.window.looks = self.day.looks = 0
        self._today = array("d")

    @property
    def moved(self) -> bool | None:
        """None before the first look."""
        looks = [one.moved for one in (self.window, self.day) if one.moved is not None]
        return any(looks) if looks else None

    @property
    def newest(self) -> Comparison:
        """The comparison that tells: of those that say moved, or of both, the window, which is the newer."""
        return self.day if self.day.moved and not self.window.moved else self.window


class Drift:
    """All quantities of one camera's parts, since one calibration."""

    def __init__(self, references: dict[str, Floats], told: Sequence[str] = ()) -> None:
        """References: values of the calibration parts by quantity, in the order in which they were scored.

        told: what was known to have moved.
        """
        self.watches = {name: Watch(Reference.of(values)) for name, values in references.items()}
        self.parts_today = 0
        self._day: date | None = None
        self._told = set(told)

    def add(self, day: date, values: Mapping[str, float | None], *, passed: bool = True) -> None:
        """The next part that was judged. None: what an older version has not measured."""
        if day != self._day:
            self._day, self.parts_today = day, 0
            for watch in self.watches.values():
                watch.begin_day()
        self.parts_today += 1
        for name, watch in self.watches.items():
            value = values[name]
            if value is not None and (passed or name not in OF_PASSES):
                watch.add(value)

    @property
    def moved(self) -> tuple[str, ...]:
        """What has moved; what nobody has looked at yet is as it was told before."""
        return tuple(
            name
            for name, watch in self.watches.items()
            if (name in self._told if watch.moved is None else watch.moved)
        )

    def change(self) -> bool:
        """Whether what has moved is not what was told; it is told by this."""
        now = set(self.moved)
        changed, self._told = now != self._told, now
        return changed

    def message(self) -> str:
        """What has moved, from where to where, and where to look."""
        moved = self.moved
        if not moved:
            return "parts are as they were at calibration"
        figures = ", ".join(self._figures(name) for name in moved)
        return f"parts have moved since calibration: {figures}; {_advice(moved)}"

    def _figures(self, name: str) -> str:
        watch = self.watches[name]
        now, before = watch.newest.median, watch.reference.median
        if now is None:
            return name
        change = f" ({now / before - 1:+.0%})" if before > 0 else ""
        return f"{name} {now:.4g}, was {before:.4g}{change}"


def _advice(moved: Sequence[str]) -> str:
    light = not LIGHT.isdisjoint(moved)
    if light and "sharpness" in moved:
        return "look at light, exposure and lens"
    if light:
        return "look at light and exposure"
    if "sharpness" in moved:
        return "look at lens, focus and vibration"
    return "light and lens are as they were: look at the parts and how they lie"
