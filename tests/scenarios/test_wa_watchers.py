# mypy: no-warn-unused-ignores, disable-error-code="arg-type,assignment,redundant-expr,return-value,truthy-function,var-annotated,no-any-return,comparison-overlap,union-attr"
"""Watchers: none holds up a writer or another watcher, and none is left in the tables."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Failure, Success

from cachemesh import Cache, CacheMiss, CacheScope, SyncCache
from cachemesh.testing.loop import VirtualLoop, run
from tests.scenarios.helpers import async_value, guarded, listen, together

if TYPE_CHECKING:
    from tests.scenarios.helpers import Answer
    from tests.shell.faces import Face

USER = CacheScope.USER


async def settle() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    await loop.settle()


def test_wa1_slow_watcher_gets_the_newest_and_no_queue() -> None:
    async def main() -> None:
        cache = Cache()
        seen: list[int] = []

        async def follow() -> None:
            async with cache.watch("k") as updates:
                async for news in updates:
                    seen.append(news.unwrap())
                    await asyncio.sleep(1)

        follower = asyncio.create_task(follow())
        await asyncio.sleep(0)
        for number in range(3_000):
            await cache.refresh("k", async_value(number))
            if number % 100 == 0:
                await asyncio.sleep(0.1)
        await asyncio.sleep(5)
        follower.cancel()
        assert seen[-1] == 2_999
        assert len(seen) < 10
        assert seen == sorted(seen)

    run(main())


def test_wa1_slow_callback_in_a_thread_holds_up_no_writer() -> None:
    cache = SyncCache()
    seen: list[int] = []

    def slowly(news: Answer) -> None:
        time.sleep(0.1)
        seen.append(news.unwrap())

    subscription = cache.watch("k").subscribe(slowly)

    def write() -> float:
        began = time.monotonic()
        for number in range(2_000):
            cache.refresh("k", lambda number=number: Success(number))  # type: ignore[misc]
        return time.monotonic() - began

    took = guarded(write, 5)
    deadline = time.monotonic() + 3
    while (not seen or seen[-1] != 1_999) and time.monotonic() < deadline:
        time.sleep(0.01)
    subscription.cancel()
    assert seen[-1] == 1_999
    assert len(seen) <= took / 0.1 + 3
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    "harm", [ValueError(), asyncio.CancelledError(), GeneratorExit()], ids=lambda harm: type(harm).__name__
)
def test_wa2_callback_that_raises_harms_nobody_and_stays_subscribed(face: Face, harm: BaseException) -> None:
    """`future.result()` of a cancelled future raises CancelledError, say."""
    calls: list[Answer] = []

    def harmful(news: Answer) -> None:
        calls.append(news)
        if len(calls) == 1:
            raise harm

    def quiet() -> None:
        if face.name == "async":
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)

    before = threading.excepthook
    threading.excepthook = lambda _: None
    try:
        face.inside(quiet)
        face.inside(lambda: face.cache.watch("k").subscribe(harmful))
        heard, followed = listen(face, "k"), face.follow("k")
        for number in range(3):
            assert face.refresh("k", face.fetcher(Success(number))) == Success(number)
            face.settle()
    finally:
        threading.excepthook = before
    assert heard.results == followed.results == [Success(0), Success(1), Success(2)]
    assert calls == [Success(0), Success(1), Success(2)]
    heard.cancel()


def test_wa2_callback_that_blocks_holds_up_nobody_else() -> None:
    cache = SyncCache()
    blocked, heard = threading.Event(), threading.Event()
    cache.watch("k").subscribe(lambda _: blocked.wait(20))
    cache.watch("k").subscribe(lambda _: heard.set())
    guarded(lambda: cache.refresh("k", lambda: Success(1)), 3)
    guarded(lambda: cache.refresh("k", lambda: Success(2)), 3)
    assert heard.wait(3)
    blocked.set()


def test_wa2_follower_that_is_cancelled_leaves_the_others() -> None:
    async def main() -> None:
        cache = Cache()
        seen: list[Answer] = []

        async def follow() -> None:
            async with cache.watch("k") as updates:
                seen.extend([news async for news in updates])

        one, other = asyncio.create_task(follow()), asyncio.create_task(follow())
        await settle()
        one.cancel()
        await settle()
        await cache.refresh("k", async_value(1))
        await cache.aclose()
        await other
        assert seen == [Success(1)]
        assert cache._runtime.watcher_count == 0

    run(main())


def test_wa3_subscriptions_that_come_and_go_leave_nothing() -> None:
    async def main() -> None:
        cache = Cache()
        for number in range(5_000):
            cache.watch(f"k{number % 50}").subscribe(lambda _: None).cancel()
        for number in range(2_000):
            watch = cache.watch(f"k{number % 50}")
            updates = await watch.__aenter__()
            if number % 3 == 0:
                waiting = asyncio.ensure_future(updates.__anext__())
                await asyncio.sleep(0)
                waiting.cancel()
            if number % 2:
                await watch.__aexit__(None, None, None)
            del watch, updates
        await settle()
        del waiting
        gc.collect()
        assert cache._runtime.watcher_count == 0

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(main())


def test_wa3_dropped_iterators_of_threads_leave_nothing() -> None:
    cache = SyncCache()
    for number in range(2_000):
        cache.watch(f"k{number % 50}").__enter__()
    gc.collect()
    assert cache._runtime.watcher_count == 0


def test_wa4_news_comes_in_order_and_none_from_before(face: Face) -> None:
    face.fill("k", 0)
    heard, followed = listen(face, "k"), face.follow("k")
    face.settle()
    assert heard.take() == []
    for number in range(1, 6):
        face.refresh("k", face.fetcher(Success(number)))
        face.settle()
    face.invalidate("k")
    face.settle()
    face.get("k", face.fetcher(Failure("down")))
    face.settle()
    expected = [*(Success(number) for number in range(1, 6)), Failure(CacheMiss("k")), Failure("down")]
    assert heard.take() == followed.take() == expected
    heard.cancel()
    face.refresh("k", face.fetcher(Success(9)))
    face.settle()
    assert heard.take() == []
    assert followed.take() == [Success(9)]


def test_wa4_news_from_many_threads_never_goes_backwards() -> None:
    cache = SyncCache()
    version, guard = 0, threading.Lock()
    seen: list[int] = []

    def fetch() -> Answer:
        nonlocal version
        with guard:
            version += 1
            return Success(version)

    subscription = cache.watch("k").subscribe(lambda news: seen.append(news.unwrap()))
    together([lambda: [cache.refresh("k", fetch) for _ in range(200)]] * 6)
    time.sleep(0.1)
    subscription.cancel()
    assert seen == sorted(set(seen))
    assert seen[-1] == cache.peek("k").unwrap()


@pytest.mark.parametrize("end", ["invalidate", "clear", "clear_scope", "end_session", "switch", "close"])
def test_wa5_every_end_is_told(face: Face, end: str) -> None:
    other = face.new()
    other.set_active_user("alice")
    other.fill("k", "v", scope=USER)
    heard, followed = listen(other, "k", scope=USER), other.follow("k", scope=USER)
    if end == "invalidate":
        other.invalidate("k")
    elif end == "clear":
        other.clear()
    elif end == "clear_scope":
        other.clear_scope(USER)
    elif end == "end_session":
        other.end_session()
    elif end == "switch":
        other.set_active_user("bob")
    else:
        other.close()
    other.settle()
    assert followed.has_ended is (end in ("end_session", "switch", "close"))
    if end != "close":
        assert heard.take() == followed.take() == [Failure(CacheMiss("k"))]
        other.close()


def test_wa6_callbacks_may_do_as_they_like(face: Face) -> None:
    """Subscribe, unsubscribe themselves, read and write in the middle of a callback."""
    seen: list[Any] = []

    def again(news: Answer) -> None:
        seen.append(("again", news))

    def once(news: Answer) -> None:
        seen.append(("once", news))
        subscriptions[0].cancel()
        subscriptions.append(face.cache.watch("k").subscribe(again))
        seen.append(("peek", face.cache.peek("k")))
        face.cache.invalidate("other")
        face.cache.set_active_user("somebody")

    face.fill("other", 1)
    other = listen(face, "other")
    subscriptions: list[Any] = [face.inside(lambda: face.cache.watch("k").subscribe(once))]
    for number in range(3):
        face.refresh("k", face.fetcher(Success(number)))
        face.settle()
    assert seen == [
        ("once", Success(0)),
        ("peek", Success(0)),
        ("again", Success(1)),
        ("again", Success(2)),
    ]
    assert other.take() == [Failure(CacheMiss("other"))]
    other.cancel()
    face.inside(subscriptions[1].cancel)


def test_wa6_callback_that_writes_what_it_watches_is_not_called_within_itself() -> None:
    cache = SyncCache()
    depth, deepest, calls = 0, 0, 0
    is_over = threading.Event()

    def write(news: Answer) -> None:
        nonlocal depth, deepest, calls
        depth, calls = depth + 1, calls + 1
        deepest = max(deepest, depth)
        if calls < 100:
            cache.refresh("k", lambda: Success(news.unwrap() + 1))
        else:
            is_over.set()
        depth -= 1

    cache.watch("k").subscribe(write)
    guarded(lambda: cache.refresh("k", lambda: Success(0)), 3)
    assert is_over.wait(5)
    assert deepest == 1


def test_wa6_callback_that_always_removes_what_it_watches_lets_the_loop_breathe() -> None:
    """With a store every invalidation is news; a callback that invalidates must not shut out everybody else."""
    from tests.scenarios.helpers import ScriptedStore  # noqa: PLC0415 (here alone)

    async def main() -> int:
        cache = Cache(store=ScriptedStore())
        calls = 0

        def invalidate(_: object) -> None:
            nonlocal calls
            calls += 1
            if calls > 1_000:
                subscription.cancel()
            else:
                cache.invalidate("k")

        subscription = cache.watch("k").subscribe(invalidate)
        await cache.refresh("k", async_value(1))
        ticks = 0
        while calls <= 1_000:
            await asyncio.sleep(0)
            ticks += 1
        return ticks

    assert run(main()) > 100
