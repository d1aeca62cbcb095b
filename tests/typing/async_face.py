"""The types that go through `Cache`, for mypy. None of this is ever run."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, assert_type

from returns.future import FutureResult
from returns.io import IOResult
from returns.result import Result

from cachemesh import (
    DEFAULT,
    Cache,
    CacheError,
    CacheExpired,
    CacheMiss,
    CachePolicy,
    CacheScope,
    CacheState,
    RetryOptions,
    Subscription,
    Updates,
    Watch,
)
from tests.typing.fetchers import (
    ApiError,
    User,
    fetch,
    fetch_bare,
    fetch_bare_with,
    fetch_future,
    fetch_future_with,
    fetch_io,
    fetch_io_with,
    fetch_raising,
    fetch_raising_with,
    fetch_sync,
    fetch_sync_with,
    fetch_with,
)

T = TypeVar("T")
E = TypeVar("E")

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def a_value_and_an_error_arrive_as_they_were_fetched(cache: Cache) -> None:
    assert_type(await cache.get("me", fetch), Result[User, ApiError | CacheError])
    assert_type(await cache.refresh("me", fetch), Result[User, ApiError | CacheError])
    assert_type(await cache.prefetch("me", fetch), Result[User, ApiError | CacheError])
    assert_type(await cache.get_authenticated("me", fetch_with), Result[User, ApiError | CacheError])


async def a_fetcher_may_be_of_any_shape(cache: Cache) -> None:
    assert_type(await cache.get("me", fetch_io), Result[User, ApiError | CacheError])
    assert_type(await cache.get("me", fetch_future), Result[User, ApiError | CacheError])
    assert_type(await cache.refresh("me", fetch_io), Result[User, ApiError | CacheError])
    assert_type(await cache.prefetch("me", fetch_future), Result[User, ApiError | CacheError])
    assert_type(await cache.get("me", fetch_raising), Result[User, Exception | CacheError])
    assert_type(await cache.get("me", lambda: fetch()), Result[User, ApiError | CacheError])  # noqa: PLW0108 (a lambda is the case)
    assert_type(await cache.get("me", lambda: fetch_with("t")), Result[User, ApiError | CacheError])


async def a_fetcher_with_a_token_may_be_of_any_shape(cache: Cache) -> None:
    assert_type(await cache.get_authenticated("me", fetch_io_with), Result[User, ApiError | CacheError])
    assert_type(await cache.get_authenticated("me", fetch_future_with), Result[User, ApiError | CacheError])
    assert_type(await cache.get_authenticated("me", fetch_raising_with), Result[User, Exception | CacheError])
    assert_type(await cache.get_authenticated("me", lambda _: fetch_with("t")), Result[User, ApiError | CacheError])
    await cache.get_authenticated("me", fetch_bare_with)  # type: ignore[arg-type]
    await cache.get_authenticated("me", fetch_sync_with)  # type: ignore[arg-type]


async def what_no_fetcher_is_is_refused(cache: Cache) -> None:
    await cache.get("me", fetch_bare)  # type: ignore[arg-type]
    await cache.get("me", fetch_sync)  # type: ignore[arg-type]
    await cache.get("me", fetch())  # type: ignore[arg-type]
    await cache.get("me", fetch_with)  # type: ignore[arg-type]
    await cache.refresh("me", fetch_bare)  # type: ignore[arg-type]
    await cache.prefetch("me", fetch_sync)  # type: ignore[arg-type]
    await cache.get_authenticated("me", fetch)  # type: ignore[arg-type]


async def the_error_has_to_be_reckoned_with(cache: Cache) -> None:
    answer: Result[User, ApiError] = await cache.get("me", fetch)  # type: ignore[assignment]
    other: Result[str, ApiError | CacheError] = await cache.get("me", fetch)  # type: ignore[arg-type]
    del answer, other
    found = await cache.get("me", fetch)
    found.name.upper()  # type: ignore[attr-defined]
    assert_type(found.map(lambda user: user.name).value_or(None), str | None)
    assert_type(found.alt(str), Result[User, str])
    assert_type(found.failure(), ApiError | CacheError)


async def options_have_types_too(cache: Cache) -> None:
    for ttl in (5, 0.5, timedelta(minutes=1), None, DEFAULT):
        await cache.get("me", fetch, ttl=ttl, retry=RetryOptions.DEFAULTS, cache_failures=True, scope=CacheScope.USER)
    await cache.get("me", fetch, policy=CachePolicy.NETWORK_FIRST, always_revalidate=True)
    await cache.get("me", fetch, policy="network_first")  # type: ignore[arg-type]
    await cache.get("me", fetch, scope="user")  # type: ignore[arg-type]
    await cache.get("me", fetch, ttl="60")  # type: ignore[arg-type]
    await cache.get("me", fetch, retry=3)  # type: ignore[arg-type]
    await cache.get("me", fetch, CachePolicy.CACHE_ONLY)  # type: ignore[call-arg]
    await cache.refresh("me", fetch, policy=CachePolicy.CACHE_ONLY)  # type: ignore[call-arg]
    await cache.get(42, fetch)  # type: ignore[arg-type]
    Cache(default_ttl="60")  # type: ignore[arg-type]
    Cache(retry=3)  # type: ignore[arg-type]


def reading_without_a_fetch_takes_the_type_that_is_wanted(cache: Cache) -> None:
    """Nothing tells what is under a key, so the value's type is the reader's word; that of the error is known."""
    wanted: Result[User, CacheMiss | CacheExpired] = cache.peek("me", scope=CacheScope.GLOBAL)
    assert_type(wanted.failure(), CacheMiss | CacheExpired)
    assert_type(cache.peek("me"), Result[Any, CacheMiss | CacheExpired])
    narrow: Result[User, CacheMiss] = cache.peek("me")  # type: ignore[assignment]
    del narrow
    state: CacheState[User] = cache.inspect("me")
    assert_type(state.value, User | None)
    assert_type(state.age, timedelta | None)


async def a_watch_tells_what_it_was_said_to_watch(cache: Cache) -> None:
    watch: Watch[User, ApiError] = cache.watch("me", scope=CacheScope.USER)
    async with watch as updates:
        assert_type(updates, Updates[User, ApiError])
        async for update in updates:
            assert_type(update, Result[User, ApiError | CacheError])
        assert_type(await anext(updates), Result[User, ApiError | CacheError])

    def shown(update: Result[User, ApiError | CacheError]) -> None: ...
    def of_another_type(update: Result[str, ApiError | CacheError]) -> None: ...

    assert_type(watch.subscribe(shown), Subscription)
    watch.subscribe(of_another_type)  # type: ignore[arg-type]
    with watch:  # type: ignore[attr-defined]
        pass


class Keeper:
    """A token keeper as users write one: no base class, the types of every action kept."""

    async def with_valid_token(self, action: Callable[[str], Awaitable[Result[T, E]]]) -> Result[T, E]:
        return await action("a token")


class KeeperOnRails:
    def with_valid_token(self, action: Callable[[str], Awaitable[Result[T, E]]]) -> FutureResult[T, E]:
        return FutureResult(action("an old token")).lash(lambda _: FutureResult(action("a new token")))


class KeeperWithIO:
    async def with_valid_token(self, action: Callable[[str], Awaitable[Result[T, E]]]) -> IOResult[T, E]:
        return IOResult.from_result(await action("a token"))


class KeeperOfThreads:
    def with_valid_token(self, action: Callable[[str], Result[T, E]]) -> Result[T, E]:
        return action("a token")


class CarelessKeeper:
    async def with_valid_token(self, action: Callable[[], Awaitable[int]]) -> int:
        return await action()


def a_token_keeper_is_known_by_its_method() -> None:
    Cache(token_keeper=Keeper())
    Cache(token_keeper=KeeperOnRails())
    Cache(token_keeper=KeeperWithIO())
    Cache(token_keeper=KeeperOfThreads())  # type: ignore[arg-type]
    Cache(token_keeper=CarelessKeeper())  # type: ignore[arg-type]


async def a_view_is_a_cache(cache: Cache) -> None:
    assert_type(cache.for_user("ada"), Cache)
    async with cache as entered:
        assert_type(entered, Cache)
    with cache:  # type: ignore[attr-defined]
        pass
