from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from inspector.errors import TrainingError
from inspector.model.network import Network, Reconstruction
from inspector.model.records import Architecture, Preprocessing, Scoring
from training.data import Pictures, list_images
from training.trial import COPIES, DEFECTIVE, attempt, eight_bit

SIZE = 48


class Flat(Network):
    """Knows that a good part is grey: its error is the distance from that."""

    def __init__(self, error: float = 0.0) -> None:
        super().__init__(Architecture(size=SIZE, patch=8, dim=8, heads=1))
        self.error = torch.nn.Parameter(torch.tensor(error))

    def encode(self, x: Tensor) -> Tensor:
        return x

    def reconstruct(self, x: Tensor) -> Reconstruction:
        return Reconstruction(x, torch.zeros_like(x), None)

    def error_map(self, reconstruction: Reconstruction, scoring: Scoring) -> Tensor:
        return (reconstruction.target - reconstruction.output).abs().amax(dim=1) + self.error


def pictures(folder: Path, count: int, dtype: type = np.uint8) -> Pictures:
    folder.mkdir()
    for i in range(count):
        value = np.full((SIZE, SIZE), 127 + i % 3, np.uint8).astype(dtype)
        cv2.imwrite(str(folder / f"{i:03}.png"), value * 257 if dtype == np.uint16 else value)
    return Pictures(list_images(folder), Preprocessing(size=SIZE))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_perfect_model_separates_perfectly_and_a_blind_one_not(tmp_path: Path, dtype: type) -> None:
    some = pictures(tmp_path / "a", 6, dtype)
    trial = attempt(Flat(), some, range(6), Scoring(sigma=0), seed=0)
    found = trial.summary()
    assert found["image_auroc"] == 1
    assert found["pixel_auroc"] > 0.95
    assert (found["n_good"], found["n_defective"]) == (6, 6 * COPIES)
    assert set(found["image_auroc_by_kind"]) == set(trial.kinds)
    assert max(trial.good) < 0.02 < min(trial.bad)
    class_of_one = {"error_map": lambda self, r, s: torch.zeros(len(r.target), SIZE, SIZE)}
    blind = type("Blind", (Flat,), class_of_one)()
    assert attempt(blind, some, range(6), Scoring(sigma=0), seed=0).summary()["image_auroc"] == 0.5


def test_examples_are_what_was_scored(tmp_path: Path) -> None:
    some = pictures(tmp_path / "a", 3)
    trial = attempt(Flat(), some, [0, 2], Scoring(sigma=0), seed=0)
    assert [e.name for e in trial.good_parts] == ["000.png", "002.png"]
    assert [e.score for e in trial.bad_parts] == list(trial.bad[: len(trial.bad_parts)])
    for part in trial.bad_parts:
        assert part.mask is not None
        changed = (part.image.astype(int) != eight_bit(some[0 if "000" in part.name else 2])).any(axis=2)
        assert changed[part.mask].mean() > 0.5
        assert part.map.max() == part.score
        assert np.ptp(part.views["reconstruction"]) == 0  # grey, whatever came in
        assert part.views["reconstruction"][0, 0, 0] in (127, 128)


def test_the_same_seed_damages_alike_and_many_parts_are_not_all_damaged(tmp_path: Path) -> None:
    some = pictures(tmp_path / "a", DEFECTIVE // COPIES + 5)
    first, again, other = (attempt(Flat(), some, range(len(some)), Scoring(sigma=0), s) for s in (0, 0, 1))
    assert first.bad == again.bad != other.bad
    assert len(first.bad) == DEFECTIVE
    assert len(first.good) == len(some)


def test_a_broken_network_is_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"diverged: the map of 000\.png is not finite"):
        attempt(Flat(torch.nan), pictures(tmp_path / "a", 2), [0, 1], Scoring(sigma=0), seed=0)
