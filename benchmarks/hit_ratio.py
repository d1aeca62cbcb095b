"""How often our S3-FIFO hits on a real trace, beside libCacheSim's and beside LRU.

Run `python -m benchmarks.hit_ratio` in a checkout with the `bench` extra. The
capacity counts entries, so every request has size one. The trace is not part
of the package: see the README beside it.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final

import libcachesim  # type: ignore[import-untyped]

from cachemesh.shell.eviction import MAX_VISITS, Resident, S3Fifo

if TYPE_CHECKING:
    from collections.abc import Sequence

TRACE: Final = Path(__file__).parents[2] / "shared" / "traces" / "cloudphysics-first-half.csv.gz"
SHARES: Final = (0.01, 0.1)
ROUNDS: Final = 5


def main() -> None:
    """Print a row for each capacity: hit ratios in percent, differences in points."""
    with gzip.open(TRACE, "rt") as lines:
        keys = [row["key"] for row in csv.DictReader(lines)]
    distinct = len(set(keys))

    print(f"{len(keys):,} requests for {distinct:,} keys")
    print(f"{'capacity':>15} {'ours':>8} {'libcachesim':>12} {'difference':>11} {'LRU':>8} {'ours, ns/request':>17}")
    for share in SHARES:
        capacity = int(distinct * share)
        ours = ratio(replay(keys, capacity), keys)
        reference = ratio(replay_reference(keys, libcachesim.S3FIFO(capacity)), keys)
        lru = ratio(replay_reference(keys, libcachesim.LRU(capacity)), keys)
        nanoseconds = min(timed(keys, capacity) for _ in range(ROUNDS))
        print(
            f"{capacity:>8,} ({share:>4.0%}) {ours:>8.3f} {reference:>12.3f} {ours - reference:>+11.3f}"
            f" {lru:>8.3f} {nanoseconds:>17,.0f}"
        )


def replay(keys: Sequence[str], capacity: int) -> int:
    """Hits of a table that is filled and visited as the shell does it."""
    order = S3Fifo(capacity)
    table: dict[str, Resident] = {}
    hits = 0
    for key in keys:
        resident = table.get(key)
        if resident is not None:
            hits += 1
            if resident.visits < MAX_VISITS:
                resident.visits += 1
            continue
        resident = table[key] = Resident(None, 0.0, 60.0, 60.0, key, table)
        for victim in order.admit(resident, len(table)):
            del table[victim.key]
    return hits


def replay_reference(keys: Sequence[str], cache: libcachesim.CacheBase) -> int:
    """Hits of one of libCacheSim's caches."""
    return sum(cache.get(libcachesim.Request(obj_id=int(key), obj_size=1)) for key in keys)


def ratio(hits: int, keys: Sequence[str]) -> float:
    """Hits in percent."""
    return 100 * hits / len(keys)


def timed(keys: Sequence[str], capacity: int) -> float:
    """Nanoseconds a request, the table and the making of residents included."""
    started_at = perf_counter()
    replay(keys, capacity)
    return (perf_counter() - started_at) / len(keys) * 1e9


if __name__ == "__main__":
    main()
