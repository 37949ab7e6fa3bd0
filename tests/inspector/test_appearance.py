"""Light and lens, measured on pictures."""

import cv2
import numpy as np
import pytest

from inspector.appearance import measure


def picture(size=300):
    noise = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    return np.clip(128 + 400 * cv2.GaussianBlur(noise, (0, 0), 2), 0, 255).astype(np.uint8)


def test_less_light_is_less_bright_and_as_sharp():
    image = picture()
    bright, dim = measure(image, None), measure((image * 0.85).astype(np.uint8), None)
    assert bright.brightness == pytest.approx(image.mean() / 255, rel=0.01)
    assert dim.brightness == pytest.approx(0.85 * bright.brightness, rel=0.01)
    assert dim.sharpness == pytest.approx(bright.sharpness, rel=0.03)


def test_a_smeared_lens_is_as_bright_and_less_sharp():
    image = picture()
    sharp, smeared = measure(image, None), measure(cv2.GaussianBlur(image, (0, 0), 2), None)
    assert smeared.brightness == pytest.approx(sharp.brightness, rel=0.01)
    assert smeared.sharpness < 0.5 * sharp.sharpness


def test_depth_and_colour_make_no_difference():
    image = picture()
    grey = measure(image, None)
    deep = measure(image.astype(np.uint16) * 257, None)
    colour = measure(np.dstack([image] * 3), None)
    assert deep.brightness == pytest.approx(grey.brightness, rel=0.01)
    assert (colour.brightness, colour.sharpness) == pytest.approx((grey.brightness, grey.sharpness), rel=0.01)


def test_the_region_alone_counts_and_black_is_no_error():
    image = picture()
    image[:, 150:] = 0
    assert measure(image, (150, 0, 100, 100)) == measure(np.zeros((10, 10), np.uint8), None)
    assert measure(image, (0, 0, 150, 300)).brightness > 1.9 * measure(image, None).brightness
