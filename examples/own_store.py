"""A store of your own: JSON files, proved by the contract suite, and a cache that survives a restart on them.

Six coroutines make a `Store`. What they must keep to is in
`cachemesh.testing.StoreContract`, as tests: subclass it in three lines, and
pytest does the rest.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from returns.result import Failure, Result, Success

from cachemesh import Cache, CacheLogger, CacheScope, StoredEntry, StoreFailed
from cachemesh.testing import StoreContract, VirtualClock

if TYPE_CHECKING:
    from collections.abc import Collection

    from cachemesh import Store
    from cachemesh.core import Owner


class JsonFileStore:
    """One file an entry, one directory an owner. Names are hashes: a key may be anything, a file name may not.

    The files are small, so they are read and written in the event loop; a
    thread would cost more than it saves, and could act after its call was cancelled.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    async def read(self, owner: Owner, key: str) -> StoredEntry | None:
        try:
            return as_entry(self._path(owner, key).read_text())
        except FileNotFoundError:
            return None

    async def write(self, entry: StoredEntry) -> None:
        path = self._path(entry.owner, entry.key)
        text = as_text(entry)
        path.parent.mkdir(exist_ok=True)
        fresh = path.with_suffix(".tmp")
        fresh.write_text(text)
        fresh.replace(path)  # Whoever reads sees the old file or the new one, never half of one.

    async def delete(self, owner: Owner, key: str) -> None:
        self._path(owner, key).unlink(missing_ok=True)

    async def clear_partition(self, owner: Owner) -> None:
        shutil.rmtree(self.directory / hashed(*owner), ignore_errors=True)

    async def clear(self) -> None:
        for each in self.directory.iterdir():
            shutil.rmtree(each)

    async def keys(self, owner: Owner) -> Collection[str]:
        files = (self.directory / hashed(*owner)).glob("*.json")
        return [as_entry(path.read_text()).key for path in files]

    def _path(self, owner: Owner, key: str) -> Path:
        return self.directory / hashed(*owner) / f"{hashed(key)}.json"


def hashed(*parts: str | None) -> str:
    """A name for `parts`. JSON keeps them apart from each other, and None from "None"."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def as_text(entry: StoredEntry) -> str:
    """All fields travel: scope, failure, lifetime and tags belong to the entry as much as its value."""
    fields = [getattr(entry, name) for name in entry.__struct_fields__]
    return json.dumps(dict(zip(entry.__struct_fields__, fields, strict=True)))


def as_entry(text: str) -> StoredEntry:
    fields: dict[str, Any] = json.loads(text)
    scope, user_id = fields.pop("owner")
    tags = tuple(fields.pop("tags"))  # JSON made a list of them.
    return StoredEntry((CacheScope(scope), user_id), tags=tags, **fields)


class TestJsonFileStore(StoreContract):
    """The proof. Where nothing is to be cleaned up, `make_store` is all there is to say."""

    examples, steps = 10, 20  # Of the random test; the defaults are for a store that is being written.

    def make_store(self) -> Store:
        return JsonFileStore(Path(tempfile.mkdtemp(prefix="cachemesh-")))

    async def close_store(self, store: Store) -> None:
        assert isinstance(store, JsonFileStore)
        shutil.rmtree(store.directory)


class Errors(CacheLogger):
    """Keeps what went wrong without costing an answer."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def on_error(self, key: str, error: object) -> None:
        del key
        self.seen.append(error)


async def survive_a_restart(directory: Path) -> None:
    clock = VirtualClock(now=1_767_225_600.0)
    fetches: list[str] = []

    async def profile() -> Result[dict[str, str], str]:
        fetches.append("profile")
        return Success({"name": "Ada"})

    async def outage() -> Result[object, str]:
        fetches.append("outage")
        return Failure("down")

    async with Cache(store=JsonFileStore(directory), clock=clock, default_ttl=60) as cache:
        await cache.get("profile", profile)
        await cache.get("search", outage, cache_failures=True)

    # Another process, later: values, failures and what is left of their lifetimes are still there.
    clock.advance(59)
    async with Cache(store=JsonFileStore(directory), clock=clock, default_ttl=60) as cache:
        assert await cache.get("profile", profile) == Success({"name": "Ada"})
        assert await cache.get("search", outage) == Failure("down")
        assert fetches == ["profile", "outage"]

        clock.advance(1)
        assert cache.inspect("profile").is_stale
        await cache.get("profile", profile)
        assert fetches == ["profile", "outage", "profile"]


async def go_on_without_it(directory: Path) -> None:
    """A store that fails costs no answer; the logger hears of it."""
    errors = Errors()

    async def unstorable() -> Result[object, str]:
        return Success(object())  # JSON has no word for it.

    async with Cache(store=JsonFileStore(directory), logger=errors) as cache:
        answer = await cache.get("odd", unstorable)
        assert await cache.get("odd", unstorable) == answer, "the memory has it"

    assert [type(error) for error in errors.seen] == [StoreFailed]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(survive_a_restart(Path(folder)))
        asyncio.run(go_on_without_it(Path(folder)))
    proof = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    sys.exit(subprocess.run(proof, check=False).returncode)  # noqa: S603 (a command of our own)
