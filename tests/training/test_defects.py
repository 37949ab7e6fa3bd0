import cv2
import numpy as np
import pytest

from inspector.errors import TrainingError
from training import shapes
from training.defects import KINDS, VISIBLE, Defective, damage, foreground


def part(side: int = 96, seed: int = 0) -> np.ndarray:
    """A grained disc before a plain background, in colours."""
    rng = np.random.default_rng(seed)
    ys, xs = np.ogrid[:side, :side]
    disc = (ys - side / 2) ** 2 + (xs - side / 2) ** 2 < (0.3 * side) ** 2
    image = np.where(disc[..., None], np.array([150, 90, 60]), np.array([30, 30, 35])).astype(float)
    image += rng.normal(0, 2, image.shape) + disc[..., None] * 20 * np.sin(xs / side * 40)[..., None]
    return np.asarray(np.clip(image, 0, 255), np.uint8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_every_kind_changes_what_its_mask_says(kind: str, seed: int) -> None:
    image = part(seed=seed)
    before = image.copy()
    result = damage(image, np.random.default_rng(seed), donor=part(seed=9), kinds=[kind])
    assert np.array_equal(image, before), "the normal part was written to"
    assert result.image.dtype == np.uint8
    assert result.image.shape == image.shape
    assert result.mask.dtype == np.bool_
    assert result.mask.shape == image.shape[:2]
    assert result.mask.any()
    change = np.abs(result.image.astype(int) - image).max(axis=2)
    assert change[result.mask].mean() > VISIBLE
    assert (change > 40)[~result.mask].mean() < 0.01


def test_the_same_generator_gives_the_same_defect() -> None:
    def drawn(seed: int) -> list[Defective]:
        rng = np.random.default_rng(seed)
        return [damage(part(), rng, donor=part(seed=1)) for _ in range(10)]

    again = zip(drawn(3), drawn(3), strict=True)
    assert all(np.array_equal(a.image, b.image) and np.array_equal(a.mask, b.mask) for a, b in again)
    other = zip(drawn(3), drawn(4), strict=True)
    assert not all(np.array_equal(a.image, b.image) for a, b in other)


def test_where_the_memory_lies_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vector instructions may round the ends of an array otherwise where it begins elsewhere."""
    sobel = cv2.Sobel
    rng = np.random.default_rng(0)
    images = [rng.integers(90, 160, (301, 97 + k, 3)).astype(np.uint8) for k in range(40)]

    def drawn(offset: int) -> list[bytes]:
        def elsewhere(*args: object) -> np.ndarray:
            slope = sobel(*args)
            room = np.empty(slope.size + offset, slope.dtype)
            room[offset:] = slope.ravel()
            return room[offset:].reshape(slope.shape)

        monkeypatch.setattr(cv2, "Sobel", elsewhere)
        return [damage(image, np.random.default_rng(3), kinds=["missing"]).mask.tobytes() for image in images]

    assert drawn(0) == drawn(1) == drawn(3)


def test_all_kinds_are_drawn() -> None:
    rng = np.random.default_rng(0)
    assert {damage(part(), rng).kind for _ in range(60)} == set(KINDS)


@pytest.mark.parametrize("shape", [(32, 32), (64, 200), (301, 97)])
def test_any_shape(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(90, 160, (*shape, 3)).astype(np.uint8)
    for kind in KINDS:
        for _ in range(5):
            result = damage(image, rng, donor=part(), kinds=[kind])
            assert result.image.shape == image.shape
            assert result.mask.any()


def test_sizes_follow_the_resolution() -> None:
    def share(side: int) -> float:
        rng = np.random.default_rng(1)
        return float(np.mean([damage(part(side), rng, kinds=["stained"]).mask.mean() for _ in range(60)]))

    assert share(256) == pytest.approx(share(128), rel=0.5)


def test_a_grey_part_stays_grey() -> None:
    grey = np.repeat(part()[..., :1], 3, axis=2)
    rng = np.random.default_rng(0)
    for kind in KINDS:
        for _ in range(8):
            image = damage(grey, rng, donor=grey[::-1].copy(), kinds=[kind]).image
            assert np.ptp(image.astype(int), axis=2).max() <= 2, kind


def test_defects_lie_in_the_region() -> None:
    region = np.zeros((96, 96), np.bool_)
    region[10:20, 10:20] = True
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = damage(part(), rng, region=region, kinds=["stained"]).mask
        rows, columns = np.nonzero(mask)
        assert rows.min() < 25
        assert columns.min() < 25


def test_even_flat_black_and_flat_white_parts_get_a_defect() -> None:
    for level in (0, 255):
        flat = np.full((48, 48, 3), level, np.uint8)
        rng = np.random.default_rng(0)
        for kind in KINDS:
            assert damage(flat, rng, kinds=[kind]).mask.any(), (level, kind)


def test_foreground_finds_the_disc_and_gives_up_on_texture() -> None:
    image = part()
    ys, xs = np.ogrid[:96, :96]
    disc = (ys - 48) ** 2 + (xs - 48) ** 2 < (0.3 * 96) ** 2
    found = foreground(image)
    assert (found & disc).sum() / (found | disc).sum() > 0.8
    texture = np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8)
    assert foreground(texture).all()


def test_wrong_images_and_kinds_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(TrainingError, match=r"got \(96, 96\) of uint8"):
        damage(part()[..., 0], rng)
    with pytest.raises(TrainingError, match="float64"):
        damage(part().astype(float), rng)
    with pytest.raises(TrainingError, match="at least 32 pixels"):
        damage(part()[:20], rng)
    with pytest.raises(TrainingError, match=r"\['rust'\]: choose from pasted"):
        damage(part(), rng, kinds=["rust"])
    with pytest.raises(TrainingError, match="choose from"):
        damage(part(), rng, kinds=[])


def test_perlin_noise_is_smooth_centred_and_spread() -> None:
    noise = shapes.perlin((128, 96), 8, np.random.default_rng(0))
    assert noise.shape == (128, 96)
    assert abs(float(noise.mean())) < 0.15
    assert 0.4 < float(np.abs(noise).max()) <= 1.5
    assert float(np.abs(np.diff(noise, axis=0)).max()) < 0.3


def test_a_stroke_begins_where_it_is_told() -> None:
    for seed in range(5):
        line = shapes.stroke((100, 100), (50.0, 50.0), 30.0, 3.0, np.random.default_rng(seed))
        assert line[48:53, 48:53].max() > 0.9
        rows, columns = np.nonzero(line)
        assert np.hypot(rows - 50, columns - 50).max() < 34
