"""Both faces with a store: read through, written through, told of every removal, and missed by nobody when it fails."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from returns.result import Failure, Success

from cachemesh import Cache, CacheMiss, CachePolicy, CacheScope, StoreFailed, UndecodableEntry
from cachemesh.core.scopes import GLOBAL_OWNER, SESSION_OWNER, Owner
from cachemesh.shell import health
from cachemesh.shell.ports import StoredEntry
from cachemesh.stores import MemoryStore
from cachemesh.testing.store_contract import an_entry
from tests.shell.faces import Recorder
from tests.stores.faulty import HANG, OPERATIONS, FaultyStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cachemesh.testing import VirtualClock
    from tests.shell.faces import AsyncFace, Face

USER = CacheScope.USER
SESSION = CacheScope.SESSION
ALICE: Owner = (USER, "alice")
PATIENCE_S = 0.03


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def stored(face: Face, store: FaultyStore) -> Iterator[Face]:
    """A cache of either face in front of `store`."""
    cache = face.new(store=store)
    yield cache
    cache.close()


@pytest.fixture(autouse=True)
def _little_patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads wait in real time."""
    if "sync" in request.node.name:
        monkeypatch.setattr(health, "TIMEOUT_S", PATIENCE_S)
        monkeypatch.setattr(health, "COOL_DOWN_S", PATIENCE_S)
        monkeypatch.setattr(health, "LONGEST_REST_S", PATIENCE_S)


def rest(face: Face) -> None:
    """Let the time pass for which a store is left alone."""
    if face.name == "async":
        face.clock.advance(health.COOL_DOWN_S + 0.001)
    else:
        time.sleep(PATIENCE_S + 0.005)


def kept(store: MemoryStore, owner: Owner, key: str) -> Any:
    entry = store._entries.get((owner, key))
    return None if entry is None else entry.value


def put(store: MemoryStore, entry: StoredEntry) -> None:
    asyncio.run(MemoryStore.write(store, entry))


def failures_heard(face: Face) -> list[str]:
    return [error.operation for _, _, error in face.log.named("error") if isinstance(error, StoreFailed)]


# Through


def test_a_value_is_written_through_before_get_returns(stored: Face, store: FaultyStore) -> None:
    assert stored.get("k", stored.fetcher(Success(1)), ttl=60) == Success(1)

    now = stored.clock()
    assert store._entries[GLOBAL_OWNER, "k"] == StoredEntry(
        GLOBAL_OWNER, "k", 1, is_failure=False, created_at=now, ttl_s=60.0, expires_at=now + 60.0
    )


def test_another_user_who_leaves_while_the_store_is_read_costs_nobody_else_the_cache(
    async_face: AsyncFace, store: FaultyStore
) -> None:
    """Three others, one after the other: now and then two users share a counter."""
    cache = async_face.new(store=store)
    for user in ("bob", "carol", "dave"):

        def leave(owner: Owner, key: str, user: str = user) -> None:
            del key
            if owner == ALICE:
                cache.cache.for_user(user).end_session()

        store.faults["read"] = leave
        cache.for_user("alice").get(user, cache.fetcher(Success(1)), scope=USER, ttl=60)
    assert 1 in [kept(store, ALICE, user) for user in ("bob", "carol", "dave")]

    store.faults["read"] = lambda *_: cache.cache.for_user("alice").end_session()
    cache.for_user("alice").get("me", cache.fetcher(Success(1)), scope=USER, ttl=60)
    assert kept(store, ALICE, "me") is None
    cache.close()


def test_a_memory_miss_is_read_through_once(stored: Face, store: FaultyStore) -> None:
    put(store, an_entry(value="stored", created_at=stored.clock()))
    fetch = stored.fetcher(Success("fetched"))

    assert [stored.get("k", fetch) for _ in range(3)] == [Success("stored")] * 3
    assert (fetch.calls, len(store.asked("read"))) == (0, 1)
    assert stored.inspect("k").created_at.timestamp() == stored.clock()  # type: ignore[union-attr]


def test_what_the_store_has_not_is_fetched(stored: Face, store: FaultyStore) -> None:
    fetch = stored.fetcher(Success("fetched"))

    assert stored.get("k", fetch) == Success("fetched")
    assert [call[0] for call in store.calls] == ["read", "write"]
    assert stored.log.named("miss", "write", "refresh") == [
        ("miss", "k"),
        ("refresh", "k", "cache_miss"),
        ("write", "k", None),
    ]


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}], ids=repr)
def test_an_empty_value_is_a_value(face: Face, store: FaultyStore, value: object) -> None:
    first, second = face.new(store=store), face.new(store=store)
    first.get("k", face.fetcher(Success(value)))
    fetch = face.fetcher(Success("fetched"))

    assert second.get("k", fetch) == Success(value)
    assert fetch.calls == 0
    first.close()
    second.close()


def test_cache_only_reads_the_store_and_fetches_nothing(stored: Face, store: FaultyStore) -> None:
    put(store, an_entry(value="stored", created_at=stored.clock()))
    fetch = stored.fetcher(Success("fetched"))

    assert stored.get("k", fetch, policy=CachePolicy.CACHE_ONLY) == Success("stored")
    assert stored.get("none", fetch, policy=CachePolicy.CACHE_ONLY) == Failure(CacheMiss("none"))
    assert fetch.calls == 0


def test_network_only_neither_reads_nor_writes(stored: Face, store: FaultyStore) -> None:
    assert stored.get("k", stored.fetcher(Success(1)), policy=CachePolicy.NETWORK_ONLY) == Success(1)
    assert store.calls == []


def test_peek_asks_no_store(stored: Face, store: FaultyStore) -> None:
    put(store, an_entry())

    assert stored.peek("k") == Failure(CacheMiss("k"))
    assert store.calls == []


def test_an_expired_stored_entry_is_served_as_the_policy_says(face: Face, store: FaultyStore) -> None:
    put(store, an_entry(value="old", created_at=face.clock() - 100, ttl_s=60.0))
    swr, offline, first = face.new(store=store), face.new(store=store), face.new(store=store)

    held = face.fetcher(Success("new"), held=True)
    assert swr.get("k", held, policy=CachePolicy.STALE_WHILE_REVALIDATE) == Success("old")
    down = face.fetcher(Failure("down"))
    assert offline.get("k", down, policy=CachePolicy.NETWORK_FIRST) == Success("old")
    assert first.get("k", down, policy=CachePolicy.CACHE_FIRST) == Failure("down")
    held.release()
    swr.settle()
    assert kept(store, GLOBAL_OWNER, "k") == "new"
    for cache in (swr, offline, first):
        cache.close()


def test_a_restart_keeps_owner_lifetime_and_failure(face: Face, store: FaultyStore) -> None:
    first = face.new(store=store)
    first.set_active_user("alice")
    first.get("me", face.fetcher(Success("alice's")), scope=USER, ttl=10)
    first.get("down", face.fetcher(Failure("busy")), cache_failures=True, ttl=20)
    first.close()
    face.clock.advance(9)

    second = face.new(store=store)
    second.set_active_user("bob")
    assert second.get("me", face.fetcher(Success("bob's")), scope=USER) == Success("bob's")
    assert second.get("down", face.fetcher(Success("up"))) == Failure("busy")
    second.close()

    third = face.new(store=store)
    third.set_active_user("alice")
    fetch = face.fetcher(Success("anew"))
    assert third.get("me", fetch, scope=USER) == Success("alice's")
    face.clock.advance(1)
    assert third.get("me", fetch, scope=USER) == Success("anew")
    third.close()


@pytest.mark.parametrize(("ahead_s", "value"), [(59.0, "future"), (61.0, "fetched"), (1e9, "fetched")])
def test_an_entry_from_the_future_is_stale(stored: Face, store: FaultyStore, ahead_s: float, value: str) -> None:
    """A minute is forgiven: clocks differ."""
    put(store, an_entry(value="future", created_at=stored.clock() + ahead_s, ttl_s=1e6))

    assert stored.get("k", stored.fetcher(Success("fetched"))) == Success(value)


def test_a_hundred_callers_share_one_load(stored: Face, store: FaultyStore) -> None:
    put(store, an_entry(value="stored", created_at=stored.clock()))
    fetch = stored.fetcher(Success("fetched"))

    answers = stored.concurrently(100, lambda begin: begin.get("k", fetch), lambda: None)

    assert answers == [Success("stored")] * 100
    assert (fetch.calls, len(store.asked("read"))) == (0, 1)


def test_a_hundred_callers_share_one_fetch_after_the_load(stored: Face, store: FaultyStore) -> None:
    fetch = stored.fetcher(Success("fetched"), held=True)

    answers = stored.concurrently(100, lambda begin: begin.get("k", fetch), fetch.release)

    assert answers == [Success("fetched")] * 100
    assert (fetch.calls, len(store.asked("write"))) == (1, 1)


# Removal

REMOVALS: dict[str, tuple[Callable[[Face], None], set[str]]] = {
    "invalidate": (lambda face: face.invalidate("k"), set()),
    "invalidate global": (lambda face: face.invalidate("k", scope=CacheScope.GLOBAL), {"session", "alice", "bob"}),
    "clear": (lambda face: face.clear(), set()),
    "clear_scope global": (lambda face: face.clear_scope(CacheScope.GLOBAL), {"session", "alice", "bob"}),
    "clear_scope session": (lambda face: face.clear_scope(SESSION), {"global", "alice", "bob"}),
    "clear_scope user": (lambda face: face.clear_scope(USER), {"global", "session", "bob"}),
    "end_session": (lambda face: face.end_session(), {"global", "bob"}),
    "set_active_user": (lambda face: face.set_active_user("bob"), {"global", "session", "bob"}),
    "sign out": (lambda face: face.set_active_user(None), {"global", "session", "bob"}),
}
REMOVALS["invalidate"] = (REMOVALS["invalidate"][0], {"bob"})


@pytest.mark.parametrize("name", REMOVALS)
def test_every_removal_reaches_the_store(stored: Face, store: FaultyStore, name: str) -> None:
    """Even of what the memory never held."""
    remove, survivors = REMOVALS[name]
    owners: dict[str, Owner] = {"global": GLOBAL_OWNER, "session": SESSION_OWNER, "alice": ALICE, "bob": (USER, "bob")}
    stored.set_active_user("alice")
    for owner in owners.values():
        put(store, an_entry(owner=owner, value="stored", created_at=stored.clock()))

    remove(stored)
    stored.settle()

    assert {each for each, owner in owners.items() if kept(store, owner, "k")} == survivors


def test_a_load_after_an_invalidation_sees_nothing_of_before(stored: Face, store: FaultyStore) -> None:
    stored.get("k", stored.fetcher(Success("old")))

    stored.invalidate("k", scope=CacheScope.GLOBAL)
    assert stored.get("k", stored.fetcher(Success("new"))) == Success("new")

    assert [call[0] for call in store.calls] == ["read", "write", "delete", "read", "write"]
    assert kept(store, GLOBAL_OWNER, "k") == "new"


class GatedStore(FaultyStore):
    """Reads wait for `go_on`, on whatever loop."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def read(self, owner: Owner, key: str) -> StoredEntry | None:
        found = await super().read(owner, key)
        gate = asyncio.Event()
        self.gates.append((asyncio.get_running_loop(), gate))
        await gate.wait()
        return found

    def go_on(self) -> None:
        for loop, gate in self.gates:
            loop.call_soon_threadsafe(gate.set)
        self.gates.clear()


def test_a_load_that_was_overtaken_by_an_invalidation_is_not_taken_in(
    face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "TIMEOUT_S", 5.0)
    store = GatedStore()
    put(store, an_entry(value="old", created_at=face.clock()))
    cache = face.new(store=store)
    reading = cache.begin.get("k", face.fetcher(Success("new")))
    threading.Timer(0.01, store.go_on).start() if face.name == "sync" else None

    cache.invalidate("k")
    store.go_on()

    answer = reading.result() if face.name == "sync" else _released(cache, store, reading)
    assert answer == Success("new")
    assert kept(store, GLOBAL_OWNER, "k") == "new"
    assert cache.peek("k") == Success("new")
    cache.close()


def _released(cache: Face, store: GatedStore, reading: Any) -> Any:
    while not reading.is_done:
        cache.settle()
        store.go_on()
    return reading.result()


# When it fails


@pytest.mark.parametrize("fault", [OSError("disk"), HANG, asyncio.CancelledError(), BaseException()], ids=repr)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_store_that_fails_costs_no_answer(stored: Face, store: FaultyStore, operation: str, fault: Any) -> None:
    stored.set_active_user("alice")
    store.faults[operation] = fault

    assert stored.get("k", stored.fetcher(Success(1))) == Success(1)
    assert stored.get("k", stored.fetcher(Success(2))) == Success(1)
    stored.invalidate("k")
    stored.clear_scope(SESSION)
    stored.clear()
    assert stored.get("k", stored.fetcher(Success(3))) == Success(3)
    stored.settle()

    heard = failures_heard(stored)
    assert set(heard) == {operation}


@pytest.mark.parametrize("fault", [OSError("disk"), HANG], ids=repr)
def test_a_store_that_is_back_is_used_again(stored: Face, store: FaultyStore, fault: Any) -> None:
    store.faults = dict.fromkeys(OPERATIONS, fault)
    for key in "abcde":
        assert stored.get(key, stored.fetcher(Success(key))) == Success(key)
    assert failures_heard(stored) != []

    store.faults.clear()
    rest(stored)
    stored.log.take()
    assert stored.get("tries", stored.fetcher(Success("it"))) == Success("it")
    stored.settle()
    assert stored.get("new", stored.fetcher(Success("new"))) == Success("new")

    assert kept(store, GLOBAL_OWNER, "new") == "new"
    assert failures_heard(stored) == []


def test_a_store_that_hangs_is_left_alone_and_then_tried_with_one_call_that_nobody_waits_for(
    async_face: AsyncFace, store: FaultyStore
) -> None:
    face = async_face.new(store=store)
    store.faults = dict.fromkeys(OPERATIONS, HANG)
    face.get("first", face.fetcher(Success(0)))
    before = len(store.calls)

    for key in "abc":
        face.get(key, face.fetcher(Success(key)))
    assert len(store.calls) == before

    rest(face)
    answers = [face.begin.get(str(number), face.fetcher(Success(number))) for number in range(10)]
    face.settle()
    assert [each.is_done for each in answers] == [True] * 10
    assert len(store.calls) == before + 1
    assert [each.result() for each in answers] == [Success(number) for number in range(10)]
    face.close()


@pytest.mark.parametrize("fault", [OSError("disk"), HANG], ids=repr)
@pytest.mark.parametrize("name", REMOVALS)
def test_a_removal_that_the_store_missed_is_made_up_for(
    stored: Face,
    store: FaultyStore,
    name: str,
    fault: Any,
) -> None:
    """Before a copy that should be gone is believed."""
    remove, survivors = REMOVALS[name]
    owners: dict[str, Owner] = {"global": GLOBAL_OWNER, "session": SESSION_OWNER, "alice": ALICE, "bob": (USER, "bob")}
    stored.set_active_user("alice")
    for owner in owners.values():
        put(store, an_entry(owner=owner, value="stored", created_at=stored.clock()))
    store.faults = dict.fromkeys(OPERATIONS, fault)
    stored.get("other", stored.fetcher(Success(1)))
    remove(stored)
    stored.settle()

    store.faults.clear()
    rest(stored)
    rest(stored)
    stored.set_active_user("alice")
    for scope, who in ((CacheScope.GLOBAL, "global"), (SESSION, "session"), (USER, "alice")):
        if who not in survivors:
            assert stored.get("k", stored.fetcher(Success("fetched")), scope=scope) == Success("fetched"), who
    stored.settle()
    stored.get("last", stored.fetcher(Success(1)))
    stored.settle()

    left = {each for each, owner in owners.items() if kept(store, owner, "k") == "stored"}
    assert left == survivors - ({"bob"} if name == "set_active_user" else set())  # Alice came back: bob left.


def test_a_value_that_the_store_refuses_leaves_no_older_one_behind(stored: Face, store: FaultyStore) -> None:
    stored.get("k", stored.fetcher(Success("old")))
    store.faults["write"] = TypeError("cannot be encoded")

    assert stored.refresh("k", stored.fetcher(Success("new"))) == Success("new")
    stored.settle()
    stored.get("other", stored.fetcher(Success(1)))
    stored.settle()

    assert kept(store, GLOBAL_OWNER, "k") is None
    assert failures_heard(stored)[:1] == ["write"]


def test_one_value_that_cannot_be_written_does_not_cost_the_others_their_store(
    stored: Face, store: FaultyStore
) -> None:
    store.faults["write"] = TypeError("cannot be encoded")
    store.is_dead = lambda key: key == "bad"

    for number in range(5):
        stored.refresh("bad", stored.fetcher(Success(number)))
        stored.get(f"good {number}", stored.fetcher(Success(number)))

    assert [kept(store, GLOBAL_OWNER, f"good {number}") for number in range(5)] == [0, 1, 2, 3, 4]


def test_a_key_that_hangs_holds_no_other_up(async_face: AsyncFace, store: FaultyStore) -> None:
    face = async_face.new(store=store)
    store.faults["read"] = HANG
    store.is_dead = lambda key: key == "bad"
    put(store, an_entry(key="good", value="stored", created_at=face.clock()))

    bad = face.begin.get("bad", face.fetcher(Success("fetched")))
    good = face.begin.get("good", face.fetcher(Success("fetched")))
    assert (bad.is_done, good.is_done, store.hanging) == (False, True, 1)
    assert good.result() == Success("stored")

    assert bad.result() == Success("fetched")
    assert store.hanging == 0
    face.close()


def test_the_logger_hears_no_users_key(stored: Face, store: FaultyStore) -> None:
    store.faults["read"] = OSError("disk")
    stored.set_active_user("alice")

    stored.get("alice's secret", stored.fetcher(Success(1)), scope=USER)

    _, key, _ = stored.log.named("error")[0]
    assert key == "alice's secret"
    assert "secret" not in f"{key} {key!r}"


GOOD = an_entry(value="foreign")


@pytest.mark.parametrize(
    "garbage",
    [
        an_entry(key="other"),
        an_entry(owner=ALICE),
        an_entry(owner=(USER, "")),
        an_entry(owner=SESSION_OWNER),
        "text",
        b"bytes",
        0,
        False,
        ("global", "k"),
        {"value": 1},
        Success(1),
        StoredEntry,
        replace(GOOD, created_at="yesterday"),
        replace(GOOD, created_at=None),
        replace(GOOD, created_at=float("nan")),
        replace(GOOD, created_at=float("inf")),
        replace(GOOD, created_at=1e300),
        replace(GOOD, expires_at="never"),
        replace(GOOD, expires_at=float("nan")),
        replace(GOOD, ttl_s=-1.0),
        replace(GOOD, ttl_s=float("nan")),
        replace(GOOD, ttl_s="60"),
        replace(GOOD, is_failure=None),
        replace(GOOD, is_failure=[]),
        replace(GOOD, owner=None),
        replace(GOOD, key=None),
    ],
    ids=lambda each: repr(each)[:60],
)
def test_what_is_no_entry_of_this_key_is_not_answered(stored: Face, store: FaultyStore, garbage: Any) -> None:
    store.faults["read"] = lambda owner, key: garbage  # noqa: ARG005 (whatever it is asked)

    assert stored.get("k", stored.fetcher(Success("fetched"))) == Success("fetched")

    [(_, key, error)] = stored.log.named("error")
    assert (key, type(error)) == ("k", UndecodableEntry)
    assert kept(store, GLOBAL_OWNER, "k") == "fetched"


def test_swapped_entries_of_two_users_are_found_out(face: Face, store: FaultyStore) -> None:
    store.faults["read"] = lambda owner, key: store._entries.get(
        ((USER, "bob" if owner[1] == "alice" else "alice"), key)
    )
    for user in ("alice", "bob"):
        put(store, an_entry(owner=(USER, user), value=f"{user}'s", created_at=face.clock()))
    cache = face.new(store=store)

    for user in ("alice", "bob"):
        view = cache.for_user(user)
        assert view.get("k", face.fetcher(Success("fetched")), scope=USER) == Success("fetched")
    assert [type(error) for _, _, error in cache.log.named("error")] == [UndecodableEntry] * 2
    cache.close()


# The end


def test_closing_tells_the_store_what_it_has_not_heard_yet(face: Face, store: FaultyStore) -> None:
    cache = face.new(store=store)
    cache.get("k", face.fetcher(Success(1)))

    cache.invalidate("k")
    cache.close()

    assert kept(store, GLOBAL_OWNER, "k") is None


def test_nothing_is_left_behind(face: Face, store: FaultyStore) -> None:
    threads = set(threading.enumerate())
    cache = face.new(store=store)
    store.faults["read"] = HANG
    cache.get("k", face.fetcher(Success(1)))
    cache.invalidate("k")
    cache.close()

    assert set(threading.enumerate()) == threads
    assert store.hanging == 0
    if face.name == "async":
        assert asyncio.all_tasks(face.runner.get_loop()) == set()  # type: ignore[attr-defined]


def test_several_event_loops_share_the_store(store: FaultyStore) -> None:
    """One after the other, and at once in threads; each ends with calls under way."""
    cache = Cache(store=store)
    errors: list[object] = []

    async def fetch() -> Success[str]:
        await asyncio.sleep(0)
        return Success("fetched")

    async def use(name: str) -> None:
        for number in range(30):
            key = f"{number % 5}"
            if await cache.get(key, fetch) != Success("fetched"):
                errors.append((name, number))
            if number % 3 == 0:
                cache.invalidate(key)

    def run(name: str) -> None:
        try:
            asyncio.run(asyncio.wait_for(use(name), 10))
        except BaseException as error:  # noqa: BLE001 (shown below)
            errors.append(error)

    run("alone")
    threads = [threading.Thread(target=run, args=(f"thread {number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.invalidate("0")
    asyncio.run(cache.aclose())

    assert errors == []
    assert kept(store, GLOBAL_OWNER, "0") is None


def test_a_loop_that_is_never_run_again_holds_nobody_up(store: FaultyStore, clock: VirtualClock) -> None:
    log = Recorder()
    cache = Cache(store=store, clock=clock, logger=log)
    store.faults["read"] = HANG

    async def fetch() -> Success[str]:
        return Success("fetched")

    async def begin() -> None:
        asyncio.get_running_loop().stopped = asyncio.ensure_future(cache.get("k", fetch))  # type: ignore[attr-defined]
        for _ in range(10):
            await asyncio.sleep(0)

    stopped = asyncio.new_event_loop()
    stopped.run_until_complete(begin())
    assert store.hanging == 1
    store.faults.clear()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(health, "TIMEOUT_S", PATIENCE_S)
        assert asyncio.run(asyncio.wait_for(cache.get("k", fetch), 5)) == Success("fetched")

    stopped.stopped.cancel()  # type: ignore[attr-defined]
    stopped.run_until_complete(asyncio.gather(stopped.stopped, return_exceptions=True))  # type: ignore[attr-defined]
    with asyncio.Runner(loop_factory=lambda: stopped):
        pass
    asyncio.run(cache.aclose())
