"""What a token keeper asks of the world: a refresher, a storage, a rule for "unauthorized"."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias, TypeVar

from msgspec import Struct
from returns.io import IOResult
from returns.result import Result

from cachemesh.auth.token import Token

E = TypeVar("E")

Refresher: TypeAlias = Callable[[Token], Awaitable[Result[Token, E]]] | Callable[[Token], Awaitable[IOResult[Token, E]]]
"""Gets a new token for an old one, for `TokenKeeper`. It is handed one that can be refreshed."""

SyncRefresher: TypeAlias = Callable[[Token], Result[Token, E]] | Callable[[Token], IOResult[Token, E]]
"""The same for `SyncTokenKeeper`."""

Unauthorized: TypeAlias = Callable[[object], bool]
"""Whether an error says that the token was rejected."""


class Kept(Struct, frozen=True):
    """What a storage holds. An empty one has a version too; each write and each removal makes it grow."""

    token: Token | None
    version: int


class TokenStorage(Protocol):
    """Where the token is kept between the runs of a program, or for several processes.

    Its methods block, and may be called from any thread; what they raise is a
    `TokenStorageFailed`. `is_near`: they never wait for a disk or the like, so
    `TokenKeeper` calls them in its event loop, and not in a thread.
    """

    @property
    def is_near(self) -> bool: ...

    def read(self) -> Kept:
        """What is kept now."""

    def swap(self, expected: int, token: Token | None, /) -> int | None:
        """Keep `token` (None: nothing) if the version is still `expected`. The new version, once it is durable.

        None: somebody else was first, and nothing was written.
        """

    def try_lock(self, holds_s: float, /) -> Callable[[], None] | None:
        """The right to refresh the token, which one of all the processes of this storage has at a time.

        The answer gives it back, from whatever thread. It ends by itself after
        `holds_s`, or with the process. None: somebody has it.
        """
