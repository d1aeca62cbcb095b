"""A warm start: memory is filled from the store in the background, as far as there is room, over nothing newer."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, ValidationError
from returns.result import Failure, Result, Success

from cachemesh import Cache, CacheLogger, CacheMiss, CacheScope, MemoryStore, StoreFailed, SyncCache
from cachemesh.shell.hydration import COUNTED
from cachemesh.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from cachemesh.shell.ports import StoredEntry

USER = CacheScope.USER


class User(BaseModel):
    name: str


class Heard(CacheLogger):
    def __init__(self) -> None:
        self.errors: list[object] = []

    def on_error(self, key: str, error: object) -> None:
        del key
        self.errors.append(error)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what happens in another loop or thread."""
    for _ in range(10_000):
        if holds():
            return
        await asyncio.sleep(0.001)
    raise AssertionError


class Held(SqliteStore):
    """One whose scan waits, before its first entry, for somebody to say go. It raises `trouble` first, if any."""

    trouble: Exception | None = None
    may_go = False
    has_begun = False
    has_ended = False

    async def scan(self) -> AsyncIterator[StoredEntry]:
        self.has_begun = True
        try:
            entries = [entry async for entry in super().scan()]
            await until(lambda: self.may_go)
            if self.trouble is not None:
                raise self.trouble
            for entry in entries:
                yield entry
        finally:
            self.has_ended = True


class Asker:
    """A cache of either face, over real time. An async one has its loop run only while something is asked of it."""

    def __init__(self, kind: str, runner: asyncio.Runner) -> None:
        self.kind = kind
        self.runner = runner
        self.caches: list[Any] = []

    def make(self, **options: Any) -> Any:
        cache = (Cache if self.kind == "async" else SyncCache)(**options)
        self.caches.append(cache)
        if self.kind == "async":
            self.turn(cache)
        return cache

    def turn(self, cache: Any) -> None:
        """Let an event loop run for a moment, in which the cache is used."""

        async def main() -> None:
            await cache.get("", fetch, policy=None)  # No policy: nothing is fetched.
            await asyncio.sleep(0.005)

        async def fetch() -> Result[Any, Any]:
            return Failure("fetched")

        if self.kind == "async":
            self.runner.run(main())
        else:
            time.sleep(0.005)

    def until(self, cache: Any, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10.0
        while not holds():
            assert time.monotonic() < deadline
            self.turn(cache)

    def get(self, cache: Any, key: str, **options: Any) -> Result[Any, Any]:
        async def fetch() -> Result[Any, Any]:
            return Failure("fetched")

        got: Result[Any, Any]
        if self.kind == "async":
            got = self.runner.run(cache.get(key, fetch, **options))
        else:
            got = cache.get(key, lambda: Failure("fetched"), **options)
        return got

    def close(self, cache: Any) -> None:
        self.caches.remove(cache)
        if self.kind == "async":
            self.runner.run(cache.aclose())
        else:
            cache.close()


@pytest.fixture(params=["async", "sync"])
def asker(request: pytest.FixtureRequest) -> Iterator[Asker]:
    with asyncio.Runner() as runner:
        asker = Asker(request.param, runner)
        yield asker
        for cache in list(asker.caches):
            asker.close(cache)


def fill(path: Path, count: int) -> None:
    with SyncCache(store=SqliteStore(path)) as cache:
        for number in range(count):
            cache.put(f"k{number}", number)
        cache.for_user("ada").put("mine", "ada's", scope=USER)
        cache.put("user", User(name="Ada"), schema=User)
        cache.put("over", 1, ttl=0)
        assert cache.flush() == Success(None)


def held_in(cache: Any) -> int:
    return len(cache.dehydrate(scopes=tuple(CacheScope)))


def test_memory_is_filled_from_the_store(asker: Asker, tmp_path: Path) -> None:
    fill(tmp_path / "s", 200)

    cache = asker.make(store=SqliteStore(tmp_path / "s"), warm_start=True)
    asker.until(cache, lambda: held_in(cache) == 202)

    assert [cache.peek(f"k{number}") for number in range(200)] == [Success(number) for number in range(200)]
    assert cache.for_user("ada").peek("mine") == Success("ada's")
    assert cache.for_user("bob").peek("mine") == Failure(CacheMiss("mine"))
    assert cache.peek("mine") == Failure(CacheMiss("mine"))
    assert cache.peek("over") == Failure(CacheMiss("over"))
    assert asker.get(cache, "user", schema=User) == Success(User(name="Ada"))


def test_a_schema_that_the_cache_was_told_of_is_read_at_once(asker: Asker, tmp_path: Path) -> None:
    fill(tmp_path / "s", 0)

    cache = asker.make(store=SqliteStore(tmp_path / "s"), warm_start=True, schemas=(User,))
    asker.until(cache, lambda: held_in(cache) == 2)

    assert cache.peek("user") == Success(User(name="Ada"))


def test_without_it_memory_stays_empty(asker: Asker, tmp_path: Path) -> None:
    fill(tmp_path / "s", 1)
    store = Held(tmp_path / "s")

    cache = asker.make(store=store)
    asker.turn(cache)

    assert (held_in(cache), store.has_begun) == (0, False)


def test_it_ends_with_the_room(asker: Asker, tmp_path: Path) -> None:
    fill(tmp_path / "s", 500)
    store = Held(tmp_path / "s")
    store.may_go = True

    cache = asker.make(store=store, warm_start=True, max_entries=10)
    asker.until(cache, lambda: store.has_ended)

    assert repr(cache).endswith("10 entries>")


def test_reads_do_not_wait_for_it(asker: Asker, tmp_path: Path) -> None:
    fill(tmp_path / "s", 3)
    store = Held(tmp_path / "s")
    cache = asker.make(store=store, warm_start=True)
    asker.until(cache, lambda: store.has_begun)

    assert asker.get(cache, "k1") == Success(1)
    assert asker.get(cache, "none") == Failure("fetched")
    assert not store.has_ended
    store.may_go = True
    asker.until(cache, lambda: held_in(cache) == 5)


@pytest.mark.parametrize(
    "act",
    [
        lambda cache: cache.put("k1", "new"),
        lambda cache: cache.invalidate("k1"),
        lambda cache: cache.invalidate_prefix("k"),
        lambda cache: cache.clear(),
    ],
)
def test_what_is_newer_is_never_overwritten(asker: Asker, tmp_path: Path, act: Callable[[Any], None]) -> None:
    fill(tmp_path / "s", 3)
    store = Held(tmp_path / "s")
    cache = asker.make(store=store, warm_start=True)
    asker.until(cache, lambda: store.has_begun)
    asker.turn(cache)

    act(cache)
    store.may_go = True
    asker.until(cache, lambda: store.has_ended)
    asker.turn(cache)

    assert cache.peek("k1") in (Success("new"), Failure(CacheMiss("k1")))


def test_what_was_removed_before_any_loop_ran_does_not_come_back(tmp_path: Path) -> None:
    fill(tmp_path / "s", 3)

    cache = Cache(store=SqliteStore(tmp_path / "s"), warm_start=True)
    cache.invalidate("k1")

    async def main() -> None:
        assert await cache.get("k2", never) == Success(2)
        await until(lambda: len(cache.dehydrate()) == 3)
        assert cache.peek("k1") == Failure(CacheMiss("k1"))
        await cache.aclose()

    async def never() -> Result[Any, Any]:
        raise AssertionError

    asyncio.run(main())


def test_it_begins_at_once_where_a_loop_runs(tmp_path: Path) -> None:
    fill(tmp_path / "s", 3)

    async def main() -> None:
        async with Cache(store=SqliteStore(tmp_path / "s"), warm_start=True) as cache:
            await until(lambda: len(cache.dehydrate()) == 4)

    asyncio.run(main())


def test_it_begins_once(asker: Asker, tmp_path: Path) -> None:
    fill(tmp_path / "s", 3)
    cache = asker.make(store=SqliteStore(tmp_path / "s"), warm_start=True)
    asker.until(cache, lambda: held_in(cache) == 5)
    cache.clear()

    asker.turn(cache)
    asker.turn(cache.for_user("ada"))

    assert held_in(cache) == 0


def test_trouble_with_the_store_costs_only_the_warmth(asker: Asker, tmp_path: Path) -> None:
    fill(tmp_path / "s", 3)
    store, heard = Held(tmp_path / "s"), Heard()
    store.trouble, store.may_go = RuntimeError("trouble"), True

    cache = asker.make(store=store, warm_start=True, logger=heard)
    asker.until(cache, lambda: bool(heard.errors))

    assert [type(each) for each in heard.errors] == [StoreFailed]
    assert asker.get(cache, "k1") == Success(1)


def test_closing_ends_it(asker: Asker, tmp_path: Path) -> None:
    fill(tmp_path / "s", 3)
    store = Held(tmp_path / "s")
    cache = asker.make(store=store, warm_start=True)
    asker.until(cache, lambda: store.has_begun)
    began = time.monotonic()

    asker.close(cache)

    assert store.has_ended
    assert time.monotonic() - began < 4.0


@pytest.mark.parametrize("kind", [Cache, SyncCache])
@pytest.mark.parametrize("options", [{}, {"store": MemoryStore()}])
def test_it_needs_a_store_that_can_be_looked_through(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="looked through"):
        kind(warm_start=True, **options)
    with pytest.raises(ValidationError):
        kind(warm_start=1, **options)


def test_every_end_is_counted() -> None:
    assert len(set(COUNTED.values())) == len(COUNTED)
