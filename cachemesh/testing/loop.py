"""asyncio in virtual time: waiting takes none.

`VirtualLoop` is an ordinary event loop with two differences. Its `time()` is
that of a `VirtualClock`, and where it would wait for the next timer it moves
the clock there. So `asyncio.sleep`, `asyncio.timeout` and the retry delays of
a cache on the same clock end at once and in the order in which real time would
have ended them.

Not neat yet: it reads two private fields of `BaseEventLoop`, the heap of timers
and the queue of what is ready, because asyncio offers no public way to ask.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cachemesh.testing.clock import VirtualClock

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Executor

T = TypeVar("T")

PATIENCE_S: Final = 1.0
"""Real seconds for which timers are held back while a thread of an executor works."""


class Deadlock(Exception):
    """Nothing is ready, no timer is set, and no thread is expected to wake the loop: it would wait for ever."""

    def __init__(self, waiting: tuple[str, ...]) -> None:
        super().__init__("\n  ".join(("the event loop would wait for ever for:", *(waiting or ("nothing at all",)))))
        self.waiting = waiting


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on a `VirtualClock`.

    >>> async def nap() -> float:
    ...     await asyncio.sleep(3600)
    ...     return asyncio.get_running_loop().time()
    >>> clock = VirtualClock(now=5.0)
    >>> with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
    ...     runner.run(nap())
    3605.0
    >>> clock()
    3605.0

    Where a real loop would hang, it raises `Deadlock` and names the tasks:

    >>> async def forgotten() -> None:
    ...     await asyncio.get_running_loop().create_future()
    >>> try:
    ...     run(forgotten())
    ... except Deadlock as deadlock:
    ...     print(deadlock.waiting[0].partition(" at ")[0])
    forgotten

    Work in an executor (`asyncio.to_thread`) takes real time, for which
    virtual time stands still; a thread that itself waits for a timer of this
    loop is noticed after `PATIENCE_S`. Other threads that wake the loop (with
    `call_soon_threadsafe`) are expected with `threads=True`: then it waits for
    them for real where no timer is set, instead of raising.
    """

    # Of asyncio's BaseEventLoop, where typeshed leaves them out.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _clock_resolution: float

    def __init__(self, clock: VirtualClock | None = None, *, threads: bool = False) -> None:
        self.clock = VirtualClock() if clock is None else clock
        self._expects_threads = threads
        self._in_executor = 0
        super().__init__(_Selector(self._wait_s, self._jump))

    def time(self) -> float:
        """What time it is on the clock."""
        now = self.clock()
        # asyncio runs a timer that is due in less than a tick from now. On a clock
        # of epoch seconds its own tick, a nanosecond, is lost in the rounding.
        self._clock_resolution = max(1e-9, 2 * math.ulp(now))
        return now

    async def settle(self) -> None:
        """Let everything that is ready run, and what that makes ready, while no time passes.

        >>> async def after_settling() -> bool:
        ...     chain = asyncio.ensure_future(asyncio.gather(asyncio.sleep(0), asyncio.sleep(0)))
        ...     await asyncio.get_running_loop().settle()
        ...     return chain.done()
        >>> run(after_settling())
        True
        """
        await asyncio.sleep(0)
        while self._ready or (self._scheduled and self._scheduled[0].when() <= self.time()):  # noqa: ASYNC110 (no event says this)
            await asyncio.sleep(0)

    def run_in_executor(  # type: ignore[override]  # typeshed has a TypeVarTuple here, which a pass-through cannot repeat.
        self,
        executor: Executor | None,
        func: Callable[..., T],
        *args: Any,  # noqa: ANN401 (whatever `func` takes)
    ) -> asyncio.Future[T]:
        """Run `func` in a thread. Virtual time stands still until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self._in_executor += 1
        future.add_done_callback(self._out_of_executor)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 (asyncio's own signature since 3.12)
        """Join the threads of the default executor, however long that takes in real time."""
        del timeout
        self._in_executor += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._in_executor -= 1

    def _out_of_executor(self, future: asyncio.Future[Any]) -> None:
        del future
        self._in_executor -= 1

    def _wait_s(self) -> float | None:
        """Real seconds to wait for a thread before time is moved; None for as long as it takes."""
        if self._in_executor:
            return PATIENCE_S if self._scheduled else None
        return None if self._expects_threads and not self._scheduled else 0.0

    def _jump(self) -> None:
        """Nothing is ready: move the clock to the next timer."""
        if not self._scheduled:
            raise Deadlock(tuple(sorted(_whereabouts(task) for task in asyncio.all_tasks(self))))
        self.clock.advance_to(self._scheduled[0].when())


class _Selector(selectors.DefaultSelector):
    """The default selector, except that it does not wait for timers."""

    def __init__(self, wait_s: Callable[[], float | None], jump: Callable[[], None]) -> None:
        super().__init__()
        self._wait_s = wait_s
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Poll; where that brings nothing and the loop would wait, move the clock."""
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        wait_s = self._wait_s()
        if wait_s != 0.0:
            ready = super().select(wait_s)
        if not ready:
            self._jump()
        return ready


def run(main: Coroutine[Any, Any, T], *, clock: VirtualClock | None = None, threads: bool = False) -> T:
    """`asyncio.run` in virtual time.

    >>> async def slow() -> str:
    ...     async with asyncio.timeout(30):
    ...         await asyncio.sleep(60)
    ...     return "never"
    >>> clock = VirtualClock()
    >>> run(slow(), clock=clock)
    Traceback (most recent call last):
    ...
    TimeoutError
    >>> clock()
    30.0
    """
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock, threads=threads)) as runner:
        return runner.run(main)


def _whereabouts(task: asyncio.Task[Any]) -> str:
    """The name of what `task` runs, and the line at which it waits."""
    coroutine = task.get_coro()
    name = getattr(coroutine, "__qualname__", task.get_name())
    frames = task.get_stack(limit=1)
    return f"{name} at {frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else name
