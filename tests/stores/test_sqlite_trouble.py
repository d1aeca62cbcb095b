"""What `SqliteStore` does when the disk is full, slow, read-only, gone, or cannot be read."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import shutil
import signal
import sqlite3
import threading
import time
from typing import TYPE_CHECKING

import pytest
from returns.result import Result, Success

from cachemesh import SyncCache
from cachemesh.core.scopes import GLOBAL_OWNER
from cachemesh.shell.ports import Change
from cachemesh.stores.report import Level
from cachemesh.stores.sqlite import NotFlushedError, SqliteStore
from cachemesh.stores.sqlite import file as files
from tests.stores.sqlite_files import Trouble, entry, failure, payload, until, using, value, writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def trouble() -> Trouble:
    return Trouble()


# The disk is full


@pytest.mark.parametrize("error", ["SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM"])
def test_st4_what_cannot_be_written_is_not_read_and_it_recovers_by_itself(
    tmp_path: Path, trouble: Trouble, error: str
) -> None:
    async def act(store: SqliteStore) -> None:
        for key in ("k", "deleted", "committed", "kept"):
            await store.write(entry(key, "old"))
        claim = await store.claim(GLOBAL_OWNER, "committed", waits=True)
        await store.flush()
        trouble.raises = lambda statement: failure(error) if writing(statement) else None
        await store.write(entry(value="new"))
        await store.delete(GLOBAL_OWNER, "deleted")
        assert await store.commit(entry("committed", "new"), claim) is None
        with pytest.raises(NotFlushedError):
            await store.flush()
        # The old copies are there, and cannot be overwritten: nobody may see them.
        assert [await value(store, key) for key in ("k", "deleted", "committed")] == [None] * 3
        assert await value(store, "kept") == b"'old'"
        assert sorted(await store.keys(GLOBAL_OWNER)) == ["kept"]
        refused = await store.claim(GLOBAL_OWNER, "k", waits=True)
        assert await store.commit(entry(value="refused"), refused) is None
        trouble.raises = lambda statement: None  # noqa: ARG005 (there is room again)
        took_s = await until(lambda: store._engine.queue.doubts == 0)
        assert took_s <= 1.2
        assert [await value(store, key) for key in ("k", "deleted", "committed")] == [None] * 3
        await store.write(entry(value="newer"))
        with pytest.raises(NotFlushedError):
            await store.flush()  # Once more: what was written meanwhile is lost.
        await store.flush()
        assert await value(store) == b"'newer'"

    using(tmp_path / "x.db", act, connect=trouble.connect)
    assert using(tmp_path / "x.db", value) == b"'newer'"


@pytest.mark.parametrize("order", ["clear", "clear_partition", "mark_tag", "soft"])
def test_st4_what_could_not_be_cleared_is_cleared_later(tmp_path: Path, trouble: Trouble, order: str) -> None:
    async def act(store: SqliteStore) -> None:
        await store.write(entry(tags=("t",)))
        await store.flush()
        trouble.raises = lambda statement: failure("SQLITE_FULL") if writing(statement) else None
        if order == "clear":
            await store.clear()
        elif order == "clear_partition":
            await store.clear_partition(GLOBAL_OWNER)
        else:
            await store.mark_tag(None, "t", 5.0 if order == "soft" else None)
        for _ in range(2):
            found = await store.read(GLOBAL_OWNER, "k")
            assert found is None if order != "soft" else found is not None and found.expires_at == 5.0
            with pytest.raises(NotFlushedError):
                await store.flush()
        trouble.raises = lambda statement: None  # noqa: ARG005 (there is room again)
        await until(lambda: store._engine.queue.doubts == 0)

    using(tmp_path / "x.db", act, connect=trouble.connect)
    found = using(tmp_path / "x.db", lambda store: store.read(GLOBAL_OWNER, "k"))
    assert found is None if order != "soft" else found is not None and found.expires_at == 5.0


def test_st4_memory_stays_bounded_while_nothing_can_be_written(
    tmp_path: Path, trouble: Trouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachemesh.stores.sqlite.queue.MOST_DOUBTS", 50)

    async def act(store: SqliteStore) -> None:
        await store.write(entry("untouched"))
        await store.flush()
        trouble.raises = lambda statement: failure("SQLITE_FULL") if writing(statement) else None
        for number in range(500):
            await store.write(entry(str(number)))
        with pytest.raises(NotFlushedError):
            await store.flush()
        assert len(store._engine.queue.overlay) <= 50
        # Which ones were to go is not known any more: all of them.
        assert await value(store, "untouched") is None
        trouble.raises = lambda statement: None  # noqa: ARG005 (there is room again)
        await until(lambda: store._engine.queue.doubts == 0)
        await store.write(entry("k"))
        assert await value(store, "k") == b"1"
        assert await value(store, "untouched") is None

    using(tmp_path / "x.db", act, connect=trouble.connect)


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Sets how large a file may become: a full disk, as the system sees it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_st4_a_disk_that_is_really_full(tmp_path: Path, small_files: Callable[[int], None]) -> None:
    async def act(store: SqliteStore) -> None:
        await store.write(entry())
        await store.flush()
        small_files(200_000)
        for number in range(200):
            await store.write(entry(f"large{number}", "x" * 10_000))
        with pytest.raises(NotFlushedError):
            await store.flush()
        assert await value(store) == b"1"
        small_files(resource.RLIM_INFINITY if resource.getrlimit(resource.RLIMIT_FSIZE)[1] < 0 else 2**40)
        assert await until(lambda: store._engine.degraded is None) <= 1.2
        await store.write(entry("after"))
        assert await value(store, "after") == b"1"
        assert await value(store) == b"1"

    using(tmp_path / "x.db", act)
    assert using(tmp_path / "x.db", lambda store: value(store, "after")) == b"1"


# Every call may fail


async def fill(store: SqliteStore) -> None:
    for key in "abcde":
        await store.write(entry(key, "old"))
    await store.flush()


async def change_all(store: SqliteStore) -> None:
    """Nothing in here raises, and nothing is read that was overwritten or removed."""
    for key in ("a", "b"):
        await store.write(entry(key, "new"))
    await store.delete(GLOBAL_OWNER, "c")
    await store.mark_tag(None, "t", None)
    claim = await store.claim(GLOBAL_OWNER, "d", waits=True)
    await store.commit(entry("d", "new"), claim)
    for key in ("a", "b", "c", "d"):
        assert await value(store, key) in ({None} if key == "c" else {None, b"'new'"})
    assert set(await store.keys(GLOBAL_OWNER)) <= {"a", "b", "d", "e"}
    assert payload(store.read_now(GLOBAL_OWNER, "a")) in {None, b"'new'"}
    assert payload(store.read_now(GLOBAL_OWNER, "e")) in {None, b"'old'"}


@pytest.mark.parametrize("error", ["SQLITE_IOERR", "SQLITE_FULL", "EMFILE", "EROFS"])
def test_st5_whichever_call_fails_no_read_and_no_write_raises(tmp_path: Path, error: str) -> None:
    """The nth call of SQLite fails, for n from 1 until it all comes through (with other errors, each third n)."""
    step = 1 if error == "SQLITE_IOERR" else 3
    number = 1 - step
    is_through = False
    while not is_through:
        number += step
        path = tmp_path / str(number) / "x.db"
        using(path, fill)
        trouble = Trouble()

        def raises(statement: str, number: int = number, trouble: Trouble = trouble) -> Exception | None:
            del statement
            if trouble.calls != number:
                return None
            return failure(error) if error.startswith("SQLITE") else OSError(getattr(errno, error), "no")

        trouble.raises = raises
        using(path, change_all, connect=trouble.connect)
        found = using(path, lambda store: asyncio.gather(*(value(store, key) for key in "abc")))
        assert b"'old'" not in found
        assert found[2] is None
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
        is_through = trouble.calls < number
    assert number > 30


# The file is not where it should be


def test_st13_a_folder_that_cannot_be_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")

    async def act(store: SqliteStore) -> None:
        for _ in range(20):
            await store.write(entry())
            assert await value(store) in {None, b"1"}
            assert store.read_now(GLOBAL_OWNER, "other") is None
        with pytest.raises(NotFlushedError):
            await store.flush()
        assert await value(store) is None
        assert list(await store.keys(GLOBAL_OWNER)) == []
        assert (await store.stats()).entries == 0
        assert [each.level for each in await store.doctor() if each.subject == "file"] == [Level.ERROR]

    using(tmp_path / "file" / "x.db", act)
    kinds = {(record.name, record.levelname) for record in caplog.records}
    assert kinds == {("cachemesh.stores.sqlite", "WARNING")}
    assert len(caplog.records) <= 3


def test_st13_a_file_that_cannot_be_used_leaves_the_memory_as_good_as_ever(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    fetched: list[int] = []

    def fetch() -> Result[int, str]:
        fetched.append(len(fetched))
        return Success(len(fetched))

    with SyncCache(store=SqliteStore(tmp_path / "file" / "x.db")) as cache:
        assert [cache.get("k", fetch) for _ in range(3)] == [Success(1)] * 3
        cache.flush()
        assert cache.get("k", fetch) == Success(1)
        assert cache.refresh("k", fetch) == Success(2)
        cache.flush()
        assert cache.get("k", fetch) == Success(2)


@pytest.mark.parametrize("path", ["a\0b", "x" * 300, "\ud800"])
def test_st13_a_path_that_names_no_file_costs_nothing_but_the_help(tmp_path: Path, path: str) -> None:
    async def act(store: SqliteStore) -> None:
        await store.write(entry())
        assert await value(store) in {None, b"1"}

    using(tmp_path / path, act)


def test_st13_a_folder_that_is_removed_and_a_file_that_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    other = tmp_path / "other"
    using(other / "x.db", lambda store: store.write(entry(value="theirs")))

    async def act(store: SqliteStore) -> None:
        await store.write(entry())
        await store.flush()
        shutil.rmtree(folder)
        await store.write(entry("late"))
        await store.flush()  # It has begun a new one.
        assert await value(store, "late") == b"1"
        assert await value(store) is None
        await asyncio.sleep(1.1)
        for path in folder.iterdir():
            path.unlink()
        shutil.copytree(other, folder, dirs_exist_ok=True)
        await asyncio.sleep(1.1)
        assert await value(store) == b"'theirs'"
        await store.write(entry("again"))
        await store.flush()

    using(folder / "x.db", act)
    assert using(folder / "x.db", lambda store: value(store, "again")) == b"1"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write wherever it likes")
def test_st13_a_folder_that_is_read_only(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    using(folder / "x.db", lambda store: store.write(entry()))
    folder.chmod(0o500)
    try:

        async def act(store: SqliteStore) -> None:
            await store.write(entry(value="new"))
            with pytest.raises(NotFlushedError):
                await store.flush()
            assert await value(store) is None

        using(folder / "x.db", act)
    finally:
        folder.chmod(0o700)


def test_st13_one_line_a_minute(tmp_path: Path, trouble: Trouble, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    async def act(store: SqliteStore) -> None:
        await store.write(entry())
        await store.flush()
        trouble.raises = lambda statement: failure("SQLITE_IOERR") if statement.startswith("SELECT") else None
        for _ in range(1_000):
            assert store.read_now(GLOBAL_OWNER, "k") is None
        trouble.raises = lambda statement: None  # noqa: ARG005 (it can be read again)
        assert await value(store) == b"1"

    using(tmp_path / "x.db", act, connect=trouble.connect)
    assert len(caplog.records) == 1


def test_reports_go_to_whoever_listens_and_may_be_badly_taken(
    tmp_path: Path, trouble: Trouble, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Exception] = []

    def listen(error: Exception) -> None:
        heard.append(error)
        raise RuntimeError

    async def act(store: SqliteStore) -> None:
        store.report = listen
        assert store.report is listen
        trouble.raises = lambda statement: failure("SQLITE_CANTOPEN") if statement == "CONNECT" else None
        assert store.read_now(GLOBAL_OWNER, "k") is None

    using(tmp_path / "x.db", act, connect=trouble.connect)
    assert [str(each) for each in heard] == ["the file cannot be opened: SQLITE_CANTOPEN"]
    assert "what a store reports was not taken" in caplog.text


# The disk is slow


def test_st14_the_event_loop_never_waits_for_the_disk(tmp_path: Path, trouble: Trouble) -> None:
    async def act(store: SqliteStore) -> None:
        await store.write(entry())
        await store.flush()
        trouble.stall_s = 0.03
        lags: list[float] = []

        async def beat() -> None:
            while True:
                began = time.perf_counter()
                await asyncio.sleep(0.001)
                lags.append(time.perf_counter() - began - 0.001)

        heart = asyncio.ensure_future(beat())
        for number in range(3):
            await store.write(entry(str(number)))
            assert await value(store) == b"1"
            await store.delete(GLOBAL_OWNER, str(number))
            claim = await store.claim(GLOBAL_OWNER, "c", waits=True)
            await store.commit(entry("c"), claim)
        await store.flush()
        heart.cancel()
        trouble.stall_s = 0.0
        lags.sort()
        assert lags[int(len(lags) * 0.99)] < 0.01

    using(tmp_path / "x.db", act, connect=trouble.connect)


def test_a_long_transaction_holds_up_no_read(tmp_path: Path, trouble: Trouble) -> None:
    is_writing, may_go_on = threading.Event(), threading.Event()

    def raises(statement: str) -> None:
        if statement.startswith("INSERT INTO entries"):
            is_writing.set()
            assert may_go_on.wait(10)

    async def act(store: SqliteStore) -> None:
        await store.write(entry())
        await store.flush()
        trouble.raises = raises
        await store.write(entry("slow"))
        assert await asyncio.to_thread(is_writing.wait, 10)
        assert await value(store) == b"1"
        assert await value(store, "slow") == b"1"
        assert payload(store.read_now(GLOBAL_OWNER, "k")) == b"1"
        assert store.enqueue(Change("delete", GLOBAL_OWNER, "k"))
        assert await value(store) is None
        may_go_on.set()
        await store.flush()

    using(tmp_path / "x.db", act, connect=trouble.connect)


# Journals


def test_st10_where_there_is_no_write_ahead_log_it_takes_a_rollback_journal(tmp_path: Path, trouble: Trouble) -> None:
    class Answers:
        """What SQLite says on a file system without shared memory: the mode stays as it was."""

        def fetchone(self) -> tuple[str]:
            return ("delete",)

    trouble.answers = lambda statement: Answers() if statement == "PRAGMA journal_mode=WAL" else None

    async def act(store: SqliteStore) -> None:
        await store.write(entry())
        await store.flush()
        assert await value(store) == b"1"
        assert (await store.stats()).details["journal_mode"] == "truncate"
        assert [each.level for each in await store.doctor() if each.subject == "journal"] == [Level.NOTE]

    using(tmp_path / "x.db", act, connect=trouble.connect)
    assert not (tmp_path / "x.db-wal").exists()


def test_st10_on_a_network_file_system_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "is_on_network", lambda path: True)  # noqa: ARG005 (wherever it is)

    async def act(store: SqliteStore) -> str:
        await store.write(entry())
        await store.flush()
        return str((await store.stats()).details["journal_mode"])

    assert using(tmp_path / "x.db", act) == "truncate"


def test_an_order_that_cannot_be_carried_out_takes_no_other_with_it(tmp_path: Path, trouble: Trouble) -> None:
    async def act(store: SqliteStore) -> None:
        await store.write(entry("large", "old"))
        await store.flush()
        for connection in (store._engine.opened().writer,):  # type: ignore[union-attr]
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 50_000)
        for number in range(20):
            await store.write(entry(str(number)))
        await store.write(entry("large", "x" * 100_000))
        with pytest.raises(NotFlushedError):
            await store.flush()
        assert [await value(store, str(number)) for number in range(20)] == [b"1"] * 20
        assert await value(store, "large") is None
        await until(lambda: store._engine.queue.doubts == 0)
        await store.write(entry("large", "new"))
        assert await value(store, "large") == b"'new'"

    using(tmp_path / "x.db", act, connect=trouble.connect)
