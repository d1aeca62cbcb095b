"""The thread that writes: it takes what is queued, many orders a transaction, sweeps, and mends.

What cannot be written is doubted from then on (see `queue`), and tried again
each second, with a single small transaction, until the disk takes it. What was
to be kept is lost then; what was to go stays gone.
"""

from __future__ import annotations

import queue as queues
import sqlite3
import threading
import time
from math import inf
from typing import TYPE_CHECKING, Final

from cachemesh.shell.ports import Claim
from cachemesh.stores.envelope import WaitingCipher
from cachemesh.stores.sqlite.complaints import log
from cachemesh.stores.sqlite.errors import (
    FAILURES,
    DamagedFileError,
    NotFlushedError,
    SqliteStoreError,
    UnavailableError,
    is_busy,
    is_damage,
    shown,
)
from cachemesh.stores.sqlite.file import quarantine
from cachemesh.stores.sqlite.lease import REFUSED
from cachemesh.stores.sqlite.sweep import PASS_PAUSE_S, Sweeper

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cachemesh.core.scopes import Owner
    from cachemesh.stores.sqlite.engine import Engine
    from cachemesh.stores.sqlite.queue import Order

LINGER_S: Final = 0.002
"""A few orders that nobody waits for are given the company of those that come in a moment."""

FEW: Final = 256
RETRY_S: Final = 1.0
DISK_TROUBLE: Final = (sqlite3.OperationalError, OSError, SqliteStoreError)
"""What the orders are not to blame for."""


class Worker:
    """Runs until it is stopped. It knows the engine, and nobody who would be kept alive by it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._try_at = 0.0
        self._lost = 0
        self._stops = False
        self._on_end: list[Callable[[], None]] = []
        self.sweeper = Sweeper(engine)
        self.thread = threading.Thread(target=self._run, name="cachemesh-sqlite-writer", daemon=True)

    def stop(self) -> None:
        """Write what is queued, let go of the file, and end. Waits for nothing, and may be called from anywhere."""
        self._stops = True
        self._engine.queue.bell.put(None)

    def let_go(self, then: Callable[[], None]) -> None:
        """Let go of the file when what is queued is written, and call `then`; end, if nobody has ordered more."""
        self._on_end.append(then)
        self._engine.queue.bell.put(None)

    def _run(self) -> None:
        queue = self._engine.queue
        while True:
            if queue.rest() and not self._is_ending:
                self._sleep()
            if not self._is_ending and queue.linger(FEW):
                self._wait(LINGER_S)
                queue.lingers = False
            self._work()
            if self._on_end or (self._stops and not len(queue)):
                if queue.doubts:
                    # The last chance: a process that opens the file next knows nothing of them.
                    self._try_at = 0.0
                    self._engine.try_at_once()
                    self._carry_out([])
                if self._ended():
                    return

    @property
    def _is_ending(self) -> bool:
        return self._stops or bool(self._on_end)

    def _sleep(self) -> None:
        until = self.sweeper.due_at
        if self._engine.queue.doubts:
            until = min(until, self._try_at)
        self._wait(None if until == inf else max(0.0, until - time.monotonic()))

    def _wait(self, wait_s: float | None) -> None:
        """Until the bell rings."""
        try:
            self._engine.queue.bell.get(timeout=wait_s)
        except queues.Empty:
            return

    def _ended(self) -> bool:
        """Let go of the file. False if there is something to do again."""
        engine = self._engine
        with engine.io:
            engine.close()
            engine.file.lock.close()
        thens, self._on_end = self._on_end, []
        with engine.queue.lock:
            is_over = not len(engine.queue) and not self._on_end
            if is_over:
                engine.worker = None
                engine.queue.is_idle = True
        for then in thens:
            then()
        return is_over

    def _work(self) -> None:
        """One batch, or a step of the sweep."""
        engine = self._engine
        orders = engine.queue.take()
        if orders or (engine.queue.doubts and time.monotonic() >= self._try_at):
            self._carry_out(orders)
        elif engine.degraded is None and not self._is_ending:
            try:
                self.sweeper.step()
            except Exception as error:  # noqa: BLE001 (whatever it is, it is told, and writing goes on)
                self._unswept(error)

    def _unswept(self, error: Exception) -> None:
        self.sweeper.forget()
        self.sweeper.due_at = time.monotonic() + PASS_PAUSE_S
        database = self._engine.database
        if database is not None:
            self._engine.failed(error, database)

    # A batch

    def _carry_out(self, orders: list[Order]) -> None:
        engine = self._engine
        if any(order.kind == "mend" for order in orders):
            self._mend()
            orders = [order for order in orders if order.kind != "mend"]
        if engine.degraded is not None and time.monotonic() < self._try_at:
            self._fail(orders, engine.degraded)
            return
        # While a key that is to be destroyed cannot be, it is tried again each second, and not in each batch.
        leftovers = engine.queue.leftovers() if time.monotonic() >= self._try_at else []
        for batch in self._parts([*leftovers, *orders]):
            if engine.degraded is not None and time.monotonic() < self._try_at:
                self._fail(batch, engine.degraded)
            else:
                self._carry_out_part(batch)

    def _parts(self, batch: list[Order]) -> list[list[Order]]:
        """With a cipher, what clears ends a part: after its key is destroyed, the next one is to be used."""
        if self._engine.cipher is None:
            return [batch]
        parts: list[list[Order]] = [[]]
        for order in batch:
            parts[-1].append(order)
            if clears(order):
                parts.append([])
        return [part for part in parts if part]

    def _carry_out_part(self, batch: list[Order]) -> None:
        try:
            try:
                answers = self._written(batch)
            except FAILURES as error:
                if is_damage(error):
                    self._mend()
                elif not is_busy(error):
                    raise
                answers = self._written(batch)
        except DISK_TROUBLE as error:
            self._fail(batch, error)
        except Exception as error:  # noqa: BLE001 (whatever it is: what was to be written is doubted, and the thread lives)
            self._one_by_one(batch, error)
        else:
            self._succeed(batch, answers)

    def _one_by_one(self, batch: list[Order], error: Exception) -> None:
        """There is an order in `batch` that cannot be carried out (a value may be too large): the others can."""
        if len(batch) == 1:
            self._fail(batch, error)
            return
        for order in batch:
            try:
                answers = self._written([order])
            except Exception as raised:  # noqa: BLE001 (as above)
                self._fail([order], raised)
            else:
                self._succeed([order], answers)

    def _written(self, batch: list[Order]) -> Mapping[Order, object]:
        engine = self._engine
        if all(order.change is None and order.claiming is None for order in batch):
            return {}
        if isinstance(engine.cipher, WaitingCipher):
            # Not within the transaction: others wait for that.
            engine.cipher.prepare(owners_of(batch))
        with engine.io:
            database = engine.opened()
            if database is not None and not database.is_in_place():
                engine.close()
                database = engine.opened()
            if database is None:
                msg = "the file cannot be opened"
                raise UnavailableError(msg)
            if self.sweeper.due_at == inf:
                self.sweeper.due_at = time.monotonic() + PASS_PAUSE_S
            with engine.writing(database) as transaction:
                answers = transaction.apply(batch)
                transaction.finish()
            if transaction.unsealed:
                self._lost += transaction.unsealed
                engine.complaints.tell(SqliteStoreError("a value could not be encrypted, and was not stored"))
            return answers

    def _succeed(self, batch: list[Order], answers: Mapping[Order, object]) -> None:
        engine = self._engine
        if engine.degraded is not None:
            engine.degraded = None
            log.info("what is written comes through again")
        kept = [order for order in batch if clears(order) and not self._forgotten(order)]
        if kept:
            self._try_at = time.monotonic() + RETRY_S
            engine.queue.failed(kept)
        engine.queue.done([order for order in batch if order not in kept] if kept else batch)
        for order in batch:
            if order.answer is None:
                continue
            if order.kind == "flush" and (self._lost or engine.queue.doubts):
                self._lost = 0
                order.answer(None, NotFlushedError("what was written before could not be kept"))
            else:
                order.answer(answers.get(order), None)

    def _forgotten(self, order: Order) -> bool:
        """Whether the key of what was cleared is destroyed. The order stays in doubt until it is."""
        engine = self._engine
        if engine.cipher is None:
            return True
        assert order.change is not None
        try:
            engine.cipher.forget(order.change.owner)
        except Exception as error:  # noqa: BLE001 (a cipher's, whatever it raises; it is told, and tried again)
            engine.complaints.tell(
                SqliteStoreError(f"a key could not be destroyed, and will be tried again: {type(error).__name__}")
            )
            return False
        return True

    def _fail(self, batch: list[Order], error: Exception) -> None:
        engine = self._engine
        if engine.degraded is not error:
            engine.degraded = error
            self._try_at = time.monotonic() + RETRY_S
            engine.complaints.tell(
                UnavailableError(
                    f"nothing can be written: {shown(error)}; what was there before is not believed meanwhile"
                )
            )
        self._lost += sum(1 for order in batch if order.kind in {"write", "commit"})
        engine.queue.failed(batch)
        for order in batch:
            if order.answer is None:
                continue
            if order.kind == "claim":
                claiming = order.claiming
                order.answer(Claim(claiming.owner, claiming.key, REFUSED), None)
            elif order.kind == "flush":
                order.answer(None, NotFlushedError(f"nothing can be written: {shown(error)}"))
            else:
                order.answer(None, None)

    def _mend(self) -> None:
        """The file is damaged: move it away, unless somebody else has done so."""
        engine = self._engine
        self.sweeper.forget()
        try:
            with engine.io:
                database = engine.database
                engine.close()
                if database is None:
                    return
                with engine.file.lock.held():
                    if not database.is_in_place():
                        return
                    name = quarantine(database.path)
            engine.complaints.tell(DamagedFileError(f"the file was damaged; it is now {name}, and a new one begins"))
        except OSError as error:
            engine.complaints.tell(UnavailableError(f"a damaged file could not be moved away: {shown(error)}"))


def clears(order: Order) -> bool:
    """Whether a partition, or everything, is cleared by it: what has a key."""
    return order.change is not None and order.change.operation in {"clear", "clear_partition"}


def owners_of(batch: list[Order]) -> set[Owner]:
    """Of whom there is something to encrypt."""
    return {
        order.change.entry.owner
        for order in batch
        if order.change is not None and order.change.entry is not None and order.kind in {"write", "commit"}
    }
