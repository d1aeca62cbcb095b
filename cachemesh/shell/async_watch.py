"""Watching a key from asyncio."""

from __future__ import annotations

import asyncio
import threading
import weakref
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from cachemesh.shell.watch import ENDED, NOTHING_YET, Mailbox, Subscription, Watching

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from returns.result import Result

    from cachemesh.errors import CacheError
    from cachemesh.shell.outcomes import Answer

T = TypeVar("T")
E = TypeVar("E")


class Updates(Generic[T, E]):
    """The news of a key as an asynchronous iterator. It ends with the watch."""

    def __init__(self, given: Callable[[Answer], Answer]) -> None:
        self.mailbox = Mailbox()
        self.mailbox.ring = self._ring
        self._given = given
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result[T, E | CacheError]:
        while True:
            waiter = self._waiter = self._loop.create_future()
            news = self.mailbox.take()
            if news is ENDED:
                raise StopAsyncIteration
            if news is not NOTHING_YET:
                return cast("Result[T, E | CacheError]", self._given(news))
            await waiter

    def _ring(self) -> None:
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001 (documented for libraries)
            self._wake()
        else:
            with suppress(RuntimeError):  # The loop has been closed: nobody waits.
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Watch(Watching, Generic[T, E]):
    """The news of a key from the moment of subscribing on, never what was there before.

    As an asynchronous context manager it gives an iterator; `subscribe` calls
    back. A slow consumer gets the newest news, never a queue.
    """

    async def __aenter__(self) -> Updates[T, E]:
        updates: Updates[T, E] = Updates(self._given)
        unwatch = self._open(updates.mailbox, keep=False)

        def close() -> None:
            unwatch()
            updates.mailbox.end()
            updates.mailbox.ring()

        self._close = close
        return updates

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def subscribe(self, callback: Callable[[Result[T, E | CacheError]], object]) -> Subscription:
        """Call `callback` with each piece of news, soon, on the event loop that runs now.

        Without a running loop: on the one that runs when there is news. A
        callback that raises is reported to the logger, and stays subscribed.
        """
        loop = asyncio._get_running_loop()  # noqa: SLF001 (documented for libraries)
        home = _no_loop if loop is None else weakref.ref(loop)

        def schedule(work: Callable[[], None]) -> None:
            loop = home()
            if loop is None or loop.is_closed():
                loop = asyncio._get_running_loop()  # noqa: SLF001 (documented for libraries)
            if loop is None:
                threading.Thread(target=work, name="cachemesh-watch", daemon=True).start()
            else:
                loop.call_soon_threadsafe(work, context=Context())

        return self._subscribe(callback, schedule)


def _no_loop() -> asyncio.AbstractEventLoop | None:
    return None
