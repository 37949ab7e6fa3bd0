from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspector.errors import TrainingError
from inspector.model.engine import Engine
from inspector.model.records import Architecture, Preprocessing
from training import exposure
from training.data import list_images, read_image
from training.fit import train
from training.options import TrainOptions

Part = Callable[[np.random.Generator], np.ndarray]  # (48, 48), light from 0 to 1


def bar(rng: np.random.Generator) -> np.ndarray:
    """A bright bar that moves a little."""
    part = rng.uniform(0.15, 0.2, (48, 48))
    at = int(rng.integers(8, 14))
    part[at : at + 20, 15:30] = rng.uniform(0.65, 0.7, (20, 15))
    return part


def in_any_light(rng: np.random.Generator) -> np.ndarray:
    return bar(rng) * rng.uniform(0.4, 1.3)


def shining(rng: np.random.Generator) -> np.ndarray:
    part = bar(rng)
    if rng.random() < 0.5:
        part[:8, :8] = 1
    return part


def more_or_less_of_it(rng: np.random.Generator) -> np.ndarray:
    part = rng.uniform(0.05, 0.1, (48, 48))
    part[: int(rng.integers(6, 40))] = 0.7
    return part


def folder(place: Path, part: Part, dtype: type = np.uint8, count: int = 16) -> list[Path]:
    rng, white = np.random.default_rng(0), np.iinfo(dtype).max
    for i in range(count):
        cv2.imwrite(str(place / f"{i:02}.png"), (part(rng) * white).astype(dtype))
    return list_images(place)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("part", "asked"),
    [(in_any_light, "even"), (bar, "as-is"), (shining, "as-is"), (more_or_less_of_it, "as-is")],
)
def test_only_other_light_is_evened(tmp_path: Path, part: Part, asked: str, dtype: type) -> None:
    images = folder(tmp_path, part, dtype)
    assert exposure.chosen(images, Preprocessing(size=32)) == asked


def test_it_is_the_light_in_the_roi_that_counts(tmp_path: Path) -> None:
    def beside_a_lamp(rng: np.random.Generator) -> np.ndarray:
        return np.hstack([0.2 * bar(rng), np.full((48, 48), rng.uniform(0.2, 1))])

    images = folder(tmp_path, beside_a_lamp)
    assert exposure.chosen(images, Preprocessing(size=32, roi=(0, 0, 48, 48))) == "as-is"
    assert exposure.chosen(images, Preprocessing(size=32)) == "even"


def test_one_frame_without_light_is_not_another_light(tmp_path: Path) -> None:
    images = folder(tmp_path, bar, count=40)
    cv2.imwrite(str(images[3]), np.zeros((48, 48), np.uint8))
    assert exposure.chosen(images, Preprocessing(size=32)) == "as-is"


def test_another_depth_is_not_another_light(tmp_path: Path) -> None:
    for dtype in (np.uint8, np.uint16):
        (tmp_path / dtype.__name__).mkdir()
    images = [
        file for dtype in (np.uint8, np.uint16) for file in folder(tmp_path / dtype.__name__, bar, dtype)
    ]
    assert exposure.chosen(images, Preprocessing(size=32)) == "as-is"


def test_black_pictures_have_no_light_to_even(tmp_path: Path) -> None:
    images = folder(tmp_path, lambda _: np.zeros((48, 48)))
    assert exposure.chosen(images, Preprocessing(size=32)) == "as-is"


@pytest.mark.parametrize(
    ("part", "asked", "found"),
    [
        (in_any_light, "auto", "even"),
        (bar, "auto", "as-is"),
        (bar, "even", "even"),
        (in_any_light, "as-is", "as-is"),
    ],
)
def test_training_asks_the_parts_unless_told(tmp_path: Path, part: Part, asked: str, found: str) -> None:
    images = folder(tmp_path, part)
    tiny = Architecture(size=32, patch=8, dim=16, depth=1, heads=2, slots=10)
    options = TrainOptions(architecture=tiny, epochs=1, exposure=asked, device="cpu", threads=1)
    bundle = train(images, tmp_path / "models", options, progress=False)
    assert bundle.preprocessing.exposure == found
    assert bundle.provenance["options"]["exposure"] == asked
    engine, image = Engine(bundle, "cpu", threads=1), read_image(images[0])
    darker = np.rint(image * 0.7).astype(np.uint8)
    bright, dark = engine.score(image).score, engine.score(darker).score
    if found == "even":
        assert dark == pytest.approx(bright, rel=0.05)
    else:
        assert dark != pytest.approx(bright, rel=0.05)


def test_what_a_method_asks_for_where_nobody_says() -> None:
    usual = {m: TrainOptions.of(method=m, preset="tiny").exposure for m in ("paper", "restore", "feature")}
    assert usual == {"paper": "as-is", "restore": "auto", "feature": "auto"}
    assert (
        TrainOptions.of(method="feature", preset="tiny", exposure="even").preprocessing().exposure == "even"
    )
    with pytest.raises(TrainingError, match="exposure is 'odd': expected one of auto, even, as-is"):
        TrainOptions(exposure="odd")
