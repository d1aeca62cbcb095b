"""The types that go through `SyncCache`, for mypy. None of this is ever run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, assert_type

from returns.io import IOResult
from returns.result import Result

from cachemesh import (
    CacheError,
    CacheExpired,
    CacheMiss,
    CachePolicy,
    Subscription,
    SyncCache,
    SyncUpdates,
    SyncWatch,
)
from tests.typing.fetchers import (
    ApiError,
    User,
    fetch,
    fetch_sync,
    fetch_sync_bare,
    fetch_sync_bare_with,
    fetch_sync_io,
    fetch_sync_io_with,
    fetch_sync_with,
    fetch_with,
)

T = TypeVar("T")
E = TypeVar("E")

if TYPE_CHECKING:
    from collections.abc import Callable


def a_value_and_an_error_arrive_as_they_were_fetched(cache: SyncCache) -> None:
    assert_type(cache.get("me", fetch_sync), Result[User, ApiError | CacheError])
    assert_type(cache.refresh("me", fetch_sync), Result[User, ApiError | CacheError])
    assert_type(cache.prefetch("me", fetch_sync), Result[User, ApiError | CacheError])
    assert_type(cache.get_authenticated("me", fetch_sync_with), Result[User, ApiError | CacheError])


def a_fetcher_may_return_an_io_result(cache: SyncCache) -> None:
    assert_type(cache.get("me", fetch_sync_io), Result[User, ApiError | CacheError])
    assert_type(cache.refresh("me", fetch_sync_io), Result[User, ApiError | CacheError])
    assert_type(cache.prefetch("me", fetch_sync_io), Result[User, ApiError | CacheError])
    assert_type(cache.get("me", lambda: fetch_sync_with("t")), Result[User, ApiError | CacheError])
    assert_type(cache.get_authenticated("me", fetch_sync_io_with), Result[User, ApiError | CacheError])


def what_no_fetcher_is_is_refused(cache: SyncCache) -> None:
    cache.get("me", fetch_sync_bare)  # type: ignore[arg-type]
    cache.get("me", fetch)  # type: ignore[arg-type]
    cache.get("me", fetch_sync())  # type: ignore[arg-type]
    cache.get("me", fetch_sync_with)  # type: ignore[arg-type]
    cache.get_authenticated("me", fetch_sync)  # type: ignore[arg-type]
    cache.get_authenticated("me", fetch_sync_bare_with)  # type: ignore[arg-type]
    cache.get_authenticated("me", fetch_with)  # type: ignore[arg-type]
    cache.get("me", fetch_sync, policy="cache_first")  # type: ignore[arg-type]
    cache.get("me", fetch_sync, CachePolicy.CACHE_ONLY)  # type: ignore[call-arg]


def the_error_has_to_be_reckoned_with(cache: SyncCache) -> None:
    answer: Result[User, ApiError] = cache.get("me", fetch_sync)  # type: ignore[assignment]
    del answer
    assert_type(cache.get("me", fetch_sync).map(lambda user: user.name), Result[str, ApiError | CacheError])


def reading_without_a_fetch_takes_the_type_that_is_wanted(cache: SyncCache) -> None:
    wanted: Result[User, CacheMiss | CacheExpired] = cache.peek("me")
    assert_type(wanted.failure(), CacheMiss | CacheExpired)
    assert_type(cache.peek("me"), Result[Any, CacheMiss | CacheExpired])


def a_watch_tells_what_it_was_said_to_watch(cache: SyncCache) -> None:
    watch: SyncWatch[User, ApiError] = cache.watch("me")
    with watch as updates:
        assert_type(updates, SyncUpdates[User, ApiError])
        for update in updates:
            assert_type(update, Result[User, ApiError | CacheError])

    def shown(update: Result[User, ApiError | CacheError]) -> None: ...
    def of_another_type(update: Result[str, ApiError | CacheError]) -> None: ...

    assert_type(watch.subscribe(shown), Subscription)
    watch.subscribe(of_another_type)  # type: ignore[arg-type]


def a_view_is_a_cache(cache: SyncCache) -> None:
    assert_type(cache.for_user("ada"), SyncCache)
    with cache as entered:
        assert_type(entered, SyncCache)


class Keeper:
    """A token keeper as users write one: no base class, the types of every action kept."""

    def with_valid_token(self, action: Callable[[str], Result[T, E]]) -> Result[T, E]:
        return action("a token")


class KeeperWithIO:
    def with_valid_token(self, action: Callable[[str], Result[T, E]]) -> IOResult[T, E]:
        return IOResult.from_result(action("an old token")).lash(lambda _: IOResult.from_result(action("a new token")))


class CarelessKeeper:
    def with_valid_token(self, action: Callable[[str], int]) -> int:
        return action("a token")


def a_token_keeper_is_known_by_its_method() -> None:
    SyncCache(token_keeper=Keeper())
    SyncCache(token_keeper=KeeperWithIO())
    SyncCache(token_keeper=CarelessKeeper())  # type: ignore[arg-type]
