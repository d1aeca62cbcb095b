"""The time of a line, in seconds."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite
from typing import Final, Literal, TypeAlias

from cachemesh.simulation.traces.trouble import Unread, Why

Unit: TypeAlias = Literal["s", "ms", "us", "ns"]

IN_A_SECOND: Final[dict[Unit, float]] = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
BY_MAGNITUDE: Final[tuple[tuple[float, Unit], ...]] = ((1e11, "s"), (1e14, "ms"), (1e17, "us"), (float("inf"), "ns"))
"""The first bound that a time lies below gives its unit: 1e11 seconds are the year 5138, and in milliseconds 1973."""
MOST_S: Final = 1e12
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Instants:
    """Numbers and ISO 8601, as seconds.

    The unit of numbers is `unit` or that of the column's name (`time_ms`).
    Where neither says it, the magnitude of the first number decides for the
    whole trace: below 1e11 seconds, below 1e14 milliseconds, below 1e17
    microseconds, else nanoseconds since 1970. Times that count from 0 in
    another unit than seconds need `unit`. ISO 8601 (with or without a zone,
    UTC where there is none) is recognised whatever the unit.

    >>> Instants().read("1767225600000")
    1767225600.0
    >>> Instants().read("2026-01-01T01:00:00+01:00")
    1767225600.0
    """

    __slots__ = ("scale",)

    def __init__(self, unit: Unit | None = None) -> None:
        self.scale = None if unit is None else IN_A_SECOND[unit]

    def read(self, value: object, named: float | None = None) -> float:
        """In seconds. `named`: how many of the column's unit are in a second. `Unread` for what is no time."""
        if isinstance(value, str):
            try:
                number = float(value)
            except ValueError:
                return _of_iso(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                raise Unread(Why.TIME) from None
        else:
            raise Unread(Why.TIME)
        if not isfinite(number):
            raise Unread(Why.TIME)
        return self._seconds(number, named)

    def _seconds(self, number: float, named: float | None) -> float:
        scale = self.scale or named
        if scale is None:
            scale = next(IN_A_SECOND[unit] for bound, unit in BY_MAGNITUDE if abs(number) < bound)
        seconds = number / scale
        if not -MOST_S < seconds < MOST_S:
            raise Unread(Why.TIME)
        if named is None:
            self.scale = scale
        return seconds


def _of_iso(text: str) -> float:
    try:
        found = datetime.fromisoformat(text.strip())
        return ((found if found.tzinfo else found.replace(tzinfo=UTC)) - EPOCH).total_seconds()
    except (ValueError, OverflowError):
        raise Unread(Why.TIME) from None
