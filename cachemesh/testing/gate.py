"""A gate: where it is shut, whoever comes waits for it, in an event loop or in a thread."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from threading import Event, Lock
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

PATIENCE_S: Final = 10.0
"""Real seconds for which a thread waits for a gate, before it takes the test for one that hangs."""


class Gate:
    """Open to begin with.

    >>> gate = Gate()
    >>> gate.shut()
    >>> gate.is_open
    False
    >>> gate.open()
    >>> gate.wait()  # Nothing holds up.
    """

    __slots__ = ("_lock", "_open", "_waiting")

    def __init__(self) -> None:
        self._open = Event()
        self._open.set()
        self._lock = Lock()
        self._waiting: list[tuple[AbstractEventLoop, Future[None]]] = []

    @property
    def is_open(self) -> bool:
        """Whether nobody would wait."""
        return self._open.is_set()

    def shut(self) -> None:
        """Hold up whoever comes from now on."""
        with self._lock:
            self._open.clear()

    def open(self) -> None:
        """Let everybody go on. From any thread."""
        with self._lock:
            self._open.set()
            waiting, self._waiting = self._waiting, []
        for loop, future in waiting:
            with suppress(RuntimeError):  # The loop is closed: nobody waits there any longer.
                loop.call_soon_threadsafe(_settle, future)

    async def passed(self) -> None:
        """Come through, for a coroutine."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._open.is_set():
                return
            future: Future[None] = loop.create_future()
            self._waiting.append((loop, future))
        await future

    def wait(self, patience_s: float = PATIENCE_S) -> None:
        """Come through, for a thread. Raises `TimeoutError` where nobody opens for `patience_s` real seconds."""
        if not self._open.wait(patience_s):
            msg = f"nobody opened the gate within {patience_s} s"
            raise TimeoutError(msg)


def _settle(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)
