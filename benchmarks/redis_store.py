"""`RedisStore` beside plain redis-py, cashews and aiocache: `python -m benchmarks.redis_store`.

One real server, values of 1 KB, the best of seven turns in which each has its
go; the store opens and checks its envelopes, the peers hand out text.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from typing import TYPE_CHECKING, Any, Final

from redis import asyncio as aio

from cachemesh.core.scopes import GLOBAL_OWNER
from cachemesh.shell.ports import Encoded, StoredEntry
from cachemesh.stores.redis import RedisStore
from tests.stores.servers import Server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

KEYS: Final = 100
TURNS: Final = 7
TASKS: Final = 100
VALUE: Final = '"' + "x" * 1_000 + '"'


def entry(key: str) -> StoredEntry:
    return StoredEntry(
        GLOBAL_OWNER, key, Encoded(VALUE.encode()), is_failure=False, created_at=1.0, ttl_s=None, expires_at=None
    )


async def one_by_one(get: Callable[[int], Awaitable[object]]) -> float:
    """Microseconds a call."""
    started = time.perf_counter()
    for number in range(1_000):
        await get(number % KEYS)
    return (time.perf_counter() - started) * 1e3


async def at_once(get: Callable[[int], Awaitable[object]]) -> float:
    """The same, of a hundred tasks."""

    async def ask(first: int) -> None:
        for number in range(30):
            await get((first + number) % KEYS)

    started = time.perf_counter()
    await asyncio.gather(*(ask(first) for first in range(TASKS)))
    return (time.perf_counter() - started) * 1e6 / (TASKS * 30)


async def peers(server: Server) -> dict[str, Any]:
    """Those that are installed, by name, with their values in place."""
    found: dict[str, Any] = {}
    try:
        found["cashews"] = importlib.import_module("cashews").Cache()
        found["cashews"].setup(server.url)
    except ImportError:
        print("cashews is not installed")
    try:
        found["aiocache"] = importlib.import_module("aiocache").RedisCache(endpoint=server.host, port=server.port)
    except ImportError:
        print("aiocache is not installed")
    for name, peer in found.items():
        for number in range(KEYS):
            await peer.set(f"{name}{number}", VALUE)
    return found


async def compared(server: Server) -> None:
    store, plain = RedisStore(server.url, timeout=10.0), aio.Redis(host=server.host, port=server.port)
    for number in range(KEYS):
        await store.write(entry(f"k{number}"))
        await plain.set(f"r{number}", VALUE)
    others = await peers(server)
    getters: dict[str, Any] = {
        "redis-py": lambda number: plain.get(f"r{number}"),
        "cachemesh": lambda number: store.read(GLOBAL_OWNER, f"k{number}"),
        **{name: lambda n, name=name, peer=peer: peer.get(f"{name}{n}") for name, peer in others.items()},
    }
    single = dict.fromkeys(getters, float("inf"))
    many = dict(single)
    for _ in range(TURNS):
        for name, get in getters.items():
            single[name] = min(single[name], await one_by_one(get))
            many[name] = min(many[name], await at_once(get))
    for name in getters:
        print(f"{name:10} one by one {single[name]:6.1f} us   {TASKS} tasks {many[name]:6.1f} us an operation")
    ours = many["cachemesh"]
    print(f"one by one: {single['cachemesh'] / single['redis-py']:.2f} x redis-py's GET (at most 1.3)")
    print(f"{TASKS} tasks: {single['redis-py'] / ours:.1f} x the operations of GETs one by one (at least 3)")
    for name in [each for each in ("redis-py", "cashews", "aiocache") if each in getters]:
        print(f"{TASKS} tasks: {many[name] / ours:.1f} x those of {name} with as many tasks")
    await store.aclose()
    await plain.aclose()
    for peer in others.values():
        await peer.close()


if __name__ == "__main__":
    with Server() as server:
        asyncio.run(compared(server))
