from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspector.demo.parts import DEFECTS, draw, read_truth, write_set
from inspector.errors import DataError

SIZE = 192


def _draw(seed: int, defect: str | None = None, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    return draw(np.random.default_rng(seed), size, defect)


def test_a_good_part_is_a_picture_with_no_defect() -> None:
    picture, mask = _draw(0)
    assert picture.shape == (SIZE, SIZE, 3)
    assert picture.dtype == np.uint8
    assert mask.shape == (SIZE, SIZE)
    assert mask.dtype == bool
    assert not mask.any()
    bright = picture.mean(2) > 110
    assert 0.35 < bright.mean() < 0.6  # the flange, less its holes, on a dark belt
    assert not bright[SIZE // 2, SIZE // 2]  # the bore


@pytest.mark.parametrize("defect", [None, *DEFECTS])
def test_the_seed_alone_decides_what_is_drawn(defect: str | None) -> None:
    first, mask = _draw(3, defect)
    again, same_mask = _draw(3, defect)
    other, _ = _draw(4, defect)
    assert np.array_equal(first, again)
    assert np.array_equal(mask, same_mask)
    assert not np.array_equal(first, other)


def test_one_generator_draws_a_different_part_every_time() -> None:
    generator = np.random.default_rng(0)
    assert not np.array_equal(draw(generator, 64)[0], draw(generator, 64)[0])


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("seed", range(4))
def test_a_defect_is_seen_where_its_mask_says_and_nowhere_else(defect: str, seed: int) -> None:
    good, _ = _draw(seed)
    bad, mask = _draw(seed, defect)
    change = np.abs(bad.astype(int) - good).max(2)
    assert 8 <= mask.sum() < 0.05 * mask.size
    assert np.percentile(change[mask], 90) > 15
    far = cv2.dilate(mask.astype(np.uint8), np.ones((25, 25), np.uint8)) == 0  # a chip moves its shadow too
    assert change[far].max() <= 2


def test_a_set_hides_the_truth_from_its_file_names(tmp_path: Path) -> None:
    ticks: list[None] = []
    parts = write_set(tmp_path / "line", good=9, bad=10, seed=5, size=64, progress=lambda: ticks.append(None))
    assert len(ticks) == len(parts) == 19
    assert [part.path.name for part in parts] == [f"part-{i:04d}.png" for i in range(19)]
    truth = read_truth(tmp_path / "line")
    assert truth == {part.path.name: part.defect for part in parts}
    assert json.loads((tmp_path / "line" / "truth.json").read_text()) == truth
    assert set(truth.values()) == {None, *DEFECTS}
    assert list(truth.values()).count(None) == 9
    kinds = list(truth.values())
    assert any(kinds[i] is None for i in range(10)), "good and bad parts are mixed"
    assert any(kinds[i] is not None for i in range(9))


def test_pictures_are_stored_without_loss_and_drawn_again_from_the_seed(tmp_path: Path) -> None:
    first = write_set(tmp_path / "a", good=2, seed=1, size=64)
    again = write_set(tmp_path / "b", good=2, seed=1, size=64)
    other = write_set(tmp_path / "c", good=2, seed=2, size=64)
    assert [p.path.read_bytes() for p in first] == [p.path.read_bytes() for p in again]
    assert first[0].path.read_bytes() != other[0].path.read_bytes()
    stored = cv2.imread(str(first[0].path), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert np.array_equal(stored, draw(np.random.default_rng((1, 0)), 64)[0])


def test_an_unknown_defect_is_refused() -> None:
    with pytest.raises(DataError, match=r"'rust'.*expected one of .*scratch"):
        draw(np.random.default_rng(0), 64, "rust")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/line: parts cannot be written"):
        write_set(tmp_path / "file" / "line", good=1, size=64)
