"""SQLite's and the file system's errors, said so that an integrator can act."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from inspector.errors import DamagedLogError, LogError, LogUnavailableError

_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_LOCKED = "is locked by another process; find it with `fuser -v {path}` and stop it"
_BY_CODE = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_FULL: "cannot grow: the disk is full; free space on {folder}",
    sqlite3.SQLITE_READONLY: "cannot be written; give this user write permission on the folder {folder} "
    "and the files in it",
    sqlite3.SQLITE_PERM: "may not be opened; give this user permission on {folder} and the files in it",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; it must be a file, and this user must have write permission "
    "on it and on the folder {folder}",
    sqlite3.SQLITE_NOTADB: "is not a SQLite database; move it away or name another file",
    sqlite3.SQLITE_CORRUPT: "is damaged ({detail}); move it away and keep it "
    "(`sqlite3 {path} .recover` reads what is left), a new log is begun in its place",
    sqlite3.SQLITE_IOERR: "cannot be read or written: input/output error ({name}); "
    "check the disk under {folder} and the space left on it",
    sqlite3.SQLITE_CONSTRAINT: "refused a row: {detail}",
    sqlite3.SQLITE_PROTOCOL: "cannot be locked ({name}); the folder {folder} must be on a local disk, "
    "not a network share",
}
# What SQLite calls a plain error: our statements are always the same, so it is the file that has changed.
_OTHER_SCHEMA = ("unsupported file format", "no such table", "no such column", "has no column named")
_KINDS: dict[int, type[LogError]] = {
    sqlite3.SQLITE_NOTADB: DamagedLogError,
    sqlite3.SQLITE_CORRUPT: DamagedLogError,
    sqlite3.SQLITE_BUSY: LogUnavailableError,
    sqlite3.SQLITE_LOCKED: LogUnavailableError,
    sqlite3.SQLITE_FULL: LogUnavailableError,
    sqlite3.SQLITE_IOERR: LogUnavailableError,
}


def explain(path: Path, error: sqlite3.Error) -> LogError:
    """The LogError for what SQLite reported about the log at path."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_ERROR and any(text in str(error) for text in _OTHER_SCHEMA):
        code = sqlite3.SQLITE_CORRUPT
    if code & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR) and _full(path.parent):
        code = sqlite3.SQLITE_FULL  # there is no room for the files that it keeps beside the log
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    pattern = _BY_CODE.get(code & 0xFF, "failed: {detail} ({name})")
    what = pattern.format(path=path, folder=path.parent, detail=error, name=name)
    return _KINDS.get(code & 0xFF, LogError)(f"inspection log {path} {what}")


def _full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free == 0
    except OSError:
        return False


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise LogError for any database error inside the block."""
    try:
        yield
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.Error):
            raise explain(path, error.orig) from error
        raise
    except sqlite3.Error as error:
        raise explain(path, error) from error
    except OSError as error:
        kind = LogUnavailableError if error.errno in _PASSING else LogError
        what = f"cannot be written ({error.strerror}); free space on {path.parent} and check the disk"
        raise kind(f"inspection log {path} {what}") from error
    except (OverflowError, UnicodeError) as error:
        raise LogError(f"inspection log {path} cannot hold a value: {error}") from error
