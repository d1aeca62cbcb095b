"""Where the keys of partitions are kept, wrapped: with whom, and until when.

A ring never sees a key in the clear, and no name of an owner either, but a
digest of it. What is removed from it is gone for good, and with it whatever was
encrypted with it. Owners, ids and keys are bytes of fixed lengths.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias
from urllib.parse import quote

from msgspec import Struct

from cachemesh.stores.envelope import KeyUnavailableError
from cachemesh.stores.sqlite.errors import shown
from cachemesh.stores.sqlite.file import make_folder, marks_of, prepare_file
from cachemesh.stores.sqlite.fork import hold

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence


class KeyRingError(KeyUnavailableError):
    """A key ring cannot be used. The text says why, and quotes nothing of what is in it."""


class WrappedKey(Struct, frozen=True):
    """The key `id` of a partition, encrypted with the root key `root`."""

    id: bytes
    root: bytes
    wrapped: bytes

    def __repr__(self) -> str:
        return f"WrappedKey({self.id.hex()}, root={self.root.hex()})"


Keys: TypeAlias = "Mapping[bytes, Sequence[WrappedKey]]"
"""By owner; each one's in the order in which they came."""


class KeyRing(Protocol):
    """Keeps the wrapped keys of partitions: in a file, on a server, in a key management service.

    It may be called from several threads at once, and may wait, for a disk or a
    network. Whatever it raises makes misses of the reads that needed it.
    """

    def find(self, owners: Collection[bytes], /) -> Keys:
        """The keys of `owners`. Who has none may be left out."""

    def add(self, keys: Mapping[bytes, WrappedKey], beside: Collection[bytes], /) -> Keys:
        """Keep each key as the newest of its owner; not for an owner who has another one than those in `beside` (ids).

        The answer is that of `find` afterwards: of processes that add a key for
        the same owner, all get the one that came first.
        """

    def replace(self, keys: Iterable[tuple[bytes, WrappedKey]], /) -> None:
        """Keep each key in the place of the one of the same owner and id, if that is still there."""

    def forget(self, owner: bytes | None, /) -> None:
        """Destroy the keys of `owner`; None: all keys. It raises where they may still be there."""

    def scan(self) -> Iterator[tuple[bytes, WrappedKey]]:
        """Every key, with its owner."""


class MemoryKeyRing:
    """Keys that end with the process, for tests; and for stores whose content is to end with it as well.

    >>> ring = MemoryKeyRing()
    >>> ring.add({b"ada": WrappedKey(b"1", b"r", b"...")}, ())
    {b'ada': [WrappedKey(31, root=72)]}
    >>> ring.forget(None)
    >>> ring.find([b"ada"])
    {}
    """

    def __init__(self) -> None:
        self._keys: dict[bytes, dict[bytes, WrappedKey]] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"MemoryKeyRing(<{len(self._keys)} owners>)"

    def find(self, owners: Collection[bytes], /) -> Keys:
        """The keys of `owners`."""
        with self._lock:
            return {owner: list(self._keys[owner].values()) for owner in owners if owner in self._keys}

    def add(self, keys: Mapping[bytes, WrappedKey], beside: Collection[bytes], /) -> Keys:
        """Keep each key, unless its owner has another one than those in `beside`."""
        with self._lock:
            for owner, key in keys.items():
                those = self._keys.setdefault(owner, {})
                if those.keys() <= set(beside):
                    those[key.id] = key
        return self.find(keys)

    def replace(self, keys: Iterable[tuple[bytes, WrappedKey]], /) -> None:
        """Keep each key in the place of the one of the same owner and id, if that is still there."""
        with self._lock:
            for owner, key in keys:
                if key.id in self._keys.get(owner, {}):
                    self._keys[owner][key.id] = key

    def forget(self, owner: bytes | None, /) -> None:
        """Destroy the keys of `owner`; None: all keys."""
        with self._lock:
            if owner is None:
                self._keys.clear()
            else:
                self._keys.pop(owner, None)

    def scan(self) -> Iterator[tuple[bytes, WrappedKey]]:
        """Every key, with its owner."""
        with self._lock:
            found = [(owner, key) for owner, those in self._keys.items() for key in those.values()]
        return iter(found)


APPLICATION_ID: Final = 0x636D6B72  # "cmkr"
VERSION: Final = 1
WAIT_S: Final = 5.0
"""For so long we wait for another process that writes."""

PAGE: Final = 500

TABLE: Final = (
    "CREATE TABLE keys (n INTEGER PRIMARY KEY, owner BLOB NOT NULL, id BLOB NOT NULL,"
    " root BLOB NOT NULL, wrapped BLOB NOT NULL, UNIQUE (owner, id))"
)
FIND: Final = "SELECT id, root, wrapped FROM keys WHERE owner = ? ORDER BY n"

_in_use: Final = threading.RLock()
hold(_in_use)  # No process is forked while SQLite has a lock on a ring: the child would take it for its own.


class FileKeyRing:
    """Keys in the file `path`, for all processes of a machine: an SQLite database of its own, with mode 0600.

    What is forgotten is overwritten in the file (`secure_delete`). A file that is
    damaged, or not ours, is never touched: all reads miss then, and nothing is
    stored, until somebody has seen to it. It is opened for each call, which
    takes a tenth of a millisecond, and a few where something is written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ring = FileKeyRing(f"{folder}/keys.db")
    ...     ring.add({b"ada": WrappedKey(b"1", b"r", b"...")}, ())
    {b'ada': [WrappedKey(31, root=72)]}
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Final = Path(path)

    def __repr__(self) -> str:
        return f"FileKeyRing({str(self.path)!r})"

    def find(self, owners: Collection[bytes], /) -> Keys:
        """The keys of `owners`."""
        with self._open(writes=False) as connection:
            return {} if connection is None else found_in(connection, owners)

    def add(self, keys: Mapping[bytes, WrappedKey], beside: Collection[bytes], /) -> Keys:
        """Keep each key, unless its owner has another one than those in `beside`."""
        with self._open(makes=True) as connection:
            assert connection is not None
            there = found_in(connection, keys)
            for owner, key in keys.items():
                if all(each.id in beside for each in there.get(owner, ())):
                    connection.execute(
                        "INSERT INTO keys (owner, id, root, wrapped) VALUES (?, ?, ?, ?)",
                        (owner, key.id, key.root, key.wrapped),
                    )
            found = found_in(connection, keys)
            connection.execute("COMMIT")
            return found

    def replace(self, keys: Iterable[tuple[bytes, WrappedKey]], /) -> None:
        """Keep each key in the place of the one of the same owner and id, if that is still there."""
        with self._open() as connection:
            if connection is not None:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(
                    "UPDATE keys SET root = ?, wrapped = ? WHERE owner = ? AND id = ?",
                    [(key.root, key.wrapped, owner, key.id) for owner, key in keys],
                )
                connection.execute("COMMIT")

    def forget(self, owner: bytes | None, /) -> None:
        """Destroy the keys of `owner`; None: all keys."""
        with self._open() as connection:
            if connection is None:
                return
            connection.execute("BEGIN IMMEDIATE")
            if owner is None:
                connection.execute("DELETE FROM keys")
            else:
                connection.execute("DELETE FROM keys WHERE owner = ?", (owner,))
            connection.execute("COMMIT")

    def scan(self) -> Iterator[tuple[bytes, WrappedKey]]:
        """Every key, with its owner."""
        cursor = -(2**63)
        while True:
            with self._open(writes=False) as connection:
                if connection is None:
                    return
                rows = connection.execute(
                    "SELECT owner, id, root, wrapped, n FROM keys WHERE n > ? ORDER BY n LIMIT ?", (cursor, PAGE)
                ).fetchall()
            for row in rows:
                yield bytes_in(row[0]), key_of(row[1:4])
            if len(rows) < PAGE:
                return
            cursor = rows[-1][4]

    @contextmanager
    def _open(self, *, makes: bool = False, writes: bool = True) -> Iterator[sqlite3.Connection | None]:
        """The open file; None where there are no keys. `makes`: make it then, and begin a transaction."""
        with _in_use:
            try:
                if makes:
                    self._make()
                elif not self.path.exists():
                    yield None
                    return
                with contextlib.closing(self._connect()) as connection:
                    if writes:
                        # Each page that held a key is overwritten before the commit is over; and no loss of power
                        # brings back the journal of a commit that was acknowledged.
                        connection.execute("PRAGMA secure_delete=ON")
                        connection.execute("PRAGMA synchronous=EXTRA")
                    if makes:
                        connection.execute("BEGIN IMMEDIATE")
                    is_new = self._is_new(connection)
                    if is_new and makes:
                        connection.execute(TABLE)
                        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
                        connection.execute(f"PRAGMA user_version={VERSION}")
                    yield None if is_new and not makes else connection
            except (sqlite3.Error, OSError, ValueError, OverflowError) as error:
                msg = f"the key ring cannot be used: {shown(error)}"
                raise KeyRingError(msg) from None

    def _make(self) -> None:
        make_folder(self.path.parent)
        with contextlib.suppress(FileExistsError):  # Another process was faster.
            prepare_file(self.path)

    def _connect(self) -> sqlite3.Connection:
        name = f"file:{quote(os.fsencode(self.path.absolute()))}?mode=rw"
        return sqlite3.connect(name, uri=True, timeout=WAIT_S, isolation_level=None)

    def _is_new(self, connection: sqlite3.Connection) -> bool:
        """Whether nobody has put anything into it. KeyRingError where it is not ours."""
        *marks, tables = marks_of(connection)
        if marks == [APPLICATION_ID, VERSION]:
            return False
        if marks != [0, 0] or tables:
            msg = "the key ring is of another program or version"
            raise KeyRingError(msg)
        return True


def found_in(connection: sqlite3.Connection, owners: Iterable[bytes]) -> Keys:
    found: dict[bytes, list[WrappedKey]] = defaultdict(list)
    for owner in owners:
        for row in connection.execute(FIND, (owner,)):
            found[owner].append(key_of(row))
    return dict(found)


def key_of(row: Sequence[Any]) -> WrappedKey:
    """The key in a row. Of a damaged one, a key that nothing opens: it is there, and must not be taken for none."""
    return WrappedKey(*map(bytes_in, row))


def bytes_in(value: object) -> bytes:
    return value if type(value) is bytes else b""
