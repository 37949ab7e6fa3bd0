"""A verdict that was in time until it had to wait for the connection: FAULT, whatever it waited for."""

import time

import pytest

from inspector.plc.registers import Status
from tests.conftest import both
from tests.station import camera, until

PASS, FAULT = 1, 3
DEADLINE_MS = 2500


@pytest.fixture
def station(quick_station):
    return quick_station


def rows(station):
    with station.log() as log:
        return [(r.sequence, r.verdict, r.reason, r.score) for r in reversed(log.inspections())]


@both
def test_a_pass_whose_turn_on_the_connection_comes_after_its_deadline_is_fault(station, plc):
    """The PLC leaves a request of the line loop unanswered while the part is scored and its row written."""
    station.write(
        camera(deadline_ms=DEADLINE_MS, coils={"passed": 0, "rejected": 1}), plc="timeout_ms = 5000"
    )
    station.start("tests.sabotage")
    until(lambda: plc.status() & Status.READY, "READY")
    plc.trigger(1)
    until(lambda: plc.verdicts() == [(1, PASS)], "a pass in time", 30)
    (station.root / "sabotage").write_text("slow")  # a second for each part
    asked = time.monotonic()
    plc.trigger(2)
    until(lambda: plc.status() & Status.BUSY, "BUSY", 30)
    plc.freeze()
    until(lambda: len(rows(station)) == 2, "the row of the pass", 30)
    assert time.monotonic() - asked < DEADLINE_MS / 1000, "this machine is too slow for this test"
    time.sleep(DEADLINE_MS / 1000)
    plc.thaw()
    until(lambda: len(plc.verdicts()) > 1, "a verdict", 30)
    time.sleep(0.3)
    assert plc.verdicts() == [(1, PASS), (2, FAULT)]
    assert plc.coils(0, 1) == [False, True]
    kept, late = rows(station)[1:]
    assert kept[:3] == (2, PASS, None)
    assert late[:3] == (2, FAULT, "late")
    assert late[3] == kept[3] is not None, "with its score"
    (station.root / "sabotage").unlink()
    plc.trigger(3)
    until(lambda: plc.verdicts()[-1] == (3, PASS), "a pass in time", 30)
