"""A file or a server that several caches of a test share, as several processes would; and the way behind their backs.

    world.new()                         a cache with a store of its own, of the face that the test is about
    world.new(store=..., clock=...)     settings of its cache; `store`: a store that was made of `world.store(...)`
    world.swap(ALICE, BOB, "k")         exchanges what is stored of two owners
    world.plant(data)                   writes `data` over everything that is stored

`new` answers a `Process`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from cachemesh import Cache, SyncCache
from cachemesh.stores.redis import RedisStore
from cachemesh.stores.redis.layout import HEADER_SIZE, Layout
from cachemesh.stores.sqlite import SqliteStore
from cachemesh.stores.sqlite.places import Places
from tests.stores.test_shared_stores import Asker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.ports import SharedStore
    from tests.stores.servers import Server

NAMESPACE: Final = "cachemesh"


class Process(Asker):
    """A cache whose event loop goes on until the store has been told all that it is to be told."""

    def run(self, answer: Any) -> Any:
        if self.runner is None:
            return answer

        async def main() -> Any:
            got = await answer
            await self.cache.flush()
            return got

        return self.runner.run(main())

    def call_in_loop(self, act: Callable[..., Any], *arguments: Any) -> Any:
        """What `act` answers, within the event loop."""
        if self.runner is None:
            return act(*arguments)

        async def main() -> Any:
            return act(*arguments)

        return self.runner.run(main())

    def user(self, name: str) -> Process:
        """The same cache as a user of it sees it."""
        return Process(self.cache.for_user(name), self.runner)


class World:
    """What both have in common. `face`: "async" or "sync"."""

    def __init__(self, face: str) -> None:
        self.face = face
        self.made: list[Process] = []

    def store(self, **settings: Any) -> SharedStore:
        """A store object of its own, over what all share."""
        raise NotImplementedError

    def swap(self, one: Owner, other: Owner, key: str) -> None:
        """Exchange the bytes that are stored of two owners under `key`."""
        raise NotImplementedError

    def plant(self, data: bytes) -> int:
        """Write `data` over all that is stored, in each way that has a chance of being read. How much that was."""
        raise NotImplementedError

    def new(self, *, store: Any = None, listens: bool = True, **settings: Any) -> Process:
        """A cache, as another process has one. `listens`: it is so far that it hears of the others."""
        store = self.store() if store is None else store
        if self.face == "sync":
            asker = Process(SyncCache(store=store, **settings), None)
        else:
            asker = Process(Cache(store=store, **settings), asyncio.Runner())
        self.made.append(asker)
        if listens:
            asker.listens()
            asker.fetched = 0
        return asker

    def close(self) -> None:
        """Close all caches."""
        for asker in self.made:
            asker.close()
            if asker.runner is not None:
                asker.runner.close()


class OnDisk(World):
    """A file of SQLite."""

    def __init__(self, face: str, path: Path) -> None:
        super().__init__(face)
        self.path = path

    def store(self, **settings: Any) -> SqliteStore:
        return SqliteStore(self.path, **settings)

    def swap(self, one: Owner, other: Owner, key: str) -> None:
        places = Places(NAMESPACE)
        where = [places.number(owner, key) for owner in (one, other)]
        with closing(sqlite3.connect(self.path)) as connection, connection:
            rows = [
                connection.execute(
                    "SELECT envelope, generation FROM entries WHERE owner = ? AND key = ?", each
                ).fetchone()
                for each in where
            ]
            for each, row in zip(where, reversed(rows), strict=True):
                connection.execute(
                    "UPDATE entries SET envelope = ?, generation = ? WHERE owner = ? AND key = ?", (*row, *each)
                )

    def plant(self, data: bytes) -> int:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute("UPDATE entries SET envelope = ?", (data,)).rowcount


class OnServer(World):
    """A server."""

    def __init__(self, face: str, server: Server) -> None:
        super().__init__(face)
        self.server = server
        self.layout = Layout(NAMESPACE)

    def store(self, **settings: Any) -> RedisStore:
        return RedisStore(self.server.url, **{"memory_cap": 0.2, "ping_interval": 0.5, **settings})

    def swap(self, one: Owner, other: Owner, key: str) -> None:
        names = [self.layout.entry(owner, key) for owner in (one, other)]
        with self.server.client() as client:
            records = client.mget(names)
            assert None not in records
            client.mset(dict(zip(names, reversed(records), strict=True)))

    def plant(self, data: bytes) -> int:
        with self.server.client() as client:
            names = list(client.scan_iter(match=self.layout.pattern()))
            for number, name in enumerate(names):
                real = client.get(name)
                assert isinstance(real, bytes)
                client.set(name, data if number % 2 else real[:HEADER_SIZE] + data)
            return len(names)
