"""Painted damage: marked where it is seen, the same for the same chance, in every way a part may lie."""

import numpy as np
import pytest

from training.painting import Image, displaced, lying, painted, smeared


def part(seed: int = 0) -> Image:
    rng = np.random.default_rng(seed)
    image = rng.integers(30, 40, (96, 96, 3)).astype(np.uint8)
    image[30:66, 36:60] = rng.integers(170, 200, (36, 24, 3))
    return image


WINDOWS = [(slice(8, 72), slice(0, 64)), (slice(32, 96), slice(24, 88))]
REGION = part()[..., 0] > 100


def test_what_is_marked_is_what_changed() -> None:
    rng, damaged = np.random.default_rng(0), 0
    for _ in range(60):
        p = painted(part(), part(1), REGION, WINDOWS, rng)
        change = np.abs(p.damaged.astype(int) - p.normal).max(axis=2)
        assert p.normal.shape == p.damaged.shape == (96, 96, 3)
        assert p.mask.dtype == np.bool_
        assert p.mask.any() == (change.max() > 12) or change.max() < 40
        assert (change[~p.mask] > 60).mean() < 0.01
        damaged += bool(p.mask.any())
    assert 30 < damaged < 60


def test_the_same_chance_paints_the_same() -> None:
    a, b = (painted(part(), part(1), REGION, WINDOWS, np.random.default_rng(4)) for _ in range(2))
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("paint", [displaced, smeared])
def test_a_large_region_is_marked_where_it_shows(paint) -> None:  # type: ignore[no-untyped-def]
    rng, shown = np.random.default_rng(0), 0
    for _ in range(30):
        bad, mask = paint(part(), part(1) if paint is displaced else REGION, rng)
        difference = np.abs(bad.astype(int) - part()).max(axis=2)
        assert bad.shape == part().shape
        if (difference > 60).any():
            assert mask[difference > 60].mean() > 0.8
        shown += bool(mask.any())
    assert shown > 10


def test_a_part_keeps_its_region_however_it_lies() -> None:
    rng = np.random.default_rng(0)
    image, region = lying(part(), REGION, (), rng)
    assert np.array_equal(image, part())
    seen = set()
    for _ in range(20):
        image, region = lying(part(), REGION, ("flip-x", "flip-y", "turn-90"), rng)
        assert np.array_equal(image[..., 0] > 100, region)
        seen.add(image.tobytes())
    assert len(seen) > 4
    image, region = lying(part(), REGION, ("turn",), rng)
    assert region.dtype == np.bool_
    assert ((image[..., 0] > 105) == region).mean() > 0.95
