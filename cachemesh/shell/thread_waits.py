"""Threads that wait for each other behind the cache's back.

A fetch may hand its question to a thread and wait for that; if the thread asks
the cache for the very key that is being fetched, each would wait for the other
for ever. `contextvars` tell of it where they are handed on (`asyncio.to_thread`
does), but a bare `threading.Thread` or executor starts with an empty context.
So a caller who has waited for a while looks at where the fetching thread
stands: the wait-for graph of `core/waits.py`, read off the stacks.

Not neat: it knows `Thread.join` and `Future.result`, and no other way to wait.
"""

from __future__ import annotations

import gc
import sys
import threading
from concurrent.futures import Future
from concurrent.futures.thread import _WorkItem
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import FrameType

JOIN: Final = threading.Thread.join.__code__
RESULT: Final = Future.result.__code__
WORK: Final = _WorkItem.run.__code__


def waits_for(waiter: threading.Thread, goal: threading.Thread) -> bool:
    """Whether `waiter` stands waiting for `goal`, directly or through other threads."""
    stacks = stacks_now()
    seen: set[int | None] = set()
    ident = waiter.ident
    while ident is not None and ident not in seen:
        seen.add(ident)
        ident = _awaited_thread(stacks, ident)
        if ident == goal.ident:
            return True
    return False


def stacks_now() -> dict[int, FrameType]:
    """Where all threads stand.

    Without a collection in between: CPython 3.11 holds a lock meanwhile that
    a Python callback of the collector may wait for (python/cpython#106883).
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames()  # noqa: SLF001 (the documented way to see other threads)
    finally:
        if collects:
            gc.enable()


def _awaited_thread(stacks: dict[int, FrameType], ident: int) -> int | None:
    """The thread that the thread `ident` waits for."""
    awaited = _innermost_self(stacks.get(ident), JOIN, RESULT)
    if isinstance(awaited, threading.Thread):
        return awaited.ident
    if awaited is not None:
        for other, frame in stacks.items():
            work = _innermost_self(frame, WORK)
            if work is not None and work.future is awaited:
                return other
    return None


def _innermost_self(frame: FrameType | None, *codes: object) -> Any:  # noqa: ANN401 (whatever `self` is there)
    """The `self` of the innermost call of one of `codes`."""
    while frame is not None:
        if frame.f_code in codes:
            return frame.f_locals.get("self")
        frame = frame.f_back
    return None
