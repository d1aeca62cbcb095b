"""Goals in words, the Pareto front, and what is recommended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemesh.simulation.amounts import Unit, amount, shown
from cachemesh.simulation.choice import COMPARED, compared, front, recommend
from cachemesh.simulation.goal import Goal, GoalError, Limit, Relation, Target
from cachemesh.simulation.measures import AGE, FAILURES, MEASURES, OF_UNKNOWN_CHANGES, P99, STALENESS, WORDS
from tests.simulation.outcomes import outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachemesh.simulation.outcome import Outcome

ISSUE: str = "p99 under 50 ms, staleness under 60 s, hit ratio over 0.8, least origin load"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (ISSUE, "p99 under 50 ms, staleness under 60 s, hit ratio over 80 %, least origin load"),
        ("P99 BELOW 50MS AND Staleness < 1m", "p99 under 50 ms, staleness under 60 s, least origin load"),
        ("the highest hit ratio", "most hit ratio"),
        ("least load", "least origin load"),
        ("least load on the origin", "least origin load"),
        ("no failures; lowest p99", "failures at most 0 %, least p99"),
        ("zero stale answers", "stale share at most 0 %, least origin load"),
        ("peak rate at most 50/s", "peak rate at most 50/s, least origin load"),
        ("peak<=50 a second", "peak rate at most 50/s, least origin load"),
        ("origin requests no more than 12,000, fewest failures", "origin load at most 12,000, least failures"),
        ("entries under 10k, shortest p50", "entries under 10,000, least p50"),
        ("memory up to 64 MB", "memory at most 64 MB, least origin load"),
        ("hit ratio is at least 95 %", "hit ratio at least 95 %, least origin load"),
        ("p99 staleness under 1h30m", "p99 staleness under 1.5 h, least origin load"),
        ("latency > 3 seconds", "mean wait over 3 s, least origin load"),
        ("longest wait under 3 s, most hits", "longest wait under 3 s, most hit ratio"),
        ("most entries <= 100, least longest wait", "entries at most 100, least longest wait"),
    ],
)
def test_a_goal_is_read(text: str, read: str) -> None:
    assert str(Goal.parse(text)) == read


@pytest.mark.parametrize("text", ["p99 under 50 ms, no failures, most hit ratio", "memory under 2 GB", ISSUE])
def test_a_goal_that_was_read_is_read_again(text: str) -> None:
    goal = Goal.parse(text)
    assert Goal.parse(str(goal)) == goal


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "the goal says nothing; one reads like 'p99 under 50 ms, least origin load'"),
        (" , and ;", "the goal says nothing"),
        ("p98 under 50 ms", "a goal knows no 'p98'; did you mean p99?"),
        ("hit ration over 0.8", "a goal knows no 'hit'; did you mean hit ratio?"),
        ("quux under 3", "a goal knows no 'quux'; it knows p50, p95, p99, longest wait"),
        ("p99", "'p99' lacks its limit"),
        ("p99 around 50 ms", "a goal knows no 'around' after 'p99'"),
        ("p99 under", "'p99 under' lacks its amount, such as 50 ms"),
        ("p99 under 50", "p99: '50' is no time; one reads like 50 ms, 60 s or 1h30m"),
        ("p99 under 50 parsecs", "p99: '50 parsecs' is no time"),
        ("p99 under soon", "p99: 'soon' is no time"),
        ("hit ratio over 80", "hit ratio: '80' is no share; one reads like 0.8 or 80 %"),
        ("hit ratio over 50 ms", "hit ratio: '50 ms' is no share"),
        ("origin load under -5", "origin load: '-5' is no count"),
        ("least", "'least' of what? A goal knows p50"),
        ("least origin load, most hit ratio", "one thing can be made least or most; the goal names 2"),
        ("least origin load please", "a goal knows no 'please' after 'origin load'"),
        ("no failures ever", "a goal knows no 'ever' after 'failures'"),
        ("p99 under " + "9" * 400 + " s", "is no time"),
        ("p99 under nan s", "is no time"),
    ],
)
def test_what_a_goal_does_not_say_is_told_in_one_line(text: str, error: str) -> None:
    with pytest.raises(GoalError) as raised:
        Goal.parse(text)
    assert error in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from([*WORDS, "under", "least", "no", "5", "ms", ",", "and"])).map(" ".join)
)
def test_a_text_is_a_goal_or_a_goal_error(text: str) -> None:
    try:
        read = Goal.parse(text).target.measure
    except GoalError:
        return
    assert read in MEASURES


def test_a_goal_for_unknown_changes_takes_the_age_for_the_staleness() -> None:
    goal = Goal.parse("staleness under 60 s", OF_UNKNOWN_CHANGES)
    assert [limit.measure for limit in goal.limits] == [AGE]


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("50 ms", Unit.TIME, 0.05),
        ("1h30m", Unit.TIME, 5_400.0),
        ("2 days 1 hour", Unit.TIME, 176_400.0),
        ("0", Unit.TIME, 0.0),
        ("1", Unit.SHARE, 1.0),
        (".5", Unit.SHARE, 0.5),
        ("12 percent", Unit.SHARE, 0.12),
        ("1,234,567", Unit.COUNT, 1_234_567.0),
        ("2 million", Unit.COUNT, 2_000_000.0),
        ("500 requests", Unit.COUNT, 500.0),
        ("2k requests per second", Unit.RATE, 2_000.0),
        ("3 GiB", Unit.BYTES, 3 * 2.0**30),
    ],
)
def test_amounts(text: str, unit: Unit, value: float) -> None:
    assert amount(text.lower(), unit) == pytest.approx(value)


@given(st.floats(0, 1e9), st.sampled_from(list(Unit)))
def test_an_amount_that_is_shown_is_read_as_about_the_same(value: float, unit: Unit) -> None:
    value = value / 1e9 if unit is Unit.SHARE else value
    if value >= 0.001:
        assert amount(shown(value, unit).lower(), unit) == pytest.approx(
            value, rel=0.006, abs=0.51 if unit is Unit.BYTES else 5e-5
        )


BADNESS = st.integers(0, 4)
OUTCOMES = st.lists(
    st.builds(
        lambda load, p99, staleness, failures, hits: outcome(
            load=load, p99=p99 / 100, staleness=staleness * 30.0, failures=failures * 100, hits=hits * 100
        ),
        BADNESS,
        BADNESS,
        BADNESS,
        BADNESS,
        BADNESS,
    ),
    min_size=1,
    max_size=30,
)
LIMITS = st.lists(
    st.sampled_from(
        [
            "p99 under 30 ms",
            "p99 at most 20 ms",
            "staleness under 60 s",
            "no stale answers",
            "hit ratio over 0.2",
            "hit ratio at least 0.4",
            "failures under 10 %",
            "load under 3",
            "load over 1",
        ]
    ),
    max_size=4,
)
TARGETS = st.sampled_from(
    ["least load", "most hit ratio", "least p99", "least staleness", "least failures", "most load"]
)
GOALS = st.builds(lambda limits, target: Goal.parse(", ".join([*limits, target])), LIMITS, TARGETS)


def dominates(one: Outcome, other: Outcome, targets: Sequence[Target]) -> bool:
    """The definition, word by word."""
    pairs = [(target.badness(one), target.badness(other)) for target in targets]
    return all(mine <= theirs for mine, theirs in pairs) and any(mine < theirs for mine, theirs in pairs)


@given(OUTCOMES, GOALS)
def test_the_front_is_exactly_the_undominated(outcomes: list[Outcome], goal: Goal) -> None:
    for targets in (COMPARED, compared(goal), COMPARED[:1]):
        undominated = [not any(dominates(other, each, targets) for other in outcomes) for each in outcomes]
        assert front(outcomes, targets) == undominated
        assert any(undominated)


@given(OUTCOMES, GOALS)
def test_a_recommendation_meets_the_limits_if_any_does(outcomes: list[Outcome], goal: Goal) -> None:
    told = recommend(outcomes, goal)
    meeting = [each for each in outcomes if all(limit.holds(each) for limit in goal.limits)]
    chosen = outcomes[told.index]

    assert told.is_met is bool(meeting)
    assert told.meeting == len(meeting)
    assert (chosen in meeting) is told.is_met
    assert bool(told.misses) is not told.is_met
    assert [miss.limit for miss in told.misses] == [limit for limit in goal.limits if not limit.holds(chosen)]
    assert told.reason.endswith(".")
    if meeting:
        fewest = min(each.failure_share for each in meeting)
        speaks_of_failures = FAILURES in {goal.target.measure, *(limit.measure for limit in goal.limits)}
        for each in meeting:
            if goal.target.badness(each) < goal.target.badness(chosen):
                assert not speaks_of_failures
                assert each.failure_share > fewest + 0.01


@given(OUTCOMES, GOALS)
def test_what_is_recommended_is_on_the_front_of_those_that_meet_the_goal(outcomes: list[Outcome], goal: Goal) -> None:
    told = recommend(outcomes, goal)
    meeting = [each for each in outcomes if all(limit.holds(each) for limit in goal.limits)]
    if told.is_met:
        targets = compared(goal)
        assert not any(dominates(other, outcomes[told.index], targets) for other in meeting)


def test_the_reason_says_what_was_best_and_what_was_next() -> None:
    outcomes = [
        outcome(load=120, p99=0.02),
        outcome(load=50, p99=0.4),
        outcome(load=90, p99=0.04, staleness=30.0),
        outcome(load=40, p99=0.03, staleness=90.0),
    ]
    told = recommend(outcomes, Goal.parse("p99 under 50 ms, staleness under 60 s, least origin load"))

    assert told.index == 2
    assert told.reason == (
        "It has the least origin load (90; the next has 120) of the 2 of 4 configurations that meet the goal: "
        "p99 is 40 ms and staleness is 30 s."
    )


def test_the_reason_says_that_only_one_meets_the_goal() -> None:
    outcomes = [outcome(load=90, p99=0.04), outcome(load=50, p99=0.4)]
    told = recommend(outcomes, Goal.parse("p99 under 50 ms, least origin load"))
    limited = recommend(outcomes, Goal.parse("origin load under 60, least origin load"))

    assert (
        told.reason == "It is the only one of 2 configurations that meets the goal: p99 is 40 ms and origin load is 90."
    )
    assert limited.reason == "It is the only one of 2 configurations that meets the goal: origin load is 50."


def test_without_limits_the_reason_is_the_target_alone() -> None:
    told = recommend([outcome(hits=900), outcome(hits=700)], Goal.parse("most hit ratio"))
    assert told.reason == "It has the most hit ratio (90 %; the next has 70 %) of 2 configurations."


def test_nobody_meets_the_goal_and_the_nearest_is_named() -> None:
    outcomes = [
        outcome(p99=0.071, staleness=90.0),
        outcome(p99=0.060, staleness=59.0),
        outcome(p99=0.010, staleness=600.0),
    ]
    told = recommend(outcomes, Goal.parse("p99 under 50 ms, staleness under 60 s"))

    assert (told.index, told.is_met, told.meeting) == (1, False, 0)
    (miss,) = told.misses
    assert (miss.limit.measure, miss.value) == (P99, 0.060)
    assert miss.excess == pytest.approx(0.010)
    assert told.reason == (
        "None of 3 configurations meets the goal. This one comes nearest: "
        "p99 is 60 ms, 10 ms too much for 'p99 under 50 ms'."
    )


def test_too_little_is_told_as_well_and_a_bound_that_is_just_met_is_not_under() -> None:
    told = recommend([outcome(p99=0.05, hits=700)], Goal.parse("p99 under 50 ms, hit ratio over 0.8"))
    assert told.reason.endswith(
        "p99 is 50 ms, which is not under 50 ms; hit ratio is 70 %, 10 points too little for 'hit ratio over 80 %'."
    )


def test_limits_of_nothing_have_a_nearest_too() -> None:
    told = recommend([outcome(failures=30), outcome(failures=10), outcome(failures=20)], Goal.parse("no failures"))
    assert (told.index, told.is_met) == (1, False)


def test_who_asks_nothing_of_the_origin_does_not_win_by_failing() -> None:
    refuses = outcome(load=0, p99=0.0, failures=1_000, hits=0)
    told = recommend([refuses, outcome(load=90)], Goal.parse("least origin load"))
    assert told.index == 1
    assert "1 left out, in which callers see more failures" in told.reason
    assert recommend([refuses, outcome(load=90)], Goal.parse("least load, failures at most 1")).index == 0


@pytest.mark.parametrize("wish", ["p99 under 10 ms", "p99 under 10 ms, hit ratio over 95 %"])
def test_failures_that_a_goal_is_silent_on_are_told_with_what_is_recommended(wish: str) -> None:
    refuses = outcome(load=0, p99=0.0, failures=1_000, hits=0)
    told = recommend([refuses, outcome(hits=0, failures=3)], Goal.parse(wish))
    assert told.index == 0
    but = " But 100 % of its requests are answered with a failure; others have as few as 0.3 %."
    assert told.reason.endswith(but)
    assert "But" not in recommend([refuses, outcome()], Goal.parse(f"{wish}, failures under 2 %")).reason
    assert "But" not in recommend([outcome(p99=0.0, failures=13), outcome(failures=3)], Goal.parse(wish)).reason


def test_nothing_to_choose_from() -> None:
    with pytest.raises(ValueError, match="no outcomes"):
        recommend([], Goal.parse("no failures"))
    assert front([]) == []


def test_the_direction_of_a_limit_is_that_of_the_front() -> None:
    goal = Goal((Limit(STALENESS, Relation.UNDER, 1.0), Limit(WORDS["hit ratio"], Relation.OVER, 0.5)))
    assert {str(target) for target in compared(goal)} == {
        "least origin load",
        "least staleness",
        "most hit ratio",
        "least p99",
        "least failures to the point",
    }
