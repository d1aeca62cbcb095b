"""What the tests of `SqliteStore` share: entries, event loops, and a SQLite in which things go wrong."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec.structs import replace

from cachemesh.core.scopes import GLOBAL_OWNER, CacheScope, Owner
from cachemesh.shell.ports import Encoded, StoredEntry
from cachemesh.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

T = TypeVar("T")

ALICE: Final[Owner] = (CacheScope.USER, "alice")
BOB: Final[Owner] = (CacheScope.USER, "bob")
NOW: Final = 1_767_225_600.0


def entry(key: str = "k", value: object = 1, *, owner: Owner = GLOBAL_OWNER, **fields: Any) -> StoredEntry:
    made = StoredEntry(owner, key, Encoded(repr(value).encode()), False, NOW, None, None)  # noqa: FBT003 (a success)
    return replace(made, **fields)


def using(path: Path | str, act: Callable[[SqliteStore], Awaitable[T]], **settings: Any) -> T:
    """What `act` answers, with a store of its own in an event loop of its own."""

    async def acting() -> T:
        store = SqliteStore(path, **settings)
        try:
            return await act(store)
        finally:
            await store.aclose()

    return asyncio.run(acting())


def payload(found: StoredEntry | None) -> bytes | None:
    if found is None:
        return None
    assert isinstance(found.value, Encoded)
    return found.value.payload


async def value(store: SqliteStore, key: str = "k", owner: Owner = GLOBAL_OWNER) -> bytes | None:
    return payload(await store.read(owner, key))


async def until(condition: Callable[[], bool], wait_s: float = 5.0) -> float:
    """Wait until `condition` holds; for how long it was."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < wait_s, "it does not come to that"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


class Trouble:
    """`connect` for a store. `raises(statement)`: what a statement is to raise; `answers`, what in SQLite's place."""

    def __init__(self) -> None:
        self.raises: Callable[[str], Exception | None] = lambda statement: None  # noqa: ARG005 (nothing goes wrong)
        self.answers: Callable[[str], Any] = lambda statement: None  # noqa: ARG005 (SQLite answers)
        self.stall_s = 0.0
        self.calls = 0

    def connect(self, database: str, **settings: Any) -> sqlite3.Connection:
        trouble = self

        class Troubled(sqlite3.Connection):
            def execute(self, *arguments: Any) -> sqlite3.Cursor:
                trouble.meet(arguments[0])
                answer: sqlite3.Cursor | None = trouble.answers(arguments[0])
                return super().execute(*arguments) if answer is None else answer

            def executemany(self, *arguments: Any) -> sqlite3.Cursor:
                trouble.meet(arguments[0])
                return super().executemany(*arguments)

        trouble.meet("CONNECT")
        return sqlite3.connect(database, factory=Troubled, **settings)

    def meet(self, statement: str) -> None:
        self.calls += 1
        if self.stall_s:
            time.sleep(self.stall_s)
        error = self.raises(statement)
        if error is not None:
            raise error


def failure(name: str) -> sqlite3.OperationalError:
    """An error as SQLite raises it."""
    error = sqlite3.OperationalError(name)
    error.sqlite_errorcode = getattr(sqlite3, name)
    error.sqlite_errorname = name
    return error


WRITING: Final = ("BEGIN IMMEDIATE", "INSERT", "DELETE", "UPDATE")


def writing(statement: str) -> bool:
    return statement.startswith(WRITING)
