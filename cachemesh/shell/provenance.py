"""Where an answer came from, and why: `get_served` answers with a `Served`, or with what was `Refused`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Generic

from msgspec import Struct
from returns.result import Failure, Result, Success
from typing_extensions import TypeVar

from cachemesh.core.explain import Ending, Explanation
from cachemesh.core.policies import Freshness

if TYPE_CHECKING:
    from cachemesh.shell.outcomes import Answer

T_co = TypeVar("T_co", covariant=True, default=Any)
E_co = TypeVar("E_co", covariant=True, default=Any)


class Source(StrEnum):
    """Where an answer came from."""

    MEMORY = "memory"
    STORE = "store"
    ORIGIN = "origin"
    """This call fetched it."""
    JOINED = "joined"
    """Another call was fetching it already."""
    STAND_IN = "stand_in"
    """It is an old value, in place of a fetch that failed, took too long or was not made."""
    CACHE = "cache"
    """The cache itself refused, or answered from the memory of a failure."""


class Served(Struct, Generic[T_co], frozen=True):
    """A value, and where it came from. `age`: seconds since it was fetched. `attempts`: of the fetch behind it.

    `freshness`: what there was under the key as the call began. `why`: the rows
    that decided, the last one last.
    """

    value: T_co
    source: Source
    age: float
    freshness: Freshness
    attempts: int
    why: str

    def __repr__(self) -> str:
        return (
            f"Served(<{type(self.value).__name__}>, {self.source}, age={self.age:.3f}, "
            f"{self.freshness}, attempts={self.attempts}, {self.why!r})"
        )


class Refused(Struct, Generic[E_co], frozen=True):
    """The error of a call that got no value, and where that came from."""

    error: E_co
    source: Source
    freshness: Freshness
    attempts: int
    why: str

    def __repr__(self) -> str:
        return (
            f"Refused(<{type(self.error).__name__}>, {self.source}, "
            f"{self.freshness}, attempts={self.attempts}, {self.why!r})"
        )


CACHED: Final = frozenset({Source.MEMORY, Source.STORE})
"""No fetch is behind these."""


class Trace:
    """What is noted down of one call on its way."""

    def __init__(self) -> None:
        self._explanations: list[Explanation] = []
        self._live: Any = None
        self._leads = False
        self._created_at: float | None = None

    def explained(self, explanation: Explanation, created_at: float | None) -> None:
        """The core is about to decide."""
        self._explanations.append(explanation)
        self._created_at = created_at

    def boarded(self, live: Any, *, leads: bool) -> None:  # noqa: ANN401 (a LiveFlight)
        """The call waits for a flight."""
        self._live, self._leads = live, leads

    def result(self, answer: Answer, now: float, given: Answer) -> Result[Served[Any], Refused[Any]]:
        """How the call ended: with `answer`, as its caller is `given` it."""
        why = "; ".join(each.why for each in self._explanations) or "the call was not put to the cache"
        first = self._explanations[0].freshness if self._explanations else Freshness.MISSING
        source = self._source(answer)
        attempts = 0 if self._live is None or source in CACHED else self._live.attempts
        if isinstance(given, Success):
            fetched = source in {Source.ORIGIN, Source.JOINED}
            age = 0.0 if fetched or self._created_at is None else max(0.0, now - self._created_at)
            return Success(Served(given.unwrap(), source, age, first, attempts, why))
        return Failure(Refused(given.failure(), source, first, attempts, why))

    def _source(self, answer: Answer) -> Source:
        if not self._explanations:
            return Source.CACHE
        last = self._explanations[-1]
        if last.ending in {Ending.SERVE, Ending.SERVE_AND_REFRESH}:
            return Source.STORE if self._live is not None and self._live.is_admitted else Source.MEMORY
        if last.ending is Ending.STAND_IN:
            return Source.STAND_IN
        live = self._live
        if live is None or last.ending in {Ending.REMEMBERED_FAILURE, Ending.REFUSE}:
            return Source.CACHE
        if isinstance(answer, Success) and answer is not live.answer:
            return Source.STAND_IN
        return Source.ORIGIN if self._leads else Source.JOINED
