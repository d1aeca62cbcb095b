"""A bad network: a TCP proxy that is slow, silent, or breaks off, as a test wants it.

    with Proxy(server.host, server.port) as proxy:
        store = RedisStore(proxy.url)
        proxy.delay_s = 0.05       # each piece of data waits for so long, in both directions
        proxy.is_silent = True     # connections stay open, new ones too, and nothing passes: a half-open connection
        proxy.refuses = True       # new connections are closed at once
        proxy.drop()               # all connections are reset
        proxy.replied = edit       # `edit(data)` is passed on in the place of what the server sent

It has a thread and an event loop of its own, so it may stand in front of anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from types import TracebackType


class Proxy:
    """Forwards what is sent to `port`, which it answers on a port of its own."""

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        """`tls`: what it speaks TLS with, to those who come to it."""
        self.host = "127.0.0.1"
        self.port = 0
        self.delay_s = 0.0
        self.jitter_s = 0.0
        self.is_silent = False
        self.refuses = False
        self.replied: Callable[[bytes], bytes] | None = None
        self.connections = 0
        """How many have been made so far."""
        self._to = (host, port)
        self._tls = tls
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}"

    def drop(self) -> None:
        """Reset all connections."""
        asyncio.run_coroutine_threadsafe(self._drop(), self._loop).result()

    async def _drop(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refuses:
            writer.transport.abort()
            return
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_connection(*self._to)
            self._writers |= {writer, there}
            await asyncio.gather(self._pump(reader, there, None), self._pump(back, writer, self._edited))
        except OSError:
            pass  # One side has left; so does the other.
        finally:
            for each in (writer, there):
                if each is not None:
                    self._writers.discard(each)
                    each.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, edit: Callable[[bytes], bytes] | None
    ) -> None:
        while data := await reader.read(65_536):
            if self.delay_s or self.jitter_s:
                await asyncio.sleep(self.delay_s + random.uniform(0.0, self.jitter_s))
            while self.is_silent:  # noqa: ASYNC110 (a test sets it from another thread)
                await asyncio.sleep(0.005)
            writer.write(data if edit is None else edit(data))
            await writer.drain()
        raise ConnectionResetError

    def _edited(self, data: bytes) -> bytes:
        return data if self.replied is None else self.replied(data)

    def __enter__(self) -> Self:
        self._thread.start()
        serving = asyncio.start_server(self._serve, self.host, 0, ssl=self._tls)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*others, return_exceptions=True)
        await self._drop()
        await asyncio.sleep(0)
