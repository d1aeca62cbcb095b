"""A store that does what a test tells it to, and notes what it was asked."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Final

from cachemesh.stores import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.ports import StoredEntry

HANG: Final = "hang"
OPERATIONS: Final = ("read", "write", "delete", "clear_partition", "clear")


class FaultyStore(MemoryStore):
    """`faults[operation]`: an exception to raise, `HANG`, or a function whose answer is returned."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: dict[str, BaseException | str | Callable[..., Any]] = {}
        self.calls: list[tuple[object, ...]] = []
        self.hanging = 0
        self.is_dead: Callable[[str | None], bool] = lambda key: True  # noqa: ARG005 (which keys the faults concern)
        self._noting = threading.Lock()

    def asked(self, *operations: str) -> list[tuple[object, ...]]:
        """The calls of these operations so far."""
        return [call for call in self.calls if call[0] in operations]

    async def _fail(self, operation: str, owner: Owner | None = None, key: str | None = None) -> Any:
        with self._noting:
            self.calls.append((operation, owner, key))
        fault = self.faults.get(operation)
        if fault is None or not self.is_dead(key):
            return None
        if isinstance(fault, BaseException):
            raise fault
        if fault == HANG:
            self.hanging += 1
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.hanging -= 1
        return fault

    async def read(self, owner: Owner, key: str) -> StoredEntry | None:
        fault = await self._fail("read", owner, key)
        if callable(fault):
            answer: StoredEntry | None = fault(owner, key)
            return answer
        return await super().read(owner, key)

    async def write(self, entry: StoredEntry) -> None:
        await self._fail("write", entry.owner, entry.key)
        await super().write(entry)

    async def delete(self, owner: Owner, key: str) -> None:
        await self._fail("delete", owner, key)
        await super().delete(owner, key)

    async def clear_partition(self, owner: Owner) -> None:
        await self._fail("clear_partition", owner)
        await super().clear_partition(owner)

    async def clear(self) -> None:
        await self._fail("clear")
        await super().clear()
