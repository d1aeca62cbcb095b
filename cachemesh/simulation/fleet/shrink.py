"""From a run that went wrong to the few commands that are needed for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from cachemesh.simulation.fleet.run import run_fleet

if TYPE_CHECKING:
    from cachemesh.simulation.fleet.run import FleetReport
    from cachemesh.simulation.fleet.schedule import Step


def shrunk(report: FleetReport) -> FleetReport:
    """The run with as few steps as still break the same rule; `report` itself where nothing is wrong.

    Steps are left out by halves, quarters and so on down to single ones (delta
    debugging: Zeller, "Yesterday, my program worked", 1999), each time replayed
    with the same seed. What is left out is waited for all the same.
    """
    if not report.violations:
        return report
    rule = report.violations[0].rule
    best, size = report, max(1, len(report.schedule) // 2)
    while True:
        at, before = 0, len(best.schedule)
        while at < len(best.schedule):
            tried = _replayed(report, without(best.schedule, at, at + size))
            if any(violation.rule == rule for violation in tried.violations):
                best = tried
            else:
                at += size
        if size == 1 and len(best.schedule) == before:
            return best
        size = max(1, size // 2)


def assert_sound(report: FleetReport) -> None:
    """AssertionError with the seed and the fewest commands, where a rule was broken."""
    if report.violations:
        raise AssertionError(str(shrunk(report)))


def _replayed(report: FleetReport, schedule: tuple[Step, ...]) -> FleetReport:
    return run_fleet(report.seed, nodes=report.nodes, faults=report.faults, ttl_s=report.ttl_s, schedule=schedule)


def without(schedule: tuple[Step, ...], begin: int, end: int) -> tuple[Step, ...]:
    """`schedule` less some steps. What follows them happens when it did: the time goes on."""
    left, rest = schedule[:begin], schedule[end:]
    if not rest:
        return left
    waited_s = sum(step.after_s for step in schedule[begin:end])
    return (*left, replace(rest[0], after_s=rest[0].after_s + waited_s), *rest[1:])
