# mypy: no-warn-unused-ignores, disable-error-code="arg-type"
"""The line in front of the store: order, doubts, and what happens to it when loops and calls end in odd places."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from cachemesh.core.scopes import GLOBAL_OWNER, CacheScope, Owner
from cachemesh.errors import CacheError, StoreFailed
from cachemesh.shell import doubts, store_line
from cachemesh.shell.health import LONGEST_REST_S, TIMEOUT_S
from cachemesh.shell.ports import Change
from cachemesh.shell.store_call import StoreCall
from cachemesh.shell.store_line import StoreLine
from cachemesh.shell.store_reads import Read, Reads
from cachemesh.stores import MemoryStore
from cachemesh.testing import VirtualClock, VirtualLoop, run
from cachemesh.testing.store_contract import an_entry
from tests.stores.faulty import HANG, FaultyStore
from tests.stores.sizes import tries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachemesh.shell.ports import Store, StoredEntry

ALICE: Owner = (CacheScope.USER, "alice")


class Reading:
    """A read, and what it came to."""

    def __init__(self) -> None:
        self.done: Future[StoredEntry | None] = Future()

    @property
    def is_over(self) -> bool:
        return self.done.done()


class Line(StoreLine):
    """A line with a lock and a log of its own."""

    def __init__(self, store: Store) -> None:
        self.lock = threading.RLock()
        self.heard: list[tuple[str, CacheError]] = []
        self.reads: dict[object, Reads] = {}
        super().__init__(store, self.lock, lambda key, error: self.heard.append((key, error)))

    def ask(
        self, operation: str, key: str | None = "k", owner: Owner | None = GLOBAL_OWNER, value: object = None
    ) -> StoreCall:
        """Order a change."""
        entry = None
        if operation == "write":
            assert owner is not None
            assert key is not None
            entry = an_entry(owner=owner, key=key, value=value)
        if operation == "clear" and owner is not None:
            operation = "clear_partition"
        with self.lock:
            return self.append(StoreCall(Change(operation, owner, key, entry)))

    def read(self, key: str = "k", owner: Owner = GLOBAL_OWNER) -> Reading:
        """Ask for a read, in the running event loop."""
        reading = Reading()
        with self.lock:
            read = Read(owner, key, self.in_front_of_read(owner, key), reading.done.set_result)
        loop = asyncio.get_running_loop()
        self.reads.setdefault(loop, Reads(self)).add(read)
        if self.has_work(loop.time):  # As the drivers do.
            self.start(self.drain(), loop)
        return reading

    async def found(self, key: str = "k", owner: Owner = GLOBAL_OWNER) -> StoredEntry | None:
        """What a read finds."""
        reading = self.read(key, owner)
        await self.drain()
        return await asyncio.wrap_future(reading.done)

    async def settle(self) -> None:
        """Wait for all that is under way."""
        await self.drain()
        for reads in self.reads.values():
            await asyncio.sleep(0)
            await asyncio.gather(*reads.tasks, return_exceptions=True)

    @property
    def is_empty(self) -> bool:
        reading = any(reads.tasks for reads in self.reads.values())
        return not (self._waiting or self._unfinished or self._last or self.doubts or self._tasks or reading)


# Whatever happens: a read never shows what the line has heard removed or overwritten

Fault = Literal["none", "raise", "raise late", "hang", "hang late"]


class Step(Struct, frozen=True):
    operation: str
    owner: Owner | None
    key: str | None
    takes_s: float
    fault: Fault
    then_s: float
    kick: bool
    cancel: bool


class ScriptedStore(MemoryStore):
    """Each call takes a while and may fail, before or after it has acted."""

    def __init__(self) -> None:
        super().__init__()
        self.script: list[tuple[float, Fault]] = []

    async def _act(self, act: Any) -> Any:
        takes_s, fault = self.script.pop() if self.script else (0.0, "none")
        if takes_s:
            await asyncio.sleep(takes_s)
        if fault == "raise":
            raise OSError
        if fault == "hang":
            await asyncio.get_running_loop().create_future()
        answer = await act
        if fault == "raise late":
            raise OSError
        if fault == "hang late":
            await asyncio.get_running_loop().create_future()
        return answer

    async def _do(self, act: Any) -> Any:
        try:
            return await self._act(act)
        finally:
            act.close()

    async def read(self, owner: Owner, key: str) -> StoredEntry | None:
        found: StoredEntry | None = await self._do(super().read(owner, key))
        return found

    async def write(self, entry: StoredEntry) -> None:
        await self._do(super().write(entry))

    async def delete(self, owner: Owner, key: str) -> None:
        await self._do(super().delete(owner, key))

    async def clear_partition(self, owner: Owner) -> None:
        await self._do(super().clear_partition(owner))

    async def clear(self) -> None:
        await self._do(super().clear())


def steps(faults: tuple[Fault, ...], *, cancels: bool) -> st.SearchStrategy[list[Step]]:
    places = st.sampled_from(
        [
            *(("read", owner, key) for owner in (GLOBAL_OWNER, ALICE) for key in "ab"),
            *(("write", owner, key) for owner in (GLOBAL_OWNER, ALICE) for key in "ab"),
            *(("delete", owner, key) for owner in (GLOBAL_OWNER, ALICE) for key in "ab"),
            *(("clear", owner, None) for owner in (GLOBAL_OWNER, ALICE, GLOBAL_OWNER, ALICE)),
            ("clear", None, None),
        ]
    )
    step = st.builds(
        lambda place, takes_s, fault, then_s, kick, cancel: Step(
            place[0], place[1], place[2], takes_s, fault, then_s, kick, cancel
        ),
        places,
        st.sampled_from([0.0, 0.1, 0.5]),
        st.sampled_from(faults),
        st.sampled_from([0.0, 0.0, 0.2, 1.1, 2.5]),
        st.booleans(),
        st.booleans() if cancels else st.just(False),  # noqa: FBT003
    )
    return st.lists(step, max_size=25)


def play(story: list[Step], *, strict: bool) -> None:  # noqa: C901 (one story, told once)
    """Tell the line `story`, and hold what it reads against a dict.

    Whoever reads does not take what has been changed since: so a change may overtake it.
    """
    store = ScriptedStore()
    line = Line(store)
    store.script = [(step.takes_s, step.fault) for step in reversed(story)]
    model: dict[tuple[Owner, str], int] = {}
    reading: dict[tuple[Owner, str], list[tuple[Reading, int | None]]] = {}
    wrong: list[object] = []

    def look(place: tuple[Owner, str], asked: list[tuple[Reading, int | None]], *, at_last: bool = False) -> None:
        for each, expected in asked:
            if at_last or each.is_over:
                entry = each.done.result(0)
                found = None if entry is None else entry.value
                if not (found == expected if strict else found in (None, expected)):
                    wrong.append((place, found, expected))

    def change(step: Step, number: int) -> None:
        for place in [*model, *reading]:
            if (step.owner is None or place[0] == step.owner) and (step.key is None or place[1] == step.key):
                model.pop(place, None)
                look(place, reading.pop(place, []))
        if step.operation == "write":
            model[step.owner, step.key] = number  # type: ignore[index]
        line.ask(step.operation, step.key, step.owner, number)

    async def tell() -> None:
        drains: list[asyncio.Task[None]] = []
        for number, step in enumerate(story):
            if step.operation == "read":
                assert step.owner is not None
                assert step.key is not None
                place = (step.owner, step.key)
                reading.setdefault(place, []).append((line.read(step.key, step.owner), model.get(place)))
            else:
                change(step, number)
            if step.kick:
                drains.append(asyncio.ensure_future(line.drain()))
            if step.cancel and drains:
                drains[-1].cancel()
            await asyncio.sleep(step.then_s)
        store.script.clear()
        for _ in range(6):
            await line.settle()
            await asyncio.sleep(LONGEST_REST_S + TIMEOUT_S)
        await asyncio.gather(*drains, return_exceptions=True)
        for place, number in model.items():
            reading.setdefault(place, []).append((line.read(place[1], place[0]), number))
        await line.settle()

    run(tell())

    for place, asked in reading.items():
        look(place, asked, at_last=True)
    assert wrong == []
    for place, kept in store._entries.items():
        assert model.get(place) == kept.value, f"stale: {place}"
    assert line.is_empty


@given(steps(("none",), cancels=True))
@settings(max_examples=tries(100), deadline=None)
def test_reads_and_changes_are_those_of_a_dict(story: list[Step]) -> None:
    play(story, strict=True)


@given(steps(("none", "none", "raise", "raise late", "hang", "hang late"), cancels=True))
@settings(max_examples=tries(150), deadline=None)
def test_whatever_fails_nothing_stale_is_ever_read(story: list[Step]) -> None:
    play(story, strict=False)


# Order


def test_calls_on_different_keys_run_at_the_same_time() -> None:
    store = FaultyStore()
    line = Line(store)
    store.faults["read"] = HANG

    async def main() -> None:
        asked = [line.read(str(number)) for number in range(50)]
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        await loop.settle()
        assert store.hanging == 50
        await line.settle()
        assert all(each.is_over for each in asked)

    run(main())
    assert line.is_empty


def test_one_owner_that_is_cleared_does_not_wait_for_another() -> None:
    store = FaultyStore()
    line = Line(store)
    store.faults["write"] = HANG

    async def main() -> None:
        line.ask("write", value=1)
        drain = asyncio.ensure_future(line.drain())
        await asyncio.sleep(0.1)
        clearing = line.ask("clear", None, ALICE)
        await asyncio.gather(line.drain())
        assert clearing.is_over
        assert store.hanging == 1
        await drain

    run(main())


def test_a_store_that_cannot_be_cancelled_is_left_behind() -> None:
    clock = VirtualClock()
    waits: list[float] = []

    class Stubborn(MemoryStore):
        async def read(self, owner: Owner, key: str) -> StoredEntry | None:  # noqa: ARG002 (it answers nothing)
            for _ in range(5):
                try:
                    await asyncio.sleep(10)
                except asyncio.CancelledError:
                    waits.append(clock())
            return None

    line = Line(Stubborn())

    async def main() -> None:
        assert await line.found() is None
        assert clock() == TIMEOUT_S
        await asyncio.sleep(100)

    run(main(), clock=clock)
    assert waits == [TIMEOUT_S]
    assert [str(error) for _, error in line.heard] == ["StoreFailed('read', TimeoutError)"]


def test_a_writing_that_comes_through_after_it_was_given_up_is_not_believed() -> None:
    store = MemoryStore()

    class Late(MemoryStore):
        async def read(self, owner: Owner, key: str) -> StoredEntry | None:
            return await store.read(owner, key)

        async def delete(self, owner: Owner, key: str) -> None:
            await store.delete(owner, key)

        async def write(self, entry: StoredEntry) -> None:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                await asyncio.sleep(10)
            await store.write(entry)

    line = Line(Late())

    async def main() -> None:
        line.ask("write", value="late")
        await line.drain()
        await asyncio.sleep(2)
        line.ask("delete")
        await line.drain()
        await asyncio.sleep(20)
        assert await store.read(GLOBAL_OWNER, "k") is not None
        assert await line.found() is None
        await line.drain()
        assert await store.read(GLOBAL_OWNER, "k") is None

    run(main())
    assert line.is_empty


@pytest.mark.parametrize(
    "removal", [("clear", None, GLOBAL_OWNER), ("clear", None, None), ("delete", "k", GLOBAL_OWNER)]
)
def test_a_removal_does_not_overtake_a_slow_writing(removal: tuple[str, str | None, Owner | None]) -> None:
    store = ScriptedStore()
    store.script = [(0.0, "none"), (0.5, "none")]
    line = Line(store)

    async def main() -> None:
        line.ask("write", value=1)
        line.ask(*removal)
        await line.drain()

    run(main())
    assert len(store) == 0


@pytest.mark.parametrize("owner", [GLOBAL_OWNER, None])
def test_what_is_written_after_a_missed_clearing_is_kept(owner: Owner | None) -> None:
    """The clearing is made up for first."""
    line = Line(store := FaultyStore())
    store.faults = {"clear": OSError(), "clear_partition": OSError()}

    async def main() -> None:
        await store.write(an_entry(key="old"))
        line.ask("clear", None, owner)
        await line.drain()
        store.faults.clear()
        line.ask("write", "new", value="new")
        await line.drain()

    run(main())
    assert [key for _, key in store._entries] == ["new"]
    assert line.is_empty


# Loops that end


def test_a_cancelled_drain_leaves_its_calls_to_their_tasks() -> None:
    line = Line(MemoryStore())

    async def main() -> None:
        call = line.ask("write", value=1)
        drain = asyncio.ensure_future(line.drain())
        await asyncio.sleep(0)
        drain.cancel()
        await asyncio.sleep(0.1)
        assert call.is_over

    run(main())
    assert line.is_empty


def test_a_waiter_that_is_cancelled_cancels_no_call() -> None:
    store = FaultyStore()
    line = Line(store)

    async def main() -> None:
        call = line.ask("write", value=1)
        waiter = asyncio.wrap_future(call.done)
        waiter.cancel()
        await line.drain()
        assert call.done.result(0) is None

    run(main())
    assert len(store) == 1


@pytest.mark.parametrize("operation", ["write", "delete", "clear"])
def test_a_loop_that_ends_takes_its_calls_with_it_and_no_others(operation: str) -> None:
    """What it did not get to change is doubted; nobody waits for ever."""
    store = FaultyStore()
    line = Line(store)
    asyncio.run(store.write(an_entry(value="old")))
    store.faults = dict.fromkeys(("read", "write", "delete", "clear_partition"), HANG)

    async def ends() -> StoreCall:
        call = line.ask(operation, None if operation == "clear" else "k")
        drain = asyncio.ensure_future(line.drain())
        await asyncio.sleep(0.01)
        assert not drain.done()
        return call

    ended = run(ends())
    assert ended.is_over
    assert line.heard == []
    store.faults.clear()

    assert run(line.found()) is None
    run(line.drain())
    assert line.is_empty


def test_a_loop_that_is_closed_over_a_call_lets_nobody_wait() -> None:
    store = FaultyStore()
    line = Line(store)
    store.faults["write"] = HANG
    loop = asyncio.new_event_loop()

    async def begin() -> StoreCall:
        call = line.ask("write", value=1)
        task = asyncio.ensure_future(line.drain())
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        await asyncio.sleep(0.001)
        for each in line._tasks:
            each._log_destroy_pending = False  # type: ignore[attr-defined]
        return call

    call = loop.run_until_complete(begin())
    loop.close()
    line._tasks.clear()
    del loop
    gc.collect()
    store.faults.clear()

    assert call.done.result(0) is None
    asyncio.run(line.drain())
    assert "delete" in [each[0] for each in store.calls]


def test_calls_of_no_loop_are_made_by_the_next_one_that_comes() -> None:
    """`invalidate` may be called where no event loop runs."""
    line = Line(store := FaultyStore())

    call = line.ask("delete")
    assert line.has_work(lambda: 0.0)
    asyncio.run(line.drain())

    assert call.is_over
    assert store.calls == [("delete", GLOBAL_OWNER, "k")]


def test_calls_that_nobody_makes_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_line, "MOST_DOUBTS", 100)
    store = FaultyStore()
    line = Line(store)
    asyncio.run(store.write(an_entry(key="999")))

    for number in range(1_000):
        line.ask("delete", str(number))
    assert len(line._waiting) == 100
    asyncio.run(line.drain())

    assert len(store) == 0
    assert line.is_empty


def test_two_loops_do_not_make_each_others_calls() -> None:
    line = Line(store := FaultyStore())
    loops = [asyncio.new_event_loop() for _ in range(2)]
    made_in: list[object] = []
    write = store.write

    async def noting(entry: StoredEntry) -> None:
        made_in.append((entry.key, asyncio.get_running_loop()))
        await write(entry)

    store.write = noting  # type: ignore[method-assign]

    async def ask(key: str) -> StoreCall:
        return line.ask("write", key)

    async def drain() -> None:
        await line.drain()

    calls = [loop.run_until_complete(ask(str(number))) for number, loop in enumerate(loops)]
    for loop in loops:
        loop.run_until_complete(drain())
        loop.close()

    assert made_in == [("0", loops[0]), ("1", loops[1])]
    assert all(call.is_over for call in calls)


def test_many_doubts_become_one() -> None:
    """A store that is down for long costs a bounded memory."""
    line = Line(store := FaultyStore())
    store.faults["delete"] = OSError()

    async def main() -> None:
        for number in range(doubts.MOST_DOUBTS + 10):
            line.ask("delete", str(number))
            if number % 1_000 == 0:
                await line.drain()
        await line.drain()
        assert len(line.doubts) <= doubts.MOST_DOUBTS + 1
        store.faults.clear()
        await asyncio.sleep(LONGEST_REST_S + TIMEOUT_S)
        await line.drain()

    run(main())
    assert line.is_empty
    assert ("clear", None, None) in store.calls


def test_a_logger_that_raises_leaves_no_call_open() -> None:
    store = FaultyStore()
    store.faults = {"delete": OSError(), "write": HANG}
    lock = threading.RLock()

    def report(key: str, error: CacheError) -> None:
        raise LookupError(key, error)

    line = StoreLine(store, lock, report)

    async def main() -> Iterator[StoreCall]:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # noqa: ARG005
        changes = [Change("delete", GLOBAL_OWNER, "a"), Change("write", GLOBAL_OWNER, "b", an_entry(key="b"))]
        with lock:
            calls = [line.append(StoreCall(change)) for change in changes]
        await line.drain()
        return iter(calls)

    assert all(call.is_over for call in run(main()))


def test_a_failed_call_is_reported_once() -> None:
    line = Line(store := FaultyStore())
    store.faults["read"] = OSError("disk")

    run(line.found())
    assert line.heard == [("k", StoreFailed("read", OSError("disk")))]


def test_what_a_store_missed_is_made_up_for_where_nobody_asks_any_more() -> None:
    """All that is asked may be in memory: then no call would ever see to it."""
    clock = VirtualClock()
    store = FaultyStore()
    store.faults["delete"] = ConnectionError()
    line = Line(store)

    async def main() -> None:
        await store.write(an_entry(key="k"))
        line.order(Change("delete", GLOBAL_OWNER, "k"))
        await line.drain()
        await asyncio.sleep(30)
        assert await MemoryStore.read(store, GLOBAL_OWNER, "k") is not None
        del store.faults["delete"]
        await asyncio.sleep(2 * LONGEST_REST_S)
        assert await MemoryStore.read(store, GLOBAL_OWNER, "k") is None

    run(main(), clock=clock)
