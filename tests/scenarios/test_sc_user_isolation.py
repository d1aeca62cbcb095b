"""Scopes: what one user has cached, no other user sees, by whatever channel."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from returns.result import Failure, Success

from cachemesh import (
    Cache,
    CacheExpired,
    CacheMiss,
    CachePolicy,
    CacheScope,
    NoActiveUser,
    SyncCache,
)
from cachemesh.testing.loop import run
from tests.scenarios.helpers import ScriptedStore, async_value, guarded, listen, together, under_way

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.scenarios.helpers import Answer
    from tests.shell.faces import Face

GLOBAL, SESSION, USER = CacheScope.GLOBAL, CacheScope.SESSION, CacheScope.USER
SWR = CachePolicy.STALE_WHILE_REVALIDATE
ALICES, BOBS = Success("alice's"), Success("bob's")
MISS = Failure(CacheMiss("me"))


def leave(face: Face, how: str) -> None:
    """Alice leaves, and Bob is there."""
    if how == "logout":
        face.end_session()
    elif how == "nobody":
        face.set_active_user(None)
    face.set_active_user("bob")


# SC-1, SC-2: in mid-flight


@pytest.mark.parametrize("how", ["switch", "logout", "nobody"])
@pytest.mark.parametrize("policy", [CachePolicy.CACHE_FIRST, CachePolicy.NETWORK_FIRST, CachePolicy.NETWORK_ONLY, SWR])
@pytest.mark.parametrize("has_store", [False, True])
def test_sc1_late_answer_is_seen_by_its_asker_alone(face: Face, how: str, policy: CachePolicy, has_store: bool) -> None:
    face = face.new(store=ScriptedStore()) if has_store else face
    face.set_active_user("alice")
    alices = face.fetcher(ALICES, held=True)
    pending = face.begin.get("me", alices, scope=USER, policy=policy)
    leave(face, how)
    assert face.peek("me") == MISS
    bobs = face.fetcher(BOBS, held=True)
    bob = face.begin.get("me", bobs, scope=USER, policy=policy)
    alices.release()
    assert pending.result() == ALICES
    assert face.peek("me") == MISS
    bobs.release()
    assert bob.result() == BOBS
    assert face.get("me", face.fetcher(Failure("?")), scope=USER, policy=CachePolicy.CACHE_FIRST) == (
        BOBS if policy is not CachePolicy.NETWORK_ONLY else Failure("?")
    )
    face.set_active_user("alice")
    assert face.get("me", face.fetcher(Success("alice's new one")), scope=USER) == Success("alice's new one")
    assert (alices.calls, bobs.calls) == (1, 1)
    assert under_way(face.cache) == 0
    face.close()


def test_sc1_fallback_of_a_user_who_left_is_not_served(face: Face) -> None:
    """network_first falls back on what is cached; that went with alice."""
    face.set_active_user("alice")
    face.fill("me", "alice's", scope=USER)
    fetch = face.fetcher(Failure("down"), held=True)
    pending = face.begin.get("me", fetch, scope=USER, policy=CachePolicy.NETWORK_FIRST)
    face.set_active_user("bob")
    face.fill("me", "bob's", scope=USER)
    fetch.release()
    assert pending.result() == Failure("down")


def test_sc1_alice_who_comes_back_does_not_find_her_late_answer(face: Face) -> None:
    face.set_active_user("alice")
    fetch = face.fetcher(ALICES, held=True)
    pending = face.begin.get("me", fetch, scope=USER)
    face.set_active_user("bob")
    face.set_active_user("alice")
    newer = face.fetcher(Success("alice's newer"), held=True)
    again = face.begin.get("me", newer, scope=USER)
    fetch.release()
    assert pending.result() == ALICES
    newer.release()
    assert again.result() == Success("alice's newer")
    assert newer.calls == 1
    assert face.peek("me") == Success("alice's newer")


def test_sc1_load_that_began_for_alice_is_not_admitted_for_bob(face: Face) -> None:
    """The store answers after the switch."""
    store = ScriptedStore()
    first = face.new(store=store)
    first.set_active_user("alice")
    first.fill("me", "alice's", scope=USER)
    alices = dict(store.kept)
    assert len(alices) == 1

    other = face.new(store=SwitchingStore(alices, lambda: other.cache.set_active_user("bob")))
    other.set_active_user("alice")
    answer = other.get("me", other.fetcher(lambda *_: Success(f"{other.cache.active_user_id}'s")), scope=USER)
    assert answer == BOBS
    assert other.peek("me") == Failure(CacheMiss("me")), "asked for by alice: stored nowhere"
    other.close()
    first.close()


class SwitchingStore(ScriptedStore):
    """Somebody else signs in while it reads."""

    def __init__(self, kept: dict[Any, Any], switch: Callable[[], None]) -> None:
        super().__init__()
        self.kept = kept
        self._switch = switch

    async def read(self, owner: Any, key: str) -> Any:
        found = self.kept.get((owner, key))
        await asyncio.get_running_loop().run_in_executor(None, self._switch)
        return found


# SC-3: other scopes, other users, nobody


def every_read(face: Face, key: str, scope: CacheScope | None) -> list[object]:
    heard = listen(face, key) if scope is None else listen(face, key, scope=scope)
    only = CachePolicy.CACHE_ONLY
    news = {
        "peek": face.peek(key, scope=scope),
        "peek expired": face.peek(key, scope=scope, allow_expired=True),
        "inspect": face.inspect(key, scope=scope).value,
        "failure": face.has_cached_failure(key, scope=scope),
        "get": face.get(key, face.fetcher(Failure("?")), policy=only, scope=scope or GLOBAL),
        "watch": [news for news in heard.take() if isinstance(news, Success)],
    }
    heard.cancel()
    return [name for name, found in news.items() if "alice" in repr(found) or found is True]


@pytest.mark.parametrize("remembers", [False, True])
def test_sc3_a_users_key_is_seen_in_no_other_way(face: Face, remembers: bool) -> None:
    face.set_active_user("alice")
    if remembers:
        face.get("me", face.fetcher(Failure("alice is banned")), scope=USER, cache_failures=True, ttl=60)
        assert face.has_cached_failure("me")
    else:
        face.fill("me", "alice's", scope=USER)

    for reader in (face, face.for_user("bob"), face.for_user("")):
        scopes: list[CacheScope | None] = [GLOBAL, SESSION] if reader is face else [None, GLOBAL, SESSION, USER]
        for scope in scopes:
            assert every_read(reader, "me", scope) == [], (reader, scope)
    face.set_active_user("bob")
    assert [every_read(face, "me", scope) for scope in (None, GLOBAL, SESSION, USER)] == [[]] * 4
    face.set_active_user(None)
    assert [every_read(face, "me", scope) for scope in (None, GLOBAL, SESSION, USER)] == [[]] * 4


def test_sc3_views_sessions_are_apart_from_each_other_and_from_the_caches(face: Face) -> None:
    views = {name: face.for_user(name) for name in ("alice", "bob")}
    for name, view in views.items():
        view.fill("cart", name, scope=SESSION)
    face.fill("cart", "everyone's session", scope=SESSION)
    assert {name: view.peek("cart") for name, view in views.items()} == {name: Success(name) for name in views}
    views["alice"].end_session()
    assert views["alice"].peek("cart") == Failure(CacheMiss("cart"))
    assert views["bob"].peek("cart") == Success("bob")
    assert face.peek("cart") == Success("everyone's session")
    face.end_session()
    assert views["bob"].peek("cart") == Success("bob")


def test_sc3_nobody_is_not_a_user(face: Face) -> None:
    for act in (face.get, face.refresh, face.prefetch):
        fetch = face.fetcher(ALICES)
        assert act("me", fetch, scope=USER) == Failure(NoActiveUser("me"))
        assert fetch.calls == 0
    face.set_active_user("alice")
    face.fill("me", "alice's", scope=USER)
    face.end_session()
    assert face.active_user_id is None
    assert face.get("me", face.fetcher(ALICES), scope=USER) == Failure(NoActiveUser("me"))
    assert face.peek("me") == MISS


# SC-4 and SC-7: watchers and failures


@pytest.mark.parametrize("how", ["switch", "logout", "nobody"])
@pytest.mark.parametrize("scope", [None, USER])
def test_sc4_watch_of_alice_hears_nothing_of_bob(face: Face, how: str, scope: CacheScope | None) -> None:
    face.set_active_user("alice")
    heard, followed = listen(face, "me", scope=scope), face.follow("me", scope=scope)
    face.fill("me", "alice's", scope=USER)
    pending_fetch = face.fetcher(Success("alice's late one"), held=True)
    pending = face.begin.refresh("me", pending_fetch, scope=USER)
    leave(face, how)
    face.settle()
    assert heard.take()[-1] == MISS
    assert followed.take()[-1] == MISS
    pending_fetch.release()
    pending.result()
    face.fill("me", "bob's", scope=USER)
    face.get("me", face.fetcher(Failure("bob is banned")), scope=USER, policy=CachePolicy.NETWORK_FIRST)
    face.settle()
    assert heard.take() == []
    assert followed.take() == []
    assert followed.has_ended is (scope is USER)
    heard.cancel()


def test_sc4_news_of_alice_that_nobody_took_is_not_delivered_after_she_left() -> None:
    """Her value was evicted, her watch has not been read since, and now Bob sits there."""

    async def main() -> list[Any]:
        cache = Cache(max_entries=1)
        cache.set_active_user("alice")
        async with cache.watch("me", scope=USER) as updates:
            await cache.refresh("me", async_value("alice's"), scope=USER)
            for number in range(5):
                await cache.get(f"k{number}", async_value(number))
            cache.set_active_user("bob")
            return [news async for news in updates]

    assert ALICES not in run(main())


def test_sc4_session_watch_does_not_reach_into_the_next_session(face: Face) -> None:
    """The session of whoever signs in next is another session."""
    face.set_active_user("alice")
    heard = listen(face, "cart", scope=SESSION)
    face.end_session()
    face.set_active_user("bob")
    face.fill("cart", "bob's", scope=SESSION)
    face.settle()
    assert BOBS not in heard.take()


def test_sc7_failure_of_one_user_is_no_failure_of_another(face: Face) -> None:
    banned = Failure("alice is banned")
    face.set_active_user("alice")
    face.get("me", face.fetcher(banned), scope=USER, cache_failures=True)
    assert face.get("me", face.fetcher(ALICES), scope=USER) == banned
    face.set_active_user("bob")
    assert face.get("me", face.fetcher(BOBS), scope=USER) == BOBS
    face.set_active_user("alice")
    assert face.get("me", face.fetcher(ALICES), scope=USER) == ALICES


def test_sc7_stored_entry_of_one_user_is_found_by_that_user_alone(face: Face) -> None:
    store = ScriptedStore()
    before = face.new(store=store)
    before.set_active_user("alice")
    before.fill("me", "alice's", scope=USER)
    before.fill("me", "session", scope=SESSION)
    before.close()
    for user in ("bob", "alic", "alice ", ""):
        after = face.new(store=store)
        after.set_active_user(user)
        assert after.get("me", after.fetcher(BOBS), scope=USER) == BOBS
        assert after.for_user("alice").get("me", after.fetcher(BOBS), scope=SESSION) == BOBS
        after.close()
    after = face.new(store=store)
    after.set_active_user("alice")
    assert after.get("me", after.fetcher(Failure("?")), scope=USER) == ALICES
    after.close()


def test_sc7_entry_that_the_store_hands_out_for_another_owner_is_not_believed(face: Face) -> None:
    """An off-by-one reply: what comes back names its owner and key."""
    store = ScriptedStore()
    other = face.new(store=store)
    other.for_user("alice").fill("me", "alice's", scope=USER)
    other.for_user("alice").fill("you", "alice's", scope=USER)
    alices = store.kept[(USER, "alice"), "me"]
    for owner, key in [((USER, "bob"), "me"), ((GLOBAL, None), "me"), ((USER, "alice"), "other")]:
        store.kept[owner, key] = alices
    assert other.for_user("bob").get("me", other.fetcher(BOBS), scope=USER) == BOBS
    assert other.get("me", other.fetcher(BOBS)) == BOBS
    assert other.for_user("alice").get("other", other.fetcher(BOBS), scope=USER) == BOBS
    assert len(other.log.named("error")) == 3
    other.close()


# SC-5 and SC-6: servers


def test_sc5_many_users_at_once_each_see_their_own() -> None:
    users, requests = 50, 200

    async def main() -> None:
        cache = Cache(max_entries=500, default_ttl=0.5)
        chance = random.Random(7)

        def fetch_of(owner: str, key: str) -> Callable[[], Any]:
            async def fetch() -> Answer:
                await asyncio.sleep(chance.random() / 100)
                return Failure((owner, key)) if chance.random() < 0.1 else Success((owner, key))

            return fetch

        async def serve(user: str) -> None:
            for _ in range(requests):
                view = cache.for_user(user)
                key = f"k{chance.randrange(10)}"
                scope = chance.choice([USER, SESSION, GLOBAL])
                owner = "everyone" if scope is GLOBAL else f"{user} {scope}"
                fetch = fetch_of(owner, key)
                act = chance.randrange(12)
                if act == 0:
                    view.end_session()
                elif act == 1:
                    view.invalidate(key, scope=scope)
                elif act == 2:
                    assert_own(await view.refresh(key, fetch, scope=scope, cache_failures=True), owner, key)
                else:
                    policy = chance.choice([CachePolicy.CACHE_FIRST, CachePolicy.NETWORK_FIRST, SWR])
                    assert_own(await view.get(key, fetch, scope=scope, policy=policy, cache_failures=True), owner, key)
                    assert_own(view.peek(key, scope=scope, allow_expired=True), owner, key)

        await asyncio.gather(*(serve(f"user{number}") for number in range(users)))
        await asyncio.sleep(1)
        assert under_way(cache) == 0

    run(main())


def assert_own(answer: Answer, owner: str, key: str) -> None:
    seen = answer.failure() if isinstance(answer, Failure) else answer.unwrap()
    assert seen == (owner, key) or isinstance(seen, CacheMiss), f"{owner} {key} was answered {seen}"


def test_sc6_many_users_over_threads_each_see_their_own() -> None:
    cache = SyncCache(max_entries=300, default_ttl=0.01)
    before = sys.getswitchinterval()

    def serve(user: str) -> None:
        chance = random.Random(user)
        view = cache.for_user(user)
        for _ in range(150):
            key = f"k{chance.randrange(5)}"
            scope = chance.choice([USER, SESSION])
            owner = f"{user} {scope}"

            def fetch(owner: str = owner, key: str = key) -> Answer:
                if chance.random() < 0.2:
                    time.sleep(0.0005)
                return Success((owner, key))

            act = chance.randrange(10)
            if act == 0:
                view.end_session()
            elif act == 1:
                view.clear()
            else:
                policy = chance.choice([CachePolicy.CACHE_FIRST, SWR, CachePolicy.NETWORK_FIRST])
                assert_own(view.get(key, fetch, scope=scope, policy=policy), owner, key)

    sys.setswitchinterval(1e-5)
    try:
        together([lambda number=number: serve(f"user{number % 10}") for number in range(20)], 20)  # type: ignore[misc]
        guarded(cache.close)
    finally:
        sys.setswitchinterval(before)


def test_sc6_missing_user_is_missing_wherever_the_call_comes_from() -> None:
    expected = Failure(NoActiveUser("me"))
    cache = SyncCache()
    fetch = lambda: BOBS  # noqa: E731 (short)
    with ThreadPoolExecutor(2) as pool:
        assert pool.submit(lambda: cache.get("me", fetch, scope=USER)).result(5) == expected

    async def main() -> list[Answer]:
        shared = Cache()

        async def ask() -> Answer:
            return await shared.get("me", async_value(1), scope=USER)

        async with asyncio.TaskGroup() as group:
            task = group.create_task(ask())
        return [
            task.result(),
            await asyncio.to_thread(lambda: asyncio.run(ask())),
            await asyncio.to_thread(cache.get, "me", fetch, scope=USER),
            shared.peek("me"),
        ]

    *answers, peeked = asyncio.run(main())
    assert answers == [expected] * 3
    assert peeked == MISS


def test_sc6_background_refresh_of_a_view_stays_with_its_user(face: Face) -> None:
    alice, bob = face.for_user("alice"), face.for_user("bob")
    alice.fill("me", "alice's", ttl=0, scope=USER)
    bob.fill("me", "bob's", ttl=0, scope=USER)
    fetch = face.fetcher(Success("alice's newer"), held=True)
    assert alice.get("me", fetch, policy=SWR, scope=USER) == ALICES
    face.set_active_user("bob")
    fetch.release()
    face.settle()
    assert alice.peek("me", allow_expired=True) == Success("alice's newer")
    assert bob.peek("me", allow_expired=True) == BOBS
    assert bob.peek("me") == Failure(CacheExpired("me"))


# SC-8: clearing is done when it returns


@pytest.mark.parametrize("removal", ["clear", "clear_scope", "end_session", "switch"])
def test_sc8_no_read_after_the_return_sees_what_was_cleared(removal: str) -> None:
    cache = SyncCache()
    before = sys.getswitchinterval()
    generation = 0
    is_over = threading.Event()

    def fetch() -> Answer:
        seen = generation
        time.sleep(0.0001)
        return Success(seen)

    def clear() -> None:
        nonlocal generation
        for _ in range(200):
            cache.set_active_user("alice")
            generation += 1
            committed = generation
            if removal == "clear":
                cache.clear()
            elif removal == "clear_scope":
                cache.clear_scope(USER)
            elif removal == "end_session":
                cache.end_session()
                cache.set_active_user("alice")
            else:
                cache.set_active_user("bob")
                cache.set_active_user("alice")
            peeked = cache.peek("me", scope=USER)
            if isinstance(peeked, Success):
                assert peeked.unwrap() >= committed
            read = cache.get("me", fetch, scope=USER)
            assert read.unwrap() >= committed
        is_over.set()

    def read() -> None:
        while not is_over.is_set():
            cache.get("me", fetch, scope=USER)

    sys.setswitchinterval(1e-5)
    try:
        together([clear, read, read], 20)
    finally:
        is_over.set()
        sys.setswitchinterval(before)


@pytest.mark.parametrize("scope", [GLOBAL, SESSION, USER])
def test_sc8_clear_scope_clears_that_scope_for_everyone_and_no_other(face: Face, scope: CacheScope) -> None:
    face.set_active_user("alice")
    readers = [face, face.for_user("bob"), face.for_user("carol")]
    for reader in readers:
        for each in (GLOBAL, SESSION, USER):
            reader.fill("k", str(each), scope=each)
    face.clear_scope(scope)
    for reader in readers:
        for each in (GLOBAL, SESSION, USER):
            found = reader.peek("k", scope=each)
            assert found == (Failure(CacheMiss("k")) if each is scope else Success(str(each)))


# SC-9: odd user ids

ODD_IDS = st.one_of(
    st.text(st.characters(codec=None), max_size=8),
    st.sampled_from(
        [
            "",
            "None",
            "a:b",
            "a/../b",
            "a",
            "A",
            "\u0430",
            "a\u0301",
            "\u00e1",
            "\x00",
            "user",
            "a\n",
            "\ud800",
            "x" * 1_000_000,
        ]
    ),
)


@settings(max_examples=300, deadline=None)
@given(one=ODD_IDS, other=ODD_IDS, key=st.sampled_from(["k", "", ":k", "k:"]))
@example("\u00e1", "a\u0301", "k")
@example("a", "\u0430", "k")
@example("", "None", "k")
def test_sc9_distinct_ids_share_nothing(one: str, other: str, key: str) -> None:
    cache = SyncCache()
    cache.for_user(one).get(key, lambda: Success("one's"), scope=USER)
    cache.for_user(one).get(key, lambda: Success("one's"), scope=SESSION)
    cache.set_active_user(other)
    expected = Success("one's") if one == other else Failure(CacheMiss(key))
    assert cache.for_user(other).peek(key, scope=USER) == expected
    assert cache.for_user(other).peek(key, scope=SESSION) == expected
    assert cache.peek(key, scope=USER) == expected
    assert cache.peek(key, scope=SESSION) == Failure(CacheMiss(key))
    assert cache.peek(key, scope=GLOBAL) == Failure(CacheMiss(key))


class CaseInsensitive(str):
    """What some frameworks use for headers and names."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and str.lower(self) == str.lower(other)

    def __hash__(self) -> int:
        return hash(str.lower(self))


def test_sc9_ids_that_call_themselves_equal_are_still_distinct(face: Face) -> None:
    face.set_active_user(CaseInsensitive("Root"))
    face.fill("me", "Root's", scope=USER)
    face.set_active_user(CaseInsensitive("root"))
    assert str.__str__(face.active_user_id or "") == "root"
    assert face.peek("me") == MISS


def test_sc9_id_of_the_wrong_type_is_a_programming_error(face: Face) -> None:
    for user_id in (1, b"alice", ("alice",)):
        with pytest.raises(TypeError):
            face.set_active_user(user_id)  # type: ignore[arg-type]  # that is the case
        with pytest.raises(TypeError):
            face.for_user(user_id)  # type: ignore[arg-type]  # that is the case
    with pytest.raises(TypeError):
        face.for_user(None)  # type: ignore[arg-type]  # that is the case
    assert face.active_user_id is None
