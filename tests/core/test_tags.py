"""Tags: gone, or stale, at the cost of one mark; whatever was fetched before the mark comes too late."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from cachemesh.core import (
    GLOBAL_OWNER,
    SESSION_OWNER,
    Admit,
    AskAgain,
    CachePolicy,
    CacheScope,
    Directives,
    FetchFailed,
    FetchSucceeded,
    FlightKind,
    Freshness,
    Get,
    Invalidate,
    Join,
    Lifespan,
    Load,
    Loaded,
    LogTag,
    Mark,
    MarkTag,
    Owner,
    Refresh,
    RefreshSource,
    Refusal,
    Refuse,
    Reply,
    Save,
    Settle,
    StartFetch,
    State,
    TagMarked,
    Terms,
    Touch,
    Update,
    WaitedLong,
    reduce,
)
from cachemesh.core.lifetimes import made, verdict
from cachemesh.core.model import NO_MARK
from cachemesh.core.tags import MOST_MARKS, last_mark, later, marked, was_marked
from tests.core.rows import ALICE, BOB, as_map, entry, expect, flight, run, state

NOW = 100.0
SWR = CachePolicy.STALE_WHILE_REVALIDATE
ALICES_SESSION: Owner = (CacheScope.SESSION, "alice")
SERVED = Reply(GLOBAL_OWNER, "feed", "news")
MISSED = (StartFetch(9, GLOBAL_OWNER, "feed", RefreshSource.CACHE_MISS), Join(9))


def get(flight_id: int = 9, now: float = NOW, **options: Any) -> Get:
    return Get("feed", now, flight_id, **options)


def tagged(*tags: str, stamp: int = 1, ttl_s: float | None = None, lifespan: Lifespan | None = None) -> Any:
    """An entry with `tags`, from the flight or write `stamp`."""
    return {"entries": {"feed": made("news", 0.0, ttl_s, stamp, tags=tags, lifespan=lifespan)}}


def hard(stamp: int, at: float = NOW) -> Mark:
    return Mark(gone_stamp=stamp, gone_at=at)


def soft(stamp: int, at: float = NOW) -> Mark:
    return Mark(stale_stamp=stamp, stale_at=at)


# A mark


@pytest.mark.parametrize(
    ("scope", "viewer", "active_user", "owners"),
    [
        (None, None, "bob", (None,)),
        (None, "alice", "bob", (ALICE, ALICES_SESSION, GLOBAL_OWNER)),
        (CacheScope.GLOBAL, None, "bob", (GLOBAL_OWNER,)),
        (CacheScope.SESSION, None, "bob", (SESSION_OWNER,)),
        (CacheScope.USER, None, "bob", (BOB,)),
        (CacheScope.USER, "alice", "bob", (ALICE,)),
    ],
)
@pytest.mark.parametrize("is_soft", [True, False])
def test_a_mark_is_left_for_those_whom_the_caller_sees(
    is_soft: bool, scope: Any, viewer: str | None, active_user: str | None, owners: tuple[Owner | None, ...]
) -> None:
    left = soft(5) if is_soft else hard(5)
    expect(
        state(flight(), active_user=active_user, **tagged("a")),
        MarkTag("a", NOW, 5, is_soft, scope, viewer),
        state(flight(), active_user=active_user, marks={(owner, "a"): left for owner in owners}, **tagged("a")),
        *(TagMarked(owner, "a", is_soft, NOW) for owner in owners),
        LogTag("a", is_soft, owners[0]),
    )


def test_where_nobody_is_signed_in_nothing_of_a_user_is_marked() -> None:
    before = state()
    expect(before, MarkTag("a", NOW, 5, scope=CacheScope.USER), before)


def test_the_same_mark_again_changes_nothing() -> None:
    before = state(marks={(None, "a"): hard(5)})
    expect(
        before, MarkTag("a", NOW, 5), before, TagMarked(None, "a", is_soft=False, at=NOW), LogTag("a", is_soft=False)
    )


@pytest.mark.parametrize(
    ("before", "is_soft", "after"),
    [
        (hard(3, 1.0), False, hard(5)),
        (hard(3, 1.0), True, Mark(3, 1.0, 5, NOW)),
        (soft(3, 1.0), True, soft(5)),
        (soft(3, 1.0), False, Mark(5, NOW, 3, 1.0)),
        (hard(7, 200.0), False, hard(7, 200.0)),
        (soft(7, 200.0), True, soft(7, 200.0)),
    ],
)
def test_the_last_mark_of_either_kind_is_kept(before: Mark, is_soft: bool, after: Mark) -> None:
    assert marked(before, 5, NOW, is_soft=is_soft) == after


# What it does to an entry

# the entry's tags and stamp; the mark: whose, of which tag, hard or soft; what there is then
SEEN = [
    (("a",), 1, (None, "a"), hard(5), Freshness.MISSING),
    (("a",), 1, (None, "a"), soft(5), Freshness.STALE),
    (("a",), 1, (GLOBAL_OWNER, "a"), hard(5), Freshness.MISSING),
    (("a",), 1, (ALICE, "a"), hard(5), Freshness.FRESH),
    (("a",), 1, (None, "b"), hard(5), Freshness.FRESH),
    (("b", "a"), 1, (None, "a"), hard(5), Freshness.MISSING),
    (("a",), 5, (None, "a"), hard(5), Freshness.FRESH),
    (("a",), 6, (None, "a"), hard(5), Freshness.FRESH),
    (("a",), 6, (None, "a"), soft(5), Freshness.FRESH),
    ((), 1, (None, "a"), hard(5), Freshness.FRESH),
    (("a",), 1, (None, "a"), Mark(5, NOW, 6, NOW), Freshness.MISSING),
    (("a",), 4, (None, "a"), Mark(3, NOW, 6, NOW), Freshness.STALE),
]


@pytest.mark.parametrize(("tags", "stamp", "place", "mark", "freshness"), SEEN)
def test_an_entry_is_what_the_marks_of_its_tags_say(
    tags: tuple[str, ...], stamp: int, place: Any, mark: Mark, freshness: Freshness
) -> None:
    there = made("news", 0.0, None, stamp, tags=tags, validator="etag")

    assert verdict(there, NOW, state(marks={place: mark}), GLOBAL_OWNER) is freshness


def test_what_is_gone_is_fetched() -> None:
    there: Any = {"marks": {(None, "a"): hard(5)}, **tagged("a")}
    for policy in (CachePolicy.CACHE_FIRST, SWR):
        expect(state(**there), get(policy=policy), state(flight(9), **there), *MISSED)
    expect(state(**there), get(policy=CachePolicy.CACHE_ONLY), state(**there), Refuse(Refusal.MISS))


def test_what_is_gone_is_not_looked_for_in_the_store() -> None:
    there: Any = {"marks": {(None, "a"): hard(5)}, "has_store": True, **tagged("a")}
    expect(state(**there), get(), state(flight(9), **there), *MISSED)


def test_what_is_gone_stands_in_for_nothing() -> None:
    there: Any = {"marks": {(None, "a"): hard(5)}, **tagged("a", ttl_s=600.0, lifespan=Lifespan(60.0, 60.0))}
    _, effects = run(state(flight(2), **there), FetchFailed(2, "down", NOW))
    assert effects[-1] == Settle(2, GLOBAL_OWNER, "feed", "down")
    _, effects = run(state(flight(2), **there), WaitedLong(2, NOW))
    assert effects == ()


def test_what_was_made_stale_may_still_be_served() -> None:
    """Its window begins with the mark, unless it had expired before."""
    there = tagged("a", ttl_s=600.0, lifespan=Lifespan(serve_stale_s=10.0, stale_if_error_s=20.0))
    before = state(marks={(None, "a"): soft(5)}, **there)
    for now, freshness in [(100.0, "grace"), (109.5, "grace"), (110.0, "expired")]:
        assert verdict(there["entries"]["feed"], now, before, GLOBAL_OWNER) == freshness
    _, effects = run(before, get())
    assert effects[0] == SERVED
    _, effects = run(state(flight(2), marks={(None, "a"): soft(5)}, **there), FetchFailed(2, "down", 119.0))
    assert effects[-1] == Settle(2, GLOBAL_OWNER, "feed", "down", "news", "news")
    _, effects = run(state(flight(2), marks={(None, "a"): soft(5)}, **there), FetchFailed(2, "down", 120.0))
    assert effects[-1] == Settle(2, GLOBAL_OWNER, "feed", "down")

    expired = tagged("a", ttl_s=50.0, lifespan=Lifespan(serve_stale_s=60.0))
    late = verdict(expired["entries"]["feed"], 110.0, state(marks={(None, "a"): soft(5)}), GLOBAL_OWNER)
    assert late is Freshness.EXPIRED


def test_a_mark_that_is_written_over_by_hand_holds_on() -> None:
    """An update is for the rest of a life; what is gone cannot be updated, nor touched."""
    gone = state(marks={(None, "a"): hard(5)}, **tagged("a"))
    expect(gone, Update("feed", "news", "mine", NOW, 6), gone, Refuse(Refusal.MISS))
    expect(gone, Touch("feed", NOW, 6), gone, Refuse(Refusal.MISS))
    stale, _ = run(state(marks={(None, "a"): soft(5)}, **tagged("a")), Update("feed", "news", "mine", NOW, 6))
    _, effects = run(stale, get())
    assert effects == MISSED


# In flight


@pytest.mark.parametrize("is_soft", [True, False])
@pytest.mark.parametrize("known", [True, False], ids=["tags known at the start", "tags come with the answer"])
def test_a_fetch_from_before_a_mark_comes_too_late(known: bool, is_soft: bool) -> None:
    """It answers those who asked before, is stored, and is not served."""
    directives = None if known else Directives(tags=("a",))
    after, effects = run(
        state(flight(1, tags=("a",) if known else ())),
        MarkTag("a", NOW, 5, is_soft),
        FetchSucceeded(1, "news", NOW, directives=directives),
    )
    assert effects[-1] == Settle(1, GLOBAL_OWNER, "feed", "news", asks_again_after=1)
    assert run(after, get())[1] == MISSED


def test_a_fetch_from_after_a_mark_is_served() -> None:
    after, effects = run(
        state(),
        MarkTag("a", NOW, 5),
        get(6, tags=("a",)),
        FetchSucceeded(6, "news", NOW),
    )
    assert effects[-1] == Settle(6, GLOBAL_OWNER, "feed", "news")
    assert run(after, get())[1] == (SERVED,)


@pytest.mark.parametrize(
    ("flight_tags", "own_tags"), [(("a",), ()), ((), ("a",)), (("b", "a"), ("b",))], ids=["its tag", "mine", "either"]
)
@pytest.mark.parametrize("ask", ["get", "refresh"])
def test_whoever_asks_after_a_mark_does_not_join_a_flight_from_before(
    ask: str, flight_tags: tuple[str, ...], own_tags: tuple[str, ...]
) -> None:
    there: Any = {"marks": {(None, "a"): hard(5)}}
    under_way = flight(1, tags=flight_tags)
    if ask == "get":
        command: Any = get(tags=own_tags)
        begun, effects = flight(9, tags=own_tags), MISSED
    else:
        command = Refresh("feed", NOW, 9, tags=own_tags)
        begun = flight(9, tags=own_tags, source=RefreshSource.REFRESH)
        effects = (StartFetch(9, GLOBAL_OWNER, "feed", RefreshSource.REFRESH), Join(9, reads=False))
    expect(state(under_way, **there), command, state(under_way, begun, **there), *effects)


@pytest.mark.parametrize(
    ("under_way", "marks"),
    [
        (flight(6, tags=("a",)), {(None, "a"): hard(5)}),
        (flight(1, tags=("a",)), {(None, "b"): hard(5)}),
        (flight(1, tags=("a",)), {(ALICE, "a"): hard(5)}),
        (flight(1), {(None, "a"): hard(5)}),
    ],
    ids=["from after it", "of another tag", "of another owner", "without a tag"],
)
def test_any_other_flight_is_joined(under_way: Any, marks: Any) -> None:
    before = state(under_way, marks=marks)
    expect(before, get(), before, Join(under_way.flight_id))


def test_nor_does_a_load_from_before_a_mark_answer() -> None:
    there: Any = {"marks": {(None, "a"): hard(5)}, "has_store": True}
    load = flight(1, kind=FlightKind.LOAD, tags=("a",))
    expect(
        state(load, **there),
        get(),
        state(load, flight(9, kind=FlightKind.LOAD), **there),
        Load(9, GLOBAL_OWNER, "feed"),
        Join(9),
    )


def test_a_refresh_from_before_a_mark_is_no_refresh() -> None:
    there: Any = {"marks": {(None, "a"): soft(5)}, **tagged("a")}
    before = flight(1, tags=("a",), source=RefreshSource.BACKGROUND)
    expect(
        state(before, **there),
        get(policy=SWR),
        state(before, flight(9, source=RefreshSource.BACKGROUND), **there),
        SERVED,
        StartFetch(9, GLOBAL_OWNER, "feed", RefreshSource.BACKGROUND),
    )


@pytest.mark.parametrize(
    ("under_way", "stores"),
    [
        (flight(1), True),
        (flight(1), False),
        (flight(1, kind=FlightKind.BYPASS), True),
    ],
    ids=["stored", "not to be stored", "beside the cache"],
)
@pytest.mark.parametrize("struck", [[], [1]])
def test_whoever_joined_before_its_tags_were_known_asks_again(under_way: Any, stores: bool, struck: list[int]) -> None:
    """Also between two orders about one tag, and where the answer is stored nowhere."""
    said = Directives(tags=("a",), stores=stores)
    _, effects = run(
        state(under_way, struck=struck, marks={(None, "a"): hard(5)}), FetchSucceeded(1, "news", NOW, directives=said)
    )
    (settle,) = (effect for effect in effects if isinstance(effect, Settle))
    assert settle.asks_again_after == 1


def test_nobody_asks_again_for_tags_of_what_was_there_before_unless_it_is_renewed() -> None:
    there: Any = {"marks": {(None, "a"): hard(5)}, **tagged("a", stamp=0)}
    _, effects = run(state(flight(1), **there), FetchSucceeded(1, "newer", NOW))
    assert effects[-1] == Settle(1, GLOBAL_OWNER, "feed", "newer")
    _, effects = run(state(flight(1), **there), FetchSucceeded(1, "news", NOW, directives=Directives(renews=True)))
    assert effects[-1] == Settle(1, GLOBAL_OWNER, "feed", "news", asks_again_after=1)


def test_joined_tags_are_all_borne() -> None:
    after, _ = run(state(flight(1, tags=("a",))), get(tags=("b",)), FetchSucceeded(1, "news", NOW))

    assert after == state(entries={"feed": made("news", NOW, None, 1, tags=("a", "b"))})


# From the store


def loaded(stored: Any, *, marks: Any, load: int = 7) -> tuple[State[str], Any]:
    return run(state(flight(load, kind=FlightKind.LOAD), marks=marks, has_store=True), Loaded(load, NOW + 1.0, stored))


def test_what_was_stored_before_a_mark_is_not_taken_in() -> None:
    there: Any = {"marks": {(None, "a"): hard(5)}}
    for made_at in (0.0, NOW):
        stored = entry(at=made_at, terms=Terms(tags=("a",)))
        assert loaded(stored, **there) == (state(has_store=True, **there), (AskAgain(7),))


@pytest.mark.parametrize("mark", [hard(9, 50.0), soft(9, 50.0)])
def test_nor_what_was_read_before_a_mark_whatever_its_clock_says(mark: Mark) -> None:
    stored = entry(at=60.0, terms=Terms(tags=("a",)))
    there: Any = {"marks": {(None, "a"): mark}}

    assert loaded(stored, **there) == (state(has_store=True, **there), (AskAgain(7),))


def test_what_was_stored_after_a_mark_is_taken_in_and_served() -> None:
    """It is as new as its load, whatever it was stamped with in another process."""
    there: Any = {"marks": {(None, "a"): hard(5, 50.0)}}
    after, effects = loaded(entry(at=60.0, terms=Terms(1.0, 2.0, tags=("a",), stamp=3)), **there)

    assert effects == (Admit(GLOBAL_OWNER, "feed"), AskAgain(7))
    kept = entry(at=60.0, terms=Terms(1.0, 2.0, tags=("a",), stamp=7))
    assert after == state(entries={"feed": kept}, has_store=True, **there)
    assert run(after, get(now=70.0))[1] == (SERVED,)


@pytest.mark.parametrize("terms", [None, Terms(1.0, 2.0, validator="etag", stamp=3)])
def test_what_has_no_tags_is_taken_in_as_it_is(terms: Terms | None) -> None:
    after, _ = loaded(entry(at=0.0, terms=terms), marks={(None, "a"): hard(5)})

    assert after == state(entries={"feed": entry(at=0.0, terms=terms)}, has_store=True, marks={(None, "a"): hard(5)})


# Too many marks


def full(**options: Any) -> State[str]:
    """A state that keeps as many marks as it may; of every second one a soft one."""
    many: dict[Any, Mark] = {
        (None, f"tag {number}"): soft(number, float(number)) if number % 2 else hard(number, float(number))
        for number in range(1, MOST_MARKS + 1)
    }
    return state(marks=many, **options)


def test_more_marks_than_are_kept_count_as_one_about_everything() -> None:
    stamp = MOST_MARKS + 7
    after, _ = reduce(full(), MarkTag("a", 20_000.0, stamp))

    assert after == state(marks_floor=Mark(stamp, 20_000.0))
    for tags, born, freshness in [
        (("a",), stamp - 1, "missing"),
        (("never marked",), stamp - 1, "missing"),
        (("tag 1",), stamp + 1, "fresh"),
        ((), 1, "fresh"),
    ]:
        there = made("news", 0.0, None, born, tags=tags, validator="etag")
        assert verdict(there, 20_000.0, after, GLOBAL_OWNER) == freshness


def test_as_many_as_are_kept_are_kept() -> None:
    after, _ = reduce(full(), MarkTag("tag 1", 20_000.0, MOST_MARKS + 7))

    assert (len(after.marks), after.marks_floor) == (MOST_MARKS, NO_MARK)


def test_what_has_no_tag_is_no_concern_of_many_marks() -> None:
    floor = state(flight(1, lifespan=Lifespan()), marks_floor=Mark(9, 50.0))
    _, effects = run(floor, FetchSucceeded(1, "news", NOW))

    assert effects[-1] == Settle(1, GLOBAL_OWNER, "feed", "news")
    assert last_mark(floor, GLOBAL_OWNER, ()) == 0
    assert last_mark(floor, GLOBAL_OWNER, ("a",)) == 9
    assert not was_marked(floor, GLOBAL_OWNER, entry(), 1)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (NO_MARK, hard(5), hard(5)),
        (NO_MARK, soft(5), hard(5)),
        (hard(5), soft(7, 1.0), hard(7)),
        (hard(9, 1.0), hard(7, 3.0), hard(9, 3.0)),
        (NO_MARK, NO_MARK, Mark(0, -inf)),
    ],
)
def test_of_two_marks_the_stricter_is_kept(one: Mark, other: Mark, both: Mark) -> None:
    assert later(one, other) == both


def test_marks_are_kept_in_the_carrier_of_the_state() -> None:
    class Other(State[str], frozen=True):
        def no_marks(self) -> Any:
            return as_map({})

    before = full()
    other: State[str] = Other(before.partitions, before.flights, marks=before.marks)
    after, _ = reduce(other, MarkTag("a", 20_000.0, MOST_MARKS + 1))
    assert type(after) is Other
    assert len(after.marks) == 0


def test_a_key_that_was_invalidated_is_no_concern_of_its_tags() -> None:
    after, effects = run(state(flight(1, tags=("a",))), Invalidate("feed"), FetchSucceeded(1, "news", NOW))

    assert (after, effects) == (state(), (Settle(1, GLOBAL_OWNER, "feed", "news"),))


def test_a_save_carries_the_tags() -> None:
    stored = made("news", NOW, 9.0, 1, tags=("a",))
    expect(
        state(flight(1, ttl_s=9.0, tags=("a",))),
        FetchSucceeded(1, "news", NOW),
        state(entries={"feed": stored}),
        Save(1, GLOBAL_OWNER, "feed", stored, is_new=True),
        Settle(1, GLOBAL_OWNER, "feed", "news"),
    )
