# mypy: no-warn-unused-ignores, disable-error-code="arg-type,assignment,redundant-expr,return-value,truthy-function,var-annotated,no-any-return,comparison-overlap,union-attr"
"""The long variants of the scenarios: `make soak`."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from returns.result import Failure, Success

from cachemesh import Cache, CacheScope, SyncCache
from cachemesh.testing.loop import run
from tests.scenarios import test_bi_bad_input as bad_input
from tests.scenarios import test_model as model
from tests.scenarios.helpers import async_value, guarded, together, under_way

if TYPE_CHECKING:
    from tests.scenarios.helpers import Answer

USER = CacheScope.USER


@pytest.mark.parametrize(("callers", "times"), [(10, 100), (100, 100), (1_000, 100), (10_000, 100)])
def test_sf1_many_tasks_share_one_fetch(callers: int, times: int) -> None:
    async def main() -> None:
        cache = Cache()
        calls = 0

        async def fetch() -> Answer:
            nonlocal calls
            calls += 1
            await asyncio.sleep(0.5)
            return Success(object())

        answers = await asyncio.gather(*(cache.get("k", fetch) for _ in range(callers)))
        assert calls == 1
        assert all(answer is answers[0] for answer in answers)
        assert under_way(cache) == 0

    for _ in range(times):
        run(main())


def test_sf2_sf3_a_thousand_bursts_of_threads_share_one_fetch_each() -> None:
    """On a free-threaded build this is SF-3."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(1_000):
            cache = SyncCache()
            calls: list[int] = []

            def fetch(calls: list[int] = calls) -> Answer:
                calls.append(1)
                time.sleep(0.001)
                return Success(object())

            answers = together([lambda cache=cache, fetch=fetch: cache.get("k", fetch)] * 32)  # type: ignore[misc]
            assert len(calls) == 1
            assert len({id(answer.unwrap()) for answer in answers}) == 1
    finally:
        sys.setswitchinterval(before)


def test_sf2_a_thousand_threads_share_one_fetch() -> None:
    cache = SyncCache()
    calls: list[int] = []

    def fetch() -> Answer:
        calls.append(1)
        time.sleep(0.5)
        return Success("v")

    assert together([lambda: cache.get("k", fetch)] * 1_000, 60) == [Success("v")] * 1_000
    assert len(calls) == 1


@pytest.mark.parametrize("machine", [model.AsyncShellAgainstModel, model.ThreadedShellAgainstModel])
def test_sf10_sc1_sc8_model(machine: type[model.ShellAgainstModel]) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(max_examples=5_000, stateful_step_count=80, **model.QUICK),  # type: ignore[arg-type]
    )


def test_sf13_a_million_keys_leave_nothing_but_entries() -> None:
    cache = SyncCache(max_entries=10_000)

    def fetch_once(first: int, last: int) -> None:
        for number in range(first, last):
            cache.get(f"k{number}", lambda: Success(1))

    fetch_once(0, 50_000)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    fetch_once(50_000, 1_000_000)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert under_way(cache) == 0
    assert grown < 0.05 * 10_000 * 500 + 3_000_000  # The survivors are counted anew, for they replaced uncounted ones.


def test_ca9_ten_thousand_loops_leave_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "asyncio")  # Each new loop says which selector it has, and pytest keeps that.
    cache = Cache()

    async def use() -> None:
        await cache.get("k", async_value(1), ttl=0)

    for _ in range(100):
        asyncio.run(use())
    grown = []
    for _ in range(2):  # The interpreter's own tables grow too, now and then and by 2 MB at once.
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10_000):
            asyncio.run(use())
        gc.collect()
        grown.append(tracemalloc.get_traced_memory()[0] - before)
        tracemalloc.stop()
    assert min(grown) < 1_000_000


def test_fc3_a_million_failures_are_bounded() -> None:
    cache = SyncCache(cache_failures=True)
    for number in range(1_000_000):
        cache.get(f"k{number}", lambda: Failure("no"))
    partitions = cache._runtime.state.partitions
    assert sum(len(partition.failures) for partition in partitions.values()) <= 10_000


def test_wa1_slow_watcher_of_600_000_updates() -> None:
    cache = SyncCache()
    seen: list[int] = []

    def slowly(news: Answer) -> None:
        time.sleep(1)
        seen.append(news.unwrap())

    cache.watch("k").subscribe(slowly)

    def write() -> None:
        for number in range(600_000):
            cache.refresh("k", lambda number=number: Success(number))  # type: ignore[misc]

    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    guarded(write, 300)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    time.sleep(2.5)
    assert seen[-1] == 599_999
    assert grown < 10_000_000


def test_sc5_two_hundred_users_at_a_thousand_requests_each() -> None:
    async def main() -> None:
        cache = Cache(max_entries=2_000, default_ttl=0.5)

        async def serve(user: str) -> None:
            view = cache.for_user(user)
            for number in range(1_000):
                key = f"k{number % 20}"
                fetch = async_value((user, key))
                assert (await view.get(key, fetch, scope=USER)).unwrap() == (user, key)
                if number % 97 == 0:
                    view.end_session()
                if number % 10 == 0:
                    await asyncio.sleep(0.01)

        await asyncio.gather(*(serve(f"user{number}") for number in range(200)))

    run(main())


@pytest.mark.parametrize("seed", range(20))
def test_bi5_a_million_odd_calls(seed: int) -> None:
    import random  # noqa: PLC0415 (here alone)

    chance = random.Random(seed)
    cache = SyncCache(clock=bad_input.Clockwork(chance), logger=bad_input.Moody(chance), max_entries=3)
    assert bad_input.fuzz(cache, 50_000, seed) == {}
    cache.close()


def test_se11_ten_million_keys_grow_no_table() -> None:
    from tests.scenarios.test_se_security import tables_of  # noqa: PLC0415 (here alone)

    cache = SyncCache(max_entries=1_000, cache_failures=True)
    for number in range(10_000_000):
        if number % 3:
            cache.get(f"k{number}", lambda: Success(1))
        elif number % 2:
            cache.get(f"k{number}", lambda: Failure("no"))
        else:
            cache.for_user(f"user{number}").get("k", lambda: Success(1), scope=USER)
    assert all(len(table) <= 30_000 for table in tables_of(cache._runtime))
