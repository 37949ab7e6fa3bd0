"""A log that cannot be used as it is, at start: set aside, named, nothing lost."""

import os
import sqlite3
from types import SimpleNamespace

import pytest

from inspector import opening
from inspector.audit.log import AuditLog
from inspector.opening import damage_note, open_log, set_aside


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


def kept(settings, sidecar=""):
    return sorted(settings.database.parent.glob(f"inspector-damaged-*.db{sidecar}"))


@pytest.mark.parametrize("damage", [bytes(range(1, 33)), b"\x37\x7f\x06\x82" + bytes(range(28))])
def test_a_journal_with_a_damaged_header_is_kept_with_its_log(settings, damage):
    log = AuditLog.open(settings.database)
    log.add_event("kept", "a row that is in the journal alone")
    database, journal = (settings.database.with_name(f"inspector.db{part}") for part in ("", "-wal"))
    before = database.read_bytes(), damage + journal.read_bytes()[32:]
    log.close()
    database.write_bytes(before[0])
    journal.write_bytes(before[1])
    assert "is damaged at its beginning" in told(settings)[0]
    assert (kept(settings)[0].read_bytes(), kept(settings, "-wal")[0].read_bytes()) == before


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
    damage_note(settings.database).write_bytes(note)
    assert len(told(settings)) == 1
    assert len(kept(settings)) == 1
    assert not damage_note(settings.database).exists()


def test_two_logs_set_aside_within_a_second_are_both_kept(settings, monkeypatch):
    class Frozen(opening.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.setattr(opening, "datetime", Frozen)
    contents = [os.urandom(100), os.urandom(100)]
    for content in contents:
        settings.database.write_bytes(content)
        assert set_aside(settings.database) is not None
    assert [file.read_bytes() for file in kept(settings)] == contents
