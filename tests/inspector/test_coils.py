"""The pass and reject coils when the PLC takes the registers and refuses the coils."""

import time
from itertools import groupby

import pytest

from inspector.inquiry import ask
from inspector.plc.registers import Status
from tests.conftest import both
from tests.station import camera, until

PASS, FAULT = 1, 3
COILS = {"passed": 0, "rejected": 1}
pytestmark = both


@pytest.fixture
def station(quick_station):
    return quick_station


def start(station, plc, **keys):
    station.write(camera(coils=COILS, **keys))
    station.start()
    until(lambda: plc.status() & Status.READY, "READY")


def answer(plc, sequence, verdict):
    plc.trigger(sequence, part=sequence)
    until(lambda: (sequence, verdict) in plc.verdicts(), f"verdict {verdict} for {sequence}", 15)


def told(station):
    """Severity and message of each event about coils, oldest first."""
    with station.log() as log:
        events = [event for event in log.events(limit=None) if event.kind == "coils"]
    return [(event.severity, event.message) for event in reversed(events)]


def rows(station):
    with station.log() as log:
        return [(r.sequence, r.verdict, r.reason) for r in reversed(log.inspections(limit=None))]


def test_a_plc_that_refuses_coils_alone_gets_fault_for_each_part_until_it_takes_them_again(station, plc):
    start(station, plc, deadline_ms=1500)
    answer(plc, 1, PASS)
    until(lambda: plc.coils(0, 1) == [True, False], "the pass coil", 10)
    plc.bank.no_coils = True
    answer(plc, 2, PASS)  # nobody could know before
    until(lambda: not plc.status() & Status.READY, "READY to go off", 10)
    for sequence in (3, 4):
        answer(plc, sequence, FAULT)
    time.sleep(1.6)  # the deadline of each has passed by now
    assert plc.verdicts() == [(1, PASS), (2, PASS), (3, FAULT), (4, FAULT)], "each verdict once"
    refused = "coils_refused"
    assert rows(station) == [(1, PASS, None), (2, PASS, None), (3, FAULT, refused), (4, FAULT, refused)]
    assert plc.status() & Status.FAULT
    (event,) = told(station)
    assert event[0] == "error"
    for part in ("illegal data address (2)", "coils 0–1", "FC15", "every part is FAULT"):
        assert part in event[1]
    assert ask(station.data)["state"] == "fault"

    plc.bank.no_coils = False
    until(lambda: plc.status() & Status.READY, "READY again", 10)
    assert plc.coils(0, 1) == [False, False], "the pass of long ago is gone before READY comes back"
    answer(plc, 5, PASS)
    until(lambda: plc.coils(0, 1) == [True, False], "the pass coil", 10)
    assert [severity for severity, _ in told(station)] == ["error", "info"]
    assert ask(station.data)["problems"] == []
    assert station.stop() == 0
    assert plc.coils(0, 1) == [False, False]


def test_where_coils_are_refused_from_the_start_ready_never_comes_and_each_part_is_fault(station, plc):
    plc.bank.no_coils = True
    station.write(camera(coils=COILS))
    station.start()
    until(lambda: plc.status() & Status.CAMERA_OK, "the camera")
    for sequence in (1, 2):
        answer(plc, sequence, FAULT)
        assert not plc.status() & Status.READY
    assert rows(station) == [(1, FAULT, "coils_refused"), (2, FAULT, "coils_refused")]
    assert len(told(station)) == 1
    plc.bank.no_coils = False
    until(lambda: plc.status() & Status.READY, "READY", 10)
    answer(plc, 3, PASS)


def test_a_pass_that_waits_for_the_plc_is_fault_where_its_coils_are_refused_by_then(station, plc):
    start(station, plc, trigger="camera", deadline_ms=60_000, folder={"fps": 10.0})
    until(lambda: len(plc.verdicts()) > 3, "verdicts", 20)
    plc.stop()
    seen = len(plc.verdicts())
    time.sleep(1.0)
    plc.bank.no_coils = True
    plc.start()
    until(lambda: len(plc.verdicts()) > seen + 15, "verdicts", 20)
    later = [verdict for _, verdict in plc.verdicts()[seen:]]
    assert [verdict for verdict, _ in groupby(later)] in ([PASS, FAULT], [FAULT])
    assert later.count(PASS) <= 2, "what arrived unconfirmed, and the first that met the refusal"
