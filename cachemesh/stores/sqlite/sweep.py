"""The sweep: what nobody would serve any more is removed, a few rows a step, until each row was looked at.

A pass goes through the rows in the order of their writing; those that come
meanwhile are at the end, so it meets every one. Of the processes that share a
file, one at a time makes a pass. At its end, what only the removed rows were
kept for goes as well: tombs, marks, leases.
"""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Any, Final

from cachemesh.stores.envelope import LockedEnvelopeError
from cachemesh.stores.sqlite.records import any_record_of
from cachemesh.stores.sqlite.schema import mark_of, meta_of

if TYPE_CHECKING:
    from cachemesh.stores.sqlite.engine import Engine
    from cachemesh.stores.sqlite.file import Database
    from cachemesh.stores.sqlite.transaction import Transaction

ROWS_A_STEP: Final = 512
STEP_PAUSE_S: Final = 0.05
PASS_PAUSE_S: Final = 60.0
FIRST_PAUSE_S: Final = 1.0
VACUUMED_AT_ONCE: Final = 1_024
"""Pages that are given back to the system at the end of a pass."""


class Sweeper:
    """The sweep of one process. The worker calls it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._cursor: int | None = None
        self._floor = 0
        self._oldest = inf
        self.due_at = time.monotonic() + FIRST_PAUSE_S
        self.passes = 0

    def step(self, *, at_once: bool = False) -> None:
        """Look at some rows, if it is time for that."""
        if not at_once and time.monotonic() < self.due_at:
            return
        engine = self._engine
        with engine.io:
            database = engine.database
            if database is None:
                self.due_at = inf  # Until the file is opened again, nothing is to be swept.
                return
            if self._cursor is None and not self._begin(database, at_once=at_once):
                self.due_at = time.monotonic() + PASS_PAUSE_S
                return
            self._look(database)
        self.due_at = time.monotonic() + (PASS_PAUSE_S if self._cursor is None else STEP_PAUSE_S)

    def a_pass(self) -> None:
        """A whole pass, now."""
        self._cursor = None
        self.step(at_once=True)
        while self._cursor is not None:
            self.step(at_once=True)

    def forget(self) -> None:
        """The file is another one."""
        self._cursor = None
        self._oldest = inf

    def _begin(self, database: Database, *, at_once: bool) -> bool:
        """False if another process has made a pass lately."""
        meta = meta_of(database.writer.execute("SELECT last_mark, state FROM meta WHERE id = 1").fetchone())
        if not at_once and 0.0 <= self._engine.clock() - meta.swept_at < PASS_PAUSE_S:
            return False
        with self._engine.writing(database) as transaction:
            transaction.meta.swept_at = self._engine.clock()
            transaction.put_meta()
            self._floor = transaction.meta.floor
        self._cursor = -(2**63)
        self._oldest = inf
        return True

    def _look(self, database: Database) -> None:
        assert self._cursor is not None
        rows = database.writer.execute(
            "SELECT n, owner, key, generation, dies, space FROM entries WHERE n > ? ORDER BY n LIMIT ?",
            (self._cursor, ROWS_A_STEP),
        ).fetchall()
        now = self._engine.clock()
        dead = [row[:4] for row in rows if self._is_dead(database, row, now)]
        if dead:
            with self._engine.writing(database) as transaction:
                transaction.remove(dead)
                transaction.put_meta()
        if len(rows) < ROWS_A_STEP:
            self._end(database)
        else:
            self._cursor = rows[-1][0]

    def _is_dead(self, database: Database, row: tuple[Any, ...], now: float) -> bool:
        n, _, _, generation, dies, space = row
        if type(generation) is not int or not (dies is None or type(dies) is float):
            return True  # Damaged.
        if dies is not None and dies <= now:
            return True
        if space != self._engine.places.space:
            return False
        if generation < database.view.known and len(database.view.marks):
            engine = self._engine
            found = database.writer.execute("SELECT envelope FROM entries WHERE n = ?", (n,)).fetchone()
            try:
                entry = any_record_of(found and found[0], generation, engine.namespace, engine.cipher)
            except LockedEnvelopeError:
                pass  # Who has the key will see.
            else:
                if entry is None or database.view.applied(entry) is None:
                    return True
        self._oldest = min(self._oldest, generation)
        return False

    def _end(self, database: Database) -> None:
        self._cursor = None
        self.passes += 1
        with self._engine.writing(database) as transaction:
            connection, meta = database.writer, transaction.meta
            connection.execute("DELETE FROM tombs WHERE generation <= ? OR generation > ?", (meta.floor, meta.seq))
            now = self._engine.clock()
            connection.execute("DELETE FROM leases WHERE ends_at <= ? OR ends_at > ? + length_s", (now, now))
            self._drop_marks(transaction, int(min(self._oldest, self._floor)))
            (meta.entries,) = connection.execute("SELECT count(*) FROM entries").fetchone()
            (meta.tombs,) = connection.execute("SELECT count(*) FROM tombs").fetchone()
            transaction.put_meta()
        with self._engine.file.lock.held():
            # A script, as one execution of the module's gives back one page.
            database.writer.executescript(f"PRAGMA incremental_vacuum({VACUUMED_AT_ONCE})")
            database.checkpoint()

    def _drop_marks(self, transaction: Transaction, before: int) -> None:
        """Those that no row is old enough for, and no claim that may still come."""
        connection = transaction.connection
        rows = connection.execute(
            "SELECT space, owner, tag, last, state FROM marks WHERE space = ? AND last <= ?",
            (self._engine.places.space, before),
        ).fetchall()
        for row in rows:
            mark_of(row)
            connection.execute("DELETE FROM marks WHERE space = ? AND owner = ? AND tag = ?", row[:3])
        transaction.meta.marks -= len(rows)
