"""The simulated fleet finds what is wrong: each safety rule is taken away in turn, and it must find a violation.

Seeds are tried in order, as whoever looks for a bug would.
"""

from __future__ import annotations

from typing import Any

import pytest
from returns.result import Failure

from cachemesh import Cache
from cachemesh.simulation.fleet import FleetReport, Step, assert_sound, run_fleet, shrunk
from tests.simulation.broken import RULES, first_violation


@pytest.mark.parametrize("rule", RULES)
def test_fleet_finds_what_is_wrong_without_a_rule(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = RULES[rule].first
    found = first_violation(rule, monkeypatch, range(first, first + 100))
    assert found is not None
    assert found.violations[0].rule in RULES[rule].broken


def test_fleet_a_failure_prints_the_seed_and_the_fewest_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    found = first_violation("news are heard", monkeypatch, range(50))
    assert found is not None
    few = shrunk(found)
    assert few.violations[0].rule == found.violations[0].rule
    assert len(few.schedule) < len(found.schedule)
    # None of them can be left out.
    for number in range(len(few.schedule)):
        left = few.schedule[:number] + few.schedule[number + 1 :]
        tried = replayed(few, left)
        assert not any(each.rule == few.violations[0].rule for each in tried.violations) or waits(few.schedule[number])
    assert replayed(few, few.schedule) == few
    with pytest.raises(AssertionError) as raised:
        assert_sound(found)
    shown = str(raised.value)
    assert f"seed {found.seed}" in shown
    assert str(few.violations[0]) in shown
    assert all(str(step) in shown for step in few.schedule)


def replayed(report: FleetReport, schedule: tuple[Step, ...]) -> FleetReport:
    return run_fleet(report.seed, nodes=report.nodes, faults=report.faults, ttl_s=report.ttl_s, schedule=schedule)


def waits(step: Step) -> bool:
    """Whether leaving `step` out also takes away a time in which something happens."""
    return step.after_s > 0


@pytest.mark.parametrize(
    ("end", "rule"),
    [(ZeroDivisionError("a bug"), "no cache raises"), (Failure("a bug"), "no failure but the origin's")],
)
def test_fleet_finds_a_cache_that_does_not_answer(end: Any, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would be answered anything, and so nothing wrong."""
    get = Cache.get

    async def sometimes(cache: Any, key: str, *arguments: Any, **options: Any) -> Any:
        if key != "b":
            return await get(cache, key, *arguments, **options)
        if isinstance(end, Exception):
            raise end
        return end

    monkeypatch.setattr(Cache, "get", sometimes)
    report = run_fleet(1, nodes=2, steps=20)
    assert {violation.rule for violation in report.violations} == {rule}
    assert "a bug" in str(report) or "ZeroDivisionError" in str(report)
