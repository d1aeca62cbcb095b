"""What a source needs of a client, which those of httpx2 and httpx both have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping

STEPS: Final = ("connect", "read", "write", "pool")
"""What a client has time limits for."""

POOL: Final[Mapping[str, Any]] = {
    "max_connections": 100,
    "max_keepalive_connections": 20,
    "keepalive_expiry": 5.0,
}
"""How many connections are kept, and for how long: as httpx2 has it."""

REPEATABLE: Final = "cachemesh_is_repeatable"
"""The extension of a request whose body is a stream that can be sent once more, as from a file that can be rewound."""


class Headers(Protocol):
    """Headers of either library. Names are in whatever case."""

    def get(self, name: str, default: str = "", /) -> str: ...
    def get_list(self, name: str, /) -> list[str]: ...
    def multi_items(self) -> list[tuple[str, str]]: ...


class Response(Protocol):
    """A response whose body has not been read."""

    status_code: int
    is_stream_consumed: bool

    @property
    def headers(self) -> Any: ...  # noqa: ANN401 (`Headers`, which is also a mapping)
    @property
    def request(self) -> Any: ...  # noqa: ANN401 (a Request of the library)
    @property
    def extensions(self) -> Mapping[str, Any]: ...
    @property
    def charset_encoding(self) -> str | None: ...
    @property
    def content(self) -> bytes: ...
    def aiter_raw(self) -> AsyncGenerator[bytes, None]: ...
    async def aclose(self) -> None: ...
    def iter_raw(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class AnyClient(Protocol):
    """What both clients have."""

    @property
    def is_closed(self) -> bool: ...
    @property
    def base_url(self) -> Any: ...  # noqa: ANN401 (a URL of the library)
    @property
    def cookies(self) -> Any: ...  # noqa: ANN401 (Cookies of the library)
    @property
    def timeout(self) -> Any: ...  # noqa: ANN401 (a Timeout of the library)
    def build_request(self, method: str, url: Any, /) -> Any: ...  # noqa: ANN401 (with the keywords of the library)


class AsyncClient(AnyClient, Protocol):
    """`httpx2.AsyncClient`, or that of httpx."""

    def send(self, request: Any, /, *, stream: bool = False) -> Awaitable[Any]: ...  # noqa: ANN401 (as above)


class SyncClient(AnyClient, Protocol):
    """`httpx2.Client`, or that of httpx."""

    def send(self, request: Any, /, *, stream: bool = False) -> Any: ...  # noqa: ANN401 (as above)
