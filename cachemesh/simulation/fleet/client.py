"""The real `RedisStore` on a modelled network: what it decides is its own; only sockets and threads are replaced.

The claims, fences, counters, headers, marks, placeholders and messages are
those of `cachemesh.stores.redis`, and so is the time limit of each order. Of
`Bus`, the part that connects, pings and despairs is told again here, as the real
one lives in a thread: it takes the same time and tells the same news.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachemesh.shell.ports import News, NewsKind
from cachemesh.stores.redis.batch import Batcher
from cachemesh.stores.redis.bus import FIRST_PAUSE_S, LONGEST_PAUSE_S, Bus
from cachemesh.stores.redis.store import POLL_S, RedisStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cachemesh.simulation.fleet.network import Link
    from cachemesh.stores.redis.complaints import Complaints
    from cachemesh.stores.redis.orders import Order
    from cachemesh.stores.redis.settings import Settings
    from cachemesh.stores.redis.source import Source

LOST: Final = News(NewsKind.LOST)


class ModelledStore(RedisStore):
    """The store of one process. `ears`: where the server finds those who have subscribed."""

    def __init__(self, link: Link, ears: dict[ModelledBus, Ear], node: bytes, lost: Callable[[], None]) -> None:
        """`node`: a name of eight bytes; `lost` is called when all who listen have been told that news are lost."""
        super().__init__("redis://fleet:6379")
        self._link = link
        self._orders: ModelledBatcher | None = None
        self.bus = self._bus = ModelledBus(
            self._source, self._layout.channel, self._settings, self._complaints, link, ears
        )
        self._bus.node = node
        self._bus.lost = lost

    def _batcher(self) -> Batcher:
        if self._orders is None:
            self._orders = ModelledBatcher(self._source, self._layout.head, self._settings.timeout, self._link)
        return self._orders

    def _pause_s(self) -> float:
        return self._link.chance.uniform(*POLL_S)

    async def aclose(self) -> None:
        """Let go of the modelled connections."""
        if self._orders is not None:
            await self._orders.aclose()
            self._orders = None
        await self._bus.aclose()


class ModelledBatcher(Batcher):
    """What is asked in one turn is one message on the link."""

    def __init__(self, source: Source, head: bytes, timeout_s: float, link: Link) -> None:
        super().__init__(source, head, timeout_s)
        self._link = link

    def _send(self, orders: Sequence[Order]) -> None:
        if self._is_closed:
            super()._send(orders)
        else:
            self._link.send(orders)


class Ear:
    """A connection on which news come. Once something was lost on it, nothing more arrives."""

    def __init__(self, bus: ModelledBus) -> None:
        self.bus = bus
        self.is_dead = False

    def break_off(self, *, is_felt: bool) -> None:
        """Nothing arrives any more. Unless it `is_felt` at once, only the pings find it out."""
        if not self.is_dead:
            self.is_dead = True
            self.bus.will_notice(self, is_felt=is_felt)


class ModelledBus(Bus):
    """A channel, heard through a modelled connection."""

    def __init__(  # noqa: PLR0913, PLR0917 (those of a Bus, and two)
        self,
        source: Source,
        channel: bytes,
        settings: Settings,
        complaints: Complaints,
        link: Link,
        ears: dict[ModelledBus, Ear],
    ) -> None:
        super().__init__(source, channel, settings, complaints)
        self.link = link
        self.lost: Callable[[], None] = lambda: None
        self._ears = ears
        self._failures = 0
        self._told_at = -self._memory_cap_s
        self._is_running = False
        self._is_closed = False

    def _start(self) -> None:
        if not self._is_running:
            self._is_running = True
            self.link.loop.call_soon(self._connect)

    async def aclose(self) -> None:
        """Stop listening."""
        self._is_closed = True
        self._ears.pop(self, None)

    @property
    def _is_over(self) -> bool:
        return self._is_closed or self.link.is_dead

    def _connect(self) -> None:
        if self._is_over:
            return
        link = self.link
        if link.cuts or link.loses():
            link.loop.call_later(self._timeout_s, self._refused)
        else:
            link.later(self._subscribe)

    def _subscribe(self) -> None:
        if self.link.server.is_up and not self._is_over:
            ear = self._ears[self] = Ear(self)
            self.link.later(self._is_heard, ear)
        else:
            self.link.later(self._refused)

    def _is_heard(self, ear: Ear) -> None:
        if self._is_over or self._ears.get(self) is not ear:
            return
        self._failures = 0
        self.is_subscribed = True
        self._despair()

    def _refused(self) -> None:
        if self._is_over:
            return
        if self.link.loop.time() - self._told_at >= self._memory_cap_s:
            self._despair()
            self._told_at = self.link.loop.time()
        self._again()

    def _again(self) -> None:
        self._failures += 1
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**self._failures, self._memory_cap_s)
        pause_s = self.link.chance.uniform(FIRST_PAUSE_S, max(FIRST_PAUSE_S, longest))
        self.link.loop.call_later(pause_s, self._connect)

    def will_notice(self, ear: Ear, *, is_felt: bool) -> None:
        """`ear` is dead: a reset is felt, silence after a ping interval and the quarter of one between two looks."""
        if is_felt:
            self.link.later(self._notice, ear)
        else:
            silent_s = self._ping_interval_s * self.link.chance.uniform(0.5, 1.25)
            self.link.loop.call_later(silent_s, self._notice, ear)

    def _notice(self, ear: Ear) -> None:
        if self._is_over or self._ears.get(self) is not ear:
            return
        del self._ears[self]
        self.is_subscribed = False
        self._despair()
        self._told_at = self.link.loop.time()
        self._again()

    def _despair(self) -> None:
        self._tell(LOST)
        self.lost()

    def hear(self, message: bytes, sender: bytes) -> bool:
        """A message has arrived on the connection. Whether it told anything: what we did ourselves is no news."""
        self._heard(message)
        return sender != self.node
