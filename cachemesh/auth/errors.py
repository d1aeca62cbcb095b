"""What a token keeper fails with. Values, as all failures of cachemesh: compared by type and content, and picklable.

None of them holds a token, and a repr names the types of other errors only.
"""

from __future__ import annotations

from typing import Final

from cachemesh.errors import CacheError


class TokenError(CacheError):
    """Any failure that comes from a token keeper and not from the action that was to be run."""


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

    def __repr__(self) -> str:
        return f"RefreshFailed(<{type(self.error).__name__}>)"


class InvalidRefreshResult(TokenError):
    """The refresher returned something that is no `Result` of a `Token`: `got` is its type's name."""

    def __init__(self, got: str) -> None:
        super().__init__(got)
        self.got = got


class RefreshTimedOut(TokenError):
    """The refresh did not answer within `after` seconds."""

    is_retryable: Final = True
    """It may well answer later."""

    def __init__(self, after: float) -> None:
        super().__init__(after)
        self.after = after


class ReentrantRefresh(TokenError):
    """The refresher, or a listener, asked its own keeper for a token that the keeper waits for them to bring."""

    def __init__(self) -> None:
        super().__init__()


class TokenStorageFailed(TokenError):
    """The storage raised `error` in `operation` ("read", "swap", "try_lock"); it hung where that is a TimeoutError.

    Where it was to keep a new token, the keeper still has that: the next one
    who asks has it stored, and nothing is refreshed for it again.
    """

    is_retryable: Final = True
    """It says nothing against the token."""

    def __init__(self, operation: str, error: Exception) -> None:
        super().__init__(operation, error)
        self.operation = operation
        self.error = error


class KeeperClosed(TokenError):
    """The token keeper was closed."""

    def __init__(self) -> None:
        super().__init__()
