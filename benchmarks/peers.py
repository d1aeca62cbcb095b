"""The peers, each as its users would write it: a decorator on an async function of one str, with a TTL and a bound.

A peer that is not installed is left out and named under the table. Nothing here is timed.
"""
# ruff: noqa: PLC0415  (a peer is imported where it is used: a missing one must not take the others with it)

import importlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from benchmarks.floors import TTL_S, Call, Fetch

Make = Callable[[Fetch, int], Coroutine[Any, Any, Call]]


def trivial() -> Fetch:
    """A fetch that costs nothing, a new function for each peer: some key their caches by it, or by the name `k`."""

    async def fetch(k: str) -> object:
        del k
        return 1

    return fetch


def installed() -> tuple[list["Peer"], list[str]]:
    """The peers that can be imported (and now are), and a note on those that cannot."""
    found = [peer for peer in PEERS if _importable(peer.module)]
    missing = [peer.name for peer in PEERS if peer not in found]
    return found, [f"not installed: {', '.join(missing)}"] if missing else []


@dataclass(frozen=True, slots=True)
class Peer:
    """A caching idiom of another library."""

    name: str
    module: str
    make: Make
    """Takes the fetch to decorate and the most entries to keep."""


async def _moka(fetch: Fetch, size: int) -> Call:
    import moka_py

    return moka_py.cached(size, ttl=TTL_S)(fetch)


async def _moka_waiting(fetch: Fetch, size: int) -> Call:
    import moka_py

    return moka_py.cached(size, ttl=TTL_S, wait_concurrent=True)(fetch)


async def _cachebox(fetch: Fetch, size: int) -> Call:
    import cachebox

    return cachebox.cached(cachebox.TTLCache(size, TTL_S))(fetch)


async def _cachebox_bare(fetch: Fetch, size: int) -> Call:
    import cachebox

    return cachebox.cached(cachebox.TTLCache(size, TTL_S), lock=False, postprocess=None)(fetch)


async def _async_lru(fetch: Fetch, size: int) -> Call:
    from async_lru import alru_cache

    return alru_cache(maxsize=size, ttl=TTL_S)(fetch)


async def _theine(fetch: Fetch, size: int) -> Call:
    import theine

    return theine.Memoize(size, timedelta(seconds=TTL_S))(fetch)


async def _theine_keyed(fetch: Fetch, size: int) -> Call:
    import theine

    memo = theine.Memoize(size, timedelta(seconds=TTL_S), nolock=True)(fetch)
    memo.key(lambda k: k)
    return memo


async def _aiocache(fetch: Fetch, _size: int) -> Call:
    import aiocache

    return aiocache.cached(ttl=TTL_S)(fetch)


async def _aiocache_stampede(fetch: Fetch, _size: int) -> Call:
    import aiocache

    return aiocache.cached_stampede(ttl=TTL_S, lease=2)(fetch)


async def _cashews(fetch: Fetch, size: int) -> Call:
    return (await _cashews_cache(size))(ttl=TTL_S, key="{k}")(fetch)


async def _cashews_locked(fetch: Fetch, size: int) -> Call:
    return (await _cashews_cache(size))(ttl=TTL_S, key="{k}", lock=True)(fetch)


async def _cashews_cache(size: int) -> Any:  # noqa: ANN401  (an untyped library)
    from cashews import Cache

    cache = Cache()
    cache.setup("mem://", size=size)
    await cache.init()
    return cache


ASYNC_LRU: Final = Peer("async-lru @alru_cache", "async_lru", _async_lru)

PEERS: Final = (
    Peer("moka-py @cached", "moka_py", _moka),
    Peer("moka-py @cached(wait_concurrent)", "moka_py", _moka_waiting),
    Peer("cachebox @cached", "cachebox", _cachebox),
    Peer("cachebox @cached(lock=False)", "cachebox", _cachebox_bare),
    ASYNC_LRU,
    Peer("theine Memoize", "theine", _theine),
    Peer("theine Memoize (own key, nolock)", "theine", _theine_keyed),
    Peer("aiocache @cached", "aiocache", _aiocache),
    Peer("aiocache @cached_stampede", "aiocache", _aiocache_stampede),
    Peer("cashews @cache", "cashews", _cashews),
    Peer("cashews @cache(lock)", "cashews", _cashews_locked),
)


def _importable(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True
