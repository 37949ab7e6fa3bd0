"""The daemon's side of a camera: starts its process, takes its frames, starts it anew when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Literal

from inspector.camera import CameraCounts, CameraInfo, Exhausted, Frame, Lost, events
from inspector.camera.events import Down, Event, FrameReady, Opened
from inspector.camera.ring import RingReader
from inspector.errors import CameraError
from inspector.settings import CameraSettings

__all__ = ["CameraProcess", "Down", "Event", "Exhausted", "FrameReady", "Opened", "State"]

State = Literal["stopped", "opening", "open", "down", "exhausted"]

OPEN_LIMIT_S = 30.0  # finding and configuring a network camera may take several seconds
FIRST_DELAY_S = 0.25  # of the second attempt; the first comes at once
LONGEST_DELAY_S = 4.0
STABLE_S = 5.0  # open for so long: the next failure is a first one again
STOP_LIMIT_S = 2.0
CHILD = "inspector.camera.child"  # the module that is run


class _Child:
    """One run of the camera process, with a pipe and a ring of its own.

    Nothing is shared between two runs, so that nothing of a dead one can be taken for the next one's.
    """

    def __init__(self, settings: CameraSettings, after: int) -> None:
        self.ring = RingReader(settings.ring_slots, settings.ring_slot_mib << 20)
        self.pipe, theirs = Pipe()
        start = {
            "settings": settings.model_dump(mode="json"),
            "ring_fd": self.ring.fd,
            "slots": self.ring.slots,
            "slot_bytes": self.ring.slot_bytes,
            "after": after,
        }
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603 our own interpreter and module
                [sys.executable, "-m", CHILD, str(theirs.fileno()), str(os.getpid())],
                pass_fds=(theirs.fileno(), self.ring.fd),
                stdin=subprocess.DEVNULL,
                stdout=2,  # camera libraries chat; stdout belongs to the command
            )
        self.ring.close_fd()
        self.born = self.heard = time.monotonic()
        self.opened: float | None = None
        self._lock = threading.Lock()
        self.tell(start)

    def tell(self, message: events.Message) -> bool:
        """Send a message; False when the process is gone."""
        with self._lock:
            try:
                self.pipe.send_bytes(events.encode(message))
            except OSError:
                return False
        return True

    def hear(self) -> tuple[list[events.Message], bool]:
        """All messages that wait, and whether the process can still say more."""
        messages = []
        try:
            while self.pipe.poll(0):
                messages.append(events.decode(self.pipe.recv_bytes()))
        except (EOFError, OSError):
            return messages, False
        finally:
            if messages:
                self.heard = time.monotonic()
        return messages, True

    def kill(self) -> None:
        self.process.kill()
        with self._lock:
            self.pipe.close()


class CameraProcess:
    """A camera that keeps itself alive in a process of its own.

    start(), poll() and stop() belong to one thread, which must live as long as the camera (the kernel
    ends the process with the thread that started it); fire() and release() may be called from any.
    """

    def __init__(self, settings: CameraSettings, *, open_limit_s: float = OPEN_LIMIT_S) -> None:
        self._settings = settings
        self._open_limit_s = open_limit_s
        self._child: _Child | None = None
        self._dying: list[subprocess.Popen[bytes]] = []
        self._lent: dict[int, tuple[Frame, _Child, int]] = {}
        self._lent_lock = threading.Lock()
        self._due: float | None = None
        self._failures = 0
        self._last_id = 0
        self.state: State = "stopped"
        self.info: CameraInfo | None = None
        self.counts = CameraCounts()

    @property
    def connection(self) -> Connection | None:
        """Readable when poll() has something to do; changes with each respawn, None between two."""
        return self._child.pipe if self._child else None

    @property
    def pid(self) -> int | None:
        """The camera process, for tests and `inspector doctor`."""
        return self._child.process.pid if self._child else None

    def start(self) -> None:
        """Start the process; Opened or Down follows from poll().

        Raises CameraError when the system cannot start one.
        """
        if self.state != "stopped":
            return
        for refused in self._spawn():
            raise CameraError(refused.message)

    def poll(self) -> list[Event]:
        """What happened since the last call, without waiting; supervises and respawns."""
        self._dying = [process for process in self._dying if process.poll() is None]
        happened = self._listen(self._child) if self._child else []
        if self._due is not None and time.monotonic() >= self._due:
            self.counts.respawns += 1
            happened += self._spawn()
        return happened

    def fire(self, token: int) -> bool:
        """Ask for a frame that carries the token; False when no camera is open to answer."""
        child = self._child
        return child is not None and child.opened is not None and child.tell({"do": "fire", "token": token})

    def release(self, frame: Frame) -> None:
        """Give a frame's slot back; its image must not be looked at any more. A second call does nothing."""
        with self._lent_lock:
            lent = self._lent.pop(id(frame), None)
        if lent is not None:
            _, child, slot = lent
            child.tell({"do": "release", "slot": slot})

    def stop(self) -> None:
        """End the process, giving it a moment to release the camera; safe to call twice."""
        child, self._child = self._child, None
        self._due = None
        self.state = "stopped"
        if child is not None:
            child.tell({"do": "stop"})
            with suppress(subprocess.TimeoutExpired):  # stuck in the camera's library
                child.process.wait(STOP_LIMIT_S)
            child.kill()
            self._dying.append(child.process)
        for process in self._dying:
            with suppress(subprocess.TimeoutExpired):  # held by a driver; the kernel ends it when it can
                process.wait(STOP_LIMIT_S)
        self._dying.clear()

    def _spawn(self) -> list[Down]:
        self._due = None
        try:
            self._child = _Child(self._settings, self._last_id)
        except OSError as error:
            return self._down(f"cannot start a camera process: {error.strerror}")
        self.state = "opening"
        return []

    def _listen(self, child: _Child) -> list[Event]:
        messages, alive = child.hear()
        happened: list[Event] = []
        for message in messages:
            happened += self._understand(child, message)
            if self._child is None:
                return happened
        silence, limit = time.monotonic() - child.heard, self._limit(child)
        if not alive:
            happened += self._down(_obituary(child.process))
        elif silence >= limit:
            what = "did not open the camera" if child.opened is None else "was silent"
            happened += self._down(f"camera process {what} for {silence:.1f} s (limit {limit:g} s); killed")
        return happened

    def _limit(self, child: _Child) -> float:
        return self._open_limit_s if child.opened is None else self._settings.silence_s

    def _understand(self, child: _Child, message: events.Message) -> Sequence[Event]:
        match message.pop("is"):
            case "opened":
                child.opened = child.heard
                self.state = "open"
                self.info = CameraInfo(**message)
                return [Opened(self.info)]
            case "frame":
                return [self._frame(child, message)]
            case "lost":
                lost = Lost(**message)
                self.counts.lost[lost.reason] = self.counts.lost.get(lost.reason, 0) + lost.count
                self._last_id = lost.frame_id or self._last_id
                return [lost]
            case "exhausted":
                self.state = "exhausted"
                return [Exhausted()]
            case "down":
                return self._down(message["message"], fatal=message["fatal"])
            case _:
                return []  # "alive": that it came is what it says

    def _frame(self, child: _Child, message: events.Message) -> FrameReady:
        slot = message.pop("slot")
        image = child.ring.view(slot, tuple(message.pop("shape")), message.pop("dtype"))
        frame = Frame(image, **message)
        with self._lent_lock:
            self._lent[id(frame)] = (frame, child, slot)
        self.counts.frames += 1
        self._last_id = frame.frame_id
        return FrameReady(frame)

    def _down(self, message: str, *, fatal: bool = False) -> list[Down]:
        """Bury the process and set the time of the next attempt."""
        child, self._child = self._child, None
        if child is not None:
            if child.opened is not None and time.monotonic() - child.opened >= STABLE_S:
                self._failures = 0
            child.kill()
            self._dying.append(child.process)
        with self._lent_lock:
            self._lent = {key: lent for key, lent in self._lent.items() if lent[1] is not child}
        if self.state == "exhausted":
            return []  # it had nothing more to say
        self.state = "down"
        self._due = time.monotonic() + _delay(self._failures, fatal=fatal)
        self._failures += 1
        return [Down(message, fatal)]


def _delay(failures: int, *, fatal: bool) -> float:
    """Seconds before the next attempt: at once, then doubling; never at once against a wrong station.toml."""
    if failures == 0 and not fatal:
        return 0.0
    return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** max(0, failures - 1)))


def _obituary(process: subprocess.Popen[bytes]) -> str:
    """Why the process ended: its pipe closed, so that its status follows at once."""
    try:
        status = process.wait(0.2)
    except subprocess.TimeoutExpired:
        return "camera process closed its pipe; killed"
    if status < 0:
        return f"camera process was ended by signal {-status}"
    return f"camera process ended with status {status}; its last lines are on stderr"
