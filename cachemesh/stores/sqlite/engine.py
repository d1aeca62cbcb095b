"""What a store shares with its threads: the file, the queue, and reading."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from contextlib import contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from cachemesh.shell.ports import Change
from cachemesh.stores.envelope import DamagedEnvelopeError, LockedEnvelopeError
from cachemesh.stores.sqlite.complaints import Complaints
from cachemesh.stores.sqlite.errors import (
    FAILURES,
    ClosedError,
    DamagedFileError,
    SqliteStoreError,
    UnavailableError,
    is_damage,
    shown,
)
from cachemesh.stores.sqlite.file import MOST_WAL_BYTES, DataFile
from cachemesh.stores.sqlite.places import Places
from cachemesh.stores.sqlite.queue import Order, Queue, applied
from cachemesh.stores.sqlite.records import record_of
from cachemesh.stores.sqlite.schema import AT_ONCE, FENCE, LAST_MARK, READ, READ_MANY
from cachemesh.stores.sqlite.transaction import Transaction
from cachemesh.stores.sqlite.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.ports import StoredEntry
    from cachemesh.stores.envelope import Cipher
    from cachemesh.stores.sqlite.file import Connect, Database
    from cachemesh.stores.sqlite.lease import Claiming
    from cachemesh.stores.sqlite.places import PlaceNumber
    from cachemesh.stores.sqlite.queue import Answer
    from cachemesh.stores.sqlite.settings import Settings

CHECK_S: Final = 1.0
"""So often we look whether the file is still where it was, and try again to open one that cannot be opened."""

IO_WAIT_S: Final = 1.0
FEW: Final = 4
"""So many places are read one by one."""


class Engine:
    """`io` is held by whoever opens, writes or closes the file; reading an open file needs no lock."""

    def __init__(self, settings: Settings, cipher: Cipher | None, clock: Callable[[], float], connect: Connect) -> None:
        self.settings = settings
        self.namespace = settings.namespace
        self.cipher = cipher
        self.clock = clock
        self.places = Places(settings.namespace)
        self.queue = Queue(settings.queue_size, settings.queue_bytes)
        self.complaints = Complaints()
        self.io = threading.RLock()
        self.file = DataFile(settings.path, self.places.space, connect)
        self.database: Database | None = None
        self.pid = os.getpid()
        self.is_orphaned = False
        self.degraded: Exception | None = None
        """Why the last try to write did not come through."""
        self.worker: Worker | None = None
        self._check_at = 0.0
        self._retry_at = 0.0

    # Ordering

    def put(self, change: Change, answer: Answer | None = None, *, is_awaited: bool = True) -> bool:
        """As `Queue.put`, with somebody there to carry it out."""
        if os.getpid() != self.pid:
            self.forked(is_clean=False)
        is_taken = self.queue.put(change, answer, is_awaited=is_awaited)
        if self.worker is None:
            self.work()
        return is_taken

    def ask(
        self, kind: str, answer: Callable[[Any, Exception | None], None] | None, claiming: Claiming | None = None
    ) -> None:
        """An order of our own."""
        if os.getpid() != self.pid:
            self.forked(is_clean=False)
        order = Order(kind, None, (None, None), 0)
        order.answer = answer
        order.claiming = claiming
        self.queue.ask(order)
        if self.worker is None:
            self.work()

    def work(self) -> None:
        """Have a thread carry out what is queued."""
        with self.queue.lock:
            if self.worker is None:
                self.worker = Worker(self)
                self.queue.is_idle = False
                self.worker.thread.start()

    # Reading

    def read(self, owner: Owner, key: str) -> StoredEntry | None:
        """The entry under (owner, key), as the queue and the marks leave it. It raises nothing."""
        queue = self.queue
        place = (owner, key)
        # In this order: an order about the place leaves the overlay before the marks after it do.
        if queue.marks is None and place not in queue.overlay:
            return self._read_disk(owner, key)
        order, marks = queue.pending(place)
        if order is not None:
            self.forget_seen(place)
            if order.kind not in {"write", "commit"}:
                return None
            assert order.change is not None
            entry = order.change.entry
            ticket = order.ticket
            if order.kind == "commit":
                ticket = 0
                entry = self._of_commit(order, owner, key)
        else:
            entry, ticket = self._read_disk(owner, key), 0
        if entry is None or marks is None:
            return entry
        return applied(marks, entry, ticket)

    def _of_commit(self, order: Order, owner: Owner, key: str) -> StoredEntry | None:
        """What a commit that is still to be made says, unless something younger has come in its way."""
        assert order.change is not None
        entry, claim = order.change.entry, order.change.claim
        assert entry is not None
        assert claim is not None
        database = self.opened()
        if database is None:
            return None
        try:
            connection = database.lend()
            try:
                (latest,) = connection.execute(FENCE, self.places.number(owner, key) * 2).fetchone()
                database.view.load(connection)
            finally:
                database.give_back(connection)
        except ClosedError:
            return self._of_commit(order, owner, key)
        except (*FAILURES, TypeError) as error:
            self.failed(error, database)
            return None
        if latest is not None and latest > claim.generation:
            return self._read_disk(owner, key)
        dated = replace(entry, generation=claim.generation)
        return database.view.applied(dated)

    def _read_disk(self, owner: Owner, key: str) -> StoredEntry | None:
        database = self.database
        if database is None or time.monotonic() >= self._check_at:
            database = self.opened()
            if database is None:
                return None
        try:
            connection = database.lend()
            try:
                row = connection.execute(READ, self.places.number(owner, key)).fetchone()
                if row is not None and row[3] > database.view.known:
                    database.view.load(connection)
            finally:
                database.give_back(connection)
            if row is None:
                database.saw((owner, key), 0)
                return None
            return self._entry(database, owner, key, row)
        except ClosedError:
            return self._read_disk(owner, key)
        except (*FAILURES, TypeError) as error:
            self.failed(error, database)
            return None

    def _entry(self, database: Database, owner: Owner, key: str, row: Sequence[Any]) -> StoredEntry | None:
        """The entry in the row (envelope, generation, n), as the marks leave it."""
        envelope, generation, n = row[:3]
        database.saw((owner, key), n)
        try:
            entry = record_of(envelope, generation, self.namespace, owner, key, self.cipher)
        except DamagedEnvelopeError as error:
            # The key of what is gone may be gone as well, and there is nothing wrong about that.
            if type(generation) is not int or not database.view.marks.is_over(owner, generation):
                self._mend_record(owner, key, error)
            return None
        marks = database.view.marks
        return marks.applied(entry) if len(marks) else entry

    def read_turn(self, questions: Sequence[Any]) -> list[Any]:
        """The answers to what was asked in one turn of an event loop: one place each, or a list of them."""
        places: list[tuple[Owner, str]] = []
        for question in questions:
            if type(question) is list:
                places += question
            else:
                places.append(question)
        found = self.read_many(places)
        if len(found) == len(questions) and not any(type(question) is list for question in questions):
            return found
        entries = iter(found)
        return [
            list(islice(entries, len(question))) if type(question) is list else next(entries) for question in questions
        ]

    def read_many(self, places: Sequence[tuple[Owner, str]]) -> list[StoredEntry | None]:
        """What `read` answers to each of `places`. What is on the disk is read in one transaction."""
        queue = self.queue
        if len(places) < FEW or queue.marks is not None:
            return [self.read(owner, key) for owner, key in places]
        overlay = queue.overlay
        if not overlay:
            return self._read_many_disk(places)
        # What is not in the overlay now is on the disk, if it is anywhere.
        is_pending = [place in overlay for place in places]
        on_disk = iter(
            self._read_many_disk([place for place, pends in zip(places, is_pending, strict=True) if not pends])
        )
        return [self.read(*place) if pends else next(on_disk) for place, pends in zip(places, is_pending, strict=True)]

    def _read_many_disk(self, places: Sequence[tuple[Owner, str]]) -> list[StoredEntry | None]:
        database = self.opened()
        if database is None:
            return [None] * len(places)
        numbers = [self.places.number(owner, key) for owner, key in places]
        found: dict[PlaceNumber, Sequence[Any]] = {}
        try:
            connection = database.lend()
            try:
                connection.execute("BEGIN")
                try:
                    for first in range(0, len(numbers), AT_ONCE):
                        asked: list[int | None] = list(chain.from_iterable(numbers[first : first + AT_ONCE]))
                        asked += [None] * (2 * AT_ONCE - len(asked))
                        for row in connection.execute(READ_MANY, asked):
                            found[row[3:]] = row
                    (last_mark,) = connection.execute(LAST_MARK).fetchone()
                finally:
                    connection.execute("COMMIT")
                if last_mark > database.view.known:
                    database.view.load(connection)
            finally:
                database.give_back(connection)
            entries: list[StoredEntry | None] = []
            for (owner, key), number in zip(places, numbers, strict=True):
                row = found.get(number)
                if row is None:
                    database.saw((owner, key), 0)
                    entries.append(None)
                else:
                    entries.append(self._entry(database, owner, key, row))
        except ClosedError:
            return self._read_many_disk(places)
        except (*FAILURES, TypeError) as error:
            self.failed(error, database)
            return [None] * len(places)
        else:
            return entries

    def seen(self, owner: Owner, key: str) -> int | None:
        """`n` of what was read last under (owner, key): 0 where nothing was, None where that is not known."""
        database = self.database
        return None if database is None else database.seen.get((owner, key))

    def forget_seen(self, place: tuple[Owner, str]) -> None:
        database = self.database
        if database is not None:
            database.seen.pop(place, None)

    # The file

    def opened(self) -> Database | None:
        """The open file; None where it cannot be had now. At most once a second it is looked for where it was."""
        if os.getpid() != self.pid:
            self.forked(is_clean=False)
        now = time.monotonic()
        database = self.database
        if database is None:
            return self._opened_anew(None) if now >= self._retry_at else None
        if now < self._check_at:
            return database
        self._check_at = now + CHECK_S
        return database if database.is_in_place() else self._opened_anew(database)

    def _opened_anew(self, before: Database | None) -> Database | None:
        """In the place of `before`, unless another thread is faster."""
        if not self.io.acquire(timeout=IO_WAIT_S):
            return None
        try:
            if self.database is before:
                if before is not None:
                    self.complaints.tell(UnavailableError("the file is not where it was any more; it is opened anew"))
                    self.close()
                self._open()
        except FAILURES as error:
            self._retry_at = time.monotonic() + CHECK_S
            self.complaints.tell(UnavailableError(f"the file cannot be opened: {shown(error)}"))
            return None
        else:
            return self.database
        finally:
            self.io.release()

    def _open(self) -> None:
        """`io` is held."""
        if self.is_orphaned:
            # SQLite's own tables in here are the parent's: it would take the parent's locks for its own.
            msg = "this process was forked while the file was in use"
            raise UnavailableError(msg)
        self.database = self.file.open(self.complaints.tell)
        self._check_at = time.monotonic() + CHECK_S

    def try_at_once(self) -> None:
        """Open the file when it is next needed, however lately that failed."""
        self._retry_at = 0.0

    def close(self) -> None:
        """Let go of the file. `io` is held."""
        database, self.database = self.database, None
        if database is not None and not database.close():
            database.abandon()

    def forked(self, *, is_clean: bool) -> None:
        """We are a child: threads, locks and orders are the parent's.

        `is_clean`: it had let go of the file. Else its connections are left as
        they are, and the file is not opened in here.
        """
        database, self.database = self.database, None
        if database is not None:
            database.abandon()
        self.is_orphaned = self.is_orphaned or not (is_clean or database is None)
        self.pid = os.getpid()
        self.io = threading.RLock()
        self.file.lock.close()
        self.queue = Queue(self.settings.queue_size, self.settings.queue_bytes)
        self.complaints = Complaints(self.complaints.report)
        self.worker = None
        self.degraded = None
        self._check_at = self._retry_at = 0.0

    def let_go(self, wait_s: float) -> bool:
        """Close the file unless it is read from for longer than `wait_s`; whether it is closed. `io` is held."""
        database, self.database = self.database, None
        if database is None or database.close(wait_s):
            return True
        self.database = database
        return False

    @contextmanager
    def writing(self, database: Database) -> Iterator[Transaction]:
        """A transaction, with the lock between processes. `io` is held. What goes wrong undoes it all."""
        writer = database.writer
        with self.file.lock.held():
            writer.execute("BEGIN IMMEDIATE")
            try:
                transaction = Transaction(database, self.places, self.settings, self.cipher, self.clock())
                yield transaction
                writer.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # It has rolled back by itself.
                    writer.execute("ROLLBACK")
                raise
            if transaction.new_marks:
                database.view.add(transaction.new_marks, transaction.meta.last_mark)
            if database.wal_bytes() > MOST_WAL_BYTES:
                try:
                    database.checkpoint()
                except sqlite3.Error as error:
                    # It is in the log, and will be tried again after the next one.
                    self.complaints.tell(UnavailableError(f"the log could not be taken into the file: {shown(error)}"))

    def failed(self, error: Exception, database: Database) -> None:
        """A read did not come through. If it is the file that is damaged, the worker sees to it."""
        if isinstance(error, TypeError) or is_damage(error):
            self.complaints.tell(DamagedFileError(f"the file is damaged: {shown(error)}"))
            if not database.is_suspect:
                database.is_suspect = True
                self.ask("mend", None)
        else:
            self.complaints.tell(UnavailableError(f"the file cannot be read: {shown(error)}"))

    def _mend_record(self, owner: Owner, key: str, error: DamagedEnvelopeError) -> None:
        """Remove a record that is not to be believed: its generation may be as wrong, and fence off those to come."""
        if isinstance(error, LockedEnvelopeError):
            self.complaints.tell(SqliteStoreError(f"a record cannot be read, and is taken for missing: {error}"))
            return
        self.complaints.tell(SqliteStoreError(f"a record is not to be believed, and is taken for missing: {error}"))
        self.put(Change("delete", owner, key))
