"""A transport for the async face that notices answers to nothing.

Where an origin sends more than the length of a body says, the client has the
rest in its buffer, and takes it for the answer to the next request on that
connection. Such an answer is there before anything was read for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpcore2
import httpx2

from cachemesh.sources.clients import POOL

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable


class WatchedStream(httpcore2.AsyncNetworkStream):
    """`is_answered`: whether something was read since the last that was written."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self.is_answered = False
        self.get_extra_info = stream.get_extra_info  # type: ignore[method-assign]
        self.aclose = stream.aclose  # type: ignore[method-assign]

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 (as httpcore has it)
        self.is_answered = True
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 (as above)
        self.is_answered = False
        await self._stream.write(buffer, timeout)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 (as above)
    ) -> httpcore2.AsyncNetworkStream:
        return WatchedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))


class WatchedBackend(httpcore2.AnyIOBackend):
    """Connects as httpcore2 does."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (as above)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        return WatchedStream(await super().connect_tcp(host, port, timeout, local_address, socket_options))


class WatchedTransport(httpx2.AsyncHTTPTransport):
    """`httpx2.AsyncHTTPTransport`, on a pool of connections that are watched."""

    def __init__(self, verify: ssl.SSLContext) -> None:
        super().__init__(verify=verify, trust_env=False)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=verify,
            network_backend=WatchedBackend(),
            **POOL,
        )
