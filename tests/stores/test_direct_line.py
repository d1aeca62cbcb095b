"""The line in front of a shared store that is near: what goes past it, and what waits in it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from cachemesh.core.scopes import GLOBAL_OWNER, Owner
from cachemesh.errors import CacheError, StoreFailed
from cachemesh.shell.health import COOL_DOWN_S, TIMEOUT_S
from cachemesh.shell.ports import Change, Claim, DirectStore
from cachemesh.shell.store_call import StoreCall
from cachemesh.shell.store_line import StoreLine
from cachemesh.stores import MemoryStore
from cachemesh.testing import run
from cachemesh.testing.store_contract import an_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cachemesh.shell.ports import StoredEntry


class NearStore(MemoryStore):
    """Notes in `done` what it was asked, in order. It is full, fails, or is slow to delete, where a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []
        self.is_full = False
        self.takes_s = 0.0
        self.faults: dict[str, Exception] = {}
        self.accepts = True

    async def _do(self, operation: str) -> None:
        if operation == "delete":
            await asyncio.sleep(self.takes_s)
        self.done.append(operation)
        if operation in self.faults:
            raise self.faults[operation]

    async def delete(self, owner: Owner, key: str) -> None:
        await self._do("delete")
        await super().delete(owner, key)

    async def read_many(self, places: Sequence[tuple[Owner, str]], /) -> Sequence[StoredEntry | None]:
        return [await self.read(owner, key) for owner, key in places]

    async def claim(
        self,
        owner: Owner,
        key: str,
        *,
        waits: bool,  # noqa: ARG002 (nobody else is there)
        knows_none: bool = False,  # noqa: ARG002 (as above)
    ) -> Claim:
        await self._do("claim")
        return Claim(owner, key, 1)

    async def commit(self, entry: StoredEntry, claim: Claim) -> bool:  # noqa: ARG002 (`accepts` decides)
        await self._do("commit")
        if self.accepts:
            await self.write(entry)
        return self.accepts

    async def release(self, claim: Claim) -> None:  # noqa: ARG002 (there is no lease)
        await self._do("release")

    async def mark_tag(self, owner: Owner | None, tag: str, stale_at: float | None) -> None:  # noqa: ARG002 (noted)
        await self._do("mark_tag")

    async def flush(self) -> None:
        self.done.append("flush")

    async def aclose(self) -> None:
        self.done.append("aclose")

    def read_now(self, owner: Owner, key: str) -> StoredEntry | None:
        if "read_now" in self.faults:
            raise self.faults["read_now"]
        return self._entries.get((owner, key))

    def enqueue(self, change: Change, overtaken: Callable[[], object] | None = None) -> bool:
        if "enqueue" in self.faults:
            raise self.faults["enqueue"]
        if not self.is_full:
            self.done.append(f"enqueue {change.operation}")
            if change.operation == "commit" and not self.accepts:
                assert overtaken is not None
                overtaken()
        return not self.is_full


DELETE = Change("delete", GLOBAL_OWNER, "k")
MARK = Change("mark_tag", tag="t")
CLAIM = Claim(GLOBAL_OWNER, "k", 1)
COMMIT = Change("commit", GLOBAL_OWNER, "k", an_entry(), CLAIM)
RELEASE = Change("release", GLOBAL_OWNER, "k", claim=CLAIM)


class Line(StoreLine):
    def __init__(self, store: NearStore) -> None:
        self.lock = threading.RLock()
        self.heard: list[tuple[str, CacheError]] = []
        self.overtaken: list[tuple[Owner, str]] = []
        super().__init__(
            store,
            self.lock,
            lambda key, error: self.heard.append((key, error)),
            lambda owner, key: self.overtaken.append((owner, key)),
        )

    def change(self, change: Change) -> StoreCall | None:
        with self.lock:
            return self.order(change)


def test_what_a_near_store_takes_at_once_nobody_waits_for() -> None:
    store = NearStore()
    assert isinstance(store, DirectStore)
    line = Line(store)

    assert [line.change(change) for change in (DELETE, MARK, RELEASE, COMMIT)] == [None] * 4

    assert store.done == ["enqueue delete", "enqueue mark_tag", "enqueue release", "enqueue commit"]
    assert not line.is_busy


def test_a_full_queue_sends_a_change_into_the_line_and_those_after_it() -> None:
    store = NearStore()
    line = Line(store)
    store.is_full = True

    async def main() -> None:
        assert line.change(DELETE) is not None
        store.is_full = False
        assert line.change(MARK) is not None
        await line.drain()
        assert line.change(DELETE) is None

    run(main())
    assert store.done == ["delete", "mark_tag", "enqueue delete"]


def test_a_near_store_that_raises_is_called_and_told_of_as_any_other() -> None:
    store = NearStore()
    line = Line(store)
    store.faults = {"enqueue": OSError("queue"), "read_now": OSError("disk")}

    async def main() -> None:
        assert line.change(DELETE) is not None
        await line.drain()

    run(main())
    assert store.done == ["delete"]
    assert line.read_now(GLOBAL_OWNER, "k") is None
    assert line.heard == [("k", StoreFailed("read", OSError("disk")))]


def test_whether_a_commit_was_overtaken_is_heard() -> None:
    store = NearStore()
    line = Line(store)

    assert line.change(COMMIT) is None
    assert line.overtaken == []
    store.accepts = False
    assert line.change(COMMIT) is None

    assert line.overtaken == [(GLOBAL_OWNER, "k")]


def test_also_of_one_that_had_to_wait_in_the_line() -> None:
    store = NearStore()
    line = Line(store)
    store.is_full = True

    async def main() -> None:
        assert line.change(COMMIT) is not None
        await line.drain()
        assert line.overtaken == []
        store.accepts = False
        line.change(COMMIT)
        await line.drain()

    run(main())
    assert line.overtaken == [(GLOBAL_OWNER, "k")]


@pytest.mark.parametrize(
    ("change", "accepts", "settles"), [(COMMIT, True, True), (COMMIT, False, False), (RELEASE, True, False)]
)
def test_only_what_was_kept_settles_a_doubt(change: Change, accepts: bool, settles: bool) -> None:
    store = NearStore()
    line = Line(store)
    store.accepts = accepts
    store.faults["delete"] = OSError()

    async def main() -> None:
        line.doubts.add(StoreCall(DELETE), 0)
        line.change(change)
        await line.make_calls()

    run(main())
    assert bool(line.doubts) is not settles


def test_a_lease_that_could_not_be_given_up_leaves_no_doubt() -> None:
    store = NearStore()
    line = Line(store)
    store.is_full, store.faults["release"] = True, OSError()

    async def main() -> None:
        line.change(RELEASE)
        await line.drain()

    run(main())
    assert not line.doubts
    assert line.heard == [("k", StoreFailed("release", OSError()))]


def test_a_mark_that_failed_is_made_up_for_by_clearing() -> None:
    store = NearStore()
    line = Line(store)
    store.is_full, store.faults["mark_tag"] = True, OSError()

    async def main() -> None:
        await store.write(an_entry())
        line.change(MARK)
        await line.make_calls()
        assert not line.believes(GLOBAL_OWNER, "k")
        await line.drain()

    run(main())
    assert not line.doubts
    assert len(store) == 0


def test_a_claim_does_not_overtake_a_removal() -> None:
    """Else the removal would refuse what was fetched after it."""
    store = NearStore()
    line = Line(store)
    store.is_full, store.takes_s = True, 0.1

    async def main() -> None:
        line.change(DELETE)
        drain = asyncio.ensure_future(line.drain())
        await asyncio.sleep(0)
        assert await line.claim(GLOBAL_OWNER, "k", waits=True) == CLAIM
        await drain

    run(main())
    assert store.done == ["delete", "claim"]


def test_flush_waits_for_what_is_under_way() -> None:
    store = NearStore()
    line = Line(store)
    store.is_full, store.takes_s = True, 0.1

    async def main() -> None:
        line.change(DELETE)
        drain = asyncio.ensure_future(line.drain())
        await asyncio.sleep(0.05)
        assert await line.flush() is None
        assert store.done == ["delete", "flush"]
        await drain

    run(main())


def test_flush_says_what_the_store_has_missed() -> None:
    store = NearStore()
    line = Line(store)
    store.is_full, store.faults["delete"] = True, OSError()

    async def main() -> None:
        line.change(DELETE)
        assert isinstance(await line.flush(), StoreFailed)
        assert "flush" not in store.done
        store.faults.clear()
        await asyncio.sleep(COOL_DOWN_S + TIMEOUT_S)
        assert await line.flush() is None

    run(main())
    assert store.done[-1] == "flush"
