"""`SqliteStore` keeps the contract of stores, and that of stores that several processes share."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from cachemesh.shell.ports import Change, DirectStore, SharedStore, Store
from cachemesh.stores.sqlite import SqliteStore
from cachemesh.testing import SharedStoreContract, StoreContract
from cachemesh.testing.store_contract import EncodingStore
from tests.stores.sizes import FEW_TEXTS, tries

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.ports import StoredEntry


class OnFiles(StoreContract):
    """Each store has a file of its own."""

    examples = tries(40)
    keeps_bytes = True
    numbers = itertools.count()

    @pytest.fixture(autouse=True)
    def _in(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make_store(self) -> Store:
        return SqliteStore(self.folder / f"{next(self.numbers)}.db")

    async def close_store(self, store: Store) -> None:
        assert isinstance(store, SqliteStore)
        await store.aclose()


class TestSqliteStore(OnFiles, SharedStoreContract):
    def make_peer(self, store: SharedStore) -> SharedStore:
        assert isinstance(store, SqliteStore)
        return SqliteStore(store.path)


class TestTinyQueue(TestSqliteStore):
    """Who writes waits for room all the time."""

    examples = tries(10)
    texts = FEW_TEXTS

    def make_store(self) -> Store:
        return SqliteStore(self.folder / f"{next(self.numbers)}.db", queue_size=1)


class TestBounds(OnFiles):
    """Bounds that are never reached change nothing."""

    examples = tries(10)
    texts = FEW_TEXTS

    def make_store(self) -> Store:
        return SqliteStore(
            self.folder / f"{next(self.numbers)}.db", max_entries=1_000, max_bytes=2**28, max_age=1e6, lease=60.0
        )


class TestOpenedAnew(OnFiles):
    """Each call is made by a store of its own, on the same file."""

    examples = tries(6)
    steps = 20
    texts = FEW_TEXTS

    def spoken_to(self, store: Store) -> Store:
        assert isinstance(store, SqliteStore)
        return EncodingStore(OpenedAnew(store))


class TestDirectly(OnFiles):
    """Without the event loop: what `SyncCache` does."""

    examples = tries(20)

    def spoken_to(self, store: Store) -> Store:
        assert isinstance(store, SqliteStore)
        return EncodingStore(Direct(store))


class OpenedAnew:
    """As many at once as there might be processes."""

    def __init__(self, store: SqliteStore) -> None:
        self.path = store.path
        self.turn = asyncio.Semaphore(8)

    async def read(self, owner: Owner, key: str) -> StoredEntry | None:
        async with self.turn, aclosing(SqliteStore(self.path)) as store:
            return await store.read(owner, key)

    async def write(self, entry: StoredEntry) -> None:
        async with self.turn, aclosing(SqliteStore(self.path)) as store:
            await store.write(entry)

    async def delete(self, owner: Owner, key: str) -> None:
        async with self.turn, aclosing(SqliteStore(self.path)) as store:
            await store.delete(owner, key)

    async def clear_partition(self, owner: Owner) -> None:
        async with self.turn, aclosing(SqliteStore(self.path)) as store:
            await store.clear_partition(owner)

    async def clear(self) -> None:
        async with self.turn, aclosing(SqliteStore(self.path)) as store:
            await store.clear()

    async def keys(self, owner: Owner) -> Collection[str]:
        async with self.turn, aclosing(SqliteStore(self.path)) as store:
            return await store.keys(owner)


class Direct:
    def __init__(self, store: SqliteStore) -> None:
        self.store = store

    async def read(self, owner: Owner, key: str) -> StoredEntry | None:
        return self.store.read_now(owner, key)

    async def write(self, entry: StoredEntry) -> None:
        assert self.store.enqueue(Change("write", entry=entry))

    async def delete(self, owner: Owner, key: str) -> None:
        assert self.store.enqueue(Change("delete", owner, key))

    async def clear_partition(self, owner: Owner) -> None:
        assert self.store.enqueue(Change("clear_partition", owner))

    async def clear(self) -> None:
        assert self.store.enqueue(Change("clear"))

    async def keys(self, owner: Owner) -> Collection[str]:
        return await self.store.keys(owner)


def test_it_can_be_read_without_waiting(tmp_path: Path) -> None:
    assert isinstance(SqliteStore(tmp_path / "x.db"), DirectStore)
