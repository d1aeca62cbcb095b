"""`FlakyStore` and `ChaosStore`: as good as the store inside while all is well, and as bad as a test says otherwise."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Failure, Success

from cachemesh import Cache, SyncCache
from cachemesh.core import GLOBAL_OWNER, SESSION_OWNER
from cachemesh.shell.ports import Backplane, Claim, DirectStore, SharedStore, StoredEntry
from cachemesh.stores import MemoryStore, SqliteStore
from cachemesh.testing import (
    ChaosStore,
    Fault,
    FlakyStore,
    ScriptedOrigin,
    SharedStoreContract,
    StoreContract,
    StoreFault,
    VirtualClock,
    assert_one_flight,
    run,
)
from cachemesh.testing.store_around import OPERATIONS
from tests.stores.sizes import tries

if TYPE_CHECKING:
    from pathlib import Path

    from cachemesh.shell.ports import Store
    from tests.shell.faces import Face

GLOBAL = GLOBAL_OWNER


def entry(key: str = "k", value: Any = 1) -> StoredEntry:
    return StoredEntry(GLOBAL, key, value, is_failure=False, created_at=0.0, ttl_s=None, expires_at=None)


# While all is well


class TestFlakyStoreIsAStore(StoreContract):
    examples = tries(20)

    def make_store(self) -> Store:
        return FlakyStore(MemoryStore())


class TestFlakyStoreIsASharedStore(SharedStoreContract):
    examples = tries(10)
    numbers = itertools.count()

    @pytest.fixture(autouse=True)
    def _in(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make_store(self) -> Store:
        return FlakyStore(SqliteStore(self.folder / f"{next(self.numbers)}.db"))

    def make_peer(self, store: SharedStore) -> SharedStore:
        assert isinstance(store, FlakyStore)
        peer: Any = FlakyStore(SqliteStore(store.inner.path))
        assert isinstance(peer, SharedStore)
        return peer

    async def close_store(self, store: Store) -> None:
        assert isinstance(store, SharedStore)
        await store.aclose()


def test_it_is_what_the_inner_store_is(tmp_path: Path) -> None:
    shared: Any = FlakyStore(SqliteStore(tmp_path / "cache.db"))
    plain: Any = ChaosStore(MemoryStore())

    assert isinstance(shared, FlakyStore)
    assert isinstance(shared, SharedStore)
    assert isinstance(plain, ChaosStore)
    assert not isinstance(plain, SharedStore | Backplane)
    assert not isinstance(shared, DirectStore), "what is read without waiting cannot hang"
    assert type(FlakyStore(SqliteStore(tmp_path / "other.db"))) is type(shared)


def test_one_that_speaks_to_its_peers_is_heard_through_it() -> None:
    class Speaking(MemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self.heard: list[Any] = []

        def listen(self, hear: Any, /) -> Any:
            self.heard.append(hear)
            return self.heard.clear

    store: Any = FlakyStore(inner := Speaking())
    assert isinstance(store, Backplane)
    end = store.listen(print)

    assert inner.heard == [print]
    end()
    assert inner.heard == []


# A store that does as it is told


def test_what_fails_does_nothing_and_what_fails_after_it_has_done_it() -> None:
    async def main() -> None:
        store = FlakyStore(inner := MemoryStore())
        store.fail("write", times=1)
        with pytest.raises(StoreFault, match=r"^write fails, as it was told to$"):
            await store.write(entry("a"))
        assert len(inner) == 0

        store.fail("write", after=True, times=1)
        with pytest.raises(StoreFault, match=r"^write was done, and its reply was lost"):
            await store.write(entry("b"))
        assert await inner.keys(GLOBAL) == ["b"]

        await store.write(entry("c"))
        assert await inner.keys(GLOBAL) == ["b", "c"]

    asyncio.run(main())


def test_what_is_lost_is_said_to_be_done() -> None:
    async def main() -> None:
        store = FlakyStore(inner := MemoryStore())
        await store.write(entry("a"))
        store.lose()
        await store.write(entry("b"))
        await store.delete(GLOBAL, "a")
        await store.clear_partition(GLOBAL)
        await store.clear()
        assert await store.read(GLOBAL, "a") is None
        assert list(await store.keys(GLOBAL)) == []
        assert await inner.keys(GLOBAL) == ["a"]
        store.heal()
        assert await store.read(GLOBAL, "a") == entry("a")

    asyncio.run(main())


def test_what_hangs_goes_on_once_it_is_healed() -> None:
    async def main() -> None:
        store = FlakyStore(MemoryStore())
        await store.write(entry())
        store.hang("reads")
        call = asyncio.create_task(store.read(GLOBAL, "k"))
        given_up = asyncio.create_task(store.read(GLOBAL, "k"))
        await asyncio.sleep(0)
        assert store.hanging == 2
        given_up.cancel()
        await asyncio.wait({given_up})
        assert store.hanging == 1
        store.heal()
        assert await call == entry()
        assert await store.read(GLOBAL, "k") == entry()
        assert store.hanging == 0

    asyncio.run(main())


def test_what_is_said_of_a_key_concerns_it_alone_and_the_last_word_counts() -> None:
    async def main() -> None:
        store = FlakyStore(MemoryStore())
        store.fail("reads", error=KeyError("all"))
        store.fail("read", error=PermissionError("one"), key="k", times=2)
        for error in (PermissionError, PermissionError, KeyError):
            with pytest.raises(error):
                await store.read(GLOBAL, "k")
        with pytest.raises(KeyError):
            await store.read(GLOBAL, "other")
        await store.write(entry())

    asyncio.run(main())


def test_a_delay_takes_virtual_seconds() -> None:
    clock = VirtualClock()

    async def main() -> None:
        store = FlakyStore(MemoryStore())
        store.delay(30, "removals")
        await store.delete(GLOBAL, "k")
        await store.write(entry())

    run(main(), clock=clock)

    assert clock() == 30.0


def test_a_row_of_faults_is_taken_one_a_call() -> None:
    async def main() -> None:
        store = FlakyStore(MemoryStore(), [None, Fault.FAIL, OSError("disk")])
        await store.write(entry())
        with pytest.raises(StoreFault):
            await store.read(GLOBAL, "k")
        with pytest.raises(OSError, match="disk"):
            await store.read(GLOBAL, "k")
        assert await store.read(GLOBAL, "k") == entry()

    asyncio.run(main())


def test_a_function_says_what_becomes_of_a_call() -> None:
    async def main() -> None:
        store = FlakyStore(MemoryStore(), lambda asked: Fault.LOSE if asked.owner == SESSION_OWNER else None)
        for owner in (GLOBAL, SESSION_OWNER):
            await store.write(StoredEntry(owner, "k", 1, False, 0.0, None, None))  # noqa: FBT003 (not a failure)
        assert list(await store.keys(GLOBAL)) == ["k"]
        assert [(asked.operation, asked.owner) for asked in store.asked_for("writes")] == [
            ("write", GLOBAL),
            ("write", SESSION_OWNER),
        ]

    asyncio.run(main())


def test_an_operation_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="'reed' is no operation of a store, and no group: claim, clear"):
        FlakyStore(MemoryStore()).fail("reed")


@pytest.mark.parametrize("fault", [Fault.FAIL, Fault.FAIL_AFTER, Fault.LOSE])
@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_every_operation_of_a_shared_store_can_go_wrong(operation: str, fault: Fault, tmp_path: Path) -> None:
    """And is counted, and leaves the store usable."""

    async def main() -> None:
        store: Any = FlakyStore(SqliteStore(tmp_path / "cache.db"))
        claim = await store.claim(GLOBAL, "k", waits=False)
        calls = {
            "read": lambda: store.read(GLOBAL, "k"),
            "read_many": lambda: store.read_many([(GLOBAL, "k")]),
            "keys": lambda: store.keys(GLOBAL),
            "claim": lambda: store.claim(GLOBAL, "other", waits=False),
            "write": lambda: store.write(encoded()),
            "commit": lambda: store.commit(encoded(), claim),
            "release": lambda: store.release(claim),
            "delete": lambda: store.delete(GLOBAL, "k"),
            "clear_partition": lambda: store.clear_partition(GLOBAL),
            "clear": store.clear,
            "mark_tag": lambda: store.mark_tag(None, "red", None),
            "flush": store.flush,
        }
        assert set(calls) == OPERATIONS
        {Fault.FAIL: store.fail, Fault.LOSE: store.lose}.get(fault, lambda *named: store.fail(*named, after=True))(
            operation
        )
        try:
            if fault is Fault.LOSE:
                assert not await calls[operation]() or operation in {"claim", "commit", "read_many"}
            else:
                with pytest.raises(StoreFault, match=f"^{operation} "):
                    await calls[operation]()
            assert len(store.asked_for(operation)) == (2 if operation == "claim" else 1)
            store.heal()
            await calls[operation]()
        finally:
            await store.aclose()

    asyncio.run(main())


def test_a_commit_that_is_lost_gives_up_its_lease(tmp_path: Path) -> None:
    async def main() -> None:
        store: Any = FlakyStore(SqliteStore(tmp_path / "cache.db"))
        try:
            claim = await store.claim(GLOBAL, "k", waits=False)
            store.lose("commit", times=1)
            assert await store.commit(encoded(), claim) is True
            assert await store.read(GLOBAL, "k") is None
            next_claim: Claim = await asyncio.wait_for(store.claim(GLOBAL, "k", waits=True), 2.0)
            assert next_claim.found is None
        finally:
            await store.aclose()

    asyncio.run(main())


def encoded() -> StoredEntry:
    from cachemesh.shell.ports import Encoded  # noqa: PLC0415 (for this one alone)

    return entry(value=Encoded(b"1"))


# What a cache makes of them


def test_a_store_that_fails_costs_no_answer(face: Face) -> None:
    store = FlakyStore(MemoryStore())
    store.fail()
    origin = ScriptedOrigin()
    cache = face.new(store=store)
    fetch = origin.fetcher("k") if face.name == "async" else origin.sync_fetcher("k")

    assert [cache.get("k", fetch) for _ in range(2)] == [Success("k #1")] * 2
    assert_one_flight(origin)
    cache.close()


def test_a_store_that_hangs_costs_time_alone() -> None:
    clock = VirtualClock()

    async def main() -> None:
        store = FlakyStore(MemoryStore())
        store.hang("reads")
        async with Cache(clock=clock, store=store) as cache:
            assert await cache.get("k", ScriptedOrigin().fetcher("k")) == Success("k #1")
            assert store.hanging == 0, "it was given up"

    run(main(), clock=clock)

    assert 0 < clock() < 60


# A store in which chance decides


def fates(store: ChaosStore, calls: int = 200) -> list[tuple[int, Any]]:
    async def main() -> None:
        for number in range(calls):
            try:
                await (store.read(GLOBAL, "k") if number % 2 else store.delete(GLOBAL, "k"))
            except StoreFault:
                continue

    run(main())
    return [(asked.number, fault) for asked, fault in store.faults]


def test_a_seed_repeats_itself_and_another_one_does_not() -> None:
    one, same, other = (ChaosStore(MemoryStore(), seed=seed, delay=0.2) for seed in (1, 1, 2))

    assert fates(one) == fates(same) != fates(other)
    assert repr(one).endswith(f"seed=1, {len(one.faults)} faults in 200 calls)")


def test_each_share_comes_about_as_often_as_it_says() -> None:
    store = ChaosStore(MemoryStore(), seed=3, fail=0.2, fail_after=0.1, lose=0.1, delay=0.3, longest_s=9.0)
    faults = [fault for _, fault in fates(store, 4000)]

    assert 700 < faults.count(Fault.FAIL) < 900
    assert 300 < faults.count(Fault.FAIL_AFTER) < 500
    assert 130 < faults.count(Fault.LOSE) < 270, "of reads alone"
    delays = [fault for fault in faults if not isinstance(fault, Fault)]
    assert 1050 < len(delays) < 1350
    assert all(isinstance(delay, float) and 0.0 <= delay <= 9.0 for delay in delays)


def test_a_removal_is_never_lost_without_a_word() -> None:
    store = ChaosStore(MemoryStore(), fail=0.0, fail_after=0.0, lose=1.0)

    assert {asked.operation for asked, _ in store.faults} == set()
    assert {number % 2 for number, _ in fates(store)} == {0}, "the reads"


def test_only_the_operations_that_are_named_go_wrong() -> None:
    store = ChaosStore(MemoryStore(), fail=1.0, fail_after=0.0, lose=0.0, operations=["removals"])

    assert fates(store, 4) == [(1, Fault.FAIL), (3, Fault.FAIL)]
    store.heal()
    assert len(fates(store, 4)) == 2


@pytest.mark.parametrize("shares", [{"fail": -0.1}, {"fail": 0.5, "hang": 0.6}, {"lose": float("nan")}])
def test_shares_that_make_no_sense_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="shares are not negative, and at most 1 in all"):
        ChaosStore(MemoryStore(), **shares)  # type: ignore[arg-type]  # `operations` is no share


@pytest.mark.parametrize("seed", range(20))
def test_whatever_a_store_does_answers_are_right(seed: int) -> None:
    """Whoever invalidates reads what is newer than that, however the store fares."""
    clock = VirtualClock()
    store = ChaosStore(MemoryStore(), seed=seed, fail=0.2, fail_after=0.2, lose=0.1, hang=0.05, delay=0.1)

    async def main() -> None:
        origin = ScriptedOrigin(clock=clock)
        async with Cache(clock=clock, store=store) as cache:
            for round_ in range(1, 11):
                cache.invalidate("k")
                answers = await asyncio.gather(*(cache.get("k", origin.fetcher("k")) for _ in range(3)))
                assert answers == [Success(f"k #{round_}")] * 3, store
            assert_one_flight(origin, "k", times=10)
            store.heal()

    run(main(), clock=clock)
    assert store.faults


def test_a_failure_is_a_failure_in_any_weather(face: Face) -> None:
    cache = face.new(store=ChaosStore(MemoryStore(), seed=5, fail=0.5))
    origin = ScriptedOrigin(Failure("no"))
    fetch = origin.fetcher("k") if face.name == "async" else origin.sync_fetcher("k")

    assert {str(cache.get("k", fetch)) for _ in range(20)} == {str(Failure("no"))}
    cache.close()


def test_a_threaded_cache_takes_one_as_well() -> None:
    store = ChaosStore(MemoryStore(), seed=2, fail=0.5)
    with SyncCache(store=store) as cache:
        origin = ScriptedOrigin()
        answers = {cache.get("k", origin.sync_fetcher("k")) for _ in range(10)}

    assert answers == {Success("k #1")}


def test_what_is_no_fault_is_refused_at_once() -> None:
    """It would otherwise be found out in the middle of a call, which a cache takes for a fault of the store."""
    store = FlakyStore(MemoryStore())
    forgotten: Any = "reads"
    kind: Any = ValueError
    with pytest.raises(TypeError, match="a fault is"):
        store.delay(forgotten)
    with pytest.raises(TypeError, match="a fault is"):
        store.fail("reads", error=kind)
    for seconds in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="seconds"):
            store.delay(seconds, "reads")
    with pytest.raises(ValueError, match="times"):
        store.fail("reads", times=-1)
