"""A lock between processes: who writes or checkpoints holds it, and nobody else does either meanwhile."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cachemesh.stores.sqlite.errors import LockTimeoutError

try:
    import fcntl
except ImportError:  # pragma: no cover (Windows)
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAIT_S: Final = 5.0
PAUSES_S: Final = (0.0002, 0.005)
"""Between two tries: at first, and at most."""

HAS_LOCKS: Final = fcntl is not None

NO_LINKS: Final = getattr(os, "O_NOFOLLOW", 0)
"""In a folder such as `/tmp` anybody may put a link where the lock belongs: it would make a file elsewhere."""


class FileLock:
    """`flock` on a file beside the data. The system lets go of it when its holder dies.

    It is asked for without waiting, again and again: so it has a time limit, and
    a holder that was stopped keeps nobody for ever. One thread uses it at a time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._depth = 0

    @contextmanager
    def held(self, wait_s: float = WAIT_S) -> Iterator[None]:
        """LockTimeoutError where somebody else has it for too long. Who has it may ask for it again."""
        if self._depth == 0 and HAS_LOCKS:
            self._acquire(wait_s)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0 and self._descriptor >= 0:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _acquire(self, wait_s: float) -> None:
        ends_at = time.monotonic() + wait_s
        pause_s = PAUSES_S[0]
        while True:
            if self._descriptor < 0:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | NO_LINKS, 0o600)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= ends_at:
                    raise LockTimeoutError from None
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSES_S[1])
                continue
            if self._is_there():
                return
            self.close()

    def _is_there(self) -> bool:
        """Whether others who come now meet the same file: the folder may have been removed and made again."""
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        ours = os.fstat(self._descriptor)
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
