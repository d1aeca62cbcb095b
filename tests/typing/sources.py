"""The types that flow from a source, for mypy. None of this is ever run."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, assert_type

import httpx2
from pydantic import TypeAdapter
from returns.result import Result, Success

from cachemesh import Cache, CacheError, SyncCache
from cachemesh.sources import Backoff, Exchange, HttpSource, NetworkFailure, SyncHttpSource, retrying
from tests.typing.fetchers import ApiError, User, fetch

source = HttpSource("https://example.org", client=httpx2.AsyncClient())
sync_source = SyncHttpSource("https://example.org", client=httpx2.Client())
cache = Cache()
sync_cache = SyncCache()

UNION: TypeAdapter[User | int] = TypeAdapter(User | int)


async def a_parser_says_what_comes() -> None:
    assert_type(await source.get("/"), Result[bytes, NetworkFailure])
    assert_type(await source.get("/", parser=bytes), Result[bytes, NetworkFailure])
    assert_type(await source.get("/", parser=str), Result[str, NetworkFailure])
    assert_type(await source.get("/", parser=None), Result[None, NetworkFailure])
    assert_type(await source.get("/", parser=User), Result[User, NetworkFailure])
    assert_type(await source.get("/", parser=list[User]), Result[list[User], NetworkFailure])
    assert_type(await source.get("/", parser=dict[str, User]), Result[dict[str, User], NetworkFailure])
    assert_type(await source.get("/", parser=UNION), Result[User | int, NetworkFailure])
    assert_type(await source.post("/", parser=User, json={"a": 1}, timeout="5s"), Result[User, NetworkFailure])
    assert_type(await source.delete("/", parser=None, retry=None), Result[None, NetworkFailure])
    assert_type(await source.request("REPORT", "/", parser=User), Result[User, NetworkFailure])
    assert_type(await source.exchange("HEAD", "/"), Result[Exchange, NetworkFailure])
    assert_type(await source.upload("/", Path("a"), parser=User), Result[User, NetworkFailure])
    assert_type(await source.upload("/", b"", method="PUT"), Result[bytes, NetworkFailure])
    assert_type(await source.download("/", Path("a"), max_bytes=5), Result[int, NetworkFailure])


def so_it_is_with_threads() -> None:
    assert_type(sync_source.get("/"), Result[bytes, NetworkFailure])
    assert_type(sync_source.get("/", parser=list[User]), Result[list[User], NetworkFailure])
    assert_type(sync_source.put("/", parser=None), Result[None, NetworkFailure])
    assert_type(sync_source.request("REPORT", "/", parser=UNION), Result[User | int, NetworkFailure])
    assert_type(sync_source.exchange("HEAD", "/"), Result[Exchange, NetworkFailure])
    assert_type(sync_source.upload("/", b"", parser=str), Result[str, NetworkFailure])
    assert_type(sync_source.download("/", Path("a")), Result[int, NetworkFailure])


async def what_makes_no_sense_is_refused() -> None:
    await source.get("/", parsr=User)  # type: ignore[call-overload]
    await source.get("/", parser=5)  # type: ignore[call-overload]
    await source.get(5)  # type: ignore[call-overload]
    await source.download("/", "a")  # type: ignore[arg-type]
    HttpSource(client=httpx2.Client())  # type: ignore[arg-type]
    sync_source.upload("/", "a")  # type: ignore[call-overload]


async def fetch_user() -> Result[User, NetworkFailure]:
    return await source.get("/users/1", parser=User)


def sync_fetch_user() -> Result[User, NetworkFailure]:
    return sync_source.get("/users/1", parser=User)


def name_of(user: User) -> Result[str, NetworkFailure | CacheError]:
    return Success(user.name)


async def types_flow_through_a_cache() -> None:
    answer = await cache.get("me", fetch_user)
    assert_type(answer, Result[User, NetworkFailure | CacheError])
    assert_type(answer.bind(name_of), Result[str, NetworkFailure | CacheError])
    assert_type(sync_cache.get("me", sync_fetch_user).bind(name_of), Result[str, NetworkFailure | CacheError])
    assert_type(
        await cache.get("me", retrying(fetch_user, Backoff(max_attempts=5))), Result[User, NetworkFailure | CacheError]
    )


def retrying_adds_its_own_failure() -> None:
    assert_type(retrying(fetch_user), Callable[[], Coroutine[Any, Any, Result[User, NetworkFailure]]])
    assert_type(retrying(sync_fetch_user), Callable[[], Result[User, NetworkFailure]])
    assert_type(retrying(fetch), Callable[[], Coroutine[Any, Any, Result[User, ApiError | NetworkFailure]]])
