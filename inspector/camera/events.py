"""What a camera process tells the daemon, and its form on the pipe: one JSON object a message."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from inspector.camera import CameraInfo, Exhausted, Frame, Lost


@dataclass(frozen=True, slots=True)
class Opened:
    """The camera is claimed, configured and acquiring."""

    info: CameraInfo


@dataclass(frozen=True, slots=True)
class FrameReady:
    """A frame whose image lies in the ring, read-only, until CameraProcess.release(frame)."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Down:
    """No frames until the next Opened; the process is being started anew.

    fatal: the camera cannot do what station.toml asks (CameraSetupError); it is tried again all the same,
    because a person may put it right while the daemon runs.
    """

    message: str
    fatal: bool = False


Event = Opened | FrameReady | Lost | Down | Exhausted
Message = dict[str, Any]


def encode(message: Message) -> bytes:
    """One message as it goes over the pipe."""
    return json.dumps(message, separators=(",", ":")).encode()


def decode(data: bytes) -> Message:
    """The message in one datagram of the pipe."""
    message: Message = json.loads(data)
    return message


def opened(info: CameraInfo) -> Message:
    """Opened as a message."""
    return {"is": "opened", **asdict(info)}


def frame(one: Frame, slot: int) -> Message:
    """A frame's header as a message; its pixels are in the slot."""
    return {
        "is": "frame",
        "slot": slot,
        "shape": one.image.shape,
        "dtype": one.image.dtype.str,
        "frame_id": one.frame_id,
        "captured_ns": one.captured_ns,
        "source": one.source,
        "trigger": one.trigger,
    }


def lost(one: Lost) -> Message:
    """Lost as a message."""
    return {"is": "lost", **asdict(one)}


def down(message: str, *, fatal: bool) -> Message:
    """The camera process's last words."""
    return {"is": "down", "message": message, "fatal": fatal}
