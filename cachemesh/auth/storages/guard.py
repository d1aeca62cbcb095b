"""Who may write, and who may refresh, among the processes of a machine.

`held` is for the moment of a compare-and-set; `try_lock` for as long as a refresh
takes. Both end with the process that has them, at once where the system has
`flock`. A refresh also ends when its time is up: its holder may hang, or be stopped.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from cachemesh.auth.storages.private import NO_LINKS
from cachemesh.stores.sqlite.lock import HAS_LOCKS, FileLock

if HAS_LOCKS:
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

WAIT_S: Final = 4.0
"""For so long we wait for another process that writes a token: shorter than a keeper waits for us."""


class Guard(Protocol):
    """What a storage needs of it."""

    def held(self) -> AbstractContextManager[None]:
        """While nobody else has it. An OSError or the like where somebody has it for too long."""

    def try_lock(self, holds_s: float, /) -> Callable[[], None] | None:
        """The right to refresh, for `holds_s`; None: somebody has it."""


class FlockGuard:
    """Two files beside `path`, each locked with `flock`: `.lock` and `.refresh`. They stay, and are empty of secrets.

    Each use opens them anew, so threads exclude each other as processes do, and
    a fork inherits nothing that it could believe in.
    """

    def __init__(self, path: Path) -> None:
        self._mutex: Final = path.with_name(f"{path.name}.lock")
        self._lease: Final = path.with_name(f"{path.name}.refresh")

    @contextmanager
    def held(self) -> Iterator[None]:
        """While nobody else has it."""
        lock = FileLock(self._mutex)
        try:
            with lock.held(WAIT_S):
                yield
        finally:
            lock.close()

    def try_lock(self, holds_s: float, /) -> Callable[[], None] | None:
        """The right to refresh: the lock on `.refresh`, until the instant that is written in it."""
        with self.held():
            descriptor = os.open(self._lease, os.O_RDWR | os.O_CREAT | NO_LINKS, 0o600)
            if not flocked(descriptor):
                is_over = _ends_at(descriptor) <= time.monotonic()
                os.close(descriptor)
                if not is_over:
                    return None
                # The lock belongs to the file and not to its name: under the same name, a new file has none.
                self._lease.unlink()
                descriptor = os.open(self._lease, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINKS, 0o600)
                flocked(descriptor)
            # One machine has one monotonic clock. After a restart no lock is left, whatever the file says.
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, repr(time.monotonic() + holds_s).encode(), 0)
        return Flocked(descriptor).release


class Flocked:
    """A descriptor with a lock on it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptors = [descriptor]
        self._process = os.getpid()

    def release(self) -> None:
        """Give the lock back, once. In the child of a fork it is the parent's, and stays locked."""
        try:
            descriptor = self._descriptors.pop()
        except IndexError:
            return
        try:
            if os.getpid() == self._process:
                # Closing would not do where a fork has inherited the descriptor.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)


def flocked(descriptor: int) -> bool:
    """Take the lock, if nobody has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _ends_at(descriptor: int) -> float:
    """When the holder's time is up. What is no number was not written by us, and has no time left."""
    try:
        return float(os.pread(descriptor, 64, 0))
    except ValueError:
        return 0.0
