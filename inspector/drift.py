"""Whether the parts that pass have moved away from those that the threshold was calibrated on, and in what.

Scores, brightness and sharpness are each compared with the calibration parts' own, by the two-sample
Kolmogorov-Smirnov distance: once for each WINDOW parts, and for all of the day whenever they have doubled.
Looking again and again must not become an alarm by itself: each day and camera has FALSE_ALARMS to spend, the
i-th look of a day 6 / (π² i²) of its share, so that all of them together stay below it, however many they are
(Bonferroni; no look needs to be independent of another). A distance below SMALLEST is never told: no two days
are quite alike.

Passed parts have no scores above the threshold, so neither have the calibration parts that they are compared
with. What only makes more rejects is not seen here; it is seen in the verdicts.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from math import pi, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import kolmogi

QUANTITIES = ("score", "brightness", "sharpness")
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


def least(look: int, reference: int, values: int) -> float:
    """The distance that the look-th look of a day (from 1) must find to be told; arguments 2, 3 are counts.

    The limiting distribution is used, which for few parts asks for a little more than the exact one.
    """
    spent = SHARE * 6 / (pi * look) ** 2
    return max(SMALLEST, float(kolmogi(spent)) * sqrt(1 / reference + 1 / values))


@dataclass(slots=True)
class Comparison:
    """One of the two ways to look at a quantity. moved: None until it has been looked at."""

    looks: int = 0  # of this day
    moved: bool | None = None
    distance: float | None = None
    median: float | None = None

    def look(self, reference: Floats, values: Floats) -> None:
        """Compare; once moved, it is so until the distance is small."""
        self.looks += 1
        found = np.sort(values)
        self.distance, self.median = distance(reference, found), float(np.median(found))
        if self.distance >= least(self.looks, len(reference), len(found)):
            self.moved = True
        elif not self.moved or self.distance < OVER:
            self.moved = False


@dataclass(slots=True)
class Watch:
    """One quantity of one camera's passed parts, part by part."""

    reference: Floats  # sorted
    window: Comparison = field(default_factory=Comparison)
    day: Comparison = field(default_factory=Comparison)
    _recent: array[float] = field(default_factory=lambda: array("d"))
    _today: array[float] = field(default_factory=lambda: array("d"))

    def add(self, value: float) -> None:
        """The next passed part's."""
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
    """All quantities of one camera's passed parts, since one calibration."""

    def __init__(self, references: dict[str, Floats], told: Sequence[str] = ()) -> None:
        """References: values of the calibration parts by quantity. told: what was known to have moved."""
        self.watches = {name: Watch(np.sort(values)) for name, values in references.items()}
        self.parts_today = 0
        self._day: date | None = None
        self._told = set(told)

    def add(self, day: date, values: dict[str, float]) -> None:
        """The next passed part."""
        if day != self._day:
            self._day, self.parts_today = day, 0
            for watch in self.watches.values():
                watch.begin_day()
        self.parts_today += 1
        for name, watch in self.watches.items():
            watch.add(values[name])

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
            return "passed parts are as they were at calibration"
        figures = ", ".join(self._figures(name) for name in moved)
        return f"passed parts have moved since calibration: {figures}; {_advice(moved)}"

    def _figures(self, name: str) -> str:
        watch = self.watches[name]
        now, before = watch.newest.median, float(np.median(watch.reference))
        if now is None:
            return name
        change = f" ({now / before - 1:+.0%})" if before > 0 else ""
        return f"{name} {now:.4g}, was {before:.4g}{change}"


def _advice(moved: Sequence[str]) -> str:
    if "brightness" in moved and "sharpness" in moved:
        return "look at light, exposure and lens"
    if "brightness" in moved:
        return "look at light and exposure"
    if "sharpness" in moved:
        return "look at lens, focus and vibration"
    return "light and lens are as they were: look at the parts and how they lie"
