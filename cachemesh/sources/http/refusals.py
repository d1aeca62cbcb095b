"""`RefusedError`: how it is said inside that a request ends in a failure. It never leaves the package."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from cachemesh.sources.failure import FailureKind, NetworkFailure

if TYPE_CHECKING:
    from cachemesh.sources.clients import Response


class RefusedError(Exception):
    """What is to be answered in place of a value."""

    def __init__(self, failure: NetworkFailure) -> None:
        super().__init__()
        self.failure = failure


def refuse(message: str, response: Response | None = None) -> NoReturn:
    """Nothing was sent; or `response`, which would come again as it came, is not taken."""
    if response is None:
        raise RefusedError(NetworkFailure(kind=FailureKind.UNKNOWN, message=message))
    raise RefusedError(NetworkFailure(kind=FailureKind.BAD_RESPONSE, message=message, status=response.status_code))
