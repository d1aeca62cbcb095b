"""Watching a key: whoever shows a value hears when it changes, whoever changed it.

A watch tells stored values, failed refreshes and removals, from the moment of
subscribing on. It never queues: a slow consumer gets the newest news.
"""

from __future__ import annotations

import asyncio
import threading
from itertools import count

from returns.result import Failure, Result, Success

from cachemesh import Cache, CacheError, CacheMiss, CachePolicy, CacheScope, SyncCache, Watch

numbers = count(1)


async def temperature() -> Result[int, str]:
    return Success(20 + next(numbers))


async def broken() -> Result[int, str]:
    return Failure("the sensor is silent")


async def iterate() -> None:
    """`async with ... as updates: async for ...`, in the task of whoever shows the value."""
    async with Cache() as cache:
        shown: list[Result[int, str | CacheError]] = []
        is_shown = asyncio.Event()
        is_watching = asyncio.Event()

        async def display() -> None:
            watch: Watch[int, str] = cache.watch("temperature")
            async with watch as updates:
                is_watching.set()
                async for update in updates:
                    shown.append(update)
                    is_shown.set()

        async def after_showing() -> None:
            await is_shown.wait()
            is_shown.clear()

        await cache.get("temperature", temperature)
        task = asyncio.create_task(display())
        await is_watching.wait()

        await cache.refresh("temperature", temperature)
        await after_showing()
        await cache.refresh("temperature", broken)
        await after_showing()
        cache.invalidate("temperature")
        await after_showing()
        await cache.get("temperature", temperature, policy=CachePolicy.NETWORK_ONLY)  # Stores nothing: no news.

    await task  # Closing the cache ended the watch.
    assert shown == [Success(22), Failure("the sensor is silent"), Failure(CacheMiss("temperature"))]


async def be_slow() -> None:
    """Nobody reads between the three refreshes: the newest one is there, and no queue behind it."""
    async with Cache() as cache, cache.watch("temperature") as updates:
        for _ in range(3):
            newest = await cache.refresh("temperature", temperature)
        assert await anext(updates) == newest


async def be_called_back() -> None:
    """`subscribe` calls back on the event loop. A watch on a user's key ends with the user."""
    async with Cache() as cache:
        cache.set_active_user("ada")
        told: list[object] = []
        subscription = cache.watch("inbox").subscribe(told.append)
        of_ada = cache.watch("inbox", scope=CacheScope.USER)

        async with of_ada as updates:
            stored = await cache.get("inbox", temperature, scope=CacheScope.USER)
            await asyncio.sleep(0)  # Callbacks come soon, not at once.
            cache.set_active_user("bob")
            await cache.get("inbox", temperature, scope=CacheScope.USER)
            left = [update async for update in updates]
            await asyncio.sleep(0)

        assert left == [Failure(CacheMiss("inbox"))], "the newest news of ada's; nothing of bob's"
        assert told == [stored, Failure(CacheMiss("inbox"))]
        subscription.cancel()


def watch_from_threads() -> None:
    """`SyncCache` has both as well: a blocking iterator, and callbacks in a thread of their own."""
    with SyncCache() as cache:
        shown: list[object] = []
        is_watching = threading.Event()

        def display() -> None:
            with cache.watch("lamp") as updates:
                is_watching.set()
                shown.extend(updates)  # Waits for each, and ends with the watch.

        thread = threading.Thread(target=display)
        thread.start()
        is_watching.wait()
        called_back = threading.Event()
        cache.watch("lamp").subscribe(lambda _: called_back.set())
        cache.get("lamp", lambda: Success("on"))
        assert called_back.wait(5)
    thread.join(5)
    assert shown == [Success("on")]


if __name__ == "__main__":
    asyncio.run(iterate())
    asyncio.run(be_slow())
    asyncio.run(be_called_back())
    watch_from_threads()
    print("watching: every value, failure and removal was told, and to the right user")
