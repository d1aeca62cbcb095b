"""Counterpart of `cache_test.dart`'s single-flight group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from returns.result import Failure, Success

from cachemesh import CachePolicy

if TYPE_CHECKING:
    from tests.shell.faces import Answer, Face

REFRESHING = [CachePolicy.CACHE_FIRST, CachePolicy.NETWORK_FIRST, CachePolicy.STALE_WHILE_REVALIDATE]


def test_concurrent_gets_share_a_single_fetch(face: Face) -> None:
    fetch = face.fetcher(Success(42), held=True)

    answers = face.concurrently(
        5,
        lambda calls: calls.get("k", fetch, policy=CachePolicy.NETWORK_FIRST),
        then=fetch.release,
    )

    assert answers == [Success(42)] * 5
    assert fetch.calls == 1


@pytest.mark.parametrize("outcome", [Success("v"), Failure("down")], ids=["success", "failure"])
@pytest.mark.parametrize("policy", [*REFRESHING, CachePolicy.NETWORK_ONLY], ids=lambda policy: policy.name)
def test_every_policy_that_fetches_shares_the_fetch(face: Face, policy: CachePolicy, outcome: Answer) -> None:
    fetch = face.fetcher(outcome, held=True)

    answers = face.concurrently(3, lambda calls: calls.get("k", fetch, policy=policy), then=fetch.release)

    assert answers == [outcome] * 3
    assert fetch.calls == 1


@pytest.mark.parametrize("method", ["refresh", "prefetch"])
def test_refresh_and_prefetch_join_the_fetch_under_way(face: Face, method: str) -> None:
    fetch, other = face.fetcher(Success(1), held=True), face.fetcher(Success(2))
    first = face.begin.get("k", fetch)
    second = face.begin.call(method, "k", other)
    fetch.release()

    assert (first.result(), second.result()) == (Success(1), Success(1))
    assert other.calls == 0


def test_only_the_one_who_fetches_is_logged(face: Face) -> None:
    fetch = face.fetcher(Success(1), held=True)
    face.concurrently(3, lambda calls: calls.get("k", fetch), then=fetch.release)

    assert face.log.events == [("miss", "k"), ("refresh", "k", "cache_miss"), ("write", "k", None)]


def test_different_keys_do_not_wait_for_each_other(face: Face) -> None:
    hung = face.fetcher(Success("late"), held=True)
    pending = face.begin.get("hung", hung)

    assert face.get("k", face.fetcher(Success(1))) == Success(1)
    assert not pending.is_done

    hung.release()
    assert pending.result() == Success("late")


def test_a_flight_that_failed_does_not_stand_in_the_way_of_the_next(face: Face) -> None:
    fetch = face.fetcher(LookupError("once"), Success(2))
    face.get("k", fetch)

    assert face.get("k", fetch) == Success(2)
