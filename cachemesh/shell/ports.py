"""What the cache asks of the world: fetchers, a clock, a store, a token keeper."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from msgspec import Struct
from returns.io import IOResult
from returns.result import Result

from cachemesh.core.scopes import Owner
from cachemesh.errors import CacheError  # noqa: TC001 (for `typing.get_type_hints`)
from cachemesh.shell.directives import DoNotCache, Fresh, NotModified, Previous

T = TypeVar("T")
E = TypeVar("E")

Directed: TypeAlias = T | Fresh[T] | DoNotCache[T] | NotModified
"""What a fetcher may succeed with. One that answers with directives is annotated `Result[Directed[User], Error]`."""

Fetcher: TypeAlias = (
    Callable[[], Awaitable[Result[Directed[T], E]]]
    | Callable[[], Awaitable[IOResult[Directed[T], E]]]
    | Callable[[Previous[T] | None], Awaitable[Result[Directed[T], E]]]
    | Callable[[Previous[T] | None], Awaitable[IOResult[Directed[T], E]]]
)
"""Asks the origin, for `Cache`. `FutureResult` is an awaitable of `IOResult`, so it is taken as well.

One that takes a `Previous` is for calls with `conditional=True`.
"""

SyncFetcher: TypeAlias = (
    Callable[[], Result[Directed[T], E]]
    | Callable[[], IOResult[Directed[T], E]]
    | Callable[[Previous[T] | None], Result[Directed[T], E]]
    | Callable[[Previous[T] | None], IOResult[Directed[T], E]]
)
"""Asks the origin, for `SyncCache`. One that takes a `Previous` is for calls with `conditional=True`."""

TokenFetcher: TypeAlias = (
    Callable[[str], Awaitable[Result[Directed[T], E]]]
    | Callable[[str], Awaitable[IOResult[Directed[T], E]]]
    | Callable[[str, Previous[T] | None], Awaitable[Result[Directed[T], E]]]
    | Callable[[str, Previous[T] | None], Awaitable[IOResult[Directed[T], E]]]
)
"""A `Fetcher` that is handed a token, and where the call is `conditional`, the `Previous` after it."""

SyncTokenFetcher: TypeAlias = (
    Callable[[str], Result[Directed[T], E]]
    | Callable[[str], IOResult[Directed[T], E]]
    | Callable[[str, Previous[T] | None], Result[Directed[T], E]]
    | Callable[[str, Previous[T] | None], IOResult[Directed[T], E]]
)
"""The same for `SyncCache`."""

FetchMany: TypeAlias = (
    Callable[[tuple[str, ...]], Awaitable[Mapping[str, Result[Directed[T], E]]]]
    | Callable[[tuple[str, ...]], Awaitable[Result[Mapping[str, Result[Directed[T], E]], E]]]
)
"""Asks the origin for several keys at once, for `Cache.get_many` and `Batcher`.

It answers a `Result` for each key; or one `Failure` for all of them.
"""

SyncFetchMany: TypeAlias = (
    Callable[[tuple[str, ...]], Mapping[str, Result[Directed[T], E]]]
    | Callable[[tuple[str, ...]], Result[Mapping[str, Result[Directed[T], E]], E]]
)
"""The same for `SyncCache`."""

Clock: TypeAlias = Callable[[], float]
"""Seconds since the epoch. A clock that also has a `sleep(seconds)` method is what `SyncCache` waits with."""


class Encoded(Struct, frozen=True, gc=False):
    """A value as JSON: what a store that keeps bytes is handed in the place of a value, and what it answers.

    `schema`: the name of what it is written as; "" is plain JSON. `version`:
    that of the schema.
    """

    payload: bytes
    schema: str = ""
    version: int = 0

    def __repr__(self) -> str:
        return f"Encoded(<{len(self.payload)} bytes>, {self.schema!r}, {self.version})"


class StoredEntry(Struct, frozen=True):
    """What a store keeps under (owner, key): everything that is to survive a restart travels with the value.

    `value` is the value, or the error where `is_failure`. `created_at`,
    `expires_at` and `ageing_at` are seconds since the epoch; None is never. The
    windows are those of a `Lifetime`; None where there was none. `generation`: of
    which one it is, where a `SharedStore` keeps it.
    """

    owner: Owner
    key: str
    value: Any
    is_failure: bool
    created_at: float
    ttl_s: float | None
    expires_at: float | None
    serve_stale_s: float | None = None
    stale_if_error_s: float | None = None
    ageing_at: float | None = None
    tags: tuple[str, ...] = ()
    validator: Any = None
    generation: int = 0

    def __repr__(self) -> str:
        return f"StoredEntry({self.owner!r}, {self.key!r}, <{type(self.value).__name__}>)"


class Store(Protocol):
    """A place behind the memory. Whatever it raises, or hangs in, costs an answer nothing but its help.

    Prove an implementation by subclassing `cachemesh.testing.StoreContract`.
    """

    async def read(self, owner: Owner, key: str) -> StoredEntry | None:
        """The entry last written under (owner, key), expired or not."""

    async def write(self, entry: StoredEntry) -> None:
        """Keep `entry` under its owner and key, in place of what was there."""

    async def delete(self, owner: Owner, key: str) -> None:
        """Forget what is under (owner, key), if anything is."""

    async def clear_partition(self, owner: Owner) -> None:
        """Forget all of one owner."""

    async def clear(self) -> None:
        """Forget everything."""

    async def keys(self, owner: Owner) -> Collection[str]:
        """The keys of one owner."""


class Claim(Struct, frozen=True):
    """The answer of a `SharedStore` to who is about to fetch.

    `found`: somebody else has fetched it meanwhile; then there is nothing to
    fetch. `generation`: what the answer will be of. `token`: of the lease, where
    one was granted. `fence`: whatever else the store wants to see again.
    """

    owner: Owner
    key: str
    generation: int
    token: bytes = b""
    found: StoredEntry | None = None
    fence: bytes = b""


@runtime_checkable
class SharedStore(Store, Protocol):
    """A store that several processes share, and that outlives them. It keeps bytes: values come and go as `Encoded`.

    A generation is a number that each removal and each `write` makes grow. Who
    fetches claims first, and commits with the claim: what was fetched before
    somebody wrote or removed is not stored after it (a fencing token, as in
    Kleppmann, "How to do distributed locking", 2016).
    """

    async def read_many(self, places: Sequence[tuple[Owner, str]], /) -> Sequence[StoredEntry | None]:
        """What `read` answers to each of `places`, in one go."""

    async def claim(self, owner: Owner, key: str, *, waits: bool, knows_none: bool = False) -> Claim:
        """Before a fetch of (owner, key). With `waits`: first wait for another process that is fetching it.

        That is a wait for its lease to end, and so not for ever. What was read last through this store is not
        `found` again, as whoever fetches it anew finds it too old; unless they say with `knows_none` that they have
        seen nothing, whatever others who share this store object have read meanwhile.
        """

    async def commit(self, entry: StoredEntry, claim: Claim) -> bool | None:
        """Keep what was fetched, and give up the lease. False: the claim is too old, and nothing was kept.

        None: nothing was kept, for want of a disk or the like; that says nothing against the entry.
        """

    async def release(self, claim: Claim) -> None:
        """Nothing was fetched: give up the lease."""

    async def mark_tag(self, owner: Owner | None, tag: str, stale_at: float | None) -> None:
        """What bears `tag`, of `owner` or (None) of all, is gone; or stale from `stale_at` on (since the epoch)."""

    async def flush(self) -> None:
        """Wait until all that was written so far would survive the end of this process. Raises where it would not."""

    async def aclose(self) -> None:
        """Write what is left, and let go of files and connections. Used again, it opens anew."""


@runtime_checkable
class DirectStore(SharedStore, Protocol):
    """A `SharedStore` near enough to be read without waiting, by whatever thread; its changes are written behind."""

    def read_now(self, owner: Owner, key: str) -> StoredEntry | None:
        """As `read`."""

    def enqueue(self, change: Change, overtaken: Callable[[], object] | None = None) -> bool:
        """Take `change` into the queue; reads see it at once. False: the queue is full. It waits for nothing.

        `overtaken` is called, from whatever thread and perhaps before this
        returns, where the claim of a "commit" is too old, so that nothing was
        kept. What was lost with a disk that failed was not overtaken.
        """


class Change(Struct, frozen=True):
    """What a `DirectStore` is to write behind: the method that it stands for, with its arguments.

    `operation`: "write", "commit", "release", "delete", "clear_partition",
    "clear" or "mark_tag".
    """

    operation: str
    owner: Owner | None = None
    key: str | None = None
    entry: StoredEntry | None = None
    claim: Claim | None = None
    tag: str = ""
    stale_at: float | None = None


class NewsKind(StrEnum):
    """What another process did, or that nobody knows what it did."""

    CHANGED = "changed"
    """`key` of `owner` was written or removed."""
    CLEARED = "cleared"
    """All of `owner` was removed; None: everything."""
    MARKED = "marked"
    """`tag` was invalidated, or made stale from `stale_at` on; of `owner`, or (None) of all."""
    LOST = "lost"
    """There may have been news that was not heard: nothing in memory is to be believed."""


class News(Struct, frozen=True):
    """What a process hears of the others. It carries no values."""

    kind: NewsKind
    owner: Owner | None = None
    key: str | None = None
    tag: str = ""
    stale_at: float | None = None


@runtime_checkable
class Backplane(Protocol):
    """A store whose processes hear of each other."""

    def listen(self, hear: Callable[[News], None], /) -> Callable[[], None]:
        """Call `hear` for all that other processes do from now on, from a thread of the store's. The answer ends it."""


class TokenKeeperAdapter(Protocol):
    """Runs an action with a valid token, for `Cache.get_authenticated`.

    It resolves the token, runs the action, refreshes the token and tries once
    more where the origin says "unauthorized", and answers with a `Failure`
    where there is no token to be had (its own failures are `CacheError`s, such
    as the `TokenError`s of `cachemesh.auth`). What the action answers is a `Result`,
    whichever kind the fetcher returns; the keeper's own answer may be either,
    so it may be a `FutureResult`.

    One that also has `on_identity` and `peek`, as `cachemesh.auth.TokenKeeper`
    does, is followed: see `IdentityKeeper`.
    """

    def with_valid_token(
        self, action: Callable[[str], Awaitable[Result[T, E]]], /
    ) -> Awaitable[Result[T, E | CacheError]] | Awaitable[IOResult[T, E | CacheError]]:
        """What `action` answers, run with a valid token; or why there is none."""


class SyncTokenKeeperAdapter(Protocol):
    """The same for `SyncCache`."""

    def with_valid_token(
        self, action: Callable[[str], Result[T, E]], /
    ) -> Result[T, E | CacheError] | IOResult[T, E | CacheError]:
        """What `action` answers, run with a valid token; or why there is none."""


class IdentityKeeper(TokenKeeperAdapter, Protocol):
    """A token keeper that knows whose token it has. The cache follows it: it need not be told who signs in or out.

    A subject (a `subject` that is there already, too) is the cache's active user
    from before its token can be used, and where there is none any more the session ends. Nothing that was asked for
    somebody else before is fetched with the token of the next.
    """

    def on_identity(self, callback: Callable[[str | None], object], /) -> Callable[[], object]:
        """Call `callback` with each new subject, or None, before its token can be used. The answer ends that."""

    def peek(self) -> Awaitable[Result[Any, Any]]:
        """Whether there is a token: what was kept of an earlier run is announced by then."""


class SyncIdentityKeeper(SyncTokenKeeperAdapter, Protocol):
    """The same for `SyncCache`."""

    def on_identity(self, callback: Callable[[str | None], object], /) -> Callable[[], object]:
        """As for `IdentityKeeper`."""

    def peek(self) -> Result[Any, Any]:
        """As for `IdentityKeeper`."""
