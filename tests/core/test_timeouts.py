"""A caller has waited for long, or too long; a flight is older than it may get."""

from __future__ import annotations

from typing import Any

import pytest

from cachemesh.core import (
    GLOBAL_OWNER,
    Abandoned,
    AskAgain,
    Breaker,
    CancelFetch,
    FetchSucceeded,
    FlightKind,
    GaveUp,
    Get,
    Invalidate,
    Join,
    Lifespan,
    Loaded,
    LogBreaker,
    Origin,
    Overdue,
    RefreshSource,
    Reply,
    ReportFailure,
    RetryDue,
    Save,
    Settle,
    StartFetch,
    WaitedLong,
)
from cachemesh.core.lifetimes import made
from tests.core.rows import ALICE, entry, expect, flight, run, state

NOW = 100.0
OLD: Any = {"entries": {"feed": entry(ttl_s=60.0)}}
SPAN = Lifespan(serve_stale_s=10.0, stale_if_error_s=50.0)
SERVED = Reply(GLOBAL_OWNER, "feed", "news")
GITHUB = Origin("github", failures=1, open_s=30.0)


def lived(expires_at: float, lifespan: Lifespan = SPAN, tags: tuple[str, ...] = ()) -> Any:
    """An entry that expires at an instant."""
    return {"entries": {"feed": made("news", 0.0, expires_at, 1, lifespan=lifespan, tags=tags)}}


@pytest.mark.parametrize("command", [WaitedLong(1, NOW), GaveUp(1, NOW), Overdue(1, "slow", NOW)])
def test_news_of_a_flight_that_is_gone_changes_nothing(command: Any) -> None:
    before = state(flight(2), **OLD)
    expect(before, command, before)


# Soft


def test_whoever_has_waited_for_long_gets_an_old_value_and_the_fetch_goes_on() -> None:
    after = state(flight(is_detached=True), **OLD)
    expect(state(flight(), **OLD), WaitedLong(1, NOW), after, SERVED)
    expect(after, WaitedLong(1, NOW), after, SERVED)
    expect(after, Abandoned(1), after)


@pytest.mark.parametrize("there", [{}, lived(50.0)], ids=["nothing", "too old"])
def test_where_there_is_none_they_go_on_waiting(there: Any) -> None:
    before = state(flight(), **there)
    expect(before, WaitedLong(1, NOW), before)


@pytest.mark.parametrize("expires_at", [51.0, 99.0, 101.0])
def test_tt7_an_old_value_is_one_within_its_windows(expires_at: float) -> None:
    _, effects = run(state(flight(), **lived(expires_at)), WaitedLong(1, NOW))

    assert effects == (SERVED,)


def test_what_the_fetch_brings_is_stored() -> None:
    stored = entry("newer", at=NOW, ttl_s=9.0)
    expect(
        state(flight(ttl_s=9.0, is_detached=True), **OLD),
        FetchSucceeded(1, "newer", NOW),
        state(entries={"feed": stored}),
        Save(1, GLOBAL_OWNER, "feed", stored, is_new=False),
        Settle(1, GLOBAL_OWNER, "feed", "newer"),
    )


@pytest.mark.parametrize(
    "before",
    [state(flight(), struck=[1], **OLD), state(flight(kind=FlightKind.BYPASS), **OLD)],
    ids=["struck off", "passes the cache by"],
)
def test_a_fetch_that_stores_nothing_goes_on_for_nobody(before: Any) -> None:
    expect(before, WaitedLong(1, NOW), before, SERVED)
    expect(before, Abandoned(1), state(**OLD), CancelFetch(1))


def test_a_detached_flight_is_one_of_the_background() -> None:
    assert flight(is_detached=True).is_background
    assert not flight().is_background


# Hard

# reads, falls back; the entry; who gets what
GIVEN_UP = [
    (True, False, {}, ()),
    (True, True, {}, ()),
    (True, False, OLD, ()),
    (True, True, OLD, (SERVED,)),
    (False, True, OLD, (SERVED,)),
    (False, False, OLD, ()),
    (True, False, lived(99.0), (SERVED,)),
    (False, False, lived(99.0), ()),
    (True, True, lived(99.0), (SERVED,)),
    (True, False, lived(50.0), ()),
    (True, True, lived(50.0), ()),
    (True, False, lived(99.0, Lifespan(serve_stale_s=10.0)), ()),
    (True, True, lived(99.0, Lifespan(serve_stale_s=10.0)), (SERVED,)),
]


@pytest.mark.parametrize(("reads", "falls_back", "there", "effects"), GIVEN_UP)
def test_whoever_gives_up_gets_what_they_would_take(reads: bool, falls_back: bool, there: Any, effects: Any) -> None:
    """And the flight is listed no longer."""
    command = GaveUp(1, NOW, reads, falls_back)
    expect(state(flight(), **there), command, state(flight(), struck=[1], **there), *effects)


def test_the_next_one_tries_anew_and_the_late_answer_is_told_and_stored_nowhere() -> None:
    released, _ = run(state(flight()), GaveUp(1, NOW))
    expect(
        released,
        Get("feed", NOW, 2),
        state(flight(1), flight(2), struck=[1]),
        StartFetch(2, GLOBAL_OWNER, "feed", RefreshSource.CACHE_MISS),
        Join(2),
    )
    expect(released, FetchSucceeded(1, "late", NOW), state(), Settle(1, GLOBAL_OWNER, "feed", "late"))
    expect(released, Abandoned(1), state(), CancelFetch(1))
    expect(released, GaveUp(1, NOW), released)


def test_a_late_answer_does_not_overtake_the_next_one() -> None:
    after, _ = run(
        state(flight(ttl_s=9.0)),
        GaveUp(1, NOW),
        Get("feed", NOW, 2, ttl_s=9.0),
        FetchSucceeded(2, "newer", NOW),
        FetchSucceeded(1, "late", NOW),
    )
    assert after == state(entries={"feed": entry("newer", at=NOW, ttl_s=9.0)})


def test_an_origin_is_told_once_of_all_who_gave_up() -> None:
    told = state(flight(origin=None), struck=[1], breakers={"github": Breaker(1, 130.0)})
    expect(state(flight(origin=GITHUB)), GaveUp(1, NOW), told, LogBreaker("github", 130.0))
    expect(told, GaveUp(1, NOW), told)
    expect(
        told,
        FetchSucceeded(1, "late", NOW),
        state(breakers={"github": Breaker(1, 130.0)}),
        Settle(1, GLOBAL_OWNER, "feed", "late"),
    )


def test_a_value_and_the_log_come_in_this_order() -> None:
    _, effects = run(state(flight(origin=GITHUB), **OLD), GaveUp(1, NOW, falls_back=True))

    assert effects == (SERVED, LogBreaker("github", 130.0))


def test_a_load_that_takes_too_long_tells_nothing_of_the_origin() -> None:
    before, _ = run(state(has_store=True), Get("feed", NOW, 1, origin=GITHUB))
    after, effects = run(before, GaveUp(1, NOW))

    assert (after, effects) == (state(flight(kind=FlightKind.LOAD), struck=[1], has_store=True), ())
    assert run(after, Loaded(1, NOW, entry())) == (state(has_store=True), (AskAgain(1, is_struck=True),))


# Too old


def test_sf8_a_flight_that_is_overdue_frees_its_key() -> None:
    """The next one begins at once; what the old fetch still brings is stored nowhere."""
    expect(
        state(flight(), flight(2, "me"), **OLD),
        Overdue(1, "slow", NOW),
        state(flight(2, "me"), **OLD),
        ReportFailure(GLOBAL_OWNER, "feed", "slow", notify=True),
        Settle(1, GLOBAL_OWNER, "feed", "slow", "news", None),
        CancelFetch(1),
    )
    after, effects = run(
        state(flight()),
        Overdue(1, "slow", NOW),
        Get("feed", NOW, 2),
        FetchSucceeded(1, "late", NOW),
    )
    assert (after, effects) == (state(flight(2)), ())


def test_sf8_those_who_wait_get_what_may_stand_in() -> None:
    _, effects = run(state(flight(), **lived(99.0)), Overdue(1, "slow", NOW))

    assert Settle(1, GLOBAL_OWNER, "feed", "slow", "news", "news") in effects


@pytest.mark.parametrize(
    "before",
    [state(flight(), struck=[1]), state(flight(kind=FlightKind.BYPASS))],
    ids=["behind the fence", "beside the cache"],
)
def test_sf8_what_stores_nothing_is_no_news_to_watchers(before: Any) -> None:
    expect(
        before,
        Overdue(1, "slow", NOW),
        state(),
        ReportFailure(GLOBAL_OWNER, "feed", "slow", notify=False),
        Settle(1, GLOBAL_OWNER, "feed", "slow"),
        CancelFetch(1),
    )


@pytest.mark.parametrize("is_detached", [True, False])
@pytest.mark.parametrize("source", [RefreshSource.BACKGROUND, RefreshSource.CACHE_MISS])
def test_sf8_nothing_is_too_far_in_the_background(source: RefreshSource, is_detached: bool) -> None:
    after, _ = run(
        state(flight(owner=ALICE, source=source, is_detached=is_detached)), Overdue(1, "slow", NOW), RetryDue(1)
    )
    assert after == state()


def test_sf8_the_origin_is_told() -> None:
    expect(
        state(flight(origin=GITHUB)),
        Overdue(1, "slow", NOW),
        state(breakers={"github": Breaker(1, 130.0)}),
        ReportFailure(GLOBAL_OWNER, "feed", "slow", notify=True),
        Settle(1, GLOBAL_OWNER, "feed", "slow"),
        CancelFetch(1),
        LogBreaker("github", 130.0),
    )


def test_a_detached_flight_may_be_struck_off_and_ends_all_the_same() -> None:
    after, _ = run(
        state(flight(), **OLD),
        WaitedLong(1, NOW),
        Invalidate("feed"),
        FetchSucceeded(1, "late", NOW),
    )
    assert after == state()
