"""`Outcome`: what a configuration made of a load."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Final

from msgspec import Struct

from cachemesh.simulation.configuration import Configuration


class Spread(Struct, frozen=True, gc=False):
    """How a quantity is spread, in seconds. `most` and `mean` are exact.

    A quantile is the least value that so many of all do not exceed (nearest
    rank), or up to 0.4 % more, and never less: what is said to be under a limit
    is. Where all waits near it are the same, as with an origin that always takes
    as long, it is exact.
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
    """Counts of durations, in 256 buckets from each power of two to the next, so each less than 0.4 % wide.

    The bucket of a float is its exponent and the first eight bits of its
    fraction, as they stand in memory (IEEE 754, binary64). All in a bucket count
    as its upper end, or, with `keeps_largest`, as the largest one that came: that
    is exact where they are equal, and costs some 100 ns for each.

    >>> histogram = Histogram(keeps_largest=True)
    >>> histogram.pending.extend([0.1] * 99 + [7.0])
    >>> spread = histogram.spread()
    >>> spread.p50, spread.most
    (0.1, 7.0)
    """

    __slots__ = ("counts", "largest", "most", "pending", "total")

    def __init__(self, *, keeps_largest: bool = False) -> None:
        self.counts: Counter[int] = Counter()
        self.largest: dict[int, float] | None = {} if keeps_largest else None
        """Of each bucket."""
        self.most = 0.0
        self.total = 0.0
        self.pending: list[float] = []
        """What is not counted yet. Appended to by whoever measures; `flush` when it is long."""

    def flush(self) -> None:
        """Count what is pending: together, as it costs a fraction of what it would one by one."""
        pending = self.pending
        if not pending:
            return
        largest = self.largest
        if largest is not None:
            pending.sort()
        buckets = [bits >> DROPPED_BITS for bits in memoryview(array("d", pending)).cast("B").cast("Q")]
        self.counts.update(buckets)
        if largest is not None:
            for bucket, value in dict(zip(buckets, pending, strict=True)).items():  # The last one of each.
                largest[bucket] = max(value, largest.get(bucket, 0.0))
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
                return 0.0 if bucket <= 0 else self._of(bucket)
        return self.most

    def _of(self, bucket: int) -> float:
        return min(_end(bucket), self.most) if self.largest is None else self.largest[bucket]


def _end(bucket: int) -> float:
    """The largest float of a bucket."""
    bits = array("Q", [((bucket + 1) << DROPPED_BITS) - 1])
    end: float = memoryview(bits).cast("B").cast("d")[0]
    return end


DROPPED_BITS: Final = 52 - 8
