"""`HttpSource`: an HTTP origin that answers with a `Result`, for asyncio."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

from returns.result import Failure, Result, Success

from cachemesh.sources.backoff import Attempts
from cachemesh.sources.failure import NetworkFailure
from cachemesh.sources.http.body import TooLargeError
from cachemesh.sources.http.exchange import Course, Exchange, Spec
from cachemesh.sources.http.fetcher import Fetching
from cachemesh.sources.http.refusals import RefusedError
from cachemesh.sources.http.settings import (
    CLOSED,
    MAX_BODY_BYTES,
    MAX_REDIRECTS,
    TIMEOUT_S,
    attempt_of,
    backoff_of,
    reading,
    rules_of,
    shown,
    value_of,
)
from cachemesh.sources.http.transfers import AsyncPieces, Download, Upload
from cachemesh.sources.own_clients import NO_TIMEOUTS, own_async_client

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from pathlib import Path
    from typing import IO, Self

    from typing_extensions import Unpack

    from cachemesh.sources.backoff import Backoff
    from cachemesh.sources.clients import AsyncClient
    from cachemesh.sources.http.transfers import Progress
    from cachemesh.sources.http.verbs import AsyncRequest, AsyncUpload, AsyncVerb, DownloadOptions, RequestOptions


def _verb(method: str, text: str) -> AsyncVerb:
    async def send(self: HttpSource, url: str, *, parser: Any = bytes, **options: Any) -> Any:  # noqa: ANN401 (`AsyncVerb` says it)
        return await self._request(method, url, parser=parser, **options)

    send.__name__ = method.lower()
    send.__qualname__ = f"HttpSource.{method.lower()}"
    send.__doc__ = text
    return send  # type: ignore[return-value]  # As a method it is one.


class HttpSource(Fetching):
    """An HTTP origin: its answers are `Result`s, and each thing that can go wrong is a `NetworkFailure`.

    `base_url`: relative URLs go behind its path, and not out of it. `headers` and
    `auth` (as httpx2 has it): for all requests, also to an absolute URL of another
    origin. `retry`: a `Backoff`; left out, there is a single
    attempt.

    `client`: an `AsyncClient` of httpx2 or httpx to send with, which stays yours
    to close; its own headers, cookies, time limits and `auth` hold as well, and it
    is used in whatever event loop the source is. Without one, the source makes
    one for each event loop. Those keep no cookies and know nothing of the
    environment: who wants a proxy or a cookie jar passes a client. They also
    notice where an origin has sent more than the length that it gave, which the
    clients of the libraries take for the answer to the next request. `verify`: the
    certificates that they trust; left out, those of the machine.

    `timeout` is for the whole exchange, from connecting to the last byte of the
    body, redirects included: seconds, a timedelta, text such as "5s"; None for no
    limit. `max_body_bytes`: of a body as it is unpacked; None for no limit.

    `parser=` says what a body is: bytes, if left out; `str`; None where it does
    not matter; or any type that pydantic takes, read from JSON. For a union or an
    `Annotated`, which mypy takes for no type, pass pydantic's `TypeAdapter`. An
    empty body is what a JSON null is. What does not fit is a `parsing` failure
    that names the field and the error, and quotes nothing.

    At most `max_redirects` redirects are followed (0: none): to http and https, but
    not from https to http, to a link-local address, or from a public origin to a
    private address. To another origin goes nothing but Accept, Accept-Language,
    Accept-Encoding, User-Agent, and where the method stays, the body with its
    type: no credentials, no cookies, no other header that you have set.

    A status other than 2xx is a failure. So is an answer that is broken, too
    large or cut short: nothing is handed out in part. Cancellation passes through.

    >>> async def main():
    ...     async with HttpSource("https://example.org/api") as source:
    ...         return await source.get("ftp://example.org/users/1")
    >>> asyncio.run(main())
    <Failure: NetworkFailure(unknown, 'the URL has another scheme than http and https')>
    """

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
        retry: Backoff | None = None,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self._rules = rules_of(base_url, client, headers, timeout, max_body_bytes, max_redirects, auth, retry)
        self._given = client
        self._verify = verify
        self._clients: dict[asyncio.AbstractEventLoop, Any] = {}
        self._under_way: dict[asyncio.Timeout, Any] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._lock = threading.Lock()
        self._is_closed = False

    get: AsyncVerb = _verb("GET", "What is at `url`, as `parser` says.")
    head: AsyncVerb = _verb("HEAD", "Whether there is something at `url`; for its headers see `exchange`.")
    options: AsyncVerb = _verb("OPTIONS", "What can be asked of `url`.")
    post: AsyncVerb = _verb("POST", "What comes of a POST to `url`.")
    put: AsyncVerb = _verb("PUT", "What comes of a PUT to `url`.")
    patch: AsyncVerb = _verb("PATCH", "What comes of a PATCH of `url`.")
    delete: AsyncVerb = _verb("DELETE", "What comes of a DELETE of `url`.")

    async def _request(self, method: str, url: str, *, parser: Any = bytes, **options: Any) -> Result[Any, Any]:  # noqa: ANN401 (`AsyncRequest` says it)
        """What comes of a request with any method."""
        read = reading(parser)
        if isinstance(read, NetworkFailure):
            return Failure(read)
        return value_of(await self._exchange(Spec(method, url, **options)), read)

    async def _upload(
        self,
        url: str,
        source: Path | IO[bytes] | bytes,
        *,
        method: str = "POST",
        progress: Progress | None = None,
        parser: Any = bytes,  # noqa: ANN401 (`AsyncUpload` says it)
        **options: Any,  # noqa: ANN401 (as above)
    ) -> Result[Any, Any]:
        """Send a file (a `Path`, or one that is open for reading), or bytes, as they are read.

        `progress(done_bytes, total_bytes)` is called as they go; the total is None
        where nobody knows it. Where it raises, that is the end of it: a `cancelled` failure.
        """
        read = reading(parser)
        if isinstance(read, NetworkFailure):
            return Failure(read)
        try:
            upload = Upload(source, progress)
            await asyncio.to_thread(upload.measure)
        except RefusedError as error:
            return Failure(error.failure)
        pieces = AsyncPieces(upload, asyncio.to_thread)
        return value_of(await self._exchange(Spec(method, url, content=pieces, **options)), read)

    request: AsyncRequest = _request  # type: ignore[assignment]  # As a method it is one, and says more of its types.
    upload: AsyncUpload = _upload  # type: ignore[assignment]  # As above.

    async def exchange(
        self, method: str, url: str, **options: Unpack[RequestOptions]
    ) -> Result[Exchange, NetworkFailure]:
        """The whole answer, where it is a 2xx or a 304: with its status, its headers and its body as bytes."""
        return await self._exchange(Spec(method, url, **options))

    async def download(
        self,
        url: str,
        to: Path | IO[bytes],
        *,
        progress: Progress | None = None,
        max_bytes: int | None = None,
        **options: Unpack[DownloadOptions],
    ) -> Result[int, NetworkFailure]:
        """Bring what is at `url` into a file; how many bytes that are.

        A file at the path `to` appears, or changes, once all is there, and at once; one that is
        open for writing is wound back after a failure, where it can be. `progress`: as for `upload`.
        `max_bytes`: None for no limit. A large file may want a longer `timeout`.
        """
        try:
            download = Download(to, progress)
        except RefusedError as error:
            return Failure(error.failure)
        try:
            spec = Spec("GET", url, max_body_bytes=max_bytes, download=download, **options)
            answer = value_of(await self._exchange(spec), lambda _, __: None)
            if not isinstance(answer, Success):
                return Failure(answer.failure())
            await asyncio.to_thread(download.commit)
            return Success(download.done)
        except RefusedError as error:
            return Failure(error.failure)
        finally:
            await asyncio.shield(asyncio.to_thread(download.abandon))

    async def _exchange(self, spec: Spec) -> Result[Exchange, NetworkFailure]:
        """The answer to `spec`, where it is a 2xx or a 304, after as many attempts as it takes."""
        try:
            backoff = backoff_of(self._rules, spec)
            if backoff is None:
                return await self._attempt(spec)
            spec = attempt_of(self._rules, spec, backoff)
        except RefusedError as error:
            return Failure(error.failure)
        attempts = Attempts(backoff)
        while True:
            answer = await self._attempt(spec)
            wait = attempts.wait_after(answer.failure()) if isinstance(answer, Failure) else None
            if wait is None:
                return answer
            await asyncio.sleep(wait)

    async def _attempt(self, spec: Spec) -> Result[Exchange, NetworkFailure]:
        client: Any = self._given
        timeouts = None
        if client is None:
            client = self._clients.get(asyncio.get_running_loop()) or self._own_client()
            timeouts = NO_TIMEOUTS
        if self._is_closed or client.is_closed:
            return Failure(CLOSED)
        try:
            course = Course(self._rules, client, spec, timeouts, is_own=self._given is None)
        except RefusedError as error:
            return Failure(error.failure)
        limit = asyncio.timeout(course.timeout_s)
        try:
            async with limit:
                self._under_way[limit] = client
                return Success(await _performed(client, course))
        except Exception as error:  # noqa: BLE001 (whatever a client, its hooks or an `auth` raise)
            if self._is_closed:
                return Failure(CLOSED)
            return Failure(course.timed_out if limit.expired() else course.failure_of(error))
        finally:
            self._under_way.pop(limit, None)

    def _own_client(self) -> Any:  # noqa: ANN401 (an httpx2.AsyncClient)
        client = own_async_client(self._verify, self._rules.headers)
        with self._lock:  # Other threads have loops too.
            for loop in [loop for loop in self._clients if loop.is_closed()]:
                del self._clients[loop]
            self._clients[asyncio.get_running_loop()] = client
        return client

    @property
    def is_closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._is_closed

    async def aclose(self) -> None:
        """Close its own connections. What is under way, or asked from then on, ends in a `cancelled` failure."""
        self._is_closed = True
        with self._lock:
            clients, self._clients = self._clients, {}
        here = clients.pop(asyncio.get_running_loop(), None)
        for loop, client in clients.items():
            with suppress(RuntimeError):  # It has just been closed, and all that is open in it.
                loop.call_soon_threadsafe(self._leave, loop, client)
        if here is not None:
            await self._left(here)

    def _leave(self, loop: asyncio.AbstractEventLoop, client: Any) -> None:  # noqa: ANN401 (as below)
        task = loop.create_task(self._left(client))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _left(self, client: Any) -> None:  # noqa: ANN401 (an httpx2.AsyncClient)
        """Close a client of the running loop, and end what it does: also what waits for a connection."""
        for limit, busy in list(self._under_way.items()):
            if busy is client and not limit.expired():
                limit.reschedule(0.0)
        await client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"HttpSource({shown(self._rules.base)})"


async def _performed(client: Any, course: Course) -> Exchange:  # noqa: ANN401 (of httpx2 or httpx)
    download = course.download
    while True:
        response = await client.send(course.request, stream=True, follow_redirects=False, **course.sending)
        try:
            body = course.on_answer(response)
            try:
                if response.is_stream_consumed:  # An `auth` or a hook has wanted to see it.
                    body.feed_decoded(response.content)
                else:
                    async with aclosing(response.aiter_raw()) as raw:
                        async for chunk in raw:
                            body.feed(chunk)
                            if download is not None and download.is_full:
                                await asyncio.to_thread(download.spill)
            except TooLargeError:
                course.on_too_large(response)
        finally:
            await response.aclose()
        exchange = course.on_body(response, body)
        if exchange is not None:
            return exchange
