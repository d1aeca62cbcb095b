"""What `inspect` and `circuit` answer: everything there is to know of a key or an origin, without a fetch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from msgspec import Struct

if TYPE_CHECKING:
    from cachemesh.core.model import Breaker
    from cachemesh.shell.clock import Timekeeper

T = TypeVar("T")

EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
LATEST: Final = datetime.max.replace(tzinfo=UTC)


class CacheState(Struct, Generic[T], frozen=True):
    """A key's entry as it was at `now`. Everything but `key` and `now` is None where nothing is cached.

    Stale from exactly `created_at + ttl` on.
    """

    key: str
    now: datetime
    value: T | None = None
    created_at: datetime | None = None
    ttl: timedelta | None = None

    @property
    def is_present(self) -> bool:
        """Whether anything is cached, fresh or stale."""
        return self.created_at is not None

    @property
    def is_missing(self) -> bool:
        """Whether nothing is cached."""
        return self.created_at is None

    @property
    def is_fresh(self) -> bool:
        """Whether something is cached that is not stale."""
        return self.is_present and not self.is_stale

    @property
    def is_stale(self) -> bool:
        """Whether something is cached that has reached its expiry."""
        return self.expires_at is not None and self.now >= self.expires_at

    @property
    def expires_at(self) -> datetime | None:
        """When the entry becomes stale; None without a ttl."""
        if self.created_at is None or self.ttl is None:
            return None
        return self.created_at + min(self.ttl, LATEST - self.created_at)

    @property
    def age(self) -> timedelta | None:
        """How long ago the entry was stored; never negative."""
        return None if self.created_at is None else max(self.now - self.created_at, timedelta(0))

    @property
    def time_to_expiry(self) -> timedelta | None:
        """Negative once the entry is stale; None without a ttl."""
        return None if self.expires_at is None else self.expires_at - self.now

    def __repr__(self) -> str:
        state = "missing" if self.is_missing else "stale" if self.is_stale else "fresh"
        return f"CacheState({self.key!r}, {state}, age={self.age}, ttl={self.ttl})"


def instant(seconds: float) -> datetime:
    """`seconds` since the epoch as an aware datetime, held within what a datetime can say."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return LATEST if seconds > 0 else EARLIEST


class CircuitState(StrEnum):
    """Whether an origin is asked: `half_open` lets one fetch try it."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Circuit(Struct, frozen=True):
    """The circuit breaker of one origin. `failures`: in a row. `until`: when it is to be tried, where it is open."""

    origin: str
    state: CircuitState = CircuitState.CLOSED
    failures: int = 0
    until: datetime | None = None


def circuit_of(origin: str, breaker: Breaker | None, time: Timekeeper) -> Circuit:
    """What `breaker` amounts to now."""
    if breaker is None:
        return Circuit(origin)
    if breaker.open_until is None:
        return Circuit(origin, CircuitState.CLOSED, breaker.failures)
    until = instant(breaker.open_until + time.epoch_offset)
    is_open = time.now() < breaker.open_until and breaker.probe is None
    state = CircuitState.OPEN if is_open else CircuitState.HALF_OPEN
    return Circuit(origin, state, breaker.failures, until)
