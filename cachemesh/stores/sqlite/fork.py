"""Forks and exits: before a fork the file is let go of, and what is queued at exit is written if that is quick.

SQLite keeps tables in each process of the locks that it has. A child would
inherit them, but not the locks (see "How To Corrupt An SQLite Database File",
2.6); so there is nothing to inherit. Who opens a file for a moment only has a
lock held over forks instead.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cachemesh.stores.sqlite.engine import Engine

FORK_WAIT_S: Final = 1.0
EXIT_WAIT_S: Final = 2.0

_engines: Final[weakref.WeakSet[Engine]] = weakref.WeakSet()
_lock: Final = threading.Lock()
_locks: Final[list[threading.RLock]] = []
_held: Final[list[tuple[Engine, bool, bool]]] = []
"""During a fork: whether we have its `io`, and whether it has let go of the file."""

_is_hooked = False


def watch_over(engine: Engine) -> None:
    """From now on, until it is collected."""
    with _lock:
        _engines.add(engine)
        _hook()


def hold(lock: threading.RLock) -> None:
    """From now on, no process is forked while another thread has `lock`. Engines are held first: they may want it."""
    with _lock:
        _locks.append(lock)
        _hook()


def _hook() -> None:
    global _is_hooked  # noqa: PLW0603 (hooks are of the process, and cannot be taken back)
    if not _is_hooked:
        _is_hooked = True
        atexit.register(_at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)


def _before_fork() -> None:
    """Let go of all files, and hold them closed. What is in use for too long stays as it is."""
    _lock.acquire()
    ends_at = time.monotonic() + FORK_WAIT_S
    for engine in list(_engines):
        has_io = engine.io.acquire(timeout=max(0.0, ends_at - time.monotonic()))
        is_clean = has_io and engine.let_go(max(0.0, ends_at - time.monotonic()))
        _held.append((engine, has_io, is_clean))
    for lock in _locks:
        lock.acquire()


def _after_in_parent() -> None:
    for lock in _locks:
        lock.release()
    for engine, has_io, _ in _held:
        if has_io:
            engine.io.release()
    _held.clear()
    _lock.release()


def _after_in_child() -> None:
    for lock in _locks:
        lock.release()
    for engine, _, is_clean in _held:
        engine.forked(is_clean=is_clean)
    _held.clear()
    _lock.release()


def _at_exit() -> None:
    ends_at = time.monotonic() + EXIT_WAIT_S
    workers = [engine.worker for engine in list(_engines)]
    for worker in workers:
        if worker is not None:
            worker.stop()
    for worker in workers:
        if worker is not None:
            worker.thread.join(max(0.0, ends_at - time.monotonic()))
