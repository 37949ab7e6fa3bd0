"""Connections to the log, with every promise read back, and the schema brought up to date."""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Engine, NullPool, create_engine, event, inspect

from inspector.audit.failures import explained
from inspector.audit.schema import REVISION
from inspector.errors import DamagedLogError, LogError

Synchronous = Literal["FULL", "NORMAL"]

_SYNCHRONOUS = {"NORMAL": 1, "FULL": 2}
_MIGRATIONS = Path(__file__).parent / "migrations"
_AUTOCHECKPOINT_PAGES = 8000  # a safety net: AuditLog.checkpoint() keeps the journal far below it
_TRUNCATE_BYTES = 64 * 2**20
_JOURNAL_BYTES = 8 * 2**20
_JOURNAL_HEADER = struct.Struct(">8I")  # https://www.sqlite.org/fileformat.html#the_write_ahead_log
_JOURNAL_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}  # and the byte order of its checksums
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
    _refuse_damaged_journal(path)
    with explained(path):
        connection = _engine(lambda: _connect(path, "mode=rwc", busy_timeout_s), "BEGIN IMMEDIATE").connect()
        try:
            _set_pragmas(connection, path, synchronous, busy_timeout_s)
            _quick_check(connection, path)
            with connection.begin():
                _migrate(connection, path)
            _lay_out_journal(journal_of(path))
            _sync(path.parent)
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
    with explained(path):
        connection = _engine(lambda: _connect(path, "mode=rw", patience_s), "BEGIN IMMEDIATE").connect()
        try:
            for pragma in ("foreign_keys = 1", "synchronous = NORMAL", "wal_autocheckpoint = 0"):
                _pragma(connection, pragma)
            with connection.begin():
                _migrate(connection, path)
                yield connection
            _sync(journal_of(path))
        finally:
            connection.close()


def journal_of(path: Path) -> Path:
    """SQLite's write-ahead log of this database."""
    return path.with_name(path.name + "-wal")


def _refuse_damaged_journal(path: Path) -> None:
    """Raise DamagedLogError for a journal whose header is damaged.

    SQLite takes it for an empty one: it would begin it anew over the rows that it holds, in silence.
    """
    try:
        with journal_of(path).open("rb") as file:
            header = file.read(_JOURNAL_HEADER.size)
    except OSError:  # there is none; whatever else it is, SQLite says
        return
    if len(header) < _JOURNAL_HEADER.size or not any(header) or _sound(header):
        return
    raise DamagedLogError(
        f"the journal of the inspection log, {journal_of(path)}, is damaged at its beginning, so the newest "
        "decisions cannot be read; move log and journal away and keep both, a new log is begun in their place"
    )


def _sound(header: bytes) -> bool:
    """Whether these 32 bytes begin a journal: the magic number, and the checksum of what follows it."""
    magic, *_, first, second = _JOURNAL_HEADER.unpack(header)
    if magic not in _JOURNAL_MAGIC:
        return False
    one = two = 0
    numbers = struct.unpack(f"{_JOURNAL_MAGIC[magic]}6I", header[:24])
    for even, odd in zip(numbers[::2], numbers[1::2], strict=True):
        one = (one + even + two) & 0xFFFFFFFF
        two = (two + odd + one) & 0xFFFFFFFF
    return (one, two) == (first, second)


def _lay_out_journal(journal: Path) -> None:
    """Fill the journal up with zeros once, so that commits overwrite blocks that the file has already.

    A commit that makes the file longer waits for the file system's own journal as well: here that is
    8 ms in place of 0.4. SQLite reads a journal up to its first frame that is not valid, and a passive
    checkpoint starts it over without shortening it.
    """
    with journal.open("ab") as file:
        missing = _JOURNAL_BYTES - file.tell()
        if missing > 0:
            file.write(bytes(missing))
            file.flush()
            os.fsync(file.fileno())


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
        raise DamagedLogError(
            f"inspection log {path} is damaged ({found.splitlines()[-1]}); move it away and keep it "
            f"(`sqlite3 {path} .recover` reads what is left), a new log is begun in its place"
        )


def _revision(connection: Connection, path: Path) -> str | None:
    """The schema revision of the file, None for an empty one. Raises LogError when it is none of ours."""
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    found: str | None = None
    if "alembic_version" in tables:
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if found is None or not found.isdigit():
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


def _upgrade(connection: Connection, to: str = REVISION) -> None:
    from alembic import command  # here, because it costs a quarter second that a usual start can do without
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _sync(path: Path) -> None:
    """Make the file durable; of a folder, the entries of the files in it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checkpoint(path: Path, truncate_above: int = _TRUNCATE_BYTES) -> None:
    """Copy the journal's pages into the file, on a connection of its own beside a busy writer.

    PASSIVE waits for nobody. Only a journal that readers have kept from starting over, so that it is
    longer than truncate_above bytes, is truncated, which holds up the writer for a moment.
    """
    connection = _connect(path, "mode=rw", busy_timeout_s=0)
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        journal = journal_of(path)
        if journal.exists() and journal.stat().st_size > truncate_above:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
