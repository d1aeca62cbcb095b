"""Concurrent clients that read through one cache, each for a user, popular things more often (Zipf's law)."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING, Final, Protocol

from returns.result import Result

from cachemesh import CacheError, CachePolicy, CacheScope, RetryOptions
from cachemesh.demo.client import OriginError, Stamped
from cachemesh.demo.invariants import Invariant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachemesh.demo.catalog import Catalog, Resource
    from cachemesh.demo.client import Fetch, OriginClient
    from cachemesh.demo.score import Score

ZIPF_EXPONENT: Final = 0.9
PRIVATE_SHARE: Final = 0.25
THINK_S: Final = 0.004
"""The mean pause of a client between two calls."""
REWARM_S: Final = 0.3
"""How often cache_only is warmed. Some values expire sooner, and all in an outage: then a call gets CacheExpired."""
PATIENCE_S: Final = 3.0
"""How long after the end of a run a call may still take. Longer than two attempts at the slowest answer."""

RETRY: Final = RetryOptions(
    max_attempts=2,
    delay=0.02,
    jitter=0.5,
    # A 429 is not tried again: its Retry-After is longer than any caller here would wait.
    retry_when=lambda error: isinstance(error, OriginError) and error.status == 503,  # noqa: PLR2004
)


Answer = Result[Stamped, OriginError | CacheError]


class Reader(Protocol):
    """The part of `cachemesh.Cache` that the traffic uses. Tests put a broken one in its place."""

    async def get(  # noqa: PLR0913  as Cache.get
        self,
        key: str,
        fetch: Fetch,
        *,
        policy: CachePolicy,
        ttl: float,
        retry: RetryOptions,
        scope: CacheScope,
    ) -> Answer:
        """As `Cache.get`."""

    async def prefetch(
        self,
        key: str,
        fetch: Fetch,
        *,
        ttl: float,
        scope: CacheScope,
    ) -> Answer:
        """As `Cache.prefetch`."""

    def for_user(self, user_id: str) -> Reader:
        """As `Cache.for_user`."""

    async def aclose(self) -> None:
        """As `Cache.aclose`."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """`clients` concurrent readers under one policy, for `seconds`; all they see goes into `score`."""

    policy: CachePolicy
    clients: int
    seconds: float
    seed: int
    cache: Reader
    origin: OriginClient
    catalog: Catalog
    score: Score

    async def run(self) -> None:
        """Let the clients loose; returns when each has its last answer, or has waited too long for it."""
        tasks: list[asyncio.Task[None]] = []
        if self.policy is CachePolicy.CACHE_ONLY:
            await self._warm()
            tasks.append(asyncio.create_task(self._keep_warm()))
        tasks += [asyncio.create_task(self._client(number)) for number in range(self.clients)]

        _, unanswered = await asyncio.wait(tasks, timeout=self.seconds + PATIENCE_S)
        if unanswered:
            self.score.broke(Invariant.ANSWERED, f"{len(unanswered)} calls hung for {PATIENCE_S:g} s")
            for task in unanswered:
                task.cancel()
            await asyncio.wait(unanswered, timeout=PATIENCE_S)

    async def _client(self, number: int) -> None:
        chance = Random(f"{self.seed} {number}")  # noqa: S311  traffic, not a secret
        user = self.catalog.owners[number % len(self.catalog.owners)]
        own = self.cache.for_user(user)

        ends_at = time.perf_counter() + self.seconds
        while time.perf_counter() < ends_at:
            if chance.random() < PRIVATE_SHARE:
                await self._call(own, chance.choice(self._private), user, CacheScope.USER)
            else:
                [resource] = chance.choices(self._public, cum_weights=self._weights)
                await self._call(self.cache, resource, user, CacheScope.GLOBAL)
            await asyncio.sleep(chance.expovariate(1 / THINK_S))

    async def _call(self, cache: Reader, resource: Resource, user: str, scope: CacheScope) -> None:
        fetch = self.origin.fetcher(resource, user if resource.is_private else None)
        with self._nothing_raised(f"get({resource.key!r})"):
            asked_at = time.perf_counter()
            answer = await cache.get(
                resource.key, fetch, policy=self.policy, ttl=resource.ttl_s, retry=RETRY, scope=scope
            )
            self.score.answered(resource, user, answer, asked_at=asked_at, answered_at=time.perf_counter())

    async def _keep_warm(self) -> None:
        ends_at = time.perf_counter() + self.seconds
        while time.perf_counter() + REWARM_S < ends_at:
            await asyncio.sleep(REWARM_S)
            await self._warm()

    async def _warm(self) -> None:
        """Prefetch everything, for everybody."""
        views = [(user, self.cache.for_user(user)) for user in self.catalog.owners]
        await asyncio.gather(
            *(self._prefetch(self.cache, resource, None, CacheScope.GLOBAL) for resource in self._public),
            *(
                self._prefetch(own, resource, user, CacheScope.USER)
                for user, own in views
                for resource in self._private
            ),
        )

    async def _prefetch(self, cache: Reader, resource: Resource, user: str | None, scope: CacheScope) -> None:
        with self._nothing_raised(f"prefetch({resource.key!r})"):
            await cache.prefetch(resource.key, self.origin.fetcher(resource, user), ttl=resource.ttl_s, scope=scope)

    @contextmanager
    def _nothing_raised(self, call: str) -> Iterator[None]:
        try:
            yield
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # It was us who cancelled.
            self.score.broke(Invariant.NO_EXCEPTION, f"{call} raised {error!r}")

    @cached_property
    def _private(self) -> list[Resource]:
        return [resource for resource in self.catalog.resources if resource.is_private]

    @cached_property
    def _public(self) -> list[Resource]:
        """The public resources, the most popular first."""
        public = [resource for resource in self.catalog.resources if not resource.is_private]
        Random(self.seed).shuffle(public)  # noqa: S311  as above
        return public

    @cached_property
    def _weights(self) -> list[float]:
        return list(accumulate(rank**-ZIPF_EXPONENT for rank in range(1, len(self._public) + 1)))
