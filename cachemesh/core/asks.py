"""A caller asks: what is served, what is refused, and which flight is joined or begun."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec.structs import replace

from cachemesh.core.breakers import held_off_until, with_probe
from cachemesh.core.commands import Get
from cachemesh.core.effects import Join, Load, Refusal, Refuse, Reply, StartFetch
from cachemesh.core.lifetimes import rescues, shorter, stands_in, stricter, verdict
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
from cachemesh.core.tags import last_mark
from cachemesh.core.waits import waits_for_itself, with_wait

if TYPE_CHECKING:
    from cachemesh.core.commands import Refresh
    from cachemesh.core.effects import Effects
    from cachemesh.core.model import Entry
    from cachemesh.core.policies import CachePolicy

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
        freshness = verdict(entry, command.now, state, owner)
        action = policy.action(freshness, command.always_revalidate)
        if action is SERVE:
            return state, (Reply(owner, key, entry.answer),)
        if action is SERVE_AND_REFRESH:
            assert partition is not None
            state, refresh = refresh_behind(state, owner, partition, command)
            return state, (Reply(owner, key, entry.answer), *refresh)

    if action is BYPASS:
        return begin_or_join(state, owner, partition, command, BYPASS_FLIGHT, POLICY)

    if state.has_store and entry is None and not command.asked_store:
        return begin_or_join(state, owner, partition, command, LOAD_FLIGHT, CACHE_MISS)

    if partition is not None and command.heed_failures and key in partition.failures:
        reply = reply_from_failure(state, owner, partition, entry, command)
        if reply is not None:
            return state, (reply,)

    if action is REFUSE:
        reason = Refusal.MISS if freshness is MISSING else Refusal.EXPIRED
        return state, (Refuse(reason),)

    source = POLICY if policy.fresh is FETCH else CACHE_MISS
    return begin_or_join(state, owner, partition, command, FETCH_FLIGHT, source)


def on_refresh(state: State[A], command: Refresh) -> Step[A]:
    owner = owner_of(command.scope, state.active_user, command.viewer)
    if owner is None:
        return state, (Refuse(Refusal.NO_ACTIVE_USER),)
    return begin_or_join(state, owner, state.partitions.get(owner), command, FETCH_FLIGHT, command.source)


def reply_from_failure(
    state: State[A],
    owner: Owner,
    partition: Partition[A],
    entry: Entry[A] | None,
    command: Get,
) -> Reply[A] | None:
    """What the memory of a failure spares: asking an origin that has just failed."""
    failed, policy, now = partition.failures.get(command.key), command.policy, command.now
    assert failed is not None
    if entry is not None:
        waits = now < failed.refresh_after and policy.missing is FETCH and rescues(entry, now, state, owner)
        spared = now < failed.serve_until and policy.heeds_failures and takes(policy, entry, now, state, owner)
        if waits or spared:
            return Reply(owner, command.key, entry.answer)
    if now < failed.serve_until and policy.heeds_failures:
        return Reply(owner, command.key, failed.answer, hit=False)
    return None


def takes(policy: CachePolicy, entry: Entry[Any] | None, now: float, state: State[Any], owner: Owner) -> bool:
    """Whether `entry` may stand in for the answer of a fetch that cannot be had, under `policy`."""
    if policy.after_failure is SERVE_STALE and stands_in(entry, now, state, owner):
        return True
    return rescues(entry, now, state, owner)


def refresh_behind(state: State[A], owner: Owner, partition: Partition[A], command: Get) -> Step[A]:
    """Begin a refresh that nobody waits for, unless one is under way or the last one failed just now."""
    failed = partition.failures.get(command.key)
    if failed is not None and command.now < failed.refresh_after:
        return state, ()
    if held_off_until(state, command.origin, command.now) is not None:
        return state, ()
    under_way = partition.flights.get(command.key) or ()
    for flight_id in under_way:
        flight = state.flights.get(flight_id)
        if flight is None or flight.domain != command.domain:
            continue
        if flight.persist and not is_outdated(state, flight, command.tags):
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
) -> Step[A]:
    """Wait for a flight: the one under way that may answer `command`, or a new one."""
    reads = falls_back = False
    if type(command) is Get:
        reads = kind is not BYPASS_FLIGHT
        falls_back = command.policy.after_failure is SERVE_STALE
    if partition is None:
        partition = state.blank(owner)
    under_way = partition.flights.get(command.key) or ()
    within = command.within
    if not (under_way or within or command.origin):
        state, start = begin(state, owner, partition, (), command, kind, source)
        return state, (start, Join(command.flight_id, falls_back, reads))

    flight = joinable_flight(state, under_way, command, kind)
    if flight is None and kind is not LOAD_FLIGHT:
        until = held_off_until(state, command.origin, command.now)
        if until is not None:
            return state, (held_off(state, owner, partition, command, kind, until),)

    if within:
        if kind is not LOAD_FLIGHT and waits_for_itself(state.flights, owner, command.key, within, flight):
            return state, (Refuse(Refusal.REENTRANT),)
        state = with_wait(state, within, command.flight_id if flight is None else flight.flight_id)

    if flight is None:
        state, start = begin(state, owner, partition, under_way, command, kind, source)
        return state, (start, Join(command.flight_id, falls_back, reads))

    merged = merge_intents(flight, command, kind)
    if merged is not flight:
        state = state.moved(state.partitions, state.flights.insert(flight.flight_id, merged))
    return state, (Join(flight.flight_id, falls_back, reads),)


def held_off(
    state: State[A],
    owner: Owner,
    partition: Partition[A],
    command: Get | Refresh,
    kind: FlightKind,
    until: float,
) -> Reply[A] | Refuse:
    """What a caller is answered while the origin is left alone."""
    assert command.origin is not None
    if isinstance(command, Get) and kind is not BYPASS_FLIGHT:
        entry = partition.entries.get(command.key)
        if entry is not None and takes(command.policy, entry, command.now, state, owner):
            return Reply(owner, command.key, entry.answer)
    return Refuse(Refusal.CIRCUIT_OPEN, command.origin.name, until)


def joinable_flight(
    state: State[Any],
    under_way: tuple[int, ...],
    command: Get | Refresh,
    kind: FlightKind,
) -> Flight | None:
    """Of the flights of a key, the one that may answer `command`, which would begin one of `kind`.

    A fetch for the cache may join one that passes the cache by (and makes it
    store), but a caller who passes the cache by joins only its like: an
    ordinary flight began before it asked, and answers an older question.
    """
    found = None
    for flight_id in under_way:
        flight = state.flights.get(flight_id)
        if flight is None or flight.domain != command.domain or is_outdated(state, flight, command.tags):
            continue
        if flight.kind is kind:
            return flight
        if kind is FETCH_FLIGHT and flight.kind is BYPASS_FLIGHT:
            found = flight
    return found


def is_outdated(state: State[Any], flight: Flight, tags: tuple[str, ...]) -> bool:
    """Whether a tag of `flight`, or one of a caller's `tags`, was marked since it began."""
    if not (flight.tags or tags):
        return False
    return last_mark(state, flight.owner, (*flight.tags, *tags)) > flight.flight_id


def merge_intents(flight: Flight, command: Get | Refresh, kind: FlightKind) -> Flight:
    """`flight` with the wishes of one more caller: store if anyone wants it, for the shortest time that anyone gave."""
    if kind is LOAD_FLIGHT:
        return flight
    persist = flight.persist or kind is FETCH_FLIGHT
    ttl_s, lifespan, tags = flight.ttl_s, flight.lifespan, flight.tags
    if kind is FETCH_FLIGHT:
        ttl_s = shorter(ttl_s, command.ttl_s) if flight.persist else command.ttl_s
        lifespan = stricter(lifespan, command.lifespan) if flight.persist else command.lifespan
        if command.tags != tags:
            tags = (*tags, *(tag for tag in command.tags if tag not in tags))
    store_failures = flight.store_failures or (command.store_failures and kind is FETCH_FLIGHT)
    retry = more_patient(flight.retry, command.retry)
    merged = (persist, ttl_s, store_failures, retry, lifespan, tags)
    if merged == (flight.persist, flight.ttl_s, flight.store_failures, flight.retry, flight.lifespan, flight.tags):
        return flight
    return replace(
        flight,
        persist=persist,
        ttl_s=ttl_s,
        store_failures=store_failures,
        retry=retry,
        lifespan=lifespan,
        tags=tags,
    )


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
        command.lifespan,
        command.tags,
        None if kind is LOAD_FLIGHT else command.origin,  # It asks a store.
    )
    # As `moved` does it, less the call: every miss comes through here.
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
    if command.origin is not None:
        state = with_probe(state, command.origin, flight_id, command.now)
    return state, StartFetch(flight_id, owner, key, source)
