"""The types that `@cached` keeps, for mypy. The functions are decorated when this is imported; none is ever called."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol, assert_type

from returns.future import FutureResult, future_safe
from returns.io import IOResult
from returns.result import Result, Success

from cachemesh import Cache, CacheError, CachePolicy, SyncCache, cached
from tests.typing.fetchers import ApiError, User

cache = Cache()
sync_cache = SyncCache()


@cached(cache, key="user:{user_id}", policy=CachePolicy.NETWORK_FIRST, ttl=300)
async def user(user_id: int, *, deep: bool = False) -> Result[User, ApiError]:
    return Success(User(f"{user_id} {deep}"))


@cached(cache, key="user:{user_id}")
def future_user(user_id: int) -> FutureResult[User, ApiError]:
    return FutureResult.from_value(User(str(user_id)))


@cached(cache, key="user:{user_id}")
@future_safe
async def safe_user(user_id: int) -> User:
    return User(str(user_id))


@cached(sync_cache, key="user:{user_id}")
def sync_user(user_id: int) -> Result[User, ApiError]:
    return Success(User(str(user_id)))


@cached(sync_cache, key=lambda user_id: f"user:{user_id}")
def io_user(user_id: int) -> IOResult[User, ApiError]:
    return IOResult.from_value(User(str(user_id)))


class Repository:
    """Methods of every kind: `self` is given by the instance, the other parameters are kept."""

    @cached(cache, key="user:{self.tenant}:{user_id}")
    async def user(self, user_id: int, *, deep: bool = False) -> Result[User, ApiError]:
        return Success(User(f"{user_id} {deep}"))

    @cached(cache, key="user:{user_id}")
    def future_user(self, user_id: int) -> FutureResult[User, ApiError]:
        return FutureResult.from_value(User(str(user_id)))

    @cached(cache, key="user:{user_id}")
    @future_safe
    async def safe_user(self, user_id: int) -> User:
        return User(str(user_id))

    @cached(sync_cache, key="user:{user_id}")
    def sync_user(self, user_id: int) -> Result[User, ApiError]:
        return Success(User(str(user_id)))

    @cached(sync_cache, key="everyone")
    def io_everyone(self) -> IOResult[list[User], ApiError]:
        return IOResult.from_value([])

    @staticmethod
    @cached(sync_cache, key="user:{user_id}")
    def static_user(user_id: int) -> Result[User, ApiError]:
        return Success(User(str(user_id)))


class Derived(Repository):
    async def both(self) -> None:
        assert_type(await self.user(1), Result[User, ApiError | CacheError])
        assert_type(await super().user(1), Result[User, ApiError | CacheError])


async def what_comes_back_is_of_the_kind_that_was_decorated() -> None:
    assert_type(user(1), Coroutine[Any, Any, Result[User, ApiError | CacheError]])  # type: ignore[unused-coroutine]
    assert_type(await user(1, deep=True), Result[User, ApiError | CacheError])
    assert_type(future_user(1), FutureResult[User, ApiError | CacheError])
    assert_type(safe_user(1), FutureResult[User, Exception | CacheError])
    assert_type(sync_user(1), Result[User, ApiError | CacheError])
    assert_type(io_user(1), Result[User, ApiError | CacheError])


async def refresh_is_of_the_same_kind() -> None:
    assert_type(await user.refresh(1, deep=True), Result[User, ApiError | CacheError])
    assert_type(future_user.refresh(1), FutureResult[User, ApiError | CacheError])
    assert_type(sync_user.refresh(1), Result[User, ApiError | CacheError])


def the_signature_is_kept() -> None:
    assert_type(user.key(1, deep=True), str)
    assert_type(user.key(user_id=1), str)
    user.invalidate(1)
    user.key("1")  # type: ignore[arg-type]
    user.key()  # type: ignore[call-arg]
    user.key(1, deeper=True)  # type: ignore[call-arg]
    user.invalidate(1, depth=True)  # type: ignore[call-arg]
    sync_user("1")  # type: ignore[arg-type]
    sync_user.refresh()  # type: ignore[call-arg]
    future_user(1, 2)  # type: ignore[call-arg]


async def a_method_gets_its_self_from_the_instance(repository: Repository, derived: Derived) -> None:
    assert_type(await repository.user(1, deep=True), Result[User, ApiError | CacheError])
    assert_type(await repository.user(user_id=1), Result[User, ApiError | CacheError])
    assert_type(await repository.user.refresh(1, deep=True), Result[User, ApiError | CacheError])
    assert_type(repository.user.key(1, deep=True), str)
    repository.user.invalidate(user_id=1)
    assert_type(repository.future_user(1), FutureResult[User, ApiError | CacheError])
    assert_type(repository.future_user.refresh(1), FutureResult[User, ApiError | CacheError])
    assert_type(repository.safe_user(1), FutureResult[User, Exception | CacheError])
    assert_type(repository.sync_user(1), Result[User, ApiError | CacheError])
    assert_type(repository.sync_user.refresh(1), Result[User, ApiError | CacheError])
    assert_type(repository.io_everyone(), Result[list[User], ApiError | CacheError])
    assert_type(repository.io_everyone.key(), str)
    assert_type(derived.sync_user(1), Result[User, ApiError | CacheError])
    assert_type(Repository.static_user(1), Result[User, ApiError | CacheError])


async def a_class_wants_to_be_told_the_instance(repository: Repository) -> None:
    assert_type(await Repository.user(repository, 1), Result[User, ApiError | CacheError])
    assert_type(Repository.user.key(repository, 1), str)
    assert_type(Repository.sync_user.refresh(repository, 1), Result[User, ApiError | CacheError])
    Repository.user.key(1)  # type: ignore[call-arg, arg-type]
    Repository.sync_user.invalidate("a repository", 1)  # type: ignore[arg-type]


def the_signature_of_a_method_is_kept(repository: Repository) -> None:
    repository.user.key("1")  # type: ignore[arg-type]
    repository.user.key()  # type: ignore[call-arg]
    repository.user.key(repository, 1)  # type: ignore[call-arg, arg-type]
    repository.sync_user(1, 2)  # type: ignore[call-arg]
    repository.future_user.refresh(1, deep=True)  # type: ignore[call-arg]
    repository.io_everyone(1)  # type: ignore[call-arg]


class Users(Protocol):
    """What a program may ask of a repository, cached or not."""

    def sync_user(self, user_id: int) -> Result[User, ApiError | CacheError]: ...


def a_cached_method_implements_a_protocol(repository: Repository) -> Users:
    return repository


def what_does_not_fit_is_refused() -> None:
    async def bare(user_id: int) -> User:
        return User(str(user_id))

    def sync_bare(user_id: int) -> User:
        return User(str(user_id))

    async def of_asyncio(user_id: int) -> Result[User, ApiError]:
        return Success(User(str(user_id)))

    cached(cache, key="user:{user_id}")(bare)  # type: ignore[arg-type]
    cached(sync_cache, key="user:{user_id}")(sync_bare)  # type: ignore[arg-type]
    cached(sync_cache, key="user:{user_id}")(of_asyncio)  # type: ignore[arg-type]
    cached(cache, key=42)  # type: ignore[call-overload]
    cached(cache)  # type: ignore[call-overload]
