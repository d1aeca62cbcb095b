"""LRU and SIEVE: in which order entries leave, beside the S3-FIFO that a `Cache` has.

They take the place of `cachemesh.shell.eviction.S3Fifo`: same residents, same
`admit`. They count on being told of nobody's death, as in a simulation entries
leave by eviction alone.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Protocol
from zlib import crc32

from cachemesh.shell.eviction import S3Fifo
from cachemesh.simulation.configuration import Eviction

if TYPE_CHECKING:
    from cachemesh.shell.eviction import Resident


class Order(Protocol):
    """Who leaves for a newcomer."""

    def admit(self, resident: Resident, live: int) -> list[Resident]: ...


class Lru:
    """Least recently used: a hit sends its entry to the end of the queue, and so does a new value."""

    __slots__ = ("_capacity", "_queue")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._queue: OrderedDict[Resident, None] = OrderedDict()

    def admit(self, resident: Resident, live: int) -> list[Resident]:
        """Queue a newcomer, and name those that must leave for it. `live` counts it as well."""
        victims = [self._queue.popitem(last=False)[0] for _ in range(live - self._capacity)]
        self._queue[resident] = None
        return victims

    def visit(self, resident: Resident) -> None:
        """It was used."""
        self._queue.move_to_end(resident)


class Sieve:
    """A queue in which nobody moves, and a hand that goes through it.

    From the oldest to the newest and round again the hand passes over who was
    visited, whose visit is then spent, and evicts the first who was not
    (Zhang et al., SIEVE is Simpler than LRU, NSDI 2024).

    The queue is cut at the hand: `_behind` is what it has passed, `_ahead` what
    it comes to, newcomers at the end.
    """

    __slots__ = ("_ahead", "_behind", "_capacity")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._ahead: deque[Resident] = deque()
        self._behind: deque[Resident] = deque()

    def admit(self, resident: Resident, live: int) -> list[Resident]:
        """As for `Lru`. A visit is `resident.visits` above 0."""
        victims = [self._victim() for _ in range(live - self._capacity)]
        self._ahead.append(resident)
        return victims

    def _victim(self) -> Resident:
        while True:
            resident = self._ahead.popleft()
            is_spared = resident.visits > 0
            if is_spared:
                resident.visits = 0
                self._behind.append(resident)
            if not self._ahead:  # At once: a newcomer is the last one that the hand comes to.
                self._ahead, self._behind = self._behind, self._ahead
            if not is_spared:
                return resident


def fingerprint(key: str) -> int:
    """Of a key, the same in every process."""
    return crc32(key.encode("utf-8", "surrogatepass"))


def order_of(eviction: Eviction, capacity: int | None) -> Order:
    """The order that `eviction` names; without a capacity nobody leaves."""
    if capacity is None or eviction is Eviction.S3FIFO:
        return S3Fifo(capacity, fingerprint)
    return Lru(capacity) if eviction is Eviction.LRU else Sieve(capacity)
