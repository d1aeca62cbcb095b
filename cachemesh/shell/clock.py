"""The time. The default clock reads the wall once and then counts on: setting the wall clock does not move it."""

from __future__ import annotations

import time
from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachemesh.shell.ports import Clock


class Timekeeper:
    """The instants that the core reckons with, and how they relate to the epoch.

    Without a clock of the user's, instants are those of `time.monotonic`, which
    no setting of the wall clock moves.
    """

    __slots__ = ("epoch_offset", "is_own", "now", "sleep")

    def __init__(self, clock: Clock | None, report: Callable[[Exception], None]) -> None:
        self.is_own = clock is None
        self.now: Clock = time.monotonic if clock is None else GuardedClock(clock, report)
        self.epoch_offset = time.time() - time.monotonic() if clock is None else 0.0
        self.sleep: Callable[[float], object] = getattr(clock, "sleep", time.sleep)


class GuardedClock:
    """A user's clock. Where it raises or tells no finite number, its last good reading stands; `report` hears of it."""

    __slots__ = ("_clock", "_last", "_report")

    def __init__(self, clock: Clock, report: Callable[[Exception], None]) -> None:
        self._clock = clock
        self._last = 0.0
        self._report = report

    def __call__(self) -> float:
        try:
            now = float(self._clock())
            if not isfinite(now):
                msg = "the clock told no finite number"
                raise ValueError(msg)  # noqa: TRY301 (one place that reports)
        except Exception as error:  # noqa: BLE001 (a broken clock must not break a read)
            self._report(error)
        else:
            self._last = now
        return self._last
