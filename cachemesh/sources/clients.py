"""What a source needs of a client, which those of httpx2 and httpx both have; and the client of `HttpSource`."""

from __future__ import annotations

from functools import cache
from http.cookiejar import CookieJar
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

if find_spec("httpx2") is None:
    message = "HttpSource needs the extra `http`: pip install 'cachemesh[http]'"
    raise ModuleNotFoundError(message, name="httpx2")

import httpx2

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping
    from http.client import HTTPResponse
    from urllib.request import Request


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
    def build_request(self, method: str, url: Any, /) -> Any: ...  # noqa: ANN401 (with the keywords of the library)


class AsyncClient(AnyClient, Protocol):
    """`httpx2.AsyncClient`, or that of httpx."""

    def send(self, request: Any, /, *, stream: bool = False) -> Awaitable[Any]: ...  # noqa: ANN401 (as above)


class SyncClient(AnyClient, Protocol):
    """`httpx2.Client`, or that of httpx."""

    def send(self, request: Any, /, *, stream: bool = False) -> Any: ...  # noqa: ANN401 (as above)


class NoCookies(CookieJar):
    """Keeps none and sends none: an answer that depends on earlier ones would be cached as if it did not."""

    def extract_cookies(self, response: HTTPResponse, request: Request) -> None:
        """None is taken."""

    def add_cookie_header(self, request: Request) -> None:
        """None is sent."""


@cache
def default_context() -> ssl.SSLContext:
    """The roots of trust of this machine. Reading them takes a while, so it is done once."""
    return httpx2.create_ssl_context(trust_env=False)


NO_TIMEOUTS: Mapping[str, Mapping[str, None]] = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"))}
"""For requests whose time is kept by the source."""


def own_async_client(verify: ssl.SSLContext | None) -> httpx2.AsyncClient:
    """A client that knows nothing but what it is told: no environment, cookies or redirects."""
    return httpx2.AsyncClient(
        verify=default_context() if verify is None else verify,
        cookies=NoCookies(),
        timeout=None,
        trust_env=False,
    )
