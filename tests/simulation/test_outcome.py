"""The histogram keeps to the error that it states."""

from __future__ import annotations

from math import fsum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemesh.simulation import Configuration, Outcome, Spread
from cachemesh.simulation.outcome import Histogram

DURATIONS = st.lists(st.floats(0.0, 1e9, allow_subnormal=False), max_size=300)


@given(DURATIONS, st.integers(0, 300), st.integers(1, 50))
def test_quantiles_are_within_0_4_percent(measured: list[float], zeros: int, every: int) -> None:
    histogram = Histogram()
    for number, each in enumerate(measured):
        histogram.pending.append(each)
        if number % every == 0:
            histogram.flush()
    exact = sorted([0.0] * zeros + measured)

    spread = histogram.spread(zeros)

    if not exact:
        assert spread == Spread()
        return
    for percent, said in ((50, spread.p50), (95, spread.p95), (99, spread.p99)):
        assert said == pytest.approx(exact[-(-len(exact) * percent // 100) - 1], rel=2**-8)
    assert spread.most == exact[-1]
    assert spread.mean == pytest.approx(fsum(exact) / len(exact))
    assert spread.p50 <= spread.p95 <= spread.p99 <= spread.most


def test_shares_are_of_all_requests() -> None:
    outcome = Outcome(
        configuration=Configuration(),
        requests=200,
        hits=150,
        failures=10,
        stale=40,
        outdated=20,
        origin_requests=50,
        duration_s=25.0,
    )

    assert (outcome.hit_ratio, outcome.failure_share) == (0.75, 0.05)
    assert (outcome.stale_share, outcome.outdated_share, outcome.origin_rate) == (0.2, 0.1, 2.0)
