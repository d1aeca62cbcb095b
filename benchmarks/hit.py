"""The price of a hit: one hot key, fresh, read again and again in one event loop (or one thread).

Every contender is written the way its users write the call. The loops are spelled out, one a contender, because a
shared one would add a call to each.
"""
# ruff: noqa: PLC0415  (cachemesh and the peers are imported where they are used, so that a missing one is only missing)

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import repeat
from typing import Final

from returns.result import Result, Success

from benchmarks import floors
from benchmarks.floors import KEY, TTL_S, Call
from benchmarks.harness import Contender, async_sample, race, sync_sample
from benchmarks.peers import installed, trivial
from benchmarks.table import Table

ROUNDS: Final = 31
MOST: Final = 2.0

Loop = Callable[[int], Awaitable[None]]


def tables() -> list[Table]:
    return [async_table(), sync_table()]


def async_table() -> Table:
    """Our two spellings against the async floor and every async peer."""
    with asyncio.Runner() as runner:
        floor = Contender("floor: coroutine, dict get, TTL check", _calling(runner, floors.async_hit()))
        get, defaults, decorated = runner.run(_ours(runner))
        ours = [get, defaults, decorated]
        found, notes = installed()
        peers = [Contender(peer.name, _calling(runner, runner.run(peer.make(trivial(), 1024)))) for peer in found]

        race([floor, *ours, *peers], rounds=ROUNDS)

    table = Table("Async hit", ("what", "ns", "best ns", "x floor", "get / it", "@cached / it"), notes=notes)
    table.add(floor.name, floor.median, floor.best, 1.0)
    for mine in ours:
        judged = mine is not defaults
        table.add(
            mine.name,
            mine.median,
            mine.best,
            mine.over(floor),
            target=f"<= {MOST} x floor" if judged else "",
            reached=mine.over(floor) <= MOST if judged else None,
        )
    for peer_row in sorted(peers, key=lambda peer: peer.median):
        share = get.over(peer_row)
        table.add(
            peer_row.name,
            peer_row.median,
            peer_row.best,
            peer_row.over(floor),
            share,
            decorated.over(peer_row),
            target="get is faster",
            reached=share < 1,
        )
    return table


def sync_table() -> Table:
    """`SyncCache.get` against the sync floor; the sync peers are shown for orientation."""
    from cachemesh import CachePolicy, SyncCache, cached

    cache = SyncCache()

    def fetch() -> Result[int, str]:
        return Success(1)

    @cached(cache, key="user:{user_id}", ttl=TTL_S)
    def user(user_id: str) -> Result[int, str]:
        del user_id
        return Success(1)

    def get_loop(n: int) -> None:
        for _ in repeat(None, n):
            cache.get(KEY, fetch, policy=CachePolicy.CACHE_FIRST, ttl=TTL_S)

    floor = Contender("floor: function, dict get, TTL check", _calling_sync(floors.sync_hit()))
    get = Contender("SyncCache.get(key, fetch, policy=, ttl=)", sync_sample(get_loop))
    decorated = Contender("@cached(SyncCache) on one str", _calling_sync(user))
    peers, notes = _sync_peers()
    get_loop(1)
    user(KEY)

    race([floor, get, decorated, *peers], rounds=ROUNDS)
    cache.close()

    table = Table("Sync hit", ("what", "ns", "best ns", "x floor", "get / it"), notes=notes)
    table.add(floor.name, floor.median, floor.best, 1.0)
    over = get.over(floor)
    table.add(get.name, get.median, get.best, over, target=f"<= {MOST} x floor", reached=over <= MOST)
    table.add(decorated.name, decorated.median, decorated.best, decorated.over(floor))
    for peer in sorted(peers, key=lambda peer: peer.median):
        table.add(peer.name, peer.median, peer.best, peer.over(floor), get.over(peer))
    return table


async def _ours(runner: asyncio.Runner) -> tuple[Contender, Contender, Contender]:
    from cachemesh import Cache, CachePolicy, cached

    cache = Cache()

    async def fetch() -> Result[int, str]:
        return Success(1)

    @cached(cache, key="user:{user_id}", ttl=TTL_S)
    async def user(user_id: str) -> Result[int, str]:
        del user_id
        return Success(1)

    async def get_loop(n: int) -> None:
        for _ in repeat(None, n):
            await cache.get(KEY, fetch, policy=CachePolicy.CACHE_FIRST, ttl=TTL_S)

    async def default_loop(n: int) -> None:
        for _ in repeat(None, n):
            await cache.get(KEY, fetch)

    await get_loop(1)
    await user(KEY)
    return (
        Contender("cache.get(key, fetch, policy=, ttl=)", async_sample(runner, get_loop)),
        Contender("cache.get(key, fetch)", async_sample(runner, default_loop)),
        Contender("@cached(cache) on one str", _calling(runner, user)),
    )


def _calling(runner: asyncio.Runner, call: Call) -> Callable[[int], int]:
    async def loop(n: int) -> None:
        for _ in repeat(None, n):
            await call(KEY)

    return async_sample(runner, loop)


def _calling_sync(call: Callable[[str], object]) -> Callable[[int], int]:
    def loop(n: int) -> None:
        for _ in repeat(None, n):
            call(KEY)

    return sync_sample(loop)


def _sync_peers() -> tuple[list[Contender], list[str]]:
    found: list[Contender] = []
    missing: list[str] = []
    for name, make in (
        ("moka-py @cached", _moka),
        ("cachebox @cached", _cachebox),
        ("theine Memoize", _theine),
        ("cachetools @cached", _cachetools),
    ):
        try:
            call = make()
        except ImportError:
            missing.append(name)
            continue
        call(KEY)
        found.append(Contender(name, _calling_sync(call)))
    return found, [f"not installed: {', '.join(missing)}"] if missing else []


def _identity(k: str) -> object:
    return k


def _moka() -> Callable[[str], object]:
    import moka_py

    return moka_py.cached(1024, ttl=TTL_S)(_identity)


def _cachebox() -> Callable[[str], object]:
    import cachebox

    return cachebox.cached(cachebox.TTLCache(1024, TTL_S))(_identity)


def _theine() -> Callable[[str], object]:
    import theine

    return theine.Memoize(1024, timedelta(seconds=TTL_S))(_identity)


def _cachetools() -> Callable[[str], object]:
    import cachetools

    return cachetools.cached(cachetools.TTLCache(1024, TTL_S))(_identity)
