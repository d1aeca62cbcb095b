"""Two processes with one store: one of them fetches for both, and what one removes, the other does not bring back.

The store is a file. With `RedisStore(url)` in its place they may be on two machines.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from returns.result import Result, Success

from cachemesh import SyncCache
from cachemesh.stores import SqliteStore


def main() -> None:
    if len(sys.argv) > 1:
        other(Path(sys.argv[1]), sys.argv[2])
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "cache.db"
        with SyncCache(store=SqliteStore(path), default_ttl=300) as cache:
            one_fetches(cache, path)
            removed_is_removed(cache, path)


def one_fetches(cache: SyncCache, path: Path) -> None:
    readers: list[subprocess.Popen[str]] = []

    def fetch() -> Result[int, str]:
        reader = begin(path, "read")
        readers.append(reader)
        assert reader.stdout is not None
        assert reader.stdout.readline() == "asking\n"
        return Success(101)

    assert cache.get("price", fetch) == Success(101)
    said, _ = readers[0].communicate(timeout=60)
    assert said == "<Success: 101>\n"
    print("this process has fetched, and the other one, which asked meanwhile, has waited for it")


def removed_is_removed(cache: SyncCache, path: Path) -> None:
    def fetch() -> Result[int, str]:
        begin(path, "remove").communicate(timeout=60)
        return Success(1)

    assert cache.get("rate", fetch) == Success(1)
    cache.flush().unwrap()  # The file has refused it by now.
    assert cache.get("rate", lambda: Success(2)) == Success(2)
    print("what the other one removed during a fetch was not stored after it")


def begin(path: Path, role: str) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, str(path), role]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 (this very script)


def other(path: Path, role: str) -> None:
    with SyncCache(store=SqliteStore(path)) as cache:
        if role == "read":
            print("asking", flush=True)
            print(cache.get("price", no_fetch))
        else:
            cache.invalidate("rate")


def no_fetch() -> Result[NoReturn, str]:
    msg = "nothing is fetched"
    raise AssertionError(msg)


if __name__ == "__main__":
    main()
