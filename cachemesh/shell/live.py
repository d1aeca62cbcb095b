"""A flight as the shell sees it: the fetcher, those who wait, and what they will be told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from msgspec import Struct

from cachemesh.core.commands import Get, Refresh
from cachemesh.core.model import Ancestor
from cachemesh.core.policies import CachePolicy
from cachemesh.core.scopes import Owner
from cachemesh.shell.lifetime import Lifetime
from cachemesh.shell.options import RetryOptions
from cachemesh.shell.provenance import Trace
from cachemesh.shell.schema import Schema

if TYPE_CHECKING:
    from types import TracebackType

    from cachemesh.shell.outcomes import Answer
    from cachemesh.shell.ports import Claim, Encoded
    from cachemesh.shell.store_call import StoreCall


class Inside(Struct, frozen=True):
    """A flight whose fetch runs, and what it runs inside itself. Another cache may have the same key under way.

    `shares`: the fetch of one further in is its own.
    """

    runtime: object
    flight_id: int
    owner: Owner
    key: str
    outer: Inside | None
    shares: bool = False


WITHIN: Final[ContextVar[Inside | None]] = ContextVar("cachemesh_within", default=None)
"""The innermost flight of any cache inside whose fetch this code runs."""


def within(runtime: object) -> tuple[Ancestor, ...]:
    """The flights of one cache inside whose fetches this code runs, innermost last."""
    inside = WITHIN.get()
    if inside is None:
        return ()
    found = []
    while inside is not None:
        if inside.runtime is runtime:
            found.append(Ancestor(inside.flight_id, inside.owner, inside.key, inside.shares))
        inside = inside.outer
    return tuple(reversed(found))


def inside_all(flights: Sequence[Inside]) -> Inside:
    """What one fetch for several flights runs inside: all of them."""
    last = len(flights) - 1
    outer = flights[0].outer
    for number, each in enumerate(flights):
        outer = Inside(each.runtime, each.flight_id, each.owner, each.key, outer, shares=number < last)
    assert outer is not None
    return outer


class Phase(Enum):
    """How far a flight is."""

    UNDER_WAY = auto()
    ANSWERED = auto()
    ASK_AGAIN = auto()
    ABORTED = auto()


Wish: TypeAlias = tuple[CachePolicy, Any]
"""The policy and ttl of a get without other options, as the caller wrote them."""


class Plan(Struct, frozen=True):
    """How a fetch is made and waited for, as far as that is no business of the core's. Durations are seconds."""

    options: RetryOptions
    attempt_timeout_s: float | None = None
    lifetime: Lifetime | None = None
    """Whose function says how long a failure is remembered."""
    soft_s: float | None = None
    hard_s: float | None = None
    age_s: float | None = None
    is_conditional: bool = False
    counts: Callable[[Any], bool] | None = None
    """Whether an error tells against the origin."""
    schema: Schema | None = None
    error_schema: Schema | None = None

    @property
    def is_patient(self) -> bool:
        """Whether a caller waits for as long as it takes."""
        return self.soft_s is None and self.hard_s is None


MOST_GONE: Final = 64
"""So many that have left may stand among those who wait, however few these are."""

DROP_COUNTERS: Final = 1_024


class Drops:
    """How often the partition of an owner has been dropped, and maybe that of a few others: it does not grow."""

    def __init__(self) -> None:
        self._counts = [0] * DROP_COUNTERS

    def of(self, owner: Owner) -> int:
        return self._counts[hash(owner) % DROP_COUNTERS]

    def add(self, owner: Owner) -> None:
        self._counts[hash(owner) % DROP_COUNTERS] += 1


class LiveFlight:
    """Mutable, and owned by the runtime. What most flights leave as it is stands in the class."""

    is_background = False
    is_load = False
    is_struck = False
    """A load whose key was changed while it was being read."""
    is_admitted = False
    """A load that has brought an entry into memory."""
    has_found = False
    """A load for which the store had an entry. News may make memory forget it before who waited looks there."""
    knows_none = False
    """Neither a value nor a failure was remembered when it began: whatever another process has fetched will do."""
    is_beside = False
    """It runs in a thread beside the one that leads it."""
    is_stopped = False
    """It is to be stopped, as soon as its task is known."""
    is_over = False
    """Everybody who waited has been woken."""
    phase = Phase.UNDER_WAY
    leader_waits = True
    waiting = 0
    """How many callers wait. At zero a flight in the foreground is given up."""
    answer: Answer | None = None
    fallback: Answer | None = None
    """What those who fall back take in place of a failure."""
    rescue: Answer | None = None
    """What all who read the cache do."""
    joiners_ask_again: bool = False
    """All but its leader ask again: a tag was marked meanwhile, or the answer is the one's own who began it."""
    previous: Any = None
    """The entry that a conditional fetch was handed."""
    fetcher: Any = None
    """The caller's own, where `fetch` has something to hand to it."""
    is_given_up = False
    """Somebody has waited for its hard timeout."""
    attempts = 0
    overdue_at: float | None = None
    alarm: Any = None
    """What looks whether it is overdue."""
    traceback: TracebackType | None = None
    crash: BaseException | None = None
    """What ended the fetch without being an answer, for the caller who leads."""
    driver: Any = None
    """The domain that runs it, and its task there."""
    handle: Any = None
    store_call: StoreCall | None = None
    """The writing through of the answer, where somebody makes it."""
    in_front: tuple[StoreCall, ...] = ()
    """The changes that a load must not overtake."""
    claims = False
    """Before it fetches, a shared store is asked whether another process does."""
    waits_for_others = False
    """And if one does, it waits for that."""
    claim: Claim | None = None
    encoded: Encoded | None = None
    """The answer as a store that keeps bytes gets it."""
    wish: Wish | None = None
    """Who wishes the very same is sure to join this flight, without changing it: see `Runtime.alike`."""

    def __init__(
        self,
        flight_id: int,
        owner: Owner,
        asked: Get | Refresh,
        fetch: Callable[[], Any],
        plan: Plan,
        drops_before: int,
    ) -> None:
        self.flight_id = flight_id
        self.owner = owner
        self.asked = asked
        self.fetch = fetch
        self.plan = plan
        self.drops_before = drops_before
        """How often its owner's partition had been dropped when it began (`Drops`)."""
        self.waiters: list[Any] = []

    @property
    def is_crowded(self) -> bool:
        """Whether more have left the waiters' list without a trace than still wait: time to compact it."""
        return len(self.waiters) > 2 * self.waiting + MOST_GONE

    @property
    def may_be_left(self) -> bool:
        """Whether its leader may stop waiting before it is over."""
        return not self.plan.is_patient or self.overdue_at is not None

    @property
    def key(self) -> str:
        return self.asked.key

    def inside(self, runtime: object) -> Inside:
        """What the fetch of this flight runs inside: a background refresh has left its caller behind."""
        outer = None if self.is_background else WITHIN.get()
        return Inside(runtime, self.flight_id, self.owner, self.asked.key, outer)


@final
class Boarding(Struct, frozen=True):
    """The asker of `asked` is to wait for `live`. The one who `leads` also sets it going."""

    live: LiveFlight
    falls_back: bool
    reads: bool
    leads: bool
    asked: Get | Refresh
    fetch: Callable[[], Any]
    plan: Plan
    trace: Trace | None = None
