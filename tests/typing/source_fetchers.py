"""The types from a source through the cache and along the rails, for mypy. None of this is ever run."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from pydantic import BaseModel, TypeAdapter
from returns.future import FutureResult
from returns.result import Result, Success

from cachemesh import Batcher, Cache, CacheError, CacheScope, SyncBatcher, SyncCache
from cachemesh.sources import (
    HttpFetcher,
    HttpSource,
    HttpTokenFetcher,
    NetworkFailure,
    SyncHttpFetcher,
    SyncHttpSource,
    SyncHttpTokenFetcher,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cachemesh.shell.ports import Directed, Fetcher, SyncFetcher, SyncTokenFetcher, TokenFetcher


class User(BaseModel):
    name: str
    team: str


class Team(BaseModel):
    name: str


cache = Cache()
sync_cache = SyncCache()
source = HttpSource("https://example.org")
sync_source = SyncHttpSource("https://example.org")

user = source.fetcher("/users/42", parser=User)
sync_user = sync_source.fetcher("/users/42", parser=User)
me = source.token_fetcher("/me", parser=User)
sync_me = sync_source.token_fetcher("/me", parser=User)


def a_parser_is_the_type_of_what_is_fetched() -> None:
    assert_type(user, HttpFetcher[User])
    assert_type(source.fetcher("/users", parser=list[User]), HttpFetcher[list[User]])
    assert_type(source.fetcher("/users", parser=TypeAdapter(list[User])), HttpFetcher[list[User]])
    assert_type(source.fetcher("/logo"), HttpFetcher[bytes])
    assert_type(source.fetcher("/ping", parser=None), HttpFetcher[None])
    assert_type(me, HttpTokenFetcher[User])
    assert_type(source.token_fetcher("/logo"), HttpTokenFetcher[bytes])
    assert_type(sync_user, SyncHttpFetcher[User])
    assert_type(sync_me, SyncHttpTokenFetcher[User])
    assert_type(sync_source.fetcher("/ping", parser=None), SyncHttpFetcher[None])


def they_are_the_ports_of_the_cache() -> None:
    fetch: Fetcher[User, NetworkFailure] = user
    fetch_with: TokenFetcher[User, NetworkFailure] = me
    sync_fetch: SyncFetcher[User, NetworkFailure] = sync_user
    sync_fetch_with: SyncTokenFetcher[User, NetworkFailure] = sync_me
    of_another: Fetcher[Team, NetworkFailure] = user  # type: ignore[assignment]
    del fetch, fetch_with, sync_fetch, sync_fetch_with, of_another


async def the_cache_answers_with_the_parsers_type() -> None:
    assert_type(await cache.get(user.key, user), Result[User, NetworkFailure | CacheError])
    assert_type(await cache.get(user.key, user, conditional=True), Result[User, NetworkFailure | CacheError])
    assert_type(await cache.refresh(user.key, user, conditional=True), Result[User, NetworkFailure | CacheError])
    assert_type(await cache.prefetch(user.key, user), Result[User, NetworkFailure | CacheError])
    assert_type(await cache.get_authenticated(me.key, me), Result[User, NetworkFailure | CacheError])
    assert_type(await cache.get_authenticated(me.key, me, conditional=True), Result[User, NetworkFailure | CacheError])
    assert_type(sync_cache.get(sync_user.key, sync_user), Result[User, NetworkFailure | CacheError])
    assert_type(sync_cache.get(sync_user.key, sync_user, conditional=True), Result[User, NetworkFailure | CacheError])
    assert_type(sync_cache.get_authenticated(sync_me.key, sync_me), Result[User, NetworkFailure | CacheError])
    assert_type(await cache.get(user.key, user, **user.options), Result[User, NetworkFailure | CacheError])
    assert_type(await cache.refresh(user.key, user, **user.options), Result[User, NetworkFailure | CacheError])
    assert_type(await cache.get_authenticated(me.key, me, **me.options), Result[User, NetworkFailure | CacheError])
    assert_type(
        sync_cache.get(sync_user.key, sync_user, ttl=5, **sync_user.options), Result[User, NetworkFailure | CacheError]
    )
    assert_type(await source.get("/users/42", parser=User), Result[User, NetworkFailure])


def team_of(found: User) -> FutureResult[Team, NetworkFailure | CacheError]:
    team = source.fetcher(f"/teams/{found.team}", parser=Team)
    return FutureResult(cache.get(team.key, team, conditional=True))


def sync_team_of(found: User) -> Result[Team, NetworkFailure | CacheError]:
    team = sync_source.fetcher(f"/teams/{found.team}", parser=Team)
    return sync_cache.get(team.key, team, conditional=True)


def name_of(team: Team) -> str:
    return team.name


def checked(name: str) -> Result[int, NetworkFailure | CacheError]:
    return Success(len(name))


async def both_types_travel_along() -> None:
    line = FutureResult(cache.get(user.key, user, conditional=True))
    assert_type(line, FutureResult[User, NetworkFailure | CacheError])
    assert_type(line.bind(team_of), FutureResult[Team, NetworkFailure | CacheError])
    assert_type(line.bind(team_of).map(name_of), FutureResult[str, NetworkFailure | CacheError])
    assert_type(line.bind(team_of).map(name_of).bind_result(checked), FutureResult[int, NetworkFailure | CacheError])
    found = sync_cache.get(sync_user.key, sync_user, conditional=True)
    assert_type(found.bind(sync_team_of), Result[Team, NetworkFailure | CacheError])
    assert_type(found.bind(sync_team_of).map(name_of).bind(checked), Result[int, NetworkFailure | CacheError])
    line.bind(name_of)  # type: ignore[arg-type]
    found.bind(name_of)  # type: ignore[arg-type]


async def users_by(keys: tuple[str, ...]) -> Mapping[str, Result[Directed[User], NetworkFailure]]:
    return {key: await source.fetcher(f"/users/{key}", parser=User)() for key in keys}


def sync_users_by(keys: tuple[str, ...]) -> Mapping[str, Result[Directed[User], NetworkFailure]]:
    return {key: sync_source.fetcher(f"/users/{key}", parser=User)() for key in keys}


async def many_at_once_say_each_how_long_they_live() -> None:
    assert_type(await cache.get_many(["1", "2"], users_by), dict[str, Result[User, NetworkFailure | CacheError]])
    assert_type(await Batcher(cache, users_by).get("1"), Result[User, NetworkFailure | CacheError])
    assert_type(sync_cache.get_many(["1"], sync_users_by), dict[str, Result[User, NetworkFailure | CacheError]])
    assert_type(SyncBatcher(sync_cache, sync_users_by).get("1"), Result[User, NetworkFailure | CacheError])


def what_is_no_option_is_refused() -> None:
    source.fetcher("/users/42", parser=User, scope="galaxy")  # type: ignore[call-overload]
    source.fetcher("/users/42", parser=User, json={})  # type: ignore[call-overload]
    source.fetcher("/users/42", parser=User, scope=CacheScope.USER, default_ttl="5m", heuristic=True)
    sync_source.fetcher("/users/42", parser=User, default_ttl=[])  # type: ignore[call-overload]
