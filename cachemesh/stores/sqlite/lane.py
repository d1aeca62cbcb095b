"""Threads that read for event loops: what is asked for in one turn goes there and back in one hop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop as Loop
    from collections.abc import Callable, Sequence

Turn: TypeAlias = "list[tuple[Any, asyncio.Future[Any]]]"
"""The questions of one turn of an event loop, and who waits for the answers."""


class Lane:
    """One thread, begun when it is needed. `answers` are those to several questions; it must not refer to the lane."""

    def __init__(self, name: str, answers: Callable[[list[Any]], Sequence[Any]]) -> None:
        self._name = name
        self._answers = answers
        self._jobs: SimpleQueue[tuple[Loop, Turn] | threading.Event] = SimpleQueue()
        self._turns: dict[Loop, Turn] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ask(self, question: object) -> asyncio.Future[Any]:
        """The answer to `question`, from over there."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        turn = self._turns.get(loop)
        if turn is None:
            turn = self._begin_turn(loop)
        turn.append((question, future))
        return future

    def ask_at_once(self, question: object) -> asyncio.Future[Any]:
        """`ask`, where the question is a whole turn's already."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._put(loop, [(question, future)])
        return future

    def stop(self) -> None:
        """Let the thread end, after what it was asked. Waits for nothing, and may be called from anywhere."""
        self._jobs.put(threading.Event())

    def join(self, wait_s: float) -> None:
        """Wait until the thread has ended, unless others ask it for more."""
        thread = self._thread
        if thread is None:
            return
        heard = threading.Event()
        self._jobs.put(heard)
        if heard.wait(wait_s) and self._thread is not thread:
            thread.join(wait_s)

    def _begin_turn(self, loop: Loop) -> Turn:
        for other in [each for each in list(self._turns) if each.is_closed()]:
            self._turns.pop(other, None)
        turn: Turn = []
        self._turns[loop] = turn
        loop.call_soon(self._send, loop)
        return turn

    def _send(self, loop: Loop) -> None:
        turn = self._turns.pop(loop, None)
        if turn:
            self._put(loop, turn)

    def _put(self, loop: Loop, turn: Turn) -> None:
        self._jobs.put((loop, turn))
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def _run(self) -> None:
        jobs = self._jobs
        while True:
            job = jobs.get()
            if isinstance(job, threading.Event):
                with self._lock:
                    is_over = jobs.empty()
                    if is_over:
                        self._thread = None
                job.set()
                if is_over:
                    return
                continue
            loop, turn = job
            asked = [each for each in turn if not each[1].cancelled()]
            futures = [future for _, future in asked]
            try:
                answers, error = self._answers([question for question, _ in asked]), None
            except BaseException as raised:  # noqa: BLE001 (who asked gets it)
                answers, error = (), raised
            with contextlib.suppress(RuntimeError):  # The loop was closed: nobody waits any more.
                loop.call_soon_threadsafe(settle, futures, answers, error)
            del job, loop, turn, asked, futures, answers, error


def one_by_one(questions: list[Callable[[], Any]]) -> list[Any]:
    """The answers of a lane whose questions are functions."""
    return [question() for question in questions]


def settle(futures: list[asyncio.Future[Any]], answers: Sequence[Any], error: BaseException | None) -> None:
    if error is not None:
        for future in futures:
            if not future.done():
                future.set_exception(error)
        return
    for future, answer in zip(futures, answers, strict=True):
        if not future.done():
            future.set_result(answer)
