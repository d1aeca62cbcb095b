"""Watching a key from threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from cachemesh.shell.watch import ENDED, NOTHING_YET, Mailbox, Subscription, Watching

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from returns.result import Result

    from cachemesh.core.scopes import Owner
    from cachemesh.errors import CacheError
    from cachemesh.shell.outcomes import Answer
    from cachemesh.shell.runtime import Runtime

T = TypeVar("T")
E = TypeVar("E")


class SyncUpdates(Generic[T, E]):
    """The news of a key as an iterator that blocks until there is some. It ends with the watch."""

    def __init__(self, given: Callable[[Answer], Answer]) -> None:
        self.mailbox = Mailbox()
        self._given = given
        self._bell = threading.Event()
        self.mailbox.ring = self._bell.set

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Result[T, E | CacheError]:
        while True:
            self._bell.clear()
            news = self.mailbox.take()
            if news is ENDED:
                raise StopIteration
            if news is not NOTHING_YET:
                return cast("Result[T, E | CacheError]", self._given(news))
            self._bell.wait()


class SyncWatch(Watching, Generic[T, E]):
    """The news of a key from the moment of subscribing on, never what was there before.

    As a context manager it gives a blocking iterator; `subscribe` calls back
    from a thread of its own. A slow consumer gets the newest news, never a queue.
    """

    def __init__(
        self,
        runtime: Runtime,
        owners: tuple[Owner, ...],
        key: str,
        unseen: Exception,
        spawn: Callable[[Callable[[], None]], None],
    ) -> None:
        super().__init__(runtime, owners, key, unseen)
        self._spawn = spawn

    def __enter__(self) -> SyncUpdates[T, E]:
        updates: SyncUpdates[T, E] = SyncUpdates(self._given)
        unwatch = self._open(updates.mailbox, keep=False)

        def close() -> None:
            unwatch()
            updates.mailbox.end()
            updates.mailbox.ring()

        self._close = close
        return updates

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def subscribe(self, callback: Callable[[Result[T, E | CacheError]], object]) -> Subscription:
        """Call `callback` with each piece of news, in a thread of its own: a slow one holds nobody up.

        A callback that raises is reported to the logger, and stays subscribed.
        """
        return self._subscribe(callback, self._spawn)
