"""What came of a fetch, as a `Result`: what it returned, or why that does not count."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from returns.io import IOResult
from returns.result import Failure, Result, Success
from returns.unsafe import unsafe_perform_io

from cachemesh.errors import CacheError, FetchRaised, FetchTimeout, InvalidFetchResult

if TYPE_CHECKING:
    from types import TracebackType

Answer: TypeAlias = Result[Any, Any]

PROGRAMMING_ERRORS: Final = (
    TypeError,
    NameError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    ImportError,
    SyntaxError,
    RecursionError,
)
"""Raised by a fetcher, these tell of its code and not of its origin: they are answered, and never remembered."""


def judged(got: object, key: str) -> Answer:
    """What a fetcher returned, as a `Result`; `InvalidFetchResult` where it is none."""
    kind = type(got)
    if kind is Success or kind is Failure:
        return got  # type: ignore[return-value]  # mypy does not narrow by `type(got) is`
    if isinstance(got, IOResult):
        inner: Answer = unsafe_perform_io(got)  # type: ignore[arg-type]  # returns 0.30 types it for IO alone
        return inner
    if inspect.iscoroutine(got):
        got.close()
    return Failure(InvalidFetchResult(key, kind.__name__))


def seen_by_predicate(error: object) -> object:
    """The error as `retry_when` sees it: what a fetcher raised, as it was raised."""
    return error.error if isinstance(error, FetchRaised) else error


def is_cacheable(error: object) -> bool:
    """Whether a failure may be remembered: not the cache's own, and no programming error."""
    if isinstance(error, FetchRaised):
        return not isinstance(error.error, PROGRAMMING_ERRORS)
    return isinstance(error, FetchTimeout) or not isinstance(error, CacheError)


def origin_traceback(error: object) -> TracebackType | None:
    """Where the exception in a failure was raised."""
    raised = seen_by_predicate(error)
    return raised.__traceback__ if isinstance(raised, BaseException) else None


def with_traceback(answer: Answer, traceback: TracebackType | None) -> Answer:
    """`answer`, its exception's traceback as it was when the fetch ended.

    A failure is shared by all who waited, and each may raise it; every raise
    would make the traceback longer.
    """
    if type(answer) is Failure:
        error = answer.failure()
        raised = seen_by_predicate(error)
        if isinstance(error, BaseException):
            error.__traceback__ = None
        if isinstance(raised, BaseException):
            raised.__traceback__ = traceback
    return answer


def strip_tracebacks(answer: Answer) -> None:
    """Let go of the frames that a failure's exceptions hold: it is to be kept."""
    error = seen_by_predicate(answer.failure())
    seen: set[int] = set()
    while isinstance(error, BaseException) and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
