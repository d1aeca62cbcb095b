"""When a failed fetch is tried again. The predicate that looks at the error is the shell's: it is code, not data."""

from __future__ import annotations

import math
from typing import Final

from msgspec import Struct

LONGEST_DELAY_S: Final = 31_557_600.0
"""A year. Exponential backoff without a cap of its own stops growing here."""

LARGEST: Final = 1.7976931348623157e308
"""The largest finite float (IEEE 754, binary64)."""


class Retry(Struct, frozen=True):
    """How often and after how long a wait a fetch is tried."""

    max_attempts: int = 1
    delay_s: float = 0.0
    backoff_factor: float = 1.0
    max_delay_s: float | None = None
    jitter: float = 0.0


NO_RETRY: Final = Retry()


def delay_before_next_s(retry: Retry, attempt: int, chance: float) -> float:
    """Seconds to wait after failed attempt `attempt` (the first is 1).

    `chance` is a number from 0 to 1. The share `jitter` of the delay is
    random: 0 leaves it whole, 1 is "full jitter" (Brooker, Exponential Backoff
    And Jitter, 2015). The cap holds for the result.
    """
    longest = LONGEST_DELAY_S if retry.max_delay_s is None else retry.max_delay_s
    try:
        delay = min(retry.delay_s * math.pow(retry.backoff_factor, attempt - 1), LARGEST)
    except OverflowError:
        delay = LARGEST if retry.delay_s > 0 else 0.0
    jittered = delay * (1.0 - retry.jitter) + delay * retry.jitter * chance
    return min(jittered, longest)


def more_patient(one: Retry, other: Retry) -> Retry:
    """Of two callers who share a flight, the one who would try more often decides."""
    return other if other.max_attempts > one.max_attempts else one
