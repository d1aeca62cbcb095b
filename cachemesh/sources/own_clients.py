"""The clients that sources make for themselves, and that those need httpx2."""

from __future__ import annotations

from functools import cache
from http.cookiejar import CookieJar
from importlib.util import find_spec
from typing import TYPE_CHECKING

if find_spec("httpx2") is None:
    message = "HttpSource needs the extra `http`: pip install 'cachemesh[http]'"
    raise ModuleNotFoundError(message, name="httpx2")

from httpx2 import URL, AsyncClient, Client, create_ssl_context

from cachemesh.sources.clients import STEPS
from cachemesh.sources.deadline import DeadlineTransport
from cachemesh.sources.watched import WatchedTransport

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from http.client import HTTPResponse
    from urllib.request import Request


class NoCookies(CookieJar):
    """Keeps none and sends none: an answer that depends on earlier ones would be cached as if it did not."""

    def extract_cookies(self, response: HTTPResponse, request: Request) -> None:
        """None is taken."""

    def add_cookie_header(self, request: Request) -> None:
        """None is sent."""


@cache
def default_context() -> ssl.SSLContext:
    """The roots of trust of this machine. Reading them takes a while, so it is done once."""
    return create_ssl_context(trust_env=False)


NO_TIMEOUTS: Mapping[str, Mapping[str, None]] = {"timeout": dict.fromkeys(STEPS)}
"""For requests whose time is kept by the source."""


def own_async_client(verify: ssl.SSLContext | None, headers: Mapping[str, str] | None = None) -> AsyncClient:
    """A client that knows nothing but what it is told: no environment, cookies or redirects."""
    return AsyncClient(
        transport=WatchedTransport(default_context() if verify is None else verify),
        headers=headers,
        cookies=NoCookies(),
        timeout=None,
        trust_env=False,
    )


def own_sync_client(verify: ssl.SSLContext | None, headers: Mapping[str, str] | None = None) -> Client:
    """A client that knows nothing but what it is told: no environment, cookies or redirects."""
    return Client(
        transport=DeadlineTransport(default_context() if verify is None else verify),
        headers=headers,
        cookies=NoCookies(),
        timeout=None,
        trust_env=False,
    )


__all__ = ["NO_TIMEOUTS", "URL", "own_async_client", "own_sync_client"]
