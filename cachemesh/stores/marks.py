"""Marks: which generations are over. One order about a tag, an owner or everything, however many entries it concerns.

A mark has a generation of its own. An entry of an older one is gone, or stale
from an instant on, if the mark concerns it. No clock is compared with another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.ports import StoredEntry

Place: TypeAlias = "tuple[Owner | None, str | None]"
"""What a mark is about: (owner, tag); no tag is all of the owner, no owner is all owners, neither is everything."""

MOST_MARKS: Final = 10_000
"""More are not kept one by one: the oldest then count for every tag."""


class Mark(Struct, frozen=True, gc=False):
    """The last orders about a place: what is older than `gone` is gone; than `stale`, stale from `stale_at` on."""

    gone: int = 0
    stale: int = 0
    stale_at: float = 0.0


NO_MARK: Final = Mark()


class Marks:
    """The marks of one store, as far as this process knows them."""

    def __init__(self) -> None:
        self._marks: dict[Place, Mark] = {}

    def add(self, place: Place, generation: int, stale_at: float | None = None) -> None:
        """An order about `place`, which made `generation` begin. Orders may come twice, and in any order."""
        mark = self._marks.get(place, NO_MARK)
        if stale_at is None:
            mark = Mark(max(mark.gone, generation), mark.stale, mark.stale_at)
        elif generation > mark.stale:
            mark = Mark(mark.gone, generation, stale_at)
        self._marks[place] = mark

    def clear(self) -> None:
        """Forget them all."""
        self._marks.clear()

    def __len__(self) -> int:
        return len(self._marks)

    def applied(self, entry: StoredEntry) -> StoredEntry | None:
        """`entry` as the marks leave it; None where it is gone.

        A soft mark takes nothing from a failure or from what has been stale for longer.
        """
        if not self._marks:
            return entry
        generation, expires_at = entry.generation, entry.expires_at
        for mark in self._about(entry):
            if mark.gone > generation:
                return None
            if mark.stale > generation:
                expires_at = mark.stale_at if expires_at is None else min(expires_at, mark.stale_at)
        if expires_at == entry.expires_at:
            return entry
        assert expires_at is not None
        return replace(entry, expires_at=expires_at, ttl_s=max(0.0, expires_at - entry.created_at))

    def is_over(self, owner: Owner, generation: int) -> bool:
        """Whether all of `owner` that is of `generation` is gone, whatever tags it bears."""
        mark, wide = self._marks.get((owner, None), NO_MARK), self._marks.get((None, None), NO_MARK)
        return max(mark.gone, wide.gone) > generation

    def _about(self, entry: StoredEntry) -> Iterator[Mark]:
        owner, marks = entry.owner, self._marks
        places: list[Place] = [(None, None), (owner, None)]
        for tag in entry.tags:
            places += ((None, tag), (owner, tag))
        for place in places:
            mark = marks.get(place)
            if mark is not None:
                yield mark
