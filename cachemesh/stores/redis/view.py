"""What one process knows of the counter and its marks. Several event loops and threads share it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from msgspec import Struct

from cachemesh.stores.marks import MOST_MARKS, Marks, Place
from cachemesh.stores.redis.layout import NO_COUNTER, Glance, mark_of_name

if TYPE_CHECKING:
    from collections.abc import Sequence


class View(Struct, frozen=True):
    """The marks of `counter` up to `last_mark`."""

    counter: bytes
    last_mark: int
    marks: Marks

    def covers(self, glance: Glance) -> bool:
        """Whether all that the head speaks of is known."""
        return self.counter == glance.counter and self.last_mark >= glance.last_mark


class NewMark(Struct, frozen=True, gc=False):
    """A mark as the server tells it."""

    place: Place
    generation: int
    stale_at: float | None


class Views:
    """The present view, and how it grows."""

    def __init__(self) -> None:
        self.present = View(NO_COUNTER, 0, Marks())
        self._lock = threading.Lock()

    def learn(self, counter: bytes, last_mark: int, marks: Sequence[NewMark]) -> View:
        """Take in what the server told: `marks` are those that were not known."""
        with self._lock:
            view = self.present
            known = view.marks if view.counter == counter else Marks()
            for mark in marks:
                known.add(mark.place, mark.generation, mark.stale_at)
            if len(known) > 2 * MOST_MARKS:
                # The server has put the oldest together meanwhile: learn them anew.
                counter, last_mark, known = NO_COUNTER, 0, Marks()
            if view.counter == counter:
                last_mark = max(last_mark, view.last_mark)
            self.present = View(counter, last_mark, known)
            return self.present


def new_marks(told: Sequence[bytes]) -> list[NewMark]:
    """The marks in the answer of a script: name, generation and stale_at by turns."""
    marks: list[NewMark] = []
    for name, generation, stale_at in zip(told[::3], told[1::3], told[2::3], strict=True):
        place, is_soft = mark_of_name(name)
        # A soft one whose instant the server has evicted counts as a hard one.
        marks.append(NewMark(place, int(generation), float(stale_at) if is_soft and stale_at else None))
    return marks
