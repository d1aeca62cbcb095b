"""What came of a fetch, as a `Result`: what it returned, or why that does not count."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard

from returns.io import IOResult
from returns.result import Failure, Result, Success
from returns.unsafe import unsafe_perform_io

from cachemesh.core.commands import Directives
from cachemesh.errors import CacheError, FetchRaised, FetchTimeout, InvalidFetchResult, InvalidOption, InvalidTtl
from cachemesh.shell.default import DEFAULT
from cachemesh.shell.directives import DoNotCache, NotModified
from cachemesh.shell.durations import seconds
from cachemesh.shell.lifetime import Lifetime

if TYPE_CHECKING:
    from types import TracebackType

    from cachemesh.core.model import Lifespan

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
    got = without_io(got)
    kind = type(got)
    if type(got) is Success or type(got) is Failure:
        return got
    if kind is CoroutineType:
        close(got)
    return Failure(InvalidFetchResult(key, kind.__name__))


def without_io(got: object) -> object:
    """The `Result` in an `IOResult`; anything else as it is."""
    if issubclass(type(got), IOResult):
        return unsafe_perform_io(got)  # type: ignore[arg-type]  # returns 0.30 types it for IO alone
    return got


def close(coroutine: Any) -> None:  # noqa: ANN401 (CoroutineType has three parameters that do not matter here)
    """Close a coroutine that nobody will await. It may resist: that is its own affair."""
    with suppress(Exception):
        coroutine.close()


def seen_by_predicate(error: object) -> object:
    """The error as `retry_when` sees it: what a fetcher raised, as it was raised."""
    return error.error if type(error) is FetchRaised else error


def is_cacheable(error: object) -> bool:
    """Whether a failure may be remembered: not the cache's own, and no programming error."""
    if type(error) is FetchRaised:
        return not isinstance(error.error, PROGRAMMING_ERRORS)
    return type(error) is FetchTimeout or not issubclass(type(error), CacheError)


def origin_traceback(error: object) -> TracebackType | None:
    """Where the exception in a failure was raised."""
    raised = seen_by_predicate(error)
    return raised.__traceback__ if is_exception(raised) else None


def with_traceback(answer: Answer, traceback: TracebackType | None) -> Answer:
    """`answer`, its exception's traceback as it was when the fetch ended.

    A failure is shared by all who waited, and each may raise it; every raise
    would make the traceback longer.
    """
    if type(answer) is Failure:
        error = answer.failure()
        raised = seen_by_predicate(error)
        if is_exception(error):
            error.__traceback__ = None
        if is_exception(raised):
            raised.__traceback__ = traceback
    return answer


def strip_tracebacks(answer: Answer) -> None:
    """Let go of the frames that a failure's exceptions hold: it is to be kept."""
    unseen = [answer.failure()]
    seen: set[int] = set()
    while unseen:
        error = unseen.pop()
        if not is_exception(error) or id(error) in seen:
            continue
        seen.add(id(error))
        error.__traceback__ = None
        unseen += [seen_by_predicate(error), error.__cause__, error.__context__]
        if isinstance(error, BaseExceptionGroup):
            unseen += error.exceptions


def is_exception(error: object) -> TypeGuard[BaseException]:
    """By the type alone: `isinstance` would ask the object, which may be somebody's proxy, for its class."""
    return issubclass(type(error), BaseException)


def directed(answer: Answer, key: str, previous: Any) -> tuple[Answer, Directives | None]:  # noqa: ANN401
    """What a fetcher's directive comes to: the answer itself, and what it says of its caching.

    `previous`: the answer and the terms that a conditional fetch was handed.
    """
    said = answer.unwrap()
    if type(said) is DoNotCache:
        return Success(said.value), Directives(stores=False, private=said.private is not False)
    sets_ttl = said.ttl is not DEFAULT
    try:
        ttl_s, lifespan = (None, None) if not sets_ttl else life_of(said.ttl)
    except Exception:  # noqa: BLE001 (an object that is no duration may raise anything when it is looked at)
        return Failure(InvalidTtl(said.ttl)), None
    if type(said) is NotModified:
        if previous is None:
            return Failure(InvalidFetchResult(key, "NotModified")), None
        kept, terms = previous
        tags, validator = ((), None) if terms is None else (terms.tags, terms.validator)
        if said.validator is not DEFAULT:
            validator = said.validator
            if not is_hashable(validator):
                return Failure(InvalidOption("validator", type(validator).__name__)), None
        return kept, Directives(sets_ttl, ttl_s, lifespan, tags, validator, renews=True)
    tags_given = tags_of(said.tags)
    if tags_given is None:
        return Failure(InvalidOption("tags", type(said.tags).__name__)), None
    if not is_hashable(said.validator):
        return Failure(InvalidOption("validator", type(said.validator).__name__)), None
    private = said.private is not False
    return Success(said.value), Directives(sets_ttl, ttl_s, lifespan, tags_given, said.validator, private=private)


def is_hashable(validator: object) -> bool:
    """Whether a validator can be compared and kept."""
    try:
        hash(validator)
    except Exception:  # noqa: BLE001 (whatever an object of somebody's own raises)
        return False
    return True


def tags_of(tags: object) -> tuple[str, ...] | None:
    """`tags` as a tuple of plain strs; None where they are no collection of strs (one str is none)."""
    if type(tags) is tuple and not tags:
        return ()
    try:
        if isinstance(tags, str | Mapping) or not isinstance(tags, Collection):
            return None
        given = tuple(tags)
    except Exception:  # noqa: BLE001 (a collection of somebody's own may raise anything)
        return None
    if not all(isinstance(tag, str) for tag in given):
        return None
    found = tuple(str.__str__(tag) for tag in given)
    return tuple(sorted(found)) if isinstance(tags, set | frozenset) else found


def life_of(ttl: object) -> tuple[float | None, Lifespan | None]:
    """A ttl or a `Lifetime`, in seconds. ValueError where it is neither."""
    if isinstance(ttl, Lifetime):
        return ttl.ttl_s, ttl.lifespan
    return seconds(ttl), None
