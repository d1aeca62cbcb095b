"""The connections of one event loop to one server.

Whoever waits for an order may leave without touching a connection.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from cachemesh.stores.redis.errors import ServerUnreachableError
from cachemesh.stores.redis.wire import Wire, writer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio.connection import AbstractConnection

    from cachemesh.stores.redis.orders import Order, Reply
    from cachemesh.stores.redis.source import Address

MOST_CONNECTIONS: Final = 10

MOST_AT_ONCE: Final = 1_000
"""Orders in one batch."""


class Lane:
    """Makes orders. `on_answer` is called with each order and its reply; it decides whether that was all."""

    def __init__(
        self,
        address: Address,
        connect: Callable[[], AbstractConnection],
        on_answer: Callable[[Lane, Order, Reply], None],
        on_lost: Callable[[Address], None],
    ) -> None:
        self.address = address
        self._connect = connect
        self._on_answer = on_answer
        self._on_lost = on_lost
        self._queue: list[Order] = []
        self._idle: list[Wire] = []
        self._busy: set[Wire] = set()
        self._opening: set[asyncio.Task[None]] = set()

    @property
    def in_use(self) -> int:
        """How many connections are at work."""
        return len(self._busy)

    @property
    def connections(self) -> int:
        return len(self._idle) + len(self._busy) + len(self._opening)

    def push(self, orders: Sequence[Order]) -> None:
        """Make `orders` as soon as there is a connection for them."""
        self._queue.extend(orders)
        self._pump()

    def _pump(self) -> None:
        while self._queue and self._idle:
            wire = self._idle.pop()
            if wire.is_closed:
                continue
            batch = [order for order in self._queue[:MOST_AT_ONCE] if not order.is_over]
            del self._queue[:MOST_AT_ONCE]
            if batch:
                self._busy.add(wire)
                wire.send(batch)
            else:
                self._idle.append(wire)
        if self._queue and self.connections < MOST_CONNECTIONS:
            opening = asyncio.get_running_loop().create_task(self._open())
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        try:
            async with asyncio.timeout_at(max((order.deadline for order in self._queue), default=None)):
                wire = Wire(self, await writer_of(self._connect()))
        except TimeoutError:
            self._opened()  # Whose time was up has just been told so.
        except Exception as error:  # noqa: BLE001 (a provider of passwords may raise anything)
            queue, self._queue = self._queue, []
            self._opened()
            for order in queue:
                self.answered(order, ServerUnreachableError(f"no connection: {type(error).__name__}"))
        else:
            self._idle.append(wire)
            self._opened()

    def _opened(self) -> None:
        """One attempt to connect is over. There may be work for it, or for another attempt."""
        task = asyncio.current_task()
        assert task is not None
        self._opening.discard(task)
        self._queue = [order for order in self._queue if not order.is_over]
        self._pump()

    # What wires report

    def answered(self, order: Order, reply: Reply) -> None:
        self._on_answer(self, order, reply)

    def freed(self, wire: Wire) -> None:
        """All that was sent over `wire` is answered."""
        self._busy.discard(wire)
        self._idle.append(wire)
        if self._queue:
            self._pump()

    def lost(self, wire: Wire) -> None:
        self._on_lost(self.address)
        self._busy.discard(wire)
        if wire in self._idle:
            self._idle.remove(wire)
        if self._queue:
            self._pump()

    async def aclose(self) -> None:
        """Let go of all connections. What is under way fails."""
        queue, self._queue = self._queue, []
        for order in queue:
            order.settle(ServerUnreachableError("the store was closed"))
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        for wire in (*self._idle, *self._busy):
            wire.close()
        # The transports close in the next turn.
        await asyncio.sleep(0)
