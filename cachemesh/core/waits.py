"""Who waits for whom. A fetch that asks the cache waits for other flights; a circle of them would wait for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachemesh.core.carriers import Map
    from cachemesh.core.model import A, Ancestor, Flight, State
    from cachemesh.core.scopes import Owner


def waits_for_itself(
    flights: Map[int, Flight],
    owner: Owner,
    key: str,
    within: tuple[Ancestor, ...],
    joined: Flight | None,
) -> bool:
    """Whether a wait for `key` from `within` would close a circle.

    Either the same key is being fetched further out, or the flight to be joined
    waits, through others, for one of `within`: a cycle in the wait-for graph
    (Holt, Some Deadlock Properties of Computer Systems, 1972). Work that a
    fetch has left behind, and that outlives it, is within nothing any more.
    """
    if any(outer.key == key and outer.owner == owner and outer.flight_id in flights for outer in within):
        return True
    return joined is not None and reaches(flights, joined.flight_id, within)


def reaches(flights: Map[int, Flight], start: int, goals: tuple[Ancestor, ...]) -> bool:
    """Whether the flight `start` waits for one of `goals`, directly or through others."""
    wanted = {goal.flight_id for goal in goals}
    seen: set[int] = set()
    unseen = [start]
    while unseen:
        flight_id = unseen.pop()
        if flight_id in wanted:
            return True
        flight = flights.get(flight_id)
        if flight is not None and flight_id not in seen:
            seen.add(flight_id)
            unseen.extend(flight.waits_on)
    return False


def with_wait(state: State[A], within: tuple[Ancestor, ...], awaited: int) -> State[A]:
    """The innermost flight of `within` waits for `awaited`; those that share its fetch wait for what it waits for."""
    sharing = sharing_a_fetch(state.flights, within)
    waiter = next(sharing, None)
    if waiter is None:
        return state
    for sharer in sharing:
        if waiter.flight_id not in sharer.waits_on:
            state = with_waits(state, sharer, (*sharer.waits_on, waiter.flight_id))
    still = (each for each in waiter.waits_on if each in state.flights)
    return with_waits(state, waiter, (*still, awaited))


def without_wait(state: State[A], within: tuple[Ancestor, ...], awaited: int) -> State[A]:
    """One of the waits of the innermost flight of `within` for `awaited` is over."""
    for waiter in sharing_a_fetch(state.flights, within):
        if awaited in waiter.waits_on:
            left = list(waiter.waits_on)
            left.remove(awaited)
            return with_waits(state, waiter, tuple(left))
    return state


def sharing_a_fetch(flights: Map[int, Flight], within: tuple[Ancestor, ...]) -> Iterator[Flight]:
    """The flights that the innermost fetch of `within` is made for, as far as they are still under way."""
    for number, each in enumerate(reversed(within)):
        if number and not each.shares:
            return
        flight = flights.get(each.flight_id)
        if flight is not None:
            yield flight


def with_waits(state: State[A], waiter: Flight, waits_on: tuple[int, ...]) -> State[A]:
    flights = state.flights.insert(waiter.flight_id, replace(waiter, waits_on=waits_on))
    return state.moved(state.partitions, flights)
