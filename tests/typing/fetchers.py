"""What the cases fetch: a value of one type, an error of another, in every shape that a fetcher may have."""

from __future__ import annotations

from dataclasses import dataclass

from returns.future import FutureResult, future_safe
from returns.io import IOResult
from returns.result import Failure, Result, Success


@dataclass(frozen=True)
class User:
    name: str


@dataclass(frozen=True)
class ApiError:
    status: int


async def fetch() -> Result[User, ApiError]:
    return Success(User("Ada"))


async def fetch_io() -> IOResult[User, ApiError]:
    return IOResult.from_value(User("Ada"))


def fetch_future() -> FutureResult[User, ApiError]:
    return FutureResult.from_value(User("Ada"))


@future_safe
async def fetch_raising() -> User:
    raise TimeoutError


async def fetch_with(token: str) -> Result[User, ApiError]:
    return Success(User(token))


async def fetch_io_with(token: str) -> IOResult[User, ApiError]:
    return IOResult.from_value(User(token))


def fetch_future_with(token: str) -> FutureResult[User, ApiError]:
    return FutureResult.from_value(User(token))


@future_safe
async def fetch_raising_with(token: str) -> User:
    raise TimeoutError(token)


async def fetch_bare_with(token: str) -> User:
    return User(token)


def fetch_sync() -> Result[User, ApiError]:
    return Failure(ApiError(500))


def fetch_sync_io() -> IOResult[User, ApiError]:
    return IOResult.from_value(User("Ada"))


def fetch_sync_with(token: str) -> Result[User, ApiError]:
    return Success(User(token))


def fetch_sync_io_with(token: str) -> IOResult[User, ApiError]:
    return IOResult.from_value(User(token))


def fetch_sync_bare_with(token: str) -> User:
    return User(token)


async def fetch_bare() -> User:
    return User("Ada")


def fetch_sync_bare() -> User:
    return User("Ada")
