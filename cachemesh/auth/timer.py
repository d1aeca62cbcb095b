"""Timers that have a token refreshed before anybody needs it."""

from __future__ import annotations

import asyncio
import threading
from contextvars import Context
from typing import TYPE_CHECKING, Final, Self

from pydantic import TypeAdapter

from cachemesh.auth.settings import Limit

if TYPE_CHECKING:
    from types import TracebackType

    from returns.result import Result

    from cachemesh.auth.errors import TokenError
    from cachemesh.auth.keeper import TokenKeeper
    from cachemesh.auth.sync_keeper import SyncTokenKeeper
    from cachemesh.auth.token import Token
    from cachemesh.shell.durations import Duration

_LIMIT: Final[TypeAdapter[float]] = TypeAdapter(Limit)


class TokenRefreshTimer:
    """Looks at the keeper's token every `check_interval`, and has it refreshed if it would expire before the next look.

    With a longer `proactive_window` of the keeper's, that counts. What comes of
    it the keeper's `events` tell; a failure stops nothing. As an asynchronous
    context manager it runs for as long as that is open.
    """

    def __init__(self, keeper: TokenKeeper, check_interval: Duration = 60.0) -> None:
        self._keeper = keeper
        self._interval_s = _LIMIT.validate_python(check_interval)
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it has been started, and not stopped."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Look now, and then every `check_interval`, in the event loop that runs."""
        if not self.is_running:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._run(), name="cachemesh-token-timer", context=Context())

    async def stop(self) -> None:
        """Look no more. A refresh under way goes on."""
        task, self._task = self._task, None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait({task})

    async def run_now(self) -> Result[Token, TokenError]:
        """Look once: the token, refreshed if it was time."""
        return await self._keeper.check(self._interval_s)

    async def _run(self) -> None:
        while True:
            await self.run_now()
            await asyncio.sleep(self._interval_s)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()


class SyncTokenRefreshTimer:
    """The same for threads: it looks in a daemon thread of its own."""

    def __init__(self, keeper: SyncTokenKeeper, check_interval: Duration = 60.0) -> None:
        self._keeper = keeper
        self._interval_s = _LIMIT.validate_python(check_interval)
        self._stopping: threading.Event | None = None
        self._lock = threading.Lock()

    @property
    def is_running(self) -> bool:
        """Whether it has been started, and not stopped."""
        return self._stopping is not None

    def start(self) -> None:
        """Look now, and then every `check_interval`."""
        with self._lock:
            if self._stopping is not None:
                return
            self._stopping = stopping = threading.Event()
        threading.Thread(target=self._run, args=(stopping,), name="cachemesh-token-timer", daemon=True).start()

    def stop(self) -> None:
        """Look no more. A refresh under way goes on."""
        with self._lock:
            stopping, self._stopping = self._stopping, None
        if stopping is not None:
            stopping.set()

    def run_now(self) -> Result[Token, TokenError]:
        """Look once: the token, refreshed if it was time."""
        return self._keeper.check(self._interval_s)

    def _run(self, stopping: threading.Event) -> None:
        while True:
            self.run_now()
            if stopping.wait(self._interval_s):
                return

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
