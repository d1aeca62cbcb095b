"""The carrier of the shell: tables that are changed in place, whose entries the hit path reads without the core."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from msgspec import field

from cachemesh.core.carriers import Map, Table
from cachemesh.core.lifetimes import plain_until
from cachemesh.core.model import Breaker, Entry, Failed, Flight, Mark, Partition, State
from cachemesh.core.scopes import GLOBAL_OWNER, Owner
from cachemesh.shell.eviction import Resident

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Self

    from cachemesh.shell.eviction import Home


class Census:
    """How many entries there are in all partitions together."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Residents:
    """The entries of one owner. One that is written anew keeps its `Resident`, and so its place in the queue.

    `hits` is where a hit looks: a mapping that stays the same object, and here
    an exact dict, which CPython reads faster than one of a subclass.
    """

    __slots__ = ("_census", "get", "hits", "owner")

    def __init__(self, owner: Owner, census: Census) -> None:
        self.owner = owner
        self.hits: dict[str, Resident] = {}
        self.get: Callable[[str], Resident | None] = self.hits.get
        self._census = census

    def insert(self, key: str, entry: Entry[Any]) -> Self:
        resident = self.get(key)
        if resident is None:
            self.hits[key] = resident_of(entry, key, self)
            self._census.count += 1
        else:
            rewrite(resident, entry)
        return self

    def discard(self, key: str) -> Self:
        if self.hits.pop(key, None) is not None:
            self._census.count -= 1
        return self

    def clear(self) -> None:
        self._census.count -= len(self.hits)
        self.hits.clear()

    def keys(self) -> Collection[str]:
        return self.hits.keys()

    def values(self) -> Collection[Resident]:
        return self.hits.values()

    def items(self) -> Collection[tuple[str, Resident]]:
        return self.hits.items()

    def __contains__(self, key: object) -> bool:
        return key in self.hits

    def __iter__(self) -> Iterator[str]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)


class ShardedResidents(Mapping[str, Resident]):
    """The same for very many entries, in several dicts.

    A dict that is full copies itself, a million entries in some 50 ms during
    which nobody is answered. Shards copy themselves one at a time. The price
    is 0.1 us a hit, so a cache of ordinary size does without.
    """

    __slots__ = ("_census", "_shards", "owner")

    def __init__(self, owner: Owner, census: Census) -> None:
        self.owner = owner
        self._census = census
        self._shards: tuple[dict[str, Resident], ...] = tuple({} for _ in range(SHARDS))

    @property
    def hits(self) -> Self:
        return self

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 (as a dict's)
        return self._shards[hash(key) % SHARDS].get(key, default)

    def insert(self, key: str, entry: Entry[Any]) -> Self:
        shard = self._shards[hash(key) % SHARDS]
        resident = shard.get(key)
        if resident is None:
            shard[key] = resident_of(entry, key, self)
            self._census.count += 1
        else:
            rewrite(resident, entry)
        return self

    def discard(self, key: str) -> Self:
        if self._shards[hash(key) % SHARDS].pop(key, None) is not None:
            self._census.count -= 1
        return self

    def clear(self) -> None:
        self._census.count -= len(self)
        for shard in self._shards:
            shard.clear()

    def __getitem__(self, key: str) -> Resident:
        return self._shards[hash(key) % SHARDS][key]

    def __contains__(self, key: object) -> bool:
        return key in self._shards[hash(key) % SHARDS]

    def __iter__(self) -> Iterator[str]:
        return itertools.chain.from_iterable(self._shards)

    def __len__(self) -> int:
        return sum(map(len, self._shards))


SHARDS: Final = 64

SHARDING_ABOVE: Final = 131_072
"""A dict of so many entries copies itself in under 10 ms."""


def resident_of(entry: Entry[Any], key: str, home: Home) -> Resident:
    """`entry` as one that lives in `home`."""
    if entry.terms is None:
        return Resident(entry.answer, entry.created_at, entry.ttl_s, entry.expires_at, key, home)
    return Resident(entry.answer, entry.created_at, entry, plain_until(entry), key, home)


def rewrite(resident: Resident, entry: Entry[Any]) -> None:
    """Give `resident` a newer value.

    A reader without a lock looks at `hit_until` and then at the answer. So the
    answer is written first, and whoever sees the new instant sees it too.
    """
    resident.answer = entry.answer
    resident.created_at = entry.created_at
    resident.life = entry.ttl_s if entry.terms is None else entry
    resident.hit_until = plain_until(entry)


class Partitions(Table[Owner, Partition[Any]]):
    """The partitions by owner. One that is dropped is emptied: who still holds its table sees nothing there."""

    __slots__ = ()

    def discard(self, owner: Owner) -> Self:
        partition = self.pop(owner, None)
        if partition is not None:
            partition.entries.clear()  # type: ignore[attr-defined]  # a Residents
        return self


class LiveState(State[Any], frozen=True):
    """The state that the shell carries. Its global entries stay one and the same table: the hit path holds on to it."""

    plain: Residents | ShardedResidents = field(default_factory=lambda: Residents(GLOBAL_OWNER, Census()))
    census: Census = field(default_factory=Census)

    @classmethod
    def empty(cls, *, has_store: bool, max_entries: int | None = 0) -> Self:
        """For so many entries; None is unbounded."""
        census = Census()
        flights: Table[int, Flight] = Table()
        kind = Residents if max_entries is not None and max_entries <= SHARDING_ABOVE else ShardedResidents
        marks: Table[tuple[Owner | None, str], Mark] = Table()
        breakers: Table[str, Breaker] = Table()
        plain = kind(GLOBAL_OWNER, census)
        return cls(Partitions(), flights, None, has_store, marks, breakers=breakers, plain=plain, census=census)

    def no_marks(self) -> Map[tuple[Owner | None, str], Mark]:
        marks: Table[tuple[Owner | None, str], Mark] = Table()
        return marks

    def blank(self, owner: Owner) -> Partition[Any]:
        entries: Any = self.plain if owner == GLOBAL_OWNER else Residents(owner, self.census)
        failures: Table[str, Failed[Any]] = Table()
        under_way: Table[str, tuple[int, ...]] = Table()
        return Partition(entries, failures, under_way)
