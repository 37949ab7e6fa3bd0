from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from inspector.model.feature import FeatureAutoencoder
from inspector.model.network import build
from inspector.model.records import Architecture, Scoring
from training.blend import PRIOR, TAUGHT, beside_the_taught, blended, discriminant, separation
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


@pytest.fixture
def network() -> FeatureAutoencoder:
    torch.manual_seed(0)
    found = build(ARCHITECTURE).eval()
    assert isinstance(found, FeatureAutoencoder)
    return found


def test_separation_is_the_auroc_and_margins_count() -> None:
    scores = torch.rand(40, generator=torch.Generator().manual_seed(0))
    assert separation(scores, 20) < 0.7
    farther = scores + torch.cat([torch.zeros(20), torch.ones(20)])
    assert 0.9 < separation(farther, 20) < separation(farther + farther, 20) + 1e-9
    assert separation(farther, 20) < separation(farther + 2 * (farther > 1), 20)


def test_the_source_that_sees_the_damage_gets_the_weight(
    network: FeatureAutoencoder, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All sources are noise but one, which shows how far a picture is from the normal one."""
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


@pytest.mark.parametrize("others", [0.9, 0.0])
def test_only_a_difference_beyond_chance_departs_from_the_discriminant(
    network: FeatureAutoencoder, pictures: Pictures, monkeypatch: pytest.MonkeyPatch, others: float
) -> None:
    """One source sees the damage beside its noise; the others see it nearly as well, or are noise alone."""
    noise = torch.Generator().manual_seed(1)
    normal = pictures.batch([0], torch.device("cpu"))

    def maps(_: FeatureAutoencoder, x: torch.Tensor) -> torch.Tensor:
        damaged = float((x - normal).abs().max() > 0)
        seen = torch.full((1, 6, 1, 1), others)
        seen[:, 4] = 1
        return (torch.rand(1, 6, 1, 1, generator=noise) + damaged * seen).expand(1, 6, 96, 96)

    start = torch.tensor([0.1, 0.1, 0.2, 0.2, 0.2, 0.2])
    monkeypatch.setattr("training.blend._maps", maps)
    monkeypatch.setattr("training.blend.discriminant", lambda *_: start)
    weight = blended(network, pictures, [*range(4)] * 3, SCORING, seed=0)
    assert torch.allclose(weight, start) == (others > 0)


def test_what_was_taught_counts_as_much_as_the_rest_does_on_good_parts(
    network: FeatureAutoencoder, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However well it tells what it was taught; and of the rest each as the discriminant says."""
    noise = torch.Generator().manual_seed(2)
    normal = pictures.batch([0], torch.device("cpu"))
    shift = torch.tensor([99.0, 1.0, 0.0, 2.0, 0.0, 0.0]).view(1, 6, 1, 1)
    scale = torch.tensor([10.0, 1.0, 1.0, 1.0, 1.0, 1.0]).view(1, 6, 1, 1)

    def maps(_: FeatureAutoencoder, x: torch.Tensor) -> torch.Tensor:
        damaged = float((x - normal).abs().max() > 0)
        return (torch.rand(1, 6, 1, 1, generator=noise) * scale + damaged * shift).expand(1, 6, 96, 96)

    monkeypatch.setattr("training.blend._maps", maps)
    monkeypatch.setattr("training.blend.discriminant", lambda *_: torch.tensor([0.4, 0.0, 0.6, 0.0, 0.0]))
    weight = beside_the_taught(network, pictures, [0] * 60, SCORING, seed=0)
    assert weight.sum() == pytest.approx(1)
    assert weight[[2, 4, 5]].abs().max() == 0
    assert weight[3] / weight[1] == pytest.approx(1.5)
    together = (0.4**2 + 0.6**2) ** 0.5  # deviation of their mean, in that of one
    assert weight[0] * 10 / (weight[1:].sum() * together) == pytest.approx(TAUGHT, rel=0.3)


def levels(values: list[list[float]]) -> torch.Tensor:
    """Maps (parts, errors, 8, 8), each of one value: (errors, parts)."""
    return torch.tensor(values, dtype=torch.float32).T[:, :, None, None].expand(-1, -1, 8, 8)


def test_an_error_counts_by_how_far_damage_moves_it_over_how_much_good_parts_do() -> None:
    good = levels([[-1, 1, -1, 1], [-2, 2, -2, 2], [-1, 1, -1, 1]])
    bad = levels([[3, 3, 9], [3, 3, 9], [6, 6, 99]])  # and not by how far a few are moved
    variance = (4 * torch.tensor([1.0, 4.0, 1.0]) + PRIOR * 2) / (4 + PRIOR)
    expected = torch.tensor([4.0, 5.0, 7.0]) / variance
    assert torch.allclose(discriminant(good, bad, SCORING), expected / expected.sum())


def test_an_error_that_damage_does_not_move_has_no_weight() -> None:
    good, bad = levels([[0, 1, 2], [0, 1, 2]]), levels([[5, 5, 5], [0, 0, 0]])
    assert torch.equal(discriminant(good, bad, SCORING), torch.tensor([1.0, 0.0]))


def test_errors_count_alike_where_damage_moves_none() -> None:
    maps = torch.ones(2, 5, 8, 8)
    assert torch.allclose(discriminant(maps, maps, SCORING), torch.full((5,), 0.2))


def test_weights_are_shares_and_repeat_with_the_seed(network: FeatureAutoencoder, pictures: Pictures) -> None:
    first, again = (blended(network, pictures, range(4), SCORING, seed=3) for _ in range(2))
    assert torch.equal(first, again)
    assert first.sum() == pytest.approx(1)
    assert (first >= 0).all()
