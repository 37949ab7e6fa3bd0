from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from training.data import Pictures, list_images
from training.options import TrainOptions
from training.variants import COPIES, Variants


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    for i in range(3):
        image = np.zeros((128, 128, 3), np.uint8)
        image[:40, :20] = 60 * (i + 1)  # in a corner: mirrored, it lies elsewhere
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    return Pictures(list_images(tmp_path), TrainOptions.of(method="paper", preset="tiny").preprocessing())


def test_without_symmetries_there_are_the_pictures_alone(pictures: Pictures) -> None:
    variants = Variants(pictures, (), seed=0)
    assert len(variants) == 3
    assert variants.of([0, 2]) == [0, 2]
    assert variants.drawn([2, 1], np.random.default_rng(0)) == [2, 1]
    cpu = torch.device("cpu")
    assert torch.equal(variants.batch([1], cpu), pictures.batch([1], cpu))


def test_a_round_shows_every_part_again_as_it_may_lie(pictures: Pictures) -> None:
    variants = Variants(pictures, ("flip-x",), seed=0)
    assert len(variants) == 3 * (1 + COPIES)
    mirrored = 0
    for index in range(len(variants)):
        image, part = variants[index], pictures[index % 3]
        turned = np.array_equal(image, part[:, ::-1])
        assert turned or np.array_equal(image, part)
        mirrored += turned
        assert np.array_equal(image, variants[index])  # the same each time
    assert 0 < mirrored <= 3 * COPIES


def test_indices_of_parts_in_all_rounds(pictures: Pictures) -> None:
    variants = Variants(pictures, ("turn-90",), seed=0)
    assert variants.of([1]) == [1, 4, 7]
    drawn = variants.drawn([0, 1, 2] * 20, np.random.default_rng(0))
    assert [i % 3 for i in drawn] == [0, 1, 2] * 20
    assert {i // 3 for i in drawn} == {0, 1, 2}
