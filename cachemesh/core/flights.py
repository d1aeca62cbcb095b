"""A flight under way: it answers, fails, waits for its next attempt, or is given up.

The fence: a flight may store only while its partition lists it. Whatever makes
its answer old news (invalidation, a cleared scope, a user who left, a flight
that began later and answered first) strikes it off that list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from msgspec.structs import replace

from cachemesh.core.commands import FetchAborted
from cachemesh.core.effects import (
    Abort,
    Admit,
    AskAgain,
    CancelFetch,
    Remember,
    ReportFailure,
    Save,
    Settle,
    StartFetch,
    WaitUntil,
)
from cachemesh.core.lifetimes import CLOCK_SKEW_S, REFRESH_BACKOFF_S, expiry, failure_ttl, verdict
from cachemesh.core.model import (
    BACKGROUND,
    LOAD_FLIGHT,
    A,
    Entry,
    Failed,
    Flight,
    Partition,
    State,
    settled,
)
from cachemesh.core.policies import FRESH
from cachemesh.core.retry import delay_before_next_s
from cachemesh.core.waits import without_wait

if TYPE_CHECKING:
    from cachemesh.core.carriers import Map
    from cachemesh.core.commands import (
        Abandoned,
        DomainClosed,
        FetchFailed,
        FetchSucceeded,
        Loaded,
        RetryDue,
        StoppedWaiting,
    )
    from cachemesh.core.effects import Effect, Effects

Step: TypeAlias = "tuple[State[A], Effects[A]]"


def on_fetch_succeeded(state: State[A], command: FetchSucceeded[A]) -> Step[A]:
    flight = state.flights.get(command.flight_id)
    if flight is None:
        return state, ()

    owner, key = flight.owner, flight.key
    settle = Settle(flight.flight_id, owner, key, command.answer)
    partition = listing_partition(state, flight)
    if partition is None or not flight.persist:
        return landed(state, flight, partition), (settle,)

    entry = Entry(command.answer, command.now, flight.ttl_s, expiry(command.now, flight.ttl_s))
    entries, failures = partition.entries, partition.failures
    is_new = key not in entries
    stored = partition.moved(
        entries.insert(key, entry),
        failures.discard(key) if key in failures else failures,
        without_overtaken(state.flights, partition.flights, flight),
    )
    partitions = state.partitions if stored is partition else state.partitions.insert(owner, stored)
    state = state.moved(partitions, state.flights.discard(flight.flight_id))
    return state, (Save(flight.flight_id, owner, key, entry, is_new), settle)


def on_fetch_failed(state: State[A], command: FetchFailed[A]) -> Step[A]:
    flight = state.flights.get(command.flight_id)
    if flight is None:
        return state, ()

    if command.retryable and flight.attempt < flight.retry.max_attempts:
        delay_s = delay_before_next_s(flight.retry, flight.attempt, command.chance)
        again = replace(flight, attempt=flight.attempt + 1)
        return state.moved(state.partitions, state.flights.insert(flight.flight_id, again)), (
            WaitUntil(
                flight.flight_id,
                flight.owner,
                flight.key,
                flight.attempt,
                command.answer,
                command.now + delay_s,
                delay_s,
            ),
        )

    partition = listing_partition(state, flight)
    stored = partition if flight.persist else None
    own = state.partitions.get(flight.owner)
    entry = None if own is None else own.entries.get(flight.key)
    effects: tuple[Effect[A], ...] = (
        ReportFailure(flight.owner, flight.key, command.answer, notify=stored is not None),
        Settle(flight.flight_id, flight.owner, flight.key, command.answer, None if entry is None else entry.answer),
    )
    if stored is None:
        return landed(state, flight, partition), effects

    before = stored.failures.get(flight.key)
    failed = failure_to_remember(flight, command, entry, before)
    if failed is None:
        return landed(state, flight, partition), effects

    remember = Remember(
        flight.flight_id,
        flight.owner,
        flight.key,
        failed,
        write=entry is None and command.now < failed.serve_until and flight.found_nothing,
        is_new=before is None,
    )
    stored = stored.moved(stored.entries, stored.failures.insert(flight.key, failed), stored.flights)
    return landed(state, flight, stored), (remember, *effects)


def failure_to_remember(
    flight: Flight,
    command: FetchFailed[A],
    entry: Entry[A] | None,
    before: Failed[A] | None,
) -> Failed[A] | None:
    """What is kept of a final failure, beside what was remembered `before`.

    It is answered to others if a caller wanted that and it hides no fresh
    entry; after a background refresh it also holds the next one back.
    """
    now = command.now
    is_served = flight.store_failures and command.cacheable and verdict(entry, now) is not FRESH
    is_backoff = flight.source is BACKGROUND
    if not (is_served or is_backoff):
        return None
    answer, serve_until = command.answer, now + failure_ttl(flight.ttl_s) if is_served else now
    refresh_after = now + REFRESH_BACKOFF_S if is_backoff else now
    if before is not None:
        refresh_after = max(refresh_after, before.refresh_after)
        if not is_served and now < before.serve_until:
            answer, serve_until = before.answer, before.serve_until
    return Failed(answer, now, serve_until, refresh_after)


def on_retry_due(state: State[A], command: RetryDue) -> Step[A]:
    flight = state.flights.get(command.flight_id)
    if flight is None or flight.kind is LOAD_FLIGHT:
        return state, ()
    return state, (StartFetch(flight.flight_id, flight.owner, flight.key, flight.source, flight.attempt),)


def on_fetch_aborted(state: State[A], command: FetchAborted) -> Step[A]:
    flight = state.flights.get(command.flight_id)
    if flight is None:
        return state, ()
    return landed(state, flight, listing_partition(state, flight)), (Abort(flight.flight_id, flight.key),)


def on_abandoned(state: State[A], command: Abandoned) -> Step[A]:
    flight = state.flights.get(command.flight_id)
    if flight is None or flight.is_background:
        return state, ()
    return landed(state, flight, listing_partition(state, flight)), (CancelFetch(flight.flight_id),)


def on_stopped_waiting(state: State[A], command: StoppedWaiting) -> Step[A]:
    return without_wait(state, command.within, command.flight_id), ()


def on_domain_closed(state: State[A], command: DomainClosed) -> Step[A]:
    gone = sorted(flight_id for flight_id, flight in state.flights.items() if flight.domain == command.domain)
    aborted: list[Effect[A]] = []
    for flight_id in gone:
        state, effects = on_fetch_aborted(state, FetchAborted(flight_id))
        aborted.extend(effects)
    return state, tuple(aborted)


def on_loaded(state: State[A], command: Loaded[A]) -> Step[A]:
    """What the store has is taken in, unless the key has been invalidated or answered since."""
    flight = state.flights.get(command.flight_id)
    if flight is None:
        return state, ()

    partition = listing_partition(state, flight)
    ask_again = AskAgain(flight.flight_id)
    key = flight.key
    if partition is None or key in partition.entries:
        return landed(state, flight, partition), (ask_again,)

    if command.entry is not None:
        entry = made_in_time(command.entry, command.now)
        partition = partition.moved(partition.entries.insert(key, entry), partition.failures, partition.flights)
        return landed(state, flight, partition), (Admit(flight.owner, key), ask_again)

    failed = command.failed
    if failed is not None and key not in partition.failures:
        remember = Remember(flight.flight_id, flight.owner, key, failed, write=False, is_new=True)
        partition = partition.moved(partition.entries, partition.failures.insert(key, failed), partition.flights)
        return landed(state, flight, partition), (remember, ask_again)

    return landed(state, flight, partition), (ask_again,)


def made_in_time(entry: Entry[A], now: float) -> Entry[A]:
    """`entry`, already stale where it claims to have been made in the future: its clock cannot be trusted."""
    if entry.created_at <= now + CLOCK_SKEW_S:
        return entry
    return replace(entry, created_at=now, expires_at=now)


def listing_partition(state: State[A], flight: Flight) -> Partition[A] | None:
    """The partition in which `flight` may still store; None behind the fence."""
    partition = state.partitions.get(flight.owner)
    listed = None if partition is None else partition.flights.get(flight.key)
    return partition if listed and flight.flight_id in listed else None


def landed(state: State[A], flight: Flight, partition: Partition[A] | None) -> State[A]:
    """`state` without `flight`, and with `partition`, which listed it, where there is one."""
    flights = state.flights.discard(flight.flight_id)
    if partition is None:
        return state.moved(state.partitions, flights)
    listed = tuple(each for each in partition.flights.get(flight.key) or () if each != flight.flight_id)
    under_way = partition.flights.insert(flight.key, listed) if listed else partition.flights.discard(flight.key)
    partition = partition.moved(partition.entries, partition.failures, under_way)
    return state.moved(settled(state.partitions, flight.owner, partition), flights)


def without_overtaken(
    flights: Map[int, Flight],
    under_way: Map[str, tuple[int, ...]],
    flight: Flight,
) -> Map[str, tuple[int, ...]]:
    """The list of flights after `flight` has stored.

    Struck off are fetches that began before it, and every load: what the store
    held is older than what was just fetched.
    """
    listed = under_way.get(flight.key) or ()
    if listed[-1] == flight.flight_id:
        return under_way.discard(flight.key)
    later = tuple(each for each in listed if each > flight.flight_id and not is_load(flights, each))
    return under_way.insert(flight.key, later) if later else under_way.discard(flight.key)


def is_load(flights: Map[int, Flight], flight_id: int) -> bool:
    flight = flights.get(flight_id)
    return flight is not None and flight.kind is LOAD_FLIGHT
