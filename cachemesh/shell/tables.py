"""The carrier of the shell: tables that are changed in place, whose entries the hit path reads without the core."""

from __future__ import annotations

from typing import Any

from msgspec import field
from typing_extensions import Self

from cachemesh.core.carriers import Table
from cachemesh.core.model import Entry, Failed, Flight, Partition, State
from cachemesh.core.scopes import GLOBAL_OWNER, Owner
from cachemesh.shell.eviction import Resident


class Census:
    """How many entries there are in all partitions together."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Residents(dict[str, Any]):
    """The entries of one owner. An entry that is written anew keeps its `Resident`, and with it its place in the queue."""

    __slots__ = ("_census", "owner")

    def __init__(self, owner: Owner, census: Census) -> None:
        super().__init__()
        self.owner = owner
        self._census = census

    def insert(self, key: str, entry: Entry[Any]) -> Self:
        resident = self.get(key)
        if resident is None:
            self[key] = Resident(entry.answer, entry.created_at, entry.ttl_s, entry.expires_at, key, self)
            self._census.count += 1
        else:
            # A reader without a lock looks at the expiry first: it must never see a new one with an old answer.
            resident.answer = entry.answer
            resident.created_at = entry.created_at
            resident.ttl_s = entry.ttl_s
            resident.expires_at = entry.expires_at
        return self

    def discard(self, key: str) -> Self:
        if self.pop(key, None) is not None:
            self._census.count -= 1
        return self

    def clear(self) -> None:
        self._census.count -= len(self)
        super().clear()


class Partitions(Table[Owner, Partition[Any]]):
    """The partitions by owner. One that is dropped is emptied, so that nobody who still holds its table sees anything."""

    __slots__ = ()

    def discard(self, owner: Owner) -> Self:
        partition = self.pop(owner, None)
        if partition is not None:
            partition.entries.clear()  # type: ignore[attr-defined]  # a Residents
        return self


class LiveState(State[Any], frozen=True):
    """The state that the shell carries. Its global entries stay one and the same table: the hit path holds on to it."""

    plain: Residents = field(default_factory=lambda: Residents(GLOBAL_OWNER, Census()))
    census: Census = field(default_factory=Census)

    @classmethod
    def empty(cls, *, has_store: bool) -> Self:
        census = Census()
        flights: Table[int, Flight] = Table()
        return cls(Partitions(), flights, None, has_store, Residents(GLOBAL_OWNER, census), census)

    def blank(self, owner: Owner) -> Partition[Any]:
        entries = self.plain if owner == GLOBAL_OWNER else Residents(owner, self.census)
        failures: Table[str, Failed[Any]] = Table()
        under_way: Table[str, tuple[int, ...]] = Table()
        return Partition(entries, failures, under_way)
