"""A store of one's own: the contract is inherited, and pytest runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachemesh.testing import StoreContract

if TYPE_CHECKING:
    from collections.abc import Collection

    from cachemesh.core import Owner
    from cachemesh.shell.ports import Store, StoredEntry


class DictStore:
    """A dict of dicts."""

    def __init__(self) -> None:
        self.entries: dict[Owner, dict[str, StoredEntry]] = {}

    async def read(self, owner: Owner, key: str) -> StoredEntry | None:
        return self.entries.get(owner, {}).get(key)

    async def write(self, entry: StoredEntry) -> None:
        self.entries.setdefault(entry.owner, {})[entry.key] = entry

    async def delete(self, owner: Owner, key: str) -> None:
        self.entries.get(owner, {}).pop(key, None)

    async def clear_partition(self, owner: Owner) -> None:
        self.entries.pop(owner, None)

    async def clear(self) -> None:
        self.entries.clear()

    async def keys(self, owner: Owner) -> Collection[str]:
        return list(self.entries.get(owner, {}))


class TestDictStore(StoreContract):
    """All that a store promises; `examples` is the size of its random test."""

    examples = 20

    def make_store(self) -> Store:
        return DictStore()
