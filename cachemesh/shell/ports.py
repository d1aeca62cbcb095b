"""What the cache asks of the world: fetchers, a clock, a store, a token keeper."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta
from enum import Enum
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from msgspec import Struct
from returns.io import IOResult
from returns.result import Result

from cachemesh.core.scopes import Owner

T = TypeVar("T")
E = TypeVar("E")

Fetcher: TypeAlias = Callable[[], Awaitable[Result[T, E]]] | Callable[[], Awaitable[IOResult[T, E]]]
"""Asks the origin, for `Cache`. `FutureResult` is an awaitable of `IOResult`, so it is taken as well."""

SyncFetcher: TypeAlias = Callable[[], Result[T, E]] | Callable[[], IOResult[T, E]]
"""Asks the origin, for `SyncCache`."""

TokenFetcher: TypeAlias = Callable[[str], Awaitable[Result[T, E]]] | Callable[[str], Awaitable[IOResult[T, E]]]
"""A `Fetcher` that is handed a token."""

SyncTokenFetcher: TypeAlias = Callable[[str], Result[T, E]] | Callable[[str], IOResult[T, E]]
"""A `SyncFetcher` that is handed a token."""

Ttl: TypeAlias = timedelta | float | int | None
"""A duration: seconds when a number; None for ever."""

Clock: TypeAlias = Callable[[], float]
"""Seconds since the epoch. A clock that also has a `sleep(seconds)` method is what `SyncCache` waits with."""


class Default(Enum):
    """The type of `DEFAULT`."""

    DEFAULT = "as the cache was configured"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default.DEFAULT
"""As the cache was configured. None is a value of its own: `ttl=None` never expires."""


class StoredEntry(Struct, frozen=True):
    """What a store keeps under (owner, key): everything that is to survive a restart travels with the value.

    `value` is the value, or the error where `is_failure`. `created_at` and
    `expires_at` are seconds since the epoch; None never expires.
    """

    owner: Owner
    key: str
    value: Any
    is_failure: bool
    created_at: float
    ttl_s: float | None
    expires_at: float | None

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
