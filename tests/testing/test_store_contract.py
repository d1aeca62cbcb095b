"""The store contract finds a store that loses part of what it was handed, and passes one that does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from cachemesh.stores import MemoryStore
from cachemesh.testing import StoreContract

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from cachemesh.core import Owner
    from cachemesh.shell.ports import StoredEntry


class CarelessStore(MemoryStore):
    """Keeps what `keeps` makes of an entry, with what was there before."""

    def __init__(self, keeps: Callable[[StoredEntry, StoredEntry | None], StoredEntry]) -> None:
        super().__init__()
        self.keeps = keeps

    async def write(self, entry: StoredEntry) -> None:
        await super().write(self.keeps(entry, await self.read(entry.owner, entry.key)))


class ViewingStore(MemoryStore):
    """Answers its very keys."""

    async def keys(self, owner: Owner) -> Collection[str]:
        return self._keys.get(owner, {}).keys()


class PagingStore(MemoryStore):
    """Answers the first page of its keys."""

    async def keys(self, owner: Owner) -> Collection[str]:
        return list(await super().keys(owner))[:100]


def contract_on(made: Callable[[], Any]) -> StoreContract:
    contract = StoreContract()
    contract.make_store = made  # type: ignore[method-assign]  # in the place of a subclass
    return contract


def all_of(entry: StoredEntry, before: StoredEntry | None) -> StoredEntry:
    del before
    return entry


CARELESS: dict[str, Callable[[StoredEntry, StoredEntry | None], StoredEntry]] = {
    "no tags": lambda entry, _: replace(entry, tags=()),
    "sorted tags": lambda entry, _: replace(entry, tags=tuple(sorted(entry.tags))),
    "tags in one text": lambda entry, _: replace(entry, tags=tuple(",".join(entry.tags).split(","))),
    "tags of the last one": lambda entry, before: replace(entry, tags=(before.tags if before else ()) + entry.tags),
    "no validator": lambda entry, _: replace(entry, validator=None),
    "validator of the last one": lambda entry, before: replace(
        entry, validator=entry.validator or (before and before.validator)
    ),
    "no start of its ageing": lambda entry, _: replace(entry, ageing_at=None),
    "whole milliseconds": lambda entry, _: replace(entry, ageing_at=entry.ageing_at and round(entry.ageing_at, 3)),
    "no window": lambda entry, _: replace(entry, serve_stale_s=None),
    "no window for errors": lambda entry, _: replace(entry, stale_if_error_s=None),
    "no empty window": lambda entry, _: replace(entry, stale_if_error_s=entry.stale_if_error_s or None),
    "an empty window for none": lambda entry, _: replace(entry, serve_stale_s=entry.serve_stale_s or 0.0),
}


@pytest.mark.parametrize("loses", CARELESS)
def test_a_store_that_loses_something_is_found(loses: str) -> None:
    contract = contract_on(lambda: CarelessStore(CARELESS[loses]))
    with pytest.raises(AssertionError):
        contract.test_what_belongs_to_a_value_travels_with_it()


def test_a_store_that_answers_its_very_keys_or_some_of_them_is_found() -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        contract_on(ViewingStore).test_the_keys_that_were_answered_do_not_change()
    with pytest.raises(AssertionError):
        contract_on(PagingStore).test_concurrent_writings_of_many_keys_are_all_kept()


def test_a_store_that_loses_nothing_passes() -> None:
    contract = contract_on(lambda: CarelessStore(all_of))
    contract.test_what_belongs_to_a_value_travels_with_it()
    contract.test_the_keys_that_were_answered_do_not_change()
    contract.test_concurrent_writings_of_many_keys_are_all_kept()
