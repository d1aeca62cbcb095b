"""The simulator says of a load what the cache makes of it: both are run on the same load, in virtual time.

The cache is a real `Cache` on a virtual event loop, its callers are tasks, and
its fetcher asks the same modelled origin and sleeps for as long as that says.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final

import pytest
from returns.result import Failure, Result, Success

from cachemesh import AfterFailure, Cache, CacheLogger, CachePolicy, CacheScope, Lifetime, RetryOptions
from cachemesh.core.policies import BUILT_IN
from cachemesh.shell.eviction import S3Fifo
from cachemesh.simulation import Configuration, LogNormal, OriginModel, Outcome, Request, Uniform, simulate
from cachemesh.simulation.engine import origin_key
from cachemesh.simulation.orders import fingerprint
from cachemesh.testing import VirtualClock, run

if TYPE_CHECKING:
    from collections.abc import Sequence

POLICIES: Final = (
    *BUILT_IN,
    CachePolicy("stale_if_error", after_failure=AfterFailure.SERVE_STALE),
    CachePolicy("refresh_behind_every_hit", fresh=CachePolicy.STALE_WHILE_REVALIDATE.stale),
)

PLAIN_TTL_S: Final = 8.0
"""Of all loads here, so that an answer of that age is a stale one."""

WINDOWS: Final = Lifetime(
    ttl=8, serve_stale_for=3, stale_if_error_for=10, refresh_ahead=0.7, failure_ttl=2, refresh_backoff=1.5
)

CALM: Final = OriginModel(Uniform(0.05, 0.4), change_every_s=11.0)
ROUGH: Final = OriginModel(
    LogNormal(0.1, 2.0), failure_rate=0.15, outages=((40.0, 55.0), (90.0, 93.0)), rate_limit=12.0, change_every_s=11.0
)


@dataclass
class Lived:
    """What the callers, the logger and the origin of a real cache saw."""

    waits: list[float] = field(default_factory=list)
    hits: int = 0
    stood_in: int = 0
    failures: int = 0
    stale: int = 0
    outdated: int = 0
    oldest_s: float = 0.0
    stalest_s: float = 0.0
    origin_requests: int = 0
    origin_failures: int = 0
    by_second: Counter[int] = field(default_factory=Counter)
    logged: Counter[str] = field(default_factory=Counter)


@dataclass
class Counting(CacheLogger):
    logged: Counter[str]

    def on_hit(self, key: str) -> None:
        del key
        self.logged["hits"] += 1

    def on_evict(self, key: str) -> None:
        del key
        self.logged["evictions"] += 1


@dataclass(frozen=True)
class Fetched:
    """A value: when it came, and when the origin will have another one."""

    came_at: float
    changes_at: float


def load(seed: int, *, requests: int = 1_500, keys: int = 60, users: int = 0) -> list[Request]:
    """Requests at random instants, some keys wanted far more often than others (Zipf)."""
    random = Random(seed)
    names = [f"item:{number}" for number in range(keys)]
    wanted = random.choices(names, [1 / rank for rank in range(1, keys + 1)], k=requests)
    at, made = 1_000.0, []
    for key in wanted:
        at += random.expovariate(12.0)
        user = f"user:{random.randrange(users)}" if users and random.random() < 0.6 else None
        made.append(Request(at, key, user, size=random.randrange(1, 9)))
    return made


def live(
    requests: Sequence[Request],
    model: OriginModel,
    configuration: Configuration,
    seed: int,
    ttl: float | Lifetime,
    retry: RetryOptions = RetryOptions.NO_RETRY,
) -> Lived:
    """The load against a real cache."""
    clock = VirtualClock(now=requests[0].at - 1.0)
    return run(_live(requests, model, configuration, seed, ttl, retry, clock), clock=clock)


async def _live(
    requests: Sequence[Request],
    model: OriginModel,
    configuration: Configuration,
    seed: int,
    ttl: float | Lifetime,
    retry: RetryOptions,
    clock: VirtualClock,
) -> Lived:
    lived = Lived()
    origin = model.started(seed, requests[0].at)

    async def fetch(key: str) -> Result[Fetched, str]:
        asked_at = clock()
        answered = origin.ask(key, asked_at)
        lived.origin_requests += 1
        lived.by_second[int(asked_at - requests[0].at)] += 1
        await asyncio.sleep(answered.latency_s)
        if answered.fails:
            lived.origin_failures += 1
            return Failure("down")
        return Success(Fetched(clock(), answered.changes_at))

    async def ask(cache: Cache, request: Request) -> None:
        asked_at = clock()
        assert asked_at == request.at
        view = cache if request.user is None else cache.for_user(request.user)
        scope = CacheScope.GLOBAL if request.user is None else CacheScope.USER
        name = origin_key((scope, request.user), request.key)
        answer = await view.get(
            request.key, lambda: fetch(name), policy=configuration.policy, ttl=ttl, scope=scope, retry=retry
        )
        now = clock()
        lived.waits.append(now - asked_at)
        if isinstance(answer, Failure):
            lived.failures += 1
            return
        value = answer.unwrap()
        lived.oldest_s = max(lived.oldest_s, now - value.came_at)
        lived.stale += now - value.came_at >= PLAIN_TTL_S
        lived.outdated += now > value.changes_at
        lived.stalest_s = max(lived.stalest_s, now - value.changes_at)
        if now == asked_at:
            lived.hits += 1
        else:
            lived.stood_in += value.came_at < now

    async with Cache(clock=clock, max_entries=configuration.capacity, logger=Counting(lived.logged)) as cache:
        # Which ghosts share a slot depends on the hashes of keys, which are others in each process.
        cache._runtime._order = S3Fifo(configuration.capacity, fingerprint)
        loop, tasks = asyncio.get_running_loop(), []
        for request in requests:
            arrived: asyncio.Future[None] = loop.create_future()
            loop.call_at(request.at, arrived.set_result, None)
            await arrived
            tasks.append(asyncio.create_task(ask(cache, request)))
        await asyncio.gather(*tasks)
        await cache.flush()
        await asyncio.sleep(3_600)  # Refreshes that nobody waits for go on.
    return lived


def compared(outcome: Outcome, lived: Lived) -> None:
    """Both counted the same."""
    assert outcome.requests == len(lived.waits)
    assert (outcome.hits, outcome.stood_in, outcome.failures) == (lived.hits, lived.stood_in, lived.failures)
    assert (outcome.origin_requests, outcome.origin_failures) == (lived.origin_requests, lived.origin_failures)
    assert outcome.peak_rate == max(lived.by_second.values(), default=0)
    assert (outcome.stale, outcome.outdated) == (lived.stale, lived.outdated)
    assert outcome.evictions == lived.logged["evictions"]
    assert outcome.hits + outcome.stood_in == lived.logged["hits"]
    assert outcome.waits.most == pytest.approx(max(lived.waits), abs=1e-9)
    assert outcome.waits.mean == pytest.approx(sum(lived.waits) / len(lived.waits), abs=1e-9)
    waits = sorted(lived.waits)
    for percent, said in ((50, outcome.waits.p50), (95, outcome.waits.p95), (99, outcome.waits.p99)):
        assert said == pytest.approx(waits[-(-len(waits) * percent // 100) - 1], rel=0.0051, abs=2e-6)
    assert outcome.ages.most == pytest.approx(lived.oldest_s, abs=1e-9)
    assert outcome.staleness.most == pytest.approx(max(0.0, lived.stalest_s), abs=1e-9)


@pytest.mark.parametrize("origin", [CALM, ROUGH], ids=["calm", "rough"])
@pytest.mark.parametrize("ttl", [PLAIN_TTL_S, WINDOWS], ids=["ttl", "windows"])
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_every_policy_makes_the_same_of_a_load(policy: CachePolicy, ttl: Any, origin: OriginModel) -> None:
    configuration = Configuration.of(policy, ttl)
    requests = load(3)

    outcome = simulate(requests, origin, configuration, seed=5)

    compared(outcome, live(requests, origin, configuration, 5, ttl))


@pytest.mark.parametrize("ttl", [PLAIN_TTL_S, WINDOWS], ids=["ttl", "windows"])
@pytest.mark.parametrize("policy", BUILT_IN, ids=lambda policy: policy.name)
@pytest.mark.parametrize("seed", range(3))
def test_the_same_with_users_a_full_memory_and_retries(seed: int, policy: CachePolicy, ttl: Any) -> None:
    options = RetryOptions(max_attempts=3, delay=0.15, backoff_factor=2.0)
    configuration = Configuration.of(policy, ttl, capacity=25, retry=options.rule)
    requests = load(seed, keys=20, users=3)

    outcome = simulate(requests, ROUGH, configuration, seed=seed)

    compared(outcome, live(requests, ROUGH, configuration, seed, ttl, options))


def test_the_loads_bring_out_all_that_is_compared() -> None:
    """Otherwise the two would agree about nothing."""
    rough = [
        simulate(load(seed, keys=20, users=3), ROUGH, Configuration.of(policy, WINDOWS, capacity=25), seed=seed)
        for seed in range(3)
        for policy in POLICIES
    ]

    for name in ("hits", "stood_in", "failures", "stale", "outdated", "origin_failures", "evictions"):
        assert sum(getattr(outcome, name) for outcome in rough) > 100, name
    assert len({(outcome.hits, outcome.origin_requests) for outcome in rough}) > 10
