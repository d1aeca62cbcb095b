"""What other processes did, as far as it concerns this memory. Nothing here is an order to the store: it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from msgspec.structs import replace

from cachemesh.core.effects import Overtaken
from cachemesh.core.flights import is_load
from cachemesh.core.model import A, Flight, Partition, State, settled
from cachemesh.core.removals import in_order, without_key
from cachemesh.core.scopes import SESSION_OWNER

if TYPE_CHECKING:
    from cachemesh.core.carriers import Map
    from cachemesh.core.commands import Heard
    from cachemesh.core.effects import Effects

Step: TypeAlias = "tuple[State[A], Effects[A]]"


def on_heard(state: State[A], command: Heard) -> Step[A]:
    """What was changed elsewhere is forgotten here, and what is being fetched or loaded of it is stored nowhere."""
    owner, key = command.owner, command.key
    if owner is None:
        owners = in_order(state.partitions.keys())
        if command.is_gap:  # The cache's own session is this program's own: nobody else changes it.
            owners = [each for each in owners if each != SESSION_OWNER]
        gone: Effects[A] = ()
        for each in owners:
            state, more = on_heard(state, type(command)(each, None, command.is_gap))
            gone += more
        return state, gone

    partition = state.partitions.get(owner)
    if key is not None:
        if partition is None:
            return state, ()
        state = state.moved(settled(state.partitions, owner, without_key(partition, key)), state.flights)
        return state, (Overtaken(owner, frozenset({key}), is_whole=False),)

    if partition is None:
        return state, (Overtaken(owner, frozenset(), is_whole=True, is_gap=command.is_gap),)
    keys = frozenset((*partition.entries, *partition.failures))
    effects: Effects[A] = (Overtaken(owner, keys, is_whole=True, is_gap=command.is_gap),)
    left = fetches_in(state, partition) if command.is_gap else {}
    flights = in_doubt(state.flights, left)
    if not keys and left == dict(partition.flights.items()):
        return state.moved(state.partitions, flights), effects
    partitions = state.partitions.discard(owner)
    if left:
        kept = state.blank(owner)
        under_way = kept.flights
        for name, listed in left.items():
            under_way = under_way.insert(name, listed)
        partitions = partitions.insert(owner, kept.moved(kept.entries, kept.failures, under_way))
    return state.moved(partitions, flights), effects


def fetches_in(state: State[A], partition: Partition[A]) -> dict[str, tuple[int, ...]]:
    """The flights of a partition that may still store, less those that only load."""
    left: dict[str, tuple[int, ...]] = {}
    for key, listed in partition.flights.items():
        fetches = tuple(each for each in listed if not is_load(state.flights, each))
        if fetches:
            left[key] = fetches
    return left


def in_doubt(flights: Map[int, Flight], left: dict[str, tuple[int, ...]]) -> Map[int, Flight]:
    """`flights`, where those that are `left` after a gap are for the store to judge."""
    for listed in left.values():
        for each in listed:
            flight = flights.get(each)
            if flight is not None and not flight.spans_gap:
                flights = flights.insert(each, replace(flight, spans_gap=True))
    return flights
