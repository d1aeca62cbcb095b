"""What an attack on the library from outside has found. Each case says what went wrong before. Nothing here sleeps."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Failure, Result, Success

from cachemesh import (
    Cache,
    CacheClosed,
    CacheScope,
    CircuitState,
    FetchRaised,
    FetchTimeout,
    InvalidOption,
    Lifetime,
    Previous,
    PrintLogger,
    RetryOptions,
    SyncCache,
    cached,
)
from cachemesh.core.model import Entry, Terms
from cachemesh.shell.eviction import Resident
from cachemesh.stores import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.shell.faces import Face

SEVERAL = 300


def test_a_read_does_not_see_an_entry_half_rewritten() -> None:
    """An entry with tags that was put anew without any: `peek` raised AttributeError, or said CacheExpired."""
    cache = SyncCache(default_ttl=600)
    cache.put("k", 1, tags=("t",))
    seen: set[object] = set()
    over = threading.Event()

    def read() -> None:
        try:
            while not over.is_set():
                seen.add(cache.peek("k"))
                seen.add(Success(1) if cache.inspect("k").is_fresh else Failure("stale"))
        except Exception as error:  # noqa: BLE001 (to be shown)
            seen.add(error)

    switches_at = sys.getswitchinterval()
    readers = [threading.Thread(target=read) for _ in range(2)]
    sys.setswitchinterval(1e-6)
    try:
        for reader in readers:
            reader.start()
        for _ in range(2_000):
            cache.put("k", 1, tags=("t",))
            cache.put("k", 1)
            cache.put("k", 1, ttl=Lifetime(ttl=60, refresh_ahead=0.5))
    finally:
        sys.setswitchinterval(switches_at)
        over.set()
        for reader in readers:
            reader.join()
    assert seen == {Success(1)}


class Rewritten(Resident):
    """One that is rewritten whenever its life has been looked at."""

    looks = 0
    written: Any = None

    @property
    def life(self) -> Any:
        self.looks += 1
        return self.written if self.looks % 2 else 60.0

    @life.setter
    def life(self, life: Any) -> None:
        self.written = life


def test_the_life_of_an_entry_is_looked_at_once() -> None:
    """The same as above, without luck."""
    home: dict[str, Resident] = {}
    entry: Entry[Any] = Entry(Success(1), 0.0, 60.0, 60.0, Terms(tags=("t",)))
    assert Rewritten(Success(1), 0.0, entry, 60.0, "k", home).ttl_s == 60.0
    assert Rewritten(Success(1), 0.0, entry, 60.0, "k", home).expires_at == 60.0
    assert Rewritten(Success(1), 0.0, entry, 60.0, "k", home).terms is entry.terms


def test_who_has_left_a_fetch_that_hangs_leaves_nothing_behind(face: Face) -> None:
    """Each caller with a soft timeout, or that was cancelled, left a waiter on the flight for as long as it hung."""
    fetch = face.fetcher(Success("new"), held=True)
    face.fill("k", "old", ttl=1)
    face.clock.advance(2)
    for _ in range(SEVERAL):
        assert face.get("k", fetch, soft_timeout=0) == Success("old")
    (live,) = face.cache._runtime.lives.values()
    assert len(live.waiters) < SEVERAL / 2
    assert fetch.calls == 1
    fetch.release()
    face.settle()
    assert face.peek("k") == Success("new")


def test_who_was_cancelled_leaves_nothing_behind() -> None:
    async def main() -> None:
        cache, gate = Cache(), asyncio.Event()

        async def fetch() -> Result[str, str]:
            await gate.wait()
            return Success("new")

        patient = asyncio.create_task(cache.get("k", fetch))
        for _ in range(SEVERAL):
            task = asyncio.create_task(cache.get("k", fetch))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.sleep(0)
        (live,) = cache._runtime.lives.values()
        assert len(live.waiters) < SEVERAL / 2
        gate.set()
        assert await patient == Success("new")

    asyncio.run(main())


def within(seconds: float, call: Callable[[], Any]) -> Any:
    async def calling() -> Any:
        return await asyncio.wait_for(call(), seconds)

    return asyncio.run(calling())


def test_a_fetch_that_closes_the_cache_before_its_first_wait_is_stopped() -> None:
    """From Python 3.12 on a fetch begins at once, before its task is known: it was not cancelled, its caller hung."""
    cache = Cache()

    async def fetch() -> Result[str, str]:
        await cache.aclose()
        await asyncio.Event().wait()
        return Success("never")

    assert within(4, lambda: cache.get("k", fetch)) == Failure(CacheClosed())


def test_a_fetch_that_is_too_old_before_its_first_wait_is_stopped(clock: Any) -> None:
    """The same for `max_flight_age`: the caller waited for ever."""
    cache = Cache(clock=clock)

    async def other() -> Result[str, str]:
        return Success("other")

    async def fetch() -> Result[str, str]:
        clock.advance(20)
        await cache.get("other", other)
        await asyncio.Event().wait()
        return Success("never")

    assert within(4, lambda: cache.get("k", fetch, max_flight_age=10)) == Failure(FetchTimeout("k", 10.0))


async def call(function: Any, *arguments: Any) -> Any:
    got = function(*arguments)
    return await got if asyncio.iscoroutine(got) else got


def test_previous_may_stand_anywhere() -> None:
    """An argument that a caller gave by place landed in `previous`: FetchRaised(TypeError)."""
    cache = Cache()

    @cached(cache, key="middle:{slug}:{author}", conditional=True)
    async def middle(slug: str, previous: Previous[Any] | None = None, author: str = "?") -> Result[Any, str]:
        return Success((slug, author, previous is None))

    @cached(cache, key="first:{slug}", conditional=True)
    async def first(previous: Previous[Any] | None, slug: str) -> Result[Any, str]:
        return Success((slug, previous is None))

    @cached(cache, key="place:{slug}", conditional=True)
    async def by_place(slug: str, previous: Previous[Any] | None, /) -> Result[Any, str]:
        return Success((slug, previous is None))

    @cached(cache, key="name:{slug}", conditional=True)
    async def by_name(slug: str, *, previous: Previous[Any] | None) -> Result[Any, str]:
        return Success((slug, previous is None))

    async def main() -> None:
        assert await call(middle, "a", "b") == Success(("a", "b", True))
        assert await call(middle.refresh, "a", "b") == Success(("a", "b", False))
        for function in (first, by_place, by_name):
            assert await call(function, "a") == Success(("a", True))
            assert await call(function.refresh, "a") == Success(("a", False))

    asyncio.run(main())


def test_previous_may_stand_anywhere_for_threads() -> None:
    @cached(SyncCache(), key="middle:{slug}:{author}", conditional=True)
    def middle(slug: str, previous: Previous[Any] | None = None, author: str = "?") -> Result[Any, str]:
        return Success((slug, author, previous is None))

    function: Any = middle
    assert function("a", "b") == Success(("a", "b", True))
    assert function.refresh("a", author="b") == Success(("a", "b", False))


@pytest.mark.parametrize("name", [None, 1, [], {}], ids=repr)
def test_a_circuit_of_no_name_is_closed(face: Face, name: Any) -> None:
    """One that cannot be hashed raised TypeError."""
    assert face.at_once("circuit", name).state is CircuitState.CLOSED
    face.at_once("reset_circuit", name)
    assert face.log.named("error") == [("error", "reset_circuit", InvalidOption("origin", type(name).__name__))]


def test_the_log_does_not_tell_the_tags_of_a_user(capsys: pytest.CaptureFixture[str]) -> None:
    """A tag ordered on a view, or for the user scope, was printed as it is; keys and prefixes were not."""
    cache = SyncCache(logger=PrintLogger())
    cache.for_user("ada").invalidate_tag("diagnosis")
    cache.for_user("ada").expire_tag("diagnosis")
    cache.set_active_user("ada")
    cache.invalidate_tag("diagnosis", scope=CacheScope.USER)
    assert "diagnosis" not in capsys.readouterr().out
    cache.invalidate_tag("feed")
    assert "invalidate_tag feed" in capsys.readouterr().out


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No thread can be started."""

    def start(thread: threading.Thread) -> None:
        msg = f"can't start {thread.name}"
        raise RuntimeError(msg)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        yield


def one() -> Result[int, str]:
    return Success(1)


def each(keys: tuple[str, ...]) -> dict[str, Result[int, str]]:
    return {key: Success(1) for key in keys}


@pytest.mark.usefixtures("no_room")
def test_no_room_for_a_thread_raises_nothing() -> None:
    """RuntimeError came out of `get` and `get_many`."""
    cache = SyncCache()
    hurried = RetryOptions(max_attempts=1, attempt_timeout=1)
    got: Any = cache.get("a", one, retry=hurried)
    assert isinstance(got.failure(), FetchRaised)
    assert cache.get_many(["b", "c"], each, hard_timeout=1) == {"b": Success(1), "c": Success(1)}
    answers: dict[str, Any] = cache.get_many(["d", "e"], each, retry=hurried)
    assert all(isinstance(answer.failure(), FetchRaised) for answer in answers.values())
    assert not cache._runtime.lives


@pytest.mark.usefixtures("no_room")
def test_no_room_for_the_thread_of_the_store_raises_nothing() -> None:
    """A write raised RuntimeError, left a coroutine behind, and then `close` hung for ever."""
    cache = SyncCache(store=MemoryStore())
    assert cache.put("a", 1) == Success(1)
    cache.close()
