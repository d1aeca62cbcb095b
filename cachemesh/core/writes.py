"""Somebody writes by hand. A write is a fence: no fetch that began before it stores its answer after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from msgspec.structs import replace

from cachemesh.core.effects import Refusal, Refuse, Save
from cachemesh.core.lifetimes import made, renewed, verdict
from cachemesh.core.model import A, Entry, Partition, State
from cachemesh.core.policies import MISSING
from cachemesh.core.scopes import Owner, owner_of

if TYPE_CHECKING:
    from cachemesh.core.commands import Put, Touch, Update
    from cachemesh.core.effects import Effects

Step: TypeAlias = "tuple[State[A], Effects[A]]"


def on_put(state: State[A], command: Put[A]) -> Step[A]:
    owner = owner_of(command.scope, state.active_user, command.viewer)
    if owner is None:
        return state, (Refuse(Refusal.NO_ACTIVE_USER),)
    entry = made(
        command.answer,
        command.now,
        command.ttl_s,
        command.stamp,
        lifespan=command.lifespan,
        tags=command.tags,
        chance=command.chance,
        schema=command.schema,
    )
    return written(state, owner, command.key, entry, command.stamp, is_news=True)


def on_update(state: State[A], command: Update[A]) -> Step[A]:
    owner = owner_of(command.scope, state.active_user, command.viewer)
    if owner is None:
        return state, (Refuse(Refusal.NO_ACTIVE_USER),)
    entry = standing_entry(state, owner, command.key, command.now)
    if entry is None:
        return state, (Refuse(Refusal.MISS),)
    if entry.answer is not command.expected:
        return state, (Refuse(Refusal.CHANGED),)
    terms = entry.terms
    if terms is not None:  # The origin knows the new value by no validator.
        terms = replace(terms, validator=None)
    entry = Entry(command.answer, entry.created_at, entry.ttl_s, entry.expires_at, terms)
    return written(state, owner, command.key, entry, command.stamp, is_news=True)


def on_touch(state: State[A], command: Touch) -> Step[A]:
    owner = owner_of(command.scope, state.active_user, command.viewer)
    if owner is None:
        return state, (Refuse(Refusal.NO_ACTIVE_USER),)
    entry = standing_entry(state, owner, command.key, command.now)
    if entry is None:
        return state, (Refuse(Refusal.MISS),)
    entry = renewed(entry, command.now, command.ttl_s, command.lifespan, command.stamp, command.chance)
    return written(state, owner, command.key, entry, command.stamp, is_news=False)


def standing_entry(state: State[A], owner: Owner, key: str, now: float) -> Entry[A] | None:
    """What is cached, however old; None where there is nothing, or its tag was invalidated."""
    partition = state.partitions.get(owner)
    entry = None if partition is None else partition.entries.get(key)
    return None if verdict(entry, now, state, owner) is MISSING else entry


def written(state: State[A], owner: Owner, key: str, entry: Entry[A], stamp: int, *, is_news: bool) -> Step[A]:
    """`state` with `entry`, and with no flight that may still store under its key."""
    before = state.partitions.get(owner)
    partition: Partition[A] = state.blank(owner) if before is None else before
    is_new = partition.entries.get(key) is None
    partition = partition.moved(
        partition.entries.insert(key, entry),
        partition.failures.discard(key) if key in partition.failures else partition.failures,
        partition.flights.discard(key) if key in partition.flights else partition.flights,
    )
    if partition is not before:
        state = state.moved(state.partitions.insert(owner, partition), state.flights)
    return state, (Save(stamp, owner, key, entry, is_new, is_news),)
