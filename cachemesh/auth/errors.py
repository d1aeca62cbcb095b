"""What a token keeper fails with. Values, as all failures of cachemesh: compared by type and content, and picklable.

None of them holds a token, and a repr names the types of other errors only.
"""

from __future__ import annotations

from contextlib import suppress

from cachemesh.errors import CacheError
from cachemesh.sources.failure import NetworkFailure, kind_of


class TokenError(CacheError):
    """Any failure that comes from a token keeper and not from the action that was to be run."""

    @property
    def is_retryable(self) -> bool:
        """Whether the same call may well succeed later, with nobody doing anything about it."""
        return False


class InvalidToken(TokenError):
    """What was read is no token: `reason` says why, and quotes nothing of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotSignedIn(TokenError):
    """There is no token: nobody has signed in, or they have signed out, also while it was being refreshed."""

    def __init__(self) -> None:
        super().__init__()


class TokenNotRefreshable(TokenError):
    """The token has expired, or was rejected, and there is no refresh token to get another one with."""

    def __init__(self) -> None:
        super().__init__()


class RefreshFailed(TokenError):
    """The refresh came to nothing: `error` is what the refresher answered, or the exception that it raised."""

    def __init__(self, error: object) -> None:
        super().__init__(error)
        self.error = error

    @property
    def is_retryable(self) -> bool:
        """What `error` says of itself; of an exception that says nothing, whether the connection was at fault."""
        said = _said(self.error, "is_retryable")
        if said is None and isinstance(self.error, Exception):
            return NetworkFailure(kind=kind_of(self.error)).is_retryable
        return said is True

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

    def __init__(self, after: float) -> None:
        super().__init__(after)
        self.after = after

    @property
    def is_retryable(self) -> bool:
        """It is."""
        return True


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

    def __init__(self, operation: str, error: Exception) -> None:
        super().__init__(operation, error)
        self.operation = operation
        self.error = error

    @property
    def is_retryable(self) -> bool:
        """It is."""
        return True


class KeeperClosed(TokenError):
    """The token keeper was closed."""

    def __init__(self) -> None:
        super().__init__()


def _said(error: object, name: str) -> object:
    """What `error`, which may be anything, says under `name`; None where it does not."""
    with suppress(Exception):
        return getattr(error, name, None)
    return None
