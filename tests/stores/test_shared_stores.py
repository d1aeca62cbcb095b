"""Both faces in front of the stores that processes share: what survives, what others change, who fetches."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel
from returns.result import Failure, Result, Success

from cachemesh import (
    Cache,
    CacheLogger,
    CacheMiss,
    CacheScope,
    Fresh,
    Lifetime,
    StoreFailed,
    SyncCache,
    UndecodableEntry,
)
from cachemesh.shell.schema import Schema
from cachemesh.stores.redis import RedisStore
from cachemesh.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cachemesh.shell.ports import SharedStore
    from tests.stores.servers import Server

USER = CacheScope.USER


class Account(BaseModel):
    name: str
    tags: frozenset[str] = frozenset()


UNDECODABLE = "k", UndecodableEntry("k", "of another schema")
ADA = Account(name="Ada", tags=frozenset({"a"}))


class Heard(CacheLogger):
    def __init__(self) -> None:
        self.errors: list[tuple[str, object]] = []

    def on_error(self, key: str, error: object) -> None:
        self.errors.append((str.__str__(key), error))


class Asker:
    """A cache of either face, asked from a plain test. `fetched` counts its fetches."""

    def __init__(self, cache: Any, runner: asyncio.Runner | None) -> None:
        self.cache = cache
        self.runner = runner
        self.fetched = 0

    def run(self, answer: Any) -> Any:
        async def main() -> Any:
            return await answer

        return answer if self.runner is None else self.runner.run(main())

    def get(self, key: str, answer: Result[Any, Any], **options: Any) -> Result[Any, Any]:
        def fetch() -> Result[Any, Any]:
            self.fetched += 1
            return answer

        async def fetch_async() -> Result[Any, Any]:
            return fetch()

        got: Result[Any, Any] = self.run(self.cache.get(key, fetch if self.runner is None else fetch_async, **options))
        return got

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """A method that is not awaited, within the event loop."""
        if self.runner is None:
            return getattr(self.cache, method)(*arguments, **options)

        async def main() -> Any:
            got = getattr(self.cache, method)(*arguments, **options)
            await asyncio.sleep(0)
            return got

        return self.runner.run(main())

    def listens(self) -> None:
        """Wait until it hears of others; it has forgotten all that it knew before."""
        self.get("first", Failure("asked"))
        store = self.cache._runtime._backplane
        if isinstance(store, RedisStore):
            until(lambda: store._bus.is_subscribed)

    def flush(self) -> Any:
        return self.run(self.cache.flush())

    def close(self) -> None:
        if self.runner is None:
            self.cache.close()
        else:
            self.runner.run(self.cache.aclose())


@pytest.fixture(params=["sqlite", "redis"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], SharedStore]:
    """A store object for each process that a test plays, all over one file or server."""
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "cache.db")
    server: Server = request.getfixturevalue("server")
    return lambda: RedisStore(server.url, memory_cap=0.2, ping_interval=0.5)


@pytest.fixture(params=["async", "sync"])
def new(request: pytest.FixtureRequest, new_store: Callable[[], SharedStore]) -> Iterator[Callable[..., Asker]]:
    """A cache of its own, with a store object of its own, as another process has them."""
    made: list[Asker] = []

    def make(**settings: Any) -> Asker:
        if request.param == "sync":
            asker = Asker(SyncCache(store=new_store(), **settings), None)
        else:
            asker = Asker(Cache(store=new_store(), **settings), asyncio.Runner())
        made.append(asker)
        return asker

    yield make
    for asker in made:
        asker.close()
        if asker.runner is not None:
            asker.runner.close()


def test_a_value_survives_a_restart_with_its_type(new: Callable[..., Asker]) -> None:
    before = new()
    assert before.get("ada", Success(ADA), schema=Account, ttl=60) == Success(ADA)
    assert before.get("plain", Success({"a": [1, None]}), ttl=60) == Success({"a": [1, None]})
    assert before.flush() == Success(None)
    before.close()
    after = new()
    assert after.get("ada", Failure("asked"), schema=Account) == Success(ADA)
    assert after.get("plain", Failure("asked")) == Success({"a": [1, None]})
    assert after.fetched == 0


def test_scopes_tags_windows_and_failures_survive_a_restart(new: Callable[..., Asker]) -> None:
    before = new()
    before.call("set_active_user", "ada")
    before.get("mine", Success("ada's"), scope=USER, ttl=60)
    before.get("down", Failure("no"), cache_failures=True, ttl=60)
    before.get("tagged", Success(1), tags=("t",), ttl=60)
    before.get("old", Success(2), ttl=Lifetime(ttl=0, serve_stale_for=60))
    before.close()
    after = new()
    assert (
        after.get("mine", Failure("nobody"), scope=USER).failure()
        == after.get("mine", Success(1), scope=USER).failure()
    )
    after.call("set_active_user", "bob")
    assert after.get("mine", Failure("bob has none"), scope=USER) == Failure("bob has none")
    asked = after.fetched
    assert after.get("down", Success("up")) == Failure("no")
    assert after.get("old", Failure("behind")) == Success(2)
    assert after.get("tagged", Failure("asked")) == Success(1)
    assert after.fetched - asked <= 1  # The refresh behind of what is stale.


def test_a_tag_that_was_invalidated_stays_so_after_a_restart(new: Callable[..., Asker]) -> None:
    before = new()
    before.get("k", Success("old"), tags=("t",), ttl=60)
    before.call("invalidate_tag", "t")
    before.flush()
    before.close()
    after = new()
    assert after.get("k", Success("new"), tags=("t",)) == Success("new")
    assert after.fetched == 1


def test_what_does_not_fit_the_schema_is_a_miss_and_is_told(new: Callable[..., Asker]) -> None:
    before = new()
    before.get("k", Success({"name": "Ada"}), ttl=60)
    before.close()
    heard = Heard()
    after = new(logger=heard)
    assert after.get("k", Success(ADA), schema=Account, ttl=60) == Success(ADA)
    # It is looked at before the fetch as well, and once more where news begin to be heard meanwhile.
    assert heard.errors in [[UNDECODABLE] * times for times in (1, 2, 3)]
    after.flush()
    newer = new(logger=heard)
    assert newer.get("k", Failure("asked"), schema=Account) == Success(ADA)


def test_an_older_version_comes_back_through_its_migration(new: Callable[..., Asker]) -> None:
    new().get("k", Success({"full": "Ada"}), schema=Schema(dict[str, str], name="user", version=1), ttl=60)
    schema = Schema(Account, name="user", version=2, migrate=lambda data, _: {"name": data["full"]})
    assert new().get("k", Failure("asked"), schema=schema) == Success(Account(name="Ada"))


def test_a_value_without_bytes_is_answered_and_takes_the_stored_one_away(new: Callable[..., Asker]) -> None:
    heard = Heard()
    one = new(logger=heard)
    one.listens()
    one.get("k", Success("old"), ttl=0)
    value = object()
    assert one.get("k", Success(value)) == Success(value)
    assert one.get("k", Failure("asked")) == Success(value)
    assert [(key, type(error), error.operation) for key, error in heard.errors if isinstance(error, StoreFailed)] == [
        ("k", StoreFailed, "encode")
    ]
    assert new().get("k", Success("new")) == Success("new")


def test_what_is_written_by_hand_survives(new: Callable[..., Asker]) -> None:
    before = new()
    before.listens()
    before.call("put", "put", ADA, ttl=60, schema=Account)
    before.call("put", "updated", 1, ttl=60)
    before.call("update", "updated", lambda count: count + 1)
    before.call("put", "touched", 1, ttl=0)
    before.call("touch", "touched", 60)
    before.flush()
    before.close()
    after = new()
    found = [after.get(key, Failure("asked"), schema=schema) for key, schema in (("put", Account), ("updated", None))]
    assert found == [Success(ADA), Success(2)]
    assert after.get("touched", Failure("asked")) == Success(1)


def test_sf10_a_fetch_from_before_another_processs_removal_is_not_stored(new: Callable[..., Asker]) -> None:
    """The generation is the fence, whoever removed."""
    other, one = new(), new()
    one.get("k", Success("first"), ttl=0)

    def act() -> None:
        other.call("invalidate", "k")
        other.flush()

    if one.runner is None:

        def fetch() -> Result[Any, Any]:
            act()
            return Success("read before")

        assert one.cache.get("k", fetch, ttl=60) == Success("read before")
    else:

        async def fetch_async() -> Result[Any, Any]:
            await asyncio.get_running_loop().run_in_executor(None, act)
            return Success("read before")

        assert one.run(one.cache.get("k", fetch_async, ttl=60)) == Success("read before")
    deadline = time.monotonic() + 5
    while one.cache.peek("k") == Success("read before") and time.monotonic() < deadline:
        one.flush()
    assert one.cache.peek("k") == Failure(CacheMiss("k"))
    assert new().get("k", Success("newer")) == Success("newer")


def test_sf14_of_two_processes_that_miss_at_once_one_fetches(new: Callable[..., Asker]) -> None:
    askers = [new(), new()]
    answers: list[Result[Any, Any]] = []
    began = threading.Event()

    def slow(asker: Asker) -> Any:
        def fetch() -> Result[Any, Any]:
            asker.fetched += 1
            began.set()
            time.sleep(0.2)
            return Success("once")

        async def fetch_async() -> Result[Any, Any]:
            asker.fetched += 1
            began.set()
            await asyncio.sleep(0.2)
            return Success("once")

        return fetch if asker.runner is None else fetch_async

    def ask(asker: Asker) -> None:
        answers.append(asker.run(asker.cache.get("k", slow(asker), ttl=60)))

    threads = [threading.Thread(target=ask, args=(asker,)) for asker in askers]
    threads[0].start()
    began.wait(5)
    threads[1].start()
    for thread in threads:
        thread.join(20)
    assert answers == [Success("once")] * 2
    assert [asker.get("k", Failure("asked")) for asker in askers] == [Success("once")] * 2
    assert sum(asker.fetched for asker in askers) == 1


@pytest.mark.parametrize("scope", [CacheScope.GLOBAL, USER])
def test_sf14_of_two_new_processes_that_ask_at_once_one_fetches(
    new_store: Callable[[], SharedStore], scope: CacheScope
) -> None:
    """They begin to hear of others while they ask: that a user may have left unheard does not mean that one has."""
    caches = [SyncCache(store=new_store()) for _ in range(2)]
    fetched: list[int] = []

    def fetch() -> Result[Any, Any]:
        fetched.append(1)
        time.sleep(0.1)
        return Success("once")

    threads = [
        threading.Thread(target=lambda cache=cache: cache.for_user("ada").get("k", fetch, scope=scope, ttl=60))
        for cache in caches
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for cache in caches:
        assert cache.for_user("ada").get("k", fetch, scope=scope) == Success("once")
        cache.close()
    assert fetched == [1]


def test_get_many_is_fenced_and_survives(new: Callable[..., Asker]) -> None:
    before = new()
    asked: list[tuple[str, ...]] = []

    def fetch_many(keys: tuple[str, ...]) -> dict[str, Result[Any, Any]]:
        asked.append(keys)
        return {key: Success(len(key)) for key in keys}

    async def fetch_many_async(keys: tuple[str, ...]) -> dict[str, Result[Any, Any]]:
        return fetch_many(keys)

    fetch = fetch_many if before.runner is None else fetch_many_async
    keys = ["a", "bb", "ccc"]
    expected = {key: Success(len(key)) for key in keys}
    assert before.run(before.cache.get_many(keys, fetch, ttl=60)) == expected
    assert asked == [("a", "bb", "ccc")]
    before.close()
    after = new()
    assert after.run(after.cache.get_many(keys, fetch, ttl=60)) == expected
    assert asked == [("a", "bb", "ccc")]


def test_directives_survive(new: Callable[..., Asker]) -> None:
    new().get("k", Success(Fresh("v", ttl=60, tags=("t",), validator='"v1"')))
    after = new()
    assert after.get("k", Failure("asked")) == Success("v")
    entry = after.cache._runtime.state.plain.hits["k"].as_entry()
    assert (entry.terms.tags, entry.terms.validator) == (("t",), '"v1"')


def test_flush_on_a_closed_cache_is_refused(new: Callable[..., Asker]) -> None:
    cache = new()
    cache.close()
    assert repr(cache.flush()) == "<Failure: CacheClosed()>"


# News


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


@pytest.fixture
def both(server: Server) -> Iterator[tuple[SyncCache, SyncCache]]:
    """Two processes on one server, which hear of each other."""
    with SyncCache(store=RedisStore(server.url)) as one, SyncCache(store=RedisStore(server.url)) as other:
        for cache in (one, other):
            cache.get("begin", lambda: Success(1))
        time.sleep(0.2)  # Both have subscribed, and have forgotten what came before.
        yield one, other


@pytest.mark.parametrize(
    "act",
    [
        lambda cache: cache.invalidate("k"),
        lambda cache: cache.put("k", "theirs", ttl=60),
        lambda cache: cache.refresh("k", lambda: Success("theirs"), ttl=60),
        lambda cache: cache.invalidate_tag("t"),
        lambda cache: cache.invalidate_prefix("k"),
        lambda cache: cache.clear_scope(CacheScope.GLOBAL),
        lambda cache: cache.clear(),
    ],
    ids=["invalidate", "put", "refresh", "tag", "prefix", "scope", "clear"],
)
def test_what_one_process_changes_is_forgotten_by_the_others(
    both: tuple[SyncCache, SyncCache], act: Callable[[SyncCache], object]
) -> None:
    one, other = both
    assert one.get("k", lambda: Success("mine"), tags=("t",), ttl=60) == Success("mine")
    assert other.get("k", lambda: Failure("asked"), tags=("t",), ttl=60) == Success("mine")
    act(one)
    until(lambda: other.peek("k") == Failure(CacheMiss("k")))


def test_a_tag_that_one_process_expires_is_stale_for_the_others(both: tuple[SyncCache, SyncCache]) -> None:
    one, other = both

    def is_stale_and_there() -> bool:
        """Not where news of the writing itself come late: what they make it forget is stale for nobody."""
        one.refresh("k", lambda: Success("mine"), tags=("t",), ttl=60)
        one.flush()
        until(lambda: other.get("k", lambda: Failure("asked"), tags=("t",), ttl=60) == Success("mine"))
        one.expire_tag("t")
        until(lambda: not other.inspect("k").is_fresh)
        return other.peek("k", allow_expired=True) == Success("mine")

    until(is_stale_and_there)


def test_a_user_who_leaves_one_process_is_forgotten_by_the_others(both: tuple[SyncCache, SyncCache]) -> None:
    one, other = both
    for cache in both:
        cache.set_active_user("ada")
    one.get("me", lambda: Success("ada's"), scope=USER, ttl=60)
    assert other.get("me", lambda: Failure("asked"), scope=USER, ttl=60) == Success("ada's")
    one.set_active_user("bob")
    until(lambda: other.peek("me") == Failure(CacheMiss("me")))


def test_watchers_hear_of_what_other_processes_change(both: tuple[SyncCache, SyncCache]) -> None:
    one, other = both
    other.get("k", lambda: Success(1), ttl=60)
    heard: list[object] = []
    subscription = other.watch("k").subscribe(heard.append)
    one.put("k", 2)
    until(lambda: heard == [Failure(CacheMiss("k"))])
    subscription.cancel()


@pytest.mark.parametrize("is_removed", [False, True])
def test_watchers_hear_of_what_was_fetched_while_news_were_lost_once_the_store_has_taken_it(
    server: Server, is_removed: bool
) -> None:
    """It is not in memory, so nothing else would tell them; and not of what another process has removed by then."""
    store = RedisStore(server.url)
    with SyncCache(store=store) as cache, SyncCache(store=RedisStore(server.url)) as other:
        heard: list[object] = []
        subscription = cache.watch("k").subscribe(heard.append)

        def fetch() -> Result[int, str]:
            until(lambda: store._bus.is_subscribed)
            if is_removed:
                other.invalidate("k")
                other.flush().unwrap()
            return Success(1)

        assert cache.get("k", fetch, ttl=60) == Success(1)
        until(lambda: len(heard) > 0)
        assert heard[0] == (Failure(CacheMiss("k")) if is_removed else Success(1))
        assert (cache.get("k", lambda: Failure("asked"), ttl=60) == Success(1)) is not is_removed
        cache.put("k", 2)
        until(lambda: heard[-1] == Success(2))
        assert heard.count(Success(1)) == (not is_removed)
        subscription.cancel()


def test_rd2_when_the_connection_is_lost_the_memory_is_forgotten(server: Server) -> None:
    store = RedisStore(server.url, memory_cap=0.1, ping_interval=0.3)
    with SyncCache(store=store) as cache:
        cache.get("k", lambda: Success(1))
        until(lambda: store._bus.is_subscribed)
        cache.get("k", lambda: Success(1), ttl=60)
        assert cache.peek("k") == Success(1)
        server.kill()
        try:
            until(lambda: cache.peek("k") == Failure(CacheMiss("k")))
            assert cache.get("k", lambda: Success(2), ttl=60) == Success(2)
            until(lambda: cache.peek("k") == Failure(CacheMiss("k")))
        finally:
            server.start()


def test_who_has_been_hydrated_hears_of_the_others_as_well(both: tuple[SyncCache, SyncCache]) -> None:
    one, other = both
    one.put("k", "old", ttl=60)
    snapshot = one.dehydrate()

    def is_filled() -> bool:
        """What comes in before the news are heard for the first time is forgotten once they are."""
        return other.hydrate(snapshot).unwrap().admitted > 0

    until(is_filled)
    one.put("k", "new", ttl=60)
    until(lambda: other.peek("k") != Success("old"))


# Whose it is, and which is newer


def test_sc3_the_session_of_one_program_is_not_that_of_the_next(new: Callable[..., Asker]) -> None:
    before = new()
    before.call("set_active_user", "ada")
    assert before.get("cart", Success("ada's"), scope=CacheScope.SESSION, ttl=60) == Success("ada's")
    assert before.get("cart", Failure("asked"), scope=CacheScope.SESSION) == Success("ada's")
    beside = new()
    beside.call("set_active_user", "bob")
    assert beside.get("cart", Success("bob's"), scope=CacheScope.SESSION, ttl=60) == Success("bob's")
    before.close()
    after = new(warm_start=True)
    after.call("set_active_user", "ada")
    assert after.get("cart", Success("new"), scope=CacheScope.SESSION, ttl=60) == Success("new")


def test_a_touch_puts_no_old_value_over_a_newer_one(new: Callable[..., Asker]) -> None:
    one, other = new(), new()
    one.get("k", Success("old"), ttl=60)
    one.flush()
    assert other.get("k", Failure("asked")) == Success("old")
    one.call("put", "k", "new", ttl=600)
    one.flush()
    other.call("touch", "k", 600)
    other.flush()
    assert new().get("k", Failure("asked")) == Success("new")


def test_a_touch_does_not_bring_back_what_another_process_has_removed(new: Callable[..., Asker]) -> None:
    one, other = new(), new()
    one.get("k", Success("old"), ttl=60)
    one.flush()
    assert other.get("k", Failure("asked")) == Success("old")
    one.call("invalidate", "k")
    one.flush()
    other.call("touch", "k", 600)
    other.flush()
    assert new().get("k", Success("newer")) == Success("newer")
