"""`retrying`: a fetcher that tries again. Attempts never overlap: the next begins when the last has ended."""

from __future__ import annotations

import asyncio
import time
from functools import partial, update_wrapper
from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from returns.result import Failure, Result

from cachemesh.shell.outcomes import without_io
from cachemesh.sources.backoff import Attempts, Backoff
from cachemesh.sources.failure import FailureKind, NetworkFailure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E")


@overload
def retrying(
    fetch: Callable[P, Awaitable[Result[T, E]]], options: Backoff = ..., *, sleep: Callable[[float], object] = ...
) -> Callable[P, Coroutine[Any, Any, Result[T, E | NetworkFailure]]]: ...
@overload
def retrying(
    fetch: Callable[P, Result[T, E]], options: Backoff = ..., *, sleep: Callable[[float], object] = ...
) -> Callable[P, Result[T, E | NetworkFailure]]: ...
def retrying(
    fetch: Callable[..., Any],
    options: Backoff = Backoff(),  # noqa: B008 (it is frozen)
    *,
    sleep: Callable[[float], object] = time.sleep,
) -> Callable[..., Any]:
    """`fetch`, tried again as `options` say; for a fetcher of either face, with whatever it is called with.

    It answers what the last attempt answered. An exception that an attempt raises is a failure of that
    attempt, `NetworkFailure.of_exception(error)`; cancellation passes through, also while it waits. An
    awaitable that takes longer than `attempt_timeout` is cancelled, and done with before the next attempt; what
    a thread does cannot be ended, so a fetcher of the threaded face takes the time that it takes.
    `sleep`: what waits between the attempts of such a fetcher; those of the other wait with `asyncio.sleep`.

    >>> from returns.result import Success
    >>> answers = iter([Failure(NetworkFailure.of_status(503)), Success("up again")])
    >>> retrying(lambda: next(answers), Backoff(delay=0))()
    <Success: up again>
    """
    is_async = iscoroutinefunction(fetch) or iscoroutinefunction(getattr(fetch, "__call__", None))  # noqa: B004 (is it a coroutine function?)

    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (the answer of `fetch`)
        attempt = partial(fetch, *args, **kwargs)
        if is_async:
            return _rest_of(attempt(), attempt, options)
        attempts = Attempts(options)
        while True:
            answer = _begun(attempt)
            if isawaitable(answer):
                return _rest_of(answer, attempt, options)
            answer = without_io(answer)
            wait = _wait_after(attempts, answer)
            if wait is None:
                return answer
            sleep(wait)

    return update_wrapper(call, fetch)


async def _rest_of(begun: Any, attempt: Callable[[], Any], options: Backoff) -> Any:  # noqa: ANN401 (the answer)
    """The first attempt has `begun`; what comes of it, and of those that follow."""
    attempts = Attempts(options)
    while True:
        answer = await _awaited(begun, options.attempt_timeout_s)
        wait = _wait_after(attempts, answer)
        if wait is None:
            return answer
        await asyncio.sleep(wait)
        begun = _begun(attempt)


def _begun(attempt: Callable[[], Any]) -> Any:  # noqa: ANN401 (an awaitable of an answer, or an answer)
    try:
        return attempt()
    except Exception as error:  # noqa: BLE001 (a fetcher may raise anything)
        return Failure(NetworkFailure.of_exception(error))


async def _awaited(begun: Any, timeout_s: float | None) -> Any:  # noqa: ANN401 (an awaitable of an answer, or an answer)
    """What an attempt comes to."""
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            return without_io(await begun if isawaitable(begun) else begun)
    except Exception as error:  # noqa: BLE001 (a fetcher may raise anything)
        if limit.expired():
            return Failure(late(timeout_s))
        return Failure(NetworkFailure.of_exception(error))


def late(timeout_s: float | None) -> NetworkFailure:
    """An attempt has taken too long."""
    return NetworkFailure(kind=FailureKind.TIMEOUT, message=f"no answer within {timeout_s:g} s")


def _wait_after(attempts: Attempts, answer: object) -> float | None:
    return attempts.wait_after(answer.failure()) if isinstance(answer, Failure) else None
