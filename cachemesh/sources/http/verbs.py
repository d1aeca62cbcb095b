"""The methods of `HttpSource` and `SyncHttpSource` as type checkers see them, with the options that they take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path
    from typing import IO

    from pydantic import TypeAdapter
    from returns.result import Result
    from typing_extensions import Unpack

    from cachemesh.sources.failure import NetworkFailure
    from cachemesh.sources.http.transfers import Progress

T = TypeVar("T")


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
