"""The handshake as a PLC programmer relies on it, against two servers that share no code.

Register by register: test_registers.py. Connection and replies: plc/test_link.py and plc/test_servers.py.
Sequence logic against a model of the PLC: test_lane.py. Everything at once: `python -m tests.campaign`.
"""

import threading
import time
from collections import Counter
from itertools import pairwise

import pytest

from inspector.inquiry import ask
from inspector.plc.registers import Status
from tests.conftest import both
from tests.slow_plc import SlowPlc, message
from tests.station import camera, until

PASS, REJECT, FAULT = 1, 2, 3
pytestmark = both


@pytest.fixture
def station(quick_station):
    return quick_station


def start(station, plc, module="inspector", *, settings="", **keys):
    station.write(camera(**keys), plc=settings)
    station.start(module)
    until(lambda: plc.status() & Status.READY, "READY")


def answered(plc, *verdicts, limit_s=30):
    until(lambda: len(plc.verdicts()) >= len(verdicts), f"{len(verdicts)} verdicts", limit_s)
    assert plc.verdicts() == list(verdicts)


def events(station, kind):
    """Oldest first."""
    with station.log() as log:
        return [event for event in reversed(log.events(limit=None)) if event.kind == kind]


def test_the_sequence_wraps_at_sixteen_bits_and_zero_is_a_sequence_like_any_other(station, plc):
    plc.set_registers(201, [65533])
    plc.set_registers(103, [65533])
    start(station, plc)
    asked = [65534, 65535, 0, 1]
    for part, sequence in enumerate(asked, start=70_000):
        plc.trigger(sequence, part)
        until(lambda s=sequence: (s, PASS) in plc.verdicts(), f"verdict {sequence}", 30)
    assert plc.verdicts() == [(sequence, PASS) for sequence in asked]
    assert plc.registers(104, 2) == [70_003 >> 16, 70_003 & 0xFFFF]


def test_a_sequence_that_goes_back_is_told_answered_and_counted_on_from(station, plc):
    plc.set_registers(201, [5000])
    plc.set_registers(103, [5000])
    start(station, plc)
    plc.trigger(5001, part=1)
    answered(plc, (5001, PASS))
    plc.trigger(1, part=2)
    answered(plc, (5001, PASS), (1, PASS))
    plc.trigger(2, part=3)
    answered(plc, (5001, PASS), (1, PASS), (2, PASS))
    assert [event.message for event in events(station, "plc_restart")] == ["the trigger sequence jumped to 1"]
    assert plc.registers(112, 1) == [0], "no overruns"


def test_the_same_sequence_written_again_asks_for_nothing(station, plc):
    start(station, plc)
    plc.trigger(1, part=5)
    answered(plc, (1, PASS))
    for _ in range(20):
        plc.trigger(1, part=5)
        time.sleep(0.02)
    plc.trigger(2, part=6)
    answered(plc, (1, PASS), (2, PASS))


def test_triggers_overtaken_between_two_readings_are_answered_before_the_newest(station, plc):
    """So that what stays in the registers is the verdict of the part that the PLC waits for."""
    start(station, plc)
    plc.trigger(3, part=9)
    answered(plc, (1, FAULT), (2, FAULT), (3, PASS))
    assert plc.registers(102, 4) == [PASS, 3, 0, 9]
    assert plc.registers(112, 1) == [2]
    with station.log() as log:
        assert {row.reason for row in log.inspections() if row.sequence < 3} == {"overrun"}


def test_what_the_plc_has_used_is_tracked(station, plc):
    start(station, plc)
    plc.trigger(1)
    answered(plc, (1, PASS))
    assert ask(station.data)["cameras"][0]["acknowledged"] == 0
    plc.set_registers(205, [1])
    until(lambda: ask(station.data)["cameras"][0]["acknowledged"] == 1, "the acknowledgement", 10)


def test_late_is_fault_its_score_is_logged_and_three_in_a_row_raise_an_alarm(station, plc):
    start(station, plc, "tests.sabotage", deadline_ms=600)
    (station.root / "sabotage").write_text("slow")  # a second for each part
    for sequence in (1, 2, 3):
        plc.trigger(sequence)
        until(lambda s=sequence: (s, FAULT) in plc.verdicts(), f"FAULT for {sequence}", 30)
        assert events(station, "late") == [] or sequence == 3
        until(lambda s=sequence: len(events(station, "late_score")) == s, "the late score", 30)
    assert plc.verdicts() == [(1, FAULT), (2, FAULT), (3, FAULT)]
    scores = events(station, "late_score")
    assert [event.details["sequence"] for event in scores] == [1, 2, 3]
    assert all("came after FAULT" in event.message for event in scores)
    (alarm,) = events(station, "late")
    assert (alarm.severity, alarm.camera) == ("error", "cam")
    assert "3 verdicts in a row" in alarm.message
    (station.root / "sabotage").unlink()
    plc.trigger(4)
    until(lambda: (4, PASS) in plc.verdicts(), "a pass in time", 30)


def test_what_turns_late_while_it_waits_for_the_plc_is_counted_as_the_plc_saw_it(station, plc):
    start(station, plc, trigger="camera", deadline_ms=600, folder={"fps": 5.0})
    until(lambda: len(plc.verdicts()) > 3, "verdicts", 20)
    plc.stop()
    time.sleep(3)
    before = len(plc.verdicts())
    plc.start()
    until(lambda: len(plc.verdicts()) > before + 8, "what waited", 20)
    until(lambda: plc.verdicts()[-1][1] == PASS, "a pass in time", 20)

    def both_say_the_same():
        seen = Counter(verdict for _, verdict in plc.verdicts())
        one = ask(station.data)["cameras"][0]
        counted = {PASS: one["verdicts"]["PASS"], FAULT: one["verdicts"]["FAULT"]}
        return counted == seen and one["faults"] == {"late": seen[FAULT]} and seen[FAULT] >= 3

    until(both_say_the_same, "counts as on the wire", 10)
    (alarm,) = events(station, "late")
    assert (alarm.severity, alarm.camera) == ("error", "cam")


def test_both_hearts_beat_and_one_that_stands_still_is_told(station, plc):
    start(station, plc, settings="heartbeat_ms = 100\nheartbeat_timeout_s = 0.8")
    first = plc.registers(100, 1)
    until(lambda: plc.registers(100, 1) != first, "our heartbeat", 5)
    until(lambda: events(station, "plc_heartbeat"), "the alarm for the PLC's heartbeat", 20)
    assert "register 200" in events(station, "plc_heartbeat")[0].message
    plc.set_registers(200, [1])
    until(lambda: len(events(station, "plc_heartbeat")) == 2, "the news that it moves", 20)
    assert [event.severity for event in events(station, "plc_heartbeat")] == ["warning", "info"]
    station.kill()
    time.sleep(0.2)
    still = plc.registers(100, 1)
    time.sleep(1.0)
    assert plc.registers(100, 1) == still, "no daemon, no heartbeat"


@pytest.mark.parametrize(("word", "byte", "part"), [("little", "big", [0x5678, 0x1234])])
def test_the_order_of_words_holds_both_ways(station, plc, word, byte, part):
    plc.set_registers(202, part)
    start(station, plc, settings=f'word_order = "{word}"\nbyte_order = "{byte}"')
    plc.set_registers(201, [1])
    answered(plc, (1, PASS))
    assert plc.registers(104, 2) == part
    assert plc.registers(108, 2) == [0x2400, 0x4974], "the threshold of the test's bundle, 1e6"
    with station.log() as log:
        assert log.inspections()[0].part_id == 0x12345678


def test_free_running_parts_are_numbered_and_need_no_trigger(station, plc):
    start(station, plc, trigger="interval", folder={"fps": 10.0})
    until(lambda: len(plc.verdicts()) >= 5, "verdicts", 30)
    plc.trigger(9)
    seen = len(plc.verdicts())
    until(lambda: len(plc.verdicts()) >= seen + 3, "more verdicts", 30)
    sequences = [sequence for sequence, _ in plc.verdicts()]
    assert sequences == list(range(1, len(sequences) + 1)), "the PLC's trigger sequence means nothing here"


def test_no_heartbeat_stands_beside_a_verdict_from_before_an_outage(station, plc):
    start(station, plc, settings="heartbeat_ms = 20")
    for sequence in range(1, 7):
        plc.trigger(sequence)
        until(lambda s=sequence: (s, PASS) in plc.verdicts(), f"verdict {sequence}", 30)
        plc.stop()
        before = len(plc.writes())
        time.sleep(0.05 * sequence)
        plc.start()
        until(lambda n=before: len(plc.writes()) > n, "the first write of the new connection", 20)
        first = plc.writes()[before].values
        assert (len(first), first[2]) == (13, 0), "the verdict is taken out before the heart beats"


class _SilentOnce(SlowPlc):
    """Lets one verdict through to the PLC and keeps the reply, and everything after it, until told."""

    def __init__(self, port):
        self.has_kept, self.go = threading.Event(), threading.Event()
        super().__init__(port, 0)

    def _answer(self, client, server):
        request = message(client)
        server.sendall(request)
        reply = message(server)
        if request[7:12] == b"\x10\x00\x64\x00\x0d" and request[18] and not self.has_kept.is_set():
            self.has_kept.set()
            self.go.wait()
            raise EOFError
        client.sendall(reply)


@pytest.mark.parametrize("old", [True, False])
def test_a_verdict_found_in_the_registers_stays_while_it_is_young(station, plc, old):
    relay = _SilentOnce(plc.port)
    station.port = relay.port
    start(station, plc, deadline_ms=5000 if old else 60_000)
    plc.trigger(1, part=5)
    until(relay.has_kept.is_set, "a verdict whose arrival nobody confirms", 30)
    assert plc.verdicts() == [(1, PASS)]
    before = len(plc.writes())
    time.sleep(5.5 if old else 0.5)
    relay.go.set()
    until(lambda: len(plc.writes()) > before, "the first write of the new connection", 20)
    first = plc.writes()[before].values
    assert (len(first), *first[2:4]) == ((13, 0, 1) if old else (2,)), (
        "an old one is gone before the heart beats"
    )
    plc.trigger(2, part=6)
    answered(plc, (1, PASS), (2, PASS))
    relay.close()


def test_a_server_that_hangs_stalls_neither_deadlines_nor_decisions(station, plc):
    start(station, plc, trigger="camera", deadline_ms=700, folder={"fps": 10.0})
    until(lambda: len(plc.verdicts()) > 5, "verdicts", 30)
    plc.freeze()
    time.sleep(3.0)
    plc.thaw()
    seen = len(plc.verdicts())
    until(lambda: len(plc.verdicts()) > seen + 5, "verdicts after it", 30)
    assert station.stop() == 0
    with station.log() as log:
        rows = sorted(log.inspections(limit=None), key=lambda row: row.id)
    scored = [row.time for row in rows if row.score is not None]
    gaps = [(later - sooner).total_seconds() for sooner, later in pairwise(scored)]
    assert max(gaps) < 1.5, "parts were inspected all the while, though nobody could be told"
    assert {row.sequence for row in rows} == {sequence for sequence, _ in plc.verdicts()}
