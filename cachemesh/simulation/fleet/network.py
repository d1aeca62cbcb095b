"""Between a process and the server: messages are late, lost or doubled, overtake each other, or are cut off.

A process has several connections for what it asks, so requests may overtake
each other; each of them ends with its time limit, and what has not reached the
server by then never will. What it hears comes on a connection of its own. A
message that is lost on it takes all later ones with it, as on any stream, until
the process notices; those that do arrive may come in any order, or twice.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from cachemesh.stores.redis.errors import ServerUnreachableError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from cachemesh.simulation.fleet.schedule import Faults
    from cachemesh.simulation.fleet.valkey import Valkey
    from cachemesh.stores.redis.orders import Order


class Link:
    """What one process has of the network. `chance` says what becomes of each message, whatever others do."""

    def __init__(
        self, name: str, loop: asyncio.AbstractEventLoop, server: Valkey, faults: Faults, cuts: set[str]
    ) -> None:
        """`cuts` outlive the process: "requests", "replies" or "news"."""
        self.chance = random.Random(name)  # noqa: S311 (no secret: a run is to be repeated)
        self.loop = loop
        self.server = server
        self.cuts = cuts
        self.is_dead = False
        self._faults = faults

    def delay_s(self) -> float:
        """How long the next message takes. Most are quick; all are shorter than the time limit of a call."""
        return self._faults.longest_delay_s * self.chance.random() ** 3

    def loses(self) -> bool:
        """Whether the next message gets lost."""
        return self.chance.random() < self._faults.lost

    def doubles(self) -> bool:
        """Whether the next message arrives twice."""
        return self.chance.random() < self._faults.doubled

    def later(self, act: Callable[..., object], *args: object) -> None:
        """Do it when a message that is sent now has arrived."""
        self.loop.call_later(self.delay_s(), act, *args)

    def send(self, orders: Sequence[Order]) -> None:
        """Commands to the server, in one message."""
        if self.is_dead:
            settle_all(orders, unreachable(orders))
        elif "requests" not in self.cuts and not self.loses():
            self.later(self._arrived, orders)

    def _arrived(self, orders: Sequence[Order]) -> None:
        orders = [order for order in orders if not order.is_over]
        if not self.server.is_up:
            self.later(settle_all, orders, unreachable(orders))
            return
        replies = [self.server.execute(order.args) for order in orders]
        if self.doubles():
            replies = [self.server.execute(order.args) for order in orders]
        if "replies" not in self.cuts and not self.loses():
            self.later(self._answered, orders, replies)

    def _answered(self, orders: Sequence[Order], replies: Sequence[object]) -> None:
        if not self.is_dead:
            settle_all(orders, replies)


def settle_all(orders: Sequence[Order], replies: Sequence[object]) -> None:
    for order, reply in zip(orders, replies, strict=True):
        order.settle(reply)


def unreachable(orders: Sequence[Order]) -> Sequence[object]:
    return [ServerUnreachableError("nobody is there")] * len(orders)
