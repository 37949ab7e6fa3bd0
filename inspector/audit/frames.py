"""Frames on disk: lossless PNG, written whole or not at all, proven by their SHA-256."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.audit.records import StoredFrame
from inspector.errors import LogError

Image = NDArray[np.uint8] | NDArray[np.uint16]


class FrameStore:
    """A folder of frames: <day>/<camera>/<id>_<time>.png, days in UTC.

    The id stands first, so that a part is found with `ls`; the time keeps the frames of two logs apart
    when an older log was set aside and ids began anew.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def store(self, inspection_id: int, camera: str, time: datetime, image: Image) -> StoredFrame:
        """Write one frame: (H, W) mono or (H, W, 3) RGB, uint8 or uint16. time: aware.

        The file's bytes are on the disk on return; storing the same frame again replaces it. Raises
        LogError when the folder cannot be written or the disk is full; then nothing is left behind.
        """
        png = encoded(image)
        path = self._path(inspection_id, camera, time)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_whole(path, png)
        except OSError as error:
            raise LogError(_explain(path, error)) from error
        height, width = image.shape[:2]
        return StoredFrame(
            path=path.relative_to(self.root).as_posix(),
            sha256=hashlib.sha256(png).hexdigest(),
            bytes=len(png),
            width=width,
            height=height,
            channels=1 if image.ndim == 2 else 3,
            bit_depth=image.dtype.itemsize * 8,
        )

    def read(self, stored: StoredFrame) -> Image:
        """The frame as it was stored, bit for bit. Raises LogError when it is missing or altered."""
        png = self._verified(stored)
        decoded: Any = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
        if decoded is None:
            raise LogError(
                f"frame {self.root / stored.path} is not a readable PNG, though its SHA-256 is right"
            )
        image: Image = decoded if decoded.ndim == 2 else cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
        return image

    def verify(self, stored: StoredFrame) -> None:
        """Raise LogError when the file is missing or its bytes are not those that were stored."""
        self._verified(stored)

    def free_bytes(self) -> int:
        """What the disk under the store has left for this user. Raises LogError when it is gone."""
        folder = self.root
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        try:
            return shutil.disk_usage(folder).free
        except OSError as error:
            raise LogError(
                f"disk under {self.root} cannot be asked for its space: {error.strerror}"
            ) from error

    def require_free(self, floor_bytes: int) -> None:
        """Raise LogError when less than floor_bytes are left."""
        free = self.free_bytes()
        if free < floor_bytes:
            raise LogError(
                f"disk under {self.root} has {free >> 20} MiB free, the floor is {floor_bytes >> 20} MiB; "
                "free space, or move old frames away"
            )

    def require_writable(self) -> None:
        """Raise LogError when no file can be written there; makes the folder, leaves nothing in it."""
        path = self.root / ".writable"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            _write_whole(path, b"x" * 4096)
            path.unlink()
        except OSError as error:
            raise LogError(_explain(path, error)) from error

    def _path(self, inspection_id: int, camera: str, time: datetime) -> Path:
        utc = time.astimezone(UTC)
        name = re.sub(r"[^\w.-]", "_", camera).lstrip(".") or "_"
        stamp = f"{utc:%H%M%S}{utc.microsecond // 1000:03d}"
        return self.root / f"{utc:%Y-%m-%d}" / name / f"{inspection_id:09d}_{stamp}.png"

    def _verified(self, stored: StoredFrame) -> bytes:
        path = self.root / stored.path
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise LogError(
                f"frame {path} is missing; the log says it was stored with {stored.bytes} bytes"
            ) from None
        except OSError as error:
            raise LogError(f"frame {path} cannot be read: {error.strerror}") from error
        found = hashlib.sha256(data).hexdigest()
        if found != stored.sha256:
            raise LogError(
                f"frame {path} was altered: SHA-256 is {found[:12]}…, the log has {stored.sha256[:12]}…; "
                "it is no evidence any more (restore it from a backup)"
            )
        return data


def encoded(image: Image) -> bytes:
    """PNG at OpenCV's default: SUB filter, RLE, level 1; twice as fast as any explicit level."""
    if image.dtype not in (np.uint8, np.uint16) or not (image.ndim == 2 or image.shape[2:] == (3,)):
        raise ValueError(
            f"expected (H, W) or (H, W, 3) of uint8 or uint16, found {image.shape} {image.dtype}"
        )
    ok, png = cv2.imencode(".png", image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not ok:
        raise LogError(f"OpenCV could not write a PNG of {image.shape} {image.dtype}")
    return bytes(png)


def _write_whole(path: Path, data: bytes) -> None:
    """Under another name, to the disk, then renamed: a reader never sees half a frame."""
    partial = path.with_name(path.name + ".part")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fdatasync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _explain(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"frame {path} cannot be stored: the disk is full; free space, or move old frames away"
    return f"frame {path} cannot be stored: {error.strerror}; this user needs write permission on its folder"
