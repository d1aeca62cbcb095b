"""The safety rules, and how each is taken away: what the simulated fleet must notice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from msgspec import Struct

from cachemesh.core import asks, flights, news
from cachemesh.core.effects import Join
from cachemesh.core.scopes import CacheScope
from cachemesh.shell.doubts import Doubts
from cachemesh.shell.runtime import Runtime
from cachemesh.simulation.fleet import HEALTHY, Faults, FleetReport, run_fleet
from cachemesh.simulation.fleet.client import LOST, ModelledBus
from cachemesh.simulation.fleet.valkey import Valkey
from cachemesh.stores.marks import Marks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pytest

Patch: TypeAlias = "Callable[[pytest.MonkeyPatch], None]"

REMOVAL: Final = "nothing from before a removal"
OTHER: Final = "no value of another"
CAP: Final = "nothing beyond the stated cap"
ONCE: Final = "one fetch a key while healthy"
LIFETIME: Final = "nothing older than its lifetime"


class Rule(Struct, frozen=True):
    """`take_away` disables it; then one of `broken` is to be found, with `faults` and so many `nodes`.

    `first`: so many seeds are known to find nothing; only `make soak` tries them.
    """

    take_away: Patch
    broken: tuple[str, ...] = (REMOVAL,)
    faults: Faults = Faults()
    nodes: int = 4
    ttl_s: float = 20.0
    first: int = 0


def without_fence(patch: pytest.MonkeyPatch) -> None:
    """The server takes what was fetched, whatever has been removed since."""
    patch.setattr(Valkey, "_fits", lambda *_, **__: True)


def without_listing(patch: pytest.MonkeyPatch) -> None:
    """A flight that was struck off its partition may store all the same."""

    def listing(state: Any, flight: Any) -> Any:
        partition = state.partitions.get(flight.owner)
        if partition is not None:
            listed = partition.flights.get(flight.key) or ()
            if flight.flight_id not in listed:
                more = partition.flights.insert(flight.key, tuple(sorted((*listed, flight.flight_id))))
                partition = partition.moved(partition.entries, partition.failures, more)
        return partition

    patch.setattr(flights, "listing_partition", listing)


def without_owners(patch: pytest.MonkeyPatch) -> None:
    """All users share one partition."""
    patch.setattr(asks, "owner_of", lambda scope, *_: (scope, "alice") if scope is CacheScope.USER else (scope, None))


def without_flush(patch: pytest.MonkeyPatch) -> None:
    """Nobody is told that news were lost."""
    tell = ModelledBus._tell
    patch.setattr(ModelledBus, "_tell", lambda self, news: None if news is LOST else tell(self, news))


def without_doubt(patch: pytest.MonkeyPatch) -> None:
    """What was being fetched when news were lost is remembered, though nobody knows whether it is still right."""
    patch.setattr(news, "in_doubt", lambda under_way, _: under_way)


def without_joiner_rules(patch: pytest.MonkeyPatch) -> None:
    """Who comes after a tag was invalidated joins the fetch that began before, and takes what it brings.

    Each of the two rules covers for the other, so both go.
    """
    patch.setattr(asks, "is_outdated", lambda *_: False)
    patch.setattr(flights, "asks_again_after", lambda *_: 0)


def without_new_questions(patch: pytest.MonkeyPatch) -> None:
    """Who asks after a removal joins the fetch that began before it."""
    begin_or_join = asks.begin_or_join

    def joined(state: Any, owner: Any, partition: Any, command: Any, kind: Any, source: Any) -> Any:
        if partition is None or command.key not in partition.flights:
            place = (owner, command.key, kind, command.domain)
            for flight in state.flights.values():
                if (flight.owner, flight.key, flight.kind, flight.domain) == place:
                    return state, (Join(flight.flight_id),)
        return begin_or_join(state, owner, partition, command, kind, source)

    patch.setattr(asks, "begin_or_join", joined)


def without_news(patch: pytest.MonkeyPatch) -> None:
    """Nodes are deaf."""
    patch.setattr(Runtime, "hear", lambda *_: None)


def without_marks(patch: pytest.MonkeyPatch) -> None:
    """What was cleared, or bears an invalidated tag, is still read from the server."""
    patch.setattr(Marks, "applied", lambda _, entry: entry)


def without_doubts(patch: pytest.MonkeyPatch) -> None:
    """A removal that the server may not have heard of is forgotten."""
    patch.setattr(Doubts, "concern", lambda *_: False)


def without_leases(patch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the fetch of another process."""
    patch.setattr("cachemesh.shell.runtime.WAITING", frozenset())


def without_expiry(patch: pytest.MonkeyPatch) -> None:
    """What is stored never expires."""
    patch.setattr(flights, "expiry", lambda *_: float("inf"))


RULES: Final = {
    "the fence": Rule(without_fence),
    "the fence within a node": Rule(without_listing),
    "partitions": Rule(without_owners, (OTHER,)),
    "the flush when news are lost": Rule(without_flush, (REMOVAL, CAP)),
    "what spans a gap in the news": Rule(without_doubt, (REMOVAL, CAP), first=500),
    "joiners of a tag": Rule(without_joiner_rules, faults=HEALTHY, nodes=2),
    "joiners of what was removed": Rule(without_new_questions, faults=HEALTHY, nodes=2),
    "news are heard": Rule(without_news, (REMOVAL, CAP)),
    "marks": Rule(without_marks),
    "doubts": Rule(without_doubts),
    "leases": Rule(without_leases, (ONCE,), faults=HEALTHY, ttl_s=3600.0),
    "lifetimes": Rule(without_expiry, (LIFETIME,)),
}


def first_violation(name: str, patch: pytest.MonkeyPatch, seeds: Iterable[int]) -> FleetReport | None:
    """The first run that goes wrong without a rule; None where none does."""
    rule = RULES[name]
    rule.take_away(patch)
    for seed in seeds:
        report = run_fleet(seed, nodes=rule.nodes, faults=rule.faults, ttl_s=rule.ttl_s)
        if report.violations:
            return report
    return None
