"""What is asked, and what has happened. All that a decision needs is in the command: the instant, chance, flight ids.

`viewer` is the user of a view, None for the cache itself; `domain` names the
event loop (or the threads) that a flight belongs to: flights are shared within
one domain. `within` lists the flights inside whose fetches a command is given,
innermost last.
"""

from __future__ import annotations

from typing import Any, Generic, TypeAlias

from msgspec import Struct

from cachemesh.core.model import A, Ancestor, Entry, Failed, Lifespan, Origin, Redacted, RefreshSource
from cachemesh.core.policies import CachePolicy
from cachemesh.core.retry import NO_RETRY, Retry
from cachemesh.core.scopes import CacheScope, Owner


class Get(Struct, frozen=True, gc=False):
    """An answer for `key` is asked for. Answered by exactly one of `Reply`, `Refuse` and `Join`."""

    key: str
    now: float
    flight_id: int
    """The id of the fetch, should this command start one."""
    policy: CachePolicy = CachePolicy.CACHE_FIRST
    scope: CacheScope = CacheScope.GLOBAL
    viewer: str | None = None
    domain: int = 0
    ttl_s: float | None = None
    retry: Retry = NO_RETRY
    store_failures: bool = False
    heed_failures: bool = True
    always_revalidate: bool = False
    asked_store: bool = False
    within: tuple[Ancestor, ...] = ()
    lifespan: Lifespan | None = None
    tags: tuple[str, ...] = ()
    origin: Origin | None = None
    rereads: int = 0
    """How often the store was read in vain, as the key was changed meanwhile."""


class Refresh(Struct, frozen=True, gc=False):
    """A fetch that stores its answer is asked for, whatever is cached. Answered by `Refuse` or `Join`."""

    key: str
    now: float
    flight_id: int
    source: RefreshSource = RefreshSource.REFRESH
    scope: CacheScope = CacheScope.GLOBAL
    viewer: str | None = None
    domain: int = 0
    ttl_s: float | None = None
    retry: Retry = NO_RETRY
    store_failures: bool = False
    within: tuple[Ancestor, ...] = ()
    lifespan: Lifespan | None = None
    tags: tuple[str, ...] = ()
    origin: Origin | None = None


class Directives(Redacted, frozen=True):
    """What an answer says of its own caching, in place of what its callers asked for.

    `sets_ttl`: `ttl_s` and `lifespan` count. `renews`: the value is the one that
    is cached already. `stores`: it may be kept at all. `private`: it is one
    user's own, so the global scope neither keeps nor shares it.
    """

    sets_ttl: bool = False
    ttl_s: float | None = None
    lifespan: Lifespan | None = None
    tags: tuple[str, ...] = ()
    validator: Any = None
    renews: bool = False
    stores: bool = True
    private: bool = False


class FetchSucceeded(Redacted, Generic[A], frozen=True):
    """The fetch of a flight answered.

    `chance`: a number from 0 to 1 for the jitter of its lifespan. `schema`: what
    the embedder knows the answer's type by; here and below.
    """

    flight_id: int
    answer: A
    now: float
    chance: float = 0.0
    directives: Directives | None = None
    schema: Any = None


class FetchFailed(Redacted, Generic[A], frozen=True):
    """An attempt of a flight failed.

    `retryable`: the caller's predicate would try again. `chance`: a number from
    0 to 1 for the jitter. `cacheable`: a failure of this kind may be remembered.
    `failure_ttl_s`: for how long, where that depends on the error. `counts`: it
    tells against its origin.
    """

    flight_id: int
    answer: A
    now: float
    retryable: bool = True
    cacheable: bool = True
    chance: float = 0.0
    failure_ttl_s: float | None = None
    counts: bool = True
    schema: Any = None


class RetryDue(Struct, frozen=True):
    """The wait before a flight's next attempt is over."""

    flight_id: int


class FetchAborted(Struct, frozen=True):
    """The fetch of a flight was cancelled from outside, or ended the program: it will not answer."""

    flight_id: int


class Abandoned(Struct, frozen=True):
    """Nobody waits for a flight any longer."""

    flight_id: int


class WaitedLong(Struct, frozen=True):
    """A caller has waited for its soft timeout. It is answered with an old value, or goes on waiting."""

    flight_id: int
    now: float


class GaveUp(Struct, frozen=True):
    """A caller has waited for its hard timeout: it waits no longer, and the next one is to try anew.

    `reads`: it would take an old value within its windows. `counts`: it tells
    against the origin.
    """

    flight_id: int
    now: float
    reads: bool = True
    falls_back: bool = False
    counts: bool = True


class Overdue(Redacted, Generic[A], frozen=True):
    """A flight is older than it may get: it fails with `answer`, whatever its fetch is doing."""

    flight_id: int
    answer: A
    now: float


class StoppedWaiting(Struct, frozen=True):
    """One of several callers gave up on a flight, from inside the fetch of another one."""

    flight_id: int
    within: tuple[Ancestor, ...]


class DomainClosed(Struct, frozen=True):
    """The event loop of a domain is gone, and its flights with it."""

    domain: int


class Loaded(Redacted, Generic[A], frozen=True):
    """The store answered a load: with an entry, with a remembered failure, or with neither."""

    flight_id: int
    now: float
    entry: Entry[A] | None = None
    failed: Failed[A] | None = None


class FoundElsewhere(Redacted, Generic[A], frozen=True):
    """What a flight is to fetch was fetched by another process, since it was asked for: it is in the store."""

    flight_id: int
    now: float
    entry: Entry[A]


class Hydrate(Redacted, Generic[A], frozen=True):
    """An entry, or a remembered failure, came from outside: from a snapshot, or from the store before anybody asked.

    `stamp`: as for `MarkTag`, drawn before it was read. Answered by exactly one
    of `Admit`, `Remember` and `Skip`.
    """

    owner: Owner
    key: str
    found: Entry[A] | Failed[A]
    now: float
    stamp: int


class Invalidate(Struct, frozen=True):
    """`key` is to be gone, from every partition that the caller sees or from the scope that is named."""

    key: str
    scope: CacheScope | None = None
    viewer: str | None = None


class InvalidatePrefix(Struct, frozen=True):
    """Every key that begins with `prefix` is to be gone, from where an `Invalidate` would look."""

    prefix: str
    scope: CacheScope | None = None
    viewer: str | None = None


class MarkTag(Struct, frozen=True):
    """Every entry with `tag` is to be gone or (`is_soft`) stale, also what is being fetched.

    From all partitions; where a scope is named, or for a view, from those that
    the caller sees. `stamp`: an id from the row of the flights' ids. `is_heard`:
    another process has ordered it, for `owner` or (None) for all.
    """

    tag: str
    now: float
    stamp: int
    is_soft: bool = False
    scope: CacheScope | None = None
    viewer: str | None = None
    is_heard: bool = False
    owner: Owner | None = None


class Put(Redacted, Generic[A], frozen=True):
    """`answer` is to be stored under `key`. No fetch that began before will overwrite it.

    `stamp`: as for `MarkTag`. Answered by `Save` or `Refuse`.
    """

    key: str
    answer: A
    now: float
    stamp: int
    scope: CacheScope = CacheScope.GLOBAL
    viewer: str | None = None
    ttl_s: float | None = None
    lifespan: Lifespan | None = None
    tags: tuple[str, ...] = ()
    chance: float = 0.0
    schema: Any = None


class Update(Redacted, Generic[A], frozen=True):
    """`answer` is to take the place of `expected`, if that is what is there, for the rest of its life.

    Answered by `Save`, or by `Refuse`: there is nothing, or something else.
    """

    key: str
    expected: A
    answer: A
    now: float
    stamp: int
    scope: CacheScope = CacheScope.GLOBAL
    viewer: str | None = None


class Touch(Struct, frozen=True):
    """What is cached under `key` is to live anew, from now on. Answered by `Save` or `Refuse`."""

    key: str
    now: float
    stamp: int
    scope: CacheScope = CacheScope.GLOBAL
    viewer: str | None = None
    ttl_s: float | None = None
    lifespan: Lifespan | None = None
    chance: float = 0.0


class Heard(Struct, frozen=True):
    """Another process has changed `key` of `owner`; without a key all that is the owner's, without an owner everything.

    `is_gap`: it only may have, as nobody could hear of it. Then a fetch goes on,
    and `Persist` leaves what it brings to the store, which knows whether that is
    too old. A load does not: what it brings may be from before. The cache's own
    session, which nobody else can change, is left alone.
    """

    owner: Owner | None = None
    key: str | None = None
    is_gap: bool = False


class ResetBreaker(Struct, frozen=True):
    """An origin is to be tried again, whatever it did."""

    origin: str


class Clear(Struct, frozen=True):
    """Everything is to be gone; for a view, everything of its user."""

    viewer: str | None = None


class SetActiveUser(Struct, frozen=True):
    """Somebody signed in, or out (None). What belonged to the one before is dropped."""

    user_id: str | None


class EndSession(Struct, frozen=True):
    """The session is over: its partition and its user's are dropped."""

    viewer: str | None = None


class ClearScope(Struct, frozen=True):
    """Every partition of a scope is dropped; for a view, its own one."""

    scope: CacheScope
    viewer: str | None = None


class Evict(Struct, frozen=True):
    """The memory is full, and this entry is the one to go."""

    owner: tuple[CacheScope, str | None]
    key: str


class Forget(Struct, frozen=True):
    """A remembered failure is one too many."""

    owner: tuple[CacheScope, str | None]
    key: str


Command: TypeAlias = (
    Get
    | Refresh
    | FetchSucceeded[A]
    | FetchFailed[A]
    | RetryDue
    | FetchAborted
    | Abandoned
    | WaitedLong
    | GaveUp
    | Overdue[A]
    | StoppedWaiting
    | DomainClosed
    | Loaded[A]
    | FoundElsewhere[A]
    | Hydrate[A]
    | Invalidate
    | InvalidatePrefix
    | MarkTag
    | Put[A]
    | Update[A]
    | Touch
    | Heard
    | ResetBreaker
    | Clear
    | SetActiveUser
    | EndSession
    | ClearScope
    | Evict
    | Forget
)
