"""How long a cache of a million entries keeps the event loop from everybody else: idle, expiring, evicting.

Run as `python -m benchmarks.stall NAME GC` it is one subject in a process of its own, where GC is one of `GC_MODES`.
The load yields after every hundred operations, so that what is measured is the longest thing that cannot yield.
"""
# ruff: noqa: PLC0415  (only the one that is measured is imported)

import asyncio
import gc
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Final

from returns.result import Result, Success

from benchmarks.floors import TTL_S, Entry
from benchmarks.heartbeat import listening
from benchmarks.processes import answer, in_child
from benchmarks.table import Table

ENTRIES: Final = 1_000_000
MORE: Final = 500_000
"""Enough for one rebuild of a dict of a million: deleted keys leave traces in it, and after some 400,000 it is full."""
REREAD: Final = 300_000
BURST: Final = 100
IDLE_S: Final = 2.0
MOST_MS: Final = 10
GC_MODES: Final = ("as is", "frozen")
"""`frozen`: gc.freeze() once the cache is full, so that a full collection does not walk it."""


class ShiftedClock:
    """The wall clock, moved ahead at will: a million entries expire in no time."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@dataclass(slots=True)
class Subject:
    """A cache under load. `expire` makes everything in it stale, where that can be done without waiting."""

    get: Callable[[int], Awaitable[object]]
    expire: Callable[[], None] | None = None
    clear: Callable[[], None] | None = None


def tables() -> list[Table]:
    table = Table(
        f"Longest stall of the event loop at {ENTRIES:,} entries, in ms",
        ("what", "gc", "phase", "gap", "own cpu", "without gc", "longest gc"),
        notes=[
            "gap: from one waking of a 1 ms heartbeat to the next, whoever caused it; the target is held against it",
            "own cpu: the part in which this thread computed, not other processes; without gc: less the collector",
        ],
    )
    for name in SUBJECTS:
        for mode in GC_MODES:
            phases = in_child("benchmarks.stall", name, mode, timeout_s=400)
            if isinstance(phases, str):
                table.add(name, mode, phases)
                continue
            for phase, gaps in phases.items():
                judged = name == "cachemesh" and phase != "clear()"
                table.add(
                    name,
                    mode,
                    phase,
                    gaps["wall_ms"],
                    gaps["cpu_ms"],
                    gaps["own_ms"],
                    gaps["collector_ms"],
                    target=f"<= {MOST_MS} ms" if judged else "",
                    reached=gaps["wall_ms"] <= MOST_MS if judged else None,
                )
    return [table]


async def _ours() -> Subject:
    from cachemesh import Cache

    clock = ShiftedClock()
    cache = Cache(max_entries=ENTRIES, clock=clock)

    def get(i: int) -> Awaitable[object]:
        async def fetch() -> Result[int, str]:
            return Success(i)

        return cache.get(f"user:{i}", fetch, ttl=TTL_S)

    def expire() -> None:
        clock.ahead_s += TTL_S + 1

    return Subject(get, expire, cache.clear)


async def _dict() -> Subject:
    """The control: what Python and the machine do to a bare dict under the same load."""
    clock = ShiftedClock()
    kept: dict[str, Entry] = {}
    order: deque[str] = deque()

    async def get(i: int) -> object:
        key, now = f"user:{i}", clock()
        entry = kept.get(key)
        if entry is not None and entry.expires_at > now:
            return entry.value
        if entry is None:
            if len(kept) >= ENTRIES:
                del kept[order.popleft()]
            order.append(key)
        kept[key] = Entry(Success(i), now + TTL_S)
        return i

    def expire() -> None:
        clock.ahead_s += TTL_S + 1

    return Subject(get, expire, kept.clear)


async def _cashews() -> Subject:
    from cashews import Cache

    cache = Cache()
    cache.setup("mem://", size=ENTRIES)
    await cache.init()
    return Subject(lambda i: cache.set(f"user:{i}", i, expire=TTL_S))


SUBJECTS: Final[dict[str, Callable[[], Awaitable[Subject]]]] = {
    "cachemesh": _ours,
    "control: a dict": _dict,
    "cashews mem": _cashews,
}


async def _child(name: str, mode: str) -> None:
    try:
        subject = await SUBJECTS[name]()
    except ImportError:
        sys.stderr.write("not installed")
        return
    phases: dict[str, object] = {}
    async with listening() as gaps:
        await _load(subject, range(ENTRIES))
    phases["filling"] = asdict(gaps)
    gc.collect()
    if mode == "frozen":
        gc.freeze()

    async with listening() as gaps:
        await asyncio.sleep(IDLE_S)
    phases["idle"] = asdict(gaps)

    if subject.expire is not None:
        subject.expire()
        async with listening() as gaps:
            await asyncio.sleep(IDLE_S)
        phases["idle, all expired"] = asdict(gaps)

        async with listening() as gaps:
            await _load(subject, range(REREAD))
        phases[f"re-reading {REREAD:,} expired"] = asdict(gaps)

    async with listening() as gaps:
        await _load(subject, range(ENTRIES, ENTRIES + MORE))
    phases[f"evicting for {MORE:,} more"] = asdict(gaps)

    if subject.clear is not None:
        async with listening() as gaps:
            await asyncio.sleep(0.01)
            subject.clear()
            await asyncio.sleep(0.01)
        phases["clear()"] = asdict(gaps)
    answer(**phases)


async def _load(subject: Subject, indexes: range) -> None:
    get = subject.get
    for i in indexes:
        await get(i)
        if i % BURST == 0:
            await asyncio.sleep(0)


if __name__ == "__main__":
    asyncio.run(_child(sys.argv[1], sys.argv[2]))
