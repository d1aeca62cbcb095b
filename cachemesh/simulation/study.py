"""`Study`: a trace, an origin, what each configuration made of them, and which one to take. It is what a report tells.

As JSON it is one document, `{"version": 1, ...}`. What a later version adds, an
earlier one does not read.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from cachemesh.simulation.choice import COMPARED, COMPARED_BY_AGE, compared, front, recommend
from cachemesh.simulation.measures import AGE, MEASURES, STALENESS
from cachemesh.simulation.origin import OriginModel
from cachemesh.simulation.outcome import Outcome
from cachemesh.simulation.survey import TraceSummary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachemesh.simulation.goal import Goal, Target
    from cachemesh.simulation.measures import Measure

VERSION: Final = 1


class StudyError(ValueError):
    """A document is no study, or one of another version."""


class Row(Struct, frozen=True):
    """A configuration. `figures`: of each measure, in seconds, parts of one, numbers or bytes."""

    name: str
    is_on_front: bool
    figures: dict[str, float]
    outcome: Outcome


class Advice(Struct, frozen=True):
    """What is recommended for `goal`: the row at `index`, or the one that comes nearest. `misses`: what that fails."""

    goal: str
    index: int
    name: str
    is_met: bool
    meeting: int
    reason: str
    misses: tuple[str, ...] = ()


class Study(Struct, frozen=True, kw_only=True):
    """Everything that was found out. `front_of`: what the front compares."""

    version: int = VERSION
    made_by: str
    seed: int
    warm_up_s: float
    trace: TraceSummary
    origin: OriginModel
    front_of: tuple[str, ...]
    rows: tuple[Row, ...]
    advice: Advice | None = None

    @classmethod
    def of(  # noqa: PLR0913 (what a study is of, by keyword)
        cls,
        outcomes: Sequence[Outcome],
        goal: Goal | None = None,
        *,
        trace: TraceSummary,
        origin: OriginModel,
        seed: int = 0,
        warm_up_s: float = 0.0,
    ) -> Study:
        """What there is to say of the outcomes, which are of the same trace, origin and seed.

        >>> from cachemesh.simulation import Configuration, Goal
        >>> outcomes = [
        ...     Outcome(configuration=Configuration(ttl_s=ttl_s), requests=9, origin_requests=asked)
        ...     for ttl_s, asked in [(60.0, 5), (300.0, 3)]
        ... ]
        >>> trace = TraceSummary("trace.csv", requests=9, keys=1, users=0, repeats=8 / 9, duration_s=900.0)
        >>> study = Study.of(outcomes, Goal.parse("least origin load"), trace=trace, origin=OriginModel())
        >>> study.advice.reason
        'It has the least origin load (3; the next has 5) of 2 configurations.'
        >>> Study.from_json(study.to_json()) == study
        True
        """
        usual = COMPARED if origin.change_every_s is not None else COMPARED_BY_AGE
        targets = usual if goal is None else compared(goal, usual)
        rows = tuple(
            Row(each.configuration.name, is_on_front, {measure.name: measure.of(each) for measure in MEASURES}, each)
            for each, is_on_front in zip(outcomes, front(outcomes, targets), strict=True)
        )
        return cls(
            made_by=f"cachemesh {_version()}",
            seed=seed,
            warm_up_s=warm_up_s,
            trace=trace,
            origin=origin,
            front_of=tuple(map(str, targets)),
            rows=rows,
            advice=None if goal is None else _advice(rows, outcomes, goal, usual),
        )

    @classmethod
    def from_json(cls, document: bytes) -> Study:
        """What `to_json` has written. `StudyError` for anything else."""
        try:
            number = msgspec.json.decode(document, type=_Versioned).version
            if number != VERSION:
                msg = f"the study has version {number}; version {VERSION} is read here"
                raise StudyError(msg)
            return msgspec.json.decode(document, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            msg = f"the document is no study: {error}"
            raise StudyError(msg) from None

    def to_json(self) -> bytes:
        """The document, indented, and ending in a newline."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @property
    def knows_changes(self) -> bool:
        """Whether it was said how often values change."""
        return self.origin.change_every_s is not None

    @property
    def staleness(self) -> Measure:
        """How outdated values are; where nobody knows how often they change, how old."""
        return STALENESS if self.knows_changes else AGE


def _advice(rows: Sequence[Row], outcomes: Sequence[Outcome], goal: Goal, usual: Sequence[Target]) -> Advice:
    told = recommend(outcomes, goal, usual)
    return Advice(
        goal=str(goal),
        index=told.index,
        name=rows[told.index].name,
        is_met=told.is_met,
        meeting=told.meeting,
        reason=told.reason,
        misses=tuple(map(str, told.misses)),
    )


class _Versioned(Struct):
    version: int


def _version() -> str:
    try:
        return version("cachemesh")
    except PackageNotFoundError:
        return "(not installed)"
