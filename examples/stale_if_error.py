"""A sixth policy, written as a row: what is stale is fetched anew, and served where the fetch fails.

This is the `stale-if-error` of RFC 5861, section 4. The row is used on both
faces, and what it promises is proved against the pure core: Hypothesis makes up
whole histories of a cache and looks for one in which the promise is broken; for
two other rows it finds one, so the property does say something.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Final

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from returns.result import Failure, Result, Success

from cachemesh import AfterFailure, Cache, CachePolicy, SyncCache
from cachemesh.core import (
    GLOBAL_OWNER,
    FetchFailed,
    FetchSucceeded,
    Get,
    Invalidate,
    Join,
    Reply,
    Settle,
)
from cachemesh.testing import VirtualClock
from cachemesh.testing.strategies import Happening, Moment, play

STALE_IF_ERROR: Final = CachePolicy("stale_if_error", after_failure=AfterFailure.SERVE_STALE)


class Origin:
    """A price list that can be taken down."""

    def __init__(self) -> None:
        self.is_up = True
        self.answers: list[Result[int, str]] = []

    def price(self) -> Result[int, str]:
        answer: Result[int, str] = Success(100 + len(self.answers)) if self.is_up else Failure("the origin is down")
        self.answers.append(answer)
        return answer

    async def price_async(self) -> Result[int, str]:
        await asyncio.sleep(0.01)
        return self.price()


def with_threads() -> None:
    """The row on `SyncCache`."""
    clock, origin = VirtualClock(), Origin()
    with SyncCache(clock=clock, default_ttl=60) as cache:

        def price() -> object:
            return cache.get("price", origin.price, policy=STALE_IF_ERROR)

        assert price() == Success(100)
        assert price() == Success(100), "what is fresh is served"

        clock.advance(60)
        origin.is_up = False
        assert price() == Success(100), "what is stale is served where the fetch fails"
        assert origin.answers == [Success(100), Failure("the origin is down")], "and the fetch was tried"

        cache.invalidate("price")
        assert price() == Failure("the origin is down"), "there is nothing to fall back to"


async def with_asyncio() -> None:
    """The row on `Cache`, beside cache_first: ten callers of each share one fetch, and what that brings."""
    clock, origin = VirtualClock(), Origin()
    async with Cache(clock=clock, default_ttl=60) as cache:
        assert await cache.get("price", origin.price_async, policy=STALE_IF_ERROR) == Success(100)

        clock.advance(60)
        origin.is_up = False
        callers = [
            cache.get("price", origin.price_async, policy=policy)
            for policy in (STALE_IF_ERROR, CachePolicy.CACHE_FIRST)
            for _ in range(10)
        ]
        answers = await asyncio.gather(*callers)

        assert answers[:10] == [Success(100)] * 10
        assert answers[10:] == [Failure("the origin is down")] * 10
        assert origin.answers == [Success(100), Failure("the origin is down")]

        origin.is_up = True
        assert await cache.get("price", origin.price_async, policy=STALE_IF_ERROR) == Success(102)


def histories(policy: CachePolicy) -> st.SearchStrategy[tuple[Moment, ...]]:
    """What may happen to one key that is asked for under `policy`, in any order and with any waits between."""
    get = Get("price", now=0.0, flight_id=0, policy=policy, ttl_s=60.0, store_failures=True)  # `play` fills in both.
    succeeds, fails = FetchSucceeded(0, "price", 0.0), FetchFailed(0, "down", 0.0)
    turns = st.sampled_from(((get,), (get, succeeds), (get, fails), (succeeds,), (fails,), (Invalidate("price"),)))
    waits = st.sampled_from((0.0, 30.0, 60.0))
    turn = st.builds(lambda commands, after_s: [Happening(each, after_s) for each in commands], turns, waits)
    return st.lists(turn, max_size=12).map(lambda listed: play(itertools.chain.from_iterable(listed)))


def breaks_the_promise(policy: CachePolicy) -> bool:
    """Whether Hypothesis finds a history in which a caller is told of a failure while there is a value."""

    @settings(max_examples=300, deadline=None, database=None, derandomize=True, phases=[Phase.generate])
    @given(histories(policy))
    def nobody_sees_a_failure_while_there_is_a_value(history: tuple[Moment, ...]) -> None:
        for moment in history:
            value = cached_value(moment)
            if value is not None:
                assert all(reply.hit for reply in moment.listed(Reply)), "answered from a remembered failure"
                assert all(join.falls_back for join in moment.listed(Join)), "waits, and would not take the old value"
            for settle in moment.listed(Settle):
                if not settle.answer.good and may_store(moment, settle):
                    assert settle.fallback == value

    try:
        nobody_sees_a_failure_while_there_is_a_value()
    except AssertionError:
        return True
    return False


def cached_value(moment: Moment) -> object:
    """What was cached before the moment; None where nothing was."""
    partition = moment.before.partitions.get(GLOBAL_OWNER)
    entry = None if partition is None else partition.entries.get("price")
    return None if entry is None else entry.answer


def may_store(moment: Moment, settle: Settle[object]) -> bool:
    """Whether nothing has overtaken the flight: it began before an invalidation, what is cached now came after."""
    partition = moment.before.partitions.get(GLOBAL_OWNER)
    return partition is not None and settle.flight_id in (partition.flights.get("price") or ())


def main() -> None:
    with_threads()
    asyncio.run(with_asyncio())
    assert not breaks_the_promise(STALE_IF_ERROR)
    assert breaks_the_promise(CachePolicy.CACHE_FIRST), "the property would find a row that does less"
    print("stale_if_error: both faces serve the old value through an outage, no history breaks the promise")


if __name__ == "__main__":
    main()
