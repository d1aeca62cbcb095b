"""Durations as callers write them, and the seconds that they come to."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Final, TypeAlias

from cachemesh.core.lifetimes import LONGEST_TTL_S

Ttl: TypeAlias = timedelta | float | int | None
"""A duration: seconds when a number; None for ever."""

Duration: TypeAlias = timedelta | float | int | str
"""Seconds when a number; a str such as "90s", "5m", "1h30m", "1.5d" (units: ms, s, m, h, d, w)."""

UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}

PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])", re.ASCII)
WHOLE: Final = re.compile(rf"(?:{PART.pattern})+", re.ASCII)


def duration_s(duration: object) -> float | None:
    """`duration` as seconds. ValueError where it is none.

    >>> duration_s("1h30m")
    5400.0
    """
    if not isinstance(duration, str):
        return seconds(duration)
    if WHOLE.fullmatch(duration) is None:
        msg = f"a duration reads like 90s, 5m or 1h30m, not {duration!r}"
        raise ValueError(msg)
    return seconds(sum(float(number) * UNITS[unit] for number, unit in PART.findall(duration)))


def seconds(duration: object) -> float | None:
    """`duration` as seconds. ValueError where it is no finite number from 0 to a century (a bool is no number).

    >>> seconds(timedelta(minutes=5))
    300.0
    """
    if duration is None:
        return None
    if isinstance(duration, timedelta):
        value = duration.total_seconds()
    elif isinstance(duration, int | float) and not isinstance(duration, bool):
        value = float(duration) if abs(duration) <= LONGEST_TTL_S else math.inf
    else:
        msg = f"a duration is a number of seconds or a timedelta, not {type(duration).__name__}"
        raise ValueError(msg)  # noqa: TRY004 (pydantic turns a ValueError into its own)
    if not 0.0 <= value <= LONGEST_TTL_S:
        msg = "a duration lies between 0 seconds and a century"
        raise ValueError(msg)
    return value
