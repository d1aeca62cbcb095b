"""A cache over `SqliteStore` beside plain sqlite3 and diskcache: reads that missed the memory, writing behind, room.

Values are a dict that is 1 KB as JSON. Reads are of files that the operating
system has in memory; a sample is of a cache that has none of it in its own. What is
written behind is timed until the caller has it back, and until it is on the disk.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sqlite3
import tempfile
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from returns.result import Failure, Result, Success

from benchmarks.floors import KEY, TTL_S
from benchmarks.harness import Contender, async_sample, race, sync_sample
from benchmarks.table import Table
from cachemesh import Cache, SyncCache
from cachemesh.core.scopes import GLOBAL_OWNER
from cachemesh.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS: Final = 31
KEYS: Final = [f"user:{number}" for number in range(1_000)]
AT_ONCE: Final = 100
VALUE: Final = {"id": 1, "name": "Ada Lovelace", "mail": "ada@example.org", "roles": ["admin"], "text": "x" * 900}
NUMBER: Final = 1

READ_X: Final = 2.5
PUT_US: Final = 5.0
A_KEY_US: Final = 15.0
ONE_US: Final = 200.0
HIT_X: Final = 1.03


def tables() -> list[Table]:
    with tempfile.TemporaryDirectory() as folder, files(Path(folder)) as (store, plain, peer):
        return [
            read_table(store, plain, peer),
            async_table(store),
            write_table(store, peer),
            hit_table(store),
            room_table(Path(folder)),
        ]


def read_table(store: SqliteStore, plain: sqlite3.Connection, peer: Any) -> Table:  # noqa: ANN401  (may be missing)
    """One key after the other that the memory has not."""
    floor = Contender("floor: SELECT, json.loads", sync_sample(lambda n: plain_loop(plain, n)))
    get = Contender("SyncCache.get, memory missed", sync_sample(lambda n: get_loop(store, n)))
    others = [Contender("SqliteStore.read_now: opened, not decoded", sync_sample(lambda n: read_loop(store, n)))]
    if peer is not None:
        others.append(Contender("diskcache.get", sync_sample(lambda n: peer_loop(peer, n))))
    race([floor, get, *others], rounds=ROUNDS, count=len(KEYS))

    table = table_of("Read from a file", ("what", "us", "best us", "x floor", "get / it"), peer)
    table.add(floor.name, floor.median / 1e3, floor.best / 1e3, 1.0)
    over = get.over(floor)
    table.add(get.name, get.median / 1e3, get.best / 1e3, over, target=f"<= {READ_X} x floor", reached=over <= READ_X)
    for row in others:
        cells = (row.name, row.median / 1e3, row.best / 1e3, row.over(floor), get.over(row))
        if row.name.startswith("diskcache"):
            table.add(*cells, target="get is faster", reached=get.over(row) < 1)
        else:
            table.add(*cells)
    return table


def async_table(store: SqliteStore) -> Table:
    """One key, and many keys at once, that the memory has not. The loop waits for no disk: another thread reads."""
    with asyncio.Runner() as runner:

        async def one_by_one(n: int) -> None:
            cache = Cache(store=store)
            for key in KEYS[:n]:
                await cache.get(key, missed)

        async def at_once(n: int) -> None:
            cache = Cache(store=store)
            for first in range(0, n, AT_ONCE):
                await asyncio.gather(*(cache.get(key, missed) for key in KEYS[first : first + AT_ONCE]))

        one = Contender("a single key", async_sample(runner, one_by_one))
        many = Contender(f"{AT_ONCE} keys at once, a key", async_sample(runner, at_once))
        race([one, many], rounds=ROUNDS, count=len(KEYS))

    table = Table("Read from a file, async", ("what", "us", "best us"))
    for row, most_us in ((one, ONE_US), (many, A_KEY_US)):
        us = row.median / 1e3
        table.add(row.name, us, row.best / 1e3, target=f"<= {most_us:.0f} us", reached=us <= most_us)
    return table


def write_table(store: SqliteStore, peer: Any) -> Table:  # noqa: ANN401  (may be missing)
    """`put`, until the caller has it back; then until all of them are on the disk."""
    alone, behind = SyncCache(), SyncCache(store=store)
    table = table_of("Write", ("what", "us", "best us", "put / it"), peer)
    for name, value in (("an int", NUMBER), ("1 KB", VALUE)):
        put = Contender(f"SyncCache.put, {name}", put_sample(behind, value))
        flushed = Contender(f"the same, and flush after {len(KEYS):,}", flushed_sample(behind, value))
        memory = Contender("SyncCache.put without a store", put_sample(alone, value))
        rows = [put, flushed, memory]
        if peer is not None:
            rows.append(Contender(f"diskcache.set, {name}", sync_sample(partial(set_loop, peer, value))))
        race(rows, rounds=ROUNDS, count=len(KEYS))
        us = put.median / 1e3
        table.add(put.name, us, put.best / 1e3, target=f"<= {PUT_US:.0f} us", reached=us <= PUT_US)
        for row in rows[1:]:
            cells = (row.name, row.median / 1e3, row.best / 1e3, put.over(row))
            if row.name.startswith("diskcache"):
                table.add(*cells, target="put is faster", reached=put.over(row) < 1)
            else:
                table.add(*cells)
    behind.close()
    return table


def hit_table(store: SqliteStore) -> Table:
    """A hit in the memory, with and without a store behind it."""

    def hits(cache: SyncCache) -> Callable[[int], int]:
        cache.put(KEY, NUMBER, ttl=TTL_S)

        def loop(n: int) -> None:
            for _ in repeat(None, n):
                cache.get(KEY, missed_in_thread)

        return sync_sample(loop)

    alone, behind = Contender("no store", hits(SyncCache())), Contender("a store behind", hits(SyncCache(store=store)))
    race([alone, behind], rounds=ROUNDS)
    table = Table("Hit in the memory", ("what", "ns", "best ns", "x no store"))
    table.add(alone.name, alone.median, alone.best, 1.0)
    over = behind.over(alone)
    table.add(behind.name, behind.median, behind.best, over, target=f"<= {HIT_X} x", reached=over <= HIT_X)
    return table


def room_table(folder: Path) -> Table:
    """What an entry of 1 KB takes, of files that are closed."""
    payload = len(json.dumps(VALUE, separators=(",", ":")))
    table = Table("Room on the disk", ("what", "B an entry", "B beside the JSON"))
    found = [
        ("cachemesh", ours_on_disk(folder / "room.db")),
        ("sqlite3: key, JSON", plain_on_disk(folder / "room2.db")),
    ]
    try:
        found.append(("diskcache", peer_on_disk(folder / "room3")))
    except ImportError:
        table.notes.append("not installed: diskcache")
    for name, size in found:
        each = size / len(KEYS)
        table.add(name, round(each), round(each - payload))
    return table


# What is measured


def plain_loop(plain: sqlite3.Connection, n: int) -> None:
    for key in KEYS[:n]:
        json.loads(plain.execute("SELECT value FROM entries WHERE key = ?", (key,)).fetchone()[0])


def read_loop(store: SqliteStore, n: int) -> None:
    for key in KEYS[:n]:
        store.read_now(GLOBAL_OWNER, key)


def get_loop(store: SqliteStore, n: int) -> None:
    cache = SyncCache(store=store)
    for key in KEYS[:n]:
        cache.get(key, missed_in_thread)


def peer_loop(peer: Any, n: int) -> None:  # noqa: ANN401  (an optional package)
    for key in KEYS[:n]:
        peer.get(key)


def set_loop(peer: Any, value: object, n: int) -> None:  # noqa: ANN401  (as above)
    for key in KEYS[:n]:
        peer.set(key, value, expire=TTL_S)


def put_sample(cache: SyncCache, value: object) -> Callable[[int], int]:
    """What is still to be written is waited for between the samples."""
    timed = sync_sample(lambda n: put_loop(cache, value, n))

    def sample(n: int) -> int:
        took = timed(n)
        cache.flush()
        return took

    return sample


def flushed_sample(cache: SyncCache, value: object) -> Callable[[int], int]:
    def loop(n: int) -> None:
        put_loop(cache, value, n)
        assert cache.flush() == Success(None)

    return sync_sample(loop)


def put_loop(cache: SyncCache, value: object, n: int) -> None:
    for key in KEYS[:n]:
        cache.put(key, value, ttl=TTL_S)


async def missed() -> Result[object, str]:
    return missed_in_thread()


def missed_in_thread() -> Result[object, str]:
    msg = "the file has every key"
    raise AssertionError(msg)


# What it is measured on


@contextmanager
def files(folder: Path) -> Iterator[tuple[SqliteStore, sqlite3.Connection, Any]]:
    """The same entries in three files: ours, a plain one, diskcache's (None where it is not installed)."""
    store = SqliteStore(folder / "cache.db")
    filler = SyncCache(store=store)
    put_loop(filler, VALUE, len(KEYS))
    assert filler.flush() == Success(None)
    assert SyncCache(store=store).get(KEYS[0], lambda: Failure("missed")) == Success(VALUE)
    plain = plain_file(folder / "plain.db")
    try:
        peer: Any = peer_in(folder / "diskcache")
    except ImportError:
        peer = None
    try:
        yield store, plain, peer
    finally:
        filler.close()
        plain.close()
        if peer is not None:
            peer.close()


def plain_file(path: Path) -> sqlite3.Connection:
    plain = sqlite3.connect(path)
    plain.execute("CREATE TABLE entries (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
    plain.executemany("INSERT INTO entries VALUES (?, ?)", ((key, json.dumps(VALUE)) for key in KEYS))
    plain.commit()
    return plain


def peer_in(folder: Path) -> Any:  # noqa: ANN401  (an optional package)
    peer = importlib.import_module("diskcache").Cache(folder)
    set_loop(peer, VALUE, len(KEYS))
    return peer


def ours_on_disk(path: Path) -> int:
    with SyncCache(store=SqliteStore(path)) as cache:
        put_loop(cache, VALUE, len(KEYS))
    return path.stat().st_size


def plain_on_disk(path: Path) -> int:
    plain_file(path).close()
    return path.stat().st_size


def peer_on_disk(folder: Path) -> int:
    peer_in(folder).close()
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())


def table_of(title: str, columns: tuple[str, ...], peer: Any) -> Table:  # noqa: ANN401  (as above)
    return Table(title, columns, notes=["not installed: diskcache"] if peer is None else [])
