"""The file: opening it, its permissions and versions, quarantine, and letting go of it.

Opening, each writing transaction and each checkpoint take the lock beside the
file (docs/decisions/0020). A file of another version, or of another
program, is left alone: ours then lies beside it. One that is no database any
more is moved away, to be looked at, and a new one begins.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
import time
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import quote

from cachemesh.stores.sqlite.errors import (
    FAILURES,
    ClosedError,
    DamagedFileError,
    ForeignFileError,
    UnavailableError,
    is_damage,
)
from cachemesh.stores.sqlite.lock import HAS_LOCKS, FileLock
from cachemesh.stores.sqlite.mounts import is_on_network
from cachemesh.stores.sqlite.schema import APPLICATION_ID, TABLES, VERSION, Meta, guarded, meta_of
from cachemesh.stores.sqlite.versions import has_wal_reset_bug
from cachemesh.stores.sqlite.view import View

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cachemesh.core.scopes import Owner

Connect: TypeAlias = "Callable[..., sqlite3.Connection]"
"""What is called as `sqlite3.connect` is."""

PAGE_SIZE: Final = 4096
WRITER_CACHE_KIB: Final = 16_384
READER_CACHE_KIB: Final = 4_096
WRITE_WAIT_S: Final = 5.0
READ_WAIT_S: Final = 1.0
CLOSING_WAIT_S: Final = 5.0

MOST_SEEN: Final = 10_000

MOST_READERS: Final = 16
"""So many connections; a thread more waits for one."""

MOST_WAL_BYTES: Final = 4_000 * PAGE_SIZE
"""A log that is longer is checkpointed after the transaction."""

MOST_QUARANTINED: Final = 3
"""So many damaged files are kept beside the file."""

ROOT: Final = 0
"""The user who may do everything anyway."""

SUFFIXES: Final = ("", "-wal", "-shm", "-journal")
DAMAGED: Final = ".corrupt-"

abandoned: Final[list[sqlite3.Connection]] = []
"""Connections that we must not close: of the process that we were forked from, or in use by a thread that hangs."""


class Database:
    """An open file: one connection that writes, and as many that read as threads do at once."""

    def __init__(
        self,
        path: Path,
        writer: sqlite3.Connection,
        journal_mode: str,
        space: int,
        connect: Callable[[], sqlite3.Connection],
    ) -> None:
        self.path = path
        self.writer = writer
        self.journal_mode = journal_mode
        self.view = View(space)
        self.identity = identity_of(path)
        self.is_suspect = False
        """Whether a read has found damage that is still to be seen to."""
        self.seen: dict[tuple[Owner, str], int] = {}
        """`n` of what was read last under a key; 0 where nothing was."""
        self._connect = connect
        self._idle: list[sqlite3.Connection] = []
        self._readers: list[sqlite3.Connection] = []
        self._is_closed = False
        self._lock = threading.Lock()

    def lend(self) -> sqlite3.Connection:
        """A connection to read with, to be given back. ClosedError where somebody has closed the file meanwhile."""
        try:
            return self._idle.pop()
        except IndexError:
            return self._another()

    def give_back(self, connection: sqlite3.Connection) -> None:
        self._idle.append(connection)

    def saw(self, place: tuple[Owner, str], n: int) -> None:
        """Remember `n` of what was read under `place`; 0 is nothing."""
        seen = self.seen
        seen[place] = n
        if len(seen) > MOST_SEEN:
            self.seen = {}

    def is_in_place(self) -> bool:
        """Whether others who open the file now get this one."""
        try:
            return identity_of(self.path) == self.identity
        except OSError:
            return False

    def checkpoint(self, *, truncates: bool = False) -> None:
        """Take the log into the file. The lock is held."""
        if self.journal_mode == "wal":
            self.writer.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if truncates else 'PASSIVE'})").fetchall()

    def wal_bytes(self) -> int:
        try:
            return self.path.with_name(self.path.name + "-wal").stat().st_size
        except OSError:
            return 0

    def _all_idle(self, wait_s: float) -> bool:
        """Take all reading connections out of use. False if some are still lent; then nothing has changed."""
        ends_at = time.monotonic() + wait_s
        taken: list[sqlite3.Connection] = []
        while True:
            with contextlib.suppress(IndexError):
                while True:
                    taken.append(self._idle.pop())
            if len(taken) == len(self._readers):
                return True
            if time.monotonic() >= ends_at:
                self._idle.extend(taken)
                return False
            time.sleep(0.0005)

    def close(self, wait_s: float = CLOSING_WAIT_S) -> bool:
        """Let go of the file; False if somebody is still reading after `wait_s`, and then nothing has changed.

        The last one of all processes to close takes the log into the file.
        SQLite has it to itself then, so that no lock of ours is needed; and it
        leaves a file alone that is not where it was.
        """
        with self._lock:
            if not self._all_idle(wait_s):
                return False
            self._is_closed = True
            for connection in (*self._readers, self.writer):
                with contextlib.suppress(sqlite3.Error):  # It is damaged, or the disk is: it is closed all the same.
                    connection.close()
            return True

    def abandon(self) -> None:
        """Never touch it again, but keep it from being collected, and so closed."""
        self._is_closed = True
        abandoned.extend([*self._readers, self.writer])

    def _another(self) -> sqlite3.Connection:
        with self._lock:
            if self._is_closed:
                raise ClosedError
            if len(self._readers) < MOST_READERS:
                if not self.is_in_place():
                    msg = "the file is not there any more"
                    raise UnavailableError(msg)
                connection = self._connect()
                self._readers.append(connection)
                return connection
        ends_at = time.monotonic() + READ_WAIT_S
        while time.monotonic() < ends_at:
            with contextlib.suppress(IndexError):
                return self._idle.pop()
            if self._is_closed:
                raise ClosedError
            time.sleep(0.0005)
        msg = "all connections are in use"
        raise UnavailableError(msg)


class DataFile:
    """Where the file is, and how it is opened."""

    def __init__(self, path: Path, space: int, connect: Connect) -> None:
        self.path = path
        self.lock = FileLock(path.with_name(path.name + "-lock"))
        self._space = space
        self._connect = connect

    def open(self, report: Callable[[Exception], None]) -> Database:
        """The file, made or mended if need be. Raises one of `FAILURES` where it cannot be had now."""
        make_folder(self.path.parent)
        check_folder(self.path.parent)
        with self.lock.held():
            try:
                return self._whole(self.path, report)
            except ForeignFileError as error:
                report(error)
                return self._whole(beside(self.path), report)

    def _whole(self, path: Path, report: Callable[[Exception], None]) -> Database:
        try:
            return self._opened(path)
        except FAILURES as error:
            if not is_damage(error):
                raise
        moved = quarantine(path)
        report(DamagedFileError(f"the file was damaged; it is now {moved}, and a new one has begun"))
        return self._opened(path)

    def _opened(self, path: Path) -> Database:
        prepare_file(path)
        writer = self._connected(path, WRITE_WAIT_S, WRITER_CACHE_KIB)
        try:
            journal_mode = self._prepared(writer, path)
            return Database(path, writer, journal_mode, self._space, lambda: self._reading(path))
        except BaseException:
            writer.close()
            raise

    def _connected(self, path: Path, wait_s: float, cache_kib: int, *more: str) -> sqlite3.Connection:
        connection = self._connect(
            f"file:{quote(os.fsencode(path))}?mode=rw",
            uri=True,
            timeout=wait_s,
            isolation_level=None,
            check_same_thread=False,
        )
        settings = ("trusted_schema=OFF", "cell_size_check=ON", "temp_store=MEMORY", f"cache_size=-{cache_kib}", *more)
        try:
            for setting in settings:
                connection.execute(f"PRAGMA {setting}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _reading(self, path: Path) -> sqlite3.Connection:
        return self._connected(path, READ_WAIT_S, READER_CACHE_KIB, "wal_autocheckpoint=0", "query_only=ON")

    def _prepared(self, writer: sqlite3.Connection, path: Path) -> str:
        """Make the tables, or see that they are ours. Answers the journal mode."""
        tables = writer.execute(
            "SELECT sql FROM sqlite_master"
            " WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY rowid"
        ).fetchall()
        application_id, version = pragma(writer, "application_id"), pragma(writer, "user_version")
        is_new = not tables and application_id == 0 and version == 0
        if not is_new and application_id != APPLICATION_ID:
            msg = "the file is of another program"
            raise ForeignFileError(msg)
        if not is_new and version != VERSION:
            msg = f"the file is of another version, {version}; we read {VERSION}"
            raise ForeignFileError(msg)
        if is_new:
            writer.execute(f"PRAGMA page_size={PAGE_SIZE}")
            writer.execute("PRAGMA auto_vacuum=INCREMENTAL")
        mode = str(writer.execute(f"PRAGMA journal_mode={wanted_mode(path)}").fetchone()[0])
        if mode not in {"wal", "truncate"}:
            mode = str(writer.execute("PRAGMA journal_mode=TRUNCATE").fetchone()[0])
        writer.execute(f"PRAGMA synchronous={'NORMAL' if mode == 'wal' else 'FULL'}")
        if HAS_LOCKS:
            writer.execute("PRAGMA wal_autocheckpoint=0")
        writer.execute(f"PRAGMA journal_size_limit={MOST_WAL_BYTES}")
        if is_new:
            make_tables(writer)
        elif [sql for (sql,) in tables] != list(TABLES):
            msg = "the tables are not ours"
            raise DamagedFileError(msg)
        meta_of(writer.execute("SELECT last_mark, state FROM meta WHERE id = 1").fetchone())
        return mode


def wanted_mode(path: Path) -> str:
    """Write-ahead, but not where its index cannot be shared, nor where a checkpoint might meet a commit."""
    if is_on_network(path) or (not HAS_LOCKS and has_wal_reset_bug()):
        return "TRUNCATE"
    return "WAL"


def make_tables(writer: sqlite3.Connection) -> None:
    writer.execute("BEGIN IMMEDIATE")
    try:
        for table in TABLES:
            writer.execute(table)
        # Greater than the generations of whatever file was here before: claims from then must not fit.
        first = int(time.time() * 1e6)
        writer.execute("INSERT INTO meta VALUES (1, 0, ?)", (guarded(Meta(seq=first, floor=first, next_floor=first)),))
        writer.execute(f"PRAGMA application_id={APPLICATION_ID}")
        writer.execute(f"PRAGMA user_version={VERSION}")
        writer.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # It has rolled back by itself.
            writer.execute("ROLLBACK")
        raise


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """A number that SQLite tells."""
    value = connection.execute(f"PRAGMA {name}").fetchone()[0]
    assert isinstance(value, int)
    return value


def marks_of(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """`application_id`, `user_version`, and how many tables and the like there are: all of one moment.

    Read one by one, they may be those of before and after another process made the file.
    """
    row: tuple[int, int, int] = connection.execute(
        "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)"
        " FROM pragma_application_id, pragma_user_version"
    ).fetchone()
    return row


def make_folder(folder: Path) -> None:
    """For nobody but us, where it was not there before."""
    if not folder.is_dir():
        make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):  # Another process was faster.
            folder.mkdir(mode=0o700)


def check_folder(folder: Path) -> None:
    """UnavailableError where somebody else may have chosen what lies in it: who owns a folder may change its files.

    A link is refused as well: whoever made it says where the values go. Those in
    the root folder are the system's (`/tmp` is one on some).
    """
    if folder.is_symlink() and folder.parent != folder.parent.parent:
        msg = "the folder is a link; name the one that it leads to"
        raise UnavailableError(msg)
    if hasattr(os, "geteuid") and folder.stat().st_uid not in {os.geteuid(), ROOT}:
        msg = "the folder is somebody else's"
        raise UnavailableError(msg)


def prepare_file(path: Path) -> None:
    """For nobody but us. SQLite gives what it puts beside it the same mode.

    An existing file is not opened here: closing it again would take the locks
    of others in this process (see "How To Corrupt An SQLite Database File", 2.2).
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        return
    if mode & 0o077:
        with contextlib.suppress(PermissionError):  # It is somebody else's; `doctor` tells.
            path.chmod(0o600)


def identity_of(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def beside(path: Path) -> Path:
    """Where ours is when what is at `path` is not."""
    return path.with_name(f"{path.name}-cachemesh{VERSION}")


def quarantine(path: Path) -> str:
    """Move a damaged file away, with what belongs to it; its new name. The lock is held, and we have closed it."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    number = 0
    name = f"{path.name}{DAMAGED}{stamp}"
    while path.with_name(name).exists():
        number += 1
        name = f"{path.name}{DAMAGED}{stamp}-{number}"
    for suffix in SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(path.with_name(name + suffix))
    for old in quarantined(path)[:-MOST_QUARANTINED]:
        for suffix in SUFFIXES:
            old.with_name(old.name + suffix).unlink(missing_ok=True)
    return name


def quarantined(path: Path) -> Sequence[Path]:
    """The damaged files beside `path`, the oldest first."""
    found = [
        each
        for each in path.parent.iterdir()
        if each.name.startswith(path.name + DAMAGED) and not each.name.endswith(SUFFIXES[1:])
    ]
    return sorted(found, key=lambda each: each.name)
