"""The daemon as the PLC and the log see it: a real process, an independent Modbus server."""

import os
import signal
import sqlite3
import time
from itertools import pairwise

import psutil
import pytest

from inspector.plc.registers import Status
from tests.conftest import both
from tests.station import REJECTING, camera, until, write_bundle

PASS, REJECT, FAULT = 1, 2, 3
READY = Status.READY


@pytest.fixture
def station(quick_station):
    return quick_station


def ready(plc, base=100):
    return lambda: plc.status(base) & READY


def camera_process(station):
    children = psutil.Process(station.daemon.pid).children()
    return next(child for child in children if "inspector.camera.child" in child.cmdline())


def start(station, plc, **keys):
    station.write(camera(**keys))
    station.start()
    until(ready(plc), "READY")


@both
def test_every_trigger_gets_its_verdict_in_one_write_with_the_row_committed_before(station, plc):
    start(station, plc)
    for sequence in range(1, 21):
        plc.trigger(sequence, part=70000 + sequence)
        until(lambda s=sequence: (s, PASS) in plc.verdicts(), f"verdict {sequence}", 30)
    beats = [w.values[0] for w in plc.writes() if w.address == 100]
    assert station.stop() == 0
    assert plc.verdicts() == [(s, PASS) for s in range(1, 21)]
    assert {w.address for w in plc.writes()} == {100}
    assert {len(w.values) for w in plc.writes()} == {2, 13}, "only heartbeats and whole blocks"
    assert len(set(beats)) > 3, "the heartbeat counts"
    blocks = [w.values for w in plc.writes() if len(w.values) == 13 and w.values[2]]
    assert [(b[4] << 16) + b[5] for b in blocks] == [70000 + s for s in range(1, 21)]
    assert {b[10] for b in blocks} == {7}
    with station.log() as log:
        rows = log.inspections(limit=None)
        assert [r.sequence for r in reversed(rows)] == list(range(1, 21))
        assert all(r.part_id == 70000 + r.sequence and r.score <= r.threshold for r in rows)
        for row in rows:
            record = log.get(row.id)
            assert record.frame is not None
            assert record.heatmap is not None


def test_a_score_above_the_threshold_rejects(station, plc):
    write_bundle(station.data / "models" / "part", REJECTING)
    start(station, plc)
    plc.trigger(1)
    until(lambda: plc.verdicts(), "a verdict", 30)
    assert plc.verdicts() == [(1, REJECT)]


def test_an_uncalibrated_model_passes_nothing_and_says_so(station, plc):
    write_bundle(station.data / "models" / "part", threshold=None)
    station.write(camera())
    station.start()
    until(lambda: plc.status() & Status.UNCALIBRATED, "UNCALIBRATED")
    until(lambda: plc.status() & Status.CAMERA_OK, "the camera")
    assert not plc.status() & READY
    plc.trigger(1)
    until(lambda: plc.verdicts(), "a verdict", 30)
    assert plc.verdicts() == [(1, FAULT)]
    with station.log() as log:
        assert log.inspections()[0].reason == "uncalibrated"


def test_a_model_calibrated_for_another_precision_passes_nothing(station, plc):
    write_bundle(station.data / "models" / "part", precision="float16")
    station.write(camera())
    station.start()
    until(lambda: plc.status() & Status.CAMERA_OK, "the camera")
    assert plc.status() & Status.UNCALIBRATED
    plc.trigger(1)
    until(lambda: plc.verdicts(), "a verdict", 30)
    assert plc.verdicts() == [(1, FAULT)]


def test_a_folder_played_once_gives_a_row_a_verdict_and_a_frame_for_each_image_and_ends(station, plc):
    station.write(camera(trigger="camera", ring_slots=8, folder={"repeat": False, "fps": 10.0}))
    station.start()
    assert station.daemon.wait(timeout=60) == 0, station.said()
    assert plc.verdicts() == [(s, PASS) for s in range(1, 9)]
    with station.log() as log:
        rows = log.inspections(limit=None)
        assert sorted(r.source for r in rows) == [f"{i:03}.png" for i in range(8)]
        assert all(log.get(r.id).heatmap and log.get(r.id).frame for r in rows)


def test_numbering_goes_on_after_a_restart(station, plc):
    station.write(camera(trigger="camera", ring_slots=8, folder={"repeat": False, "fps": 20.0}))
    for _ in range(2):
        station.start()
        assert station.daemon.wait(timeout=60) == 0, station.said()
    assert [s for s, _ in plc.verdicts()] == list(range(1, 17))


@both
def test_a_pass_from_before_a_restart_is_gone_before_the_heart_beats_again(station, plc):
    start(station, plc)
    plc.trigger(1)
    until(lambda: plc.verdicts(), "a verdict", 30)
    station.kill()
    before = len(plc.writes())
    assert plc.registers(100, 4)[2:] == [PASS, 1]
    station.start()
    until(lambda: len(plc.writes()) > before, "the first write after the restart")
    assert plc.writes()[before].values[2:4] == [0, 1]


@both
def test_a_part_in_flight_during_a_restart_is_fault(station, plc):
    start(station, plc)
    plc.trigger(1)
    until(lambda: plc.verdicts(), "a verdict", 30)
    station.kill()
    plc.trigger(2, part=9)
    station.start()
    until(lambda: len(plc.verdicts()) == 2, "the answer to what was in flight")
    assert plc.verdicts() == [(1, PASS), (2, FAULT)]
    with station.log() as log:
        assert log.inspections()[0].reason == "restarted"


def test_every_trigger_of_the_time_without_a_daemon_is_fault(station, plc):
    start(station, plc)
    plc.trigger(1, part=7)
    until(lambda: plc.verdicts(), "a verdict", 30)
    station.kill()
    for number in (2, 3, 4):
        plc.trigger(number, part=number)
    station.start()
    until(lambda: len(plc.verdicts()) == 4, "all answers")
    assert plc.verdicts() == [(1, PASS), (2, FAULT), (3, FAULT), (4, FAULT)]
    with station.log() as log:
        rows = log.inspections()[:3]
    assert [(row.sequence, row.part_id, row.reason) for row in rows] == [
        (4, 4, "restarted"),
        (3, 0, "restarted"),
        (2, 0, "restarted"),
    ]


def test_a_killed_camera_process_is_respawned_and_nothing_passes_in_between(station, plc):
    start(station, plc, trigger="camera", silence_s=2.0)
    until(lambda: len(plc.verdicts()) > 5, "verdicts", 20)
    child, before = camera_process(station), len(plc.verdicts())
    os.kill(child.pid, signal.SIGKILL)
    until(lambda: any(v == FAULT for _, v in plc.verdicts()[before:]), "FAULT", 30)
    until(lambda: not plc.status() & Status.CAMERA_OK, "CAMERA_OK falls", 30)
    until(lambda: plc.verdicts()[-1][1] == PASS, "passes again", 30)
    until(ready(plc), "READY again", 30)
    assert station.stop() == 0
    sequences = [s for s, _ in plc.verdicts()]
    assert sequences == list(range(1, len(sequences) + 1)), "every sequence once, none left out"
    with station.log() as log:
        down, opened = (
            next(e for e in log.events(limit=None) if e.kind == kind)
            for kind in ("camera_down", "camera_opened")
        )
        assert down.time < opened.time
        between = [r for r in log.inspections(limit=None) if down.time <= r.time < opened.time]
        assert between
        assert {r.verdict for r in between} == {FAULT}


def test_a_trigger_without_a_camera_is_answered_fault_at_once(station, plc):
    start(station, plc, silence_s=2.0)
    child = camera_process(station)
    child.suspend()
    until(lambda: not plc.status() & Status.CAMERA_OK, "CAMERA_OK falls", 20)
    plc.trigger(1)
    until(lambda: plc.verdicts(), "a verdict", 30)
    assert plc.verdicts()[0] == (1, FAULT)


@both
def test_a_trigger_while_busy_is_counted_and_answered_fault(station, plc):
    start(station, plc, deadline_ms=5000, folder={"fps": 20.0})
    child = camera_process(station)
    child.suspend()  # the part stays in work
    plc.trigger(1)
    until(lambda: plc.status() & Status.BUSY, "BUSY", 30)
    plc.trigger(2)
    until(lambda: (2, FAULT) in plc.verdicts(), "FAULT for the overrun", 30)
    child.resume()
    until(lambda: len(plc.verdicts()) == 2, "the first part's verdict", 30)
    assert plc.verdicts() == [(2, FAULT), (1, FAULT)], "its picture was taken when the second part had come"
    assert plc.registers(100, 13)[12] == 1
    plc.trigger(3)
    until(lambda: (3, PASS) in plc.verdicts(), "the third part's verdict", 30)


def test_a_frame_that_never_comes_is_fault_at_the_deadline(station, plc):
    start(station, plc, deadline_ms=300, silence_s=20.0)
    child = camera_process(station)
    child.suspend()
    plc.trigger(1)
    until(lambda: plc.verdicts(), "a verdict", 30)
    assert plc.verdicts() == [(1, FAULT)]
    with station.log() as log:
        assert log.inspections()[0].reason == "no_frame"
    child.resume()
    time.sleep(0.5)
    assert plc.verdicts() == [(1, FAULT)], "the late frame changes nothing"


@both
def test_a_plc_that_goes_away_finds_no_pass_that_is_too_old_and_the_station_goes_on(station, plc):
    start(station, plc, trigger="camera", deadline_ms=400, folder={"fps": 10.0})
    until(lambda: len(plc.verdicts()) > 3, "verdicts", 20)
    plc.stop()
    time.sleep(1.5)
    seen = len(plc.verdicts())
    plc.start()
    until(lambda: len(plc.verdicts()) > seen + 3, "verdicts after the outage", 20)
    assert station.stop() == 0
    with station.log() as log:
        rows = log.inspections(limit=None)
        told = [e.severity for e in reversed(log.events(limit=None)) if e.kind == "plc"]
        assert (told[0], told[-1]) == ("error", "info")
    known = {(r.sequence, r.verdict): r for r in rows}
    assert all(verdict in known for verdict in plc.verdicts())
    late = [s for s, v in plc.verdicts()[seen:] if v == PASS and known[s, v].latency_ms > 400]
    assert late == []
    assert {r.sequence for r in rows} == {s for s, _ in plc.verdicts()}, "no part is left without an answer"
    assert FAULT in [v for _, v in plc.verdicts()[seen:]], "those that went by meanwhile are too old to pass"
    blocks = [w.values for w in plc.writes() if len(w.values) == 13]
    fresh = [now for before, now in pairwise(blocks) if now[3] == before[3] and before[2] and not now[2]]
    assert len(fresh) <= 1, "only the verdict from before the outage is taken out of the registers"


@both
def test_kill_9_at_any_moment_leaves_no_verdict_on_the_wire_without_its_row(station, plc):
    rounds = int(os.environ.get("INSPECTOR_TEST_KILLS", "4"))
    station.write(camera(trigger="camera", folder={"fps": 100.0}, deadline_ms=5000))
    for number in range(rounds):
        seen = len(plc.verdicts())
        station.start()
        until(lambda seen=seen: len(plc.verdicts()) > seen + 3, "verdicts")
        time.sleep((number * 0.137) % 0.5)
        station.kill()
    with station.log() as log:
        rows = {(r.sequence, r.verdict) for r in log.inspections(limit=None)}
    assert len(plc.verdicts()) > 4 * rounds
    assert [v for v in plc.verdicts() if v not in rows] == []


@both
def test_coils_follow_the_registers_and_go_out_with_the_daemon(station, plc):
    start(station, plc, coils={"passed": 3, "rejected": 9}, deadline_ms=3000)
    assert plc.coils(3, 9) == [False, False]
    plc.trigger(1)
    until(lambda: plc.coils(3, 9) == [True, False], "the pass coil", 30)
    camera_process(station).suspend()
    plc.trigger(2)
    plc.trigger(3)
    until(lambda: plc.coils(3, 9) == [False, True], "the reject coil for a FAULT", 30)
    assert station.stop() == 0
    assert plc.coils(3, 9) == [False, False]


def test_a_pass_coil_from_before_a_kill_is_out_before_the_heart_beats_again(station, plc):
    start(station, plc, coils={"passed": 3, "rejected": 4})
    plc.trigger(1)
    until(lambda: plc.coils(3) == [True], "the pass coil", 30)
    station.kill()
    before = len(plc.writes())
    station.start()
    until(lambda: any(len(w.values) == 2 for w in plc.writes()[before:]), "a heartbeat")
    assert plc.coils(3, 4) == [False, False]


@both
def test_a_trigger_that_waited_out_an_outage_is_late_not_inspected(station, plc):
    start(station, plc, deadline_ms=1500)
    plc.trigger(1)
    until(lambda: (1, PASS) in plc.verdicts(), "a verdict", 30)
    plc.stop()
    time.sleep(0.3)
    plc.trigger(2)
    time.sleep(2.5)
    plc.start()
    until(lambda: len(plc.verdicts()) > 1, "the answer", 20)
    assert plc.verdicts()[1:] == [(2, FAULT)]
    plc.trigger(3)
    until(lambda: (3, PASS) in plc.verdicts(), "the next part", 30)


@both
def test_a_plc_that_lost_its_memory_is_answered_from_its_first_trigger(station, plc):
    start(station, plc)
    for sequence in (1, 2):
        plc.trigger(sequence)
        until(lambda s=sequence: (s, PASS) in plc.verdicts(), f"verdict {sequence}", 30)
    plc.stop()
    plc.forget()
    plc.trigger(2)  # its new program comes to where the old one was
    plc.start()
    until(lambda: len(plc.verdicts()) > 2, "an answer to the new trigger", 20)
    assert plc.verdicts()[2] == (2, FAULT)
    plc.trigger(3)
    until(lambda: (3, PASS) in plc.verdicts(), "the next part", 30)


def test_ready_comes_back_by_itself_when_the_log_does_and_its_faults_get_their_rows(station, plc):
    start(station, plc)
    other = sqlite3.connect(station.data / "inspector.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    plc.trigger(1)
    until(lambda: plc.verdicts(), "a verdict while the log is locked", 30)
    assert plc.verdicts() == [(1, FAULT)]
    assert not plc.status() & Status.LOG_OK
    other.execute("ROLLBACK")
    until(lambda: plc.status() & READY and plc.status() & Status.LOG_OK, "READY again", 30)
    with station.log() as log:
        assert [(r.sequence, r.verdict, r.reason) for r in log.inspections()] == [(1, FAULT, "storage")]
    plc.trigger(2)
    until(lambda: (2, PASS) in plc.verdicts(), "the next part", 30)


def test_a_second_daemon_on_the_same_station_does_not_touch_the_line(station, plc):
    start(station, plc)
    before = plc.registers(100, 13)[2:]
    second = station.command("run")
    assert second.returncode == 1
    assert "another inspector runs on this station" in second.stderr
    assert "Traceback" not in second.stderr
    assert plc.registers(100, 13)[2:] == before


def test_sigterm_finishes_the_part_in_hand(station, plc):
    start(station, plc, deadline_ms=10_000, silence_s=20.0)
    child = camera_process(station)
    child.suspend()
    plc.trigger(1)
    until(lambda: plc.status() & Status.BUSY, "BUSY", 30)
    station.daemon.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    station.daemon.send_signal(signal.SIGTERM)  # an impatient operator must not cut it short
    child.resume()
    assert station.daemon.wait(timeout=20) == 0
    assert plc.verdicts() == [(1, PASS)]
    with station.log() as log:
        assert log.events()[0].kind == "stopped"


@both
def test_a_plc_that_refuses_writes_does_not_flood_the_log(station, plc):
    start(station, plc, deadline_ms=300)
    plc.bank.read_only = True
    plc.trigger(1)
    time.sleep(2)
    plc.bank.read_only = False
    until(lambda: plc.verdicts(), "the answer", 30)
    assert plc.verdicts() == [(1, FAULT)]
    with station.log() as log:
        assert len(log.inspections(limit=None)) <= 2
        assert len([e for e in log.events(limit=None) if e.kind == "plc"]) <= 2
