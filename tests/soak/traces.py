"""Ten million lines, in the memory of a thousand: `make soak`."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

LINES = 10_000_000
KEYS = 100_000
MOST_MB = 120  # 100,000 keys, the interpreter with msgspec, and the blocks under way.

WRITE = """
import sys
print("time_s,key,user,size")
for block in range({lines} // 1_000):
    sys.stdout.write("".join(
        f"{{at / 1000 - (at % 7) / 100:.3f}},key:{{at * 7919 % {keys}}},u{{at % 50}},{{at % 4096}}\\n"
        for at in range(block * 1_000, block * 1_000 + 1_000)
    ))
"""
READ = """
import resource, sys, time
from cachemesh.simulation.traces import read
began, count, last, keys = time.perf_counter(), 0, float("-inf"), set()
with read(sys.argv[1]) as reading:
    for request in reading:
        assert request.at >= last
        last = request.at
        count += 1
        keys.add(request.key)
taken = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(count, len(keys), reading.unreadable.total, reading.clamped, peak, f"{taken:.1f}")
"""


@pytest.mark.parametrize("way", ["stdin", "gzip"])
def test_ten_million_lines_stream_in_bounded_memory(tmp_path: Path, way: str) -> None:
    pytest.importorskip("resource")
    command = [sys.executable, "-c", WRITE.format(lines=LINES, keys=KEYS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:  # noqa: S603 (the program is above)
        assert writer.stdout is not None
        if way == "gzip":
            path = tmp_path / "trace.csv.gz"
            with path.open("wb") as file:
                subprocess.run(["gzip", "-1"], stdin=writer.stdout, stdout=file, check=True)  # noqa: S607 (of the system)
            command = [sys.executable, "-c", READ, str(path)]
        else:
            command = [sys.executable, "-c", READ, "-"]
        done = subprocess.run(  # noqa: S603 (the program is above)
            command, stdin=writer.stdout, capture_output=True, text=True, check=True
        )
    count, keys, unreadable, clamped, peak_kb, seconds = done.stdout.split()
    print(f"{way}: {LINES / float(seconds):,.0f} lines/s, {int(peak_kb) / 1024:.0f} MB")  # noqa: T201 (the figures are what it is run for)
    assert (int(count), int(keys), int(unreadable), int(clamped)) == (LINES, KEYS, 0, 0)
    assert int(peak_kb) / 1024 < MOST_MB
