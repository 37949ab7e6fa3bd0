"""A frame that the camera announced and that never became a picture is a part, and that part is FAULT."""

import pytest

from tests.station import camera, until

PASS, FAULT = 1, 3


@pytest.mark.parametrize("trigger", ["camera", "plc"])
def test_a_frame_that_is_lost_is_fault_and_its_neighbours_pass(station, plc, trigger):
    (station.root / "pictures" / "003.png").write_bytes(b"\x89PNG cut short")
    station.write(camera(trigger=trigger, folder={"repeat": trigger == "plc", "fps": 5.0}))
    station.start()
    if trigger == "plc":
        until(lambda: plc.status() & 1, "READY")
        for sequence in range(1, 9):
            plc.trigger(sequence)
            until(lambda s=sequence: s in [n for n, _ in plc.verdicts()], f"verdict {sequence}", 30)
    else:
        assert station.daemon.wait(timeout=90) == 0, station.said()
    assert plc.verdicts() == [(s, FAULT if s == 4 else PASS) for s in range(1, 9)]
    with station.log() as log:
        assert [(r.sequence, r.reason) for r in log.inspections() if r.verdict == FAULT] == [
            (4, "frame_lost")
        ]
        lost = [e.message for e in log.events(limit=None) if e.kind == "frames_lost"]
    assert len(lost) == 1
    assert "003.png" in lost[0]
