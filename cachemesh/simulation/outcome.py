"""`Outcome`: what a configuration made of a load."""

from __future__ import annotations

from collections import Counter
from math import expm1, log1p
from typing import Final

from msgspec import Struct

from cachemesh.simulation.configuration import Configuration


class Spread(Struct, frozen=True, gc=False):
    """How a quantity is spread, in seconds. `most` and `mean` are exact, the quantiles within 0.5 % and a microsecond.

    A quantile is the least value that so many of all do not exceed (nearest rank).
    """

    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    most: float = 0.0
    mean: float = 0.0


NO_SPREAD: Final = Spread()


class Outcome(Struct, frozen=True, kw_only=True):
    """What was measured while a load ran against a configuration, its warm-up left out.

    Every request is one of `hits`, of those that waited and got a value, or of
    `failures`.

    >>> Outcome(configuration=Configuration(), requests=4, hits=3).hit_ratio
    0.75
    """

    configuration: Configuration
    requests: int = 0
    hits: int = 0
    """Answered at once with a value that was there, fresh or stale."""
    stood_in: int = 0
    """Answered with an old value, after a fetch had failed."""
    failures: int = 0
    """Answered with a failure: the origin's, a remembered one, or the cache's own (there is nothing)."""
    stale: int = 0
    """Answered with a value past its ttl."""
    outdated: int = 0
    """Answered with a value that was another one at the origin by then."""
    origin_requests: int = 0
    """Attempts, retries among them."""
    origin_failures: int = 0
    peak_rate: int = 0
    """The most origin requests in one second, of seconds counted from the first request on."""
    waits: Spread = NO_SPREAD
    """How long callers wait; a hit does not."""
    ages: Spread = NO_SPREAD
    """Of all values that were answered: how long ago they came from the origin. One just fetched is 0 old."""
    staleness: Spread = NO_SPREAD
    """Of all values that were answered: how long ago they had become another one at the origin; 0 for one that had not.

    Counted from the first change after the origin was asked. All 0 where values never change.
    """
    evictions: int = 0
    most_entries: int = 0
    """Entries held at the same time."""
    most_size: int = 0
    """The sizes of these added up, in the unit of the trace, at their largest."""
    duration_s: float = 0.0
    """From the first request that counts to the last one."""

    @property
    def hit_ratio(self) -> float:
        """The share of requests that are hits; 0 where there were none."""
        return self._share(self.hits)

    @property
    def stale_share(self) -> float:
        """The share of requests answered with a value past its ttl."""
        return self._share(self.stale)

    @property
    def outdated_share(self) -> float:
        """The share of requests answered with a value that had changed at the origin."""
        return self._share(self.outdated)

    @property
    def failure_share(self) -> float:
        """The share of requests answered with a failure."""
        return self._share(self.failures)

    @property
    def origin_rate(self) -> float:
        """Origin requests a second, on the average."""
        return self.origin_requests / self.duration_s if self.duration_s > 0 else 0.0

    def _share(self, count: int) -> float:
        return count / self.requests if self.requests else 0.0


class Histogram:
    """Counts of durations, in buckets that each are 1 % wide: some 3,500 of them from a microsecond to a century.

    >>> histogram = Histogram()
    >>> histogram.pending.extend([0.1] * 99 + [7.0])
    >>> spread = histogram.spread()
    >>> round(spread.p50, 2), spread.most
    (0.1, 7.0)
    """

    __slots__ = ("counts", "most", "pending", "total")

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.most = 0.0
        self.total = 0.0
        self.pending: list[float] = []
        """What is not counted yet. Appended to by whoever measures; `flush` when it is long."""

    def flush(self) -> None:
        """Count what is pending: together it costs a third of what it would one by one."""
        pending = self.pending
        if not pending:
            return
        self.counts.update([int(log1p(each * RESOLUTION) * BUCKETS_AN_E_FOLD) for each in pending])
        self.total += sum(pending)
        self.most = max(self.most, *pending)
        pending.clear()

    def spread(self, zeros: int = 0) -> Spread:
        """Of what was counted and so many zeros beside."""
        self.flush()
        count = zeros + self.counts.total()
        if not count:
            return NO_SPREAD
        buckets = [(-1, zeros), *sorted(self.counts.items())]
        p50, p95, p99 = (self._quantile(buckets, -(-count * percent // 100)) for percent in (50, 95, 99))
        return Spread(p50, p95, p99, self.most, self.total / count)

    def _quantile(self, buckets: list[tuple[int, int]], rank: int) -> float:
        seen = 0
        for bucket, count in buckets:
            seen += count
            if seen >= rank:
                middle = expm1((bucket + 0.5) / BUCKETS_AN_E_FOLD) / RESOLUTION
                return 0.0 if bucket <= 0 else min(middle, self.most)
        return self.most


RESOLUTION: Final = 1e6
"""Durations far below its inverse, in seconds, count as 0."""

BUCKETS_AN_E_FOLD: Final = 100
"""So that a bucket is exp(0.01) wide, and its middle at most 0.5 % from what is in it."""
