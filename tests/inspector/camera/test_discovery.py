import os
import signal

import pytest

from inspector.camera import discovery
from inspector.camera.discovery import SEARCH_PATH, choose, claim, describe, harvester, probe, producers
from inspector.errors import CameraError, CameraSetupError
from inspector.settings import Genicam


def test_probe_lists_the_cameras_of_a_producer(viky):
    (producer,) = probe(viky)
    assert (producer.path, producer.problem) == (viky, "")
    assert [d.serial for d in producer.devices] == ["0", "1", "2"]
    first = producer.devices[0]
    assert (first.vendor, first.model, first.access) == ("Machine Vision Games Ltd.", "Viky", "free")
    assert set(first.pixel_formats) == {"RGBa8", "Mono8"}


def test_probe_uses_the_search_path_and_names_a_file_that_is_no_producer(viky, tmp_path, monkeypatch):
    (tmp_path / "junk.cti").write_text("not a library")
    monkeypatch.setenv(SEARCH_PATH, f"{tmp_path}{os.pathsep}{viky.parent}")
    bad, good = probe()
    assert (bad.path.name, bad.devices) == ("junk.cti", ())
    assert "junk.cti" in bad.problem
    assert len(good.devices) == 3


def test_probe_survives_a_producer_that_crashes_or_hangs(viky, monkeypatch):
    monkeypatch.setattr(discovery, "PROBE_LIMIT_S", 0.01)
    assert probe(viky)[0].problem == "no answer within 0.01 s"
    monkeypatch.setattr(discovery, "PROBE_LIMIT_S", 30.0)
    monkeypatch.setattr(discovery.sys, "executable", "/bin/false")
    assert "ended with status 1" in probe(viky)[0].problem


def test_a_missing_producer_is_named(tmp_path, monkeypatch):
    with pytest.raises(CameraSetupError, match=r"camera\.genicam\.producer: .*vendor\.cti: no such file"):
        producers(tmp_path / "vendor.cti")
    monkeypatch.delenv(SEARCH_PATH, raising=False)
    with pytest.raises(CameraSetupError, match=rf"no GenTL producer: {SEARCH_PATH} is not set"):
        producers(None)
    monkeypatch.setenv(SEARCH_PATH, str(tmp_path))
    with pytest.raises(CameraSetupError, match=rf"{SEARCH_PATH} no \.cti file in {tmp_path}"):
        producers(None)


def test_a_camera_that_is_not_there_is_answered_with_those_that_are(viky):
    with harvester([viky]) as (found, complaints), pytest.raises(CameraError) as error:
        choose(found, complaints, Genicam(serial="4711"))
    assert not isinstance(error.value, CameraSetupError)
    says = ["camera.genicam.serial = '4711'", "no such camera", "serial 0 (free)", "serial 2 (free)"]
    assert all(part in str(error.value) for part in says)


def test_a_producer_that_does_not_load_is_part_of_the_answer(tmp_path):
    (tmp_path / "junk.cti").write_text("not a library")
    with (
        harvester([tmp_path / "junk.cti"]) as (found, complaints),
        pytest.raises(CameraError, match=r"cameras found: none \(while searching: .*junk\.cti"),
    ):
        choose(found, complaints, Genicam(user_id="left"))


def test_a_model_that_is_there_three_times_is_ambiguous(viky):
    with (
        harvester([viky]) as (found, complaints),
        pytest.raises(CameraSetupError, match=r"model = 'Viky': 3 cameras match: .*choose one by serial"),
    ):
        choose(found, complaints, Genicam(model="Viky"))


def test_a_camera_in_use_is_refused_and_ctrl_c_stays_what_it_was(viky):
    before = signal.getsignal(signal.SIGINT)
    with harvester([viky]) as (found, complaints):
        info = choose(found, complaints, Genicam(serial="2"))
        claim(found, info)
        with pytest.raises(CameraError, match=r"serial 2 \(busy\): in use by another program") as error:
            claim(found, info)
        assert not isinstance(error.value, CameraSetupError)
        assert describe(info).access == "busy"
    assert signal.getsignal(signal.SIGINT) is before
