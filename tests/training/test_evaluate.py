"""Masks and maps at the size they are compared at, and a whole test set through a real engine."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from inspector.errors import DataError
from inspector.model import bundle as bundles
from inspector.model.engine import Engine
from inspector.model.network import build
from inspector.model.records import Architecture, Preprocessing, Scoring
from training import evaluate as module
from training.datasets import Sample
from training.evaluate import cropped, evaluate, resized, sample_mask, shrunk


def test_a_mask_keeps_its_area():
    mask = np.zeros((384, 384), bool)
    mask[60:180, 90:240] = True
    small = shrunk(mask, 256)
    assert small.shape == (256, 256)
    assert small.mean() == pytest.approx(mask.mean(), rel=0.01)
    assert small[40:120, 60:160].all()


@pytest.mark.parametrize("shape", [(1024, 1024), (384, 384), (400, 105), (105, 400), (100, 90)])
def test_no_defect_vanishes(shape):
    mask = np.zeros(shape, bool)
    mask[3, 5] = True
    mask[60:62, 30:60] = True
    small = shrunk(mask, 256)
    count, _ = cv2.connectedComponents(small.astype(np.uint8), connectivity=8)
    assert count == 3
    y, x = np.argwhere(small).min(axis=0)
    assert (y / 256, x / 256) == pytest.approx((3 / shape[0], 5 / shape[1]), abs=0.02)


def test_maps_are_resized_without_new_extremes():
    score_map = np.random.default_rng(0).random((384, 384)).astype(np.float32)
    for size in (128, 256, 512):
        small = resized(score_map, size)
        assert small.shape == (size, size)
        assert small.mean() == pytest.approx(score_map.mean(), abs=1e-3)
        assert score_map.min() <= small.min() <= small.max() <= score_map.max()


def test_a_mask_is_cut_like_the_image(tmp_path):
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 30:50] = 255
    cv2.imwrite(str(tmp_path / "m.png"), mask)
    sample = Sample(tmp_path / "i.png", "dent", tmp_path / "m.png")
    cut = sample_mask(sample, (40, 60), (30, 5, 20, 15))
    assert cut.shape == (15, 20)
    assert cut[5:].all()
    assert not cut[:5].any()
    assert sample_mask(sample, (80, 120), None).sum() == 4 * 200  # a mask at half the camera's resolution
    assert cropped(mask, None) is mask


def test_a_mask_of_another_shape_belongs_to_another_image(tmp_path):
    cv2.imwrite(str(tmp_path / "m.png"), np.zeros((40, 60), np.uint8))
    sample = Sample(tmp_path / "i.png", "dent", tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m\.png is 60 × 40 and .*i\.png 40 × 60: expected the mask"):
        sample_mask(sample, (60, 40), None)


@pytest.fixture
def engine(tmp_path):
    architecture = Architecture(size=32, patch=8, dim=16, depth=1, heads=2, slots=8)
    bundle = bundles.write(
        tmp_path / "models",
        build(architecture).state_dict(),
        architecture,
        Preprocessing(size=32),
        Scoring(sigma=1.0),
        provenance={},
    )
    return Engine(bundle, "cpu")


@pytest.fixture
def samples(tmp_path):
    generator = np.random.default_rng(0)
    found = []
    for k in range(6):
        image, mask = generator.integers(90, 110, (40, 40), np.uint8), np.zeros((40, 40), np.uint8)
        defective = k >= 3
        if defective:
            image[5:20, 5:20] = 255
        if k > 3:  # the mask of sample 3 is empty
            mask[5:20, 5:20] = 255
        cv2.imwrite(str(tmp_path / f"{k}.png"), image)
        cv2.imwrite(str(tmp_path / f"{k}_mask.png"), mask)
        path = tmp_path / f"{k}.png"
        found.append(Sample(path, "dent", tmp_path / f"{k}_mask.png") if defective else Sample(path, None))
    return found


def test_a_test_set_is_scored_as_on_the_line(engine, samples):
    evaluation = evaluate(engine, samples, progress=False)
    assert evaluation.labels.tolist() == [False] * 3 + [True] * 3
    image = cv2.imread(str(samples[4].path), cv2.IMREAD_GRAYSCALE)
    assert evaluation.scores[4] == pytest.approx(engine.score(image).score)
    assert evaluation.brightness[4] == image.mean()
    assert (evaluation.milliseconds > 0).all()


def test_defective_parts_without_a_mask_stay_out_of_the_pixel_metrics(engine, samples):
    evaluation = evaluate(engine, samples, progress=False)
    assert evaluation.without_mask == (samples[3].path,)
    assert len(evaluation.scores) == 6
    assert evaluation.pixels.regions == 2
    without = evaluate(engine, samples[:3] + samples[4:], progress=False)
    assert evaluation.pixels.pro() == without.pixels.pro()
    assert evaluation.pixels.auroc() == without.pixels.auroc()


def test_a_perfect_map_is_measured_as_perfect(samples):
    class Oracle:
        """Answers with the mask itself: what is left are the errors of the measurement."""

        def __init__(self):
            self.waiting = iter(samples)

        def warm_up(self):
            pass

        def score(self, image):
            sample = next(self.waiting)
            mask = np.zeros(image.shape[:2], np.float32)
            if sample.defective:
                mask[5:20, 5:20] = 1
            fine = cv2.resize(mask, (384, 384), interpolation=cv2.INTER_AREA)
            return SimpleNamespace(score=float(fine.max()), map=fine, stages={"model": 1.0})

    evaluation = evaluate(Oracle(), samples, progress=False)
    assert evaluation.pixels.auroc() > 0.999
    assert evaluation.pixels.pro() > 0.999
    assert module.SIZE == 256
