"""`get_many` of a thousand keys: all of them hits, and all of them missing; beside it a thousand single gets."""

import asyncio
import time
from collections.abc import Callable
from itertools import repeat
from typing import Final

from returns.result import Result, Success

from benchmarks.floors import TTL_S
from benchmarks.harness import Contender, async_sample, race, sync_sample
from benchmarks.processes import forked
from benchmarks.table import Table
from cachemesh import Cache, SyncCache

ROUNDS: Final = 31
ROUNDS_OF_MISSES: Final = 7
KEYS: Final = [f"user:{number}" for number in range(1_000)]
MOST_NS: Final = 3_000

Answers = dict[str, Result[int, str]]


async def fetch_many(keys: tuple[str, ...]) -> Answers:
    return {key: Success(1) for key in keys}


def fetch_many_in_thread(keys: tuple[str, ...]) -> Answers:
    return {key: Success(1) for key in keys}


async def fetch() -> Result[int, str]:
    return Success(1)


def tables() -> list[Table]:
    return [hits(), misses()]


def hits() -> Table:
    """Everything is there, and fresh."""
    floor = Contender("floor: a dict comprehension over a dict", sync_sample(_floor))
    with asyncio.Runner() as runner, SyncCache() as sync_cache:
        cache = Cache()
        for key in KEYS:
            cache.put(key, 1, ttl=TTL_S)
            sync_cache.put(key, 1, ttl=TTL_S)

        async def many(n: int) -> None:
            for _ in repeat(None, n):
                await cache.get_many(KEYS, fetch_many, ttl=TTL_S)

        async def singles(n: int) -> None:
            for _ in repeat(None, n):
                for key in KEYS:
                    await cache.get(key, fetch, ttl=TTL_S)

        def many_in_thread(n: int) -> None:
            for _ in repeat(None, n):
                sync_cache.get_many(KEYS, fetch_many_in_thread, ttl=TTL_S)

        judged = [
            Contender("Cache.get_many", async_sample(runner, many)),
            Contender("SyncCache.get_many", sync_sample(many_in_thread)),
        ]
        single = Contender("Cache.get, key by key", async_sample(runner, singles))
        race([floor, *judged, single], rounds=ROUNDS)

    table = Table(f"{len(KEYS):,} keys at once, all of them hits: ns a key", ("what", "ns", "best ns", "x floor"))
    for row in (floor, *judged, single):
        is_judged = row in judged
        ns = row.median / len(KEYS)
        table.add(
            row.name,
            ns,
            row.best / len(KEYS),
            row.over(floor),
            target=f"<= {MOST_NS:,} ns" if is_judged else "",
            reached=ns <= MOST_NS if is_judged else None,
        )
    return table


def misses() -> Table:
    """Nothing is there: one call of the origin, a thousand flights. Each sample is a new cache in a fork of its own."""
    contenders = [
        Contender("Cache.get_many", _sample(_many)),
        Contender("SyncCache.get_many", forked(_many_in_threads)),
        Contender("Cache.get, all at once in a gather", _sample(_gathered)),
    ]
    race(contenders, rounds=ROUNDS_OF_MISSES, count=len(KEYS))
    table = Table(f"{len(KEYS):,} keys at once, none of them there: ns a key", ("what", "ns", "best ns"))
    for row in contenders:
        table.add(row.name, row.median, row.best)
    return table


def _floor(n: int) -> None:
    kept = dict.fromkeys(KEYS, 1)
    for _ in repeat(None, n):
        {key: kept[key] for key in KEYS}


def _sample(run: Callable[[Cache], object]) -> Callable[[int], int]:
    async def once() -> int:
        cache = Cache()
        started = time.perf_counter_ns()
        await run(cache)  # type: ignore[misc]
        return time.perf_counter_ns() - started

    return forked(lambda _: asyncio.run(once()))


async def _many(cache: Cache) -> None:
    await cache.get_many(KEYS, fetch_many, ttl=TTL_S)


async def _gathered(cache: Cache) -> None:
    await asyncio.gather(*(cache.get(key, fetch, ttl=TTL_S) for key in KEYS))


def _many_in_threads(_: int) -> int:
    with SyncCache() as cache:
        started = time.perf_counter_ns()
        cache.get_many(KEYS, fetch_many_in_thread, ttl=TTL_S)
        return time.perf_counter_ns() - started
