from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inspector.errors import ModelError
from inspector.model.preprocess import picture, tensor
from inspector.model.records import Preprocessing

CPU = torch.device("cpu")


def test_shrinking_averages_areas() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    want = image.reshape(16, 4, 16, 6, 3).mean(axis=(1, 3))
    got = picture(image, Preprocessing(size=16))
    assert got.dtype == np.uint8
    assert np.abs(got - want).max() <= 0.51


def test_an_axis_that_shrinks_is_averaged_even_where_the_other_grows() -> None:
    image = np.zeros((16, 256), np.uint8)
    image[:, ::2] = 200  # stripes of one pixel
    assert np.abs(picture(image, Preprocessing(size=32)).astype(int) - 100).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_roi_is_cut_out_in_source_pixels(dtype: type) -> None:
    image: NDArray[Any] = np.zeros((40, 50), dtype)
    image[10:20, 5:25] = np.iinfo(dtype).max
    small = picture(image, Preprocessing(size=8, roi=(5, 10, 20, 10)))
    assert small.shape == (8, 8)
    assert (small == np.iinfo(dtype).max).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_black_and_white_become_minus_one_and_one(dtype: type) -> None:
    image: NDArray[Any] = np.array([[0, np.iinfo(dtype).max]], dtype)
    x = tensor(image, Preprocessing(size=2), CPU)
    assert x.shape == (1, 3, 1, 2)
    assert x.dtype == torch.float32
    assert x[0, :, 0].tolist() == [[-1, 1]] * 3


def test_channels_stay_in_rgb_order_and_are_normalised_each() -> None:
    image = np.full((4, 4, 3), (255, 0, 51), np.uint8)
    pre = Preprocessing(size=4, mean=(0.5, 0.1, 0.2), std=(0.5, 0.2, 1.0))
    x = tensor(image, pre, CPU)
    torch.testing.assert_close(x[0, :, 2, 2], torch.tensor([1.0, -0.5, 0.0]))


def test_a_cut_out_view_is_not_changed() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.uint8)
    before = image.copy()
    tensor(picture(image[::2, ::2], Preprocessing(size=4)), Preprocessing(size=4), CPU).add_(1)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (np.zeros((4, 4), np.float32), "dtype float32"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\)"),
        (np.zeros((0, 4), np.uint8), r"shape \(0, 4\)"),
        (np.zeros((9, 10), np.uint8), r"roi \(2, 0, 8, 10\).*10 x 9 pixels"),
    ],
)
def test_other_pictures_are_refused(image: np.ndarray, word: str) -> None:
    with pytest.raises(ModelError, match=word):
        picture(image, Preprocessing(size=4, roi=(2, 0, 8, 10)))


@pytest.mark.parametrize("change", [{"size": 0}, {"roi": (-1, 0, 5, 5)}, {"roi": (0, 0, 0, 5)}])
def test_impossible_settings_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=r"preprocessing\."):
        Preprocessing(**change)  # type: ignore[arg-type]
