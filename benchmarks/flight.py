"""Ten thousand callers of one key at once, while its fetch takes a millisecond: the number of fetches, and the cost.

The floor is a bare shared Future under the same gather. Peers are shown with what they got wrong.
"""
# ruff: noqa: PLC0415  (cachemesh is imported where it is used)

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final

from returns.result import Result, Success

from benchmarks import floors, leader
from benchmarks.floors import KEY, TTL_S, Call, Fetch
from benchmarks.harness import Contender, race
from benchmarks.peers import Peer, installed
from benchmarks.processes import forked
from benchmarks.table import Table

CALLERS: Final = 10_000
ROUNDS: Final = 15
MOST: Final = 1.5
FETCH_S: Final = 0.001
GIVE_UP_S: Final = 20

Make = Callable[[Fetch], Coroutine[Any, Any, Call]]


class Crowd:
    """A contender's callers: what they saw is kept beside what they cost."""

    def __init__(self, name: str, make: Make, answer: object = 1) -> None:
        self.contender = Contender(name, self.sample)
        self.fetches: Counter[int] = Counter()
        self.wrong = 0
        self.make, self.answer = make, answer
        self._apart = forked(lambda callers: asyncio.run(self._run(callers)))

    def sample(self, callers: int) -> int:
        took, fetches, wrong = self._apart(callers)
        self.fetches[fetches] += 1
        self.wrong = max(self.wrong, wrong)
        return took

    async def _run(self, callers: int) -> tuple[int, int, int]:
        fetched = 0

        async def fetch(k: str) -> object:
            nonlocal fetched
            del k
            fetched += 1
            await asyncio.sleep(FETCH_S)
            return self.answer

        call = await self.make(fetch)

        async def caller() -> object:  # gather() merges equal awaitables, and theine hands out one object to all.
            return await call(KEY)

        async def crowd() -> list[object]:
            return await asyncio.gather(*[caller() for _ in range(callers)], return_exceptions=True)

        started = time.perf_counter_ns()
        try:
            answers = await asyncio.wait_for(crowd(), GIVE_UP_S)
        except TimeoutError:
            answers = []
        took = time.perf_counter_ns() - started
        return took, fetched, callers - sum(1 for answer in answers if answer == self.answer)

    @property
    def seen(self) -> str:
        """How many fetches there were in a round, and how many callers got something else than the answer."""
        fetches = "/".join(f"{n:,}" for n in sorted(self.fetches))
        return f"{fetches} ({self.wrong:,} wrong answers)" if self.wrong else fetches


def tables() -> list[Table]:
    floor = Crowd("floor: bare shared Future", _floor)
    get = Crowd("cache.get(key, fetch, policy=, ttl=)", lambda fetch: _ours(fetch, "get"), Success(1))
    decorated = Crowd("@cached(cache) on one str", lambda fetch: _ours(fetch, "decorated"), Success(1))
    found, notes = installed()
    peers = [Crowd(peer.name, partial(_peer, peer)) for peer in found]
    crowds = [floor, get, decorated, *peers]
    race([crowd.contender for crowd in crowds], rounds=ROUNDS, count=CALLERS)

    table = Table(
        f"{CALLERS:,} callers of one key",
        ("what", "ns a caller", "best ns", "x floor", "get / it", "fetches"),
        notes=notes,
    )
    for crowd in [*crowds[:3], *sorted(peers, key=lambda peer: peer.contender.median)]:
        row = crowd.contender
        over = row.over(floor.contender)
        right = set(crowd.fetches) == {1} and not crowd.wrong
        table.add(
            row.name,
            row.median,
            row.best,
            over,
            get.contender.over(row) if crowd in peers else None,
            crowd.seen,
            target=f"1 fetch, <= {MOST} x floor" if crowd is get else "",
            reached=right and over <= MOST if crowd is get else None,
        )
    return [table, leader.table([(c.contender.name, c.make, c.answer) for c in crowds], get.contender.name)]


def _peer(peer: Peer, fetch: Fetch) -> Coroutine[Any, Any, Call]:
    return peer.make(fetch, 1024)


async def _floor(fetch: Fetch) -> Call:
    return floors.shared_future(fetch)


async def _ours(fetch: Fetch, spelling: str) -> Call:
    from cachemesh import Cache, CachePolicy, cached

    cache = Cache()

    async def origin() -> Result[int, str]:
        return await fetch(KEY)  # type: ignore[return-value]

    def get(key: str) -> Awaitable[object]:
        return cache.get(key, origin, policy=CachePolicy.CACHE_FIRST, ttl=TTL_S)

    @cached(cache, key="user:{user_id}", ttl=TTL_S)
    async def user(user_id: str) -> Result[int, str]:
        return await fetch(user_id)  # type: ignore[return-value]

    return get if spelling == "get" else user
