"""What a cache answers while its store fails, hangs or loses things."""

from __future__ import annotations

import asyncio

import pytest
from returns.result import Success

from cachemesh import Cache, SyncCache
from cachemesh.stores import MemoryStore
from cachemesh.testing import ChaosStore, FlakyStore, ScriptedOrigin, VirtualClock, assert_one_flight, run


def test_a_store_that_cannot_be_read_costs_one_request() -> None:
    store = FlakyStore(MemoryStore())
    store.fail("reads")
    origin = ScriptedOrigin()
    with SyncCache(store=store) as cache:
        answers = [cache.get("feed", origin.sync_fetcher("feed")) for _ in range(3)]

    assert answers == [Success("feed #1")] * 3
    assert_one_flight(origin, "feed")
    assert [asked.operation for asked in store.asked_for("writes")] == ["write"]


def test_a_store_that_hangs_is_given_up() -> None:
    clock = VirtualClock()
    store = FlakyStore(MemoryStore())
    store.hang("reads")

    async def main() -> None:
        async with Cache(clock=clock, store=store) as cache:
            assert await cache.get("feed", ScriptedOrigin().fetcher("feed")) == Success("feed #1")

    run(main(), clock=clock)
    assert clock() < 60, "virtual seconds"


@pytest.mark.parametrize("seed", range(10))
def test_whoever_invalidates_reads_what_is_newer_whatever_the_store_does(seed: int) -> None:
    clock = VirtualClock()
    store = ChaosStore(MemoryStore(), seed=seed, fail=0.2, fail_after=0.2, lose=0.1, delay=0.2)
    origin = ScriptedOrigin(clock=clock)

    async def main() -> None:
        async with Cache(clock=clock, store=store) as cache:
            for number in range(1, 11):
                cache.invalidate("feed")
                answers = await asyncio.gather(*(cache.get("feed", origin.fetcher("feed")) for _ in range(3)))
                assert answers == [Success(f"feed #{number}")] * 3, store  # The repr tells the seed.

    run(main(), clock=clock)
