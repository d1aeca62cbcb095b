"""The one clock of the demo: the origin's stamps, the cache's lifetimes and the ages of answers are read off it."""

from __future__ import annotations

import time
from typing import Final

_EPOCH_S: Final = time.time() - time.monotonic()


def steady_now() -> float:
    """Seconds since the epoch, going on steadily when somebody sets the wall clock."""
    return _EPOCH_S + time.monotonic()
