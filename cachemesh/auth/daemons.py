"""Threads for calls that may hang: they do not keep the program from ending."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future
from math import inf
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from cachemesh.auth.forks import watch
from cachemesh.auth.verdicts import Raised

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


MOST_CALLS: Final = 16
"""A keeper has no more of its storage's calls under way: those that hang would take thread after thread."""


class DaemonExecutor(Executor):
    """A daemon thread for each call. `most`: TimeoutError where so many have not come back."""

    def __init__(self, most: float = inf) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._running = 0
        watch(self)

    def after_fork(self) -> None:
        """In the child, which has none of the threads."""
        self._lock = threading.Lock()
        self._running = 0

    def _count(self, more: int) -> None:
        with self._lock:
            if more > 0 and self._running >= self._most:
                raise TimeoutError
            self._running += more

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """What `fn` will answer."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()

        def run() -> None:
            try:
                got = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 (whoever waits for it raises it)
                self._count(-1)
                future.set_exception(error)
            else:
                self._count(-1)
                future.set_result(got)

        self._count(1)
        try:
            threading.Thread(target=run, name="cachemesh-token", daemon=True).start()
        except BaseException:
            self._count(-1)
            raise
        return future


DAEMONS: Final = DaemonExecutor()


def caught(act: Callable[[], T]) -> T | Raised:
    """What `act` answers, or what it raised."""
    try:
        return act()
    except Exception as error:  # noqa: BLE001 (a storage or a refresher of the user's)
        return Raised(error)


def aside(act: Callable[[], object]) -> None:
    """Call `act` in a thread, for nobody."""
    DAEMONS.submit(act)
