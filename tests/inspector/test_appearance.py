"""Light and lens, measured on pictures."""

import cv2
import numpy as np
import pytest

from inspector.appearance import measure
from inspector.drift import distance, least


def picture(size=300):
    noise = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    return np.clip(128 + 400 * cv2.GaussianBlur(noise, (0, 0), 2), 0, 255).astype(np.uint8)


def test_less_light_is_less_bright_and_as_sharp():
    image = picture()
    bright, dim = measure(image, None), measure((image * 0.85).astype(np.uint8), None)
    assert bright.brightness == pytest.approx(image.mean() / 255, rel=0.01)
    assert dim.brightness == pytest.approx(0.85 * bright.brightness, rel=0.01)
    assert dim.sharpness == pytest.approx(bright.sharpness, rel=0.03)
    assert dim.highlight == pytest.approx(0.85 * bright.highlight, rel=0.01)


def test_the_highlight_is_that_of_what_shines_and_not_of_a_single_speck():
    dull = np.full((256, 256), 60, np.uint8)
    dull[:4, :40] = 200
    speck = dull.copy()
    speck[128, 128:130] = 255
    assert measure(dull, None).highlight == pytest.approx(200 / 255)
    assert measure(speck, None).highlight == pytest.approx(200 / 255)


def test_less_light_moves_the_highlight_of_parts_whose_own_grey_hides_it_from_the_mean():
    generator = np.random.default_rng(0)
    seen = {factor: [] for factor in (1.0, 0.85)}
    for factor, measures in seen.items():
        for grey in generator.uniform(40, 200, 100):  # the parts differ; the edge that shines is alike on all
            part = np.full((256, 256), grey) + generator.normal(0, 5, (256, 256))
            part[:8] = generator.normal(235, 3, (8, 256))
            measures.append(measure(np.clip(factor * part, 0, 255).astype(np.uint8), None))
    before, after = (np.array([(one.brightness, one.highlight) for one in seen[f]]) for f in seen)
    found = [distance(np.sort(before[:, k]), np.sort(after[:, k])) for k in (0, 1)]
    needed = least(1, 100, 100)
    assert found[0] < needed < found[1]


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
