"""What went wrong in other caches, and must not in this one: lifetimes, invalidation in flight, timeouts.

Each case bears the number under which the bug was reported, says what it was,
and shows what ours does instead. Nothing here sleeps.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from returns.result import Failure, Success

from cachemesh import Cache, CacheMiss, CachePolicy, FetchTimeout, Fresh, Lifetime, SyncCache, retry_after
from cachemesh.testing.clock import VirtualClock
from tests.conftest import async_worlds
from tests.scenarios.conftest import sync_worlds
from tests.scenarios.helpers import guarded, in_real_time, under_way

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.shell.faces import AsyncFace, Face, Fetch, Pending

OLD, NEW, NEWER = Success("old"), Success("new"), Success("newer")
DOWN = Failure("down")
MISS = Failure(CacheMiss("k"))

DAY_S = 86_400.0


# What is removed while it is being fetched

LOADS = ["miss", "expired", "refresh", "behind", "ahead", "after a soft timeout"]
REMOVALS: dict[str, Callable[[Face], object]] = {
    "invalidate": lambda face: face.invalidate("k"),
    "invalidate_prefix": lambda face: face.at_once("invalidate_prefix", "k"),
    "invalidate_tag": lambda face: face.at_once("invalidate_tag", "t"),
    "clear": lambda face: face.clear(),
}


def load(face: Face, kind: str, fetch: Fetch, **options: Any) -> Pending | None:
    """Let a fetch of `k` be under way, of the given kind. None: nobody waits for it."""
    life = Lifetime(ttl=10, serve_stale_for=100, refresh_ahead=0.1 if kind == "ahead" else None)
    if kind != "miss":
        face.fill("k", "old", ttl=10 if kind in {"expired", "after a soft timeout"} else life, **options)
        face.clock.advance(5 if kind == "ahead" else 20)
    if kind in {"miss", "expired"}:
        return face.begin.get("k", fetch, **options)
    if kind == "refresh":
        return face.begin.refresh("k", fetch, **options)
    if kind in {"behind", "ahead"}:
        assert face.get("k", fetch, ttl=life, **options) == OLD
        face.settle()
        assert fetch.calls == 1
        return None
    waiting = face.begin.get("k", fetch, soft_timeout=1, **options)
    face.clock.advance(1)
    assert waiting.result() == OLD
    return None


@pytest.mark.parametrize("kind", LOADS)
@pytest.mark.parametrize("removal", ["invalidate", "invalidate_prefix", "clear"])
def test_fusioncache_625_remove_during_a_load_is_not_lost(face: Face, kind: str, removal: str) -> None:
    """A `Remove(key)` that came while the factory ran was forgotten, and the old value served for a whole duration.

    Ours: who waited gets the answer; it is stored nowhere; who asks after the removal is answered by a newer fetch.
    """
    stale = face.fetcher(NEW, held=True)
    waiting = load(face, kind, stale)
    REMOVALS[removal](face)
    fresh = face.fetcher(NEWER)
    assert face.get("k", fresh, ttl=60) == NEWER
    stale.release()
    if waiting is not None:
        assert waiting.result() == NEW
    face.settle()
    assert face.peek("k") == NEWER
    assert face.get("k", face.fetcher(DOWN)) == NEWER
    assert (stale.calls, fresh.calls, under_way(face.cache)) == (1, 1, 0)


@pytest.mark.parametrize("kind", LOADS)
@pytest.mark.parametrize("removal", REMOVALS)
def test_fusioncache_625_remove_and_nothing_after_it_leaves_nothing(face: Face, kind: str, removal: str) -> None:
    """The same where nobody asks in between: nothing comes back."""
    stale = face.fetcher(NEW, held=True)
    waiting = load(face, kind, stale, tags=("t",))
    REMOVALS[removal](face)
    stale.release()
    if waiting is not None:
        assert waiting.result() == NEW
    face.settle()
    assert face.peek("k", allow_expired=True) == MISS
    assert under_way(face.cache) == 0


@pytest.mark.parametrize("known", ["by the caller", "by the answer", "by both"])
@pytest.mark.parametrize("order", ["invalidate_tag", "expire_tag"])
def test_fusioncache_535_invalidation_during_a_load_counts_from_its_begin(face: Face, known: str, order: str) -> None:
    """The entry's timestamp was taken when the factory ended: an order given while it ran looked older, and was void.

    Ours stamps an entry with the begin of its fetch, also where the tag comes only with the answer.
    """
    tags = () if known == "by the answer" else ("t",)
    said = Success("old") if known == "by the caller" else Success(Fresh("old", tags=("t",)))
    stale = face.fetcher(said, held=True)
    before = face.begin.get("k", stale, tags=tags)
    face.clock.advance(1)
    face.at_once(order, "t")
    face.clock.advance(1)
    fresh = face.fetcher(Success(Fresh("new", tags=("t",))))
    after = face.begin.get("k", fresh, tags=tags)
    stale.release()
    assert before.result() == OLD
    assert after.result() == NEW
    face.settle()
    assert face.peek("k") == NEW
    assert fresh.calls == 1
    assert under_way(face.cache) == 0


@pytest.mark.parametrize("kind", ["behind", "ahead", "after a soft timeout"])
@pytest.mark.parametrize("order", ["invalidate_tag", "expire_tag"])
@pytest.mark.parametrize("known", ["by the caller", "by the answer"])
def test_fusioncache_628_tag_order_is_not_lost_to_a_fetch_behind(face: Face, kind: str, order: str, known: str) -> None:
    """`RemoveByTag` raced an eager refresh, was lost, and the entry that the refresh brought was served on.

    Ours: what a fetch behind brings is as old as its begin. Gone is gone, and stale is stale.
    """
    stale = face.fetcher(Success(Fresh("new", tags=("t",))) if known == "by the answer" else NEW, held=True)
    load(face, kind, stale, tags=() if known == "by the answer" else ("t",))
    face.clock.advance(1)
    face.at_once(order, "t")
    face.clock.advance(1)
    stale.release()
    face.settle()
    assert not face.inspect("k").is_fresh
    assert face.get("k", face.fetcher(NEWER), policy=CachePolicy.NETWORK_FIRST) == NEWER
    if order == "invalidate_tag":
        face.invalidate("k")
    assert under_way(face.cache) == 0


@pytest.mark.parametrize("grace", [0, 600])
@pytest.mark.parametrize("if_error", [0, 600])
def test_bentocache_71_hard_invalidation_by_tag_knows_no_grace(face: Face, grace: float, if_error: float) -> None:
    """`deleteByTag` with a grace period went on answering the deleted value, as it only made it stale.

    Ours has two orders. After the hard one no window helps the value; after the soft one its windows begin.
    """
    life = Lifetime(ttl=120, serve_stale_for=grace, stale_if_error_for=if_error)
    for order in ("invalidate_tag", "expire_tag"):
        face.fill("k", "old", ttl=life, tags=("x", "z"))
        face.at_once(order, "x")
        is_gone = order == "invalidate_tag"
        assert face.peek("k", allow_expired=True) == (MISS if is_gone else OLD)
        served = not is_gone and (grace or if_error)
        assert face.get("k", face.fetcher(DOWN), ttl=life, tags=("x",)) == (OLD if served else DOWN)
        face.settle()
        expected = OLD if not is_gone and grace else NEW
        if expected == NEW:
            face.at_once("invalidate_tag", "x")
        assert face.get("k", face.fetcher(NEW), ttl=life, tags=("x",)) == expected
        face.settle()
        face.invalidate("k")


# How long


def jittered(face: Face) -> Iterator[tuple[Face, Lifetime]]:
    """Caches whose jitter takes nothing, something, and nearly all."""

    class Constant(random.Random):
        def __init__(self, number: float) -> None:
            super().__init__(0)
            self._number = number

        def random(self) -> float:
            return self._number

    for number in (0.0, 0.3, 0.999):
        life = Lifetime(ttl=180, jitter=1.0, failure_ttl=10, refresh_backoff=20, stale_if_error_for=60)
        other = face.new(rng=Constant(number), default_ttl=life)
        yield other, life
        other.close()


def test_fusioncache_374_jitter_is_for_values_and_not_for_failures(face: Face) -> None:
    """The jitter of the duration was also added to the throttle after a failure: a throttle of zero was none.

    Ours takes jitter from the ttl of a value alone: not from `failure_ttl`, nor from a back-off, nor from a window.
    """
    for other, life in jittered(face):
        other.get("f", other.fetcher(DOWN))
        face.clock.advance(9.999)
        assert other.has_cached_failure("f")
        face.clock.advance(0.001)
        assert not other.has_cached_failure("f")

        instant = Lifetime(ttl=180, jitter=1.0, failure_ttl=0)
        fetch = other.fetcher(DOWN, NEW)
        assert [other.get("g", fetch, ttl=instant) for _ in range(2)] == [DOWN, NEW]

        other.get("k", other.fetcher(OLD))
        ttl = other.inspect("k").ttl
        assert ttl is not None
        began, lives_s = face.clock(), ttl.total_seconds()
        face.clock.advance_to(began + lives_s + 1)
        fetch = other.fetcher(DOWN)
        for _ in range(40):
            assert other.get("k", fetch) == OLD
            other.settle()
            face.clock.advance(1)
        assert fetch.calls == 2  # 20 seconds apart.
        face.clock.advance_to(began + lives_s + 59.9)
        assert other.get("k", fetch) == OLD
        face.clock.advance_to(began + lives_s + 60.1)
        assert other.get("k", fetch, ttl=life) == DOWN


class Refusal(Exception):
    def __init__(self, after: float) -> None:
        super().__init__(after)
        self.retry_after = after


@pytest.mark.parametrize("seconds", [1, 10, 300])
def test_cashews_149_ttl_may_follow_from_what_was_fetched(face: Face, seconds: float) -> None:
    """A ttl function saw the arguments, but not the result: nobody could keep an error for longer, or an answer shorter.

    Ours: an answer brings its ttl (`Fresh`), a failure is remembered for as long as a function of the error says.
    """
    fetch = face.fetcher(lambda: Success(Fresh("old", ttl=seconds)), lambda: Success(Fresh("new", ttl=2 * seconds)))
    for _ in range(2):
        assert face.get("k", fetch, ttl=60) == OLD
    face.clock.advance(seconds)
    for _ in range(2):
        assert face.get("k", fetch, ttl=60) == NEW
    face.clock.advance(2 * seconds - 0.001)
    assert face.get("k", fetch, ttl=60) == NEW
    assert fetch.calls == 2

    life = Lifetime(ttl=60, failure_ttl=retry_after)
    failing = face.fetcher(Failure(Refusal(seconds)), NEW)
    first = face.get("f", failing, ttl=life)
    face.clock.advance(seconds - 0.001)
    assert face.get("f", failing, ttl=life) == first
    face.clock.advance(0.001)
    assert face.get("f", failing, ttl=life) == NEW


FAILURES: list[Any] = [DOWN, ConnectionError("down"), lambda *_: 5]


@pytest.mark.parametrize("outcome", FAILURES, ids=["returned", "raised", "no result"])
@pytest.mark.parametrize("policy", [CachePolicy.CACHE_FIRST, CachePolicy.NETWORK_FIRST])
def test_hishel_306_stale_on_error_has_an_end(face: Face, outcome: Any, policy: CachePolicy) -> None:
    """`allow_stale` answered an expired response for ever where the connection failed; a limit could not be given.

    Ours: `stale_if_error_for` is that limit, to the instant, and 0 where it is not given.
    """
    for window in (0.0, 1.0, 3_600.0):
        life = Lifetime(ttl=10, stale_if_error_for=window)
        for age, served in ((10 + window - 0.001, window > 0), (10 + window, False), (10 + window + 10**6, False)):
            face.fill("k", "old", ttl=life)
            face.clock.advance(age)
            answer = face.get("k", face.fetcher(outcome), policy=policy, ttl=life)
            assert (answer == OLD) == (served or age < 10)
            face.settle()
            face.clear()


@pytest.mark.parametrize("kind", ["async", "sync"])
@given(
    passes=st.lists(st.floats(min_value=0, max_value=40), max_size=12),
    window=st.floats(min_value=0, max_value=60),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_hishel_306_stale_on_error_is_never_older_than_its_limit(kind: str, passes: list[float], window: float) -> None:
    """The same as a law: an origin that is down for good, and whatever time passes between the calls."""
    clock = VirtualClock(now=1_767_225_600.0)
    life = Lifetime(ttl=10, stale_if_error_for=window)
    for face in (async_worlds if kind == "async" else sync_worlds)(clock):
        face.fill("k", "old", ttl=life)
        began = clock()
        for seconds in passes:
            clock.advance(seconds)
            answer = face.get("k", face.fetcher(DOWN), ttl=life, cache_failures=False)
            assert answer == (OLD if clock() < began + 10 or clock() < began + 10 + window else DOWN)


MONTHS = [24.8 * DAY_S, 2**31 / 1_000, 2**31 / 1_000 + 1, 25 * DAY_S, 2.0**31, 2.0**32 / 1_000, 50 * 365 * DAY_S]


@pytest.mark.parametrize("seconds", MONTHS)
def test_tanstack_10264_a_long_time_is_not_no_time(face: Face, seconds: float) -> None:
    """A gcTime of more than 24 days, which is 2**31 milliseconds, became 0: nothing was kept, and fetched for ever.

    Ours reckons in seconds and sets no timer for an entry: what is given holds, up to a century.
    """
    long = timedelta(seconds=seconds)
    life = Lifetime(ttl=long, serve_stale_for=long, stale_if_error_for=long, failure_ttl=long, refresh_ahead=0.5)
    began = face.clock()
    fetch = face.fetcher(OLD, DOWN)
    assert face.get("k", fetch, ttl=life) == OLD
    assert face.get("f", face.fetcher(DOWN), ttl=life) == DOWN
    for instant in (1.0, seconds / 3):
        face.clock.advance_to(began + instant)
        assert face.get("k", fetch, ttl=life) == OLD
        assert face.has_cached_failure("f")
    face.settle()
    assert fetch.calls == 1
    face.clock.advance_to(began + seconds - 1)
    assert face.inspect("k").is_fresh
    face.clock.advance_to(began + seconds + 1)
    assert face.inspect("k").is_stale
    assert not face.has_cached_failure("f")
    face.clock.advance_to(began + 2 * seconds - 1)
    assert face.get("k", face.fetcher(DOWN), ttl=life) == OLD
    face.settle()
    face.clock.advance_to(began + 2 * seconds + 1)
    assert face.get("k", face.fetcher(DOWN), ttl=life) == DOWN


@pytest.mark.parametrize("seconds", [*MONTHS, 100 * 365 * DAY_S])
@pytest.mark.parametrize("option", ["soft_timeout", "hard_timeout", "max_flight_age"])
def test_tanstack_10264_a_long_patience_is_not_no_patience(face: Face, option: str, seconds: float) -> None:
    """The same for the timers that there are: of those who wait."""
    face.fill("k", "old", ttl=1)
    face.clock.advance(2)
    fetch = face.fetcher(NEW, held=True)
    waiting = face.begin.call("get", "k", fetch, **{option: seconds})
    face.clock.advance(seconds - 10)
    face.settle()
    assert not waiting.is_done
    fetch.release()
    assert waiting.result() == NEW


@pytest.mark.parametrize("option", ["soft_timeout", "hard_timeout", "max_flight_age"])
def test_tanstack_10264_the_systems_own_timers_take_a_century(option: str) -> None:
    """In real time, with a fetch that lets others run once. Nothing overflows."""
    options: Any = {option: 100 * 365 * DAY_S}

    async def fetch() -> Success[str]:
        await asyncio.sleep(0)
        return Success("new")

    async def main() -> object:
        async with Cache() as cache:
            return await cache.get("k", fetch, **options)

    def same() -> object:
        with SyncCache() as cache:
            return cache.get("k", lambda: NEW, **options)

    assert in_real_time(main()) == NEW
    assert guarded(same) == NEW


# Many at once


@pytest.mark.parametrize("soft", [0, 1])
@pytest.mark.parametrize("late", ["answers", "fails"])
def test_fusioncache_567_burst_with_timeouts_does_not_get_stuck_on_an_old_value(
    face: Face, soft: float, late: str
) -> None:
    """Factory timeouts under bursts to one resource left some instances with the old value for good.

    (So says its neighbour #560; the report of this number could not be read here.)

    Ours: however many were answered the old value, the fetch that goes on is one, its answer is everybody's next one,
    and where it fails the next burst fetches anew.
    """
    face.fill("k", "old", ttl=10)
    for _ in range(3):
        face.clock.advance(20)
        fetch = face.fetcher(NEW if late == "answers" else DOWN, held=True)
        burst = [face.begin.get("k", fetch, ttl=10, soft_timeout=soft, hard_timeout=5) for _ in range(10)]
        face.clock.advance(soft)
        answers = [each.result() for each in burst]
        assert answers in ([OLD] * 10, [NEW] * 10)
        fetch.release()
        face.settle()
        assert fetch.calls == 1
        if late == "answers":
            assert face.peek("k") == NEW
        assert under_way(face.cache) == 0
    assert face.get("k", face.fetcher(NEWER), policy=CachePolicy.NETWORK_FIRST) == NEWER


@pytest.mark.parametrize(
    "orders", list(itertools.permutations(["first fails late", "second answers", "third gives up"]))
)
def test_fusioncache_567_late_failure_hides_no_newer_value(face: Face, orders: tuple[str, ...]) -> None:
    """Flights that were given up end in any order; what the last one stored that was not, stands."""
    first, second, third = face.fetcher(DOWN, held=True), face.fetcher(NEW, held=True), face.fetcher(OLD, held=True)
    patient = face.begin.get("k", first)
    gone = face.begin.get("k", first, hard_timeout=1)
    face.clock.advance(1)
    assert gone.result() == Failure(FetchTimeout("k", 1.0))
    newer = face.begin.get("k", second)
    last = face.begin.get("l", third, hard_timeout=1)
    for order in orders:
        if order == "first fails late":
            first.release()
            assert patient.result() == DOWN
        elif order == "second answers":
            second.release()
            assert newer.result() == NEW
        else:
            face.clock.advance(1)
            assert last.result() == Failure(FetchTimeout("l", 1.0))
            third.release()
    face.settle()
    assert face.peek("k") == NEW
    assert not face.has_cached_failure("k")
    assert under_way(face.cache) == 0


@pytest.mark.parametrize("at_once", [1, 2, 4, 8])
def test_aiocache_1033_callers_behind_a_limit_fetch_once(async_face: AsyncFace, at_once: int) -> None:
    """With a semaphore around the calls the whole first batch missed, and each of its members fetched.

    (So says its neighbour #1041; the report of this number could not be read here.)

    Ours: who asks for the same key at the same time shares one fetch, whatever stands around the calls.
    """
    cache, fetch = async_face.cache, async_face.fetcher(NEW, takes=2)

    async def main() -> list[Any]:
        limit = asyncio.Semaphore(at_once)

        async def call() -> Any:
            async with limit:
                return await cache.get("k", fetch, ttl=300, hard_timeout=60)

        return list(await asyncio.gather(*(call() for _ in range(8))))

    assert async_face.runner.run(main()) == [NEW] * 8
    assert fetch.calls == 1
