"""`Lifetime`, wherever a ttl is taken: how long a value is fresh, and what it is good for after that."""

from __future__ import annotations

import math
import pickle
import random
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from returns.result import Failure, Result, Success

from cachemesh import (
    BreakerOptions,
    Cache,
    CacheExpired,
    CacheMiss,
    CachePolicy,
    CacheScope,
    FetchRaised,
    Fresh,
    InvalidTtl,
    Lifetime,
    NotModified,
    RetryOptions,
    SyncCache,
    cached,
    retry_after,
)
from cachemesh.testing.clock import VirtualClock
from tests.conftest import async_worlds, sync_worlds
from tests.scenarios.helpers import under_way

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shell.faces import Face

OLD, NEW = Success("old"), Success("new")
DOWN = Failure("down")
CACHE_FIRST, NETWORK_FIRST = CachePolicy.CACHE_FIRST, CachePolicy.NETWORK_FIRST
SWR, CACHE_ONLY = CachePolicy.STALE_WHILE_REVALIDATE, CachePolicy.CACHE_ONLY

LIFE = Lifetime(ttl="1m", serve_stale_for="30s", stale_if_error_for=timedelta(minutes=1))


# Wherever a ttl is taken


def by_get(face: Face, life: Lifetime) -> None:
    face.get("k", face.fetcher(OLD), ttl=life)


def by_refresh(face: Face, life: Lifetime) -> None:
    face.refresh("k", face.fetcher(OLD), ttl=life)


def by_prefetch(face: Face, life: Lifetime) -> None:
    face.prefetch("k", face.fetcher(OLD), ttl=life)


def by_network_first(face: Face, life: Lifetime) -> None:
    face.get("k", face.fetcher(OLD), ttl=life, policy=NETWORK_FIRST)


def by_a_token(face: Face, life: Lifetime) -> None:
    face.get_authenticated("k", face.fetcher(OLD), ttl=life, scope=CacheScope.GLOBAL)


def by_put(face: Face, life: Lifetime) -> None:
    assert face.at_once("put", "k", "old", ttl=life) == OLD


def by_touch(face: Face, life: Lifetime) -> None:
    face.fill("k", "old", ttl=1)
    face.clock.advance(5)
    assert face.at_once("touch", "k", ttl=life) == Success(None)


def by_answer(face: Face, life: Lifetime) -> None:
    face.get("k", face.fetcher(Success(Fresh("old", ttl=life))), ttl=5)


def by_renewal(face: Face, life: Lifetime) -> None:
    face.fill("k", "old", ttl=1)
    face.clock.advance(5)
    face.get("k", face.fetcher(Success(NotModified(ttl=life))), ttl=5, conditional=True)


def by_many(face: Face, life: Lifetime) -> None:
    fetch = face.fetcher(lambda keys: dict.fromkeys(keys, OLD))
    assert face.call("get_many", ["k"], fetch, ttl=life) == {"k": OLD}


WAYS = [by_get, by_refresh, by_prefetch, by_network_first, by_a_token, by_put, by_touch, by_answer, by_renewal, by_many]


@pytest.mark.parametrize("way", WAYS)
def test_a_lifetime_is_taken_wherever_a_ttl_is(face: Face, way: Callable[[Face, Lifetime], None]) -> None:
    other = face.new(token_keeper=face.keeper("token"))
    way(other, LIFE)
    lives_as_life(other)
    other.close()


def test_the_cache_has_a_default_lifetime(face: Face) -> None:
    other = face.new(default_ttl=LIFE)
    other.get("k", other.fetcher(OLD))
    lives_as_life(other)
    other.close()


def test_a_put_takes_the_default_lifetime(face: Face) -> None:
    other = face.new(default_ttl=LIFE)
    other.at_once("put", "k", "old")
    lives_as_life(other)
    other.close()


@pytest.mark.parametrize("scope", list(CacheScope))
def test_a_view_takes_a_lifetime(face: Face, scope: CacheScope) -> None:
    view = face.for_user("alice")
    view.get("k", view.fetcher(OLD), ttl=LIFE, scope=scope)
    lives_as_life(view, scope=scope)


def test_a_cached_function_takes_a_lifetime(face: Face) -> None:
    answers = face.fetcher(OLD, NEW)
    function: Any
    if isinstance(face.cache, Cache):

        async def fetched(name: str) -> Result[str, str]:
            answer: Result[str, str] = await answers(name)
            return answer

        function = cached(face.cache, key="{name}", ttl=LIFE)(fetched)
    else:

        def got(name: str) -> Result[str, str]:
            answer: Result[str, str] = answers(name)
            return answer

        function = cached(face.cache, key="{name}", ttl=LIFE)(got)

    def call() -> Any:
        if isinstance(face.cache, Cache):
            return face.runner.run(function("k"))  # type: ignore[attr-defined]  # an AsyncFace
        return function("k")

    assert call() == OLD
    face.clock.advance(89)
    assert call() == OLD
    face.settle()
    assert call() == NEW
    assert answers.calls == 2


def lives_as_life(face: Face, **options: Any) -> None:
    """`k` holds "old", which lives as `LIFE` says from now on."""
    began, fetch, down = face.clock(), face.fetcher(NEW), face.fetcher(DOWN)
    assert face.get("k", fetch, **options) == OLD
    face.clock.advance_to(began + 59.9)
    assert face.get("k", fetch, **options) == OLD
    assert face.inspect("k").is_fresh
    face.clock.advance_to(began + 60)
    assert face.inspect("k").is_stale
    assert face.get("k", down, policy=SWR, **options) == OLD
    face.settle()
    assert (fetch.calls, down.calls) == (0, 1)
    face.clock.advance_to(began + 89.9)
    assert face.get("k", fetch, **options) == OLD  # After the failure just now, the next refresh waits.
    assert fetch.calls == 0
    face.clock.advance_to(began + 90)
    assert face.get("k", down, **options) == OLD  # Expired; but the fetch fails.
    assert down.calls == 2
    face.clock.advance_to(began + 119.9)
    assert face.get("k", down, policy=NETWORK_FIRST, **options) == OLD
    face.clock.advance_to(began + 120)
    assert face.get("k", down, **options) == DOWN
    assert face.get("k", down, policy=NETWORK_FIRST, **options) == DOWN
    assert face.get("k", fetch, **options) == NEW


# The windows


def test_in_its_grace_a_value_is_served_and_refreshed_behind(face: Face) -> None:
    life = Lifetime(ttl=10, serve_stale_for=5)
    face.fill("k", "old", ttl=life)
    face.clock.advance(14.9)
    fetch = face.fetcher(NEW, held=True)
    for _ in range(3):
        assert face.get("k", fetch, ttl=life) == OLD
        face.settle()
    assert fetch.calls == 1
    fetch.release()
    face.settle()
    assert face.get("k", fetch) == NEW
    assert fetch.calls == 1


@pytest.mark.parametrize(
    ("policy", "answer", "fetches"),
    [(CACHE_FIRST, OLD, 1), (SWR, OLD, 1), (NETWORK_FIRST, NEW, 1), (CACHE_ONLY, Failure(CacheExpired("k")), 0)],
    ids=lambda each: getattr(each, "name", None),
)
def test_what_each_policy_makes_of_grace(face: Face, policy: CachePolicy, answer: Any, fetches: int) -> None:
    face.fill("k", "old", ttl=Lifetime(ttl=10, serve_stale_for=5))
    face.clock.advance(10)
    fetch = face.fetcher(NEW)
    assert face.get("k", fetch, policy=policy) == answer
    face.settle()
    assert fetch.calls == fetches


@pytest.mark.parametrize("policy", [CACHE_FIRST, SWR, NETWORK_FIRST])
def test_beyond_its_grace_a_value_is_never_served_while_it_is_refreshed(face: Face, policy: CachePolicy) -> None:
    face.fill("k", "old", ttl=Lifetime(ttl=10, serve_stale_for=5))
    face.clock.advance(15)
    fetch = face.fetcher(NEW, held=True)
    waiting = face.begin.get("k", fetch, policy=policy)
    assert not waiting.is_done
    fetch.release()
    assert waiting.result() == NEW


@pytest.mark.parametrize("outcome", [DOWN, ValueError("down"), TypeError("down")], ids=["returns", "raises", "a bug"])
@pytest.mark.parametrize("age", [10, 69.9])
def test_stale_if_error_serves_whatever_the_failure_is(face: Face, outcome: Any, age: float) -> None:
    life = Lifetime(ttl=10, stale_if_error_for=60)
    face.fill("k", "old", ttl=life)
    face.clock.advance(age)
    fetch = face.fetcher(outcome)
    assert face.get("k", fetch, ttl=life) == OLD
    assert fetch.calls == 1
    assert len(face.log.named("error")) == 1


def test_stale_if_error_ends_with_its_window(face: Face) -> None:
    face.fill("k", "old", ttl=Lifetime(ttl=10, stale_if_error_for=60))
    face.clock.advance(70)
    assert face.get("k", face.fetcher(DOWN)) == DOWN


def test_stale_if_error_is_judged_when_the_fetch_fails(face: Face) -> None:
    """The value was young enough as the fetch began, and is not any more as it fails."""
    face.fill("k", "old", ttl=Lifetime(ttl=10, stale_if_error_for=60))
    face.clock.advance(65)
    assert face.get("k", face.fetcher(DOWN, takes=10)) == DOWN


def test_stale_if_error_serves_joiners_too_but_not_a_refresh(face: Face) -> None:
    face.fill("k", "old", ttl=Lifetime(ttl=10, stale_if_error_for=60))
    face.clock.advance(20)
    fetch = face.fetcher(DOWN, held=True)
    leader, joiner, refresher = (
        face.begin.get("k", fetch),
        face.begin.get("k", fetch),
        face.begin.refresh("k", fetch),
    )
    fetch.release()
    assert (leader.result(), joiner.result(), refresher.result()) == (OLD, OLD, DOWN)
    assert fetch.calls == 1


def test_stale_if_error_goes_before_a_remembered_failure(face: Face) -> None:
    life = Lifetime(ttl=10, stale_if_error_for=60, failure_ttl=60)
    face.fill("k", "old", ttl=life)
    face.clock.advance(20)
    fetch = face.fetcher(DOWN)
    assert [face.get("k", fetch, ttl=life) for _ in range(5)] == [OLD] * 5
    assert fetch.calls == 1


def test_an_attempt_that_times_out_is_a_failure_for_the_window(async_face: Face) -> None:
    async_face.fill("k", "old", ttl=Lifetime(ttl=10, stale_if_error_for=60))
    async_face.clock.advance(20)
    retry = RetryOptions(max_attempts=1, attempt_timeout=5)
    assert async_face.get("k", async_face.fetcher(NEW, takes=6), retry=retry) == OLD


def test_an_invalidation_ends_all_windows(face: Face) -> None:
    face.fill("k", "old", ttl=Lifetime(ttl=10, serve_stale_for=60, stale_if_error_for=60))
    face.clock.advance(20)
    face.invalidate("k")
    assert face.get("k", face.fetcher(DOWN)) == DOWN


# Refreshing ahead


def test_a_value_is_refreshed_ahead_of_its_expiry(face: Face) -> None:
    life = Lifetime(ttl=100, refresh_ahead=0.8)
    face.fill("k", "old", ttl=life)
    fetch = face.fetcher(NEW, held=True)
    face.clock.advance(79.9)
    assert face.get("k", fetch, ttl=life) == OLD
    face.settle()
    assert fetch.calls == 0
    face.clock.advance(0.1)
    for _ in range(3):
        assert face.get("k", fetch, ttl=life) == OLD
        face.settle()
    assert fetch.calls == 1
    fetch.release()
    face.settle()
    face.clock.advance(30)
    assert face.get("k", fetch, ttl=life) == NEW
    assert fetch.calls == 1


def test_a_refresh_ahead_that_fails_waits_before_the_next_one(face: Face) -> None:
    life = Lifetime(ttl=100, refresh_ahead=0.5, refresh_backoff=10)
    face.fill("k", "old", ttl=life)
    face.clock.advance(50)
    fetch = face.fetcher(DOWN)
    for _ in range(40):
        assert face.get("k", fetch, ttl=life) == OLD
        face.settle()
        face.clock.advance(1)
    assert fetch.calls == 4


@pytest.mark.parametrize(("share", "refreshes"), [(None, 0), (1.0, 0), (0.0, 1)])
def test_the_ends_of_the_share(face: Face, share: float | None, refreshes: int) -> None:
    face.fill("k", "old", ttl=Lifetime(ttl=100, refresh_ahead=share))
    face.clock.advance(1)
    fetch = face.fetcher(NEW)
    assert face.get("k", fetch) == OLD
    face.settle()
    assert fetch.calls == refreshes


@pytest.mark.parametrize(
    ("policy", "answer", "fetches"),
    [(CACHE_FIRST, OLD, 1), (SWR, OLD, 1), (NETWORK_FIRST, NEW, 1), (CACHE_ONLY, OLD, 0)],
    ids=lambda each: getattr(each, "name", None),
)
def test_what_each_policy_makes_of_an_ageing_value(face: Face, policy: CachePolicy, answer: Any, fetches: int) -> None:
    face.fill("k", "old", ttl=Lifetime(ttl=100, refresh_ahead=0.5))
    face.clock.advance(60)
    fetch = face.fetcher(NEW)
    assert face.get("k", fetch, policy=policy) == answer
    face.settle()
    assert fetch.calls == fetches


def test_a_value_without_a_ttl_has_nothing_to_be_ahead_of(face: Face) -> None:
    face.fill("k", "old", ttl=Lifetime(refresh_ahead=0.1, serve_stale_for=1, jitter=1))
    face.clock.advance(10**9)
    fetch = face.fetcher(NEW)
    assert face.get("k", fetch) == OLD
    face.settle()
    assert fetch.calls == 0


# Jitter


def lifetimes(face: Face, count: int, life: Any, act: str = "get") -> list[float]:
    found = []
    for number in range(count):
        key = f"k{number}"
        if act == "put":
            face.at_once("put", key, "v", ttl=life)
        elif act == "answer":
            face.get(key, face.fetcher(Success(Fresh("v", ttl=life))))
        else:
            face.call(act, key, face.fetcher(Success("v")), ttl=life)
        ttl = face.inspect(key).ttl
        assert ttl is not None
        found.append(ttl.total_seconds())
    return found


@pytest.mark.parametrize("act", ["get", "refresh", "put", "answer"])
def test_jitter_spreads_what_is_stored_together(face: Face, act: str) -> None:
    other = face.new(rng=random.Random(7))
    found = lifetimes(other, 200, Lifetime(ttl=100, jitter=0.1), act)
    assert all(90 <= ttl <= 100 for ttl in found)
    assert max(found) - min(found) > 9
    assert len(set(found)) == 200
    other.close()


def test_jitter_is_seeded_and_alike_on_both_faces(clock: VirtualClock) -> None:
    found = []
    for worlds in (async_worlds, sync_worlds):
        for _ in range(2):
            for face in worlds(clock):
                other = face.new(rng=random.Random(7))
                found.append(lifetimes(other, 20, Lifetime(ttl=100, jitter=0.5)))
                other.close()
    assert found == [found[0]] * 4


def test_without_jitter_chance_has_no_say(face: Face) -> None:
    assert set(lifetimes(face, 20, Lifetime(ttl=100))) == {100.0}


def test_all_that_jitter_may_take_is_the_whole(face: Face) -> None:
    class Worst(random.Random):
        def random(self) -> float:
            return math.nextafter(1.0, 0.0)

    other = face.new(rng=Worst())
    fetch = other.fetcher(OLD, NEW)
    assert other.get("k", fetch, ttl=Lifetime(ttl=100, jitter=1)) == OLD
    face.clock.advance(0.001)
    assert other.get("k", fetch) == NEW
    other.close()


def test_tt6_jitter_spreads_the_fetches_of_many_keys(face: Face) -> None:
    """The short form of the night's figure: what was stored at one instant is fetched again over the whole jitter."""
    other = face.new(rng=random.Random(7))
    life = Lifetime(ttl=100, jitter=0.1)
    fetch = other.fetcher(OLD)
    for number in range(300):
        other.at_once("put", f"k{number}", "v", ttl=life)
    per_second = []
    face.clock.advance(89)
    for _ in range(12):
        face.clock.advance(1)
        before = fetch.calls
        for number in range(300):
            other.get(f"k{number}", fetch, ttl=life)
        per_second.append(fetch.calls - before)
    assert sum(per_second) == 300
    assert max(per_second) <= 2 * 300 / 10
    other.close()


# What is remembered of a failure


class Limited(Exception):
    def __init__(self, after: Any) -> None:
        super().__init__(after)
        self.retry_after = after


def remembered_s(face: Face, life: Any, outcome: Any, **options: Any) -> float:
    """For how long a failure is answered without another fetch, to the second."""
    fetch = face.fetcher(outcome)
    first = face.get("f", fetch, ttl=life, **options)
    for second in range(400):
        if not face.has_cached_failure("f"):
            return second
        assert face.get("f", fetch, ttl=life) == first
        assert fetch.calls == 1
        face.clock.advance(1)
    return math.inf


@pytest.mark.parametrize(
    ("failure_ttl", "outcome", "seconds"),
    [
        (5, DOWN, 5),
        ("2m", DOWN, 120),
        (timedelta(seconds=3), ValueError("down"), 3),
        (0, DOWN, 0),
        (lambda error: 7 if error == "down" else 1, DOWN, 7),
        (lambda error: "1m30s" if isinstance(error, ValueError) else 1, ValueError("down"), 90),
        (lambda _: timedelta(seconds=4), DOWN, 4),
        (lambda _: None, DOWN, 10),
        (retry_after, Failure(Limited(33)), 33),
        (retry_after, Limited(33.0), 33),
        (retry_after, Failure(Limited(timedelta(seconds=33))), 33),
        (retry_after, Failure(Limited("33s")), 33),
        (retry_after, DOWN, 10),
        (retry_after, Failure(Limited(None)), 10),
        (retry_after, Failure(Limited(-1)), 10),
        (retry_after, Failure(Limited("Wed, 21 Oct 2026 07:28:00 GMT")), 10),
        (retry_after, Failure(Limited(float("nan"))), 10),
    ],
    ids=str,
)
def test_a_failure_is_remembered_for_as_long_as_was_asked(
    face: Face, failure_ttl: Any, outcome: Any, seconds: float
) -> None:
    assert remembered_s(face, Lifetime(ttl=10, failure_ttl=failure_ttl), outcome) == seconds


def raises(error: object) -> float:
    raise LookupError(error)


class Unspeakable:
    @property
    def retry_after(self) -> float:
        raise LookupError


async def later(error: object) -> float:
    del error
    return 5.0


@pytest.mark.parametrize(
    "function",
    [
        raises,
        lambda: 5,
        later,
        lambda _: -1,
        lambda _: float("nan"),
        lambda _: float("inf"),
        lambda _: 1e20,
        lambda _: True,
        lambda _: "soon",
        lambda _: Decimal(5),
        lambda _: [5],
        lambda _: timedelta.max,
    ],
)
@pytest.mark.parametrize("outcome", [DOWN, ValueError("down")], ids=["returned", "raised"])
def test_a_failure_ttl_that_raises_or_talks_nonsense_costs_nothing(face: Face, function: Any, outcome: Any) -> None:
    """The caller gets the fetch's own failure, it is remembered for the ordinary time, and the logger hears why."""
    other = face.new()
    fetch = other.fetcher(outcome)
    life = Lifetime(ttl=10, failure_ttl=function)
    answer = other.get("k", fetch, ttl=life)
    expected = DOWN if outcome is DOWN else Failure(FetchRaised("k", outcome))
    assert answer == expected
    errors = other.log.named("error")
    assert len(errors) == 2
    assert isinstance(errors[0][2], Exception)
    assert errors[1] == ("error", "k", expected.failure())
    face.clock.advance(9.9)
    assert other.get("k", fetch, ttl=life) == expected
    assert fetch.calls == 1
    face.clock.advance(0.1)
    assert other.get("k", other.fetcher(NEW), ttl=life) == NEW
    assert under_way(other.cache) == 0
    other.close()


def test_an_error_that_does_not_want_to_be_asked_costs_nothing(face: Face) -> None:
    answer = face.get("k", face.fetcher(Failure(Unspeakable())), ttl=Lifetime(ttl=10, failure_ttl=retry_after))
    assert isinstance(answer.failure(), Unspeakable)
    assert face.has_cached_failure("k")


@pytest.mark.parametrize("function", [raises, lambda _: -1, lambda _: "soon"])
def test_a_broken_failure_ttl_does_not_touch_the_old_value(face: Face, function: Any) -> None:
    life = Lifetime(ttl=10, stale_if_error_for=60, failure_ttl=function)
    face.fill("k", "old", ttl=life)
    face.clock.advance(20)
    assert face.get("k", face.fetcher(DOWN), ttl=life) == OLD
    assert face.peek("k", allow_expired=True) == OLD


def test_a_call_may_decline_the_memory_of_failures(face: Face) -> None:
    life = Lifetime(ttl=10, failure_ttl=60)
    fetch = face.fetcher(DOWN)
    assert [face.get("k", fetch, ttl=life, cache_failures=False) for _ in range(3)] == [DOWN] * 3
    assert fetch.calls == 3


def test_the_default_lifetime_remembers_failures(face: Face) -> None:
    other = face.new(default_ttl=Lifetime(ttl=100, failure_ttl=retry_after))
    fetch = other.fetcher(Failure(Limited(5)), NEW)
    first = other.get("k", fetch)
    face.clock.advance(4.9)
    assert other.get("k", fetch) == first
    face.clock.advance(0.1)
    assert other.get("k", fetch) == NEW
    other.close()


def test_the_last_attempt_says_how_long_the_failure_is_remembered(face: Face) -> None:
    fetch = face.fetcher(Failure(Limited(5)), Failure(Limited(40)))
    retry = RetryOptions(max_attempts=2)
    face.get("k", fetch, ttl=Lifetime(ttl=10, failure_ttl=retry_after), retry=retry)
    face.clock.advance(39.9)
    assert face.has_cached_failure("k")
    face.clock.advance(0.1)
    assert not face.has_cached_failure("k")


def test_a_refresh_that_failed_waits_for_its_backoff(face: Face) -> None:
    life = Lifetime(ttl=10, serve_stale_for=1_000, refresh_backoff="20s")
    face.fill("k", "old", ttl=life)
    face.clock.advance(10)
    fetch = face.fetcher(DOWN)
    for _ in range(100):
        assert face.get("k", fetch, ttl=life) == OLD
        face.settle()
        face.clock.advance(1)
    assert fetch.calls == 5


# The bound


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["get", "swr", "network_first", "cache_only", "soft", "hard", "many"]),
        st.sampled_from([0.0, 0.5, 1.0, 3.0, 7.0, 10.0, 20.0]),
        st.booleans(),
    ),
    max_size=20,
)
WINDOWS = st.sampled_from([0.0, 1.0, 5.0, 12.0])


@pytest.mark.parametrize("kind", ["async", "sync"])
@given(
    actions=ACTIONS,
    stale=WINDOWS,
    if_error=WINDOWS,
    ahead=st.sampled_from([None, 0.0, 0.5]),
    jitter=st.sampled_from([0.0, 0.3, 1.0]),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_tt7_no_answer_is_older_than_its_ttl_and_the_window(
    kind: str,
    actions: list[tuple[str, float, bool]],
    stale: float,
    if_error: float,
    ahead: float | None,
    jitter: float,
) -> None:
    """Whatever the policy, the patience, the failures and the jitter. A value is the instant at which it was made."""
    clock = VirtualClock(now=1_767_225_600.0)
    life = Lifetime(
        ttl=10, serve_stale_for=stale, stale_if_error_for=if_error, refresh_ahead=ahead, jitter=jitter, failure_ttl=2
    )
    policies = {"swr": SWR, "network_first": NETWORK_FIRST, "cache_only": CACHE_ONLY}
    for world in (async_worlds if kind == "async" else sync_worlds)(clock):
        face = world.new(default_ttl=life, rng=random.Random(7))
        for act, passes, works in actions:
            clock.advance(passes)
            made = Success(clock())
            fetch = face.fetcher(made if works else DOWN)
            if act == "many":
                fetch = face.fetcher(lambda keys, made=made if works else DOWN: dict.fromkeys(keys, made))
                answers: Any = face.call("get_many", ["k"], fetch)
                answer = answers["k"]
            elif act in {"soft", "hard"}:
                answer = face.get("k", fetch, **{f"{act}_timeout": 0.0})
            else:
                answer = face.get("k", fetch, policy=policies.get(act, CACHE_FIRST))
            if isinstance(answer, Success):
                assert clock() - answer.unwrap() < 10 + max(stale, if_error)
            face.settle()
        assert under_way(face.cache) == 0
        face.close()


# Bad input

NONSENSE = [
    -1,
    -0.001,
    float("nan"),
    float("inf"),
    float("-inf"),
    1e20,
    10**400,
    timedelta.max,
    timedelta(-1),
    True,
    False,
    "",
    "5",
    "five",
    "5 m",
    "-5m",
    "1e3s",
    "5m-1s",
    "٣m",
    "9" * 400 + "s",
    Decimal(5),
    b"5m",
    (5,),
    {},
    object(),
]


@pytest.mark.parametrize("value", NONSENSE, ids=repr)
@pytest.mark.parametrize("name", ["ttl", "serve_stale_for", "stale_if_error_for", "failure_ttl", "refresh_backoff"])
def test_tt5_lifetime_that_makes_no_sense_is_refused_at_construction(name: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        Lifetime(**{name: value})
    with pytest.raises(ValidationError):
        Lifetime(ttl=5).model_copy(update={name: value})


@pytest.mark.parametrize("name", ["serve_stale_for", "stale_if_error_for", "refresh_backoff", "jitter"])
def test_tt5_window_is_not_none(name: str) -> None:
    with pytest.raises(ValidationError):
        Lifetime(**{name: None})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf"), True, False, "half", object(), "5m"])
@pytest.mark.parametrize("name", ["refresh_ahead", "jitter"])
def test_tt5_share_that_is_none_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        Lifetime(**{name: value})


def test_a_window_with_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValidationError):
        Lifetime(max_stale=5)  # type: ignore[call-arg]


@pytest.mark.parametrize("value", NONSENSE, ids=repr)
def test_tt5_ttl_that_makes_no_sense_is_a_failure_everywhere(face: Face, value: Any) -> None:
    other = face.new(token_keeper=face.keeper("token"))
    other.fill("there", "old")
    fetch = other.fetcher(NEW)
    answers = [
        other.get("k", fetch, ttl=value),
        other.refresh("k", fetch, ttl=value),
        other.prefetch("k", fetch, ttl=value),
        other.get_authenticated("k", fetch, ttl=value, scope=CacheScope.GLOBAL),
        other.at_once("put", "k", "v", ttl=value),
        other.at_once("touch", "there", ttl=value),
    ]
    assert all(isinstance(answer.failure(), InvalidTtl) for answer in answers), answers
    assert fetch.calls == 0
    for said in (Fresh("v", ttl=value), NotModified(ttl=value)):
        answer = other.get("k", other.fetcher(Success(said)), conditional=True)
        assert isinstance(answer.failure(), InvalidTtl), answer
    assert other.peek("k") == Failure(CacheMiss("k"))
    assert other.peek("there") == OLD
    assert under_way(other.cache) == 0
    other.close()


@pytest.mark.parametrize("value", NONSENSE, ids=repr)
@pytest.mark.parametrize("kind", [Cache, SyncCache])
def test_tt5_default_ttl_that_makes_no_sense_is_refused_at_construction(
    kind: type[Cache | SyncCache], value: Any
) -> None:
    with pytest.raises(ValidationError):
        kind(default_ttl=value)


@pytest.mark.parametrize("life", [0, -0.0, Lifetime(ttl=0), Lifetime(ttl=-0.0), Lifetime(ttl="0s"), timedelta(0)])
def test_tt5_ttl_of_nothing_is_stale_at_once(face: Face, life: Any) -> None:
    fetch = face.fetcher(OLD, NEW)
    assert [face.get("k", fetch, ttl=life) for _ in range(2)] == [OLD, NEW]


@given(seconds=st.floats())
@settings(deadline=None)
def test_tt5_no_float_makes_an_immortal_entry_or_a_crash(seconds: float) -> None:
    with SyncCache(clock=lambda: 1_767_225_600.0) as cache:
        answer = cache.get("k", lambda: Success(1), ttl=seconds)
        assert (answer == Success(1)) == (0 <= seconds <= 100 * 31_557_600)
        state = cache.inspect("k")
        assert state.is_missing == (answer != Success(1))
        assert state.is_missing or state.ttl is not None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5_400),
        ("1.5d", 129_600),
        ("250ms", 0.25),
        ("2w", 1_209_600),
        ("1h1m1s1ms", 3_661.001),
        ("0s", 0),
    ],
)
def test_durations_as_text(text: str, seconds: float) -> None:
    assert Lifetime(ttl=text).ttl_s == pytest.approx(seconds)
    assert Lifetime(serve_stale_for=text).lifespan.serve_stale_s == pytest.approx(seconds)


# A lifetime as a value


def test_a_changed_copy_has_forgotten_the_seconds_of_the_first() -> None:
    """What is worked out once is kept in the instance; a copy must not inherit it."""
    one = Lifetime(ttl=60, serve_stale_for=5)
    assert (one.ttl_s, one.lifespan.serve_stale_s) == (60.0, 5.0)
    other = one.model_copy(update={"ttl": "10m", "serve_stale_for": 7})
    assert (other.ttl_s, other.lifespan.serve_stale_s) == (600.0, 7.0)
    assert other == Lifetime(ttl=600, serve_stale_for=7)

    retry = RetryOptions(max_attempts=2, delay=1)
    assert retry.rule.max_attempts == 2
    assert retry.model_copy(update={"max_attempts": 9}).rule.max_attempts == 9
    assert retry.attempt_timeout_s is None
    assert retry.model_copy(update={"attempt_timeout": 3}).attempt_timeout_s == 3.0

    breaker = BreakerOptions(open_for=10)
    assert breaker.open_s == 10.0
    assert breaker.model_copy(update={"open_for": 20}).open_s == 20.0


def test_a_lifetime_is_a_value() -> None:
    one = Lifetime(ttl="5m", jitter=0.5)
    assert one == Lifetime(ttl=300, jitter=0.5)
    assert hash(one) == hash(Lifetime(ttl=300, jitter=0.5))
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301 (our own bytes)
    with pytest.raises(ValidationError):
        one.ttl = 5


def test_a_lifetime_made_without_its_checks_is_a_failure(face: Face) -> None:
    fetch = face.fetcher(NEW)
    for field in ("ttl", "serve_stale_for", "stale_if_error_for", "refresh_backoff"):
        life = Lifetime.model_construct(**{**dict(Lifetime()), field: -5})
        answer = face.get("k", fetch, ttl=life)
        assert isinstance(answer.failure(), InvalidTtl)
    assert fetch.calls == 0
