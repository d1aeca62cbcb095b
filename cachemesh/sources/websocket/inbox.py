"""What has come and nobody has taken yet: never more than there is room for."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")


class Overflow(StrEnum):
    """What becomes of a message for which there is no room, because the consumer is slow."""

    DROP_OLDEST = "drop_oldest"
    """The oldest makes way, and is counted: a live view wants the newest."""
    WAIT = "wait"
    """It waits, and with it the server, through TCP. While it does, pings of the server are not answered."""


class Inbox(Generic[T]):
    """A queue of at most `room` items from one task to another of the same event loop.

    `dropped`: how many made way for newer ones.
    """

    def __init__(self, room: int, overflow: Overflow) -> None:
        self._items: deque[T] = deque()
        self._room = room
        self._overflow = overflow
        self._changed = asyncio.Event()
        self._has_ended = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    async def add(self, item: T) -> None:
        """Put `item` last; where there is no room, wait or let the oldest go, as was said."""
        while len(self._items) >= self._room and self._overflow is Overflow.WAIT:
            await self._change()
        if len(self._items) >= self._room:
            self._items.popleft()
            self.dropped += 1
        self._items.append(item)
        self._changed.set()

    async def take(self) -> T:
        """The oldest item, once there is one. StopAsyncIteration: all were taken, and no more will come."""
        while not self._items:
            if self._has_ended:
                raise StopAsyncIteration
            await self._change()
        item = self._items.popleft()
        self._changed.set()
        return item

    def end(self) -> None:
        """Nothing more will come."""
        self._has_ended = True
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
