"""Four cameras on a PLC that takes 120 ms for each answer: the heartbeats come first."""

import time
from itertools import pairwise

import pytest

from inspector.inquiry import ask
from inspector.plc.registers import Status
from tests.slow_plc import SlowPlc
from tests.station import camera, until

DELAY_S = 0.12
ALLOWED_S = 1.0
BASES = (100, 120, 140, 160)
pytestmark = pytest.mark.alone


@pytest.mark.parametrize("trigger", ["plc", "camera"])
def test_no_heartbeat_waits_behind_more_requests_than_fit_into_a_second(station, plc, trigger):
    """Counted in requests, which a busy test machine makes slower but not more."""
    slow = SlowPlc(plc.port, DELAY_S)
    station.port = slow.port
    station.write(
        *(
            camera(
                f"cam{i}",
                base=base,
                plc=200 + 10 * i,
                trigger=trigger,
                deadline_ms=8000,
                folder={"fps": 0.5},
            )
            for i, base in enumerate(BASES)
        ),
        plc="timeout_ms = 1000",
    )
    station.start()
    until(lambda: all(plc.status(base) & Status.READY for base in BASES), "READY")
    first = len(slow.requests)
    for sequence in range(1, 4):
        for i, _ in enumerate(BASES):
            if trigger == "plc":
                plc.trigger(sequence, base=200 + 10 * i)
        until(lambda s=sequence: all(answered(plc, base, s) for base in BASES), "verdicts", 40)
    time.sleep(3)
    requests = slow.requests[first:]
    assert len(requests) > 40
    for base in BASES:
        beats = [
            i for i, one in enumerate(requests) if (one.function, one.address) == (16, base)
        ]  # alone, or with a verdict
        between = max(later - earlier for earlier, later in pairwise(beats))
        assert between * DELAY_S < ALLOWED_S, f"{between} requests from beat to beat of the block at {base}"
    gaps = [one["heartbeat_gap_ms"] for one in ask(station.data)["cameras"]]
    assert all(gap > 0 for gap in gaps), "and status tells how long the longest was"
    print("longest pauses, ms:", gaps)
    slow.close()


def answered(plc, base, sequence):
    return any(s >= sequence for s, _ in plc.verdicts(base))
