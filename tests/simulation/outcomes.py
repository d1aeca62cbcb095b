"""Outcomes for the tests of choice and report, said by what differs."""

from __future__ import annotations

from typing import Any

from cachemesh.simulation.configuration import Configuration
from cachemesh.simulation.outcome import Outcome, Spread


def outcome(
    *,
    load: int = 100,
    p99: float = 0.05,
    staleness: float = 0.0,
    age: float = 60.0,
    failures: int = 0,
    hits: int = 800,
    configuration: Configuration | None = None,
    **others: Any,
) -> Outcome:
    """One of 1,000 requests."""
    return Outcome(
        configuration=configuration or Configuration.of(ttl=60),
        requests=1_000,
        hits=hits,
        failures=failures,
        origin_requests=load,
        waits=Spread(0.0, p99 / 2, p99, p99 * 2, p99 / 10),
        ages=Spread(age / 4, age / 2, age, age, age / 4),
        staleness=Spread(0.0, staleness / 2, staleness, staleness, staleness / 4),
        **{"duration_s": 100.0, "most_entries": 10, "most_size": 10, **others},
    )
