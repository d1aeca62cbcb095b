"""The state: partitions of entries and failures, and the flights that are under way.

`Answer` is opaque to the core: whatever the embedder hands out for a finished
fetch. "Do we have a value?" (entries) and "is a fetch under way?" (flights)
are two questions with two answers.
"""

from __future__ import annotations

from enum import StrEnum
from math import inf
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
            if name == "schema" and value is None:
                continue  # Most have none.
            yield name, type(value).__name__ if name in OPAQUE else repr(value)


class Shown(str):
    """A text that is its own repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


OPAQUE: Final = frozenset(
    {"answer", "fallback", "rescue", "entry", "failed", "found", "expected", "validator", "schema", "token"}
)


class Lifespan(Struct, frozen=True, gc=False):
    """What a caller wants of an entry's life beyond its ttl. Durations are seconds.

    `serve_stale_s`: served for so long past its expiry, while it is refreshed.
    `stale_if_error_s`: served for so long past it where a fetch fails.
    `refresh_ahead`: the share of the ttl after which a hit refreshes it as
    well. `jitter`: the share of the ttl that chance may take away.
    `failure_ttl_s`: how long a failure is remembered. `refresh_backoff_s`: how
    long after a failed refresh the next one waits.
    """

    serve_stale_s: float = 0.0
    stale_if_error_s: float = 0.0
    refresh_ahead: float = 1.0
    jitter: float = 0.0
    failure_ttl_s: float | None = None
    refresh_backoff_s: float = 30.0


class Terms(Redacted, frozen=True):
    """What is said of an entry beside its ttl.

    A window of None was not given. `ageing_at`: from then on a hit refreshes.
    `stamp`: the id of the fetch or write that it came from, which tells whether
    a tag was invalidated since. `validator`: what the origin knows the value by.
    `schema`: what the embedder knows its type by.
    """

    serve_stale_s: float | None = None
    stale_if_error_s: float | None = None
    ageing_at: float = inf
    tags: tuple[str, ...] = ()
    validator: Any = None
    stamp: int = 0
    schema: Any = None


class Entry(Redacted, Generic[A], frozen=True):
    """A value as it was stored. Past its ttl from exactly `expires_at` on; `inf` never."""

    answer: A
    created_at: float
    ttl_s: float | None
    expires_at: float
    terms: Terms | None = None


class Mark(Struct, frozen=True, gc=False):
    """When a tag was last invalidated, and when last made stale: the stamps of these orders, and their instants."""

    gone_stamp: int = 0
    gone_at: float = -inf
    stale_stamp: int = 0
    stale_at: float = -inf


NO_MARK: Final = Mark()


class Origin(Struct, frozen=True, gc=False):
    """Where a fetch goes, and when to leave it alone: after so many failures in a row, for so many seconds."""

    name: str
    failures: int = 5
    open_s: float = 30.0


class Breaker(Struct, frozen=True, gc=False):
    """What is known of an origin: its failures in a row, until when it is left alone, and who tries it after that."""

    failures: int = 0
    open_until: float | None = None
    probe: int | None = None
    probe_until: float = 0.0


class Failed(Redacted, Generic[A], frozen=True):
    """The memory of a failed fetch.

    Answered until `serve_until` to whom heeds failures; no background refresh
    starts before `refresh_after`. `schema`: what the embedder knows the error's
    type by.
    """

    answer: A
    failed_at: float
    serve_until: float
    refresh_after: float
    schema: Any = None


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
    lifespan: Lifespan | None = None
    tags: tuple[str, ...] = ()
    origin: Origin | None = None
    is_detached: bool = False
    """Somebody was answered with an old value in its place: it goes on for the cache."""
    spans_gap: bool = False
    """News were lost while it was under way: only the store can say whether its answer is still right."""

    @property
    def is_background(self) -> bool:
        """Whether it goes on when nobody waits."""
        return self.source is BACKGROUND or self.kind is LOAD_FLIGHT or self.is_detached


class Ancestor(Struct, frozen=True, gc=False):
    """A flight inside whose fetch a command was given. `shares`: that fetch is the next one's as well."""

    flight_id: int
    owner: Owner
    key: str
    shares: bool = False


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
    marks: Map[tuple[Owner | None, str], Mark] = field(default_factory=persistent)
    """The tags that were invalidated, of one owner or (None) of all."""
    marks_floor: Mark = NO_MARK
    """What holds for every tag: the marks that were too many to keep."""
    breakers: Map[str, Breaker] = field(default_factory=persistent)
    """The origins that have failed of late."""

    def blank(self, owner: Owner) -> Partition[A]:
        """A new, empty partition for `owner`, in this state's carrier."""
        del owner
        return Partition()

    def no_marks(self) -> Map[tuple[Owner | None, str], Mark]:
        """No marks at all, in this state's carrier."""
        return persistent()

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
