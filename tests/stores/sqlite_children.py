"""What the processes do that share a file in tests: `python -m tests.stores.sqlite_children ROLE PATH ...`."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from cachemesh.core.scopes import GLOBAL_OWNER, CacheScope
from cachemesh.stores.sqlite import SqliteStore
from tests.stores.sqlite_files import entry, payload, using

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachemesh.shell.ports import StoredEntry

ROOT: Final = Path(__file__).resolve().parent.parent.parent
RINGS: Final = 50


# The children


async def write_until_killed(path: str, name: str, padding: str) -> None:
    """Write a pair and one of a ring of keys, flush, and tell that it is done; again and again."""
    mock.patch("cachemesh.stores.sqlite.engine.MOST_WAL_BYTES", 300_000).start()  # So that kills meet checkpoints.
    store = SqliteStore(path)
    number = 0
    while True:
        number += 1
        for key in ("a", "b", str(number % RINGS)):
            await store.write(entry(f"{name} {key}", {"number": number, "padding": "x" * (number * 7 % int(padding))}))
        if number % 3 == 0:
            await store.delete(GLOBAL_OWNER, f"{name} gone")
        else:
            await store.write(entry(f"{name} gone", number))
        await store.flush()
        tell(number)


async def mix(path: str, seed: str, operations: str) -> None:
    """Whatever a process may do, in random order; what it reads must be what somebody wrote there."""
    chance = random.Random(seed)
    store = SqliteStore(path, max_entries=500)
    wrong = 0
    owners = (GLOBAL_OWNER, *((CacheScope.USER, f"u{number}") for number in range(5)))
    for number in range(int(operations)):
        owner, key = chance.choice(owners), f"k{chance.randrange(50)}"
        match chance.randrange(12):
            case 0 | 1 | 2:
                await store.write(entry(key, (owner[1], key, "x" * chance.randrange(2_000)), owner=owner, tags=("t",)))
            case 3:
                await store.delete(owner, key)
            case 4:
                claim = await store.claim(owner, key, waits=False)
                await store.commit(entry(key, (owner[1], key, "c"), owner=owner), claim)
            case 5 if number % 10 == 0:
                await store.mark_tag(owner, "t", None)
            case 6 if number % 50 == 0:
                await store.clear_partition(owner)
            case 7 if number % 100 == 0:
                await store.aclose()
            case 8:
                await store.flush()
            case _:
                found = await store.read(owner, key)
                if found is not None:
                    said = (payload(found) or b"").decode()
                    wrong += not said.startswith(repr((owner[1], key))[:-1])
    await store.flush()
    await store.aclose()
    tell({"wrong": wrong, "reports": store._engine.complaints.total})


async def fetch_rounds(path: str, rounds: str, starts_at: str) -> None:
    """In each round all processes ask for one key; how often this one has fetched."""
    store = SqliteStore(path, lease=5.0)
    await store.flush()
    fetches: list[int] = []
    for number in range(int(rounds)):
        await asyncio.sleep(max(0.0, float(starts_at) + number * 0.1 - time.time()))
        found, fetched = await get(store, f"round{number}")
        assert payload(found) == repr(number).encode(), found
        fetches.append(fetched)
    await store.aclose()
    tell(fetches)


def tell(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def get(store: SqliteStore, key: str) -> tuple[StoredEntry | None, int]:
    found = await store.read(GLOBAL_OWNER, key)
    if found is not None:
        return found, 0
    claim = await store.claim(GLOBAL_OWNER, key, waits=True)
    if claim.found is not None:
        return claim.found, 0
    await asyncio.sleep(0.01)
    fetched = entry(key, int(key.removeprefix("round")))
    assert await store.commit(fetched, claim)
    return fetched, 1


async def hold(path: str, lease: str) -> None:
    """Claim, and never come back."""
    store = SqliteStore(path, lease=float(lease))
    claim = await store.claim(GLOBAL_OWNER, "k", waits=True)
    tell(bool(claim.token))
    await asyncio.sleep(60)


async def open_first(path: str, starts_at: str) -> None:
    """Open, write, read, all at the same instant as the others."""
    await asyncio.sleep(max(0.0, float(starts_at) - time.time()))
    store = SqliteStore(path)
    key = str(os.getpid())
    await store.write(entry(key))
    await store.flush()
    await store.aclose()
    assert payload(await store.read(GLOBAL_OWNER, key)) == b"1"
    tell(store._engine.complaints.total)


ROLES: Final = {each.__name__: each for each in (write_until_killed, mix, fetch_rounds, hold, open_first)}


# Their parents


def begin(role: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.stores.sqlite_children", role, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # noqa: S603 (our own program)


def answers(children: list[subprocess.Popen[str]], wait_s: float = 120.0) -> list[Any]:
    """What the children print, each without a word on stderr."""
    found = []
    for child in children:
        out, err = child.communicate(timeout=wait_s)
        assert (child.returncode, err) == (0, "")
        found.append(json.loads(out))
    return found


def integrity(path: Path) -> str:
    connection = sqlite3.connect(path)
    (answer,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    return str(answer)


class Kills:
    """What was found after children were killed while they wrote."""

    def __init__(self) -> None:
        self.kills = self.acknowledged = self.corrupt = self.torn = self.lost = 0

    def __repr__(self) -> str:
        return (
            f"{self.kills} kills, {self.acknowledged} acknowledged flushes:"
            f" {self.corrupt} corrupt, {self.torn} torn, {self.lost} lost"
        )

    def add(self, path: Path, seed: int) -> None:
        """Two processes write to the file at `path`; kill one of them, and then the other one."""
        chance = random.Random(seed)
        names = [f"{seed}.{number}" for number in range(2)]
        children = [begin("write_until_killed", path, name, chance.choice((50, 3_000, 20_000))) for name in names]
        acknowledged = []
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        for child in children:
            time.sleep(chance.uniform(0.0, 0.15))
            child.send_signal(signal.SIGKILL)
            out, err = child.communicate(timeout=30)
            assert err == ""
            acknowledged.append(int(([*out.split("\n")[:-1]] or ["1"])[-1]))
            self.kills += 1
        self.acknowledged += sum(acknowledged)
        self.corrupt += integrity(path) != "ok"
        for name, last in zip(names, acknowledged, strict=True):
            using(path, partial(self._look, name=name, last=last))

    async def _look(self, store: SqliteStore, name: str, last: int) -> None:
        a, b = [await number_of(store, f"{name} {key}") for key in ("a", "b")]
        # They are written in this order, and taken into transactions together.
        self.torn += not (a == b or a == b + 1)
        self.lost += a < last or b < last
        for slot in range(RINGS):
            expected = last - (last - slot) % RINGS
            found = await number_of(store, f"{name} {slot}")
            self.lost += expected >= 1 and found < expected
            self.torn += found >= 1 and found % RINGS != slot


async def number_of(store: SqliteStore, key: str) -> int:
    """The number in a value of `write_until_killed`, which must be whole; 0 where there is none."""
    found = payload(await store.read(GLOBAL_OWNER, key))
    if found is None:
        return 0
    text = found.decode()
    number = int(text.removeprefix("{'number': ").partition(",")[0])
    padding = text.partition("'padding': '")[2].removesuffix("'}")
    return number if set(padding) <= {"x"} and text.endswith("'}") else -1


def clean(path: Path) -> Iterator[str]:
    """What lies beside the file that should not."""
    for each in path.parent.iterdir():
        if ".corrupt-" in each.name:
            yield each.name


if __name__ == "__main__":
    asyncio.run(ROLES[sys.argv[1]](*sys.argv[2:]))
