"""One camera's requests: what was asked, what is open, and the right to answer it exactly once.

Pure bookkeeping without I/O. Two threads use a lane (the decision loop scores, the line loop watches
triggers and deadlines), so every transition is made under the lane's lock.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Collection
from dataclasses import dataclass

from inspector.plc.registers import PlcBlock, next_sequence

MISSED_AT_MOST = 1000  # a larger jump of the trigger sequence is a PLC that restarted, not missed triggers


@dataclass(frozen=True, slots=True)
class Request:
    """One part that wants one verdict."""

    token: int  # unique in this process; travels to the camera and back
    sequence: int
    part_id: int
    asked_ns: int  # monotonic: the trigger, or the frame's arrival where the camera is the trigger
    deadline_ns: int


@dataclass(frozen=True, slots=True)
class Triggered:
    """What a change of the PLC's trigger sequence means."""

    fire: Request | None = None
    overrun: tuple[Request, ...] = ()
    restarted: bool = False  # the sequence jumped: the PLC has started anew
    dropped: tuple[Request, ...] = ()  # what was open when it did: it waits for none of these any more


class Lane:
    """The requests of one camera."""

    def __init__(self, deadline_ms: int) -> None:
        self._deadline_ns = deadline_ms * 1_000_000
        self._lock = threading.Lock()
        self._tokens = itertools.count(1)
        self._open: dict[int, Request] = {}
        self._overtaken: dict[int, int] = {}  # by token: since when a newer part may lie there
        self._sequence = 0
        self._trigger_seen: int | None = None
        self.overruns = 0

    def resume(self, sequence: int) -> None:
        """Go on numbering after the last sequence that was used before a restart; never goes back."""
        with self._lock:
            ahead = (sequence - self._sequence) & 0xFFFF
            if self._sequence == 0 or ahead < 0x8000:
                self._sequence = sequence

    def watch_from(
        self,
        block: PlcBlock,
        answered: tuple[int, int],
        now_ns: int,
        waiting: Collection[tuple[int, int]] = (),
        *,
        gap: bool = False,
    ) -> list[Request]:
        """Take up the PLC's trigger sequence at start.

        A trigger that differs from the last answered one (sequence, part id) was in flight while the
        inspector or the PLC was down: it is returned to be answered FAULT, unless its answer waits to go out.
        gap: nobody looked since that answer: so are, before it, the triggers between the two, and one with
        the same sequence for another part.
        """
        with self._lock:
            self._trigger_seen = block.sequence
            newest = (block.sequence, block.part_id)
            same = newest == answered if gap else block.sequence == answered[0]
            if same or newest in waiting:
                return []
            ahead = (block.sequence - answered[0]) & 0xFFFF
            between = range(1, ahead) if gap and ahead <= MISSED_AT_MOST else ()
            missed = [self._request((answered[0] + step) & 0xFFFF, 0, now_ns) for step in between]
            return [*missed, self._request(*newest, now_ns)]

    def own(self, now_ns: int) -> Request:
        """Open a request numbered by us: the camera, or the clock, is the trigger."""
        with self._lock:
            self._sequence = next_sequence(self._sequence)
            return self._opened(self._request(self._sequence, 0, now_ns))

    def zeroed(self, block: PlcBlock) -> bool:
        """Whether the PLC has just lost its memory, or wraps without using part ids."""
        return (block.sequence, block.part_id) == (0, 0) and self._trigger_seen not in {None, 0}

    def trigger(self, block: PlcBlock, asked_ns: int, *, anew: bool = False) -> Triggered:
        """Compare the PLC's trigger sequence with the last one seen.

        asked_ns: the earliest time at which a new trigger can have come, the last reading before this one.
        anew: the PLC is known to have lost its memory.
        Triggers that came while a part is open, or that were overtaken between two polls, are
        overruns: each must be answered FAULT. A backward or far jump is a restarted PLC; then what is open is
        dropped, for it may count its next parts as it did those, and is to be answered FAULT as well. One
        that has only lost its memory, and holds zeros, asks for nothing.
        """
        with self._lock:
            if self._trigger_seen is None or block.sequence == self._trigger_seen:
                self._trigger_seen = block.sequence
                return Triggered()
            advance = (block.sequence - self._trigger_seen) & 0xFFFF
            restarted = anew or advance > MISSED_AT_MOST
            dropped: tuple[Request, ...] = ()
            if restarted:
                dropped = tuple(self._open.values())
                self._open.clear()
            if restarted and (block.sequence, block.part_id) == (0, 0):
                self._trigger_seen = 0
                return Triggered(restarted=True, dropped=dropped)
            skipped = 0 if restarted else advance - 1
            missed = [
                self._request((self._trigger_seen + step) & 0xFFFF, 0, asked_ns)
                for step in range(1, skipped + 1)
            ]
            self._trigger_seen = block.sequence
            newest = self._request(block.sequence, block.part_id, asked_ns)
            busy = bool(self._open)
            if busy:
                missed.append(newest)
                for token in self._open:
                    self._overtaken.setdefault(token, asked_ns)
            else:
                self._overtaken.clear()
            self.overruns = (self.overruns + len(missed)) & 0xFFFF
            fire = None if busy else self._opened(newest)
            return Triggered(fire, tuple(missed), restarted, dropped)

    def find(self, token: int | None) -> Request | None:
        """The open request with this token, None if it was answered already or never asked."""
        with self._lock:
            return None if token is None else self._open.get(token)

    def overtaken(self, request: Request, taken_ns: int) -> bool:
        """Whether a frame of this time may show the part after the one that was asked about."""
        with self._lock:
            since = self._overtaken.get(request.token)
            return since is not None and taken_ns >= since

    def claim(self, request: Request) -> bool:
        """Take the right to answer; True for the first caller only."""
        with self._lock:
            return self._open.pop(request.token, None) is not None

    def claim_all(self) -> list[Request]:
        """Take the right to answer everything that is open, oldest first."""
        with self._lock:
            requests = list(self._open.values())
            self._open.clear()
            return requests

    def claim_expired(self, now_ns: int) -> list[Request]:
        """Take the right to answer every open request whose deadline has passed."""
        with self._lock:
            late = [request for request in self._open.values() if now_ns >= request.deadline_ns]
            for request in late:
                del self._open[request.token]
            return late

    @property
    def busy(self) -> bool:
        """Whether a part is in work."""
        return bool(self._open)

    def _request(self, sequence: int, part_id: int, now_ns: int) -> Request:
        return Request(next(self._tokens), sequence, part_id, now_ns, now_ns + self._deadline_ns)

    def _opened(self, request: Request) -> Request:
        self._open[request.token] = request
        return request
