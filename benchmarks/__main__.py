"""`python -m benchmarks [group ...]`: measure, and print a table a group. No group means all of them."""

import argparse
import importlib
import logging
import os
import platform
import sys
import time
from typing import Final

GROUPS: Final = {
    "hit": "one hot key, async, decorated and threaded",
    "miss": "unique keys, each fetched and stored",
    "flight": "10,000 callers of one key",
    "memory": "bytes an entry at 1,000,000",
    "stall": "the event loop's longest stall at 1,000,000 entries",
    "ratio": "hit ratio against libcachesim (benchmarks/hit_ratio.py)",
    "reducer": "one step of the pure core",
    "tags": "a hit on an entry with tags",
    "many": "get_many of 1,000 keys",
    "herd": "100,000 entries that expire together, with and without jitter",
    "simulation": "simulated requests a second",
    "tokens": "with_valid_token on a valid token",
    "http_source": "a request through HttpSource, against the bare client",
    "traces": "lines a second of each format of traces",
    "sqlite_store": "reads and writes of a cache over SqliteStore, against sqlite3 and diskcache",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="cachemesh against its floors and its peers, in one run.",
        epilog="\n".join(f"  {name:8} {what}" for name, what in GROUPS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("groups", nargs="*", choices=[[], *GROUPS], metavar="group")
    names = parser.parse_args().groups or list(GROUPS)

    logging.getLogger().addHandler(logging.NullHandler())  # Peers warn about slow and abandoned fetches.
    _say(f"CPython {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, load {_load()}\n")
    for name in names:
        started = time.perf_counter()
        _run(name)
        _say(f"({name}: {time.perf_counter() - started:.0f} s, load {_load()})\n")


def _run(name: str) -> None:
    if name == "ratio":
        importlib.import_module("benchmarks.hit_ratio").main()
        return
    for table in importlib.import_module(f"benchmarks.{name}").tables():
        _say(table.markdown())


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
