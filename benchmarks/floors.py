"""What Python itself charges: the least code that does the same job with no policy, no bound, no logger, no Result.

A floor is written as a careful user would write it by hand, and measured like any contender.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

TTL_S: Final = 300
KEY: Final = "k"

Call = Callable[[str], Awaitable[object]]
Fetch = Callable[[str], Awaitable[object]]


class Entry:
    """A value and the instant on the monotonic clock at which it stops being fresh."""

    __slots__ = ("expires_at", "value")

    def __init__(self, value: object, expires_at: float) -> None:
        self.value, self.expires_at = value, expires_at


def async_hit() -> Call:
    """A coroutine doing a dict get and a TTL check: the floor of every async hit."""
    monotonic = time.monotonic
    entries = {KEY: Entry(1, monotonic() + TTL_S)}

    async def hit(key: str) -> object:
        entry = entries.get(key)
        if entry is not None and entry.expires_at > monotonic():
            return entry.value
        return None

    return hit


def sync_hit() -> Callable[[str], object]:
    """A function doing the same."""
    monotonic = time.monotonic
    entries = {KEY: Entry(1, monotonic() + TTL_S)}

    def hit(key: str) -> object:
        entry = entries.get(key)
        if entry is not None and entry.expires_at > monotonic():
            return entry.value
        return None

    return hit


def unbounded_miss(fetch: Fetch) -> Call:
    """Fetch and remember, with no single-flight and no bound."""
    monotonic = time.monotonic
    entries: dict[str, Entry] = {}

    async def get(key: str) -> object:
        entry = entries.get(key)
        if entry is not None and entry.expires_at > monotonic():
            return entry.value
        value = await fetch(key)
        entries[key] = Entry(value, monotonic() + TTL_S)
        return value

    return get


def shared_future(fetch: Fetch) -> Call:
    """The first caller fetches inline, all others await its bare Future: fast, and lost when the first is cancelled."""
    under_way: dict[str, asyncio.Future[object]] = {}

    async def get(key: str) -> object:
        future = under_way.get(key)
        if future is not None:
            return await future
        future = under_way[key] = asyncio.get_running_loop().create_future()
        value = await fetch(key)
        future.set_result(value)
        return value

    return get
