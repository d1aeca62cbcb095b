"""The reads of one event loop: what is asked for in one turn of it goes to a shared store in one go."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop as Loop
    from collections.abc import Callable, Coroutine

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.ports import StoredEntry
    from cachemesh.shell.store_call import Place, StoreCall
    from cachemesh.shell.store_line import StoreLine

MOST_TOGETHER: Final = 256
"""So many are read in one go: what they bring is taken in without a pause."""


class Read:
    """Somebody wants what the store has. `tell` is called once, in the loop that reads, with what that is.

    `after`: the changes that it must not overtake.
    """

    __slots__ = ("after", "key", "owner", "tell")

    def __init__(
        self, owner: Owner, key: str, after: tuple[StoreCall, ...], tell: Callable[[StoredEntry | None], None]
    ) -> None:
        self.owner = owner
        self.key = key
        self.after = after
        self.tell = tell


class Turn:
    """What is read in one go."""

    operation = "read"

    def __init__(self, reads: list[Read]) -> None:
        self.reads = reads
        self.is_over = False
        self.is_given_up = False

    @property
    def place(self) -> Place:
        """What a logger hears of it: the key, if it is one."""
        first = self.reads[0]
        return (first.owner, first.key) if len(self.reads) == 1 else (None, None)


class Reads:
    """Those of one event loop. `serves`: nobody asks in it, it is there for the store."""

    def __init__(self, line: StoreLine, *, serves: bool = False) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self._line = line
        self._turn: list[Read] = []
        self._is_known = serves

    def add(self, read: Read) -> bool:
        """Read as soon as the loop has gone round. Whether it is the first of its turn. To be called in the loop."""
        is_first = not self._turn
        if is_first:
            loop = asyncio.get_running_loop()
            if not self._is_known:
                self._is_known = True
                self._line.lives_in(loop)
            loop.call_soon(self._send, loop)
        self._turn.append(read)
        return is_first

    def _send(self, loop: Loop) -> None:
        reads, self._turn = self._turn, []
        line = self._line
        ready = []
        for read in reads:
            if read.after and not all(call.is_over for call in read.after):
                self._start(self._later(read, loop), loop)
            elif line.believes(read.owner, read.key):
                ready.append(read)
            else:
                read.tell(None)
        size = 1 if line.shared is None else MOST_TOGETHER
        for first in range(0, len(ready), size):
            self._start(self._make(Turn(ready[first : first + size]), loop), loop)

    def _start(self, reading: Coroutine[Any, Any, None], loop: Loop) -> None:
        task = loop.create_task(reading)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _later(self, read: Read, loop: Loop) -> None:
        """Once what is in front is over."""
        try:
            for call in read.after:
                await self._line.until_over(call, loop)
        except asyncio.CancelledError:
            read.tell(None)
            raise
        read.after = ()
        self.add(read)

    async def _make(self, turn: Turn, loop: Loop) -> None:
        line = self._line

        def end(found: object) -> None:
            turn.is_over = True
            tell_all(line, turn.reads, found)

        async def perform() -> list[object]:
            if line.shared is None:
                [read] = turn.reads
                return [await line.store.read(read.owner, read.key)]
            found: list[object] = list(await line.shared.read_many([(read.owner, read.key) for read in turn.reads]))
            if len(found) != len(turn.reads):
                msg = f"read_many answered {len(found)} of {len(turn.reads)}"
                raise ValueError(msg)
            return found

        try:
            await line.limited(turn, perform, end, loop)
        except asyncio.CancelledError:
            if not turn.is_over:
                end(None)
            raise


def tell_all(line: StoreLine, reads: list[Read], found: object) -> None:
    """Tell each of `reads` what was found for it, whatever the others do when they are told."""
    answers = found if isinstance(found, list) else [None] * len(reads)
    crash: BaseException | None = None
    for read, answer in zip(reads, answers, strict=True):
        try:
            read.tell(None if answer is None else line.checked(answer, read.owner, read.key))
        except BaseException as raised:  # noqa: BLE001 (raised below)
            crash = crash or raised
    if crash is not None:
        raise crash
