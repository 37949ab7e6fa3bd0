"""The inspection cycle and its supervision.

The decision loop (the main thread) owns the models: it takes frames from the cameras' rings and has them
scored and answered (judging.py). The line loop (line.py) owns everything about the PLC that does not wait for
a frame.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection
from types import FrameType

import structlog

from inspector.answer import Answer, Answers
from inspector.audit.frames import FrameStore
from inspector.audit.log import AuditLog
from inspector.beats import Beats
from inspector.camera import Exhausted, Lost
from inspector.camera.events import Down, Event, Opened
from inspector.camera.process import CameraProcess
from inspector.channel import Channel, Judge
from inspector.delivery import Delivery
from inspector.driftwatch import DriftWatch
from inspector.errors import CameraError, InspectorError, LogError, PlcError
from inspector.evidence import EvidenceWriter
from inspector.health import Health
from inspector.inquiry import Inquiries
from inspector.journal import Journal
from inspector.judging import Judging
from inspector.lane import Lane, Request
from inspector.line import LineLoop
from inspector.metrics import Exporter
from inspector.plc.connect import open_link
from inspector.plc.registers import InspectorBlock
from inspector.rows import Rows
from inspector.settings import Settings
from inspector.status import Status
from inspector.supervision import Supervision
from inspector.swap import Swapper
from inspector.tally import Tally
from inspector.verdict import Decision, Reason

logger = structlog.get_logger()

TICK_S = 0.1  # the decision loop looks after itself at least this often
STALL_S = 2.0  # beyond the longest deadline: a decision loop silent for longer stops the heartbeat
LOST_AT_MOST = 32  # frames lost at once that are answered one by one


class Daemon:
    """A running station."""

    def __init__(
        self,
        settings: Settings,
        log: AuditLog,
        judges: dict[str, Judge],
        observer: Callable[[Answer], None] | None = None,
    ) -> None:
        """Judges by recipe name; they are warm. The log is open; the caller closes it."""
        self._settings = settings
        self._log = log
        self._journal = Journal(log)
        self._health = Health()
        self._link = open_link(settings.plc) if settings.plc.enabled else None
        frames = FrameStore(settings.frames)
        self._evidence = EvidenceWriter(
            frames, settings.log.backlog, log.checkpoint, self._health, probe=settings.log.frames != "none"
        )
        self._tally = Tally([camera.name for camera in settings.camera], self._alarm)
        beats = Beats(camera.name for camera in settings.camera)
        self._rows = Rows(log, self._evidence, self._health)
        delivery = Delivery(self._rows, self._link, self._health, self._tally, beats, self._alive)
        self._answers = Answers(self._rows, delivery, self._evidence, self._health, settings.log, observer)
        self._judging = Judging(self._answers, self._journal, self._tick)
        self._channels = [
            Channel(
                settings=camera,
                recipe=settings.recipe[camera.recipe],
                judge=judges[camera.recipe],
                camera=CameraProcess(camera),
                lane=Lane(camera.deadline_ms),
                block=InspectorBlock(recipe=settings.recipe[camera.recipe].number),
            )
            for camera in settings.camera
        ]
        self._line = LineLoop(
            self._link,
            settings.plc,
            self._channels,
            self._answers,
            delivery,
            self._health,
            self._journal,
            self._alive,
            beats,
        )
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_in.setblocking(False)
        self._stopping = False
        self._ticked = time.monotonic()
        self._stall_s = STALL_S + max(camera.deadline_ms for camera in settings.camera) / 1000
        self._drift = DriftWatch(settings, self._channels, self._journal)
        self._swapper = Swapper(settings, self._channels, log, self._journal)
        self._supervision = Supervision(
            settings, self._channels, frames, self._rows, self._health, self._journal, self._swapper
        )
        self.status = Status(
            settings,
            self._channels,
            self._health,
            self._tally,
            self._rows,
            delivery,
            self._evidence,
            self._link,
            self._line,
            self._drift,
        )
        self._inquiries = Inquiries(settings.station.data, self.status.snapshot)
        self._metrics = Exporter(settings.metrics, self.status)

    def stop(self) -> None:
        """Ask the decision loop to finish the part in hand and end; safe from a signal handler."""
        self._stopping = True
        with suppress(BlockingIOError):  # it is being woken already
            self._wake_in.send(b"x")

    def run(self) -> None:
        """Inspect until stopped, or until every camera has played its folder once.

        Raises PlcError, CameraError or ModelError when the PLC, a camera or a model cannot be had within
        startup_timeout_s, and LogError when the log is damaged.
        """
        with _signals(self.stop):
            self._evidence.start()
            self._inquiries.start()
            self._metrics.start()
            self._drift.start()
            try:
                self._supervision.look(now=True)
                self._resume_sequences()
                self._meet_plc()
                for channel in self._channels:
                    channel.camera.start()
                self._line.start()
                self._get_ready()
                if not self._stopping:
                    self._supervision.started()
                while not self._finished():
                    self._round()
            finally:
                self._shut_down()

    # --- start -------------------------------------------------------------------------------------

    def _resume_sequences(self) -> None:
        for channel in self._channels:
            channel.lane.resume(self._log.last_sequence(channel.name) or 0)

    def _meet_plc(self) -> None:
        if self._link is None:
            return
        give_up, told = time.monotonic() + self._settings.station.startup_timeout_s, ""
        while not self._stopping:
            try:
                self._line.take_up()
            except PlcError:
                if time.monotonic() >= give_up:
                    raise
                if self._link.last_error != told:
                    told = self._link.last_error
                    logger.warning("waiting for the PLC", error=told)
                time.sleep(min(0.5, max(0.0, give_up - time.monotonic())))
            else:
                return

    def _get_ready(self) -> None:
        """Inspect what is there already while other cameras still open and models still fail their self-test.

        Raises CameraError and ModelError when that takes longer than startup_timeout_s.
        """
        give_up = time.monotonic() + self._settings.station.startup_timeout_s
        problems: dict[str, str] = {}
        for channel in self._channels:
            if not channel.model_ok:
                self._journal.note(
                    "model", "error", f"every part is FAULT: {channel.model_problem}", channel.name
                )
        while not self._stopping and not all(self._complete(channel) for channel in self._channels):
            self._round(problems)
            missing = next((c for c in self._channels if not c.camera_ok and not c.exhausted), None)
            if missing is not None and time.monotonic() >= give_up:
                why = problems.get(missing.name, missing.camera_problem)
                raise CameraError(f"camera '{missing.name}': {why}")
        self._health.running = not self._stopping

    @staticmethod
    def _complete(channel: Channel) -> bool:
        return channel.model_ok and (channel.camera_ok or channel.exhausted)

    # --- the cycle ---------------------------------------------------------------------------------

    def _round(self, problems: dict[str, str] | None = None) -> None:
        """Wait for something to do, then do all of it."""
        connections = [c.camera.connection for c in self._channels if c.camera.connection is not None]
        ready = connection.wait([*connections, self._wake_out], TICK_S)
        self._tick()
        if self._wake_out in ready:
            self._wake_out.recv(64)
        for channel, event in self._judging.through(self._channels):
            if isinstance(event, Down) and problems is not None:
                problems[channel.name] = event.message
                if event.fatal:
                    raise CameraError(f"camera '{channel.name}': {event.message}")
            self._on_event(channel, event)
        if not ready:
            self._store_evidence()
            self._judging.keep_warm(self._channels)
        self._supervision.look()

    def _on_event(self, channel: Channel, event: Event) -> None:
        match event:
            case Lost():
                self._on_lost(channel, event)
            case Opened(info):
                channel.camera_ok, channel.camera_problem = True, ""
                self._journal.note(
                    "camera_opened", "info", f"{info.vendor} {info.model} {info.serial}", channel.name
                )
            case Down(message):
                self._on_down(channel, message)
            case Exhausted():
                channel.exhausted = True

    def _on_lost(self, channel: Channel, lost: Lost) -> None:
        """Where the camera is the trigger every lost frame was a part, and gets its FAULT."""
        self._journal.note(
            "frames_lost", "warning", f"{lost.count} frames: {lost.reason} {lost.detail}", channel.name
        )
        if channel.settings.trigger == "camera":
            for _ in range(min(lost.count, LOST_AT_MOST)):
                self._fault(channel, channel.lane.own(time.monotonic_ns()), Reason.FRAME_LOST)
        elif channel.settings.trigger == "plc":
            request = channel.lane.find(lost.trigger)
            if request is not None:
                self._fault(channel, request, Reason.FRAME_LOST)

    def _on_down(self, channel: Channel, message: str) -> None:
        """Answer what was open; without a PLC trigger, put a FAULT over the last verdict on the wire."""
        was_up, channel.camera_ok, channel.camera_problem = channel.camera_ok, False, message
        if not was_up:
            logger.warning("camera still down", camera=channel.name, error=message)
            return
        self._journal.note("camera_down", "error", message, channel.name)
        for request in channel.lane.claim_all():
            self._answers.give(channel, request, Decision.fault(Reason.CAMERA_DOWN))
        if channel.settings.trigger != "plc":
            self._fault(channel, channel.lane.own(time.monotonic_ns()), Reason.CAMERA_DOWN)

    def _fault(self, channel: Channel, request: Request, reason: Reason) -> None:
        if channel.lane.claim(request):
            self._answers.give(channel, request, Decision.fault(reason))

    # --- supervision -------------------------------------------------------------------------------

    def _alarm(self, camera: str, message: str) -> None:
        self._journal.note("late", "error", message, camera)

    def _tick(self) -> None:
        self._ticked = time.monotonic()

    def _alive(self) -> bool:
        return time.monotonic() - self._ticked < self._stall_s

    def _finished(self) -> bool:
        if not self._line.is_alive():
            raise InspectorError("the line loop has ended; the log lines above say why")
        return self._stopping or all(c.exhausted and not c.lane.busy for c in self._channels)

    def _store_evidence(self) -> None:
        evidence = self._evidence.finished()
        if not evidence:
            return
        try:
            self._log.add_evidence(evidence)
        except LogError as error:
            self._evidence.give_back(evidence)
            self._health.log_problem = str(error)
            logger.error("evidence not logged", error=str(error))
            time.sleep(TICK_S)

    def _shut_down(self) -> None:
        self._supervision.stopping()
        self._swapper.close()
        self._health.stopping = True
        self._health.running = False
        if self._stopping:  # after an error of our own another round would only raise it again
            self._finish_parts_in_hand()
        self._line.stop()
        for channel in self._channels:
            for request in channel.lane.claim_all():
                self._answers.give(channel, request, Decision.fault(Reason.STOPPING))
        self._line.say_goodbye()
        for channel in self._channels:
            channel.camera.stop()
        self._drift.close()
        self._evidence.stop()
        self._store_evidence()
        self._rows.settle()
        self._journal.note("stopped", "info", "inspector stops")
        self._inquiries.close()
        self._metrics.close()
        if self._link is not None:
            self._link.close()

    def _finish_parts_in_hand(self) -> None:
        """Wait for frames that are on their way; each request ends at its deadline at the latest."""
        while any(channel.lane.busy for channel in self._channels) and self._line.is_alive():
            self._round()


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT end the decision loop after the part in hand."""

    def handle(number: int, frame: FrameType | None) -> None:
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
