"""The line loop: a thread that polls the PLC, fires triggers, keeps deadlines and beats the heart.

It never touches the model, so a slow score delays no deadline and no heartbeat; and the heart beats only
while the decision loop shows that it is alive.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from inspector.answer import Answers, Health
from inspector.channel import Channel
from inspector.errors import PlcError
from inspector.journal import Journal
from inspector.lane import Request
from inspector.plc.link import Link
from inspector.plc.registers import PlcBlock, next_heartbeat
from inspector.settings import Plc
from inspector.verdict import Decision, Reason

logger = structlog.get_logger()


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
        health: Health,
        journal: Journal,
        alive: Callable[[], bool],
    ) -> None:
        super().__init__(name="line", daemon=True)
        self._link = link
        self._settings = settings
        self._channels = channels
        self._answers = answers
        self._health = health
        self._journal = journal
        self._alive = alive
        self._stop_asked = threading.Event()
        self._next_heartbeat = 0.0
        self._pulses = {channel.name: _Pulse(moved=time.monotonic()) for channel in channels}
        self._watching: set[str] = set()  # cameras whose trigger sequence has been taken up
        self._connected = True

    def take_up(self) -> None:
        """Read where the PLC and we left off; answer what was in flight. Raises PlcError."""
        for channel in self._channels:
            self._take_up(channel)

    def stop(self) -> None:
        """End after the round in hand."""
        self._stop_asked.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Poll until stopped."""
        while not self._stop_asked.wait(self._settings.poll_ms / 1000):
            self._expire()
            if self._link is not None:
                self._talk()
        if self._link is not None:
            self._say_goodbye()

    def _expire(self) -> None:
        now = time.monotonic_ns()
        for channel in self._channels:
            for request in channel.lane.claim_expired(now):
                self._answers.give(channel, request, Decision.fault(_why_late(channel, request)))

    def _talk(self) -> None:
        try:
            self._beat()
            for channel in self._channels:
                self._deliver(channel)
                if channel.name not in self._watching:
                    self._take_up(channel)
                elif channel.settings.trigger == "plc":
                    self._watch(channel, self._read(channel))
        except PlcError as error:
            self._note_connection(ok=False, detail=str(error))
        else:
            self._note_connection(ok=True)

    def _beat(self) -> None:
        """Heartbeat and status of every channel; the PLC's own heartbeat is read at the same pace."""
        now = time.monotonic()
        if now < self._next_heartbeat or not self._alive():
            return
        self._next_heartbeat = now + self._settings.heartbeat_ms / 1000
        for channel in self._channels:
            with channel.lock:
                channel.block = replace(
                    channel.block,
                    heartbeat=next_heartbeat(channel.block.heartbeat),
                    status=channel.status(log_ok=self._health.log_ok, running=self._health.running),
                )
                block = channel.block
                self._connection.write_heartbeat(
                    channel.settings.inspector_base, block.heartbeat, block.status
                )
            if channel.settings.trigger != "plc":
                self._read(channel)

    def _read(self, channel: Channel) -> PlcBlock:
        block = self._connection.read_plc(channel.settings.plc_base)
        self._check_pulse(channel, block.heartbeat)
        return block

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
        """Go on where the registers stand, with the old verdict taken out of them.

        It was written before the heartbeat stood still; beside a beating one it would pass the next part.
        """
        ours = self._connection.read_inspector(channel.settings.inspector_base)
        with channel.lock:
            channel.block = replace(
                channel.block, heartbeat=ours.heartbeat, sequence=ours.sequence, part_id=ours.part_id
            )
            self._connection.write_inspector(channel.settings.inspector_base, channel.block)
        if channel.settings.trigger == "plc":
            block = self._read(channel)
            in_flight = channel.lane.watch_from(block, ours.sequence, time.monotonic_ns())
            if in_flight is not None:
                self._answers.give(channel, in_flight, Decision.fault(Reason.RESTARTED))
        elif ours.sequence:
            channel.lane.resume(ours.sequence)
        self._watching.add(channel.name)

    def _watch(self, channel: Channel, block: PlcBlock) -> None:
        triggered = channel.lane.trigger(block, time.monotonic_ns())
        if triggered.restarted:
            self._journal.note(
                "plc_restart", "warning", f"the trigger sequence jumped to {block.sequence}", channel.name
            )
        if triggered.fire is not None:
            self._fire(channel, triggered.fire)
        for request in triggered.overrun:
            self._answers.give(channel, request, Decision.fault(Reason.OVERRUN))

    def _fire(self, channel: Channel, request: Request) -> None:
        fired = channel.camera_ok and channel.camera.fire(request.token)
        if not fired and channel.lane.claim(request):
            self._answers.give(channel, request, Decision.fault(Reason.CAMERA_DOWN))

    def _deliver(self, channel: Channel) -> None:
        """After a failed write: see whether it arrived; if not, repeat it until its deadline, then FAULT."""
        waiting = self._answers.undelivered.get(channel.name)
        if waiting is None:
            return
        ours = self._connection.read_inspector(channel.settings.inspector_base)
        with channel.lock:
            if self._answers.undelivered.get(channel.name) is not waiting:
                return
            if (ours.sequence, ours.verdict) == (waiting.request.sequence, waiting.verdict):
                del self._answers.undelivered[channel.name]
                return
            if time.monotonic_ns() < waiting.request.deadline_ns:
                self._connection.write_inspector(channel.settings.inspector_base, channel.block)
                del self._answers.undelivered[channel.name]
                return
        self._answers.give(channel, waiting.request, Decision.fault(Reason.LATE))

    def _note_connection(self, *, ok: bool, detail: str = "") -> None:
        if ok and not self._connected:
            self._journal.note("plc", "info", f"connected to the PLC at {self._connection.address}")
        elif not ok and self._connected:
            self._journal.note("plc", "error", detail)
        self._connected = ok

    def _say_goodbye(self) -> None:
        """Status 0 tells the PLC that nobody is there before the still heartbeat does."""
        try:
            for channel in self._channels:
                status = channel.status(log_ok=self._health.log_ok, running=False)
                self._connection.write_heartbeat(
                    channel.settings.inspector_base, channel.block.heartbeat, status
                )
        except PlcError as error:
            logger.warning("the PLC was not told that the station stops", error=str(error))

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
