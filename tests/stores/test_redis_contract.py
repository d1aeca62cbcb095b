"""`RedisStore` keeps the contract of stores, on one server and on a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cachemesh.stores.redis import RedisStore
from cachemesh.testing import StoreContract
from cachemesh.testing.store_contract import EncodingStore
from tests.stores.sizes import FEW_TEXTS, tries

if TYPE_CHECKING:
    from cachemesh.shell.ports import Store
    from tests.stores.servers import Cluster, Server


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
        assert isinstance(store.store, RedisStore)
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
        assert isinstance(store.store, RedisStore)
        await store.store.aclose()
