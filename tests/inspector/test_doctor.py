from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import genicam
import numpy as np
import pytest
from rich.console import Console

from inspector.doctor import FAIL, OK, WARN, Finding, examine, isolated, report
from inspector.errors import BundleError
from inspector.model import bundle as bundles
from inspector.model.network import build
from inspector.model.records import Architecture, Preprocessing, Scoring, Threshold
from inspector.plc.registers import PlcBlock
from inspector.plc.simulator import Simulator
from inspector.probes import cameras, machine, models, plc, storage
from inspector.settings import Settings

VIKY = Path(genicam.__file__).parent / "viky.cti"
SMALL = Architecture(size=32, patch=8, dim=32, depth=1, heads=2, slots=4)


@pytest.fixture(autouse=True)
def no_search_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENICAM_GENTL64_PATH", raising=False)


def _settings(data: Path, **tables: Any) -> Settings:
    camera = {"name": "cam1", "recipe": "flange", "folder": {"path": data / "parts"}}
    defaults: dict[str, Any] = {
        "station": {"data": data},
        "camera": [camera],
        "recipe": {"flange": {}},
        "plc": {"enabled": False},
        "engine": {"device": "cpu"},
    }
    return Settings(**defaults | tables)


def _genicam(data: Path, **keys: Any) -> Settings:
    return _settings(data, camera=[{"name": "cam1", "recipe": "flange", "genicam": keys}])


def _by_subject(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


class TestReport:
    findings = (
        Finding(OK, "one", "is fine"),
        Finding(WARN, "two", "is slow " * 40, "replace it"),
        Finding(FAIL, "three", "is\nbroken", "repair [it]"),
    )

    def test_without_a_terminal_every_finding_is_one_line(self) -> None:
        out = io.StringIO()
        assert report(self.findings, Console(file=out, width=40)) == 1
        lines = out.getvalue().splitlines()
        assert lines[0].split() == ["ok", "one", "is", "fine"]
        assert lines[1].startswith("warn")
        assert lines[1].endswith("is slow → replace it")
        assert lines[2].startswith("fail")
        assert lines[2].endswith("is broken → repair [it]")
        assert lines[3:] == ["1 ok, 1 warn, 1 fail"]

    def test_on_a_terminal_long_text_wraps_and_nothing_is_cut(self) -> None:
        out = io.StringIO()
        report(self.findings, Console(file=out, width=50, force_terminal=True, color_system=None))
        text = out.getvalue()
        assert max(len(line) for line in text.splitlines()) <= 50
        assert text.split().count("slow") == 40
        assert "repair [it]" in text

    def test_warnings_alone_do_not_fail(self) -> None:
        assert report(self.findings[:2], Console(file=io.StringIO())) == 0

    def test_findings_are_shown_as_they_come(self) -> None:
        out = io.StringIO()

        def findings() -> Iterator[Finding]:
            yield Finding(OK, "one", "first")
            assert "first" in out.getvalue()
            yield Finding(OK, "two", "second")

        assert report(findings(), Console(file=out)) == 0


class TestIsolation:
    def test_what_a_probe_raises_is_its_last_finding(self) -> None:
        def probe() -> Iterator[Finding]:
            yield Finding(OK, "gpu", "seen")
            raise OSError("driver gone")

        first, last = isolated("gpu", probe)
        assert first.status is OK
        assert (last.status, last.subject) == (FAIL, "gpu")
        assert "OSError: driver gone" in last.message

    def test_our_own_errors_are_told_as_they_are(self) -> None:
        def probe() -> Iterator[Finding]:
            raise BundleError("bundle 12ab is altered; train again")
            yield

        assert list(isolated("model", probe)) == [
            Finding(FAIL, "model", "bundle 12ab is altered; train again")
        ]

    def test_a_station_where_much_is_wrong_gets_a_finding_for_each(self, tmp_path: Path) -> None:
        found = _by_subject(examine(_settings(tmp_path, engine={"device": "cuda:99"})))
        assert found["python"].status is OK
        assert found["torch"].status is OK
        assert found["SQLAlchemy"].status is OK
        assert "offers" in found["gpu"].message
        assert found["camera cam1"].status is FAIL
        assert found["plc"].status is WARN
        assert found["data folder"].status is OK
        assert found["fsync"].status in (OK, WARN)
        assert found["model flange"].status is FAIL


class TestMachine:
    def test_a_missing_shared_library_is_answered_with_its_debian_package(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        message = "libGL.so.1: cannot open shared object file: No such file or directory"
        (tmp_path / "needs_gl.py").write_text(f"raise ImportError({message!r})\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        finding = machine._library("needs_gl", "opencv-python")
        assert finding.status is FAIL
        assert message in finding.message
        assert finding.advice.startswith("apt install libgl1 ")

    def test_a_missing_module_is_answered_with_its_distribution(self) -> None:
        finding = machine._library("no_such_module_here", "harvesters")
        assert finding.status is FAIL
        assert finding.advice == "install it: pip install harvesters"

    def test_every_library_has_a_version(self, tmp_path: Path) -> None:
        for finding in machine.libraries(_settings(tmp_path)):
            assert finding.status is OK, finding
            assert finding.message[0].isdigit(), finding


class TestFolders:
    def _finding(self, data: Path) -> Finding:
        return next(iter(cameras.folders(_settings(data))))

    def test_images_are_counted(self, tmp_path: Path) -> None:
        (tmp_path / "parts" / "more").mkdir(parents=True)
        for name in ("a.png", "more/b.png"):
            cv2.imwrite(str(tmp_path / "parts" / name), np.zeros((4, 4), np.uint8))
        (tmp_path / "parts" / "truth.json").write_text("{}")
        finding = self._finding(tmp_path)
        assert finding.status is OK
        assert finding.message.endswith("2 images")

    def test_a_missing_and_an_empty_folder_fail(self, tmp_path: Path) -> None:
        assert "does not exist" in self._finding(tmp_path).message
        (tmp_path / "parts").mkdir()
        finding = self._finding(tmp_path)
        assert finding.status is FAIL
        assert "no images" in finding.message


class TestGenicam:
    def test_a_producers_devices_are_listed_with_their_formats(self, tmp_path: Path) -> None:
        findings = list(cameras.genicam(_genicam(tmp_path, producer=VIKY, model="no such model")))
        devices = [finding.message for finding in findings if finding.subject == "device"]
        assert len(devices) == 3
        assert any("Mono8" in message for message in devices)
        assert all("serial" in message for message in devices)
        last = findings[-1]
        assert (last.status, last.subject) == (FAIL, "camera cam1")
        assert "no such device" in last.message

    def test_the_stations_camera_is_found_by_its_serial(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GENICAM_GENTL64_PATH", f"{VIKY.parent}:{tmp_path / 'gone'}")
        serial = cameras.probe(VIKY)[0].devices[0].serial
        findings = list(cameras.genicam(_genicam(tmp_path, serial=serial)))
        assert findings[0].status is WARN
        assert "gone, which is no folder" in findings[0].message
        assert findings[-1].status is OK
        assert serial in findings[-1].message

    def test_a_file_that_is_no_producer_fails_its_line_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken = tmp_path / "broken.cti"
        broken.write_bytes(b"\x7fELF no library")
        monkeypatch.setenv("GENICAM_GENTL64_PATH", str(VIKY.parent))
        findings = list(cameras.genicam(_genicam(tmp_path, producer=broken, serial="1")))
        by_file = {f.message.split(".cti")[0]: f.status for f in findings if f.subject == "producer"}
        assert by_file == {str(broken.with_suffix("")): FAIL, str(VIKY.with_suffix("")): OK}

    def test_a_producer_that_crashes_its_process_is_a_finding(self, tmp_path: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler to build a crashing producer with")
        import subprocess

        crash = tmp_path / "crash.cti"
        source = "#include <stdlib.h>\n__attribute__((constructor)) static void go(void) { abort(); }\n"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-xc", "-", "-o", crash], input=source, text=True, check=True
        )
        findings = list(cameras.genicam(_genicam(tmp_path, producer=crash, serial="1")))
        assert (findings[0].status, findings[0].subject) == (FAIL, "producer")
        assert "signal 6" in findings[0].message

    def test_a_missing_producer_is_named(self, tmp_path: Path) -> None:
        (finding,) = cameras.genicam(_genicam(tmp_path, producer=tmp_path / "no.cti", serial="1"))
        assert finding.status is FAIL
        assert "no.cti" in finding.message

    def test_a_station_of_folders_needs_no_producer(self, tmp_path: Path) -> None:
        (finding,) = cameras.genicam(_settings(tmp_path))
        assert finding.status is OK


class TestPlc:
    def _settings(self, data: Path, port: int) -> Settings:
        return _settings(data, plc={"port": port, "heartbeat_timeout_s": 0.5, "timeout_ms": 1000})

    def test_a_living_plc_is_timed_and_nothing_is_written(self, tmp_path: Path) -> None:
        stop = threading.Event()
        with Simulator() as server:

            def beat() -> None:
                count = 0
                while not stop.wait(0.02):
                    count += 1
                    server.write_plc("camera", PlcBlock(heartbeat=count))

            thread = threading.Thread(target=beat)
            thread.start()
            try:
                found = _by_subject(plc.plc(self._settings(tmp_path, server.port)))
            finally:
                stop.set()
                thread.join()
            assert server.inspector_registers("camera") == [0] * 13
            assert server.heartbeat_age_s("camera") is None
        assert f"127.0.0.1:{server.port} answers in" in found["plc"].message
        assert found["plc cam1"].status is OK

    def test_a_heartbeat_that_stands_still_is_a_warning(self, tmp_path: Path) -> None:
        with Simulator() as server:
            found = _by_subject(plc.plc(self._settings(tmp_path, server.port)))
        assert found["plc cam1"].status is WARN
        assert "register 200" in found["plc cam1"].message

    def test_a_closed_port_fails(self, tmp_path: Path) -> None:
        with Simulator() as server:
            port = server.port
        (finding,) = plc.plc(self._settings(tmp_path, port))
        assert finding.status is FAIL
        assert "connection refused" in finding.message


class TestStorage:
    def test_a_good_folder_passes_and_is_left_as_it_was(self, tmp_path: Path) -> None:
        found = _by_subject(storage.storage(_settings(tmp_path / "data")))
        assert found["data folder"].status is OK
        assert "will be made" in found["data folder"].message
        assert "median of 20" in found["fsync"].message
        assert list(tmp_path.iterdir()) == []

    def test_a_place_where_nothing_can_be_written_fails(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        found = _by_subject(storage.storage(_settings(tmp_path / "file" / "data")))
        assert found["data folder"].status is FAIL
        assert "fsync" not in found

    def test_too_little_room_fails(self, tmp_path: Path) -> None:
        found = _by_subject(storage.storage(_settings(tmp_path, log={"min_free_mib": 10**9})))
        assert found["disk space"].status is FAIL
        assert "log.min_free_mib" in found["disk space"].message

    def test_memory_is_not_a_disk(self) -> None:
        if storage._filesystem(Path("/dev/shm")).message != "tmpfs, mounted at /dev/shm":
            pytest.skip("no tmpfs at /dev/shm")
        assert storage._filesystem(Path("/dev/shm")).status is WARN

    def test_a_slow_disk_is_a_warning_only_where_verdicts_wait_for_it(self) -> None:
        assert storage._flush([30.0] * 20, "FULL").status is WARN
        assert storage._flush([30.0] * 20, "NORMAL").status is OK


class TestModels:
    def _threshold(self, **changes: Any) -> Threshold:
        values: dict[str, Any] = {
            "value": 0.5, "target_rate": 0.01, "confidence": 0.95, "proven_rate": 0.01, "n": 300,
            "rank": 300, "method": "order-statistic", "device": "cpu", "precision": "float32",
            "created": "2025-01-01T00:00:00Z", "scores_sha256": "0" * 64, "source": "test",
        }  # fmt: skip
        return Threshold(**values | changes)

    def _finding(self, data: Path, threshold: Threshold | None) -> Finding:
        settings = _settings(data)
        recipe = settings.models / "flange"
        bundle = bundles.write(
            recipe,
            build(SMALL).state_dict(),
            SMALL,
            Preprocessing(size=SMALL.size),
            Scoring(),
            threshold=threshold,
            provenance={},
        )
        bundles.activate(recipe, bundle.id)
        *self.others, finding = models.models(settings)
        assert bundle.id[:12] in finding.message
        return finding

    def test_a_calibrated_model_on_its_own_device_passes(self, tmp_path: Path) -> None:
        finding = self._finding(tmp_path, self._threshold())
        assert finding.status is OK
        assert "on cpu, float32" in finding.message
        assert "300 parts" in finding.message

    def test_a_precision_that_the_cpu_lacks_is_a_warning(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self._finding(tmp_path, self._threshold()).status is OK
        assert self.others == []
        monkeypatch.setattr(models, "emulated", lambda *_: "many times as long as float32")
        assert self._finding(tmp_path, self._threshold()).status is OK
        assert [(one.status, one.message) for one in self.others] == [(WARN, "many times as long as float32")]

    def test_an_uncalibrated_model_fails(self, tmp_path: Path) -> None:
        finding = self._finding(tmp_path, None)
        assert finding.status is FAIL
        assert "inspector calibrate" in finding.message

    def test_a_model_calibrated_elsewhere_fails(self, tmp_path: Path) -> None:
        finding = self._finding(tmp_path, self._threshold(device="cuda:NVIDIA H100"))
        assert finding.status is FAIL
        assert "cuda:NVIDIA H100" in finding.message

    def test_too_few_parts_for_the_promised_rate_are_a_warning(self, tmp_path: Path) -> None:
        finding = self._finding(tmp_path, self._threshold(n=20, rank=20, proven_rate=0.14))
        assert finding.status is WARN
        assert "0.14" in finding.message

    def test_a_model_that_answers_its_self_test_wrongly_fails(self, tmp_path: Path) -> None:
        finding = self._finding(tmp_path, self._threshold(self_test=(1.0,) * 65))
        assert finding.status is FAIL
        assert "self-test" in finding.message

    def test_an_altered_model_fails(self, tmp_path: Path) -> None:
        self._finding(tmp_path, self._threshold())
        (weights,) = tmp_path.rglob("weights.safetensors")
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.chmod(0o644)
        weights.write_bytes(data)
        (finding,) = models.models(_settings(tmp_path))
        assert finding.status is FAIL
