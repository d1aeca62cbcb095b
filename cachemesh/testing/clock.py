"""A clock that moves only when it is told to.

Give it to a cache as `clock=`: lifetimes, back-off and retry delays then run
on it, and a test decides what time it is. For asyncio see
`cachemesh.testing.loop`, which makes `asyncio.sleep` follow such a clock too.
"""

from __future__ import annotations

from math import isfinite
from threading import Lock


class VirtualClock:
    """Seconds since whatever epoch suits you, starting at `now`. Safe to share between threads.

    The threaded cache waits with `sleep` where its clock has one, so a delay
    of an hour takes no time and is still seen on the clock:

    >>> clock = VirtualClock(now=100.0)
    >>> clock()
    100.0
    >>> clock.advance(2.5)
    >>> clock.sleep(3600)
    >>> clock()
    3702.5

    It never goes back. A clock that does is a lambda:

    >>> clock.advance(-1)
    Traceback (most recent call last):
    ...
    ValueError: a clock advances by a finite number of seconds from 0 on, not by -1
    """

    __slots__ = ("_lock", "_now")

    def __init__(self, now: float = 0.0) -> None:
        self._now = float(now)
        self._lock = Lock()

    def __call__(self) -> float:
        """What time it is."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        if not (isfinite(seconds) and seconds >= 0):
            msg = f"a clock advances by a finite number of seconds from 0 on, not by {seconds}"
            raise ValueError(msg)
        with self._lock:
            self._now += seconds

    def advance_to(self, instant: float) -> None:
        """Let time pass until `instant`; nothing where that is over already.

        Unlike `advance` it hits the instant exactly, whatever the rounding.

        >>> clock = VirtualClock(now=0.1)
        >>> clock.advance_to(0.3)
        >>> clock.advance_to(0.2)
        >>> clock()
        0.3
        """
        if not isfinite(instant):
            msg = f"a clock advances to a finite instant, not to {instant}"
            raise ValueError(msg)
        with self._lock:
            self._now = max(self._now, instant)

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds`, which takes no time: the clock is moved instead."""
        self.advance(seconds)

    def __repr__(self) -> str:
        return f"VirtualClock(now={self._now})"
