"""What one event loop asks of the servers within one turn goes to each of them in one message.

All reads of a turn are one MGET; in a cluster, a pipeline a node. Each order has
a time limit that begins when it is given, whatever it then waits for: a
connection, the map of a cluster, an answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from redis.crc import key_slot

from cachemesh.stores.redis.errors import (
    ServerRefusedError,
    ServerTooSlowError,
    ServerUnreachableError,
    StaleConnectionError,
    refused,
)
from cachemesh.stores.redis.fleet import fleet_of
from cachemesh.stores.redis.lane import Lane
from cachemesh.stores.redis.orders import NO_SLOT, Order, Reply
from cachemesh.stores.redis.replies import ServerError
from cachemesh.stores.redis.source import CLUSTER, Address, Source

if TYPE_CHECKING:
    from cachemesh.stores.redis.scripts import Script

MOST_ATTEMPTS: Final = 5
"""With a server that is there; one that refuses connections is not asked again unless another takes its place."""

PAUSE_S: Final = 0.02
"""Before the next attempt, where the server asks for patience."""

MGET_SIZE: Final = 500
"""Keys in one MGET: others get their turn in between."""


READS: Final = frozenset({b"GET", b"MGET"})

PASSING: Final = frozenset({"LOADING", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "TRYAGAIN"})
"""Errors of servers that are starting, moving slots or losing their primary."""


class Batcher:
    """Makes orders for one event loop."""

    def __init__(self, source: Source, head: bytes, timeout_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._head = head
        self._timeout_s = timeout_s
        self._is_cluster = source.kind == CLUSTER
        self._fleet = fleet_of(source)
        self._lanes: dict[Address, Lane] = {}
        self._reads: list[tuple[Sequence[bytes], asyncio.Future[Found]]] = []
        self._orders: list[Order] = []
        self._is_due = False
        self._is_closed = False
        self._learning: asyncio.Task[None] | None = None
        self._turns: deque[list[Order]] = deque()
        """The orders that may not be over, by turn: all have the same time limit, so the first turn ends first."""
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # What is asked

    async def read(self, keys: Sequence[bytes]) -> Found:
        """The head, and what is under `keys`."""
        future: asyncio.Future[Found] = self._loop.create_future()
        self._reads.append((keys, future))
        self._be_due()
        return await future

    def run(self, script: Script, keys: Sequence[bytes], *args: bytes) -> asyncio.Future[Reply]:
        """What `script` answers."""
        return self._ordered((b"EVALSHA", script.digest, script.keys, *keys, *args), self.slot(keys[0]), script)

    def ask(self, *args: bytes, key: bytes) -> asyncio.Future[Reply]:
        """What the server of `key` answers to a command."""
        return self._ordered(args, self.slot(key), None)

    async def ask_at(self, address: Address, *args: bytes) -> Reply:
        """What the server at `address` answers to a command that names no key."""
        if self._is_closed:
            msg = "the store was closed"
            raise ServerUnreachableError(msg)
        future: asyncio.Future[Reply] = self._loop.create_future()
        order = Order(args, NO_SLOT, self._deadline(), settles(future))
        self._limit([order])
        self._lane(address).push([order])
        return await future

    async def primaries(self) -> tuple[Address, ...]:
        """The servers that hold entries."""
        if not self._fleet.is_known:
            async with asyncio.timeout(self._timeout_s):
                await self._fleet.learn()
        return self._fleet.primaries()

    def _ordered(self, args: tuple[bytes, ...], slot: int, script: Script | None) -> asyncio.Future[Reply]:
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._orders.append(Order(args, slot, self._deadline(), settles(future), script))
        self._be_due()
        return future

    def slot(self, key: bytes) -> int:
        return key_slot(key) if self._is_cluster else 0

    def _deadline(self) -> float:
        return self._loop.time() + self._timeout_s

    # At the end of the turn

    def _be_due(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._is_due = False
        orders, self._orders = self._orders, []
        reads, self._reads = self._reads, []
        reads = [read for read in reads if not read[1].done()]
        if reads:
            orders += self._orders_of(reads)
        if orders:
            self._limit(orders)
            self._send(orders)

    def _orders_of(self, reads: list[tuple[Sequence[bytes], asyncio.Future[Found]]]) -> list[Order]:
        keys = list(dict.fromkeys([self._head, *(key for keys, _ in reads for key in keys)]))
        bundle = Bundle(reads, self._head, len(keys))
        deadline = self._deadline()
        if self._is_cluster:
            return [Order((b"GET", key), key_slot(key), deadline, bundle.part((key,), is_many=False)) for key in keys]
        parts = [tuple(keys[at : at + MGET_SIZE]) for at in range(0, len(keys), MGET_SIZE)]
        return [Order((b"MGET", *part), 0, deadline, bundle.part(part, is_many=True)) for part in parts]

    def _limit(self, orders: list[Order]) -> None:
        turns = self._turns
        while turns and all(order.is_over for order in turns[0]):
            turns.popleft()
        turns.append(orders)
        if self._timer is None:
            self._timer = self._loop.call_at(orders[-1].deadline, self._expire)

    def _expire(self) -> None:
        """The time of some orders is up."""
        now = self._loop.time()
        while self._turns and self._turns[0][-1].deadline <= now:
            for order in self._turns.popleft():
                if not order.is_over:
                    wire = order.wire
                    order.settle(ServerTooSlowError("no answer in time"))
                    if wire is not None:
                        wire.close()
        self._timer = self._loop.call_at(self._turns[0][-1].deadline, self._expire) if self._turns else None

    # To the servers

    def _send(self, orders: Sequence[Order]) -> None:
        if self._is_closed:
            for order in orders:
                order.settle(ServerUnreachableError("the store was closed"))
            return
        if not self._fleet.is_known:
            self._learn(orders)
            return
        by_address: dict[Address, list[Order]] = {}
        for order in orders:
            address = order.asks or self._fleet.address(order.slot)
            by_address.setdefault(address, []).append(order)
        for address, group in by_address.items():
            self._lane(address).push(group)

    def _lane(self, address: Address) -> Lane:
        lane = self._lanes.get(address)
        if lane is None:
            lane = self._lanes[address] = Lane(
                address, lambda: self._fleet.connection(address), self._answered, self._fleet.lost
            )
        return lane

    def _learn(self, orders: Sequence[Order]) -> None:
        """Ask who is there, and then make `orders`."""
        self._later(self._send_learned(orders))

    async def _send_learned(self, orders: Sequence[Order]) -> None:
        failure = await self._learned()
        orders = [order for order in orders if not order.is_over]
        if self._fleet.is_known:
            self._send(orders)
            return
        for order in orders:
            order.settle(failure)

    async def _learned(self) -> Reply:
        """Ask who is there; several who want to know it at once ask once. None, or why nobody knows."""
        if self._learning is None or self._learning.done():
            self._learning = self._loop.create_task(self._fleet.learn())
        await asyncio.wait({self._learning}, timeout=self._timeout_s)
        if not self._learning.done():
            return ServerTooSlowError("no answer in time")
        return None if self._learning.cancelled() else self._learning.exception()

    # What they answer

    def _answered(self, lane: Lane, order: Order, reply: Reply) -> None:
        if order.is_over or not isinstance(reply, (ServerError, BaseException)):
            order.settle(reply)
            return
        order.asks = None
        order.attempts += 1
        if isinstance(reply, StaleConnectionError) and order.attempts <= MOST_ATTEMPTS:
            self._send([order])
        elif isinstance(reply, ServerUnreachableError):
            self._later(self._seek(lane.address, order, reply))
        elif isinstance(reply, BaseException):
            order.settle(reply)
        elif order.attempts > MOST_ATTEMPTS or not self._redirected(lane, order, reply):
            order.settle(refused(reply.code))

    def _redirected(self, lane: Lane, order: Order, error: ServerError) -> bool:
        """Whether `order` is made once more, elsewhere or later or otherwise."""
        if error.code == "NOSCRIPT" and order.script is not None:
            order.args = (b"EVAL", order.script.source, *order.args[2:])
            self._send([order])
        elif error.code in {"MOVED", "ASK"}:
            address = address_in(error, lane.address)
            if address is None:
                return False
            if error.code == "ASK":
                order.asks = address
            else:
                self._fleet.moved(order.slot, address)
            self._send([order])
        elif error.code in PASSING:
            self._loop.call_later(PAUSE_S, self._learn, [order])
        else:
            return False
        return True

    def _later(self, act: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(act)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _seek(self, lost: Address, order: Order, failure: Reply) -> None:
        """The server at `lost` is not there. Perhaps another one has taken its place."""
        is_known = await self._learned() is None
        # A read that a breaking connection has swallowed may be made again: after a restart, several are broken.
        may_be_repeated = order.args[0] in READS and order.attempts <= MOST_ATTEMPTS
        if not is_known or (self._fleet.address(order.slot) == lost and not may_be_repeated):
            order.settle(failure)
        else:
            self._send([order])

    # What it holds

    @property
    def in_use(self) -> int:
        """Connections at work."""
        return sum(lane.in_use for lane in self._lanes.values())

    @property
    def connections(self) -> int:
        return sum(lane.connections for lane in self._lanes.values())

    async def aclose(self) -> None:
        """Let go of all connections. What is under way fails."""
        self._is_closed = True
        for task in list(self._tasks):
            task.cancel()
        if self._learning is not None:
            self._learning.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lanes, self._lanes = self._lanes, {}
        for lane in lanes.values():
            await lane.aclose()


class Found(Struct, frozen=True, gc=False):
    """What a turn's reads came to: the head, and what is under each key."""

    head: bytes | None
    records: Sequence[bytes | None]


class Bundle:
    """The reads of one turn: their orders, put together again when all are answered."""

    def __init__(self, reads: list[tuple[Sequence[bytes], asyncio.Future[Found]]], head: bytes, missing: int) -> None:
        self._reads = reads
        self._head = head
        self._missing = missing
        self._found: dict[bytes, object] = {}

    def part(self, keys: tuple[bytes, ...], *, is_many: bool) -> Callable[[Reply], None]:
        """What an order about `keys` is settled with."""

        def settle(reply: Reply) -> None:
            if isinstance(reply, BaseException):
                values: Sequence[object] = (reply,) * len(keys)
            else:
                values = reply if is_many and isinstance(reply, list) else (reply,)
            self._found.update(zip(keys, values, strict=False))
            self._missing -= len(keys)
            if not self._missing:
                self._finish()

        return settle

    def _finish(self) -> None:
        found, head = self._found, self._found.get(self._head)
        for keys, future in self._reads:
            if future.done():
                continue
            try:
                future.set_result(Found(record_of(head), [record_of(found.get(key)) for key in keys]))
            except (OSError, RuntimeError) as failure:
                future.set_exception(copy_of(failure))


def record_of(reply: Reply) -> bytes | None:
    """What is under a key. Raises what came instead of it."""
    if reply is None or isinstance(reply, bytes):
        return reply
    if isinstance(reply, BaseException):
        raise reply
    msg = "an answer of another kind"
    raise ServerRefusedError(msg)


def settles(future: asyncio.Future[Reply]) -> Callable[[Reply], None]:
    """What settles `future` with a reply, unless whoever waits for it has left."""

    def settle(reply: Reply) -> None:
        if future.done():
            return
        if isinstance(reply, BaseException):
            future.set_exception(copy_of(reply))
        else:
            future.set_result(reply)

    return settle


def address_in(error: ServerError, told_by: Address) -> Address | None:
    """Where a MOVED or ASK points to: "MOVED 3999 127.0.0.1:6381"; no host is that of who said so."""
    words = error.text.split(" ")
    host, colon, port = words[2].rpartition(":") if len(words) == 3 else ("", "", "")  # noqa: PLR2004 (as above)
    if not colon or not port.isdigit():
        return None
    return host or told_by[0], int(port)


def copy_of(failure: BaseException) -> BaseException:
    """An exception of its own for each who waits: a traceback belongs to one."""
    return type(failure)(*failure.args)
