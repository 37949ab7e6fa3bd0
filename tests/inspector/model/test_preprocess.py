from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inspector.errors import ModelError
from inspector.model.preprocess import HIGHLIGHTS, evened, picture, tensor
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


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_in_even_light_the_exposure_does_not_show(dtype: type, channels: tuple[int, ...]) -> None:
    white = int(np.iinfo(dtype).max)
    scene = np.random.default_rng(0).uniform(0.1, 0.9, (64, 48, *channels))
    scene *= (1, 0.8, 0.5) if channels else 1
    short, long = (evened((scene * share * white).astype(dtype)) for share in (0.3, 0.9))
    assert short.dtype == dtype
    assert short.shape == scene.shape
    assert np.abs(short.astype(float) - long).max() <= 0.02 * white  # a grey level of the short one
    assert (short == white).mean() == pytest.approx(HIGHLIGHTS, abs=0.015)
    # what is not white keeps its ratios, and with them its colour
    dim = long < white
    level = np.quantile(scene, 1 - HIGHLIGHTS)
    np.testing.assert_allclose(long[dim] / white, scene[dim] / level, atol=0.02)


def test_even_light_needs_light() -> None:
    black = np.zeros((32, 32), np.uint8)
    assert not evened(black).any()
    noise = np.random.default_rng(0).integers(0, 3, (32, 32)).astype(np.uint8)
    assert evened(noise).max() <= 102  # 2 of 5.1
    white = np.full((32, 32), 255, np.uint8)
    np.testing.assert_array_equal(evened(white), white)


def test_exposure_is_as_it_is_unless_asked() -> None:
    dark = np.full((8, 8), 100, np.uint8)
    assert (picture(dark, Preprocessing(size=4)) == 100).all()
    assert (picture(dark, Preprocessing(size=4, exposure="even")) == 255).all()


def test_light_outside_the_roi_does_not_count() -> None:
    image = np.full((8, 8), 50, np.uint8)
    image[:, 4:] = 255
    assert (picture(image, Preprocessing(size=4, roi=(0, 0, 4, 8), exposure="even")) == 255).all()


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


@pytest.mark.parametrize(
    "change", [{"size": 0}, {"exposure": "odd"}, {"roi": (-1, 0, 5, 5)}, {"roi": (0, 0, 0, 5)}]
)
def test_impossible_settings_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=r"preprocessing\."):
        Preprocessing(**change)  # type: ignore[arg-type]
