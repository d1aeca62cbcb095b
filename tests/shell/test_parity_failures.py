"""Counterparts of `failure_cache_test.dart`, without its SWR group, which is in test_parity_policies.py."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from returns.result import Failure, Success

from cachemesh import CacheMiss, CachePolicy, FetchRaised, Ttl

if TYPE_CHECKING:
    from tests.shell.faces import Face


# failure caching disabled (default)


def test_failures_are_not_stored_and_the_next_cache_first_get_retries(face: Face) -> None:
    fetch = face.fetcher(Failure("net"))
    face.get("k", fetch)
    face.get("k", fetch)

    assert fetch.calls == 2
    assert not face.has_cached_failure("k")


# failure caching enabled


def test_a_failure_is_stored_and_a_subsequent_cache_first_get_returns_it(face: Face) -> None:
    fetch = face.fetcher(Failure("rate-limited"), Failure("should not reach"))

    assert face.get("k", fetch, cache_failures=True, ttl=60) == Failure("rate-limited")
    assert face.get("k", fetch, cache_failures=True) == Failure("rate-limited")
    assert fetch.calls == 1
    assert face.has_cached_failure("k")


def test_a_call_that_says_nothing_is_answered_from_a_failure_that_another_call_cached(face: Face) -> None:
    face.get("k", face.fetcher(Failure("earlier")), cache_failures=True)
    fetch = face.fetcher(Success(1))

    assert face.get("k", fetch) == Failure("earlier")
    assert fetch.calls == 0


def test_a_cached_failure_respects_its_ttl_and_is_refetched_after_expiry(face: Face) -> None:
    fetch = face.fetcher(Failure("x"))
    face.get("k", fetch, cache_failures=True, ttl=5)
    face.clock.advance(6)

    assert not face.has_cached_failure("k")
    face.get("k", fetch, cache_failures=True, ttl=5)
    assert fetch.calls == 2


@pytest.mark.parametrize(
    ("ttl", "lives"),
    [(0, 0.0), (5, 5.0), (60, 60.0), (61, 60.0), (timedelta(hours=1), 60.0), (None, 60.0)],
)
def test_a_cached_failure_lives_as_long_as_a_value_and_a_minute_at_most(face: Face, ttl: Ttl, lives: float) -> None:
    face.get("k", face.fetcher(Failure("x")), cache_failures=True, ttl=ttl)

    if lives:
        face.clock.advance(lives - 0.25)
        assert face.has_cached_failure("k")
        face.clock.advance(0.25)
    assert not face.has_cached_failure("k")


def test_a_successful_refetch_clears_the_cached_failure(face: Face) -> None:
    face.get("k", face.fetcher(Failure("x")), cache_failures=True)
    assert face.has_cached_failure("k")

    face.refresh("k", face.fetcher(Success(1)))
    assert not face.has_cached_failure("k")
    assert face.peek("k") == Success(1)


def test_a_network_only_success_leaves_the_cached_failure(face: Face) -> None:
    face.get("k", face.fetcher(Failure("x")), cache_failures=True)
    face.get("k", face.fetcher(Success(1)), policy=CachePolicy.NETWORK_ONLY)

    assert face.has_cached_failure("k")


def test_invalidate_removes_both_success_and_failure_entries(face: Face) -> None:
    face.fill("k", 1, ttl=5)
    face.clock.advance(5)
    face.get("k", face.fetcher(Failure("x")), cache_failures=True)
    assert face.has_cached_failure("k")

    face.invalidate("k")
    assert not face.has_cached_failure("k")
    assert face.peek("k", allow_expired=True) == Failure(CacheMiss("k"))


def test_clear_removes_all_failure_entries(face: Face) -> None:
    for key in "ab":
        face.get(key, face.fetcher(Failure("x")), cache_failures=True)
    face.clear()

    assert [face.has_cached_failure(key) for key in "ab"] == [False, False]


def test_cache_only_returns_the_cached_failure_without_fetching(face: Face) -> None:
    fetch = face.fetcher(Failure("x"), Success(99))
    face.get("k", fetch, cache_failures=True)

    assert face.get("k", fetch, policy=CachePolicy.CACHE_ONLY) == Failure("x")
    assert fetch.calls == 1


@pytest.mark.parametrize("method", ["refresh", "prefetch"])
def test_refresh_and_prefetch_cache_failures_too_and_are_never_answered_from_one(face: Face, method: str) -> None:
    fetch = face.fetcher(Failure("one"), Failure("two"))

    assert face.call(method, "k", fetch, cache_failures=True) == Failure("one")
    assert face.has_cached_failure("k")
    assert face.call(method, "k", fetch, cache_failures=True) == Failure("two")


def test_a_raised_exception_is_cached_as_a_failure(face: Face) -> None:
    fetch = face.fetcher(OSError("down"))
    face.get("k", fetch, cache_failures=True)

    assert face.get("k", fetch) == Failure(FetchRaised("k", OSError("down")))
    assert fetch.calls == 1


@pytest.mark.parametrize(
    "error",
    [TypeError("a"), NameError("b"), AttributeError("c"), AssertionError("d")],
    ids=lambda error: type(error).__name__,
)
def test_a_programming_error_is_never_cached(face: Face, error: Exception) -> None:
    fetch = face.fetcher(error)

    assert face.get("k", fetch, cache_failures=True) == Failure(FetchRaised("k", error))
    assert not face.has_cached_failure("k")


# the cache's own default


def test_failures_are_cached_by_default_where_the_cache_says_so(face: Face) -> None:
    face = face.new(cache_failures=True)
    fetch = face.fetcher(Failure("x"))
    face.get("k", fetch)
    face.get("k", fetch)

    assert fetch.calls == 1


def test_per_call_cache_failures_false_overrides_the_default(face: Face) -> None:
    face = face.new(cache_failures=True)
    fetch = face.fetcher(Failure("x"))
    face.get("k", fetch, cache_failures=False)
    face.get("k", fetch, cache_failures=False)

    assert fetch.calls == 2
    assert not face.has_cached_failure("k")
