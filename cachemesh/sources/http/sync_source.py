"""`SyncHttpSource`: an HTTP origin that answers with a `Result`, for threads."""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from returns.result import Failure, Result, Success

from cachemesh.sources.backoff import Attempts
from cachemesh.sources.deadline import Deadline
from cachemesh.sources.failure import NetworkFailure
from cachemesh.sources.http.body import TooLargeError
from cachemesh.sources.http.exchange import Course, Exchange, Spec
from cachemesh.sources.http.fetcher import SyncFetching
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
from cachemesh.sources.http.transfers import Download, SyncPieces, Upload
from cachemesh.sources.own_clients import own_sync_client

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import IO, Self

    from typing_extensions import Unpack

    from cachemesh.sources.backoff import Backoff
    from cachemesh.sources.clients import SyncClient
    from cachemesh.sources.http.transfers import Progress
    from cachemesh.sources.http.verbs import DownloadOptions, RequestOptions, SyncRequest, SyncUpload, SyncVerb


def _verb(method: str, text: str) -> SyncVerb:
    def send(self: SyncHttpSource, url: str, *, parser: Any = bytes, **options: Any) -> Any:  # noqa: ANN401 (`SyncVerb` says it)
        return self._request(method, url, parser=parser, **options)

    send.__name__ = method.lower()
    send.__qualname__ = f"SyncHttpSource.{method.lower()}"
    send.__doc__ = text
    return send  # type: ignore[return-value]  # As a method it is one.


class SyncHttpSource(SyncFetching):
    """`HttpSource` for threads, with the same arguments; any number of them may share one.

    `client`: a `Client` of httpx2 or httpx. `sleep`: what waits between attempts.

    `timeout` ends what its own client does on the network, whatever the origin
    sends and however slowly; only the system's resolver takes the time that it
    takes. With a `client` of yours, each single read, write and connection may
    take that long, and the clock is looked at after each piece of the body. So an
    origin that sends its headers a byte at a time may keep a thread for longer,
    as long as it sends something within each `timeout`, and as there is room in
    the 100 KB that headers may have.

    >>> with SyncHttpSource("https://example.org/api") as source:
    ...     source.get("ftp://example.org/users/1")
    <Failure: NetworkFailure(unknown, 'the URL has another scheme than http and https')>
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        client: SyncClient | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Any = TIMEOUT_S,  # noqa: ANN401 (a duration, however it is written)
        max_body_bytes: int | None = MAX_BODY_BYTES,
        max_redirects: int = MAX_REDIRECTS,
        auth: Any = None,  # noqa: ANN401 (what httpx2 takes)
        retry: Backoff | None = None,
        verify: ssl.SSLContext | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._rules = rules_of(base_url, client, headers, timeout, max_body_bytes, max_redirects, auth, retry)
        self._given = client
        self._verify = verify
        self._sleep = sleep
        self._lock = threading.Lock()
        self._own: Any = None
        self._pid = 0
        self._is_closed = False

    get: SyncVerb = _verb("GET", "What is at `url`, as `parser` says.")
    head: SyncVerb = _verb("HEAD", "Whether there is something at `url`; for its headers see `exchange`.")
    options: SyncVerb = _verb("OPTIONS", "What can be asked of `url`.")
    post: SyncVerb = _verb("POST", "What comes of a POST to `url`.")
    put: SyncVerb = _verb("PUT", "What comes of a PUT to `url`.")
    patch: SyncVerb = _verb("PATCH", "What comes of a PATCH of `url`.")
    delete: SyncVerb = _verb("DELETE", "What comes of a DELETE of `url`.")

    def _request(self, method: str, url: str, *, parser: Any = bytes, **options: Any) -> Result[Any, Any]:  # noqa: ANN401 (`SyncRequest` says it)
        """What comes of a request with any method."""
        read = reading(parser)
        if isinstance(read, NetworkFailure):
            return Failure(read)
        return value_of(self._exchange(Spec(method, url, **options)), read)

    def _upload(
        self,
        url: str,
        source: Path | IO[bytes] | bytes,
        *,
        method: str = "POST",
        progress: Progress | None = None,
        parser: Any = bytes,  # noqa: ANN401 (`SyncUpload` says it)
        **options: Any,  # noqa: ANN401 (as above)
    ) -> Result[Any, Any]:
        """Send a file or bytes as they are read, as `HttpSource.upload` does."""
        read = reading(parser)
        if isinstance(read, NetworkFailure):
            return Failure(read)
        try:
            upload = Upload(source, progress)
            upload.measure()
        except RefusedError as error:
            return Failure(error.failure)
        pieces = SyncPieces(upload)
        return value_of(self._exchange(Spec(method, url, content=pieces, **options)), read)

    request: SyncRequest = _request  # type: ignore[assignment]  # As a method it is one, and says more of its types.
    upload: SyncUpload = _upload  # type: ignore[assignment]  # As above.

    def exchange(self, method: str, url: str, **options: Unpack[RequestOptions]) -> Result[Exchange, NetworkFailure]:
        """The whole answer, where it is a 2xx or a 304: with its status, its headers and its body as bytes."""
        return self._exchange(Spec(method, url, **options))

    def download(
        self,
        url: str,
        to: Path | IO[bytes],
        *,
        progress: Progress | None = None,
        max_bytes: int | None = None,
        **options: Unpack[DownloadOptions],
    ) -> Result[int, NetworkFailure]:
        """Bring what is at `url` into a file, as `HttpSource.download` does."""
        try:
            download = Download(to, progress)
        except RefusedError as error:
            return Failure(error.failure)
        try:
            spec = Spec("GET", url, max_body_bytes=max_bytes, download=download, **options)
            answer = value_of(self._exchange(spec), lambda _, __: None)
            if not isinstance(answer, Success):
                return Failure(answer.failure())
            download.commit()
            return Success(download.done)
        except RefusedError as error:
            return Failure(error.failure)
        finally:
            download.abandon()

    def _exchange(self, spec: Spec) -> Result[Exchange, NetworkFailure]:
        """The answer to `spec`, where it is a 2xx or a 304, after as many attempts as it takes."""
        try:
            backoff = backoff_of(self._rules, spec)
            if backoff is None:
                return self._attempt(spec)
            spec = attempt_of(self._rules, spec, backoff)
        except RefusedError as error:
            return Failure(error.failure)
        attempts = Attempts(backoff)
        while True:
            answer = self._attempt(spec)
            wait = attempts.wait_after(answer.failure()) if isinstance(answer, Failure) else None
            if wait is None:
                return answer
            self._sleep(wait)

    def _attempt(self, spec: Spec) -> Result[Exchange, NetworkFailure]:
        client: Any = self._given or self._own_client()
        if self._is_closed or client.is_closed:
            return Failure(CLOSED)
        timeouts: dict[str, float | None] = {} if self._given is None else client.timeout.as_dict()
        try:
            course = Course(self._rules, client, spec, {"timeout": timeouts}, is_own=self._given is None)
        except RefusedError as error:
            return Failure(error.failure)
        clock = Deadline(course.timeout_s, timeouts)
        try:
            with clock:
                return Success(_performed(client, course, clock))
        except Exception as error:  # noqa: BLE001 (whatever a client, its hooks or an `auth` raise)
            if self._is_closed:
                return Failure(CLOSED)
            return Failure(course.timed_out if clock.is_over else course.failure_of(error))

    def _own_client(self) -> Any:  # noqa: ANN401 (an httpx2.Client)
        if self._own is None or self._pid != os.getpid():
            with self._lock:
                if self._own is None or self._pid != os.getpid():  # The connections of a parent are the parent's.
                    self._own = own_sync_client(self._verify, self._rules.headers)
                    self._pid = os.getpid()
        return self._own

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    def close(self) -> None:
        """Close its own connections. What is under way, or asked from then on, ends in a `cancelled` failure."""
        self._is_closed = True
        if self._own is not None and self._pid == os.getpid():
            self._own.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SyncHttpSource({shown(self._rules.base)})"


def _performed(client: Any, course: Course, clock: Deadline) -> Exchange:  # noqa: ANN401 (of httpx2 or httpx)
    download = course.download
    while True:
        clock.look()
        response = client.send(course.request, stream=True, follow_redirects=False, **course.sending)
        try:
            body = course.on_answer(response)
            try:
                if response.is_stream_consumed:  # An `auth` or a hook has wanted to see it.
                    body.feed_decoded(response.content)
                else:
                    clock.look()
                    with closing(response.iter_raw()) as raw:
                        for chunk in raw:
                            body.feed(chunk)
                            if download is not None and download.is_full:
                                download.spill()
                            clock.look()
            except TooLargeError:
                course.on_too_large(response)
        finally:
            response.close()
        exchange = course.on_body(response, body)
        if exchange is not None:
            return exchange
