"""Frames' pixels in memory that two processes share; what describes them travels on a pipe.

The memory is a memfd: it has no name in /dev/shm, so that the kernel frees it when the last process that
maps it is gone, however that process died. The parent makes a new ring for each camera process; a frame
that is still in work when its process dies stays readable and nobody writes to it any more.
"""

from __future__ import annotations

import mmap
import os

import numpy as np
from numpy.typing import DTypeLike, NDArray

from inspector.camera import Image
from inspector.errors import CameraSetupError


class RingReader:
    """The parent's end: creates the memory and sees it read-only."""

    def __init__(self, slots: int, slot_bytes: int) -> None:
        self.slots = slots
        self.slot_bytes = _whole_pages(slot_bytes)
        self.fd = os.memfd_create("inspector-frames", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, slots * self.slot_bytes)
        self._memory = mmap.mmap(self.fd, slots * self.slot_bytes, prot=mmap.PROT_READ)

    def view(self, slot: int, shape: tuple[int, ...], dtype: DTypeLike) -> Image:
        """A slot's image without a copy, read-only; it keeps the memory alive."""
        if not 0 <= slot < self.slots:
            raise ValueError(f"slot {slot} of a ring of {self.slots}")
        kind = np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        if size > self.slot_bytes:
            raise ValueError(f"image of {size} bytes in a slot of {self.slot_bytes}")
        image: NDArray[np.uint8] = np.ndarray(shape, kind, self._memory, slot * self.slot_bytes)
        return image

    def close_fd(self) -> None:
        """The mapping does not need the descriptor once the child has it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class RingWriter:
    """The child's end: knows which slots are free."""

    def __init__(self, fd: int, slots: int, slot_bytes: int) -> None:
        self._memory = mmap.mmap(fd, slots * slot_bytes)
        self._slot_bytes = slot_bytes
        self._free = list(reversed(range(slots)))
        os.close(fd)

    def put(self, image: Image) -> int | None:
        """Copy an image into a free slot and return its number; None when the parent has them all.

        Raises CameraSetupError for an image that no slot can hold.
        """
        check_room(image.nbytes, self._slot_bytes >> 20)
        if not self._free:
            return None
        slot = self._free.pop()
        target: NDArray[np.uint8] = np.ndarray(
            image.shape, image.dtype, self._memory, slot * self._slot_bytes
        )
        target[...] = image
        return slot

    def release(self, slot: int) -> None:
        """The parent is done with a slot."""
        self._free.append(slot)


def check_room(size: int, ring_slot_mib: int) -> None:
    """Raises CameraSetupError for a frame of `size` bytes that does not fit into a slot."""
    if size > ring_slot_mib << 20:
        raise CameraSetupError(
            f"a frame takes {size / 2**20:.1f} MiB, more than ring_slot_mib = {ring_slot_mib}; "
            f"set ring_slot_mib to {-(-size >> 20)} or more, or make the frame smaller"
        )


def _whole_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
