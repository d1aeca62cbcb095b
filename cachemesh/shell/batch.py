"""What the two kinds of batch share: what one call of a `fetch_many` comes to for each of its keys."""

from __future__ import annotations

from collections.abc import Mapping
from types import CoroutineType, MethodType
from typing import TYPE_CHECKING, Any

from returns.result import Failure, Success

from cachemesh.errors import InvalidFetchResult
from cachemesh.shell.outcomes import close, without_io

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachemesh.shell.outcomes import Answer


class Together:
    """Fetches of several keys that are made as one. Its bound method `fetch` is the fetcher of each."""


def batch_of(fetch: Callable[..., Any]) -> Together | None:
    """What `fetch` is part of, where it is one for several keys. A user's object is not asked."""
    owner = fetch.__self__ if type(fetch) is MethodType else None
    return owner if issubclass(type(owner), Together) else None  # type: ignore[return-value]  # it has just been seen


def answers_of(got: object, keys: tuple[str, ...]) -> dict[str, Answer]:
    """The answer of each of `keys`. What is no `Result` is left for the flight to judge."""
    got = without_io(got)
    if type(got) is Failure:
        return dict.fromkeys(keys, got)
    if type(got) is Success:
        got = got.unwrap()
    if type(got) is CoroutineType:
        close(got)
    if not isinstance(got, Mapping):
        return {key: Failure(InvalidFetchResult(key, type(got).__name__)) for key in keys}
    return {key: got[key] if key in got else Failure(InvalidFetchResult(key, "nothing")) for key in keys}
