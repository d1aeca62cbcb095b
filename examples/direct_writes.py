"""Direct writes: `put`, `update` and `touch`. A fetch that began before a write never overwrites it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from returns.result import Failure, Result, Success

from cachemesh import CacheMiss, SyncCache, UpdateRaised
from cachemesh.testing import VirtualClock

clock = VirtualClock()


def count(cache: SyncCache) -> None:
    """Eight threads, and not one increment is lost."""
    cache.put("visits", 0)

    def visit(number: int) -> Result[int, object]:
        del number
        return cache.update("visits", lambda visits: visits + 1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, range(1000)))
    assert cache.peek("visits") == Success(1000)
    assert cache.update("nothing", str.upper) == Failure(CacheMiss("nothing"))
    assert isinstance(cache.update("visits", lambda visits: visits / 0).failure(), UpdateRaised)


def overtake(cache: SyncCache) -> None:
    """The answer of a fetch that a write has overtaken goes to those who wait for it, and nowhere else."""
    is_asked, may_answer = threading.Event(), threading.Event()

    def name() -> Result[str, str]:
        is_asked.set()
        may_answer.wait(5)
        return Success("Ada")

    with ThreadPoolExecutor(1) as pool:
        fetching = pool.submit(cache.get, "name", name)
        is_asked.wait(5)
        cache.put("name", "Ada Lovelace", ttl=60)
        may_answer.set()
        assert fetching.result() == Success("Ada")
    assert cache.peek("name") == Success("Ada Lovelace")

    clock.advance(60)
    cache.touch("name", ttl=60)  # It had expired.
    assert cache.inspect("name").is_fresh
    assert cache.inspect("name").age == timedelta(seconds=60), "it lives anew, and is as old as it is"


if __name__ == "__main__":
    with SyncCache(clock=clock) as shared:
        count(shared)
        overtake(shared)
        print(f"direct_writes: {shared.peek('visits').unwrap()} visits counted, and no write was overtaken")
