"""What goes wrong is told, but not more often than somebody can read: one line of each kind a minute."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

log: Final = logging.getLogger("cachemesh.stores.sqlite")

PAUSE_S: Final = 60.0


def to_the_log(error: Exception) -> None:
    log.warning("%s", error)


class Complaints:
    """`report` is whoever listens; the log, if nobody does. The texts quote no key and no value."""

    def __init__(self, report: Callable[[Exception], None] = to_the_log) -> None:
        self.report = report
        self.total = 0
        self.last = ""
        self._again_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def tell(self, error: Exception) -> None:
        """Whoever listens may raise what it likes: that goes to the log."""
        text = str(error)
        now = time.monotonic()
        with self._lock:
            self.total += 1
            self.last = text
            kind = f"{type(error).__name__} {text}"
            if now < self._again_at.get(kind, 0.0):
                return
            if len(self._again_at) > 100:  # noqa: PLR2004 (texts are few, unless something is very odd)
                self._again_at.clear()
            self._again_at[kind] = now + PAUSE_S
        try:
            self.report(error)
        except Exception:
            log.exception("what a store reports was not taken")
