# mypy: no-warn-unused-ignores, disable-error-code="arg-type,assignment,redundant-expr,return-value,truthy-function,var-annotated,no-any-return,comparison-overlap,union-attr"
"""Failures: remembered where that was asked for, for a while, and never in place of something better."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Failure, Success

from cachemesh import (
    CacheMiss,
    CachePolicy,
    CacheScope,
    FetchCancelled,
    FetchRaised,
    FetchTimeout,
    InvalidFetchResult,
    NoActiveUser,
    ReentrantFetch,
    RetryOptions,
)
from tests.scenarios.helpers import ScriptedStore, under_way

if TYPE_CHECKING:
    from tests.shell.faces import Face, SyncFace

DOWN = Failure("down")
USER = CacheScope.USER


@pytest.mark.parametrize(("ttl", "lasts"), [(None, 60), (3_600, 60), (5, 5), (0, 0)])
@pytest.mark.parametrize("has_store", [False, True])
def test_fc1_failure_is_remembered_for_a_minute_at_the_most(
    face: Face, ttl: Any, lasts: float, has_store: bool
) -> None:
    other = face.new(store=ScriptedStore()) if has_store else face
    began = face.clock()
    assert other.get("k", other.fetcher(DOWN), ttl=ttl, cache_failures=True) == DOWN
    if lasts:
        face.clock.advance_to(began + lasts - 0.001)
        assert other.has_cached_failure("k")
        assert other.get("k", other.fetcher(Success("?"))) == DOWN
    face.clock.advance_to(began + lasts)
    assert not other.has_cached_failure("k")
    assert other.get("k", other.fetcher(Success("up"))) == Success("up")
    if has_store:
        other.close()


@pytest.mark.parametrize("act", ["refresh", "prefetch", "network_first"])
def test_fc2_success_ends_a_failure(face: Face, act: str) -> None:
    face.get("k", face.fetcher(DOWN), cache_failures=True)
    up = face.fetcher(Success("up"))
    if act == "network_first":
        assert face.get("k", up, policy=CachePolicy.NETWORK_FIRST) == Success("up")
    else:
        assert face.call(act, "k", up) == Success("up")
    assert not face.has_cached_failure("k")
    assert face.get("k", face.fetcher(Failure("?"))) == Success("up")
    face.clock.advance(10**6)
    assert face.peek("k") == Success("up")


@pytest.mark.parametrize("age", [0, 100])
def test_fc2_failure_evicts_no_usable_success(face: Face, age: float) -> None:
    face.fill("k", "old", ttl=50)
    face.clock.advance(age)
    for _ in range(3):
        assert face.refresh("k", face.fetcher(DOWN), cache_failures=True) == DOWN
    assert face.peek("k", allow_expired=True) == Success("old")
    assert face.get("k", face.fetcher(DOWN), policy=CachePolicy.NETWORK_FIRST) == Success("old")
    assert face.get("k", face.fetcher(DOWN), policy=CachePolicy.STALE_WHILE_REVALIDATE) == Success("old")
    if age < 50:
        assert not face.has_cached_failure("k")
        assert face.get("k", face.fetcher(DOWN)) == Success("old")


def test_fc2_failure_that_hid_behind_a_fresh_value_does_not_surface_later(face: Face) -> None:
    face.fill("k", "old", ttl=10)
    face.refresh("k", face.fetcher(DOWN), cache_failures=True, ttl=3_600)
    face.clock.advance(20)
    assert face.get("k", face.fetcher(Success("new"))) == Success("new")


def test_fc3_failures_of_many_keys_are_bounded(sync_face: SyncFace) -> None:
    cache = sync_face.new(cache_failures=True).cache
    for number in range(12_000):
        cache.get(f"k{number}", lambda: DOWN)
    partitions = cache._runtime.state.partitions
    assert sum(len(partition.failures) for partition in partitions.values()) == 10_000
    assert cache.has_cached_failure("k11999")
    assert not cache.has_cached_failure("k0")


PROGRAMMING_ERRORS = [
    TypeError,
    NameError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    RecursionError,
    ImportError,
    SyntaxError,
    UnboundLocalError,
]


@pytest.mark.parametrize("error", PROGRAMMING_ERRORS)
def test_fc5_programming_error_is_never_remembered(face: Face, error: type[Exception]) -> None:
    fetch = face.fetcher(error("oops"))
    for _ in range(3):
        answer = face.get("k", fetch, cache_failures=True)
        assert isinstance(answer.failure(), FetchRaised)
    assert fetch.calls == 3
    assert not face.has_cached_failure("k")


@pytest.mark.parametrize(
    "error", [ValueError("x"), OSError(5, "x"), KeyError("x"), ExceptionGroup("x", [ValueError()])]
)
def test_fc5_other_exceptions_are_remembered_when_asked(face: Face, error: Exception) -> None:
    fetch = face.fetcher(error)
    answers = [face.get("k", fetch, cache_failures=True) for _ in range(3)]
    assert answers == [Failure(FetchRaised("k", error))] * 3
    assert fetch.calls == 1


def test_fc5_programming_error_that_is_returned_is_a_failure_like_any_other(face: Face) -> None:
    fetch = face.fetcher(Failure(TypeError("returned")))
    for _ in range(3):
        assert isinstance(face.get("k", fetch, cache_failures=True).failure(), TypeError)
    assert fetch.calls == 1


def test_fc5_failures_of_the_caches_own_are_never_remembered(face: Face) -> None:
    own = [
        CacheMiss("k"),
        NoActiveUser("k"),
        ReentrantFetch("k"),
        FetchCancelled("k"),
        InvalidFetchResult("k", "int"),
    ]
    for number, error in enumerate(own):
        fetch = face.fetcher(Failure(error))
        for _ in range(2):
            assert face.get(f"k{number}", fetch, cache_failures=True) == Failure(error)
        assert fetch.calls == 2, error

    assert face.get("k", face.fetcher(Success(1)), scope=USER, cache_failures=True) == Failure(NoActiveUser("k"))
    assert not face.has_cached_failure("k")


def test_fc5_cancellation_is_never_remembered(face: Face) -> None:
    if face.name == "sync":
        pytest.skip("a thread is not cancelled")
    fetch = face.fetcher(asyncio.CancelledError(), Success("v"))
    assert face.get("k", fetch, cache_failures=True) == Failure(FetchCancelled("k"))
    assert face.get("k", fetch, cache_failures=True) == Success("v")


def test_fc5_timeout_is_remembered(face: Face) -> None:
    """It tells of the origin, as opposed to the cache's other failures."""
    if face.name == "sync":
        pytest.skip("a thread's timeout takes real time; see the parity tests")
    fetch = face.fetcher(Success("late"), takes=10)
    once = RetryOptions(max_attempts=1, attempt_timeout=1)
    for _ in range(2):
        assert face.get("k", fetch, retry=once, cache_failures=True) == Failure(FetchTimeout("k", 1.0))
    assert fetch.calls == 1


@pytest.mark.parametrize("scope", [CacheScope.GLOBAL, CacheScope.SESSION])
def test_fc5_unauthorized_is_remembered_for_nobody_else(face: Face, scope: CacheScope) -> None:
    other = face.new(token_keeper=face.keeper("alice"), cache_failures=True)
    other.set_active_user("alice")
    fetch = other.fetcher(Failure("unauthorized"), Success("for bob"))
    assert other.get_authenticated("k", fetch, scope=scope) == Failure("unauthorized")
    other.set_active_user("bob")
    assert other.get_authenticated("k", fetch, scope=scope) == Success("for bob")
    other.close()


@pytest.mark.parametrize("attempts", [1, 2, 3, 10])
@pytest.mark.parametrize("outcome", [DOWN, ValueError("down"), 5], ids=["returned", "raised", "no result"])
def test_fc6_attempts_are_as_many_as_were_allowed(face: Face, attempts: int, outcome: Any) -> None:
    fetch = face.fetcher(outcome if outcome != 5 else (lambda *_: 5))  # type: ignore[arg-type, return-value]
    began = face.clock()
    options = RetryOptions(max_attempts=attempts, delay=1, backoff_factor=2, max_delay=8)
    face.get("k", fetch, retry=options)
    assert fetch.calls == attempts
    waited = sum(min(2.0**number, 8) for number in range(attempts - 1))
    assert face.clock() - began == pytest.approx(waited)
    delays = [event[4] for event in face.log.named("retry")]
    assert delays == [min(2.0**number, 8) for number in range(attempts - 1)]


def test_fc6_jitter_stays_within_the_cap(face: Face) -> None:
    options = RetryOptions(max_attempts=40, delay=12, max_delay=10, jitter=1.0)
    face.get("k", face.fetcher(DOWN), retry=options)
    delays: list[Any] = [event[4] for event in face.log.named("retry")]
    assert len(delays) == 39
    assert all(0 <= delay <= 10 for delay in delays)
    assert len(set(delays)) > 10


@pytest.mark.parametrize("backoff", [1e300, 1.7e308])
def test_fc6_backoff_that_overflows(face: Face, backoff: float) -> None:
    options = RetryOptions(max_attempts=5, delay=1, backoff_factor=backoff, max_delay=3)
    assert face.get("k", face.fetcher(DOWN), retry=options) == DOWN
    assert (
        face.get("k", face.fetcher(DOWN), retry=RetryOptions(max_attempts=5, delay=0, backoff_factor=backoff)) == DOWN
    )


class Evil:
    def __bool__(self) -> bool:
        raise ValueError


@pytest.mark.parametrize("kind", ["raises", "not a bool", "takes nothing"])
def test_fc6_predicate_that_misbehaves_ends_the_retries(face: Face, kind: str) -> None:
    def predicate(*arguments: object) -> Any:
        if kind == "not a bool":
            return Evil()
        raise ValueError(arguments)

    retry_when: Any = (lambda: True) if kind == "takes nothing" else predicate
    fetch = face.fetcher(DOWN)
    assert face.get("k", fetch, retry=RetryOptions(max_attempts=5, retry_when=retry_when)) == DOWN
    assert fetch.calls == 1
    assert len(face.log.named("error")) == 2
    assert under_way(face.cache) == 0


def test_fc6_joiner_with_more_patience_is_served_it(face: Face) -> None:
    fetch = face.fetcher(DOWN, DOWN, Success("third"), held=True)
    hasty = face.begin.get("k", fetch)
    patient = face.begin.get("k", fetch, retry=RetryOptions(max_attempts=3))
    fetch.release()
    assert (hasty.result(), patient.result()) == (Success("third"), Success("third"))
