"""`KeeperAuth`: a keeper's token on each request of an httpx2 client. It needs the extra `auth`, or `http`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if find_spec("httpx2") is None:
    message = "KeeperAuth needs the extra `auth`: pip install 'cachemesh[auth]'"
    raise ModuleNotFoundError(message, name="httpx2")

import httpx2

from cachemesh.auth.errors import (
    TokenError,
)
from cachemesh.auth.keeper import TokenKeeper
from cachemesh.auth.skip import SKIPPED, is_refreshing
from cachemesh.auth.sync_keeper import SyncTokenKeeper
from cachemesh.sources.clients import REPEATABLE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Generator

    from cachemesh.core.tokens import Held

    AnyKeeper: TypeAlias = TokenKeeper | SyncTokenKeeper

UNAUTHORIZED: Final = 401

ATTACHED: Final = "cachemesh_attached_token"
"""A request that has this extension has our header; so has a copy of it, made to follow a redirect."""


class TokenUnavailable(httpx2.RequestError):
    """A request was not sent, as the keeper has no token for it: `error` says why.

    `failure` is the same as a `NetworkFailure`: "unauthorized" where the user must
    sign in; where a refresh found no server, what befell it.
    """

    def __init__(self, error: TokenError, request: httpx2.Request) -> None:
        super().__init__(repr(error), request=request)
        self.error: Final = error
        self.failure: Final = error.failure


class KeeperAuth(httpx2.Auth):
    """Attaches `Authorization: Bearer` (RFC 6750, section 2.1), and after a 401 tries once more with a new token.

    `keeper`: a `TokenKeeper` for an `AsyncClient`, a `SyncTokenKeeper` for a
    `Client`. `origins`: to which the token goes, as "https://api.example.com"; to
    no other it is ever sent, redirects included (but httpx2 itself keeps it where
    plain http leads to https of the same host). Passed as they are: requests to
    other origins, those with an `Authorization` of their own, those with the
    extension "cachemesh_skip_auth" (signing in), and what the keeper's own
    refresher asks for, so that it does not wait for itself.

    A 401 is answered with one refresh, or none where the token has been
    refreshed since the request was made. A body that can be read only once (a
    generator, a pipe) is not sent again: its 401 is the answer, though the
    token is refreshed for the next request. So it is where only signing in would help.
    Where there is no token, `TokenUnavailable` is raised and nothing is sent;
    an `HttpSource` makes a `NetworkFailure` of it.
    """

    def __init__(self, keeper: AnyKeeper, origins: str | Collection[str]) -> None:
        self._keeper: Final[Any] = keeper
        self._origins: Final = frozenset(_origin(each) for each in ([origins] if isinstance(origins, str) else origins))

    def __repr__(self) -> str:
        return f"KeeperAuth({self._keeper!r}, {sorted(map(str, self._origins))!r})"

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """httpx2's own port, for `AsyncClient`."""
        if isinstance(self._keeper, SyncTokenKeeper):
            msg = "an AsyncClient needs a TokenKeeper, and not a SyncTokenKeeper"
            raise TypeError(msg)
        if not self._concerns(request):
            yield request
            return
        held = _usable(await self._keeper.held(), request)
        response = yield _with_token(request, held)
        if not _is_rejected(response, held):
            return
        better = _better(await self._keeper.instead_of(held), request)
        if better is not None and is_repeatable(request):
            yield _with_token(request, better)

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """The same for `Client`."""
        if isinstance(self._keeper, TokenKeeper):
            msg = "a Client needs a SyncTokenKeeper, and not a TokenKeeper"
            raise TypeError(msg)
        if not self._concerns(request):
            yield request
            return
        held = _usable(self._keeper.held(), request)
        response = yield _with_token(request, held)
        if not _is_rejected(response, held):
            return
        better = _better(self._keeper.instead_of(held), request)
        if better is not None and is_repeatable(request):
            yield _with_token(request, better)

    def _concerns(self, request: httpx2.Request) -> bool:
        return (
            request.url.origin in self._origins
            and not request.extensions.get(SKIPPED)
            and ("authorization" not in request.headers or ATTACHED in request.extensions)
            and not is_refreshing(self._keeper)
        )


def is_repeatable(request: httpx2.Request) -> bool:
    """Whether the body can be sent once more. A stream of one's own says so with `is_repeatable = True`."""
    stream = request.stream
    if isinstance(stream, httpx2.ByteStream):
        return True
    fields = getattr(stream, "fields", None)
    if isinstance(fields, list):  # Of a multipart form, which rewinds its files itself.
        return all(_can_rewind(getattr(field, "file", b"")) for field in fields)
    return REPEATABLE in request.extensions or getattr(stream, "is_repeatable", False) is True


def _usable(got: Held | TokenError, request: httpx2.Request) -> Held:
    if isinstance(got, TokenError):
        raise TokenUnavailable(got, request)
    return got


def _better(got: Held | TokenError | None, request: httpx2.Request) -> Held | None:
    """The token to try again with. None: there is none, and the 401 says all there is to say."""
    if not isinstance(got, TokenError):
        return got
    unavailable = TokenUnavailable(got, request)
    if unavailable.failure.is_unauthorized or not is_repeatable(request):
        return None
    raise unavailable


def _with_token(request: httpx2.Request, held: Held) -> httpx2.Request:
    request.headers["Authorization"] = _header(held)
    request.extensions = {**request.extensions, ATTACHED: True}
    return request


def _is_rejected(response: httpx2.Response, held: Held) -> bool:
    """Whether this token was refused. After a redirect elsewhere it was not sent at all."""
    return response.status_code == UNAUTHORIZED and response.request.headers.get("authorization") == _header(held)


def _header(held: Held) -> str:
    return f"Bearer {held.token.access_token}"


def _can_rewind(file: Any) -> bool:  # noqa: ANN401 (whatever httpx2 takes for a file)
    if isinstance(file, str | bytes):
        return True
    seekable = getattr(file, "seekable", None)
    return callable(seekable) and bool(seekable())


def _origin(text: str) -> httpx2.Origin:
    """ValueError where `text` is none, or more than one."""
    url = httpx2.URL(text)
    if url.scheme not in {"http", "https"} or not url.host or url.raw_path != b"/" or url.userinfo:
        msg = "an origin is a scheme and a host, with a port or without: https://api.example.com"
        raise ValueError(msg)
    return url.origin
