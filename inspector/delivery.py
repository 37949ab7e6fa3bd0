"""Verdicts on their way to the PLC: each once and in order, and what waited until its deadline as FAULT.

The registers are the verdict; the coils of a simple PLC follow them in the same turn. A PLC that refuses the
coils has its verdict all the same. But it would not hear the next pass by coil, and the coil of an old one
may still be on: from then on every verdict is FAULT and READY off, until it takes the coils again.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from inspector.audit.records import Inspection
from inspector.beats import Beats
from inspector.channel import Channel
from inspector.errors import CoilsRefusedError, PlcError
from inspector.health import Health
from inspector.lane import Request
from inspector.plc.link import Link
from inspector.plc.registers import InspectorBlock, coils, next_heartbeat
from inspector.rows import Rows
from inspector.tally import Tally
from inspector.verdict import Decision, Reason, Verdict

UNDELIVERED_AT_MOST = 64  # verdicts that wait for a PLC; older ones have no part before the camera any more


@dataclass(slots=True)
class Undelivered:
    """A verdict that the PLC has not confirmed, its row committed."""

    request: Request
    inspection: Inspection
    row: int | None
    decision: Decision
    block: InspectorBlock
    tried: bool = False  # it may have arrived all the same, only its confirmation not

    @property
    def until_ns(self) -> int | None:
        """When it becomes too old to be delivered as it is; None, never, for a FAULT."""
        return None if self.decision.verdict is Verdict.FAULT else self.request.deadline_ns

    def expired(self) -> bool:
        """Whether it is too old by now."""
        return self.until_ns is not None and time.monotonic_ns() >= self.until_ns


class Delivery:
    """Writes what was decided to the PLC's registers and coils, and counts what it was given."""

    def __init__(
        self,
        rows: Rows,
        link: Link | None,
        health: Health,
        tally: Tally,
        beats: Beats,
        alive: Callable[[], bool],
    ) -> None:
        """Alive says whether the decision loop lives: a block that goes out then is a heartbeat too."""
        self._rows = rows
        self._link = link
        self._health = health
        self._tally = tally
        self._beats = beats
        self._alive = alive
        self._undelivered: defaultdict[str, deque[Undelivered]] = defaultdict(
            deque
        )  # by camera, oldest first

    def send(self, channel: Channel, sent: Undelivered) -> bool:
        """Write it now, or keep it until the PLC is back (false). The caller holds the channel's lock."""
        channel.overrun = sent.decision.reason is Reason.OVERRUN
        sent.block = channel.block = replace(sent.block, verdict=int(sent.decision.verdict))
        queue = self._undelivered[channel.name]
        while len(queue) >= UNDELIVERED_AT_MOST:
            self._count(queue.popleft())
        queue.append(sent)
        try:
            self.flush(channel)
        except PlcError:
            return False
        return True

    def waits(self, channel: Channel) -> int:
        """How many verdicts wait to be delivered."""
        return len(self._undelivered[channel.name])

    def waiting(self, channel: Channel) -> set[tuple[int, int]]:
        """Sequence and part id of each verdict that waits to be delivered."""
        return {(one.block.sequence, one.block.part_id) for one in self._undelivered[channel.name]}

    def flush(self, channel: Channel) -> None:
        """Write what waits to be delivered, oldest first, what is too old when its turn comes as FAULT.

        Only on the connection on which the channel has been taken up: on a newer one it is not known yet
        what the PLC still holds. The caller holds the channel's lock. Raises PlcError; what was not written
        goes on waiting.
        """
        queue = self._undelivered[channel.name]
        while queue:
            one = queue[0]
            if not (one.tried and self._arrived(channel, one)) and not self._write(channel, one):
                continue
            queue.popleft()
            self._count(one)

    def forgotten(self, channel: Channel, before_ns: int) -> None:
        """The PLC has lost its memory: what it asked before goes out as FAULT.

        It may count its new parts as it did the old ones, and a pass that waited would pass another part.
        The caller holds the channel's lock.
        """
        channel.forgotten_ns = before_ns
        for one in self._undelivered[channel.name]:
            if one.decision.verdict is not Verdict.FAULT:
                self._make_fault(one, Reason.RESTARTED)

    def write(self, channel: Channel, block: InspectorBlock, until_ns: int | None = None) -> bool:
        """Write a block to the channel's registers, then the coils that follow it. Raises PlcError.

        False, and nothing written, when its turn has not come by until_ns (monotonic).
        """
        if self._link is None:
            return True
        status = channel.status(log_ok=self._health.storage_ok, running=self._health.running)
        beating = self._alive()
        if beating:
            channel.heartbeat = next_heartbeat(channel.heartbeat)
        block = replace(block, heartbeat=channel.heartbeat, status=status)
        base, on, follow = channel.settings.inspector_base, channel.taken_up, _outputs(channel, block.verdict)
        try:
            if not self._link.write_inspector(base, block, coils=follow, until_ns=until_ns, on=on):
                return False
            channel.coils_refused = ""
        except CoilsRefusedError as error:  # the registers have been written
            channel.coils_refused = str(error)
        if beating:
            self._beats.beaten(channel.name, time.monotonic())
        self._confirm(channel, block)
        return True

    def write_coils(self, channel: Channel, verdict: int, *, on: int | None = None) -> None:
        """The coils alone, as they follow this verdict. Raises PlcError, but not where they are refused."""
        outputs = _outputs(channel, verdict)
        if self._link is None or outputs is None:
            return
        try:
            self._link.write_coils(outputs, on=on)
        except CoilsRefusedError as error:
            channel.coils_refused = str(error)
        else:
            channel.coils_refused = ""

    def _write(self, channel: Channel, one: Undelivered) -> bool:
        """False when its turn came too late: nothing was written, and it is FAULT at the next try."""
        if one.expired():
            self._make_fault(one, Reason.LATE)
        elif channel.coils_refused and one.decision.verdict is not Verdict.FAULT:
            self._make_fault(one, Reason.COILS)
        tried, one.tried = one.tried, True
        begun = self.write(channel, one.block, one.until_ns)
        one.tried = tried or begun
        return begun

    def _arrived(self, channel: Channel, waiting: Undelivered) -> bool:
        """Whether the registers hold it. Then it is not given again; what may be missing are its coils."""
        if self._link is None:
            return False
        ours = self._link.read_inspector(channel.settings.inspector_base, on=channel.taken_up)
        block = waiting.block
        if (ours.sequence, ours.part_id, ours.verdict) != (block.sequence, block.part_id, block.verdict):
            return False
        if waiting.expired():
            self._confirm(channel, block)
            channel.confirmed_on = None  # it has been there for long: to be taken out like any from before
        else:
            self.write_coils(channel, block.verdict, on=channel.taken_up)
            self._confirm(channel, block)
        return True

    def _make_fault(self, one: Undelivered, reason: Reason) -> None:
        """A FAULT goes out in its place, with a row of its own that keeps the score."""
        row = replace(one.inspection, time=datetime.now(UTC), latency_ms=_age_ms(one))
        one.row, one.decision = self._rows.commit(row, Decision.fault(reason))
        one.block = replace(one.block, verdict=int(Verdict.FAULT))

    def _count(self, one: Undelivered) -> None:
        """As it was delivered, or as its row has it where nobody waits for it any more."""
        self._tally.add(one.inspection, one.decision, _age_ms(one))

    def _confirm(self, channel: Channel, block: InspectorBlock) -> None:
        channel.confirmed = (block.sequence, block.part_id)
        channel.confirmed_on = channel.taken_up


def _outputs(channel: Channel, verdict: int) -> dict[int, bool] | None:
    """The coils by address as they follow a verdict; None where none are mapped."""
    mapped = channel.settings.coils
    if mapped is None:
        return None
    passed, rejected = coils(verdict)
    return {mapped.passed: passed, mapped.rejected: rejected}


def _age_ms(one: Undelivered) -> float:
    return (time.monotonic_ns() - one.request.asked_ns) / 1e6
