"""The inspection cycle and its supervision.

The decision loop (the main thread) owns the models: it takes frames from the cameras' rings, scores them
and answers. The line loop (line.py) owns everything about the PLC that does not wait for a frame.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection
from types import FrameType

import sdnotify
import structlog

from inspector.answer import Answer, Answers, Health
from inspector.audit.frames import FrameStore
from inspector.audit.log import AuditLog
from inspector.camera import Exhausted, Frame, Lost
from inspector.camera.events import Down, Event, FrameReady, Opened
from inspector.camera.process import CameraProcess
from inspector.channel import Channel, Judge, Scored
from inspector.errors import CameraError, InspectorError, LogError, ModelError, PlcError
from inspector.evidence import EvidenceWriter
from inspector.journal import Journal
from inspector.lane import Lane, Request
from inspector.line import LineLoop
from inspector.plc.connect import open_link
from inspector.plc.registers import InspectorBlock
from inspector.settings import Settings
from inspector.verdict import Decision, Reason, judge

logger = structlog.get_logger()

TICK_S = 0.1  # the decision loop looks after itself at least this often
STALL_S = 2.0  # beyond the longest deadline: a decision loop silent for longer stops the heartbeat
HOUSEKEEPING_S = 1.0
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
        self._frames = FrameStore(settings.frames)
        self._evidence = EvidenceWriter(self._frames, settings.log.backlog, log.checkpoint)
        self._answers = Answers(log, self._link, self._evidence, self._health, settings.log, observer)
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
            self._link, settings.plc, self._channels, self._answers, self._health, self._journal, self._alive
        )
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_in.setblocking(False)
        self._stopping = False
        self._ticked = time.monotonic()
        self._stall_s = STALL_S + max(camera.deadline_ms for camera in settings.camera) / 1000
        self._housekept = 0.0
        self._notifier = sdnotify.SystemdNotifier()

    def stop(self) -> None:
        """Ask the decision loop to finish the part in hand and end; safe from a signal handler."""
        self._stopping = True
        with suppress(BlockingIOError):  # it is being woken already
            self._wake_in.send(b"x")

    def run(self) -> None:
        """Inspect until stopped, or until every camera has played its folder once.

        Raises PlcError or CameraError when the PLC or a camera cannot be had within startup_timeout_s.
        """
        with _signals(self.stop):
            self._housekeep()
            self._evidence.start()
            self._resume_sequences()
            try:
                self._meet_plc()
                for channel in self._channels:
                    channel.camera.start()
                self._line.start()
                self._start_cameras()
                if not self._stopping:
                    self._tell_started()
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

    def _start_cameras(self) -> None:
        """Inspect what is there already while the other cameras still open."""
        give_up = time.monotonic() + self._settings.station.startup_timeout_s
        problems: dict[str, str] = {}
        while not self._stopping and not all(c.camera_ok or c.exhausted for c in self._channels):
            self._round(problems)
            if time.monotonic() >= give_up:
                missing = next(c for c in self._channels if not c.camera_ok and not c.exhausted)
                why = problems.get(missing.name, "the camera process has not opened it")
                raise CameraError(f"camera '{missing.name}': {why}")
        self._health.running = not self._stopping

    def _tell_started(self) -> None:
        for channel in self._channels:
            if channel.judge.uncalibrated is not None:
                message = f"every part will be FAULT: {channel.judge.uncalibrated}"
                self._journal.note("uncalibrated", "error", message, channel.name)
        self._journal.note("started", "info", f"inspector runs with {len(self._channels)} cameras")
        self._notifier.notify("READY=1\nSTATUS=inspecting")

    # --- the cycle ---------------------------------------------------------------------------------

    def _round(self, problems: dict[str, str] | None = None) -> None:
        """Wait for something to do, then do all of it."""
        connections = [c.camera.connection for c in self._channels if c.camera.connection is not None]
        ready = connection.wait([*connections, self._wake_out], TICK_S)
        self._ticked = time.monotonic()
        if self._wake_out in ready:
            self._wake_out.recv(64)
        for channel in self._channels:
            for event in channel.camera.poll():
                self._ticked = time.monotonic()
                if isinstance(event, Down) and problems is not None:
                    problems[channel.name] = event.message
                    if event.fatal:
                        raise CameraError(f"camera '{channel.name}': {event.message}")
                self._on_event(channel, event)
        if not ready:
            self._store_evidence()
        if self._ticked - self._housekept >= HOUSEKEEPING_S:
            self._housekeep()

    def _on_event(self, channel: Channel, event: Event) -> None:
        match event:
            case FrameReady(frame):
                try:
                    self._on_frame(channel, frame)
                finally:
                    channel.camera.release(frame)
            case Lost():
                self._on_lost(channel, event)
            case Opened(info):
                channel.camera_ok = True
                self._journal.note(
                    "camera_opened", "info", f"{info.vendor} {info.model} {info.serial}", channel.name
                )
            case Down(message):
                self._on_down(channel, message)
            case Exhausted():
                channel.exhausted = True

    def _on_frame(self, channel: Channel, frame: Frame) -> None:
        if channel.settings.trigger == "plc":
            request = channel.lane.find(frame.trigger)
            if request is None:
                logger.warning("frame for no open request", camera=channel.name, frame=frame.frame_id)
                return
        else:
            request = channel.lane.own(frame.captured_ns)
        channel.in_work = request.token
        decision, scored = self._inspect(channel, frame, request)
        channel.in_work = None
        if channel.lane.claim(request):
            self._answers.give(channel, request, decision, frame, scored)
        elif scored is not None:
            self._journal.note(
                "late_score", "warning", f"score {scored.score:.6g} came after FAULT", channel.name, request
            )

    def _inspect(self, channel: Channel, frame: Frame, request: Request) -> tuple[Decision, Scored | None]:
        if channel.judge.uncalibrated is not None:
            return Decision.fault(Reason.UNCALIBRATED), None
        if time.monotonic_ns() >= request.deadline_ns:
            return Decision.fault(Reason.LATE), None
        waited = (time.monotonic_ns() - frame.captured_ns) / 1e6
        try:
            scored = channel.judge.scorer.score(frame.image)
        except ModelError as error:
            channel.model_ok = False
            logger.error("the model failed", camera=channel.name, error=str(error))
            return Decision.fault(Reason.MODEL_ERROR), None
        channel.model_ok = True
        scored.stages["wait"] = waited
        return judge(scored.score, channel.judge.threshold), scored

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
        was_up, channel.camera_ok = channel.camera_ok, False
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

    def _alive(self) -> bool:
        return time.monotonic() - self._ticked < self._stall_s

    def _finished(self) -> bool:
        if not self._line.is_alive():
            raise InspectorError("the line loop has ended; the log lines above say why")
        return self._stopping or all(c.exhausted and not c.lane.busy for c in self._channels)

    def _housekeep(self) -> None:
        self._housekept = time.monotonic()
        self._check_disk()
        self._answers.settle()
        for channel in self._channels:
            if not channel.model_ok:
                self._try_model(channel)
        self._notifier.notify("WATCHDOG=1")

    def _try_model(self, channel: Channel) -> None:
        """A line that waits for READY would never send the part that shows that the model works again."""
        try:
            channel.judge.scorer.warm_up()
        except ModelError:
            return
        channel.model_ok = True

    def _check_disk(self) -> None:
        try:
            self._frames.require_free(self._settings.log.min_free_mib << 20)
        except LogError as error:
            if not self._health.low_disk:
                logger.error("every part is FAULT", error=str(error))
            self._health.low_disk = str(error)
        else:
            self._health.low_disk = ""

    def _store_evidence(self) -> None:
        evidence = self._evidence.finished()
        if not evidence:
            return
        try:
            self._log.add_evidence(evidence)
        except LogError as error:
            self._evidence.give_back(evidence)
            self._health.log_ok = False
            logger.error("evidence not logged", error=str(error))
            time.sleep(TICK_S)

    def _shut_down(self) -> None:
        self._notifier.notify("STOPPING=1")
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
        self._evidence.stop()
        self._store_evidence()
        self._answers.settle()
        self._journal.note("stopped", "info", "inspector stops")
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
