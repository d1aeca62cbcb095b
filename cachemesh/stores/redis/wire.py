"""One connection: what is sent, and which reply belongs to which order.

redis-py makes the connection (TLS, passwords, databases) and hands it over. A
wire carries one batch at a time; one that is broken off takes its wire with it,
so no reply is ever read by the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

from cachemesh.stores.redis.errors import ServerUnreachableError, StaleConnectionError
from cachemesh.stores.redis.replies import ProtocolError, Reader

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

    from cachemesh.stores.redis.lane import Lane
    from cachemesh.stores.redis.orders import Order


class Wire(asyncio.Protocol):
    """Belongs to `lane`, which hears of each reply, and of the end of a batch."""

    def __init__(self, lane: Lane, writer: asyncio.StreamWriter) -> None:
        self._lane = lane
        self._writer = writer
        self._transport = cast("asyncio.Transport", writer.transport)
        self._reader = Reader()
        self._orders: deque[Order] = deque()
        self._is_used = False
        self._skips = 0
        self._transport.set_protocol(self)

    @property
    def is_closed(self) -> bool:
        return self._transport.is_closing()

    def send(self, orders: list[Order]) -> None:
        """Send `orders`, the replies to which come in the same order."""
        for order in orders:
            order.wire = self
        self._orders.extend(orders)
        self._transport.write(b"".join([order.packed() for order in orders]))

    def data_received(self, data: bytes) -> None:
        try:
            replies = self._reader.feed(data)
        except ProtocolError:
            self.close()
            return
        orders = self._orders
        for reply in replies:
            if not orders:
                # Nobody has asked: from here on no reply is known to be the right one.
                self.close()
                return
            order = orders[0]
            if order.skips:
                order.skips -= 1
                continue
            orders.popleft()
            order.wire = None
            self._lane.answered(order, reply)
        if replies and not orders and not self.is_closed:
            self._is_used = True
            self._lane.freed(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (why it was lost is the same to all)
        self._lane.lost(self)
        orders, self._orders = self._orders, deque()
        kind = StaleConnectionError if self._is_used else ServerUnreachableError
        for order in orders:
            order.wire = None
            self._lane.answered(order, kind("the connection broke"))

    def eof_received(self) -> bool:
        return False

    def close(self) -> None:
        """Let go of it at once."""
        self._transport.abort()


async def writer_of(connection: AbstractConnection) -> asyncio.StreamWriter:
    """`connection`, made and taken over: from now on its transport is the caller's to close."""
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
        writer = connection._writer  # noqa: SLF001 (there is no other way to the transport)
        assert writer is not None
        connection._writer = None  # noqa: SLF001 (it is ours now)
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return writer
