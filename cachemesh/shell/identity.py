"""A token keeper that knows whose token it has is followed: the cache's active user is the token's."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Protocol

from returns.result import Failure, Success

from cachemesh.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Callable


class Follower(Protocol):
    """What is told who signs in and out."""

    def set_active_user(self, user_id: str | None) -> None: ...

    def end_session(self) -> None: ...


class Identity:
    """Whose token the keeper has, as it announces that to `cache`. It waits meanwhile: a cache is never behind."""

    __slots__ = ("_cache", "_last", "_stop", "changes", "is_known")

    def __init__(self, cache: Follower, keeper: Any) -> None:  # noqa: ANN401 (an IdentityKeeper of either cache)
        self.changes = 0
        self.is_known = False
        """The keeper has looked into its storage, and found a token."""
        self._cache = weakref.ref(cache)
        self._last: str | None = None
        self._stop: Callable[[], object] = keeper.on_identity(self._announced)
        subject = getattr(keeper, "subject", None)
        if isinstance(subject, str):
            self._follow(subject)
        if self.changes:  # Meanwhile, in another thread: that one is right.
            self._follow(self._last)

    def known(self, peeked: object) -> CacheError | None:
        """The keeper has looked, and answered `peeked`. Why there is no identity, where it says so."""
        self.is_known = isinstance(peeked, Success)
        error = peeked.failure() if isinstance(peeked, Failure) else None
        return error if isinstance(error, CacheError) else None

    def _announced(self, subject: str | None) -> None:
        self._last = subject
        self.changes += 1
        self._follow(subject)

    def _follow(self, subject: str | None) -> None:
        cache = self._cache()
        if cache is None:
            return
        if subject is None:
            cache.end_session()
        else:
            cache.set_active_user(subject)

    def stop(self) -> None:
        """Follow no more."""
        self._stop()


def followed(cache: Follower, keeper: object) -> Identity | None:
    """The identity that `cache` follows, where `keeper` tells of one."""
    kind = type(keeper)
    if not (callable(getattr(kind, "on_identity", None)) and callable(getattr(kind, "peek", None))):
        return None
    return Identity(cache, keeper)
