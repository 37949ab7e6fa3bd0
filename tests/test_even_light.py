import numpy as np

from tests.even_light import evened


def test_evened_pictures_have_the_mean_that_was_asked_for_and_keep_what_is_in_them() -> None:
    dark = np.random.default_rng(0).integers(40, 90, (32, 32, 3)).astype(np.uint8)
    light = evened(dark, 100.0)
    assert light.dtype == np.uint8
    assert abs(light.mean() - 100) < 0.5
    assert np.corrcoef(light.ravel(), dark.ravel())[0, 1] > 0.99
    deep = evened(dark.astype(np.uint16) * 200, 30_000.0)
    assert deep.dtype == np.uint16
    assert abs(deep.mean() - 30_000) < 100
    assert evened(np.full((4, 4), 250, np.uint8), 400.0).max() == 255
    assert evened(np.zeros((4, 4), np.uint8), 100.0).max() == 0
