"""`Batcher` and `SyncBatcher`: many single gets, one call of the origin (the idea of DataLoader)."""

from __future__ import annotations

import asyncio
import weakref
from concurrent.futures import Future
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar, Unpack

from returns.result import Failure, Result

from cachemesh.core.policies import CachePolicy
from cachemesh.errors import FetchCancelled
from cachemesh.shell.async_batch import Batch
from cachemesh.shell.default import DEFAULT, Default
from cachemesh.shell.durations import duration_s
from cachemesh.shell.live import WITHIN
from cachemesh.shell.thread_batch import fetched_together

if TYPE_CHECKING:
    from cachemesh.core.scopes import Owner
    from cachemesh.errors import CacheError
    from cachemesh.shell.cache import Cache
    from cachemesh.shell.call import GetOptions
    from cachemesh.shell.durations import Duration, Ttl
    from cachemesh.shell.lifetime import Lifetime
    from cachemesh.shell.live import Inside
    from cachemesh.shell.outcomes import Answer
    from cachemesh.shell.ports import FetchMany, SyncFetchMany
    from cachemesh.shell.sync_cache import SyncCache

T = TypeVar("T")
E = TypeVar("E")


class Batcher(Generic[T, E]):
    """Gets through `cache` whose fetches are collected and made by one call of `fetch_many`.

    `window`: how long keys are collected after the first one; 0 is until the
    event loop has gone round once. `most`: so many keys are fetched at once at
    the most. `fetch_many` is as for `get_many`. A duration or a number that
    makes no sense raises ValueError.

    >>> from returns.result import Success
    >>> from cachemesh import Cache
    >>> async def fetch_users(keys):
    ...     print("origin:", *keys)
    ...     return {key: Success(key.upper()) for key in keys}
    >>> async def main():
    ...     users = Batcher(Cache(), fetch_users)
    ...     return await asyncio.gather(users.get("ada"), users.get("bob"))
    >>> asyncio.run(main())
    origin: ada bob
    [<Success: ADA>, <Success: BOB>]
    """

    def __init__(
        self,
        cache: Cache,
        fetch_many: FetchMany[T, E],
        *,
        window: Duration = 0,
        most: int | None = None,
    ) -> None:
        self._cache = cache
        self._fetch_many = fetch_many
        self._window_s, self._most = bounds(window, most)
        self._batches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Batch] = weakref.WeakKeyDictionary()

    async def get(
        self,
        key: str,
        *,
        policy: CachePolicy = CachePolicy.CACHE_FIRST,
        ttl: Ttl | Lifetime | Default = DEFAULT,
        **options: Unpack[GetOptions],
    ) -> Result[T, E | CacheError]:
        """`Cache.get`, with the batch as its fetcher."""
        loop = asyncio.get_running_loop()
        batch = self._batches.get(loop)
        if batch is None:
            batch = Batch(self._fetch_many, weakref.proxy(loop), window_s=self._window_s, most=self._most)
            self._batches[loop] = batch
        return await self._cache.get(key, batch.fetch, policy=policy, ttl=ttl, **options)


class SyncBatcher(Generic[T, E]):
    """`Batcher` for threads: the first thread that fetches waits for `window`, and then fetches for all that came."""

    def __init__(
        self,
        cache: SyncCache,
        fetch_many: SyncFetchMany[T, E],
        *,
        window: Duration = 0.001,
        most: int | None = None,
    ) -> None:
        self._cache = cache
        self._fetch_many = fetch_many
        self._window_s, self._most = bounds(window, most)
        self._lock = Lock()
        self._open: dict[Owner, Slot] = {}
        """What belongs to one user is never fetched in the name of another: each owner has a slot of its own."""

    def get(
        self,
        key: str,
        *,
        policy: CachePolicy = CachePolicy.CACHE_FIRST,
        ttl: Ttl | Lifetime | Default = DEFAULT,
        **options: Unpack[GetOptions],
    ) -> Result[T, E | CacheError]:
        """`SyncCache.get`, with the batch as its fetcher."""
        return self._cache.get(key, self._fetch, policy=policy, ttl=ttl, **options)

    def _fetch(self) -> Answer:
        inside = WITHIN.get()
        assert inside is not None
        with self._lock:
            slot = self._open.get(inside.owner)
            leads = slot is None
            if slot is None:
                slot = self._open[inside.owner] = Slot()
            slot.flights.append(inside)
            slot.keys.add(inside.key)
            if self._most is not None and len(slot.keys) >= self._most:
                del self._open[inside.owner]
        if leads:
            self._lead(slot, inside.owner)
        answers = slot.answers.result()
        found: Answer = answers.get(inside.key, Failure(FetchCancelled(inside.key)))
        return found

    def _lead(self, slot: Slot, owner: Owner) -> None:
        answers: dict[str, Answer] = {}
        try:
            try:
                self._cache.pause(self._window_s)
            finally:
                with self._lock:
                    if self._open.get(owner) is slot:
                        del self._open[owner]
            answers = fetched_together(self._fetch_many, slot.flights)
        finally:
            slot.answers.set_result(answers)


class Slot:
    """The flights whose keys are fetched together, and what comes of it."""

    def __init__(self) -> None:
        self.flights: list[Inside] = []
        self.keys: set[str] = set()
        self.answers: Future[dict[str, Answer]] = Future()


def bounds(window: object, most: object) -> tuple[float, int | None]:
    """The window in seconds, and the number of keys."""
    window_s = duration_s(window)
    if window_s is None:
        msg = "a window is not None"
        raise ValueError(msg)
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        msg = "most is a number from 1 on, or None"
        raise ValueError(msg)
    return window_s, most
