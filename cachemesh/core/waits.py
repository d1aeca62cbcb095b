"""Who waits for whom. A fetch that asks the cache waits for other flights; a circle of them would wait for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

if TYPE_CHECKING:
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
    """The innermost flight of `within` waits for `awaited`; those that share its fetch wait for it."""
    waiter = state.flights.get(within[-1].flight_id)
    if waiter is None:
        return state
    if not waiter.waits_on:
        state = with_shared_waits(state, within, waiter.flight_id)
    still = (each for each in waiter.waits_on if each in state.flights)
    return with_waits(state, waiter, (*still, awaited))


def with_shared_waits(state: State[A], within: tuple[Ancestor, ...], innermost: int) -> State[A]:
    """Those that share the fetch of `innermost` wait for what that waits for."""
    for each in reversed(within[:-1]):
        if not each.shares:
            break
        sharer = state.flights.get(each.flight_id)
        if sharer is not None and innermost not in sharer.waits_on:
            state = with_waits(state, sharer, (*sharer.waits_on, innermost))
    return state


def without_wait(state: State[A], within: tuple[Ancestor, ...], awaited: int) -> State[A]:
    """One of the waits of the innermost flight of `within` for `awaited` is over."""
    waiter = state.flights.get(within[-1].flight_id) if within else None
    if waiter is None or awaited not in waiter.waits_on:
        return state
    left = list(waiter.waits_on)
    left.remove(awaited)
    return with_waits(state, waiter, tuple(left))


def with_waits(state: State[A], waiter: Flight, waits_on: tuple[int, ...]) -> State[A]:
    flights = state.flights.insert(waiter.flight_id, replace(waiter, waits_on=waits_on))
    return state.moved(state.partitions, flights)
