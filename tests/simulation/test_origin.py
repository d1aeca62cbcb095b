"""A modelled origin: its distributions, and that it is the same world for everybody."""

from __future__ import annotations

from math import exp, inf, log, nextafter
from statistics import correlation, fmean, quantiles, stdev
from typing import Any

import pytest

from cachemesh.simulation import Constant, LogNormal, OriginModel, Quantiles, Uniform
from cachemesh.simulation.origin import next_change

MEASURED = ((0.0, 0.01), (0.5, 0.02), (0.9, 0.1), (1.0, 0.5))


@pytest.mark.parametrize(
    ("latency", "median", "p90"),
    [
        (Constant(0.2), 0.2, 0.2),
        (Uniform(0.1, 0.3), 0.2, 0.28),
        (LogNormal(0.05, 0.4), 0.05, 0.05 * exp(log(8) * 1.2815516 / 2.3263479)),
        (LogNormal(0.05, 0.05), 0.05, 0.05),
        (Quantiles(MEASURED), 0.02, 0.1),
        (Quantiles(((0.5, 0.3),)), 0.3, 0.3),
    ],
)
def test_latencies_are_distributed_as_they_are_said_to(latency: Any, median: float, p90: float) -> None:
    origin = OriginModel(latency, failure_rate=0.25).started(seed=3)
    answers = [origin.ask(f"item:{number % 50}", float(number)) for number in range(20_000)]

    spread = quantiles([answer.latency_s for answer in answers], n=10)

    assert spread[4] == pytest.approx(median, rel=0.03)
    assert spread[8] == pytest.approx(p90, rel=0.03)
    assert fmean(answer.fails for answer in answers) == pytest.approx(0.25, abs=0.01)


def test_the_third_request_for_a_key_is_the_same_whatever_else_is_asked() -> None:
    model = OriginModel(LogNormal(0.05, 1.0), failure_rate=0.5, change_every_s=10.0)
    alone, busy = model.started(seed=7), model.started(seed=7)

    for number in range(200):
        for _ in range(number % 3):
            busy.ask(f"other:{number}", float(number))
        assert alone.ask("feed", float(number)) == busy.ask("feed", float(number))


def test_keys_and_seeds_differ() -> None:
    model = OriginModel(Uniform(0.0, 1.0))
    drawn = {model.started(seed).ask(key, 0.0).latency_s for seed in range(50) for key in ("a", "b")}

    assert len(drawn) == 100


def test_values_change_by_a_poisson_process() -> None:
    gaps = []
    for salt in range(1_000):
        at = 0.0
        for _ in range(50):
            changes_at = next_change(salt * 0x1234567890ABCDEF % 2**64, at, 10.0)
            gaps.append(changes_at - at)
            at = changes_at

    assert fmean(gaps) == pytest.approx(10.0, rel=0.02)
    assert stdev(gaps) == pytest.approx(10.0, rel=0.02)
    assert fmean(gap > 20.0 for gap in gaps) == pytest.approx(exp(-2.0), rel=0.03)
    assert correlation(gaps[:-1], gaps[1:]) == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize("every_s", [0.01, 3.0, 1e5])
def test_when_a_value_changes_does_not_depend_on_when_somebody_looked(every_s: float) -> None:
    model = OriginModel(change_every_s=every_s)
    often, seldom = model.started(1), model.started(1)
    for number in range(1_000):
        often.ask("feed", number / 7)

    answer = seldom.ask("feed", 1_000 / 7)

    assert often.ask("feed", 1_000 / 7) == answer
    assert answer.changes_at == seldom.changes_at("feed", 1_000 / 7) > 1_000 / 7
    assert often.changes_at("feed", answer.changes_at) > answer.changes_at


def test_outages_are_counted_from_the_first_request_and_hold_until_just_before_their_end() -> None:
    origin = OriginModel(outages=((10.0, 20.0), (30.0, 31.0))).started(began_at=1_000.0)

    failed = [second for second in range(50) if origin.ask("feed", 1_000.0 + second).fails]

    assert failed == [*range(10, 20), 30]


@pytest.mark.parametrize("at", [1767225600.0, 1e300])
def test_values_that_change_faster_than_floats_can_tell(at: float) -> None:
    assert OriginModel(change_every_s=1e-9).started().ask("feed", at).changes_at == nextafter(at, inf)


def test_the_edges_of_an_outage_are_exact_in_times_of_the_day_too() -> None:
    """1767225610.1 - 1767225600 is less than 10.1."""
    origin = OriginModel(outages=((10.1, 20.7),)).started(began_at=1767225600.0)

    asked = (1767225610.0999, 1767225610.1, 1767225620.6999, 1767225620.7)
    assert [origin.ask("feed", at).fails for at in asked] == [False, True, True, False]


def test_a_rate_limit_lets_one_second_s_worth_through_at_once_and_its_rate_after_that() -> None:
    origin = OriginModel(rate_limit=5.0).started()

    assert [origin.ask("feed", 0.0).fails for _ in range(7)] == [False] * 5 + [True] * 2
    assert [origin.ask("feed", 0.3).fails for _ in range(2)] == [False, True]
    assert [origin.ask("feed", 100.0).fails for _ in range(6)] == [False] * 5 + [True]
    assert origin.ask("feed", 100.0).changes_at == inf


@pytest.mark.parametrize(
    "wrong",
    [
        {"failure_rate": 1.1},
        {"failure_rate": float("nan")},
        {"outages": ((5.0, 5.0),)},
        {"rate_limit": 0.0},
        {"change_every_s": -1.0},
        {"change_every_s": inf},
        {"latency": Constant(-0.1)},
        {"latency": Uniform(0.3, 0.1)},
        {"latency": Constant(inf)},
    ],
)
def test_a_model_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"failure rate|outage|rate_limit|change_every_s|latency"):
        OriginModel(**wrong)


@pytest.mark.parametrize("points", [(), ((0.5, 0.1), (0.5, 0.2)), ((0.1, 0.2), (0.2, 0.1))])
def test_quantiles_rise(points: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match="rising"):
        Quantiles(points)


@pytest.mark.parametrize(("median", "p99"), [(0.0, 1.0), (-1.0, 1.0), (0.2, 0.1), (float("nan"), 1.0)])
def test_a_p99_is_not_below_its_median(median: float, p99: float) -> None:
    with pytest.raises(ValueError, match="median"):
        LogNormal(median, p99)
