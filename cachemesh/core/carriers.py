"""The two carriers of state: one that keeps every version, one that is changed in place.

The reducers know only `Map`. A persistent map answers `insert` with a new map
and leaves the old one as it was: snapshots, time travel, property tests. A
`Table` is a private dict that only its owner can see; it answers with itself
("transient" in Clojure's sense). A law test proves that both end equal. An
`Overlay` is for a single step that is then forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from rpds import HashTrieMap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

K = TypeVar("K")
V = TypeVar("V")


class Map(Protocol[K, V]):
    """What a reducer may ask of a map. Use the answer of `insert` and `discard`, never the map it was asked of."""

    def get(self, key: K, /) -> V | None: ...
    def insert(self, key: K, value: V, /) -> Self: ...
    def discard(self, key: K, /) -> Self: ...
    def keys(self) -> Iterable[K]: ...
    def values(self) -> Iterable[V]: ...
    def items(self) -> Iterable[tuple[K, V]]: ...
    def __contains__(self, key: object, /) -> bool: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[K]: ...


class Table(dict[K, V]):
    """The carrier that is changed in place."""

    __slots__ = ()

    def insert(self, key: K, value: V) -> Self:
        self[key] = value
        return self

    def discard(self, key: K) -> Self:
        if key in self:
            del self[key]
        return self


class Overlay(Mapping[K, V]):
    """A carrier for a glance ahead: what is inserted lies over another map, which stays as it is."""

    __slots__ = ("_base", "_changed", "_gone")

    def __init__(self, base: Map[K, V], changed: dict[K, V] | None = None, gone: frozenset[K] = frozenset()) -> None:
        self._base = base
        self._changed = changed or {}
        self._gone = gone

    def get(self, key: K, default: Any = None) -> Any:  # noqa: ANN401 (as a Mapping's)
        if key in self._changed:
            return self._changed[key]
        return default if key in self._gone else self._base.get(key)

    def insert(self, key: K, value: V) -> Self:
        return type(self)(self._base, {**self._changed, key: value}, self._gone - {key})

    def discard(self, key: K) -> Self:
        changed = {each: value for each, value in self._changed.items() if each != key}
        return type(self)(self._base, changed, self._gone | {key})

    def __getitem__(self, key: K) -> V:
        if key not in self:
            raise KeyError(key)
        found: V = self.get(key)
        return found

    def __contains__(self, key: object) -> bool:
        return key in self._changed or (key in self._base and key not in self._gone)

    def __iter__(self) -> Iterator[K]:
        yield from self._changed
        yield from (key for key in self._base if key not in self._changed and key not in self._gone)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def persistent() -> Map[K, V]:
    """The empty map that keeps every version (a hash array mapped trie; Bagwell, Ideal Hash Trees, 2001)."""
    empty: Map[K, V] = cast("Any", HashTrieMap())
    return empty
