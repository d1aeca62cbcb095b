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

    @property
    def active_user_id(self) -> str | None: ...

    def set_active_user(self, user_id: str | None) -> None: ...

    def end_session(self) -> None: ...


class Identity:
    """Whose token the keeper has, as it announces that to `cache`. It waits meanwhile: a cache is never behind."""

    __slots__ = ("_cache", "_last", "_stop", "changes", "is_known")

    def __init__(self, cache: Follower, keeper: Any) -> None:  # noqa: ANN401 (an IdentityKeeper of either cache)
        self.changes = 0
        """It grows before the cache is told of a change, and after: who began in between has seen neither side."""
        self.is_known = False
        """The keeper has looked into its storage, and found a token."""
        self._cache = weakref.ref(cache)
        self._last: str | None = None
        self._stop: Callable[[], object] = keeper.on_identity(self._announced)
        subject = getattr(keeper, "subject", None)
        if isinstance(subject, str):
            cache.set_active_user(subject)
        if self.changes:  # Meanwhile, in another thread: that one is right.
            self._follow(self._last, ends_session=True)

    def known(self, peeked: object, changes: int) -> CacheError | None:
        """The keeper was asked after so many `changes`, and `peeked`. Why nobody is signed in, where it says so."""
        self.is_known = changes == self.changes and isinstance(peeked, Success)
        error = peeked.failure() if isinstance(peeked, Failure) else None
        return error if isinstance(error, CacheError) else None

    def _announced(self, subject: str | None) -> None:
        had_token, self.is_known = self.is_known, False
        self._last = subject
        self.changes += 1
        try:
            self._follow(subject, ends_session=had_token)
        finally:
            self.changes += 1

    def _follow(self, subject: str | None, *, ends_session: bool) -> None:
        """A session is of one user. What was there before anybody signed in stays, for who signs in first."""
        cache = self._cache()
        if cache is None:
            self.stop()
            return
        if subject is None or ends_session or cache.active_user_id not in {None, subject}:
            cache.end_session()
        if subject is not None:
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
