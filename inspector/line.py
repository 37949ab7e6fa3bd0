"""The line loop: a thread that polls the PLC, fires triggers, keeps deadlines and beats the heart.

It never touches the model, so a slow score delays no deadline and no heartbeat; and the heart beats only
while the decision loop shows that it is alive.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from inspector.answer import Answers
from inspector.beats import LIMIT_S, Beats
from inspector.channel import Channel
from inspector.coils import CoilWatch
from inspector.delivery import Delivery
from inspector.errors import PlcError
from inspector.health import Health
from inspector.journal import Journal
from inspector.lane import Request
from inspector.plc.link import Link
from inspector.plc.registers import NO_VERDICT, InspectorBlock, PlcBlock, next_heartbeat
from inspector.settings import Plc
from inspector.verdict import Decision, Reason

logger = structlog.get_logger()

GIVE_WAY_S = 0.005  # how long a verdict that is being given has the connection to itself
URGENT_S = 0.4  # a heartbeat as old as this goes before any other request, so that a slow PLC sees it in 1 s


@dataclass(slots=True)
class _Pulse:
    """When the PLC's heartbeat last moved."""

    value: int | None = None
    moved: float = 0.0
    still: bool = False


class LineLoop(threading.Thread):
    """Everything about the PLC that does not wait for a frame."""

    def __init__(
        self,
        link: Link | None,
        settings: Plc,
        channels: list[Channel],
        answers: Answers,
        delivery: Delivery,
        health: Health,
        journal: Journal,
        alive: Callable[[], bool],
        beats: Beats,
    ) -> None:
        super().__init__(name="line", daemon=True)
        self._link = link
        self._settings = settings
        self._channels = channels
        self._answers = answers
        self._delivery = delivery
        self._coils = CoilWatch(delivery, journal, settings.heartbeat_ms / 1000)
        self._health = health
        self._journal = journal
        self._alive = alive
        self._stop_asked = threading.Event()
        self._beats = beats
        self._by_name = {channel.name: channel for channel in channels}
        self._too_slow = False
        self._stalled = False
        self._pulses = {channel.name: _Pulse(moved=time.monotonic()) for channel in channels}
        self._watching: set[str] = set()  # cameras whose trigger sequence has been taken up
        self._read_at: dict[str, int] = {}  # when each PLC block was last read, monotonic ns
        self._reconnects = 0
        self._connected = True
        self._gave_way = False

    def take_up(self) -> None:
        """Read where the PLC and we left off; answer what was in flight. Raises PlcError."""
        self._after_reconnect()
        for channel in self._channels:
            if channel.name not in self._watching:
                self._take_up(channel)

    def stop(self) -> None:
        """End after the round in hand."""
        self._stop_asked.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Poll until stopped."""
        poll_s = self._settings.poll_ms / 1000
        while not self._stop_asked.wait(min(poll_s, GIVE_WAY_S) if self._gave_way else poll_s):
            self._expire()
            if self._link is not None and not self._gives_way():
                self._talk()

    def say_goodbye(self) -> None:
        """A status that is not READY tells the PLC that nobody is there before the still heartbeat does."""
        if self._link is None:
            return
        try:
            for channel in self._channels:
                self._write_status(channel)
                self._delivery.write_coils(channel, NO_VERDICT)
        except PlcError as error:
            logger.warning("the PLC was not told that the station stops", error=str(error))

    def _gives_way(self) -> bool:
        """Whether a verdict is being given, which we would hold up; never twice running: a disk may hang."""
        self._gave_way = not self._gave_way and any(channel.lock.locked() for channel in self._channels)
        return self._gave_way

    def _expire(self) -> None:
        now = time.monotonic_ns()
        for channel in self._channels:
            for request in channel.lane.claim_expired(now):
                self._answers.give(channel, request, Decision.fault(_why_late(channel, request)))

    def still(self, camera: str) -> bool:
        """Whether the PLC's heartbeat beside this camera stands still."""
        return self._pulses[camera].still

    def longest_gap_ms(self, camera: str) -> int:
        """How long our own heartbeat stood still at most, of late."""
        return round(self._beats.longest_s(camera) * 1000)

    def _talk(self) -> None:
        try:
            self._after_reconnect()
            for channel in self._channels:
                self._beat(URGENT_S)
                if channel.name not in self._watching:
                    self._take_up(channel)
                if self._delivery.waits(channel) and self._stands():
                    with channel.lock:
                        self._delivery.flush(channel)
                if self._stands():
                    self._coils.look(channel)
                if channel.settings.trigger == "plc":
                    block, asked_ns = self._read(channel)
                    if self._renewed():
                        return  # what the PLC asks is looked at when the channel is taken up
                    self._watch(channel, block, asked_ns)
                elif self._reading_is_due(channel) or not self._connection.connected:
                    self._read(channel)
                self._expire()
            self._beat(self._settings.heartbeat_ms / 1000)
        except PlcError as error:
            if self._connected:
                self._connected = False
                self._journal.note("plc", "error", str(error))
            return
        if not self._connected and self._connection.connected:
            self._connected = True
            self._journal.note("plc", "info", f"connected to the PLC at {self._connection.address}")

    def _stands(self) -> bool:
        """Whether the connection stands on which the channels were taken up; else reading makes a new one."""
        return self._connection.connected and not self._renewed()

    def _renewed(self) -> bool:
        """Whether a connection stands on which nothing has been taken up."""
        return self._connection.reconnects != self._reconnects

    def _after_reconnect(self) -> None:
        """What the PLC kept of us, and what it asked meanwhile, is looked at anew."""
        if self._renewed():
            self._reconnects = self._connection.reconnects
            self._watching.clear()
            self._beats.forget()

    def _reading_is_due(self, channel: Channel) -> bool:
        """Where the PLC triggers nothing its block is read for its heartbeat alone."""
        read_at = self._read_at.get(channel.name, 0)
        return time.monotonic_ns() - read_at >= self._settings.heartbeat_ms * 1_000_000

    def _beat(self, older_than_s: float) -> None:
        """Heartbeat and status of every camera whose last one is that old, the oldest first.

        Not before the channel is taken up: an old verdict must not stand beside a heart that beats again.
        """
        if not self._mind_the_stall() or not self._stands():
            return
        for _ in self._channels:
            name = self._beats.due(time.monotonic(), older_than_s, self._watching)
            if name is None or self._connection.reconnects != self._reconnects:
                break  # nothing is due, or the other thread has made a new connection: taken up first
            channel = self._by_name[name]
            channel.heartbeat = next_heartbeat(channel.heartbeat)
            self._write_status(channel, on=self._reconnects)
            self._beats.beaten(name, time.monotonic())
        self._mind_the_gap()

    def _mind_the_stall(self) -> bool:
        """Whether the decision loop lives; the heart stops with it."""
        alive = self._alive()
        if alive == self._stalled:
            self._stalled = not alive
            self._beats.forget()
            if alive:
                self._journal.note("stall", "info", "the decision loop goes on; so does the heartbeat")
            else:
                self._journal.note("stall", "error", "the decision loop hangs: the heartbeat stops")
        return alive

    def _mind_the_gap(self) -> None:
        """An alarm, once, when the heartbeat stood still for so long that the PLC rejects."""
        still_s = max(self._beats.longest_s(name) for name in self._by_name)
        too_slow, self._too_slow = self._too_slow, still_s > LIMIT_S
        if self._too_slow and not too_slow:
            self._journal.note(
                "heartbeat",
                "warning",
                f"our heartbeat stood still for {still_s:.1f} s, {LIMIT_S:g} s is allowed; the PLC takes "
                f"{self._connection.round_trip_ms or 0:.0f} ms an answer, for {len(self._channels)} cameras",
            )

    def _write_status(self, channel: Channel, *, on: int | None = None) -> None:
        status = channel.status(log_ok=self._health.storage_ok, running=self._health.running)
        self._connection.write_heartbeat(channel.settings.inspector_base, channel.heartbeat, status, on=on)

    def _read(self, channel: Channel) -> tuple[PlcBlock, int]:
        """The PLC's block, and the time (monotonic, ns) since which a trigger in it can be waiting."""
        before = self._read_at.get(channel.name)
        started = time.monotonic_ns()
        block = self._connection.read_plc(channel.settings.plc_base)
        if not self._renewed():  # else it is read once more, and what it asks has waited since before
            self._read_at[channel.name] = started
        channel.acknowledged = block.ack
        self._check_pulse(channel, block.heartbeat)
        return block, started if before is None else before

    def _check_pulse(self, channel: Channel, value: int) -> None:
        pulse, now = self._pulses[channel.name], time.monotonic()
        if value != pulse.value:
            if pulse.still:
                self._journal.note("plc_heartbeat", "info", "the PLC's heartbeat moves again", channel.name)
            pulse.value, pulse.moved, pulse.still = value, now, False
        elif not pulse.still and now - pulse.moved > self._settings.heartbeat_timeout_s:
            pulse.still = True
            self._journal.note(
                "plc_heartbeat",
                "warning",
                f"the PLC's heartbeat (register {channel.settings.plc_base}) has been still for "
                f"{self._settings.heartbeat_timeout_s:g} s",
                channel.name,
            )

    def _take_up(self, channel: Channel) -> None:
        """At start and after each new connection: go on where the registers stand.

        What the PLC holds and asks is read before anything is written, for a verdict that goes out would
        hide that the PLC has lost its memory. A verdict from before is taken out of the registers: it was
        written before the heartbeat stood still, and beside a beating one it could pass the next part.
        """
        began_ns = time.monotonic_ns()
        with channel.lock:
            ours = self._connection.read_inspector(channel.settings.inspector_base)
            anew = channel.settings.trigger == "plc" and self._is_anew(channel, ours)
            asked = self._read(channel)[0] if anew else None
            if self._renewed():
                return  # a connection has ended over it; both are read once more
            if channel.confirmed is None:
                channel.heartbeat = ours.heartbeat
            channel.taken_up = self._reconnects
            in_flight = self._begin_anew(channel, asked, ours, began_ns) if asked else []
        for request in in_flight:
            self._answers.give(channel, request, Decision.fault(Reason.RESTARTED))
        with channel.lock:
            self._delivery.flush(channel)
            if channel.confirmed_on != channel.taken_up:
                self._wipe(channel, ours)
        self._watching.add(channel.name)

    def _is_anew(self, channel: Channel, ours: InspectorBlock) -> bool:
        """Whether the daemon has started, or the PLC: it does not hold what it was last given."""
        known = {channel.confirmed, (channel.block.sequence, channel.block.part_id)}
        known |= self._delivery.waiting(channel)
        return channel.confirmed is None or ours.blank or (ours.sequence, ours.part_id) not in known

    def _begin_anew(
        self, channel: Channel, asked: PlcBlock, ours: InspectorBlock, began_ns: int
    ) -> list[Request]:
        """To be answered FAULT: what was in work when the PLC forgot that it had asked, what it asked while
        no daemon ran, and what it asks.

        Where both have the same sequence and part id one FAULT answers both.
        """
        self._delivery.forgotten(channel, began_ns)
        open_ones = channel.lane.claim_all()
        waiting = self._delivery.waiting(channel) | {(one.sequence, one.part_id) for one in open_ones}
        gap = channel.confirmed is None and not ours.blank
        answered = (ours.sequence, ours.part_id)
        now = time.monotonic_ns()
        return [*open_ones, *channel.lane.watch_from(asked, answered, now, waiting, gap=gap)]

    def _wipe(self, channel: Channel, ours: InspectorBlock) -> None:
        """Take the verdict out of the registers, and leave the sequence that it was for."""
        if channel.confirmed is None:
            channel.lane.resume(ours.sequence)
        channel.block = replace(
            channel.block, verdict=NO_VERDICT, sequence=ours.sequence, part_id=ours.part_id
        )
        self._delivery.write(channel, channel.block)

    def _watch(self, channel: Channel, block: PlcBlock, asked_ns: int) -> None:
        base = channel.settings.inspector_base
        anew = channel.lane.zeroed(block) and self._connection.read_inspector(base).blank
        triggered = channel.lane.trigger(block, asked_ns, anew=anew)
        if triggered.restarted:
            self._journal.note(
                "plc_restart", "warning", f"the trigger sequence jumped to {block.sequence}", channel.name
            )
            self._forget(channel, asked_ns)
        for request in triggered.dropped:
            self._answers.give(channel, request, Decision.fault(Reason.RESTARTED))
        for request in triggered.overrun:  # first, so that the newest part's verdict is what stays
            self._answers.give(channel, request, Decision.fault(Reason.OVERRUN))
        if triggered.fire is not None:
            self._fire(channel, triggered.fire)

    def _forget(self, channel: Channel, before_ns: int) -> None:
        """The PLC lost its memory while the connection stood: nothing from before may meet its new parts."""
        with channel.lock, suppress(PlcError):  # a new connection takes out what it finds as well
            self._delivery.forgotten(channel, before_ns)
            self._delivery.flush(channel)
            channel.block = replace(channel.block, verdict=NO_VERDICT)
            self._delivery.write(channel, channel.block)

    def _fire(self, channel: Channel, request: Request) -> None:
        """Fire the camera, unless the part has gone by or nobody would wait for its frame."""
        reason = Reason.CAMERA_DOWN
        if self._health.stopping:
            reason = Reason.STOPPING
        elif time.monotonic_ns() >= request.deadline_ns:
            reason = Reason.LATE
        elif channel.camera_ok and channel.camera.fire(request.token):
            return
        if channel.lane.claim(request):
            self._answers.give(channel, request, Decision.fault(reason))

    @property
    def _connection(self) -> Link:
        assert self._link is not None  # noqa: S101 - only called where a PLC is configured
        return self._link


def _why_late(channel: Channel, request: Request) -> Reason:
    if not channel.camera_ok:
        return Reason.CAMERA_DOWN
    if channel.settings.trigger == "plc" and channel.in_work != request.token:
        return Reason.NO_FRAME
    return Reason.LATE
