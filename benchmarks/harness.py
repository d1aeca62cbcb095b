"""The race: every contender is sampled once a round, so a machine that slows down slows all of them.

A ratio is the median of the ratios *within* a round, never one contender's good minute over another's bad one.
What a contender does and against what it is judged belongs in the group's own file.
"""

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

Sample = Callable[[int], int]
"""Runs the operation so many times; answers the nanoseconds that took."""

_SAMPLE_NS: Final = 8_000_000
_PATIENCE_NS: Final = 1_000_000_000


@dataclass(slots=True)
class Contender:
    """Somebody in the race, and what each round showed, in ns an operation."""

    name: str
    sample: Sample
    ns: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.ns)

    @property
    def best(self) -> float:
        return min(self.ns)

    def over(self, other: "Contender") -> float:
        """How many times as long as `other`; rounds are paired."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.ns, other.ns, strict=False))


def race(contenders: Sequence[Contender], *, rounds: int, count: int | None = None) -> None:
    """Fill in `ns` of each contender.

    Without a `count` each sample is sized to some milliseconds and the collector is off, as timeit does. With one, a
    sample is that many operations, and the collector is left on. Whose sample took over a second is not asked again.
    """
    with _collector(on=count is not None):
        counts = {c.name: count or _sized(c.sample) for c in contenders}
        for turn in range(rounds):
            shift = turn % len(contenders)
            for contender in (*contenders[shift:], *contenders[:shift]):  # Nobody always runs after the same neighbour.
                n = counts[contender.name]
                if contender.ns and contender.ns[-1] * n > _PATIENCE_NS:
                    continue
                contender.ns.append(contender.sample(n) / n)


def sync_sample(loop: Callable[[int], None]) -> Sample:
    """A sample of `loop(n)`, which does the operation n times inline."""

    def sample(n: int) -> int:
        started = time.perf_counter_ns()
        loop(n)
        return time.perf_counter_ns() - started

    return sample


def async_sample(runner: asyncio.Runner, loop: Callable[[int], Awaitable[None]]) -> Sample:
    """A sample of `await loop(n)` in the runner's event loop; entering and leaving the event loop is not counted."""

    async def clocked(n: int) -> int:
        started = time.perf_counter_ns()
        await loop(n)
        return time.perf_counter_ns() - started

    return lambda n: runner.run(clocked(n))


def _sized(sample: Sample) -> int:
    n = 1
    while (took := sample(n)) < _SAMPLE_NS / 4:
        n *= 4
    return max(1, int(n * _SAMPLE_NS / took))


@contextmanager
def _collector(*, on: bool) -> Iterator[None]:
    was_on = gc.isenabled()
    (gc.enable if on else gc.disable)()
    try:
        yield
    finally:
        (gc.enable if was_on else gc.disable)()
