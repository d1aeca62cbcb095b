"""One way to run the same case on both faces: a `Driver` opens sources whose methods run to their end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cachemesh.sources import HttpSource, SyncHttpSource

if TYPE_CHECKING:
    from collections.abc import Callable


class Driver:
    """`open` makes a source of one face; all of them are closed with it."""

    def __init__(self, *, is_async: bool) -> None:
        self.is_async = is_async
        self._runner = asyncio.Runner() if is_async else None
        self._opened: list[Any] = []

    def open(self, *args: Any, **kwargs: Any) -> Any:
        """A source; what its methods answer is there when they return."""
        source = HttpSource(*args, **kwargs) if self.is_async else SyncHttpSource(*args, **kwargs)
        driven = Driven(source, self.run)
        self._opened.append(driven)
        return driven

    def run(self, answer: Any) -> Any:
        """What an answer comes to, where it is to be awaited."""
        return self._runner.run(answer) if self._runner is not None and asyncio.iscoroutine(answer) else answer

    def client(self, library: Any, **kwargs: Any) -> Any:
        """A client of `httpx2` or `httpx`, closed at the end."""
        client = library.AsyncClient(**kwargs) if self.is_async else library.Client(**kwargs)
        self._opened.append(Driven(client, self.run))
        return client

    def close(self) -> None:
        for each in self._opened:
            each.aclose() if self.is_async else each.close()
        with suppress(RuntimeError):
            if self._runner is not None:
                self._runner.close()


class Driven:
    """An object whose coroutines are run to their end."""

    def __init__(self, target: Any, run: Callable[[Any], Any]) -> None:
        self.target = target
        self._run = run

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.target, name)
        return lambda *args, **kwargs: self._run(method(*args, **kwargs))
