"""Tags and prefixes on both faces: what bears one goes, or goes stale, at once and for good."""

from __future__ import annotations

import threading
from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from returns.result import Failure, Success

from cachemesh import (
    CacheClosed,
    CacheExpired,
    CacheMiss,
    CachePolicy,
    CacheScope,
    Fresh,
    InvalidKey,
    InvalidOption,
    Lifetime,
    NoActiveUser,
    SyncCache,
    UndecodableEntry,
)
from cachemesh.core.scopes import GLOBAL_OWNER
from cachemesh.shell.logging import LineLogger
from tests.stores.faulty import FaultyStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.shell.faces import Answer, Face, Heard, SyncFace

GLOBAL, SESSION, USER = CacheScope.GLOBAL, CacheScope.SESSION, CacheScope.USER
WITH_GRACE = Lifetime(ttl=100, serve_stale_for=50, stale_if_error_for=80)


def store_with_tag(face: Face, how: str, key: str = "k", value: object = 1, **options: Any) -> None:
    """Cache `value` under `key` with the tag "t", in one of the ways there are."""
    if how == "put":
        face.at_once("put", key, value, tags=("t",), **options)
    elif how == "fresh":
        face.get(key, face.fetcher(Success(Fresh(value, tags=("t",)))), **options)
    else:
        face.call(how, key, face.fetcher(Success(value)), tags=("t",), **options)


def is_gone(face: Face, key: str = "k", **options: Any) -> bool:
    """Whether nothing tells of `key` any more; all that can be asked must agree."""
    missing = face.peek(key, allow_expired=True, **options) == Failure(CacheMiss(key))
    assert missing == face.inspect(key, **options).is_missing
    explained = face.at_once("explain", key, policy=CachePolicy.CACHE_ONLY, **options).unwrap()
    assert missing == (explained.freshness == "missing")
    if not options:
        assert missing == (face.peek(key) == Failure(CacheMiss(key)))
        fetched = face.get(key, face.fetcher(Success(1)), policy=CachePolicy.CACHE_ONLY)
        assert missing == (fetched == Failure(CacheMiss(key)))
    return missing


# At once


@pytest.mark.parametrize("how", ["get", "refresh", "prefetch", "put", "fresh"])
def test_what_bears_the_tag_is_gone(face: Face, how: str) -> None:
    store_with_tag(face, how)
    store_with_tag(face, how, "other", 2)
    face.at_once("put", "untagged", 3, tags=("x",))

    assert face.at_once("invalidate_tag", "t") == Success("t")

    assert is_gone(face)
    assert is_gone(face, "other")
    assert not is_gone(face, "untagged")
    assert face.get("k", face.fetcher(Success("new"))) == Success("new")


@pytest.mark.parametrize("how", ["get", "refresh", "prefetch", "put", "fresh"])
def test_what_is_stored_after_it_is_not_concerned(face: Face, how: str) -> None:
    """Also at the very same instant."""
    face.at_once("invalidate_tag", "t")
    face.at_once("expire_tag", "t")
    store_with_tag(face, how, ttl=60)

    assert face.peek("k") == Success(1)
    assert face.inspect("k").is_fresh


def test_any_of_its_tags_is_enough(face: Face) -> None:
    for tag in ("a", "b", "c"):
        face.at_once("put", "k", 1, tags=("a", "b"))
        face.at_once("invalidate_tag", tag)
        assert is_gone(face) == (tag != "c")


def test_tags_of_the_answer_come_beside_those_of_the_call(face: Face) -> None:
    for tag in ("call", "answer"):
        face.get("k", face.fetcher(Success(Fresh(1, tags=["answer"]))), tags={"call"})
        face.at_once("invalidate_tag", tag)
        assert is_gone(face)


def test_tags_of_all_who_join_come_together(face: Face) -> None:
    for tag in ("a", "b"):
        fetch = face.fetcher(Success(1), held=True)
        pending = [face.begin.get("k", fetch, tags=(each,)) for each in "ab"]
        fetch.release()
        assert [each.result() for each in pending] == [Success(1)] * 2
        face.at_once("invalidate_tag", tag)
        assert is_gone(face)


class Tag(StrEnum):
    FEED = "feed"


@pytest.mark.parametrize(
    "tags",
    [("feed",), ["feed"], {"feed"}, frozenset({"feed"}), {"feed": 1}.keys(), deque(["feed"]), (Tag.FEED,)],
    ids=lambda tags: type(tags).__name__,
)
def test_tags_are_any_collection_of_strs(face: Face, tags: Any) -> None:
    face.get("k", face.fetcher(Success(1)), tags=tags)
    face.at_once("put", "other", 1, tags=tags)
    face.get("fresh", face.fetcher(Success(Fresh(1, tags=tags))))

    assert face.at_once("invalidate_tag", Tag.FEED) == Success("feed")
    assert [is_gone(face, key) for key in ("k", "other", "fresh")] == [True] * 3


def test_very_many_tags_are_invalidated_rightly(face: Face) -> None:
    """Beyond the bound a tag counts as marked with the last of them: too much goes, never too little."""
    plain = face.new(logger=None)
    plain.at_once("put", "old", 1, tags=("mine",))
    plain.at_once("put", "untagged", 1)

    def mark_many() -> None:
        for number in range(10_001):
            plain.cache.expire_tag(f"t{number}")

    plain.inside(mark_many)
    plain.at_once("put", "new", 2, tags=("t5", "mine"))

    assert (is_gone(plain, "old"), plain.peek("new"), plain.peek("untagged")) == (True, Success(2), Success(1))
    plain.close()


# Soft


def test_expired_it_is_served_for_its_window_while_it_is_refreshed(face: Face) -> None:
    face.fill("k", "old", ttl=WITH_GRACE, tags=("t",))
    face.clock.advance(10)
    face.at_once("expire_tag", "t")
    fetch = face.fetcher(Success("new"))

    assert face.peek("k") == Failure(CacheExpired("k"))
    assert face.inspect("k").is_stale
    assert face.inspect("k").time_to_expiry.total_seconds() == 0.0  # type: ignore[union-attr]
    face.clock.advance(49)
    assert face.get("k", fetch, ttl=WITH_GRACE, tags=("t",)) == Success("old")
    face.settle()
    assert (fetch.calls, face.peek("k")) == (1, Success("new"))
    assert face.inspect("k").is_fresh


def test_expired_its_windows_begin_then(face: Face) -> None:
    down = face.fetcher(Failure("down"))
    face.fill("k", "old", ttl=WITH_GRACE, tags=("t",))
    face.at_once("expire_tag", "t")

    face.clock.advance(50)
    assert face.get("k", down) == Success("old"), "within stale_if_error_for"
    face.clock.advance(30)
    assert face.get("k", down) == Failure("down")


@pytest.mark.parametrize("ttl", [100, None])
def test_expired_what_has_no_window_is_stale(face: Face, ttl: int | None) -> None:
    face.fill("k", "old", ttl=ttl, tags=("t",))
    face.at_once("expire_tag", "t")

    assert face.peek("k", allow_expired=True) == Success("old")
    assert face.get("k", face.fetcher(Success("x")), policy=CachePolicy.CACHE_ONLY) == Failure(CacheExpired("k"))
    assert face.get("k", face.fetcher(Failure("down")), policy=CachePolicy.NETWORK_FIRST) == Success("old")
    assert face.get("k", face.fetcher(Success("new")), tags=("t",)) == Success("new")


def test_expiring_never_makes_anything_live_longer(face: Face) -> None:
    face.fill("k", "old", ttl=Lifetime(ttl=10, serve_stale_for=5), tags=("t",))
    face.clock.advance(14)
    face.at_once("expire_tag", "t")
    face.clock.advance(1)

    assert face.at_once("explain", "k").unwrap().freshness == "expired"


def test_gone_is_gone_whatever_is_expired_after_it(face: Face) -> None:
    face.fill("k", 1, ttl=WITH_GRACE, tags=("t",))
    face.at_once("invalidate_tag", "t")
    face.at_once("expire_tag", "t")

    assert is_gone(face)


# Prefixes


def test_what_begins_with_a_prefix_goes(face: Face) -> None:
    for key in ("user:4", "user:42", "user:42:a", "user:42:b", "other"):
        face.fill(key, 1)

    assert face.at_once("invalidate_prefix", "user:42:") == Success("user:42:")

    assert [is_gone(face, key) for key in ("user:4", "user:42", "user:42:a", "user:42:b", "other")] == [
        False,
        False,
        True,
        True,
        False,
    ]
    face.at_once("invalidate_prefix", "")
    assert is_gone(face, "other")


def test_a_prefix_holds_against_what_is_being_fetched_and_remembered(face: Face) -> None:
    face.get("user:failed", face.fetcher(Failure("down")), cache_failures=True)
    fetch, newer = face.fetcher(Success("old"), held=True), face.fetcher(Success("new"))
    pending = face.begin.get("user:a", fetch)
    face.at_once("invalidate_prefix", "user:")
    assert not face.has_cached_failure("user:failed")
    assert face.get("user:a", newer) == Success("new")
    fetch.release()

    assert pending.result() == Success("old")
    assert face.peek("user:a") == Success("new")


@pytest.mark.parametrize("prefix", [None, 42, b"user", ["user"]], ids=repr)
def test_a_prefix_that_is_no_str_changes_nothing(face: Face, prefix: Any) -> None:
    face.fill("user", 1)

    assert face.at_once("invalidate_prefix", prefix) == Failure(InvalidKey(prefix))
    assert face.at_once("invalidate_prefix", "u", scope="global") == Failure(InvalidOption("scope", "str"))
    assert face.log.take() == []
    assert not is_gone(face, "user")


# Scopes and views


def test_the_caches_own_order_concerns_everybody(face: Face) -> None:
    ada = face.for_user("ada")
    face.set_active_user("bob")
    for view, scope in ((ada, USER), (ada, SESSION), (face, USER), (face, SESSION), (face, GLOBAL)):
        view.at_once("put", "k", 1, scope=scope, tags=("t",))

    face.at_once("invalidate_tag", "t")

    for view, scope in ((ada, USER), (ada, SESSION), (face, USER), (face, SESSION), (face, GLOBAL)):
        assert is_gone(view, scope=scope), (view, scope)


@pytest.mark.parametrize("order", ["invalidate_tag", "invalidate_prefix"])
def test_a_views_order_concerns_what_its_user_sees(face: Face, order: str) -> None:
    ada, bob = face.for_user("ada"), face.for_user("bob")
    places = [(view, scope) for view in (ada, bob, face) for scope in (SESSION, USER)][:-1]
    for view, scope in places:
        view.at_once("put", "t", 1, scope=scope, tags=("t",))
    face.at_once("put", "t", 1, tags=("t",))

    ada.at_once(order, "t")

    gone = {(view.cache, scope) for view, scope in places if is_gone(view, "t", scope=scope)}
    assert gone == {(ada.cache, SESSION), (ada.cache, USER)}
    assert is_gone(face, "t", scope=GLOBAL), "the global scope is everyone's"


@pytest.mark.parametrize("order", ["invalidate_tag", "invalidate_prefix"])
@pytest.mark.parametrize("scope", list(CacheScope))
def test_an_order_for_one_scope_concerns_that_one(face: Face, order: str, scope: CacheScope) -> None:
    ada = face.for_user("ada")
    face.set_active_user("bob")
    for view in (face, ada):
        for each in CacheScope:
            view.at_once("put", "t", 1, scope=each, tags=("t",))

    face.at_once(order, "t", scope=scope)

    assert [each for each in CacheScope if is_gone(face, "t", scope=each)] == [scope]
    assert [each for each in CacheScope if is_gone(ada, "t", scope=each)] == [scope] * (scope is GLOBAL)


def test_a_narrower_entry_that_is_gone_shows_the_wider_one(face: Face) -> None:
    face.set_active_user("ada")
    face.at_once("put", "k", "hers", scope=USER, tags=("t",))
    face.at_once("put", "k", "everyone's")
    assert (face.peek("k"), face.scope_of("k")) == (Success("hers"), USER)

    face.at_once("invalidate_tag", "t")

    assert (face.peek("k"), face.scope_of("k")) == (Success("everyone's"), GLOBAL)
    assert face.inspect("k").value == "everyone's"


def test_with_nobody_signed_in_the_user_scope_has_nothing(face: Face) -> None:
    assert face.at_once("invalidate_tag", "t", scope=USER) == Success("t")
    assert face.at_once("put", "k", 1, scope=USER, tags=("t",)) == Failure(NoActiveUser("k"))


# While something is fetched


@pytest.mark.parametrize("order", ["invalidate_tag", "expire_tag"])
@pytest.mark.parametrize("when_known", ["call", "answer", "both"])
def test_a_fetch_that_began_before_is_not_what_later_callers_get(face: Face, order: str, when_known: str) -> None:
    old = Success(Fresh("old", tags=("t",))) if when_known != "call" else Success("old")
    fetch, newer = face.fetcher(old, held=True), face.fetcher(Success(Fresh("new", tags=("t",))))
    options = {} if when_known == "answer" else {"tags": ("t",)}
    before = face.begin.get("k", fetch, **options)
    face.at_once(order, "t")
    after = face.begin.get("k", newer, **options)
    fetch.release()

    assert (before.result(), after.result()) == (Success("old"), Success("new"))
    face.settle()
    assert face.get("k", newer, **options) == Success("new")
    assert newer.calls == 1
    assert not face.cache._runtime.lives


@pytest.mark.parametrize("order", ["invalidate_tag", "expire_tag"])
@pytest.mark.parametrize("method", ["get", "refresh", "prefetch", "get_many"])
def test_however_the_later_one_asks(face: Face, order: str, method: str) -> None:
    fetch = face.fetcher(Success(Fresh("old", tags=("t",))), held=True)
    before = face.begin.get("k", fetch)
    face.at_once(order, "t")
    answer = Success(Fresh("new", tags=("t",)))
    if method == "get_many":
        after = face.begin.call("get_many", ["k"], face.fetcher(lambda _: {"k": answer}))
    else:
        after = face.begin.call(method, "k", face.fetcher(answer))
    fetch.release()

    assert before.result() == Success("old")
    assert after.result() == ({"k": Success("new")} if method == "get_many" else Success("new"))


@pytest.mark.parametrize("scope", list(CacheScope))
def test_who_asks_again_stays_in_its_scope_and_is_cached(face: Face, scope: CacheScope) -> None:
    """Also where other partitions have been dropped before."""
    face.set_active_user("bob")
    face.set_active_user("ada")
    fetch, newer = (face.fetcher(Success(Fresh(value, tags=("t",))), held=value == "old") for value in ("old", "new"))
    before = face.begin.get("k", fetch, scope=scope)
    face.at_once("invalidate_tag", "t")
    after = face.begin.get("k", newer, scope=scope)
    fetch.release()

    assert (before.result(), after.result()) == (Success("old"), Success("new"))
    assert face.peek("k", scope=scope) == Success("new")


def test_what_was_invalidated_on_the_way_is_no_news(face: Face) -> None:
    """Who watches has heard that the old value is gone, and hears nothing of it again."""
    heard = face.listen("k")
    fetch = face.fetcher(Success(Fresh("old", tags=("t",))), held=True)
    pending = face.begin.get("k", fetch)
    face.at_once("invalidate_tag", "t")
    fetch.release()

    assert pending.result() == Success("old")
    face.settle()
    assert is_gone(face)
    assert heard.results == []


def test_a_background_refresh_that_began_before_changes_nothing(face: Face) -> None:
    face.fill("k", "first", ttl=WITH_GRACE, tags=("t",))
    face.clock.advance(101)
    fetch = face.fetcher(Success("old"), held=True)
    assert face.get("k", fetch, ttl=WITH_GRACE, tags=("t",)) == Success("first")
    face.settle()
    face.at_once("invalidate_tag", "t")
    fetch.release()
    face.settle()

    assert is_gone(face)
    assert face.get("k", face.fetcher(Success("new"))) == Success("new")


# Watchers and loggers


def taken(heard: Heard) -> list[Answer]:
    """What a callback has heard since the last time."""
    results = list(heard.results)
    heard.results.clear()
    return results


class Lines(LineLogger):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)


def test_watchers_hear_of_what_is_gone(face: Face) -> None:
    face.set_active_user("ada")
    heard = {(key, scope): face.listen(key, scope=scope) for key in ("a", "b", "user:c") for scope in (GLOBAL, USER)}
    for key, scope in heard:
        face.at_once("put", key, 1, scope=scope, tags=("t",) if key == "a" else ())
    face.settle()
    for each in heard.values():
        assert taken(each) == [Success(1)]

    face.at_once("expire_tag", "t")
    face.settle()
    assert [taken(each) for each in heard.values()] == [[]] * 6, "what is stale is there still"

    face.at_once("invalidate_tag", "t")
    face.at_once("invalidate_prefix", "user:")
    face.settle()
    assert {place: taken(each) for place, each in heard.items()} == {
        ("a", GLOBAL): [Failure(CacheMiss("a"))],
        ("a", USER): [Failure(CacheMiss("a"))],
        ("b", GLOBAL): [],
        ("b", USER): [],
        ("user:c", GLOBAL): [Failure(CacheMiss("user:c"))],
        ("user:c", USER): [Failure(CacheMiss("user:c"))],
    }


def test_watchers_hear_once_of_what_is_gone_once(face: Face) -> None:
    heard = face.listen("k")
    face.at_once("put", "k", 1, tags=("t",))
    face.settle()
    taken(heard)

    for _ in range(3):
        face.at_once("invalidate_tag", "t")
        face.settle()

    assert taken(heard) == [Failure(CacheMiss("k"))]
    assert face.log.named("evict") == []


def test_watchers_of_another_user_hear_nothing(face: Face) -> None:
    ada, bob = face.for_user("ada"), face.for_user("bob")
    heard = bob.listen("k", scope=USER)
    for view in (ada, bob):
        view.at_once("put", "k", 1, scope=USER, tags=("t",))
    face.settle()
    taken(heard)

    ada.at_once("invalidate_tag", "t")
    face.settle()

    assert taken(heard) == []


def test_loggers_hear_of_each_order(face: Face) -> None:
    lines = Lines()
    logged = face.new(logger=lines)
    for order in ("invalidate_tag", "expire_tag", "invalidate_prefix"):
        logged.at_once(order, "t")

    assert lines.lines == ["invalidate_tag t", "expire_tag t", "invalidate_prefix t"]
    logged.close()


# Bad input


@pytest.mark.parametrize("order", ["invalidate_tag", "expire_tag"])
@pytest.mark.parametrize("tag", [None, 42, b"t", ("t",), ["t"]], ids=repr)
def test_a_tag_that_is_no_str_changes_nothing(face: Face, order: str, tag: Any) -> None:
    face.fill("k", 1, tags=("t",))

    assert face.at_once(order, tag) == Failure(InvalidOption("tag", type(tag).__name__))
    assert face.at_once(order, "t", scope="global") == Failure(InvalidOption("scope", "str"))
    assert face.log.take() == []
    assert face.peek("k") == Success(1)


class Hostile(list[str]):
    def __iter__(self) -> Iterator[str]:
        raise OSError


@pytest.mark.parametrize(
    "tags", ["feed", b"feed", 42, None, {"feed": 1}, ("a", 1), [b"a"], iter(("a",)), Hostile(["a"])], ids=repr
)
def test_tags_that_are_no_strs_change_nothing(face: Face, tags: Any) -> None:
    expected = Failure(InvalidOption("tags", type(tags).__name__))
    fetch = face.fetcher(Success(1))

    assert face.get("k", fetch, tags=tags) == expected
    assert face.refresh("k", fetch, tags=tags) == expected
    assert face.at_once("put", "k", 1, tags=tags) == expected
    assert face.at_once("explain", "k", tags=tags) == expected
    assert fetch.calls == 0
    assert face.get("k", face.fetcher(Success(Fresh(1, tags=tags)))) == expected
    assert is_gone(face)


def test_a_cache_that_is_closed_says_so(face: Face) -> None:
    other = face.new()
    other.close()

    for order in ("invalidate_tag", "expire_tag", "invalidate_prefix"):
        assert other.at_once(order, "t") == Failure(CacheClosed())


# With a store


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def stored(face: Face, store: FaultyStore) -> Iterator[Face]:
    cache = face.new(store=store)
    yield cache
    cache.close()


def evicted(face: Face, key: str = "k") -> None:
    """What a full memory does: only the store has it now."""
    entries = face.cache._runtime.state.partitions.get(GLOBAL_OWNER).entries
    entries.discard(key)


def test_tags_are_stored_with_the_value(stored: Face, store: FaultyStore) -> None:
    stored.fill("k", 1, tags=("b", "a"))

    assert store._entries[GLOBAL_OWNER, "k"].tags == ("b", "a")


@pytest.mark.parametrize("order", ["invalidate_tag", "expire_tag"])
def test_what_the_store_has_from_before_is_not_served(stored: Face, order: str) -> None:
    stored.fill("k", "old", tags=("t",))
    stored.clock.advance(1)
    stored.at_once(order, "t")
    evicted(stored)

    assert stored.get("k", stored.fetcher(Success("new")), tags=("t",)) == Success("new")


def test_what_the_store_has_from_later_is_served(stored: Face) -> None:
    stored.at_once("invalidate_tag", "t")
    stored.clock.advance(1)
    stored.fill("k", "new", tags=("t",))
    evicted(stored)
    fetch = stored.fetcher(Success("newer"))

    assert stored.get("k", fetch) == Success("new")
    stored.at_once("invalidate_tag", "t")
    assert stored.get("k", fetch) == Success("newer")


@pytest.mark.parametrize("order", ["invalidate_tag", "expire_tag"])
@pytest.mark.parametrize("when_known", ["call", "answer"])
def test_what_was_marked_on_the_way_comes_back_from_no_store(
    stored: Face, store: FaultyStore, order: str, when_known: str
) -> None:
    """It was made after the mark, as far as instants tell, of what was read before it."""
    fetch = stored.fetcher(Success(Fresh("old", tags=("t",)) if when_known == "answer" else "old"), held=True)
    pending = stored.begin.get("k", fetch, **({} if when_known == "answer" else {"tags": ("t",)}))
    stored.at_once(order, "t")
    stored.clock.advance(5)
    fetch.release()
    assert pending.result() == Success("old")
    evicted(stored)

    assert stored.get("k", stored.fetcher(Success("new")), tags=("t",)) == Success("new")
    entry = store._entries[GLOBAL_OWNER, "k"]
    assert entry.value == "new"


def test_what_the_store_had_before_goes_with_what_was_marked_on_the_way(stored: Face, store: FaultyStore) -> None:
    stored.fill("k", "oldest", tags=("t",), ttl=1)
    stored.clock.advance(2)
    fetch = stored.fetcher(Success("old"), held=True)
    pending = stored.begin.get("k", fetch, tags=("t",))
    stored.at_once("invalidate_tag", "t")
    fetch.release()
    pending.result()
    stored.settle()

    assert store._entries == {}


def test_a_prefix_goes_from_the_store_in_order(stored: Face, store: FaultyStore) -> None:
    for key in ("user:a", "user:b", "other"):
        stored.fill(key, 1)
    store.calls.clear()
    stored.at_once("invalidate_prefix", "user:")
    stored.fill("user:a", 2)
    stored.settle()

    assert {key for _, key in store._entries} == {"user:a", "other"}
    assert store._entries[GLOBAL_OWNER, "user:a"].value == 2
    assert stored.get("user:b", stored.fetcher(Success("new"))) == Success("new")


@pytest.mark.parametrize(
    "damage",
    [
        {"tags": 5},
        {"tags": "t"},
        {"tags": (1,)},
        {"tags": None},
        {"serve_stale_s": float("nan")},
        {"stale_if_error_s": -1.0},
        {"serve_stale_s": "soon"},
        {"ageing_at": float("nan")},
        {"ageing_at": "then"},
        {"validator": []},
    ],
    ids=repr,
)
def test_damaged_terms_are_a_miss(stored: Face, store: FaultyStore, damage: dict[str, Any]) -> None:
    stored.fill("k", 1, tags=("t",), ttl=WITH_GRACE)
    store._entries[GLOBAL_OWNER, "k"] = replace(store._entries[GLOBAL_OWNER, "k"], **damage)
    evicted(stored)
    stored.at_once("expire_tag", "x")

    assert stored.get("k", stored.fetcher(Success("new"))) == Success("new")
    assert [type(error) for _, _, error in stored.log.named("error")] == [UndecodableEntry]


# SC-8


@given(st.lists(st.sampled_from(["put", "put_t", "fetch", "fetch_t", "tag", "prefix", "clear", "expire"]), max_size=8))
def test_sc8_nobody_reads_what_was_removed(orders: list[str]) -> None:
    """Whatever was removed, by whatever order, nothing tells of it afterwards; what came later, all do."""
    with SyncCache() as cache:
        expected: dict[str, Any] = {}
        tagged: set[str] = set()
        for number, order in enumerate(orders):
            key, tags = f"k:{number % 2}", ("t",) if order.endswith("_t") else ()
            if order.startswith("put"):
                cache.put(key, number, tags=tags)
            elif order.startswith("fetch"):
                cache.refresh(key, lambda number=number: Success(number), tags=tags)
            if order.startswith(("put", "fetch")):
                expected[key] = number
                (tagged.add if tags else tagged.discard)(key)
            elif order == "tag":
                cache.invalidate_tag("t")
                expected = {key: value for key, value in expected.items() if key not in tagged}
            elif order == "prefix":
                cache.invalidate_prefix("k:1")
                expected.pop("k:1", None)
            elif order == "clear":
                cache.clear_scope(GLOBAL)
                expected = {}
            else:
                cache.expire_tag("t")
            seen = {key: cache.peek(key, allow_expired=True).value_or(None) for key in ("k:0", "k:1")}
            assert {key: value for key, value in seen.items() if value is not None} == expected
            assert {key for key in ("k:0", "k:1") if cache.inspect(key).is_present} == set(expected)


@pytest.mark.parametrize("leave", ["end_session", "set_active_user", "clear_scope", "invalidate_tag"])
def test_sc8_no_read_after_the_return_sees_what_was_cleared(sync_face: SyncFace, leave: str) -> None:
    """Threads fetch all the time; whoever clears reads nothing that was fetched before."""
    cache = sync_face.new(logger=None, clock=None)
    cache.set_active_user("ada")
    epoch = [0]
    stopped = threading.Event()
    scope = SESSION if leave == "end_session" else USER

    def write() -> None:
        while not stopped.is_set():
            cache.cache.refresh("k", lambda: Success(epoch[0]), scope=scope, tags=("t",))

    threads = [threading.Thread(target=write, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    late = []
    for number in range(1, 150):
        epoch[0] = number
        if leave == "set_active_user":
            cache.cache.set_active_user(f"user {number}")
        elif leave == "clear_scope":
            cache.cache.clear_scope(USER)
        elif leave == "invalidate_tag":
            cache.cache.invalidate_tag("t")
        else:
            cache.cache.end_session()
        seen = cache.cache.peek("k", scope=scope, allow_expired=True).value_or(number)
        late += [(number, seen)] * (seen < number)
    stopped.set()
    for thread in threads:
        thread.join(5)

    assert late == []
    cache.close()
