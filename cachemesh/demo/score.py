"""What the callers of one run saw, and the invariants that broke in it.

The definitions are here, and `report` prints them under the table.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from returns.pipeline import is_successful

from cachemesh import CacheLogger
from cachemesh.demo.client import OriginError
from cachemesh.demo.invariants import Invariant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from returns.result import Result

    from cachemesh import CacheError
    from cachemesh.demo.catalog import Resource
    from cachemesh.demo.client import Stamped
    from cachemesh.demo.tally import Tally

GRACE_S: Final = 0.01
"""A thread may lose the processor between the cache's look at the clock and ours: less than this is not stale."""


class HitCounter(CacheLogger):
    """Counts what the cache calls a hit, whichever user's view it came through."""

    def __init__(self) -> None:
        self.hits = 0

    def on_hit(self, key: str) -> None:  # noqa: ARG002  the name is the base class's
        """A call was answered from the cache."""
        self.hits += 1


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    policy: str
    calls: int
    origin_requests: int
    hit_ratio: float
    p50_ms: float
    p99_ms: float
    stale: int
    failures: int


class Score:
    """The running score of one policy."""

    def __init__(self, policy: str, tally: Tally) -> None:
        self.policy = policy
        self.tally = tally
        self.log = HitCounter()
        self.failures: Counter[str] = Counter()
        self.stale = 0
        self.own_answers = 0
        """Successes of private resources: each was checked to be its caller's own."""
        self.broken: dict[Invariant, str] = {}
        self._took_ms: list[float] = []

    @property
    def calls(self) -> int:
        """Calls that were answered."""
        return len(self._took_ms)

    def row(self) -> Row:
        """The score so far."""
        took_ms = sorted(self._took_ms)
        return Row(
            policy=self.policy,
            calls=self.calls,
            origin_requests=self.tally.total,
            hit_ratio=self.log.hits / self.calls if self.calls else 0.0,
            p50_ms=percentile(took_ms, 0.50),
            p99_ms=percentile(took_ms, 0.99),
            stale=self.stale,
            failures=self.failures.total(),
        )

    def answered(
        self,
        resource: Resource,
        user: str,
        answer: Result[Stamped, OriginError | CacheError],
        *,
        asked_at: float,
        answered_at: float,
    ) -> None:
        """`user` asked and was answered at these instants of `time.perf_counter`."""
        self._took_ms.append((answered_at - asked_at) * 1_000)
        if not is_successful(answer):
            self.failures[_kind(answer.failure())] += 1
            return

        value = answer.unwrap()
        if answered_at - value.arrived_at > resource.ttl_s + GRACE_S:
            self.stale += 1
        if value.path != resource.path:
            self.broke(Invariant.OWN_KEY, f"{resource.key} was answered with {value.path}")
        if value.owner != (user if resource.is_private else None):
            self.broke(Invariant.OWN_VALUE, f"{user} asked for {resource.key} and got the value of {value.owner}")
        elif resource.is_private:
            self.own_answers += 1

    def broke(self, invariant: Invariant, witness: str) -> None:
        """Keep the first witness of a broken invariant."""
        self.broken.setdefault(invariant, witness)

    def check_fetches(self) -> None:
        """Compare what the origin saw with single-flight."""
        count, user, path = self.tally.peak()
        if count > 1:
            self.broke(Invariant.ONE_FETCH, f"the origin served {path} to {user or 'everybody'} {count} times at once")


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of numbers in rising order; 0 of none."""
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1] if ordered else 0.0


def _kind(error: OriginError | CacheError) -> str:
    return str(error) if isinstance(error, OriginError) else type(error).__name__
