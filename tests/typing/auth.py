"""The types that go through token keepers, for mypy. None of this is ever run."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from returns.io import IOResult
from returns.result import Result, Success

from cachemesh import Cache, CacheError, SyncCache
from cachemesh.auth import (
    InvalidToken,
    SyncTokenKeeper,
    SyncTokenRefreshTimer,
    SyncTokenStream,
    Token,
    TokenError,
    TokenEvent,
    TokenKeeper,
    TokenRefreshTimer,
    TokenStream,
)
from tests.typing.fetchers import ApiError, User, fetch_bare_with, fetch_sync_with, fetch_with

if TYPE_CHECKING:
    from cachemesh.shell.ports import SyncTokenKeeperAdapter, TokenKeeperAdapter


async def refresh(token: Token) -> Result[Token, ApiError]:
    return Success(token)


async def refresh_io(token: Token) -> IOResult[Token, ApiError]:
    return IOResult.from_value(token)


async def refresh_wrongly(token: Token) -> Result[str, ApiError]:
    return Success(token.access_token)


def refresh_sync(token: Token) -> Result[Token, ApiError]:
    return Success(token)


def keepers_are_made_of_refreshers() -> None:
    TokenKeeper(refresh, proactive_window="5m", leeway=10)
    TokenKeeper(refresh_io)
    SyncTokenKeeper(refresh_sync)
    TokenKeeper(refresh_wrongly)  # type: ignore[arg-type]
    TokenKeeper(refresh_sync)  # type: ignore[arg-type]
    SyncTokenKeeper(refresh)  # type: ignore[arg-type]
    TokenKeeper(refresh, nonsense=1)  # type: ignore[call-arg]
    TokenKeeper(refresh, leeway=[])  # type: ignore[arg-type]


async def the_action_decides_what_arrives(keeper: TokenKeeper) -> None:
    got = await keeper.with_valid_token(fetch_with)
    assert_type(got, Result[User, ApiError | TokenError])
    assert_type(got.map(lambda user: user.name), Result[str, ApiError | TokenError])
    await keeper.with_valid_token(fetch_bare_with)  # type: ignore[arg-type]
    await keeper.with_valid_token(fetch_sync_with)  # type: ignore[arg-type]


def the_same_for_threads(keeper: SyncTokenKeeper) -> None:
    assert_type(keeper.with_valid_token(fetch_sync_with), Result[User, ApiError | TokenError])
    keeper.with_valid_token(fetch_with)  # type: ignore[arg-type]


async def a_cache_takes_a_keeper(keeper: TokenKeeper) -> None:
    adapter: TokenKeeperAdapter = keeper
    async with Cache(token_keeper=adapter) as cache:
        assert_type(await cache.get_authenticated("me", fetch_with), Result[User, ApiError | CacheError])


def a_cache_for_threads_takes_one_for_threads(keeper: SyncTokenKeeper) -> None:
    adapter: SyncTokenKeeperAdapter = keeper
    with SyncCache(token_keeper=adapter) as cache:
        assert_type(cache.get_authenticated("me", fetch_sync_with), Result[User, ApiError | CacheError])


def but_not_the_other(keeper: TokenKeeper, threaded: SyncTokenKeeper) -> None:
    Cache(token_keeper=threaded)  # type: ignore[arg-type]
    SyncCache(token_keeper=keeper)  # type: ignore[arg-type]


async def whatever_a_keeper_answers_is_a_result(keeper: TokenKeeper, token: Token) -> None:
    assert_type(await keeper.get_valid_token(), Result[Token, TokenError])
    assert_type(await keeper.force_refresh(), Result[Token, TokenError])
    assert_type(await keeper.peek(), Result[Token, TokenError])
    assert_type(await keeper.set_tokens(token), Result[Token, TokenError])
    assert_type(await keeper.sign_out(), Result[None, TokenError])
    assert_type(await keeper.clear(), Result[None, TokenError])
    assert_type(await TokenRefreshTimer(keeper).run_now(), Result[Token, TokenError])


def for_threads_too(keeper: SyncTokenKeeper, token: Token) -> None:
    assert_type(keeper.get_valid_token(), Result[Token, TokenError])
    assert_type(keeper.set_tokens(token), Result[Token, TokenError])
    assert_type(keeper.sign_out(), Result[None, TokenError])
    assert_type(SyncTokenRefreshTimer(keeper).run_now(), Result[Token, TokenError])


async def streams_have_their_items(keeper: TokenKeeper, threaded: SyncTokenKeeper) -> None:
    assert_type(keeper.events(), TokenStream[TokenEvent])
    assert_type(keeper.token_stream(), TokenStream[Token | None])
    async for token in keeper.token_stream():
        assert_type(token, Token | None)
    assert_type(threaded.token_stream(), SyncTokenStream[Token | None])
    for event in threaded.events():
        assert_type(event, TokenEvent)


def a_token_is_read_as_a_result(text: str) -> None:
    assert_type(Token.from_json(text), Result[Token, InvalidToken])
    assert_type(Token.from_jwt(text), Result[Token, InvalidToken])
    assert_type(Token.from_json(text).map(lambda token: token.subject), Result[str | None, InvalidToken])
    Token(access_token=1)  # type: ignore[arg-type]
    Token()  # type: ignore[call-arg]
