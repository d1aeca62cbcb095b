"""Servers that the tests of stores share: started when first asked for, ended with the run, emptied for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.stores.proxy import Proxy
from tests.stores.servers import Cluster, Server
from tests.stores.worlds import OnDisk, OnServer, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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


@pytest.fixture(params=["async", "sync"])
def face_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["sqlite", "redis"])
def world(request: pytest.FixtureRequest, face_name: str, tmp_path: Path) -> Iterator[World]:
    """A file or a server, for caches of both faces."""
    if request.param == "sqlite":
        made: World = OnDisk(face_name, tmp_path / "cache.db")
    else:
        made = OnServer(face_name, request.getfixturevalue("server"))
    yield made
    made.close()


@pytest.fixture
def server_world(face_name: str, server: Server) -> Iterator[OnServer]:
    """A server that is empty, for caches of both faces."""
    made = OnServer(face_name, server)
    yield made
    made.close()
