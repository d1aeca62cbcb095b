"""What the scenario tests share: a guard against hangs, a look inside, a store with a mind of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Final, TypeVar

from returns.result import Result, Success

from cachemesh import CacheScope, SyncCache
from tests.shell.faces import Heard

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Iterable

    from cachemesh import Cache, StoredEntry
    from cachemesh.core import Owner
    from tests.shell.faces import Face

T = TypeVar("T")
Answer = Result[Any, Any]

PATIENCE_S: Final = 10.0
"""What takes longer than this hangs."""


def guarded(act: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
    """What `act` answers, from a daemon thread: one that hangs fails its test and is left behind."""
    return together([act], patience_s)[0]


def together(acts: Iterable[Callable[[], T]], patience_s: float = PATIENCE_S) -> list[T]:
    """What all `acts` answer, each from a thread of its own, begun at the same moment."""
    every = list(acts)
    outcomes: list[tuple[bool, Any]] = [(False, None)] * len(every)
    barrier = threading.Barrier(len(every))

    def run(place: int, act: Callable[[], T]) -> None:
        barrier.wait(patience_s)
        try:
            outcomes[place] = (True, act())
        except BaseException as error:  # noqa: BLE001 (raised again in the thread of the test)
            outcomes[place] = (False, error)

    threads = [threading.Thread(target=run, args=each, daemon=True, name="scenario") for each in enumerate(every)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + patience_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    hung = [thread for thread in threads if thread.is_alive()]
    assert not hung, f"{len(hung)} of {len(threads)} hang, one of them here:\n{_stack(hung[0])}"
    for went_well, outcome in outcomes:
        if not went_well:
            raise outcome
    return [outcome for _, outcome in outcomes]


def in_real_time(main: Coroutine[Any, Any, T], patience_s: float = PATIENCE_S) -> T:
    """`asyncio.run(main)` in a guarded thread."""

    async def limited() -> T:
        async with asyncio.timeout(patience_s - 1):
            return await main

    return guarded(lambda: asyncio.run(limited()), patience_s)


def under_way(cache: Cache | SyncCache) -> int:
    """How much the cache keeps of fetches that it believes to be under way: 0 at rest."""
    runtime = cache._runtime
    listed = sum(len(partition.flights) for partition in runtime.state.partitions.values())
    return len(runtime.state.flights) + len(runtime.lives) + listed


def listen(face: Face, key: str, **options: Any) -> Heard:
    """Watch `key` with a callback. (`Face.listen` stops hearing after the first `Heard.take`.)"""
    heard = Heard()
    watch = face.cache.watch(key, **options)
    subscription = face.inside(lambda: watch.subscribe(lambda news: heard.results.append(news)))
    heard.cancel = lambda: face.inside(subscription.cancel)
    return heard


def async_value(value: object) -> Callable[[], Coroutine[Any, Any, Answer]]:
    """A fetcher that answers at once."""

    async def fetch() -> Answer:
        return Success(value)

    return fetch


def python(source: str, *flags: str, environment: dict[str, str] | None = None, patience_s: float = 60.0) -> str:
    """What a Python script prints, run by itself with `flags`; it must end with exit code 0 and in silence on stderr."""
    import os  # noqa: PLC0415 (for the environment alone)

    done = subprocess.run(  # noqa: S603 (our own interpreter and source)
        [sys.executable, *flags, "-c", textwrap.dedent(source)],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=patience_s,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


class ScriptedStore:
    """A store on a dict. `on_call` is awaited before each call, with its name, owner and key; it may raise or hang."""

    def __init__(self, on_call: Callable[[str, Owner | None, str | None], Any] | None = None) -> None:
        self.kept: dict[tuple[Owner, str], Any] = {}
        self._on_call = on_call

    async def _called(self, operation: str, owner: Owner | None = None, key: str | None = None) -> None:
        if self._on_call is not None:
            waited_for = self._on_call(operation, owner, key)
            if waited_for is not None:
                await waited_for

    async def read(self, owner: Owner, key: str) -> StoredEntry | None:
        await self._called("read", owner, key)
        return self.kept.get((owner, key))

    async def write(self, entry: StoredEntry) -> None:
        await self._called("write", entry.owner, entry.key)
        self.kept[entry.owner, entry.key] = entry

    async def delete(self, owner: Owner, key: str) -> None:
        await self._called("delete", owner, key)
        self.kept.pop((owner, key), None)

    async def clear_partition(self, owner: Owner) -> None:
        await self._called("clear", owner)
        for each in [each for each in self.kept if each[0] == owner]:
            del self.kept[each]

    async def clear(self) -> None:
        await self._called("clear")
        self.kept.clear()

    async def keys(self, owner: Owner) -> Collection[str]:
        return [key for kept_owner, key in self.kept if kept_owner == owner]


GLOBAL_OWNER: Final = (CacheScope.GLOBAL, None)


def _stack(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(traceback.format_stack(frame)[-6:]) if frame else "(it has ended)"
