"""Where an answer came from: `get_served` says it of an answer, `explain` before there is one."""

from __future__ import annotations

import asyncio

from returns.result import Failure, Result, Success

from cachemesh import Cache, CachePolicy, Ending, Lifetime, RetryOptions, Source
from cachemesh.testing import VirtualClock

answers: list[Result[str, str]] = [Failure("busy"), Success("rain"), Failure("down"), Failure("down")]


async def weather() -> Result[str, str]:
    await asyncio.sleep(0)
    return answers.pop(0)


async def main() -> None:
    clock = VirtualClock()
    life = Lifetime(ttl="10m", stale_if_error_for="1h", refresh_backoff=0)
    async with Cache(clock=clock, default_ttl=life, retry=RetryOptions(max_attempts=2)) as cache:

        async def ask() -> tuple[str, Source, float, int, str]:
            served = (await cache.get_served("weather", weather)).unwrap()
            return served.value, served.source, served.age, served.attempts, served.why

        # Two at a time: one fetches, the other joins it.
        one, other = await asyncio.gather(ask(), ask())
        assert one == ("rain", Source.ORIGIN, 0.0, 2, "cache_first: missing -> fetch")
        assert other == ("rain", Source.JOINED, 0.0, 2, "cache_first: missing -> join")

        clock.advance(300)
        assert await ask() == ("rain", Source.MEMORY, 300.0, 0, "cache_first: fresh -> serve")

        # What would happen? Nothing happens.
        clock.advance(600)
        explained = cache.explain("weather").unwrap()
        assert (explained.ending, explained.age_s) == (Ending.FETCH, 900.0)
        refused = cache.explain("weather", policy=CachePolicy.CACHE_ONLY).unwrap()
        assert refused.why == "cache_only: expired -> refuse (expired)"
        assert len(answers) == 2

        # The fetch fails twice, and the old value stands in.
        value, source, age, attempts, why = await ask()
        assert (value, source, age, attempts) == ("rain", Source.STAND_IN, 900.0, 2)
    print(f"provenance: {value!r} from {source}, {age:.0f} s old, after {attempts} attempts; {why}")


if __name__ == "__main__":
    asyncio.run(main())
