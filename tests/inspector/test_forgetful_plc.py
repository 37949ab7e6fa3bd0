"""A PLC without retentive memory restarts while verdicts wait for it, and counts as it did before."""

import time

import pytest

from inspector.plc.registers import Status
from tests.conftest import both
from tests.inspector.test_daemon import FAULT, PASS, camera_process, ready, start
from tests.station import camera, until


@pytest.fixture
def station(quick_station):
    return quick_station


def blocks(plc):
    """(sequence, part id, verdict) of every whole block with a verdict in it."""
    whole = [w.values for w in plc.writes() if len(w.values) == 13 and w.values[2]]
    return [(block[3], (block[4] << 16) + block[5], block[2]) for block in whole]


def logged(station, sequence):
    with station.log() as log:
        return any(row.sequence == sequence for row in log.inspections())


@both
def test_a_plc_that_lost_its_memory_and_counts_as_before_is_answered_after_what_waited(station, plc):
    start(station, plc, deadline_ms=1000, silence_s=20.0)
    child = camera_process(station)
    child.suspend()
    plc.trigger(1, part=10)
    until(lambda: plc.status() & Status.BUSY, "BUSY", 30)
    plc.stop()
    until(lambda: logged(station, 1), "the verdict that nobody takes", 30)
    plc.forget()
    plc.trigger(1, part=70_000)
    child.resume()
    plc.start()
    until(lambda: len(plc.verdicts()) > 1, "both answers", 20)
    assert blocks(plc) == [(1, 10, FAULT), (1, 70_000, FAULT)]
    plc.trigger(2, part=70_001)
    until(lambda: len(plc.verdicts()) > 2, "the next part", 30)
    assert blocks(plc)[2:] == [(2, 70_001, PASS)]


@both
@pytest.mark.parametrize("finished", [True, False])
def test_no_pass_from_before_meets_a_part_of_the_same_number(station, plc, finished):
    """The PLC forgets a part in work and counts its next one as it did that one."""
    station.write(camera(deadline_ms=60_000))
    station.start("tests.sabotage")
    until(ready(plc), "READY")
    plc.trigger(1, part=1)
    until(lambda: plc.verdicts() == [(1, PASS)], "a verdict", 30)
    (station.root / "sabotage").write_text("slow")
    plc.trigger(2, part=2)
    until(lambda: plc.status() & Status.BUSY, "BUSY", 30)
    plc.stop()
    plc.forget()
    if finished:
        until(lambda: logged(station, 2), "the pass that nobody takes", 30)
    plc.trigger(2, part=2)
    plc.start()
    until(lambda: len(plc.verdicts()) > 1, "an answer", 20)
    (station.root / "sabotage").unlink()
    plc.trigger(3, part=3)
    until(lambda: (3, PASS) in plc.verdicts(), "the next part", 30)
    assert blocks(plc) == [(1, 1, PASS), (2, 2, FAULT), (3, 3, PASS)]


@both
def test_a_plc_that_loses_its_memory_while_the_connection_stands_gets_no_pass_from_before(station, plc):
    """A part is in work, and the next one gets the same sequence and part id."""
    station.write(camera(deadline_ms=60_000))
    station.start("tests.sabotage")
    until(ready(plc), "READY")
    for number in (1, 2):
        plc.trigger(number, part=number)
        until(lambda n=number: plc.verdicts()[-1:] == [(n, PASS)], "a verdict", 30)
    (station.root / "sabotage").write_text("slow")
    plc.trigger(3, part=3)
    until(lambda: plc.status() & Status.BUSY, "BUSY", 30)
    plc.forget()
    until(lambda: (3, 3, FAULT) in blocks(plc), "the part in work is FAULT", 10)
    assert plc.registers(102, 1) != [PASS]
    for number in (1, 2, 3):
        plc.trigger(number, part=number)
        time.sleep(0.05)
    until(lambda: not ready(plc)() or blocks(plc)[-1][:2] == (3, 3), "an answer", 20)
    time.sleep(2.5)  # the score of the part from before, and of the first one after
    passes = [block for block in blocks(plc) if block[2] == PASS]
    assert passes == [(1, 1, PASS), (2, 2, PASS), (1, 1, PASS)], "the last is of the first part after"
    assert (0, 0) not in {block[:2] for block in blocks(plc)}, "zeros ask for nothing"
    (station.root / "sabotage").unlink()
    plc.trigger(4, part=4)
    until(lambda: (4, 4, PASS) in blocks(plc), "the next part", 30)
    with station.log() as log:
        assert "jumped to 0" in next(e.message for e in log.events() if e.kind == "plc_restart")


@both
def test_a_plc_that_loses_its_memory_just_before_the_wrap_gets_no_verdicts_unasked(station, plc):
    start(station, plc)
    for number in (30_000, 65_500):
        plc.trigger(number, part=number)
        until(lambda n=number: (n, n, PASS) in blocks(plc), "a verdict", 30)
    plc.forget()
    until(lambda: plc.status() & Status.READY, "the memory's loss is seen", 10)
    time.sleep(0.2)
    plc.trigger(1, part=1)
    until(lambda: (1, 1, PASS) in blocks(plc), "the next part", 30)
    assert [block[:2] for block in blocks(plc)] == [(30_000, 30_000), (65_500, 65_500), (1, 1)]
