"""A picture with a known answer, to see that an engine still says what it said when it was calibrated.

The picture is drawn from a formula and needs no file. The answer is its score and a coarse copy of its score
map; it is kept with the threshold, for the same device and precision. Another answer tells of altered
weights, a wrong device, or a library that computes something else. (The score alone would not do: it is the
worst place of a picture that no network has seen, and weights that are 5 % wrong can leave it as it was.)
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.errors import ModelError
from inspector.model.records import Preprocessing

GRID = 8  # the copy of the map is GRID x GRID

# Share of the answer's largest number. On one device and precision, threads and vector libraries move float32
# by 4e-7; 5 % more on any one weight matrix of a trained network moves it by more than 1e-4.
TOLERANCE = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 2e-2}

_REMEDY = (
    "weights, device or a library are not what they were: `inspector doctor` names them; restore what has "
    "changed, or run `inspector calibrate` again"
)


def picture(preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """(H, W, 3) rings, a ramp and a checkerboard over the ROI, in integers: the same on every machine."""
    x0, y0, width, height = preprocessing.roi or (0, 0, preprocessing.size, preprocessing.size)
    y, x = np.mgrid[0 : y0 + height, 0 : x0 + width].astype(np.int64)
    rings = ((x - x0 - width // 2) ** 2 + (y - y0 - height // 2) ** 2) * 64 // (width * height // 16 + 1)
    ramp = (x + 2 * y) * 255 // (x0 + width + 2 * (y0 + height))
    board = ((x * 16 // (x0 + width)) + (y * 16 // (y0 + height))) % 2 * 180 + 40
    return np.stack([rings * 37 % 256, ramp, board], axis=2).astype(np.uint8)


def answer(score: float, score_map: NDArray[np.float32]) -> tuple[float, ...]:
    """The score, then the (S, S) map averaged over GRID x GRID blocks, to 9 digits."""
    coarse = cv2.resize(score_map, (GRID, GRID), interpolation=cv2.INTER_AREA)
    return tuple(float(f"{value:.9g}") for value in (score, *coarse.ravel()))


def compare(found: tuple[float, ...], known: tuple[float, ...], precision: str, who: str) -> None:
    """Raise ModelError unless the answer is finite and the known one, within TOLERANCE."""
    numbers, expected = np.asarray(found), np.asarray(known)
    if not np.isfinite(numbers).all():
        raise ModelError(f"self-test of {who}: the score of the test picture is not a number; {_REMEDY}")
    if numbers.shape != expected.shape:
        raise ModelError(
            f"self-test of {who}: the recorded answer has {expected.size} numbers, this version's has "
            f"{numbers.size}; run `inspector calibrate` again"
        )
    off = float(np.abs(numbers - expected).max() / np.abs(expected).max())
    if not off <= TOLERANCE[precision]:
        raise ModelError(
            f"self-test of {who}: the answer to the test picture is off by {off:.2g} (at most "
            f"{TOLERANCE[precision]:g} is allowed; score {found[0]:.6g}, expected {known[0]:.6g}); {_REMEDY}"
        )
