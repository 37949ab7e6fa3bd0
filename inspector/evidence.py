"""Frames and heatmaps to disk, behind the verdict: a full queue costs evidence, never time on the line."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import structlog
from numpy.typing import NDArray

from inspector.audit import heatmap
from inspector.audit.frames import FrameStore
from inspector.audit.records import Evidence, Region
from inspector.camera import Image
from inspector.errors import LogError

logger = structlog.get_logger()

CHECKPOINT_S = 5.0  # between two checkpoints of the log's journal


@dataclass(frozen=True, slots=True)
class Exhibit:
    """What is kept of one inspection beside its row."""

    inspection: int
    camera: str
    taken: datetime  # aware
    image: Image | None  # None where the station keeps no frame of this verdict
    map: NDArray[np.float32] | None  # (S, S), None where nothing was scored
    scale: float  # map value that 255 stands for
    region: Region | None  # what of the frame the map covers; None is all of it


class EvidenceWriter:
    """One thread that encodes and stores; its results wait for the next commit of the log."""

    def __init__(self, store: FrameStore, backlog: int, checkpoint: Callable[[], None]) -> None:
        """Checkpoint moves the log's journal into its file; it is called here because no part waits here."""
        self._store = store
        self._checkpoint = checkpoint
        self._checkpointed = time.monotonic()
        self._queue: queue.Queue[Exhibit | None] = queue.Queue(backlog)
        self._finished: deque[Evidence] = deque()
        self._thread = threading.Thread(target=self._work, name="evidence", daemon=True)

    def start(self) -> None:
        """Begin to take exhibits."""
        self._thread.start()

    def submit(self, exhibit: Exhibit) -> bool:
        """Queue an exhibit without waiting; False when the disk is too slow and it had to be given up."""
        try:
            self._queue.put_nowait(exhibit)
        except queue.Full:
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
        """Store everything queued, then end."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
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

    def _tidy(self) -> None:
        if time.monotonic() - self._checkpointed < CHECKPOINT_S:
            return
        self._checkpointed = time.monotonic()
        try:
            self._checkpoint()
        except LogError as error:
            logger.warning("journal not checkpointed", error=str(error))

    def _keep(self, exhibit: Exhibit) -> Evidence:
        frame = None
        if exhibit.image is not None:
            try:
                frame = self._store.store(exhibit.inspection, exhibit.camera, exhibit.taken, exhibit.image)
            except LogError as error:
                logger.error("frame not stored", inspection=exhibit.inspection, error=str(error))
        packed = None
        if exhibit.map is not None:
            packed = heatmap.pack(exhibit.map, exhibit.scale, region=exhibit.region)
        return Evidence(exhibit.inspection, frame=frame, heatmap=packed)
