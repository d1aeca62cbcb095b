"""The types that go through a scripted origin, for mypy. None of this is ever run."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from returns.result import Result, Success

from cachemesh import Cache, CacheError, Directed, Fresh, SyncCache
from cachemesh.testing import ScriptedOrigin
from tests.typing.fetchers import ApiError, User

if TYPE_CHECKING:
    from cachemesh.testing.scripted_origin import Asked


def user(asked: Asked) -> Result[User, ApiError]:
    return Success(User(asked.key))


def fresh(asked: Asked) -> Result[Directed[User], ApiError]:
    return Success(Fresh(User(asked.key), ttl=60))


async def of_the_async_face(cache: Cache) -> None:
    fetch = ScriptedOrigin(user).fetcher("42")
    assert_type(await cache.get("42", fetch), Result[User, ApiError | CacheError])
    assert_type(await cache.refresh("42", fetch), Result[User, ApiError | CacheError])
    assert_type(await cache.get("42", fetch, conditional=True), Result[User, ApiError | CacheError])
    assert_type(await cache.get_authenticated("42", fetch), Result[User, ApiError | CacheError])
    assert_type(await cache.get("42", ScriptedOrigin(fresh).fetcher("42")), Result[User, ApiError | CacheError])


def of_the_threaded_face(cache: SyncCache) -> None:
    fetch = ScriptedOrigin(user).sync_fetcher("42")
    assert_type(cache.get("42", fetch), Result[User, ApiError | CacheError])
    assert_type(cache.get("42", fetch, conditional=True), Result[User, ApiError | CacheError])
    assert_type(cache.get_authenticated("42", fetch), Result[User, ApiError | CacheError])
