"""`NetworkFailure`: why an origin gave no answer that counts. Made here, from a status, a response or an exception.

It is a value: it says what happened and holds nothing of a request or an
answer, so it can be cached, logged and compared.
"""

from __future__ import annotations

import asyncio
import math
from enum import StrEnum
from http import HTTPStatus
from time import time
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from pydantic import ConfigDict, Field, NonNegativeFloat, SkipValidation

from cachemesh.shell.options import Options
from cachemesh.sources.dates import http_date

if TYPE_CHECKING:
    from collections.abc import Mapping


class FailureKind(StrEnum):
    """The closed set of what can go wrong between a program and an origin."""

    NETWORK = "network"
    """No connection, or one that broke."""
    TIMEOUT = "timeout"
    """It took too long; also status 408."""
    BAD_RESPONSE = "bad_response"
    """What came is no proper answer: broken HTTP, too large, a redirect that is not followed, an odd status."""
    PARSING = "parsing"
    """The body does not fit the type that was asked for."""
    UNAUTHORIZED = "unauthorized"
    """401: there is no valid token."""
    FORBIDDEN = "forbidden"
    """403."""
    NOT_FOUND = "not_found"
    """404."""
    CONFLICT = "conflict"
    """409."""
    RATE_LIMIT = "rate_limit"
    """429."""
    SERVER_ERROR = "server_error"
    """Any 5xx."""
    CANCELLED = "cancelled"
    """The source was closed, or a callback gave up. That of a task is no failure: it passes through."""
    UNKNOWN = "unknown"
    """Something that none of the above describes."""


KIND_OF_STATUS: Final[Mapping[int, FailureKind]] = {
    401: FailureKind.UNAUTHORIZED,
    403: FailureKind.FORBIDDEN,
    404: FailureKind.NOT_FOUND,
    408: FailureKind.TIMEOUT,
    409: FailureKind.CONFLICT,
    429: FailureKind.RATE_LIMIT,
}

KIND_OF_EXCEPTION: Final[Mapping[str, FailureKind]] = {
    "TimeoutException": FailureKind.TIMEOUT,
    "RemoteProtocolError": FailureKind.BAD_RESPONSE,
    "DecodingError": FailureKind.BAD_RESPONSE,
    "TooManyRedirects": FailureKind.BAD_RESPONSE,
    "TransportError": FailureKind.NETWORK,
    "WebSocketUpgradeError": FailureKind.BAD_RESPONSE,
    "HTTPXWSException": FailureKind.NETWORK,
}
"""By the name of a class of httpx2 or httpx. The first on the way up from the class of the exception counts."""

BROKEN_CONNECTIONS: Final = (FailureKind.NETWORK, FailureKind.TIMEOUT, FailureKind.RATE_LIMIT, FailureKind.SERVER_ERROR)


class Answered(Protocol):
    """What is read of a response: httpx2's and httpx's own have it."""

    @property
    def status_code(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...


class NetworkFailure(Options):
    """Why an origin gave no answer that counts.

    `status`: of the answer, where there was one. `retry_after`: seconds that the
    origin asks for (RFC 9110, section 10.2.3). `cause`: the exception behind it,
    without its traceback; it is left out of comparison, text, JSON and pickles,
    for it may quote what was sent.

    >>> NetworkFailure.of_status(503, retry_after=2.0)
    NetworkFailure(server_error, 503, 'Service Unavailable', retry_after=2.0)
    >>> NetworkFailure.of_status(503).is_retryable, NetworkFailure.of_status(404).is_retryable
    (True, False)
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)

    kind: FailureKind
    message: str = ""
    status: int | None = None
    retry_after: NonNegativeFloat | None = None
    cause: SkipValidation[BaseException | None] = Field(default=None, exclude=True, repr=False)

    @classmethod
    def of_status(cls, status: int, message: str | None = None, *, retry_after: float | None = None) -> Self:
        """What `status` means. A status that is no failure (2xx, 3xx) is a `bad_response` where it is unexpected."""
        kind = KIND_OF_STATUS.get(status)
        if kind is None:
            kind = FailureKind.SERVER_ERROR if status in range(500, 600) else FailureKind.BAD_RESPONSE
        return cls(
            kind=kind, message=_phrase(status) if message is None else message, status=status, retry_after=retry_after
        )

    @classmethod
    def of_response(cls, response: Answered, message: str | None = None, *, now: float | None = None) -> Self:
        """What the status and the `Retry-After` of `response` mean.

        `now`: seconds since the epoch, for a `Retry-After` that is a date where the response has no `Date`.
        """
        sent_at = http_date(response.headers.get("date"), time() if now is None else now)
        asked = parse_retry_after(response.headers.get("retry-after"), sent_at or now)
        return cls.of_status(response.status_code, message, retry_after=asked)

    @classmethod
    def of_exception(cls, error: BaseException, message: str | None = None) -> Self:
        """What an exception of httpx2, httpx, the standard library or any other means.

        One that has a `failure`, a `NetworkFailure`, has said it itself; that of `raise_for_status` has a response.
        """
        known = _told_by(error) or cls(kind=kind_of(error), message=type(error).__name__)
        return cls(
            kind=known.kind,
            message=known.message if message is None else message,
            status=known.status,
            retry_after=known.retry_after,
            cause=without_frames(error),
        )

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may well succeed later: the connection, the time or the server was at fault.

        An answer that was broken on the wire has no status; one that came whole and is wrong will come again.
        """
        return self.kind in BROKEN_CONNECTIONS or (self.kind is FailureKind.BAD_RESPONSE and self.status is None)

    @property
    def is_unauthorized(self) -> bool:
        """Whether another token might help."""
        return self.kind is FailureKind.UNAUTHORIZED

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NetworkFailure):
            return NotImplemented
        return self._facts() == other._facts()

    def __hash__(self) -> int:
        return hash(self._facts())

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        return state | {"__dict__": state["__dict__"] | {"cause": None}}

    def __repr__(self) -> str:
        facts = [str(self.kind), *([] if self.status is None else [str(self.status)]), repr(self.message)]
        if self.retry_after is not None:
            facts.append(f"retry_after={self.retry_after!r}")
        return f"NetworkFailure({', '.join(facts)})"

    __str__ = __repr__

    def _facts(self) -> tuple[object, ...]:
        return (self.kind, self.message, self.status, self.retry_after)


def parse_retry_after(value: str | None, now: float | None = None) -> float | None:
    """Seconds to wait, of a `Retry-After`: a number of seconds or an HTTP-date (RFC 9110, section 10.2.3).

    A date in the past is 0. None: there is none, it is neither, or it is a date
    and nobody says what time it is.

    >>> parse_retry_after("120"), parse_retry_after("Fri, 31 Dec 1999 23:59:59 GMT", 946684789.0)
    (120.0, 10.0)
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text)
        return seconds if math.isfinite(seconds) else None
    at = None if now is None else http_date(text, now)
    return None if at is None or now is None else max(0.0, at - now)


def kind_of(error: BaseException) -> FailureKind:
    """The kind of failure that an exception stands for."""
    told = _told_by(error)
    if told is not None:
        return told.kind
    if isinstance(error, asyncio.CancelledError):
        return FailureKind.CANCELLED
    for each in type(error).__mro__:
        if _is_of_a_client(each):
            kind = KIND_OF_EXCEPTION.get(each.__name__)
            if kind is not None:
                return kind
    if isinstance(error, TimeoutError):
        return FailureKind.TIMEOUT
    return FailureKind.NETWORK if isinstance(error, OSError) else FailureKind.UNKNOWN


def _told_by(error: BaseException) -> NetworkFailure | None:
    """What is known of `error` from what it brings along."""
    told = getattr(error, "failure", None)
    if isinstance(told, NetworkFailure):
        return told
    if type(error).__name__ == "HTTPStatusError" and _is_of_a_client(type(error)):
        response = getattr(error, "response", None)
        return None if response is None else NetworkFailure.of_response(response)
    return None


def _is_of_a_client(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in {"httpx", "httpx2", "httpcore", "httpcore2"}


def without_frames(error: BaseException) -> BaseException:
    """`error`, let go of the frames, the request and the exceptions behind it: it may be kept for long."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
    if getattr(error, "_request", None) is not None:
        error._request = None  # type: ignore[attr-defined]  # noqa: SLF001 (it has the headers with the credentials; no setter takes None)
    if _is_of_a_client(type(error)) and getattr(error, "response", None) is not None:
        error.response = None  # type: ignore[attr-defined]  # An HTTPStatusError: it has the body, and the request.
    return error


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"HTTP {status}"
