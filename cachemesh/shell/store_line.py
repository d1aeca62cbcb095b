"""The line in front of the store: calls go in the order in which their cause was committed.

Calls on different keys run at the same time; two on one key, or one that clears,
never overtake each other, so that a load asked for after an invalidation cannot
see what was invalidated.

A store that raises or hangs is left alone for a while. What it then missed is
remembered, not its content but that its copy is not to be believed, and made
up for when it is back.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from cachemesh.errors import StoreFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from threading import Lock

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.ports import Store, StoredEntry

TIMEOUT_S: Final = 1.0
"""A call that takes longer counts as failed."""

COOL_DOWN_S: Final = 1.0
"""After a failed call the store is left alone for so long."""

MOST_DOUBTS: Final = 10_000
"""Above so many doubtful keys, everything in the store is doubtful."""


class StoreCall:
    """One call to the store; `key` None concerns all of `owner`, `owner` None everything."""

    __slots__ = ("done", "entry", "key", "operation", "owner")

    def __init__(self, operation: str, owner: Owner | None, key: str | None, entry: StoredEntry | None = None) -> None:
        self.operation = operation
        self.owner = owner
        self.key = key
        self.entry = entry
        self.done: Future[StoredEntry | None] = Future()

    @property
    def is_wide(self) -> bool:
        return self.key is None


class StoreLine:
    """All calls of one cache to its store. `lock` is the runtime's; `drain` runs on one event loop at a time."""

    def __init__(self, store: Store, lock: Lock, report: Callable[[str, StoreFailed], None]) -> None:
        self._store = store
        self._lock = lock
        self._report = report
        self._waiting: deque[StoreCall] = deque()
        self._is_draining = False
        self._left_alone_until = 0.0
        self._doubted_keys: set[tuple[Owner, str]] = set()
        self._doubted_owners: set[Owner] = set()
        self._doubts_all = False

    def append(self, call: StoreCall) -> StoreCall:
        """Queue `call`. The runtime's lock is held."""
        self._waiting.append(call)
        return call

    @property
    def has_work(self) -> bool:
        return bool(self._waiting) and not self._is_draining

    async def drain(self) -> None:
        """Make all queued calls, and those that come meanwhile. Does nothing where somebody else is at it."""
        with self._lock:
            if self._is_draining:
                return
            self._is_draining = True
        batch: list[StoreCall] = []
        try:
            while True:
                with self._lock:
                    batch = self._next_batch()
                    if not batch:
                        self._is_draining = False
                        return
                if len(batch) == 1:
                    await self._make(batch[0])
                else:
                    await asyncio.gather(*(self._make(call) for call in batch))
        except BaseException:
            self._is_draining = False
            for call in batch:
                if not call.done.done():
                    self._doubt(call)
                    self._finish(call, None)
            raise

    def _next_batch(self) -> list[StoreCall]:
        """The longest run of calls that do not concern each other."""
        batch: list[StoreCall] = []
        busy: set[tuple[Owner | None, str | None]] = set()
        while self._waiting:
            call = self._waiting[0]
            if batch and (call.is_wide or batch[0].is_wide or (call.owner, call.key) in busy):
                break
            busy.add((call.owner, call.key))
            batch.append(self._waiting.popleft())
        return batch

    async def _make(self, call: StoreCall) -> None:
        if time.monotonic() < self._left_alone_until:
            self._doubt(call)
            self._finish(call, None)
            return
        found: StoredEntry | None = None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if self._has_doubts:
                    await self._make_up()
                if not self._is_doubtful(call):
                    found = await self._perform(call)
        except Exception as error:  # noqa: BLE001 (a store may raise anything; the answer does not depend on it)
            self._left_alone_until = time.monotonic() + COOL_DOWN_S
            self._doubt(call)
            self._report(call.key or "", StoreFailed(call.operation, error))
        self._finish(call, found)

    def _perform(self, call: StoreCall) -> Coroutine[Any, Any, Any]:
        store = self._store
        if call.operation == "read":
            return store.read(call.owner, call.key)  # type: ignore[arg-type]  # a read names both
        if call.operation == "write":
            return store.write(call.entry)  # type: ignore[arg-type]  # a write has its entry
        if call.key is not None:
            return store.delete(call.owner, call.key)  # type: ignore[arg-type]  # a key has an owner
        return store.clear() if call.owner is None else store.clear_partition(call.owner)

    async def _make_up(self) -> None:
        """Take away what the store should not have any more."""
        if self._doubts_all:
            await self._store.clear()
            self._doubts_all = False
            self._doubted_owners.clear()
            self._doubted_keys.clear()
        while self._doubted_owners:
            owner = next(iter(self._doubted_owners))
            await self._store.clear_partition(owner)
            self._doubted_owners.discard(owner)
        while self._doubted_keys:
            doubted = next(iter(self._doubted_keys))
            await self._store.delete(*doubted)
            self._doubted_keys.discard(doubted)

    @property
    def _has_doubts(self) -> bool:
        return self._doubts_all or bool(self._doubted_owners) or bool(self._doubted_keys)

    def _is_doubtful(self, call: StoreCall) -> bool:
        return call.operation == "read" and (
            self._doubts_all or call.owner in self._doubted_owners or (call.owner, call.key) in self._doubted_keys
        )

    def _doubt(self, call: StoreCall) -> None:
        """`call` was not made: what it would have changed is not to be believed."""
        if call.operation == "read":
            return
        if call.owner is None:
            self._doubts_all = True
        elif call.key is None:
            self._doubted_owners.add(call.owner)
        elif not self._doubts_all:
            self._doubted_keys.add((call.owner, call.key))
            self._doubts_all = len(self._doubted_keys) > MOST_DOUBTS

    @staticmethod
    def _finish(call: StoreCall, found: StoredEntry | None) -> None:
        if not call.done.done():
            call.done.set_result(found)
