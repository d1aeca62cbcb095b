"""Requests in the order of their times."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cachemesh.simulation.request import Request

HELD_BACK: Final = 1_024
"""A request that comes so many requests too late is still put into its place."""

_AT: Final = attrgetter("at")


class Order:
    """Puts requests into the order of their times, with bounded memory.

    Servers log a request when it ends, under the time at which it began, so
    times go back a little: the last 1,024 requests are held back and sorted.
    What comes even later gets the time of the last one that went out, and
    counts as `clamped`. Requests of one time keep their order.
    """

    def __init__(self) -> None:
        self.backwards = 0
        self.clamped = 0

    def sorted(self, batches: Iterable[list[Request]]) -> Iterator[list[Request]]:
        held: list[Request] = []
        gone_until = float("-inf")
        newest = float("-inf")
        for batch in batches:
            if not batch:
                continue
            in_order = sorted(batch, key=_AT)
            if in_order != batch or batch[0].at < newest:
                self._count(batch, newest)
            newest = batch[-1].at
            disorder = bool(held) and in_order[0].at < held[-1].at
            held += in_order
            if disorder:
                held.sort(key=_AT)
                self._clamp(held, gone_until)
            if len(held) > HELD_BACK:
                out, held = held[:-HELD_BACK], held[-HELD_BACK:]
                gone_until = out[-1].at
                yield out
        if held:
            yield held

    def _count(self, batch: list[Request], newest: float) -> None:
        for request in batch:
            if request.at < newest:
                self.backwards += 1
            newest = request.at

    def _clamp(self, requests: list[Request], earliest: float) -> None:
        """The first ones, whose times are over, get the time `earliest`."""
        for index, request in enumerate(requests):
            if request.at >= earliest:
                return
            self.clamped += 1
            requests[index] = replace(request, at=earliest)
