"""`put`, `update` and `touch` on both faces: atomic, and never overwritten by a fetch that began before."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure, Success

from cachemesh import (
    Cache,
    CacheClosed,
    CacheExpired,
    CacheMiss,
    CachePolicy,
    CacheScope,
    Fresh,
    InvalidFetchResult,
    InvalidKey,
    InvalidOption,
    InvalidTtl,
    Lifetime,
    NoActiveUser,
    NotModified,
    RetryOptions,
    SyncCache,
    UpdateRaised,
)
from cachemesh.core.scopes import GLOBAL_OWNER
from cachemesh.stores import MemoryStore
from cachemesh.testing import FlakyStore
from tests.stores.faulty import FaultyStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.shell.faces import Answer, AsyncFace, Face, SyncFace

GLOBAL, SESSION, USER = CacheScope.GLOBAL, CacheScope.SESSION, CacheScope.USER


def put(face: Face, key: Any, value: Any, **options: Any) -> Answer:
    answer: Answer = face.at_once("put", key, value, **options)
    return answer


def update(face: Face, key: Any, change: Callable[[Any], Any], **options: Any) -> Answer:
    answer: Answer = face.at_once("update", key, change, **options)
    return answer


def touch(face: Face, key: Any, **options: Any) -> Answer:
    answer: Answer = face.at_once("touch", key, **options)
    return answer


# Put


def test_what_is_put_is_there(face: Face) -> None:
    assert put(face, "k", 1, ttl=60) == Success(1)
    fetch = face.fetcher(Success("fetched"))

    assert (face.peek("k"), face.get("k", fetch)) == (Success(1), Success(1))
    assert fetch.calls == 0
    assert face.inspect("k").ttl.total_seconds() == 60.0  # type: ignore[union-attr]
    face.clock.advance(60)
    assert face.peek("k") == Failure(CacheExpired("k"))


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}, float("nan")], ids=repr)
def test_an_empty_value_is_a_value(face: Face, value: Any) -> None:
    put(face, "k", value)

    assert face.peek("k").unwrap() is value


def test_a_put_takes_the_place_of_what_was_there(face: Face) -> None:
    face.fill("k", "fetched", ttl=5)
    face.get("failed", face.fetcher(Failure("down")), cache_failures=True)

    put(face, "k", "put")
    put(face, "failed", "put")
    face.clock.advance(5)

    assert (face.peek("k"), face.peek("failed")) == (Success("put"), Success("put"))
    assert not face.has_cached_failure("failed")


def test_a_put_lives_as_the_cache_is_configured(face: Face) -> None:
    cache = face.new(default_ttl=Lifetime(ttl=10, serve_stale_for=10))
    put(cache, "default", 1)
    put(cache, "for ever", 1, ttl=None)
    put(cache, "own", 1, ttl=Lifetime(ttl="1m"))
    cache.clock.advance(15)

    shown = [cache.at_once("explain", key).unwrap().freshness for key in ("default", "for ever", "own")]
    assert shown == ["grace", "fresh", "fresh"]
    cache.close()


def test_it_is_told_to_logger_and_watchers(face: Face) -> None:
    heard = face.listen("k")
    put(face, "k", 1, ttl=60)
    face.settle()

    assert face.log.take() == [("write", "k", 60.0)]
    assert heard.results == [Success(1)]


def test_each_scope_has_its_own(face: Face) -> None:
    face.set_active_user("ada")
    for scope in CacheScope:
        put(face, "k", str(scope), scope=scope)

    assert [face.peek("k", scope=scope) for scope in CacheScope] == [Success(str(scope)) for scope in CacheScope]
    assert update(face, "k", str.upper, scope=SESSION) == Success("SESSION")
    assert face.peek("k", scope=USER) == Success("user")


def test_each_view_has_its_own(face: Face) -> None:
    ada, bob = face.for_user("ada"), face.for_user("bob")
    put(ada, "k", "ada's", scope=USER)

    assert bob.peek("k") == Failure(CacheMiss("k"))
    assert update(bob, "k", str.upper, scope=USER) == Failure(CacheMiss("k"))
    assert touch(bob, "k", scope=USER) == Failure(CacheMiss("k"))
    assert update(ada, "k", str.upper, scope=USER) == Success("ADA'S")


@pytest.mark.parametrize("write", [put, update, touch], ids=lambda write: write.__name__)
def test_with_nobody_signed_in_there_is_no_user_to_write_for(face: Face, write: Callable[..., Answer]) -> None:
    arguments = {put: (1,), update: (lambda value: value,), touch: ()}[write]

    assert write(face, "k", *arguments, scope=USER) == Failure(NoActiveUser("k"))
    face.set_active_user("ada")
    face.fill("k", 1, scope=USER)
    assert write(face, "k", *arguments, scope=USER).value_or(None) in {1, None}
    face.set_active_user(None)
    assert write(face, "k", *arguments, scope=USER) == Failure(NoActiveUser("k"))


@pytest.mark.parametrize("write", [put, update, touch], ids=lambda write: write.__name__)
def test_a_closed_cache_refuses(face: Face, write: Callable[..., Answer]) -> None:
    other = face.new()
    put(other, "k", 1)
    other.close()
    arguments = {put: (1,), update: (lambda value: value,), touch: ()}[write]

    assert write(other, "k", *arguments) == Failure(CacheClosed())


async def coroutine_function() -> int:
    return 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda face: put(face, 42, 1), InvalidKey(42)),
        (lambda face: put(face, None, 1), InvalidKey(None)),
        (lambda face: put(face, "k", 1, ttl=-1), InvalidTtl(-1)),
        (lambda face: put(face, "k", 1, ttl="soon"), InvalidTtl("soon")),
        (lambda face: put(face, "k", 1, scope="user"), InvalidOption("scope", "str")),
        (lambda face: put(face, "k", 1, scope=None), InvalidOption("scope", "NoneType")),
        (lambda face: put(face, "k", 1, tags="t"), InvalidOption("tags", "str")),
        (lambda face: put(face, "k", coroutine_function()), InvalidFetchResult("k", "coroutine")),
        (lambda face: update(face, 42, str), InvalidKey(42)),
        (lambda face: update(face, "k", str, scope="user"), InvalidOption("scope", "str")),
        (lambda face: update(face, "k", str, scope=None), InvalidOption("scope", "NoneType")),
        (lambda face: update(face, "none", str), CacheMiss("none")),
        (lambda face: update(face, "k", lambda _: coroutine_function()), InvalidFetchResult("k", "coroutine")),
        (lambda face: touch(face, 42), InvalidKey(42)),
        (lambda face: touch(face, "k", ttl=-1), InvalidTtl(-1)),
        (lambda face: touch(face, "k", scope=None), InvalidOption("scope", "NoneType")),
        (lambda face: touch(face, "none"), CacheMiss("none")),
    ],
)
def test_bad_input_is_a_typed_failure_and_changes_nothing(
    face: Face, call: Callable[[Face], Answer], error: Exception
) -> None:
    face.set_active_user("ada")
    face.fill("k", "before", ttl=60)
    before = face.inspect("k")

    assert call(face) == Failure(error)
    assert face.inspect("k") == before
    assert face.log.take() == []


def test_a_key_of_another_str_type_is_the_str_that_it_is(face: Face) -> None:
    put(face, USER, 1)
    update(face, USER, lambda value: value + 1)
    touch(face, USER, ttl=5)

    assert face.peek("user") == Success(2)
    assert [type(key) for key in face.cache._runtime.state.partitions.get(GLOBAL_OWNER).entries] == [str]


def test_the_memory_stays_bounded(face: Face) -> None:
    small = face.new(max_entries=10)
    for number in range(100):
        put(small, f"k{number}", number)

    assert small.cache._runtime.state.census.count == 10
    small.close()


# SF-10: a fetch that began before a write never overwrites it

WRITES: dict[str, Callable[[Face], Answer]] = {
    "put": lambda face: put(face, "k", "written"),
    "update": lambda face: update(face, "k", lambda _: "written"),
    "touch": lambda face: touch(face, "k", ttl=500),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("asks", ["get", "refresh", "prefetch", "get_many", "background", "conditional"])
@pytest.mark.parametrize("outcome", ["value", "fresh", "failure"])
def test_sf10_a_fetch_that_began_before_stores_nothing(face: Face, write: str, asks: str, outcome: str) -> None:
    put(face, "k", "first", ttl=10)
    face.clock.advance(10)
    answer = {
        "value": Success("old"),
        "fresh": Success(Fresh("old", ttl=999)),
        "failure": Failure("down"),
    }[outcome]
    fetch = face.fetcher((lambda *_: answer) if asks == "conditional" else answer, held=True)
    if asks == "get_many":
        fetch = face.fetcher(lambda _: {"k": answer}, held=True)
        pending = face.begin.call("get_many", ["k"], fetch)
    elif asks == "background":
        pending = face.begin.get("k", fetch, policy=CachePolicy.STALE_WHILE_REVALIDATE)
    elif asks == "conditional":
        pending = face.begin.get("k", fetch, conditional=True, cache_failures=True)
    else:
        pending = face.begin.call(asks, "k", fetch, cache_failures=True)
    assert WRITES[write](face).value_or("refused") in {"written", None}
    fetch.release()
    pending.result()
    face.settle()

    assert face.peek("k", allow_expired=True) == Success("first" if write == "touch" else "written")
    assert not face.has_cached_failure("k")
    assert not face.cache._runtime.lives


def test_sf10_not_modified_renews_nothing_that_was_written_since(face: Face) -> None:
    put(face, "k", "first", ttl=10)
    face.clock.advance(10)
    fetch = face.fetcher(lambda _: Success(NotModified()), held=True)
    pending = face.begin.get("k", fetch, conditional=True, ttl=60)
    put(face, "k", "written", ttl=5)
    fetch.release()

    assert pending.result() == Success("first")
    assert face.peek("k") == Success("written")
    face.clock.advance(5)
    assert face.peek("k") == Failure(CacheExpired("k"))


@pytest.mark.parametrize("point", range(5))
@pytest.mark.parametrize("has_store", [False, True])
def test_sf10_at_every_point_of_a_fetch_with_a_retry(async_face: AsyncFace, point: int, has_store: bool) -> None:
    """Before it, during each attempt, between them, and after: what was written stays, until somebody asks anew."""
    cache = async_face.new(**({"store": FaultyStore()} if has_store else {}))
    fetch = cache.fetcher(Failure("busy"), Success("fetched"), takes=10)
    options = {"retry": RetryOptions(max_attempts=2, delay=10), "ttl": 5}

    async def writing() -> Answer:
        get = asyncio.ensure_future(cache.cache.get("k", fetch, **options))
        await asyncio.sleep(10 * point - 5 if point else 0)
        written: Answer = cache.cache.put("k", "written", ttl=500)
        await get
        return written

    assert cache.runner.run(writing()) == Success("written")
    cache.settle()
    assert cache.peek("k") == Success("written")
    assert cache.inspect("k").ttl.total_seconds() == 500.0  # type: ignore[union-attr]
    cache.close()


@given(
    st.lists(
        st.tuples(st.sampled_from(["begin", "end", "put", "update", "touch", "invalidate"]), st.integers(0, 3)),
        max_size=20,
    )
)
def test_sf10_whatever_the_order_nothing_older_comes_after(orders: list[tuple[str, int]]) -> None:
    """Fetches of one key begin and end in any order, with writes between: what is cached never gets older.

    Each value is the number of the order by which it came into being.
    """
    asyncio.run(History().play(orders))


class History:
    """Orders about one key, each numbered; a value is the number of the order that it comes from."""

    def __init__(self) -> None:
        self.cache = Cache()
        self.gates: dict[int, list[asyncio.Future[None]]] = {}
        self.tasks: list[asyncio.Task[Any]] = []

    async def play(self, orders: list[tuple[str, int]]) -> None:
        newest = -1
        for number, (order, slot) in enumerate(orders):
            newest = max(newest, getattr(self, order)(number, slot))
            for _ in range(5):
                await asyncio.sleep(0)
            seen: int = self.cache.peek("k").value_or(newest)
            assert seen >= newest, (number, order)
            newest = seen
        for slot in list(self.gates):
            self.end(0, slot)
        await asyncio.gather(*self.tasks)
        assert self.cache.peek("k").value_or(newest) >= newest

    def begin(self, number: int, slot: int) -> int:
        async def fetch() -> Any:
            gate = asyncio.get_running_loop().create_future()
            self.gates.setdefault(slot, []).append(gate)
            await gate
            return Success(number)

        self.tasks.append(asyncio.create_task(self.cache.refresh("k", fetch)))
        return -1

    def end(self, _: int, slot: int) -> int:
        for gate in self.gates.pop(slot, []):
            gate.set_result(None)
        return -1

    def put(self, number: int, _: int) -> int:
        self.cache.put("k", number)
        return number

    def update(self, number: int, _: int) -> int:
        return self.cache.update("k", lambda _: number).value_or(-1)

    def touch(self, _: int, __: int) -> int:
        self.cache.touch("k", ttl=60)
        return -1

    def invalidate(self, number: int, _: int) -> int:
        self.cache.invalidate("k")
        return number


def test_who_asks_after_a_write_joins_no_older_fetch(face: Face) -> None:
    fetch, newer = face.fetcher(Success("old"), held=True), face.fetcher(Success("new"))
    before = face.begin.refresh("k", fetch)
    put(face, "k", "written")

    assert face.get("k", newer) == Success("written")
    assert face.refresh("k", newer) == Success("new")
    fetch.release()
    assert before.result() == Success("old")
    assert face.peek("k") == Success("new")


# Update


def test_an_update_keeps_the_rest_of_its_life(face: Face) -> None:
    put(face, "k", 1, ttl=60, tags=("t",))
    face.clock.advance(10)
    before = face.inspect("k")

    assert update(face, "k", lambda value: value + 1) == Success(2)

    after = face.inspect("k")
    assert (after.value, after.created_at, after.expires_at) == (2, before.created_at, before.expires_at)
    face.at_once("invalidate_tag", "t")
    assert update(face, "k", lambda value: value + 1) == Failure(CacheMiss("k"))


def test_what_is_stale_is_updated_and_stays_stale(face: Face) -> None:
    put(face, "k", 1, ttl=5)
    face.clock.advance(6)

    assert update(face, "k", lambda value: value + 1) == Success(2)
    assert (face.peek("k"), face.peek("k", allow_expired=True)) == (Failure(CacheExpired("k")), Success(2))


def test_an_updated_value_is_known_to_no_origin(face: Face) -> None:
    """The validator was that of the value before: a conditional fetch may not confirm another one by it."""
    seen: list[Any] = []
    face.get("k", face.fetcher(Success(Fresh(1, ttl=5, validator="v1"))))
    update(face, "k", lambda value: value + 1)
    face.clock.advance(6)

    def fetch(previous: Any) -> Any:
        seen.append((previous.value, previous.validator))
        return Success(3)

    assert face.get("k", face.fetcher(fetch), conditional=True) == Success(3)
    assert seen == [(2, None)]


def test_watchers_hear_of_an_update_and_not_of_a_touch(face: Face) -> None:
    put(face, "k", 1)
    heard = face.listen("k")
    update(face, "k", lambda value: value + 1)
    face.settle()
    touch(face, "k", ttl=60)
    face.settle()

    assert heard.results == [Success(2)]


@pytest.mark.parametrize("error", [ValueError("no"), KeyError("k"), StopIteration()], ids=repr)
def test_a_function_that_raises_changes_nothing(face: Face, error: Exception) -> None:
    put(face, "k", 1)

    def raising(_: Any) -> Any:
        raise error

    assert update(face, "k", raising) == Failure(UpdateRaised("k", error))
    assert face.peek("k") == Success(1)


def test_what_is_no_function_is_told_so(face: Face) -> None:
    put(face, "k", 1)
    not_a_function: Any = 42

    assert isinstance(update(face, "k", not_a_function).failure().error, TypeError)


def test_a_crash_in_a_function_comes_through(face: Face) -> None:
    put(face, "k", 1)

    def crashing(_: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update(face, "k", crashing)
    assert update(face, "k", lambda value: value + 1) == Success(2)


def test_a_write_between_has_the_function_called_again(face: Face) -> None:
    put(face, "k", 1)
    seen: list[int] = []

    def change(value: int) -> int:
        seen.append(value)
        if len(seen) == 1:
            face.cache.put("k", 10)
        return value + 1

    assert update(face, "k", change) == Success(11)
    assert (seen, face.peek("k")) == ([1, 10], Success(11))


def test_what_goes_meanwhile_is_a_miss(face: Face) -> None:
    put(face, "k", 1)

    assert update(face, "k", lambda _: face.cache.invalidate("k")) == Failure(CacheMiss("k"))
    assert face.peek("k") == Failure(CacheMiss("k"))


@pytest.mark.parametrize("nested", ["put", "update"])
def test_a_function_that_writes_its_own_key_each_time_is_given_up_on(face: Face, nested: str) -> None:
    put(face, "k", 0)
    calls = 0

    def change(value: int) -> int:
        nonlocal calls
        calls += 1
        if nested == "put":
            face.cache.put("k", value + 1)
        else:
            face.cache.update("k", lambda value: value + 1)
        return -1

    answer = update(face, "k", change)

    assert isinstance(answer.failure(), UpdateRaised)
    assert face.peek("k") == Success(calls)


@pytest.mark.parametrize("kind", ["value", "copied"])
def test_no_update_of_many_threads_is_lost(sync_face: SyncFace, kind: str) -> None:
    cache = sync_face.new(clock=None, logger=None, copy_on_read=kind == "copied")
    put(cache, "k", {"n": 0})
    barrier = threading.Barrier(8)
    failures: list[Answer] = []

    def add_many() -> None:
        barrier.wait(5)
        for _ in range(200):
            answer = cache.cache.update("k", lambda value: {"n": value["n"] + 1})
            if isinstance(answer, Failure):
                failures.append(answer)

    threads = [threading.Thread(target=add_many, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert failures == []
    assert cache.peek("k") == Success({"n": 1600})
    cache.close()


def test_updates_puts_and_fetches_of_threads_end_in_one_of_them(sync_face: SyncFace) -> None:
    """Whatever comes between, an update is made of a value that was there, and nothing is torn."""
    cache = sync_face.new(clock=None, logger=None)
    put(cache, "k", (0, 0))
    stopped = threading.Event()
    torn: list[Any] = []

    def work(number: int) -> None:
        turn = 0
        while not stopped.is_set():
            turn += 1
            pair = (number, number)
            if number % 3 == 0:
                cache.cache.put("k", pair)
            elif number % 3 == 1:
                cache.cache.refresh("k", lambda pair=pair: Success(pair), ttl=60)
            else:
                cache.cache.update("k", lambda value: (value[0] + 1, value[1] + 1))
            value = cache.cache.peek("k").unwrap()
            if value[0] != value[1]:
                torn.append(value)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(6)]
    for thread in threads:
        thread.start()
    stopped.wait(0.3)
    stopped.set()
    for thread in threads:
        thread.join(5)

    assert torn == []
    assert not cache.cache._runtime.lives
    cache.close()


# Touch


def test_a_touch_lets_it_live_anew(face: Face) -> None:
    put(face, "k", 1, ttl=10, tags=("t",))
    created_at = face.inspect("k").created_at
    face.clock.advance(15)

    assert touch(face, "k", ttl=10) == Success(None)

    assert face.peek("k") == Success(1)
    state = face.inspect("k")
    assert (state.created_at, state.age.total_seconds()) == (created_at, 15.0)  # type: ignore[union-attr]
    assert state.time_to_expiry.total_seconds() == 10.0  # type: ignore[union-attr]
    face.clock.advance(10)
    assert face.peek("k") == Failure(CacheExpired("k"))
    touch(face, "k", ttl=None)
    face.clock.advance(10_000_000)
    assert face.peek("k") == Success(1)
    face.at_once("invalidate_tag", "t")
    assert touch(face, "k") == Failure(CacheMiss("k"))


def test_a_touch_takes_back_what_was_expired(face: Face) -> None:
    put(face, "k", 1, ttl=60, tags=("t",))
    face.at_once("expire_tag", "t")

    touch(face, "k", ttl=60)

    assert face.peek("k") == Success(1)


# With a store


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def stored(face: Face, store: FaultyStore) -> Iterator[Face]:
    cache = face.new(store=store)
    yield cache
    cache.close()


def kept(stored: Face, store: FaultyStore) -> Any:
    stored.settle()
    entry = store._entries.get((GLOBAL_OWNER, "k"))
    return None if entry is None else (entry.value, entry.expires_at and entry.expires_at - stored.clock(), entry.tags)


def test_writes_are_written_through_in_order(stored: Face, store: FaultyStore) -> None:
    put(stored, "k", 1, ttl=60, tags=("t",))
    assert kept(stored, store) == (1, 60.0, ("t",))
    stored.clock.advance(10)
    update(stored, "k", lambda value: value + 1)
    assert kept(stored, store) == (2, 50.0, ("t",))
    touch(stored, "k", ttl=5)
    assert kept(stored, store) == (2, 5.0, ("t",))
    put(stored, "k", 3)
    stored.invalidate("k")
    assert kept(stored, store) is None


def test_a_put_while_the_store_is_asked_is_what_is_got(async_face: AsyncFace, store: FaultyStore) -> None:
    first = async_face.new(store=store)
    put(first, "k", "stored")
    first.settle()
    other = async_face.new(store=store)
    fetch = other.fetcher(Success("fetched"))

    async def main() -> Any:
        get = asyncio.ensure_future(other.cache.get("k", fetch))
        await asyncio.sleep(0)
        other.cache.put("k", "put")
        return await get

    assert other.runner.run(main()) == Success("put")
    assert kept(other, store)[0] == "put"
    assert fetch.calls == 0
    first.close()
    other.close()


@pytest.mark.parametrize("operation", ["write", "read", "delete"])
def test_a_store_that_fails_costs_a_write_nothing(face: Face, operation: str) -> None:
    store = FlakyStore(MemoryStore())
    store.fail(operation, error=OSError("full"))
    stored = face.new(store=store)

    assert put(stored, "k", 1) == Success(1)
    assert update(stored, "k", lambda value: value + 1) == Success(2)
    assert touch(stored, "k", ttl=60) == Success(None)
    assert stored.peek("k") == Success(2)
    stored.close()


def test_a_value_may_use_the_cache_as_it_dies() -> None:
    """A finalizer of what a put replaces runs wherever it will; the cache goes on."""

    class Last:
        def __init__(self, cache: SyncCache) -> None:
            self.cache = cache

        def __del__(self) -> None:
            self.cache.put("last words", 1)
            self.cache.update("last words", lambda value: value + 1)
            self.cache.touch("last words", ttl=60)
            self.cache.invalidate_tag("t")

    with SyncCache() as cache:
        cache.put("k", Last(cache))
        cache.put("k", 1)
        assert cache.peek("k") == Success(1)
        assert cache.peek("last words").value_or(None) in {1, 2}
