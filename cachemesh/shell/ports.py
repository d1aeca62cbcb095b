"""What the cache asks of the world: fetchers, a clock, a store, a token keeper."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Protocol, TypeAlias, TypeVar

from msgspec import Struct
from returns.io import IOResult
from returns.result import Result

from cachemesh.core.scopes import Owner
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


class StoredEntry(Struct, frozen=True):
    """What a store keeps under (owner, key): everything that is to survive a restart travels with the value.

    `value` is the value, or the error where `is_failure`. `created_at`,
    `expires_at` and `ageing_at` are seconds since the epoch; None is never. The
    windows are those of a `Lifetime`; None where there was none.
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


class TokenKeeperAdapter(Protocol):
    """Runs an action with a valid token, for `Cache.get_authenticated`.

    It resolves the token, runs the action, refreshes the token and tries once
    more where the origin says "unauthorized", and answers with a `Failure`
    where there is no token to be had. What the action answers is a `Result`,
    whichever kind the fetcher returns; the keeper's own answer may be either,
    so it may be a `FutureResult`.
    """

    def with_valid_token(
        self, action: Callable[[str], Awaitable[Result[T, E]]], /
    ) -> Awaitable[Result[T, E]] | Awaitable[IOResult[T, E]]:
        """What `action` answers, run with a valid token."""


class SyncTokenKeeperAdapter(Protocol):
    """The same for `SyncCache`."""

    def with_valid_token(self, action: Callable[[str], Result[T, E]], /) -> Result[T, E] | IOResult[T, E]:
        """What `action` answers, run with a valid token."""
