"""An SQLite file for tokens and for the leases of who refreshes them. It is opened for each call.

Nothing of it is open between calls, so threads and forks share nothing. A token
is written once an hour; what that costs (a few milliseconds) buys a rollback
journal with `synchronous=EXTRA` and pages that are overwritten (`secure_delete`).
A write-ahead log would keep old tokens until it is taken into the file.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from cachemesh.auth.storages.errors import TokenStorageError, UnreadableTokenError
from cachemesh.auth.storages.guard import WAIT_S, Flocked, flocked
from cachemesh.auth.storages.private import HAS_OWNERS, NO_LINKS, check_place, prepare_folder, telling
from cachemesh.stores.sqlite.errors import is_damage, shown
from cachemesh.stores.sqlite.file import marks_of
from cachemesh.stores.sqlite.fork import hold
from cachemesh.stores.sqlite.lock import HAS_LOCKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

APPLICATION_ID: Final = 0x636D746B  # "cmtk"
VERSION: Final = 1

TABLES: Final = (
    "CREATE TABLE tokens (name TEXT PRIMARY KEY, version INTEGER NOT NULL, content BLOB NOT NULL) STRICT",
    (
        "CREATE TABLE leases ("
        "name TEXT PRIMARY KEY, owner TEXT NOT NULL, taken_at REAL NOT NULL, holds_s REAL NOT NULL) STRICT"
    ),
)

_in_use: Final = threading.RLock()
hold(_in_use)  # No process is forked while SQLite has a lock on a file: the child would take it for its own.


class Database:
    """The file `path`, made with mode 0600 when something is written."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """The open file; None where there is nothing."""
        with _in_use, _telling():
            if not self.path.parent.is_dir():
                yield None
                return
            prepare_folder(self.path.parent)
            if not check_place(self.path):
                yield None
                return
            with contextlib.closing(self._connected()) as connection:
                yield None if _is_new(connection) else connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The open file, in a transaction that nobody else is in. It is on the disk afterwards, or as it was."""
        with _in_use, _telling():
            prepare_folder(self.path.parent)
            if not check_place(self.path):
                self._make()
            with contextlib.closing(self._connected()) as connection:
                connection.execute("PRAGMA secure_delete=ON")
                connection.execute("PRAGMA synchronous=EXTRA")
                connection.execute("BEGIN IMMEDIATE")
                if _is_new(connection):
                    for table in TABLES:
                        connection.execute(table)
                    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version={VERSION}")
                yield connection
                connection.execute("COMMIT")  # Otherwise closing it rolls back.

    def remove(self) -> None:
        """Remove the file, with what belongs to it."""
        with _in_use, telling("the file could not be removed"):
            for suffix in ("", "-journal", "-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def _make(self) -> None:
        """An existing file is not opened here: closing it again would take the locks of others in this process."""
        with contextlib.suppress(FileExistsError):  # Another process was faster.
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINKS, 0o600)
            try:
                if HAS_OWNERS:
                    os.fchmod(descriptor, 0o600)  # A strict umask may have left us fewer rights than that.
            finally:
                os.close(descriptor)

    def _connected(self) -> sqlite3.Connection:
        name = f"file:{quote(os.fsencode(self.path.absolute()))}?mode=rw"
        return sqlite3.connect(name, uri=True, timeout=WAIT_S, isolation_level=None)


class Lease:
    """The right to refresh the token `name`: a row, which says since when and for how long somebody has it.

    Where the system has `flock`, who has it also holds a lock on a file that is
    named in the row: with the process, that lock goes, and the right is free.
    Elsewhere it is free when its time is up.
    """

    def __init__(self, database: Database, name: str) -> None:
        self._database: Final = database
        self._name: Final = name

    def try_lock(self, holds_s: float, /) -> Callable[[], None] | None:
        """The right to refresh; None: somebody has it."""
        owner = secrets.token_hex(8)
        with contextlib.ExitStack() as undone:
            with self._database.writing() as connection:
                row = connection.execute(
                    "SELECT owner, taken_at, holds_s FROM leases WHERE name = ?", (self._name,)
                ).fetchone()
                now = time.time()
                if row is not None and not is_over(row[1], row[2], now) and self._is_alive(row[0]):
                    return None
                sign = self._begun(owner)
                undone.callback(sign)
                connection.execute(
                    "INSERT OR REPLACE INTO leases (name, owner, taken_at, holds_s) VALUES (?, ?, ?, ?)",
                    (self._name, owner, now, holds_s),
                )
            undone.pop_all()  # It is committed.
        if row is not None:
            self._sign(row[0]).unlink(missing_ok=True)
        process = os.getpid()

        def give_back() -> None:
            """In the child of a fork it is the parent's."""
            if os.getpid() == process:
                with self._database.writing() as connection:
                    connection.execute("DELETE FROM leases WHERE name = ? AND owner = ?", (self._name, owner))
                self._sign(owner).unlink(missing_ok=True)
            sign()

        return give_back

    def _sign(self, owner: str) -> Path:
        path = self._database.path
        return path.with_name(f"{path.name}-refresh-{owner}")

    def _begun(self, owner: str) -> Callable[[], None]:
        """Give a sign of life, until the answer is called or the process ends."""
        if not HAS_LOCKS:
            return lambda: None
        descriptor = os.open(self._sign(owner), os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINKS, 0o600)
        flocked(descriptor)
        return Flocked(descriptor).release

    def _is_alive(self, owner: str) -> bool:
        """Whether there is a sign of life; where none is to be had, its time will be up."""
        if not HAS_LOCKS or not owner.isalnum():
            return True
        try:
            descriptor = os.open(self._sign(owner), os.O_RDWR | NO_LINKS)
        except FileNotFoundError:
            return True
        is_dead = flocked(descriptor)
        Flocked(descriptor).release()
        return not is_dead


def is_over(taken_at: float, holds_s: float, now: float) -> bool:
    """Whether the time of a lease is up. One from the future was taken before the clock was set back."""
    return now >= taken_at + holds_s or now < taken_at - holds_s


@contextmanager
def _telling() -> Iterator[None]:
    """Errors of SQLite as ours."""
    with telling("the file of tokens cannot be used"):
        try:
            yield
        except (sqlite3.Error, OverflowError) as error:
            kind = UnreadableTokenError if is_damage(error) else TokenStorageError
            told = kind(f"the file of tokens cannot be used: {shown(error)}")
        else:
            return
        raise told


def _is_new(connection: sqlite3.Connection) -> bool:
    """Whether nobody has put anything into it. UnreadableTokenError where it is not ours."""
    *marks, tables = marks_of(connection)
    if marks == [APPLICATION_ID, VERSION]:
        return False
    if marks != [0, 0] or tables:
        msg = "the file of tokens is of another program or version"
        raise UnreadableTokenError(msg)
    return True
