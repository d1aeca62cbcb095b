"""A circle of fetches that wait for each other is refused before it closes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st

from cachemesh.core import (
    GLOBAL_OWNER,
    Ancestor,
    CachePolicy,
    CacheScope,
    FetchSucceeded,
    Flight,
    FlightKind,
    Get,
    Join,
    Load,
    Refresh,
    RefreshSource,
    Refusal,
    Refuse,
    Reply,
    StartFetch,
    StoppedWaiting,
)
from cachemesh.core.waits import reaches
from tests.core.rows import ALICE, entry, expect, flight, law, run, state

if TYPE_CHECKING:
    from cachemesh.core import Owner

REENTRANT = Refuse(Refusal.REENTRANT)


def inside(*flights: tuple[int, str], owner: Owner = GLOBAL_OWNER) -> tuple[Ancestor, ...]:
    return tuple(Ancestor(flight_id, owner, key) for flight_id, key in flights)


def ask(key: str, flight_id: int = 9, **options: Any) -> Get:
    return Get(key, 0.0, flight_id, **options)


# A key inside of itself


@pytest.mark.parametrize(
    "command",
    [
        ask("a", within=inside((1, "a"))),
        ask("a", within=inside((1, "a")), policy=CachePolicy.NETWORK_FIRST),
        ask("a", within=inside((1, "a")), policy=CachePolicy.NETWORK_ONLY),
        ask("a", within=inside((1, "a")), domain=1),
        Refresh("a", 0.0, 9, within=inside((1, "a"))),
        ask("a", within=inside((1, "a"), (2, "b"))),
        ask("a", within=inside((2, "b"), (1, "a"))),
    ],
)
def test_a_fetch_does_not_ask_for_its_own_key(command: Any) -> None:
    before = state(flight(1, "a"), flight(2, "b"))
    expect(before, command, before, REENTRANT)


def test_not_even_once_it_was_invalidated() -> None:
    before = state(flight(1, "a"), struck=[1])
    expect(before, ask("a", within=inside((1, "a"))), before, REENTRANT)


def test_a_fetch_may_ask_for_its_own_key_where_that_is_served() -> None:
    before = state(flight(1, "a"), entries={"a": entry()})
    expect(before, ask("a", within=inside((1, "a"))), before, Reply(GLOBAL_OWNER, "a", "news"))


def test_a_fetch_may_ask_the_store_for_its_own_key() -> None:
    """A load waits for no fetch. It is refused when it asks again."""
    expect(
        state(flight(1, "a"), has_store=True),
        ask("a", within=inside((1, "a"))),
        state(flight(1, "a", waits_on=[9]), flight(9, "a", kind=FlightKind.LOAD), has_store=True),
        Load(9, GLOBAL_OWNER, "a"),
        Join(9),
    )
    before = state(flight(1, "a"), has_store=True)
    expect(before, ask("a", within=inside((1, "a")), asked_store=True), before, REENTRANT)


@pytest.mark.parametrize(
    ("key", "options"),
    [("b", {}), ("a", {"scope": CacheScope.USER, "viewer": "alice"})],
    ids=["another key", "another owner"],
)
def test_a_fetch_may_ask_for_something_else(key: str, options: Any) -> None:
    owner = ALICE if options else GLOBAL_OWNER
    expect(
        state(flight(1, "a")),
        ask(key, within=inside((1, "a")), **options),
        state(flight(1, "a", waits_on=[9]), flight(9, key, owner)),
        StartFetch(9, owner, key, RefreshSource.CACHE_MISS),
        Join(9),
    )


# Circles


def test_two_fetches_do_not_wait_for_each_other() -> None:
    before = state(flight(1, "a", waits_on=[2]), flight(2, "b"))
    expect(before, ask("a", within=inside((2, "b"))), before, REENTRANT)


def test_a_circle_of_many_is_seen_as_well() -> None:
    before = state(
        flight(1, "a", waits_on=[5, 2]),
        flight(2, "b", waits_on=[3]),
        flight(3, "c", waits_on=[5, 4]),
        flight(4, "d"),
        flight(5, "e"),
    )
    expect(before, ask("a", within=inside((4, "d"))), before, REENTRANT)


def test_a_circle_through_an_outer_fetch_is_seen_as_well() -> None:
    """Flight 3 is made by flight 2's fetch; what waits for 2 waits for 3."""
    before = state(flight(1, "a", waits_on=[2]), flight(2, "b", waits_on=[3]), flight(3, "c"))
    expect(before, ask("a", within=inside((2, "b"), (3, "c"))), before, REENTRANT)


def test_what_waits_for_something_else_is_joined() -> None:
    there = flight(2, "b"), flight(3, "c")
    expect(
        state(flight(1, "a", waits_on=[3]), *there),
        ask("a", within=inside((2, "b"))),
        state(flight(1, "a", waits_on=[3]), flight(2, "b", waits_on=[1]), flight(3, "c")),
        Join(1),
    )


def test_whoever_is_inside_of_nothing_may_join_whatever_waits() -> None:
    before = state(flight(1, "a", waits_on=[2]), flight(2, "b"))
    expect(before, ask("a"), before, Join(1))


def test_a_circle_that_is_there_already_is_walked_once() -> None:
    before = state(flight(1, "a", waits_on=[2]), flight(2, "b", waits_on=[1]), flight(3, "c"))
    expect(
        before,
        ask("a", within=inside((3, "c"))),
        state(flight(1, "a", waits_on=[2]), flight(2, "b", waits_on=[1]), flight(3, "c", waits_on=[1])),
        Join(1),
    )


# One fetch for several flights


def sharing(*flights: tuple[int, str], outer: tuple[Ancestor, ...] = ()) -> tuple[Ancestor, ...]:
    """The inside of a fetch that is made for all of `flights` at once."""
    *shares, last = inside(*flights)
    return (*outer, *(Ancestor(each.flight_id, each.owner, each.key, shares=True) for each in shares), last)


def test_those_who_share_a_fetch_wait_for_what_it_waits_for() -> None:
    """Whatever each of them waited for before."""
    before = state(flight(1, "a", waits_on=[6]), flight(2, "b"), flight(3, "c"), flight(4, "d"), flight(6, "f"))
    within = sharing((1, "a"), (2, "b"), (3, "c"), outer=inside((6, "f")))
    waiting = (
        flight(1, "a", waits_on=[6, 3]),
        flight(2, "b", waits_on=[3]),
        flight(3, "c", waits_on=[4]),
        flight(4, "d"),
        flight(6, "f"),
    )
    expect(before, ask("d", within=within), state(*waiting), Join(4))
    expect(state(*waiting), ask("a", within=inside((4, "d"))), state(*waiting), REENTRANT)
    expect(state(*waiting), ask("b", within=inside((4, "d"))), state(*waiting), REENTRANT)
    expect(
        state(*waiting),
        ask("d", within=within),
        state(*waiting[:2], flight(3, "c", waits_on=[4, 4]), *waiting[3:]),
        Join(4),
    )
    expect(state(*waiting), StoppedWaiting(4, within), state(*waiting[:2], flight(3, "c"), *waiting[3:]))


def test_where_one_of_them_is_gone_the_next_one_waits() -> None:
    before = state(flight(1, "a"), flight(2, "b"), flight(4, "d"))
    within = sharing((1, "a"), (2, "b"), (3, "c"))
    after = state(flight(1, "a", waits_on=[2]), flight(2, "b", waits_on=[4]), flight(4, "d"))

    expect(before, ask("d", within=within), after, Join(4))
    expect(after, StoppedWaiting(4, within), state(flight(1, "a", waits_on=[2]), flight(2, "b"), flight(4, "d")))
    gone = state(flight(4, "d"))
    expect(gone, ask("d", within=within), gone, Join(4))


@pytest.mark.parametrize("key", ["a", "b", "c"])
def test_none_of_those_who_share_a_fetch_is_asked_for_within_it(key: str) -> None:
    before = state(flight(1, "a"), flight(2, "b"), flight(3, "c"))
    expect(before, ask(key, within=sharing((1, "a"), (2, "b"), (3, "c"))), before, REENTRANT)


def test_what_is_reached_is_what_a_walk_over_the_edges_finds() -> None:
    graphs = st.lists(st.frozensets(st.integers(0, 6)), min_size=6, max_size=6)

    @law(graphs, st.integers(0, 6), st.sets(st.integers(0, 6), max_size=2))
    def agrees(edges: list[frozenset[int]], start: int, goals: set[int]) -> None:
        flights: Any = {number: flight(number, str(number), waits_on=to) for number, to in enumerate(edges)}
        found = {start}
        for _ in edges:
            found |= {to for number in found if number in flights for to in flights[number].waits_on}

        assert reaches(flights, start, inside(*((goal, str(goal)) for goal in goals))) == bool(found & goals)

    agrees()


# The edges


def waiting(*waits_on: int) -> Flight:
    return flight(1, "a", waits_on=waits_on)


def test_the_innermost_fetch_is_the_one_that_waits() -> None:
    expect(
        state(flight(1, "a"), flight(2, "b"), flight(3, "c")),
        ask("c", within=inside((1, "a"), (2, "b"))),
        state(flight(1, "a"), flight(2, "b", waits_on=[3]), flight(3, "c")),
        Join(3),
    )


def test_it_may_wait_for_the_same_more_than_once() -> None:
    there = flight(2, "b")
    expect(state(waiting(2), there), ask("b", within=inside((1, "a"))), state(waiting(2, 2), there), Join(2))
    expect(state(waiting(2, 2), there), StoppedWaiting(2, inside((1, "a"))), state(waiting(2), there))


def test_a_wait_that_is_over_is_forgotten_with_the_next_one() -> None:
    expect(
        state(waiting(7, 2), flight(2, "b"), flight(3, "c")),
        ask("c", within=inside((1, "a"))),
        state(waiting(2, 3), flight(2, "b"), flight(3, "c")),
        Join(3),
    )


def test_work_that_a_fetch_has_left_behind_may_ask_for_its_key() -> None:
    expect(
        state(),
        ask("a", within=inside((1, "a"))),
        state(flight(9, "a")),
        StartFetch(9, GLOBAL_OWNER, "a", RefreshSource.CACHE_MISS),
        Join(9),
    )


def test_it_may_wait_for_many() -> None:
    expect(
        state(waiting(2), flight(2, "b"), flight(3, "c")),
        ask("c", within=inside((1, "a"))),
        state(waiting(2, 3), flight(2, "b"), flight(3, "c")),
        Join(3),
    )


def test_a_fetch_that_is_over_waits_for_nobody() -> None:
    """Code it has left behind may still ask."""
    before = state(flight(2, "b"))
    expect(before, ask("b", within=inside((1, "a"))), before, Join(2))


def test_a_refresh_behind_a_reader_is_waited_for_by_nobody() -> None:
    stale = {"b": entry(ttl_s=0.0)}
    expect(
        state(flight(1, "a"), entries=stale),
        ask("b", within=inside((1, "a")), policy=CachePolicy.STALE_WHILE_REVALIDATE),
        state(flight(1, "a"), flight(9, "b", source=RefreshSource.BACKGROUND), entries=stale),
        Reply(GLOBAL_OWNER, "b", "news"),
        StartFetch(9, GLOBAL_OWNER, "b", RefreshSource.BACKGROUND),
    )


def test_whoever_stops_waiting_waits_no_longer() -> None:
    expect(
        state(waiting(2, 3), flight(2, "b"), flight(3, "c")),
        StoppedWaiting(2, inside((1, "a"))),
        state(waiting(3), flight(2, "b"), flight(3, "c")),
    )


def test_it_is_the_innermost_that_stops() -> None:
    expect(
        state(waiting(3), flight(2, "b", waits_on=[3]), flight(3, "c")),
        StoppedWaiting(3, inside((1, "a"), (2, "b"))),
        state(waiting(3), flight(2, "b"), flight(3, "c")),
    )


@pytest.mark.parametrize(
    "command",
    [
        StoppedWaiting(2, ()),
        StoppedWaiting(3, inside((1, "a"))),
        StoppedWaiting(2, inside((7, "gone"))),
        StoppedWaiting(2, inside((2, "b"))),
    ],
    ids=["inside of nothing", "for another", "that is over", "that did not wait"],
)
def test_nobody_stops_a_wait_that_is_not_theirs(command: StoppedWaiting) -> None:
    before = state(waiting(2), flight(2, "b"))
    expect(before, command, before)


def test_whoever_stopped_waiting_may_be_waited_for() -> None:
    after, effects = run(
        state(waiting(2), flight(2, "b")),
        StoppedWaiting(2, inside((1, "a"))),
        ask("a", within=inside((2, "b"))),
    )
    assert effects == (Join(1),)
    assert after == state(flight(1, "a"), flight(2, "b", waits_on=[1]))


def test_a_second_wait_for_the_same_outlives_the_first() -> None:
    """A fetch that gathers `get("b")` twice, and has one of them cancelled, still waits for "b"."""
    _, effects = run(
        state(flight(1, "a"), flight(2, "b")),
        ask("b", 3, within=inside((1, "a"))),
        ask("b", 4, within=inside((1, "a"))),
        StoppedWaiting(2, inside((1, "a"))),
        ask("a", 5, within=inside((2, "b"))),
    )
    assert effects == (REENTRANT,)


def test_an_answer_ends_the_flight_with_all_that_it_waits_for() -> None:
    after, _ = run(state(waiting(2), flight(2, "b")), FetchSucceeded(1, "news", 0.0))

    assert after == state(flight(2, "b"), entries={"a": entry(ttl_s=None)})
