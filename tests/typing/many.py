"""The types of many at once, of direct writes and of tags, for mypy. None of this is ever run."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from returns.result import Result, Success

from cachemesh import Batcher, Cache, CacheError, CacheScope, Fresh, SyncBatcher, SyncCache
from tests.typing.fetchers import ApiError, User

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cachemesh import Directed, Explanation

cache = Cache()
sync_cache = SyncCache()


async def users(keys: tuple[str, ...]) -> dict[str, Result[User, ApiError]]:
    return {key: Success(User(key)) for key in keys}


async def users_directed(keys: tuple[str, ...]) -> Mapping[str, Result[Directed[User], ApiError]]:
    return {key: Success(Fresh(User(key), ttl=5)) for key in keys}


async def users_or_a_failure(keys: tuple[str, ...]) -> Result[Mapping[str, Result[User, ApiError]], ApiError]:
    return Success({key: Success(User(key)) for key in keys})


def sync_users(keys: tuple[str, ...]) -> dict[str, Result[User, ApiError]]:
    return {key: Success(User(key)) for key in keys}


def sync_users_or_a_failure(keys: tuple[str, ...]) -> Result[Mapping[str, Result[User, ApiError]], ApiError]:
    return Success(sync_users(keys))


async def users_in_a_list(keys: tuple[str, ...]) -> list[Result[User, ApiError]]:
    return [Success(User(key)) for key in keys]


async def bare_users(keys: tuple[str, ...]) -> dict[str, User]:
    return {key: User(key) for key in keys}


async def user_of_a_number(keys: tuple[int, ...]) -> dict[str, Result[User, ApiError]]:
    return {str(key): Success(User(str(key))) for key in keys}


async def each_key_has_an_answer() -> None:
    assert_type(await cache.get_many(["a"], users), dict[str, Result[User, ApiError | CacheError]])
    assert_type(await cache.get_many(("a",), users_directed), dict[str, Result[User, ApiError | CacheError]])
    assert_type(await cache.get_many({"a"}, users_or_a_failure), dict[str, Result[User, ApiError | CacheError]])
    assert_type(sync_cache.get_many(["a"], sync_users), dict[str, Result[User, ApiError | CacheError]])
    assert_type(sync_cache.get_many(["a"], sync_users_or_a_failure), dict[str, Result[User, ApiError | CacheError]])
    await cache.get_many(["a"], users, ttl=5, tags=("t",), scope=CacheScope.USER)


async def what_does_not_fetch_many_is_refused() -> None:
    await cache.get_many(["a"], users_in_a_list)  # type: ignore[arg-type]
    await cache.get_many(["a"], bare_users)  # type: ignore[arg-type]
    await cache.get_many(["a"], user_of_a_number)  # type: ignore[arg-type]
    await cache.get_many(["a"], sync_users)  # type: ignore[arg-type]
    await cache.get_many([1], users)  # type: ignore[list-item]
    sync_cache.get_many(["a"], users)  # type: ignore[arg-type]


async def a_batcher_has_the_types_of_its_fetch() -> None:
    batcher = Batcher(cache, users, window="5ms", most=100)
    assert_type(batcher, Batcher[User, ApiError])
    assert_type(await batcher.get("a", ttl=5, tags=("t",)), Result[User, ApiError | CacheError])
    assert_type(await Batcher(cache, users_or_a_failure).get("a"), Result[User, ApiError | CacheError])
    assert_type(await Batcher(cache, users_directed).get("a"), Result[User, ApiError | CacheError])
    of_threads = SyncBatcher(sync_cache, sync_users)
    assert_type(of_threads, SyncBatcher[User, ApiError])
    assert_type(of_threads.get("a"), Result[User, ApiError | CacheError])
    Batcher(sync_cache, users)  # type: ignore[arg-type]
    SyncBatcher(cache, sync_users)  # type: ignore[arg-type]
    SyncBatcher(sync_cache, users)  # type: ignore[arg-type]
    await batcher.get(1)  # type: ignore[arg-type]


def renamed(user: User) -> User:
    return User(user.name.upper())


def of_another_type(user: User) -> str:
    return user.name


def a_write_has_the_type_of_its_value() -> None:
    assert_type(cache.put("me", User("Ada"), ttl=5, tags=("t",)), Result[User, CacheError])
    assert_type(cache.update("me", renamed), Result[User, CacheError])
    assert_type(cache.touch("me", ttl="5m"), Result[None, CacheError])  # type: ignore[arg-type]
    assert_type(sync_cache.put("me", User("Ada")), Result[User, CacheError])
    assert_type(sync_cache.update("me", renamed, scope=CacheScope.USER), Result[User, CacheError])
    assert_type(sync_cache.touch("me", ttl=None), Result[None, CacheError])
    cache.update("me", of_another_type)  # type: ignore[misc]
    cache.put("me")  # type: ignore[call-arg]
    cache.put("me", 1, scope=None)  # type: ignore[arg-type]


def an_order_about_many_answers_what_it_was_about() -> None:
    assert_type(cache.invalidate_tag("t"), Result[str, CacheError])
    assert_type(cache.expire_tag("t", scope=CacheScope.USER), Result[str, CacheError])
    assert_type(sync_cache.invalidate_prefix("user:"), Result[str, CacheError])
    cache.invalidate_tag(5)  # type: ignore[arg-type]
    explained: Result[Explanation, CacheError] = cache.explain("me", tags=("t",))
    assert_type(explained.unwrap().why, str)
