"""What a mark has made unreadable is taken away, behind everybody's back, a page at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from cachemesh.stores.redis import scripts
from cachemesh.stores.redis.browse import pages
from cachemesh.stores.redis.layout import HEADER_SIZE

if TYPE_CHECKING:
    from cachemesh.stores.redis.batch import Batcher
    from cachemesh.stores.redis.complaints import Complaints
    from cachemesh.stores.redis.layout import Layout

PAUSE_S: Final = 0.01
"""Between two pages."""


class Sweeper:
    """Sweeps for one event loop. Should it end before it is done, the server's own time limits do the rest."""

    def __init__(self, batcher: Batcher, layout: Layout, placeholder_s: float, complaints: Complaints) -> None:
        self._batcher = batcher
        self._layout = layout
        self._placeholder_ms = b"%d" % (placeholder_s * 1000)
        self._complaints = complaints
        self._due: dict[bytes, tuple[bytes, int]] = {}
        self._task: asyncio.Task[None] | None = None

    def sweep(self, pattern: bytes, counter: bytes, generation: int) -> None:
        """Take away what matches `pattern` and is older than `generation` of `counter`."""
        self._due[pattern] = (counter, generation)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        while self._due:
            pattern, (counter, generation) = self._due.popitem()
            try:
                await self._sweep(pattern, counter, b"%016d" % generation)
            except (OSError, RuntimeError) as error:
                self._complaints.log("what was cleared could not be swept: %s", type(error).__name__)
                self._due.clear()

    async def _sweep(self, pattern: bytes, counter: bytes, generation: bytes) -> None:
        async for names in pages(self._batcher, pattern):
            sought = (*scripts.HEADER, counter, generation, self._placeholder_ms, b"%d" % HEADER_SIZE)
            await asyncio.gather(
                *(self._batcher.run(scripts.SWEEP, (name, self._layout.lease(name)), *sought) for name in names)
            )
            await asyncio.sleep(PAUSE_S)

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
