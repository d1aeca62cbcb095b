"""A caller asks: what is served, what is refused, and which flight is joined or begun."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from msgspec.structs import replace

from cachemesh.core.commands import Get
from cachemesh.core.effects import Join, Load, Refusal, Refuse, Reply, StartFetch
from cachemesh.core.lifetimes import shorter, verdict
from cachemesh.core.model import (
    BACKGROUND,
    BYPASS_FLIGHT,
    CACHE_MISS,
    FETCH_FLIGHT,
    LOAD_FLIGHT,
    POLICY,
    A,
    Flight,
    FlightKind,
    Partition,
    RefreshSource,
    State,
)
from cachemesh.core.policies import BYPASS, FETCH, MISSING, REFUSE, SERVE, SERVE_AND_REFRESH, SERVE_STALE
from cachemesh.core.retry import more_patient
from cachemesh.core.scopes import GLOBAL, GLOBAL_OWNER, Owner, owner_of
from cachemesh.core.waits import waits_for_itself, with_wait

if TYPE_CHECKING:
    from cachemesh.core.carriers import Map
    from cachemesh.core.commands import Refresh
    from cachemesh.core.effects import Effects
    from cachemesh.core.model import Failed

Step: TypeAlias = "tuple[State[A], Effects[A]]"


def on_get(state: State[A], command: Get) -> Step[A]:
    scope, policy, key = command.scope, command.policy, command.key
    owner = GLOBAL_OWNER if scope is GLOBAL else owner_of(scope, state.active_user, command.viewer)
    if owner is None:
        return state, (Refuse(Refusal.NO_ACTIVE_USER),)

    partition = state.partitions.get(owner)
    entry = None if partition is None else partition.entries.get(key)
    if entry is None:
        freshness, action = MISSING, policy.missing
    else:
        freshness = verdict(entry, command.now)
        action = policy.action(freshness, command.always_revalidate)
        if action is SERVE:
            return state, (Reply(owner, key, entry.answer),)
        if action is SERVE_AND_REFRESH:
            assert partition is not None
            state, refresh = refresh_behind(state, owner, partition, command)
            return state, (Reply(owner, key, entry.answer), *refresh)

    falls_back = policy.after_failure is SERVE_STALE
    if action is BYPASS:
        kind, source = BYPASS_FLIGHT, POLICY
        return begin_or_join(state, owner, partition, command, kind, source, falls_back)

    if state.has_store and entry is None and not command.asked_store:
        kind, source = LOAD_FLIGHT, CACHE_MISS
        return begin_or_join(state, owner, partition, command, kind, source, falls_back)

    failed = None if partition is None or key not in partition.failures else heeded_failure(partition, command)
    if failed is not None:
        if entry is not None and policy.after_failure is SERVE_STALE:
            return state, (Reply(owner, key, entry.answer),)
        return state, (Reply(owner, key, failed.answer, hit=False),)

    if action is REFUSE:
        reason = Refusal.MISS if freshness is MISSING else Refusal.EXPIRED
        return state, (Refuse(reason),)

    source = POLICY if policy.fresh is FETCH else CACHE_MISS
    return begin_or_join(state, owner, partition, command, FETCH_FLIGHT, source, falls_back)


def on_refresh(state: State[A], command: Refresh) -> Step[A]:
    owner = owner_of(command.scope, state.active_user, command.viewer)
    if owner is None:
        return state, (Refuse(Refusal.NO_ACTIVE_USER),)
    partition = state.partitions.get(owner)
    kind, source = FETCH_FLIGHT, command.source
    return begin_or_join(state, owner, partition, command, kind, source, False)


def heeded_failure(partition: Partition[A], command: Get) -> Failed[A] | None:
    """The remembered failure that answers `command`, if any."""
    failed = partition.failures.get(command.key)
    if failed is None or not (command.heed_failures and command.policy.heeds_failures):
        return None
    return failed if command.now < failed.serve_until else None


def refresh_behind(state: State[A], owner: Owner, partition: Partition[A], command: Get) -> Step[A]:
    """Begin a refresh that nobody waits for, unless one is under way or the last one failed just now."""
    failed = partition.failures.get(command.key)
    if failed is not None and command.now < failed.refresh_after:
        return state, ()
    under_way = partition.flights.get(command.key) or ()
    for flight_id in under_way:
        flight = state.flights.get(flight_id)
        if flight is not None and flight.persist and flight.domain == command.domain:
            return state, ()
    state, start = begin(state, owner, partition, under_way, command, FETCH_FLIGHT, BACKGROUND)
    return state, (start,)


def begin_or_join(
    state: State[A],
    owner: Owner,
    partition: Partition[A] | None,
    command: Get | Refresh,
    kind: FlightKind,
    source: RefreshSource,
    falls_back: bool,
) -> Step[A]:
    """Wait for a flight: the one under way that may answer `command`, or a new one.

    `falls_back`: the asker takes an old value in place of a failure.
    """
    if partition is None:
        partition = state.blank(owner)
    under_way = partition.flights.get(command.key) or ()
    within = command.within
    if not (under_way or within):
        state, start = begin(state, owner, partition, (), command, kind, source)
        return state, (start, Join(command.flight_id, falls_back))

    flight = joinable_flight(state.flights, under_way, command.domain, kind)
    if within:
        if kind is not LOAD_FLIGHT and waits_for_itself(state.flights, owner, command.key, within, flight):
            return state, (Refuse(Refusal.REENTRANT),)
        state = with_wait(state, within, command.flight_id if flight is None else flight.flight_id)

    if flight is None:
        state, start = begin(state, owner, partition, under_way, command, kind, source)
        return state, (start, Join(command.flight_id, falls_back))

    merged = merge_intents(flight, command, kind)
    if merged is not flight:
        state = state.moved(state.partitions, state.flights.insert(flight.flight_id, merged))
    return state, (Join(flight.flight_id, falls_back),)


def joinable_flight(
    flights: Map[int, Flight],
    under_way: tuple[int, ...],
    domain: int,
    kind: FlightKind,
) -> Flight | None:
    """Of the flights of a key, the one that may answer a caller who would begin one of `kind`.

    A fetch for the cache may join one that passes the cache by (and makes it
    store), but a caller who passes the cache by joins only its like: an
    ordinary flight began before it asked, and answers an older question.
    """
    found = None
    for flight_id in under_way:
        flight = flights.get(flight_id)
        if flight is None or flight.domain != domain:
            continue
        if flight.kind is kind:
            return flight
        if kind is FETCH_FLIGHT and flight.kind is BYPASS_FLIGHT:
            found = flight
    return found


def merge_intents(flight: Flight, command: Get | Refresh, kind: FlightKind) -> Flight:
    """`flight` with the wishes of one more caller: store if anyone wants it, for the shortest time that anyone gave."""
    if kind is LOAD_FLIGHT:
        return flight
    persist = flight.persist or kind is FETCH_FLIGHT
    ttl_s = flight.ttl_s
    if kind is FETCH_FLIGHT:
        ttl_s = shorter(ttl_s, command.ttl_s) if flight.persist else command.ttl_s
    store_failures = flight.store_failures or (command.store_failures and kind is FETCH_FLIGHT)
    retry = more_patient(flight.retry, command.retry)
    merged = (persist, ttl_s, store_failures, retry)
    if merged == (flight.persist, flight.ttl_s, flight.store_failures, flight.retry):
        return flight
    return replace(flight, persist=persist, ttl_s=ttl_s, store_failures=store_failures, retry=retry)


def begin(
    state: State[A],
    owner: Owner,
    partition: Partition[A],
    under_way: tuple[int, ...],
    command: Get | Refresh,
    kind: FlightKind,
    source: RefreshSource,
) -> tuple[State[A], StartFetch | Load]:
    """List a new flight of `kind` after those that are `under_way`."""
    flight_id, key = command.flight_id, command.key
    persist = kind is FETCH_FLIGHT
    flight = Flight(
        flight_id,
        owner,
        key,
        command.domain,
        kind,
        source,
        persist,
        command.ttl_s,
        persist and command.store_failures,
        command.retry,
        1,
        (),
        persist and type(command) is Get and command.asked_store and key not in partition.entries,
    )
    listed = partition.flights.insert(key, (*under_way, flight_id))
    if listed is not partition.flights:
        partition = Partition(partition.entries, partition.failures, listed)
    partitions = state.partitions
    if partitions.get(owner) is not partition:
        partitions = partitions.insert(owner, partition)
    flights = state.flights.insert(flight_id, flight)
    if partitions is not state.partitions or flights is not state.flights:
        state = replace(state, partitions=partitions, flights=flights)
    if kind is LOAD_FLIGHT:
        return state, Load(flight_id, owner, key)
    return state, StartFetch(flight_id, owner, key, source)
