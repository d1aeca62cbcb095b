"""Counterparts of `cache_test.dart`'s watch group, and what ours also tells: failures and removals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from returns.result import Failure, Success

from cachemesh import CacheMiss, CachePolicy, CacheScope

if TYPE_CHECKING:
    from tests.shell.faces import Face


def test_watch_emits_when_get_persists_a_fresh_value(face: Face) -> None:
    heard = face.listen("k")
    face.get("k", face.fetcher(Success(1)))
    face.settle()

    assert heard.results == [Success(1)]


def test_watch_emits_the_swr_background_refresh(face: Face) -> None:
    face.fill("k", 1, ttl=5)
    face.clock.advance(5)
    heard = face.listen("k")
    face.get("k", face.fetcher(Success(2)), policy=CachePolicy.STALE_WHILE_REVALIDATE)
    face.settle()

    assert heard.results == [Success(2)]


def test_watch_does_not_emit_for_network_only(face: Face) -> None:
    heard = face.listen("k")
    face.get("k", face.fetcher(Success(1), Failure("down")), policy=CachePolicy.NETWORK_ONLY)
    face.get("k", face.fetcher(Failure("down")), policy=CachePolicy.NETWORK_ONLY)
    face.settle()

    assert heard.results == []


def test_watch_does_not_emit_the_current_value_on_subscribing(face: Face) -> None:
    face.fill("k", 1)
    heard = face.listen("k")
    face.settle()
    face.get("k", face.fetcher(Success(2)))
    face.settle()

    assert heard.results == []


def test_watch_emits_every_refresh_and_prefetch(face: Face) -> None:
    heard = face.listen("k")
    face.refresh("k", face.fetcher(Success(1)))
    face.settle()
    face.prefetch("k", face.fetcher(Success(2)))
    face.settle()

    assert heard.results == [Success(1), Success(2)]


def test_watch_emits_a_failed_refresh(face: Face) -> None:
    heard = face.listen("k")
    face.refresh("k", face.fetcher(Failure("down")))
    face.settle()

    assert heard.results == [Failure("down")]


def test_watch_emits_a_removal(face: Face) -> None:
    face.fill("k", 1)
    heard = face.listen("k")
    face.invalidate("k")
    face.settle()

    assert heard.results == [Failure(CacheMiss("k"))]


def test_watch_hears_nothing_of_other_keys_and_scopes(face: Face) -> None:
    heard = face.listen("k", scope=CacheScope.GLOBAL)
    face.get("other", face.fetcher(Success(1)))
    face.get("k", face.fetcher(Success(2)), scope=CacheScope.SESSION)
    face.settle()

    assert heard.results == []


def test_every_watcher_hears_the_same(face: Face) -> None:
    watchers = [face.listen("k") for _ in range(3)]
    face.get("k", face.fetcher(Success(1)))
    face.settle()

    assert [each.results for each in watchers] == [[Success(1)]] * 3


def test_a_cancelled_subscription_hears_no_more(face: Face) -> None:
    heard, other = face.listen("k"), face.listen("k")
    face.refresh("k", face.fetcher(Success(1)))
    face.settle()
    heard.cancel()
    heard.cancel()
    face.refresh("k", face.fetcher(Success(2)))
    face.settle()

    assert heard.results == [Success(1)]
    assert other.results == [Success(1), Success(2)]


def test_a_watch_can_be_iterated(face: Face) -> None:
    heard = face.follow("k")
    for value in (1, 2):
        face.refresh("k", face.fetcher(Success(value)))
        face.settle()
    face.invalidate("k")
    face.settle()

    assert heard.results == [Success(1), Success(2), Failure(CacheMiss("k"))]
    assert not heard.has_ended


def test_a_watch_without_a_scope_listens_to_all_that_its_user_sees(face: Face) -> None:
    face.set_active_user("alice")
    heard = face.listen("k")
    for scope in CacheScope:
        face.refresh("k", face.fetcher(Success(scope.value)), scope=scope)
        face.settle()

    assert heard.results == [Success("global"), Success("session"), Success("user")]


def test_an_eviction_is_no_news(face: Face) -> None:
    face = face.new(max_entries=1)
    face.fill("k", 1)
    heard = face.listen("k")
    face.refresh("other", face.fetcher(Success(2)))
    face.settle()

    assert face.peek("k") == Failure(CacheMiss("k"))
    assert heard.results == []
