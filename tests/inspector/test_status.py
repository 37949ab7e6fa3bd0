"""What a running daemon tells of itself: `inspector status` and the metrics, against what the PLC saw."""

import contextlib
import errno
import json
import re
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

from inspector import inquiry
from inspector.errors import InspectorError
from inspector.inquiry import NAME, Inquiries, _short, ask
from inspector.metrics import HOST
from tests.station import camera, until

PASS = 1
METRICS = "[metrics]\nenabled = true\nport = {port}"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def state(station):
    """None while no daemon answers."""
    try:
        return ask(station.data)["state"]
    except InspectorError:
        return None


def test_status_and_metrics_tell_what_the_plc_has_seen(station, plc):
    port = free_port()
    station.write(camera(), more=METRICS.format(port=port))
    station.start()
    until(lambda: plc.status() & 1, "READY")
    plc.set_registers(205, [0])
    for sequence in range(1, 6):
        plc.trigger(sequence, part=40 + sequence)
        until(lambda s=sequence: (s, PASS) in plc.verdicts(), f"verdict {sequence}", 30)
        plc.set_registers(205, [sequence])
    until(lambda: ask(station.data)["cameras"][0]["acknowledged"] == 5, "the ack", 10)

    done = station.command("status", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    now = json.loads(done.stdout)
    one = now["cameras"][0]
    assert (now["state"], now["problems"], one["ready"]) == ("inspecting", [], True)
    assert one["verdicts"] == {"PASS": 5, "REJECT": 0, "FAULT": 0}
    assert (one["last"]["sequence"], one["last"]["part_id"], one["last"]["verdict"]) == (5, 45, "PASS")
    assert one["latency_ms"]["of"] == 5
    assert 0 < one["latency_ms"]["p50"] <= one["latency_ms"]["p99"] <= one["latency_ms"]["max"]
    assert one["model"]["threshold"] == 1e6
    assert one["model"]["where"] == "cpu, float32"
    assert now["plc"]["connected"]
    assert now["plc"]["address"] == f"127.0.0.1:{plc.port}"
    assert (now["log"]["ok"], now["disk"]["ok"], now["frames"]["ok"]) == (True, True, True)
    assert now["disk"]["free_mib"] > 1

    page = station.command("status")
    assert page.returncode == 0
    for part in (
        "inspecting",
        "5 pass, 0 reject, 0 fault",
        "p99",
        "threshold 1e+06",
        "connected to",
        "MiB free",
    ):
        assert part in page.stdout

    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    for line in (
        'inspector_state{state="inspecting"} 1.0',
        'inspector_verdicts_total{camera="cam",verdict="PASS"} 5.0',
        'inspector_latency_seconds_count{camera="cam"} 5.0',
        'inspector_latency_seconds_bucket{camera="cam",le="+Inf"} 5.0',
        'inspector_ready{camera="cam"} 1.0',
        "inspector_plc_connected 1.0",
        "inspector_log_ok 1.0",
    ):
        assert line in text.splitlines(), line
    assert stat.S_IMODE((station.data / NAME).stat().st_mode) == 0o660

    station.kill()
    gone = station.command("status")
    assert gone.returncode == 1
    assert "no inspector runs on this station" in gone.stderr
    assert "Traceback" not in gone.stderr
    station.start()  # the socket of the killed daemon is in its way no more than its lock
    until(lambda: state(station) == "inspecting", "status again")
    assert station.stop() == 0
    assert not (station.data / NAME).exists()


def test_people_who_ask_and_hang_up_or_never_read_delay_no_verdict(station, plc, monkeypatch):
    station.write(camera())
    station.start()
    until(lambda: plc.status() & 1, "READY")
    stop = threading.Event()

    def pester():
        while not stop.is_set():
            with socket.socket(socket.AF_UNIX) as asker:
                asker.connect(NAME)

    monkeypatch.chdir(station.data)  # a Unix address is short
    held = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    for one in held:
        one.connect(NAME)  # and never reads
    pesterer = threading.Thread(target=pester)
    pesterer.start()
    try:
        for sequence in range(1, 11):
            plc.trigger(sequence)
            until(lambda s=sequence: (s, PASS) in plc.verdicts(), f"verdict {sequence}", 30)
    finally:
        stop.set()
        pesterer.join()
        for one in held:
            one.close()
    assert plc.verdicts() == [(sequence, PASS) for sequence in range(1, 11)]

    def told():
        with contextlib.suppress(InspectorError):  # those who hung up are still in the queue
            return ask(station.data)["cameras"][0]["verdicts"]["PASS"] == 10

    until(told, "status", 30)


def test_a_metrics_port_that_is_taken_costs_the_metrics_not_the_line(station, plc):
    station.write(camera(), more=METRICS.format(port=plc.port))
    station.start()
    until(lambda: plc.status() & 1, "READY")
    assert "no metrics: the port of [metrics] is taken" in station.said()
    plc.trigger(1)
    until(lambda: (1, PASS) in plc.verdicts(), "a verdict", 30)


def test_a_metrics_port_that_only_root_may_open_is_told_as_such():
    """Told of a taken port first, so that all is imported while folders of root alone can still be read."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        start = (
            "import os; from inspector.metrics import Exporter; from inspector.settings import Metrics\n"
            f"Exporter(Metrics(enabled=True, port={taken.getsockname()[1]}), None).start()\n"
            "if os.geteuid() == 0: os.setuid(65534)\n"
            "Exporter(Metrics(enabled=True, port=80), None).start()"
        )
        done = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=True)
    assert "is taken; choose another" in done.stdout + done.stderr
    assert "is not this user's to open; choose one above 1023" in done.stdout + done.stderr


def test_a_deep_folder_and_a_broken_snapshot_can_be_asked_again(tmp_path):
    folder = tmp_path / ("deep" * 20) / ("deeper" * 20)
    folder.mkdir(parents=True)
    answers = iter([{"score": float("nan")}, {"state": "inspecting"}])
    inquiries = Inquiries(folder, lambda: next(answers))
    inquiries.start()
    with pytest.raises(InspectorError, match="ask again"):
        ask(folder)
    assert ask(folder) == {"state": "inspecting"}
    inquiries.close()
    started = time.monotonic()
    with pytest.raises(InspectorError, match="no inspector runs on this station"):
        ask(folder)
    assert time.monotonic() - started < 30


def test_a_daemon_that_hangs_is_told_from_one_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(NAME)
        deaf.listen()
        with pytest.raises(InspectorError, match="does not answer within"):
            ask(tmp_path)
    with pytest.raises(InspectorError, match="no inspector runs"):
        ask(tmp_path / "nowhere")


@pytest.mark.parametrize("said", [b'{"state": "insp', b"\xff\xfe rubbish", b"[]", b'{"state": "inspecting"}'])
def test_what_is_no_whole_answer_is_told_without_a_traceback(station, said):
    station.write(camera())
    with _short(station.data) as path, socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()

        def answer():
            asker, _ = other.accept()
            with asker:
                asker.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        done = station.command("status")
        thread.join()
    assert done.returncode == 1
    assert re.match(r"inspector: (what answers at .* is no inspector|the daemon is .* restart)", done.stderr)
    assert "Traceback" not in done.stderr


def test_an_answer_that_trickles_in_is_not_waited_for_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(inquiry, "PATIENCE_S", 0.4)
    with _short(tmp_path) as path, socket.socket(socket.AF_UNIX) as slow:
        slow.bind(str(path))
        slow.listen()

        def trickle():
            asker, _ = slow.accept()
            with asker, contextlib.suppress(OSError):
                for _ in range(40):
                    asker.sendall(b" ")
                    time.sleep(0.1)

        thread = threading.Thread(target=trickle)
        thread.start()
        started = time.monotonic()
        with pytest.raises(InspectorError, match="does not answer within"):
            ask(tmp_path)
        assert time.monotonic() - started < 2
        thread.join()


def test_running_out_of_file_descriptors_does_not_end_the_answers(tmp_path, monkeypatch):

    class Listener(socket.socket):
        refusals = 2

        def accept(self):
            if Listener.refusals:
                Listener.refusals -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    monkeypatch.setattr(inquiry.socket, "socket", Listener)
    inquiries = Inquiries(tmp_path, lambda: {"state": "inspecting"})
    inquiries.start()
    assert ask(tmp_path) == {"state": "inspecting"}
    inquiries.close()
    assert Listener.refusals == 0
