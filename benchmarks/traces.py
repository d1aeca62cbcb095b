"""Lines a second that `cachemesh.simulation.traces.read` makes of each format: a million lines, or a quarter of one.

A million lines of CSV a second is what would be good to have; beside it stands what `csv.reader` alone needs for
the same file, without making anything of the cells.
"""

import csv
import gzip
import itertools
import json
import random
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import zstandard

from benchmarks.table import Table
from cachemesh.simulation.traces import read

ROUNDS: Final = 3
WANTED: Final = 1_000_000
LINES: Final = 1_000_000
FEWER: Final = 250_000
KEYS: Final = 100_000
START: Final = datetime(2026, 1, 1, tzinfo=UTC)


def tables() -> list[Table]:
    table = Table("Reading traces", ("what", "lines/s", "ns a line", "MB/s of the file"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trace")
        _bare(table, file)
        for name, lines, wanted, squeeze in (
            ("CSV: time, key", _short(LINES), True, bytes),
            ("CSV: time, key, user, size", _csv(LINES), True, bytes),
            ("the same, a time in ten goes back", _disordered(LINES), False, bytes),
            ("the same, a line in a hundred cannot be read", _broken(LINES), False, bytes),
            ("the same in gzip", _csv(LINES), False, gzip.compress),
            ("the same in zstd", _csv(LINES), False, zstandard.compress),
            ("CSV with quoted keys", _quoted(FEWER), False, bytes),
            ("JSON lines", _json(FEWER), False, bytes),
            ("Common Log Format", _log(FEWER, ""), False, bytes),
            ("Combined Log Format", _log(FEWER, ' "http://example.org/" "Mozilla/5.0 (X11)"'), False, bytes),
        ):
            file.write_bytes(squeeze("".join(lines).encode()))
            _row(table, file, name, wanted=wanted)
    table.notes.append(f"The best of {ROUNDS} runs over {LINES:,} lines, of quotes, JSON and logs {FEWER:,}.")
    return [table]


def _row(table: Table, file: Path, name: str, *, wanted: bool) -> None:
    best, count = min(_read(file) for _ in range(ROUNDS))
    table.add(
        *(name, count / best, best / count * 1e9, file.stat().st_size / best / 1e6),
        target=f">= {WANTED:,} lines/s" if wanted else "",
        reached=count / best >= WANTED if wanted else None,
    )


def _read(file: Path) -> tuple[float, int]:
    started = time.perf_counter()
    with read(file) as reading:
        count = sum(1 for _ in reading)
    return time.perf_counter() - started, count


def _bare(table: Table, file: Path) -> None:
    file.write_text("".join(_csv(LINES)), "utf-8")
    best = min(_split(file) for _ in range(ROUNDS))
    table.add("csv.reader alone, four columns", LINES / best, best / LINES * 1e9, file.stat().st_size / best / 1e6)


def _split(file: Path) -> float:
    started = time.perf_counter()
    with file.open(encoding="utf-8", newline="") as lines:
        for _ in csv.reader(lines):
            pass
    return time.perf_counter() - started


def _keys(count: int) -> Iterator[tuple[int, int]]:
    chance = random.Random(6)  # noqa: S311 (the same file each time)
    return ((at, chance.randrange(KEYS)) for at in range(count))


def _short(count: int) -> Iterator[str]:
    return itertools.chain(["time,key\n"], (f"{at / 1000},key:{key}\n" for at, key in _keys(count)))


def _csv(count: int) -> Iterator[str]:
    rows = (f"{at / 1000},key:{key},u{key % 50},{key % 4096}\n" for at, key in _keys(count))
    return itertools.chain(["time,key,user,size\n"], rows)


def _disordered(count: int) -> Iterator[str]:
    rows = (f"{(at - at % 10 // 9 * 50) / 1000},key:{key},u{key % 50},{key % 4096}\n" for at, key in _keys(count))
    return itertools.chain(["time,key,user,size\n"], rows)


def _broken(count: int) -> Iterator[str]:
    return (line if at % 100 != 99 else "oops,key,u1,1\n" for at, line in enumerate(_csv(count)))  # noqa: PLR2004


def _quoted(count: int) -> Iterator[str]:
    return itertools.chain(["time,key\n"], (f'{at / 1000},"key,{key}"\n' for at, key in _keys(count)))


def _json(count: int) -> Iterator[str]:
    return (
        json.dumps({"time": at / 1000, "key": f"key:{key}", "user": f"u{key % 50}", "size": key % 4096}) + "\n"
        for at, key in _keys(count)
    )


def _log(count: int, more: str) -> Iterator[str]:
    for at, key in _keys(count):
        stamp = f"{START + timedelta(seconds=at // 100):%d/%b/%Y:%H:%M:%S %z}"
        yield f'10.0.0.{key % 250} - u{key % 50} [{stamp}] "GET /items/{key}?page=2 HTTP/1.1" 200 {key}{more}\n'
