"""What comes from outside is taken in: out of a snapshot, or out of the store before anybody asked for it.

It fills gaps. What is good in memory stays, whatever a snapshot says of its own
age: a snapshot is a claim, and an update leaves the age of a value as it is.
Only what is stale gives way, and only to what is newer for certain. Nobody is
told of it, and the store does not get it. A fetch that is under way may still
store over it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from msgspec.structs import replace

from cachemesh.core.effects import Admit, Remember, Skip, Why
from cachemesh.core.lifetimes import CLOCK_SKEW_S, over_from, verdict
from cachemesh.core.model import A, Entry, Failed, Partition, State, settled
from cachemesh.core.policies import AGEING, FRESH, MISSING
from cachemesh.core.tags import was_marked

if TYPE_CHECKING:
    from cachemesh.core.commands import Hydrate
    from cachemesh.core.effects import Effects

Step: TypeAlias = "tuple[State[A], Effects[A]]"


def on_hydrate(state: State[A], command: Hydrate[A]) -> Step[A]:
    owner, key, found = command.owner, command.key, command.found
    partition = state.partitions.get(owner)
    if isinstance(found, Failed):
        why = against_failure(state, partition, command, found)
        if why is not None:
            return state, (Skip(why),)
        return remembered(state, partition or state.blank(owner), command, found)
    why = against_entry(state, partition, command, found)
    if why is not None:
        return state, (Skip(why),)
    partition = partition or state.blank(owner)
    is_new = key not in partition.entries
    terms = found.terms
    entry = found if terms is None else replace(found, terms=replace(terms, stamp=command.stamp))
    failed = partition.failures.get(key)
    forgets = failed is not None and failed.failed_at < entry.created_at
    partition = partition.moved(
        partition.entries.insert(key, entry),
        partition.failures.discard(key) if forgets else partition.failures,
        partition.flights,
    )
    return state.moved(settled(state.partitions, owner, partition), state.flights), (Admit(owner, key, is_new),)


def remembered(state: State[A], partition: Partition[A], command: Hydrate[A], found: Failed[A]) -> Step[A]:
    owner, key = command.owner, command.key
    before = partition.failures.get(key)
    failed = found
    if before is not None and before.refresh_after > found.refresh_after:
        failed = replace(found, refresh_after=before.refresh_after)
    partition = partition.moved(partition.entries, partition.failures.insert(key, failed), partition.flights)
    remember = Remember(command.stamp, owner, key, failed, write=False, is_new=before is None)
    return state.moved(settled(state.partitions, owner, partition), state.flights), (remember,)


def against_entry(state: State[A], partition: Partition[A] | None, command: Hydrate[A], entry: Entry[A]) -> Why | None:
    """Why `entry` is not taken in; None where it is."""
    owner, key, now = command.owner, command.key, command.now
    if entry.created_at > now + CLOCK_SKEW_S:
        return Why.FUTURE
    if now >= over_from(entry):
        return Why.EXPIRED
    if was_marked(state, owner, entry, command.stamp):
        return Why.INVALIDATED
    if partition is None:
        return None
    there = partition.entries.get(key)
    freshness = verdict(there, now, state, owner)
    if there is not None and freshness is not MISSING and (freshness in GOOD or not is_after(entry, there, now)):
        return Why.NEWER
    failed = partition.failures.get(key)
    if failed is not None and now < failed.serve_until and not failed.failed_at < entry.created_at <= now:
        return Why.NEWER
    return None


def against_failure(
    state: State[A], partition: Partition[A] | None, command: Hydrate[A], failed: Failed[A]
) -> Why | None:
    """The same for a failure: it hides no good entry, and none that came after it."""
    owner, key, now = command.owner, command.key, command.now
    if failed.failed_at > now + CLOCK_SKEW_S:
        return Why.FUTURE
    if now >= failed.serve_until:
        return Why.EXPIRED
    if partition is None:
        return None
    there = partition.entries.get(key)
    freshness = verdict(there, now, state, owner)
    if there is not None and freshness is not MISSING and (freshness in GOOD or failed.failed_at < there.created_at):
        return Why.NEWER
    before = partition.failures.get(key)
    if before is not None and not before.failed_at < failed.failed_at <= now:
        return Why.NEWER
    return None


def is_after(entry: Entry[A], there: Entry[A], now: float) -> bool:
    """Whether `entry` is newer for certain: what a skewed clock has dated ahead is not."""
    return there.created_at < entry.created_at <= now


GOOD = frozenset({FRESH, AGEING})
