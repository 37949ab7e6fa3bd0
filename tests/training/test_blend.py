from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from inspector.model.feature import FeatureAutoencoder
from inspector.model.network import build
from inspector.model.records import Architecture, Scoring
from training.blend import blended, separation
from training.data import Pictures, list_images
from training.options import TrainOptions

SCORING = Scoring(sigma=1.0)
ARCHITECTURE = Architecture(
    method="feature", backbone="test_efficientnet", size=64, dim=16, depth=1, slots=20, bank=8
)


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    image = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], (1, 64, 3))
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    return Pictures(list_images(tmp_path), TrainOptions(architecture=ARCHITECTURE).preprocessing())


def test_separation_is_the_auroc_and_margins_count() -> None:
    rng = torch.Generator().manual_seed(0)
    maps = torch.rand(40, 2, 8, 8, generator=rng)
    maps[20:, 0, 2, 2] += 1
    sees, blind = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert separation(maps, sees, 20, SCORING) > 0.95
    assert separation(maps, blind, 20, SCORING) < 0.7
    farther = maps.clone()
    farther[20:, 0, 2, 2] += 1
    assert separation(farther, sees, 20, SCORING) > separation(maps, sees, 20, SCORING)


def test_the_source_that_sees_the_damage_gets_the_weight(
    pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All sources are noise but one, which shows how far a picture is from the normal one."""
    network = build(ARCHITECTURE).eval()
    assert isinstance(network, FeatureAutoencoder)
    noise = torch.Generator().manual_seed(0)
    normal = pictures.batch([0], torch.device("cpu"))

    def maps(_: FeatureAutoencoder, x: torch.Tensor) -> torch.Tensor:
        found = 3 * torch.rand(1, 6, 96, 96, generator=noise)
        found[:, 4] = torch.nn.functional.interpolate(x - normal, (96, 96)).abs().amax(dim=1)
        return found

    monkeypatch.setattr("training.blend._maps", maps)
    weight = blended(network, pictures, range(4), SCORING, seed=0)
    assert weight.argmax() == 4
    assert weight.sum() == pytest.approx(1)


def test_weights_are_shares_and_repeat_with_the_seed(pictures: Pictures) -> None:
    torch.manual_seed(0)
    network = build(ARCHITECTURE).eval()
    assert isinstance(network, FeatureAutoencoder)
    first, again = (blended(network, pictures, range(4), SCORING, seed=3) for _ in range(2))
    assert torch.equal(first, again)
    assert first.sum() == pytest.approx(1)
    assert (first >= 0).all()
