"""`inspector retrain`: what it learns from, what it promotes, and that nothing harms the active bundle."""

import errno
import fcntl
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from inspector.audit.labels import add_label
from inspector.audit.log import AuditLog
from inspector.calibration import Asked, calibrate_recipe
from inspector.errors import (
    BusyError,
    ModelError,
    NoGpuError,
    NoSpaceError,
    RefusedError,
    TooFewPartsError,
    TrainingError,
)
from inspector.judges import active_bundle, open_engine
from inspector.model import bundle as bundles
from inspector.model import store
from inspector.model.engine import Engine
from inspector.model.network import build
from inspector.model.records import Preprocessing, Scoring, preset
from inspector.models import activate, listing, rollback
from inspector.nightly import candidate, collect, commissioning, golden, priority, retrain, second_look
from inspector.settings import CameraSettings, Folder, Recipe, Settings, load
from inspector.settings import Station as StationSettings
from tests.inspector.nightly_station import draw, inspect, part, prepare
from tests.station import Station
from training.data import read_image
from training.selection import kept_apart

KILLS = int(os.environ.get("INSPECTOR_TEST_KILLS", "3"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Commissioned, with 150 parts in its log."""
    root = tmp_path_factory.mktemp("prepared")
    station = prepare(root)
    inspect(station, 150, 3)
    return root


@pytest.fixture
def station(prepared, tmp_path, monkeypatch):
    """A copy of it to be harmed."""
    monkeypatch.setattr(priority, "lower", lambda: None)  # this process has other tests to run
    shutil.copytree(prepared, tmp_path / "station")
    return Station(tmp_path / "station", 5020)


def models(station):
    return station.data / "models" / "part"


def run(station, **options):
    return list(retrain.retrain(load(station.config), ["part"], seed=1, **options))


def events(station):
    with station.log() as log:
        return [(event.kind, event.severity, event.message) for event in log.events(limit=None)]


def selected(station):
    settings = load(station.config)
    with AuditLog.open(settings.database, readonly=True) as log:
        return collect.select(settings, "part", log, 1, progress=False)


def reconfigured(station, old, new):
    text = station.config.read_text()
    assert old in text
    station.config.write_text(text.replace(old, new))


# --- selection ---------------------------------------------------------------------------------------------


def test_labels_decide_and_what_is_kept_apart_is_never_learned(station):
    with station.log() as log:
        rows = [row for row in log.parts(recipe="part") if row.inspection.verdict == 1]
        rejected = [row for row in log.parts(recipe="part") if row.inspection.verdict == 2]
    escape, false_reject = rows[0].inspection.id, (rejected or rows)[-1].inspection.id
    add_label(station.data / "inspector.db", escape, "defect")
    add_label(station.data / "inspector.db", false_reject, "normal")
    chosen = selected(station)
    assert [one.inspection for one in chosen.defects] == [escape]
    assert escape not in {one.inspection for one in (*chosen.learn, *chosen.apart)}
    assert false_reject in {one.inspection for one in (*chosen.learn, *chosen.apart)}
    assert not any(kept_apart(one.sha256) for one in chosen.learn)
    assert all(kept_apart(one.sha256) for one in chosen.apart)
    assert [one.why for one in chosen.learn[:12]] == ["commissioning"] * 12, (
        "a fifth of 60, whatever else there is"
    )
    manifest = json.loads(chosen.manifest(recipe="part"))
    assert {one["why"] for one in manifest["learn"]} <= {"commissioning", "passed", "labelled normal"}
    assert all(len(one["sha256"]) == 64 for one in manifest["learn"])


def test_what_lies_in_the_golden_folder_or_is_a_labelled_defect_is_never_learned(station):
    passed = (one for one in selected(station).learn if one.why == "passed")
    golden, escape = next(passed), next(passed)
    folder = station.data / "golden" / "part" / "defect"
    folder.mkdir(parents=True)
    shutil.copy(golden.path, folder)
    add_label(station.data / "inspector.db", escape.inspection, "defect")
    after = selected(station)
    taken = {one.sha256 for one in (*after.learn, *after.apart)}
    assert taken.isdisjoint({golden.sha256, escape.sha256})
    assert after.left_out["of the golden set"] == 1
    assert escape.sha256 in {one.sha256 for one in after.defects}


def test_what_the_active_bundle_would_reject_is_not_learned(station):
    """Passes of a weaker bundle; but not what somebody has called normal, and not what is kept apart."""
    settings, chosen = load(station.config), selected(station)
    engine = open_engine(active_bundle(settings, "part"), settings.engine)
    passed = [one for one in chosen.learn if one.why == collect.PASSED]
    scores = sorted((engine.score(read_image(one.file)).score, one.sha256) for one in passed)
    highest = {sha256 for _, sha256 in scores[-3:]}
    labelled = next(one for one in chosen.learn if one.why == collect.PASSED and one.sha256 not in highest)
    chosen.learn[chosen.learn.index(labelled)] = replace(labelled, why="labelled normal")
    before, apart = [one.sha256 for one in chosen.learn], list(chosen.apart)
    second_look.look_again(chosen, engine, scores[-1][0])
    assert [one.sha256 for one in chosen.learn] == before, "they still pass"
    second_look.look_again(chosen, engine, scores[-4][0])
    assert [one.sha256 for one in chosen.learn] == [sha256 for sha256 in before if sha256 not in highest]
    assert chosen.left_out[second_look.DOUBTFUL] == 3
    second_look.look_again(chosen, engine, -1.0)
    assert {one.why for one in chosen.learn} == {"commissioning", "labelled normal"}
    assert chosen.apart == apart


def test_a_second_look_that_cannot_be_had_harms_no_part(station, monkeypatch):
    settings, chosen = load(station.config), selected(station)
    engine = open_engine(active_bundle(settings, "part"), settings.engine)
    gone = next(one for one in chosen.learn if one.why == collect.PASSED)
    gone.file.unlink()
    count = len(chosen.learn)
    second_look.look_again(chosen, engine, 1e9)
    assert len(chosen.learn) == count - 1
    assert chosen.left_out[collect.GONE] == 1
    score = engine.score
    monkeypatch.setattr(engine, "score", lambda image: replace(score(image), score=float("nan")))
    with pytest.raises(ModelError, match="not a number"):
        second_look.look_again(chosen, engine, 1e9)
    assert len(chosen.learn) == count - 1


def test_a_picture_of_the_golden_set_that_is_made_alone_is_the_same(station):
    settings, chosen = load(station.config), selected(station)
    whole = {one.name: one for one in golden.exhibits(settings, "part", chosen.apart, chosen.defects, 1)}
    name = [name for name, one in whole.items() if one.defective][-1]
    alone = list(golden.exhibits(settings, "part", chosen.apart, chosen.defects, 1, only={name}))
    assert [(one.name, one.kind) for one in alone] == [(name, whole[name].kind)]
    np.testing.assert_array_equal(alone[0].image, whole[name].image)


def test_a_defect_that_is_wrongly_called_normal_does_not_raise_the_threshold(station, tmp_path):
    settings = load(station.config)
    list(calibrate_recipe(settings, "part", Asked(images=draw(tmp_path / "given", 60, 7))))
    with station.log() as log:
        worst = max(log.parts(recipe="part"), key=lambda row: row.inspection.score or 0)
    add_label(station.data / "inspector.db", worst.inspection.id, "normal")
    assert worst.inspection.id in {one.inspection for one in selected(station).learn}
    run(station, epochs=25)
    now = bundles.active(models(station))
    assert (now.threshold.n, now.threshold.rank) == (60, 60)
    assert now.threshold.value == max(bundles.sample(now).scores), "of the calibration parts alone"


def test_the_same_part_seen_twice_is_learned_once_and_an_altered_frame_never(station):
    with station.log() as log:
        rows = log.parts(recipe="part")
    frames = station.data / "frames"
    (frames / rows[0].frame.path).write_bytes(b"")
    altered = rows[0].inspection.id
    image = cv2.imread(str(commissioning.pictures(commissioning.folder(load(station.config), "part"))[0][0]))
    copies = commissioning.folder(load(station.config), "part")
    for number in range(3):
        noisy = np.clip(image + np.random.default_rng(number).normal(0, 1, image.shape), 0, 255)
        ok, png = cv2.imencode(".png", noisy.astype(np.uint8))
        assert ok

        (copies / (hashlib.sha256(png.tobytes()).hexdigest() + ".png")).write_bytes(png.tobytes())
    chosen = selected(station)
    assert chosen.left_out["near-duplicates"] >= 1
    assert altered not in {one.inspection for one in (*chosen.learn, *chosen.apart)}


# --- promotion ---------------------------------------------------------------------------------------------


def test_a_better_candidate_is_promoted_with_lineage_manifest_and_report(station):
    before = bundles.active(models(station)).id
    said = run(station, epochs=25)
    now = bundles.active(models(station))
    assert now.id != before
    assert now.provenance["parent"] == before
    assert store.history(models(station))[-1].by == "retrain"
    reports = models(station) / "reports" / now.id
    manifest = (reports / "manifest.json").read_bytes()
    assert now.provenance["calibration"]["manifest_sha256"] == collect.sha256_of(manifest)
    learned = {sha256 for _, sha256 in now.provenance["trained_on"] + now.provenance["held_out"]}
    content = json.loads(manifest)
    assert learned == {one["sha256"] for one in content["learn"]}
    assert learned.isdisjoint({one["sha256"] for one in content["apart"]})
    assert now.threshold.n == len(bundles.sample(now).scores), "the scores that it was set on are kept"
    assert "<h2>Scores</h2>" in (reports / "gate.html").read_text()
    assert any("is active in place of" in line for line in said)
    assert events(station)[0][0] == "retrain_promoted"
    assert not (station.data / candidate.STAGING / "part").exists()
    row = next(row for row in listing(load(station.config), "part") if row["active"])
    assert row["gate"]["passed"]
    assert store.before(models(station))[0] == before, "a rollback leads back"


def test_a_threshold_does_not_come_down_because_only_what_passed_is_in_the_log(station, tmp_path):
    """The normal part that was rejected is missing among the passes, every night again."""
    given = draw(tmp_path / "given", 60, 7)
    rare = part(np.random.default_rng(8))
    rare[:, 40:44] = 200
    cv2.imwrite(str(given / "rare.png"), rare)
    settings = load(station.config)
    said = "\n".join(calibrate_recipe(settings, "part", Asked(images=given)))
    kept = station.data / "calibration" / "part"
    assert f"the parts are kept in {kept}" in said
    assert len(list(kept.iterdir())) == 61
    given_by_hand = bundles.active(models(station))
    with suppress(RefusedError):  # by so high a threshold more defects may pass; that is another question
        run(station, epochs=25)
    now = bundles.listing(models(station))[-1]
    assert now.id != given_by_hand.id
    manifest = json.loads((models(station) / "reports" / now.id / "manifest.json").read_text())
    assert sum(one["why"] == "calibration" for one in manifest["apart"]) == 61
    assert not any(one["why"] == "commissioning" for one in manifest["apart"]), "there are better ones"
    engine = open_engine(now, settings.engine)
    assert now.threshold.value >= engine.score(cv2.cvtColor(rare, cv2.COLOR_BGR2RGB)).score - 1e-6
    assert now.threshold.n >= 61


def test_a_station_calibrated_on_its_log_keeps_those_parts_for_the_nights_and_learns_none_of_them(station):
    settings = load(station.config)
    list(calibrate_recipe(settings, "part", Asked(log=True, since=datetime.now(UTC) - timedelta(hours=12))))
    by_hand = bundles.active(models(station)).threshold
    kept = {sha256 for _, sha256 in commissioning.pictures(station.data / "calibration" / "part")}
    assert len(kept) == by_hand.n
    chosen = selected(station)
    assert {one.sha256 for one in chosen.apart if one.why == "calibration"} == kept
    assert kept.isdisjoint({one.sha256 for one in chosen.learn})
    assert chosen.left_out["of the calibration"] > 0
    assert any(one.why == "passed" for one in chosen.learn)
    run(station, epochs=25)
    now = bundles.active(models(station)).threshold
    assert now.n == by_hand.n


def test_a_candidate_of_one_epoch_is_refused_and_stays_listed_with_the_reason(station):
    before = bundles.active(models(station)).id
    reconfigured(station, "auroc_margin = 0.1", "auroc_margin = 0.02")
    with pytest.raises(RefusedError, match=r"is refused, .* stays active: image AUROC is lower") as error:
        run(station, epochs=1)
    assert error.value.exit_code == 7
    assert bundles.active(models(station)).id == before
    row = next(row for row in listing(load(station.config), "part") if row["gate"])
    assert row["gate"]["summary"].startswith("refused: image AUROC")
    assert bundles.load(models(station) / row["id"]).threshold is not None
    assert events(station)[0][:2] == ("retrain_refused", "warning")


def test_a_candidate_trained_on_another_part_is_refused_by_the_known_ones(station, tmp_path, monkeypatch):
    """Whatever has come into the log: normal parts and defects that an integrator has put aside speak.

    Without the second look, which finds before that the active bundle would reject every one of them.
    """
    before = bundles.active(models(station)).id
    shutil.rmtree(station.data / "commissioning")
    shutil.rmtree(station.data / "frames")
    (station.data / "inspector.db").unlink()
    store_threshold(station, 1e9)  # everything passes
    inspect(station, 150, 5, other=True)
    active = store_threshold(station, bundles.load(models(station) / before).threshold.value)
    draw(station.data / "golden" / "part" / "normal", 40, 7)
    draw(station.data / "golden" / "part" / "defect", 40, 8, defect=True)
    with pytest.raises(TooFewPartsError, match=r"0 to learn from.*rejected by the active bundle"):
        run(station, epochs=12)
    monkeypatch.setattr(retrain, "look_again", lambda *_: None)
    with pytest.raises(RefusedError):
        run(station, epochs=12)
    assert bundles.active(models(station)).id == active


def store_threshold(station, value):

    now = bundles.active(models(station))
    child = bundles.with_threshold(now, replace(now.threshold, value=value))
    store.activate(models(station), child.id, "calibrate")
    return child.id


def test_a_warm_start_goes_on_from_the_active_weights(station):
    with suppress(RefusedError):  # whether it is better than the active one is the gate's to say
        run(station, epochs=10, start="warm")
    reports = [row for row in listing(load(station.config), "part") if row["gate"]]
    assert reports
    evidence = bundles.load(models(station) / reports[0]["id"]).provenance
    assert evidence["calibration"]["start"] == "warm"
    assert evidence["options"]["epochs"] == 3


# --- what stops it -----------------------------------------------------------------------------------------


def test_too_few_parts_no_gpu_and_no_room_each_have_a_code_a_reason_and_an_event(station, monkeypatch):
    before = bundles.active(models(station)).id
    for old, new, kind, said in (
        ("min_parts = 20", "min_parts = 2000", TooFewPartsError, "expected retrain.min_parts = 2000"),
        ("min_parts = 2000", "require_gpu = true", NoGpuError, "retrain.require_gpu is true"),
        ("min_free_mib = 1\n", "min_free_mib = 1000000000\n", NoSpaceError, "are needed to train anew"),
    ):
        reconfigured(station, old, new)
        with pytest.raises(kind, match=said):
            run(station)
        assert events(station)[0][0] == "retrain_failed"
        assert said in events(station)[0][2]
    assert (TooFewPartsError.exit_code, NoSpaceError.exit_code, NoGpuError.exit_code) == (4, 5, 6)
    assert bundles.active(models(station)).id == before


def test_a_second_one_says_so_and_leaves(station):
    with (station.data / "retrain.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="another retraining runs"):
            run(station)
        done = station.command("retrain")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert [e for e in events(station) if e[0] == "retrain_failed" and "another retraining" in e[2]]


def test_the_timer_does_nothing_where_it_is_switched_off(station):
    reconfigured(station, "[retrain]\n", "[retrain]\nenabled = false\n")
    done = station.command("retrain", "--nightly")
    assert (done.returncode, done.stdout) == (0, "retrain.enabled is false: nothing is trained\n")


def test_what_a_person_went_back_from_is_not_promoted_again_without_one(station):
    run(station, epochs=25)
    assert list(rollback(load(station.config), "part"))
    first = bundles.active(models(station)).id
    with pytest.raises(RefusedError, match="has gone back to that one"):
        run(station, epochs=25)
    assert bundles.active(models(station)).id == first
    assert events(station)[0][0] == "retrain_refused"
    list(activate(load(station.config), "part", first, force=False))
    run(station, epochs=25)
    assert bundles.active(models(station)).id != first


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), NoSpaceError, "became full while"),
        (torch.OutOfMemoryError("CUDA"), TrainingError, "the memory did not suffice"),
    ],
)
def test_a_disk_or_a_memory_that_is_full_in_mid_run_is_told_and_logged(
    station, monkeypatch, fault, kind, said
):
    def fail(*_, **__):
        raise fault

    monkeypatch.setattr(retrain, "train", fail)
    with pytest.raises(kind, match=said):
        run(station)
    assert events(station)[0][0] == "retrain_failed"
    assert said in events(station)[0][2]


def test_an_activation_by_hand_meanwhile_is_not_overwritten(station, monkeypatch):

    real = retrain._publish

    def publish(*arguments):
        published = real(*arguments)
        store_threshold(station, 123.0)
        return published

    monkeypatch.setattr(retrain, "_publish", publish)
    with pytest.raises(RefusedError, match="another bundle was made active meanwhile"):
        run(station, epochs=25)
    assert bundles.active(models(station)).threshold.value == 123.0


def test_it_runs_at_the_lowest_priority(tmp_path):
    code = (
        "import os; from inspector.nightly import priority; priority.lower(); "
        "print(os.nice(0), os.sched_getscheduler(0) == os.SCHED_IDLE)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    nice, idle = done.stdout.split()
    assert int(nice) == 19
    assert idle == "True"


def test_a_process_that_is_in_no_group_of_the_kernel_lowers_itself_all_the_same(tmp_path):
    """Its /proc/self/autogroup is there and empty."""
    group = tmp_path / "autogroup"
    code = (
        "import os, sys; from pathlib import Path; from inspector.nightly import priority; "
        "priority.AUTOGROUP = Path(sys.argv[1]); priority.lower(); print(os.nice(0))"
    )
    for content, kept in [
        ("", ""),
        ("/autogroup-17 nice -5\n", "-5"),
        ("/autogroup-17 nice 19\n", "/autogroup-17 nice 19\n"),
    ]:
        group.write_text(content)
        done = subprocess.run(
            [sys.executable, "-c", code, str(group)], capture_output=True, text=True, check=True
        )
        assert (int(done.stdout), group.read_text()) == (19, kept)


@pytest.mark.timeout(300 + 60 * KILLS)
def test_kill_9_at_any_moment_leaves_the_active_bundle_whole_and_the_next_run_clean(station):
    """The moments are spread over the time that a whole run takes here, at the priority of any process."""
    chance = random.Random(0)
    code = (
        "from inspector.cli import main; from inspector.nightly import golden, priority; "
        "priority.lower = lambda: None; golden.SYNTHETIC = 40; main()"
    )
    command = [sys.executable, "-c", code, "retrain", "--epochs", "8"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    began = time.monotonic()
    subprocess.run(command, cwd=station.root, env=environment, capture_output=True, check=False)
    takes = time.monotonic() - began
    stopped = 0
    for number in range(KILLS):
        process = subprocess.Popen(
            [*command, "--seed", str(number)],
            cwd=station.root,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(chance.uniform(0.3, 1.0) * takes)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            stopped += 1
        active = bundles.active(models(station))
        assert active.threshold is not None
        Engine(active, "cpu", "float32", 1).self_test()
        for one in bundles.listing(models(station)):
            bundles.load(one.path)
    assert stopped
    done = subprocess.run(command, cwd=station.root, env=environment, capture_output=True, check=False)
    assert done.returncode in (0, 7), done.stderr
    assert not (station.data / candidate.STAGING / "part").exists()
    assert not [path for path in models(station).iterdir() if path.name.startswith(".new")]
    with_gate = {path.parent.name for path in models(station).glob("reports/*/gate.json")}
    assert with_gate <= {one.id for one in bundles.listing(models(station))}


@pytest.mark.parametrize(("method", "exposure"), [("restore", "as-is"), ("feature", "even")])
def test_a_night_takes_the_backbone_and_the_exposure_of_the_active_bundle(tmp_path, method, exposure):
    """The package's weights may be others by then, a downloaded file may be gone, a default may change."""
    small = {"size": 64, "dim": 16, "depth": 1, "heads": 2, "slots": 10, "bank": 6, "backbone": "drawn"}
    architecture = replace(preset("tiny", method), **small)
    network = build(architecture)
    bundle = bundles.write(
        tmp_path / "models" / "part",
        network.state_dict(),
        architecture,
        Preprocessing(size=64, exposure=exposure),
        Scoring(),
        provenance={},
    )
    line = CameraSettings(name="cam", recipe="part", folder=Folder(path=tmp_path))
    settings = Settings(
        station=StationSettings(name="night", data=tmp_path),
        camera=(line,),
        recipe={"part": Recipe(method=method)},
    )
    found = candidate.options(candidate.Night(settings, "part", seed=0), bundle)
    assert found.architecture == architecture
    other = build(architecture)
    other.backbone.load("drawn", found.backbone_weights, 64)
    for name, tensor in network.backbone.state_dict().items():
        assert torch.equal(other.backbone.state_dict()[name], tensor), name
    assert found.preprocessing().exposure == exposure
    other_light = "as-is" if exposure == "even" else "even"
    asked = settings.model_copy(update={"recipe": {"part": Recipe(method=method, exposure=other_light)}})
    found = candidate.options(candidate.Night(asked, "part", seed=0), bundle)
    assert found.preprocessing().exposure == other_light
    warm = candidate.Night(asked, "part", seed=0, start="warm")
    assert candidate.warm(warm, bundle) is None  # it has learned another light
    assert candidate.warm(replace(warm, settings=settings), bundle) is bundle


def test_a_synthetic_defect_leaves_the_depth_of_the_rest():
    rng = np.random.default_rng(0)
    part = rng.integers(2000, 9000, (96, 96)).astype(np.uint16)
    bad, _ = golden._damaged(part, part, (10, 10, 80, 80), rng)
    assert (bad.shape, bad.dtype) == ((96, 96, 3), np.uint16)
    changed = (bad != part[..., None]).any(axis=2)
    assert 0 < changed.mean() < 0.7
    assert not changed[:10].any()
    assert (bad[changed] % 257 == 0).all()
