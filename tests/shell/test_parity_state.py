"""Counterparts of `cache_state_test.dart`, and of the entry's lifetime in `memory_cache_store_test.dart`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError
from returns.result import Failure, Success

from cachemesh import Cache, CacheExpired, CacheScope, InvalidTtl, SyncCache, Ttl

if TYPE_CHECKING:
    from tests.shell.faces import Face

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


# inspect


def test_inspect_of_a_missing_key(face: Face) -> None:
    state = face.inspect("nope")

    assert (state.key, state.now) == ("nope", NEW_YEAR)
    assert (state.is_missing, state.is_present, state.is_fresh, state.is_stale) == (True, False, False, False)
    assert (state.value, state.created_at, state.ttl) == (None, None, None)
    assert (state.age, state.time_to_expiry, state.expires_at) == (None, None, None)


def test_inspect_of_a_fresh_entry(face: Face) -> None:
    face.fill("k", 7, ttl=timedelta(minutes=10))
    face.clock.advance(180)

    state = face.inspect("k")

    assert (state.is_missing, state.is_present, state.is_fresh, state.is_stale) == (False, True, True, False)
    assert state.value == 7
    assert (state.created_at, state.ttl) == (NEW_YEAR, timedelta(minutes=10))
    assert (state.now, state.expires_at) == (NEW_YEAR + timedelta(minutes=3), NEW_YEAR + timedelta(minutes=10))
    assert (state.age, state.time_to_expiry) == (timedelta(minutes=3), timedelta(minutes=7))


def test_inspect_of_an_expired_entry_is_stale(face: Face) -> None:
    face.fill("k", 7, ttl=5)
    face.clock.advance(10)

    state = face.inspect("k")

    assert (state.is_missing, state.is_present, state.is_fresh, state.is_stale) == (False, True, False, True)
    assert state.value == 7
    assert (state.age, state.time_to_expiry) == (timedelta(seconds=10), timedelta(seconds=-5))


def test_inspect_without_a_ttl_is_always_fresh(face: Face) -> None:
    face.fill("k", 7)
    face.clock.advance(timedelta(days=365).total_seconds())

    state = face.inspect("k")

    assert (state.is_fresh, state.is_stale) == (True, False)
    assert (state.ttl, state.expires_at, state.time_to_expiry) == (None, None, None)
    assert state.age == timedelta(days=365)


def test_str_summarises_the_snapshot(face: Face) -> None:
    face.fill("k", "a secret", ttl=5)
    face.clock.advance(1)
    fresh = str(face.inspect("k"))
    face.clock.advance(5)

    assert "fresh" in fresh
    assert "0:00:01" in fresh
    assert "0:00:05" in fresh
    assert "stale" in str(face.inspect("k"))
    assert "missing" in str(face.inspect("missing"))
    assert "secret" not in fresh


def test_inspect_looks_only_at_successes(face: Face) -> None:
    face.get("k", face.fetcher(Failure("down")), cache_failures=True)

    assert face.inspect("k").is_missing


def test_inspect_neither_fetches_nor_logs(face: Face) -> None:
    face.fill("k", 7)
    face.inspect("k")
    face.inspect("other")

    assert face.log.events == []


def test_inspect_looks_where_it_is_told(face: Face) -> None:
    face.set_active_user("alice")
    face.fill("k", "everybody's")
    face.fill("k", "alice's", scope=CacheScope.USER)

    assert face.inspect("k").value == "alice's"
    assert face.inspect("k", scope=CacheScope.GLOBAL).value == "everybody's"
    assert face.inspect("k", scope=CacheScope.SESSION).is_missing


# the lifetime of an entry


def test_an_entry_with_no_ttl_never_expires(face: Face) -> None:
    face.fill("k", 1)
    face.clock.advance(timedelta(days=4 * 365).total_seconds())

    assert face.peek("k") == Success(1)


def test_an_entry_within_its_ttl_is_not_expired(face: Face) -> None:
    face.fill("k", 1, ttl=600)
    face.clock.advance(300)

    assert face.peek("k") == Success(1)


def test_an_entry_past_its_ttl_is_expired(face: Face) -> None:
    face.fill("k", 1, ttl=600)
    face.clock.advance(660)

    assert face.peek("k") == Failure(CacheExpired("k"))


@pytest.mark.parametrize(
    ("elapsed", "is_fresh"),
    [(0.0, True), (9.75, True), (10.0, False), (10.25, False)],
)
def test_an_entry_expires_exactly_at_the_boundary(face: Face, elapsed: float, *, is_fresh: bool) -> None:
    face.fill("k", "old", ttl=10)
    face.clock.advance(elapsed)

    state = face.inspect("k")
    assert (state.is_fresh, state.is_stale) == (is_fresh, not is_fresh)
    assert face.peek("k") == (Success("old") if is_fresh else Failure(CacheExpired("k")))
    assert face.get("k", face.fetcher(Success("new")), ttl=10) == Success("old" if is_fresh else "new")


@pytest.mark.parametrize("ttl", [90, 90.0, timedelta(seconds=90)], ids=["int", "float", "timedelta"])
def test_a_ttl_is_seconds_or_a_timedelta(face: Face, ttl: Ttl) -> None:
    face.fill("k", 1, ttl=ttl)

    assert face.inspect("k").ttl == timedelta(seconds=90)


def test_a_ttl_of_zero_is_stale_at_once(face: Face) -> None:
    face.fill("k", 1, ttl=0)

    assert face.inspect("k").is_stale
    assert face.peek("k") == Failure(CacheExpired("k"))


def test_an_entry_is_as_old_as_the_end_of_its_fetch(face: Face) -> None:
    face.get("k", face.fetcher(Success(1), takes=4), ttl=10)

    assert face.inspect("k").created_at == NEW_YEAR + timedelta(seconds=4)
    assert face.inspect("k").age == timedelta(0)


def test_the_default_ttl_applies_where_none_is_given(face: Face) -> None:
    face = face.new(default_ttl=timedelta(minutes=5))
    face.fill("k", 1)
    face.fill("short", 1, ttl=2)
    face.fill("forever", 1, ttl=None)

    assert face.inspect("k").ttl == timedelta(minutes=5)
    assert face.inspect("short").ttl == timedelta(seconds=2)
    assert face.inspect("forever").ttl is None


CENTURY = timedelta(days=36525)


@pytest.mark.parametrize(
    "ttl",
    [-1, -0.001, float("nan"), float("inf"), 1e20, timedelta(seconds=-1), timedelta.max, True, "60"],
    ids=repr,
)
@pytest.mark.parametrize("method", ["get", "refresh", "prefetch"])
def test_a_ttl_that_makes_no_sense_is_an_answer(face: Face, method: str, ttl: object) -> None:
    """The original takes any duration, negative ones included."""
    fetch = face.fetcher(Success(1))

    assert face.call(method, "k", fetch, ttl=ttl) == Failure(InvalidTtl(ttl))
    assert fetch.calls == 0
    assert face.log.events == []


@pytest.mark.parametrize("ttl", [-1, float("nan"), timedelta.max, True, "60"], ids=repr)
@pytest.mark.parametrize("kind", [Cache, SyncCache])
def test_a_default_ttl_that_makes_no_sense_is_refused_at_construction(kind: type[Cache | SyncCache], ttl: Ttl) -> None:
    with pytest.raises(ValidationError):
        kind(default_ttl=ttl)


def test_the_longest_ttl_is_a_century(face: Face) -> None:
    face.fill("k", 1, ttl=CENTURY)

    assert face.inspect("k").ttl == CENTURY
    assert face.refresh("k", face.fetcher(Success(1)), ttl=CENTURY + timedelta(days=1)) == Failure(
        InvalidTtl(CENTURY + timedelta(days=1)),
    )
