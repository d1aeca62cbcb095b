"""A flight answers, fails, comes from the store, or is given up. It stores only while its partition lists it."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from msgspec.structs import replace

from cachemesh.core import (
    GLOBAL_OWNER,
    Abandoned,
    Abort,
    Admit,
    AskAgain,
    CachePolicy,
    CancelFetch,
    DomainClosed,
    Entry,
    Evict,
    Failed,
    FetchAborted,
    FetchFailed,
    FetchSucceeded,
    Flight,
    FlightKind,
    Get,
    Loaded,
    Refresh,
    RefreshSource,
    Remember,
    ReportFailure,
    RetryDue,
    Save,
    Settle,
    StoppedWaiting,
)
from tests.core.rows import ALICE, entry, expect, failed, flight, run, state

FETCH, BYPASS, LOAD = FlightKind.FETCH, FlightKind.BYPASS, FlightKind.LOAD
BACKGROUND = RefreshSource.BACKGROUND
NOW = 100.0


def told(
    answer: str = "news", fallback: str | None = None, flight_id: int = 1, owner: Any = GLOBAL_OWNER
) -> Settle[str]:
    return Settle(flight_id, owner, "feed", answer, fallback)


def reported(*, notify: bool = True) -> ReportFailure[str]:
    return ReportFailure(GLOBAL_OWNER, "feed", "down", notify)


def loading(flight_id: int = 1) -> Flight:
    return flight(flight_id, kind=LOAD)


# Nobody's


@pytest.mark.parametrize(
    "command",
    [
        FetchSucceeded(1, "news", NOW),
        FetchFailed(1, "down", NOW),
        RetryDue(1),
        FetchAborted(1),
        Abandoned(1),
        StoppedWaiting(1, ()),
        DomainClosed(1),
        Loaded(1, NOW, entry(), None),
        Loaded(1, NOW, None, failed()),
    ],
    ids=lambda command: type(command).__name__,
)
def test_news_of_a_flight_that_is_gone_changes_nothing(command: Any) -> None:
    before = state(flight(2), entries={"me": entry()}, failures={"feed": failed()})
    expect(before, command, before)


# It answers


@pytest.mark.parametrize(
    ("ttl_s", "stored"),
    [
        (60.0, Entry("news", NOW, 60.0, 160.0)),
        (None, Entry("news", NOW, None, inf)),
        (0.0, Entry("news", NOW, 0.0, NOW)),
    ],
)
def test_an_answer_is_stored_from_the_moment_it_came(ttl_s: float | None, stored: Entry[str]) -> None:
    expect(
        state(flight(ttl_s=ttl_s)),
        FetchSucceeded(1, "news", NOW),
        state(entries={"feed": stored}),
        Save(1, GLOBAL_OWNER, "feed", stored, is_new=True),
        told(),
    )


def test_an_answer_replaces_what_was_there() -> None:
    newer = entry("newer", at=NOW)
    expect(
        state(flight(owner=ALICE, ttl_s=60.0), entries={(ALICE, "feed"): entry(), "feed": entry()}),
        FetchSucceeded(1, "newer", NOW),
        state(entries={(ALICE, "feed"): newer, "feed": entry()}),
        Save(1, ALICE, "feed", newer, is_new=False),
        told("newer", owner=ALICE),
    )


def test_an_answer_ends_the_memory_of_a_failure_of_its_key() -> None:
    stored = entry(at=NOW)
    expect(
        state(flight(ttl_s=60.0), failures={"feed": failed(), "me": failed()}),
        FetchSucceeded(1, "news", NOW),
        state(entries={"feed": stored}, failures={"me": failed()}),
        Save(1, GLOBAL_OWNER, "feed", stored, is_new=True),
        told(),
    )


def test_what_passes_the_cache_by_is_not_stored() -> None:
    there: Any = {"entries": {"feed": entry("older")}, "failures": {"feed": failed()}}
    expect(state(flight(kind=BYPASS), **there), FetchSucceeded(1, "news", NOW), state(**there), told())


def test_what_passes_the_cache_by_is_stored_where_somebody_joined_who_wants_it() -> None:
    stored = entry(at=NOW)
    expect(
        state(flight(kind=BYPASS, persist=True, ttl_s=60.0)),
        FetchSucceeded(1, "news", NOW),
        state(entries={"feed": stored}),
        Save(1, GLOBAL_OWNER, "feed", stored, is_new=True),
        told(),
    )


@pytest.mark.parametrize("there", [{}, {"entries": {"feed": entry("newer")}}, {"failures": {"feed": failed()}}])
def test_a_flight_that_was_struck_off_answers_but_stores_nothing(there: Any) -> None:
    expect(state(flight(ttl_s=60.0), struck=[1], **there), FetchSucceeded(1, "news", NOW), state(**there), told())


def test_a_flight_that_was_struck_off_leaves_the_next_one_listed() -> None:
    expect(
        state(flight(1), flight(2), struck=[1]),
        FetchSucceeded(1, "news", NOW),
        state(flight(2)),
        told(),
    )


def test_an_answer_strikes_off_the_flights_that_began_before_it() -> None:
    stored = entry(at=NOW)
    rest = flight(1, domain=1), flight(3, domain=3), flight(4, domain=4)
    expect(
        state(rest[0], flight(2, ttl_s=60.0), *rest[1:]),
        FetchSucceeded(2, "news", NOW),
        state(*rest, entries={"feed": stored}, struck=[1]),
        Save(2, GLOBAL_OWNER, "feed", stored, is_new=True),
        told(flight_id=2),
    )


def test_flights_of_other_keys_stay_listed() -> None:
    stored = entry(at=NOW, ttl_s=None)
    expect(
        state(flight(1, "me"), flight(2)),
        FetchSucceeded(2, "news", NOW),
        state(flight(1, "me"), entries={"feed": stored}),
        Save(2, GLOBAL_OWNER, "feed", stored, is_new=True),
        told(flight_id=2),
    )


def test_the_last_of_two_answers_stays() -> None:
    after, _ = run(
        state(flight(1), flight(2, domain=1)),
        FetchSucceeded(1, "older", NOW),
        FetchSucceeded(2, "newer", NOW),
    )
    assert after == state(entries={"feed": entry("newer", at=NOW, ttl_s=None)})


def test_an_older_flight_that_answers_last_is_not_stored() -> None:
    after, effects = run(
        state(flight(1), flight(2, domain=1)),
        FetchSucceeded(2, "newer", NOW),
        FetchSucceeded(1, "older", NOW),
    )
    assert after == state(entries={"feed": entry("newer", at=NOW, ttl_s=None)})
    assert effects == (told("older"),)


# It fails


def test_a_failure_is_told_and_reported() -> None:
    expect(state(flight()), FetchFailed(1, "down", NOW), state(), reported(), told("down"))


def test_whoever_falls_back_gets_what_is_there_however_old() -> None:
    there = {"feed": entry(ttl_s=1.0)}
    expect(
        state(flight(), entries=there),
        FetchFailed(1, "down", NOW),
        state(entries=there),
        reported(),
        told("down", "news"),
    )


def test_a_failure_beside_the_cache_is_no_news_to_watchers() -> None:
    there = {"feed": entry()}
    expect(
        state(flight(kind=BYPASS, store_failures=True), entries=there),
        FetchFailed(1, "down", NOW),
        state(entries=there),
        reported(notify=False),
        told("down", "news"),
    )


def test_a_failure_from_behind_the_fence_is_no_news_and_remembered_nowhere() -> None:
    there = {"feed": entry()}
    expect(
        state(flight(store_failures=True), entries=there, struck=[1]),
        FetchFailed(1, "down", NOW),
        state(entries=there),
        reported(notify=False),
        told("down", "news"),
    )


def test_a_failure_leaves_the_other_flights_of_its_key_listed() -> None:
    expect(
        state(flight(1, kind=BYPASS, domain=1), flight(2), flight(3, kind=BYPASS)),
        FetchFailed(2, "down", NOW),
        state(flight(1, kind=BYPASS, domain=1), flight(3, kind=BYPASS)),
        reported(),
        told("down", flight_id=2),
    )


@pytest.mark.parametrize(
    ("ttl_s", "serve_until"),
    [(None, 160.0), (5.0, 105.0), (3600.0, 160.0), (0.0, NOW)],
)
def test_a_failure_is_remembered_where_a_caller_wants_it(ttl_s: float | None, serve_until: float) -> None:
    memory = Failed("down", NOW, serve_until, refresh_after=NOW)
    expect(
        state(flight(owner=ALICE, ttl_s=ttl_s, store_failures=True, found_nothing=True)),
        FetchFailed(1, "down", NOW),
        state(failures={(ALICE, "feed"): memory}),
        Remember(1, ALICE, "feed", memory, write=serve_until > NOW, is_new=True),
        ReportFailure(ALICE, "feed", "down", notify=True),
        told("down", owner=ALICE),
    )


def test_a_later_failure_replaces_an_earlier_one() -> None:
    memory = Failed("down", NOW, 160.0, NOW)
    expect(
        state(flight(store_failures=True, found_nothing=True), failures={"feed": failed("earlier"), "me": failed()}),
        FetchFailed(1, "down", NOW),
        state(failures={"feed": memory, "me": failed()}),
        Remember(1, GLOBAL_OWNER, "feed", memory, write=True, is_new=False),
        reported(),
        told("down"),
    )


def test_a_failure_beside_a_stale_entry_is_remembered_but_not_written_over_it() -> None:
    memory = Failed("down", NOW, 160.0, NOW)
    there = {"feed": entry(ttl_s=NOW)}
    expect(
        state(flight(store_failures=True), entries=there),
        FetchFailed(1, "down", NOW),
        state(entries=there, failures={"feed": memory}),
        Remember(1, GLOBAL_OWNER, "feed", memory, write=False, is_new=True),
        reported(),
        told("down", "news"),
    )


def test_a_failure_does_not_hide_a_fresh_entry() -> None:
    there = {"feed": entry(ttl_s=NOW + 0.5)}
    expect(
        state(flight(store_failures=True), entries=there),
        FetchFailed(1, "down", NOW),
        state(entries=there),
        reported(),
        told("down", "news"),
    )


def test_a_failure_that_may_not_be_cached_is_not() -> None:
    expect(
        state(flight(store_failures=True)),
        FetchFailed(1, "down", NOW, cacheable=False),
        state(),
        reported(),
        told("down"),
    )


# store_failures, cacheable, entry: fresh or stale; served until, refreshed after
BEHIND = [
    (False, True, "stale", NOW, 130.0),
    (True, True, "stale", 160.0, 130.0),
    (True, False, "stale", NOW, 130.0),
    (True, True, "fresh", NOW, 130.0),
    (False, False, "fresh", NOW, 130.0),
]


@pytest.mark.parametrize(("store_failures", "cacheable", "freshness", "serve_until", "refresh_after"), BEHIND)
def test_a_failed_background_refresh_holds_the_next_one_back(
    store_failures: bool,
    cacheable: bool,
    freshness: str,
    serve_until: float,
    refresh_after: float,
) -> None:
    memory = Failed("down", NOW, serve_until, refresh_after)
    there = {"feed": entry(ttl_s=NOW + 60.0 if freshness == "fresh" else NOW)}
    expect(
        state(flight(source=BACKGROUND, store_failures=store_failures), entries=there),
        FetchFailed(1, "down", NOW, cacheable=cacheable),
        state(entries=there, failures={"feed": memory}),
        Remember(1, GLOBAL_OWNER, "feed", memory, write=False, is_new=True),
        reported(),
        told("down", "news"),
    )


# what is remembered already: served until, refreshed after; the next failure: store_failures, source; remembered then
REMEMBERED = [
    pytest.param((150.0, 90.0), (False, BACKGROUND), Failed("before", NOW, 150.0, 130.0), id="what is served stays"),
    pytest.param((150.0, 90.0), (True, BACKGROUND), Failed("down", NOW, 160.0, 130.0), id="the newer one is served"),
    pytest.param((NOW, 90.0), (False, BACKGROUND), Failed("down", NOW, NOW, 130.0), id="what is over is over"),
    pytest.param((90.0, 120.0), (True, RefreshSource.POLICY), Failed("down", NOW, 160.0, 120.0), id="a back-off stays"),
    pytest.param((90.0, 140.0), (False, BACKGROUND), Failed("down", NOW, NOW, 140.0), id="the longer back-off stays"),
]


@pytest.mark.parametrize(("before", "then", "memory"), REMEMBERED)
def test_the_next_failure_ends_neither_what_is_served_nor_a_back_off(before: Any, then: Any, memory: Any) -> None:
    serve_until, refresh_after = before
    store_failures, source = then
    there = {"feed": entry(ttl_s=NOW)}
    expect(
        state(
            flight(source=source, store_failures=store_failures),
            entries=there,
            failures={"feed": Failed("before", 90.0, serve_until, refresh_after)},
        ),
        FetchFailed(1, "down", NOW),
        state(entries=there, failures={"feed": memory}),
        Remember(1, GLOBAL_OWNER, "feed", memory, write=False, is_new=False),
        reported(),
        told("down", "news"),
    )


def test_a_back_off_is_not_written_to_the_store() -> None:
    """Its entry may be evicted while it is under way."""
    memory = Failed("down", NOW, NOW, 130.0)
    expect(
        state(flight(source=BACKGROUND)),
        FetchFailed(1, "down", NOW),
        state(failures={"feed": memory}),
        Remember(1, GLOBAL_OWNER, "feed", memory, write=False, is_new=True),
        reported(),
        told("down"),
    )


# It is given up


@pytest.mark.parametrize("kind", FlightKind)
def test_a_flight_that_is_aborted_tells_those_who_wait(kind: FlightKind) -> None:
    expect(state(flight(kind=kind), flight(2, "me")), FetchAborted(1), state(flight(2, "me")), Abort(1, "feed"))


def test_so_does_one_that_was_struck_off() -> None:
    expect(state(flight(1), flight(2), struck=[1]), FetchAborted(1), state(flight(2)), Abort(1, "feed"))


@pytest.mark.parametrize("struck", [[], [1]])
@pytest.mark.parametrize("kind", [FETCH, BYPASS])
@pytest.mark.parametrize("source", [source for source in RefreshSource if source is not BACKGROUND])
def test_a_fetch_nobody_waits_for_is_cancelled(source: RefreshSource, kind: FlightKind, struck: list[int]) -> None:
    expect(state(flight(source=source, kind=kind), struck=struck), Abandoned(1), state(), CancelFetch(1))


@pytest.mark.parametrize(
    "under_way", [flight(source=BACKGROUND), loading()], ids=["a refresh behind a reader", "a load"]
)
def test_what_goes_on_without_anybody_is_not(under_way: Flight) -> None:
    before = state(under_way)
    expect(before, Abandoned(1), before)


def test_an_event_loop_takes_its_flights_along() -> None:
    expect(
        state(
            flight(12, "me", domain=1),
            flight(1, domain=1),
            flight(2),
            flight(7, domain=1, kind=LOAD),
            entries={"feed": entry()},
        ),
        DomainClosed(1),
        state(flight(2), entries={"feed": entry()}),
        Abort(1, "feed"),
        Abort(7, "feed"),
        Abort(12, "me"),
    )


# It comes from the store

AGAIN = AskAgain(1)
STRUCK = AskAgain(1, is_struck=True)


@pytest.mark.parametrize(
    ("created_at", "expires_at"),
    [(NOW - 50.0, NOW + 10.0), (NOW - 50.0, NOW - 10.0), (NOW, inf), (NOW + 60.0, NOW + 120.0)],
)
def test_what_the_store_has_is_taken_in(created_at: float, expires_at: float) -> None:
    stored = Entry("news", created_at, 60.0, expires_at)
    expect(
        state(loading(), flight(2), has_store=True),
        Loaded(1, NOW, stored),
        state(flight(2), entries={"feed": stored}, has_store=True),
        Admit(GLOBAL_OWNER, "feed"),
        AGAIN,
    )


def test_what_claims_to_come_from_the_future_is_stale() -> None:
    """A minute of skew between two clocks is forgiven."""
    expect(
        state(loading()),
        Loaded(1, NOW, Entry("news", NOW + 60.5, 3600.0, NOW + 3660.5)),
        state(entries={"feed": Entry("news", NOW, 3600.0, NOW)}),
        Admit(GLOBAL_OWNER, "feed"),
        AGAIN,
    )


def test_a_failure_that_the_store_has_is_remembered() -> None:
    expect(
        state(flight(1, owner=ALICE, kind=LOAD)),
        Loaded(1, NOW, None, failed()),
        state(failures={(ALICE, "feed"): failed()}),
        Remember(1, ALICE, "feed", failed(), write=False, is_new=True),
        AGAIN,
    )


def test_a_failure_that_is_remembered_already_is_the_newer_one() -> None:
    there = {"feed": failed("newer", at=NOW)}
    expect(state(loading(), failures=there), Loaded(1, NOW, None, failed()), state(failures=there), AGAIN)


def test_an_entry_is_taken_in_rather_than_a_failure() -> None:
    expect(
        state(loading()),
        Loaded(1, NOW, entry(), failed()),
        state(entries={"feed": entry()}),
        Admit(GLOBAL_OWNER, "feed"),
        AGAIN,
    )


def test_where_the_store_has_nothing_everyone_asks_again() -> None:
    expect(state(loading(), flight(2)), Loaded(1, NOW), state(flight(2)), AGAIN)


@pytest.mark.parametrize("loaded", [Loaded(1, NOW, entry()), Loaded(1, NOW, None, failed())], ids=["entry", "failure"])
def test_what_was_answered_since_is_not_overwritten(loaded: Any) -> None:
    there = {"feed": entry("newer", at=NOW)}
    expect(state(loading(), entries=there), loaded, state(entries=there), AGAIN)


@pytest.mark.parametrize("loaded", [Loaded(1, NOW, entry()), Loaded(1, NOW, None, failed())], ids=["entry", "failure"])
@pytest.mark.parametrize("there", [{}, {"entries": {"me": entry()}}], ids=["partition gone", "partition kept"])
def test_what_was_invalidated_since_is_not_taken_in(loaded: Any, there: Any) -> None:
    expect(state(loading(), struck=[1], **there), loaded, state(**there), STRUCK)


def test_a_load_that_an_answer_has_overtaken_is_not_taken_in() -> None:
    after, effects = run(
        state(loading(1), flight(2)),
        FetchSucceeded(2, "newer", NOW),
        Evict(GLOBAL_OWNER, "feed"),
        Loaded(1, NOW, entry("older")),
    )
    assert (after, effects) == (state(), (STRUCK,))


def test_nor_is_one_that_began_after_the_fetch_that_has_overtaken_it() -> None:
    """What it reads was in the store before the answer was."""
    after, effects = run(
        state(flight(1), loading(2)),
        FetchSucceeded(1, "newer", NOW),
        Evict(GLOBAL_OWNER, "feed"),
        Loaded(2, NOW, entry("older")),
    )
    assert (after, effects) == (state(), (AskAgain(2, is_struck=True),))


def test_whoever_falls_back_gets_the_newer_answer_that_overtook_their_fetch() -> None:
    """network_first after a failure: an entry if there is any."""
    _, effects = run(
        state(flight(1), flight(2, domain=1)),
        FetchSucceeded(2, "newer", NOW),
        FetchFailed(1, "down", NOW),
    )
    assert told("down", "newer") in effects


def test_a_failed_refresh_does_not_overwrite_what_only_the_store_holds() -> None:
    _, effects = run(
        state(flight(source=RefreshSource.REFRESH, store_failures=True), has_store=True), FetchFailed(1, "down", NOW)
    )
    assert not any(isinstance(effect, Remember) and effect.write for effect in effects)


@pytest.mark.parametrize(
    "commands",
    [
        [Get("feed", 1.0, 1, policy=CachePolicy.NETWORK_FIRST, store_failures=True), Evict(GLOBAL_OWNER, "feed")],
        [Get("feed", 99.0, 1, store_failures=True), Evict(GLOBAL_OWNER, "feed")],
        [
            Evict(GLOBAL_OWNER, "feed"),
            Get("feed", 1.0, 1, policy=CachePolicy.NETWORK_ONLY),
            Refresh("feed", 1.0, 2, store_failures=True),
        ],
    ],
    ids=["fresh, evicted meanwhile", "stale, evicted meanwhile", "network_only, then made to store"],
)
def test_a_failure_never_overwrites_what_memory_had_to_evict(commands: list[Any]) -> None:
    _, effects = run(state(entries={"feed": entry()}, has_store=True), *commands, FetchFailed(1, "down", NOW))

    assert any(isinstance(effect, Settle) for effect in effects)
    assert not any(isinstance(effect, Remember) and effect.write for effect in effects)


# What it is


@pytest.mark.parametrize("kind", FlightKind)
@pytest.mark.parametrize("source", RefreshSource)
def test_a_refresh_behind_a_reader_and_a_load_go_on_without_anybody(source: RefreshSource, kind: FlightKind) -> None:
    assert flight(source=source, kind=kind).is_background == (source is BACKGROUND or kind is LOAD)


def test_a_flight_is_at_its_first_attempt_and_waits_for_nobody() -> None:
    plain = Flight(1, GLOBAL_OWNER, "feed", 0, FETCH, RefreshSource.CACHE_MISS, True, None, False)  # noqa: FBT003
    assert plain == replace(flight(), persist=True)
