"""`Batcher` and `SyncBatcher`: many single gets, one call of the origin."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Failure, Success

from cachemesh import (
    Batcher,
    Cache,
    CacheMiss,
    CachePolicy,
    CacheScope,
    FetchCancelled,
    FetchRaised,
    Fresh,
    InvalidFetchResult,
    InvalidKey,
    NoActiveUser,
    ReentrantFetch,
    RetryOptions,
    SyncBatcher,
    SyncCache,
)
from cachemesh.testing.loop import VirtualLoop
from tests.shell.faces import AsyncFace, SyncFace

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shell.faces import Answer, Calls, Face, Pending

USER = CacheScope.USER


class Batched:
    """A batcher of either kind in front of a face's cache, with the calls that it made."""

    def __init__(self, face: Face, answer: Callable[[tuple[str, ...]], Any] | None = None, **options: Any) -> None:
        self.face = face
        self.fetch = face.fetcher(answer or (lambda keys: {key: Success(key.upper()) for key in keys}))
        self.batcher: Any = (Batcher if face.name == "async" else SyncBatcher)(face.cache, self.fetch, **options)

    def gets(self, *keys: Any, **options: Any) -> list[Answer]:
        """The answers to gets that come at the same time."""
        face = self.face
        if isinstance(face, AsyncFace):

            async def together() -> list[Answer]:
                return list(await asyncio.gather(*(self.batcher.get(key, **options) for key in keys)))

            return face.runner.run(together())
        turn = iter(keys)
        real, face.cache = face.cache, self.batcher

        def call(calls: Calls[Pending]) -> Pending:
            return calls.call("get", next(turn), **options)

        try:
            return face.concurrently(len(keys), call, then=lambda: None)
        finally:
            face.cache = real

    @property
    def asked(self) -> list[list[str]]:
        """The keys of each call, sorted: threads come in any order."""
        return [sorted(arguments[0]) for arguments in self.fetch.arguments]


@pytest.fixture
def batched(face: Face) -> Batched:
    return Batched(face, window=window(face))


def window(face: Face) -> float:
    """Threads need a moment to come together."""
    return 0 if face.name == "async" else 0.05


@pytest.fixture(autouse=True)
def _real_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual clock would not wait for other threads to come: their window is one of real time."""
    gate = threading.Event()
    monkeypatch.setattr(SyncCache, "pause", lambda _, seconds: gate.wait(seconds) and None)


def test_gets_of_one_tick_are_one_call(batched: Batched) -> None:
    assert batched.gets("c", "a", "b") == [Success("C"), Success("A"), Success("B")]
    assert batched.asked == [["a", "b", "c"]]
    assert batched.face.peek("a") == Success("A")


def test_a_hit_asks_nobody(batched: Batched) -> None:
    batched.gets("a")

    assert batched.gets("a", "b") == [Success("A"), Success("B")]
    assert batched.asked == [["a"], ["b"]]


def test_callers_of_one_key_share_it(batched: Batched) -> None:
    assert batched.gets("a", "a", "b", "a") == [Success("A"), Success("A"), Success("B"), Success("A")]
    assert batched.asked == [["a", "b"]]


def test_one_bad_key_is_one_failure(batched: Batched) -> None:
    assert batched.gets("a", 42) == [Success("A"), Failure(InvalidKey(42))]
    assert batched.asked == [["a"]]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda _: Failure("down"), [Failure("down")] * 2),
        (lambda _: {"a": Success(1)}, [Success(1), Failure(InvalidFetchResult("b", "nothing"))]),
        (lambda _: 42, [Failure(InvalidFetchResult(key, "int")) for key in "ab"]),
        (lambda _: {"a": Failure("no a"), "b": Success(Fresh(2, ttl=5))}, [Failure("no a"), Success(2)]),
    ],
    ids=["failure", "left out", "no mapping", "each its own"],
)
def test_what_the_call_comes_to_is_told_key_by_key(face: Face, answer: Any, expected: list[Answer]) -> None:
    assert Batched(face, answer, window=window(face)).gets("a", "b") == expected


def test_what_raises_failed_for_all(face: Face) -> None:
    error = LookupError("down")

    batched = Batched(face, window=window(face))
    batched.fetch._outcomes = (error,)

    assert batched.gets("a", "b") == [Failure(FetchRaised("a", error)), Failure(FetchRaised("b", error))]


def test_options_are_those_of_get(face: Face) -> None:
    batched = Batched(face, window=window(face))

    batched.gets("a", "b", ttl=5, tags=("t",))
    face.at_once("invalidate_tag", "t")
    assert face.peek("a") == Failure(CacheMiss("a"))
    assert batched.gets("a", policy=CachePolicy.CACHE_ONLY) == [Failure(CacheMiss("a"))]
    assert batched.gets("a", scope=USER) == [Failure(NoActiveUser("a"))]


def test_what_failed_is_tried_again_together(async_face: AsyncFace) -> None:
    rounds = iter([Failure("busy"), Failure("busy"), {"a": Success(1), "b": Success(2)}])
    batched = Batched(async_face, lambda _: next(rounds))

    assert batched.gets("a", "b", retry=RetryOptions(max_attempts=3, delay=10)) == [Success(1), Success(2)]
    assert batched.asked == [["a", "b"]] * 3


def test_no_more_than_so_many_at_once(face: Face) -> None:
    batched = Batched(face, window=window(face), most=2)

    assert batched.gets(*"abcde") == [Success(key.upper()) for key in "abcde"]
    assert sorted(len(keys) for keys in batched.asked) == [1, 2, 2]
    assert sorted(key for keys in batched.asked for key in keys) == list("abcde")


def test_a_view_fetches_for_its_user(face: Face) -> None:
    ada, bob = (Batched(face.for_user(user), window=window(face)) for user in ("ada", "bob"))
    ada.gets("a", scope=USER)

    assert bob.gets("a", scope=USER) == [Success("A")]
    assert (ada.asked, bob.asked) == ([["a"]], [["a"]])


def test_a_call_that_asks_for_one_of_its_own_keys_is_told_so(face: Face) -> None:
    batched: Batched

    def asking(keys: tuple[str, ...]) -> Any:
        got = [batched.batcher.get(key) for key in "ab"]
        if face.name == "sync":
            return {key: Success(got) for key in keys}

        async def awaited() -> Any:
            answers = [await each for each in got]
            return {key: Success(answers) for key in keys}

        return awaited()

    batched = Batched(face, asking, window=window(face))

    assert batched.gets("a", "b") == [Success([Failure(ReentrantFetch("a")), Failure(ReentrantFetch("b"))])] * 2
    assert batched.asked == [["a", "b"]]


# Several users, several flights of one key


WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


def test_one_user_is_never_fetched_for_in_the_name_of_another(async_face: AsyncFace) -> None:
    """The same key in one tick, for two users: two calls, each in the context of who asked."""
    calls: list[tuple[str, tuple[str, ...]]] = []

    async def fetch(keys: tuple[str, ...]) -> Any:
        calls.append((WHO.get(), keys))
        return {key: Success(WHO.get()) for key in keys}

    batcher = Batcher(async_face.cache, fetch)

    async def one(user: str) -> Any:
        WHO.set(user)
        async_face.cache.set_active_user(user)
        return await batcher.get("me", scope=USER)

    async def apart() -> list[Any]:
        ada = asyncio.create_task(one("ada"))
        bob = asyncio.create_task(one("bob"))
        return [await ada, await bob]

    assert async_face.runner.run(apart()) == [Success("ada"), Success("bob")]
    assert calls == [("ada", ("me",)), ("bob", ("me",))]


def test_threads_of_two_users_are_fetched_for_apart(sync_face: SyncFace) -> None:
    calls: list[tuple[str, ...]] = []

    def fetch(keys: tuple[str, ...]) -> Any:
        calls.append(keys)
        return {key: Success(len(calls)) for key in keys}

    batcher = SyncBatcher(sync_face.cache, fetch, window=0.05)
    sync_face.set_active_user("ada")
    held, sync_face.cache = sync_face.cache, batcher
    pending = [sync_face.begin.call("get", "me", scope=scope) for scope in (USER, CacheScope.GLOBAL)]
    sync_face.cache = held

    assert sorted(each.result().unwrap() for each in pending) == [1, 2]
    assert calls == [("me",), ("me",)]


def test_two_flights_of_one_key_are_both_answered(async_face: AsyncFace) -> None:
    """One passes the cache by, one was struck off before its call was made: all three wait for the same key."""
    batched = Batched(async_face)

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(batched.batcher.get("a"))]
        tasks.append(asyncio.create_task(batched.batcher.get("a", policy=CachePolicy.NETWORK_ONLY)))
        await asyncio.sleep(0)
        async_face.cache.invalidate("a")
        tasks.append(asyncio.create_task(batched.batcher.get("a")))
        return list(await asyncio.wait_for(asyncio.gather(*tasks), 60))

    assert async_face.runner.run(main()) == [Success("A")] * 3
    assert all(keys == ["a"] for keys in batched.asked)


# The window


def test_a_window_collects_for_so_long(async_face: AsyncFace) -> None:
    batched = Batched(async_face, window=timedelta(seconds=5))

    async def main() -> list[Any]:
        async def after(seconds: float, key: str) -> Any:
            await asyncio.sleep(seconds)
            return await batched.batcher.get(key)

        return list(await asyncio.gather(after(0, "a"), after(4.9, "b"), after(5.1, "c"), after(10, "d")))

    assert async_face.runner.run(main()) == [Success(key) for key in "ABCD"]
    assert batched.asked == [["a", "b"], ["c", "d"]]


@pytest.mark.parametrize("options", [{"window": -1}, {"window": None}, {"window": "soon"}, {"most": 0}, {"most": True}])
@pytest.mark.parametrize("kind", [Batcher, SyncBatcher])
def test_a_window_that_makes_no_sense_is_refused(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"window|duration|most"):
        kind(None, None, **options)


# Loops, cancelling, crashes


def test_each_loop_has_its_own_calls(async_face: AsyncFace) -> None:
    """Two loops in turn, the first one closed over a call that was never made."""
    cache = Cache()
    calls: list[tuple[str, ...]] = []

    async def fetch(keys: tuple[str, ...]) -> Any:
        calls.append(keys)
        return {key: Success(key) for key in keys}

    batcher = Batcher(cache, fetch)
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(async_face.clock)) as runner:

        async def left_behind() -> None:
            batcher._batches.clear()
            asyncio.ensure_future(batcher.get("left")).cancel()

        runner.run(left_behind())
    for key in "ab":
        with asyncio.Runner(loop_factory=lambda: VirtualLoop(async_face.clock)) as runner:
            assert runner.run(batcher.get(key)) == Success(key)

    assert calls == [("a",), ("b",)]


def test_who_is_cancelled_takes_nobody_down(async_face: AsyncFace) -> None:
    fetch = async_face.fetcher(lambda keys: {key: Success(key) for key in keys}, held=True)
    batcher = Batcher(async_face.cache, fetch)

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(batcher.get(key)) for key in "abc"]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        fetch.release()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    cancelled, other, answer = async_face.runner.run(main())
    assert (type(cancelled), type(other), answer) == (asyncio.CancelledError, asyncio.CancelledError, Success("c"))
    assert fetch.calls == 1


def test_the_last_one_cancelled_ends_the_call(async_face: AsyncFace) -> None:
    ended: list[str] = []

    async def fetch(keys: tuple[str, ...]) -> Any:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.extend(keys)

    batcher = Batcher(async_face.cache, fetch)

    async def main() -> None:
        tasks = [asyncio.create_task(batcher.get(key)) for key in "ab"]
        for task in tasks:
            for _ in range(5):
                await asyncio.sleep(0)
            assert ended == []
            task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)

    async_face.runner.run(main())
    assert ended == ["a", "b"]
    assert not async_face.cache._runtime.lives


class Crash(BaseException):
    """No Exception: it ends whatever it comes through."""


def test_a_crash_is_told_and_the_next_call_is_made_anew(face: Face) -> None:
    crashes = iter([True, False])

    def crashing(keys: tuple[str, ...]) -> Any:
        if next(crashes):
            raise Crash
        return {key: Success(key) for key in keys}

    batched = Batched(face, crashing, window=window(face))
    with pytest.raises(Crash):
        batched.gets("a")

    assert batched.gets("a") == [Success("a")]


def test_threads_that_came_along_with_a_crash_are_told(sync_face: SyncFace) -> None:
    def crashing(keys: tuple[str, ...]) -> Any:
        raise Crash(*keys)

    batcher = SyncBatcher(sync_face.cache, crashing, window=0.05)
    held, sync_face.cache = sync_face.cache, batcher
    pending = [sync_face.begin.call("get", key) for key in "ab"]
    sync_face.cache = held

    with pytest.raises(Crash):
        pending[0].result()
    assert pending[1].result() == Failure(FetchCancelled("b"))


def test_a_window_that_is_interrupted_stays_open_for_nobody(
    sync_face: SyncFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(cache: SyncCache, seconds: float) -> None:
        del cache, seconds
        raise KeyboardInterrupt

    batched = Batched(sync_face, window=0.01)
    with monkeypatch.context() as patch:
        patch.setattr(SyncCache, "pause", interrupted)
        with pytest.raises(KeyboardInterrupt):
            batched.gets("a")

    assert batched.gets("a") == [Success("A")]
