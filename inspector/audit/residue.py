"""What a process that was killed has left in the journal behind what SQLite knows of.

A process that dies between writing its frames and telling the others of them (in the -shm index) leaves a
finished transaction that nobody reads while anybody has the database open. A shorter one written over its
beginning would make the rest look like transactions lost behind damage: so every writer wipes it first.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np

from inspector.audit.journal import FRAME, HEADER, INDEX, frames_of, index_of, journal_of


def descriptor(database: Path) -> int:
    """SQLite's own file descriptor of the index, good as long as this process has the database open.

    Another one of ours would end the locks that SQLite holds on the file when it is closed.
    Raises OSError.
    """
    wanted = index_of(database).stat()
    for number in [int(file.name) for file in Path("/proc/self/fd").iterdir()]:
        try:
            found = os.fstat(number)
        except OSError:  # closed by now, as the folder's own
            continue
        if os.path.samestat(found, wanted):
            return number
    raise FileNotFoundError(errno.ENOENT, "its index was moved or deleted", str(index_of(database)))


def left(database: Path, index: int) -> bool:
    """Whether a frame of the journal's own lies right behind those that SQLite knows of: there it begins.

    The caller holds SQLite's write lock, here and below. index: see descriptor(). Raises OSError.
    """
    file = os.open(journal_of(database), os.O_RDONLY)  # before every row, so not by way of Path.open
    try:
        header = os.pread(file, HEADER.size, 0)
        if len(header) < HEADER.size:
            return False
        _, _, page, _, *salts = HEADER.unpack(header)[:6]
        head = os.pread(file, FRAME, HEADER.size + _known(index) * (FRAME + page))
    finally:
        os.close(file)
    return len(head) == FRAME and any(salts) and head[8:16] == header[16:24]


def wipe(database: Path, index: int) -> None:
    """Wipe all of it, durably, its beginning last: whoever is cut short leaves it to be seen.

    Raises OSError.
    """
    with journal_of(database).open("r+b", buffering=0) as file:
        data = file.read()
        if len(data) < HEADER.size or not any(data[: HEADER.size]):
            return
        raw, _, ours = frames_of(data)
        behind = np.flatnonzero(ours[_known(index) :]) + _known(index)
        for frame in reversed(behind.tolist()):
            file.seek(HEADER.size + frame * raw.shape[1])
            file.write(bytes(FRAME))
        if behind.size:
            os.fsync(file.fileno())


def _known(index: int) -> int:
    """How many frames all processes know of that have the database open."""
    frames: int = INDEX.unpack(os.pread(index, INDEX.size, 0))[-1]
    return frames
