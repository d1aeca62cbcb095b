"""What other processes did, as far as it concerns this memory. Nothing here is an order to the store: it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from cachemesh.core.effects import Overtaken
from cachemesh.core.model import A, State, settled
from cachemesh.core.removals import in_order, without_key

if TYPE_CHECKING:
    from cachemesh.core.commands import Heard
    from cachemesh.core.effects import Effects

Step: TypeAlias = "tuple[State[A], Effects[A]]"


def on_heard(state: State[A], command: Heard) -> Step[A]:
    """What was changed elsewhere is forgotten here, and what is being fetched or loaded of it is stored nowhere."""
    owner, key = command.owner, command.key
    if owner is None:
        owners = in_order(state.partitions.keys())
        gone: Effects[A] = ()
        for each in owners:
            state, more = on_heard(state, type(command)(each))
            gone += more
        return state, gone

    partition = state.partitions.get(owner)
    if key is not None:
        if partition is None:
            return state, ()
        state = state.moved(settled(state.partitions, owner, without_key(partition, key)), state.flights)
        return state, (Overtaken(owner, frozenset({key}), is_whole=False),)

    if partition is None:
        return state, (Overtaken(owner, frozenset(), is_whole=True),)
    keys = frozenset((*partition.entries, *partition.failures))
    state = state.moved(state.partitions.discard(owner), state.flights)
    return state, (Overtaken(owner, keys, is_whole=True),)
