"""How long an answer is fresh. Instants are seconds on the cache's clock, durations seconds; None is for ever."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final

from cachemesh.core.policies import FRESH, MISSING, STALE, Freshness

if TYPE_CHECKING:
    from cachemesh.core.model import Entry

LONGEST_TTL_S: Final = 100 * 31_557_600.0
"""A century. What is meant to live longer is given no ttl."""

LONGEST_FAILURE_TTL_S: Final = 60.0
"""A failure without a ttl of its own is remembered for so long at the most."""

REFRESH_BACKOFF_S: Final = 30.0
"""After a failed background refresh the next one waits for so long."""

CLOCK_SKEW_S: Final = 60.0
"""How far in the future a stored entry may have been made before it counts as stale."""


def verdict(entry: Entry[Any] | None, now: float) -> Freshness:
    """What there is at `now`: stale from exactly `expires_at` on."""
    if entry is None:
        return MISSING
    return FRESH if now < entry.expires_at else STALE


def expiry(created_at: float, ttl_s: float | None) -> float:
    """The instant from which on an entry is stale."""
    return inf if ttl_s is None else created_at + ttl_s


def failure_ttl(ttl_s: float | None) -> float:
    """How long a failure is remembered where its value would live for `ttl_s`."""
    return LONGEST_FAILURE_TTL_S if ttl_s is None or ttl_s > LONGEST_FAILURE_TTL_S else ttl_s


def shorter(one: float | None, other: float | None) -> float | None:
    """The shorter of two lifetimes."""
    if one is None:
        return other
    return one if other is None or one <= other else other
