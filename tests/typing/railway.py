"""The types that go along the rails, for mypy. None of this is ever run."""

from __future__ import annotations

from typing import assert_type

from returns.future import FutureResult
from returns.io import IOResult
from returns.result import Result, Success

from cachemesh import Cache, CacheError
from tests.typing.fetchers import ApiError, User, fetch, fetch_future


def name_of(user: User) -> str:
    return user.name


def checked(name: str) -> Result[int, ApiError | CacheError]:
    return Success(len(name))


def found_by(name: str) -> FutureResult[User, ApiError]:
    return FutureResult.from_value(User(name))


def unrelated(name: str) -> FutureResult[User, bytes]:
    return FutureResult.from_value(User(name))


async def values_and_errors_travel_along(cache: Cache) -> None:
    line = FutureResult(cache.get("me", fetch))
    assert_type(line, FutureResult[User, ApiError | CacheError])
    assert_type(line.map(name_of), FutureResult[str, ApiError | CacheError])
    assert_type(line.map(name_of).bind_result(checked), FutureResult[int, ApiError | CacheError])
    assert_type(line.map(name_of).bind(found_by), FutureResult[User, ApiError | CacheError])
    assert_type(line.alt(str), FutureResult[User, str])
    assert_type(line.lash(lambda _: fetch_future()), FutureResult[User, ApiError])
    assert_type(await line, IOResult[User, ApiError | CacheError])


def what_is_not_on_the_rails_is_refused(cache: Cache) -> None:
    line = FutureResult(cache.get("me", fetch))
    line.map(checked)  # type: ignore[arg-type]
    line.map(name_of).bind(unrelated)  # type: ignore[arg-type]
    line.map(name_of).bind(checked)  # type: ignore[arg-type]
    FutureResult(fetch)  # type: ignore[arg-type]
