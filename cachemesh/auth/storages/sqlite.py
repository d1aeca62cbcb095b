"""Tokens in an SQLite file, for all processes of a machine: one for each name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from cachemesh.auth.ports import Kept
from cachemesh.auth.storages.database import Database, Lease
from cachemesh.auth.storages.errors import UnreadableTokenError
from cachemesh.auth.storages.record import NOTHING, next_version, read_back, written

if TYPE_CHECKING:
    import os
    import sqlite3
    from collections.abc import Callable

    from cachemesh.auth.storages.record import Cipher
    from cachemesh.auth.token import Token


class SqliteTokenStorage:
    """Keeps the token `name` in the SQLite file `path`, which may hold those of many, with mode 0600.

    Files and folders that others have rights on are refused as `FileTokenStorage`
    refuses them. What is there and cannot be read is an `UnreadableTokenError`;
    after `discard` there is room for a new token. It is opened for each call,
    and what is removed is overwritten.

    `cipher`: a `TokenCipher` enciphers the tokens, but not their names; without
    one the file has them in clear.

    >>> import tempfile
    >>> from cachemesh.auth.token import Token
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ada, bob = (SqliteTokenStorage(f"{folder}/tokens.db", name) for name in ("ada", "bob"))
    ...     _ = ada.swap(ada.read().version, Token(access_token="s3cret"))
    ...     ada.read().token is None, bob.read().token is None
    (False, True)
    """

    is_near: Final = False

    def __init__(self, path: str | os.PathLike[str], name: str = "token", *, cipher: Cipher | None = None) -> None:
        self.path: Final = Path(path)
        self.name: Final = name
        self._cipher: Final = cipher
        self._context: Final = b"cachemesh token row " + name.encode()
        self._database: Final = Database(self.path)
        self._lease: Final = Lease(self._database, name)

    def __repr__(self) -> str:
        return f"SqliteTokenStorage({str(self.path)!r}, {self.name!r})"

    def read(self) -> Kept:
        """What is kept now."""
        with self._database.reading() as connection:
            return NOTHING if connection is None else self._read(connection)

    def swap(self, expected: int, token: Token | None, /) -> int | None:
        """Keep `token` if the version is still `expected`: the new version, or None."""
        with self._database.writing() as connection:
            if self._read(connection).version != expected:
                return None
            version = next_version(expected)
            connection.execute(
                "INSERT OR REPLACE INTO tokens (name, version, content) VALUES (?, ?, ?)",
                (self.name, version, written(Kept(token, version), self._cipher, self._context)),
            )
        return version

    def try_lock(self, holds_s: float, /) -> Callable[[], None] | None:
        """The right to refresh; None: somebody has it."""
        return self._lease.try_lock(holds_s)

    def discard(self) -> None:
        """Remove the token, whatever is there; where the file is no database of ours, remove that."""
        try:
            with self._database.writing() as connection:
                connection.execute("DELETE FROM tokens WHERE name = ?", (self.name,))
        except UnreadableTokenError:
            self._database.remove()

    def _read(self, connection: sqlite3.Connection) -> Kept:
        row = connection.execute("SELECT version, content FROM tokens WHERE name = ?", (self.name,)).fetchone()
        if row is None:
            return NOTHING
        kept = read_back(row[1], self._cipher, self._context)
        if kept.version != row[0]:
            msg = "what is stored is not of the version that it should be"
            raise UnreadableTokenError(msg)
        return kept
