"""The state: partitions of entries and failures, and the flights that are under way.

`Answer` is opaque to the core: whatever the embedder hands out for a finished
fetch. "Do we have a value?" (entries) and "is a fetch under way?" (flights)
are two questions with two answers.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeAlias

from msgspec import Struct, field
from msgspec.structs import replace
from typing_extensions import TypeVar

from cachemesh.core.carriers import Map, persistent
from cachemesh.core.retry import NO_RETRY, Retry
from cachemesh.core.scopes import Owner

if TYPE_CHECKING:
    from collections.abc import Iterator

A = TypeVar("A", default=Any)


class Redacted(Struct, frozen=True):
    """A struct whose repr shows types in place of answers, so that it may be logged."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={shown}' for name, shown in self._shown())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for rich, whose tracebacks print locals."""
        return [(name, Shown(shown)) for name, shown in self._shown()]

    def _shown(self) -> Iterator[tuple[str, str]]:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            yield name, type(value).__name__ if name in OPAQUE else repr(value)


class Shown(str):
    """A text that is its own repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


OPAQUE: Final = frozenset({"answer", "fallback", "entry", "failed"})


class Entry(Redacted, Generic[A], frozen=True):
    """A value as it was stored. Stale from exactly `expires_at` on; `inf` never."""

    answer: A
    created_at: float
    ttl_s: float | None
    expires_at: float


class Failed(Redacted, Generic[A], frozen=True):
    """The memory of a failed fetch.

    Answered until `serve_until` to whom heeds failures; no background refresh
    starts before `refresh_after`.
    """

    answer: A
    failed_at: float
    serve_until: float
    refresh_after: float


class RefreshSource(StrEnum):
    """Why a fetch was started."""

    CACHE_MISS = "cache_miss"
    POLICY = "policy"
    BACKGROUND = "background"
    REFRESH = "refresh"
    PREFETCH = "prefetch"


class FlightKind(StrEnum):
    """What a flight brings: an answer for the cache, one that passes it by, or an entry from the store."""

    FETCH = "fetch"
    BYPASS = "bypass"
    LOAD = "load"


# Members by a name of their own: looking one up on its enum costs 135 ns in CPython 3.11, more than a handler's work.
CACHE_MISS: Final = RefreshSource.CACHE_MISS
POLICY: Final = RefreshSource.POLICY
BACKGROUND: Final = RefreshSource.BACKGROUND
FETCH_FLIGHT: Final = FlightKind.FETCH
BYPASS_FLIGHT: Final = FlightKind.BYPASS
LOAD_FLIGHT: Final = FlightKind.LOAD


class Flight(Struct, frozen=True, gc=False):
    """A fetch (or a load from the store) under way.

    It may store its answer only while its partition still lists it: that list
    is the fence. Invalidating, clearing, a user's leaving and a newer answer
    strike it off; it then still answers those who wait, and is stored nowhere.
    """

    flight_id: int
    owner: Owner
    key: str
    domain: int
    kind: FlightKind
    source: RefreshSource
    persist: bool
    ttl_s: float | None
    store_failures: bool
    retry: Retry = NO_RETRY
    attempt: int = 1
    waits_on: tuple[int, ...] = ()
    """The flights that its fetch waits for, each as often as it waits."""
    found_nothing: bool = False
    """It began after the store was asked and had nothing, nor had the memory: its failure can hide no value."""

    @property
    def is_background(self) -> bool:
        """Whether it goes on when nobody waits."""
        return self.source is BACKGROUND or self.kind is LOAD_FLIGHT


class Ancestor(Struct, frozen=True, gc=False):
    """A flight inside whose fetch a command was given."""

    flight_id: int
    owner: Owner
    key: str


class Partition(Struct, Generic[A], frozen=True):
    """All that belongs to one owner. It is dropped whole."""

    entries: Map[str, Entry[A]] = field(default_factory=persistent)
    failures: Map[str, Failed[A]] = field(default_factory=persistent)
    flights: Map[str, tuple[int, ...]] = field(default_factory=persistent)
    """The flights of a key that may still store, oldest first."""

    def moved(
        self,
        entries: Map[str, Entry[A]],
        failures: Map[str, Failed[A]],
        flights: Map[str, tuple[int, ...]],
    ) -> Partition[A]:
        """The same partition with other maps; itself where they are the same ones."""
        if entries is self.entries and failures is self.failures and flights is self.flights:
            return self
        return Partition(entries, failures, flights)

    @property
    def is_empty(self) -> bool:
        return len(self.entries) == 0 and len(self.failures) == 0 and len(self.flights) == 0


class State(Struct, Generic[A], frozen=True):
    """The whole of a cache, as a value.

    >>> State().active_user is None
    True
    """

    partitions: Map[Owner, Partition[A]] = field(default_factory=persistent)
    flights: Map[int, Flight] = field(default_factory=persistent)
    active_user: str | None = None
    has_store: bool = False
    """Whether a memory miss is to ask a store before the origin."""

    def blank(self, owner: Owner) -> Partition[A]:
        """A new, empty partition for `owner`, in this state's carrier."""
        del owner
        return Partition()

    def moved(self, partitions: Map[Owner, Partition[A]], flights: Map[int, Flight]) -> Self:
        """The same state with other maps; itself where they are the same ones."""
        if partitions is self.partitions and flights is self.flights:
            return self
        return replace(self, partitions=partitions, flights=flights)


Partitions: TypeAlias = Map[Owner, Partition[A]]


def settled(partitions: Partitions[A], owner: Owner, partition: Partition[A]) -> Partitions[A]:
    """`partitions` with `partition` in its place. An empty one is not kept."""
    if partition.is_empty:
        return partitions.discard(owner) if owner in partitions else partitions
    if partitions.get(owner) is partition:
        return partitions
    return partitions.insert(owner, partition)
