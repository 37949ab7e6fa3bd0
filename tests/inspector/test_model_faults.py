"""A model that is wrong, or that fails while it runs: FAULT with its reason, never a pass."""

import shutil
import time

import pytest

from inspector.inquiry import ask
from inspector.model import bundle as bundles
from inspector.plc.registers import Status
from tests.inspector.test_supervision import Systemd
from tests.station import camera, until, write_bundle

PASS, REJECT, FAULT = 1, 2, 3
READY, MODEL_OK = Status.READY, Status.MODEL_OK


def cut_short(station):
    file = bundles.active(station.data / "models" / "part").path / bundles.WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])


def gone(station):
    shutil.rmtree(station.data / "models")


def another_answer(station):
    write_bundle(station.data / "models" / "part", self_test=(1.0,) * 65)


def no_gpu(station):
    station.write(camera(), more='device = "cuda:7"')


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (cut_short, "cut short"),
        (gone, "inspector train"),
        (another_answer, "self-test of bundle"),
        (no_gpu, "CUDA devices"),
    ],
)
def test_a_model_that_cannot_be_had_is_fault_on_the_line_then_a_message_and_a_new_start(
    station, plc, tmp_path, spoil, said
):
    """Never READY, neither to the PLC nor to systemd."""
    station.write(camera())
    spoil(station)
    systemd = Systemd(tmp_path)
    started = time.monotonic()
    station.start(NOTIFY_SOCKET=str(systemd.path), INSPECTOR_STATION__STARTUP_TIMEOUT_S="8")
    until(lambda: plc.status() & Status.CAMERA_OK, "the camera")
    plc.trigger(1)
    until(lambda: plc.verdicts(), "a verdict", 30)
    assert plc.status() & (READY | MODEL_OK | Status.FAULT) == Status.FAULT
    now = ask(station.data)
    assert now["state"] == "fault"
    assert said in now["problems"][0]
    # its messages are taken as they come: a socket that nobody reads from takes eleven
    until(lambda: systemd.told() and station.daemon.poll() is not None, "the end", 60)
    assert station.daemon.returncode == 1
    assert time.monotonic() - started > 8
    assert plc.verdicts()[0] == (1, FAULT)
    last = station.said().splitlines()[-1]
    assert last.startswith("inspector: recipe 'part': ")
    assert said in last
    assert "Traceback" not in station.said()
    with station.log() as log:
        assert log.inspections()[-1].reason == "model_error"
        assert any(e.kind == "model" and said in e.message for e in log.events(limit=None))
    told = systemd.told()
    assert not any("READY=1" in one for one in told)
    assert any(one.startswith("STATUS=FAULT: camera 'cam': ") and said in one for one in told)


def test_a_model_that_fails_while_it_runs_is_fault_until_it_passes_its_self_test(station, plc):
    """No other device is taken in its place: the threshold would not hold there."""
    station.write(camera())
    station.start("tests.sabotage")
    sequence, expected, reasons = 0, [], []
    for how, reason, said in (
        ("memory", "model_error", "out of memory"),
        ("gpu memory", "model_error", "out of memory"),
        ("library", "model_error", "TypeError"),
        ("nan", "score_not_finite", "the score of a part is nan"),
    ):
        until(lambda: plc.status() & READY, "READY")
        (station.root / "sabotage").write_text(how)
        sequence += 1
        plc.trigger(sequence)
        until(lambda s=sequence: (s, FAULT) in plc.verdicts(), "FAULT", 30)
        until(lambda: not plc.status() & (READY | MODEL_OK), "READY falls", 10)
        time.sleep(1.5)
        assert not plc.status() & READY, "READY does not come back by itself while the cause is there"
        assert ask(station.data)["state"] == "fault"
        (station.root / "sabotage").unlink()
        until(lambda: plc.status() & READY, "READY again", 30)
        with station.log() as log:
            passed, failed, *_ = (e.message for e in log.events(limit=None) if e.kind == "model")
        assert said in failed
        assert "passes its self-test again" in passed
        sequence += 1
        plc.trigger(sequence)
        until(lambda s=sequence: (s, PASS) in plc.verdicts(), "a pass again", 30)
        expected += [FAULT, PASS]
        reasons += [reason, None]
    assert [verdict for _, verdict in plc.verdicts()] == expected
    with station.log() as log:
        assert [r.reason for r in reversed(log.inspections())] == reasons
    assert ask(station.data)["cameras"][0]["model"]["where"] == "cpu, float32"


def test_a_model_calibrated_on_another_device_passes_nothing(station, plc):
    write_bundle(station.data / "models" / "part", device="cuda:NVIDIA H100")
    station.write(camera())
    station.start()
    until(lambda: plc.status() & Status.CAMERA_OK, "the camera")
    plc.trigger(1)
    until(lambda: plc.verdicts(), "a verdict", 30)
    assert plc.verdicts() == [(1, FAULT)]
    assert plc.status() & (READY | Status.UNCALIBRATED) == Status.UNCALIBRATED
    assert "was calibrated on 'cuda:NVIDIA H100' and runs on 'cpu'" in ask(station.data)["problems"][0]
