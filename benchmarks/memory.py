"""Bytes an entry at a million entries: the growth of the resident set of a fresh process, key and value included.

Run as `python -m benchmarks.memory NAME N` it is that fresh process.
"""
# ruff: noqa: PLC0415  (only the one that is measured is imported)

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

from returns.result import Result, Success

from benchmarks.floors import TTL_S, Entry
from benchmarks.processes import answer, in_child, resident_bytes
from benchmarks.table import Table

ENTRIES: Final = 1_000_000
MOST: Final = 350
BURST: Final = 1_000
PAST_SHARED_INTS: Final = 1_000

Put = Callable[[str, int], Awaitable[object]]


def tables() -> list[Table]:
    table = Table(f"Memory at {ENTRIES:,} entries", ("what", "B an entry", "x floor", "ours / it", "ns an insert"))
    rows = {name: in_child("benchmarks.memory", name, ENTRIES, timeout_s=300) for name in FILLERS}
    floor, ours = rows["dict of slot entries"], rows["cachemesh"]
    for name, row in rows.items():
        if isinstance(row, str):
            table.add(name, row)
            continue
        size = row["bytes"]
        table.add(
            name,
            size,
            size / floor["bytes"] if isinstance(floor, dict) else None,
            ours["bytes"] / size if isinstance(ours, dict) else None,
            row["ns"],
            target=f"<= {MOST} B" if name == "cachemesh" else "",
            reached=size <= MOST if name == "cachemesh" else None,
        )
    sizes = sys.getsizeof("user:123456") + sys.getsizeof(ENTRIES)
    table.notes.append(f"of which {sizes} B are the key and the value themselves")
    return [table]


async def _ours(entries: int) -> Put:
    from cachemesh import Cache

    cache = Cache(max_entries=entries)

    def put(key: str, value: int) -> Awaitable[object]:
        async def fetch() -> Result[int, str]:
            return Success(value)

        return cache.get(key, fetch, ttl=TTL_S)

    return put


async def _dict(_entries: int) -> Put:
    kept: dict[str, Entry] = {}

    async def put(key: str, value: int) -> None:
        kept[key] = Entry(value, time.monotonic() + TTL_S)

    return put


async def _cachebox(entries: int) -> Put:
    import cachebox

    cache: Any = cachebox.TTLCache(entries * 2, TTL_S)
    return _awaitable(cache.insert)


async def _moka(entries: int) -> Put:
    import moka_py

    cache: Any = moka_py.Moka(entries * 2, ttl=TTL_S)
    return _awaitable(cache.set)


async def _theine(entries: int) -> Put:
    import theine

    cache: Any = theine.Cache(entries * 2)
    ttl = timedelta(seconds=TTL_S)
    return _awaitable(lambda key, value: cache.set(key, value, ttl))


async def _async_lru(entries: int) -> Put:
    from async_lru import alru_cache

    @alru_cache(maxsize=entries * 2, ttl=TTL_S)
    async def value_of(key: str) -> int:
        return int(key[5:]) + PAST_SHARED_INTS

    return lambda key, _value: value_of(key)


async def _aiocache(_entries: int) -> Put:
    from aiocache import SimpleMemoryCache

    put: Put = SimpleMemoryCache(ttl=TTL_S).set
    return put


async def _cashews(entries: int) -> Put:
    from cashews import Cache

    cache = Cache()
    cache.setup("mem://", size=entries * 2)
    await cache.init()
    return lambda key, value: cache.set(key, value, expire=TTL_S)


def _awaitable(put: Callable[[str, int], object]) -> Put:
    async def called(key: str, value: int) -> object:
        return put(key, value)

    return called


FILLERS: Final[dict[str, Callable[[int], Awaitable[Put]]]] = {
    "dict of slot entries": _dict,
    "cachemesh": _ours,
    "moka-py Moka": _moka,
    "cachebox TTLCache": _cachebox,
    "async-lru @alru_cache": _async_lru,
    "theine Cache": _theine,
    "aiocache SimpleMemoryCache": _aiocache,
    "cashews mem": _cashews,
}


async def _child(name: str, entries: int) -> None:
    try:
        put = await FILLERS[name](entries)
    except ImportError:
        sys.stderr.write("not installed")
        return
    await asyncio.sleep(0)
    before, started = resident_bytes(), time.perf_counter_ns()
    for i in range(entries):
        await put(f"user:{i}", i + PAST_SHARED_INTS)
        if i % BURST == 0:
            await asyncio.sleep(0)
    took = time.perf_counter_ns() - started
    answer(bytes=(resident_bytes() - before) / entries, ns=took / entries)


if __name__ == "__main__":
    asyncio.run(_child(sys.argv[1], int(sys.argv[2])))
