"""A flight under way: it answers, fails, waits for its next attempt, or is given up.

The fence: a flight may store only while its partition lists it. Whatever makes
its answer old news (invalidation, a cleared scope, a user who left, a flight
that began later and answered first) strikes it off that list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from msgspec.structs import replace

from cachemesh.core.breakers import after_failure, after_success, is_left_alone, without_probe
from cachemesh.core.commands import FetchAborted
from cachemesh.core.effects import (
    NO_EFFECTS,
    Abort,
    Admit,
    AskAgain,
    CancelFetch,
    Persist,
    Remember,
    Reply,
    ReportFailure,
    Save,
    Settle,
    StartFetch,
    WaitUntil,
)
from cachemesh.core.lifetimes import (
    CLOCK_SKEW_S,
    REFRESH_BACKOFF_S,
    expiry,
    failure_ttl,
    made,
    rescues,
    stands_in,
    verdict,
)
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
from cachemesh.core.policies import AGEING, FRESH
from cachemesh.core.retry import delay_before_next_s
from cachemesh.core.scopes import GLOBAL_OWNER
from cachemesh.core.tags import last_mark, was_marked
from cachemesh.core.waits import without_wait

if TYPE_CHECKING:
    from cachemesh.core.carriers import Map
    from cachemesh.core.commands import (
        Abandoned,
        Directives,
        DomainClosed,
        FetchFailed,
        FetchSucceeded,
        FoundElsewhere,
        GaveUp,
        Loaded,
        Overdue,
        RetryDue,
        StoppedWaiting,
        WaitedLong,
    )
    from cachemesh.core.effects import Effect, Effects
    from cachemesh.core.policies import Freshness

Step: TypeAlias = "tuple[State[A], Effects[A]]"


def on_fetch_succeeded(state: State[A], command: FetchSucceeded[A]) -> Step[A]:
    flight = state.flights.get(command.flight_id)
    if flight is None:
        return state, ()

    directives = command.directives
    log: Effects[A] = NO_EFFECTS
    if flight.origin is not None:
        state, log = after_success(state, flight)
    flight_id, owner, key, answer = command.flight_id, flight.owner, flight.key, command.answer
    partition = listing_partition(state, flight)
    is_private = directives is not None and directives.private and owner == GLOBAL_OWNER
    if partition is None or is_private or not (flight.persist and (directives is None or directives.stores)):
        again_after = 0
        if is_private:
            again_after = flight_id
        elif flight.tags or directives is not None:
            again_after = asks_again_after(state, flight, tags_of(flight, directives))
        settle = Settle(flight_id, owner, key, answer, None, None, again_after)
        if partition is not None and flight.persist and key in partition.failures:
            partition = partition.moved(partition.entries, partition.failures.discard(key), partition.flights)
        return landed(state, flight, partition), (settle, *log)

    entries, failures = partition.entries, partition.failures
    is_news, again_after = True, 0
    if flight.lifespan is None and not flight.tags and directives is None and command.schema is None:
        entry = Entry(answer, command.now, flight.ttl_s, expiry(command.now, flight.ttl_s))
    else:
        entry = entry_of(flight, command, entries.get(key))
        is_news = directives is None or not directives.renews
        again_after = 0 if entry.terms is None else asks_again_after(state, flight, entry.terms.tags)
    settle = Settle(flight_id, owner, key, answer, None, None, again_after)
    failures = failures.discard(key) if key in failures else failures
    left = without_overtaken(state.flights, partition.flights, flight)
    if flight.spans_gap:
        partition = partition.moved(entries.discard(key) if key in entries else entries, failures, left)
        state = state.moved(settled(state.partitions, owner, partition), state.flights.discard(flight_id))
        return state, (Persist(flight_id, owner, key, entry), settle, *log)
    is_new = entries.get(key) is None
    stored = partition.moved(entries.insert(key, entry), failures, left)
    partitions = state.partitions if stored is partition else state.partitions.insert(owner, stored)
    state = state.moved(partitions, state.flights.discard(flight_id))
    return state, (Save(flight_id, owner, key, entry, is_new, is_news), settle, *log)


def tags_of(flight: Flight, directives: Directives | None) -> tuple[str, ...]:
    """The tags that its callers gave to the answer of `flight`, and those that it brought along."""
    if directives is None:
        return flight.tags
    return (*flight.tags, *(tag for tag in directives.tags if tag not in flight.tags))


def asks_again_after(state: State[A], flight: Flight, tags: tuple[str, ...]) -> int:
    """Who of those that wait asks again: all who joined, where one of `tags` was marked on the way. 0 is nobody.

    Somebody may have joined between two orders about the same tag, of which only the last is known.
    """
    return flight.flight_id if last_mark(state, flight.owner, tags) > flight.flight_id else 0


def entry_of(flight: Flight, command: FetchSucceeded[A], before: Entry[A] | None) -> Entry[A]:
    """The entry of an answer with a lifespan, with tags, or with directives of its own.

    One that only renews what was there `before` leaves its tags and its validator.
    """
    ttl_s, lifespan, validator = flight.ttl_s, flight.lifespan, None
    directives = command.directives
    tags = tags_of(flight, directives)
    if directives is not None:
        if directives.sets_ttl:
            ttl_s, lifespan = directives.ttl_s, directives.lifespan or lifespan
        validator = directives.validator
        if directives.renews and before is not None and before.terms is not None:
            tags = (*tags, *(tag for tag in before.terms.tags if tag not in tags))
            validator = before.terms.validator if validator is None else validator
    return made(
        command.answer,
        command.now,
        ttl_s,
        flight.flight_id,
        lifespan=lifespan,
        tags=tags,
        validator=validator,
        chance=command.chance,
        schema=command.schema,
    )


def on_fetch_failed(state: State[A], command: FetchFailed[A]) -> Step[A]:
    flight = state.flights.get(command.flight_id)
    if flight is None:
        return state, ()

    if command.retryable and flight.attempt < flight.retry.max_attempts and not is_left_alone(state, flight):
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

    log: Effects[A] = ()
    if flight.origin is not None:
        state, log = after_failure(state, flight, command.now) if command.counts else (without_probe(state, flight), ())
    partition = listing_partition(state, flight)
    stored = partition if flight.persist else None
    effects: Effects[A] = (
        ReportFailure(flight.owner, flight.key, command.answer, notify=stored is not None),
        settled_by_failure(state, flight, command.answer, command.now),
        *log,
    )
    if stored is None:
        return landed(state, flight, partition), effects

    entry, before = stored.entries.get(flight.key), stored.failures.get(flight.key)
    rescued = rescues(entry, command.now, state, flight.owner)
    failed = failure_to_remember(flight, command, before, verdict(entry, command.now, state, flight.owner), rescued)
    if failed is None:
        return landed(state, flight, partition), effects

    flight_id, owner, key = command.flight_id, flight.owner, flight.key
    write = entry is None and command.now < failed.serve_until and flight.found_nothing
    if flight.spans_gap:
        persist: Effects[A] = (Persist(flight_id, owner, key, failed),) if write else ()
        return landed(state, flight, partition), (*persist, *effects)
    remember = Remember(flight_id, owner, key, failed, write, is_new=before is None)
    stored = stored.moved(stored.entries, stored.failures.insert(key, failed), stored.flights)
    return landed(state, flight, stored), (remember, *effects)


def settled_by_failure(state: State[A], flight: Flight, answer: A, now: float) -> Settle[A]:
    """Those who wait get `answer`, or what may stand in for it."""
    old = stand_ins(state, flight, now)
    return Settle(flight.flight_id, flight.owner, flight.key, answer, old[0], old[1])


def stand_ins(state: State[A], flight: Flight, now: float) -> tuple[A | None, A | None]:
    """The old value for those who fall back, and the one for all who read the cache."""
    own = state.partitions.get(flight.owner)
    entry = None if own is None else own.entries.get(flight.key)
    if entry is None:
        return None, None
    return (
        entry.answer if stands_in(entry, now, state, flight.owner) else None,
        entry.answer if rescues(entry, now, state, flight.owner) else None,
    )


def failure_to_remember(
    flight: Flight,
    command: FetchFailed[A],
    before: Failed[A] | None,
    freshness: Freshness,
    rescued: bool,
) -> Failed[A] | None:
    """What is kept of a final failure, beside what was remembered `before`.

    It is answered to others if a caller wanted that and it hides no fresh
    entry; after a background refresh, or where an old entry has stood in for
    it, it also holds the next fetch back.
    """
    now, lifespan = command.now, flight.lifespan
    is_served = flight.store_failures and command.cacheable and freshness is not FRESH and freshness is not AGEING
    is_backoff = flight.source is BACKGROUND or rescued
    if not (is_served or is_backoff):
        return None
    answer, schema, serve_until = command.answer, command.schema, now
    if is_served:
        given_s = command.failure_ttl_s
        if given_s is None and lifespan is not None:
            given_s = lifespan.failure_ttl_s
        serve_until += failure_ttl(flight.ttl_s) if given_s is None else given_s
    backoff_s = REFRESH_BACKOFF_S if lifespan is None else lifespan.refresh_backoff_s
    refresh_after = now + backoff_s if is_backoff else now
    if before is not None:
        refresh_after = max(refresh_after, before.refresh_after)
        if not is_served and now < before.serve_until:
            answer, schema, serve_until = before.answer, before.schema, before.serve_until
    return Failed(answer, now, serve_until, refresh_after, schema)


def on_retry_due(state: State[A], command: RetryDue) -> Step[A]:
    flight = state.flights.get(command.flight_id)
    if flight is None or flight.kind is LOAD_FLIGHT:
        return state, ()
    return state, (StartFetch(flight.flight_id, flight.owner, flight.key, flight.source, flight.attempt),)


def on_fetch_aborted(state: State[A], command: FetchAborted) -> Step[A]:
    flight = state.flights.get(command.flight_id)
    if flight is None:
        return state, ()
    state = without_probe(state, flight)
    return landed(state, flight, listing_partition(state, flight)), (Abort(flight.flight_id, flight.key),)


def on_abandoned(state: State[A], command: Abandoned) -> Step[A]:
    flight = state.flights.get(command.flight_id)
    if flight is None or flight.is_background:
        return state, ()
    state = without_probe(state, flight)
    return landed(state, flight, listing_partition(state, flight)), (CancelFetch(flight.flight_id),)


def on_waited_long(state: State[A], command: WaitedLong) -> Step[A]:
    """An old value, if there is one, is answered now; the fetch goes on for the cache."""
    flight = state.flights.get(command.flight_id)
    own = None if flight is None else state.partitions.get(flight.owner)
    entry = None if flight is None or own is None else own.entries.get(flight.key)
    if flight is None or entry is None or not stands_in(entry, command.now, state, flight.owner):
        return state, ()
    if not flight.is_detached and flight.persist and listing_partition(state, flight) is not None:
        flights = state.flights.insert(flight.flight_id, replace(flight, is_detached=True))
        state = state.moved(state.partitions, flights)
    return state, (Reply(flight.owner, flight.key, entry.answer),)


def on_gave_up(state: State[A], command: GaveUp) -> Step[A]:
    """The flight still answers those who go on waiting, but nobody joins it any more, and it is stored nowhere."""
    flight = state.flights.get(command.flight_id)
    if flight is None:
        return state, ()
    old = stand_ins(state, flight, command.now)
    answer = old[0] if command.falls_back else old[1] if command.reads else None
    log: Effects[A] = ()
    if flight.origin is not None:  # Its origin has been told once.
        state, log = after_failure(state, flight, command.now) if command.counts else (without_probe(state, flight), ())
        flights = state.flights.insert(flight.flight_id, replace(flight, origin=None))
        state = state.moved(state.partitions, flights)
    partition = listing_partition(state, flight)
    if partition is not None:
        state = state.moved(settled(state.partitions, flight.owner, unlisted(partition, flight)), state.flights)
    return state, log if answer is None else (Reply(flight.owner, flight.key, answer), *log)


def on_overdue(state: State[A], command: Overdue[A]) -> Step[A]:
    """The key is free, and those who waited are told; whatever the fetch still brings is stored nowhere."""
    flight = state.flights.get(command.flight_id)
    if flight is None:
        return state, ()
    partition = listing_partition(state, flight)
    effects: Effects[A] = (
        ReportFailure(flight.owner, flight.key, command.answer, notify=flight.persist and partition is not None),
        settled_by_failure(state, flight, command.answer, command.now),
        CancelFetch(flight.flight_id),
    )
    state, log = after_failure(state, flight, command.now)
    return landed(state, flight, partition), (*effects, *log)


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
    key, owner, entry = flight.key, flight.owner, command.entry
    ask_again = AskAgain(flight.flight_id, is_struck=partition is None)
    if partition is None or partition.entries.get(key) is not None:
        return landed(state, flight, partition), (ask_again,)

    if entry is not None and (entry.terms is None or not was_marked(state, owner, entry, flight.flight_id)):
        entry = stamped(made_in_time(entry, command.now), flight.flight_id)
        stored = partition.moved(
            partition.entries.insert(key, entry), partition.failures, without(partition.flights, flight)
        )
        partitions = state.partitions if stored is partition else state.partitions.insert(owner, stored)
        return state.moved(partitions, state.flights.discard(flight.flight_id)), (Admit(owner, key), ask_again)

    failed = command.failed
    if failed is not None and key not in partition.failures:
        remember = Remember(flight.flight_id, flight.owner, key, failed, write=False, is_new=True)
        partition = partition.moved(partition.entries, partition.failures.insert(key, failed), partition.flights)
        return landed(state, flight, partition), (remember, ask_again)

    return landed(state, flight, partition), (ask_again,)


def on_found_elsewhere(state: State[A], command: FoundElsewhere[A]) -> Step[A]:
    """It is this flight's answer: taken in as it is, with its own age, unless the flight may store nothing any more."""
    flight = state.flights.get(command.flight_id)
    if flight is None:
        return state, ()
    if flight.origin is not None:
        state = without_probe(state, flight)
    flight_id, owner, key = command.flight_id, flight.owner, flight.key
    partition = listing_partition(state, flight)
    entry = made_in_time(command.entry, command.now)
    settle = Settle(flight_id, owner, key, entry.answer)
    is_kept = flight.persist and not flight.spans_gap
    if partition is None or not is_kept or was_marked(state, owner, entry, flight_id):
        return landed(state, flight, partition), (settle,)
    entry = stamped(entry, flight_id)
    is_new = partition.entries.get(key) is None
    stored = partition.moved(
        partition.entries.insert(key, entry),
        partition.failures.discard(key) if key in partition.failures else partition.failures,
        without_overtaken(state.flights, partition.flights, flight),
    )
    partitions = state.partitions if stored is partition else state.partitions.insert(owner, stored)
    return state.moved(partitions, state.flights.discard(flight_id)), (
        Save(flight_id, owner, key, entry, is_new, is_stored=True),
        settle,
    )


def made_in_time(entry: Entry[A], now: float) -> Entry[A]:
    """`entry`, already stale where it claims to have been made in the future: its clock cannot be trusted."""
    if entry.created_at <= now + CLOCK_SKEW_S:
        return entry
    return replace(entry, created_at=now, expires_at=now)


def stamped(entry: Entry[A], load_id: int) -> Entry[A]:
    """`entry`, as new as its load where its tags are concerned: older orders were about older values."""
    terms = entry.terms
    if terms is None or not terms.tags:
        return entry
    return replace(entry, terms=replace(terms, stamp=load_id))


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
    return state.moved(settled(state.partitions, flight.owner, unlisted(partition, flight)), flights)


def unlisted(partition: Partition[A], flight: Flight) -> Partition[A]:
    """`partition`, which listed `flight`, without it: it may no longer store."""
    return partition.moved(partition.entries, partition.failures, without(partition.flights, flight))


def without(under_way: Map[str, tuple[int, ...]], flight: Flight) -> Map[str, tuple[int, ...]]:
    """The list of flights that may still store, less this one, which is in it."""
    key, flight_id = flight.key, flight.flight_id
    listed = under_way.get(key)
    assert listed is not None
    if listed == (flight_id,):
        return under_way.discard(key)
    return under_way.insert(key, tuple(each for each in listed if each != flight_id))


def without_overtaken(
    flights: Map[int, Flight],
    under_way: Map[str, tuple[int, ...]],
    flight: Flight,
) -> Map[str, tuple[int, ...]]:
    """The list of flights after `flight` has stored.

    Struck off are fetches that began before it, and every load: what the store
    held is older than what was just fetched.
    """
    key = flight.key
    listed = under_way.get(key) or ()
    if listed[-1] == flight.flight_id:
        return under_way.discard(key)
    later = tuple(each for each in listed if each > flight.flight_id and not is_load(flights, each))
    return under_way.insert(key, later) if later else under_way.discard(key)


def is_load(flights: Map[int, Flight], flight_id: int) -> bool:
    flight = flights.get(flight_id)
    return flight is not None and flight.kind is LOAD_FLIGHT
