"""A warm start: memory is filled from the store, in the background, before anybody asks.

It gives way: a few entries at a time, a pause while somebody waits for the
store or the origin, an end as soon as memory is full. It drives nothing out and
overwrites nothing; what is removed or written meanwhile is not brought back,
also where that was ordered before the scan had begun.

Values are read with the schemas that the cache has met, or was told of by
`schemas`; what has another one is kept aside until its key is asked for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from cachemesh.errors import StoreFailed
from cachemesh.shell.hydration import read_all
from cachemesh.shell.ports import SharedStore
from cachemesh.shell.runtime import FULL
from cachemesh.shell.snapshot import is_sound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cachemesh.shell.ports import StoredEntry
    from cachemesh.shell.runtime import Runtime

AT_ONCE: Final = 64
"""So many entries are read and taken in between two looks at who else wants something."""

PAUSE_S: Final = 0.005
"""It waits for so long while a fetch or a load is under way,"""
MOST_PAUSES: Final = 20
"""so often in a row; then it goes on, for somebody is always waiting."""

PATIENCE_S: Final = 10.0
"""A store that brings nothing for so long is left alone."""


@runtime_checkable
class Scannable(SharedStore, Protocol):
    """What a warm start needs of a store; a `BrowsableStore` has it."""

    def scan(self) -> AsyncIterator[StoredEntry]:
        """Every entry, in no particular order."""


class WarmStart:
    """The warm start of one cache. It is made with the cache, and begins once."""

    def __init__(self, runtime: Runtime, store: Scannable) -> None:
        self._runtime = runtime
        self._store = store
        self._arrival = runtime.begin_arrival()
        self.has_begun = False
        self.is_over = False
        self.counts: Counter[str] = Counter()
        """What became of what was found, by the fields of `Hydrated`."""

    def begins(self) -> bool:
        """Whether it is to begin now: the first who asks is told so."""
        with self._runtime.lock:
            has_begun, self.has_begun = self.has_begun, True
        return not has_begun

    def give_up(self) -> None:
        """It cannot be run."""
        self.is_over = True
        self._runtime.end_arrival(self._arrival)

    async def run(self) -> None:
        """Fill memory. It ends with the store, with the room, with the cache, or with the first trouble."""
        runtime = self._runtime
        runtime.listen()
        try:
            await self._fill()
        except Exception as error:  # noqa: BLE001 (a store may raise anything; it is colder then)
            runtime.tell_error("", StoreFailed("scan", error))
        finally:
            self.give_up()

    async def _fill(self) -> None:
        entries = self._store.scan()
        try:
            while not self._runtime.is_closed:
                few = await self._some(entries)
                sound = [each for each in few if is_sound(each)]
                self.counts["damaged"] += len(few) - len(sound)
                ends = read_all(self._runtime, self._arrival, sound, self.counts)
                if len(few) < AT_ONCE or FULL in ends:
                    return
                await self._give_way()
        finally:
            close: Any = getattr(entries, "aclose", None)
            if close is not None:
                await close()

    async def _some(self, entries: AsyncIterator[StoredEntry]) -> list[StoredEntry]:
        """The next few; fewer where there are no more."""
        few: list[StoredEntry] = []
        async with asyncio.timeout(PATIENCE_S):
            while len(few) < AT_ONCE:
                try:
                    few.append(await anext(entries))
                except StopAsyncIteration:
                    break
        return few

    async def _give_way(self) -> None:
        for _ in range(MOST_PAUSES):
            if not self._runtime.lives:
                break
            await asyncio.sleep(PAUSE_S)
        await asyncio.sleep(0)
