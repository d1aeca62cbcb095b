"""A hundred thousand entries that were stored together expire together: how many fetches at once, and what stalls.

Run as `python -m benchmarks.herd NAME` it is one subject in a process of its own. A hundred readers go through all
the keys again and again, while an injected clock takes 2 % of the ttl at each step, from 76 % to 104 %. After each
read a reader lets the others have a turn, so what is measured is the cache's work on a hundred reads.
"""

import asyncio
import gc
import random
import sys
import time
from dataclasses import asdict, dataclass
from typing import Final

from returns.result import Result, Success

from benchmarks.heartbeat import listening
from benchmarks.processes import answer, in_child
from benchmarks.table import Table
from cachemesh import Cache, Lifetime

ENTRIES: Final = 100_000
READERS: Final = 100
TTL_S: Final = 100.0
STEPS: Final = range(76, 106, 2)

SUBJECTS: Final = {
    "no jitter": Lifetime(ttl=TTL_S),
    "jitter=0.2": Lifetime(ttl=TTL_S, jitter=0.2),
    "no jitter, serve_stale_for": Lifetime(ttl=TTL_S, serve_stale_for=TTL_S),
    "jitter=0.2, serve_stale_for": Lifetime(ttl=TTL_S, jitter=0.2, serve_stale_for=TTL_S),
}


class SetClock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Origin:
    fetches: int = 0
    at_once: int = 0
    most_at_once: int = 0

    async def fetch(self) -> Result[int, str]:
        self.fetches += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        return Success(1)


def tables() -> list[Table]:
    table = Table(
        f"{ENTRIES:,} entries that were stored together, through their expiry, read by {READERS} tasks",
        ("what", "fetches", "most in a step", "at once", "gap", "own cpu", "without gc", "longest gc"),
        notes=[
            "a step is 2 % of the ttl; at once: fetches under way at the same time",
            "gap and the rest: ms, as in `stall`",
        ],
    )
    for name in SUBJECTS:
        found = in_child("benchmarks.herd", name, timeout_s=400)
        if isinstance(found, str):
            table.add(name, found)
            continue
        gaps = found["gaps"]
        table.add(
            name,
            found["fetches"],
            found["most"],
            found["at_once"],
            gaps["wall_ms"],
            gaps["cpu_ms"],
            gaps["own_ms"],
            gaps["collector_ms"],
        )
    return [table]


async def _child(name: str) -> None:
    clock, origin, lifetime = SetClock(), Origin(), SUBJECTS[name]
    cache = Cache(max_entries=None, clock=clock, rng=random.Random(7))  # noqa: S311  (repeatable, not secret)
    started = clock.now
    for number in range(ENTRIES):
        cache.put(f"user:{number}", 0, ttl=lifetime)
    gc.collect()
    gc.freeze()

    most = 0
    async with listening() as gaps:
        for step in STEPS:
            clock.now = started + TTL_S * step / 100
            before = origin.fetches
            async with asyncio.TaskGroup() as readers:
                for first in range(READERS):
                    readers.create_task(_read(cache, origin, lifetime, range(first, ENTRIES, READERS)))
            most = max(most, origin.fetches - before)
    answer(fetches=origin.fetches, most=most, at_once=origin.most_at_once, gaps=asdict(gaps))


async def _read(cache: Cache, origin: Origin, lifetime: Lifetime, numbers: range) -> None:
    for number in numbers:
        await cache.get(f"user:{number}", origin.fetch, ttl=lifetime)
        await asyncio.sleep(0)


if __name__ == "__main__":
    asyncio.run(_child(sys.argv[1]))
