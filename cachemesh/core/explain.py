"""What a `Get` would lead to, and why. It asks the reducer itself, on an overlay that is then thrown away."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct
from msgspec.structs import replace

from cachemesh.core.carriers import Overlay
from cachemesh.core.effects import Join, Load, Refusal, Refuse, Reply, StartFetch
from cachemesh.core.lifetimes import verdict
from cachemesh.core.model import Partition
from cachemesh.core.policies import MISSING, SERVING, Freshness
from cachemesh.core.reducer import reduce
from cachemesh.core.scopes import Owner, owner_of

if TYPE_CHECKING:
    from cachemesh.core.commands import Get
    from cachemesh.core.model import State


class Ending(StrEnum):
    """What a `Get` leads to."""

    SERVE = "serve"
    SERVE_AND_REFRESH = "serve_and_refresh"
    STAND_IN = "stand_in"
    """An old value is answered, as the origin has just failed or is left alone."""
    REMEMBERED_FAILURE = "remembered_failure"
    FETCH = "fetch"
    JOIN = "join"
    """A fetch that is under way is waited for."""
    LOAD = "load"
    """The store is asked first."""
    REFUSE = "refuse"


class Explanation(Struct, frozen=True):
    """What a get of `key` would do now. `age_s`: of the value that is cached, in seconds; None where none is."""

    key: str
    owner: Owner | None
    policy: str
    freshness: Freshness
    ending: Ending
    age_s: float | None = None
    refusal: Refusal | None = None

    @property
    def why(self) -> str:
        """The row that decides, and where it leads: `cache_first: stale -> fetch`.

        >>> from cachemesh.core import Get, State
        >>> explain(State(), Get("feed", now=0.0, flight_id=1)).why
        'cache_first: missing -> fetch'
        """
        because = "" if self.refusal is None else f" ({self.refusal})"
        return f"{self.policy}: {self.freshness} -> {self.ending}{because}"


def explain(state: State[Any], command: Get) -> Explanation:
    """What `reduce(state, command)` would decide. `state` stays as it is, also one that is changed in place."""
    owner = owner_of(command.scope, state.active_user, command.viewer)
    partition = None if owner is None else state.partitions.get(owner)
    entry = None if partition is None else partition.entries.get(command.key)
    freshness = MISSING if owner is None else verdict(entry, command.now, state, owner)
    _, effects = reduce(overlay(state, owner, partition), command)
    kinds = frozenset(type(effect) for effect in effects)
    answered = next(effect for effect in effects if type(effect) in ANSWERS)
    refusal = None
    if isinstance(answered, Reply):
        ending = Ending.SERVE_AND_REFRESH if StartFetch in kinds else Ending.SERVE
        if not answered.hit:
            ending = Ending.REMEMBERED_FAILURE
        elif command.policy.action(freshness, command.always_revalidate) not in SERVING:
            ending = Ending.STAND_IN
    elif isinstance(answered, Refuse):
        ending, refusal = Ending.REFUSE, answered.reason
    elif Load in kinds:
        ending = Ending.LOAD
    else:
        ending = Ending.FETCH if StartFetch in kinds else Ending.JOIN
    age_s = None if entry is None or freshness is MISSING else max(0.0, command.now - entry.created_at)
    return Explanation(command.key, owner, command.policy.name, freshness, ending, age_s, refusal)


ANSWERS: Final = frozenset({Reply, Refuse, Join})
"""Exactly one of these answers a `Get`."""


def overlay(state: State[Any], owner: Owner | None, partition: Partition[Any] | None) -> State[Any]:
    """`state` in a carrier that keeps what it is laid over as it is."""
    changed: dict[Owner, Partition[Any]] = {}
    if owner is not None and partition is not None:
        parts = (partition.entries, partition.failures, partition.flights)
        changed[owner] = Partition(*(Overlay(each) for each in parts))
    return replace(
        state,
        partitions=Overlay(state.partitions, changed),
        flights=Overlay(state.flights),
        breakers=Overlay(state.breakers),
    )
