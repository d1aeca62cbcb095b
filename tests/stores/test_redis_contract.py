"""`RedisStore` keeps the contract of stores, on one server and on a cluster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from cachemesh.shell.ports import Encoded, Store, StoredEntry
from cachemesh.stores.redis import RedisStore
from cachemesh.testing import StoreContract
from tests.stores.sizes import FEW_TEXTS, tries

if TYPE_CHECKING:
    from collections.abc import Collection

    from cachemesh.core.scopes import Owner
    from tests.stores.servers import Cluster, Server


class EncodingStore:
    """Encodes values as the cache does, so that the contract may speak of values."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store

    async def read(self, owner: Owner, key: str) -> StoredEntry | None:
        entry = await self.store.read(owner, key)
        return entry and structs.replace(entry, value=json.loads(entry.value.payload), generation=0)

    async def write(self, entry: StoredEntry) -> None:
        await self.store.write(structs.replace(entry, value=Encoded(json.dumps(entry.value).encode())))

    async def delete(self, owner: Owner, key: str) -> None:
        await self.store.delete(owner, key)

    async def clear_partition(self, owner: Owner) -> None:
        await self.store.clear_partition(owner)

    async def clear(self) -> None:
        await self.store.clear()

    async def keys(self, owner: Owner) -> Collection[str]:
        return await self.store.keys(owner)


class TestOneServer(StoreContract):
    examples = tries(40)

    @pytest.fixture(autouse=True)
    def _on(self, server: Server) -> None:
        self.server = server

    def make_store(self) -> Store:
        self.server.empty()
        return EncodingStore(RedisStore(self.server.url, timeout=5.0))

    async def close_store(self, store: Store) -> None:
        assert isinstance(store, EncodingStore)
        await store.store.aclose()


class TestCluster(StoreContract):
    examples = tries(10)
    texts = FEW_TEXTS

    @pytest.fixture(autouse=True)
    def _on(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def make_store(self) -> Store:
        self.cluster.empty()
        return EncodingStore(RedisStore(self.cluster.url, timeout=5.0))

    async def close_store(self, store: Store) -> None:
        assert isinstance(store, EncodingStore)
        await store.store.aclose()
