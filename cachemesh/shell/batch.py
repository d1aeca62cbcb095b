"""What the two kinds of batch share: what one call of a `fetch_many` comes to for each of its keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from returns.io import IOResult
from returns.result import Failure, Success
from returns.unsafe import unsafe_perform_io

from cachemesh.errors import InvalidFetchResult

if TYPE_CHECKING:
    from cachemesh.shell.outcomes import Answer


def answers_of(got: object, keys: tuple[str, ...]) -> dict[str, Answer]:
    """The answer of each of `keys`. What is no `Result` is left for the flight to judge."""
    if issubclass(type(got), IOResult):
        got = unsafe_perform_io(got)  # type: ignore[arg-type]  # returns 0.30 types it for IO alone
    if type(got) is Failure:
        return dict.fromkeys(keys, got)
    if type(got) is Success:
        got = got.unwrap()
    if not isinstance(got, Mapping):
        return {key: Failure(InvalidFetchResult(key, type(got).__name__)) for key in keys}
    return {key: got[key] if key in got else Failure(InvalidFetchResult(key, "nothing")) for key in keys}
