"""The two carriers of state: one that keeps every version, one that is changed in place.

The reducers know only `Map`. A persistent map answers `insert` with a new map
and leaves the old one as it was: snapshots, time travel, property tests. A
`Table` is a private dict that only its owner can see; it answers with itself
("transient" in Clojure's sense). A law test proves that both end equal.
"""

from __future__ import annotations

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
        self.pop(key, None)
        return self


def persistent() -> Map[K, V]:
    """The empty map that keeps every version (a hash array mapped trie; Bagwell, Ideal Hash Trees, 2001)."""
    empty: Map[K, V] = cast("Any", HashTrieMap())
    return empty
