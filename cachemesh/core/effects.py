"""The orders that a reducer gives. They carry data, never callables; the shell performs them in their order."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Generic, TypeAlias

from msgspec import Struct

from cachemesh.core.model import A, Entry, Failed, Redacted, RefreshSource
from cachemesh.core.scopes import Owner


class Refusal(StrEnum):
    """Why a `Get` or `Refresh` is answered by the cache itself."""

    MISS = "miss"
    EXPIRED = "expired"
    NO_ACTIVE_USER = "no_active_user"
    REENTRANT = "reentrant"
    CIRCUIT_OPEN = "circuit_open"
    CHANGED = "changed"
    """An update was made for a value that is there no longer."""


class Reply(Redacted, Generic[A], frozen=True):
    """Answer the asker now. `hit`: with a value, as opposed to a remembered failure."""

    owner: Owner
    key: str
    answer: A
    hit: bool = True


class Refuse(Struct, frozen=True):
    """Answer the asker with a failure of the cache's own. `origin` is left alone `until` an instant."""

    reason: Refusal
    origin: str = ""
    until: float = 0.0


class Join(Struct, frozen=True, gc=False):
    """The asker waits for the flight.

    `falls_back`: it takes a `Settle`'s fallback where there is one. `reads`: it
    takes its rescue.
    """

    flight_id: int
    falls_back: bool = False
    reads: bool = True


class StartFetch(Struct, frozen=True, gc=False):
    """Call the fetcher for a flight. A source of `cache_miss` is logged as a miss as well."""

    flight_id: int
    owner: Owner
    key: str
    source: RefreshSource
    attempt: int = 1


class Load(Struct, frozen=True, gc=False):
    """Read the store for a flight, and report with `Loaded`."""

    flight_id: int
    owner: Owner
    key: str


class WaitUntil(Redacted, Generic[A], frozen=True):
    """Report with `RetryDue` at `due_at`; attempt `attempt` has failed with `answer`."""

    flight_id: int
    owner: Owner
    key: str
    attempt: int
    answer: A
    due_at: float
    delay_s: float


class Settle(Redacted, Generic[A], frozen=True):
    """Answer everyone who waits for the flight.

    With `fallback`, where there is one, those who fall back; with `rescue`
    those who read the cache. Those who asked after the command `asks_again_after`
    ask again, as a tag of the answer was marked since, or the answer is private
    to the one who began the fetch; 0 is nobody.
    """

    flight_id: int
    owner: Owner
    key: str
    answer: A
    fallback: A | None = None
    rescue: A | None = None
    asks_again_after: int = 0


class AskAgain(Struct, frozen=True, gc=False):
    """The load is over: everyone who waits for it asks again, with `asked_store`.

    `is_struck`: the key was changed while it was being read. Whoever shares the
    store with others may read it once more: what is there now may be theirs.
    """

    flight_id: int
    is_struck: bool = False


class Abort(Struct, frozen=True):
    """The flight will not answer: everyone who waits for it is told so."""

    flight_id: int
    key: str


class CancelFetch(Struct, frozen=True):
    """Stop the fetch of the flight; nobody waits for it."""

    flight_id: int


class Save(Redacted, Generic[A], frozen=True):
    """An entry was committed: write it through, tell watchers and logger.

    `is_new`: its key held none before. `is_news`: its value is another one.
    `is_stored`: the store has it already.
    """

    flight_id: int
    owner: Owner
    key: str
    entry: Entry[A]
    is_new: bool
    is_news: bool = True
    is_stored: bool = False


class Persist(Redacted, Generic[A], frozen=True):
    """An entry or a failure is for the store alone, which knows whether it is still right; memory does not keep it."""

    flight_id: int
    owner: Owner
    key: str
    entry: Entry[A] | Failed[A]


class Admit(Struct, frozen=True, gc=False):
    """An entry came into memory from the store, or from a snapshot. `is_new`: its key held none before."""

    owner: Owner
    key: str
    is_new: bool = True


class Why(StrEnum):
    """Why something from outside was not taken in."""

    NEWER = "newer"
    """What is in memory is newer, or still good."""
    FUTURE = "future"
    """It claims to have been made when it cannot have been."""
    EXPIRED = "expired"
    """Its ttl is over, and its windows are."""
    INVALIDATED = "invalidated"
    """One of its tags was invalidated since, or made stale."""


class Skip(Struct, frozen=True):
    """Something from outside is not taken in."""

    why: Why


class Remember(Redacted, Generic[A], frozen=True):
    """A failure was recorded. `write`: the store is to keep it as well; `is_new`: its key had none before."""

    flight_id: int
    owner: Owner
    key: str
    failed: Failed[A]
    write: bool
    is_new: bool


class ReportFailure(Redacted, Generic[A], frozen=True):
    """A fetch gave up: tell the logger, and the key's watchers if `notify`."""

    owner: Owner
    key: str
    answer: A
    notify: bool


class Drop(Struct, frozen=True):
    """`key` is gone: tell watchers and logger, and delete it from the store."""

    owner: Owner
    key: str
    existed: bool


class DropPrefix(Struct, frozen=True):
    """All keys of an owner that begin with `prefix` are gone, `keys` among them: the store's part of it too."""

    owner: Owner
    prefix: str
    keys: frozenset[str]


class TagMarked(Struct, frozen=True):
    """What bears `tag` is gone, or stale, for one owner or (None) for all: tell the watchers of what is gone.

    The store is told `at` which instant; None: it knows.
    """

    owner: Owner | None
    tag: str
    is_soft: bool
    at: float | None = None


class Overtaken(Struct, frozen=True):
    """`keys` of an owner were changed elsewhere, and are forgotten; `is_whole`: all that the owner has.

    `is_gap`: nobody knows whether they were, and so the owner has not left.
    """

    owner: Owner
    keys: frozenset[str]
    is_whole: bool
    is_gap: bool = False


class DropPartition(Struct, frozen=True):
    """All of an owner is gone, `keys` among it: the store's part of it too. `ends`: nobody will come back to it."""

    owner: Owner
    keys: frozenset[str]
    ends: bool


class ClearStore(Struct, frozen=True):
    """The store is to be emptied."""


class LogInvalidate(Struct, frozen=True):
    """`key` was invalidated at somebody's request."""

    key: str
    owner: Owner


class LogPrefix(Struct, frozen=True):
    """The keys with a prefix were invalidated at somebody's request."""

    prefix: str
    owner: Owner


class LogTag(Struct, frozen=True):
    """A tag was invalidated, or (`is_soft`) made stale, at somebody's request; `owner`: where, None is everywhere."""

    tag: str
    is_soft: bool
    owner: Owner | None = None


class LogBreaker(Struct, frozen=True):
    """An origin is left alone `until` an instant; None: it is asked again."""

    origin: str
    until: float | None


class LogClear(Struct, frozen=True):
    """The cache was cleared at somebody's request."""


class LogScopeCleared(Struct, frozen=True):
    """Partitions were dropped, and these keys with them."""

    reason: str
    keys: frozenset[tuple[Owner, str]]


class LogEvict(Struct, frozen=True):
    """An entry left the memory because it was full."""

    owner: Owner
    key: str


Effect: TypeAlias = (
    Reply[A]
    | Refuse
    | Join
    | StartFetch
    | Load
    | WaitUntil[A]
    | Settle[A]
    | AskAgain
    | Abort
    | CancelFetch
    | Save[A]
    | Persist[A]
    | Admit
    | Skip
    | Remember[A]
    | ReportFailure[A]
    | Drop
    | DropPrefix
    | TagMarked
    | Overtaken
    | DropPartition
    | ClearStore
    | LogInvalidate
    | LogPrefix
    | LogTag
    | LogBreaker
    | LogClear
    | LogScopeCleared
    | LogEvict
)

Effects: TypeAlias = tuple[Effect[A], ...]

NO_EFFECTS: Final = ()
