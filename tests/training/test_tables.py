"""From records to tables; numbers of the paper beside ours."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from inspector.errors import TrainingError
from training.metrics import image_auroc
from training.reported import Reported, reported
from training.tables import comparisons, markdown, read_runs, write_json, write_tables


def record(category="mvtec_screw", method="paper", variant="plain", seed=0, quality=1.0, **more):
    generator = np.random.default_rng(seed)
    labels = np.arange(60) % 3 > 0
    noise = generator.normal(size=60)
    scores = noise + quality * labels
    return {
        "dataset": "data",
        "category": category,
        "method": method,
        "variant": variant,
        "seed": seed,
        "image_auroc": image_auroc(labels, scores),
        "image_auroc_interval": [0.1, 0.9],
        "pixel_auroc": 0.5,
        "aupro": 0.25,
        "f1_max": 0.75,
        "average_precision": 0.8,
        "false_reject_rate": 0.1,
        "escape_rate": 0.2,
        "train_seconds": 12.0,
        "ms_per_image": 3.21,
        "device": "cpu",
        "precision": "float32",
        "scores": [
            {"image": str(k), "defect": "dent" if bad else None, "score": s}
            for k, (bad, s) in enumerate(zip(labels.tolist(), scores.tolist(), strict=True))
        ],
    } | more


def rows(text):
    lines = [line.strip("|").split("|") for line in text.splitlines() if "|" in line]
    return [[cell.strip() for cell in line] for line in lines]


def test_the_paper_is_quoted_as_printed():
    assert reported("mvtec_anomaly_detection", "screw") == Reported(1.0, 0.977, 1.0)
    assert reported("data", "mvtec_transistor") == Reported(0.868, 0.85, 0.81)
    assert reported("BTech_Dataset_transformed", "02") == Reported(0.85, 0.894, 0.89)
    assert reported("data", "btad_03") == Reported(0.93, 0.931, 0.91)
    for dataset, category in (("data", "mvtec3d_tire_rgb"), ("data", "magnetic_tile"), ("mine", "screw")):
        assert reported(dataset, category) is None


@pytest.mark.parametrize(("column", "average"), list(enumerate((0.912, 0.930, 0.923))))
def test_the_papers_averages_are_those_of_its_rows(column, average):
    categories = "carpet grid leather tile wood bottle cable capsule hazelnut metal_nut pill screw toothbrush"
    values = [reported("mvtec", c)[column] for c in [*categories.split(), "transistor", "zipper"]]
    assert np.mean(values) == pytest.approx(average, abs=2e-3)


def test_a_row_shows_mean_and_spread_over_seeds():
    pair = [record(seed=k, image_auroc=v) for k, v in enumerate((0.7, 0.8))]
    row = rows(markdown(pair))[2]
    assert row[:4] == ["mvtec_screw", "paper", "2", "0.750 ± 0.071"]
    assert row[-1] == "1.000 / 0.977 / 1.000"
    assert "10.0% ± 0.0%" in row


def test_one_seed_shows_its_interval():
    assert rows(markdown([record(image_auroc=0.7)]))[2][3] == "0.700 [0.100, 0.900]"


def test_methods_are_averaged_over_categories():
    three = [
        record("a", image_auroc=0.6),
        record("b", image_auroc=0.8),
        record("a", "feature", image_auroc=0.9),
    ]
    table = rows(markdown(three))
    assert [row[:4] for row in table if "**" in row[0]] == [["**mean of 2**", "paper", "", "0.700"]]


def test_a_metric_that_is_not_defined_is_a_dash():
    row = rows(markdown([record(pixel_auroc=None, aupro=None)]))[2]
    assert row[4:6] == ["–", "–"]


def test_variants_are_compared_on_the_same_images_and_seeds():
    runs = [
        record(seed=s, variant=v, quality=q, aupro=q / 26)
        for s in (0, 1)
        for v, q in (("plain", 1.5), ("base", 0.2))
    ]
    runs.append(record(seed=2, variant="base"))  # has no plain run yet
    runs.append(record("lonely", variant="base"))
    (found,) = comparisons(runs)
    assert (found["variant"], found["against"], found["category"]) == ("base", "plain", "mvtec_screw")
    assert set(found["image_auroc_by_seed"]) == {"0", "1"}
    low, high = found["image_auroc_interval"]
    assert low < found["image_auroc"] < high < 0
    assert found["image_auroc"] == pytest.approx(np.mean(list(found["image_auroc_by_seed"].values())))
    assert found["aupro"] == pytest.approx(-0.05)


def test_runs_on_different_images_are_not_compared():
    changed = record(variant="base")
    changed["scores"][0]["image"] = "another"
    with pytest.raises(TrainingError, match=r"data/mvtec_screw, paper: .* saw different test images"):
        comparisons([record(), changed])


def test_tables_are_made_from_the_runs_alone(tmp_path):
    for variant in ("plain", "base"):
        write_json(tmp_path / "runs" / "data" / f"{variant}.json", record(variant=variant, aupro=math.nan))
    write_tables(tmp_path)
    listed = json.loads((tmp_path / "benchmark.json").read_text())
    assert [r["variant"] for r in listed] == ["plain", "base"]
    assert all("scores" not in r and r["aupro"] is None for r in listed)
    assert len(json.loads((tmp_path / "comparisons.json").read_text())) == 1
    text = (tmp_path / "benchmark.md").read_text()
    assert "paper, base" in text
    assert "Variants" in text
    assert [r["variant"] for r in read_runs(tmp_path / "runs")] == ["plain", "base"]


def test_a_category_that_light_alone_tells_apart_is_warned_of():
    told = record(category="mvtec_screw", brightness_auroc=0.001)
    plain = record(category="mvtec_transistor", brightness_auroc=0.6)
    older = record(category="tire")
    text = markdown([told, plain, older])
    assert "/mvtec_screw**: the mean brightness" in text
    assert "image AUROC of 0.001" in text
    assert text.count("mean brightness") == 1
