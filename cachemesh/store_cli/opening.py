"""Opening what `PATH-or-URL` names. Looking makes no store, and moves no damaged file away.

It has no key of a store that is encrypted: see `NoKey`. What a `SqliteStore`
does to a file that it has opened (the lock beside it, the sweep of what is
over, the removal of a damaged record that was read) it does here as well.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import click

from cachemesh.core.scopes import GLOBAL_OWNER
from cachemesh.store_cli.shown import shown
from cachemesh.stores.envelope import NoKey
from cachemesh.stores.report import Finding, Level
from cachemesh.stores.sqlite import SqliteStore
from cachemesh.stores.sqlite.errors import DamagedFileError, SqliteStoreError, UnavailableError, is_damage
from cachemesh.stores.sqlite.errors import shown as kind_of
from cachemesh.stores.sqlite.schema import APPLICATION_ID, TABLES, VERSION, meta_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cachemesh.stores.report import BrowsableStore

TIMEOUT_S: Final = 5.0
MAX_AGE_S: Final = 30 * 86_400.0
"""What is imported without windows is kept for so long, as by the stores themselves."""

LONGEST_PATH: Final = 500

TROUBLE: Final = (OSError, RuntimeError, SqliteStoreError, sqlite3.Error)
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
    target: str, namespace: str, *, makes: bool = False, examines: bool = False
) -> AsyncIterator[BrowsableStore]:
    """The store at `target`, closed in the end. `CannotOpen` where it cannot be used.

    `makes`: a file that is not there is made. `examines`: the whole file is
    looked at first, so that damage is found before a `SqliteStore` moves it away.
    """
    if "://" in target:
        async with _server(target, namespace) as store:
            yield store
    else:
        problems: list[Exception] = []
        async with _file(target, namespace, problems, makes=makes, examines=examines) as file:
            yield file
        if problems:
            msg = f"{shown(target, LONGEST_PATH)}: {problems[0]}"
            raise CannotOpen(msg)


@asynccontextmanager
async def _server(url: str, namespace: str) -> AsyncIterator[BrowsableStore]:
    try:
        from cachemesh.stores.redis import RedisStore  # noqa: PLC0415 (an extra of its own)
    except ModuleNotFoundError:
        msg = "redis not found; run: pip install 'cachemesh[redis]'"
        raise CannotOpen(msg) from None
    try:
        store = RedisStore(url, namespace=namespace, timeout=TIMEOUT_S, max_age=MAX_AGE_S, cipher=NoKey())
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
    target: str, namespace: str, problems: list[Exception], *, makes: bool, examines: bool
) -> AsyncIterator[BrowsableStore]:
    path = Path(target)
    name = shown(target, LONGEST_PATH)
    if _is_file(path, name):
        _look(path, name, examines=examines)
    elif not makes:
        msg = f"there is no file {name}"
        raise CannotOpen(msg)
    try:
        store = SqliteStore(
            path, namespace=namespace, max_entries=None, max_bytes=None, max_age=MAX_AGE_S, cipher=NoKey()
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


def _is_file(path: Path, name: str) -> bool:
    """False where nothing is."""
    try:
        if path.is_file():
            return True
        is_there = path.exists()
    except (OSError, ValueError):
        msg = f"{name} cannot be looked at"
        raise CannotOpen(msg) from None
    if is_there:
        msg = f"{name} is no file"
        raise CannotOpen(msg)
    return False


def _look(path: Path, name: str, *, examines: bool) -> None:
    """Whether the file is a store of ours, and whole as far as can be seen at once; before a `SqliteStore` mends it.

    Without a journal the file is all there is: then SQLite is told that nobody
    changes it meanwhile, and puts nothing beside it.
    """
    has_journal = any(path.with_name(path.name + suffix).exists() for suffix in ("-wal", "-journal"))
    mode = "mode=ro" if has_journal else "mode=ro&immutable=1"
    try:
        uri = f"file:{quote(os.fsencode(path.absolute()))}?{mode}"
        with closing(sqlite3.connect(uri, uri=True, timeout=TIMEOUT_S)) as connection:
            (application_id,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if application_id != APPLICATION_ID:
                msg = f"{name} is no store of cachemesh"
                raise CannotOpen(msg)
            if version != VERSION:
                msg = f"{name} is a store of version {version}; this cachemesh reads {VERSION}"
                raise CannotOpen(msg)
            tables = connection.execute(
                "SELECT sql FROM sqlite_master"
                " WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY rowid"
            ).fetchall()
            if [sql for (sql,) in tables] != list(TABLES):
                msg = f"{name} is a damaged store: its tables are not as they were made"
                raise DamagedStore(msg)
            meta_of(connection.execute("SELECT last_mark, state FROM meta WHERE id = 1").fetchone())
            if examines and connection.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)]:
                msg = f"{name} is a damaged store: SQLite finds it so"
                raise DamagedStore(msg)
    except (sqlite3.Error, SqliteStoreError, ValueError) as error:
        if is_damage(error):
            msg = f"{name} is no store, or a damaged one ({kind_of(error)})"
            raise DamagedStore(msg) from None
        msg = f"{name} cannot be read ({kind_of(error)})"
        raise CannotOpen(msg) from None
