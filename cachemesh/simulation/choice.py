"""Which configuration to take: the Pareto front, and a recommendation for a goal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from cachemesh.simulation.amounts import Unit, shown
from cachemesh.simulation.goal import Goal, Limit, Target
from cachemesh.simulation.measures import AGE, FAILURES, FAILURES_IN_POINTS, ORIGIN_LOAD, P99, STALENESS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachemesh.simulation.outcome import Outcome

COMPARED: Final = (Target(ORIGIN_LOAD), Target(P99), Target(STALENESS), Target(FAILURES_IN_POINTS))
"""What the front is of where nobody says otherwise. Who asks nothing of the origin must not win by failing."""

COMPARED_BY_AGE: Final = (Target(ORIGIN_LOAD), Target(P99), Target(AGE), Target(FAILURES_IN_POINTS))
"""The same where nobody knows how often values change."""

TOLERATED_FAILURES: Final = 0.01
"""A goal that is silent on failures is not met by making more of them: so much more than the fewest, as a share."""


class Miss(Struct, frozen=True):
    """`limit` fails: its measure is `value`, which is `excess` too much or too little."""

    limit: Limit
    value: float
    excess: float

    def __str__(self) -> str:
        limit = self.limit
        unit = limit.measure.unit
        told = f"{limit.measure.name} is {shown(self.value, unit)}"
        if not self.excess:
            return f"{told}, which is not {limit.relation} {shown(limit.bound, unit)}"
        by = shown(self.excess, unit)
        if unit is Unit.SHARE:
            by = f"{by.removesuffix(' %')} points"
        return f"{told}, {by} too {'much' if limit.is_upper else 'little'} for '{limit}'"


class Recommendation(Struct, frozen=True):
    """What `recommend` says: `outcomes[index]`, and why.

    `is_met`: it meets all limits. `meeting`: how many do. `misses`: the limits that
    the nearest one fails, where none meets all.
    """

    goal: Goal
    index: int
    is_met: bool
    meeting: int
    misses: tuple[Miss, ...]
    reason: str


def front(outcomes: Sequence[Outcome], targets: Sequence[Target] = COMPARED) -> list[bool]:
    """For each outcome, whether it is undominated: none is as good in all targets, and better in one.

    Outcomes that are equal in all targets are on the front together.
    """
    rows = [tuple(target.badness(outcome) for target in targets) for outcome in outcomes]
    undominated: list[tuple[float, ...]] = []
    # Who dominates a row comes before it in the order of rows, and is dominated, if at all, by one of the front.
    for row in sorted(set(rows)):
        if not any(all(a <= b for a, b in zip(other, row, strict=True)) for other in undominated):
            undominated.append(row)
    best = set(undominated)
    return [row in best for row in rows]


def compared(goal: Goal, usual: Sequence[Target] = COMPARED) -> tuple[Target, ...]:
    """What the front is of: the usual, and whatever else the goal speaks of, in the direction that it asks for."""
    asked = {goal.target.measure.name: goal.target}
    for limit in goal.limits:
        asked.setdefault(limit.measure.name, Target(limit.measure, is_most=not limit.is_upper))
    for target in usual:
        asked.setdefault(target.measure.name, target)
    return tuple(asked.values())


def recommend(outcomes: Sequence[Outcome], goal: Goal, usual: Sequence[Target] = COMPARED) -> Recommendation:
    """The best by the target of `goal` among those that meet its limits, or else the one that comes nearest.

    Equal ones are told apart by what else the goal speaks of and by what is `usual`, and then by their order.
    Where the goal says nothing of failures, those among the candidates that fail
    more often than the best of them (by more than one point) are left out, and the
    reason tells where one that does not meet the limits fails less often. Nearest
    is who misses least, each miss taken as a part of its limit (or of the worst that
    was measured, where the limit is 0). ValueError where there is nothing to choose from.
    """
    if not outcomes:
        msg = "there are no outcomes to choose from"
        raise ValueError(msg)
    order = compared(goal, usual)
    rank = [tuple(target.badness(outcome) for target in order) for outcome in outcomes]
    meeting = [at for at, outcome in enumerate(outcomes) if all(limit.holds(outcome) for limit in goal.limits)]
    if meeting:
        kept = _without_failing(outcomes, meeting, goal)
        index = min(kept, key=rank.__getitem__)
        reason = _why(outcomes, goal, index, meeting, kept) + _but(outcomes, goal, index)
        return Recommendation(goal, index, True, len(meeting), (), reason)  # noqa: FBT003 (a record, positionally)

    distances = _distances(outcomes, goal)
    index = min(range(len(outcomes)), key=lambda at: (distances[at], rank[at]))
    chosen = outcomes[index]
    misses = tuple(
        Miss(limit, limit.measure.of(chosen), limit.excess(chosen)) for limit in goal.limits if not limit.holds(chosen)
    )
    reason = f"None of {_configurations(len(outcomes))} meets the goal. This one comes nearest: "
    reason += f"{'; '.join(map(str, misses))}.{_but(outcomes, goal, index)}"
    return Recommendation(goal, index, False, 0, misses, reason)  # noqa: FBT003 (a record, positionally)


def _without_failing(outcomes: Sequence[Outcome], candidates: list[int], goal: Goal) -> list[int]:
    if FAILURES in goal.measures:
        return candidates
    fewest = min(FAILURES.of(outcomes[at]) for at in candidates)
    return [at for at in candidates if FAILURES.of(outcomes[at]) <= fewest + TOLERATED_FAILURES]


def _distances(outcomes: Sequence[Outcome], goal: Goal) -> list[float]:
    """How far each is from the limits, in parts of them."""
    distances = [0.0] * len(outcomes)
    for limit in goal.limits:
        excesses = [limit.excess(outcome) for outcome in outcomes]
        scale = abs(limit.bound) or max(excesses) or 1.0
        distances = [distance + excess / scale for distance, excess in zip(distances, excesses, strict=True)]
    return distances


def _why(outcomes: Sequence[Outcome], goal: Goal, index: int, meeting: list[int], kept: list[int]) -> str:
    chosen = outcomes[index]
    unit = goal.target.measure.unit
    value = goal.target.badness(chosen)
    limits = [f"{each.measure.name} is {shown(each.measure.of(chosen), each.measure.unit)}" for each in goal.limits]
    if limits and len(meeting) == 1 < len(outcomes):
        own = f"{goal.target.measure.name} is {shown(abs(value), unit)}"
        told = limits if own in limits else [*limits, own]
        return f"It is the only one of {_configurations(len(outcomes))} that meets the goal: {_listed(told)}."

    others = sorted({goal.target.badness(outcomes[at]) for at in kept} - {value})
    figures = shown(abs(value), unit) + (f"; the next has {shown(abs(others[0]), unit)}" if others else "")
    text = f"It has the {goal.target} ({figures}) of "
    if limits:
        text += f"the {len(meeting)} of {_configurations(len(outcomes))} that meet the goal: {_listed(limits)}"
    else:
        text += _configurations(len(outcomes))
    if len(kept) < len(meeting):
        text += f" ({len(meeting) - len(kept)} left out, in which callers see more failures)"
    return f"{text}."


def _but(outcomes: Sequence[Outcome], goal: Goal, index: int) -> str:
    """Who fails more than others need to is not told without it, where the goal says nothing of it."""
    failures, fewest = FAILURES.of(outcomes[index]), min(map(FAILURES.of, outcomes))
    if FAILURES in goal.measures or failures <= fewest + TOLERATED_FAILURES:
        return ""
    return (
        f" But {shown(failures, Unit.SHARE)} of its requests are answered with a failure; "
        f"others have as few as {shown(fewest, Unit.SHARE)}."
    )


def _configurations(number: int) -> str:
    return f"{number} configuration{'s' if number != 1 else ''}"


def _listed(things: Sequence[object]) -> str:
    """The things in a row: a, b and c."""
    *before, last = map(str, things)
    return f"{', '.join(before)} and {last}" if before else last
