"""The reference store: a dict with the manners of a database."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field, TypeAdapter

if TYPE_CHECKING:
    from collections.abc import Collection

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.ports import StoredEntry

_MAX_ENTRIES: Final[TypeAdapter[int | None]] = TypeAdapter(Annotated[int, Field(strict=True, ge=1)] | None)


class MemoryStore:
    """Keeps entries for as long as the process lives; for tests, and for caches that share one second level.

    `max_entries`: above so many, what was written longest ago leaves; None is
    unbounded. A bound that makes no sense raises pydantic's `ValidationError`.
    Values are kept, not copied. Safe to use from several event loops and threads.

    >>> import asyncio
    >>> from cachemesh.core.scopes import GLOBAL_OWNER
    >>> from cachemesh.shell.ports import StoredEntry
    >>> store = MemoryStore(max_entries=1)
    >>> for key in ("a", "b"):
    ...     entry = StoredEntry(GLOBAL_OWNER, key, 1, is_failure=False, created_at=0.0, ttl_s=None, expires_at=None)
    ...     asyncio.run(store.write(entry))
    >>> asyncio.run(store.keys(GLOBAL_OWNER))
    ['b']
    """

    def __init__(self, *, max_entries: int | None = 65_536) -> None:
        self._max_entries = _MAX_ENTRIES.validate_python(max_entries)
        self._entries: OrderedDict[tuple[Owner, str], StoredEntry] = OrderedDict()
        self._keys: dict[Owner, dict[str, None]] = {}
        self._lock = threading.Lock()

    async def read(self, owner: Owner, key: str) -> StoredEntry | None:
        """The entry last written under (owner, key), expired or not."""
        return self._entries.get((owner, key))

    async def write(self, entry: StoredEntry) -> None:
        """Keep `entry` in place of what was there."""
        place = (entry.owner, entry.key)
        with self._lock:
            self._entries[place] = entry
            self._entries.move_to_end(place)
            self._keys.setdefault(entry.owner, {})[entry.key] = None
            if self._max_entries is not None and len(self._entries) > self._max_entries:
                self._unlist(*self._entries.popitem(last=False)[0])

    async def delete(self, owner: Owner, key: str) -> None:
        """Forget what is under (owner, key), if anything is."""
        with self._lock:
            if self._entries.pop((owner, key), None) is not None:
                self._unlist(owner, key)

    async def clear_partition(self, owner: Owner) -> None:
        """Forget all of one owner."""
        with self._lock:
            for key in self._keys.pop(owner, ()):
                del self._entries[owner, key]

    async def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._keys.clear()

    async def keys(self, owner: Owner) -> Collection[str]:
        """The keys of one owner, in the order of their first writing."""
        with self._lock:
            return list(self._keys.get(owner, ()))

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"MemoryStore({len(self)} entries, max_entries={self._max_entries})"

    def _unlist(self, owner: Owner, key: str) -> None:
        keys = self._keys[owner]
        del keys[key]
        if not keys:
            del self._keys[owner]
