"""What an origin saw during one run: requests, answers, and how many at once."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Tally:
    """Counts of one run. The origin's threads write to it, anybody may read."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._at_once: Counter[tuple[str | None, str]] = Counter()
        self._in_slot: Counter[int] = Counter()
        self.requests: Counter[tuple[str | None, str]] = Counter()
        """How many requests came, by (user, path)."""
        self.statuses: Counter[int] = Counter()
        """How many answers went out, by HTTP status."""
        self.most_at_once: Counter[tuple[str | None, str]] = Counter()
        """The most requests that were being served at one moment, by (user, path)."""

    @property
    def total(self) -> int:
        """All requests of the run."""
        with self._lock:
            return self.requests.total()

    def of_path(self, path: str) -> int:
        """The requests for `path`, whoever sent them."""
        with self._lock:
            return sum(count for (_, seen), count in self.requests.items() if seen == path)

    def peak(self) -> tuple[int, str | None, str]:
        """The most requests for the same thing at once: how many, whose, and for which path."""
        with self._lock:
            return max(
                ((count, user, path) for (user, path), count in self.most_at_once.items()),
                key=lambda seen: seen[0],
                default=(0, None, ""),
            )

    @contextmanager
    def request(self, user: str | None, path: str) -> Iterator[int]:
        """Count a request while it is being served; gives its number among those for the same thing."""
        asked = (user, path)
        with self._lock:
            self.requests[asked] += 1
            self._at_once[asked] += 1
            self.most_at_once[asked] = max(self.most_at_once[asked], self._at_once[asked])
            number = self.requests[asked]
        try:
            yield number
        finally:
            with self._lock:
                self._at_once[asked] -= 1

    def answered(self, status: int) -> None:
        """Count an answer."""
        with self._lock:
            self.statuses[status] += 1

    def take_slot(self, slot: int) -> int:
        """Count a request against a rate limit; gives how many the slot has had by now."""
        with self._lock:
            self._in_slot[slot] += 1
            return self._in_slot[slot]
