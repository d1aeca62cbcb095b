"""A thread that reads for event loops: what they ask for in one turn goes there and back in one hop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop as Loop
    from collections.abc import Callable

T = TypeVar("T")

Job: TypeAlias = "tuple[Loop, list[tuple[Callable[[], Any], asyncio.Future[Any]]]]"

IDLE_S: Final = 10.0
"""A thread that nobody has asked for anything for so long ends."""


class Lane:
    """One thread, begun when it is needed. It knows nobody but through what it is asked."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._turns: dict[Loop, list[tuple[Callable[[], Any], asyncio.Future[Any]]]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ask(self, question: Callable[[], T]) -> asyncio.Future[T]:
        """What `question` answers over there."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        turn = self._turns.get(loop)
        if turn is None:
            turn = self._begin_turn(loop)
        turn.append((question, future))
        return future

    def stop(self) -> None:
        """Let the thread end, after what it was asked. Waits for nothing, and may be called from anywhere."""
        self._jobs.put(None)

    def join(self, wait_s: float) -> None:
        thread = self._thread
        if thread is not None:
            self.stop()
            thread.join(wait_s)

    def _begin_turn(self, loop: Loop) -> list[tuple[Callable[[], Any], asyncio.Future[Any]]]:
        for other in [each for each in list(self._turns) if each.is_closed()]:
            self._turns.pop(other, None)
        turn = self._turns[loop] = []
        loop.call_soon(self._send, loop)
        return turn

    def _send(self, loop: Loop) -> None:
        turn = self._turns.pop(loop, None)
        if turn:
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
            if job is None:
                with self._lock:
                    if jobs.empty():
                        self._thread = None
                        return
                continue
            loop, turn = job
            answers = [(future, *answer_of(question)) for question, future in turn if not future.cancelled()]
            with contextlib.suppress(RuntimeError):  # The loop was closed: nobody waits any more.
                loop.call_soon_threadsafe(settle, answers)
            del job, loop, turn, answers


def answer_of(question: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return question(), None
    except BaseException as error:  # noqa: BLE001 (who asked gets it)
        return None, error


def settle(answers: list[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    for future, answer, error in answers:
        if future.done():
            continue
        if error is None:
            future.set_result(answer)
        else:
            future.set_exception(error)
