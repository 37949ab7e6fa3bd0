"""The benchmark as it is run: a small set of drawn parts, a very small network, the real training."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspector.errors import TrainingError
from training import runs
from training.benchmark import _parser, main, plan
from training.datasets import find
from training.runs import held_out

SMALL = ["--preset", "tiny", "--epochs", "1", "--threads", "1", "--device", "cpu", "--quiet"]
SMALL += ["--set", "size=32", "patch=8", "dim=16", "depth=1", "heads=2", "slots=8", "sigma=1"]


def draw(path, generator, defective=False):
    image = np.full((48, 48, 3), 60, np.uint8) + generator.integers(0, 8, (48, 48, 3), np.uint8)
    cv2.circle(image, (24, 24), 16, (180, 170, 160), -1)
    mask = np.zeros((48, 48), np.uint8)
    if defective:
        cv2.rectangle(mask, (18, 18), (27, 27), 255, -1)
        image[mask > 0] = (0, 0, 250)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
    return mask


@pytest.fixture
def parts(tmp_path):
    root, generator = tmp_path / "mvtec" / "screw", np.random.default_rng(0)
    for k in range(12):
        draw(root / "train" / "good" / f"{k:02}.png", generator)
    for k in range(4):
        draw(root / "test" / "good" / f"{k}.png", generator)
        mask = draw(root / "test" / "dent" / f"{k}.png", generator, defective=True)
        path = root / "ground_truth" / "dent" / f"{k}_mask.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), mask if k else 0 * mask)  # the first mask is empty
    return root.parent


def bench(parts, *more):
    return main(
        ["--data", str(parts), "--out", str(parts.parent / "out"), "--methods", "paper", *SMALL, *more]
    )


def test_one_command_trains_calibrates_measures_and_draws(parts):
    assert bench(parts, "--variants", "base:memory=false,attention=false", "--seeds", "3") == 0
    out = parts.parent / "out"
    plain, base = json.loads((out / "benchmark.json").read_text())
    assert (plain["dataset"], plain["category"], plain["method"]) == ("mvtec", "screw", "paper")
    assert (plain["variant"], base["variant"], plain["seed"]) == ("plain", "base", 3)
    assert plain["settings"]["training"]["architecture"]["memory"]
    assert not base["settings"]["training"]["architecture"]["memory"]
    assert plain["settings"]["training"]["scoring"]["sigma"] == 1
    assert (plain["n_train"], plain["n_calibration"]) == (10, 2)
    assert (plain["n_good"], plain["n_defective"], plain["n_without_mask"], plain["n_regions"]) == (
        4,
        4,
        1,
        3,
    )
    assert (plain["threshold"]["n"], plain["threshold"]["target_rate"]) == (2, 0.05)
    for key in ("image_auroc", "pixel_auroc", "aupro", "f1_max", "false_reject_rate", "escape_rate"):
        assert 0 <= plain[key] <= 1
    assert plain["train_seconds"] > 0
    assert plain["ms_per_image"] > 0
    assert plain["command"].startswith("python -m training.benchmark --data")
    assert plain["versions"]["torch"]
    assert len(json.loads((out / "comparisons.json").read_text())) == 1
    assert "1.000 / 0.977 / 1.000" in (out / "benchmark.md").read_text()
    sheets = sorted(path.name for path in (out / "sheets" / "mvtec" / "screw").iterdir())
    assert sheets == [f"paper{v}-seed3-{what}.png" for v in ("-base", "") for what in ("heatmaps", "worst")]
    run = json.loads((out / "runs" / "mvtec" / "screw" / "paper-seed3.json").read_text())
    assert [row["defect"] for row in run["scores"]] == ["dent"] * 4 + [None] * 4


def test_reports_are_written_where_asked_for(parts):
    bench(parts, "--seeds", "1")
    bench(parts, "--seeds", "2", "--reports")
    models = parts.parent / "out" / "models" / "mvtec" / "screw"
    assert not (models / "paper-seed1" / "reports").exists()
    (page,) = (models / "paper-seed2" / "reports").glob("*/report.html")
    (bundle,) = (b for b in runs.bundles.listing(models / "paper-seed2") if b.threshold is None)
    assert page.parent.name == bundle.id
    record = json.loads((parts.parent / "out" / "runs" / "mvtec" / "screw" / "paper-seed2.json").read_text())
    assert record["synthetic"] == json.loads(page.with_name("report.json").read_text())["synthetic"]


def test_nothing_that_is_calibrated_on_was_trained_on(parts):
    bench(parts)
    folder = parts.parent / "out" / "models" / "mvtec" / "screw" / "paper-seed0"
    (bundle,) = (b for b in runs.bundles.listing(folder) if b.threshold is not None)
    learned = {name for name, _ in bundle.provenance["trained_on"] + bundle.provenance["held_out"]}
    normals = sorted((parts / "screw" / "train" / "good").iterdir())
    learn, hold = held_out(normals, 0.2, 0)
    assert learned == {path.name for path in learn}
    assert not learned & {path.name for path in hold}
    assert len(learn) + len(hold) == len(normals)


def test_a_finished_run_is_not_repeated(parts, capsys):
    bench(parts)
    record = parts.parent / "out" / "runs" / "mvtec" / "screw" / "paper-seed0.json"
    before = record.read_text()
    (parts.parent / "out" / "benchmark.md").unlink()
    assert bench(parts) == 0
    assert record.read_text() == before
    assert "1 of 1 runs are finished already" in capsys.readouterr().err
    assert (parts.parent / "out" / "benchmark.md").is_file()


def test_a_run_stopped_after_its_training_does_not_train_again(parts, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs, "evaluate", stopped)
        assert bench(parts) == 130
    folder = parts.parent / "out" / "models" / "mvtec" / "screw" / "paper-seed0"
    before = {path.name for path in folder.iterdir()}

    def train(*_, **__):
        pytest.fail("it trained again")

    monkeypatch.setattr(runs, "train", train)
    assert bench(parts) == 0
    assert before <= {path.name for path in folder.iterdir()}


def test_another_image_is_another_training(parts, monkeypatch):
    bench(parts)
    (parts.parent / "out" / "runs" / "mvtec" / "screw" / "paper-seed0.json").unlink()
    learn, _ = held_out(sorted((parts / "screw" / "train" / "good").iterdir()), 0.2, 0)
    draw(learn[0], np.random.default_rng(99))
    seen = []
    original = runs.train
    monkeypatch.setattr(runs, "train", lambda *a, **k: seen.append(a) or original(*a, **k))
    assert bench(parts) == 0
    assert len(seen) == 1


def test_a_setting_may_be_for_one_category_alone(parts):
    shutil.copytree(parts / "screw", parts / "nut")
    args = _parser().parse_args(["--data", str(parts), "--methods", "paper"])
    args.set = ["screw:symmetries=flip-x,turn-90", "nut:paper.epochs=3", "batch=2"]
    nut, screw = (run.options for run in plan(args, find(parts), ""))
    assert (nut.symmetries, nut.epochs, nut.batch) == ((), 3, 2)
    assert (screw.symmetries, screw.epochs, screw.batch) == (("flip-x", "turn-90"), 60, 2)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--categories", "nut"], "has no category nut; it has screw"),
        (["--set", "epoch"], r"--set epoch: expected \[CATEGORY:\]\[METHOD.\]KEY=VALUE"),
        (["--set", "nut:epochs=1"], "no category nut; there is screw"),
        (["--set", "screw:symmetries=spin"], "symmetries has spin: expected any of flip-x, "),
        (["--set", "paper.color=1"], "color is not a setting"),
        (["--variants", "memory=false"], "--variants memory=false: expected NAME:KEY=VALUE"),
        (["--variants", "plain:memory=false"], "--variants plain:memory=false: expected NAME"),
        (["--holdout", "0.01"], "Holding out 0.01 of 12 normal parts leaves 12 to train on and 0"),
        (["--preset", "huge"], "preset 'huge' is not known"),
    ],
)
def test_a_wrong_request_is_one_line_and_a_code(parts, capsys, more, message):
    assert bench(parts, *more) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    assert re.search(message, lines[-1])


def test_a_record_from_before_a_setting_existed_holds_if_it_has_its_default(parts):
    bench(parts)
    (path,) = (parts.parent / "out" / "runs").rglob("*.json")
    record = json.loads(path.read_text())
    del record["settings"]["training"]["architecture"]["scales"]
    path.write_text(json.dumps(record))
    assert bench(parts) == 0


def test_other_settings_need_another_folder(parts, capsys):
    bench(parts)
    assert bench(parts, "--rate", "0.1", "--threads", "2") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "paper-seed0.json was made with other settings (protocol.rate 0.05 → 0.1)" in error


def test_a_share_that_leaves_nothing_is_refused():
    with pytest.raises(TrainingError, match="leaves 0 to train on and 3 to calibrate on"):
        held_out([Path(str(k)) for k in range(3)], 1.0, 0)
    assert held_out([Path(str(k)) for k in range(9)], 0.3, 1) != held_out(
        [Path(str(k)) for k in range(9)], 0.3, 2
    )
