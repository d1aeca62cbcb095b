"""WebSocket servers on loopback, in the event loop of the test.

`Server` speaks the protocol: `serve(connection)` is called for each connection.
`RawServer` says whatever it is told to: `say(reader, writer)`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from pydantic import BaseModel
from websockets.asyncio.server import ServerConnection, serve

from cachemesh.sources import ReconnectOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType

    from websockets.http11 import Request, Response


T = TypeVar("T")

SOON: Final = ReconnectOptions(delay=0.01, max_delay=0.02, jitter="none")


class Price(BaseModel):
    name: str
    cents: int


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` for 20 seconds at the most, and see that it leaves no task behind."""

    async def alone() -> T:
        async with asyncio.timeout(20):
            answer = await main
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return answer

    return asyncio.run(alone())


class Server:
    """`websockets`' server. `answer(connection, request)`: a response in place of the upgrade, or None."""

    def __init__(
        self,
        handle: Callable[[ServerConnection], Awaitable[None]],
        *,
        answer: Callable[[ServerConnection, Request], Response | None] | None = None,
        port: int = 0,
        **options: Any,
    ) -> None:
        self._handle = handle
        self._answer = answer
        self._options = options
        self._wants_port = port
        self.port = 0
        self.opened = 0
        """How many connections were accepted."""
        self.requests: list[Request] = []
        self.live: set[ServerConnection] = set()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/live?token=s3cret"

    async def _serve(self, connection: ServerConnection) -> None:
        self.opened += 1
        self.live.add(connection)
        try:
            await self._handle(connection)
        finally:
            self.live.discard(connection)

    def _asked(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        return None if self._answer is None else self._answer(connection, request)

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve, "127.0.0.1", self._wants_port, process_request=self._asked, **self._options
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for connection in list(self.live):
            connection.transport.abort()
        self._server.close()
        await self._server.wait_closed()


class RawServer:
    """Says whatever it is told to, byte by byte. `opened`: how many connections came."""

    def __init__(self, say: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self._say = say
        self._tasks: set[asyncio.Task[None]] = set()
        self.opened = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/live?token=s3cret"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.opened += 1
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._say(reader, writer)
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()


def unused_port() -> int:
    """One on which nobody listens."""
    import socket  # noqa: PLC0415 (only here)

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port
