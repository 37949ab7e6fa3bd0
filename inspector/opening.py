"""Before a station inspects: nobody else runs it, and its log is opened, as soon as that can be done."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import structlog
from sqlalchemy import Connection

from inspector.audit import aside, journal
from inspector.audit.database import check_whole
from inspector.audit.failures import explained
from inspector.audit.log import AuditLog
from inspector.audit.records import BundleRecord
from inspector.errors import DamagedLogError, InspectorError, LogError, LogUnavailableError
from inspector.settings import Settings

logger = structlog.get_logger()

RETRY_S = 0.5
FIRST_S = 10.0  # so long a start waits for the log; the line gets FAULT while a larger one is looked through


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Two daemons would answer every part twice. The lock ends with the process, however it ends.

    Raises LogError when the folder cannot be written or locked, InspectorError when another daemon holds
    the lock.
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
        except OSError as error:
            raise LogError(
                f"{lock} cannot be locked: {error.strerror}; station.data must be on a local disk whose file "
                "system has locks, not on a network share"
            ) from error
        yield


class StationLog(AuditLog):
    """The station's log: opened by a thread of its own, as often as it takes.

    A log that is locked, or whose disk is full, makes the line FAULT, not silent: until it is open,
    `problem` says why, and everything that writes raises LogUnavailableError.
    """

    def __init__(
        self, settings: Settings, busy_timeout_s: float
    ) -> None:  # AuditLog's own is for an open one
        self.path = settings.database
        self.problem = f"inspection log {self.path} is being opened"
        self._settings = settings
        self._busy_timeout_s = busy_timeout_s
        self._open_log: AuditLog | None = None
        self._bundles: list[BundleRecord] = []  # known before the log was open
        self._handing_over = threading.Lock()
        self._refused: LogError | None = None  # at the first attempt, by what no waiting will mend
        self._tried, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep_trying, name="log", daemon=True)

    def __enter__(self) -> Self:
        """Raises LogError for a log that will not do: not ours, from a newer version, not to be written."""
        self._thread.start()
        self._tried.wait(FIRST_S)
        if self._refused is not None:
            raise self._refused
        return self

    def close(self) -> None:
        """Give up trying, or close it."""
        self._closing.set()
        self._thread.join()
        if self._open_log is not None:
            self._open_log.close()

    def register_bundle(self, bundle: BundleRecord) -> None:
        """Where the log is not open yet, that is the first thing that it is told."""
        with self._handing_over:
            if self._open_log is None:
                self._bundles.append(bundle)
                return
        self._open_log.register_bundle(bundle)

    def last_sequence(self, camera: str) -> int | None:
        """None where the log is not open yet; then the PLC's registers alone say where to go on."""
        return None if self._open_log is None else self._open_log.last_sequence(camera)

    def checkpoint(self) -> None:
        """Nothing to do where the log is not open yet."""
        if self._open_log is not None:
            self._open_log.checkpoint()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._ready()._transaction() as connection:
            yield connection

    def _rows(self, query: Any) -> Any:
        return self._ready()._rows(query)

    def _ready(self) -> AuditLog:
        if self._open_log is None:
            raise LogUnavailableError(self.problem)
        return self._open_log

    def _keep_trying(self) -> None:
        told = ""
        while not self._closing.is_set():
            try:
                self._hand_over(open_log(self._settings, self._busy_timeout_s))
            except LogError as error:
                if not self._tried.is_set() and not isinstance(error, LogUnavailableError):
                    self._refused = error
                self.problem = str(error)
                if self.problem != told:
                    told = self.problem
                    logger.warning("waiting for the log", error=told)
            self._tried.set()
            if self._open_log is not None or self._refused is not None:
                return
            self._closing.wait(RETRY_S)

    def _hand_over(self, log: AuditLog) -> None:
        with self._handing_over:
            for bundle in self._bundles:
                log.register_bundle(bundle)
            self._open_log = log
            self.problem = ""


def open_log(settings: Settings, busy_timeout_s: float) -> AuditLog:
    """The log. A damaged one is set aside and a new one begun; nothing is deleted. Raises LogError."""
    path = settings.database
    with explained(path):
        note = _finish(path)
    while True:
        try:
            log = AuditLog.open(path, settings.log.synchronous, busy_timeout_s=busy_timeout_s)
        except DamagedLogError as error:
            note = aside.set_aside(path, aside.Note(str(error)))
        else:
            break
    if note is not None:
        try:
            _tell(log, note)
        except LogError:
            log.close()
            raise
        aside.forget(path)
    return log


def _finish(path: Path) -> aside.Note | None:
    """What the log that is opened now has to tell of what came before it. Raises LogError and OSError."""
    note = aside.finish(path)
    if note is not None and not note.journal:
        return note
    note, broken = _mend_journal(path, note)
    return note if note is None or not broken else aside.set_aside(path, aside.Note(broken))


def _mend_journal(path: Path, note: aside.Note | None) -> tuple[aside.Note | None, str]:
    """Finished transactions behind damage in the journal: SQLite would begin to write over them, in silence.

    A copy of the journal is kept, and the log goes on from what SQLite reads. Returns what there is to tell,
    and why the log cannot go on, if it cannot. note: what a start before this one did not come to tell.
    """
    if not path.exists() or not path.stat().st_size:
        return note, ""
    while (found := journal.loss(journal.journal_of(path))) is not None:
        known = journal.known(path)
        copied = aside.copy_journal(path, _lost(path, found.lost))
        if copied is None:  # whoever had the log open last has closed it since: look again
            continue
        if known is not None and found.frames < known:  # they go on with what they know of, damaged or not
            return copied, f"{copied.problem}, and another process has the log open"
        note = copied
        break
    if note is not None:
        try:
            check_whole(path)
        except DamagedLogError as error:
            return note, f"{note.problem}; {error}"
    return note, ""


def _lost(path: Path, count: int) -> str:
    return (
        f"the journal of the inspection log, {journal.journal_of(path)}, is damaged in the middle: {count} "
        "transactions behind it cannot be read (one, if a power cut left it unfinished)"
    )


def _tell(log: AuditLog, note: aside.Note) -> None:
    if note.journal:
        kept = f"a copy of the journal is kept as {note.file}"
        message = f"the newest decisions may be missing from the log, {kept}: {note.problem}"
    else:
        kept = f"a new log was begun, the old one is kept as {note.file}"
        message = f"{kept}; it was set aside because: {note.problem}"
    logger.error(message)
    log.add_event("log_set_aside", message, severity="error", details={"file": note.file})
