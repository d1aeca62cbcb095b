"""The assertions hold where they should, fail where they should, and say what was seen."""

from __future__ import annotations

from typing import Any

import pytest
from returns.result import Failure, Success

from cachemesh import CachePolicy, SyncCache
from cachemesh.testing import (
    ScriptedOrigin,
    VirtualClock,
    assert_never_stale_beyond,
    assert_never_two_at_once,
    assert_one_flight,
)


def asked(origin: ScriptedOrigin[Any, Any], *keys: str) -> None:
    for key in keys:
        origin.sync_fetcher(key)()


def test_one_flight_each_is_one_flight() -> None:
    origin = ScriptedOrigin()
    asked(origin, "a", "b")

    assert_one_flight(origin)
    assert_one_flight(origin, "a")


def test_so_many_flights_are_expected_where_that_is_said() -> None:
    origin = ScriptedOrigin()
    asked(origin, "a", "a")

    assert_one_flight(origin, "a", times=2)
    assert_one_flight(origin, "b", times=0)
    with pytest.raises(AssertionError, match=r"^'a': 3 requests were expected, and 2 came:\n  #1 at 0.0 s\n  #2 at"):
        assert_one_flight(origin, "a", times=3)


def test_no_flight_is_not_one() -> None:
    origin = ScriptedOrigin()

    with pytest.raises(AssertionError, match=r"^the origin was asked for nothing at all$"):
        assert_one_flight(origin)
    with pytest.raises(AssertionError, match=r"^'a': 1 request was expected, and 0 came$"):
        assert_one_flight(origin, "a")


def test_two_flights_of_one_of_the_keys_are_named() -> None:
    origin = ScriptedOrigin()
    asked(origin, "a", "b", "b")

    with pytest.raises(AssertionError, match=r"^'b': 1 request was expected, and 2 came"):
        assert_one_flight(origin)
    assert_never_two_at_once(origin)


def test_two_requests_at_once_are_found_though_both_are_over() -> None:
    origin: ScriptedOrigin[Any, Any] = ScriptedOrigin(
        lambda first: origin.sync_fetcher("a")() if first.number == 1 else Success(2)
    )
    origin.answers(Success(0), key="b")
    asked(origin, "a", "b")

    assert_never_two_at_once(origin, "b")
    for key in ("a", None):
        with pytest.raises(AssertionError, match=r"^'a': 2 requests were under way at once"):
            assert_never_two_at_once(origin, key)
    with pytest.raises(AssertionError, match=r"^'a': 2 requests were under way at once"):
        assert_one_flight(origin, "a", times=2)


def test_of_a_key_that_nobody_asked_for_nothing_is_proved() -> None:
    """A key with a typing error would hold for ever."""
    origin = ScriptedOrigin()
    asked(origin, "feed")
    with pytest.raises(AssertionError, match=r"^the origin was not asked for 'fed'$"):
        assert_never_two_at_once(origin, "fed")


def test_on_a_clock_that_nobody_moves_nothing_is_old() -> None:
    """An origin that was not given the clock of the cache cannot say how old anything is."""
    clock, origin = VirtualClock(), ScriptedOrigin()
    with SyncCache(clock=clock, default_ttl=3600) as cache:
        for _ in range(2):
            origin.seen(cache.get("k", origin.sync_fetcher("k")))
            clock.advance(1000)

    with pytest.raises(AssertionError, match=r"^no time has passed for the origin: give it the clock of the cache"):
        assert_never_stale_beyond(1, origin)


def test_a_clock_of_the_origins_own_is_as_good_as_any() -> None:
    origin = ScriptedOrigin()
    with SyncCache(clock=origin.clock, default_ttl=3600) as cache:
        origin.seen(cache.get("k", origin.sync_fetcher("k")))
        origin.clock.advance(10)  # type: ignore[attr-defined]  # a VirtualClock
        origin.seen(cache.get("k", origin.sync_fetcher("k")))

    assert_never_stale_beyond(10, origin)
    with pytest.raises(AssertionError, match=r"a value of 10\.0 s"):
        assert_never_stale_beyond(9, origin)


@pytest.mark.parametrize("seconds", [float("nan"), -1.0])
def test_a_bound_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds from 0 on"):
        assert_never_stale_beyond(seconds, ScriptedOrigin())


def test_what_does_not_tell_its_age_is_named() -> None:
    with pytest.raises(TypeError, match="get_served"):
        assert_never_stale_beyond(1, [Success("news")])


def test_an_old_value_is_found_and_its_request_named() -> None:
    clock = VirtualClock()
    origin = ScriptedOrigin(clock=clock)
    with SyncCache(clock=clock, default_ttl=10) as cache:
        for _ in range(8):
            origin.seen(cache.get("k", origin.sync_fetcher("k"), policy=CachePolicy.STALE_WHILE_REVALIDATE))
            clock.advance(30)

    with pytest.raises(AssertionError, match=r"at 30.0 s: 'k #1', answered at 0.0 s by request #1 for 'k'"):
        assert_never_stale_beyond(10, origin)


def test_at_most_five_old_values_are_listed() -> None:
    clock = VirtualClock()
    origin = ScriptedOrigin(clock=clock)
    answer = origin.sync_fetcher("k")()
    for _ in range(7):
        clock.advance(1)
        origin.seen(answer)

    with pytest.raises(AssertionError, match=r"^a value of 7.0 s .*\n(.*\n){5}  and 2 more$"):
        assert_never_stale_beyond(0, origin)


def test_failures_have_no_age_and_nothing_seen_proves_nothing() -> None:
    origin = ScriptedOrigin(Failure("no"))
    origin.seen(origin.sync_fetcher("k")())

    with pytest.raises(AssertionError, match=r"^no caller was given a value"):
        assert_never_stale_beyond(1e9, origin)


def test_a_value_that_nobody_ever_answered_is_found() -> None:
    origin = ScriptedOrigin()
    origin.seen(Success("made up"))

    with pytest.raises(AssertionError, match="given 'made up', which the origin had never answered"):
        assert_never_stale_beyond(1e9, origin)


def test_what_get_served_answers_says_its_age_itself() -> None:
    clock = VirtualClock()
    origin = ScriptedOrigin(Success(1), Failure("no"), clock=clock)
    with SyncCache(clock=clock) as cache:
        answers: list[Any] = []
        for key in ("k", "k", "other"):
            answers.append(cache.get_served(key, origin.sync_fetcher()))
            clock.advance(5)

    assert_never_stale_beyond(5, answers)
    assert_never_stale_beyond(5, [answers[0].unwrap()])
    with pytest.raises(AssertionError, match=r"^a value of 5.0 s was given to a caller, and 4 s were allowed"):
        assert_never_stale_beyond(4, answers)
