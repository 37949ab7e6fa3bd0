"""The simulated PLC, driven by the real link."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from pyModbusTCP.client import ModbusClient
from rich.console import Console

from inspector.errors import PlcError
from inspector.plc.link import Link
from inspector.plc.registers import (
    FAULT,
    PASS,
    REJECT,
    InspectorBlock,
    Order,
    PlcBlock,
    Status,
    next_sequence,
)
from inspector.plc.simulator import CameraMap, Simulator
from inspector.plc.simulator_line import Counts, Line
from inspector.plc.simulator_view import render, show

TOP, SIDE = CameraMap("top", 100, 200), CameraMap("side", 300, 400)
READY = Status.READY | Status.CAMERA_OK | Status.MODEL_OK | Status.LOG_OK


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(cameras=(TOP, SIDE), record=True) as simulator:
        yield simulator


@pytest.fixture
def link(simulator: Simulator) -> Iterator[Link]:
    with Link(simulator.host, simulator.port, timeout_s=2.0) as link:
        yield link


def eventually(condition: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up, what
        time.sleep(0.005)


class Inspector:
    """Answers triggers over a real link, as `answer` says; none when it returns no block."""

    def __init__(
        self, link: Link, camera: CameraMap, answer: Callable[[PlcBlock], list[InspectorBlock]]
    ) -> None:
        self.link, self.camera, self.answer = link, camera, answer
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        seen, heartbeat = 0, 0
        while not self._stop.wait(0.005):
            heartbeat += 1
            self.link.write_heartbeat(self.camera.inspector_base, heartbeat, READY)
            asked = self.link.read_plc(self.camera.plc_base)
            if asked.sequence != seen:
                seen = asked.sequence
                for block in self.answer(asked):
                    self.link.write_inspector(self.camera.inspector_base, replace(block, heartbeat=heartbeat))


def answer(asked: PlcBlock, verdict: int = PASS) -> InspectorBlock:
    return InspectorBlock(
        status=READY, verdict=verdict, sequence=asked.sequence, part_id=asked.part_id, score=0.1
    )


# -- registers ----------------------------------------------------------------------------------------


def test_each_camera_has_blocks_of_its_own(simulator: Simulator, link: Link) -> None:
    block = InspectorBlock(verdict=REJECT, sequence=5, part_id=99, score=0.75, threshold=0.5)
    link.write_inspector(SIDE.inspector_base, block)
    assert simulator.inspector("side") == block
    assert simulator.inspector("top") == InspectorBlock(score=0.0, threshold=0.0)
    simulator.write_plc("top", PlcBlock(sequence=3, part_id=70_000))
    assert link.read_plc(TOP.plc_base) == PlcBlock(sequence=3, part_id=70_000)
    assert link.read_plc(SIDE.plc_base) == PlcBlock()


def test_every_verdict_is_recorded_once_and_heartbeats_are_not(simulator: Simulator, link: Link) -> None:
    for sequence in range(1, 31):
        link.write_inspector(100, InspectorBlock(verdict=PASS, sequence=sequence))
        link.write_heartbeat(100, sequence, READY)
    link.write_inspector(300, InspectorBlock(verdict=FAULT, sequence=1))
    assert [(seen.camera, seen.block.sequence) for seen in simulator.verdicts] == [
        *(("top", sequence) for sequence in range(1, 31)),
        ("side", 1),
    ]
    times = [seen.seen_ns for seen in simulator.verdicts]
    assert times == sorted(times)
    assert simulator.torn == 0


def test_a_block_without_a_verdict_is_no_verdict(simulator: Simulator, link: Link) -> None:
    link.write_inspector(100, InspectorBlock(status=READY))
    assert simulator.verdicts == []


def test_without_recording_only_the_latest_are_kept() -> None:
    with Simulator() as simulator, Link(simulator.host, simulator.port, timeout_s=2.0) as link:
        for sequence in range(1, 101):
            link.write_inspector(100, InspectorBlock(verdict=PASS, sequence=sequence))
        assert [seen.block.sequence for seen in simulator.verdicts] == list(range(81, 101))


@pytest.mark.parametrize(("address", "torn"), [(100, 0), (101, 0), (102, 1), (103, 1), (104, 0)])
def test_a_verdict_written_in_pieces_is_noticed(simulator: Simulator, address: int, torn: int) -> None:
    client = ModbusClient(simulator.host, simulator.port)
    assert client.write_multiple_registers(address, [1])
    client.close()
    assert simulator.torn == torn
    console = Console(file=io.StringIO(), width=160, record=True)
    console.print(render(simulator, []))
    assert ("tore a verdict" in console.export_text()) == bool(torn)
    assert simulator.verdicts == []


def test_order_and_coils(simulator: Simulator) -> None:
    order = Order("little", "little")
    with Simulator(order=order, record=True) as simulator:
        with Link(simulator.host, simulator.port, timeout_s=2.0, order=order) as link:
            link.write_inspector(100, InspectorBlock(verdict=PASS, part_id=0x12345678))
            link.write_coils({8: True, 9: False})
        assert simulator.inspector("camera").part_id == 0x12345678
        assert simulator.inspector_registers("camera")[4:6] == [0x7856, 0x3412]
        assert (simulator.coil(8), simulator.coil(9)) == (True, False)


def test_a_heartbeat_lives_while_it_changes(simulator: Simulator, link: Link) -> None:
    assert simulator.heartbeat_age_s("top") is None
    assert not simulator.alive("top")
    link.write_heartbeat(100, 1, READY)
    assert simulator.alive("top")
    assert not simulator.alive("side")
    first = simulator.heartbeat_age_s("top")
    time.sleep(0.05)
    link.write_heartbeat(100, 1, READY)
    later = simulator.heartbeat_age_s("top")
    assert first is not None
    assert later is not None
    assert later >= first + 0.05, "the same value again is no heartbeat"
    eventually(lambda: not simulator.alive("top"), "a still heartbeat must be noticed")


def test_a_port_that_is_taken_is_a_clear_error(simulator: Simulator) -> None:
    with pytest.raises(PlcError, match=rf"cannot listen on 127.0.0.1:{simulator.port}.*choose another one"):
        Simulator(port=simulator.port).start()


def test_stopping_cuts_the_line_and_starting_keeps_port_and_registers() -> None:
    with Simulator() as simulator, Link(simulator.host, simulator.port, timeout_s=2.0) as link:
        port = simulator.port
        link.write_inspector(100, InspectorBlock(verdict=PASS, sequence=8))
        simulator.stop()
        with pytest.raises(PlcError):
            link.read_plc(200)
        simulator.start()
        assert simulator.port == port
        assert link.read_inspector(100).sequence == 8, "the first attempt after a failure is at once"


# -- the line -----------------------------------------------------------------------------------------


def test_a_line_triggers_and_acknowledges_every_part(simulator: Simulator, link: Link) -> None:
    verdicts = {0: PASS, 1: REJECT, 2: FAULT}
    with (
        Inspector(link, TOP, lambda asked: [answer(asked, verdicts[asked.part_id % 3])]),
        Line(simulator, "top", period_s=0.02, timeout_s=10, recipe=3, first_part=300) as line,
    ):
        eventually(lambda: line.counts.answered >= 30, "30 parts")
    counts = line.counts
    assert (counts.unanswered, counts.late, counts.repeated, counts.sequence_errors) == (0, 0, 0, 0)
    assert counts.triggered - counts.answered in (0, 1)
    assert min(counts.passed, counts.rejected, counts.faulted) >= 10
    blocks = [seen.block for seen in simulator.verdicts][: counts.answered]
    assert [block.sequence for block in blocks] == list(range(1, counts.answered + 1))
    assert [block.part_id for block in blocks] == list(range(300, 300 + counts.answered))
    plc = simulator.plc("top")
    assert (plc.ack, plc.recipe) == (counts.answered, 3)
    assert plc.heartbeat > 0
    assert simulator.plc("side") == PlcBlock()


def test_a_line_waits_for_an_inspector_that_is_ready(simulator: Simulator, link: Link) -> None:
    with Line(simulator, "top", period_s=0.01) as line:
        link.write_heartbeat(100, 1, Status.FAULT)
        eventually(lambda: simulator.plc("top").heartbeat >= 3, "the PLC's own heartbeat goes on")
        assert line.counts.triggered == 0
        link.write_heartbeat(100, 2, READY)
        eventually(lambda: line.counts.triggered > 0, "ready and alive")


def test_a_line_of_so_many_parts_ends_by_itself(simulator: Simulator, link: Link) -> None:
    with (
        Inspector(link, TOP, lambda asked: [answer(asked)]),
        Line(simulator, "top", period_s=0.01, timeout_s=10, parts=3) as line,
    ):
        eventually(lambda: line.counts.passed == 3, "three parts")
        beat = simulator.plc("top").heartbeat
        eventually(lambda: simulator.plc("top").heartbeat >= beat + 2, "time for more triggers")
    assert line.counts == Counts(triggered=3, passed=3)


def test_parts_without_a_verdict_are_counted_and_late_ones_told_apart(
    simulator: Simulator, link: Link
) -> None:
    with Line(simulator, "top", period_s=0.01, timeout_s=0.1, interlock=False) as line:
        eventually(lambda: line.counts.unanswered >= 1, "nobody answers")
        link.write_inspector(100, InspectorBlock(verdict=PASS, sequence=1, part_id=1))
        eventually(lambda: line.counts.late == 1, "the answer to part 1 is late")
    assert line.counts.passed == 0
    assert simulator.plc("top").ack == 0


def test_verdicts_that_fit_no_trigger_are_sequence_errors(simulator: Simulator, link: Link) -> None:
    with Line(simulator, "top", period_s=60, timeout_s=60, interlock=False) as line:
        eventually(lambda: line.counts.triggered == 1, "first trigger")
        link.write_inspector(100, InspectorBlock(verdict=PASS, sequence=9, part_id=1))
        link.write_inspector(100, InspectorBlock(verdict=PASS, sequence=1, part_id=2))
        eventually(lambda: line.counts.sequence_errors == 2, "wrong sequence, then wrong part")
        assert line.counts.passed == 0
        link.write_inspector(100, InspectorBlock(verdict=REJECT, sequence=1, part_id=1))
        link.write_inspector(100, InspectorBlock(verdict=REJECT, sequence=1, part_id=1))
        eventually(lambda: line.counts.repeated == 1, "the same verdict again")
    assert line.counts == Counts(triggered=1, rejected=1, repeated=1, sequence_errors=2)


def test_a_following_line_acknowledges_what_the_camera_triggers(simulator: Simulator, link: Link) -> None:
    with Line(simulator, "side") as line:
        sequence = 65530
        for _ in range(10):
            link.write_inspector(300, InspectorBlock(verdict=PASS, sequence=sequence))
            link.write_inspector(100, InspectorBlock(verdict=REJECT, sequence=1))
            last, sequence = sequence, next_sequence(sequence)
        eventually(lambda: line.counts.answered == 10, "ten verdicts, over the wrap")
        assert simulator.plc("side").ack == last
        assert simulator.plc("side").sequence == 0, "it triggers nothing"
        link.write_inspector(300, InspectorBlock(verdict=FAULT, sequence=next_sequence(sequence)))
        eventually(lambda: line.counts.faulted == 1, "a gap is counted, and gone on from")
    assert line.counts == Counts(passed=10, faulted=1, sequence_errors=1)


# -- the view -----------------------------------------------------------------------------------------


def test_the_view_shows_every_register_raw_and_decoded(simulator: Simulator, link: Link) -> None:
    block = InspectorBlock(
        heartbeat=1,
        status=READY,
        verdict=REJECT,
        sequence=77,
        part_id=70_000,
        score=1.5,
        threshold=None,
        overruns=4,
    )
    link.write_inspector(100, replace(block, latency_ms=31))
    with Line(simulator, "top") as line:
        console = Console(file=io.StringIO(), width=160, record=True)
        console.print(render(simulator, [line]))
    text = console.export_text()
    for shown in ("REJECT", "0001 1170", "70000", "3FC0 0000", "1.5", "31 ms", "alive", "STILL: never seen"):
        assert shown in text
    assert "ready camera ok model ok log ok" in text
    assert text.count("none yet") == 1, "the other camera has no verdict"


def test_without_a_terminal_each_change_is_a_line(simulator: Simulator, link: Link) -> None:
    console, stop = Console(file=io.StringIO(), width=80), threading.Event()
    viewer = threading.Thread(target=show, args=(simulator, [], console, stop))
    viewer.start()
    written: io.StringIO = console.file  # type: ignore[assignment]
    eventually(lambda: "side: status" in written.getvalue(), "the state at the start")
    link.write_inspector(
        100, InspectorBlock(heartbeat=1, status=READY, verdict=FAULT, sequence=12, part_id=3)
    )
    eventually(lambda: "top: heartbeat alive" in written.getvalue(), "the heartbeat begins")
    eventually(lambda: "top: heartbeat STILL" in written.getvalue().split("alive", 1)[1], "and stands still")
    stop.set()
    viewer.join(timeout=20)
    lines = [line.split(" ", 1)[1] for line in written.getvalue().splitlines()]
    verdicts = [line for line in lines if "sequence" in line]
    assert verdicts == ["top: FAULT sequence 12 part 3 score – threshold – recipe 0 latency 0 ms"]
    assert "top: status ready camera ok model ok log ok" in lines


def test_on_a_terminal_the_view_is_redrawn_in_place(simulator: Simulator) -> None:
    console = Console(file=io.StringIO(), width=120, height=50, force_terminal=True)
    stop = threading.Event()
    viewer = threading.Thread(target=show, args=(simulator, [], console, stop))
    viewer.start()
    written: io.StringIO = console.file  # type: ignore[assignment]
    eventually(lambda: written.getvalue().count("inspector writes, base 100") >= 2, "drawn again and again")
    stop.set()
    viewer.join(timeout=20)
    assert not viewer.is_alive()
