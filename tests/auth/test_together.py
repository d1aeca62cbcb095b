"""Sources, keepers and caches plug into each other with nothing in between."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import pytest
from pydantic import BaseModel
from returns.result import Result, Success

from cachemesh import Cache, CacheError, CacheScope, SyncCache
from cachemesh.auth import OAuthClient, OAuthRefresher, SyncOAuthRefresher, SyncTokenKeeper, Token, TokenKeeper
from cachemesh.sources import HttpSource, NetworkFailure, SyncHttpSource
from tests.readme_origin import origin

if TYPE_CHECKING:
    from collections.abc import Iterator

EXPIRED: Final = Token(access_token="access-1", refresh_token="refresh-1", metadata={"sub": "42"})


class User(BaseModel):
    id: int
    name: str


ADA: Final = User(id=42, name="Ada")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with origin() as place:
        yield f"http://{place}"


def test_b28_a_source_a_keeper_and_a_cache_need_no_adapter(url: str) -> None:
    """The original's README shows an adapter that does not type-check, between two kinds of Result."""

    async def main() -> None:
        keeper = TokenKeeper(OAuthRefresher(OAuthClient(f"{url}/token", "app")))
        async with keeper, HttpSource(url) as api, Cache(token_keeper=keeper) as cache:
            await keeper.set_tokens(EXPIRED)
            me = api.token_fetcher("/me", parser=User)
            got: Result[User, NetworkFailure | CacheError] = await cache.get_authenticated(me.key, me, conditional=True)
            assert got == Success(ADA)
            assert cache.peek(me.key, scope=CacheScope.USER) == Success(ADA)

    asyncio.run(main())


def test_b28_nor_do_those_of_threads(url: str) -> None:
    keeper = SyncTokenKeeper(SyncOAuthRefresher(OAuthClient(f"{url}/token", "app")))
    with keeper, SyncHttpSource(url) as api, SyncCache(token_keeper=keeper) as cache:
        keeper.set_tokens(EXPIRED)
        me = api.token_fetcher("/me", parser=User)
        got: Result[User, NetworkFailure | CacheError] = cache.get_authenticated(me.key, me, conditional=True)
        assert got == Success(ADA)
        assert cache.peek(me.key, scope=CacheScope.USER) == Success(ADA)
