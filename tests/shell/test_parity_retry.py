"""Counterparts of `retry_test.dart`, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
from pydantic import ValidationError
from returns.result import Failure, Success

from cachemesh import CachePolicy, FetchRaised, FetchTimeout, RetryOptions

if TYPE_CHECKING:
    from tests.shell.faces import AsyncFace, Face

NETWORK_ONLY = CachePolicy.NETWORK_ONLY


# no retry (default)


def test_a_single_attempt_and_the_failure_propagates_immediately(face: Face) -> None:
    fetch = face.fetcher(Failure("boom"))

    assert face.get("k", fetch, policy=NETWORK_ONLY) == Failure("boom")
    assert fetch.calls == 1


# max_attempts


def test_retries_up_to_max_attempts_then_returns_the_final_failure(face: Face) -> None:
    fetch = face.fetcher(Failure("one"), Failure("two"), Failure("three"))

    assert face.get("k", fetch, policy=NETWORK_ONLY, retry=RetryOptions(max_attempts=3)) == Failure("three")
    assert fetch.calls == 3


def test_stops_retrying_after_a_success(face: Face) -> None:
    fetch = face.fetcher(Failure("net"), Failure("net"), Success(42))

    assert face.get("k", fetch, policy=NETWORK_ONLY, retry=RetryOptions(max_attempts=5)) == Success(42)
    assert fetch.calls == 3


def test_three_attempts_and_no_delay_are_the_defaults(face: Face) -> None:
    fetch = face.fetcher(Failure("net"))
    before = face.clock()
    face.get("k", fetch, retry=RetryOptions.DEFAULTS)

    assert fetch.calls == 3
    assert face.clock() == before
    assert RetryOptions() == RetryOptions.DEFAULTS
    assert RetryOptions(max_attempts=1) == RetryOptions.NO_RETRY


# retry_when


def test_does_not_retry_when_the_predicate_returns_false(face: Face) -> None:
    fetch = face.fetcher(Failure(PermissionError("unauthorized")))
    retry = RetryOptions(max_attempts=5, retry_when=lambda error: not isinstance(error, PermissionError))

    face.get("k", fetch, policy=NETWORK_ONLY, retry=retry)
    assert fetch.calls == 1


def test_retries_when_the_predicate_returns_true_and_stops_on_false(face: Face) -> None:
    unauthorized = PermissionError("unauthorized")
    fetch = face.fetcher(Failure("network"), Failure("network"), Failure(unauthorized))
    seen: list[object] = []

    def is_transient(error: object) -> bool:
        seen.append(error)
        return not isinstance(error, PermissionError)

    answer = face.get("k", fetch, policy=NETWORK_ONLY, retry=RetryOptions(max_attempts=10, retry_when=is_transient))

    assert answer == Failure(unauthorized)
    assert fetch.calls == 3
    assert seen == ["network", "network", unauthorized]


def test_the_predicate_sees_the_exception_that_was_raised(face: Face) -> None:
    error, predicate = OSError("crash"), Mock(return_value=False)
    face.get("k", face.fetcher(error), retry=RetryOptions(max_attempts=2, retry_when=predicate))

    predicate.assert_called_once_with(error)


def test_the_predicate_is_not_asked_after_the_last_attempt(face: Face) -> None:
    predicate = Mock(return_value=True)
    face.get(
        "k", face.fetcher(Failure("one"), Failure("two")), retry=RetryOptions(max_attempts=2, retry_when=predicate)
    )

    predicate.assert_called_once_with("one")


# delay


def test_adds_a_delay_between_attempts(face: Face) -> None:
    fetch = face.fetcher(Failure("x"))
    before = face.clock()
    face.get("k", fetch, policy=NETWORK_ONLY, retry=RetryOptions(max_attempts=3, delay=20))

    assert fetch.calls == 3
    assert face.clock() - before == 40


@pytest.mark.parametrize(
    ("retry", "delays"),
    [
        (RetryOptions(max_attempts=4, delay=2), [2.0, 2.0, 2.0]),
        (RetryOptions(max_attempts=4, delay=2, backoff_factor=2), [2.0, 4.0, 8.0]),
        (RetryOptions(max_attempts=4, delay=2, backoff_factor=2, max_delay=5), [2.0, 4.0, 5.0]),
        (RetryOptions(max_attempts=2, delay=0.5), [0.5]),
    ],
    ids=["constant", "backoff", "capped", "short"],
)
def test_the_delay_grows_by_its_factor_up_to_its_cap(face: Face, retry: RetryOptions, delays: list[float]) -> None:
    before = face.clock()
    face.get("k", face.fetcher(Failure("x")), retry=retry)

    assert [event[4] for event in face.log.named("retry")] == delays
    assert face.clock() - before == sum(delays)


def test_jitter_makes_a_share_of_the_delay_random_and_keeps_the_cap(face: Face) -> None:
    retry = RetryOptions(max_attempts=50, delay=8, jitter=0.5, max_delay=7)
    face.get("k", face.fetcher(Failure("x")), retry=retry)

    delays = [event[4] for event in face.log.named("retry")]
    assert all(isinstance(delay, float) and 4 <= delay <= 7 for delay in delays)
    assert len(set(delays)) > 5


def test_every_retry_is_logged_and_the_error_only_in_the_end(face: Face) -> None:
    fetch = face.fetcher(Failure("one"), Failure("two"), Failure("three"))
    face.get("k", fetch, retry=RetryOptions(max_attempts=3, delay=1))

    assert face.log.events == [
        ("miss", "k"),
        ("refresh", "k", "cache_miss"),
        ("retry", "k", 1, "one", 1.0),
        ("retry", "k", 2, "two", 1.0),
        ("error", "k", "three"),
    ]


def test_joiners_wait_through_the_retries(face: Face) -> None:
    fetch = face.fetcher(Failure("one"), Success(2), held=True)
    retry = RetryOptions(max_attempts=2, delay=1)

    answers = face.concurrently(3, lambda calls: calls.get("k", fetch, retry=retry), then=fetch.release)

    assert answers == [Success(2)] * 3
    assert fetch.calls == 2


# the cache's own default


def test_the_cache_level_default_applies_to_all_gets(face: Face) -> None:
    face = face.new(retry=RetryOptions(max_attempts=3))
    fetch = face.fetcher(Failure("x"))
    face.get("k", fetch, policy=NETWORK_ONLY)

    assert fetch.calls == 3


def test_per_call_retry_overrides_the_cache_default(face: Face) -> None:
    face = face.new(retry=RetryOptions(max_attempts=3))
    fetch = face.fetcher(Failure("x"))
    face.get("k", fetch, policy=NETWORK_ONLY, retry=RetryOptions.NO_RETRY)

    assert fetch.calls == 1


# raised exceptions are retried like returned failures


def test_an_exception_in_the_fetcher_counts_as_one_attempt(face: Face) -> None:
    error = OSError("crash")
    fetch = face.fetcher(error)

    answer = face.get("k", fetch, policy=NETWORK_ONLY, retry=RetryOptions(max_attempts=4))

    assert answer == Failure(FetchRaised("k", error))
    assert fetch.calls == 4


# what the original has no test for


@pytest.mark.parametrize("max_attempts", [0, -1, 1.5, True, "3"])
def test_a_bad_number_of_attempts_is_refused_at_construction(max_attempts: object) -> None:
    """The original only asserts it in debug mode."""
    with pytest.raises(ValidationError):
        RetryOptions(max_attempts=max_attempts)  # type: ignore[arg-type]  # what is tested


def test_an_attempt_that_takes_too_long_fails_with_a_timeout(async_face: AsyncFace) -> None:
    slow = async_face.fetcher(Success(1), takes=60)
    before = async_face.clock()

    answer = async_face.get("k", slow, retry=RetryOptions(max_attempts=2, attempt_timeout=5))

    assert answer == Failure(FetchTimeout("k", 5.0))
    assert slow.calls == 2
    assert async_face.clock() - before == 10
