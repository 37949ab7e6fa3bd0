"""Before a station inspects: nobody else runs it, and it has a log that can be written."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from inspector.audit.log import AuditLog
from inspector.errors import DamagedLogError, InspectorError, LogError, LogUnavailableError
from inspector.settings import Settings

logger = structlog.get_logger()

RETRY_S = 0.5
SET_ASIDE = "inspector-damaged-*.db"  # what earlier logs that were damaged are called
_SIDECARS = ("", "-wal", "-shm")  # SQLite finds what belongs to a database by its name


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Two daemons would answer every part twice. The lock ends with the process, however it ends.

    Raises LogError when the folder cannot be written, InspectorError when another daemon holds the lock.
    """
    lock = folder / "inspector.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        raise LogError(
            f"data folder {folder} cannot be written: {error.strerror}; "
            "create it and give this user write permission"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InspectorError(
                f"another inspector runs on this station (it holds {lock}); stop it first: "
                "systemctl stop inspector"
            ) from None
        yield


def open_log(settings: Settings, busy_timeout_s: float) -> AuditLog:
    """The station's log. A damaged one is set aside and a new one begun; nothing is deleted.

    Waits startup_timeout_s for a log that is locked and for a full disk. Raises LogError.
    """
    give_up, told = time.monotonic() + settings.station.startup_timeout_s, ""
    path, note = settings.database, damage_note(settings.database)
    problem = _read(note)
    if problem:
        set_aside(path)
    while True:
        try:
            log = AuditLog.open(path, settings.log.synchronous, busy_timeout_s=busy_timeout_s)
        except DamagedLogError as error:
            problem = str(error)
            set_aside(path)
        except LogUnavailableError as error:
            if time.monotonic() >= give_up:
                raise
            if str(error) != told:
                told = str(error)
                logger.warning("waiting for the log", error=told)
            time.sleep(RETRY_S)
        else:
            if problem:
                _tell(log, path, problem)
                note.unlink(missing_ok=True)
            return log


def damage_note(database: Path) -> Path:
    """Where a daemon that met damage in its log says so to the next one, which sets that log aside."""
    return database.with_name(database.name + "-damaged")


def set_aside(database: Path) -> Path | None:
    """Rename the log, and what SQLite keeps beside it, by the time. Raises LogError."""
    now = datetime.now(UTC)
    while True:
        aside = database.with_name(SET_ASIDE.replace("*", now.strftime("%Y%m%dT%H%M%SZ")))
        if not any(aside.with_name(aside.name + sidecar).exists() for sidecar in _SIDECARS):
            break
        now += timedelta(seconds=1)  # renaming would replace what is kept
    try:
        for sidecar in reversed(_SIDECARS):  # the database last: as long as it is there, all of it is
            file = database.with_name(database.name + sidecar)
            if file.exists():
                file.rename(aside.with_name(aside.name + sidecar))
    except OSError as error:
        raise LogError(
            f"inspection log {database} is damaged and cannot be renamed ({error.strerror}); move it away"
        ) from error
    return aside if aside.exists() else None


def _tell(log: AuditLog, path: Path, problem: str) -> None:
    kept = sorted(path.parent.glob(SET_ASIDE))
    name = kept[-1].name if kept else "nothing"
    message = f"a new log was begun, the old one is kept as {name}; it was set aside because: {problem}"
    logger.error(message)
    log.add_event("log_set_aside", message, severity="error", details={"file": name})


def _read(note: Path) -> str:
    """What the note says; a note that a power cut has emptied or garbled is one all the same."""
    try:
        return note.read_text(encoding="utf-8", errors="replace") or "a daemon found it damaged"
    except OSError:
        return ""
