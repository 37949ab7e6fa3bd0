from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from inspector.overlay import Caption, colours, encode, render

PASS, REJECT, FAULT = 1, 2, 3
RED = (196, 30, 40)
GREEN = (22, 130, 70)
AMBER = (190, 110, 0)


def caption(**changes: Any) -> Caption:
    fields: dict[str, Any] = {
        "id": 48213,
        "time": datetime(2026, 5, 9, 12, tzinfo=UTC),
        "camera": "top",
        "verdict": REJECT,
        "score": 0.4,
        "threshold": 0.25,
    }
    return Caption(**(fields | changes))


def flat(value: float) -> NDArray[np.float32]:
    return np.full((96, 96), value, np.float32)


def has(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> bool:
    return bool((picture == colour).all(axis=2).any())


def warm(picture: NDArray[np.uint8]) -> int:
    """Pixels that are clearly more red than blue, below the header and left of the colour bar."""
    part = picture[160:, :-260].astype(int)
    return int((part[..., 0] > part[..., 2] + 40).sum())


def test_the_scale_is_fixed_by_the_threshold() -> None:
    values = np.array([[0.0, 0.249, 0.25, 0.5, 9.0]], np.float32)
    zero, below, threshold, twice, beyond = colours(values, top=0.5)[0].tolist()
    assert threshold == [255, 220, 40]
    assert twice == beyond == [180, 0, 30]
    for cool in (zero, below):
        assert cool[0] < cool[2]


def test_a_good_part_looks_good_whatever_its_contrast() -> None:
    frame = np.full((200, 200), 128, np.uint8)
    quiet = flat(0.02)
    quiet[40, 40] = 0.2  # its maximum, yet below the threshold
    assert warm(render(caption(verdict=PASS, score=0.2), frame, quiet)) == 0
    loud = flat(0.02)
    loud[30:50, 30:50] = 0.4
    assert warm(render(caption(), frame, loud)) > 1000


def test_heat_lies_in_the_region_that_the_map_covers() -> None:
    frame = np.full((200, 200), 128, np.uint8)
    picture = render(caption(), frame, flat(0.4), region=(100, 0, 100, 200)).astype(int)
    heat = picture[..., 0] > picture[..., 2] + 40
    columns = np.flatnonzero(heat[picture.shape[0] // 2 :, :-160].sum(axis=0) > 50)
    whole = np.flatnonzero(
        (render(caption(), frame, flat(0.4)).astype(int)[picture.shape[0] // 2 :, :-160, 0] > 200).sum(axis=0)
    )
    assert 150 < len(columns) <= 200  # the right half of a panel of 400 pixels
    assert len(whole) > len(columns)


@pytest.mark.parametrize(("verdict", "colour"), [(PASS, GREEN), (REJECT, RED), (FAULT, AMBER)])
def test_the_verdict_has_its_colour(verdict: int, colour: tuple[int, int, int]) -> None:
    picture = render(caption(verdict=verdict), np.zeros((64, 64), np.uint8))
    for other in (GREEN, RED, AMBER):
        assert has(picture[:80, :160], other) == (other == colour)


@pytest.mark.parametrize("shape", [(384, 384, 3), (2000, 2000, 3), (100, 400), (400, 100), (16, 16)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_frame_has_its_picture(shape: tuple[int, ...], dtype: Any) -> None:
    frame = np.full(shape, np.iinfo(dtype).max, dtype)
    picture = render(caption(source="x" * 300, reason=None), frame, flat(0.1))
    assert picture.dtype == np.uint8
    assert 300 < picture.shape[0] < 2000
    assert 700 < picture.shape[1] < 3200


def test_sixteen_bits_are_shown_as_bright_as_they_are() -> None:
    grey = np.full((300, 300), 0x8000, np.uint16)
    assert render(caption(), grey)[300, 200].tolist() == [128, 128, 128]


@pytest.mark.parametrize("frame", [None, np.zeros((60, 60, 3), np.uint8)])
@pytest.mark.parametrize("score_map", [None, flat(0.3)])
def test_what_was_not_stored_leaves_a_place(frame: Any, score_map: Any) -> None:
    fault = caption(verdict=FAULT, reason="camera_down", score=None, threshold=None)
    picture = render(fault, frame, score_map, scale=0.5)
    assert has(picture, (240, 242, 245)) == (frame is None or score_map is None)
    if score_map is not None:
        assert warm(picture) == 0  # without a threshold nothing is called too much


def test_the_png_keeps_red_red() -> None:
    picture = render(caption(), np.zeros((64, 64), np.uint8))
    decoded = cv2.imdecode(np.frombuffer(encode(picture), np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(np.asarray(decoded)[..., ::-1], picture)
