"""Opening what `PATH-or-URL` names. Looking makes no file, moves none away, and removes nothing from one."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import click

from cachemesh.core.scopes import GLOBAL_OWNER
from cachemesh.store_cli.shown import shown
from cachemesh.stores.report import Finding, Level
from cachemesh.stores.sqlite import SqliteStore
from cachemesh.stores.sqlite.errors import DamagedFileError, SqliteStoreError, UnavailableError, is_damage
from cachemesh.stores.sqlite.errors import shown as kind_of
from cachemesh.stores.sqlite.schema import APPLICATION_ID, TABLES, VERSION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cachemesh.stores.envelope import Cipher
    from cachemesh.stores.report import BrowsableStore

TIMEOUT_S: Final = 5.0
MAX_AGE_S: Final = 30 * 86_400.0
"""What is imported without windows is kept for so long, as by the stores themselves."""

TROUBLE: Final = (OSError, RuntimeError, ValueError, SqliteStoreError, sqlite3.Error)
"""What a store raises that cannot be used. The texts of our own quote nothing; of others, only the kind is told."""


class CannotOpen(click.ClickException):
    """Ends the command with 2 and one line."""

    exit_code = 2


class DamagedStore(CannotOpen):
    """The file is no whole store; what a doctor has to say about it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.finding = Finding(Level.ERROR, "file", text)


@asynccontextmanager
async def opened(
    target: str, namespace: str, *, cipher: Cipher | None = None, makes: bool = False, bears: bool = False
) -> AsyncIterator[BrowsableStore]:
    """The store at `target`, closed in the end. `CannotOpen` where it cannot be used.

    `makes`: a file that is not there is made. `bears`: a file that turns out not
    to be usable is what the command itself speaks of.
    """
    if "://" in target:
        async with _server(target, namespace, cipher) as store:
            yield store
    else:
        problems: list[Exception] = []
        async with _file(target, namespace, cipher, problems, makes=makes) as file:
            yield file
        if problems and not bears:
            msg = f"{shown(target)}: {problems[0]}"
            raise CannotOpen(msg)


@asynccontextmanager
async def _server(url: str, namespace: str, cipher: Cipher | None) -> AsyncIterator[BrowsableStore]:
    try:
        from cachemesh.stores.redis import RedisStore  # noqa: PLC0415 (an extra of its own)
    except ModuleNotFoundError:
        msg = "redis not found; run: pip install 'cachemesh[redis]'"
        raise CannotOpen(msg) from None
    try:
        store = RedisStore(url, namespace=namespace, timeout=TIMEOUT_S, max_age=MAX_AGE_S, cipher=cipher)
    except ValueError as error:
        # Its text names the schemes, and has nothing of the URL.
        raise CannotOpen(str(error)) from None
    try:
        try:
            await store.read(GLOBAL_OWNER, "")
        except (OSError, RuntimeError) as error:
            msg = f"the server cannot be used: {type(error).__name__}"
            raise CannotOpen(msg) from None
        yield store
    finally:
        await store.aclose()


@asynccontextmanager
async def _file(
    target: str, namespace: str, cipher: Cipher | None, problems: list[Exception], *, makes: bool
) -> AsyncIterator[BrowsableStore]:
    path = Path(target)
    name = shown(target)
    try:
        is_there = path.exists()
        if is_there and not path.is_file():
            msg = f"{name} is no file"
            raise CannotOpen(msg)
    except (OSError, ValueError):
        msg = f"{name} cannot be looked at"
        raise CannotOpen(msg) from None
    if is_there:
        _look(path, name)
    elif not makes:
        msg = f"there is no file {name}"
        raise CannotOpen(msg)
    try:
        store = SqliteStore(
            path, namespace=namespace, max_entries=None, max_bytes=None, max_age=MAX_AGE_S, cipher=cipher
        )
    except ValueError:
        msg = f"{name} cannot be the path of a store"
        raise CannotOpen(msg) from None

    def hear(error: Exception) -> None:
        # That one record is not to be believed is no news to who looks through all: it is not among them.
        if isinstance(error, UnavailableError | DamagedFileError):
            problems.append(error)

    store.report = hear
    try:
        yield store
    finally:
        await store.aclose()


def _look(path: Path, name: str) -> None:
    """Whether the file is a store of ours, and whole as far as can be seen at once; before a `SqliteStore` mends it."""
    try:
        connection = sqlite3.connect(f"file:{quote(str(path.absolute()), errors='surrogateescape')}?mode=ro", uri=True)
        with closing(connection):
            (application_id,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            tables = connection.execute(
                "SELECT sql FROM sqlite_master"
                " WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY rowid"
            ).fetchall()
    except (sqlite3.Error, ValueError) as error:
        if is_damage(error):
            msg = f"{name} is no store, or a damaged one ({kind_of(error)})"
            raise DamagedStore(msg) from None
        msg = f"{name} cannot be read ({kind_of(error)})"
        raise CannotOpen(msg) from None
    if application_id != APPLICATION_ID:
        msg = f"{name} is no store of cachemesh"
        raise CannotOpen(msg)
    if version != VERSION:
        msg = f"{name} is a store of version {version}; this cachemesh reads {VERSION}"
        raise CannotOpen(msg)
    if [sql for (sql,) in tables] != list(TABLES):
        msg = f"{name} is a damaged store: its tables are not as they were made"
        raise DamagedStore(msg)
