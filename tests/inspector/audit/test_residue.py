"""What a process that was killed left in the journal is wiped before anybody writes over it."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from inspector.audit import journal, residue
from inspector.audit.events import add_event
from inspector.audit.log import AuditLog

HEADER, FRAME = 32, 24 + 4096

GUEST = """
import os, sys
from pathlib import Path
from inspector.audit.events import add_event
path = Path(sys.argv[1])
index = os.open(path.with_name(path.name + "-shm"), os.O_RDWR)  # never closed: SQLite has its locks there
before = os.pread(index, 96, 0)
add_event(path, "guest", "x" * 20_000)
os.pwrite(index, before, 0)
os.kill(os.getpid(), 9)
"""


def killed_guest(path):
    """It has written its frames and told nobody."""
    assert subprocess.run([sys.executable, "-c", GUEST, path], check=False).returncode == -9


@pytest.fixture
def log(tmp_path):
    with AuditLog.open(tmp_path / "inspector.db") as log:
        for index in range(5):
            log.add_event("kept", f"row {index}")
        yield log


@pytest.fixture
def wal(log):
    return journal.journal_of(log.path)


def test_it_is_seen_where_it_begins_and_wiped_and_what_sqlite_knows_of_stays(log, wal):
    known = journal.scan(wal).frames
    before = wal.read_bytes()
    index = residue.descriptor(log.path)
    assert not residue.left(log.path, index)
    killed_guest(log.path)
    assert journal.scan(wal).frames > known + 5
    assert residue.left(log.path, index)
    residue.wipe(log.path, index)
    assert not residue.left(log.path, index)
    assert journal.scan(wal) == journal.Scan(known, lost=0)
    assert wal.read_bytes()[: HEADER + known * FRAME] == before[: HEADER + known * FRAME]


class CutError(Exception):
    """The process is killed."""


class CutShort(io.FileIO):
    writes = 3

    def write(self, data):
        if not self.writes:
            raise CutError
        self.writes -= 1
        return super().write(data)


def test_wiping_that_is_cut_short_leaves_its_beginning_to_be_seen(log, wal, monkeypatch):
    known = journal.scan(wal).frames
    killed_guest(log.path)
    index = residue.descriptor(log.path)
    with monkeypatch.context() as patch, pytest.raises(CutError):
        patch.setattr(Path, "open", lambda file, mode, buffering: CutShort(file, mode))
        residue.wipe(log.path, index)
    assert residue.left(log.path, index)
    residue.wipe(log.path, index)
    assert journal.scan(wal) == journal.Scan(known, lost=0)


def write(log):
    log.add_event("kept", "a short one")


def write_as_guest(log):
    add_event(log.path, "kept", "a short one")


@pytest.mark.parametrize("write", [write, write_as_guest])
def test_who_writes_next_wipes_what_a_guest_left_that_was_killed_beside_the_daemon(log, wal, write):
    killed_guest(log.path)
    write(log)
    assert journal.scan(wal).lost == 0, "a part of it, behind the short one, looks like a loss"
    write_as_guest(log)
    assert [event.message for event in log.events()][:2] == ["a short one"] * 2


def test_a_journal_that_was_never_written_has_none(tmp_path):
    path = tmp_path / "inspector.db"
    with AuditLog.open(path) as log:
        log.checkpoint()
    with AuditLog.open(path):
        index = residue.descriptor(path)
        for content in (b"", bytes(8192)):
            journal.journal_of(path).write_bytes(content)
            assert not residue.left(path, index)
            residue.wipe(path, index)
            assert journal.journal_of(path).read_bytes() == content
