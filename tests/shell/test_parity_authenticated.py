"""Counterparts of `token_keeper_test.dart`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from returns.result import Failure, Success

from cachemesh import CacheMiss, CacheScope, NoActiveUser, NoTokenKeeper

if TYPE_CHECKING:
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
