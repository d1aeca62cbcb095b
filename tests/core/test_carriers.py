"""The maps that carry a state. That reducers cannot tell them apart is a law."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from cachemesh.core import GLOBAL_OWNER, CacheScope, Get, Owner, Partition, State, reduce
from cachemesh.core.carriers import Table, persistent
from cachemesh.core.model import settled
from tests.core.rows import ALICE, as_map, entry, failed, flight, law, state

CHANGES = st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers()), max_size=12)


def changed(table: Any, changes: list[tuple[str, int | None]]) -> Any:
    """`table` with each key set to its value, or without it where that is None."""
    for key, value in changes:
        table = table.discard(key) if value is None else table.insert(key, value)
    return table


@law(CHANGES)
def test_both_carriers_are_maps(changes: list[tuple[str, int | None]]) -> None:
    expected: dict[str, int] = {}
    for key, value in changes:
        if value is None:
            expected.pop(key, None)
        else:
            expected[key] = value
    kept: Any = persistent()
    table: Any = Table()

    for each in (changed(kept, changes), changed(table, changes)):
        assert dict(each.items()) == expected
        assert sorted(each.keys()) == sorted(each) == sorted(expected)
        assert sorted(each.values()) == sorted(expected.values())
        assert len(each) == len(expected)
        assert [each.get(key) for key in "abcd"] == [expected.get(key) for key in "abcd"]
        assert [key in each for key in "abcd"] == [key in expected for key in "abcd"]


@law(CHANGES, CHANGES)
def test_a_persistent_map_keeps_every_version(
    first: list[tuple[str, int | None]], then: list[tuple[str, int | None]]
) -> None:
    kept = changed(persistent(), first)
    snapshot = dict(kept.items())

    changed(kept, then)

    assert dict(kept.items()) == snapshot


@law(CHANGES)
def test_a_table_is_one_and_the_same(changes: list[tuple[str, int | None]]) -> None:
    table: Table[str, int] = Table()

    assert changed(table, changes) is table


def test_a_new_state_is_empty() -> None:
    fresh: State[str] = State()

    assert (len(fresh.partitions), len(fresh.flights), fresh.active_user, fresh.has_store) == (0, 0, None, False)
    assert fresh.blank(GLOBAL_OWNER).is_empty
    assert Partition().is_empty


def test_a_partition_is_empty_where_all_its_maps_are() -> None:
    for full in state(entries={"feed": entry()}), state(failures={"feed": failed()}), state(flight()):
        partition = full.partitions.get(GLOBAL_OWNER)
        assert partition is not None
        assert not partition.is_empty


def test_what_is_moved_to_the_same_maps_stays_the_same() -> None:
    here = state(flight(), entries={"feed": entry()}, failures={"feed": failed()}, active_user="bob", has_store=True)
    partition = here.partitions.get(GLOBAL_OWNER)
    assert partition is not None
    entries, failures, flights = partition.entries, partition.failures, partition.flights
    empty: Any = as_map({})

    assert here.moved(here.partitions, here.flights) is here
    assert here.moved(empty, here.flights) == State(empty, here.flights, "bob", has_store=True)
    assert here.moved(here.partitions, empty) == State(here.partitions, empty, "bob", has_store=True)
    assert partition.moved(entries, failures, flights) is partition
    assert partition.moved(empty, failures, flights) == Partition(empty, failures, flights)
    assert partition.moved(entries, empty, flights) == Partition(entries, empty, flights)
    assert partition.moved(entries, failures, empty) == Partition(entries, failures, empty)


def test_a_partition_in_its_place_changes_nothing() -> None:
    here = state(entries={"feed": entry()})
    partition = here.partitions.get(GLOBAL_OWNER)
    assert partition is not None

    assert settled(here.partitions, GLOBAL_OWNER, partition) is here.partitions
    assert settled(here.partitions, ALICE, Partition()) is here.partitions
    assert dict(settled(here.partitions, ALICE, partition).items()) == {GLOBAL_OWNER: partition, ALICE: partition}
    assert dict(settled(here.partitions, GLOBAL_OWNER, Partition()).items()) == {}


def test_a_carrier_is_told_whose_partition_it_makes() -> None:
    asked: list[Owner] = []

    class Curious(State[str], frozen=True):
        def blank(self, owner: Owner) -> Partition[str]:
            asked.append(owner)
            return super().blank(owner)

    reduce(Curious(), Get("feed", 0.0, 1, scope=CacheScope.USER, viewer="alice"))

    assert asked == [ALICE]
