"""The camera process: drives one camera and hands its frames to the daemon.

Started by CameraProcess as `python -m inspector.camera.child PIPE_FD PARENT_PID`; it imports neither torch
nor the daemon. It ends by itself when the daemon dies.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from multiprocessing.connection import Connection

from inspector.camera import Camera, Exhausted, Frame, Lost, events
from inspector.camera.ring import RingWriter
from inspector.errors import CameraError, CameraSetupError
from inspector.interpreter import prompt
from inspector.settings import CameraSettings

ALIVE_S = 0.25  # how often it says that it is not stuck
TICK_S = 0.02  # how long one fetch may hold everything else back
ASKED_TICK_S = 0.002  # the same while a trigger waits for its frame
_PR_SET_PDEATHSIG = 1


class _Stop(Exception):  # noqa: N818 a request, not an error
    pass


def main(pipe_fd: int, parent: int) -> int:
    """Serve one camera until told to stop; the exit status is 0 only then."""
    _die_with(parent)
    _ignore_signals()
    pipe = Connection(pipe_fd)
    start = events.decode(pipe.recv_bytes())
    settings = CameraSettings.model_validate(start["settings"])
    ring = RingWriter(start["ring_fd"], start["slots"], start["slot_bytes"])
    try:
        camera = build(settings, start["after"])
        try:
            info = camera.open()
            _ignore_signals()  # a camera library may have put its own handlers in place
            pipe.send_bytes(events.encode(events.opened(info)))
            with prompt():
                _Server(pipe, camera, ring, on_demand=settings.trigger == "plc").run()
        finally:
            camera.close()
    except (_Stop, EOFError, BrokenPipeError, ConnectionResetError):
        return 0
    except CameraError as error:
        pipe.send_bytes(events.encode(events.down(str(error), fatal=isinstance(error, CameraSetupError))))
        return 1
    except Exception as error:  # the reason must reach the log; the traceback goes to stderr
        text = f"camera process failed: {type(error).__name__}: {error}"
        pipe.send_bytes(events.encode(events.down(text, fatal=False)))
        raise
    return 0


def build(settings: CameraSettings, after: int = 0) -> Camera:
    """The camera that the settings describe, not yet opened. after: last frame id of a camera that died."""
    if settings.folder is not None:
        from inspector.camera.folder import FolderCamera

        return FolderCamera(settings, after)
    from inspector.camera.genicam import GenicamCamera

    return GenicamCamera(settings)


class _Server:
    """Commands in, frames out, one thread."""

    def __init__(self, pipe: Connection, camera: Camera, ring: RingWriter, *, on_demand: bool) -> None:
        self._pipe = pipe
        self._camera = camera
        self._ring = ring
        self._on_demand = on_demand
        self._asked = 0
        self._said = 0.0

    def run(self) -> None:
        """Raises _Stop when told to, EOFError when the daemon is gone, CameraError when the camera is."""
        while True:
            self._obey()
            event = self._camera.fetch(ASKED_TICK_S if self._on_demand else TICK_S)
            if isinstance(event, Frame):
                self._hand_over(event)
            elif isinstance(event, Lost):
                self._lose(event)
            elif isinstance(event, Exhausted):
                self._say({"is": "exhausted"})
            elif time.monotonic() - self._said >= ALIVE_S:
                self._say({"is": "alive"})

    def _obey(self) -> None:
        """Carry out what the daemon wants; wait for it where only a trigger can bring a frame."""
        patience = TICK_S if self._on_demand and self._asked == 0 else 0.0
        while self._pipe.poll(patience):
            patience = 0.0
            command = events.decode(self._pipe.recv_bytes())
            match command["do"]:
                case "fire":
                    self._asked += 1
                    self._camera.fire(command["token"])
                case "release":
                    self._ring.release(command["slot"])
                case "stop":
                    raise _Stop

    def _hand_over(self, frame: Frame) -> None:
        slot = self._ring.put(frame.image)
        if slot is None:
            detail = "the daemon still holds all frames of the ring (ring_slots)"
            self._lose(Lost("overrun", 1, detail, frame.trigger, frame.frame_id))
            return
        self._answered(frame.trigger)
        self._say(events.frame(frame, slot))

    def _lose(self, lost: Lost) -> None:
        self._answered(lost.trigger)
        self._say(events.lost(lost))

    def _answered(self, trigger: int | None) -> None:
        if trigger is not None:
            self._asked = max(0, self._asked - 1)

    def _say(self, message: events.Message) -> None:
        self._said = time.monotonic()
        self._pipe.send_bytes(events.encode(message))


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the daemon's thread that started it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)


def _ignore_signals() -> None:
    """Ctrl-C and systemd reach every process; the daemon finishes its part and then stops us."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
