"""The types of what fetchers say of their answers' caching, for mypy. None of this is ever run."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, assert_type

from returns.future import FutureResult
from returns.io import IOResult
from returns.result import Result, Success

from cachemesh import (
    Cache,
    CacheError,
    DoNotCache,
    Fresh,
    Lifetime,
    NotModified,
    Previous,
    Refused,
    Served,
    SyncCache,
    cached,
)
from tests.typing.fetchers import (
    ApiError,
    User,
    fetch,
    fetch_future,
    fetch_io,
    fetch_raising,
    fetch_sync_with,
    fetch_with,
)

if TYPE_CHECKING:
    from cachemesh import Directed, Freshness, Source

cache = Cache()
sync_cache = SyncCache()


async def fetch_directed() -> Result[Directed[User], ApiError]:
    return Success(Fresh(User("Ada"), ttl=30, tags=("users",), validator="v1"))


async def fetch_fresh() -> Result[Fresh[User], ApiError]:
    return Success(Fresh(User("Ada"), ttl=Lifetime(ttl="5m")))


async def fetch_uncached() -> Result[DoNotCache[User], ApiError]:
    return Success(DoNotCache(User("Ada")))


def fetch_directed_io() -> IOResult[Directed[User], ApiError]:
    return IOResult.from_value(DoNotCache(User("Ada")))


def fetch_directed_future() -> FutureResult[Directed[User], ApiError]:
    return FutureResult.from_value(Fresh(User("Ada")))


def sync_directed() -> Result[Directed[User], ApiError]:
    return Success(Fresh(User("Ada")))


async def conditional(previous: Previous[User] | None) -> Result[Directed[User], ApiError]:
    if previous is not None:
        assert_type(previous.value, User)
        assert_type(previous.age, float)
        return Success(NotModified())
    return Success(Fresh(User("Ada"), validator="v1"))


def sync_conditional(previous: Previous[User] | None) -> Result[Directed[User], ApiError]:
    return Success(NotModified(ttl=5) if previous else Fresh(User("Ada")))


async def conditional_on_another(previous: Previous[str] | None) -> Result[Directed[User], ApiError]:
    return Success(User(str(previous)))


async def a_directive_is_unwrapped() -> None:
    assert_type(await cache.get("me", fetch_directed), Result[User, ApiError | CacheError])
    assert_type(await cache.refresh("me", fetch_directed), Result[User, ApiError | CacheError])
    assert_type(await cache.prefetch("me", fetch_directed_future), Result[User, ApiError | CacheError])
    assert_type(sync_cache.get("me", sync_directed), Result[User, ApiError | CacheError])
    assert_type(sync_cache.refresh("me", fetch_directed_io), Result[User, ApiError | CacheError])


async def one_that_is_certain_may_say_so() -> None:
    fresh: Result[User, ApiError | CacheError] = await cache.get("me", fetch_fresh)
    uncached: Result[User, ApiError | CacheError] = await cache.get("me", fetch_uncached)
    del fresh, uncached


async def a_conditional_fetcher_is_handed_its_own_value() -> None:
    assert_type(await cache.get("me", conditional, conditional=True), Result[User, ApiError | CacheError])
    assert_type(await cache.refresh("me", conditional, conditional=True), Result[User, ApiError | CacheError])
    assert_type(sync_cache.get("me", sync_conditional, conditional=True), Result[User, ApiError | CacheError])
    await cache.get("me", conditional_on_another, conditional=True)  # type: ignore[misc]


async def options_have_types_too() -> None:
    life = Lifetime(ttl=timedelta(minutes=5), serve_stale_for="1h", failure_ttl=lambda _: 5)
    await cache.get("me", fetch, ttl=life, tags=("a", "b"), origin="api", soft_timeout="1s", hard_timeout=5)
    await cache.get("me", fetch, tags={"a"}, max_flight_age=None, origin=None)
    await cache.get("me", fetch, tags=(1,))  # type: ignore[arg-type]
    await cache.get("me", fetch, origin=5)  # type: ignore[arg-type]
    await cache.get("me", fetch, conditional="yes")  # type: ignore[arg-type]
    await cache.refresh("me", fetch, always_revalidate=True)  # type: ignore[call-arg]
    sync_cache.get("me", sync_directed, hard_timeout=[])  # type: ignore[arg-type]
    sync_cache.get("me", sync_directed, timeout=5)  # type: ignore[call-arg]


async def what_is_served_has_the_fetchers_types() -> None:
    answer = await cache.get_served("me", fetch)
    assert_type(answer, Result[Served[User], Refused[ApiError | CacheError]])
    served = answer.unwrap()
    assert_type(served.value, User)
    assert_type(served.age, float)
    assert_type(served.attempts, int)
    source: Source = served.source
    freshness: Freshness = served.freshness
    del source, freshness
    assert_type(answer.failure().error, ApiError | CacheError)
    assert_type(await cache.get_served("me", fetch_directed), Result[Served[User], Refused[ApiError | CacheError]])
    assert_type(await cache.get_served("me", fetch_io), Result[Served[User], Refused[ApiError | CacheError]])
    assert_type(await cache.get_served("me", fetch_future), Result[Served[User], Refused[ApiError | CacheError]])
    assert_type(await cache.get_served("me", fetch_raising), Result[Served[User], Refused[Exception | CacheError]])
    assert_type(
        await cache.get_authenticated_served("me", fetch_with), Result[Served[User], Refused[ApiError | CacheError]]
    )
    assert_type(
        sync_cache.get_authenticated_served("me", fetch_sync_with), Result[Served[User], Refused[ApiError | CacheError]]
    )
    assert_type(sync_cache.get_served("me", sync_directed), Result[Served[User], Refused[ApiError | CacheError]])


@cached(cache, key="user:{user_id}", ttl=Lifetime(ttl="5m"), tags=("user:{user_id}",), origin="api")
async def user(user_id: int) -> Result[Directed[User], ApiError]:
    return Success(Fresh(User(str(user_id))))


@cached(cache, key="user:{user_id}", conditional=True)
async def conditional_user(user_id: int, previous: Previous[User] | None = None) -> Result[Directed[User], ApiError]:
    return Success(NotModified() if previous else User(str(user_id)))


@cached(cache, key="user:{user_id}")
def future_user(user_id: int) -> FutureResult[Directed[User], ApiError]:
    return FutureResult.from_value(DoNotCache(User(str(user_id))))


class Repository:
    @cached(sync_cache, key="user:{user_id}", tags=("user:{user_id}",), hard_timeout="5s", conditional=True)
    def user(self, user_id: int, *, previous: Previous[User] | None = None) -> Result[Directed[User], ApiError]:
        return Success(NotModified() if previous else User(str(user_id)))


def an_unknown_option_is_refused() -> None:
    cached(sync_cache, key="user:{user_id}", copy=True)  # type: ignore[call-overload]


async def a_cached_function_gives_the_value_itself(repository: Repository) -> None:
    assert_type(await user(1), Result[User, ApiError | CacheError])
    assert_type(await user.refresh(1), Result[User, ApiError | CacheError])
    assert_type(await conditional_user(1), Result[User, ApiError | CacheError])
    assert_type(future_user(1), FutureResult[User, ApiError | CacheError])
    assert_type(repository.user(1), Result[User, ApiError | CacheError])
