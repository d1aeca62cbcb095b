"""Whoever asks joins the flight under way that may answer them, or begins one."""

from __future__ import annotations

from typing import Any

import pytest

from cachemesh.core import (
    GLOBAL_OWNER,
    NO_RETRY,
    SESSION_OWNER,
    AfterFailure,
    CachePolicy,
    CacheScope,
    FlightKind,
    Get,
    Join,
    Load,
    Refresh,
    RefreshSource,
    Reply,
    Retry,
    StartFetch,
)
from tests.core.rows import ALICE, BOB, entry, expect, failed, flight, state

CACHE_FIRST, NETWORK_FIRST, SWR = CachePolicy.CACHE_FIRST, CachePolicy.NETWORK_FIRST, CachePolicy.STALE_WHILE_REVALIDATE
NETWORK_ONLY = CachePolicy.NETWORK_ONLY
FETCH, BYPASS, LOAD = FlightKind.FETCH, FlightKind.BYPASS, FlightKind.LOAD
PATIENT = Retry(5, delay_s=1.0)


def get(flight_id: int = 2, now: float = 10.0, **options: Any) -> Get:
    return Get("feed", now, flight_id, **options)


def reads(ask: Any) -> bool:
    """Whether the asker takes an old answer of the cache where a new one cannot be had."""
    return isinstance(ask, Get) and ask.policy is not NETWORK_ONLY


# A flight begins


def test_a_fetch_takes_along_all_that_its_caller_wants() -> None:
    expect(
        state(active_user="alice"),
        get(scope=CacheScope.USER, domain=3, ttl_s=9.0, retry=PATIENT, store_failures=True),
        state(
            flight(2, owner=ALICE, domain=3, ttl_s=9.0, retry=PATIENT, store_failures=True),
            active_user="alice",
        ),
        StartFetch(2, ALICE, "feed", RefreshSource.CACHE_MISS, attempt=1),
        Join(2, falls_back=False),
    )


def test_a_fetch_that_passes_the_cache_by_stores_neither_answer_nor_failure() -> None:
    expect(
        state(),
        get(policy=NETWORK_ONLY, domain=3, ttl_s=9.0, retry=PATIENT, store_failures=True),
        state(
            flight(
                2,
                kind=BYPASS,
                source=RefreshSource.POLICY,
                persist=False,
                domain=3,
                ttl_s=9.0,
                retry=PATIENT,
                store_failures=False,
            ),
        ),
        StartFetch(2, GLOBAL_OWNER, "feed", RefreshSource.POLICY),
        Join(2, reads=False),
    )


def test_a_load_stores_no_failure() -> None:
    expect(
        state(has_store=True),
        get(ttl_s=9.0, store_failures=True),
        state(flight(2, kind=LOAD, ttl_s=9.0), has_store=True),
        Load(2, GLOBAL_OWNER, "feed"),
        Join(2),
    )


@pytest.mark.parametrize("source", [RefreshSource.REFRESH, RefreshSource.PREFETCH])
def test_a_refresh_fetches_whatever_is_cached(source: RefreshSource) -> None:
    there: Any = {"entries": {"feed": entry()}, "failures": {"feed": failed()}, "has_store": True}
    expect(
        state(**there),
        Refresh("feed", 10.0, 2, source=source, domain=3, ttl_s=9.0, retry=PATIENT, store_failures=True),
        state(flight(2, source=source, domain=3, ttl_s=9.0, retry=PATIENT, store_failures=True), **there),
        StartFetch(2, GLOBAL_OWNER, "feed", source),
        Join(2, reads=False),
    )


def test_a_refresh_is_one_by_hand_where_it_does_not_say() -> None:
    expect(
        state(),
        Refresh("feed", 10.0, 2),
        state(flight(2, source=RefreshSource.REFRESH)),
        StartFetch(2, GLOBAL_OWNER, "feed", RefreshSource.REFRESH),
        Join(2, reads=False),
    )


def test_a_new_flight_is_listed_behind_the_old_ones() -> None:
    expect(
        state(flight(1)),
        get(policy=NETWORK_ONLY),
        state(flight(1), flight(2, kind=BYPASS, source=RefreshSource.POLICY)),
        StartFetch(2, GLOBAL_OWNER, "feed", RefreshSource.POLICY),
        Join(2, reads=False),
    )


# A flight is joined


@pytest.mark.parametrize(
    ("under_way", "ask"),
    [
        (flight(), get()),
        (flight(source=RefreshSource.REFRESH), get()),
        (flight(source=RefreshSource.BACKGROUND), get()),
        (flight(attempt=2, retry=PATIENT), get()),
        (flight(), Refresh("feed", 10.0, 2)),
        (flight(kind=BYPASS), get(policy=NETWORK_ONLY)),
        (flight(kind=BYPASS, persist=True), get(policy=NETWORK_ONLY)),
        (flight(kind=BYPASS, persist=True), get()),
        (flight(domain=4), get(domain=4)),
    ],
)
def test_whoever_wants_the_same_joins(under_way: Any, ask: Any) -> None:
    before = state(under_way)
    expect(before, ask, before, Join(1, reads=reads(ask)))


def test_whoever_loads_the_same_joins() -> None:
    before = state(flight(kind=LOAD), has_store=True)
    expect(before, get(ttl_s=1.0, retry=PATIENT, store_failures=True), before, Join(1))


def test_a_joiner_falls_back_or_not_as_its_own_policy_says() -> None:
    before = state(flight())
    expect(before, get(policy=NETWORK_FIRST), before, Join(1, falls_back=True))


@pytest.mark.parametrize(
    ("under_way", "options"),
    [
        pytest.param(
            flight(), {"policy": NETWORK_ONLY}, id="it began to fill the cache, before the question was asked"
        ),
        pytest.param(flight(domain=1), {}, id="of another event loop"),
        pytest.param(flight(key="me"), {}, id="for another key"),
        pytest.param(flight(owner=ALICE), {}, id="for another owner"),
        pytest.param(flight(owner=BOB), {"scope": CacheScope.USER, "viewer": "alice"}, id="for another user"),
        pytest.param(flight(kind=LOAD), {}, id="it brings what the store has"),
        pytest.param(
            flight(kind=LOAD), {"policy": NETWORK_ONLY}, id="it brings what the store has, the cache passed by"
        ),
    ],
)
def test_a_flight_that_may_not_answer_is_not_joined(under_way: Any, options: dict[str, Any]) -> None:
    asked = get(**options)
    kind = BYPASS if asked.policy is NETWORK_ONLY else FETCH
    source = RefreshSource.POLICY if kind is BYPASS else RefreshSource.CACHE_MISS
    owner = ALICE if asked.viewer else GLOBAL_OWNER
    expect(
        state(under_way),
        asked,
        state(under_way, flight(2, owner=owner, kind=kind, source=source)),
        StartFetch(2, owner, "feed", source),
        Join(2, reads=reads(asked)),
    )


def test_a_load_is_not_answered_by_a_fetch() -> None:
    expect(
        state(flight(), has_store=True),
        get(),
        state(flight(), flight(2, kind=LOAD), has_store=True),
        Load(2, GLOBAL_OWNER, "feed"),
        Join(2),
    )


def test_a_flight_that_was_struck_off_is_not_joined() -> None:
    """Whoever asks after an invalidation must not get an answer from before it."""
    expect(
        state(flight(), struck=[1]),
        get(),
        state(flight(), flight(2), struck=[1]),
        StartFetch(2, GLOBAL_OWNER, "feed", RefreshSource.CACHE_MISS),
        Join(2),
    )


def test_of_two_flights_that_may_answer_the_one_for_the_cache_is_joined() -> None:
    before = state(flight(1, kind=BYPASS), flight(2), flight(3, kind=BYPASS, domain=1))
    expect(before, get(4), before, Join(2))


def test_whoever_passes_the_cache_by_finds_its_like_behind_another() -> None:
    before = state(flight(1), flight(2, kind=BYPASS))
    expect(before, get(3, policy=NETWORK_ONLY), before, Join(2, reads=False))


def test_a_flight_of_the_own_event_loop_is_found_behind_others() -> None:
    before = state(flight(1, domain=1), flight(2, domain=2), flight(3))
    expect(before, get(4), before, Join(3))


# Wishes are merged

# under way: persist, ttl_s, store_failures, retry; the joiner's policy, ttl_s, store_failures, retry; the result
MERGED = [
    pytest.param(
        (True, 9.0, False, NO_RETRY), (CACHE_FIRST, 5.0, False, NO_RETRY), (True, 5.0, False, NO_RETRY), id="shorter"
    ),
    pytest.param(
        (True, 5.0, False, NO_RETRY), (CACHE_FIRST, 9.0, False, NO_RETRY), (True, 5.0, False, NO_RETRY), id="longer"
    ),
    pytest.param(
        (True, None, False, NO_RETRY), (CACHE_FIRST, 9.0, False, NO_RETRY), (True, 9.0, False, NO_RETRY), id="some"
    ),
    pytest.param(
        (True, 9.0, False, NO_RETRY), (CACHE_FIRST, None, False, NO_RETRY), (True, 9.0, False, NO_RETRY), id="none"
    ),
    pytest.param(
        (True, 9.0, False, NO_RETRY), (CACHE_FIRST, 9.0, True, NO_RETRY), (True, 9.0, True, NO_RETRY), id="failures"
    ),
    pytest.param(
        (True, 9.0, True, NO_RETRY), (CACHE_FIRST, 9.0, False, NO_RETRY), (True, 9.0, True, NO_RETRY), id="kept"
    ),
    pytest.param(
        (True, 9.0, False, NO_RETRY), (CACHE_FIRST, 9.0, False, PATIENT), (True, 9.0, False, PATIENT), id="patient"
    ),
    pytest.param(
        (True, 9.0, False, PATIENT), (CACHE_FIRST, 9.0, False, NO_RETRY), (True, 9.0, False, PATIENT), id="hasty"
    ),
    pytest.param((True, 9.0, False, NO_RETRY), (CACHE_FIRST, 5.0, True, PATIENT), (True, 5.0, True, PATIENT), id="all"),
]


@pytest.mark.parametrize(("under_way", "joiner", "merged"), MERGED)
def test_one_flight_serves_the_wishes_of_all(under_way: Any, joiner: Any, merged: Any) -> None:
    expect(flown(under_way, FETCH), asked(joiner), flown(merged, FETCH), Join(1))


# Where the flight under way passes the cache by.
MERGED_BY = [
    pytest.param(
        (False, 9.0, False, NO_RETRY), (CACHE_FIRST, 30.0, False, NO_RETRY), (True, 30.0, False, NO_RETRY), id="store"
    ),
    pytest.param(
        (False, 9.0, False, NO_RETRY), (CACHE_FIRST, None, False, NO_RETRY), (True, None, False, NO_RETRY), id="ever"
    ),
    pytest.param(
        (False, 9.0, False, NO_RETRY), (CACHE_FIRST, 9.0, True, PATIENT), (True, 9.0, True, PATIENT), id="failures"
    ),
    pytest.param(
        (True, 9.0, False, NO_RETRY), (CACHE_FIRST, 5.0, False, NO_RETRY), (True, 5.0, False, NO_RETRY), id="shorter"
    ),
    pytest.param(
        (True, 5.0, False, NO_RETRY), (CACHE_FIRST, 9.0, False, NO_RETRY), (True, 5.0, False, NO_RETRY), id="longer"
    ),
    pytest.param(
        (False, 9.0, False, NO_RETRY), (NETWORK_ONLY, 5.0, True, NO_RETRY), (False, 9.0, False, NO_RETRY), id="alike"
    ),
    pytest.param(
        (False, 9.0, False, NO_RETRY), (NETWORK_ONLY, 5.0, True, PATIENT), (False, 9.0, False, PATIENT), id="patient"
    ),
    pytest.param(
        (True, 9.0, True, NO_RETRY), (NETWORK_ONLY, 5.0, False, NO_RETRY), (True, 9.0, True, NO_RETRY), id="stays"
    ),
]


@pytest.mark.parametrize(("under_way", "joiner", "merged"), MERGED_BY)
def test_a_flight_that_passes_the_cache_by_stores_once_anyone_wants_it(
    under_way: Any, joiner: Any, merged: Any
) -> None:
    expect(flown(under_way, BYPASS), asked(joiner), flown(merged, BYPASS), Join(1, reads=reads(asked(joiner))))


def flown(wishes: Any, kind: FlightKind) -> Any:
    persist, ttl_s, store_failures, retry = wishes
    under_way = flight(
        kind=kind, persist=persist, ttl_s=ttl_s, store_failures=store_failures, retry=retry, attempt=2, waits_on=[8]
    )
    return state(under_way)


def asked(wishes: Any) -> Get:
    policy, ttl_s, store_failures, retry = wishes
    return get(policy=policy, ttl_s=ttl_s, store_failures=store_failures, retry=retry)


# A refresh nobody waits for

STALE = {"feed": entry(ttl_s=5.0)}
SERVED = Reply(GLOBAL_OWNER, "feed", "news")
BEHIND = StartFetch(2, GLOBAL_OWNER, "feed", RefreshSource.BACKGROUND)


def test_a_stale_entry_is_served_and_refreshed_behind_its_reader() -> None:
    expect(
        state(entries=STALE),
        get(policy=SWR, ttl_s=7.0, store_failures=True, retry=PATIENT),
        state(flight(2, source=RefreshSource.BACKGROUND, ttl_s=7.0, store_failures=True, retry=PATIENT), entries=STALE),
        SERVED,
        BEHIND,
    )


@pytest.mark.parametrize(
    "under_way",
    [flight(source=RefreshSource.BACKGROUND), flight(), flight(kind=BYPASS, persist=True)],
    ids=["a refresh", "a fetch", "one made to store"],
)
def test_one_refresh_at_a_time_is_enough(under_way: Any) -> None:
    before = state(under_way, entries=STALE)
    expect(before, get(policy=SWR), before, SERVED)


@pytest.mark.parametrize(
    "under_way",
    [flight(domain=1), flight(key="me"), flight(kind=LOAD)],
    ids=["of another event loop", "of another key", "from the store"],
)
def test_another_flight_is_no_refresh(under_way: Any) -> None:
    expect(
        state(under_way, entries=STALE),
        get(policy=SWR),
        state(under_way, flight(2, source=RefreshSource.BACKGROUND), entries=STALE),
        SERVED,
        BEHIND,
    )


def test_a_fetch_that_passes_the_cache_by_is_no_refresh() -> None:
    """A steady stream of them would keep a stale entry stale for ever."""
    expect(
        state(flight(kind=BYPASS), entries=STALE),
        get(policy=SWR),
        state(flight(kind=BYPASS), flight(2, source=RefreshSource.BACKGROUND), entries=STALE),
        SERVED,
        BEHIND,
    )


@pytest.mark.parametrize(("now", "refreshes"), [(39.0, False), (40.0, True)])
def test_after_a_failed_refresh_the_next_one_waits(now: float, refreshes: bool) -> None:
    there: Any = {"entries": STALE, "failures": {"feed": failed(at=10.0, serve=0.0, hold=30.0)}}
    if refreshes:
        after = state(flight(2, source=RefreshSource.BACKGROUND), **there)
        expect(state(**there), get(now=now, policy=SWR), after, SERVED, BEHIND)
    else:
        expect(state(**there), get(now=now, policy=SWR), state(**there), SERVED)


def test_a_failure_that_holds_no_refresh_back_lets_it_begin() -> None:
    there: Any = {"entries": STALE, "failures": {"feed": failed(serve=60.0)}}
    expect(
        state(**there),
        get(policy=SWR),
        state(flight(2, source=RefreshSource.BACKGROUND), **there),
        SERVED,
        BEHIND,
    )


# A remembered failure


@pytest.mark.parametrize(("now", "heeded"), [(59.5, True), (60.0, False)])
def test_a_failure_is_answered_until_exactly_its_end(now: float, heeded: bool) -> None:
    before = state(failures={"feed": failed()})
    if heeded:
        expect(before, get(now=now), before, Reply(GLOBAL_OWNER, "feed", "down", hit=False))
    else:
        expect(
            before,
            get(now=now),
            state(flight(2), failures={"feed": failed()}),
            StartFetch(2, GLOBAL_OWNER, "feed", RefreshSource.CACHE_MISS),
            Join(2),
        )


def test_everyone_is_answered_out_of_their_own_partition() -> None:
    before = state(
        entries={
            (ALICE, "feed"): entry("alice's"),
            (BOB, "feed"): entry("bob's"),
            (SESSION_OWNER, "feed"): entry("ours"),
        },
        failures={"feed": failed("nobody's")},
        active_user="bob",
    )
    expect(before, get(scope=CacheScope.USER), before, Reply(BOB, "feed", "bob's"))
    expect(before, get(scope=CacheScope.USER, viewer="alice"), before, Reply(ALICE, "feed", "alice's"))
    expect(before, get(scope=CacheScope.SESSION), before, Reply(SESSION_OWNER, "feed", "ours"))
    expect(before, get(), before, Reply(GLOBAL_OWNER, "feed", "nobody's", hit=False))


def test_a_stale_entry_is_preferred_to_a_remembered_failure_by_who_takes_one() -> None:
    """And the failure still keeps the origin from being asked again."""
    there: Any = {"entries": STALE, "failures": {"feed": failed(at=10.0)}}
    stale_if_error = CachePolicy("stale_if_error", after_failure=AfterFailure.SERVE_STALE)

    expect(state(**there), get(policy=stale_if_error), state(**there), SERVED)
