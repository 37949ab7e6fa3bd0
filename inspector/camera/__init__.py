"""Frames and what delivers them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Frame:
    """One complete picture of a part.

    image: (H, W) mono or (H, W, 3) RGB, uint8 or uint16 (uint16 holds the camera's bits
    left-aligned, so that 65535 is white whatever the bit depth).
    """

    image: Image
    frame_id: int
    captured_ns: int  # time.monotonic_ns() when the frame arrived; one clock for all processes
    source: str  # file name (folder) or serial number (genicam)
    trigger: int | None = None  # the token given to fire(), None for frames nobody asked for


@dataclass(frozen=True, slots=True)
class Lost:
    """Frames that the camera announced or skipped and that never became a Frame."""

    reason: str  # "gap" | "incomplete" | "overrun" | "pixel_format" | "unreadable" | "timeout"
    count: int
    detail: str = ""
    trigger: int | None = None
    frame_id: int | None = None  # of the last of them, where the camera tells


@dataclass(frozen=True, slots=True)
class Exhausted:
    """The camera will never deliver again: a folder that is not repeated has been shown once."""


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """What opened, for the log, `inspector doctor` and the operator."""

    vendor: str
    model: str
    serial: str
    pixel_format: str
    width: int
    height: int


@dataclass(slots=True)
class CameraCounts:
    """Counters since the daemon started; respawns do not reset them."""

    frames: int = 0
    lost: dict[str, int] = field(default_factory=dict)  # by Lost.reason; "timeout": a trigger without a frame
    respawns: int = 0


class Camera(Protocol):
    """What a camera process drives. One thread calls it."""

    def open(self) -> CameraInfo:
        """Claim and configure the device, start acquisition. Raises CameraError."""
        ...

    def fetch(self, timeout_s: float) -> Frame | Lost | Exhausted | None:
        """The next frame, copied; Lost for what never became one; None when nothing came in time.

        Exhausted is said once, then None for ever. Raises CameraError when the device is gone.
        """
        ...

    def fire(self, token: int) -> None:
        """Ask for one frame (software trigger); the frame that answers carries the token."""
        ...

    def close(self) -> None:
        """Release the device; safe to call twice."""
        ...
