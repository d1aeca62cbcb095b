"""What goes wrong is logged, but not more often than somebody can read."""

from __future__ import annotations

import logging
import time
from typing import Final

log: Final = logging.getLogger("cachemesh.stores.redis")

PAUSE_S: Final = 10.0


class Complaints:
    """One line of each kind in ten seconds. They quote no key and no value."""

    def __init__(self) -> None:
        self._again_at: dict[str, float] = {}

    def log(self, text: str, *args: object) -> None:
        now = time.monotonic()
        if now >= self._again_at.get(text, 0.0):
            self._again_at[text] = now + PAUSE_S
            log.warning(text, *args)
