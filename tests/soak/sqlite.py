"""The long variants of what `SqliteStore` promises: `make soak`."""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
import time
from typing import TYPE_CHECKING

import pytest

from cachemesh.core.scopes import GLOBAL_OWNER
from cachemesh.stores.sqlite import SqliteStore
from cachemesh.testing import StoreContract
from tests.stores.sqlite_children import Kills, answers, begin, clean, integrity
from tests.stores.sqlite_files import Trouble, entry, using, value
from tests.stores.test_sqlite_damage import fill, flipped

if TYPE_CHECKING:
    from pathlib import Path

    from cachemesh.shell.ports import Store


def test_st2_two_hundred_kills(tmp_path: Path) -> None:
    kills = Kills()
    for seed in range(100):
        # A file that has been through ten kills, and then the next one.
        kills.add(tmp_path / f"{seed // 10}.db", seed)
    print(kills)  # noqa: T201 (the figures are what it is run for)
    assert kills.kills == 200
    assert (kills.corrupt, kills.torn, kills.lost) == (0, 0, 0)
    assert [each for number in range(10) for each in clean(tmp_path / f"{number}.db")] == []


def test_st6_ten_thousand_bits_that_flip(tmp_path: Path) -> None:
    path = tmp_path / "whole" / "x.db"
    using(path, fill)
    whole = path.read_bytes()
    began = time.monotonic()
    assert flipped(tmp_path, whole, seed=10_000, times=10_000) == []
    print(f"{time.monotonic() - began:.0f} s")  # noqa: T201 (as above)


def test_st8_eight_processes_with_ten_thousand_operations_each(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    children = [begin("mix", path, seed, 10_000) for seed in range(8)]
    assert answers(children, 1_800.0) == [{"wrong": 0, "reports": 0}] * 8
    assert integrity(path) == "ok"


def test_st8_thirty_two_processes_open_a_new_file_at_once(tmp_path: Path) -> None:
    for number in range(3):
        path = tmp_path / str(number) / "x.db"
        children = [begin("open_first", path, time.time() + 12.0) for _ in range(32)]
        assert answers(children) == [0] * 32
        assert integrity(path) == "ok"


def test_sf14_eight_processes_and_two_hundred_keys(tmp_path: Path) -> None:
    starts_at = time.time() + 5.0
    children = [begin("fetch_rounds", tmp_path / "x.db", 200, starts_at) for _ in range(8)]
    fetches = answers(children)
    assert [sum(each) for each in zip(*fetches, strict=True)] == [1] * 200


def test_st14_a_stall_of_200_ms_in_each_call_of_sqlite(tmp_path: Path) -> None:
    trouble = Trouble()

    async def act(store: SqliteStore) -> None:
        await store.write(entry())
        await store.flush()
        trouble.stall_s = 0.2
        lags: list[float] = []

        async def beat() -> None:
            while True:
                began = time.perf_counter()
                await asyncio.sleep(0.001)
                lags.append(time.perf_counter() - began - 0.001)

        heart = asyncio.ensure_future(beat())
        for number in range(20):
            await store.write(entry(str(number)))
            assert await value(store) == b"1"
            await store.claim(GLOBAL_OWNER, str(number), waits=False)
        heart.cancel()
        trouble.stall_s = 0.0
        lags.sort()
        assert lags[int(len(lags) * 0.99)] < 0.01

    using(tmp_path / "x.db", act, connect=trouble.connect)


def test_st4_the_disk_comes_and_goes(tmp_path: Path) -> None:
    """A minute of writing while every other second nothing can be written: no old value is ever read."""
    chance = random.Random(4)
    trouble = Trouble()

    def raises(statement: str) -> Exception | None:
        is_full = int(time.monotonic()) % 2 and statement.startswith(("INSERT", "DELETE", "UPDATE", "COMMIT"))
        return sqlite3.OperationalError("database or disk is full") if is_full else None

    async def act(store: SqliteStore) -> None:
        trouble.raises = raises
        last: dict[str, int] = {}
        ends_at = time.monotonic() + 60.0
        for number in itertools.count():
            key = f"k{chance.randrange(200)}"
            await store.write(entry(key, number))
            last[key] = number
            other = chance.choice(list(last))
            assert await value(store, other) in {None, repr(last[other]).encode()}
            if time.monotonic() >= ends_at:
                break
        trouble.raises = lambda statement: None  # noqa: ARG005 (there is room again)
        await asyncio.sleep(1.5)
        for key, number in last.items():
            assert await value(store, key) in {None, repr(number).encode()}

    using(tmp_path / "x.db", act, connect=trouble.connect)


class TestContract(StoreContract):
    """Scenario ST-1, for a night."""

    examples = 10_000
    steps = 100
    keeps_bytes = True
    numbers = itertools.count()

    @pytest.fixture(autouse=True)
    def _in(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make_store(self) -> Store:
        return SqliteStore(self.folder / f"{next(self.numbers)}.db")

    async def close_store(self, store: Store) -> None:
        assert isinstance(store, SqliteStore)
        await store.aclose()
        for path in list_of(self.folder):
            path.unlink()


def list_of(folder: Path) -> list[Path]:
    return list(folder.iterdir())
