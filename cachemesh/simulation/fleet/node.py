"""A process of the fleet: a real `Cache` on a modelled connection, what it has been told, and who waits for it."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Final

from returns.result import Failure, Result, Success

from cachemesh import Cache
from cachemesh.simulation.fleet.client import ModelledStore
from cachemesh.simulation.fleet.ledger import is_written, scope_of
from cachemesh.simulation.fleet.schedule import is_tagged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cachemesh.simulation.fleet.client import Ear, ModelledBus
    from cachemesh.simulation.fleet.ledger import Ledger, Place
    from cachemesh.simulation.fleet.network import Link


DOWN: Final = "down"
"""The error of an origin that fails."""


class Node:
    """Process `number`, until it is killed. `skew_s`: so wrong is its clock."""

    def __init__(  # noqa: PLR0913 (what a process consists of)
        self,
        number: int,
        link: Link,
        ledger: Ledger,
        ears: dict[ModelledBus, Ear],
        *,
        skew_s: float,
        ttl_s: float,
        origin_fails: float,
    ) -> None:
        self.number = number
        self.link = link
        self.ledger = ledger
        self.store = ModelledStore(link, ears, b"%08d" % number, self._lost)
        loop = link.loop
        rng = random.Random(link.chance.random())  # noqa: S311 (no secret: a run is to be repeated)
        self.cache: Cache = Cache(store=self.store, clock=lambda: loop.time() + skew_s, rng=rng)
        self.known: dict[Place, int] = {}
        """The versions that it has been told of; it has nothing older than the first ones."""
        self.asked: set[asyncio.Task[None]] = set()
        self._ttl_s = ttl_s
        self._origin_fails = origin_fails
        self._gaps: set[asyncio.Task[None]] = set()

    # Asking

    def ask(self, place: Place, *, is_active: bool = False) -> None:
        """Begin a `get`. `is_active`: of whoever is signed in when it begins, rather than by a view."""
        task = asyncio.ensure_future(self._ask(place, is_active=is_active))
        self.asked.add(task)
        task.add_done_callback(self.asked.discard)

    async def _ask(self, place: Place, *, is_active: bool) -> None:
        if is_active:
            place = self.cache.active_user_id, place[1]
        ledger, asked_at, known = self.ledger, self.link.loop.time(), self.known.get(place, 1)
        ledger.asked += 1
        try:
            answer = await self._get(place, is_active=is_active)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is a bug of a cache)
            ledger.raised(self.number, place, error)
            return
        if self.link.is_dead:
            return
        ledger.waited(self.number, place, asked_at)
        if isinstance(answer, Success):
            user, key, version, fetched_at = answer.unwrap()
            ledger.check(self.number, place, (user, key, version, fetched_at), known, asked_at)
        elif answer.failure() != DOWN:
            ledger.failed(self.number, place, answer.failure())

    async def _get(self, place: Place, *, is_active: bool) -> Result[Any, Any]:
        user, key = place
        cache = self.cache if is_active or user is None else self.cache.for_user(user)
        chance = self.link.chance

        async def fetch() -> Result[list[Any], str]:
            value = self.ledger.fetch(self.number, place)
            await asyncio.sleep(chance.choice((0.0, chance.uniform(0, 0.05), chance.uniform(0, 1.5))))
            return Failure(DOWN) if chance.random() < self._origin_fails else Success([*value])

        if is_tagged(key):
            return await cache.get(key, fetch, ttl=self._ttl_s, scope=scope_of(user), tags=(key,))
        return await cache.get(key, fetch, ttl=self._ttl_s, scope=scope_of(user))

    # Changing

    def change(self, what: str, place: Place) -> None:
        """The origin has something new, of which the cache is told."""
        user, key = place
        ledger = self.ledger
        cache = self.cache if user is None else self.cache.for_user(user)
        places = [place]
        if what == "clear":
            places = [each for each in ledger.origin if not is_written(each)]
        elif what == "tag":
            places = [each for each in ledger.origin if each[1] == key]
        ledger.change(places)
        if what == "clear":
            self.cache.clear()
        elif what == "tag":
            self.cache.invalidate_tag(key)
        elif what == "put":
            value = [*place, ledger.origin[place], self.link.loop.time()]
            cache.put(key, value, ttl=self._ttl_s, tags=(key,) if is_tagged(key) else (), scope=scope_of(user))
        else:
            cache.invalidate(key, scope=scope_of(user))
        self.knows({each: ledger.origin[each] for each in places})

    def switch(self, user: str | None) -> None:
        """Another user signs in, or (None) nobody: what was kept for the last one goes."""
        before = self.cache.active_user_id
        places = [each for each in self.ledger.origin if before is not None and each[0] == before != user]
        self.ledger.change(places)
        self.cache.set_active_user(user)
        self.knows({each: self.ledger.origin[each] for each in places})

    # Being told

    def knows(self, versions: dict[Place, int]) -> None:
        """It has been told of these versions."""
        for place, version in versions.items():
            self.known[place] = max(self.known.get(place, 1), version)

    def _lost(self) -> None:
        """It has been told that news were lost: it knows that anything may have changed.

        What it was asked before may still be answered.
        """
        gap = asyncio.ensure_future(self._knows_later(tuple(self.asked), self.ledger.settled.copy()))
        self._gaps.add(gap)
        gap.add_done_callback(self._gaps.discard)

    async def _knows_later(self, under_way: Iterable[asyncio.Task[None]], versions: dict[Place, int]) -> None:
        if under_way:
            await asyncio.wait(under_way)
        self.knows(versions)

    # The end

    async def aclose(self) -> None:
        """End, as a process that is killed: what it has sent is sent, and nothing more is heard of it."""
        self.link.is_dead = True
        tasks = [*self.asked, *self._gaps]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.cache.aclose()
