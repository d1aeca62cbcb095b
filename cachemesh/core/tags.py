"""Tags: invalidating by one costs the same however many entries bear it.

The order leaves a mark with its stamp, and an entry looks at the marks of its
own tags when it is read. An entry's stamp is the id of the fetch or write that
it came from, so a fetch that began before the order comes too late, whether
its tags were known then or came with its answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cachemesh.core.model import NO_MARK, Entry, Mark, State, Terms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cachemesh.core.scopes import Owner

MOST_MARKS: Final = 10_000
"""More are not kept one by one: every tag then counts as marked by the latest of them."""


def marked(mark: Mark, stamp: int, now: float, *, is_soft: bool) -> Mark:
    """`mark` after one more order: invalidated, or (`is_soft`) made stale."""
    if is_soft:
        return Mark(mark.gone_stamp, mark.gone_at, max(mark.stale_stamp, stamp), max(mark.stale_at, now))
    return Mark(max(mark.gone_stamp, stamp), max(mark.gone_at, now), mark.stale_stamp, mark.stale_at)


def later(one: Mark, other: Mark) -> Mark:
    """Both, as one mark. What was made stale counts as gone: too much is invalidated rather than too little."""
    return Mark(
        max(one.gone_stamp, other.gone_stamp, other.stale_stamp),
        max(one.gone_at, other.gone_at, other.stale_at),
    )


def marks_of(state: State[Any], owner: Owner | None, tags: Iterable[str]) -> list[Mark]:
    """The marks that concern an entry of `owner` with these tags."""
    found = [state.marks_floor] if state.marks_floor is not NO_MARK else []
    if len(state.marks):
        for tag in tags:
            for place in ((None, tag), (owner, tag)):
                mark = state.marks.get(place)
                if mark is not None:
                    found.append(mark)
    return found


def expiry_by_marks(state: State[Any], owner: Owner | None, entry: Entry[Any], terms: Terms) -> float | None:
    """When `entry` expires, its tags considered. None: one of them was invalidated since its fetch began."""
    expires_at = entry.expires_at
    for mark in marks_of(state, owner, terms.tags):
        if mark.gone_stamp > terms.stamp:
            return None
        if mark.stale_stamp > terms.stamp:
            expires_at = min(expires_at, mark.stale_at)
    return expires_at


def last_mark(state: State[Any], owner: Owner, tags: tuple[str, ...]) -> int:
    """The stamp of the last order about one of `tags`: whoever asked after it wants a fetch that began after it."""
    if not tags:
        return 0
    return max((max(mark.gone_stamp, mark.stale_stamp) for mark in marks_of(state, owner, tags)), default=0)


def was_marked(state: State[Any], owner: Owner, entry: Entry[Any], load_id: int) -> bool:
    """Whether a stored entry, which has no stamp, was made before one of its tags was marked.

    What was marked since its load `load_id` began may have been read before, whatever its clock said.
    """
    if entry.terms is None or not entry.terms.tags:
        return False
    return any(
        entry.created_at <= max(mark.gone_at, mark.stale_at) or load_id < max(mark.gone_stamp, mark.stale_stamp)
        for mark in marks_of(state, owner, entry.terms.tags)
    )
