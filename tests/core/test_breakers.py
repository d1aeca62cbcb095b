"""An origin that fails several times in a row is left alone for a while; then one fetch tries it."""

from __future__ import annotations

from typing import Any

import pytest

from cachemesh.core import (
    GLOBAL_OWNER,
    Abandoned,
    Abort,
    Breaker,
    CachePolicy,
    CancelFetch,
    DomainClosed,
    FetchAborted,
    FetchFailed,
    FetchSucceeded,
    FlightKind,
    GaveUp,
    Get,
    Invalidate,
    Join,
    Lifespan,
    Load,
    LogBreaker,
    Origin,
    Overdue,
    Refresh,
    RefreshSource,
    Refusal,
    Refuse,
    Reply,
    ReportFailure,
    ResetBreaker,
    Retry,
    RetryDue,
    Save,
    Settle,
    StartFetch,
    reduce,
)
from cachemesh.core.lifetimes import made
from tests.core.rows import entry, expect, flight, run, state

NOW = 100.0
GITHUB = Origin("github", failures=3, open_s=30.0)
OPEN: Any = {"breakers": {"github": Breaker(3, 130.0)}}
SPAN = Lifespan(serve_stale_s=10.0, stale_if_error_s=50.0)
NETWORK_ONLY, NETWORK_FIRST = CachePolicy.NETWORK_ONLY, CachePolicy.NETWORK_FIRST
SERVED = Reply(GLOBAL_OWNER, "feed", "news")


def trying(flight_id: int = 1, failures: int = 3, until: float = 90.0, probe_until: float = 115.0) -> Any:
    """Half-open, with a probe out."""
    return {"breakers": {"github": Breaker(failures, until, flight_id, probe_until)}}


def get(key: str = "feed", now: float = NOW, flight_id: int = 2, **options: Any) -> Get:
    return Get(key, now, flight_id, origin=GITHUB, **options)


def refused(until: float) -> Refuse:
    return Refuse(Refusal.CIRCUIT_OPEN, "github", until)


def told(answer: str = "down", fallback: str | None = None, rescue: str | None = None) -> tuple[Any, ...]:
    return (
        ReportFailure(GLOBAL_OWNER, "feed", answer, notify=True),
        Settle(1, GLOBAL_OWNER, "feed", answer, fallback, rescue),
    )


# Closed


@pytest.mark.parametrize(
    ("before", "after", "log"),
    [
        ({}, Breaker(1), ()),
        ({"github": Breaker(1)}, Breaker(2), ()),
        ({"github": Breaker(2)}, Breaker(3, 130.0), (LogBreaker("github", 130.0),)),
        ({"github": Breaker(7)}, Breaker(8, 130.0), (LogBreaker("github", 130.0),)),
    ],
)
def test_so_many_failures_in_a_row_open_it(before: Any, after: Breaker, log: Any) -> None:
    expect(
        state(flight(origin=GITHUB), breakers={**before, "mail": Breaker(1)}),
        FetchFailed(1, "down", NOW),
        state(breakers={"github": after, "mail": Breaker(1)}),
        *told(),
        *log,
    )


def test_a_success_in_between_begins_the_count_anew() -> None:
    stored = entry(at=NOW, ttl_s=None)
    expect(
        state(flight(origin=GITHUB), breakers={"github": Breaker(2)}),
        FetchSucceeded(1, "news", NOW),
        state(entries={"feed": stored}),
        Save(1, GLOBAL_OWNER, "feed", stored, is_new=True),
        Settle(1, GLOBAL_OWNER, "feed", "news"),
    )


@pytest.mark.parametrize("counted", [0, 2])
def test_a_failure_that_is_not_the_origins_is_not_counted(counted: int) -> None:
    known: Any = {"breakers": {"github": Breaker(counted)}} if counted else {}
    expect(
        state(flight(origin=GITHUB), **known),
        FetchFailed(1, "no such feed", NOW, counts=False),
        state(**known),
        *told("no such feed"),
    )


def test_attempts_of_one_fetch_are_one_failure() -> None:
    after, _ = run(
        state(flight(origin=GITHUB, retry=Retry(3))),
        FetchFailed(1, "down", NOW),
        RetryDue(1),
        FetchFailed(1, "down", NOW),
        RetryDue(1),
        FetchFailed(1, "down", NOW),
    )
    assert after == state(breakers={"github": Breaker(1)})


def test_who_names_no_origin_is_neither_counted_nor_held_off() -> None:
    expect(state(flight(), **OPEN), FetchFailed(1, "down", NOW), state(**OPEN), *told())
    _, effects = run(state(**OPEN), Get("feed", NOW, 2))
    assert effects == (StartFetch(2, GLOBAL_OWNER, "feed", RefreshSource.CACHE_MISS), Join(2))


def test_a_closed_breaker_lets_everyone_through() -> None:
    expect(
        state(breakers={"github": Breaker(2)}),
        get(),
        state(flight(2, origin=GITHUB), breakers={"github": Breaker(2)}),
        StartFetch(2, GLOBAL_OWNER, "feed", RefreshSource.CACHE_MISS),
        Join(2),
    )


# Open


@pytest.mark.parametrize(
    "ask",
    [get(), get(policy=NETWORK_FIRST), get(policy=NETWORK_ONLY), Refresh("feed", NOW, 2, origin=GITHUB)],
    ids=["get", "network_first", "network_only", "refresh"],
)
@pytest.mark.parametrize(("known", "until"), [(OPEN, 130.0), (trying(), 115.0)], ids=["open", "a probe is out"])
def test_an_open_breaker_lets_nobody_through(ask: Any, known: Any, until: float) -> None:
    before = state(**known)
    expect(before, ask, before, refused(until))


OLD = made("news", 0.0, 60.0, 1, lifespan=SPAN)

# policy; entry; what is answered while the breaker is open
HELD_OFF = [
    (CachePolicy.CACHE_FIRST, entry(ttl_s=60.0), refused(130.0)),
    (NETWORK_FIRST, entry(ttl_s=60.0), SERVED),
    (NETWORK_ONLY, entry(ttl_s=600.0), refused(130.0)),
    (NETWORK_ONLY, OLD, refused(130.0)),
    (CachePolicy.CACHE_FIRST, OLD, SERVED),
    (NETWORK_FIRST, OLD, SERVED),
    (CachePolicy.CACHE_FIRST, made("news", 0.0, 50.0, 1, lifespan=SPAN), refused(130.0)),
    (NETWORK_FIRST, made("news", 0.0, 50.0, 1, lifespan=SPAN), refused(130.0)),
    (CachePolicy("odd", stale=CachePolicy.NETWORK_ONLY.stale), entry(ttl_s=60.0), refused(130.0)),
]


@pytest.mark.parametrize(("policy", "there", "effect"), HELD_OFF)
def test_an_old_value_is_answered_to_who_would_take_one(policy: CachePolicy, there: Any, effect: Any) -> None:
    before = state(entries={"feed": there}, **OPEN)
    expect(before, get(policy=policy), before, effect)


def test_a_refresh_by_hand_takes_no_old_value() -> None:
    before = state(entries={"feed": OLD}, **OPEN)
    expect(before, Refresh("feed", NOW, 2, origin=GITHUB), before, refused(130.0))


@pytest.mark.parametrize("known", [OPEN, trying()], ids=["open", "a probe is out"])
def test_a_hit_is_served_and_not_refreshed(known: Any) -> None:
    before = state(entries={"feed": entry(ttl_s=60.0)}, **known)
    expect(before, get(policy=CachePolicy.STALE_WHILE_REVALIDATE), before, SERVED)


def test_a_flight_under_way_is_joined_all_the_same() -> None:
    before = state(flight(origin=GITHUB), **OPEN)
    expect(before, get(), before, Join(1))


def test_the_store_is_asked_all_the_same() -> None:
    before = state(has_store=True, **OPEN)
    expect(
        before,
        get(),
        state(flight(2, kind=FlightKind.LOAD), has_store=True, **OPEN),
        Load(2, GLOBAL_OWNER, "feed"),
        Join(2),
    )
    expect(before, get(asked_store=True), before, refused(130.0))


def test_what_was_asked_before_it_opened_tells_nothing_new() -> None:
    expect(state(flight(origin=GITHUB), **OPEN), FetchFailed(1, "down", NOW), state(**OPEN), *told())
    after, effects = run(state(flight(origin=GITHUB), **OPEN), FetchSucceeded(1, "news", NOW))
    assert after == state(entries={"feed": entry(at=NOW, ttl_s=None)}, **OPEN)
    assert not [effect for effect in effects if isinstance(effect, LogBreaker)]


def test_what_was_asked_before_is_not_tried_again() -> None:
    expect(state(flight(origin=GITHUB, retry=Retry(3)), **OPEN), FetchFailed(1, "down", NOW), state(**OPEN), *told())


# Half-open


def test_fc7_exactly_one_of_a_thousand_tries_it() -> None:
    here = state(**OPEN)
    asked: list[Any] = []
    for number in range(1, 1001):
        here, effects = reduce(here, get(f"key {number}", 130.0, number))
        if number == 1:
            asked.extend(effects)
        else:
            assert effects == (refused(160.0),)
    assert asked == [StartFetch(1, GLOBAL_OWNER, "key 1", RefreshSource.CACHE_MISS), Join(1)]
    assert here == state(flight(1, "key 1", origin=GITHUB), **trying(until=130.0, probe_until=160.0))


def test_fc7_a_thousand_for_one_key_are_one_probe() -> None:
    here = state(**OPEN)
    for number in range(1, 1001):
        here, effects = reduce(here, get("feed", 130.0, number))
        assert effects[-1] == Join(1)
        assert len(effects) == (2 if number == 1 else 1)


@pytest.mark.parametrize(("now", "asks"), [(129.5, False), (130.0, True)])
def test_fc7_it_is_tried_from_exactly_its_instant_on(now: float, asks: bool) -> None:
    _, effects = run(state(**OPEN), get(now=now))

    assert effects == (
        (StartFetch(2, GLOBAL_OWNER, "feed", RefreshSource.CACHE_MISS), Join(2)) if asks else (refused(130.0),)
    )


def test_fc7_a_refresh_behind_a_reader_may_be_the_probe() -> None:
    there: Any = {"entries": {"feed": entry(ttl_s=60.0)}}
    expect(
        state(**OPEN, **there),
        get(now=130.0, policy=CachePolicy.STALE_WHILE_REVALIDATE),
        state(
            flight(2, source=RefreshSource.BACKGROUND, origin=GITHUB),
            **there,
            **trying(2, until=130.0, probe_until=160.0),
        ),
        SERVED,
        StartFetch(2, GLOBAL_OWNER, "feed", RefreshSource.BACKGROUND),
    )


@pytest.mark.parametrize("struck", [[], [1]], ids=["listed", "struck off"])
def test_a_probe_that_succeeds_closes_it(struck: list[int]) -> None:
    after, effects = run(state(flight(origin=GITHUB), struck=struck, **trying()), FetchSucceeded(1, "news", NOW))

    assert len(after.breakers) == 0
    assert effects[-2:] == (Settle(1, GLOBAL_OWNER, "feed", "news"), LogBreaker("github", None))


def test_a_probe_that_fails_opens_it_again() -> None:
    expect(
        state(flight(origin=GITHUB), **trying()),
        FetchFailed(1, "down", NOW),
        state(breakers={"github": Breaker(4, 130.0)}),
        *told(),
        LogBreaker("github", 130.0),
    )


def test_a_probe_may_try_more_than_once() -> None:
    after, _ = run(state(flight(origin=GITHUB, retry=Retry(2)), **trying()), FetchFailed(1, "down", NOW))

    assert after == state(flight(origin=GITHUB, retry=Retry(2), attempt=2), **trying())
    assert run(after, get("me"))[1] == (refused(115.0),)


FREE: Any = {"breakers": {"github": Breaker(3, 90.0)}}


@pytest.mark.parametrize(
    ("command", "effects"),
    [
        (FetchAborted(1), (Abort(1, "feed"),)),
        (Abandoned(1), (CancelFetch(1),)),
        (DomainClosed(0), (Abort(1, "feed"),)),
        (FetchFailed(1, "down", NOW, counts=False), told()),
    ],
    ids=["aborted", "abandoned", "its loop closed", "failed for a reason of its own"],
)
def test_fc7_a_probe_that_tells_nothing_frees_the_next_one(command: Any, effects: Any) -> None:
    expect(state(flight(origin=GITHUB), **trying()), command, state(**FREE), *effects)
    _, begun = run(state(**FREE), get())
    assert begun == (StartFetch(2, GLOBAL_OWNER, "feed", RefreshSource.CACHE_MISS), Join(2))


@pytest.mark.parametrize("command", [GaveUp(1, NOW), Overdue(1, "slow", NOW)], ids=["given up", "overdue"])
def test_fc7_a_probe_that_hangs_has_failed(command: Any) -> None:
    after, effects = run(state(flight(origin=GITHUB), **trying()), command)

    assert dict(after.breakers.items()) == {"github": Breaker(4, 130.0)}
    assert effects[-1] == LogBreaker("github", 130.0)
    assert run(after, get("me", now=130.0))[1][-1] == Join(2)


def test_whoever_is_not_the_probe_does_not_free_it() -> None:
    before = state(flight(1, "me", origin=GITHUB), flight(3, origin=GITHUB), **trying(1))
    for command in (FetchAborted(3), Abandoned(3), FetchFailed(3, "down", NOW, counts=False), Invalidate("me")):
        after, _ = run(before, command)
        assert after.breakers == before.breakers


# By hand


@pytest.mark.parametrize("known", [OPEN, trying(), {"breakers": {"github": Breaker(1)}}])
def test_it_is_reset(known: Any) -> None:
    expect(state(**known), ResetBreaker("github"), state(), LogBreaker("github", None))


def test_where_nothing_is_known_nothing_is_reset() -> None:
    before = state(**OPEN)
    expect(before, ResetBreaker("mail"), before)


def test_a_probe_from_before_a_reset_is_one_of_many() -> None:
    after, _ = run(state(flight(origin=GITHUB), **trying()), ResetBreaker("github"), FetchFailed(1, "down", NOW))

    assert after == state(breakers={"github": Breaker(1)})


def test_a_probe_that_hangs_holds_the_others_up_for_as_long_as_the_origin_was_left_alone() -> None:
    before = state(flight(origin=GITHUB), **trying())
    expect(before, get("me", 114.9), before, refused(115.0))

    after, effects = reduce(before, get("me", 115.0))

    assert isinstance(effects[0], StartFetch)
    assert after.breakers.get("github") == Breaker(3, 90.0, 2, 145.0)
    assert reduce(after, get("it", 115.0, 3))[1] == (refused(145.0),)
    assert reduce(after, FetchFailed(1, "down", 116.0))[0].breakers.get("github") == Breaker(3, 90.0, 2, 145.0)
