"""Connections to the log, with every promise read back, and the schema brought up to date."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Engine, NullPool, create_engine, event, inspect

from inspector.audit import journal, residue
from inspector.audit.aside import sync
from inspector.audit.failures import explained
from inspector.audit.schema import REVISION, Base
from inspector.errors import DamagedLogError, LogError

Synchronous = Literal["FULL", "NORMAL"]

_SYNCHRONOUS = {"NORMAL": 1, "FULL": 2}
_MIGRATIONS = Path(__file__).parent / "migrations"
_AUTOCHECKPOINT_PAGES = 8000  # a safety net: AuditLog.checkpoint() keeps the journal far below it
_TRUNCATE_BYTES = 64 * 2**20
_QUICK_CHECK_BYTES = 64 * 2**20  # above this, checking at every start would hold up the line


def open_for_writing(path: Path, synchronous: Synchronous, busy_timeout_s: float) -> Connection:
    """Create or open the log, check it, migrate it. The connection's transactions are BEGIN IMMEDIATE.

    Raises LogError when the file cannot be written, is damaged, is not a log, comes from a newer version,
    or when a pragma that a promise rests on is not in force.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LogError(
            f"folder {path.parent} for the inspection log cannot be created: {error.strerror}; "
            "create it and give this user write permission"
        ) from error
    journal.refuse_damaged(path)
    with explained(path):
        connection = _engine(lambda: _connect(path, "mode=rwc", busy_timeout_s), "BEGIN IMMEDIATE").connect()
        try:
            _set_pragmas(connection, path, synchronous, busy_timeout_s)
            _quick_check(connection, path)
            with connection.begin():
                residue.wipe(path, residue.descriptor(path))
                _migrate(connection, path)
            _refuse_other_schema(connection, path)
            journal.lay_out(journal.journal_of(path))
            sync(path.parent)
        except BaseException:
            connection.close()
            raise
    return connection


def open_for_reading(path: Path, busy_timeout_s: float = 2.0) -> Engine:
    """Open an existing log read-only; its connections never block the writer.

    Raises LogError when there is no log, or its schema is not this version's.
    """
    if not path.exists():
        raise LogError(f"there is no inspection log at {path}; `inspector run` begins one")
    engine = _engine(lambda: _connect_reader(path, busy_timeout_s), "BEGIN")
    with explained(path), engine.connect() as connection:
        found = _revision(connection, path)
    if found is None or found < REVISION:
        raise LogError(
            f"inspection log {path} has schema {found}, this version reads {REVISION}; "
            "start `inspector run` once on this station to bring it up to date"
        )
    return engine


@contextmanager
def guest(path: Path, patience_s: float) -> Iterator[Connection]:
    """A transaction for a few rows beside a daemon that writes to the same log; durable at its end.

    The lock is held for the writing alone: the disk is waited for when it is free again, and the journal
    is left as it is, for emptying it would hold up the daemon. patience_s: how long to wait for the lock.
    Raises LogError; brings an older schema up to date first.
    """
    if not path.exists():
        raise LogError(f"there is no inspection log at {path}; `inspector run` begins one")
    journal.refuse_damaged(path)
    journal.refuse_loss(path)
    with explained(path):
        connection = _engine(lambda: _connect(path, "mode=rw", patience_s), "BEGIN IMMEDIATE").connect()
        try:
            for pragma in ("foreign_keys = 1", "synchronous = NORMAL", "wal_autocheckpoint = 0"):
                _pragma(connection, pragma)
            with writing(connection, path):
                _migrate(connection, path)
                yield connection
            sync(journal.journal_of(path))
        finally:
            connection.close()


@contextmanager
def writing(connection: Connection, path: Path) -> Iterator[None]:
    """BEGIN IMMEDIATE … COMMIT, over nothing that a process that was killed has left in the journal.

    Whatever is raised inside rolls back.
    """
    with connection.begin():
        if "index" not in connection.info:
            connection.info["index"] = residue.descriptor(path)
        if residue.left(path, connection.info["index"]):
            residue.wipe(path, connection.info["index"])
        yield


def _engine(connect: Callable[[], sqlite3.Connection], begin: str) -> Engine:
    """SQLAlchemy over connections that leave transactions to us (isolation_level None)."""
    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _connect(path: Path, options: str, busy_timeout_s: float) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}",
        uri=True,
        timeout=busy_timeout_s,
        isolation_level=None,
        check_same_thread=False,
    )


def _connect_reader(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """Read-only; on a read-only medium a log that was closed cleanly is read as immutable."""
    connection = _connect(path, "mode=ro", busy_timeout_s)
    try:
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        no_journal = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
        closed_cleanly = not path.with_name(path.name + "-wal").exists()
        if no_journal and closed_cleanly and not os.access(path.parent, os.W_OK):
            return _connect(path, "immutable=1", busy_timeout_s)
        raise
    return connection


def _set_pragmas(connection: Connection, path: Path, synchronous: str, busy_timeout_s: float) -> None:
    """Set, read back, refuse: a pragma that SQLite ignores in silence would break a promise."""
    wanted: dict[str, Any] = {
        "busy_timeout": round(busy_timeout_s * 1000),
        "journal_mode": "wal",
        "synchronous": _SYNCHRONOUS[synchronous],
        "foreign_keys": 1,
        "wal_autocheckpoint": _AUTOCHECKPOINT_PAGES,
    }
    for pragma, value in wanted.items():
        _pragma(connection, f"{pragma} = {value}")
        found = _pragma(connection, pragma)
        if found != value:
            raise LogError(
                f"inspection log {path}: SQLite has {pragma} = {found} where {value} was asked; "
                "without it a decision could be lost, so the log is not used. "
                "The log must be on a local disk (not a network share) and this user must own its folder"
            )


def _pragma(connection: Connection, text: str) -> Any:
    """Run one outside SQLAlchemy's transaction, where most pragmas have no effect."""
    cursor = connection.connection.cursor()
    try:
        cursor.execute(f"PRAGMA {text}")
        row = cursor.fetchone()
        return None if row is None else row[0]
    finally:
        cursor.close()


def _quick_check(connection: Connection, path: Path) -> None:
    if path.stat().st_size > _QUICK_CHECK_BYTES:
        return
    found = _pragma(connection, "quick_check(1)")
    if found != "ok":
        raise _damaged(path, found.splitlines()[-1])


def check_whole(path: Path) -> None:
    """Look at every page, index and reference of a log, however large, and change none. Raises LogError."""
    with explained(path), closing(_connect_reader(path, busy_timeout_s=1.0)) as connection:
        found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        orphan = connection.execute("PRAGMA foreign_key_check").fetchone()
    if found != "ok":
        raise _damaged(path, found.splitlines()[-1])
    if orphan is not None:
        raise _damaged(path, f"a row of {orphan[0]} has lost what it belongs to in {orphan[2]}")


def _damaged(path: Path, what: str) -> DamagedLogError:
    return DamagedLogError(
        f"inspection log {path} is damaged ({what}); move it away and keep it "
        f"(`sqlite3 {path} .recover` reads what is left), a new log is begun in its place"
    )


def _revision(connection: Connection, path: Path) -> str | None:
    """The schema revision of the file, None for an empty one.

    Raises LogError when it is none of ours, DamagedLogError when it was.
    """
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    found: str | None = None
    if "alembic_version" in tables:
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if found is None or not found.isdigit():
        if len(set(tables) & set(Base.metadata.tables)) > 1:  # a log, whatever became of it
            raise _damaged(path, "its alembic_version does not say which schema it has")
        raise LogError(
            f"{path} is a SQLite database but not an inspection log (it has the tables "
            f"{', '.join(tables[:5])}); name another file"
        )
    if found > REVISION:
        raise LogError(
            f"inspection log {path} was written by a newer version (schema {found}, this version knows "
            f"{REVISION}); install that version again or name another file"
        )
    return found


def _migrate(connection: Connection, path: Path) -> None:
    """Bring the schema to REVISION inside the caller's transaction."""
    if _revision(connection, path) != REVISION:
        _upgrade(connection)


def _refuse_other_schema(connection: Connection, path: Path) -> None:
    """Every table with every column must be there, or the next decision finds out."""
    with connection.begin():
        found = inspect(connection)
        tables = set(found.get_table_names())
        for name, table in Base.metadata.tables.items():
            if name not in tables:
                raise _damaged(path, f"it has lost its table {name}")
            missing = set(table.columns.keys()) - {column["name"] for column in found.get_columns(name)}
            if missing:
                raise _damaged(path, f"its table {name} has lost {', '.join(sorted(missing))}")


def _upgrade(connection: Connection, to: str = REVISION) -> None:
    from alembic import command  # here, because it costs a quarter second that a usual start can do without
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def checkpoint(path: Path, truncate_above: int = _TRUNCATE_BYTES) -> None:
    """Copy the journal's pages into the file, on a connection of its own beside a busy writer.

    PASSIVE waits for nobody. Only a journal that readers have kept from starting over, so that it is
    longer than truncate_above bytes, is truncated, which holds up the writer for a moment.
    """
    connection = _connect(path, "mode=rw", busy_timeout_s=0)
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        file = journal.journal_of(path)
        if file.exists() and file.stat().st_size > truncate_above:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
