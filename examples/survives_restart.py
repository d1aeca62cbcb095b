"""A script whose cache survives its end: the second run fetches nothing.

`SqliteStore` is a file, so this needs no server. The script runs itself twice,
as two real processes with the same file.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel
from returns.result import Result, Success

from cachemesh import SyncCache
from cachemesh.stores import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable

CITIES = ["Oslo", "Lima", "Kyoto"]


class Weather(BaseModel):
    """What is asked for: it comes back as what it was, not as a dict."""

    city: str
    degrees: float


def main(path: str) -> None:
    """What you would write: nothing in here knows whether it is the first run."""
    fetched: list[str] = []

    def weather_in(city: str) -> Callable[[], Result[Weather, str]]:
        def fetch() -> Result[Weather, str]:
            fetched.append(city)
            time.sleep(0.05)  # The origin is slow, and may be paid for.
            return Success(Weather(city=city, degrees=len(city)))

        return fetch

    with SyncCache(store=SqliteStore(path), default_ttl=3_600) as cache:
        for city in CITIES:
            found = cache.get(city, weather_in(city), schema=Weather)
            assert found == Success(Weather(city=city, degrees=len(city)))
    # Leaving the `with` writes what is left; `cache.flush()` does so at any other time.
    print(len(fetched), "fetches")


def run(path: Path) -> str:
    """What a process that runs this script prints."""
    command = [sys.executable, __file__, str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603 (this very script)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
        sys.exit()
    with tempfile.TemporaryDirectory() as folder:
        first, second = [run(Path(folder) / "cache.db") for _ in range(2)]
    print(f"the first run made {first}, the second {second}")
    assert (first, second) == ("3 fetches", "0 fetches")
