"""Counterparts of `token_keeper_test.dart`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from returns.future import FutureResult
from returns.io import IOResult
from returns.result import Failure, Result, Success

from cachemesh import Cache, CacheMiss, CacheScope, NoActiveUser, NoTokenKeeper, SyncCache

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.shell.faces import Answer, Face


def hello(token: str) -> Answer:
    return Success(f"hello({token})")


def signed_in(face: Face, *tokens: str) -> Face:
    """A cache with a keeper of `tokens` where alice is active."""
    face = face.new(token_keeper=face.keeper(*tokens))
    face.set_active_user("alice")
    return face


def test_fails_with_no_token_keeper_when_none_is_configured(face: Face) -> None:
    """The original throws a StateError."""
    face.set_active_user("alice")
    fetch = face.fetcher(hello)

    assert face.get_authenticated("k", fetch) == Failure(NoTokenKeeper("k"))
    assert fetch.calls == 0


def test_routes_the_fetch_through_with_valid_token(face: Face) -> None:
    keeper = face.keeper("tok-abc")
    face = face.new(token_keeper=keeper)
    face.set_active_user("alice")
    fetch = face.fetcher(hello)

    assert face.get_authenticated("me", fetch) == Success("hello(tok-abc)")
    assert keeper.calls == 1
    assert fetch.arguments == [("tok-abc",)]


def test_caches_successful_authenticated_reads_under_user_scope_by_default(face: Face) -> None:
    face = signed_in(face, "tok")
    fetch = face.fetcher(hello)
    face.get_authenticated("me", fetch)
    face.get_authenticated("me", fetch)

    assert fetch.calls == 1
    assert face.scope_of("me") is CacheScope.USER


def test_switching_user_clears_authenticated_entries_from_the_previous_user(face: Face) -> None:
    face = signed_in(face, "tok-alice")
    face.get_authenticated("me", face.fetcher(hello))
    assert face.peek("me") == Success("hello(tok-alice)")

    face.set_active_user("bob")
    assert face.peek("me") == Failure(CacheMiss("me"))


def test_the_token_keeper_adapter_is_responsible_for_the_retry_on_unauthorized_loop(face: Face) -> None:
    keeper = face.keeper("stale", "fresh")
    face = face.new(token_keeper=keeper)
    face.set_active_user("alice")
    fetch = face.fetcher(lambda token: keeper.REJECTED if token == "stale" else Success(f"ok({token})"))  # noqa: S105

    assert face.get_authenticated("me", fetch) == Success("ok(fresh)")
    assert fetch.arguments == [("stale",), ("fresh",)]
    assert keeper.calls == 1


def test_the_caller_can_override_the_default_user_scope(face: Face) -> None:
    face = signed_in(face, "tok")
    face.get_authenticated("app-status", face.fetcher(hello), scope=CacheScope.SESSION)
    face.set_active_user("bob")

    assert face.peek("app-status") == Success("hello(tok)")


def test_fails_with_no_active_user_when_nobody_is_signed_in(face: Face) -> None:
    face = face.new(token_keeper=face.keeper("tok"))
    fetch = face.fetcher(hello)

    assert face.get_authenticated("me", fetch) == Failure(NoActiveUser("me"))
    assert fetch.calls == 0


def test_a_keeper_that_has_no_token_answers_its_own_failure(face: Face) -> None:
    face = signed_in(face, "stale")
    fetch = face.fetcher(Failure("unauthorized"))

    assert face.get_authenticated("me", fetch) == Failure("unauthorized")
    assert fetch.calls == 1


def test_a_view_has_its_own_user_for_authenticated_reads(face: Face) -> None:
    face = face.new(token_keeper=face.keeper("tok"))
    alice = face.for_user("alice")

    assert alice.get_authenticated("me", face.fetcher(hello)) == Success("hello(tok)")
    assert alice.scope_of("me") is CacheScope.USER
    assert face.for_user("bob").peek("me") == Failure(CacheMiss("me"))


def test_a_keeper_sees_a_result_whatever_the_fetch_returns(face: Face) -> None:
    """A fetch that answers an IOResult is rejected like any other, and the keeper knows it by its Failure."""
    keeper = face.keeper("stale", "fresh")
    face = face.new(token_keeper=keeper)
    face.set_active_user("alice")
    fetch = face.fetcher(
        lambda token: IOResult.from_failure("unauthorized") if token == "stale" else IOResult.from_value(token)  # noqa: S105
    )

    assert face.get_authenticated("me", fetch) == Success("fresh")
    assert fetch.arguments == [("stale",), ("fresh",)]


def test_a_fetch_and_its_keeper_may_be_on_rails() -> None:
    class OnRails:
        def with_valid_token(self, action: Callable[[str], Awaitable[Result[Any, Any]]]) -> FutureResult[Any, Any]:
            return FutureResult(action("stale")).lash(lambda _: FutureResult(action("fresh")))

    def fetch(token: str) -> FutureResult[str, str]:
        return FutureResult.from_failure("unauthorized") if token == "stale" else FutureResult.from_value(token)  # noqa: S105

    async def main() -> Result[str, Any]:
        async with Cache(token_keeper=OnRails()) as cache:
            return await cache.get_authenticated("me", fetch, scope=CacheScope.GLOBAL)

    assert asyncio.run(main()) == Success("fresh")


def test_a_keeper_for_threads_may_answer_an_io_result() -> None:
    class WithIO:
        def with_valid_token(self, action: Callable[[str], Result[Any, Any]]) -> IOResult[Any, Any]:
            return IOResult.from_result(action("stale")).lash(lambda _: IOResult.from_result(action("fresh")))

    def fetch(token: str) -> IOResult[str, str]:
        return IOResult.from_failure("unauthorized") if token == "stale" else IOResult.from_value(token)  # noqa: S105

    with SyncCache(token_keeper=WithIO()) as cache:
        assert cache.get_authenticated("me", fetch, scope=CacheScope.GLOBAL) == Success("fresh")
