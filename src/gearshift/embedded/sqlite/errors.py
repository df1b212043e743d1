"""SQLite's errors as Gearshift's: the backend's ``classify``."""

from __future__ import annotations

import errno
import sqlite3

from gearshift.errors import (
    BackendFailure,
    ConfigError,
    ConnectionFailed,
    GearshiftError,
    PublishRefused,
)

__all__ = ["FileReplaced", "LeaseOver", "classify", "code_of", "is_busy"]


class FileReplaced(Exception):
    """The database file was deleted or replaced while it was open."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} was deleted or replaced while it was open")


class LeaseOver(Exception):
    """A consumer was silent for too long: others have taken over what it held."""


def code_of(error: BaseException) -> int | None:
    """SQLite's primary result code, if there is one."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF


def is_busy(error: BaseException) -> bool:
    """Another process holds the lock."""
    return code_of(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def classify(error: Exception) -> GearshiftError | None:
    """See Backend.classify."""
    if isinstance(error, GearshiftError):
        return error
    if isinstance(error, FileReplaced):
        return ConnectionFailed(str(error), hint="do not delete the file while it is in use")
    if isinstance(error, LeaseOver):
        return ConnectionFailed(
            str(error), hint="its work went to others; was this process stopped?"
        )
    if isinstance(error, OSError):
        return _system(error)
    code = code_of(error)
    return None if code is None else _database(code, error)


def _system(error: OSError) -> GearshiftError:
    if error.errno == errno.ENOSPC:
        return _full(error)
    return ConfigError(
        f"path: cannot be used: {error.strerror or error}",
        hint="name a file in a folder that this process may write",
    )


def _full(error: Exception) -> GearshiftError:
    return PublishRefused(
        f"the disk is full; nothing was stored ({error})", hint="free space", retryable=True
    )


def _database(code: int, error: Exception) -> GearshiftError | None:
    match code:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            # Nothing was written, and core's way of healing (close, back off, again) is right.
            return ConnectionFailed(
                "another process held the file's write lock for busy_timeout_s",
                hint="look for a stopped process, or raise busy_timeout_s",
            )
        case sqlite3.SQLITE_IOERR:
            return ConnectionFailed(f"reading or writing the file failed ({error})")
        case sqlite3.SQLITE_FULL:
            return _full(error)
        case sqlite3.SQLITE_NOTADB:
            return ConfigError(
                "path: the file is not an SQLite database", hint="use a path of Gearshift's own"
            )
        case sqlite3.SQLITE_CORRUPT:
            return BackendFailure(
                f"the database file is damaged ({error})", hint="restore it, or delete the file"
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return ConfigError(
                f"path: the file cannot be opened for writing ({error})",
                hint="name a file in a folder that this process may write",
            )
    return None
