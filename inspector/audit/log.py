"""The inspection log: every decision, durable before anybody acts on it."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, Table, insert
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DBAPIError

from inspector.audit.database import Synchronous, checkpoint, open_for_reading, open_for_writing, writing
from inspector.audit.failures import explained
from inspector.audit.journal import index_of, journal_of
from inspector.audit.query import Queries
from inspector.audit.records import BundleRecord, Evidence, Inspection, Severity
from inspector.audit.schema import Base, Bundles, Events, Frames, Heatmaps, Inspections, Measures
from inspector.errors import LogError

_COLUMNS = tuple(field.name for field in fields(Inspection))


def _table(of: type[Base]) -> Table:
    """The table alone: through its class each statement takes SQLAlchemy a quarter longer."""
    return Base.metadata.tables[of.__tablename__]


_INSERT = insert(_table(Inspections))
# Evidence handed over twice, after a commit that failed, must not cost the decision that it rides with.
_INSERT_FRAMES = upsert(_table(Frames)).on_conflict_do_nothing()
_INSERT_HEATMAPS = upsert(_table(Heatmaps)).on_conflict_do_nothing()
_INSERT_MEASURES = upsert(_table(Measures)).on_conflict_do_nothing()


class AuditLog(Queries):
    """One writer for one process, shared by its threads; any number of readers beside it.

    Every method raises LogError that names file, cause and remedy; the log can be used again when the
    cause is gone. Queries never wait for the writer, nor the writer for them.
    """

    problem: str = ""  # why it is not open yet, where it need not be

    def __init__(self, path: Path, writer: Connection | None, reader: Engine) -> None:
        super().__init__(path, reader)
        self._writer = writer
        self._lock = threading.Lock()
        files = () if writer is None else (path, journal_of(path), index_of(path))
        self._inodes = [(file, file.stat().st_ino) for file in files]

    @classmethod
    def open(
        cls,
        path: Path,
        synchronous: Synchronous = "FULL",
        *,
        readonly: bool = False,
        busy_timeout_s: float = 1.0,
    ) -> Self:
        """Open the log; folder, file and schema are created when it is opened for writing.

        synchronous: FULL outlives a power cut, NORMAL the death of the process only.
        busy_timeout_s: how long a write waits for another process before it raises.
        """
        writer = None if readonly else open_for_writing(path, synchronous, busy_timeout_s)
        return cls(path, writer, open_for_reading(path))

    def commit(self, inspection: Inspection, evidence: Sequence[Evidence] = ()) -> int:
        """Write a decision, and evidence of earlier ones, in one transaction; durable on return.

        Returns the decision's id. After a LogError none of it is in the log and the evidence may be
        handed over again.
        """
        with self._transaction() as connection:
            row = {name: getattr(inspection, name) for name in _COLUMNS}
            id_: int = connection.execute(_INSERT, row).lastrowid
            _insert(connection, evidence)
        return id_

    def add_evidence(self, evidence: Sequence[Evidence]) -> None:
        """Write frames and heatmaps of inspections that are in the log."""
        if evidence:
            with self._transaction() as connection:
                _insert(connection, evidence)

    def add_event(
        self,
        kind: str,
        message: str,
        *,
        severity: Severity = "info",
        camera: str | None = None,
        details: Mapping[str, Any] | None = None,
        time: datetime | None = None,
    ) -> int:
        """Write that something happened: now, or at an aware time. Returns the event's id."""
        row = {
            "time": time or datetime.now(UTC),
            "kind": kind,
            "severity": severity,
            "camera": camera,
            "message": message,
            "details": details,
        }
        with self._transaction() as connection:
            id_: int = connection.execute(insert(Events), row).lastrowid
        return id_

    def register_bundle(self, bundle: BundleRecord) -> None:
        """Make a bundle known before the first decision that names it; a known one stays as it is."""
        row = asdict(bundle) | {"first_used": bundle.first_used or datetime.now(UTC)}
        with self._transaction() as connection:
            connection.execute(upsert(Bundles).on_conflict_do_nothing(), row)

    def checkpoint(self) -> None:
        """Move what is in the journal into the database file; decisions can be committed meanwhile.

        To be called every few hundred decisions by a thread that no part waits for. Readers that are at
        work can leave a rest in the journal for the next time.
        """
        self._refuse_moved()
        with explained(self.path):
            checkpoint(self.path)

    def close(self) -> None:
        """Empty the journal into the database file and let go of it; safe to call twice."""
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is not None:
            # What was committed is safe in the journal, so a checkpoint that fails here costs nothing.
            with suppress(sqlite3.Error, DBAPIError):
                writer.close()
                checkpoint(self.path, truncate_above=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """BEGIN IMMEDIATE … COMMIT; whatever is raised inside rolls back."""
        with self._lock:
            if self._writer is None:
                raise LogError(
                    f"inspection log {self.path} is open for reading only, or closed; nothing is written"
                )
            self._refuse_moved()
            with explained(self.path), writing(self._writer, self.path):
                yield self._writer

    def _refuse_moved(self) -> None:
        """A file that lost its name would take rows that nobody finds again."""
        for file, inode in self._inodes:
            try:
                moved = os.stat(file).st_ino != inode  # noqa: PTH116 — a third of Path.stat's time
            except OSError:
                moved = True
            if moved:
                raise LogError(self._moved(file))

    def _moved(self, file: Path) -> str:
        if file == self.path:
            what, new = f"inspection log {file}", "to begin a new one"
        else:
            what = f"{file}, which belongs to the inspection log {self.path},"
            new = "with `systemctl restart inspector`: as it stops it saves the newest rows"
        return f"{what} was moved or deleted while it was open; put it back, or restart the inspector {new}"


def _insert(connection: Connection, evidence: Sequence[Evidence]) -> None:
    frames = [asdict(e.frame) | {"inspection_id": e.inspection_id} for e in evidence if e.frame is not None]
    heatmaps = [
        asdict(e.heatmap) | {"inspection_id": e.inspection_id} for e in evidence if e.heatmap is not None
    ]
    measures = [
        asdict(e.measures) | {"inspection_id": e.inspection_id} for e in evidence if e.measures is not None
    ]
    if frames:
        connection.execute(_INSERT_FRAMES, frames)
    if heatmaps:
        connection.execute(_INSERT_HEATMAPS, heatmaps)
    if measures:
        connection.execute(_INSERT_MEASURES, measures)
