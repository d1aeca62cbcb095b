"""`Goal`: what is wanted of a configuration, in words.

    p99 under 50 ms, staleness under 60 s, hit ratio over 0.8, least origin load

Clauses stand between commas, semicolons or `and`. A clause is a limit (a measure,
a relation and an amount; `no failures` is one as well), or the one thing to make
least or most. Where nothing is said to be made least, it is the origin load.
"""

from __future__ import annotations

import operator
import re
from difflib import get_close_matches
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from cachemesh.simulation.amounts import Unit, amount, shown
from cachemesh.simulation.measures import MEASURES, ORIGIN_LOAD, WORDS, Measure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cachemesh.simulation.outcome import Outcome


class GoalError(ValueError):
    """The goal cannot be read; the text says in one line which word it is."""


class Relation(StrEnum):
    """How a measure is to be to its bound."""

    UNDER = "under"
    AT_MOST = "at most"
    OVER = "over"
    AT_LEAST = "at least"


HOLDS: Final[Mapping[Relation, Callable[[float, float], bool]]] = {
    Relation.UNDER: operator.lt,
    Relation.AT_MOST: operator.le,
    Relation.OVER: operator.gt,
    Relation.AT_LEAST: operator.ge,
}

RELATIONS: Final = {
    **dict.fromkeys(("under", "below", "less than", "fewer than", "lower than", "<"), Relation.UNDER),
    **dict.fromkeys(("at most", "up to", "no more than", "not over", "<=", "≤"), Relation.AT_MOST),
    **dict.fromkeys(("over", "above", "more than", "greater than", ">"), Relation.OVER),
    **dict.fromkeys(("at least", "no less than", "not under", ">=", "≥"), Relation.AT_LEAST),
}

LEAST: Final = frozenset(
    {"least", "lowest", "smallest", "fewest", "shortest", "minimal", "minimum", "minimise", "minimize"}
)
MOST: Final = frozenset(
    {"most", "highest", "largest", "greatest", "longest", "maximal", "maximum", "maximise", "maximize"}
)
FILLERS: Final = frozenset({"the", "a", "an", "is", "be", "stays", "of", "with", "keep"})

BETWEEN_CLAUSES: Final = re.compile(r";|,(?!\d{3}(?!\d))|\band\b")
BEFORE_AN_AMOUNT: Final = re.compile(r"([<>]=?|[≤≥])")


class Limit(Struct, frozen=True):
    """`measure` is to be `relation` `bound`, in the unit of the measure."""

    measure: Measure
    relation: Relation
    bound: float

    @property
    def is_upper(self) -> bool:
        return self.relation in {Relation.UNDER, Relation.AT_MOST}

    def holds(self, outcome: Outcome) -> bool:
        return HOLDS[self.relation](self.measure.of(outcome), self.bound)

    def excess(self, outcome: Outcome) -> float:
        """By how much it fails, in the unit of the measure; 0 where it holds, or fails by a hair."""
        value = self.measure.of(outcome)
        return max(0.0, value - self.bound if self.is_upper else self.bound - value)

    def __str__(self) -> str:
        return f"{self.measure.name} {self.relation} {shown(self.bound, self.measure.unit)}"


class Target(Struct, frozen=True):
    """`measure` is to be as little as can be, or with `is_most` as much."""

    measure: Measure
    is_most: bool = False

    def badness(self, outcome: Outcome) -> float:
        value = self.measure.of(outcome)
        return -value if self.is_most else value

    def __str__(self) -> str:
        return f"{'most' if self.is_most else 'least'} {self.measure.name}"


class Goal(Struct, frozen=True):
    """Limits that all must hold, and what to make least or most among those that hold them.

    >>> goal = Goal.parse("p99 below 50ms and staleness < 1 minute, lowest load")
    >>> str(goal)
    'p99 under 50 ms, staleness under 60 s, least origin load'
    """

    limits: tuple[Limit, ...] = ()
    target: Target = Target(ORIGIN_LOAD)

    @classmethod
    def parse(cls, text: str, words: Mapping[str, Measure] = WORDS) -> Goal:
        """The goal that `text` states, with `words` for measures. GoalError where it states none.

        >>> Goal.parse("p98 under 50 ms")
        Traceback (most recent call last):
        cachemesh.simulation.goal.GoalError: a goal knows no 'p98'; did you mean p99?
        """
        limits = []
        targets = []
        for clause in BETWEEN_CLAUSES.split(BEFORE_AN_AMOUNT.sub(r" \1 ", text.lower())):
            said = [word for word in clause.split() if word not in FILLERS]
            if not said:
                continue
            if (said[0] in LEAST or said[0] in MOST) and not _begins_with_measure(said, words):
                targets.append(_target(said, words))
            else:
                limits.append(_limit(said, words))
        if len(targets) > 1:
            msg = f"one thing can be made least or most; the goal names {len(targets)}"
            raise GoalError(msg)
        if not limits and not targets:
            msg = "the goal says nothing; one reads like 'p99 under 50 ms, least origin load'"
            raise GoalError(msg)
        return cls(tuple(limits), targets[0] if targets else Target(ORIGIN_LOAD))

    @property
    def measures(self) -> list[Measure]:
        """All that it speaks of."""
        return [*(limit.measure for limit in self.limits), self.target.measure]

    def __str__(self) -> str:
        return ", ".join(map(str, (*self.limits, self.target)))


def _begins_with_measure(said: list[str], words: Mapping[str, Measure]) -> bool:
    """Whether `longest` and its like belong to the name of a measure, and more is said of it."""
    return any(" ".join(said[:length]) in words for length in range(2, min(MOST_WORDS + 1, len(said))))


def _target(said: list[str], words: Mapping[str, Measure]) -> Target:
    return Target(_only_measure(said, words), is_most=said[0] in MOST)


def _only_measure(said: list[str], words: Mapping[str, Measure]) -> Measure:
    """The measure after the first word, where nothing comes after it."""
    measure, rest = _measure(said[1:], words, after=said[0])
    if rest:
        raise GoalError(_odd(rest[0], f"after {measure.name!r}"))
    return measure


def _limit(said: list[str], words: Mapping[str, Measure]) -> Limit:
    if said[0] in {"no", "zero"}:
        return Limit(_only_measure(said, words), Relation.AT_MOST, 0.0)
    measure, rest = _measure(said, words)
    relation, rest = _relation(rest, measure)
    if not rest:
        msg = f"'{measure.name} {relation}' lacks its amount, such as {EXAMPLES_OF[measure.unit]}"
        raise GoalError(msg)
    try:
        return Limit(measure, relation, amount(" ".join(rest), measure.unit))
    except ValueError as error:
        msg = f"{measure.name}: {error}"
        raise GoalError(msg) from None


EXAMPLES_OF: Final = {
    Unit.TIME: "50 ms",
    Unit.SHARE: "0.8",
    Unit.COUNT: "500",
    Unit.RATE: "50/s",
    Unit.BYTES: "64 MB",
}


def _measure(said: list[str], words: Mapping[str, Measure], after: str = "") -> tuple[Measure, list[str]]:
    """The measure that is said first, and what is said after it. The longest name wins."""
    for length in range(min(len(said), MOST_WORDS), 0, -1):
        found = words.get(" ".join(said[:length]))
        if found is not None:
            return found, said[length:]
    if not said:
        msg = f"{after!r} of what? A goal knows {', '.join(KNOWN)}"
        raise GoalError(msg)
    near = get_close_matches(" ".join(said[:2]), words, 1) or get_close_matches(said[0], words, 1)
    hint = f"did you mean {near[0]}?" if near else f"it knows {', '.join(KNOWN)}"
    msg = f"a goal knows no {said[0][:40]!r}; {hint}"
    raise GoalError(msg)


KNOWN: Final = [measure.name for measure in MEASURES]
MOST_WORDS: Final = max(len(words.split()) for words in WORDS)


def _relation(said: list[str], measure: Measure) -> tuple[Relation, list[str]]:
    for length in (3, 2, 1):
        found = RELATIONS.get(" ".join(said[:length])) if len(said) >= length else None
        if found is not None:
            return found, said[length:]
    if not said:
        msg = f"{measure.name!r} lacks its limit: under, at most, over or at least so much"
        raise GoalError(msg)
    raise GoalError(_odd(said[0], f"after {measure.name!r}, where under, at most, over or at least is expected"))


def _odd(word: str, where: str) -> str:
    return f"a goal knows no {word[:40]!r} {where}"
