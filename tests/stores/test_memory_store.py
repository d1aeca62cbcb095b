"""`MemoryStore` keeps the store contract, its own bound, and order among threads."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from cachemesh.core.scopes import GLOBAL_OWNER, SESSION_OWNER
from cachemesh.stores import MemoryStore
from cachemesh.testing import StoreContract
from cachemesh.testing.store_contract import an_entry
from tests.stores.sizes import tries

if TYPE_CHECKING:
    from cachemesh.shell.ports import Store


class TestMemoryStore(StoreContract):
    examples = tries(50)

    def make_store(self) -> Store:
        return MemoryStore()


class TestBoundedMemoryStore(StoreContract):
    """A bound that is never reached changes nothing."""

    examples = tries(10)

    def make_store(self) -> Store:
        return MemoryStore(max_entries=1_000)


def written(store: MemoryStore, *keys: str) -> None:
    for key in keys:
        asyncio.run(store.write(an_entry(key=key)))


def keys_of(store: MemoryStore) -> list[str]:
    return sorted(asyncio.run(store.keys(GLOBAL_OWNER)))


def test_what_was_written_longest_ago_leaves_first() -> None:
    store = MemoryStore(max_entries=2)

    written(store, "a", "b", "c")

    assert keys_of(store) == ["b", "c"]
    assert len(store) == 2


def test_written_again_is_written_lately() -> None:
    store = MemoryStore(max_entries=2)

    written(store, "a", "b", "a", "c")

    assert keys_of(store) == ["a", "c"]


def test_reading_keeps_nothing_from_leaving() -> None:
    store = MemoryStore(max_entries=2)
    written(store, "a", "b")

    assert asyncio.run(store.read(GLOBAL_OWNER, "a")) is not None
    written(store, "c")

    assert keys_of(store) == ["b", "c"]


def test_the_bound_is_for_all_owners_together() -> None:
    store = MemoryStore(max_entries=1)
    written(store, "a")

    asyncio.run(store.write(an_entry(owner=SESSION_OWNER)))

    assert keys_of(store) == []
    assert list(asyncio.run(store.keys(SESSION_OWNER))) == ["k"]


def test_none_is_unbounded() -> None:
    store = MemoryStore(max_entries=None)

    async def fill() -> None:
        for number in range(70_000):
            await store.write(an_entry(key=str(number)))

    asyncio.run(fill())
    assert len(store) == 70_000


@pytest.mark.parametrize("bound", [0, -1, True, 1.5, "10"])
def test_a_bound_that_makes_no_sense_is_refused(bound: object) -> None:
    with pytest.raises(ValidationError):
        MemoryStore(max_entries=bound)  # type: ignore[arg-type]


def test_threads_may_share_it() -> None:
    """Each in a loop of its own, writing, clearing and listing at once."""
    store = MemoryStore(max_entries=50)
    errors: list[BaseException] = []

    async def use(number: int) -> None:
        owner = (GLOBAL_OWNER, SESSION_OWNER)[number % 2]
        for step in range(300):
            key = f"{number}:{step % 20}"
            await store.write(an_entry(owner=owner, key=key))
            await store.read(owner, key)
            await store.keys(owner)
            if step % 7 == 0:
                await store.delete(owner, key)
            if step % 50 == 0:
                await store.clear_partition(owner)

    def run(number: int) -> None:
        try:
            asyncio.run(use(number))
        except BaseException as error:  # noqa: BLE001 (shown below)
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    kept = [len(asyncio.run(store.keys(owner))) for owner in (GLOBAL_OWNER, SESSION_OWNER)]
    assert sum(kept) == len(store) <= 50
