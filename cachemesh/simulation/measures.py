"""What outcomes are compared by: a row a measure, with the words that a goal has for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from cachemesh.simulation.amounts import Unit
from cachemesh.simulation.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping


class Measure(Struct, frozen=True):
    """`of` an outcome, in `unit`. `words`: what else it is called; `about`: what it means."""

    name: str
    unit: Unit
    about: str
    of: Callable[[Outcome], float]
    words: tuple[str, ...] = ()


P99: Final = Measure(
    "p99", Unit.TIME, "99 % of callers wait no longer", lambda each: each.waits.p99, ("p99 wait", "p99 latency")
)
STALENESS: Final = Measure(
    "staleness",
    Unit.TIME,
    "the longest that a value which was answered had been outdated",
    lambda each: each.staleness.most,
    ("longest staleness", "max staleness", "maximum staleness"),
)
P99_STALENESS: Final = Measure("p99 staleness", Unit.TIME, "of 99 % of values", lambda each: each.staleness.p99)
MEAN_STALENESS: Final = Measure("mean staleness", Unit.TIME, "of all values", lambda each: each.staleness.mean)
AGE: Final = Measure(
    "age",
    Unit.TIME,
    "the longest ago that a value which was answered had come from the origin",
    lambda each: each.ages.most,
    ("oldest age", "max age", "maximum age"),
)
P99_AGE: Final = Measure("p99 age", Unit.TIME, "of 99 % of values", lambda each: each.ages.p99)
MEAN_AGE: Final = Measure("mean age", Unit.TIME, "of all values", lambda each: each.ages.mean)
HIT_RATIO: Final = Measure(
    "hit ratio", Unit.SHARE, "requests answered at once", lambda each: each.hit_ratio, ("hits", "hit rate")
)
ORIGIN_LOAD: Final = Measure(
    "origin load",
    Unit.COUNT,
    "requests to the origin, retries among them",
    lambda each: float(each.origin_requests),
    ("origin requests", "load", "load on origin", "requests to origin"),
)
PEAK_RATE: Final = Measure(
    "peak rate",
    Unit.RATE,
    "the most origin requests in one second",
    lambda each: float(each.peak_rate),
    ("peak", "peak load", "origin peak", "peak origin rate", "peak origin load"),
)
FAILURES: Final = Measure(
    "failures",
    Unit.SHARE,
    "requests answered with a failure",
    lambda each: each.failure_share,
    ("failure share", "failure ratio", "failure rate", "errors", "error rate"),
)

FAILURES_IN_POINTS: Final = Measure(
    "failures to the point",
    Unit.SHARE,
    "failures, rounded: a front that told tenths of a point apart would have everybody on it",
    lambda each: round(each.failure_share, 2),
)

MEMORY: Final = Measure(
    "memory", Unit.BYTES, "sizes of entries held at the same time", lambda each: float(each.most_size)
)

MEASURES: Final = (
    Measure(
        "p50",
        Unit.TIME,
        "half the callers wait no longer",
        lambda each: each.waits.p50,
        ("median", "median wait", "p50 wait", "p50 latency"),
    ),
    Measure(
        "p95", Unit.TIME, "95 % of callers wait no longer", lambda each: each.waits.p95, ("p95 wait", "p95 latency")
    ),
    P99,
    Measure("longest wait", Unit.TIME, "of any caller", lambda each: each.waits.most, ("max wait", "max latency")),
    Measure(
        "mean wait",
        Unit.TIME,
        "of all callers",
        lambda each: each.waits.mean,
        ("wait", "waits", "mean latency", "latency"),
    ),
    STALENESS,
    P99_STALENESS,
    MEAN_STALENESS,
    AGE,
    P99_AGE,
    MEAN_AGE,
    HIT_RATIO,
    ORIGIN_LOAD,
    PEAK_RATE,
    FAILURES,
    Measure(
        "stale share",
        Unit.SHARE,
        "requests answered with a value past its ttl",
        lambda each: each.stale_share,
        ("stale", "stale answers", "stale values"),
    ),
    Measure(
        "outdated share",
        Unit.SHARE,
        "requests answered with a value that had changed at the origin",
        lambda each: each.outdated_share,
        ("outdated", "outdated answers", "outdated values"),
    ),
    Measure("entries", Unit.COUNT, "held at the same time", lambda each: float(each.most_entries), ("most entries",)),
    MEMORY,
)

WORDS: Final[Mapping[str, Measure]] = {word: measure for measure in MEASURES for word in (measure.name, *measure.words)}

OF_UNKNOWN_CHANGES: Final[Mapping[str, Measure]] = {
    **WORDS,
    **dict.fromkeys((STALENESS.name, *STALENESS.words), AGE),
    P99_STALENESS.name: P99_AGE,
    MEAN_STALENESS.name: MEAN_AGE,
}
"""Where nobody knows how often values change, one may have changed once it was fetched: staleness is its age."""
