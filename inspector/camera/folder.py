"""A folder of images in place of a camera: set-up, demo, tests."""

from __future__ import annotations

import random
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from inspector.camera import CameraInfo, Exhausted, Frame, Image, Lost
from inspector.errors import CameraError, CameraSetupError
from inspector.settings import CameraSettings, Folder

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
AHEAD_S = 0.025  # how long before an image is due it is read


class FolderCamera:
    """Shows the images of a folder and its sub-folders at a set rate, or one at each trigger ("plc").

    A frame's id is its place in the sequence, from 1; its source is the file's path within the folder.
    """

    def __init__(self, settings: CameraSettings, after: int = 0) -> None:
        """after: go on behind this frame id, as if the camera had not been restarted."""
        if settings.folder is None:
            raise CameraSetupError(f"camera '{settings.name}' has no table camera.folder")
        self._settings: Folder = settings.folder
        self._on_demand = settings.trigger == "plc"
        self._period_s = 1 / self._settings.fps
        self._files: list[Path] = []
        self._order: list[int] = []
        self._position = after
        self._next: Frame | Lost | None = None
        self._due = 0.0
        self._reading_s = 0.0  # what the last image took
        self._asked: deque[int] = deque()
        self._ended = False

    def open(self) -> CameraInfo:
        """List the images. Raises CameraSetupError when there are none, CameraError when none can be read."""
        root = self._settings.path
        if not root.is_dir():
            found = "is a file" if root.exists() else "does not exist"
            raise CameraSetupError(f"camera.folder.path: {root} {found}; expected a folder of images")
        self._files = images_in(root)
        if not self._files:
            kinds = ", ".join(sorted(SUFFIXES))
            raise CameraSetupError(
                f"camera.folder.path: {root} holds no images; expected files named {kinds}"
            )
        image = self._first_readable()
        self._due = time.monotonic()
        kind = ("Mono" if image.ndim == 2 else "RGB") + str(8 * image.itemsize)
        return CameraInfo("folder", root.name, str(root), kind, image.shape[1], image.shape[0])

    def fetch(self, timeout_s: float) -> Frame | Lost | Exhausted | None:
        """The next image when it is due or asked for; Lost("unreadable") in place of a broken file."""
        if self._next is None and not self._ended:
            rest = self._rest_s()
            if rest > timeout_s:
                time.sleep(timeout_s)
                return None
            time.sleep(rest)
            self._next = self._load()
        event = self._next
        if event is None:
            return self._at_the_end(timeout_s)
        if self._on_demand:
            if not self._asked:
                time.sleep(timeout_s)
                return None
            return self._hand_over(event, self._asked.popleft())
        wait = self._due - time.monotonic()
        time.sleep(max(0.0, min(wait, timeout_s)))
        if wait > timeout_s:
            return None
        self._due = max(self._due + self._period_s, time.monotonic())
        return self._hand_over(event, None)

    def fire(self, token: int) -> None:
        """Show the next image now."""
        self._asked.append(token)

    def close(self) -> None:
        """Nothing to release."""

    def _hand_over(self, event: Frame | Lost, token: int | None) -> Frame | Lost:
        self._next = None
        if isinstance(event, Lost):
            return replace(event, trigger=token)
        return replace(event, captured_ns=time.monotonic_ns(), trigger=token)

    def _at_the_end(self, timeout_s: float) -> Exhausted | Lost | None:
        if not self._ended:
            self._ended = True
            return Exhausted()
        if self._asked:
            return Lost(
                "timeout",
                1,
                "the folder has been shown once, camera.folder.repeat is false",
                self._asked.popleft(),
            )
        time.sleep(timeout_s)
        return None

    def _rest_s(self) -> float:
        """Until the next image should be read: shortly before it is due, sooner where that takes long.

        A camera needs no processor to expose; one that decodes a file as soon as it has handed over the last,
        or half a period later, would take it from the daemon just when that has a part to judge.
        """
        if self._on_demand:
            return 0.0  # nobody knows when it will be asked for
        ahead = max(min(self._period_s / 2, AHEAD_S), 2 * self._reading_s)
        return max(0.0, self._due - ahead - time.monotonic())

    def _load(self) -> Frame | Lost | None:
        """Read the next image before it is due, so that reading does not delay it; None at the end."""
        turn, place = divmod(self._position, len(self._files))
        if turn > 0 and not self._settings.repeat:
            return None
        if place == 0 or not self._order:
            self._order = self._ordered(turn)
        file = self._files[self._order[place]]
        self._position += 1
        source = str(file.relative_to(self._settings.path))
        began = time.monotonic()
        try:
            return Frame(read_image(file), self._position, 0, source)
        except CameraError as error:
            return Lost("unreadable", 1, str(error), frame_id=self._position)
        finally:
            self._reading_s = time.monotonic() - began

    def _ordered(self, turn: int) -> list[int]:
        order = list(range(len(self._files)))
        if self._settings.order == "shuffled":
            random.Random(self._settings.seed + turn).shuffle(order)  # noqa: S311 an order, not a secret
        return order

    def _first_readable(self) -> Image:
        problem = ""
        for file in self._files:
            try:
                return read_image(file)
            except CameraError as error:
                problem = problem or str(error)
        raise CameraSetupError(
            f"camera.folder.path: none of the {len(self._files)} images can be read: {problem}"
        )


def images_in(root: Path) -> list[Path]:
    """All image files below a folder, sorted by path; hidden files and folders are left out."""
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )


def read_image(file: Path) -> Image:
    """Read (H, W) grey or (H, W, 3) RGB, uint8 or uint16; transparency is dropped.

    Raises CameraError naming the file.
    """
    try:
        data = np.frombuffer(file.read_bytes(), np.uint8)
    except OSError as error:
        raise CameraError(f"{file}: cannot be read: {error.strerror}") from None
    if data.size == 0:
        raise CameraError(f"{file}: the file is empty")
    image: Any = cv2.imdecode(data, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    if image is None:
        raise CameraError(f"{file}: not a complete image that OpenCV can decode")
    if image.dtype not in (np.uint8, np.uint16):
        raise CameraError(f"{file}: {image.dtype} pixels; expected 8 or 16 bit")
    decoded: Image = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return decoded
