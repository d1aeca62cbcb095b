"""Many single fetches of one tick of the event loop, made as one: the idea of DataLoader."""

from __future__ import annotations

import asyncio
from contextvars import Context, copy_context
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeAlias

from returns.result import Failure

from cachemesh.errors import FetchRaised
from cachemesh.shell.batch import Together, answers_of
from cachemesh.shell.live import WITHIN, Inside, inside_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.outcomes import Answer

Seat: TypeAlias = "tuple[asyncio.Future[Answer], Inside]"


class Collected:
    """The keys of one owner that are to be fetched together, in the context of the first that asked."""

    def __init__(self) -> None:
        self.context = copy_context()
        self.seats: dict[str, list[Seat]] = {}


class Batch(Together):
    """Collects keys for `window_s` seconds (0: until the loop has gone round), or until there are `most`.

    What belongs to one user is never fetched in the name of another: each owner has a call of its own.
    """

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
        self._collected: dict[Owner, Collected] = {}
        self._alarm: asyncio.Handle | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._holds = 0

    def hold(self) -> None:
        """More keys may still come, however long that takes: wait for `release`."""
        self._holds += 1

    def release(self) -> None:
        """Who has held it knows its keys."""
        self._holds -= 1
        if self._collected and not self._holds:
            self._set_alarm()

    async def fetch(self) -> Answer:
        """The fetcher of every key: for which one it is called, the flight tells that it runs inside of."""
        inside = WITHIN.get()
        assert inside is not None
        answer: asyncio.Future[Answer] = self._loop.create_future()
        collected = self._collected.get(inside.owner)
        if collected is None:
            collected = self._collected[inside.owner] = Collected()
        collected.seats.setdefault(inside.key, []).append((answer, inside))
        if self._most is not None and len(collected.seats) >= self._most:
            self._call(inside.owner)
        elif not self._holds:
            self._set_alarm()
        return await answer

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            return
        if self._window_s:
            self._alarm = self._loop.call_later(self._window_s, self._call_all)
        else:
            self._alarm = self._loop.call_soon(self._call_all)

    def _call_all(self) -> None:
        for owner in list(self._collected):
            self._call(owner)

    def _call(self, owner: Owner) -> None:
        """Call the origin for whoever waits, inside of all their fetches: a key among them is not asked for again."""
        collected = self._collected.pop(owner)
        if self._alarm is not None and not self._collected:
            self._alarm.cancel()
            self._alarm = None
        waiting = {
            key: left
            for key, seats in collected.seats.items()
            if (left := [(answer, inside) for answer, inside in seats if not answer.done()])
        }
        if not waiting:
            return
        collected.context.run(WITHIN.set, inside_all([inside for seats in waiting.values() for _, inside in seats]))
        answers = {key: [answer for answer, _ in seats] for key, seats in waiting.items()}
        self._set_going(answers, collected.context)

    def _set_going(self, waiting: dict[str, list[asyncio.Future[Answer]]], context: Context) -> None:
        call = self._loop.create_task(self._answer(waiting), context=context)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        left = sum(len(answers) for answers in waiting.values())

        def given_up(answer: asyncio.Future[Answer]) -> None:
            nonlocal left
            left -= 1
            if answer.cancelled() and left == 0:
                call.cancel()

        for answers in waiting.values():
            for answer in answers:
                answer.add_done_callback(given_up)

    async def _answer(self, waiting: dict[str, list[asyncio.Future[Answer]]]) -> None:
        keys = tuple(waiting)
        answers: dict[str, Answer]
        try:
            got = self._fetch_many(keys)
            answers = answers_of(await got if isawaitable(got) else got, keys)
        except Exception as error:  # noqa: BLE001 (whatever a fetcher raises is a Failure)
            answers = {key: Failure(FetchRaised(key, error)) for key in keys}
        except GeneratorExit:  # The loop was closed over this call: nobody waits.
            raise
        except BaseException as crash:
            if not is_handed_over(crash, unanswered(waiting)):
                raise
            return
        for key, seats in waiting.items():
            for each in unanswered({key: seats}):
                each.set_result(answers[key])


def is_handed_over(crash: BaseException, waiting: list[asyncio.Future[Answer]]) -> bool:
    """Whether a crash goes on as that of the fetches that wait: each ends as if it had raised it itself."""
    if isinstance(crash, asyncio.CancelledError):
        for each in waiting:
            each.cancel()
        return False
    for each in waiting:
        each.set_exception(crash)
    return bool(waiting)


def unanswered(waiting: dict[str, list[asyncio.Future[Answer]]]) -> list[asyncio.Future[Answer]]:
    """Those of the futures that still wait."""
    return [answer for seats in waiting.values() for answer in seats if not answer.done()]
