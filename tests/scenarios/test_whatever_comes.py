"""Any load, any lifetime, and a store in which chance decides: what a cache promises all the same."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from returns.result import Result, Success

from cachemesh import Cache, CacheScope, SyncCache
from cachemesh.stores import MemoryStore
from cachemesh.testing import (
    ChaosStore,
    ScriptedOrigin,
    VirtualClock,
    assert_never_stale_beyond,
    assert_never_two_at_once,
    run,
    strategies,
)
from tests.core.rows import law

if TYPE_CHECKING:
    from cachemesh import Lifetime
    from cachemesh.simulation import Request
    from cachemesh.testing.scripted_origin import Asked

ROUNDING_S = 1e-6


def longest_s(lifetime: Lifetime) -> float:
    """No value is older when it is answered: the origin never fails here, so only one window counts."""
    return inf if lifetime.ttl_s is None else lifetime.ttl_s + lifetime.lifespan.serve_stale_s + ROUNDING_S


def named(request: Request) -> str:
    """What the origin is asked for: each user's own."""
    return f"{request.key} of {request.user}"


def told(asked: Asked) -> Result[tuple[str, int], str]:
    return Success((asked.key, asked.number))


def chaos(seed: int) -> ChaosStore:
    return ChaosStore(MemoryStore(), seed=seed, fail=0.2, fail_after=0.1, lose=0.1)


@law(strategies.traces(max_size=25), strategies.lifetimes(), st.integers(0, 2**16), st.sets(st.integers(0, 24)))
def test_threads_get_an_answer_of_their_own_that_is_no_older_than_its_lifetime_nor_than_a_removal(
    trace: list[Request], lifetime: Lifetime, seed: int, removals: set[int]
) -> None:
    clock = VirtualClock()
    origin = ScriptedOrigin(told, clock=clock)
    store = chaos(seed)
    for half in (trace[: len(trace) // 2], trace[len(trace) // 2 :]):
        removed: dict[str, int] = {}
        with SyncCache(clock=clock, store=store, default_ttl=lifetime) as cache:
            for number, request in enumerate(half):
                clock.advance_to(request.at)
                view = cache if request.user is None else cache.for_user(request.user)
                scope = CacheScope.GLOBAL if request.user is None else CacheScope.USER
                place = named(request)
                if number in removals:
                    view.invalidate(request.key, scope=scope)
                    removed[place] = origin.times(place)
                answer = origin.seen(view.get(request.key, origin.sync_fetcher(place), scope=scope))
                whose, version = answer.unwrap()
                assert whose == place, store
                assert version > removed.get(place, 0), store
    if trace:
        assert_never_two_at_once(origin)
        assert_never_stale_beyond(longest_s(lifetime), origin)


@law(strategies.traces(max_size=15, max_gap_s=60.0), strategies.lifetimes(), st.integers(0, 2**16))
def test_tasks_that_ask_at_once_get_the_same_from_one_fetch(
    trace: list[Request], lifetime: Lifetime, seed: int
) -> None:
    clock = VirtualClock()
    origin = ScriptedOrigin(told, clock=clock, takes=0.5)
    store = chaos(seed)

    async def main() -> None:
        async with Cache(clock=clock, store=store, default_ttl=lifetime) as cache:
            for request in trace:
                await asyncio.sleep(max(0.0, request.at - clock()))
                fetch = origin.fetcher(request.key)
                asking = [asyncio.ensure_future(cache.get(request.key, fetch)) for _ in range(3)]
                answers = [await each for each in asking]
                assert answers == [origin.seen(answers[0])] * 3, store
                assert answers[0].unwrap()[0] == request.key

    run(main(), clock=clock)
    if trace:
        assert_never_two_at_once(origin)
        assert_never_stale_beyond(longest_s(lifetime), origin)
