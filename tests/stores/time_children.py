"""Processes that began at another time than they think: the parent of a test says what their clocks show.

    python -m tests.stores.time_children WHERE MONOTONIC WALL < a program, one JSON list a line

`MONOTONIC`: what the monotonic clock shows at the start (a small number: the
machine has just been booted). `WALL`: how many seconds the wall clock is ahead.
The clocks are set before cachemesh is imported. Steps: ["get", key, value, ttl],
["wait", seconds] (the machine sleeps: only the wall clock moves). Each prints its answer.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Clocks:
    """The two clocks of a machine."""

    def __init__(self, monotonic: float, ahead: float) -> None:
        self._monotonic: Callable[[], float] = time.monotonic
        self._wall: Callable[[], float] = time.time
        self._behind = time.monotonic() - monotonic
        self.ahead = ahead

    def set(self) -> None:
        time.monotonic = lambda: self._monotonic() - self._behind
        time.time = lambda: self._wall() + self.ahead


def main(where: str, monotonic: float, ahead: float) -> None:
    clocks = Clocks(monotonic, ahead)
    clocks.set()
    from returns.result import Failure, Success  # noqa: PLC0415 (the clocks must be set first)

    from cachemesh import SyncCache  # noqa: PLC0415 (as above)
    from cachemesh.stores.redis import RedisStore  # noqa: PLC0415 (as above)
    from cachemesh.stores.sqlite import SqliteStore  # noqa: PLC0415 (as above)

    store: Any = RedisStore(where) if where.startswith("redis://") else SqliteStore(where)
    with SyncCache(store=store) as cache:
        if isinstance(store, RedisStore):  # It has then forgotten what it knew before it heard of others.
            cache.get("first", lambda: Failure("asked"))
            while not store._bus.is_subscribed:
                time.sleep(0.01)
        for line in sys.stdin:
            step, *arguments = json.loads(line)
            if step == "wait":
                clocks.ahead += arguments[0]
                continue
            key, value, ttl = arguments
            got = cache.get(key, lambda value=value: Success(value), ttl=ttl).unwrap()
            state = cache.inspect(key)
            assert state.age is not None
            sys.stdout.write(json.dumps([got, state.age.total_seconds(), state.is_fresh]) + "\n")
        cache.flush().unwrap()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
