"""Many keys, one call of the origin: `get_many`, and `Batcher` for those who ask one at a time."""

from __future__ import annotations

import asyncio

from returns.result import Failure, Result, Success

from cachemesh import Batcher, Cache, RetryOptions, SyncCache

calls: list[tuple[str, ...]] = []
busy = {"rice"}


def answer(keys: tuple[str, ...]) -> dict[str, Result[int, str]]:
    calls.append(keys)
    answers: dict[str, Result[int, str]] = {key: Success(len(key)) for key in keys if key not in busy}
    answers |= {key: Failure("busy") for key in busy.intersection(keys)}
    busy.clear()
    return answers


async def prices(keys: tuple[str, ...]) -> dict[str, Result[int, str]]:
    await asyncio.sleep(0)
    return answer(keys)


async def price_of_tea() -> Result[int, str]:
    calls.append(("tea, alone",))
    await asyncio.sleep(0.01)
    return Success(3)


async def main() -> None:
    async with Cache(default_ttl=60) as cache:
        # A key that somebody is fetching already is waited for; one that fails is retried without the others.
        single = asyncio.create_task(cache.get("tea", price_of_tea))
        await asyncio.sleep(0)
        got = await cache.get_many(["tea", "rice", "salt"], prices, retry=RetryOptions(max_attempts=2))
        assert got == {"tea": Success(3), "rice": Success(4), "salt": Success(4)}
        assert await single == Success(3)
        assert calls == [("tea, alone",), ("rice", "salt"), ("rice",)]

        # A hundred tasks that know nothing of each other, twenty keys, two calls.
        calls.clear()
        price = Batcher(cache, prices, most=10)
        await asyncio.gather(*(price.get(f"item {number % 20}") for number in range(100)))
        assert [len(keys) for keys in calls] == [10, 10]


def threads() -> None:
    with SyncCache() as cache:
        assert cache.get_many(["tea", "salt", "tea"], answer) == {"tea": Success(3), "salt": Success(4)}


if __name__ == "__main__":
    asyncio.run(main())
    threads()
    print(f"many_at_once: {calls}")
