"""What `SqliteStore` does with a file that is damaged, forged, or somebody else's."""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from cachemesh.core.scopes import GLOBAL_OWNER
from cachemesh.stores.report import Level
from cachemesh.stores.sqlite import SqliteStore
from cachemesh.stores.sqlite import file as files
from cachemesh.stores.sqlite.schema import VERSION
from tests.stores.sqlite_files import ALICE, BOB, entry, payload, using, value

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEYS = [f"k{number}" for number in range(60)]


def right(key: str) -> str:
    return f"{key} is right {'x' * 300}"


async def fill(store: SqliteStore) -> None:
    for key in KEYS:
        await store.write(entry(key, right(key), tags=("t",) if key.endswith("7") else ()))
    await store.write(entry("gone"))
    await store.delete(GLOBAL_OWNER, "gone")
    await store.write(entry("marked", tags=("m",)))
    await store.mark_tag(None, "m", None)
    await store.write(entry(owner=ALICE))
    await store.clear_partition(ALICE)
    await store.flush()


async def wrong_values(store: SqliteStore) -> list[str]:
    """The keys under which something wrong is read."""
    found = await store.read_many([(GLOBAL_OWNER, key) for key in KEYS])
    wrong = [
        key
        for key, each in zip(KEYS, found, strict=True)
        if each is not None and (payload(each) != repr(right(key)).encode() or each.key != key)
    ]
    wrong += [key for key in ("gone", "marked") if await value(store, key) is not None]
    wrong += ["alice's"] if await value(store, owner=ALICE) is not None else []
    return wrong


async def use(store: SqliteStore) -> list[str]:
    """Read and write; afterwards what was written is there."""
    wrong = await wrong_values(store)
    for number in range(5):
        await store.write(entry(f"new{number}", number))
    await asyncio.sleep(0)
    for number in range(5):
        found = await value(store, f"new{number}")
        wrong += [] if found in {None, repr(number).encode()} else [f"new{number}"]
    return wrong + await wrong_values(store)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file as it is after it was closed."""
    path = tmp_path_factory.mktemp("whole") / "x.db"
    using(path, fill)
    return path.read_bytes()


def test_the_file_is_right_to_begin_with(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(whole)

    async def act(store: SqliteStore) -> int:
        assert await wrong_values(store) == []
        return sum(each is not None for each in await store.read_many([(GLOBAL_OWNER, key) for key in KEYS]))

    assert using(path, act) == len(KEYS)


def garbage(whole: bytes) -> bytes:
    return b"this is no database" + whole[19:]


def truncated(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def in_a_page(whole: bytes) -> bytes:
    return whole[: 3 * 4096 + 100]


def zeros(whole: bytes) -> bytes:
    return whole[:4096] + bytes(4096) + whole[8192:]


def all_zero(whole: bytes) -> bytes:
    return bytes(len(whole))


def text(whole: bytes) -> bytes:
    del whole
    return b"Some text that somebody has put here.\n" * 100


@pytest.mark.parametrize("damage", [garbage, truncated, in_a_page, zeros, all_zero, text])
def test_st6_b42_a_damaged_file_is_moved_away_and_a_new_one_begins(
    tmp_path: Path, whole: bytes, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(damage(whole))
    caplog.set_level(logging.WARNING)

    async def act(store: SqliteStore) -> None:
        assert await wrong_values(store) == []
        began = time.monotonic()
        # What was damaged is noticed when it is met; then the store is as good as new.
        while True:
            await store.write(entry("after", 1))
            await wrong_values(store)
            if await value(store, "after") == b"1" and not any(
                each.level is Level.ERROR for each in await store.doctor() if each.subject == "integrity"
            ):
                break
            database = store._engine.database
            if database is not None:
                store._engine.failed(sqlite3.DatabaseError("found by the doctor"), database)
                store._engine.ask("mend", None)
            assert time.monotonic() - began < 1.0
        await store.flush()
        assert await value(store, "after") == b"1"

    using(path, act)
    moved = [
        each for each in tmp_path.iterdir() if ".corrupt-" in each.name and not each.name.endswith(("-wal", "-shm"))
    ]
    assert len(moved) == 1
    assert caplog.text.count("a new one") >= 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_st6_no_bit_that_flips_makes_a_wrong_value(tmp_path: Path, whole: bytes) -> None:
    """200 of them here, 10,000 in the soak."""
    assert flipped(tmp_path, whole, seed=6, times=200) == []


def flipped(folder: Path, whole: bytes, *, seed: int, times: int) -> list[tuple[int, Any]]:
    """The bits that have done harm when they were flipped, each in a file of its own."""
    chance = random.Random(seed)
    logging.getLogger("cachemesh.stores.sqlite").setLevel(logging.CRITICAL)
    harmful: list[tuple[int, Any]] = []
    try:
        for number in range(times):
            path = folder / f"{number % 2}.db"
            for each in folder.iterdir():
                if each.name.startswith(path.name):
                    each.unlink()
            # Every other one in the first pages, where the tables of everything are.
            at = chance.randrange(8 * (len(whole) if number % 2 else 12 * 4096))
            damaged = bytearray(whole)
            damaged[at // 8] ^= 1 << at % 8
            path.write_bytes(damaged)
            try:
                wrong = using(path, use)
            except Exception as error:  # noqa: BLE001 (shown by the caller)
                harmful.append((at, error))
            else:
                if wrong:
                    harmful.append((at, wrong))
    finally:
        logging.getLogger("cachemesh.stores.sqlite").setLevel(logging.NOTSET)
    return harmful


def test_st6_a_file_that_is_damaged_while_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "x.db"

    async def act(store: SqliteStore) -> None:
        await fill(store)
        await store.aclose()  # What is in the log alone would be taken from there.
        await wrong_values(store)
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(random.Random(1).randbytes(path.stat().st_size - 4096))
        began = time.monotonic()
        while await value(store, "new") is None:
            assert await wrong_values(store) == []
            await store.write(entry("new"))
            await asyncio.sleep(0.01)
            assert time.monotonic() - began < 5.0
        await store.write(entry("new"))
        with pytest.raises(Exception, match="could not be kept") if store._engine.degraded else no_error():
            await store.flush()
        assert await use(store) == []

    using(path, act)


class no_error:  # noqa: N801 (reads like `nullcontext`)
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_only_the_last_damaged_files_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    for _ in range(5):
        path.write_bytes(b"no database at all" * 100)
        assert using(path, value) is None
    assert len(files.quarantined(path)) == files.MOST_QUARANTINED

    async def act(store: SqliteStore) -> list[Level]:
        return [each.level for each in await store.doctor() if each.subject == "quarantine"]

    assert using(path, act) == [Level.NOTE]


# Records


def with_rows(path: Path, act: Callable[[sqlite3.Connection], object]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        act(connection)
        connection.commit()


def test_st7_every_bit_of_a_record_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    using(path, lambda store: store.write(entry()))
    chance = random.Random(7)

    async def act(store: SqliteStore) -> None:
        for _ in range(100):
            await store.write(entry())
            await store.flush()
            assert await value(store) == b"1"

            def flip(connection: sqlite3.Connection) -> None:
                (envelope,) = connection.execute("SELECT envelope FROM entries").fetchone()
                at = chance.randrange(8 * len(envelope))
                damaged = bytearray(envelope)
                damaged[at // 8] ^= 1 << at % 8
                connection.execute("UPDATE entries SET envelope = ?", (bytes(damaged),))

            with_rows(path, flip)
            assert store.read_now(GLOBAL_OWNER, "k") is None
            assert await value(store) is None

    using(path, act)


@pytest.mark.parametrize("column", ["generation", "envelope", "n"])
@pytest.mark.parametrize("wrong", ["2000000000000000000", "-1", "NULL", "'text'", "x'00'", "1.5"])
def test_st7_a_record_of_other_types_is_a_miss_and_can_be_written_again(
    tmp_path: Path, column: str, wrong: str
) -> None:
    path = tmp_path / "x.db"
    using(path, lambda store: store.write(entry()))

    def spoil(connection: sqlite3.Connection) -> None:
        connection.execute(f"UPDATE entries SET {column} = {wrong}")  # noqa: S608 (our own words)

    if wrong == "NULL" or (column == "n" and wrong not in {"-1", "2000000000000000000"}):
        with pytest.raises(sqlite3.IntegrityError):
            with_rows(path, spoil)
        return
    with_rows(path, spoil)

    async def act(store: SqliteStore) -> None:
        assert store.read_now(GLOBAL_OWNER, "k") is None or column == "n"
        await store.read_many([(GLOBAL_OWNER, "k")] * 10)
        await asyncio.sleep(0.05)
        claim = await store.claim(GLOBAL_OWNER, "k", waits=False)
        if not await store.commit(entry(value="again"), claim):
            claim = await store.claim(GLOBAL_OWNER, "k", waits=False)
            assert await store.commit(entry(value="again"), claim)
        assert await value(store) == b"'again'"

    using(path, act)


def test_sc10_two_users_records_swapped_by_hand_are_misses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "x.db"

    async def both(store: SqliteStore) -> None:
        for owner in (ALICE, BOB):
            for key in ("k", "l"):
                await store.write(entry(key, f"{owner[1]}'s {key}", owner=owner))

    using(path, both)

    def swap(connection: sqlite3.Connection) -> None:
        rows = connection.execute("SELECT n, envelope, generation FROM entries ORDER BY n").fetchall()
        for (n, _, _), (_, envelope, generation) in zip(rows, [*rows[2:], *rows[:2]], strict=True):
            connection.execute("UPDATE entries SET envelope = ?, generation = ? WHERE n = ?", (envelope, generation, n))

    with_rows(path, swap)
    caplog.set_level(logging.WARNING)

    async def act(store: SqliteStore) -> None:
        for owner in (ALICE, BOB):
            for key in ("k", "l"):
                assert store.read_now(owner, key) is None
            assert list(await store.read_many([(owner, "k"), (owner, "l")] * 5)) == [None] * 10
            assert list(await store.keys(owner)) == []

    using(path, act)
    assert "of another key or owner" in caplog.text
    assert "alice" not in caplog.text


def test_se2_nothing_that_lies_in_the_file_is_executed(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    sign = tmp_path / "executed"
    using(path, lambda store: store.write(entry()))
    pickled = b"cposix\nsystem\n(S'touch " + str(sign).encode() + b"'\ntR."

    def plant(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE entries SET envelope = ?", (pickled,))

    with_rows(path, plant)
    assert using(path, value) is None
    assert not sign.exists()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON entries BEGIN UPDATE entries SET envelope = x'00'; END",
        "CREATE VIEW v AS SELECT * FROM entries",
        "DROP INDEX places",
        "DROP TABLE marks",
        "ALTER TABLE entries ADD COLUMN more",
        "DELETE FROM meta",
        "UPDATE meta SET last_mark = last_mark + 1",
        "UPDATE meta SET state = x'0000'",
    ],
)
def test_se2_a_file_whose_tables_are_not_ours_is_moved_away(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "x.db"
    using(path, lambda store: store.write(entry()))
    with_rows(path, lambda connection: connection.execute(statement))

    async def act(store: SqliteStore) -> None:
        assert await value(store) is None
        await store.write(entry(value=2))
        await store.flush()
        assert await value(store) == b"2"

    using(path, act)
    assert len(files.quarantined(path)) == 1


# Versions


@pytest.mark.parametrize("foreign", ["another version", "another program"])
def test_st11_a_file_that_is_not_ours_is_left_alone_and_ours_lies_beside_it(tmp_path: Path, foreign: str) -> None:
    path = tmp_path / "x.db"

    def make(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE precious (thing TEXT)")
        connection.execute("INSERT INTO precious VALUES ('still here')")
        if foreign == "another version":
            connection.execute("PRAGMA application_id=0x434D5348")
            connection.execute(f"PRAGMA user_version={VERSION + 1}")

    with_rows(path, make)

    async def act(store: SqliteStore) -> list[Level]:
        assert await value(store) is None
        await store.write(entry())
        await store.flush()
        return [each.level for each in await store.doctor() if each.subject == "file"]

    assert using(path, act) == [Level.WARNING]
    assert using(path, value) == b"1"
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT thing FROM precious").fetchone() == ("still here",)
    connection.close()
    assert files.quarantined(path) == []


def test_st11_two_versions_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a file of its own; neither sees an error, nor what the other one wrote."""
    path = tmp_path / "x.db"

    async def act() -> None:
        newer, older = SqliteStore(path), SqliteStore(path)
        monkeypatch.setattr(files, "VERSION", VERSION + 1)
        await newer.write(entry(value="newer"))
        await newer.flush()
        monkeypatch.setattr(files, "VERSION", VERSION)
        for number in range(100):
            await older.write(entry(value=number))
            await newer.write(entry(value=-number))
            assert await value(older) == repr(number).encode()
            assert await value(newer) == repr(-number).encode()
        await older.flush()
        await newer.flush()
        assert [store._engine.complaints.total for store in (newer, older)] == [0, 1]
        await newer.aclose()
        await older.aclose()

    asyncio.run(act())
