"""What an answer says of the token: that it was rejected, or that it will never be refreshed again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from returns.result import Failure, Success

from cachemesh.auth.errors import InvalidRefreshResult, RefreshFailed, TokenError
from cachemesh.auth.token import Token, renewed
from cachemesh.shell.outcomes import without_io

if TYPE_CHECKING:
    from collections.abc import Callable

UNAUTHORIZED: Final = 401

INVALID_GRANT: Final = "invalid_grant"
"""RFC 6749, section 5.2: the refresh token is invalid, expired, revoked, or somebody else's."""


class Raised:
    """What was called has raised `error`."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


def is_unauthorized(error: Any) -> bool:  # noqa: ANN401 (anybody's error)
    """Whether `error` says so itself: `is_unauthorized`, or 401 as its `status` or `code`, or as itself."""
    if type(error) is int:
        return error == UNAUTHORIZED
    return (
        getattr(error, "is_unauthorized", None) is True
        or getattr(error, "status", None) == UNAUTHORIZED
        or getattr(error, "code", None) == UNAUTHORIZED
    )


def is_invalid_grant(error: Any) -> bool:  # noqa: ANN401 (as above)
    """Whether `error` says that there is nothing to be refreshed any more: `is_final`, or the code of RFC 6749."""
    if isinstance(error, str):
        return error == INVALID_GRANT
    return (
        getattr(error, "is_final", None) is True
        or getattr(error, "error", None) == INVALID_GRANT
        or getattr(error, "code", None) == INVALID_GRANT
    )


def guarded(rule: Callable[[Any], bool], report: Callable[[str, BaseException], None]) -> Callable[[object], bool]:
    """`rule`, where an error or a rule that raises counts as no."""

    def says(error: object) -> bool:
        try:
            return bool(rule(error))
        except Exception as raised:  # noqa: BLE001 (anybody's rule, on anybody's error)
            report("the rule for unauthorized raised", raised)
            return False

    return says


def error_in(answer: object) -> tuple[Any, ...]:
    """The error of a `Failure`, in a tuple; nothing in it where it is none."""
    answer = without_io(answer)
    return (answer.failure(),) if type(answer) is Failure else ()


def refreshed(got: object, old: Token) -> Token | TokenError:
    """What a refresher brought: a token, or why it is none."""
    if type(got) is Raised:
        return RefreshFailed(got.error)
    answer = without_io(got)
    if type(answer) is Failure:
        return RefreshFailed(answer.failure())
    if type(answer) is not Success:
        return InvalidRefreshResult(type(answer).__name__)
    token = answer.unwrap()
    return renewed(old, token) if isinstance(token, Token) else InvalidRefreshResult(type(token).__name__)
