"""Counterparts of the policy groups of `cache_test.dart` and of `failure_cache_test.dart`'s "smarter SWR".

First the original's cases by name, then the whole table with its answers,
fetches and log lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from returns.result import Failure, Success

from cachemesh import CacheExpired, CacheMiss, CachePolicy

if TYPE_CHECKING:
    from tests.shell.faces import Answer, Event, Face

CACHE_FIRST = CachePolicy.CACHE_FIRST
NETWORK_FIRST = CachePolicy.NETWORK_FIRST
SWR = CachePolicy.STALE_WHILE_REVALIDATE
NETWORK_ONLY = CachePolicy.NETWORK_ONLY
CACHE_ONLY = CachePolicy.CACHE_ONLY


# cache_first


def test_cache_first_miss_fetches_then_subsequent_calls_hit_the_cache(face: Face) -> None:
    first, second = face.fetcher(Success(1)), face.fetcher(Success(2))

    assert face.get("k", first, policy=CACHE_FIRST) == Success(1)
    assert face.get("k", second, policy=CACHE_FIRST) == Success(1)
    assert (first.calls, second.calls) == (1, 0)


def test_cache_first_expired_entry_triggers_a_refetch(face: Face) -> None:
    fetch = face.fetcher(Success(1), Success(2))
    face.get("k", fetch, policy=CACHE_FIRST, ttl=300)
    face.clock.advance(360)

    assert face.get("k", fetch, policy=CACHE_FIRST, ttl=300) == Success(2)
    assert fetch.calls == 2


def test_cache_first_is_the_default(face: Face) -> None:
    fetch = face.fetcher(Success(1), Success(2))

    assert [face.get("k", fetch), face.get("k", fetch)] == [Success(1), Success(1)]


# network_first


def test_network_first_success_caches_the_result(face: Face) -> None:
    assert face.get("k", face.fetcher(Success(7)), policy=NETWORK_FIRST) == Success(7)
    assert face.peek("k") == Success(7)


def test_network_first_failure_falls_back_to_the_cached_value(face: Face) -> None:
    fetch = face.fetcher(Success(7), Failure("offline"))
    face.get("k", fetch, policy=NETWORK_FIRST)

    assert face.get("k", fetch, policy=NETWORK_FIRST) == Success(7)
    assert fetch.calls == 2


def test_network_first_failure_falls_back_to_an_expired_value_too(face: Face) -> None:
    face.fill("k", 7, ttl=5)
    face.clock.advance(3600)

    assert face.get("k", face.fetcher(Failure("offline")), policy=NETWORK_FIRST) == Success(7)


def test_network_first_failure_with_no_cache_returns_the_failure(face: Face) -> None:
    assert face.get("k", face.fetcher(Failure("offline")), policy=NETWORK_FIRST) == Failure("offline")


# network_only


def test_network_only_always_fetches_and_never_writes_to_the_cache(face: Face) -> None:
    fetch = face.fetcher(Success(1), Success(2))

    assert face.get("k", fetch, policy=NETWORK_ONLY) == Success(1)
    assert face.get("k", fetch, policy=NETWORK_ONLY) == Success(2)
    assert face.peek("k") == Failure(CacheMiss("k"))


def test_network_only_never_caches_a_failure(face: Face) -> None:
    face.get("k", face.fetcher(Failure("down")), policy=NETWORK_ONLY, cache_failures=True)

    assert not face.has_cached_failure("k")


def test_network_only_leaves_what_is_cached_alone(face: Face) -> None:
    face.fill("k", 1)

    assert face.get("k", face.fetcher(Success(2)), policy=NETWORK_ONLY) == Success(2)
    assert face.get("k", face.fetcher(Failure("down")), policy=NETWORK_ONLY) == Failure("down")
    assert face.peek("k") == Success(1)


# cache_only


def test_cache_only_miss_fails_with_cache_miss_and_no_fetch(face: Face) -> None:
    fetch = face.fetcher(Success(1))

    assert face.get("k", fetch, policy=CACHE_ONLY) == Failure(CacheMiss("k"))
    assert fetch.calls == 0


def test_cache_only_expired_fails_with_cache_expired(face: Face) -> None:
    fetch = face.fetcher(Success(1))
    face.get("k", fetch, ttl=10)
    face.clock.advance(11)

    assert face.get("k", fetch, policy=CACHE_ONLY) == Failure(CacheExpired("k"))
    assert fetch.calls == 1


def test_cache_only_hit_returns_the_cached_value(face: Face) -> None:
    fetch = face.fetcher(Success(99), Success(0))
    face.get("k", fetch)

    assert face.get("k", fetch, policy=CACHE_ONLY) == Success(99)
    assert fetch.calls == 1


# stale_while_revalidate


def test_swr_returns_the_cached_value_immediately_and_refreshes_in_the_background(face: Face) -> None:
    face.fill("k", 1, ttl=5)
    face.clock.advance(6)
    fetch = face.fetcher(Success(2), held=True)

    assert face.get("k", fetch, policy=SWR, ttl=5) == Success(1)
    assert face.peek("k", allow_expired=True) == Success(1)

    face.settle()
    fetch.release()
    face.settle()
    assert fetch.calls == 1
    assert face.peek("k") == Success(2)


def test_swr_with_no_cached_value_fetches_and_returns_the_awaited_result(face: Face) -> None:
    fetch = face.fetcher(Success(5))

    assert face.get("k", fetch, policy=SWR) == Success(5)
    assert fetch.calls == 1


def test_swr_serves_an_expired_value_immediately(face: Face) -> None:
    face.fill("k", 1, ttl=5)
    face.clock.advance(10)

    assert face.get("k", face.fetcher(Success(2)), policy=SWR) == Success(1)
    face.settle()
    assert face.peek("k") == Success(2)


def test_swr_fresh_entry_does_not_trigger_a_background_refresh_by_default(face: Face) -> None:
    face.fill("k", 1, ttl=300)
    fetch = face.fetcher(Success(2))

    assert face.get("k", fetch, policy=SWR, ttl=300) == Success(1)
    face.settle()
    assert fetch.calls == 0
    assert face.peek("k") == Success(1)


def test_swr_stale_entry_triggers_a_background_refresh(face: Face) -> None:
    fetch = face.fetcher(Success(1), Success(2))
    face.get("k", fetch, ttl=5)
    face.clock.advance(6)

    face.get("k", fetch, policy=SWR, ttl=5)
    face.settle()
    assert fetch.calls == 2
    assert face.peek("k") == Success(2)


def test_swr_always_revalidate_refreshes_a_fresh_entry_too(face: Face) -> None:
    fetch = face.fetcher(Success(1), Success(2))
    face.get("k", fetch, ttl=300)

    assert face.get("k", fetch, policy=SWR, ttl=300, always_revalidate=True) == Success(1)
    face.settle()
    assert fetch.calls == 2
    assert face.peek("k") == Success(2)


def test_swr_starts_one_background_refresh_at_a_time(face: Face) -> None:
    face.fill("k", 1, ttl=5)
    face.clock.advance(6)
    fetch = face.fetcher(Success(2), held=True)

    answers = [face.get("k", fetch, policy=SWR) for _ in range(5)]
    face.settle()
    fetch.release()
    face.settle()

    assert answers == [Success(1)] * 5
    assert fetch.calls == 1


# the whole table

MISS: tuple[Event, ...] = (("miss", "k"),)
HIT: tuple[Event, ...] = (("hit", "k"),)
WRITE: tuple[Event, ...] = (("write", "k", 10.0),)
ERROR: tuple[Event, ...] = (("error", "k", "down"),)
ON_MISS: tuple[Event, ...] = (("refresh", "k", "cache_miss"),)
BY_POLICY: tuple[Event, ...] = (("refresh", "k", "policy"),)
BEHIND: tuple[Event, ...] = (("refresh", "k", "background"),)

OLD, NEW, DOWN, EARLIER = Success("old"), Success("new"), Failure("down"), Failure("earlier")
MISSED, EXPIRED = Failure(CacheMiss("k")), Failure(CacheExpired("k"))


def bring_about(face: Face, cached: str) -> None:
    """What there is under "k": an entry or none, with a cached failure beside it or without."""
    if cached.startswith(("fresh", "stale")):
        face.fill("k", "old", ttl=10)
    if cached.startswith("stale"):
        face.clock.advance(10)
    if cached.endswith("failed"):
        face.get("k", face.fetcher(Failure("earlier")), ttl=10, cache_failures=True)
        face.log.take()


@pytest.mark.parametrize(
    ("policy", "cached", "answer", "left", "events"),
    [
        (CACHE_FIRST, "missing", NEW, NEW, MISS + ON_MISS + WRITE),
        (CACHE_FIRST, "fresh", OLD, OLD, HIT),
        (CACHE_FIRST, "stale", NEW, NEW, MISS + ON_MISS + WRITE),
        (NETWORK_FIRST, "missing", NEW, NEW, BY_POLICY + WRITE),
        (NETWORK_FIRST, "fresh", NEW, NEW, BY_POLICY + WRITE),
        (NETWORK_FIRST, "stale", NEW, NEW, BY_POLICY + WRITE),
        (SWR, "missing", NEW, NEW, MISS + ON_MISS + WRITE),
        (SWR, "fresh", OLD, OLD, HIT),
        (SWR, "stale", OLD, NEW, HIT + BEHIND + WRITE),
        (NETWORK_ONLY, "missing", NEW, MISSED, BY_POLICY),
        (NETWORK_ONLY, "fresh", NEW, OLD, BY_POLICY),
        (NETWORK_ONLY, "stale", NEW, EXPIRED, BY_POLICY),
        (CACHE_ONLY, "missing", MISSED, MISSED, MISS),
        (CACHE_ONLY, "fresh", OLD, OLD, HIT),
        (CACHE_ONLY, "stale", EXPIRED, EXPIRED, MISS),
        # A failure that another call cached answers where it would otherwise be fetched or refused, and is not logged.
        (CACHE_FIRST, "failed", EARLIER, MISSED, ()),
        (CACHE_FIRST, "stale, failed", EARLIER, EXPIRED, ()),
        (NETWORK_FIRST, "failed", NEW, NEW, BY_POLICY + WRITE),
        (NETWORK_FIRST, "stale, failed", NEW, NEW, BY_POLICY + WRITE),
        (SWR, "failed", EARLIER, MISSED, ()),
        (SWR, "stale, failed", OLD, NEW, HIT + BEHIND + WRITE),
        (NETWORK_ONLY, "failed", NEW, MISSED, BY_POLICY),
        (CACHE_ONLY, "failed", EARLIER, MISSED, ()),
        (CACHE_ONLY, "stale, failed", EARLIER, EXPIRED, ()),
    ],
    ids=lambda value: value.name if isinstance(value, CachePolicy) else value if isinstance(value, str) else "",
)
def test_what_a_policy_answers_leaves_and_logs(
    face: Face,
    policy: CachePolicy,
    cached: str,
    answer: Answer,
    left: Answer,
    events: tuple[Event, ...],
) -> None:
    bring_about(face, cached)
    fetch = face.fetcher(NEW)

    assert face.get("k", fetch, policy=policy, ttl=10) == answer
    face.settle()
    assert face.peek("k") == left
    assert tuple(face.log.events) == events
    assert fetch.calls == len([event for event in events if event[0] == "refresh"])


@pytest.mark.parametrize(
    ("policy", "cached", "answer", "events"),
    [
        (CACHE_FIRST, "missing", DOWN, MISS + ON_MISS + ERROR),
        (CACHE_FIRST, "fresh", OLD, HIT),
        (CACHE_FIRST, "stale", DOWN, MISS + ON_MISS + ERROR),
        (NETWORK_FIRST, "missing", DOWN, BY_POLICY + ERROR),
        (NETWORK_FIRST, "fresh", OLD, BY_POLICY + ERROR + HIT),
        (NETWORK_FIRST, "stale", OLD, BY_POLICY + ERROR + HIT),
        (NETWORK_FIRST, "failed", DOWN, BY_POLICY + ERROR),
        (NETWORK_FIRST, "stale, failed", OLD, BY_POLICY + ERROR + HIT),
        (SWR, "missing", DOWN, MISS + ON_MISS + ERROR),
        (SWR, "fresh", OLD, HIT),
        (SWR, "stale", OLD, HIT + BEHIND + ERROR),
        (NETWORK_ONLY, "missing", DOWN, BY_POLICY + ERROR),
        (NETWORK_ONLY, "fresh", DOWN, BY_POLICY + ERROR),
        (NETWORK_ONLY, "stale", DOWN, BY_POLICY + ERROR),
    ],
    ids=lambda value: value.name if isinstance(value, CachePolicy) else value if isinstance(value, str) else "",
)
def test_what_a_policy_answers_and_logs_when_the_fetch_fails(
    face: Face,
    policy: CachePolicy,
    cached: str,
    answer: Answer,
    events: tuple[Event, ...],
) -> None:
    bring_about(face, cached)
    before = face.peek("k", allow_expired=True)

    assert face.get("k", face.fetcher(DOWN), policy=policy, ttl=10) == answer
    face.settle()
    assert face.peek("k", allow_expired=True) == before
    assert tuple(face.log.events) == events
