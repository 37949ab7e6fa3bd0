"""A simple line for the simulated PLC to play: trigger, part id, acknowledgement, heartbeat."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, replace
from queue import Empty
from threading import Event, Thread
from types import TracebackType
from typing import Final

from inspector.plc.registers import FAULT, PASS, REJECT, InspectorBlock, Status, next_heartbeat, next_sequence
from inspector.plc.simulator import Simulator

_BEAT_S: Final = 0.2
_TICK_MIN_S: Final = 0.005
_TICK_MAX_S: Final = 0.05
_REMEMBERED: Final = 64  # triggers that went unanswered, to know a late answer


@dataclass
class Counts:
    """What came of the parts on one camera's line."""

    triggered: int = 0
    passed: int = 0
    rejected: int = 0
    faulted: int = 0
    unanswered: int = 0  # no verdict within the time allowed: the part is treated as reject
    late: int = 0  # verdicts for parts already counted as unanswered
    repeated: int = 0  # verdicts written again
    sequence_errors: int = 0  # verdicts that nobody asked for, or with another part's id

    @property
    def answered(self) -> int:
        """Verdicts in time."""
        return self.passed + self.rejected + self.faulted


class Line:
    """The PLC's program for one camera, in a thread of its own.

    With a period it triggers: every period_s it raises the trigger sequence with a new part id, waits for
    the verdict that bears both, and acknowledges it. Without one the camera triggers itself: every verdict
    is acknowledged, and their sequences must follow each other. The PLC's heartbeat counts either way.
    With parts it triggers only so many times. With interlock=True it triggers only while the inspector is
    alive and says READY, as a line should.
    """

    def __init__(
        self,
        simulator: Simulator,
        camera: str,
        *,
        period_s: float | None = None,
        timeout_s: float = 2.0,
        recipe: int = 0,
        first_part: int = 1,
        interlock: bool = True,
        parts: int | None = None,
    ) -> None:
        self.camera = camera
        self.counts = Counts()
        self._simulator = simulator
        self._period_s = math.inf if period_s is None else period_s
        self._timeout_s = timeout_s
        self._follows = period_s is None
        self._interlock = interlock
        self._parts = math.inf if parts is None else parts
        self._next_part = first_part
        self._block = replace(simulator.plc(camera), recipe=recipe)
        self._last: int | None = None  # sequence of the last verdict used
        self._waiting = False  # for the verdict of the trigger in _block
        self._give_up = math.inf
        self._unanswered: deque[int] = deque(maxlen=_REMEMBERED)
        self._verdicts = simulator.listen()
        self._stop = Event()
        self._thread = Thread(target=self._run, name=f"line-{camera}", daemon=True)

    def __enter__(self) -> Line:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to play."""
        self._thread.start()

    def stop(self) -> None:
        """Finish; the registers stay as they are and the PLC's heartbeat stands still."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        beat_at = time.monotonic()
        trigger_at = math.inf if self._follows else beat_at
        while not self._stop.is_set():
            now = time.monotonic()
            if now >= beat_at:
                self._write(heartbeat=next_heartbeat(self._block.heartbeat))
                beat_at = now + _BEAT_S
            if self._waiting and now >= self._give_up:
                self._waiting = False
                self.counts.unanswered += 1
                self._unanswered.append(self._block.sequence)
            if not self._waiting and now >= trigger_at and self._may_trigger():
                self._trigger(now)
                trigger_at = max(trigger_at + self._period_s, now)
            wait = min(beat_at, trigger_at) - now
            try:
                seen = self._verdicts.get(timeout=min(max(wait, _TICK_MIN_S), _TICK_MAX_S))
            except Empty:
                continue
            if seen.camera == self.camera:
                self._use(seen.block)

    def _may_trigger(self) -> bool:
        if self.counts.triggered >= self._parts:
            return False
        if not self._interlock:
            return True
        return (
            self._simulator.alive(self.camera)
            and Status.READY in self._simulator.inspector(self.camera).status
        )

    def _trigger(self, now: float) -> None:
        self._waiting, self._give_up = True, now + self._timeout_s
        self.counts.triggered += 1
        self._write(sequence=next_sequence(self._block.sequence), part_id=self._next_part)
        self._next_part += 1

    def _use(self, verdict: InspectorBlock) -> None:
        if verdict.sequence == self._last:
            self.counts.repeated += 1
        elif self._asked_for(verdict):
            self._accept(verdict)
        elif verdict.sequence in self._unanswered:
            self._unanswered.remove(verdict.sequence)
            self.counts.late += 1
        else:
            self.counts.sequence_errors += 1
            if self._follows:  # a gap: go on from here
                self._accept(verdict)

    def _asked_for(self, verdict: InspectorBlock) -> bool:
        if self._follows:
            return self._last is None or verdict.sequence == next_sequence(self._last)
        asked = (self._block.sequence, self._block.part_id)
        return self._waiting and (verdict.sequence, verdict.part_id) == asked

    def _accept(self, verdict: InspectorBlock) -> None:
        self._last, self._waiting = verdict.sequence, False
        self.counts.passed += verdict.verdict == PASS
        self.counts.rejected += verdict.verdict == REJECT
        self.counts.faulted += verdict.verdict == FAULT
        self._write(ack=verdict.sequence)

    def _write(self, **changes: int) -> None:
        self._block = replace(self._block, **changes)
        self._simulator.write_plc(self.camera, self._block)
