"""SQLite's write-ahead log as a file: whether it is sound, and what in it SQLite would pass over in silence.

SQLite reads a journal up to the first frame whose checksum is wrong, as if what follows had never been
finished, and takes one with a damaged header, or without its database, for empty.
Format: https://www.sqlite.org/fileformat.html#the_write_ahead_log
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inspector.errors import DamagedLogError

_LAID_OUT = 8 * 2**20  # bytes
HEADER = struct.Struct(">8I")
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}  # and the byte order of its checksums
FRAME = 24  # bytes before each page: page, database size after a commit, two salts, two checksums
INDEX = struct.Struct("=5I")  # how the -shm file begins; the fifth is the number of frames
_DMS = 128  # the byte of the -shm file on which every process that has the database open holds a lock
_AGAIN, _AGAIN_S = 5, 0.1

_Words = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Scan:
    """What is in a journal."""

    frames: int  # up to the end of the last finished transaction that SQLite reads by itself
    lost: int  # finished transactions behind a frame that is damaged


def journal_of(database: Path) -> Path:
    """SQLite's write-ahead log of this database."""
    return database.with_name(database.name + "-wal")


def index_of(database: Path) -> Path:
    """What all processes know of the journal that have this database open."""
    return database.with_name(database.name + "-shm")


def refuse_damaged(database: Path) -> None:
    """Raise DamagedLogError for a journal that SQLite would begin anew over the rows that it holds."""
    journal = journal_of(database)
    header = _read(journal, HEADER.size)
    if len(header) < HEADER.size or not any(header):
        return
    if not _sound(header):
        what = "is damaged at its beginning"
    elif not database.exists() or not database.stat().st_size:
        what = "has lost its database"
    else:
        return
    raise DamagedLogError(
        f"the journal of the inspection log, {journal}, {what}, so the newest decisions cannot be read; "
        "move log and journal away and keep both, a new log is begun in their place"
    )


def known(database: Path) -> int | None:
    """How many frames the processes know of that have the database open; None where there are none.

    Then SQLite will find out by the checksums. Only for a process that has not opened the database itself:
    closing this file ends the locks that SQLite holds on it.
    """
    try:
        with index_of(database).open("r+b") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _DMS)
            except OSError:
                return int(INDEX.unpack(file.read(INDEX.size))[-1])
    except (OSError, struct.error):
        pass
    return None


def scan(journal: Path) -> Scan | None:
    """Walk all frames; None where there is no journal with a sound header.

    Only a damaged frame with a finished transaction behind it counts as a loss: a process that is killed
    leaves its last frame half written, and nothing after it.
    """
    data = _read(journal, -1)
    if len(data) < HEADER.size or not _sound(data[: HEADER.size]):
        return None
    magic, _, _, _, *salts_and_sums = HEADER.unpack_from(data)
    raw, heads, ours = frames_of(data)
    frames = int(np.flatnonzero(ours)[-1]) + 1 if ours.any() else 0
    leading = frames if ours[:frames].all() else int(np.argmin(ours[:frames]))
    words = np.concatenate([raw[:leading, :8], raw[:leading, FRAME:]], axis=1).copy()
    valid = _valid(
        words.view(f"{_MAGIC[magic]}u4").astype(np.uint32), heads[:leading, 4:6], salts_and_sums[2:]
    )
    commits = np.flatnonzero(ours & (heads[:, 1] != 0))
    read = commits[commits < valid]
    return Scan(int(read[-1]) + 1 if read.size else 0, int((commits > valid).sum()))


def loss(journal: Path) -> Scan | None:
    """The walk over a journal that has lost transactions, None for a sound one.

    What another process is writing just then is no loss: it looks otherwise a moment later.
    """
    found = scan(journal)
    for _ in range(_AGAIN):
        if found is None or not found.lost:
            return None
        time.sleep(_AGAIN_S)
        before, found = found, scan(journal)
        if found == before:
            break
    return found if found is not None and found.lost else None


def refuse_loss(database: Path) -> None:
    """Raise DamagedLogError for a journal that only a start of the daemon may go on with: it keeps a copy."""
    if loss(journal_of(database)) is not None:
        raise DamagedLogError(
            f"the journal of the inspection log, {journal_of(database)}, is damaged in the middle; "
            "nothing is written before `inspector run` has kept a copy of it and told what is lost"
        )


def lay_out(journal: Path) -> None:
    """Fill the journal up with zeros once, so that commits overwrite blocks that the file has already.

    A commit that makes the file longer waits for the file system's own journal as well: here that is
    8 ms in place of 0.4. SQLite reads a journal up to its first frame that is not valid, and a passive
    checkpoint starts it over without shortening it. Raises OSError.
    """
    with journal.open("ab") as file:
        missing = _LAID_OUT - file.tell()
        if missing > 0:
            file.write(bytes(missing))
            file.flush()
            os.fsync(file.fileno())


def _read(journal: Path, size: int) -> bytes:
    try:
        with journal.open("rb") as file:
            return file.read(size)
    except OSError:  # there is none; whatever else it is, SQLite says
        return b""


def frames_of(data: bytes) -> tuple[NDArray[np.uint8], _Words, NDArray[np.bool_]]:
    """(N, size) frames, (N, 6) their heads, (N,) whether the journal's header is theirs."""
    _, _, page, _, *salts = HEADER.unpack_from(data)[:6]
    size = FRAME + page
    count = (len(data) - HEADER.size) // size
    raw = np.frombuffer(data, np.uint8, count * size, HEADER.size).reshape(count, size)
    heads = raw[:, :FRAME].copy().view(">u4").astype(np.uint32)
    return raw, heads, (heads[:, 2:4] == np.array(salts, np.uint32)).all(axis=1) & any(salts)


def _sound(header: bytes) -> bool:
    """Whether these 32 bytes begin a journal: the magic number, and the checksum of what follows it."""
    magic, *_, first, second = HEADER.unpack(header)
    if magic not in _MAGIC:
        return False
    words = np.frombuffer(header[:24], f"{_MAGIC[magic]}u4").astype(np.uint32)[None]
    return _valid(words, np.array([[first, second]], np.uint32), [0, 0]) == 1


def _valid(words: _Words, sums: _Words, before: list[int]) -> int:
    """How many of these blocks bear the right checksum, each continuing the one before it.

    words (N, 2K): what is summed up, sums (N, 2). For a pair (a, b) the sums (s, t) become
    s' = s + a + t, t' = t + b + s', that is (s', t') = M (s, t) + (a, a + b) with M = ((1, 1), (1, 2));
    so the words of a block weigh with powers of M, whatever the block before it came to.
    """
    count, length = words.shape
    weights = np.empty((length, 2), np.uint32)
    step = np.eye(2, dtype=np.uint32)
    matrix = np.array([[1, 1], [1, 2]], np.uint32)
    for at in range(length - 2, -1, -2):
        weights[at], weights[at + 1] = step.sum(axis=1), step[:, 1]
        step = step @ matrix
    found = words @ weights
    chain = np.concatenate([np.array([before], np.uint32), sums[:-1]]) if count else sums
    right = (found + chain @ step.T == sums).all(axis=1)
    return count if right.all() else int(np.argmin(right))
