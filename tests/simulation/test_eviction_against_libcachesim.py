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


HITS: Final = {
    Eviction.S3FIFO: {0.001: 6_927, 0.01: 10_112, 0.1: 11_112},
    Eviction.LRU: {0.001: 5_370, 0.01: 9_631, 0.1: 10_777},
    Eviction.SIEVE: {0.001: 6_292, 0.01: 10_148, 0.1: 10_936},
}
"""Of libCacheSim (libcachesim 0.3.5), by the share of the distinct keys that there is room for."""


@pytest.mark.skipif(not TRACE.exists(), reason="the trace is not part of the package")
@pytest.mark.parametrize("share", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("eviction", Eviction)
def test_hit_ratios_on_a_real_trace_agree_with_libcachesim(eviction: Eviction, share: float) -> None:
    """Within half a point, at 0.1, 1 and 10 % of the distinct keys."""
    requests = trace()
    capacity = int(len({request.key for request in requests}) * share)

    outcome = simulate(requests, AT_ONCE, Configuration(capacity=capacity, eviction=eviction))

    assert outcome.most_entries == capacity
    assert outcome.hit_ratio == pytest.approx(HITS[eviction][share] / len(requests), abs=0.005)


@pytest.mark.skipif(not TRACE.exists(), reason="the trace is not part of the package")
@pytest.mark.parametrize("share", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("eviction", Eviction)
def test_so_many_hits_has_libcachesim(eviction: Eviction, share: float) -> None:
    libcachesim: Any = pytest.importorskip("libcachesim", reason="libcachesim comes with the extra `bench`")
    requests = trace()
    reference = getattr(libcachesim, REFERENCES[eviction])(int(len({request.key for request in requests}) * share))

    hits = sum(reference.get(libcachesim.Request(obj_id=int(each.key), obj_size=1)) for each in requests)

    assert hits == HITS[eviction][share]
