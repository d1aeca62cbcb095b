"""What `HttpSource` and `SyncHttpSource` share: their settings, and the types of their methods."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol, TypedDict, TypeVar, overload

from msgspec import structs
from returns.result import Failure, Result, Success

from cachemesh.shell.default import DEFAULT
from cachemesh.sources.backoff import Backoff
from cachemesh.sources.body import ACCEPTED
from cachemesh.sources.exchange import (
    Exchange,
    Rules,
    Spec,
    bytes_of,
    checked_headers,
    is_method,
    seconds_of,
    url_reader,
)
from cachemesh.sources.failure import FailureKind, NetworkFailure
from cachemesh.sources.own_clients import URL
from cachemesh.sources.parsing import UnfitError, reader_of
from cachemesh.sources.refusals import RefusedError, refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from pathlib import Path
    from typing import IO

    from pydantic import TypeAdapter
    from typing_extensions import Unpack

    from cachemesh.sources.clients import AnyClient
    from cachemesh.sources.transfers import Progress

T = TypeVar("T")

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
TIMEOUT_S: Final = 30.0
MAX_REDIRECTS: Final = 10

CLOSED: Final = NetworkFailure(kind=FailureKind.CANCELLED, message="the source is closed")


class RequestOptions(TypedDict, total=False):
    """The keywords of a request, beside `parser`.

    `params`, `headers`, `json`, `content`, `data`, `files`: as httpx2 has them.
    `timeout`: for the whole exchange, from connecting to the last byte of the
    body, redirects included; seconds, a timedelta, text such as "5s", or None
    for no limit. `max_body_bytes`: of the body as it is unpacked; None for no
    limit. `retry`: a `Backoff`, or None for a single attempt.
    """

    params: Any
    headers: Any
    json: Any
    content: Any
    data: Any
    files: Any
    timeout: Any
    max_body_bytes: int | None
    retry: Any


class UploadOptions(TypedDict, total=False):
    """Those of `RequestOptions` that an upload has."""

    params: Any
    headers: Any
    timeout: Any
    max_body_bytes: int | None
    retry: Any


class DownloadOptions(TypedDict, total=False):
    """Those of `RequestOptions` that a download has."""

    params: Any
    headers: Any
    timeout: Any
    retry: Any


def rules_of(
    base_url: str | None,
    client: AnyClient | None,
    headers: Mapping[str, str] | None,
    timeout: object,
    max_body_bytes: int | None,
    max_redirects: int,
    auth: Any,  # noqa: ANN401 (what httpx2 takes)
    retry: Backoff | None,
) -> Rules:
    """The settings of a source. ValueError where one makes no sense."""
    url_type = URL if client is None else type(client.base_url)
    if type(max_redirects) is not int or max_redirects < 0:
        msg = "max_redirects: a number from 0 on"
        raise ValueError(msg)
    if retry is not None and not isinstance(retry, Backoff):
        msg = "retry: a Backoff, or None"
        raise ValueError(msg)
    try:
        base = None if base_url is None else url_reader(None, url_type)(base_url)
        if base is None and client is not None and client.base_url.host:
            base = client.base_url
        rules = Rules(
            base,
            known_urls(base, url_type),
            {"accept-encoding": ACCEPTED, **checked_headers(headers or {})},
            auth,
            seconds_of(timeout),
            bytes_of(max_body_bytes),
            max_redirects,
            retry,
        )
    except RefusedError as error:
        raise ValueError(error.failure.message) from None
    return rules


def known_urls(base: Any, url_type: Any) -> Callable[[str], Any]:  # noqa: ANN401 (a URL of httpx2 or httpx, and its type)
    """`url_reader`, with a memory."""
    known = lru_cache(maxsize=1024)(url_reader(base, url_type))

    def url_of(text: str) -> Any:  # noqa: ANN401 (as above)
        try:
            return known(text)
        except TypeError:  # It is not even hashable.
            refuse("the URL is invalid")

    return url_of


def shown(url: Any) -> str:  # noqa: ANN401 (a URL of httpx2 or httpx)
    """A URL without what may be secret: who asks, and the query."""
    return "" if url is None else str(url.copy_with(userinfo=b"", query=None, fragment=None))


def backoff_of(rules: Rules, spec: Spec) -> Backoff | None:
    """How `spec` is tried again; None: it is not. Refused where that is said with something else."""
    backoff = rules.backoff if spec.retry is DEFAULT else spec.retry
    if backoff is None:
        return None
    if not isinstance(backoff, Backoff):
        refuse("retry: a Backoff, or None")
    return backoff if is_method(spec.method) and backoff.covers(spec.method) and spec.is_repeatable else None


def attempt_of(rules: Rules, spec: Spec, backoff: Backoff) -> Spec:
    """One attempt of `spec`: it has no more time than `attempt_timeout`."""
    most = backoff.attempt_timeout_s
    if most is None:
        return spec
    asked = rules.timeout_s if spec.timeout is DEFAULT else seconds_of(spec.timeout)
    return structs.replace(spec, timeout=most if asked is None else min(asked, most))


def value_of(
    answer: Result[Exchange, NetworkFailure], read: Callable[[bytes, str | None], T]
) -> Result[T, NetworkFailure]:
    """What `read` makes of the body; a 304 is a failure to those who did not ask for one."""
    if not isinstance(answer, Success):
        return answer  # type: ignore[return-value]  # A Failure has no value to be of another type.
    exchange = answer.unwrap()
    if exchange.status == 304:  # noqa: PLR2004 (Not Modified)
        return Failure(NetworkFailure.of_status(304))
    try:
        return Success(read(exchange.body, exchange.charset))
    except UnfitError as error:
        return Failure(error.failure)


class AsyncVerb(Protocol):
    """A method of `HttpSource` that sends a request."""

    @overload
    def __call__(
        self, url: str, **options: Unpack[RequestOptions]
    ) -> Coroutine[Any, Any, Result[bytes, NetworkFailure]]: ...
    @overload
    def __call__(
        self, url: str, *, parser: type[T] | TypeAdapter[T], **options: Unpack[RequestOptions]
    ) -> Coroutine[Any, Any, Result[T, NetworkFailure]]: ...
    @overload
    def __call__(
        self, url: str, *, parser: None, **options: Unpack[RequestOptions]
    ) -> Coroutine[Any, Any, Result[None, NetworkFailure]]: ...


class AsyncRequest(Protocol):
    """`HttpSource.request`."""

    @overload
    def __call__(
        self, method: str, url: str, **options: Unpack[RequestOptions]
    ) -> Coroutine[Any, Any, Result[bytes, NetworkFailure]]: ...
    @overload
    def __call__(
        self, method: str, url: str, *, parser: type[T] | TypeAdapter[T], **options: Unpack[RequestOptions]
    ) -> Coroutine[Any, Any, Result[T, NetworkFailure]]: ...
    @overload
    def __call__(
        self, method: str, url: str, *, parser: None, **options: Unpack[RequestOptions]
    ) -> Coroutine[Any, Any, Result[None, NetworkFailure]]: ...


class AsyncUpload(Protocol):
    """`HttpSource.upload`."""

    @overload
    def __call__(
        self,
        url: str,
        source: Path | IO[bytes] | bytes,
        *,
        method: str = ...,
        progress: Progress | None = ...,
        **options: Unpack[UploadOptions],
    ) -> Coroutine[Any, Any, Result[bytes, NetworkFailure]]: ...
    @overload
    def __call__(
        self,
        url: str,
        source: Path | IO[bytes] | bytes,
        *,
        parser: type[T] | TypeAdapter[T],
        method: str = ...,
        progress: Progress | None = ...,
        **options: Unpack[UploadOptions],
    ) -> Coroutine[Any, Any, Result[T, NetworkFailure]]: ...
    @overload
    def __call__(
        self,
        url: str,
        source: Path | IO[bytes] | bytes,
        *,
        parser: None,
        method: str = ...,
        progress: Progress | None = ...,
        **options: Unpack[UploadOptions],
    ) -> Coroutine[Any, Any, Result[None, NetworkFailure]]: ...


class SyncVerb(Protocol):
    """A method of `SyncHttpSource` that sends a request."""

    @overload
    def __call__(self, url: str, **options: Unpack[RequestOptions]) -> Result[bytes, NetworkFailure]: ...
    @overload
    def __call__(
        self, url: str, *, parser: type[T] | TypeAdapter[T], **options: Unpack[RequestOptions]
    ) -> Result[T, NetworkFailure]: ...
    @overload
    def __call__(
        self, url: str, *, parser: None, **options: Unpack[RequestOptions]
    ) -> Result[None, NetworkFailure]: ...


class SyncRequest(Protocol):
    """`SyncHttpSource.request`."""

    @overload
    def __call__(self, method: str, url: str, **options: Unpack[RequestOptions]) -> Result[bytes, NetworkFailure]: ...
    @overload
    def __call__(
        self, method: str, url: str, *, parser: type[T] | TypeAdapter[T], **options: Unpack[RequestOptions]
    ) -> Result[T, NetworkFailure]: ...
    @overload
    def __call__(
        self, method: str, url: str, *, parser: None, **options: Unpack[RequestOptions]
    ) -> Result[None, NetworkFailure]: ...


class SyncUpload(Protocol):
    """`SyncHttpSource.upload`."""

    @overload
    def __call__(
        self,
        url: str,
        source: Path | IO[bytes] | bytes,
        *,
        method: str = ...,
        progress: Progress | None = ...,
        **options: Unpack[UploadOptions],
    ) -> Result[bytes, NetworkFailure]: ...
    @overload
    def __call__(
        self,
        url: str,
        source: Path | IO[bytes] | bytes,
        *,
        parser: type[T] | TypeAdapter[T],
        method: str = ...,
        progress: Progress | None = ...,
        **options: Unpack[UploadOptions],
    ) -> Result[T, NetworkFailure]: ...
    @overload
    def __call__(
        self,
        url: str,
        source: Path | IO[bytes] | bytes,
        *,
        parser: None,
        method: str = ...,
        progress: Progress | None = ...,
        **options: Unpack[UploadOptions],
    ) -> Result[None, NetworkFailure]: ...


def reading(parser: Any) -> Callable[[bytes, str | None], Any] | NetworkFailure:  # noqa: ANN401 (a type)
    """What reads a body as `parser`, or why nothing does."""
    try:
        return reader_of(parser)
    except UnfitError as error:
        return error.failure
