"""One test for each defect of the original, by its number in part B of the parity notes: ours must not have it.

What has no number here is a matter of design (16, 17, 21, 24, 26, 28) or of
the original's sibling packages.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Failure, Success

from cachemesh import (
    CacheLogger,
    CacheMiss,
    CachePolicy,
    CacheScope,
    NoActiveUser,
    NoTokenKeeper,
    ReentrantFetch,
    RetryOptions,
)
from cachemesh.stores import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from cachemesh import StoredEntry
    from cachemesh.core import Owner
    from tests.shell.faces import Answer, Face, Fetch

GLOBAL, SESSION, USER = CacheScope.GLOBAL, CacheScope.SESSION, CacheScope.USER
SWR = CachePolicy.STALE_WHILE_REVALIDATE


# races and leaks


@pytest.mark.parametrize("method", ["get", "refresh", "prefetch"])
def test_b01_late_answer_of_a_user_who_left_is_stored_nowhere(face: Face, method: str) -> None:
    face.set_active_user("alice")
    heard = face.listen("me")
    fetch = face.fetcher(Success("alice's"), held=True)
    pending = face.begin.call(method, "me", fetch, scope=USER)
    face.set_active_user("bob")
    fetch.release()

    assert pending.result() == Success("alice's")
    assert face.peek("me") == Failure(CacheMiss("me"))
    assert face.get("me", face.fetcher(Success("bob's")), scope=USER) == Success("bob's")
    face.set_active_user("alice")
    assert face.peek("me") == Failure(CacheMiss("me"))
    face.settle()
    assert Success("alice's") not in heard.results
    assert len(face.log.named("write")) == 1


def test_b01_late_background_refresh_of_a_user_who_left_is_stored_nowhere(face: Face) -> None:
    face.set_active_user("alice")
    face.fill("me", "alice's", ttl=0, scope=USER)
    fetch = face.fetcher(Success("alice's newer"), held=True)
    assert face.get("me", fetch, policy=SWR, scope=USER) == Success("alice's")
    face.settle()
    face.set_active_user("bob")
    fetch.release()
    face.settle()

    assert face.peek("me") == Failure(CacheMiss("me"))
    assert face.log.named("write") == []


def test_b01_late_failure_of_a_user_who_left_is_cached_nowhere(face: Face) -> None:
    face.set_active_user("alice")
    fetch = face.fetcher(Failure("alice is banned"), held=True)
    pending = face.begin.get("me", fetch, scope=USER, cache_failures=True)
    face.set_active_user("bob")
    fetch.release()

    assert pending.result() == Failure("alice is banned")
    assert not face.has_cached_failure("me")


def test_b02_a_flight_is_never_shared_across_users(face: Face) -> None:
    face.set_active_user("alice")
    alices, bobs = face.fetcher(Success("alice's"), held=True), face.fetcher(Success("bob's"), held=True)
    alice = face.begin.get("me", alices, scope=USER)
    face.set_active_user("bob")
    bob = face.begin.get("me", bobs, scope=USER)
    bobs.release()
    alices.release()

    assert (alice.result(), bob.result()) == (Success("alice's"), Success("bob's"))
    assert (alices.calls, bobs.calls) == (1, 1)
    assert face.peek("me") == Success("bob's")


def test_b02_a_flight_is_never_shared_across_views(face: Face) -> None:
    fetches = {name: face.fetcher(Success(name), held=True) for name in ("alice", "bob")}
    pending = {name: face.for_user(name).begin.get("me", fetch, scope=USER) for name, fetch in fetches.items()}
    for fetch in fetches.values():
        fetch.release()

    assert {name: each.result() for name, each in pending.items()} == {name: Success(name) for name in fetches}


@pytest.mark.parametrize("scope", [SESSION, USER])
def test_b03_logout_does_not_resurrect_data(face: Face, scope: CacheScope) -> None:
    face.set_active_user("alice")
    fetch = face.fetcher(Success("alice's"), held=True)
    pending = face.begin.get("me", fetch, scope=scope)
    face.end_session()
    fetch.release()

    assert pending.result() == Success("alice's")
    assert face.peek("me") == Failure(CacheMiss("me"))
    face.set_active_user("alice")
    assert face.peek("me") == Failure(CacheMiss("me"))


REMOVALS: dict[str, Callable[[Face], None]] = {
    "invalidate": lambda face: face.invalidate("k"),
    "invalidate in scope": lambda face: face.invalidate("k", scope=GLOBAL),
    "clear": lambda face: face.clear(),
    "clear_scope": lambda face: face.clear_scope(GLOBAL),
}


@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("newer_ends_first", [False, True])
def test_b04_a_removal_during_a_fetch_is_not_lost(face: Face, removal: str, *, newer_ends_first: bool) -> None:
    older, newer = face.fetcher(Success("old row"), held=True), face.fetcher(Success("new row"), held=True)
    before = face.begin.get("k", older)
    REMOVALS[removal](face)
    after = face.begin.get("k", newer)
    for fetch in (newer, older) if newer_ends_first else (older, newer):
        fetch.release()
        face.settle()

    assert (before.result(), after.result()) == (Success("old row"), Success("new row"))
    assert face.peek("k") == Success("new row")
    assert len(face.log.named("write")) == 1


@pytest.mark.parametrize("removal", REMOVALS)
def test_b04_an_answer_fetched_before_a_removal_is_not_stored(face: Face, removal: str) -> None:
    fetch = face.fetcher(Success("old row"), held=True)
    pending = face.begin.get("k", fetch)
    REMOVALS[removal](face)
    fetch.release()

    assert pending.result() == Success("old row")
    assert face.peek("k") == Failure(CacheMiss("k"))


def test_b05_a_refresh_in_another_scope_does_not_relabel_an_entry(face: Face) -> None:
    face.set_active_user("alice")
    face.get("me", face.fetcher(Success("alice's")), scope=USER)
    face.refresh("me", face.fetcher(Success("everybody's")))
    assert face.peek("me") == Success("alice's")

    face.set_active_user("bob")
    fetch = face.fetcher(Success("bob's"))
    assert face.peek("me") == Success("everybody's")
    assert face.get("me", fetch, scope=USER) == Success("bob's")
    assert fetch.calls == 1


def test_b05_a_failing_refresh_in_another_scope_does_not_relabel_an_entry(face: Face) -> None:
    face.set_active_user("alice")
    face.get("me", face.fetcher(Success("alice's")), scope=USER)
    face.refresh("me", face.fetcher(Failure("down")), cache_failures=True)
    assert face.scope_of("me") is USER

    face.set_active_user("bob")
    assert face.peek("me") == Failure(CacheMiss("me"))


@pytest.mark.parametrize("written", CacheScope)
@pytest.mark.parametrize("read", CacheScope)
def test_b05_a_key_of_one_scope_is_never_read_through_another(
    face: Face, written: CacheScope, read: CacheScope
) -> None:
    face.set_active_user("alice")
    face.fill("k", written.value, scope=written)
    expected = Success(written.value) if read is written else Failure(CacheMiss("k"))

    assert face.get("k", face.fetcher(Success(0)), policy=CachePolicy.CACHE_ONLY, scope=read) == expected
    assert face.peek("k", scope=read) == expected
    assert face.inspect("k", scope=read).is_present == (read is written)


def test_b06_scope_and_user_of_an_entry_survive_a_restart(face: Face) -> None:
    store = MemoryStore()
    first = face.new(store=store)
    first.set_active_user("alice")
    first.refresh("me", face.fetcher(Success("alice's")), scope=USER)
    first.refresh("config", face.fetcher(Success("everybody's")))
    first.close()

    second = face.new(store=store)
    second.set_active_user("bob")
    fetch = face.fetcher(Success("fetched"))
    assert second.get("me", fetch) == Success("fetched")
    second.invalidate("me")
    assert second.get("me", fetch, scope=USER) == Success("fetched")
    assert second.get("config", fetch) == Success("everybody's")
    assert fetch.calls == 2
    second.close()

    third = face.new(store=store)
    third.set_active_user("alice")
    assert third.get("me", fetch, scope=USER) == Success("alice's")
    assert third.scope_of("me") is USER
    third.close()


def test_b06_lifetimes_and_cached_failures_survive_a_restart(face: Face) -> None:
    store = MemoryStore()
    first = face.new(store=store)
    first.refresh("k", face.fetcher(Success(1)), ttl=10)
    first.get("down", face.fetcher(Failure("rate-limited")), cache_failures=True, ttl=20)
    first.close()

    face.clock.advance(9)
    second = face.new(store=store)
    fetch = face.fetcher(Success("fetched"))
    assert second.get("k", fetch) == Success(1)
    assert second.get("down", fetch) == Failure("rate-limited")
    face.clock.advance(1)
    assert second.get("k", fetch) == Success("fetched")
    face.clock.advance(10)
    assert second.get("down", fetch) == Success("fetched")
    second.close()


@pytest.mark.parametrize("scope", [None, USER], ids=["any scope", "user"])
def test_b07_a_watch_does_not_outlive_its_user(face: Face, scope: CacheScope | None) -> None:
    face.set_active_user("alice")
    heard, followed = face.listen("me", scope=scope), face.follow("me", scope=scope)
    face.refresh("me", face.fetcher(Success("alice's")), scope=USER)
    face.settle()
    face.set_active_user("bob")
    face.settle()
    face.refresh("me", face.fetcher(Success("bob's")), scope=USER)
    face.settle()
    face.set_active_user("alice")
    face.refresh("me", face.fetcher(Success("alice's again")), scope=USER)
    face.settle()

    assert heard.results == [Success("alice's"), Failure(CacheMiss("me"))]
    assert followed.results == heard.results
    assert followed.has_ended or scope is None


def test_b07_a_watch_in_the_user_scope_without_a_user_hears_nobodys_data(face: Face) -> None:
    heard = face.listen("me", scope=USER)
    face.set_active_user("alice")
    face.refresh("me", face.fetcher(Success("alice's")), scope=USER)
    face.settle()

    assert heard.results == [Failure(NoActiveUser("me"))]


@pytest.mark.parametrize("after_a_pause", [False, True], ids=["directly", "after a pause"])
@pytest.mark.parametrize("policy", [CachePolicy.CACHE_FIRST, CachePolicy.NETWORK_FIRST, CachePolicy.NETWORK_ONLY, SWR])
def test_b08_a_fetcher_that_asks_for_its_own_key_is_told_so(
    face: Face,
    policy: CachePolicy,
    *,
    after_a_pause: bool,
) -> None:
    inner = face.fetcher(Success("inner"))
    fetch = face.nested(lambda cache: cache.get("k", inner, policy=policy), after_a_pause=after_a_pause)

    assert face.get("k", fetch, policy=policy) == Failure(ReentrantFetch("k"))
    assert inner.calls == 0
    assert face.get("k", inner) == Success("inner")


def test_b08_a_fetcher_that_passes_its_own_flight_by_is_told_so_too(face: Face) -> None:
    """Nothing would wait here; it would only recurse, as deep as the fetcher likes."""
    inner = face.fetcher(Success("inner"))

    def invalidate_and_ask(cache: Any) -> Any:
        cache.invalidate("k")
        return cache.get("k", inner)

    bypassing = face.nested(lambda cache: cache.get("k", inner, policy=CachePolicy.NETWORK_ONLY))
    assert face.get("k", bypassing) == Failure(ReentrantFetch("k"))
    assert face.get("k", face.nested(invalidate_and_ask)) == Failure(ReentrantFetch("k"))
    assert inner.calls == 0


def test_b08_fetchers_that_ask_for_each_others_keys_are_told_so(face: Face) -> None:
    a: Fetch = face.nested(lambda cache: cache.get("b", b))
    b: Fetch = face.nested(lambda cache: cache.get("a", a))

    assert face.get("a", a) == Failure(ReentrantFetch("a"))
    assert (a.calls, b.calls) == (1, 1)


def test_b08_fetches_under_way_that_come_to_wait_for_each_other_are_told_so(face: Face) -> None:
    a: Fetch = face.fetcher(lambda: face.cache.get("b", b), held=True)
    b: Fetch = face.fetcher(lambda: face.cache.get("a", a), held=True)
    pending = face.begin.get("a", a), face.begin.get("b", b)
    a.release()
    face.settle()
    b.release()

    assert [each.result() for each in pending] == [Failure(ReentrantFetch("a"))] * 2
    assert (a.calls, b.calls) == (1, 1)


def test_b08_a_fetcher_may_ask_for_another_key(face: Face) -> None:
    inner = face.fetcher(Success("inner"))

    assert face.get("outer", face.nested(lambda cache: cache.get("inner", inner))) == Success("inner")
    assert face.get("outer", inner) == face.get("inner", inner) == Success("inner")
    assert inner.calls == 1


def test_b09_a_joiner_who_wants_the_answer_cached_gets_it_cached(face: Face) -> None:
    fetch = face.fetcher(Success(1), held=True)
    bypassing = face.begin.get("k", fetch, policy=CachePolicy.NETWORK_ONLY)
    caching = face.begin.get("k", fetch, ttl=10)
    fetch.release()

    assert (bypassing.result(), caching.result()) == (Success(1), Success(1))
    assert fetch.calls == 1
    assert face.peek("k") == Success(1)
    assert face.log.named("write") == [("write", "k", 10.0)]


def test_b09_network_only_joins_no_fetch_that_began_before_it(face: Face) -> None:
    older, newer = face.fetcher(Success("older"), held=True), face.fetcher(Success("newer"))
    caching = face.begin.get("k", older)

    assert face.get("k", newer, policy=CachePolicy.NETWORK_ONLY) == Success("newer")
    older.release()
    assert caching.result() == Success("older")
    assert (older.calls, newer.calls) == (1, 1)
    assert face.peek("k") == Success("older")


@pytest.mark.parametrize("ttls", [(3600, 10), (10, 3600), (None, 10), (10, None)])
def test_b09_the_shortest_ttl_of_those_who_share_a_fetch_holds(face: Face, ttls: tuple[float | None, ...]) -> None:
    fetch = face.fetcher(Success(1), held=True)
    pending = [face.begin.get("k", fetch, ttl=ttl) for ttl in ttls]
    fetch.release()

    assert [each.result() for each in pending] == [Success(1)] * 2
    assert face.log.named("write") == [("write", "k", 10.0)]


def test_b09_a_joiner_who_wants_failures_cached_gets_them_cached(face: Face) -> None:
    fetch = face.fetcher(Failure("down"), held=True)
    pending = [face.begin.get("k", fetch, cache_failures=wanted) for wanted in (False, True)]
    fetch.release()

    assert [each.result() for each in pending] == [Failure("down")] * 2
    assert face.has_cached_failure("k")


def test_b09_a_joiner_who_wants_retries_gets_them(face: Face) -> None:
    fetch = face.fetcher(Failure("down"), Success(2), held=True)
    pending = [face.begin.get("k", fetch, retry=RetryOptions(max_attempts=attempts)) for attempts in (1, 2)]
    fetch.release()

    assert [each.result() for each in pending] == [Success(2)] * 2


def test_b09_a_fetch_in_one_scope_is_not_joined_from_another(face: Face) -> None:
    face.set_active_user("alice")
    fetches = {scope: face.fetcher(Success(scope.value), held=True) for scope in CacheScope}
    pending = {scope: face.begin.get("k", fetch, scope=scope) for scope, fetch in fetches.items()}
    for fetch in fetches.values():
        fetch.release()

    for scope in CacheScope:
        assert pending[scope].result() == Success(scope.value)
        assert face.peek("k", scope=scope) == Success(scope.value)


def test_b10_a_value_of_another_type_than_expected_never_raises(face: Face) -> None:
    heard = face.listen("k")
    assert face.get("k", face.fetcher(Success(1))) == Success(1)
    assert face.get("k", face.fetcher(Success("text"))) == Success(1)
    face.settle()
    assert face.refresh("k", face.fetcher(Success("text"))) == Success("text")
    face.settle()

    assert heard.results == [Success(1), Success("text")]


# failure caching and policies


def test_b11_a_cached_failure_without_a_ttl_does_not_poison_its_key(face: Face) -> None:
    fetch = face.fetcher(Failure("one blip"), Success("back"))
    face.get("k", fetch, cache_failures=True, ttl=None)
    face.clock.advance(59)
    assert face.get("k", fetch, cache_failures=True, ttl=None) == Failure("one blip")
    face.clock.advance(1)

    assert face.get("k", fetch, cache_failures=True, ttl=None) == Success("back")


@pytest.mark.parametrize("cache_failures", [True, False])
def test_b13_an_older_cached_failure_does_not_mask_the_real_one(face: Face, *, cache_failures: bool) -> None:
    face.get("k", face.fetcher(Failure("older")), cache_failures=True)
    fetch = face.fetcher(Failure("real"))

    assert face.get("k", fetch, policy=CachePolicy.NETWORK_FIRST, cache_failures=cache_failures) == Failure("real")


@pytest.mark.parametrize("policy", [CachePolicy.CACHE_FIRST, SWR], ids=lambda policy: policy.name)
def test_b14_cache_failures_false_is_not_answered_from_a_cached_failure(face: Face, policy: CachePolicy) -> None:
    face.get("k", face.fetcher(Failure("older")), cache_failures=True)

    assert face.get("k", face.fetcher(Success(1)), policy=policy, cache_failures=False) == Success(1)


def test_b14_cache_only_with_cache_failures_false_answers_a_miss(face: Face) -> None:
    face.get("k", face.fetcher(Failure("older")), cache_failures=True)
    answer = face.get("k", face.fetcher(Success(1)), policy=CachePolicy.CACHE_ONLY, cache_failures=False)

    assert answer == Failure(CacheMiss("k"))


@pytest.mark.parametrize("cache_failures", [True, False])
def test_b15_swr_does_not_hammer_a_dead_origin(face: Face, *, cache_failures: bool) -> None:
    face.fill("k", "stale", ttl=0)
    fetch = face.fetcher(Failure("dead"))

    def gets_and_fetches() -> int:
        before = fetch.calls
        for _ in range(5):
            assert face.get("k", fetch, policy=SWR, cache_failures=cache_failures) == Success("stale")
            face.settle()
        return fetch.calls - before

    assert gets_and_fetches() == 1
    face.clock.advance(29.75)
    assert gets_and_fetches() == 0
    face.clock.advance(0.25)
    assert gets_and_fetches() == 1


def test_b15_a_success_ends_the_back_off(face: Face) -> None:
    face.fill("k", "stale", ttl=0)
    fetch = face.fetcher(Failure("dead"), Success("alive"), Success("newer"))
    face.get("k", fetch, policy=SWR)
    face.settle()
    assert face.refresh("k", fetch, ttl=0) == Success("alive")
    face.get("k", fetch, policy=SWR)
    face.settle()

    assert fetch.calls == 3
    assert face.peek("k") == Success("newer")


def test_b15_swr_with_nothing_cached_heeds_a_cached_failure(face: Face) -> None:
    fetch = face.fetcher(Failure("dead"))

    assert [face.get("k", fetch, policy=SWR, cache_failures=True) for _ in range(3)] == [Failure("dead")] * 3
    assert fetch.calls == 1


def test_b18_a_failure_does_not_stand_beside_a_fresh_value(face: Face) -> None:
    face.fill("k", 1, ttl=30)
    face.refresh("k", face.fetcher(Failure("older")), cache_failures=True)
    assert not face.has_cached_failure("k")
    assert face.get("k", face.fetcher(Success(2))) == Success(1)

    face.clock.advance(30)
    assert face.get("k", face.fetcher(Success(2))) == Success(2)


def test_b18_a_success_takes_the_place_of_a_cached_failure(face: Face) -> None:
    face.get("k", face.fetcher(Failure("older")), cache_failures=True)
    face.refresh("k", face.fetcher(Success(1)), ttl=5)
    face.clock.advance(5)

    assert not face.has_cached_failure("k")
    assert face.get("k", face.fetcher(Success(2))) == Success(2)


def test_b19_a_failed_background_refresh_reaches_watchers_and_the_logger(face: Face) -> None:
    face.fill("k", "stale", ttl=0)
    heard = face.listen("k")
    face.get("k", face.fetcher(Failure("dead")), policy=SWR)
    face.settle()

    assert heard.results == [Failure("dead")]
    assert face.log.named("error") == [("error", "k", "dead")]


@pytest.mark.parametrize("scope", CacheScope)
@pytest.mark.parametrize("removal", ["invalidate", "clear", "clear_scope", "end_session", "set_active_user"])
def test_b19_watchers_hear_of_a_removal(face: Face, removal: str, scope: CacheScope) -> None:
    face.set_active_user("alice")
    face.fill("k", 1, scope=scope)
    heard = face.listen("k")
    arguments = {"invalidate": ("k",), "clear_scope": (scope,), "set_active_user": (None,)}.get(removal, ())
    face.at_once(removal, *arguments)
    face.settle()

    keeps = {"end_session": {GLOBAL}, "set_active_user": {GLOBAL, SESSION}}.get(removal, set())
    assert heard.results == ([] if scope in keeps else [Failure(CacheMiss("k"))])


class BrokenLogger(CacheLogger):
    """Raises whatever it hears of."""

    def __init__(self) -> None:
        for name in dir(CacheLogger):
            if name.startswith("on_"):
                setattr(self, name, self.fail)

    def fail(self, *event: object) -> None:
        msg = f"cannot log {event}"
        raise OSError(msg)


class BrokenStore:
    """Its disk is gone."""

    async def read(self, owner: Owner, key: str) -> StoredEntry | None:
        raise OSError(owner, key)

    async def write(self, entry: StoredEntry) -> None:
        raise OSError(entry)

    async def delete(self, owner: Owner, key: str) -> None:
        raise OSError(owner, key)

    async def clear_partition(self, owner: Owner) -> None:
        raise OSError(owner)

    async def clear(self) -> None:
        raise OSError

    async def keys(self, owner: Owner) -> Collection[str]:
        raise OSError(owner)


def test_b20_a_predicate_that_raises_costs_no_answer(face: Face) -> None:
    def cannot_tell(error: object) -> bool:
        raise KeyError(error)

    fetch = face.fetcher(Failure("down"))

    assert face.get("k", fetch, retry=RetryOptions(max_attempts=3, retry_when=cannot_tell)) == Failure("down")
    assert fetch.calls == 1


def test_b20_a_logger_that_raises_costs_no_answer(face: Face) -> None:
    face = face.new(logger=BrokenLogger())
    fetch = face.fetcher(Success(1))
    face.set_active_user("alice")

    for scope in CacheScope:
        assert [face.get("k", fetch, scope=scope) for _ in range(2)] == [Success(1)] * 2
    assert face.get("k", fetch, policy=SWR, always_revalidate=True) == Success(1)
    face.settle()
    retry = RetryOptions(max_attempts=2)
    assert face.get("bad", face.fetcher(Failure("down")), retry=retry) == Failure("down")
    face.invalidate("k")
    face.end_session()
    face.clear()
    assert face.peek("k") == Failure(CacheMiss("k"))


def test_b20_a_store_that_raises_costs_no_answer(face: Face) -> None:
    face = face.new(store=BrokenStore())
    fetch = face.fetcher(Success(1), Success(2))

    assert [face.get("k", fetch), face.get("k", fetch)] == [Success(1), Success(1)]
    assert face.refresh("k", fetch) == Success(2)
    face.invalidate("k")
    face.clear_scope(GLOBAL)
    face.clear()
    face.settle()
    assert face.peek("k") == Failure(CacheMiss("k"))
    assert face.log.named("error") != []
    face.close()


def test_b20_a_clock_that_raises_costs_no_answer(face: Face) -> None:
    def broken() -> float:
        raise OSError

    face = face.new(clock=broken)

    assert face.get("k", face.fetcher(Success(1)), ttl=5) == Success(1)
    assert face.get("k", face.fetcher(Success(2)), ttl=5) == Success(1)


def test_b20_a_watcher_that_raises_costs_neither_an_answer_nor_the_others_theirs(face: Face) -> None:
    def cannot_hear(result: Answer) -> None:
        raise OSError(result)

    watch = face.at_once("watch", "k")
    other = face.listen("k")
    subscribe_in(face, watch, cannot_hear)

    assert face.get("k", face.fetcher(Success(1))) == Success(1)
    face.settle()
    assert face.refresh("k", face.fetcher(Success(2))) == Success(2)
    face.settle()
    assert other.results == [Success(1), Success(2)]


def subscribe_in(face: Face, watch: Any, callback: Callable[[Answer], None]) -> Any:
    """Subscribe as `Face.listen` does: inside the loop, where there is one."""
    return face.inside(lambda: watch.subscribe(callback))


@pytest.mark.parametrize("method", ["get", "refresh", "prefetch"])
def test_b20_no_active_user_is_an_answer(face: Face, method: str) -> None:
    assert face.call(method, "k", face.fetcher(Success(1)), scope=USER) == Failure(NoActiveUser("k"))


def test_b20_no_token_keeper_is_an_answer(face: Face) -> None:
    assert face.get_authenticated("k", face.fetcher(Success(1)), scope=GLOBAL) == Failure(NoTokenKeeper("k"))


def test_b22_clear_scope_global_clears_the_global_scope(face: Face) -> None:
    face.set_active_user("alice")
    for key, scope in (("g", GLOBAL), ("s", SESSION), ("u", USER)):
        face.fill(key, 1, scope=scope)
    face.get("failed", face.fetcher(Failure("down")), cache_failures=True)
    face.clear_scope(GLOBAL)

    assert [face.peek(key) for key in "gsu"] == [Failure(CacheMiss("g")), Success(1), Success(1)]
    assert not face.has_cached_failure("failed")


def test_b23_retries_do_not_multiply_with_the_token_keepers_own(face: Face) -> None:
    """The original calls twice an attempt, six times here. What is rejected with a fresh token stays rejected."""
    face = face.new(token_keeper=face.keeper(*"abcdef"), retry=RetryOptions(max_attempts=3))
    face.set_active_user("alice")
    fetch = face.fetcher(Failure("unauthorized"))

    assert face.get_authenticated("me", fetch) == Failure("unauthorized")
    assert fetch.arguments == [("a",), ("b",)]


def test_b23_an_authenticated_fetch_is_retried_where_it_was_not_rejected(face: Face) -> None:
    face = face.new(token_keeper=face.keeper("tok"), retry=RetryOptions(max_attempts=3))
    face.set_active_user("alice")
    fetch = face.fetcher(Failure("down"), Failure("down"), Success("me"))

    assert face.get_authenticated("me", fetch) == Success("me")
    assert fetch.calls == 3


@pytest.mark.parametrize("scope", CacheScope)
def test_b23_a_rejection_does_not_survive_a_new_login(face: Face, scope: CacheScope) -> None:
    face = face.new(token_keeper=face.keeper("tok"), cache_failures=True)
    face.set_active_user("alice")
    fetch = face.fetcher(Failure("unauthorized"), Success("bob's"))
    assert face.get_authenticated("me", fetch, scope=scope) == Failure("unauthorized")
    face.set_active_user("bob")

    assert face.get_authenticated("me", fetch, scope=scope) == Success("bob's")


# memory, and stores


def test_b25_memory_is_bounded(face: Face) -> None:
    face = face.new(max_entries=10)
    face.set_active_user("alice")
    keys = [f"k{number}" for number in range(200)]
    for key in keys:
        face.get(key, face.fetcher(Success(key)), ttl=1, scope=USER)
        face.get(key, face.fetcher(Success(key)))

    kept = [face.inspect(key, scope=scope).is_present for key in keys for scope in (USER, GLOBAL)]
    assert 0 < sum(kept) <= 10


def test_b25_a_cancelled_watch_leaves_nothing_behind(face: Face) -> None:
    class Screen:
        def show(self, result: Answer) -> None:
            raise AssertionError(result)

    screen = Screen()
    gone = weakref.ref(screen)
    subscription = subscribe_in(face, face.at_once("watch", "k"), screen.show)
    face.inside(subscription.cancel)
    del screen, subscription
    face.settle()
    gc.collect()

    assert gone() is None
    assert face.refresh("k", face.fetcher(Success(1))) == Success(1)


def test_b25_a_watch_that_is_dropped_without_being_closed_leaves_nothing_behind(face: Face) -> None:
    watch = face.at_once("watch", "k")
    gone = weakref.ref(watch)
    del watch
    face.settle()
    gc.collect()

    assert gone() is None


def test_b25_a_cached_failure_holds_no_frames(face: Face) -> None:
    class Request:
        """Something that a fetcher's frame holds on to."""

    def failing_fetcher() -> tuple[Fetch, weakref.ref[Request]]:
        request = Request()

        def fail() -> Answer:
            msg = f"{type(request).__name__} failed"
            raise OSError(msg)

        return face.fetcher(fail), weakref.ref(request)

    fetch, gone = failing_fetcher()
    answer = face.get("k", fetch, cache_failures=True)
    assert str(answer.failure().error) == "Request failed"
    assert face.has_cached_failure("k")
    del fetch, answer
    face.settle()
    gc.collect()

    assert gone() is None


class SlowStore(MemoryStore):
    """A disk: while it is held, reading takes until it goes on, on whatever loop it is used."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self._held: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] | None = None

    async def read(self, owner: Owner, key: str) -> StoredEntry | None:
        self.reads += 1
        if self._held is not None:
            gate = asyncio.Event()
            self._held.append((asyncio.get_running_loop(), gate))
            await gate.wait()
        return await super().read(owner, key)

    def hold(self) -> None:
        self.reads = 0
        self._held = []

    def go_on(self) -> None:
        assert self._held is not None
        held, self._held = self._held, None
        for loop, gate in held:
            loop.call_soon_threadsafe(gate.set)


def test_b27_a_store_may_take_its_time_and_holds_nobody_else_up(face: Face) -> None:
    store = SlowStore()
    before_the_restart = face.new(store=store)
    before_the_restart.refresh("cold", face.fetcher(Success("from disk")))
    before_the_restart.close()

    face = face.new(store=store)
    face.refresh("hot", face.fetcher(Success("in memory")))
    store.hold()
    fetch = face.fetcher(Success("fetched"))
    cold = [face.begin.get("cold", fetch) for _ in range(3)]

    assert face.get("hot", fetch) == Success("in memory")
    assert [each.is_done for each in cold] == [False] * 3
    store.go_on()
    assert [each.result() for each in cold] == [Success("from disk")] * 3
    assert (fetch.calls, store.reads) == (0, 1)
    face.close()
