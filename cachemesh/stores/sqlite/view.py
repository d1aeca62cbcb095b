"""The marks of a file as this process knows them. What a read finds says whether there are newer ones."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from cachemesh.stores.marks import MOST_MARKS, Marks
from cachemesh.stores.sqlite.errors import DamagedFileError
from cachemesh.stores.sqlite.schema import mark_of, meta_of, place_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from cachemesh.shell.ports import StoredEntry
    from cachemesh.stores.marks import Place

MOST_KNOWN: Final = 2 * MOST_MARKS
"""Above so many we forget them all and read those anew that the file still has."""


class View:
    """Grows only; a file that takes the place of another has a view of its own."""

    def __init__(self, space: int) -> None:
        self._space = space
        self._lock = threading.Lock()
        self.marks = Marks()
        self.known = -1
        """The generation of the last mark that is known."""

    def applied(self, entry: StoredEntry) -> StoredEntry | None:
        return self.marks.applied(entry)

    def load(self, connection: sqlite3.Connection) -> None:
        """Read what is new. DamagedFileError where that cannot be believed."""
        with self._lock:
            connection.execute("BEGIN")
            try:
                self._load(connection)
            finally:
                connection.execute("COMMIT")

    def load_within(self, connection: sqlite3.Connection) -> None:
        """The same within a transaction."""
        with self._lock:
            self._load(connection)

    def add(self, marks: Iterable[tuple[Place, int, float | None]], last: int) -> None:
        """Marks that we have made ourselves, in a transaction that knew all the others."""
        with self._lock:
            for place, generation, stale_at in marks:
                self.marks.add(place, generation, stale_at)
            self.known = max(self.known, last)

    def _load(self, connection: sqlite3.Connection) -> None:
        meta = meta_of(connection.execute("SELECT last_mark, state FROM meta WHERE id = 1").fetchone())
        if meta.last_mark < self.known:
            msg = "the marks go backwards"
            raise DamagedFileError(msg)
        marks, known = (self.marks, self.known) if len(self.marks) <= MOST_KNOWN else (Marks(), -1)
        rows = connection.execute(
            "SELECT space, owner, tag, last, state FROM marks WHERE last > ? ORDER BY last", (known,)
        ).fetchall()
        if known < 0 and len(rows) != meta.marks:
            msg = "marks are missing"
            raise DamagedFileError(msg)
        for row in rows:
            mark = mark_of(row)
            if mark.space == self._space:
                place = place_of(mark.owner, mark.tag)
                if mark.gone:
                    marks.add(place, mark.gone)
                if mark.stale:
                    marks.add(place, mark.stale, mark.stale_at)
        self.marks = marks
        self.known = meta.last_mark
