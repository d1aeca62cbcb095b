"""What a store should not have any more, or has wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Container

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.store_call import Place, StoreCall

MOST_DOUBTS: Final = 10_000
"""Above so many doubts, everything in the store is doubtful."""


class Doubts(dict["Place", int]):
    """The places whose copies are not to be believed. A dict, so that a read asks in C whether there are any.

    Each doubt bears the number of the call that left it behind: it is settled by
    a call that came later. Every method is a few atomic steps: no lock is needed.
    """

    __slots__ = ()

    def number(self, owner: Owner | None, key: str | None) -> int:
        """The number of the doubt about exactly this; 0 where there is none."""
        return self.get((owner, key), 0)

    def concern(self, owner: Owner, key: str) -> bool:
        """Whether what is under `key` is not to be believed."""
        return bool(self) and ((owner, key) in self or (owner, None) in self or (None, None) in self)

    def wide_about(self, call: StoreCall) -> list[Owner | None]:
        """The owners, or None for all of them, whose doubts concern `call` and are not settled by it."""
        if not self or call.owner is None:
            return []
        owners = (None,) if call.key is None else (None, call.owner)
        return [owner for owner in owners if (owner, None) in self]

    def some(self, most: int, but: Container[Place]) -> list[Place]:
        """A few of the places that are doubted, the widest first; none of those to which something happens anyway."""
        places = sorted(self.copy(), key=_narrowness)
        return [place for place in places if place not in but][:most]

    def add(self, call: StoreCall, number: int) -> None:
        """`call` may not have been made, or too late. A lease that was not given up leaves no doubt."""
        if call.operation != "release":
            place = call.place if len(self) < MOST_DOUBTS else (None, None)
            self[place] = max(number, self.get(place, 0))

    def settle(self, call: StoreCall) -> None:
        """`call` has been made: what it removed, or wrote anew, is as it should be."""
        if not self or (call.key is None and not call.clears_all):
            return
        places: list[Place] = [call.place]
        if call.key is None:
            places = [place for place in list(self) if call.owner is None or place[0] == call.owner]
        for place in places:
            if self.get(place, call.number + 1) <= call.number:
                self.pop(place, None)


def _narrowness(place: Place) -> int:
    return sum(part is not None for part in place)
