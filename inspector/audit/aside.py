"""A damaged log is set aside: renamed with all that SQLite keeps beside it, never deleted.

What is to be done stands in a note beside the log before anything is renamed. Whoever is killed in between,
or loses its power, leaves the rest to the next start: a database is never parted from its journal.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from inspector.audit.journal import journal_of
from inspector.errors import LogError, LogUnavailableError

_NAME = "inspector-damaged-{}"
_SIDECARS = ("-journal", "-shm", "-wal", "")  # SQLite finds what belongs to a database by its name
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


@dataclass(frozen=True, slots=True)
class Note:
    """What a daemon that met damage leaves to the next one."""

    problem: str
    file: str = ""  # what the old log, or the copy of its journal, is called, once that is settled
    done: bool = False  # and it is called so: what has the log's name now is a new one

    @property
    def journal(self) -> bool:
        """Whether only a copy of the journal is kept, and the log has gone on."""
        return self.file.endswith(".wal")


def kept(folder: Path) -> list[str]:
    """The names of what was set aside, oldest first."""
    logs = folder.glob(_NAME.format("*.db"))
    return sorted(file.name for file in (*logs, *folder.glob(_NAME.format("*.wal"))))


def note_of(database: Path) -> Path:
    """Where the note is."""
    return database.with_name(database.name + "-damaged")


def write_note(database: Path, note: Note) -> None:
    """Durable on return, whole or not at all. Raises OSError."""
    file = note_of(database)
    new = file.with_name(file.name + ".new")
    with new.open("w", encoding="utf-8") as text:
        json.dump(asdict(note), text)
        text.flush()
        os.fsync(text.fileno())
    new.replace(file)
    sync(file.parent)


def read_note(database: Path) -> Note | None:
    """None where there is none; one that a power cut has emptied or garbled is one all the same."""
    try:
        text = note_of(database).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    try:
        return Note(**json.loads(text))
    except (ValueError, TypeError):
        return Note(text or "a daemon found it damaged")


def forget(database: Path) -> None:
    """All of it has been done and told."""
    note_of(database).unlink(missing_ok=True)


def finish(database: Path) -> Note | None:
    """Do what a note still asks for, and return it. Raises LogError."""
    note = read_note(database)
    return note if note is None or note.done else set_aside(database, note)


def set_aside(database: Path, note: Note) -> Note:
    """Rename the log by the time, with what belongs to it. Raises LogError."""
    with _explained(database):
        if not note.file:
            note = replace(note, file=_free_name(database, ".db"))
        write_note(database, note)
        target = database.with_name(note.file)
        for sidecar in _SIDECARS:
            file = database.with_name(database.name + sidecar)
            if file.exists():
                file.rename(_unused(target.with_name(target.name + sidecar)))
        sync(database.parent)
        note = replace(note, done=True)
        write_note(database, note)
    return note


def copy_journal(database: Path, problem: str) -> Note | None:
    """Keep a copy of the journal as it is; None where it is gone. Raises LogError."""
    with _explained(database):
        note = Note(problem, _free_name(database, ".wal"), done=True)
        copy = database.with_name(note.file)
        part = copy.with_name(copy.name + ".part")
        try:
            shutil.copyfile(journal_of(database), part)
            sync(part)
            part.rename(copy)
        except FileNotFoundError:
            return None
        finally:
            part.unlink(missing_ok=True)
        sync(database.parent)
        write_note(database, note)
    return note


def sync(path: Path) -> None:
    """Make the file durable; of a folder, the names in it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _free_name(database: Path, suffix: str) -> str:
    now = datetime.now(UTC)
    while True:
        stem = _NAME.format(now.strftime("%Y%m%dT%H%M%SZ"))
        if not any(database.parent.glob(f"{stem}.*")):
            return stem + suffix
        now += timedelta(seconds=1)  # renaming would replace what is kept


def _unused(target: Path) -> Path:
    """Whoever opened the log while it was half renamed has begun another journal."""
    while target.exists():
        target = target.with_name(target.name + "~")
    return target


@contextmanager
def _explained(database: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = LogUnavailableError if error.errno in _PASSING else LogError
        raise kind(
            f"inspection log {database} is damaged and cannot be set aside ({error.strerror}); free space on "
            f"{database.parent}, give this user write permission there, or move it away"
        ) from error
