"""`Feed`: the messages of a source, written into a cache as they come."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

from returns.pipeline import is_successful
from returns.result import Failure, Result, Success

from cachemesh.core.scopes import CacheScope
from cachemesh.errors import CacheClosed, CacheError, NoActiveUser
from cachemesh.shell.logging import shown_error
from cachemesh.sources.failure import FailureKind, NetworkFailure
from cachemesh.sources.websocket.tasks import ended

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self

    from cachemesh.shell.cache import Cache
    from cachemesh.shell.default import Default
    from cachemesh.shell.durations import Ttl
    from cachemesh.shell.lifetime import Lifetime
    from cachemesh.shell.sync_cache import SyncCache
    from cachemesh.shell.watch import Tenure

T = TypeVar("T")

Listening: TypeAlias = "AbstractAsyncContextManager[AsyncIterator[Result[T, NetworkFailure]]]"
"""The messages of a source, while somebody listens."""

LOG: Final = logging.getLogger("cachemesh.sources")

NOBODYS: Final = "cachemesh:feed"
"""The key under which a feed hears of the end of a session. Nothing is ever written there."""

SESSION_OVER: Final = NetworkFailure(kind=FailureKind.CANCELLED, message="the session is over")


@dataclass(frozen=True, slots=True)
class FeedTerms:
    """Where messages go."""

    cache: Cache | SyncCache
    key: str | Callable[[Any], str]
    scope: CacheScope
    ttl: Ttl | Lifetime | Default
    tags: tuple[str, ...]
    schema: Any
    on_failure: Callable[[NetworkFailure | CacheError], object] | None


class Feed(Generic[T]):
    """Writes each message into a cache while its block lasts: `async with source.feed(cache, key="prices")`.

    A message that cannot be read, and a lost connection, change nothing in the
    cache: what is there ages, by its `ttl`. With one somewhat longer than the
    usual pause between two messages, a `get` goes to its fetcher once the feed
    has been silent for so long, and to the feed's newest message before that.

    A feed of the user scope belongs to whoever is signed in when it begins, one
    of the session scope to that session: with them it ends, and nothing of
    theirs lands in the partition of the next. It ends as well with the cache,
    and once the source has given up; `wait` says why.
    """

    def __init__(self, messages: Callable[[], Listening[T]], terms: FeedTerms) -> None:
        self._messages = messages
        self._terms = terms
        self._cache = terms.cache
        self._user: str | None = None
        self._tenure: Tenure | None = None
        self._task: asyncio.Task[None] | None = None
        self._over: asyncio.Future[Result[None, NetworkFailure | CacheError]] | None = None
        self.written = 0
        """How many messages are in the cache by now, or were."""

    async def __aenter__(self) -> Self:
        if self._over is not None:
            msg = "a feed is entered once; make another one"
            raise RuntimeError(msg)
        loop = asyncio.get_running_loop()
        self._over = loop.create_future()
        user = self._user = self._terms.cache.active_user_id
        if self._terms.scope is CacheScope.USER:
            if user is None:
                self._end(Failure(NoActiveUser(self._name)))
                return self
            self._cache = self._terms.cache.for_user(user)

        def has_left() -> None:
            with suppress(RuntimeError):  # The loop has been closed, and the feed with it.
                loop.call_soon_threadsafe(self._stop_if_over)

        self._tenure = self._cache.watch(NOBODYS, scope=self._terms.scope).tenure(has_left)
        if self._tenure.is_over or self._terms.cache.active_user_id != user:
            self._end(Failure(self._reason()))
            return self
        self._task = asyncio.create_task(self._run(self._tenure), name="cachemesh-feed")
        self._task.add_done_callback(self._pass_on)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be written."""
        return self._over is not None and self._over.done()

    async def wait(self) -> Result[None, NetworkFailure | CacheError]:
        """Wait until the feed is over: the failure that ended it, or `Success(None)` where its block was left.

        `NetworkFailure` of the connection that was the last one, or of kind
        `cancelled` where the session is over; `CacheClosed`; `NoActiveUser`.
        """
        if self._over is None:
            msg = "wait inside of `async with source.feed(...) as feed`"
            raise RuntimeError(msg)
        return await asyncio.shield(self._over)

    async def aclose(self) -> None:
        """Close the connection; nothing is written from now on."""
        if self._tenure is not None:
            self._tenure.end()
        if self._over is not None and not self._over.done():
            self._over.set_result(Success(None))
        task, self._task = self._task, None
        if task is not None:
            await ended(task)

    async def _run(self, tenure: Tenure) -> None:
        last: NetworkFailure | CacheError = SESSION_OVER
        async with self._messages() as messages:
            async for result in messages:
                if tenure.is_over:
                    break
                failure = self._put(result, tenure)
                if failure is not None:
                    last = failure
                    if isinstance(failure, CacheClosed):
                        break
                    self._tell(failure)
        self._end(Failure(self._reason() if tenure.is_over else last))

    def _put(self, result: Result[T, NetworkFailure], tenure: Tenure) -> NetworkFailure | CacheError | None:
        """Write one message: what went wrong, if anything did."""
        if not is_successful(result):
            return result.failure()
        terms, value = self._terms, result.unwrap()
        try:
            key = terms.key(value) if callable(terms.key) else terms.key
        except Exception as error:  # noqa: BLE001 (a function of the user's)
            message = f"the function for the key raised {type(error).__name__}"
            return NetworkFailure(kind=FailureKind.PARSING, message=message)
        put = self._cache.put(key, value, ttl=terms.ttl, tags=terms.tags, scope=terms.scope, schema=terms.schema)
        if not is_successful(put):
            return put.failure()
        if tenure.is_over:  # In another thread, just now: nothing of theirs is left behind.
            self._cache.invalidate(key, scope=terms.scope)
        self.written += 1
        return None

    def _tell(self, failure: NetworkFailure | CacheError) -> None:
        if self._terms.on_failure is None:
            LOG.warning("a feed went wrong: %r", shown_error((self._terms.scope, self._user), failure))
            return
        try:
            self._terms.on_failure(failure)
        except Exception as error:  # noqa: BLE001 (a callback that breaks does not end the feed)
            LOG.warning("the on_failure of a feed raised %s", type(error).__name__)

    def _pass_on(self, task: asyncio.Task[None]) -> None:
        """What nobody expected is raised to who waits, and to who leaves the block."""
        error = None if task.cancelled() else task.exception()
        if error is not None and self._over is not None and not self._over.done():
            self._over.set_exception(error)
            self._over.exception()

    def _stop_if_over(self) -> None:
        """The session is over, or the cache is closed."""
        if self._tenure is None or not self._tenure.is_over or self.is_over:
            return
        self._end(Failure(self._reason()))
        if self._task is not None:
            self._task.cancel()

    def _reason(self) -> NetworkFailure | CacheError:
        return CacheClosed() if self._tenure is not None and self._tenure.is_closed else SESSION_OVER

    def _end(self, answer: Result[None, NetworkFailure | CacheError]) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(answer)

    @property
    def _name(self) -> str:
        return self._terms.key if isinstance(self._terms.key, str) else NOBODYS
