"""Servers that the tests of stores share: started when first asked for, ended with the run, emptied for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.stores.proxy import Proxy
from tests.stores.servers import Cluster, Server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def one_server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def server(one_server: Server) -> Server:
    """A server that runs and is empty."""
    if not one_server.is_running:
        one_server.start()
    one_server.empty()
    return one_server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """A bad network in front of `server`."""
    with Proxy(server.host, server.port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def one_cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(one_cluster: Cluster) -> Cluster:
    """A cluster that runs and is empty. Who kills its nodes takes one of their own."""
    one_cluster.empty()
    return one_cluster
