"""The data folder: writable, on a fit file system, room left, and what an fsync costs."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from inspector.doctor import FAIL, OK, WARN, Finding
from inspector.settings import Settings

NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p"}  # SQLite's WAL needs shared memory
MEMORY = {"tmpfs", "ramfs"}
FSYNCS, SLOW_FSYNC_MS = 20, 10.0


def storage(settings: Settings) -> Iterator[Finding]:
    """Looks at the data folder, or at the folder it will be made in; leaves nothing behind."""
    data = settings.station.data
    folder = next(place for place in (data, *data.parents) if place.exists())
    yield _filesystem(folder)
    yield _room(folder, settings.log.min_free_mib)
    try:
        with tempfile.NamedTemporaryFile(prefix=".doctor-", dir=folder) as file:
            times = [_fsync_ms(file.fileno()) for _ in range(FSYNCS)]
    except OSError as error:
        message = f"{data} cannot be written: {error.strerror}"
        advice = "make station.data a folder that the user of the daemon may write"
        yield Finding(FAIL, "data folder", message, advice)
        return
    later = "" if data.exists() else ", will be made at the first start"
    yield Finding(OK, "data folder", f"{data} is writable{later}")
    yield _flush(times, settings.log.synchronous)


def _filesystem(folder: Path) -> Finding:
    place = folder.resolve()
    mounts = {Path(disk.mountpoint): disk.fstype for disk in psutil.disk_partitions(all=True)}
    mount = next((path for path in (place, *place.parents) if path in mounts), Path("/"))
    kind = mounts.get(mount, "unknown")
    message = f"{kind}, mounted at {mount}"
    if kind in NETWORK:
        advice = "put station.data on a local disk: SQLite's log is not safe on a network file system"
        return Finding(FAIL, "file system", message, advice)
    if kind in MEMORY:
        advice = "this is memory: the log is gone after a power cut; put station.data on a disk"
        return Finding(WARN, "file system", message, advice)
    return Finding(OK, "file system", message)


def _room(folder: Path, floor_mib: int) -> Finding:
    free = shutil.disk_usage(folder).free / 2**20
    message = f"{free / 1024:.1f} GiB free; below {floor_mib} MiB (log.min_free_mib) every part is FAULT"
    advice = "free some space, move station.data, or keep fewer frames (log.frames)"
    if free < floor_mib:
        return Finding(FAIL, "disk space", message, advice)
    if free < 4 * floor_mib:
        return Finding(WARN, "disk space", message, advice)
    return Finding(OK, "disk space", message)


def _fsync_ms(file: int) -> float:
    """One page written and flushed, as a decision's row is."""
    os.pwrite(file, os.urandom(4096), 0)
    started = time.perf_counter()
    os.fsync(file)
    return (time.perf_counter() - started) * 1000


def _flush(times: list[float], synchronous: str) -> Finding:
    median, worst = statistics.median(times), max(times)
    message = f"{median:.2f} ms (median of {len(times)}), {worst:.2f} ms at worst"
    if median <= SLOW_FSYNC_MS:
        return Finding(OK, "fsync", message)
    if synchronous == "NORMAL":
        return Finding(OK, "fsync", f"{message}; log.synchronous = NORMAL does not wait for it")
    advice = (
        "every verdict waits for this: use an SSD with power-loss protection, or log.synchronous = NORMAL"
    )
    return Finding(WARN, "fsync", message, advice)
