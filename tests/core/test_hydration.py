"""What comes from outside fills gaps, and overwrites nothing that is newer."""

from __future__ import annotations

from math import inf
from typing import Any, TypeAlias

import pytest

from cachemesh.core import (
    GLOBAL_OWNER,
    Admit,
    CacheScope,
    Entry,
    Failed,
    Hydrate,
    Mark,
    Owner,
    Remember,
    Skip,
    State,
    Terms,
    Why,
)
from cachemesh.core.lifetimes import CLOCK_SKEW_S, over_from, verdict
from cachemesh.core.model import NO_MARK
from cachemesh.core.policies import AGEING, FRESH, MISSING
from cachemesh.testing.strategies import Moment, histories
from tests.core.rows import ALICE, BOB, entry, expect, failed, flight, law, state

Marks: TypeAlias = dict[tuple[Owner | None, str], Mark]

NOW = 100.0
STAMP = 9
WINDOWS = Terms(serve_stale_s=30.0, stale_if_error_s=60.0)
FOUND = entry("found", at=NOW - 10.0)
DOWN = failed("found", at=NOW - 10.0)


def hydrate(found: Any, owner: Owner = GLOBAL_OWNER) -> Hydrate[str]:
    return Hydrate(owner, "feed", found, NOW, STAMP)


def remember(failed: Failed[str], *, is_new: bool = True) -> Remember[str]:
    return Remember(STAMP, GLOBAL_OWNER, "feed", failed, write=False, is_new=is_new)


# Into a gap


@pytest.mark.parametrize("owner", [GLOBAL_OWNER, ALICE, (CacheScope.SESSION, None)])
def test_an_entry_fills_a_gap(owner: Owner) -> None:
    expect(state(), hydrate(FOUND, owner), state(entries={(owner, "feed"): FOUND}), Admit(owner, "feed"))


def test_an_entry_stands_beside_what_there_is() -> None:
    there = {"me": entry("other"), (BOB, "feed"): entry("bob's", at=NOW)}
    expect(state(entries=there), hydrate(FOUND), state(entries={**there, "feed": FOUND}), Admit(GLOBAL_OWNER, "feed"))


def test_a_failure_fills_a_gap() -> None:
    expect(state(), hydrate(DOWN), state(failures={"feed": DOWN}), remember(DOWN))


def test_it_counts_as_newer_than_the_orders_about_its_tags_that_came_before() -> None:
    tagged = entry("found", at=NOW - 10.0, terms=Terms(tags=("red",), stamp=3))
    stamped = entry("found", at=NOW - 10.0, terms=Terms(tags=("red",), stamp=STAMP))
    before: Marks = {(None, "red"): Mark(gone_stamp=STAMP - 1, gone_at=NOW - 11.0)}

    expect(
        state(marks=before),
        hydrate(tagged),
        state(entries={"feed": stamped}, marks=before),
        Admit(GLOBAL_OWNER, "feed"),
    )


@pytest.mark.parametrize("found", [FOUND, DOWN], ids=["entry", "failure"])
def test_a_fetch_under_way_may_still_store_over_it(found: Any) -> None:
    kept: Any = {"entries": {"feed": FOUND}} if found is FOUND else {"failures": {"feed": DOWN}}
    effect = Admit(GLOBAL_OWNER, "feed") if found is FOUND else remember(DOWN)
    expect(state(flight(1)), hydrate(found), state(flight(1), **kept), effect)


# Beside what is there


@pytest.mark.parametrize(
    "there",
    [
        entry("there", at=NOW - 20.0),
        entry("there", at=NOW - 20.0, ttl_s=None),
        entry("there", at=NOW - 20.0, terms=Terms(ageing_at=NOW - 1.0)),
        entry("there", at=NOW - 10.0, ttl_s=5.0),
        entry("there", at=NOW - 9.0, ttl_s=5.0),
        entry("there", at=NOW - 9.0, ttl_s=5.0, terms=WINDOWS),
    ],
    ids=["good and older", "for ever", "ageing", "stale, of the same age", "stale, newer", "in its grace, newer"],
)
def test_what_is_good_or_newer_stays(there: Entry[str]) -> None:
    expect(state(entries={"feed": there}), hydrate(FOUND), state(entries={"feed": there}), Skip(Why.NEWER))


@pytest.mark.parametrize(
    "there",
    [
        entry("there", at=NOW - 10.5, ttl_s=5.0),
        entry("there", at=NOW - 20.0, ttl_s=5.0, terms=WINDOWS),
        entry("there", at=NOW - 95.0, ttl_s=5.0, terms=Terms(serve_stale_s=1.0, stale_if_error_s=1.0)),
    ],
    ids=["stale", "in its grace", "expired"],
)
def test_what_is_stale_gives_way_to_what_is_newer(there: Entry[str]) -> None:
    expect(
        state(entries={"feed": there}),
        hydrate(FOUND),
        state(entries={"feed": FOUND}),
        Admit(GLOBAL_OWNER, "feed", is_new=False),
    )


def test_what_was_invalidated_by_its_tag_is_no_entry() -> None:
    gone = entry("there", at=NOW - 1.0, terms=Terms(tags=("red",), stamp=1))
    marks: Marks = {(None, "red"): Mark(gone_stamp=2, gone_at=NOW - 0.5)}
    expect(
        state(entries={"feed": gone}, marks=marks),
        hydrate(FOUND),
        state(entries={"feed": FOUND}, marks=marks),
        Admit(GLOBAL_OWNER, "feed", is_new=False),
    )


def test_what_is_dated_ahead_fills_a_gap_and_overwrites_nothing() -> None:
    """Its clock may be wrong by a minute; that it is newer is not certain then."""
    ahead = entry("found", at=NOW + 1.0)
    stale = {"feed": entry("there", at=NOW - 20.0, ttl_s=5.0)}

    expect(state(), hydrate(ahead), state(entries={"feed": ahead}), Admit(GLOBAL_OWNER, "feed"))
    expect(state(entries=stale), hydrate(ahead), state(entries=stale), Skip(Why.NEWER))
    expect(
        state(entries=stale),
        hydrate(entry("found", at=NOW)),
        state(entries={"feed": entry("found", at=NOW)}),
        Admit(GLOBAL_OWNER, "feed", is_new=False),
    )


# Beside failures


@pytest.mark.parametrize("at", [NOW - 10.0, NOW - 9.0])
def test_a_failure_that_came_after_an_entry_stays(at: float) -> None:
    there = {"feed": failed("there", at=at)}
    expect(state(failures=there), hydrate(FOUND), state(failures=there), Skip(Why.NEWER))


def test_an_entry_that_is_dated_ahead_hides_no_failure() -> None:
    there = {"feed": failed("there", at=NOW - 1.0)}
    expect(state(failures=there), hydrate(entry("found", at=NOW + 1.0)), state(failures=there), Skip(Why.NEWER))


def test_an_entry_that_came_after_a_failure_takes_its_place() -> None:
    there = {"feed": failed("there", at=NOW - 11.0)}
    expect(state(failures=there), hydrate(FOUND), state(entries={"feed": FOUND}), Admit(GLOBAL_OWNER, "feed"))
    here = entry("found", at=NOW)
    expect(state(failures=there), hydrate(here), state(entries={"feed": here}), Admit(GLOBAL_OWNER, "feed"))


def test_a_failure_that_is_answered_no_longer_stands_in_no_way_and_goes_on_holding_refreshes_back() -> None:
    there = {"feed": failed("there", at=NOW - 5.0, serve=5.0, hold=30.0)}
    expect(
        state(failures=there),
        hydrate(FOUND),
        state(entries={"feed": FOUND}, failures=there),
        Admit(GLOBAL_OWNER, "feed"),
    )


@pytest.mark.parametrize(
    "there",
    [
        entry("there", at=NOW - 50.0),
        entry("there", at=NOW - 50.0, terms=Terms(ageing_at=NOW - 1.0)),
        entry("there", at=NOW - 9.0, ttl_s=1.0),
    ],
    ids=["good", "ageing", "stale, newer"],
)
def test_a_failure_hides_no_entry(there: Entry[str]) -> None:
    expect(state(entries={"feed": there}), hydrate(DOWN), state(entries={"feed": there}), Skip(Why.NEWER))


@pytest.mark.parametrize("at", [NOW - 20.0, NOW - 10.0])
def test_a_failure_stands_beside_a_stale_entry_that_it_came_after(at: float) -> None:
    stale = {"feed": entry("there", at=at, ttl_s=1.0)}
    expect(state(entries=stale), hydrate(DOWN), state(entries=stale, failures={"feed": DOWN}), remember(DOWN))


def test_a_failure_stands_beside_an_entry_that_its_tag_has_taken() -> None:
    gone = {"feed": entry("there", at=NOW - 1.0, terms=Terms(tags=("red",), stamp=1))}
    marks: Marks = {(None, "red"): Mark(gone_stamp=2, gone_at=NOW - 0.5)}
    expect(
        state(entries=gone, marks=marks),
        hydrate(DOWN),
        state(entries=gone, marks=marks, failures={"feed": DOWN}),
        remember(DOWN),
    )


@pytest.mark.parametrize("at", [NOW - 10.0, NOW - 9.0])
def test_a_failure_that_is_no_newer_than_the_one_there_is_left_out(at: float) -> None:
    there = {"feed": failed("there", at=at, serve=1.0)}
    expect(state(failures=there), hydrate(DOWN), state(failures=there), Skip(Why.NEWER))


def test_a_failure_that_is_dated_ahead_takes_no_failures_place() -> None:
    there = {"feed": failed("there", at=NOW - 1.0)}
    expect(state(failures=there), hydrate(failed(at=NOW + 1.0)), state(failures=there), Skip(Why.NEWER))
    here = failed("found", at=NOW)
    expect(state(failures=there), hydrate(here), state(failures={"feed": here}), remember(here, is_new=False))


@pytest.mark.parametrize(("hold", "held"), [(0.0, NOW - 11.0), (60.0, NOW + 49.0)])
def test_a_newer_failure_holds_refreshes_back_for_as_long_as_the_one_there(hold: float, held: float) -> None:
    there = failed("there", at=NOW - 11.0, hold=hold)
    stored = Failed("found", DOWN.failed_at, DOWN.serve_until, max(held, DOWN.refresh_after))
    expect(
        state(failures={"feed": there}),
        hydrate(DOWN),
        state(failures={"feed": stored}),
        remember(stored, is_new=False),
    )


# Too old, too new, taken back


@pytest.mark.parametrize("found", [entry(at=NOW + 60.5), failed(at=NOW + 60.5)], ids=["entry", "failure"])
def test_tt3_what_claims_to_come_from_the_future_is_left_out(found: Any) -> None:
    expect(state(), hydrate(found), state(), Skip(Why.FUTURE))


@pytest.mark.parametrize("found", [entry(at=NOW + 60.0), failed(at=NOW + 60.0)], ids=["entry", "failure"])
def test_tt3_a_minute_of_skew_is_forgiven(found: Any) -> None:
    kept: Any = {"failures": {"feed": found}} if isinstance(found, Failed) else {"entries": {"feed": found}}
    effect = remember(found) if isinstance(found, Failed) else Admit(GLOBAL_OWNER, "feed")
    expect(state(), hydrate(found), state(**kept), effect)


@pytest.mark.parametrize(
    "found",
    [
        entry(at=NOW - 60.0),
        entry(at=NOW - 60.0, terms=Terms(tags=("red",))),
        entry(at=NOW - 120.0, terms=WINDOWS),
        entry(at=NOW - 90.0, terms=Terms(30.0, 0.0)),
        failed(at=NOW - 60.0),
    ],
    ids=["ttl", "ttl, tagged", "windows", "one window", "failure"],
)
def test_tt4_what_is_older_than_its_ttl_and_its_windows_is_left_out(found: Any) -> None:
    expect(state(), hydrate(found), state(), Skip(Why.EXPIRED))


@pytest.mark.parametrize(
    "found",
    [
        entry(at=NOW - 59.5),
        entry(at=NOW - 1e9, ttl_s=None),
        entry(at=NOW - 119.5, terms=WINDOWS),
        entry(at=NOW - 89.5, terms=Terms(30.0, 0.0)),
    ],
    ids=["ttl", "for ever", "windows", "one window"],
)
def test_tt4_what_is_not_is_taken_in_with_its_age(found: Entry[str]) -> None:
    terms = None if found.terms is None else Terms(found.terms.serve_stale_s, found.terms.stale_if_error_s, stamp=STAMP)
    aged = Entry(found.answer, found.created_at, found.ttl_s, found.expires_at, terms)
    expect(state(), hydrate(found), state(entries={"feed": aged}), Admit(GLOBAL_OWNER, "feed"))


@pytest.mark.parametrize(
    "mark",
    [
        Mark(gone_stamp=1, gone_at=NOW - 10.0),
        Mark(stale_stamp=1, stale_at=NOW - 10.0),
        Mark(gone_stamp=STAMP + 1, gone_at=NOW - 50.0),
        Mark(stale_stamp=STAMP + 1, stale_at=NOW - 50.0),
    ],
    ids=["after it was made", "stale since", "while it was read", "stale while it was read"],
)
@pytest.mark.parametrize("place", [(None, "red"), (GLOBAL_OWNER, "red"), None])
def test_what_was_invalidated_by_its_tag_since_is_left_out(mark: Mark, place: Any) -> None:
    tagged = entry("found", at=NOW - 10.0, terms=Terms(tags=("blue", "red")))
    marks = {} if place is None else {place: mark}
    before = state(marks=marks, marks_floor=mark if place is None else NO_MARK)
    expect(before, hydrate(tagged), before, Skip(Why.INVALIDATED))


def test_when_an_entry_is_over() -> None:
    assert over_from(entry(at=1.0)) == 61.0
    assert over_from(entry(at=1.0, ttl_s=None, terms=WINDOWS)) == inf
    assert over_from(entry(at=1.0, terms=WINDOWS)) == 121.0
    assert over_from(entry(at=1.0, terms=Terms(7.0, 0.0))) == 68.0
    assert over_from(entry(at=1.0, terms=Terms(tags=("red",)))) == 61.0


# Always


@law(histories())
def test_what_comes_from_outside_is_answered_exactly_once(history: tuple[Moment, ...]) -> None:
    for moment in history:
        if isinstance(moment.command, Hydrate):
            assert [type(each) for each in moment.effects] in ([Admit], [Remember], [Skip])
            assert (moment.after is moment.before) == isinstance(moment.effects[0], Skip)


@law(histories())
def test_what_comes_from_outside_overwrites_nothing_that_is_good_or_newer(history: tuple[Moment, ...]) -> None:
    for moment in history:
        command = moment.command
        if not isinstance(command, Hydrate):
            continue
        there, failure = beneath(moment.before, command)
        kept, remembered = beneath(moment.after, command)
        now, freshness = command.now, verdict(there, command.now, moment.before, command.owner)
        if kept is not there and there is not None and freshness is not MISSING:
            assert freshness not in {FRESH, AGEING}
            assert kept is not None
            assert there.created_at < kept.created_at <= now
        if remembered is not failure and failure is not None:
            since = kept.created_at if remembered is None and kept is not None else remembered.failed_at
            assert failure.failed_at < since
        if kept is not there:
            assert kept is not None
            assert kept.created_at <= now + CLOCK_SKEW_S
            assert now < over_from(kept)
            assert verdict(kept, now, moment.after, command.owner) is not MISSING


@law(histories())
def test_what_comes_from_outside_strikes_no_flight_off(history: tuple[Moment, ...]) -> None:
    for moment in history:
        if isinstance(moment.command, Hydrate):
            assert lists(moment.before) == lists(moment.after)
            assert dict(moment.before.flights.items()) == dict(moment.after.flights.items())
            assert moment.before.marks is moment.after.marks


def beneath(where: State[Any], command: Hydrate[Any]) -> tuple[Any, Any]:
    partition = where.partitions.get(command.owner)
    return (
        (None, None) if partition is None else (partition.entries.get(command.key), partition.failures.get(command.key))
    )


def lists(where: State[Any]) -> dict[Any, Any]:
    return {
        (owner, key): listed
        for owner, partition in where.partitions.items()
        for key, listed in partition.flights.items()
    }
