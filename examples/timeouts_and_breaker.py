"""An origin that hangs, and then fails: nobody waits for it longer than they want to, and it is left alone.

In virtual time: the hours are waited for, and take none.
"""

from __future__ import annotations

import asyncio

from returns.result import Failure, Result, Success

from cachemesh import BreakerOptions, Cache, CircuitOpen, CircuitState, FetchTimeout
from cachemesh.testing import VirtualClock, run

clock = VirtualClock()
requests: list[float] = []


async def slow() -> Result[str, str]:
    requests.append(clock())
    await asyncio.sleep(30)
    return Success(f"asked at {requests[-1]:.0f} s")


async def broken() -> Result[str, str]:
    requests.append(clock())
    return Failure("502")


async def timeouts() -> None:
    async with Cache(clock=clock, default_ttl=60) as cache:
        assert await cache.get("page", slow, hard_timeout="5s") == Failure(FetchTimeout("page", 5.0))
        assert clock() == 5.0, "nothing old is there: waited, but not for long"
        cache.put("page", "the old page", ttl=0)
        assert await cache.get("page", slow, soft_timeout="1s") == Success("the old page")
        assert clock() == 6.0
        await asyncio.sleep(29)
        assert cache.peek("page") == Success("asked at 5 s"), "the fetch went on, and was stored"


async def breaker() -> None:
    async with Cache(clock=clock, breakers=BreakerOptions(failures=3, open_for=60)) as cache:
        started, requests[:] = clock(), []
        for _ in range(100):
            last = await cache.get("page", broken, origin="shop")
        assert len(requests) == 3, "of a hundred callers three were put through"
        assert last == Failure(CircuitOpen("shop", started + 60))

        await asyncio.sleep(60)
        assert cache.circuit("shop").state is CircuitState.HALF_OPEN
        answers = await asyncio.gather(*(cache.get(f"page {number}", slow, origin="shop") for number in range(10)))
        assert [type(answer) for answer in answers].count(Success) == 1, "one probe; the others hold off"
        assert cache.circuit("shop").state is CircuitState.CLOSED


if __name__ == "__main__":
    run(timeouts(), clock=clock)
    run(breaker(), clock=clock)
    print(f"timeouts_and_breaker: {clock():.0f} s of virtual time, three requests in the outage, and one probe")
