"""The figures that tables show of each configuration, and an origin in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachemesh.simulation.amounts import Unit, shown
from cachemesh.simulation.measures import WORDS
from cachemesh.simulation.origin import Constant, LogNormal, Uniform

if TYPE_CHECKING:
    from cachemesh.simulation.measures import Measure
    from cachemesh.simulation.origin import Latency, OriginModel
    from cachemesh.simulation.study import Study
    from cachemesh.simulation.survey import TraceSummary

ALWAYS: Final = ("hit ratio", "origin load", "peak rate", "p50", "p95", "p99", "stale share", "age")
OF_CHANGES: Final = ("outdated share", "staleness")
AT_LAST: Final = ("failures", "entries")
OF_SIZES: Final = ("memory",)
"""Where the trace says how large values are."""


def columns(study: Study) -> list[Measure]:
    """What is worth a column in this study."""
    names = [*ALWAYS, *(OF_CHANGES if study.knows_changes else ()), *AT_LAST, *(OF_SIZES if has_sizes(study) else ())]
    return [WORDS[name] for name in names]


def has_sizes(study: Study) -> bool:
    """Whether a size is more than a count of entries."""
    return any(row.outcome.most_size != row.outcome.most_entries for row in study.rows)


def trace_in_words(trace: TraceSummary, warm_up_s: float = 0.0) -> list[tuple[str, str]]:
    """Names and values, a line each."""
    bound = "; no hit ratio is above it" if not warm_up_s else ", the warm-up among them"
    rate = f", {shown(trace.requests / trace.duration_s, Unit.RATE)}" if trace.duration_s > 0 else ""
    told = [
        ("trace", f"{trace.name} ({trace.format})" if trace.format else trace.name),
        ("requests", f"{trace.requests:,} in {shown(trace.duration_s, Unit.TIME)}{rate}"),
        ("keys", f"{trace.keys:,}" + (f", of {trace.users:,} users" if trace.users else "")),
        ("asked for before", f"{shown(trace.repeats, Unit.SHARE)} of requests{bound}"),
    ]
    if trace.left_out:
        told.append(("unreadable", trace.unreadable))
    if trace.backwards:
        put_right = "all put right" if not trace.clamped else f"{trace.clamped:,} of them moved to a later time"
        told.append(("times that go back", f"{trace.backwards:,}, {put_right}"))
    return told


def origin_in_words(origin: OriginModel) -> list[tuple[str, str]]:
    """Names and values, a line each."""
    told = [("latency", latency_in_words(origin.latency))]
    if origin.failure_rate:
        told.append(("fails by chance", f"{shown(origin.failure_rate, Unit.SHARE)} of requests"))
    told.extend(
        ("outage", f"from {shown(begins, Unit.TIME)} until {shown(ends, Unit.TIME)} after the first request")
        for begins, ends in origin.outages
    )
    if origin.rate_limit is not None:
        told.append(("rate limit", shown(origin.rate_limit, Unit.RATE)))
    changes = origin.change_every_s
    told.append(("a value changes", "nobody said" if changes is None else f"every {shown(changes, Unit.TIME)}"))
    return told


def latency_in_words(latency: Latency) -> str:
    """As an option of the command would say it, more or less.

    >>> latency_in_words(LogNormal(0.05, 0.4))
    'median 50 ms, p99 400 ms (log-normal)'
    """
    if isinstance(latency, Constant):
        return shown(latency.seconds, Unit.TIME)
    if isinstance(latency, Uniform):
        return f"{shown(latency.least, Unit.TIME)} to {shown(latency.most, Unit.TIME)}, all equally likely"
    if isinstance(latency, LogNormal):
        return f"median {shown(latency.median, Unit.TIME)}, p99 {shown(latency.p99, Unit.TIME)} (log-normal)"
    return ", ".join(f"p{share * 100:g} {shown(seconds, Unit.TIME)}" for share, seconds in latency.points)
