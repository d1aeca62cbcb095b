"""A process that ends hands what it has cached to the next one, in a file: as old as it is, and whose it is.

Two processes, one after the other. The second begins with what the first had:
it fetches nothing that is still fresh, refuses a damaged file without a fuss,
and lets no user see what another one's snapshot says.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from pydantic import BaseModel
from returns.result import Failure, Result, Success

from cachemesh import CacheMiss, CacheScope, SyncCache

EVERYTHING = tuple(CacheScope)


class Profile(BaseModel):
    """A value that is no plain JSON: it is cached, and comes back, with a schema."""

    name: str
    langs: tuple[str, ...]


ADA = Profile(name="Ada", langs=("en", "fr"))


def main() -> None:
    if len(sys.argv) > 1:
        first(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "snapshot.json"
        subprocess.run([sys.executable, __file__, str(path)], check=True)  # noqa: S603 (this very script)
        second(path)


def first(path: Path) -> None:
    with SyncCache(cache_failures=True, default_ttl=300) as cache:
        cache.put("rates", {"EUR": 1.0, "USD": 1.08}, tags=("money",))
        cache.get("legacy", lambda: Failure("gone"))
        ada = cache.for_user("ada")
        ada.put("profile", ADA, scope=CacheScope.USER, schema=Profile)

        snapshot = cache.dehydrate(scopes=EVERYTHING)  # Without `scopes`, of what is everyone's only.
        print(f"the first process leaves {snapshot}")
        path.write_bytes(snapshot.to_json())
        path.chmod(0o600)


def second(path: Path) -> None:
    data = path.read_bytes()
    with SyncCache() as cache:
        cache.put("rates", {"EUR": 1.0, "USD": 1.09})
        counts = cache.hydrate(data).unwrap()
        print(f"the second takes in {counts.admitted}, keeps {counts.staged} until somebody names the schema")
        assert (counts.admitted, counts.staged, counts.newer) == (1, 1, 1)

        assert cache.peek("rates") == Success({"EUR": 1.0, "USD": 1.09}), "what is good in memory stays"
        assert cache.get("legacy", no_fetch) == Failure("gone"), "failures come back as well"

        ada, bob = cache.for_user("ada"), cache.for_user("bob")
        assert ada.get("profile", no_fetch, scope=CacheScope.USER, schema=Profile) == Success(ADA)
        assert bob.peek("profile") == Failure(CacheMiss("profile"))
        print("Ada has her profile, Bob has none of it")

        refused = cache.hydrate(data[:-20])
        print(f"a damaged file is a {refused}")
        assert isinstance(refused, Failure)
        assert cache.peek("rates") == Success({"EUR": 1.0, "USD": 1.09}), "and changes nothing"


def no_fetch() -> Result[NoReturn, str]:
    msg = "nothing is fetched"
    raise AssertionError(msg)


if __name__ == "__main__":
    main()
