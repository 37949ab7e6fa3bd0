"""`inspector calibrate` from folder and log: which parts count, what is kept, what is said of it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import cv2
import numpy as np
import pytest

from inspector import calibration
from inspector.audit import AuditLog, BundleRecord, Evidence, Inspection
from inspector.audit.frames import FrameStore
from inspector.audit.labels import add_label
from inspector.calibration import Asked, calibrate_recipe, explain, picture_of
from inspector.errors import DataError, LogError, SettingsError, TrainingError
from inspector.model import bundle as bundles
from inspector.nightly import commissioning
from inspector.normals import from_folder, from_log, seen
from inspector.settings import load
from tests.station import Station, camera, write_bundle, write_pictures
from training.calibrate import parts_needed

NOON = datetime(2026, 5, 9, 12, 0, tzinfo=UTC)
PARTS = 110


@pytest.fixture
def settings(tmp_path):
    station = Station(tmp_path, 5020)
    station.write(camera(trigger="camera"), plc="enabled = false")
    write_bundle(tmp_path / "data" / "models" / "part")
    return load(station.config)


def said(settings, **asked):
    return "\n".join(calibrate_recipe(settings, "part", Asked(**asked)))


def active(settings):
    return bundles.active(settings.models / "part")


def inspected(settings, count, verdict=1, **changes):
    """Parts in the log with their frames: bright noise, each its own."""
    store, generator = FrameStore(settings.frames), np.random.default_rng(0)
    with AuditLog.open(settings.database) as log:
        log.register_bundle(BundleRecord(id="ab" * 32, recipe="part", architecture={}))
        for number in range(count):
            row = Inspection(
                time=NOON + timedelta(minutes=number),
                camera="cam",
                recipe="part",
                verdict=verdict,
                score=0.1,
                threshold=0.2 if verdict == 1 else 0.05,
                bundle="ab" * 32,
                **changes,
            )
            id_ = log.commit(row)
            image = generator.integers(100, 255, (48, 48, 3), np.uint8)
            log.add_evidence([Evidence(id_, store.store(id_, "cam", row.time, image))])


def test_scores_light_and_sharpness_are_kept_and_a_picture_is_drawn(settings, tmp_path):
    write_pictures(tmp_path / "normal", 30)
    write_pictures(tmp_path / "bad", 3)
    before = active(settings)
    told = said(settings, images=tmp_path / "normal", defects=tmp_path / "bad", rate=0.2, confidence=0.9)
    after = active(settings)
    sample = bundles.sample(after)
    assert after.provenance["parent"] == before.id
    assert after.threshold.scores_sha256 == hashlib.sha256(sample.scores.astype("<f8").tobytes()).hexdigest()
    assert sorted(sample.scores)[after.threshold.rank - 1] == after.threshold.value
    assert after.threshold.interval[1] == after.threshold.value
    first = cv2.imread(str(tmp_path / "normal" / "000.png"), cv2.IMREAD_GRAYSCALE)
    assert sample.brightness[0] == pytest.approx(first.mean() / 255, abs=0.005)
    assert (sample.sharpness > 0).all()
    assert len(after.provenance["calibration"]["known_defects"]) == 3
    assert "of 3 known defects" in told
    assert cv2.imread(str(picture_of(after))).shape[1] > 1000
    assert f"picture: {picture_of(after)}" in told


def test_a_dry_run_draws_and_changes_nothing_else(settings, tmp_path):
    write_pictures(tmp_path / "normal", 30)
    before = active(settings)
    told = said(settings, images=tmp_path / "normal", dry_run=True)
    assert "568 more are needed (598 in all)" in told
    assert "from 100 parts on --tail extrapolates" in told
    assert bundles.listing(settings.models / "part") == [before]
    assert [file.name for file in (settings.models / "part" / "reports" / before.id).iterdir()] == [
        "dry-run.png"
    ]


def test_an_extrapolated_threshold_says_so_wherever_it_shows(settings, tmp_path):
    write_pictures(tmp_path / "normal", PARTS)
    told = said(settings, images=tmp_path / "normal", tail=True)
    threshold = active(settings).threshold
    assert (threshold.method, threshold.proven, threshold.extrapolated) == ("extrapolated", False, True)
    assert threshold.interval[0] < threshold.interval[1] == threshold.value
    assert f"EXTRAPOLATED from {PARTS} normal parts" in told
    assert f"{598 - PARTS} more are needed" in told
    assert "EXTRAPOLATED" in threshold.promise
    told = said(settings, images=tmp_path / "normal", tail=True, rate=0.1)
    assert not active(settings).threshold.extrapolated
    assert "--tail was not needed" in told


def test_a_fitted_tail_is_advised_where_it_can_be_fitted(settings, tmp_path):
    write_pictures(tmp_path / "normal", 99)
    assert "from 100 parts on --tail extrapolates" in said(settings, images=tmp_path / "normal", dry_run=True)
    with pytest.raises(TrainingError, match="expected at least 100"):
        said(settings, images=tmp_path / "normal", dry_run=True, tail=True)
    few = {"images": tmp_path / "few", "dry_run": True}
    write_pictures(few["images"], 20)
    assert "--tail" not in said(settings, rate=0.1, **few), "29 parts prove it"
    write_pictures(tmp_path / "normal", 100)
    told = said(settings, images=tmp_path / "normal", dry_run=True)
    assert "\n--tail extrapolates" in told
    assert "EXTRAPOLATED" in said(settings, images=tmp_path / "normal", dry_run=True, tail=True)


def test_what_is_said_of_each_kind_of_threshold(settings, tmp_path):
    write_pictures(tmp_path / "normal", 30)
    said(settings, images=tmp_path / "normal", rate=0.2, confidence=0.9)
    proven = active(settings).threshold
    assert proven.promise == "proven by 30 parts: at most 0.2 of normal parts rejected at 90%"
    short = replace(proven, target_rate=0.01, proven_rate=0.08, interval=())
    assert "NOT proven by 30 parts: they prove 0.08" in short.promise
    assert "limits" not in "".join(explain(short, asked_tail=False))
    assert "limits" in "".join(explain(proven, asked_tail=False))


def test_from_the_log_come_passes_and_normals_without_defects_in_their_time(settings):
    inspected(settings, 6)
    inspected(settings, 3, verdict=2)
    add_label(settings.database, 2, "defect")  # an escape
    add_label(settings.database, 7, "normal")  # a false reject
    source = from_log(settings, "part", None, None, set())
    assert [name.split("/")[-1][:9] for name, _ in source.pictures] == [f"{n:09}" for n in (1, 3, 4, 5, 6, 7)]
    assert source.total == 6
    assert "2 rejected parts of this time have no label" in " ".join(source.notes)
    late = from_log(settings, "part", NOON + timedelta(minutes=4), NOON + timedelta(minutes=5), set())
    assert late.total == 1
    with pytest.raises(DataError, match="no stored frames of normal parts of recipe 'part'"):
        from_log(settings, "part", NOON + timedelta(days=1), None, set())


def test_what_the_model_has_learned_from_does_not_count(settings, tmp_path):
    inspected(settings, 4)
    with AuditLog.open(settings.database, readonly=True) as log:
        digests = [part.frame.sha256 for part in log.parts()]
    source = from_log(settings, "part", None, None, {digests[0], digests[2]})
    assert source.total == 2
    assert "2 parts are left out" in " ".join(source.notes)
    write_pictures(tmp_path / "normal", 3)
    known = hashlib.sha256((tmp_path / "normal" / "001.png").read_bytes()).hexdigest()
    bundle = replace(active(settings), provenance={"trained_on": [["001.png", known]], "held_out": []})
    folder = from_folder(tmp_path / "normal", seen(bundle))
    assert folder.total == 2
    with pytest.raises(DataError, match="the model has learned from all 3"):
        from_folder(
            tmp_path / "normal",
            {hashlib.sha256(f.read_bytes()).hexdigest() for f in (tmp_path / "normal").iterdir()},
        )


def test_a_calibration_from_the_log_shows_where_labelled_defects_fall(settings):
    inspected(settings, 12)
    add_label(settings.database, 12, "defect")
    told = said(settings, log=True, rate=0.3, confidence=0.9)
    after = active(settings)
    assert after.threshold.n == 11
    assert after.threshold.source == "log 2026-05-09 12:00 to 2026-05-09 12:10 UTC"
    assert "of 1 known defects" in told


def test_of_a_long_log_as_many_parts_as_a_proof_needs_are_kept_evenly_spread(settings, monkeypatch):
    monkeypatch.setattr(calibration, "LOGGED", 4)
    inspected(settings, 24)
    said(settings, log=True, rate=0.3, confidence=0.9)
    frames = {hashlib.sha256(file.read_bytes()).hexdigest() for file in settings.frames.rglob("*.png")}
    kept = [digest for _, digest in commissioning.pictures(settings.station.data / "calibration" / "part")]
    assert set(kept) <= frames
    with AuditLog.open(settings.database, readonly=True) as log:
        place = {part.frame.sha256: number for number, part in enumerate(log.parts())}
    needed = parts_needed(0.3, 0.9)
    assert needed > 4
    assert sorted(place[one] for one in kept) == [(k * 24 - 1) // needed for k in range(1, needed + 1)]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "exactly one of --images, --camera and --log"),
        ({"log": True, "camera": "cam"}, "exactly one of --images, --camera and --log"),
        ({"camera": "cam", "since": NOON}, "give them with --log"),
        ({"camera": "nix"}, "no such camera; expected one of cam"),
        ({"log": True, "rate": 1.5}, "--rate 1.5: expected a number between 0 and 1"),
    ],
)
def test_contradictions_are_told_before_anything_is_read(settings, asked, words):
    with pytest.raises(SettingsError, match=words):
        said(settings, **asked)


def test_without_a_log_nothing_comes_from_it(settings):
    with pytest.raises(LogError, match="there is no inspection log"):
        said(settings, log=True)
