"""Heatmaps on the calibrated scale, and sheets that can be read back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from inspector.errors import DataError
from training import contact_sheet
from training.contact_sheet import GAP, PICTURE, Tile, overlay

GREY = np.full((40, 40, 3), 128, np.uint8)


def colour(ratio, threshold=2.0):
    score_map = np.full((8, 8), ratio * threshold, np.float32)
    return overlay(GREY, score_map, threshold)[20, 20].astype(int)


def test_a_part_without_error_looks_like_itself():
    assert (colour(0.0) == 128).all()
    assert np.abs(colour(0.5) - 128).max() < 15


def test_the_threshold_has_a_colour_of_its_own():
    red, _, blue = colour(0.99)
    assert blue > red + 20
    red, _, blue = colour(1.0)
    assert red > blue + 90


@pytest.mark.parametrize("threshold", [1e-6, 0.3, 1e4])
def test_the_colour_depends_on_map_over_threshold_alone(threshold):
    assert (colour(1.7, threshold) == colour(1.7)).all()


def tile(defective, score, mask=None):
    image = np.full((50, 70, 3), (200, 10, 10), np.uint8)
    return Tile(image, np.full((16, 16), score, np.float32), mask, "dent/ü.png", score, defective)


def test_a_sheet_holds_part_heatmap_and_outline(tmp_path):
    mask = np.zeros((50, 70), bool)
    mask[20:40, 20:50] = True
    path = tmp_path / "new" / "sheet.png"
    tiles = [tile(True, 0.5, mask)] + [tile(False, 0.1)] * 4
    contact_sheet.write(path, "screw", 1.0, [("misses", tiles), ("none", [])])
    sheet = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    red = (sheet == (200, 10, 10)).all(axis=-1)
    assert red.sum() == 5 * PICTURE * PICTURE  # the parts in their own colours
    outline = (sheet == contact_sheet.OUTLINE).all(axis=-1)
    y, x = np.argwhere(outline).T
    top = np.argwhere(red)[:, 0].min()
    assert y.min() - top == pytest.approx(0.4 * PICTURE, abs=2)
    assert x.min() - (GAP + PICTURE) == pytest.approx(20 / 70 * PICTURE, abs=2)
    assert outline.sum() > 100


def test_the_peak_of_the_map_is_marked(tmp_path):
    score_map = np.zeros((16, 16), np.float32)
    score_map[4, 12] = 1.0
    part = Tile(np.zeros((50, 70, 3), np.uint8), score_map, None, "good/0.png", 1.0, False)
    path = tmp_path / "sheet.png"
    contact_sheet.write(path, "t", 100.0, [("good", [part])])
    black = np.argwhere((cv2.imread(str(path)) == 0).all(axis=-1))
    top, left = black.min(axis=0)[0], GAP + PICTURE
    heat = cv2.imread(str(path))[top : top + PICTURE, left : left + PICTURE].min(axis=-1)
    y, x = np.argwhere(heat > 100).mean(axis=0)
    assert (y / PICTURE, x / PICTURE) == pytest.approx((4.5 / 16, 12.5 / 16), abs=0.02)


def test_mono_and_16_bit_parts_are_shown(tmp_path):
    image = np.full((30, 30), 40_000, np.uint16)
    part = Tile(image, np.zeros((8, 8), np.float32), None, "good/0.png", 0.0, False)
    path = tmp_path / "sheet.png"
    contact_sheet.write(path, "t", 1.0, [("good", [part])])
    assert (cv2.imread(str(path)) == 40_000 >> 8).all(axis=-1).sum() >= 2 * PICTURE * PICTURE - 300


def test_a_sheet_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    folder = tmp_path / "sheet.png"
    folder.mkdir()
    with pytest.raises(DataError, match=r"sheet\.png could not be written"):
        contact_sheet.write(folder, "t", 1.0, [])
