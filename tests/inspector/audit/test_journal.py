"""The walk over SQLite's journal, held against what SQLite itself reads of it."""

import contextlib
import shutil
import sqlite3
import struct
import subprocess
import sys

import numpy as np
import pytest

from inspector.audit import journal

HEADER, FRAME, PAGE = 32, 24 + 4096, 4096
COMMITS = 12


@pytest.fixture
def database(tmp_path):
    """A database and its journal of some transactions, as a process that is killed leaves them."""
    live = tmp_path / "live.db"
    with contextlib.closing(sqlite3.connect(live, isolation_level=None)) as log:
        log.execute("PRAGMA journal_mode = wal")
        log.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, text)")
        log.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for index in range(COMMITS):
            log.execute("INSERT INTO rows VALUES (?, ?)", (index, "x" * 500 * index))
        for sidecar in ("", "-wal"):
            shutil.copy(f"{live}{sidecar}", tmp_path / f"log.db{sidecar}")
    return tmp_path / "log.db"


def wal(database):
    return database.with_name("log.db-wal")


def heads(database):
    """(N, 6): page, size after a commit, salts, sums."""
    data = wal(database).read_bytes()[HEADER:]
    return [struct.unpack(">6I", data[at : at + 24]) for at in range(0, len(data) - 23, FRAME)]


def read_by_sqlite(database):
    """Frames that SQLite finds, and rows, in a copy."""
    copy = database.with_name("copy.db")
    for sidecar in ("", "-wal"):
        shutil.copy(f"{database}{sidecar}", f"{copy}{sidecar}")
    copy.with_name("copy.db-shm").unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as log:
        rows = log.execute("SELECT count(*) FROM rows").fetchone()[0]
        return log.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1], rows


def damage(database, at):
    data = bytearray(wal(database).read_bytes())
    data[at] ^= 0x55
    wal(database).write_bytes(data)


def test_a_sound_journal_is_read_to_its_end(database):
    found = journal.scan(wal(database))
    assert found == journal.Scan(len(heads(database)), lost=0)
    assert read_by_sqlite(database) == (found.frames, COMMITS)


def test_wherever_it_is_damaged_the_walk_ends_where_sqlite_ends_and_counts_what_is_lost(database):
    count = len(heads(database))
    commits = [index for index, head in enumerate(heads(database)) if head[1]]
    content = wal(database).read_bytes()
    generator = np.random.default_rng(0)
    for frame in range(count):
        for place in (int(generator.integers(0, 24)), int(generator.integers(24, FRAME))):
            wal(database).write_bytes(content)
            damage(database, HEADER + frame * FRAME + place)
            found = journal.scan(wal(database))
            frames, rows = read_by_sqlite(database)
            assert found.frames == frames
            assert found.lost == sum(index > frame for index in commits)
            if found.lost:
                assert rows < COMMITS, "SQLite says nothing"


def test_frames_of_an_earlier_generation_are_no_loss(database):
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as log:
        log.execute("PRAGMA wal_checkpoint(FULL)")
        log.execute("INSERT INTO rows VALUES (100, 'the journal starts over')")
        for sidecar in ("", "-wal"):
            shutil.copy(f"{database}{sidecar}", database.with_name(f"again.db{sidecar}"))
    again = database.with_name("again.db-wal")
    assert journal.scan(again) == journal.Scan(1, lost=0)
    assert again.stat().st_size > HEADER + FRAME


def test_a_frame_half_written_by_a_process_that_was_killed_is_no_loss(database):
    last = HEADER + (len(heads(database)) - 1) * FRAME
    data = wal(database).read_bytes()
    wal(database).write_bytes(data[: last + 24] + bytes(PAGE))
    found = journal.scan(wal(database))
    assert found.lost == 0
    assert read_by_sqlite(database) == (found.frames, COMMITS - 1)


READER = (
    "import sqlite3, sys; log = sqlite3.connect(sys.argv[1]); "
    "log.execute('SELECT count(*) FROM rows').fetchone(); print(flush=True); sys.stdin.read()"
)


def test_what_the_others_know_of_is_known_while_somebody_has_the_database_open(database):
    frames = len(heads(database))
    assert journal.known(database) is None
    command = [sys.executable, "-c", READER, database]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert journal.known(database) == frames
        other.communicate()
    assert journal.known(database) is None


@pytest.mark.parametrize("content", [b"", bytes(20), bytes(8192), bytes(range(64))])
def test_what_is_no_journal_is_not_walked(tmp_path, content):
    (tmp_path / "log.db-wal").write_bytes(content)
    assert journal.scan(tmp_path / "log.db-wal") is None
