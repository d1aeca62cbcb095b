"""Threads for calls that may hang: they do not keep the program from ending."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from cachemesh.auth.verdicts import Raised

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


class DaemonExecutor(Executor):
    """A daemon thread for each call."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """What `fn` will answer."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()

        def run() -> None:
            try:
                got = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 (whoever waits for it raises it)
                future.set_exception(error)
            else:
                future.set_result(got)

        threading.Thread(target=run, name="cachemesh-token", daemon=True).start()
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
