"""Frames and heatmaps to disk, behind the verdict: a full queue costs evidence, never time on the line.

A frame that cannot be stored is tried again until it can; meanwhile the station's health says so, and every
part is FAULT: a verdict whose frame nobody can look at could not be explained.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from inspector.appearance import measure
from inspector.audit import heatmap
from inspector.audit.frames import FrameStore
from inspector.audit.records import Evidence, Region, StoredFrame
from inspector.camera import Image
from inspector.errors import LogError
from inspector.health import Health

logger = structlog.get_logger()

T = TypeVar("T")

CHECKPOINT_S = 5.0  # between two checkpoints of the log's journal
RETRY_S = 1.0  # between two attempts to store a frame


@dataclass(frozen=True, slots=True)
class Exhibit:
    """What is kept of one inspection beside its row."""

    inspection: int
    camera: str
    taken: datetime  # aware
    image: Image  # (H, W) or (H, W, 3)
    keep: bool  # whether the station keeps the frame of this verdict
    map: NDArray[np.float32] | None  # (S, S), None where nothing was scored
    scale: float  # map value that 255 stands for
    region: Region | None  # what of the frame the map covers; None is all of it


class EvidenceWriter:
    """One thread that encodes and stores; its results wait for the next commit of the log."""

    def __init__(
        self, store: FrameStore, backlog: int, checkpoint: Callable[[], None], health: Health, *, probe: bool
    ) -> None:
        """Checkpoint moves the log's journal into its file; it is called here because no part waits here.

        probe: see at start whether frames can be stored at all.
        """
        self._store = store
        self._checkpoint = checkpoint
        self._health = health
        self._probe = probe
        self._stopping = threading.Event()
        self.given_up = 0  # exhibits that found the queue full
        self._checkpointed = time.monotonic()
        self._queue: queue.Queue[Exhibit | None] = queue.Queue(backlog)
        self._finished: deque[Evidence] = deque()
        self._thread = threading.Thread(target=self._work, name="evidence", daemon=True)

    def start(self) -> None:
        """Begin to take exhibits."""
        if self._probe:
            self._try(self._store.require_writable)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Exhibits in the queue."""
        return self._queue.qsize()

    def submit(self, exhibit: Exhibit) -> bool:
        """Queue an exhibit without waiting; False when the disk is too slow and it had to be given up."""
        try:
            self._queue.put_nowait(exhibit)
        except queue.Full:
            self.given_up += 1
            logger.warning("evidence given up: the disk is too slow", inspection=exhibit.inspection)
            return False
        return True

    def finished(self) -> list[Evidence]:
        """Take what is stored and has no row yet; whoever takes it must commit it or give it back."""
        taken = []
        with suppress(IndexError):  # the other thread may take the last one
            while True:
                taken.append(self._finished.popleft())
        return taken

    def give_back(self, evidence: list[Evidence]) -> None:
        """Return what could not be committed, oldest first."""
        self._finished.extendleft(reversed(evidence))

    def stop(self) -> None:
        """Store everything queued, then end; what cannot be stored by now is given up."""
        self._stopping.set()
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        while self._health.frames_problem and not self._stopping.wait(RETRY_S):
            self._try(self._store.require_writable)
        while True:
            try:
                exhibit = self._queue.get(timeout=CHECKPOINT_S)
                if exhibit is None:
                    return
                self._take(exhibit)
            except queue.Empty:
                pass
            self._tidy()

    def _take(self, exhibit: Exhibit) -> None:
        try:
            self._finished.append(self._keep(exhibit))
        except Exception:  # one odd picture must not end the evidence of every part that follows
            logger.exception("evidence not stored", inspection=exhibit.inspection)

    def _try(self, store: Callable[[], T]) -> T | None:
        """None where the store cannot be written; the station's health says why."""
        try:
            stored = store()
        except LogError as error:
            if not self._health.frames_problem:
                logger.error("every part is FAULT", error=str(error))
            self._health.frames_problem = str(error)
            return None
        if self._health.frames_problem:
            self._health.frames_problem = ""
            logger.info("frames can be stored again")
        return stored

    def _tidy(self) -> None:
        if time.monotonic() - self._checkpointed < CHECKPOINT_S:
            return
        self._checkpointed = time.monotonic()
        try:
            self._checkpoint()
        except LogError as error:
            logger.warning("journal not checkpointed", error=str(error))

    def _keep(self, exhibit: Exhibit) -> Evidence:
        frame = self._store_frame(exhibit) if exhibit.keep else None
        packed, measures = None, None
        if exhibit.map is not None:  # so the region fits the picture
            packed = heatmap.pack(exhibit.map, exhibit.scale, region=exhibit.region)
            measures = measure(exhibit.image, exhibit.region)
        return Evidence(exhibit.inspection, frame=frame, heatmap=packed, measures=measures)

    def _store_frame(self, exhibit: Exhibit) -> StoredFrame | None:
        """Again and again until it is stored, or the daemon stops."""

        def store() -> StoredFrame:
            return self._store.store(exhibit.inspection, exhibit.camera, exhibit.taken, exhibit.image)

        while True:
            stored = self._try(store)
            if stored is not None:
                return stored
            self._tidy()
            if self._stopping.wait(RETRY_S):
                logger.error("frame given up", inspection=exhibit.inspection)
                return None
