"""Take frames from a camera of the station outside the daemon, for calibration."""

from __future__ import annotations

import time
from collections.abc import Iterator
from multiprocessing import connection

from inspector.camera import Exhausted, Frame, Lost
from inspector.camera.events import Down, FrameReady
from inspector.camera.process import CameraProcess
from inspector.errors import CameraError
from inspector.settings import CameraSettings


def capture(settings: CameraSettings, count: int, timeout_s: float) -> Iterator[Frame]:
    """The camera's next frames; each must be used before the next is asked for.

    With trigger = "plc" the software trigger is fired for each frame. Raises CameraError when the camera
    cannot be opened, or when no frame comes for timeout_s.
    """
    camera = CameraProcess(settings)
    camera.start()
    try:
        yield from _take(camera, settings, count, timeout_s)
    finally:
        camera.stop()


def _take(camera: CameraProcess, settings: CameraSettings, count: int, timeout_s: float) -> Iterator[Frame]:
    taken, problem, give_up = 0, "no frame came", time.monotonic() + timeout_s
    asked = -1
    while taken < count:
        if camera.state == "open" and settings.trigger == "plc" and asked < taken:
            asked = taken
            camera.fire(taken + 1)
        connection.wait([] if camera.connection is None else [camera.connection], 0.1)
        for event in camera.poll():
            match event:
                case FrameReady(frame) if taken < count:
                    taken += 1
                    yield frame
                    camera.release(frame)
                    give_up = time.monotonic() + timeout_s
                case FrameReady(frame):
                    camera.release(frame)
                case Lost():
                    problem, asked = f"frames were lost: {event.reason} {event.detail}", taken - 1
                case Down(message):
                    problem, asked = message, taken - 1
                    if event.fatal:
                        raise CameraError(f"camera '{settings.name}': {message}")
                case Exhausted() if taken < count:
                    raise CameraError(
                        f"camera '{settings.name}': its folder has no more images after {taken} of {count}"
                    )
        if time.monotonic() > give_up:
            raise CameraError(f"camera '{settings.name}': {problem} within {timeout_s:g} s")
