"""What is wanted beyond a ttl: windows past it, a refresh ahead of it, chance in it, how failures are remembered."""

from __future__ import annotations

import itertools
from math import inf, nextafter
from typing import Any

import pytest
from hypothesis import strategies as st
from msgspec.structs import replace

from cachemesh.core import (
    GLOBAL_OWNER,
    AfterFailure,
    CachePolicy,
    Directives,
    Entry,
    Failed,
    FetchFailed,
    FetchSucceeded,
    FlightKind,
    Freshness,
    Get,
    Join,
    Lifespan,
    Refresh,
    RefreshSource,
    Refusal,
    Refuse,
    Remember,
    Reply,
    ReportFailure,
    Save,
    Settle,
    StartFetch,
    State,
    Terms,
)
from cachemesh.core.lifetimes import made, plain_until, renewed, rescues, stands_in, stricter, verdict
from cachemesh.testing.strategies import chances, lifespans, ttls
from tests.core.rows import entry, expect, failed, flight, law, run, state

BACKGROUND = RefreshSource.BACKGROUND
CACHE_FIRST, NETWORK_FIRST = CachePolicy.CACHE_FIRST, CachePolicy.NETWORK_FIRST
STALE_IF_ERROR = CachePolicy("stale_if_error", after_failure=AfterFailure.SERVE_STALE)
SPAN = Lifespan(serve_stale_s=20.0, stale_if_error_s=40.0, refresh_ahead=0.5)
LIVED = made("news", 0.0, 60.0, 1, lifespan=SPAN)
"""Ageing from 30 on, in its grace from 60, expired from 80, gone for good from 100."""


def get(now: float, flight_id: int = 2, **options: Any) -> Get:
    return Get("feed", now, flight_id, **options)


def told(answer: str = "down", fallback: str | None = None, rescue: str | None = None) -> Settle[str]:
    return Settle(1, GLOBAL_OWNER, "feed", answer, fallback, rescue)


SERVED = Reply(GLOBAL_OWNER, "feed", "news")
REPORTED = ReportFailure(GLOBAL_OWNER, "feed", "down", notify=True)


# What there is


def test_the_entry_of_a_lifespan_keeps_its_windows() -> None:
    assert Entry("news", 0.0, 60.0, 60.0, Terms(20.0, 40.0, 30.0, (), None, 1)) == LIVED
    assert made("news", 5.0, None, 1, lifespan=SPAN) == Entry("news", 5.0, None, inf, Terms(20.0, 40.0, inf, stamp=1))
    assert made("news", 5.0, 60.0, 1, lifespan=Lifespan()).terms == Terms(0.0, 0.0, inf, stamp=1)


def test_an_entry_without_a_lifespan_has_terms_only_where_there_is_something_to_say() -> None:
    assert made("news", 5.0, 60.0, 1) == Entry("news", 5.0, 60.0, 65.0)
    assert made("news", 5.0, 60.0, 1, tags=("a",)).terms == Terms(tags=("a",), stamp=1)
    assert made("news", 5.0, 60.0, 1, validator="etag").terms == Terms(validator="etag", stamp=1)


@pytest.mark.parametrize(
    ("now", "freshness"),
    [
        (0.0, Freshness.FRESH),
        (nextafter(30.0, 0.0), Freshness.FRESH),
        (30.0, Freshness.AGEING),
        (nextafter(60.0, 0.0), Freshness.AGEING),
        (60.0, Freshness.GRACE),
        (nextafter(80.0, 0.0), Freshness.GRACE),
        (80.0, Freshness.EXPIRED),
        (inf, Freshness.EXPIRED),
    ],
)
def test_tt1_each_state_begins_at_exactly_its_instant(now: float, freshness: Freshness) -> None:
    assert verdict(LIVED, now) is freshness


def test_windows_that_were_not_given_leave_an_entry_stale() -> None:
    assert verdict(entry(terms=Terms(validator="etag")), 60.0) is Freshness.STALE
    assert verdict(entry(terms=Terms(0.0, 0.0)), 60.0) is Freshness.EXPIRED


def test_a_hit_has_nothing_to_do_until_something_is_to_be_looked_at() -> None:
    assert plain_until(entry(ttl_s=60.0)) == 60.0
    assert plain_until(LIVED) == 30.0
    assert plain_until(replace(LIVED, expires_at=20.0)) == 20.0
    assert plain_until(made("news", 0.0, 60.0, 1, tags=("a",))) == -inf


@law(st.floats(0.0, 1e9), ttls(), lifespans(), chances())
def test_tt6_chance_only_shortens_a_life(now: float, ttl_s: float | None, lifespan: Lifespan, chance: float) -> None:
    jittered = made("news", now, ttl_s, 1, lifespan=lifespan, chance=chance)
    whole = made("news", now, ttl_s, 1, lifespan=lifespan)

    assert jittered.expires_at <= whole.expires_at
    assert whole.expires_at == (inf if ttl_s is None else now + ttl_s)
    assert jittered.terms is not None
    assert jittered.terms.ageing_at == inf or jittered.terms.ageing_at <= jittered.expires_at


def test_the_share_of_chance_is_the_jitter() -> None:
    spread = Lifespan(jitter=0.1)

    assert made("news", 100.0, 60.0, 1, lifespan=spread, chance=1.0).expires_at == 154.0
    assert made("news", 100.0, 60.0, 1, lifespan=spread, chance=0.5).ttl_s == 57.0
    assert made("news", 100.0, 60.0, 1, lifespan=spread).expires_at == 160.0


# Two callers

NARROW = Lifespan(1.0, 2.0, 0.3, 0.4, 5.0, 6.0)
WIDE = Lifespan(10.0, 20.0, 0.9, 0.1, None, 3.0)


def test_the_narrower_of_each_window_satisfies_both() -> None:
    assert stricter(NARROW, WIDE) == stricter(WIDE, NARROW) == Lifespan(1.0, 2.0, 0.3, 0.4, 5.0, 6.0)
    assert stricter(None, WIDE) is stricter(WIDE, None) is stricter(WIDE, WIDE) is WIDE
    assert stricter(None, None) is None


def test_whoever_joins_narrows_the_windows() -> None:
    joined = get(0.0, lifespan=NARROW)
    expect(state(flight(lifespan=WIDE)), joined, state(flight(lifespan=NARROW)), Join(1))
    expect(state(flight(lifespan=NARROW)), get(0.0, lifespan=WIDE), state(flight(lifespan=NARROW)), Join(1))
    before = state(flight(lifespan=NARROW))
    expect(before, get(0.0), before, Join(1))


def test_who_makes_a_bypass_store_says_how_long() -> None:
    kind = flight(kind=FlightKind.BYPASS, lifespan=WIDE, tags=("a",))
    expect(
        state(kind),
        get(0.0, ttl_s=5.0, tags=("b", "a")),
        state(replace(kind, persist=True, ttl_s=5.0, lifespan=None, tags=("a", "b"))),
        Join(1),
    )


# Served


@pytest.mark.parametrize("now", [30.0, 59.0, 60.0, 79.0])
def test_what_is_ageing_or_in_its_grace_is_served_and_refreshed(now: float) -> None:
    there: Any = {"entries": {"feed": LIVED}}
    expect(
        state(**there),
        get(now, lifespan=SPAN, ttl_s=60.0, tags=("a",)),
        state(flight(2, source=BACKGROUND, lifespan=SPAN, ttl_s=60.0, tags=("a",)), **there),
        SERVED,
        StartFetch(2, GLOBAL_OWNER, "feed", BACKGROUND),
    )


@pytest.mark.parametrize("policy", [CACHE_FIRST, CachePolicy.STALE_WHILE_REVALIDATE])
def test_tt7_what_has_expired_is_fetched(policy: CachePolicy) -> None:
    there: Any = {"entries": {"feed": LIVED}}
    expect(
        state(**there),
        get(80.0, policy=policy),
        state(flight(2), **there),
        StartFetch(2, GLOBAL_OWNER, "feed", RefreshSource.CACHE_MISS),
        Join(2),
    )


@pytest.mark.parametrize(
    ("now", "effect"), [(30.0, SERVED), (60.0, Refuse(Refusal.EXPIRED)), (80.0, Refuse(Refusal.EXPIRED))]
)
def test_cache_only_serves_what_is_fresh(now: float, effect: Any) -> None:
    before = state(entries={"feed": LIVED})
    expect(before, get(now, policy=CachePolicy.CACHE_ONLY), before, effect)


# A failure

# now; who falls back, who only reads
STOOD_IN = [
    (10.0, "news", "news"),
    (60.0, "news", "news"),
    (nextafter(100.0, 0.0), "news", "news"),
    (100.0, None, None),
]


@pytest.mark.parametrize(("now", "fallback", "rescue"), STOOD_IN)
def test_tt7_an_old_value_stands_in_for_a_failure_within_its_window(
    now: float, fallback: str | None, rescue: str | None
) -> None:
    there: Any = {"entries": {"feed": LIVED}}
    held = Failed("down", now, now, now + 30.0)
    after = state(**there) if rescue is None else state(failures={"feed": held}, **there)
    remember = () if rescue is None else (Remember(1, GLOBAL_OWNER, "feed", held, write=False, is_new=True),)
    expect(
        state(flight(lifespan=SPAN), **there),
        FetchFailed(1, "down", now),
        after,
        *remember,
        REPORTED,
        told("down", fallback, rescue),
    )


@pytest.mark.parametrize(
    ("windows", "now", "falls_back", "reads"),
    [
        ((20.0, 0.0), 79.0, True, False),
        ((20.0, 0.0), 80.0, False, False),
        ((0.0, 20.0), 79.0, True, True),
        ((0.0, 20.0), 80.0, False, False),
        ((0.0, 0.0), 59.0, True, False),
        ((0.0, 0.0), 60.0, False, False),
        ((20.0, 5.0), 64.0, True, True),
        ((20.0, 5.0), 65.0, True, False),
        ((None, None), 1e9, True, False),
    ],
)
def test_tt7_who_falls_back_is_bounded_where_windows_were_given(
    windows: Any, now: float, falls_back: bool, reads: bool
) -> None:
    old = entry(ttl_s=60.0, terms=Terms(*windows))

    assert stands_in(old, now, State(), GLOBAL_OWNER) is falls_back
    assert rescues(old, now, State(), GLOBAL_OWNER) is reads


def test_a_plain_entry_stands_in_for_those_who_fall_back_however_old() -> None:
    assert stands_in(entry(), 1e9, State(), GLOBAL_OWNER)
    assert not rescues(entry(), 0.0, State(), GLOBAL_OWNER)
    assert not stands_in(None, 0.0, State(), GLOBAL_OWNER)
    assert not rescues(None, 0.0, State(), GLOBAL_OWNER)


# the flight's: failure_ttl_s, ttl_s; what the error says; how long it is remembered
REMEMBERED = [
    (None, None, None, 60.0),
    (None, 5.0, None, 5.0),
    (1.0, 5.0, None, 1.0),
    (1.0, 5.0, 300.0, 300.0),
    (300.0, 5.0, None, 300.0),
    (300.0, 5.0, 0.0, 0.0),
]


@pytest.mark.parametrize(("failure_ttl_s", "ttl_s", "said_s", "kept_s"), REMEMBERED)
def test_fc1_a_failure_is_remembered_for_as_long_as_somebody_says(
    failure_ttl_s: float | None, ttl_s: float | None, said_s: float | None, kept_s: float
) -> None:
    memory = Failed("down", 10.0, 10.0 + kept_s, 10.0)
    expect(
        state(flight(store_failures=True, ttl_s=ttl_s, lifespan=Lifespan(failure_ttl_s=failure_ttl_s))),
        FetchFailed(1, "down", 10.0, failure_ttl_s=said_s),
        state(failures={"feed": memory}),
        Remember(1, GLOBAL_OWNER, "feed", memory, write=False, is_new=True),
        REPORTED,
        told(),
    )


def test_what_the_error_says_counts_without_a_lifespan_too() -> None:
    after, _ = run(state(flight(store_failures=True)), FetchFailed(1, "down", 10.0, failure_ttl_s=300.0))

    assert after == state(failures={"feed": Failed("down", 10.0, 310.0, 10.0)})


@pytest.mark.parametrize("now", [10.0, 45.0])
def test_a_failure_hides_no_entry_that_is_fresh_or_ageing(now: float) -> None:
    narrow = made("news", 0.0, 60.0, 1, lifespan=Lifespan(refresh_ahead=0.5))
    expect(
        state(flight(store_failures=True), entries={"feed": narrow}),
        FetchFailed(1, "down", now),
        state(entries={"feed": narrow}),
        REPORTED,
        told("down", "news"),
    )


def test_a_failed_refresh_holds_the_next_one_back_for_as_long_as_is_said() -> None:
    held = Failed("down", 65.0, 65.0, 72.0)
    _, effects = run(
        state(flight(source=BACKGROUND, lifespan=Lifespan(refresh_backoff_s=7.0)), entries={"feed": LIVED}),
        FetchFailed(1, "down", 65.0),
    )
    assert effects[0] == Remember(1, GLOBAL_OWNER, "feed", held, write=False, is_new=True)


# Held back

BACKOFF = {"feed": failed(at=85.0, serve=0.0, hold=10.0)}


@pytest.mark.parametrize("policy", [CACHE_FIRST, NETWORK_FIRST, STALE_IF_ERROR])
def test_a_backoff_holds_back_foreground_fetches_while_an_old_value_may_be_served(policy: CachePolicy) -> None:
    before = state(entries={"feed": LIVED}, failures=BACKOFF)
    expect(before, get(94.0, policy=policy), before, SERVED)


@pytest.mark.parametrize(
    ("now", "entries", "options"),
    [
        pytest.param(95.0, {"feed": LIVED}, {}, id="it is over"),
        pytest.param(90.0, {"feed": replace(LIVED, expires_at=50.0)}, {}, id="the old value is too old"),
        pytest.param(90.0, {"feed": entry(ttl_s=60.0)}, {}, id="no window was given"),
        pytest.param(90.0, {}, {}, id="there is no old value"),
        pytest.param(90.0, {"feed": LIVED}, {"heed_failures": False}, id="the caller does not heed failures"),
    ],
)
def test_else_it_holds_nobody_back(now: float, entries: Any, options: Any) -> None:
    there: Any = {"entries": entries, "failures": BACKOFF}
    expect(
        state(**there),
        get(now, **options),
        state(flight(2), **there),
        StartFetch(2, GLOBAL_OWNER, "feed", RefreshSource.CACHE_MISS),
        Join(2),
    )


def test_nor_those_who_refuse_rather_than_fetch() -> None:
    before = state(entries={"feed": LIVED}, failures=BACKOFF)
    expect(before, get(90.0, policy=CachePolicy.CACHE_ONLY), before, Refuse(Refusal.EXPIRED))


def test_an_old_value_is_preferred_to_a_remembered_failure() -> None:
    remembered = {"feed": failed(at=85.0, serve=10.0)}
    before = state(entries={"feed": LIVED}, failures=remembered)

    expect(before, get(90.0), before, SERVED)
    gone = state(entries={"feed": replace(LIVED, expires_at=50.0)}, failures=remembered)
    expect(gone, get(90.0), gone, Reply(GLOBAL_OWNER, "feed", "down", hit=False))


# What an answer says of itself


def saved(under_way: Any, directives: Directives, before: Entry[str] | None = None, chance: float = 0.0) -> Save[str]:
    """What is saved when `under_way` answers at 10."""
    there = {} if before is None else {"feed": before}
    after, effects = run(state(under_way, entries=there), FetchSucceeded(1, "newer", 10.0, chance, directives))
    save, settle = effects
    assert isinstance(save, Save)
    assert after == state(entries={"feed": save.entry})
    assert settle == told("newer")
    return save


@pytest.mark.parametrize(
    ("directives", "made_of"),
    [
        (Directives(), (9.0, SPAN, ("a",), None)),
        (Directives(sets_ttl=True, ttl_s=3.0), (3.0, SPAN, ("a",), None)),
        (Directives(sets_ttl=True, ttl_s=None), (None, SPAN, ("a",), None)),
        (Directives(sets_ttl=True, ttl_s=3.0, lifespan=WIDE), (3.0, WIDE, ("a",), None)),
        (Directives(ttl_s=3.0, lifespan=WIDE), (9.0, SPAN, ("a",), None)),
        (Directives(tags=("b", "a")), (9.0, SPAN, ("a", "b"), None)),
        (Directives(validator="etag"), (9.0, SPAN, ("a",), "etag")),
    ],
)
def test_an_answer_says_how_it_is_to_be_kept(directives: Directives, made_of: Any) -> None:
    ttl_s, lifespan, tags, validator = made_of
    save = saved(flight(ttl_s=9.0, lifespan=SPAN, tags=("a",)), directives)

    assert save.entry == made("newer", 10.0, ttl_s, 1, lifespan=lifespan, tags=tags, validator=validator)
    assert (save.is_new, save.is_news) == (True, True)


def test_an_answer_without_a_lifespan_may_say_so_too() -> None:
    assert saved(flight(ttl_s=9.0), Directives()).entry == entry("newer", at=10.0, ttl_s=9.0)
    assert saved(flight(ttl_s=9.0), Directives(tags=("a",))).entry.terms == Terms(tags=("a",), stamp=1)


def test_chance_reaches_the_entry() -> None:
    save = saved(flight(ttl_s=10.0, lifespan=Lifespan(jitter=0.5)), Directives(), chance=1.0)

    assert save.entry.expires_at == 15.0


def test_what_renews_is_no_news_and_keeps_tags_and_validator() -> None:
    before = made("news", 0.0, 5.0, 1, tags=("a", "b"), validator="etag")
    save = saved(flight(ttl_s=9.0, tags=("b",)), Directives(renews=True), before)

    assert save.entry == made("newer", 10.0, 9.0, 1, tags=("b", "a"), validator="etag")
    assert (save.is_new, save.is_news) == (False, False)


@pytest.mark.parametrize("before", [None, entry(), made("news", 0.0, 5.0, 1, validator="older")])
def test_what_renews_may_bring_a_validator(before: Entry[str] | None) -> None:
    save = saved(flight(ttl_s=9.0), Directives(renews=True, validator="newer"), before)

    assert save.entry == made("newer", 10.0, 9.0, 1, validator="newer")


def test_what_is_not_to_be_stored_is_told_and_leaves_the_entry_as_it_was() -> None:
    """FC-2: a failure is forgotten all the same. The origin has answered."""
    there: Any = {"entries": {"feed": entry()}}
    expect(
        state(flight(), failures={"feed": failed()}, **there),
        FetchSucceeded(1, "newer", 10.0, directives=Directives(stores=False)),
        state(**there),
        told("newer"),
    )


# Renewed by hand


@pytest.mark.parametrize(
    ("before", "ttl_s", "lifespan", "after"),
    [
        (entry(), 5.0, None, Entry("news", 0.0, 15.0, 15.0)),
        (entry(), None, None, Entry("news", 0.0, None, inf)),
        (entry(), 5.0, WIDE, Entry("news", 0.0, 14.5, 14.5, Terms(10.0, 20.0, 10.0 + 4.5 * 0.9, stamp=7))),
        (LIVED, 5.0, None, Entry("news", 0.0, 15.0, 15.0, Terms(20.0, 40.0, stamp=7))),
        (LIVED, 5.0, NARROW, Entry("news", 0.0, 13.0, 13.0, Terms(1.0, 2.0, 10.0 + 3.0 * 0.3, stamp=7))),
        (
            made("news", 0.0, 60.0, 1, tags=("a",), validator="etag"),
            5.0,
            None,
            Entry("news", 0.0, 15.0, 15.0, Terms(tags=("a",), validator="etag", stamp=7)),
        ),
        (entry(terms=Terms(1.0)), 5.0, None, Entry("news", 0.0, 15.0, 15.0, Terms(1.0, 0.0, stamp=7))),
    ],
)
def test_tt7_what_is_renewed_keeps_its_age_and_its_windows(
    before: Entry[str], ttl_s: float | None, lifespan: Lifespan | None, after: Entry[str]
) -> None:
    assert renewed(before, 10.0, ttl_s, lifespan, 7, 1.0) == after


# FC-4


@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("old", [False, True], ids=["nothing cached", "an old value, held back"])
def test_fc4_an_origin_that_is_down_is_asked_once_a_second(old: bool, attempts: int) -> None:
    """60 s, 1,000 requests a second, failure_ttl 1 s: at most 61 fetches, whatever is cached."""
    span = Lifespan(stale_if_error_s=30.0, failure_ttl_s=1.0, refresh_backoff_s=1.0)
    here = state(entries={"feed": made("news", -60.0, 60.0, 0, lifespan=span)} if old else {})
    asked = 0
    for tick, flight_id in zip(range(60_000), itertools.count(1), strict=False):
        now = tick / 1000
        here, effects = run(here, get(now, flight_id, store_failures=True, lifespan=span, ttl_s=60.0))
        if not any(isinstance(effect, StartFetch) for effect in effects):
            expected = SERVED if old and now < 30.0 else Reply(GLOBAL_OWNER, "feed", "down", hit=False)
            assert effects == (expected,)
            continue
        asked += attempts
        here, _ = run(here, FetchFailed(flight_id, "down", now))
    assert asked <= 61 * attempts


def test_a_refresh_by_hand_takes_its_lifespan_along() -> None:
    expect(
        state(),
        Refresh("feed", 0.0, 2, lifespan=SPAN, tags=("a",)),
        state(flight(2, source=RefreshSource.REFRESH, lifespan=SPAN, tags=("a",))),
        StartFetch(2, GLOBAL_OWNER, "feed", RefreshSource.REFRESH),
        Join(2, reads=False),
    )
