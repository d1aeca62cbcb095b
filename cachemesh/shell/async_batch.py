"""Many single fetches of one tick of the event loop, made as one: the idea of DataLoader."""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from returns.result import Failure

from cachemesh.errors import FetchCancelled, FetchRaised
from cachemesh.shell.batch import answers_of
from cachemesh.shell.live import WITHIN, Inside

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from cachemesh.shell.outcomes import Answer


class Batch:
    """Collects keys for `window_s` seconds (0: until the loop has gone round), or until there are `most`."""

    def __init__(
        self,
        fetch_many: Callable[[tuple[str, ...]], Any],
        loop: asyncio.AbstractEventLoop,
        *,
        window_s: float = 0.0,
        most: int | None = None,
    ) -> None:
        self._fetch_many = fetch_many
        self._loop = loop
        self._window_s = window_s
        self._most = most
        self._waiting: dict[str, tuple[asyncio.Future[Answer], Inside | None]] = {}
        self._alarm: asyncio.Handle | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._undecided = 0

    def fetch(self, key: str) -> Callable[[], Coroutine[Any, Any, Answer]]:
        """The fetcher of one key."""
        return partial(self._fetch, key)

    def hold(self) -> None:
        """One more key may still come: wait for `release`."""
        self._undecided += 1

    def release(self) -> None:
        """One key less may still come."""
        self._undecided -= 1
        if self._undecided == 0 and self._waiting and self._alarm is None:
            self._alarm = self._loop.call_soon(self._call)

    async def _fetch(self, key: str) -> Answer:
        answer: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[key] = answer, WITHIN.get()
        if self._most is not None and len(self._waiting) >= self._most:
            self._call()
        elif self._alarm is None and self._undecided == 0:
            wait = self._loop.call_later if self._window_s else None
            self._alarm = self._loop.call_soon(self._call) if wait is None else wait(self._window_s, self._call)
        return await answer

    def _call(self) -> None:
        """Call the origin for whoever waits, inside of all their fetches: a key among them is not asked for again."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        waiting = {key: each for key, each in self._waiting.items() if not each[0].done()}
        self._waiting = {}
        if not waiting:
            return
        inside: Inside | None = None
        for _, within in waiting.values():
            if within is not None:
                inside = Inside(within.runtime, within.flight_id, within.owner, within.key, inside or within.outer)
        context = copy_context()
        context.run(WITHIN.set, inside)
        answers = {key: answer for key, (answer, _) in waiting.items()}
        call = self._loop.create_task(self._answer(answers), context=context)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        left = len(answers)

        def given_up(answer: asyncio.Future[Answer]) -> None:
            nonlocal left
            left -= 1
            if answer.cancelled() and left == 0:
                call.cancel()

        for answer in answers.values():
            answer.add_done_callback(given_up)

    async def _answer(self, waiting: dict[str, asyncio.Future[Answer]]) -> None:
        keys = tuple(waiting)
        answers: dict[str, Any] = {}
        try:
            got = self._fetch_many(keys)
            answers = answers_of(await got if isawaitable(got) else got, keys)
        except Exception as error:  # noqa: BLE001 (whatever a fetcher raises is a Failure)
            answers = {key: Failure(FetchRaised(key, error)) for key in keys}
        finally:
            for key, answer in waiting.items():
                if not answer.done():
                    answer.set_result(answers.get(key, Failure(FetchCancelled(key))))
