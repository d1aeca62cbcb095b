"""Telling those who watch a key. Each has room for one piece of news: a slow one gets the newest, never a queue."""

from __future__ import annotations

import threading
import weakref
from enum import Enum
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from returns.result import Failure

from cachemesh.shell.logging import shown_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.outcomes import Answer
    from cachemesh.shell.runtime import Runtime


class Silence(Enum):
    """What a mailbox holds in place of news."""

    NOTHING_YET = "nothing yet"
    ENDED = "ended"


NOTHING_YET: Final = Silence.NOTHING_YET
ENDED: Final = Silence.ENDED


class Mailbox:
    """The newest news of a key for one watcher. Who posts or ends rings as well, holding no lock."""

    __slots__ = ("__weakref__", "_ended", "_latest", "_lock", "_origin", "ring")

    def __init__(self) -> None:
        self._latest: Answer | Silence = NOTHING_YET
        self._origin: Owner | None = None
        self._ended = False
        self._lock = threading.RLock()
        self.ring: Callable[[], None] = _nobody_listens

    def post(self, answer: Answer, origin: Owner | None = None) -> None:
        with self._lock:
            if self._ended:
                return
            self._latest = answer
            self._origin = origin

    def withdraw(self, origin: Owner) -> None:
        """Take back what nobody has taken yet, if it was about `origin`."""
        with self._lock:
            if self._origin == origin:
                self._latest = NOTHING_YET

    def end(self) -> None:
        with self._lock:
            self._ended = True

    @property
    def has_news(self) -> bool:
        return self._latest is not NOTHING_YET

    @property
    def has_ended(self) -> bool:
        return self._ended

    def take(self) -> Answer | Silence:
        """The newest news, once; then `NOTHING_YET`, or `ENDED` when no more will come."""
        with self._lock:
            latest, self._latest = self._latest, NOTHING_YET
            return ENDED if latest is NOTHING_YET and self._ended else latest


def _nobody_listens() -> None:
    """Until somebody waits, news just lies in the mailbox."""


class WatchTable:
    """Who watches what. Changed under the runtime's lock.

    An iterator is held weakly, so one that is dropped without being closed
    leaves no trace; a subscribed callback is held until it is cancelled.
    """

    def __init__(self) -> None:
        self.boxes: dict[Owner, dict[str, dict[int, Callable[[], Mailbox | None]]]] = {}
        """Empty where nobody watches anything."""
        self._tokens = count()
        self._lost: list[tuple[tuple[Owner, ...], str, int]] = []

    def __len__(self) -> int:
        self._sweep()
        return sum(len(boxes) for by_key in self.boxes.values() for boxes in by_key.values())

    def add(self, owners: tuple[Owner, ...], key: str, mailbox: Mailbox, *, keep: bool) -> int:
        self._sweep()
        token = next(self._tokens)
        if keep:
            reference: Callable[[], Mailbox | None] = lambda: mailbox  # noqa: E731 (the strong twin of a weakref)
        else:
            lost = self._lost
            reference = weakref.ref(mailbox, lambda _: lost.append((owners, key, token)))
        for owner in owners:
            self.boxes.setdefault(owner, {}).setdefault(key, {})[token] = reference
        return token

    def remove(self, owners: tuple[Owner, ...], key: str, token: int) -> None:
        for owner in owners:
            by_key = self.boxes.get(owner)
            boxes = None if by_key is None else by_key.get(key)
            if by_key is None or boxes is None:
                continue
            boxes.pop(token, None)
            if not boxes:
                del by_key[key]
            if not by_key:
                del self.boxes[owner]

    def keys(self, owner: Owner) -> frozenset[str]:
        """The keys of `owner` that somebody watches."""
        return frozenset(self.boxes.get(owner, ()))

    def watching(self, owner: Owner, key: str) -> list[Mailbox]:
        boxes = self.boxes.get(owner, {}).get(key)
        return [] if boxes is None else _alive(boxes)

    def watching_any(self, owner: Owner) -> list[Mailbox]:
        return [mailbox for boxes in self.boxes.get(owner, {}).values() for mailbox in _alive(boxes)]

    def leave(self, owner: Owner) -> list[Mailbox]:
        """Nobody watches `owner` any more; those are answered who watch nothing else."""
        by_key = self.boxes.pop(owner, {})
        return [
            mailbox
            for key, boxes in by_key.items()
            for token, reference in boxes.items()
            if (mailbox := reference()) is not None and not self._watches_elsewhere(key, token)
        ]

    def end_all(self) -> list[Mailbox]:
        everyone = [mailbox for by_key in self.boxes.values() for boxes in by_key.values() for mailbox in _alive(boxes)]
        self.boxes.clear()
        return everyone

    def _watches_elsewhere(self, key: str, token: int) -> bool:
        return any(token in by_key.get(key, {}) for by_key in self.boxes.values())

    def _sweep(self) -> None:
        while self._lost:
            self.remove(*self._lost.pop())


def _alive(boxes: dict[int, Any]) -> list[Mailbox]:
    return [mailbox for reference in list(boxes.values()) if (mailbox := reference()) is not None]


class Subscription:
    """A callback that is being told. `cancel` stops that; it may be called more than once, also by the callback."""

    def __init__(self, mailbox: Mailbox, unwatch: Callable[[], None]) -> None:
        self._mailbox = mailbox
        self._unwatch = unwatch

    def cancel(self) -> None:
        """No news from now on."""
        self._mailbox.end()
        self._mailbox.take()
        self._unwatch()


class Delivery:
    """Hands the news of a mailbox to a callback, one at a time and in order, where `schedule` runs it."""

    def __init__(
        self,
        mailbox: Mailbox,
        callback: Callable[[Any], object],
        schedule: Callable[[Callable[[], None]], None],
        report: Callable[[BaseException], None],
        given: Callable[[Answer], Answer],
    ) -> None:
        self._mailbox = mailbox
        self._given = given
        self._callback = callback
        self._schedule = schedule
        self._report = report
        self._lock = threading.RLock()
        self._is_scheduled = False
        mailbox.ring = self.ring

    def ring(self) -> None:
        with self._lock:
            if self._is_scheduled:
                return
            self._is_scheduled = True
        self._schedule(self._deliver)

    def _deliver(self) -> None:
        """Deliver one piece of news, then make way: a callback may cause the next one itself."""
        news = self._mailbox.take()
        try:
            if not isinstance(news, Silence):
                self._callback(self._given(news))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 (one watcher's mistake is not another's)
            self._report(error)
        finally:
            with self._lock:
                self._is_scheduled = False
            if self._mailbox.has_news:
                self.ring()


class Watching:
    """The news of one key for one caller: what both faces' `Watch` are made of."""

    def __init__(self, runtime: Runtime, owners: tuple[Owner, ...], key: str, unseen: Exception) -> None:
        self._runtime = runtime
        self._owners = owners
        self._key = key
        self._unseen = unseen

    def _given(self, news: Answer) -> Answer:
        """`news` as one watcher gets it: where values are copied on reading, a copy of its own."""
        return self._runtime.values.given(self._key, news)

    def tenure(self, on_end: Callable[[], None]) -> Tenure:
        """Whether whoever's key this is still is there. `on_end` is called, on any thread, once they are not."""
        mailbox = Mailbox()
        mailbox.ring = lambda: on_end() if mailbox.has_ended else None
        return Tenure(self._runtime, mailbox, self._open(mailbox, keep=True))

    def _open(self, mailbox: Mailbox, *, keep: bool) -> Callable[[], None]:
        """Have news posted; where there is nothing to watch, the one piece that says why."""
        if self._owners:
            return self._runtime.watch(self._owners, self._key, mailbox, keep=keep)
        mailbox.post(Failure(self._unseen))
        mailbox.end()
        mailbox.ring()
        return _nothing_to_stop

    def _subscribe(
        self,
        callback: Callable[[Any], object],
        schedule: Callable[[Callable[[], None]], None],
    ) -> Subscription:
        mailbox = Mailbox()
        shown = shown_key(self._owners[0], self._key) if self._owners else self._key
        Delivery(mailbox, callback, schedule, lambda error: self._runtime.tell_error(shown, error), self._given)
        return Subscription(mailbox, self._open(mailbox, keep=True))


class Tenure:
    """From now on until the session of an owner ends, or the cache is closed: for what is done in their name."""

    def __init__(self, runtime: Runtime, mailbox: Mailbox, unwatch: Callable[[], None]) -> None:
        self._runtime = runtime
        self._mailbox = mailbox
        self._unwatch = unwatch

    @property
    def is_over(self) -> bool:
        """Whether they have left: it is known at once, before anything else can happen in their partition."""
        return self._mailbox.has_ended

    @property
    def is_closed(self) -> bool:
        """Whether it is the cache that has gone."""
        return self._runtime.is_closed

    def end(self) -> None:
        """It is not of interest any more."""
        self._mailbox.ring = _nothing_to_stop
        self._unwatch()


def _nothing_to_stop() -> None:
    """Nothing was opened."""
