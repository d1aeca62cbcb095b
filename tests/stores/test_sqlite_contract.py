"""`SqliteStore` keeps the contract of stores, and that of stores that several processes share."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from cachemesh.shell.ports import DirectStore, SharedStore, Store
from cachemesh.stores.sqlite import SqliteStore
from cachemesh.testing import SharedStoreContract

if TYPE_CHECKING:
    from pathlib import Path


class TestSqliteStore(SharedStoreContract):
    numbers = itertools.count()

    @pytest.fixture(autouse=True)
    def _in(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make_store(self) -> Store:
        return SqliteStore(self.folder / f"{next(self.numbers)}.db")

    def make_peer(self, store: SharedStore) -> SharedStore:
        assert isinstance(store, SqliteStore)
        return SqliteStore(store.path)

    async def close_store(self, store: Store) -> None:
        assert isinstance(store, SqliteStore)
        await store.aclose()


def test_it_can_be_read_without_waiting(tmp_path: Path) -> None:
    assert isinstance(SqliteStore(tmp_path / "x.db"), DirectStore)
