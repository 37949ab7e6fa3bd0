"""GenICam cameras through harvesters and any GenTL producer (.cti).

Frames are taken from the producer's new-buffer events and raw buffers, not with harvesters' fetch(),
which waits for ever at timeout 0, starts its timeout anew at each incomplete buffer, does not tell a
timeout from an incomplete frame, leaves line padding in and has no image for packed formats.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
from genicam import genapi, gentl
from harvesters.util.pfnc import dict_by_ints

from inspector.camera import CameraInfo, Frame, Image, Lost, pixels
from inspector.camera.discovery import choose, claim, describe, harvester, producers
from inspector.camera.features import configure
from inspector.camera.ring import check_room
from inspector.errors import CameraError, CameraSetupError, PixelFormatError
from inspector.settings import CameraSettings, Genicam

ANSWER_S = 1.0  # how often a camera without frames is asked whether it is there
GEV_LAST_ID = 65535  # GigE Vision 1.x counts frames in 16 bits and leaves 0 out


class GenicamCamera:
    """One GenICam device.

    trigger = "plc": a frame answers the open fire(); when none came within deadline_ms, or when the next
    fire() comes first, acquisition is started anew, so that a late frame can never answer a later trigger.
    """

    def __init__(self, settings: CameraSettings) -> None:
        if settings.genicam is None:
            raise CameraSetupError(f"camera '{settings.name}' has no table camera.genicam")
        self._settings = settings
        self._genicam: Genicam = settings.genicam
        self._resources = ExitStack()
        self._acquirer: Any = None
        self._monitor: Any = None
        self._trigger: Any = None
        self._serial = ""
        self._ready: deque[Frame | Lost] = deque()
        self._asked: tuple[int, float] | None = None  # token, time.monotonic() by which it must be answered
        self._last_id: int | None = None
        self._counted = 0  # frames of a camera that does not number them
        self._heard = 0.0  # last frame
        self._answered = 0.0  # last sign of life

    def open(self) -> CameraInfo:
        """Find, claim and configure the camera, start acquisition.

        Raises CameraSetupError for what only a change of station.toml can mend, CameraError for what may
        mend itself (not there, in use by another process).
        """
        files = producers(self._genicam.producer)
        try:
            with _translated("opening the camera"):
                found, complaints = self._resources.enter_context(harvester(files))
                info = choose(found, complaints, self._genicam)
                device = describe(info)
                self._serial = device.serial
                self._acquirer = claim(found, info)
                self._trigger = configure(self._node_map, self._genicam.features, self._settings.trigger)
                name = _pixel_format(self._node_map.PixelFormat.get_int_value(), self._node_map)
                width, height = self._node_map.Width.value, self._node_map.Height.value
                check_room(pixels.decoded_bytes(name, width, height), self._settings.ring_slot_mib)
                self._acquirer.num_buffers = max(self._genicam.buffers, self._acquirer.min_num_buffers)
                self._start()
        except BaseException:
            self.close()
            raise
        self._heard = self._answered = time.monotonic()
        return CameraInfo(device.vendor, device.model, device.serial, name, width, height)

    def fetch(self, timeout_s: float) -> Frame | Lost | None:
        """The next frame; Lost("gap" | "incomplete" | "pixel_format" | "timeout") for those that never came.

        Raises CameraError when the device does not answer any more, or has no frame for silence_s
        although it runs free (trigger = "interval").
        """
        if not self._ready:
            with _translated("waiting for a frame"):
                if self._next_buffer(timeout_s):
                    self._heard = self._answered = time.monotonic()
                else:
                    self._check_silence()
        return self._ready.popleft() if self._ready else None

    def fire(self, token: int) -> None:
        """Execute the software trigger."""
        with _translated("firing the software trigger"):
            if self._asked is not None:
                self._abandon("the next trigger came before the camera's answer")
            for _ in range(self._acquirer.num_buffers):  # what came unasked must not answer this trigger
                if not self._next_buffer(0):
                    break
            self._asked = token, time.monotonic() + self._settings.deadline_ms / 1000
            self._trigger.execute()

    def close(self) -> None:
        """Stop acquisition and release the device and its producer."""
        self._acquirer = self._monitor = self._trigger = None
        with suppress(gentl.GenericException, genapi.GenericException):  # of a device that is gone
            self._resources.close()

    @property
    def _node_map(self) -> Any:
        return self._acquirer.remote_device.node_map

    def _start(self) -> None:
        self._acquirer.start()
        self._monitor = next(iter(self._acquirer._new_buffer_event_monitor_dict.values()))
        self._last_id = None

    def _next_buffer(self, timeout_s: float) -> bool:
        """Turn one new buffer into events in self._ready; False when none came in time."""
        try:
            self._monitor.update_event_data(int(timeout_s * 1000))
        except gentl.TimeoutException:
            return False
        captured_ns = time.monotonic_ns()
        buffer = self._monitor.buffer
        try:
            self._take(buffer, captured_ns)
        finally:
            buffer.parent.queue_buffer(buffer)
        return True

    def _take(self, buffer: Any, captured_ns: int) -> None:
        frame_id = self._number(buffer)
        try:
            problem = "" if buffer.is_complete() else "the camera's data did not arrive in full"
        except gentl.GenericException as error:
            problem = f"the producer cannot tell whether it is complete: {error}"
        if problem:
            self._ready.append(Lost("incomplete", 1, problem, self._token(), frame_id))
            return
        try:
            image = _image(buffer, self._node_map)
        except PixelFormatError as error:
            self._ready.append(Lost("pixel_format", 1, str(error), self._token(), frame_id))
        except _Incomplete as error:
            self._ready.append(Lost("incomplete", 1, str(error), self._token(), frame_id))
        else:
            self._ready.append(Frame(image, frame_id, captured_ns, self._serial, self._token()))

    def _number(self, buffer: Any) -> int:
        """The frame's id; ids that were skipped become Lost("gap"), which takes the open trigger with it."""
        try:
            frame_id = int(buffer.frame_id)
        except gentl.GenericException:
            self._counted += 1
            return self._counted
        missing = skipped(self._last_id, frame_id)
        if missing:
            detail = f"frame ids {self._last_id} to {frame_id}"
            self._ready.append(Lost("gap", missing, detail, self._token(), frame_id - 1))
        self._last_id = frame_id
        return frame_id

    def _token(self) -> int | None:
        """The open trigger, which is hereby answered."""
        asked, self._asked = self._asked, None
        return None if asked is None else asked[0]

    def _check_silence(self) -> None:
        now = time.monotonic()
        if self._asked is not None and now >= self._asked[1]:
            self._abandon(f"no frame within deadline_ms = {self._settings.deadline_ms}")
        if self._settings.trigger == "interval" and now - self._heard >= self._settings.silence_s:
            raise CameraError(
                f"camera {self._serial} runs free but has sent no frame for {now - self._heard:.1f} s"
            )
        if now - self._answered >= ANSWER_S:
            self._node_map.Width.get_value(False, True)  # asks the device itself, not the cache
            self._answered = now

    def _abandon(self, why: str) -> None:
        """Throw away the frame that did not come, wherever it is on its way."""
        self._ready.append(Lost("timeout", 1, why, self._token()))
        self._acquirer.stop()
        self._start()


class _Incomplete(Exception):  # noqa: N818 becomes a Lost, never an error
    pass


def skipped(last: int | None, now: int) -> int:
    """How many frames are missing between two frame ids; 0 where the camera does not count or began anew."""
    if last is None or now == last:
        return 0
    if now > last:
        return now - last - 1
    if GEV_LAST_ID // 2 < last <= GEV_LAST_ID and now <= GEV_LAST_ID // 2:
        return max(0, GEV_LAST_ID - last + now - 1)
    return 0


def _image(buffer: Any, node_map: Any) -> Image:
    """Decode a complete buffer. Raises PixelFormatError, or _Incomplete where it holds too little."""
    part = next(iter(buffer.parts), None)
    if part is None:
        name = _pixel_format(_known(buffer, "pixel_format"), node_map)
        width = _known(buffer, "width") or node_map.Width.value
        height = _known(buffer, "height") or node_map.Height.value
        padding, offset = _known(buffer, "padding_x") or 0, _known(buffer, "image_offset") or 0
        delivered = _known(buffer, "delivered_image_height")
        filled = _known(buffer, "size_filled")
    else:
        name = _pixel_format(_known(part, "data_format"), node_map)
        width, height = part.width, part.height
        padding, offset = _known(part, "x_padding") or 0, part.data_offset
        delivered = _known(part, "delivered_image_height")
        filled = part.data_offset + part.data_size
    if delivered not in (None, 0, height):
        raise _Incomplete(f"{delivered} of {height} lines arrived")
    size = pixels.size_in_bytes(name, width, height, padding)
    raw = buffer.raw_buffer
    held = min(len(raw), filled or len(raw)) - offset
    if held < size:
        raise _Incomplete(f"{held} of {size} bytes arrived")
    data = np.frombuffer(raw, np.uint8, size, offset)
    return pixels.decode(data, name, width, height, padding)


def _known(thing: Any, attribute: str) -> int | None:
    """A property that the producer may not know."""
    try:
        return int(getattr(thing, attribute))
    except gentl.GenericException:
        return None


def _pixel_format(value: int | None, node_map: Any) -> str:
    """The PFNC name of a format's number; the camera's own name where the number is not PFNC."""
    name = dict_by_ints.get(value) if value is not None else None
    return str(name or node_map.PixelFormat.value)


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    """GenTL's and GenApi's exceptions as CameraError."""
    try:
        yield
    except (gentl.GenericException, genapi.GenericException) as error:
        raise CameraError(f"{doing}: {error}") from None
