"""What a durable row costs at least on this disk: a bare write and its fdatasync, nothing around them."""

from __future__ import annotations

import os
from pathlib import Path

from inspector.bench.timing import at, spread

WRITTEN = 8192  # bytes: the pages that a decision changes in the log's journal
ROOM = 1 << 20  # the file is laid out beforehand, as the journal is
COUNT = 200
AT_LEAST = 20.0  # a second


def syncs(folder: Path, fps: float) -> dict[str, float]:
    """p50, p99 and maximum, ms, at the line's cadence, but for slow ones: nobody waits a minute for this."""
    file = os.open(folder / "syncs", os.O_WRONLY | os.O_CREAT, 0o600)
    page = os.urandom(WRITTEN)
    places = iter(range(COUNT))

    def write() -> None:
        os.pwrite(file, page, next(places) * WRITTEN % ROOM)
        os.fdatasync(file)

    try:
        os.pwrite(file, bytes(ROOM), 0)
        os.fsync(file)
        return spread(at(max(fps, AT_LEAST), write, COUNT).clock)
    finally:
        os.close(file)
