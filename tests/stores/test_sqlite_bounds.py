"""How much `SqliteStore` keeps, and for how long: bounds, the sweep, and what clocks do to both."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from cachemesh.core.scopes import GLOBAL_OWNER
from cachemesh.shell.ports import Encoded
from cachemesh.stores.report import Level
from cachemesh.stores.sqlite import SqliteStore, transaction
from cachemesh.stores.sqlite.queue import MOST_IN_A_BATCH
from cachemesh.stores.sqlite.sweep import ROWS_A_STEP, Sweeper
from tests.stores.sqlite_files import ALICE, BOB, NOW, entry, until, using, value

if TYPE_CHECKING:
    from pathlib import Path

HOUR_S = 3_600.0
DAY_S = 24 * HOUR_S


class Clock:
    """A wall clock that is set by hand."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def sweep(store: SqliteStore) -> None:
    """A whole pass, as the worker would make it."""
    Sweeper(store._engine).a_pass()


def rows(path: Path, table: str = "entries") -> int:
    connection = sqlite3.connect(path)
    (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 (our own words)
    connection.close()
    assert isinstance(count, int)
    return count


# Number and size


def test_st12_ten_times_as_many_entries_as_there_may_be(tmp_path: Path) -> None:
    async def act(store: SqliteStore) -> None:
        for first in range(0, 1_000, 50):
            for number in range(first, first + 50):
                await store.write(entry(str(number), number))
            await store.flush()
            assert rows(store.path) <= 100
        assert await value(store, "899") is None
        for number in range(900, 1_000):
            assert await value(store, str(number)) == repr(number).encode()
        assert sorted(await store.keys(GLOBAL_OWNER)) == sorted(map(str, range(900, 1_000)))

    using(tmp_path / "x.db", act, max_entries=100)


def test_st12_ten_times_as_many_bytes_as_there_may_be(tmp_path: Path) -> None:
    most = 500_000

    async def act(store: SqliteStore) -> None:
        for number in range(500):
            await store.write(entry(str(number), "x" * 10_000))
            if number % 20 == 19:
                await store.flush()
        batch = 20 * 12_000
        assert store.path.stat().st_size <= most + batch
        kept = [number for number in range(500) if await value(store, str(number)) is not None]
        assert kept == list(range(kept[0], 500))
        assert 30 <= len(kept) <= 50
        findings = {each.subject: each.level for each in await store.doctor()}
        assert findings["bytes"] is Level.OK

    using(tmp_path / "x.db", act, max_bytes=most)


def test_written_again_is_written_lately_and_reading_keeps_nothing(tmp_path: Path) -> None:
    async def act(store: SqliteStore) -> None:
        for key in ("a", "b", "a", "c"):
            await store.write(entry(key))
            await store.flush()
            await value(store, "b")
        assert sorted(await store.keys(GLOBAL_OWNER)) == ["a", "c"]

    using(tmp_path / "x.db", act, max_entries=2)


def test_the_bound_holds_for_a_batch_that_is_larger_than_it(tmp_path: Path) -> None:
    async def act(store: SqliteStore) -> None:
        for number in range(2 * MOST_IN_A_BATCH):
            await store.write(entry(str(number)))
        await store.flush()
        assert rows(store.path) == 7

    using(tmp_path / "x.db", act, max_entries=7)


def test_an_entry_that_is_larger_than_the_bound_is_not_kept(tmp_path: Path) -> None:
    async def act(store: SqliteStore) -> None:
        await store.write(entry("large", "x" * 200_000))
        await store.write(entry("small"))
        await store.flush()
        assert await value(store, "large") is None

    using(tmp_path / "x.db", act, max_bytes=100_000)


def test_a_fetch_from_before_a_write_stays_fenced_off_when_what_was_written_was_evicted(tmp_path: Path) -> None:
    async def act(store: SqliteStore) -> None:
        claim = await store.claim(GLOBAL_OWNER, "k", waits=False)
        await store.write(entry(value="newer"))
        await store.write(entry("other"))
        await store.flush()
        assert await value(store) is None
        assert not await store.commit(entry(value="older"), claim)
        assert await value(store) is None

    using(tmp_path / "x.db", act, max_entries=1)


# Age


@pytest.mark.parametrize(
    ("fields", "life_s"),
    [
        ({"ttl_s": 100.0, "expires_at": NOW + 100.0, "serve_stale_s": 0.0, "stale_if_error_s": 0.0}, 100.0),
        ({"ttl_s": 100.0, "expires_at": NOW + 100.0, "serve_stale_s": 50.0, "stale_if_error_s": 300.0}, 400.0),
        ({"ttl_s": 100.0, "expires_at": NOW + 100.0, "serve_stale_s": 900.0, "stale_if_error_s": None}, 1_000.0),
        ({"ttl_s": 100.0, "expires_at": NOW + 100.0, "is_failure": True}, 100.0),
        ({"ttl_s": 100.0, "expires_at": NOW + 100.0}, DAY_S),  # Without windows it may be served stale.
        ({"ttl_s": None, "expires_at": None}, DAY_S),
        ({"ttl_s": 1e9, "expires_at": NOW + 1e9, "serve_stale_s": 0.0}, DAY_S),  # Nor does it live for longer.
        ({"created_at": NOW + 1e8, "ttl_s": 5.0, "expires_at": NOW + 1e8 + 5.0, "serve_stale_s": 0.0}, DAY_S),
    ],
)
def test_tt4_an_entry_is_swept_when_its_whole_life_is_over_and_not_before(
    tmp_path: Path, clock: Clock, fields: dict[str, Any], life_s: float
) -> None:
    """Scenario TT-1: at whatever instant, it is answered as it was written. Whether it is served, is the cache's."""

    async def act(store: SqliteStore) -> None:
        await store.write(entry(**fields))
        await store.flush()
        grace_s = 0.0 if life_s == DAY_S else transaction.GRACE_S
        for after_s in (0.0, 99.0, 100.0, 101.0, life_s, life_s + grace_s - 0.01):
            if after_s < life_s + grace_s:
                clock.now = NOW + after_s
                sweep(store)
                assert await value(store) == b"1", after_s
        clock.now = NOW + life_s + grace_s
        sweep(store)
        assert await value(store) is None
        assert rows(store.path) == 0

    using(tmp_path / "x.db", act, clock=clock, max_age=DAY_S)


def test_tt3_a_clock_that_was_set_back_makes_nothing_live_for_ever(tmp_path: Path, clock: Clock) -> None:
    async def act(store: SqliteStore) -> None:
        clock.now = NOW + 10 * 365 * DAY_S
        await store.write(
            entry("future", ttl_s=10.0, created_at=clock.now, expires_at=clock.now + 10.0, serve_stale_s=0.0)
        )
        await store.flush()
        clock.now = NOW
        sweep(store)
        found = await store.read(GLOBAL_OWNER, "future")
        assert found is not None
        assert found.created_at > NOW  # The cache sees that it is from the future.
        # Nothing written now is in its way, and the bounds take the oldest first, whatever the clock said.
        await store.write(entry("now"))
        await store.write(entry("then"))
        await store.flush()
        assert sorted(await store.keys(GLOBAL_OWNER)) == ["now", "then"]

    using(tmp_path / "x.db", act, clock=clock, max_entries=2)


def test_b44_a_sweep_looks_at_every_row_without_anybody_reading(tmp_path: Path, clock: Clock) -> None:
    async def act(store: SqliteStore) -> None:
        count = 3 * ROWS_A_STEP + 7
        kept = {*range(0, count // 3, 3), count - 1}
        for number in range(count):
            life: dict[str, Any] = (
                {"ttl_s": 10.0, "expires_at": NOW + 10.0, "serve_stale_s": 0.0} if number not in kept else {}
            )
            await store.write(entry(str(number), "x" * 500, **life))
        await store.flush()
        size = store.path.stat().st_size + store.path.with_name("x.db-wal").stat().st_size
        clock.now = NOW + 1_000.0
        sweep(store)
        assert rows(store.path) == len(kept)
        assert set(map(int, await store.keys(GLOBAL_OWNER))) == kept
        stats = await store.stats()
        assert stats.entries == stats.details["entries_of_all_namespaces"] == len(kept)
        await store.aclose()
        assert store.path.stat().st_size < 0.4 * size

    using(tmp_path / "x.db", act, clock=clock)


def test_b44_the_worker_sweeps_by_itself(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "x.db"

    async def fill(store: SqliteStore) -> None:
        for number in range(ROWS_A_STEP + 10):
            await store.write(entry(str(number), ttl_s=1.0, expires_at=NOW + 1.0, serve_stale_s=0.0))

    using(path, fill, clock=clock)
    clock.now += HOUR_S

    async def act(store: SqliteStore) -> None:
        await store.flush()
        await value(store)
        await store.write(entry())
        await until(lambda: rows(path) == 1)

    using(path, act, clock=clock)


def test_of_the_processes_that_share_a_file_one_sweeps(tmp_path: Path, clock: Clock) -> None:
    async def act(store: SqliteStore) -> None:
        await store.write(entry())
        await store.flush()
        one, other = Sweeper(store._engine), Sweeper(store._engine)
        for sweeper in (one, other):
            sweeper.due_at = time.monotonic()
            sweeper.step()
        assert (one.passes, other.passes) == (1, 0)
        clock.now += HOUR_S
        other.due_at = time.monotonic()
        other.step()
        assert other.passes == 1
        clock.now -= 10 * HOUR_S  # Set back: nobody waits for the old date.
        one.due_at = time.monotonic()
        one.step()
        assert one.passes == 2

    using(tmp_path / "x.db", act, clock=clock)


# What goes with it


def test_what_marks_have_taken_is_swept_and_then_the_marks_are(tmp_path: Path, clock: Clock) -> None:
    async def act(store: SqliteStore) -> None:
        other = SqliteStore(store.path, namespace="other", clock=clock)
        for owner in (ALICE, BOB, GLOBAL_OWNER):
            await store.write(entry(owner=owner, tags=("t",)))
            await store.write(entry("l", owner=owner))
        await other.write(entry())
        await other.flush()
        await store.clear_partition(ALICE)
        await store.mark_tag(BOB, "t", None)
        await store.mark_tag(None, "soft", NOW)
        await store.flush()
        sweep(store)
        assert rows(store.path) == 4
        assert rows(store.path, "marks") == 3
        late = await store.claim(BOB, "k", waits=False)
        for _ in range(2):  # Some hours later no fetch can be under way from before them.
            clock.now += HOUR_S
            await store.write(entry("x"))
            await store.flush()
            sweep(store)
        assert rows(store.path, "marks") > 0  # Those rows of before are still there: the marks must be, too.
        for owner in (BOB, GLOBAL_OWNER):
            for key in ("k", "l"):
                await store.write(entry(key, owner=owner))
        await store.flush()
        sweep(store)
        assert rows(store.path, "marks") == 0
        assert not await store.commit(entry(value="late", owner=BOB, tags=("t",)), late)
        assert await value(store, owner=ALICE) is None
        assert await value(SqliteStore(store.path, clock=clock), owner=ALICE) is None
        assert await value(other) == b"1"
        await other.aclose()

    using(tmp_path / "x.db", act, clock=clock)


def test_tombs_and_leases_are_swept_and_fence_for_as_long_as_they_must(tmp_path: Path, clock: Clock) -> None:
    async def act(store: SqliteStore) -> None:
        claim = await store.claim(GLOBAL_OWNER, "k", waits=True)
        await store.delete(GLOBAL_OWNER, "k")
        await store.flush()
        sweep(store)
        assert (rows(store.path, "tombs"), rows(store.path, "leases")) == (1, 1)
        assert not await store.commit(entry(), claim)
        late = await store.claim(GLOBAL_OWNER, "l", waits=True)
        await store.delete(GLOBAL_OWNER, "l")
        await store.flush()
        for _ in range(2):
            clock.now += HOUR_S
            await store.write(entry("x"))
            await store.flush()
            sweep(store)
        assert (rows(store.path, "tombs"), rows(store.path, "leases")) == (0, 0)
        assert not await store.commit(entry("l"), late)  # Nobody knows any more what came after it.
        assert await store.commit(entry("l"), await store.claim(GLOBAL_OWNER, "l", waits=True))

    using(tmp_path / "x.db", act, clock=clock)


def test_a_flood_of_removals_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "MOST_TOMBS", 50)

    async def act(store: SqliteStore) -> None:
        claims = [await store.claim(GLOBAL_OWNER, str(number), waits=False) for number in range(5)]
        for number in range(200):
            await store.delete(GLOBAL_OWNER, str(number))
            if number % 20 == 0:
                await store.flush()
        await store.flush()
        assert rows(store.path, "tombs") <= 70
        for claim in claims:
            assert not await store.commit(entry(claim.key), claim)

    using(tmp_path / "x.db", act)


def test_a_flood_of_marks_is_bounded_and_none_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "MOST_MARKS", 10)
    monkeypatch.setattr("cachemesh.stores.sqlite.view.MOST_KNOWN", 20)

    async def act(store: SqliteStore) -> None:
        await store.write(entry("old", tags=("t0",)))
        await store.write(entry("stale", tags=("s",)))
        claim = await store.claim(GLOBAL_OWNER, "late", waits=False)
        await store.mark_tag(None, "s", NOW - 1.0)
        for number in range(100):
            await store.mark_tag(None, f"t{number}", None)
        await store.write(entry("new", tags=("t0",)))
        await store.flush()
        assert rows(store.path, "marks") <= 10
        peer = SqliteStore(store.path)
        for each in (store, peer):
            assert await value(each, "old") is None
            assert await value(each, "new") == b"1"
        assert await value(peer, "stale") is None  # It was stale, and is gone: less is kept, never more.
        assert not await peer.commit(entry("late", tags=("t1",)), claim)
        assert len(peer._engine.opened().view.marks) <= 10  # type: ignore[union-attr]
        await peer.aclose()

    using(tmp_path / "x.db", act)


# Settings


@pytest.mark.parametrize(
    "settings",
    [
        {"max_entries": 0},
        {"max_entries": True},
        {"max_entries": 1.5},
        {"max_bytes": 1},
        {"max_bytes": "1000000"},
        {"max_age": 0},
        {"max_age": float("nan")},
        {"max_age": float("inf")},
        {"lease": -1.0},
        {"lease": 0},
        {"queue_size": 0},
        {"queue_bytes": 0},
        {"namespace": 7},
        {"namespace": None},
    ],
    ids=str,
)
def test_a_setting_that_makes_no_sense_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SqliteStore(tmp_path / "x.db", **settings)


@pytest.mark.parametrize("path", ["", ":memory:", "/", 7, None, b"x.db"])
def test_a_path_that_is_none_is_refused(path: Any) -> None:
    with pytest.raises(ValidationError):
        SqliteStore(path)


def test_without_bounds(tmp_path: Path) -> None:
    async def act(store: SqliteStore) -> None:
        await store.write(entry(value=Encoded(b"1")))
        levels = {each.subject: each.level for each in await store.doctor()}
        assert levels["entries"] is levels["bytes"] is Level.NOTE
        await asyncio.sleep(0)

    using(tmp_path / "x.db", act, max_entries=None, max_bytes=None, max_age=None, lease=None)
