"""How often LRU, SIEVE and S3-FIFO hit on a real trace, beside libCacheSim's."""

from __future__ import annotations

import csv
import gzip
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from cachemesh.simulation import Configuration, Constant, Eviction, OriginModel, Request, simulate

TRACE: Final = Path(__file__).parents[3] / "shared" / "traces" / "cloudphysics-first-half.csv.gz"
REFERENCES: Final = {Eviction.S3FIFO: "S3FIFO", Eviction.LRU: "LRU", Eviction.SIEVE: "Sieve"}
AT_ONCE: Final = OriginModel(Constant(0.0))


@cache
def trace() -> list[Request]:
    with gzip.open(TRACE, "rt") as lines:
        return [Request(float(row["time_s"]), row["key"], size=int(row["size"])) for row in csv.DictReader(lines)]


@pytest.mark.skipif(not TRACE.exists(), reason="the trace is not part of the package")
@pytest.mark.parametrize("share", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("eviction", Eviction)
def test_hit_ratios_on_a_real_trace_agree_with_libcachesim(eviction: Eviction, share: float) -> None:
    """Within half a point, at 0.1, 1 and 10 % of the distinct keys."""
    libcachesim: Any = pytest.importorskip("libcachesim")
    requests = trace()
    capacity = int(len({request.key for request in requests}) * share)
    reference = getattr(libcachesim, REFERENCES[eviction])(capacity)
    hits = sum(reference.get(libcachesim.Request(obj_id=int(each.key), obj_size=1)) for each in requests)

    outcome = simulate(requests, AT_ONCE, Configuration(capacity=capacity, eviction=eviction))

    assert outcome.most_entries == capacity
    assert outcome.hit_ratio == pytest.approx(hits / len(requests), abs=0.005)
