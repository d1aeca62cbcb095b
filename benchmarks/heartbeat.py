"""A task that asks to be woken every millisecond, and remembers the longest it was kept waiting.

A gap is from one waking to the next, with nothing subtracted. Beside the gap on the wall clock stand the share in which
this thread was computing (the rest is other processes' doing) and the share that Python's collector took.
"""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

PULSE_S: Final = 0.001


@dataclass(slots=True)
class Gaps:
    """The longest gaps of a phase, in ms. Each is a maximum of its own: they need not be the same gap."""

    wall_ms: float = 0.0
    cpu_ms: float = 0.0
    """Of this thread's own computing."""
    own_ms: float = 0.0
    """Of its computing, the collector's left out."""
    collector_ms: float = 0.0
    """The longest single collection."""


@dataclass(slots=True)
class Heartbeat:
    gaps: Gaps = field(default_factory=Gaps)
    _collecting_since: float = 0.0
    _collected: float = 0.0

    async def beat(self) -> None:
        gaps = self.gaps
        wall, cpu, collected = time.perf_counter(), time.thread_time(), self._collected
        while True:
            await asyncio.sleep(PULSE_S)
            wall_now, cpu_now, collected_now = time.perf_counter(), time.thread_time(), self._collected
            gaps.wall_ms = max(gaps.wall_ms, (wall_now - wall) * 1e3)
            gaps.cpu_ms = max(gaps.cpu_ms, (cpu_now - cpu) * 1e3)
            gaps.own_ms = max(gaps.own_ms, (cpu_now - cpu - (collected_now - collected)) * 1e3)
            wall, cpu, collected = wall_now, cpu_now, collected_now

    def on_collection(self, phase: str, _info: object) -> None:
        """A `gc.callbacks` entry."""
        if phase == "start":
            self._collecting_since = time.thread_time()
            return
        took = time.thread_time() - self._collecting_since
        self._collected += took
        self.gaps.collector_ms = max(self.gaps.collector_ms, took * 1e3)


@asynccontextmanager
async def listening() -> AsyncIterator[Gaps]:
    """The gaps while the block runs, the one that its end cuts short included."""
    heart = Heartbeat()
    gc.callbacks.append(heart.on_collection)
    task = asyncio.create_task(heart.beat())
    await asyncio.sleep(0)
    try:
        yield heart.gaps
        await asyncio.sleep(PULSE_S * 2)
    finally:
        gc.callbacks.remove(heart.on_collection)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
