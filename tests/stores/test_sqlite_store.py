"""`SqliteStore` in one process: what reads see of what is queued, fences, leases, threads, loops, forks, files."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import weakref
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from returns.result import Failure, Result, Success

from cachemesh import SyncCache
from cachemesh.core.scopes import GLOBAL_OWNER, SESSION_OWNER, CacheScope, Owner
from cachemesh.shell.ports import Change, Claim, Encoded, StoredEntry
from cachemesh.stores.report import Level
from cachemesh.stores.sqlite import NotFlushedError, SqliteStore
from cachemesh.stores.sqlite import file as files
from cachemesh.stores.sqlite.mounts import is_on_network
from cachemesh.stores.sqlite.places import Places
from cachemesh.stores.sqlite.versions import has_wal_reset_bug
from tests.stores.sizes import tries
from tests.stores.sqlite_files import ALICE, BOB, NOW, Trouble, entry, payload, until, using, value

ROOT: Final = Path(__file__).resolve().parent.parent.parent


def ours() -> list[str]:
    """The threads of stores that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("cachemesh-sqlite")]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def count(path: Path) -> int:
    connection = sqlite3.connect(path)
    (number,) = connection.execute("SELECT count(*) FROM entries").fetchone()
    connection.close()
    assert isinstance(number, int)
    return number


# What reads see of what is queued


class Held:
    """A store whose worker stands still until it is let go on."""

    def __init__(self) -> None:
        self.trouble = Trouble()
        self.goes_on = threading.Event()
        self.is_held = threading.Event()

    def hold(self) -> None:
        def raises(statement: str) -> None:
            if statement == "BEGIN IMMEDIATE":
                self.is_held.set()
                assert self.goes_on.wait(10)

        self.trouble.raises = raises


@pytest.fixture
def held() -> Held:
    return Held()


def test_what_is_queued_is_read_at_once_and_in_order(tmp_path: Path, held: Held) -> None:
    async def act(store: SqliteStore) -> None:
        for key in ("k", "other", "tagged"):
            await store.write(entry(key, "old", tags=("t",) if key == "tagged" else ()))
        await store.flush()
        held.hold()
        assert store.enqueue(Change("write", entry=entry(value="new")))
        assert payload(store.read_now(GLOBAL_OWNER, "k")) == b"'new'"
        assert store.enqueue(Change("delete", GLOBAL_OWNER, "k"))
        assert store.read_now(GLOBAL_OWNER, "k") is None
        assert store.enqueue(Change("write", entry=entry(value="newer")))
        assert payload(store.read_now(GLOBAL_OWNER, "k")) == b"'newer'"
        assert store.enqueue(Change("mark_tag", None, tag="t", stale_at=NOW + 5.0))
        tagged = store.read_now(GLOBAL_OWNER, "tagged")
        assert tagged is not None
        assert tagged.expires_at == NOW + 5.0
        assert store.enqueue(Change("mark_tag", GLOBAL_OWNER, tag="t"))
        assert store.read_now(GLOBAL_OWNER, "tagged") is None
        assert store.enqueue(Change("clear_partition", GLOBAL_OWNER))
        assert [store.read_now(GLOBAL_OWNER, key) for key in ("k", "other", "tagged")] == [None] * 3
        assert store.enqueue(Change("write", entry=entry("tagged", "newest", tags=("t",))))
        for found in (store.read_now(GLOBAL_OWNER, "tagged"), await store.read(GLOBAL_OWNER, "tagged")):
            assert payload(found) == b"'newest'"
        many = await store.read_many([(GLOBAL_OWNER, key) for key in ("k", "other", "tagged")] * 3)
        assert [payload(each) for each in many] == [None, None, b"'newest'"] * 3
        held.goes_on.set()
        await store.flush()
        assert [await value(store, key) for key in ("k", "other", "tagged")] == [None, None, b"'newest'"]

    using(tmp_path / "x.db", act, connect=held.trouble.connect)
    assert using(tmp_path / "x.db", lambda store: value(store, "tagged")) == b"'newest'"


@pytest.mark.parametrize("change", ["write", "delete", "clear", "clear_partition", "mark_tag"])
def test_a_commit_comes_too_late_for_what_is_still_queued(tmp_path: Path, held: Held, change: str) -> None:
    async def act(store: SqliteStore) -> None:
        claim = await store.claim(GLOBAL_OWNER, "k", waits=True)
        await store.flush()
        held.hold()
        if change == "write":
            store.enqueue(Change("write", entry=entry(value="written")))
        elif change == "delete":
            store.enqueue(Change("delete", GLOBAL_OWNER, "k"))
        elif change == "mark_tag":
            store.enqueue(Change("mark_tag", None, tag="t"))
        else:
            store.enqueue(Change(change, GLOBAL_OWNER if change == "clear_partition" else None))
        expected = b"'written'" if change == "write" else None
        late: list[str] = []
        commit = Change("commit", entry=entry(value="late", tags=("t",)), claim=claim)
        assert store.enqueue(commit, lambda: late.append("heard"))
        assert late == ["heard"]
        assert payload(store.read_now(GLOBAL_OWNER, "k")) == expected
        held.goes_on.set()
        await store.flush()
        assert await value(store) == expected
        # The lease is given up all the same.
        following = await asyncio.wait_for(SqliteStore(store.path).claim(GLOBAL_OWNER, "k", waits=True), 2.0)
        assert following.token

    using(tmp_path / "x.db", act, connect=held.trouble.connect)


def test_who_misses_does_not_wait_for_the_disk_and_flush_does(tmp_path: Path, held: Held) -> None:
    with SyncCache(store=SqliteStore(tmp_path / "x.db", connect=held.trouble.connect)) as cache:

        def fetch() -> Result[str, str]:
            held.hold()
            return Success("fetched")

        assert cache.get("k", fetch) == Success("fetched")
        assert not held.goes_on.is_set()
        cache.invalidate("l")
        held.goes_on.set()
        assert cache.flush() == Success(None)

        with SyncCache(store=SqliteStore(tmp_path / "x.db")) as other:
            assert other.get("k", lambda: Failure("missed")) == Success("fetched")


def test_a_commit_that_nobody_waits_for_is_told_of_where_another_process_was_faster(tmp_path: Path) -> None:
    async def act(store: SqliteStore) -> None:
        overtaken: list[str] = []
        told: list[Exception] = []
        store.report = told.append

        def hear(key: str) -> None:
            overtaken.append(key)
            raise KeyError(key)

        other = SqliteStore(store.path)
        claims = [await store.claim(GLOBAL_OWNER, key, waits=True) for key in ("k", "l")]
        await other.write(entry(value="younger"))
        await other.flush()
        for claim in claims:
            commit = Change("commit", entry=entry(claim.key, "fetched"), claim=claim)
            assert store.enqueue(commit, partial(hear, claim.key))
        await store.flush()
        assert overtaken == ["k"]
        assert [str(each) for each in told] == ["who was told of a commit raised KeyError"]
        assert [await value(store, key) for key in ("k", "l")] == [b"'younger'", b"'fetched'"]
        await other.aclose()

    using(tmp_path / "x.db", act)


def test_a_commit_that_is_queued_does_not_hide_what_another_process_has_written(
    tmp_path: Path, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(store: SqliteStore) -> None:
        other = SqliteStore(store.path)
        claims = [await store.claim(GLOBAL_OWNER, key, waits=False) for key in ("k", "l", "m", "n")]
        await store.flush()
        held.hold()
        for claim in claims:
            assert store.enqueue(Change("commit", entry=entry(claim.key, "fetched", tags=("t",)), claim=claim))
        assert payload(store.read_now(GLOBAL_OWNER, "k")) == b"'fetched'"
        assert await asyncio.to_thread(held.is_held.wait, 5)
        await other.write(entry(value="younger"))
        await other.delete(GLOBAL_OWNER, "l")
        await other.flush()
        assert payload(store.read_now(GLOBAL_OWNER, "k")) == b"'younger'"
        assert store.read_now(GLOBAL_OWNER, "l") is None
        assert payload(store.read_now(GLOBAL_OWNER, "m")) == b"'fetched'"
        await other.mark_tag(None, "t", None)
        await other.flush()
        assert store.read_now(GLOBAL_OWNER, "m") is None
        held.goes_on.set()
        await store.flush()
        assert [await value(store, key) for key in ("k", "l", "m", "n")] == [b"'younger'", None, None, None]
        await other.aclose()

    async def run() -> None:
        store = SqliteStore(tmp_path / "x.db", connect=held.trouble.connect)
        original = store._engine.writing

        def writing(database: Any) -> Any:
            held.trouble.meet("BEGIN IMMEDIATE")  # Held before it takes the lock between processes.
            return original(database)

        monkeypatch.setattr(store._engine, "writing", writing)
        try:
            await act(store)
        finally:
            await store.aclose()

    asyncio.run(run())


def test_a_full_queue_takes_nothing_and_who_writes_waits_for_room(tmp_path: Path, held: Held) -> None:
    async def act(store: SqliteStore) -> None:
        await store.flush()
        await value(store)
        held.hold()
        store.enqueue(Change("write", entry=entry("first")))
        await asyncio.to_thread(held.is_held.wait, 5)
        taken = 0
        while store.enqueue(Change("write", entry=entry(str(taken)))):
            taken += 1
        assert taken == 5
        waiting = asyncio.ensure_future(store.write(entry("waits")))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        held.goes_on.set()
        await waiting
        await store.flush()
        assert await value(store, "waits") == b"1"
        assert await value(store, "4") == b"1"

    using(tmp_path / "x.db", act, connect=held.trouble.connect, queue_size=5)


def test_the_queue_is_bounded_in_bytes_as_well(tmp_path: Path, held: Held) -> None:
    async def act(store: SqliteStore) -> None:
        await value(store)
        held.hold()
        store.enqueue(Change("delete", GLOBAL_OWNER, "x"))
        await asyncio.to_thread(held.is_held.wait, 5)
        assert store.enqueue(Change("write", entry=entry("a", "x" * 600_000)))
        assert not store.enqueue(Change("write", entry=entry("b", "x" * 600_000)))
        assert store.enqueue(Change("write", entry=entry("c", "x" * 1_000)))
        held.goes_on.set()
        await store.flush()
        # One that is larger than the bound goes alone.
        assert store.enqueue(Change("write", entry=entry("b", "x" * 2_000_000)))

    using(tmp_path / "x.db", act, connect=held.trouble.connect, queue_bytes=1_000_000)


def test_to_enqueue_waits_for_nothing_and_calls_nobody(tmp_path: Path, held: Held) -> None:
    """Whatever the disk and the cipher do."""

    class Slow:
        def encrypt(self, content: bytes, owner: Owner, context: bytes) -> bytes:
            del owner, context
            assert threading.current_thread().name == "cachemesh-sqlite-writer"
            return content

        def decrypt(self, content: bytes, owner: Owner, context: bytes) -> bytes:
            del owner, context
            return content

        def forget(self, owner: Owner | None) -> None: ...

    async def act(store: SqliteStore) -> None:
        await value(store)
        held.hold()
        began = time.perf_counter()
        for number in range(1_000):
            assert store.enqueue(Change("write", entry=entry(str(number))))
        assert time.perf_counter() - began < 1.0
        held.goes_on.set()
        await store.flush()
        assert await value(store, "999") == b"1"

    using(tmp_path / "x.db", act, connect=held.trouble.connect, cipher=Slow())


def test_a_cipher_that_fails_loses_its_own_entry_only(tmp_path: Path) -> None:
    class Moody:
        def encrypt(self, content: bytes, owner: Owner, context: bytes) -> bytes:
            del context
            if owner == BOB:
                raise KeyError(owner)
            return content[::-1]

        def decrypt(self, content: bytes, owner: Owner, context: bytes) -> bytes:
            del owner, context
            return content[::-1]

        def forget(self, owner: Owner | None) -> None: ...

    async def act(store: SqliteStore) -> None:
        heard: list[str] = []
        store.report = lambda error: heard.append(str(error))
        for owner in (ALICE, BOB, GLOBAL_OWNER):
            await store.write(entry(owner=owner))
        with pytest.raises(NotFlushedError):
            await store.flush()
        await store.flush()
        assert [await value(store, owner=owner) for owner in (ALICE, BOB, GLOBAL_OWNER)] == [b"1", None, b"1"]
        assert heard == ["a value could not be encrypted, and was not stored"]

    using(tmp_path / "x.db", act, cipher=Moody())
    # Without the key nothing is read, and nothing raises.
    assert using(tmp_path / "x.db", lambda store: value(store, owner=ALICE)) is None


# Fences and leases


def test_the_answer_of_the_later_claim_is_the_younger_one(tmp_path: Path) -> None:
    async def act(store: SqliteStore) -> None:
        first = await store.claim(GLOBAL_OWNER, "k", waits=False)
        second = await store.claim(GLOBAL_OWNER, "k", waits=False)
        assert await store.commit(entry(value="first"), first)
        assert await store.commit(entry(value="second"), second)
        assert not await store.commit(entry(value="first again"), first)
        assert await value(store) == b"'second'"

    using(tmp_path / "x.db", act)


def test_a_claim_fits_no_other_place(tmp_path: Path) -> None:
    async def act(store: SqliteStore) -> None:
        claim = await store.claim(GLOBAL_OWNER, "k", waits=False)
        for other in (entry("l"), entry(owner=ALICE)):
            assert not await store.commit(other, claim)
        for generation in (-1, 0, claim.generation + 1_000):
            assert not await store.commit(entry(), Claim(GLOBAL_OWNER, "k", generation))
        assert await value(store) is None

    using(tmp_path / "x.db", act)


def test_a_claim_does_not_outlive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.db"

    async def act(store: SqliteStore) -> None:
        claim = await store.claim(GLOBAL_OWNER, "k", waits=False)
        await store.aclose()
        for name in names_in(tmp_path):
            (tmp_path / name).unlink()
        for _ in range(5):
            await store.delete(GLOBAL_OWNER, "k")
        assert not await store.commit(entry(), claim)

    using(path, act)


def test_without_leases_nobody_waits_and_writes_are_fenced_all_the_same(tmp_path: Path) -> None:
    async def act(store: SqliteStore) -> None:
        first = await store.claim(GLOBAL_OWNER, "k", waits=True)
        second = await store.claim(GLOBAL_OWNER, "k", waits=True)
        assert (first.token, second.token) == (b"", b"")
        await store.delete(GLOBAL_OWNER, "k")
        assert not await store.commit(entry(), first)
        assert not await store.commit(entry(), second)

    using(tmp_path / "x.db", act, lease=None)


def test_b36_a_lease_ends_by_itself(tmp_path: Path) -> None:
    async def act(store: SqliteStore) -> None:
        other = SqliteStore(store.path, lease=0.3)
        await other.claim(GLOBAL_OWNER, "k", waits=True)
        began = time.monotonic()
        claim = await store.claim(GLOBAL_OWNER, "k", waits=True)
        assert claim.token
        assert 0.2 < time.monotonic() - began < 1.3
        await other.aclose()

    using(tmp_path / "x.db", act)


@pytest.mark.parametrize("jump_s", [-1e8, -1.0, 1e8])
def test_b36_a_lease_ends_whatever_the_clock_does(tmp_path: Path, jump_s: float) -> None:
    now = time.time()

    async def act(store: SqliteStore) -> None:
        nonlocal now
        other = SqliteStore(store.path, lease=0.3, clock=lambda: now)
        await other.claim(GLOBAL_OWNER, "k", waits=True)
        waiting = asyncio.ensure_future(store.claim(GLOBAL_OWNER, "k", waits=True))
        await asyncio.sleep(0.05)
        now += jump_s
        claim = await asyncio.wait_for(waiting, 1.3)
        assert claim.token
        await other.aclose()

    using(tmp_path / "x.db", act, clock=lambda: now)


def test_a_lease_that_goes_from_one_to_the_next_keeps_nobody_waiting_for_ever(tmp_path: Path) -> None:
    async def act(store: SqliteStore) -> None:
        other = SqliteStore(store.path, lease=0.2)

        async def hog() -> None:
            while True:
                await other.claim(GLOBAL_OWNER, "k", waits=True)

        hogs = [asyncio.ensure_future(hog()) for _ in range(3)]
        claim = await asyncio.wait_for(store.claim(GLOBAL_OWNER, "k", waits=True), 3.0)
        assert claim.found is None
        for each in hogs:
            each.cancel()
        await asyncio.wait(hogs)
        await other.aclose()

    using(tmp_path / "x.db", act, lease=0.2)


def test_sf14_many_stores_in_one_process_fetch_once(tmp_path: Path) -> None:
    async def act() -> None:
        stores = [SqliteStore(tmp_path / "x.db") for _ in range(8)]
        for number in range(10):
            key = f"k{number}"
            fetches = 0

            async def get(store: SqliteStore, key: str = key) -> StoredEntry:
                nonlocal fetches
                found = await store.read(GLOBAL_OWNER, key)
                if found is not None:
                    return found
                claim = await store.claim(GLOBAL_OWNER, key, waits=True)
                if claim.found is not None:
                    return claim.found
                fetches += 1
                await asyncio.sleep(0.01)
                assert await store.commit(entry(key), claim)
                return entry(key)

            answers = await asyncio.gather(*(get(store) for store in stores))
            assert {payload(each) for each in answers} == {b"1"}
            assert fetches == 1
        for store in stores:
            await store.aclose()

    asyncio.run(act())


# Namespaces, names


def test_namespaces_do_not_touch(tmp_path: Path) -> None:
    async def act(store: SqliteStore) -> None:
        others = [SqliteStore(store.path, namespace=name) for name in ("", "cachemesh ", "a\0b", "\ud800")]
        for number, each in enumerate((store, *others)):
            await each.write(entry(value=number, tags=("t",)))
            await each.flush()
        for number, each in enumerate((store, *others)):
            assert await value(each) == repr(number).encode()
            assert [found.key async for found in each.scan()] == ["k"]
        await store.mark_tag(None, "t", None)
        await others[0].clear()
        await store.flush()
        await others[0].flush()
        assert [await value(each) is None for each in (store, *others)] == [True, True, False, False, False]
        for each in others:
            await each.aclose()

    using(tmp_path / "x.db", act)


@settings(max_examples=tries(200), deadline=None)
@given(st.lists(st.tuples(st.text(), st.text()), min_size=2, max_size=2, unique=True))
def test_se5_different_places_have_different_numbers(places: list[tuple[str, str]]) -> None:
    one, other = ((CacheScope.USER, user) for user, _ in places)
    numbers = Places("n")
    assert numbers.number(one, places[0][1]) != numbers.number(other, places[1][1])


def test_se5_a_million_places_do_not_collide() -> None:
    numbers = Places("n")
    seen = {numbers.number(GLOBAL_OWNER, f"k{number}") for number in range(1_000_000)}
    assert len(seen) == 1_000_000


HOSTILE: Final = [
    "'; DROP TABLE entries; --",
    '"',
    "%",
    "_",
    "a\0b",
    "?",
    ":owner",
    "\\",
    "x' OR '1'='1",
    "\ud800",
    "",
    "${HOME}",
    "../../etc/passwd",
]


def test_se4_hostile_names_touch_nothing_that_is_not_theirs(tmp_path: Path) -> None:
    async def act(store: SqliteStore) -> None:
        await store.write(entry("canary"))
        for name in HOSTILE:
            owner = (CacheScope.USER, name)
            await store.write(entry(name, name, owner=owner, tags=(name,)))
            await store.flush()
            assert await value(store, name, owner) == repr(name).encode("utf-8", "surrogatepass")
            assert list(await store.keys(owner)) == [name]
            await store.mark_tag(owner, name, None)
            assert await value(store, name, owner) is None
            await store.clear_partition(owner)
        assert await value(store, "canary") == b"1"
        assert [found.key async for found in store.scan()] == ["canary"]

    def entry(key: str, text: object = 1, *, owner: Owner = GLOBAL_OWNER, tags: tuple[str, ...] = ()) -> StoredEntry:
        encoded = Encoded(repr(text).encode("utf-8", "surrogatepass"))
        return StoredEntry(owner, key, encoded, False, NOW, None, None, tags=tags)  # noqa: FBT003 (a success)

    using(tmp_path / "x.db", act)


@settings(max_examples=tries(30), deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.text(), other=st.text())
def test_se4_any_name_is_only_a_name(tmp_path: Path, name: str, other: str) -> None:
    async def act(store: SqliteStore) -> None:
        await store.clear()
        await store.write(entry(name))
        await store.write(entry(other, 2))
        assert await value(store, other) == b"2"
        assert await value(store, name) == (b"2" if name == other else b"1")
        assert set(await store.keys(GLOBAL_OWNER)) == {name, other}

    using(tmp_path / "x.db", act)


# Files


def test_se_b51_nobody_else_may_read_the_files(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:

        async def act(store: SqliteStore) -> None:
            await store.write(entry())
            await store.flush()
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in store.path.parent.iterdir()}
            assert modes == {"x.db": 0o600, "x.db-wal": 0o600, "x.db-shm": 0o600, "x.db-lock": 0o600}
            for folder in (tmp_path / "made", tmp_path / "made" / "anew"):
                assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            levels = {each.subject: each.level for each in await store.doctor()}
            assert levels["permissions"] is Level.OK
            store.path.with_name("x.db-wal").chmod(0o644)
            levels = {each.subject: each.level for each in await store.doctor()}
            assert levels["permissions"] is Level.WARNING

        using(tmp_path / "made" / "anew" / "x.db", act)
    finally:
        os.umask(before)


def test_se_b51_a_file_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.touch(0o644)
    using(path, lambda store: store.write(entry()))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert using(path, value) == b"1"


def test_nothing_is_opened_and_no_thread_begins_before_it_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "x.db"
    before = ours()
    store = SqliteStore(path)
    assert not path.parent.exists()
    assert ours() == before
    assert store.read_now(GLOBAL_OWNER, "k") is None
    assert path.exists()
    assert ours() == before
    asyncio.run(store.aclose())


def test_a_name_that_is_odd_is_a_name_of_a_file(tmp_path: Path) -> None:
    for name in ("a?mode=memory", "a#b", "a%41", "a b", "é\u202e", "file:x"):
        path = tmp_path / name
        using(path, lambda store: store.write(entry()))
        assert path.exists()
        assert using(str(path), value) == b"1"


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteStore("x.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.read_now(GLOBAL_OWNER, "k")
    assert (tmp_path / "x.db").exists()
    asyncio.run(store.aclose())


# Coming and going


def test_b24_a_store_that_nobody_has_any_more_ends_its_threads_and_has_written(tmp_path: Path) -> None:
    path = tmp_path / "x.db"

    async def act() -> weakref.ref[SqliteStore]:
        store = SqliteStore(path)
        await value(store)
        await store.keys(GLOBAL_OWNER)
        for number in range(50):
            assert store.enqueue(Change("write", entry=entry(str(number))))
        return weakref.ref(store)

    before = len(ours())
    gone = asyncio.run(act())
    gc.collect()
    assert gone() is None
    asyncio.run(until(lambda: len(ours()) <= before))
    assert count(path) == 50


def test_a_store_that_was_only_read_closes_its_file_when_it_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    using(path, lambda store: store.write(entry()))
    store = SqliteStore(path)
    assert store.read_now(GLOBAL_OWNER, "k") is not None
    assert path.with_name("x.db-wal").exists()
    del store
    gc.collect()
    assert not path.with_name("x.db-wal").exists()  # The last one to close it has taken it in.


def test_closing_leaves_no_thread_and_no_descriptor_and_it_can_be_used_again(tmp_path: Path) -> None:
    async def act(store: SqliteStore) -> None:
        for number in range(3):
            await store.write(entry(value=number))
            assert await value(store) == repr(number).encode()
            await store.keys(GLOBAL_OWNER)
            await store.aclose()
            await store.aclose()
            assert [name for name in ours() if name not in before] == []
            assert names_in(tmp_path) == ["x.db", "x.db-lock"]

    before = ours()
    using(tmp_path / "x.db", act)


def test_closing_while_others_read_and_write(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "x.db")
    errors: list[BaseException] = []
    stops = threading.Event()

    def use(number: int) -> None:
        async def using() -> None:
            step = 0
            while not stops.is_set():
                step += 1
                await store.write(entry(str(number), step))
                found = await value(store, str(number))
                assert found == repr(step).encode()
                assert payload(store.read_now(GLOBAL_OWNER, str(number))) == repr(step).encode()
                if step % 10 == 0:
                    await store.keys(GLOBAL_OWNER)

        try:
            asyncio.run(using())
        except BaseException as error:  # noqa: BLE001 (shown below)
            errors.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        asyncio.run(store.aclose())
        time.sleep(0.01)
    stops.set()
    for thread in threads:
        thread.join()
    asyncio.run(store.aclose())
    assert errors == []


def test_ca9_many_event_loops_one_after_the_other_and_at_once(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "x.db")
    errors: list[BaseException] = []

    async def use(number: int) -> None:
        for step in range(20):
            keys = [f"{number}:{step}:{each}" for each in range(10)]
            await asyncio.gather(*(store.write(entry(key, key)) for key in keys))
            found = await asyncio.gather(*(value(store, key) for key in keys))
            assert found == [repr(key).encode() for key in keys]

    def run(number: int) -> None:
        try:
            for _ in range(3):
                asyncio.run(use(number))
        except BaseException as error:  # noqa: BLE001 (shown below)
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(store.aclose())
    assert errors == []
    assert count(store.path) == 6 * 20 * 10


def test_a_loop_that_ended_in_the_middle_leaves_nobody_waiting(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "x.db")
    for _ in range(20):
        loop = asyncio.new_event_loop()

        async def ask() -> None:
            tasks = [
                asyncio.ensure_future(store.read(GLOBAL_OWNER, "k")),
                asyncio.ensure_future(store.claim(GLOBAL_OWNER, "k", waits=True)),
                asyncio.ensure_future(store.keys(GLOBAL_OWNER)),
            ]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()

        loop.run_until_complete(ask())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    # None of the claims that nobody waited for keeps a lease.
    claim = asyncio.run(asyncio.wait_for(store.claim(GLOBAL_OWNER, "k", waits=True), 2.0))
    assert claim.token
    asyncio.run(store.aclose())


def script(body: str, *arguments: object) -> str:
    """What a program prints in an interpreter of its own."""
    program = f"""
import asyncio, os, sys, threading, time
from cachemesh.core.scopes import GLOBAL_OWNER
from cachemesh.shell.ports import Change
from cachemesh.stores.sqlite import SqliteStore
from tests.stores.sqlite_files import entry, payload
path = sys.argv[1]
{body}
"""
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 (our own program)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_what_is_queued_when_the_interpreter_ends_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    script(
        """
store = SqliteStore(path)
for number in range(500):
    assert store.enqueue(Change("write", entry=entry(str(number))))
""",
        path,
    )
    assert count(path) == 500


def test_nothing_hangs_at_the_end_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    began = time.monotonic()
    script(
        """
import logging
logging.disable()
store = SqliteStore(path)
store.enqueue(Change("write", entry=entry()))
""",
        tmp_path / "file" / "x.db",
    )
    assert time.monotonic() - began < 10.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_ca10_b23_a_child_opens_the_file_anew_and_both_go_on(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    printed = script(
        """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
store = SqliteStore(path)
stops = threading.Event()

def busy():
    number = 0
    while not stops.is_set():
        number += 1
        store.enqueue(Change("write", entry=entry(f"parent{number % 50}", number)))
        store.read_now(GLOBAL_OWNER, f"parent{number % 50}")

async def use(who):
    await store.write(entry(who, who))
    await store.flush()
    found = await store.read(GLOBAL_OWNER, who)
    assert payload(found) == repr(who).encode()
    claim = await store.claim(GLOBAL_OWNER, who + "c", waits=True)
    assert await store.commit(entry(who + "c"), claim)
    assert len(await store.keys(GLOBAL_OWNER)) > 1
    await store.aclose()

asyncio.run(use("before"))
threads = [threading.Thread(target=busy) for _ in range(2)]
for thread in threads:
    thread.start()
for number in range(20):
    child = os.fork()
    if child == 0:
        try:
            assert store._engine.database is None
            asyncio.run(asyncio.wait_for(use(f"child{number}"), 20))
            os._exit(0)
        except BaseException as error:
            print("child", type(error), error, file=sys.stderr)
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == 0
stops.set()
for thread in threads:
    thread.join()
asyncio.run(use("after"))
print("done")
""",
        path,
    )
    assert printed == "done\n"
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert using(path, lambda store: value(store, "child19")) == b"'child19'"


# Figures and findings


def test_stats_and_scan_tell_what_is_there(tmp_path: Path) -> None:
    async def act(store: SqliteStore) -> None:
        for number in range(300):
            await store.write(entry(str(number)))
        await store.write(entry(owner=ALICE, is_failure=True))
        await store.write(entry("gone", owner=SESSION_OWNER))
        await store.delete(SESSION_OWNER, "gone")
        await store.write(entry(owner=BOB))
        await store.clear_partition(BOB)
        stats = await store.stats()
        assert (stats.entries, stats.failures, stats.tombstones) == (301, 1, 1)
        assert stats.by_scope == {"global": 300, "user": 1}
        assert stats.size_bytes >= store.path.stat().st_size
        assert stats.details["sqlite"] == sqlite3.sqlite_version
        assert stats.details["journal_mode"] == "wal"
        found = [each async for each in store.scan()]
        assert len(found) == 301
        assert {(each.owner, each.key) for each in found} == {
            (ALICE, "k"),
            *((GLOBAL_OWNER, str(number)) for number in range(300)),
        }

    using(tmp_path / "x.db", act)


def test_st9_the_doctor_knows_the_versions_with_the_wal_reset_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version, has_it in (
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 0), False),
    ):
        assert has_wal_reset_bug(version) is has_it, version

    async def act(store: SqliteStore) -> dict[str, Level]:
        await store.write(entry())
        return {each.subject: each.level for each in await store.doctor()}

    for has_it in (True, False):
        monkeypatch.setattr("cachemesh.stores.sqlite.doctor.has_wal_reset_bug", lambda has_it=has_it: has_it)
        levels = using(tmp_path / "x.db", act)
        assert levels["SQLite"] is (Level.WARNING if has_it else Level.OK)
        assert {levels[each] for each in ("journal", "integrity", "permissions", "quarantine", "queue")} == {Level.OK}


def test_st9_without_locks_between_processes_such_a_version_gets_a_rollback_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "HAS_LOCKS", False)
    for has_it, mode in ((False, "WAL"), (True, "TRUNCATE")):
        monkeypatch.setattr(files, "has_wal_reset_bug", lambda has_it=has_it: has_it)
        assert files.wanted_mode(tmp_path / "x.db") == mode


def test_network_file_systems_are_known(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/a / ext4 rw 0 0\nserver:/x /mnt/far nfs4 rw 0 0\n/dev/b /mnt/far/near xfs rw 0 0\n"
        "//s/x /mnt/with\\040blank cifs rw 0 0\nodd\n"
    )
    for place, far in (
        ("/x.db", False),
        ("/mnt/far/x.db", True),
        ("/mnt/far/near/x.db", False),
        ("/mnt/farther/x.db", False),
        ("/mnt/with blank/x.db", True),
    ):
        assert is_on_network(Path(place), mounts) is far, place
    assert not is_on_network(Path("/x.db"), tmp_path / "nothing")


def test_no_finding_and_no_report_names_a_key_or_a_value(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def act(store: SqliteStore) -> None:
        await store.write(entry("hush-key", "hush-value", owner=(CacheScope.USER, "hush-user")))
        await store.flush()
        connection = sqlite3.connect(store.path)
        connection.execute("UPDATE entries SET envelope = substr(envelope, 2)")
        connection.commit()
        connection.close()
        assert store.read_now((CacheScope.USER, "hush-user"), "hush-key") is None
        told = [str(each) for each in await store.doctor()] + [repr(store), str(await store.stats())]
        assert not re.search("hush", " ".join(told) + caplog.text)
        assert caplog.text.count("not to be believed") == 1

    using(tmp_path / "x.db", act)


def test_a_cancelled_write_that_waits_for_room_was_not_made(tmp_path: Path, held: Held) -> None:
    async def act(store: SqliteStore) -> None:
        await value(store)
        held.hold()
        store.enqueue(Change("write", entry=entry("first")))
        await asyncio.to_thread(held.is_held.wait, 5)
        store.enqueue(Change("write", entry=entry("second")))
        waiting = asyncio.ensure_future(store.write(entry("cancelled")))
        await asyncio.sleep(0.02)
        waiting.cancel()
        await asyncio.wait({waiting})
        held.goes_on.set()
        await store.flush()
        assert [await value(store, key) for key in ("first", "second", "cancelled")] == [b"1", b"1", None]

    using(tmp_path / "x.db", act, connect=held.trouble.connect, queue_size=1)


@pytest.mark.parametrize("moment", range(6))
def test_what_a_file_is_is_read_of_one_moment(tmp_path: Path, moment: int) -> None:
    """Another process makes it between any two steps of a reader: that sees it as it was, or as it is then."""
    path = tmp_path / "a.db"
    reader, writer = (sqlite3.connect(path, isolation_level=None, timeout=0) for _ in range(2))
    statements: list[str] = []

    def make(statement: str) -> None:
        statements.append(statement)
        if len(statements) == moment + 1:
            try:
                writer.executescript(
                    "BEGIN; CREATE TABLE a (b); PRAGMA application_id=1; PRAGMA user_version=2; COMMIT"
                )
            except sqlite3.OperationalError as error:
                assert error.sqlite_errorcode == sqlite3.SQLITE_BUSY  # noqa: PT017 (it is one outcome of two)

    reader.set_trace_callback(make)
    seen = files.marks_of(reader)
    reader.set_trace_callback(None)

    assert seen in {(0, 0, 0), (1, 2, 1)}
    reader.close()
    writer.close()
