"""Where the server is, and how it is spoken to: of a URL, or of a client that somebody has made already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import redis
import redis.asyncio
from msgspec import Struct
from redis import asyncio as aio
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)

Address: TypeAlias = tuple[str, int]

Client: TypeAlias = redis.Redis | aio.Redis | redis.RedisCluster | aio.RedisCluster
"""What settings are taken from; `Sentinel.master_for` makes one too. It is not used itself: it is its maker's."""

SINGLE: Final = "single"
CLUSTER: Final = "cluster"
SENTINEL: Final = "sentinel"

SCHEMES: Final = {
    "redis": ("redis", SINGLE),
    "rediss": ("rediss", SINGLE),
    "valkey": ("redis", SINGLE),
    "valkeys": ("rediss", SINGLE),
    "unix": ("unix", SINGLE),
    "redis+cluster": ("redis", CLUSTER),
    "rediss+cluster": ("rediss", CLUSTER),
    "valkey+cluster": ("redis", CLUSTER),
    "valkeys+cluster": ("rediss", CLUSTER),
    "redis+sentinel": ("redis", SENTINEL),
    "rediss+sentinel": ("rediss", SENTINEL),
    "valkey+sentinel": ("redis", SENTINEL),
    "valkeys+sentinel": ("rediss", SENTINEL),
}

PORT: Final = 6379
SENTINEL_PORT: Final = 26379

TAKEN: Final = frozenset(
    {"db", "username", "password", "credential_provider", "path", "client_name", "socket_keepalive"}
)
"""Settings of a connection that say who and where. The others are the store's: it has time limits of its own."""


class Source(Struct, frozen=True):
    """Settings, checked. `settings` may hold a password: they are shown nowhere."""

    kind: str
    addresses: tuple[Address, ...]
    is_encrypted: bool
    settings: Mapping[str, Any]
    service: str = ""
    sentinel_settings: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        return f"{self.kind} at {', '.join(map(shown, self.addresses)) or 'a socket'}"

    def connection(self, address: Address) -> AbstractConnection:
        """A connection to `address`, not yet made."""
        return self._connection(address, self.settings)

    def sentinel_connection(self, address: Address) -> AbstractConnection:
        """A connection to the sentinel at `address`, not yet made."""
        return self._connection(address, self.sentinel_settings)

    def _connection(self, address: Address, settings: Mapping[str, Any]) -> AbstractConnection:
        kwargs: dict[str, Any] = {
            **settings,
            # The time limit is that of the whole call; no time is lost with introductions.
            "socket_timeout": None,
            "socket_connect_timeout": None,
            "protocol": 2,
            "driver_info": None,
        }
        if "path" in kwargs:
            return UnixDomainSocketConnection(**kwargs)
        kwargs["host"], kwargs["port"] = address
        return (SSLConnection if self.is_encrypted else Connection)(**kwargs)


def shown(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def source_of(url_or_client: object) -> Source:
    """The settings in a URL or a client. ValueError or TypeError where there are none; the text has none of it."""
    if isinstance(url_or_client, str):
        try:
            return _of_url(url_or_client)
        except ValueError:
            msg = f"no URL of a server; known are {', '.join(SCHEMES)}"
        raise ValueError(msg)  # Without its cause, which quotes.
    if isinstance(url_or_client, (redis.RedisCluster, aio.RedisCluster)):
        return _of_cluster(url_or_client)
    if isinstance(url_or_client, (redis.Redis, aio.Redis)):
        return _of_client(url_or_client)
    msg = f"neither a URL nor a client of redis-py, but {type(url_or_client).__name__}"
    raise TypeError(msg)


def _of_url(url: str) -> Source:
    parts = urlsplit(url)
    scheme, kind = SCHEMES.get(parts.scheme, ("", ""))
    if not kind:
        msg = "an unknown scheme"
        raise ValueError(msg)
    user, at, hosts = parts.netloc.rpartition("@")
    path = parts.path
    service = ""
    if kind == SENTINEL:
        _, service, database, *_ = f"{path}//".split("/")
        path = f"/{database}"
        if not service:
            msg = "no name of a service"
            raise ValueError(msg)
    query = f"?{parts.query}" if parts.query else ""
    if scheme == "unix":
        settings: dict[str, Any] = dict(parse_url(url))
        if not settings.get("path"):
            msg = "no path"
            raise ValueError(msg)
        return Source(kind, (), is_encrypted=False, settings=_taken(settings))
    port = SENTINEL_PORT if kind == SENTINEL else PORT
    addresses = tuple(_address(each, port) for each in hosts.split(","))
    if kind == SINGLE and len(addresses) > 1:
        msg = "several servers"
        raise ValueError(msg)
    settings = dict(parse_url(f"{scheme}://{user}{at}host{path}{query}"))
    if path.strip("/") and not path.strip("/").isdigit():
        msg = "no number of a database"
        raise ValueError(msg)
    return Source(kind, addresses, scheme == "rediss", _taken(settings), service)


def _address(text: str, port: int) -> Address:
    parts = urlsplit(f"//{text}")
    if parts.port == 0:
        msg = "no port"
        raise ValueError(msg)
    return parts.hostname or "localhost", parts.port or port


def _of_client(client: redis.Redis | aio.Redis) -> Source:
    pool = client.connection_pool
    settings = dict(pool.connection_kwargs)
    is_encrypted = "SSL" in pool.connection_class.__name__
    if isinstance(pool, (redis.sentinel.SentinelConnectionPool, aio.sentinel.SentinelConnectionPool)):
        sentinels = pool.sentinel_manager.sentinels
        kwargs = [each.connection_pool.connection_kwargs for each in sentinels]
        addresses = tuple((each["host"], int(each["port"])) for each in kwargs)
        return Source(
            SENTINEL,
            addresses,
            is_encrypted,
            _taken(settings),
            str(pool.service_name),
            _taken(kwargs[0]) if kwargs else {},
        )
    if "path" in settings:
        return Source(SINGLE, (), is_encrypted=False, settings=_taken(settings))
    address = (str(settings.get("host", "localhost")), int(settings.get("port", PORT)))
    return Source(SINGLE, (address,), is_encrypted, _taken(settings))


def _of_cluster(client: redis.RedisCluster | aio.RedisCluster) -> Source:
    nodes = client.nodes_manager.startup_nodes.values()
    settings: dict[str, Any] = dict(
        client.nodes_manager.connection_kwargs if isinstance(client, redis.RedisCluster) else client.connection_kwargs
    )
    addresses = tuple((str(node.host), int(node.port)) for node in nodes)
    is_encrypted = bool(settings.get("ssl")) or "SSL" in getattr(settings.get("connection_class"), "__name__", "")
    return Source(CLUSTER, addresses, is_encrypted, _taken(settings))


def _taken(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name in TAKEN or name.startswith("ssl_")}
