"""Counterparts of `cache_scope_test.dart`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from returns.result import Failure, Success

from cachemesh import CacheMiss, CachePolicy, CacheScope, NoActiveUser

if TYPE_CHECKING:
    from tests.shell.faces import Face

GLOBAL, SESSION, USER = CacheScope.GLOBAL, CacheScope.SESSION, CacheScope.USER


# default scope


def test_entries_without_an_explicit_scope_are_global(face: Face) -> None:
    face.refresh("config", face.fetcher(Success(1)))

    assert face.scope_of("config") is GLOBAL
    assert face.peek("config", scope=GLOBAL) == Success(1)


def test_scope_of_returns_global_for_unknown_keys(face: Face) -> None:
    assert face.scope_of("never-touched") is GLOBAL


@pytest.mark.parametrize("scope", CacheScope)
def test_scope_of_names_the_scope_of_a_key(face: Face, scope: CacheScope) -> None:
    face.set_active_user("alice")
    face.fill("k", 1, scope=scope)

    assert face.scope_of("k") is scope


# session


def test_end_session_drops_session_scoped_entries_and_keeps_global(face: Face) -> None:
    face.fill("session-data", 1, scope=SESSION)
    face.fill("app-config", 42, scope=GLOBAL)
    face.end_session()

    assert face.peek("session-data") == Failure(CacheMiss("session-data"))
    assert face.peek("app-config") == Success(42)
    assert face.scope_of("session-data") is GLOBAL


def test_clear_scope_session_drops_only_session_entries(face: Face) -> None:
    face.set_active_user("u1")
    face.fill("s", 1, scope=SESSION)
    face.fill("u", 2, scope=USER)
    face.fill("g", 3, scope=GLOBAL)
    face.clear_scope(SESSION)

    assert [face.peek(key) for key in "sug"] == [Failure(CacheMiss("s")), Success(2), Success(3)]


def test_clear_scope_user_drops_only_user_entries_and_keeps_the_user(face: Face) -> None:
    face.set_active_user("u1")
    face.fill("s", 1, scope=SESSION)
    face.fill("u", 2, scope=USER)
    face.clear_scope(USER)

    assert [face.peek(key) for key in "su"] == [Success(1), Failure(CacheMiss("u"))]
    assert face.active_user_id == "u1"


# user


@pytest.mark.parametrize("method", ["get", "refresh", "prefetch"])
def test_fails_with_no_active_user_when_nobody_is_signed_in(face: Face, method: str) -> None:
    """The original throws a StateError."""
    fetch = face.fetcher(Success(1))

    assert face.call(method, "k", fetch, scope=USER) == Failure(NoActiveUser("k"))
    assert fetch.calls == 0


def test_set_active_user_clears_entries_tied_to_the_previous_user(face: Face) -> None:
    face.set_active_user("alice")
    face.fill("profile", 1, scope=USER)
    assert face.peek("profile") == Success(1)
    assert face.active_user_id == "alice"

    face.set_active_user("bob")
    assert face.active_user_id == "bob"
    assert face.peek("profile") == Failure(CacheMiss("profile"))
    assert face.peek("profile", scope=USER) == Failure(CacheMiss("profile"))

    face.set_active_user("alice")
    assert face.peek("profile") == Failure(CacheMiss("profile"))


def test_set_active_user_is_a_no_op_when_the_user_does_not_change(face: Face) -> None:
    face.set_active_user("alice")
    face.fill("profile", 1, scope=USER)
    face.set_active_user("alice")

    assert face.peek("profile") == Success(1)
    assert face.log.events == []


def test_end_session_clears_user_entries_and_unsets_the_active_user(face: Face) -> None:
    face.set_active_user("alice")
    face.fill("profile", 1, scope=USER)
    face.end_session()

    assert face.active_user_id is None
    assert face.peek("profile") == Failure(CacheMiss("profile"))


def test_set_active_user_none_clears_the_previous_users_entries(face: Face) -> None:
    face.set_active_user("alice")
    face.fill("profile", 1, scope=USER)
    face.set_active_user(None)

    assert face.active_user_id is None
    assert face.peek("profile") == Failure(CacheMiss("profile"))


def test_session_and_global_entries_survive_a_user_switch(face: Face) -> None:
    face.set_active_user("alice")
    face.fill("s", 1, scope=SESSION)
    face.fill("g", 2, scope=GLOBAL)
    face.set_active_user("bob")

    assert [face.peek(key) for key in "sg"] == [Success(1), Success(2)]


# the logger hears of it


def test_on_scope_cleared_reports_the_reason_and_the_removed_keys(face: Face) -> None:
    face.set_active_user("alice")
    face.fill("k", 1, scope=USER)
    face.set_active_user("bob")

    assert face.log.events == [("invalidate", "k"), ("scope_cleared", "set_active_user", ("k",))]


@pytest.mark.parametrize(
    ("method", "arguments", "reason", "gone"),
    [
        ("set_active_user", (None,), "set_active_user", {"u"}),
        ("end_session", (), "end_session", {"s", "u"}),
        ("clear_scope", (GLOBAL,), "clear_scope:global", {"g"}),
        ("clear_scope", (SESSION,), "clear_scope:session", {"s"}),
        ("clear_scope", (USER,), "clear_scope:user", {"u"}),
    ],
)
def test_each_removed_key_is_reported_once_and_the_reason_after_them(
    face: Face,
    method: str,
    arguments: tuple[object, ...],
    reason: str,
    gone: set[str],
) -> None:
    face.set_active_user("alice")
    for key, scope in (("g", GLOBAL), ("s", SESSION), ("u", USER)):
        face.fill(key, 1, scope=scope)
    face.at_once(method, *arguments)

    *invalidated, cleared = face.log.events
    assert sorted(invalidated) == [("invalidate", key) for key in sorted(gone)]
    assert cleared[:2] == ("scope_cleared", reason)
    assert sorted(cleared[2]) == sorted(gone)  # type: ignore[call-overload]  # a tuple of keys
    assert [key for key in "gsu" if face.peek(key) == Success(1)] == sorted({"g", "s", "u"} - gone)


def test_nothing_is_reported_where_nothing_was_removed(face: Face) -> None:
    face.set_active_user("alice")
    face.set_active_user("bob")
    for scope in CacheScope:
        face.clear_scope(scope)
    face.end_session()
    face.end_session()

    assert face.log.events == []


# invalidate, and failures


def test_invalidate_removes_scope_metadata_so_scope_of_forgets_it(face: Face) -> None:
    face.set_active_user("alice")
    face.fill("k", 1, scope=USER)
    face.invalidate("k")

    assert face.scope_of("k") is GLOBAL


def test_cached_failures_under_session_scope_are_cleared_by_end_session(face: Face) -> None:
    face.get("k", face.fetcher(Failure("boom")), cache_failures=True, scope=SESSION)
    assert face.has_cached_failure("k")

    face.end_session()
    assert not face.has_cached_failure("k")


def test_cached_failures_of_a_user_are_seen_by_nobody_else(face: Face) -> None:
    face.set_active_user("alice")
    face.get("k", face.fetcher(Failure("boom")), cache_failures=True, scope=USER)
    assert face.has_cached_failure("k")

    face.set_active_user("bob")
    assert not face.has_cached_failure("k")
    assert face.get("k", face.fetcher(Success("bob")), scope=USER) == Success("bob")


def test_get_reads_and_writes_only_the_scope_it_names(face: Face) -> None:
    face.set_active_user("alice")
    for scope in CacheScope:
        assert face.get("k", face.fetcher(Success(scope.value)), scope=scope) == Success(scope.value)
    for scope in CacheScope:
        assert face.get("k", face.fetcher(Failure("no")), policy=CachePolicy.CACHE_ONLY, scope=scope) == Success(
            scope.value
        )


# views, for servers


def test_a_view_has_a_user_and_a_session_of_its_own_and_shares_the_global_scope(face: Face) -> None:
    alice, bob = face.for_user("alice"), face.for_user("bob")
    for view, name in ((alice, "alice"), (bob, "bob")):
        for scope in (USER, SESSION):
            assert view.get("k", face.fetcher(Success(name)), scope=scope) == Success(name)
    alice.fill("shared", 1)

    assert (alice.peek("k"), bob.peek("k")) == (Success("alice"), Success("bob"))
    assert bob.peek("shared") == face.peek("shared") == Success(1)
    assert face.peek("k") == Failure(CacheMiss("k"))
    assert (alice.active_user_id, face.active_user_id) == ("alice", None)


def test_a_view_that_ends_its_session_drops_what_is_its_own(face: Face) -> None:
    alice, bob = face.for_user("alice"), face.for_user("bob")
    for view in (alice, bob):
        view.fill("u", 1, scope=USER)
        view.fill("s", 2, scope=SESSION)
        view.fill("g", 3)
    alice.end_session()

    assert [alice.peek(key) for key in "usg"] == [Failure(CacheMiss("u")), Failure(CacheMiss("s")), Success(3)]
    assert [bob.peek(key) for key in "usg"] == [Success(1), Success(2), Success(3)]
