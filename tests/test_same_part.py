"""Exposures of one magnetic tile are one part; a simulated week never tests a part that was on the line."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from tests import week
from tests.same_part import parts_shown


def test_close_frames_are_one_tile_whatever_they_show_and_other_pictures_their_own_part() -> None:
    names = ["good/exp2_num_1810", "crack/exp1_num_249594", "good/000", "fray/exp2_num_249619", "crack/000"]
    files = [Path(name) for name in [*names, "crack/exp6_num_249700", "good/exp1_num_2011"]]
    assert list(parts_shown(files).values()) == [0, 1, 2, 1, 3, 1, 4]


def test_no_part_of_the_test_pictures_is_on_the_line_of_a_week(tmp_path: Path) -> None:
    def write(folder: str, tile: int, exposure: int) -> None:
        path = tmp_path / "tiles" / folder / f"exp{exposure}_num_{1000 * tile + 20 * exposure}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((8, 8), np.uint8))

    for tile in range(120):
        for exposure in range(1, 7):
            write("test/good" if exposure == 6 else "train/good", tile, exposure)
    for tile in range(120, 150):
        for exposure in range(1, 7):
            write("test/crack", tile, exposure)
    parts = week.parts_of(tmp_path, "tiles", 0)
    line = [*parts.first, *parts.second, *chain(*parts.days), *parts.slipping]
    tested = [one.path for one in parts.test]
    shown = parts_shown([*line, *tested])
    assert {shown[file] for file in line}.isdisjoint(shown[file] for file in tested)
    assert (len(parts.first), len(parts.second), len(parts.slipping)) == (100, 100, 60)
    assert [sum(one.defective is bad for one in parts.test) for bad in (False, True)] == [60, 60]
