"""What a fetcher may say of its answer's caching: `Success(Fresh(value, ttl=60))` in place of `Success(value)`."""

from __future__ import annotations

from typing import Any, Generic

from msgspec import Struct
from typing_extensions import TypeVar

from cachemesh.shell.default import DEFAULT

T_co = TypeVar("T_co", covariant=True, default=Any)


class Fresh(Struct, Generic[T_co], frozen=True):
    """`value`, with a lifetime of its own.

    `ttl`: in place of the caller's; seconds, a timedelta, a `Lifetime`, None for
    ever; left out, the caller's. `tags`: beside the caller's. `validator`:
    whatever the origin knows this value by (an ETag, a row version); a fetcher
    that is called with `conditional=True` gets it back as `Previous.validator`.
    `private`: the value is one user's own. A user's or a session's scope keeps
    it; in the global scope it is stored nowhere, and only the caller whose fetch
    it was is answered with it: others who waited fetch for themselves.

    >>> from returns.result import Success
    >>> async def feed():
    ...     return Success(Fresh(["news"], ttl=30, tags=("feed",), validator='"v1"'))
    """

    value: T_co
    ttl: Any = DEFAULT
    tags: Any = ()
    validator: Any = None
    private: bool = False

    def __repr__(self) -> str:
        return f"Fresh(<{type(self.value).__name__}>, ttl={self.ttl!r}, tags={self.tags!r})"


class DoNotCache(Struct, Generic[T_co], frozen=True):
    """`value` is answered to those who wait for it, and stored nowhere. `private`: as for `Fresh`."""

    value: T_co
    private: bool = False

    def __repr__(self) -> str:
        return f"DoNotCache(<{type(self.value).__name__}>)"


class NotModified(Struct, frozen=True):
    """What the fetcher was handed as `Previous` is still right: it lives anew, for `ttl` (as for `Fresh`).

    `validator`: what the origin knows it by from now on; left out, what it had.
    Without a `Previous` there is nothing that it could speak of: the answer is
    `Failure(InvalidFetchResult)`.
    """

    ttl: Any = DEFAULT
    validator: Any = DEFAULT

    def __repr__(self) -> str:
        return f"NotModified(ttl={self.ttl!r})"


class Previous(Struct, Generic[T_co], frozen=True):
    """What is cached as a conditional fetch begins: how old it is, in seconds, and what the origin knows it by."""

    value: T_co
    validator: Any
    age: float

    def __repr__(self) -> str:
        return f"Previous(<{type(self.value).__name__}>, age={self.age!r})"
