"""A flight as the shell sees it: the fetcher, those who wait, and what they will be told."""

from __future__ import annotations

from contextvars import ContextVar
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct
from returns.result import Failure

from cachemesh.core.model import Ancestor
from cachemesh.errors import FetchCancelled
from cachemesh.shell.outcomes import Answer, with_traceback

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.options import RetryOptions
    from cachemesh.shell.store_line import StoreCall

WITHIN: Final[ContextVar[tuple[Ancestor, ...]]] = ContextVar("cachemesh_within", default=())
"""The flights inside whose fetches this code runs, innermost last."""


class Phase(Enum):
    """How far a flight is."""

    UNDER_WAY = auto()
    ANSWERED = auto()
    ASK_AGAIN = auto()
    ABORTED = auto()


class Errand(Struct, frozen=True):
    """What a caller brings along for the flight that it may start: code, as opposed to the command's data."""

    fetch: Callable[[], Any]
    options: RetryOptions
    within: tuple[Ancestor, ...]


class LiveFlight:
    """Mutable, and owned by the runtime: it changes under the runtime's lock."""

    __slots__ = (
        "answer",
        "background",
        "crash",
        "domain_id",
        "errand",
        "fallback",
        "flight_id",
        "handle",
        "is_load",
        "is_over",
        "key",
        "leader_waits",
        "owner",
        "phase",
        "retry_is_spent",
        "store_call",
        "traceback",
        "waiters",
        "waiting",
    )

    def __init__(
        self,
        flight_id: int,
        owner: Owner,
        key: str,
        errand: Errand,
        *,
        domain_id: int,
        background: bool,
        is_load: bool,
    ) -> None:
        self.flight_id = flight_id
        self.owner = owner
        self.key = key
        self.errand = errand
        self.domain_id = domain_id
        self.background = background
        self.is_load = is_load
        self.is_over = False
        self.leader_waits = not background
        self.phase = Phase.UNDER_WAY
        self.waiters: list[Any] = []
        self.waiting = 0
        self.answer: Answer | None = None
        self.fallback: Answer | None = None
        self.traceback: TracebackType | None = None
        self.crash: BaseException | None = None
        self.handle: Any = None
        self.store_call: StoreCall | None = None
        self.retry_is_spent = False

    def line_of_ancestors(self) -> tuple[Ancestor, ...]:
        """What the fetch of this flight runs within. A background refresh has left its caller behind."""
        me = Ancestor(self.flight_id, self.owner, self.key)
        return (me,) if self.background else (*self.errand.within, me)

    def told(self, *, falls_back: bool) -> Answer:
        """What one of those who waited is answered."""
        if falls_back and self.fallback is not None:
            return self.fallback
        if self.answer is None:
            return Failure(FetchCancelled(self.key))
        return with_traceback(self.answer, self.traceback)


class Boarding(Struct, frozen=True):
    """The asker is to wait for `live`. The one who `leads` also sets it going."""

    live: LiveFlight
    falls_back: bool
    leads: bool
