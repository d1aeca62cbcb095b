"""The simulator says of a load what a cache makes of it in front of a real HTTP origin, on the wall clock.

uvicorn counts what it is asked on loopback, takes so long for each answer, and
fails for a while. A real `Cache` asks it by `HttpSource` on an ordinary event
loop, and counts how its callers are answered. Nothing of the modelled origin is
used on that side.

The wall clock is the subject here, so this is the one test that waits for it.
How fast the machine is must not matter. So all that could come in one order or
another is a tick apart: of three ticks, the first is that of requests, in the
second fetches end, and ttls and windows in the third. Where something came a
whole tick late all the same, the order was not that of the load: then the load is
run again, with longer ticks. The comparison is exact.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import TYPE_CHECKING, Any, Final

import pytest
from returns.result import Failure, Result

from cachemesh import Cache, CachePolicy, Lifetime
from cachemesh.core.policies import BUILT_IN
from cachemesh.simulation import Configuration, Constant, OriginModel, Outcome, Request, simulate
from cachemesh.sources import HttpSource
from tests.sources.servers import uvicorn_server

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

    from cachemesh.sources import NetworkFailure

# In ticks.
EVERY: Final = 3
"""Between requests."""
UNTIL: Final = 27
LATENCY: Final = 4
"""Whoever asks at the next opportunity joins."""
OUTAGE: Final = (10, 17)
TTL: Final = 7
REFRESH_AHEAD_AT: Final = 4
SERVE_STALE: Final = 3
STALE_IF_ERROR: Final = 9
FAILURE_TTL: Final = 4
REFRESH_BACKOFF: Final = 4

TICKS_S: Final = (0.06, 0.15, 0.5)
"""How long a tick is, and how long when the machine stood still for one."""

KEYS: Final = 4


def test_what_happens_is_a_tick_away_from_what_it_is_compared_with() -> None:
    """Requests are at ticks 0, 3, ...; what they begin ends at 1, 4, ...; what is left of that at 2, 5, ..."""
    assert EVERY == 3
    assert LATENCY % EVERY == 1
    assert all(end % EVERY != 0 for end in OUTAGE)  # The origin is asked with the requests.
    for after_the_answer in (TTL, REFRESH_AHEAD_AT, FAILURE_TTL, REFRESH_BACKOFF):
        assert (LATENCY + after_the_answer) % EVERY == 2
    for after_the_ttl in (SERVE_STALE, STALE_IF_ERROR):
        assert (LATENCY + TTL + after_the_ttl) % EVERY == 2


class Origin:
    """An ASGI application. `/WORLD/KEY` is a number that is another one each time; during an outage it is a 503."""

    def __init__(self) -> None:
        self.outages: dict[str, tuple[float, float]] = {}
        """By world, on the monotonic clock."""
        self.latency_s = 0.0
        self.asked: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        del receive
        arrived_at = time.monotonic()
        world = scope["path"].split("/")[1]
        self.asked[world] += 1
        number = self.asked.total()
        begins, ends = self.outages.get(world, (inf, inf))
        is_down = begins <= arrived_at < ends
        self.failed[world] += is_down
        await asyncio.sleep(self.latency_s)
        body = b"down" if is_down else str(number).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 503 if is_down else 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, Origin]]:
    origin = Origin()
    with uvicorn_server(origin) as url:
        yield url, origin


@dataclass
class Lived:
    """What callers and the origin saw of one cache, and how late the latest event was."""

    requests: int = 0
    hits: int = 0
    stood_in: int = 0
    failures: int = 0
    stale: int = 0
    joined: int = 0
    origin_requests: int = 0
    origin_failures: int = 0
    late_s: float = 0.0


@dataclass
class World:
    """A cache under one policy, and its load."""

    name: str
    policy: CachePolicy
    ttl: float | Lifetime
    tick_s: float
    source: HttpSource
    began_at: float = inf
    under_way: int = 0
    """Fetches."""
    came_at: dict[int, float] = field(default_factory=dict)
    """When the cache got which of the origin's numbers."""
    lived: Lived = field(default_factory=Lived)

    async def live(self, requests: list[Request]) -> None:
        loop = asyncio.get_running_loop()
        # A loop's clock and this one are the same here, but for no loop it is promised.
        shift = loop.time() - time.monotonic()
        async with Cache() as cache, asyncio.TaskGroup() as callers:
            for request in requests:
                due: asyncio.Future[None] = loop.create_future()
                loop.call_at(self.began_at + request.at + shift, due.set_result, None)
                await due
                callers.create_task(self.ask(cache, request))
            # Refreshes that nobody waits for end as well.
            await asyncio.sleep((LATENCY + 1) * self.tick_s)
            if self.under_way:
                self.lived.late_s = inf

    async def ask(self, cache: Cache, request: Request) -> None:
        lived, due_at = self.lived, self.began_at + request.at
        lived.requests += 1
        asked_at = time.monotonic()
        waits: list[Request] = []
        leads: list[Request] = []
        asyncio.get_running_loop().call_soon(waits.append, request)  # It is not called before this task waits.

        async def fetch() -> Result[int, NetworkFailure]:
            leads.append(request)
            self.under_way += 1
            answer = await self.source.get(f"/{self.name}/{request.key}", parser=int)
            self.under_way -= 1
            now = time.monotonic()
            self.notice(now, due_at + LATENCY * self.tick_s)
            if not isinstance(answer, Failure):
                self.came_at[answer.unwrap()] = now
            return answer

        answer = await cache.get(request.key, fetch, policy=self.policy, ttl=self.ttl)
        now = time.monotonic()
        self.notice(now if not waits else asked_at, due_at)
        lived.joined += bool(waits and not leads)
        if isinstance(answer, Failure):
            lived.failures += 1
            return
        came_at = self.came_at[answer.unwrap()]
        lived.hits += not waits
        lived.stood_in += bool(waits) and came_at < asked_at
        lived.stale += now - came_at >= TTL * self.tick_s

    def notice(self, at: float, due_at: float) -> None:
        self.lived.late_s = max(self.lived.late_s, at - due_at)


def load(tick_s: float) -> list[Request]:
    """Again and again some of the keys are asked for, some of them by two callers at once."""
    random = Random(11)
    made = [Request(0.0, "item:0")]
    for tick in range(0, UNTIL, EVERY):
        for key in range(KEYS):
            made += [Request(tick * tick_s, f"item:{key}")] * random.choice((0, 1, 1, 2))
    return made


def windows(tick_s: float) -> Lifetime:
    return Lifetime(
        ttl=TTL * tick_s,
        serve_stale_for=SERVE_STALE * tick_s,
        stale_if_error_for=STALE_IF_ERROR * tick_s,
        refresh_ahead=REFRESH_AHEAD_AT / TTL,
        failure_ttl=FAILURE_TTL * tick_s,
        refresh_backoff=REFRESH_BACKOFF * tick_s,
    )


async def live(url: str, origin: Origin, tick_s: float) -> dict[str, Lived]:
    """The load against a real cache for each policy, with a plain ttl and with windows, all at the same time."""
    async with HttpSource(url) as source:
        origin.latency_s = 0.0
        await asyncio.gather(*(source.get("/nobody/warm-up") for _ in range(KEYS)))  # Connecting takes its time.
        origin.latency_s = LATENCY * tick_s
        origin.asked.clear()
        origin.failed.clear()
        worlds: list[World] = []
        for policy in BUILT_IN:
            for kind, ttl in (("ttl", TTL * tick_s), ("windows", windows(tick_s))):
                worlds.append(World(f"{policy.name}-{kind}", policy, ttl, tick_s, source))
        begins_at = time.monotonic() + 0.02
        for number, world in enumerate(worlds):  # Not all of them at once.
            world.began_at = begins_at + number * EVERY * tick_s / len(worlds)
            begins, ends = OUTAGE
            origin.outages[world.name] = (world.began_at + begins * tick_s, world.began_at + ends * tick_s)
        await asyncio.gather(*(world.live(load(tick_s)) for world in worlds))
    for world in worlds:
        world.lived.origin_requests = origin.asked[world.name]
        world.lived.origin_failures = origin.failed[world.name]
    return {world.name: world.lived for world in worlds}


def simulated(tick_s: float) -> dict[str, Outcome]:
    begins, ends = OUTAGE
    model = OriginModel(Constant(LATENCY * tick_s), outages=((begins * tick_s, ends * tick_s),))
    return {
        f"{policy.name}-{kind}": simulate(load(tick_s), model, Configuration.of(policy, ttl))
        for policy in BUILT_IN
        for kind, ttl in (("ttl", TTL * tick_s), ("windows", windows(tick_s)))
    }


def test_every_policy_has_the_same_hits_and_origin_requests(served: tuple[str, Origin]) -> None:
    for tick_s in TICKS_S:
        lived = asyncio.run(live(*served, tick_s))
        if max(each.late_s for each in lived.values()) < tick_s:
            break
    else:
        pytest.fail(f"the machine stood still for {TICKS_S[-1]} s in each of {len(TICKS_S)} runs")

    outcomes = simulated(tick_s)

    for name, outcome in outcomes.items():
        real = lived[name]
        assert outcome.requests == real.requests, name
        assert (outcome.hits, outcome.origin_requests) == (real.hits, real.origin_requests), name
        assert (outcome.stood_in, outcome.failures) == (real.stood_in, real.failures), name
        assert (outcome.stale, outcome.origin_failures) == (real.stale, real.origin_failures), name
    assert len({(each.hits, each.origin_requests) for each in lived.values()}) >= len(BUILT_IN), "policies differ"
    for what in ("hits", "stood_in", "failures", "stale", "joined", "origin_requests", "origin_failures"):
        assert sum(getattr(each, what) for each in lived.values()) >= KEYS, f"the load brings out {what}"
