"""What a token keeper fails with. Values, as all failures of cachemesh: compared by type and content, and picklable.

None of them holds a token, and a repr names the types of other errors only.
"""

from __future__ import annotations

from contextlib import suppress
from math import inf
from typing import ClassVar

from cachemesh.errors import CacheError
from cachemesh.sources.failure import FailureKind, NetworkFailure


class TokenError(CacheError):
    """Any failure that comes from a token keeper and not from the action that was to be run."""

    KIND: ClassVar[FailureKind] = FailureKind.UNKNOWN

    @property
    def is_retryable(self) -> bool:
        """Whether the same call may well succeed later, with nobody doing anything about it."""
        return self.failure.is_retryable

    @property
    def failure(self) -> NetworkFailure:
        """What it means for who wanted an answer of an origin, and has none as there was no token."""
        return NetworkFailure(kind=self.KIND, message=repr(self))


class InvalidToken(TokenError):
    """What was read is no token: `reason` says why, and quotes nothing of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotSignedIn(TokenError):
    """There is no token: nobody has signed in, or they have signed out, also while it was being refreshed."""

    KIND = FailureKind.UNAUTHORIZED

    def __init__(self) -> None:
        super().__init__()


class TokenNotRefreshable(TokenError):
    """The token has expired, or was rejected, and there is no refresh token to get another one with."""

    KIND = FailureKind.UNAUTHORIZED

    def __init__(self) -> None:
        super().__init__()


class RefreshFailed(TokenError):
    """The refresh came to nothing: `error` is what the refresher answered, or the exception that it raised."""

    def __init__(self, error: object) -> None:
        super().__init__(error)
        self.error = error

    @property
    def failure(self) -> NetworkFailure:
        """That of the request behind it, if there was one; else what `error` says of itself."""
        error = self.error
        if isinstance(error, NetworkFailure):
            return error
        is_retryable = _said(error, "is_retryable")
        if isinstance(error, Exception) and is_retryable is None:
            return NetworkFailure.of_exception(error)
        kind = FailureKind.NETWORK if is_retryable is True else FailureKind.UNKNOWN
        if is_retryable is False or _said(error, "is_unauthorized") is True:
            kind = FailureKind.UNAUTHORIZED
        asked = self.retry_after
        seconds = asked if isinstance(asked, int | float) and 0 <= asked < inf else None
        return NetworkFailure(kind=kind, message=repr(self), retry_after=seconds)

    @property
    def retry_after(self) -> object:
        """The seconds that `error` asks for, if it does."""
        return _said(self.error, "retry_after")

    def __repr__(self) -> str:
        return f"RefreshFailed(<{type(self.error).__name__}>)"


class InvalidRefreshResult(TokenError):
    """The refresher returned something that is no `Result` of a `Token`: `got` is its type's name."""

    def __init__(self, got: str) -> None:
        super().__init__(got)
        self.got = got


class RefreshTimedOut(TokenError):
    """The refresh did not answer within `after` seconds."""

    KIND = FailureKind.TIMEOUT

    def __init__(self, after: float) -> None:
        super().__init__(after)
        self.after = after


class ReentrantRefresh(TokenError):
    """The refresher, or a listener, asked its own keeper for what the keeper waits for them to bring.

    Signing in or out is no such thing for a refresher. For a listener it is: let a task or a thread do it.
    """

    def __init__(self) -> None:
        super().__init__()


class TokenStorageFailed(TokenError):
    """The storage raised `error` in `operation` ("read", "swap", "try_lock"); it hung where that is a TimeoutError.

    Where it was to keep a new token, the keeper still has that: the next one
    who asks has it stored, and nothing is refreshed for it again.
    """

    KIND = FailureKind.NETWORK

    def __init__(self, operation: str, error: Exception) -> None:
        super().__init__(operation, error)
        self.operation = operation
        self.error = error


class KeeperClosed(TokenError):
    """The token keeper was closed."""

    KIND = FailureKind.CANCELLED

    def __init__(self) -> None:
        super().__init__()


def _said(error: object, name: str) -> object:
    """What `error`, which may be anything, says under `name`; None where it does not."""
    with suppress(Exception):
        return getattr(error, name, None)
    return None
