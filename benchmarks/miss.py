"""The price of a miss: unique keys, a trivial async fetch, the answer stored. The collector is on.

Each sample is a new cache in a new event loop in a fork of its own.
"""
# ruff: noqa: PLC0415  (cachemesh is imported where it is used)

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final

from returns.result import Result, Success

from benchmarks import floors
from benchmarks.floors import TTL_S, Call
from benchmarks.harness import Contender, race
from benchmarks.peers import ASYNC_LRU, Peer, installed, trivial
from benchmarks.processes import forked
from benchmarks.table import Table

KEYS: Final = 8_000
ROUNDS: Final = 11
MOST: Final = 1.0 if sys.version_info < (3, 12) else 1 / 3
"""Of async-lru's time: an eager task, which 3.12 brought, saves a trip through the event loop."""

Make = Callable[[], Coroutine[Any, Any, Call]]


def tables() -> list[Table]:
    return [table(65_536), table(1_024)]


def table(size: int) -> Table:
    """Everybody bounded to `size` entries; with fewer than `KEYS` the later misses evict as well."""
    floor = Contender("floor: dict, no single-flight, no bound", _sample(_floor))
    get = Contender("cache.get(key, fetch, policy=, ttl=)", _sample(lambda: _ours(size, "get")))
    decorated = Contender("@cached(cache) on one str", _sample(lambda: _ours(size, "decorated")))
    found, notes = installed()
    peers = [Contender(peer.name, _sample(partial(_peer, peer, size))) for peer in found]
    race([floor, get, decorated, *peers], rounds=ROUNDS, count=KEYS)

    room = "with room for all" if size >= KEYS else "evicting"
    result = Table(
        f"Async miss, {KEYS:,} unique keys, bounded to {size:,} ({room})",
        ("what", "ns", "best ns", "x floor", "get / it"),
        notes=notes,
    )
    for ours in (floor, get, decorated):
        result.add(ours.name, ours.median, ours.best, ours.over(floor))
    for peer in sorted(peers, key=lambda peer: peer.median):
        share = get.over(peer)
        judged = peer.name == ASYNC_LRU.name
        result.add(
            peer.name,
            peer.median,
            peer.best,
            peer.over(floor),
            share,
            target=f"get <= {MOST:.2f} x it" if judged else "",
            reached=share <= MOST if judged else None,
        )
    return result


def _sample(make: Make) -> Callable[[int], int]:
    async def run(n: int) -> int:
        call = await make()
        keys = [f"user:{i}" for i in range(n)]
        started = time.perf_counter_ns()
        for key in keys:
            await call(key)
        return time.perf_counter_ns() - started

    return forked(lambda n: asyncio.run(run(n)))


def _peer(peer: Peer, size: int) -> Coroutine[Any, Any, Call]:
    return peer.make(trivial(), size)


async def _floor() -> Call:
    return floors.unbounded_miss(trivial())


async def _ours(size: int, spelling: str) -> Call:
    from cachemesh import Cache, CachePolicy, cached

    cache = Cache(max_entries=size)

    async def fetch() -> Result[int, str]:
        return Success(1)

    def get(key: str) -> Awaitable[object]:
        return cache.get(key, fetch, policy=CachePolicy.CACHE_FIRST, ttl=TTL_S)

    @cached(cache, key="user:{user_id}", ttl=TTL_S)
    async def user(user_id: str) -> Result[int, str]:
        del user_id
        return Success(1)

    return get if spelling == "get" else user
