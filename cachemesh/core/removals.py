"""Things go: by name, by scope, with a user, or because the memory is full. Every removal is a fence as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from msgspec.structs import replace

from cachemesh.core.breakers import CLOSED, with_breaker
from cachemesh.core.effects import (
    ClearStore,
    Drop,
    DropPartition,
    DropPrefix,
    LogBreaker,
    LogClear,
    LogEvict,
    LogInvalidate,
    LogPrefix,
    LogScopeCleared,
    LogTag,
    TagMarked,
)
from cachemesh.core.model import NO_MARK, A, Partition, State, settled
from cachemesh.core.scopes import CacheScope, Owner, owner_of, visible_owners
from cachemesh.core.tags import MOST_MARKS, later, marked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cachemesh.core.commands import (
        Clear,
        ClearScope,
        EndSession,
        Evict,
        Forget,
        Invalidate,
        InvalidatePrefix,
        MarkTag,
        ResetBreaker,
        SetActiveUser,
    )
    from cachemesh.core.effects import Effect, Effects

Step: TypeAlias = "tuple[State[A], Effects[A]]"


def on_invalidate(state: State[A], command: Invalidate) -> Step[A]:
    key = command.key
    owners = visible_owners(command.scope, state.active_user, command.viewer)
    drops: list[Effect[A]] = []
    for owner in owners:
        partition = state.partitions.get(owner)
        existed = partition is not None and key in partition.entries
        drops.append(Drop(owner, key, existed))
        if partition is not None:
            state = state.moved(settled(state.partitions, owner, without_key(partition, key)), state.flights)
    log = LogInvalidate(key, owners[0]) if owners else None
    return state, (*drops, *(() if log is None else (log,)))


def on_invalidate_prefix(state: State[A], command: InvalidatePrefix) -> Step[A]:
    prefix = command.prefix
    owners = visible_owners(command.scope, state.active_user, command.viewer)
    drops: list[Effect[A]] = []
    for owner in owners:
        partition = state.partitions.get(owner)
        keys: frozenset[str] = frozenset()
        if partition is not None:
            kept = (partition.entries, partition.failures, partition.flights)
            keys = frozenset(key for each in kept for key in each if key.startswith(prefix))
            for key in keys:
                partition = without_key(partition, key)
            state = state.moved(settled(state.partitions, owner, partition), state.flights)
        drops.append(DropPrefix(owner, prefix, keys))
    log = (LogPrefix(prefix, owners[0]),) if owners else ()
    return state, (*drops, *log)


def on_mark_tag(state: State[A], command: MarkTag) -> Step[A]:
    owners: tuple[Owner | None, ...] = (command.owner,)
    if command.scope is not None or command.viewer is not None:
        owners = visible_owners(command.scope, state.active_user, command.viewer)
    if not owners:
        return state, ()
    marks, floor = state.marks, state.marks_floor
    for owner in owners:
        place = (owner, command.tag)
        before = marks.get(place) or NO_MARK
        mark = marked(before, command.stamp, command.now, is_soft=command.is_soft)
        if mark != before:
            marks = marks.insert(place, mark)
    if len(marks) > MOST_MARKS:
        for mark in marks.values():
            floor = later(floor, mark)
        marks = state.no_marks()
    at = None if command.is_heard else command.now
    orders = tuple(TagMarked(owner, command.tag, command.is_soft, at) for owner in owners)
    if marks is not state.marks or floor is not state.marks_floor:
        state = replace(state, marks=marks, marks_floor=floor)
    if command.is_heard:
        return state, orders
    return state, (*orders, LogTag(command.tag, command.is_soft, owners[0]))


def on_reset_breaker(state: State[A], command: ResetBreaker) -> Step[A]:
    if command.origin not in state.breakers:
        return state, ()
    return with_breaker(state, command.origin, CLOSED), (LogBreaker(command.origin, None),)


def on_clear(state: State[A], command: Clear) -> Step[A]:
    if command.viewer is None:
        state, drops = drop(state, in_order(state.partitions.keys()), ends=False)
        return state, (*drops, ClearStore(), LogClear())
    state, drops = drop(state, own_partitions(command.viewer), ends=False)
    return state, (*drops, LogClear())


def on_set_active_user(state: State[A], command: SetActiveUser) -> Step[A]:
    before = state.active_user
    if before == command.user_id:
        return state, ()
    effects: Effects[A] = ()
    if before is not None:
        state, effects = drop_and_log(state, [(CacheScope.USER, before)], "set_active_user", ends=True)
    return replace(state, active_user=command.user_id), effects


def on_end_session(state: State[A], command: EndSession) -> Step[A]:
    user = state.active_user if command.viewer is None else command.viewer
    session = owner_of(CacheScope.SESSION, user, command.viewer)
    assert session is not None
    owners = [session] if user is None else [session, (CacheScope.USER, user)]
    state, effects = drop_and_log(state, owners, "end_session", ends=True)
    if command.viewer is None and user is not None:
        state = replace(state, active_user=None)
    return state, effects


def on_clear_scope(state: State[A], command: ClearScope) -> Step[A]:
    scope, viewer = command.scope, command.viewer
    if viewer is not None and scope is not CacheScope.GLOBAL:
        owners: list[Owner] = [(scope, viewer)]
    else:
        owners = [owner for owner in state.partitions.keys() if owner[0] is scope]  # noqa: SIM118 (a Map, not a dict)
        own = owner_of(scope, state.active_user, None)
        if own is not None and own not in owners:
            owners.append(own)
    return drop_and_log(state, in_order(owners), f"clear_scope:{scope}", ends=False)


def on_evict(state: State[A], command: Evict) -> Step[A]:
    partition = state.partitions.get(command.owner)
    if partition is None or partition.entries.get(command.key) is None:
        return state, ()
    entries = partition.entries.discard(command.key)
    if entries is not partition.entries or len(entries) == 0:
        left = partition.moved(entries, partition.failures, partition.flights)
        state = state.moved(settled(state.partitions, command.owner, left), state.flights)
    return state, (LogEvict(command.owner, command.key),)


def on_forget(state: State[A], command: Forget) -> Step[A]:
    partition = state.partitions.get(command.owner)
    if partition is None or command.key not in partition.failures:
        return state, ()
    partition = partition.moved(partition.entries, partition.failures.discard(command.key), partition.flights)
    return state.moved(settled(state.partitions, command.owner, partition), state.flights), ()


def in_order(owners: Iterable[Owner]) -> list[Owner]:
    """The same order for the same owners: a persistent map has one of its own each time."""
    return sorted(owners, key=lambda owner: (owner[0], owner[1] is not None, owner[1] or ""))


def own_partitions(viewer: str) -> list[Owner]:
    """What belongs to the user of a view."""
    return [(CacheScope.USER, viewer), (CacheScope.SESSION, viewer)]


def without_key(partition: Partition[A], key: str) -> Partition[A]:
    """`partition` with nothing under `key`; flights of `key` may no longer store."""
    return partition.moved(
        partition.entries.discard(key) if key in partition.entries else partition.entries,
        partition.failures.discard(key) if key in partition.failures else partition.failures,
        partition.flights.discard(key) if key in partition.flights else partition.flights,
    )


def drop_and_log(state: State[A], owners: list[Owner], reason: str, *, ends: bool) -> Step[A]:
    state, drops = drop(state, owners, ends=ends)
    keys = frozenset((each.owner, key) for each in drops for key in each.keys)
    return state, (*drops, *((LogScopeCleared(reason, keys),) if keys else ()))


def drop(state: State[A], owners: Iterable[Owner], *, ends: bool) -> tuple[State[A], list[DropPartition]]:
    """Drop whole partitions. The store is told even where the memory holds nothing: it may."""
    partitions = state.partitions
    drops = []
    for owner in owners:
        partition = partitions.get(owner)
        keys = frozenset() if partition is None else frozenset((*partition.entries, *partition.failures))
        drops.append(DropPartition(owner, keys, ends))
        if partition is not None:
            partitions = partitions.discard(owner)
    return state.moved(partitions, state.flights), drops
