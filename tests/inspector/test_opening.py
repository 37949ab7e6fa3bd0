"""A log that cannot be used as it is, at start: set aside, named, nothing lost."""

import contextlib
import errno
import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from inspector.audit import aside, journal
from inspector.audit.aside import Note, kept, note_of, set_aside
from inspector.audit.database import guest
from inspector.audit.events import add_event
from inspector.audit.log import AuditLog
from inspector.errors import InspectorError, LogError, LogUnavailableError
from inspector.opening import alone, open_log
from tests.inspector.audit.conftest import fault, passed, register


@pytest.fixture
def settings(tmp_path):
    return SimpleNamespace(
        database=tmp_path / "inspector.db",
        station=SimpleNamespace(startup_timeout_s=1.0),
        log=SimpleNamespace(synchronous="FULL"),
    )


def told(settings):
    """What a log that is opened now says of the one before it."""
    open_log(settings, 0.2).close()
    with sqlite3.connect(settings.database) as log:
        return [row[0] for row in log.execute("SELECT message FROM events WHERE kind = 'log_set_aside'")]


def old(settings, suffix=".db"):
    return sorted(settings.database.parent.glob(f"inspector-damaged-*{suffix}"))


def begin(settings):
    """A log with a row that is in the journal alone, as a daemon that is killed leaves it."""
    log = AuditLog.open(settings.database)
    log.add_event("kept", "a row that is in the journal alone")
    files = settings.database, settings.database.with_name("inspector.db-wal")
    before = [file.read_bytes() for file in files]
    log.close()
    for file, content in zip(files, before, strict=True):
        file.write_bytes(content)
    return before


@pytest.mark.parametrize("damage", [bytes(range(1, 33)), b"\x37\x7f\x06\x82" + bytes(range(28))])
def test_a_journal_with_a_damaged_header_is_kept_with_its_log(settings, damage):
    database, journal = begin(settings)
    journal = damage + journal[32:]
    settings.database.with_name("inspector.db-wal").write_bytes(journal)
    assert "is damaged at its beginning" in told(settings)[0]
    assert (old(settings)[0].read_bytes(), old(settings, ".db-wal")[0].read_bytes()) == (database, journal)


@pytest.mark.parametrize("spoil", [lambda file: file.unlink(), lambda file: file.write_bytes(b"")])
def test_a_journal_that_has_lost_its_database_is_kept(settings, spoil):
    """SQLite would delete it."""
    _, journal = begin(settings)
    spoil(settings.database)
    assert "has lost its database" in told(settings)[0]
    assert old(settings, ".db-wal")[0].read_bytes() == journal


def test_a_journal_of_a_daemon_that_was_killed_is_read(settings):
    """Header and checksum as SQLite writes them, in a copy taken while the log is open."""
    copy = settings.database.with_name("copy") / "inspector.db"
    copy.parent.mkdir()
    with AuditLog.open(settings.database) as log:
        log.add_event("kept", "a row that is in the journal alone")
        for part in ("", "-wal"):
            copy.with_name(f"inspector.db{part}").write_bytes(
                settings.database.with_name(f"inspector.db{part}").read_bytes()
            )
    settings.database = copy
    assert told(settings) == []
    with sqlite3.connect(copy) as log:
        assert log.execute("SELECT kind FROM events").fetchall() == [("kept",)]


@pytest.mark.parametrize("note", [b"", b"\xff\xfe", b"malformed"])
def test_a_note_of_damage_counts_even_if_a_power_cut_has_emptied_or_garbled_it(settings, note):
    AuditLog.open(settings.database).close()
    note_of(settings.database).write_bytes(note)
    assert len(told(settings)) == 1
    assert len(old(settings)) == 1
    assert not note_of(settings.database).exists()


def test_two_logs_set_aside_within_a_second_are_both_kept(settings, monkeypatch):
    class Frozen(aside.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.setattr(aside, "datetime", Frozen)
    contents = [os.urandom(100), os.urandom(100)]
    for content in contents:
        settings.database.write_bytes(content)
        assert set_aside(settings.database, Note("damaged")).done
    assert [file.read_bytes() for file in old(settings)] == contents


def rows(settings):
    with contextlib.closing(sqlite3.connect(settings.database)) as log:
        return [row[0] for row in log.execute("SELECT message FROM events WHERE kind = 'kept' ORDER BY id")]


def middle(content):
    """A byte of the page in the middle."""
    used = next(at for at in range(32, len(content), 4120) if not any(content[at : at + 4]))
    return 32 + (used - 32) // 4120 // 2 * 4120 + 2000


def damaged_in_the_middle(settings, commits=20):
    """A log and its journal, one page in the middle of which is not what was written; returns the journal."""
    log = AuditLog.open(settings.database)
    for index in range(commits):
        log.add_event("kept", f"row {index}")
    journal = settings.database.with_name("inspector.db-wal")
    database, content = settings.database.read_bytes(), bytearray(journal.read_bytes())
    log.close()
    content[middle(content)] ^= 0xFF
    settings.database.write_bytes(database)
    journal.write_bytes(content)
    return bytes(content)


def test_damage_in_the_middle_of_the_journal_is_told_its_copy_kept_and_the_log_goes_on(settings):
    journal = damaged_in_the_middle(settings)
    with pytest.raises(LogError, match="nothing is written before"), guest(settings.database, 0.2):
        pass
    (message,) = told(settings)
    assert "is damaged in the middle" in message
    (copy,) = old(settings, ".wal")
    assert copy.read_bytes() == journal
    assert copy.name in message
    assert kept(settings.database.parent) == [copy.name]
    left = rows(settings)
    assert left == [f"row {index}" for index in range(len(left))]
    assert 0 < len(left) < 20
    with contextlib.closing(open_log(settings, 0.2)) as log:
        log.add_event("kept", "a row after it")
    assert rows(settings) == [*left, "a row after it"]
    assert len(told(settings)) == 1, "once"


def test_a_journal_whose_copy_finds_no_room_is_left_alone_until_there_is_some(settings, monkeypatch):
    content = damaged_in_the_middle(settings)

    def full(source, target):
        target.write_bytes(b"as much as there was room for")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(LogUnavailableError, match="No space left"):
        patch.setattr(aside.shutil, "copyfile", full)
        open_log(settings, 0.2)
    assert old(settings, "") == []
    assert settings.database.with_name("inspector.db-wal").read_bytes() == content
    assert len(told(settings)) == 1
    assert old(settings, ".wal")[0].read_bytes() == content


def test_a_log_that_is_not_whole_without_what_the_journal_has_lost_is_set_aside(settings):
    """A checkpoint had copied pages of lost transactions into the database; older ones lie over some."""
    file = settings.database.with_name("inspector.db-wal")
    with AuditLog.open(settings.database) as log:
        register(log)
        log.commit(fault())
    with AuditLog.open(settings.database) as log:
        log.commit(passed())
        sound = 32 + 4120 * journal.scan(file).frames
        for _ in range(5):
            log.commit(fault())
        content = bytearray(file.read_bytes())
        log.checkpoint()
        database = settings.database.read_bytes()
    content[sound + 2000] ^= 0xFF
    settings.database.write_bytes(database)
    file.write_bytes(content)
    (message,) = told(settings)
    assert "is damaged in the middle" in message
    assert "ix_inspections_reason" in message, "which knows of decisions that are lost"
    assert old(settings)[0].read_bytes() == database
    assert old(settings, ".wal")[0].read_bytes() == content


def elsewhere(settings):
    """See told(), in a process of its own: this one has the log open."""
    tell = (
        "import sys; from tests.inspector.test_opening import *; "
        "said = told(SimpleNamespace(database=Path(sys.argv[1]), log=SimpleNamespace(synchronous='FULL'))); "
        "print(*said, sep='\\0', end='', file=sys.stderr)"
    )
    command = [sys.executable, "-c", tell, settings.database]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stderr.split("\0")


HOLD = """
import fcntl, sqlite3, sys
log = sqlite3.connect(sys.argv[1])
log.execute("SELECT count(*) FROM events").fetchone()
if sys.argv[2] == "a checkpoint":
    index = open(sys.argv[1] + "-shm", "r+b")
    fcntl.lockf(index, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 121)
print(flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held_open(settings, at="reading"):
    """By a process that only reads, or is at a checkpoint that takes long."""
    command = [sys.executable, "-c", HOLD, settings.database, at]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        yield
        other.communicate()


KILLED = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
from inspector.opening import open_log
path = Path(sys.argv[1])
log = open_log(SimpleNamespace(database=path, log=SimpleNamespace(synchronous="FULL")), 1.0)
index = path.with_name("inspector.db-shm")
log.add_event("kept", "told to the others")
before = index.read_bytes()[:96] if sys.argv[2] == "in the act" else b""
log.add_event("kept", "x" * int(sys.argv[3]))
with index.open("r+b") as file:
    file.write(before)
os.kill(os.getpid(), 9)
"""


def killed(settings, how, size):
    command = [sys.executable, "-c", KILLED, settings.database, how, str(size)]
    assert subprocess.run(command, check=False).returncode == -9


@pytest.mark.parametrize("at", ["reading", "a checkpoint"])
def test_what_a_daemon_that_was_killed_had_not_told_the_others_is_never_taken_for_a_loss(settings, at):
    """Its transaction is in the journal, not in what a reader knows of; a shorter one is written over it."""
    AuditLog.open(settings.database).close()
    with held_open(settings, at):
        killed(settings, "in the act", 20_000)
        killed(settings, "later", 10)
        assert told(settings) == []
        assert rows(settings) == ["told to the others"] * 2 + ["x" * 10]
    killed(settings, "later", 10)
    assert told(settings) == []
    assert old(settings, "") == []


def test_guests_may_write_between_the_death_of_a_daemon_and_its_restart(settings):
    AuditLog.open(settings.database).close()
    with held_open(settings):
        killed(settings, "in the act", 20_000)
        for _ in range(2):
            add_event(settings.database, "kept", "a guest's")
        assert told(settings) == []
    assert rows(settings) == ["told to the others"] + ["a guest's"] * 2
    assert old(settings, "") == []


def test_what_another_process_is_writing_at_the_start_is_no_damage(settings, monkeypatch):
    """Frames are read while they are written: one before it is there, those behind it after."""
    content = bytearray(damaged_in_the_middle(settings))
    content[middle(content)] ^= 0xFF

    def a_moment_later(_):
        journal.journal_of(settings.database).write_bytes(content)

    monkeypatch.setattr(journal.time, "sleep", a_moment_later)
    assert told(settings) == []
    assert len(rows(settings)) == 20
    assert old(settings, "") == []


def test_a_journal_that_is_gone_before_it_is_copied_is_no_damage(settings, monkeypatch):
    """Whoever had the log open last has closed it, and SQLite has deleted the journal."""
    damaged_in_the_middle(settings)
    copy = shutil.copyfile

    def close_and_copy(source, target):
        source.unlink()
        copy(source, target)

    monkeypatch.setattr(aside.shutil, "copyfile", close_and_copy)
    assert told(settings) == []
    assert old(settings, "") == []


def test_a_damaged_journal_that_another_process_holds_open_is_set_aside_with_its_log(settings):
    """That process goes on with what it knows of the journal, the damaged page included."""
    log = AuditLog.open(settings.database)
    for index in range(20):
        log.add_event("kept", f"row {index}")
    with held_open(settings):
        file = settings.database.with_name("inspector.db-wal")
        content = bytearray(file.read_bytes())
        content[32 + 20 * 4120 + 2000] ^= 0xFF
        file.write_bytes(content)
        (message,) = elsewhere(settings)
    log.close()
    assert "another process has the log open" in message
    assert old(settings, ".db-wal")[0].read_bytes() == content
    assert rows(settings) == []


def test_damage_that_a_reader_found_before_the_daemon_is_told_all_the_same(settings):
    """What the reader knows of ends at the damage."""
    damaged_in_the_middle(settings)
    with held_open(settings):
        (message,) = told(settings)
    assert "is damaged in the middle" in message
    assert old(settings) == []
    assert 0 < len(rows(settings)) < 20


class PowerCutError(BaseException):
    """Nothing more is done."""


@pytest.mark.parametrize("at", range(6))
def test_wherever_setting_aside_is_cut_short_log_and_journal_stay_together(settings, monkeypatch, at):
    """Before each renaming, that of the note included, and after the last."""
    database, journal = begin(settings)
    (settings.database.parent / "inspector.db-shm").write_bytes(b"shared memory")
    journal = bytes(range(1, 33)) + journal[32:]
    settings.database.with_name("inspector.db-wal").write_bytes(journal)
    left = at

    def until_cut(rename):
        def limited(self, target):
            nonlocal left
            if left == 0:
                raise PowerCutError
            left -= 1
            return rename(self, target)

        return limited

    with monkeypatch.context() as patch, pytest.raises(PowerCutError):
        patch.setattr(Path, "rename", until_cut(Path.rename))
        patch.setattr(Path, "replace", until_cut(Path.replace))
        open_log(settings, 0.2).close()
        raise PowerCutError
    assert len(told(settings)) == 1
    (log,) = old(settings)
    assert log.read_bytes() == database
    assert log.with_name(log.name + "-wal").read_bytes() == journal
    assert kept(settings.database.parent) == [log.name]
    assert len(told(settings)) == 1, "once"


def test_a_journal_that_somebody_began_while_its_log_was_half_renamed_replaces_nothing(settings):
    begin(settings)
    aside.write_note(settings.database, Note("damaged", "inspector-damaged-x.db"))
    settings.database.with_name("inspector-damaged-x.db-wal").write_bytes(b"the rows")
    assert set_aside(settings.database, aside.read_note(settings.database)).done
    assert settings.database.with_name("inspector-damaged-x.db-wal").read_bytes() == b"the rows"
    assert settings.database.with_name("inspector-damaged-x.db-wal~").exists()


def forget_version(log):
    log.execute("DELETE FROM alembic_version")


def drop_table(log):
    log.execute("DROP TABLE events")


def drop_column(log):
    log.execute("ALTER TABLE inspections DROP COLUMN source")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(forget_version, "alembic_version"), (drop_table, "table events"), (drop_column, "lost source")],
)
def test_a_log_that_has_lost_its_schema_is_set_aside(settings, spoil, said):
    AuditLog.open(settings.database).close()
    with contextlib.closing(sqlite3.connect(settings.database, isolation_level=None)) as log:
        spoil(log)
    (message,) = told(settings)
    assert said in message
    assert len(old(settings)) == 1


def test_whatever_byte_of_the_header_is_damaged_the_log_is_used_or_set_aside(settings):
    AuditLog.open(settings.database).close()
    content = settings.database.read_bytes()
    set_asides = 0
    for at in range(100):
        for sidecar in ("-wal", "-shm"):
            settings.database.with_name(f"inspector.db{sidecar}").unlink(missing_ok=True)
        settings.database.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        open_log(settings, 0.2).close()
        set_asides += len(old(settings))
        for file in old(settings, ".db*"):
            file.unlink()
    assert set_asides > 20


def test_another_programs_database_is_refused_and_stays_where_it_is(settings):
    with contextlib.closing(sqlite3.connect(settings.database)) as other:
        other.execute("CREATE TABLE recipes (name)")
    with pytest.raises(LogError, match="not an inspection log"):
        open_log(settings, 0.2)
    assert old(settings) == []


def test_a_file_system_without_locks_is_told_in_a_message(tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    said = r"inspector.lock cannot be locked: No locks.*local disk"
    with pytest.raises(InspectorError, match=said), alone(tmp_path):
        pass
