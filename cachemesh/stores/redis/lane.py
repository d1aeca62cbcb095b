"""The connections of one event loop to one server.

Orders are made by tasks of the lane's own, a batch of them at a time: whoever
waits for one may leave without touching a connection. A batch that is broken
off takes its connection with it: no reply is ever read by the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from redis.exceptions import BusyLoadingError, RedisError, ResponseError

from cachemesh.stores.redis.errors import ServerTooSlowError, ServerUnreachableError, StaleConnectionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio.connection import AbstractConnection

    from cachemesh.stores.redis.orders import Order, Reply
    from cachemesh.stores.redis.source import Address

MOST_CONNECTIONS: Final = 10

MOST_AT_ONCE: Final = 1_000
"""Orders in one batch."""


class Lane:
    """Makes orders. `answered` is called with each order and its reply; it decides whether that was all."""

    def __init__(
        self,
        address: Address,
        connect: Callable[[], AbstractConnection],
        answered: Callable[[Lane, Order, Reply], None],
    ) -> None:
        self.address = address
        self._connect = connect
        self._answered = answered
        self._queue: list[Order] = []
        self._idle: list[AbstractConnection] = []
        self._workers: set[asyncio.Task[None]] = set()

    @property
    def in_use(self) -> int:
        """How many connections are at work."""
        return len(self._workers)

    @property
    def connections(self) -> int:
        return len(self._idle) + len(self._workers)

    def push(self, orders: Sequence[Order]) -> None:
        """Make `orders` as soon as there is a connection for them."""
        self._queue.extend(orders)
        if len(self._workers) < MOST_CONNECTIONS:
            worker = asyncio.get_running_loop().create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def _work(self) -> None:
        while self._queue:
            batch = [order for order in self._queue[:MOST_AT_ONCE] if not order.is_over]
            del self._queue[:MOST_AT_ONCE]
            if batch:
                await self._make(batch)

    async def _make(self, batch: list[Order]) -> None:
        left = deque(batch)
        reply: Reply = ServerUnreachableError("the connection was given up")
        was_idle = bool(self._idle)
        connection = self._idle.pop() if was_idle else self._connect()
        try:
            async with asyncio.timeout_at(max(order.deadline for order in batch)):
                await self._exchange(connection, left)
        except TimeoutError:
            reply = ServerTooSlowError("no answer in time")
        except (RedisError, OSError) as error:
            kind = StaleConnectionError if was_idle else ServerUnreachableError
            reply = kind(f"no connection: {type(error).__name__}")
        finally:
            if left:
                await self._give_up(connection)
                for order in left:
                    self._answered(self, order, reply)
            else:
                self._idle.append(connection)

    async def _exchange(self, connection: AbstractConnection, left: deque[Order]) -> None:
        """Make what is `left`, which what is answered leaves."""
        await connection.send_packed_command([order.packed() for order in left], check_health=False)
        while left:
            for _ in range(left[0].replies):
                try:
                    reply: Reply = await connection.read_response(disconnect_on_error=False)
                except (ResponseError, BusyLoadingError) as error:
                    reply = error
            self._answered(self, left.popleft(), reply)

    async def _give_up(self, connection: AbstractConnection) -> None:
        """Close `connection`, and those that are as old: the server may have closed them all."""
        stale, self._idle = self._idle, []
        for each in (connection, *stale):
            await each.disconnect(nowait=True)

    async def aclose(self) -> None:
        """Let go of all connections. What is under way fails."""
        self._queue.clear()
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect()
