"""What goes wrong with a file, and what is told of it. No text quotes a key or a value."""

from __future__ import annotations

import sqlite3
from typing import Final

CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})


class SqliteStoreError(Exception):
    """What a store reports, and what `flush` raises."""


FAILURES: Final = (sqlite3.Error, OSError, ValueError, OverflowError, SqliteStoreError)
"""What SQLite, the system and a path with a NUL in it raise, and what we find ourselves."""


class DamagedFileError(SqliteStoreError):
    """The file is not what we wrote."""


class ForeignFileError(SqliteStoreError):
    """The file is whole, but not ours: of another version or of another program."""


class UnavailableError(SqliteStoreError):
    """The file cannot be used now."""


class ClosedError(UnavailableError):
    """The file was closed by another thread between two steps of this one."""


class NotFlushedError(SqliteStoreError):
    """Something that was written would not survive the end of this process."""


class LockTimeoutError(OSError):
    """Another process holds the lock of the file for longer than we wait."""


def code_of(error: BaseException) -> int:
    """The primary result code of SQLite; 0 for none."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else 0


def is_damage(error: BaseException) -> bool:
    """Whether the file is damaged, and not the disk full or somebody else at work."""
    if isinstance(error, DamagedFileError):
        return True
    if isinstance(error, sqlite3.Error):
        # A schema that lacks what we made, or a column of another type, comes without a code of its own.
        return code_of(error) in CORRUPT or isinstance(error, sqlite3.IntegrityError) or _is_foreign_schema(error)
    return False


def is_busy(error: BaseException) -> bool:
    """Whether somebody else was at work for longer than we wait."""
    return isinstance(error, LockTimeoutError) or code_of(error) in BUSY


def shown(error: BaseException) -> str:
    """The kind of an error, without its text, which may name what is nobody's business; of our own, the text."""
    if isinstance(error, SqliteStoreError) and error.args:
        return str(error)
    name = getattr(error, "sqlite_errorname", None)
    if isinstance(name, str):
        return name
    if isinstance(error, OSError) and error.errno is not None:
        return f"{type(error).__name__} {error.errno}"
    return type(error).__name__


def _is_foreign_schema(error: sqlite3.Error) -> bool:
    text = str(error)
    return code_of(error) == sqlite3.SQLITE_ERROR and ("no such" in text or "malformed" in text)
