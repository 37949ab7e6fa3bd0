"""Metrics against scikit-learn, and PRO against a computation that follows its definition pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from training import metrics
from training.metrics import PixelCurves


def scored(seed, n=200, decimals=None):
    generator = np.random.default_rng(seed)
    labels = generator.random(n) < 0.4
    scores = generator.normal(size=n) + labels
    return labels, scores if decimals is None else scores.round(decimals)


def category(seed, sizes, decimals=None):
    """Maps with smooth blobs of defects, about as well separated as a middling method's."""
    generator = np.random.default_rng(seed)
    maps, masks = [], []
    for size in sizes:
        mask = ndimage.gaussian_filter(generator.normal(size=size), 2) > 0.25
        value = generator.gamma(2, size=size) + ndimage.gaussian_filter(mask * 3.0, 1)
        maps.append((value if decimals is None else value.round(decimals)).astype(np.float32))
        masks.append(mask if len(masks) % 3 else np.zeros(size, bool))
    return maps, masks


def curves(maps, masks, **options):
    result = PixelCurves(**options)
    for value, mask in zip(maps, masks, strict=True):
        result.add(value, mask if mask.any() else None)
    return result


def brute_force_pro(maps, masks, limit):
    """Overlap of every region and the false-positive rate at every distinct value, one after the other."""
    regions = []
    for value, mask in zip(maps, masks, strict=True):
        label, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [value[label == k + 1] for k in range(count)]
    normal = np.concatenate([value[~mask] for value, mask in zip(maps, masks, strict=True)])
    points = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]:
        overlap = np.mean([np.mean(r >= threshold) for r in regions])
        points.append((np.mean(normal >= threshold), overlap))
    x, y = np.array(points).T
    grid = np.linspace(0, limit, 200_001)
    return np.trapezoid(np.interp(grid, x, y), grid) / limit


@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("seed", range(3))
def test_image_metrics_agree_with_scikit_learn(seed, decimals):
    labels, scores = scored(seed, decimals=decimals)
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-30))
    assert metrics.image_auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    assert metrics.average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores))
    assert metrics.f1_max(labels, scores) == pytest.approx(f1)


@pytest.mark.parametrize("metric", [metrics.image_auroc, metrics.average_precision, metrics.f1_max])
def test_one_class_alone_is_not_a_number(metric):
    assert math.isnan(metric([True, True], [1.0, 2.0]))
    assert math.isnan(metric([False, False], [1.0, 2.0]))
    assert math.isnan(metric([], []))


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        metrics.image_auroc([True, False], [math.nan, 1.0])
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\)"):
        metrics.image_auroc([True, False, True], [1.0, 2.0])
    with pytest.raises(ValueError, match="NaN"):
        PixelCurves().add(np.full((2, 2), np.inf), None)
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(3, 2\)"):
        PixelCurves().add(np.zeros((2, 2)), np.ones((3, 2)))


def test_rates_count_parts_on_the_wrong_side():
    labels = [False] * 4 + [True] * 5
    scores = [0.1, 0.2, 0.5, 0.6, 0.5, 0.4, 0.7, 0.8, 0.9]
    found = metrics.rates(labels, scores, threshold=0.5)
    assert found.false_reject == 1 / 4  # 0.5 itself passes
    assert found.escape == 2 / 5
    assert found.escape_interval.low < 2 / 5 < found.escape_interval.high


def test_no_false_reject_among_few_parts_still_promises_little():
    found = metrics.rates([False] * 41 + [True], [0.0] * 41 + [1.0], threshold=0.5)
    assert found.false_reject == 0
    assert found.false_reject_interval == pytest.approx((0, 1 - 0.025 ** (1 / 41)))  # exact binomial


def test_the_bootstrap_interval_covers_the_truth_as_often_as_it_says():
    truth = 0.5 * (1 + math.erf(1 / 2))  # AUROC of N(0, 1) against N(1, 1) is Φ(1/√2)
    inside = 0
    for seed in range(60):
        labels, scores = scored(seed, n=150)
        low, high = metrics.bootstrap(metrics.image_auroc, labels, scores, resamples=200, level=0.8)
        inside += low <= truth <= high
    assert 0.65 < inside / 60 < 0.93


def test_a_pair_is_compared_on_the_same_images():
    labels, scores = scored(0, n=400)
    generator = np.random.default_rng(1)
    first, second = (scores + generator.normal(scale=s, size=400) for s in (0.1, 0.5))
    gain, (low, high) = metrics.paired_bootstrap(metrics.image_auroc, labels, first, second, resamples=400)
    expected = metrics.image_auroc(labels, first) - metrics.image_auroc(labels, second)
    assert gain == pytest.approx(expected)
    assert 0 < low < gain < high
    alone = metrics.bootstrap(metrics.image_auroc, labels, first, resamples=400)
    assert high - low < alone.high - alone.low  # pairing takes out what both share

    none, bounds = metrics.paired_bootstrap(metrics.image_auroc, labels, scores, scores, resamples=50)
    assert (none, *bounds) == (0, 0, 0)


def test_seeds_are_averaged_within_a_resample():
    labels, scores = scored(0)
    others = np.stack([scored(0)[1] + np.random.default_rng(k).normal(size=200) for k in range(3)])
    gain, _ = metrics.paired_bootstrap(metrics.image_auroc, labels, np.stack([scores] * 3), others)
    mean = np.mean([metrics.image_auroc(labels, row) for row in others])
    assert gain == pytest.approx(metrics.image_auroc(labels, scores) - mean)


@pytest.mark.parametrize("decimals", [None, 1])
@pytest.mark.parametrize("limit", [0.3, 0.05, 1.0])
def test_pro_agrees_with_its_definition(limit, decimals):
    maps, masks = category(3, [(17, 23), (12, 12), (20, 9), (16, 16)], decimals)
    assert curves(maps, masks).pro(limit) == pytest.approx(brute_force_pro(maps, masks, limit), abs=1e-5)


def test_regions_touching_at_a_corner_are_one():
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = mask[1, 1] = mask[3, 3] = True
    result = PixelCurves()
    result.add(mask.astype(np.float32), mask)
    assert result.regions == 2
    assert result.pro() == pytest.approx(1.0)


def test_a_large_region_does_not_outweigh_a_small_one():
    mask = np.zeros((20, 20), bool)
    mask[:10, :10] = mask[15, 15] = True
    seen = np.zeros((20, 20), np.float32)
    seen[:10, :10] = 1.0  # the large region is found, the small one is not
    result = PixelCurves()
    result.add(seen, mask)
    # a half at FPR 0, then on the tied rest a straight line to 1 at FPR 1
    assert result.pro(0.3) == pytest.approx(0.5 + 0.5 * 0.15)


def test_pixel_metrics_agree_with_scikit_learn():
    maps, masks = category(5, [(40, 30), (25, 60), (33, 33)])
    labels, values = (np.concatenate([a.ravel() for a in arrays]) for arrays in (masks, maps))
    result = curves(maps, masks)
    assert result.auroc() == pytest.approx(roc_auc_score(labels, values))
    assert result.average_precision() == pytest.approx(average_precision_score(labels, values))


@pytest.mark.parametrize("transform", [lambda v: v, lambda v: 1 + 1e-2 * v, lambda v: np.exp(4 * v)])
def test_merged_curves_stay_within_a_thousandth_whatever_the_scale(transform):
    maps, masks = category(7, [(64, 64)] * 40)
    maps = [transform(m).astype(np.float32) for m in maps]
    exact = curves(maps, masks)
    merged = curves(maps, masks, capacity=1 << 15)  # 164k pixels: several merges
    assert merged.auroc() == pytest.approx(exact.auroc(), abs=1e-3)
    assert merged.average_precision() == pytest.approx(exact.average_precision(), abs=1e-3)
    assert merged.pro() == pytest.approx(exact.pro(), abs=1e-3)
    assert len(merged._values) <= merged.capacity // 2 < len(exact._values)


def test_without_regions_or_normal_pixels_nothing_is_claimed():
    good = PixelCurves()
    good.add(np.ones((3, 3), np.float32))
    everywhere = PixelCurves()
    everywhere.add(np.ones((3, 3), np.float32), np.ones((3, 3)))
    for result in (PixelCurves(), good, everywhere):
        assert math.isnan(result.auroc())
        assert math.isnan(result.pro())
