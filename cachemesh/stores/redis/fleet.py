"""Which server a slot is on, as far as one event loop knows."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final, Protocol

from redis.exceptions import RedisError

from cachemesh.stores.redis.errors import ServerUnreachableError
from cachemesh.stores.redis.orders import NO_SLOT, packed
from cachemesh.stores.redis.source import CLUSTER, SENTINEL, Address, Source

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

SOCKET: Final[Address] = ("", 0)
"""In the place of an address, where the server is reached through a file."""

PATIENCE_S: Final = 0.25
"""For one server that is asked about the others."""


class Fleet(Protocol):
    """The servers of a source."""

    @property
    def is_known(self) -> bool:
        """Whether `address` can answer."""

    def address(self, slot: int) -> Address:
        """Where `slot` is."""

    def primaries(self) -> tuple[Address, ...]:
        """All that hold entries."""

    def moved(self, slot: int, address: Address) -> None:
        """A server said that `slot` is at `address` now."""

    def lost(self, address: Address) -> None:
        """A connection to `address` broke."""

    async def learn(self) -> None:
        """Ask who is there. Raises where nobody answers."""

    async def vouches_for(self, address: Address) -> bool:
        """Whether those who know still count the server at `address` in. Raises where nobody knows."""

    def connection(self, address: Address) -> AbstractConnection:
        """A connection to `address`, not yet made."""


def fleet_of(source: Source) -> Fleet:
    if source.kind == CLUSTER:
        return Cluster(source)
    if source.kind == SENTINEL:
        return Sentinels(source)
    return OneServer(source)


class OneServer:
    """It is where it is."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._address = source.addresses[0] if source.addresses else SOCKET
        self.is_known = True

    def address(self, slot: int) -> Address:  # noqa: ARG002 (there is one for all)
        return self._address

    def primaries(self) -> tuple[Address, ...]:
        return (self._address,)

    def moved(self, slot: int, address: Address) -> None:
        """It does not say so: it is in no cluster."""

    def lost(self, address: Address) -> None:
        """It stays where it is."""

    async def learn(self) -> None:
        """There is nothing to learn."""

    async def vouches_for(self, address: Address) -> bool:
        return address == self._address

    def connection(self, address: Address) -> AbstractConnection:
        return self._source.connection(address)


class Sentinels:
    """The primary is who the sentinels say that it is."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._primary: Address | None = None

    @property
    def is_known(self) -> bool:
        return self._primary is not None

    def address(self, slot: int) -> Address:  # noqa: ARG002 (there is one for all)
        assert self._primary is not None
        return self._primary

    def primaries(self) -> tuple[Address, ...]:
        return () if self._primary is None else (self._primary,)

    def moved(self, slot: int, address: Address) -> None:
        """It does not say so: it is in no cluster."""

    def lost(self, address: Address) -> None:
        # A primary that has to step down loses its clients; made anew, a connection to it would read what is old.
        if address == self._primary:
            self._primary = None

    async def learn(self) -> None:
        for sentinel in shuffled(self._source.addresses):
            try:
                reply = await asked(
                    self._source.sentinel_connection(sentinel),
                    (b"SENTINEL", b"get-master-addr-by-name", self._source.service.encode()),
                )
            except (RedisError, OSError):
                continue
            if isinstance(reply, list) and len(reply) == 2:  # noqa: PLR2004 (host and port)
                address = (reply[0].decode(), int(reply[1]))
                if await self._is_primary(address):
                    self._primary = address
                    return
        msg = "no sentinel knows the primary"
        raise ServerUnreachableError(msg)

    async def _is_primary(self, address: Address) -> bool:
        """Whether it says so itself: a sentinel may not have heard of a failover yet."""
        try:
            role = await asked(self._source.connection(address), (b"ROLE",))
        except (RedisError, OSError):
            return False
        return isinstance(role, list) and role[:1] == [b"master"]

    async def vouches_for(self, address: Address) -> bool:
        await self.learn()
        return address == self._primary

    def connection(self, address: Address) -> AbstractConnection:
        return self._source.connection(address)


class Cluster:
    """Slots, and the primary of each."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._slots: dict[int, Address] = {}
        self._nodes: tuple[Address, ...] = source.addresses

    @property
    def is_known(self) -> bool:
        return bool(self._slots)

    def address(self, slot: int) -> Address:
        if slot != NO_SLOT and slot in self._slots:
            return self._slots[slot]
        return random.choice(self.primaries())  # noqa: S311 (any will do)

    def primaries(self) -> tuple[Address, ...]:
        return tuple(dict.fromkeys(self._slots.values()))

    def moved(self, slot: int, address: Address) -> None:
        self._slots[slot] = address

    def lost(self, address: Address) -> None:
        """A node that is no primary any more says so to each command."""

    async def learn(self) -> None:
        for node in (*shuffled(self._nodes), *self._source.addresses):
            try:
                reply = await asked(self._source.connection(node), (b"CLUSTER", b"SLOTS"))
            except (RedisError, OSError):
                continue
            if isinstance(reply, list) and reply:
                self._take(reply, node)
                return
        msg = "no node of the cluster answers"
        raise ServerUnreachableError(msg)

    def _take(self, ranges: list[list[object]], told_by: Address) -> None:
        slots: dict[int, Address] = {}
        nodes: dict[Address, None] = {}
        for first, last, *servers in ranges:
            addresses = [
                (server[0].decode() if server[0] else told_by[0], int(server[1]))
                for server in servers
                if isinstance(server, list)
            ]
            nodes.update(dict.fromkeys(addresses))
            assert isinstance(first, int)
            assert isinstance(last, int)
            slots.update(dict.fromkeys(range(first, last + 1), addresses[0]))
        self._slots = slots
        self._nodes = tuple(nodes)

    async def vouches_for(self, address: Address) -> bool:
        reply = await asked(self._source.connection(address), (b"CLUSTER", b"INFO"))
        return isinstance(reply, bytes) and b"cluster_state:ok" in reply

    def connection(self, address: Address) -> AbstractConnection:
        return self._source.connection(address)


async def asked(connection: AbstractConnection, command: tuple[bytes, ...]) -> object:
    """What a server answers on a connection of its own."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            await connection.send_packed_command(packed(command), check_health=False)
            return await connection.read_response()
    finally:
        await connection.disconnect(nowait=True)


def shuffled(addresses: tuple[Address, ...]) -> list[Address]:
    return random.sample(addresses, len(addresses))
