"""`HttpSource`: an HTTP origin that answers with a `Result`, for asyncio."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

from returns.result import Failure, Result, Success

from cachemesh.sources.body import TooLargeError
from cachemesh.sources.clients import NO_TIMEOUTS, own_async_client
from cachemesh.sources.exchange import Course, Exchange, RefusedError, Spec
from cachemesh.sources.failure import NetworkFailure
from cachemesh.sources.http import (
    CLOSED,
    MAX_BODY_BYTES,
    MAX_REDIRECTS,
    TIMEOUT_S,
    reading,
    rules_of,
    value_of,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from typing import Self

    from typing_extensions import Unpack

    from cachemesh.sources.clients import AsyncClient
    from cachemesh.sources.http import AsyncVerb, RequestOptions

T = TypeVar("T")


def _verb(method: str, text: str) -> AsyncVerb:
    async def send(self: HttpSource, url: str, *, parser: Any = bytes, **options: Unpack[RequestOptions]) -> Any:  # noqa: ANN401 (`AsyncVerb` says it)
        read = reading(parser)
        if isinstance(read, NetworkFailure):
            return Failure(read)
        return value_of(await self._exchange(Spec(method, url, **options)), read)

    send.__name__ = method.lower()
    send.__qualname__ = f"HttpSource.{method.lower()}"
    send.__doc__ = text
    return send  # type: ignore[return-value]  # As a method it is one.


class HttpSource:
    """An HTTP origin. Whatever goes wrong is a `Failure` with a `NetworkFailure`; cancellation passes through."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        client: AsyncClient | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Any = TIMEOUT_S,  # noqa: ANN401 (a duration, however it is written)
        max_body_bytes: int | None = MAX_BODY_BYTES,
        max_redirects: int = MAX_REDIRECTS,
        auth: Any = None,  # noqa: ANN401 (what httpx2 takes)
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self._rules = rules_of(base_url, client, headers, timeout, max_body_bytes, max_redirects, auth)
        self._given = client
        self._verify = verify
        self._clients: dict[asyncio.AbstractEventLoop, Any] = {}
        self._is_closed = False

    get: AsyncVerb = _verb("GET", "The answer to a GET of `url`.")

    async def _exchange(self, spec: Spec) -> Result[Exchange, NetworkFailure]:
        """The answer to `spec`, where it is a 2xx or a 304."""
        client: Any = self._given
        if client is None:
            client = self._clients.get(asyncio.get_running_loop()) or self._own_client()
        if self._is_closed or client.is_closed:
            return Failure(CLOSED)
        try:
            course = Course(self._rules, client, spec, NO_TIMEOUTS if client is not self._given else None)
        except RefusedError as error:
            return Failure(error.failure)
        limit = asyncio.timeout(course.timeout_s)
        try:
            async with limit:
                return Success(await _performed(client, course))
        except Exception as error:  # noqa: BLE001 (whatever a client, its hooks or an `auth` raise)
            return Failure(course.timed_out if limit.expired() else course.failure_of(error))

    def _own_client(self) -> Any:  # noqa: ANN401 (an httpx2.AsyncClient)
        self._clients = {loop: client for loop, client in self._clients.items() if not loop.is_closed()}
        client = self._clients[asyncio.get_running_loop()] = own_async_client(self._verify)
        return client

    async def aclose(self) -> None:
        """Close the connections. What is asked afterwards is answered with a `cancelled` failure."""
        self._is_closed = True
        clients, self._clients = self._clients, {}
        here = asyncio.get_running_loop()
        for loop, client in clients.items():
            if loop is here:
                await client.aclose()
            elif loop.is_running():
                asyncio.run_coroutine_threadsafe(client.aclose(), loop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


async def _performed(client: Any, course: Course) -> Exchange:  # noqa: ANN401 (of httpx2 or httpx)
    while True:
        response = await client.send(course.request, stream=True, follow_redirects=False, **course.sending)
        try:
            body = course.on_answer(response)
            try:
                if response.is_stream_consumed:  # An `auth` or a hook has wanted to see it.
                    body.feed(response.content)
                else:
                    async with aclosing(response.aiter_raw()) as raw:
                        async for chunk in raw:
                            body.feed(chunk)
            except TooLargeError:
                course.on_too_large(response)
        finally:
            await response.aclose()
        exchange = course.on_body(response, body)
        if exchange is not None:
            return exchange
