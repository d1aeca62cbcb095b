"""Fetchers for a cache that say of each answer what HTTP says of caching it (RFC 9111): `source.fetcher(url, ...)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from cachemesh.core.scopes import CacheScope
from cachemesh.sources.http.resource import Inquiry, Resource

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from pydantic import TypeAdapter
    from returns.result import Result
    from typing_extensions import Unpack

    from cachemesh.shell.call import FetchOptions
    from cachemesh.shell.ports import Directed
    from cachemesh.sources.failure import NetworkFailure
    from cachemesh.sources.http.exchange import Exchange, Rules, Spec
    from cachemesh.sources.http.resource import FetcherOptions

T = TypeVar("T")


class _Keyed:
    """What all fetchers have.

    They take a `Previous[T]` or None, and say `object`: for mypy, a fetcher that
    can be called with and without is two of the callables in `Fetcher`, and it
    finds the T of both only where both say the same of it.
    """

    __slots__ = ("_exchange", "_resource")

    def __init__(self, exchange: Callable[[Spec], Any], resource: Resource) -> None:
        self._exchange = exchange
        self._resource = resource

    @property
    def key(self) -> str:
        """What the cache may know the answer by: method, URL without its query, and a digest of query and headers.

        Credentials (Authorization, Cookie) are not in it. It does not know the
        `parser`: one resource that is read as two types needs two keys.
        """
        return self._resource.key

    @property
    def options(self) -> FetchOptions:
        """What a call with this fetcher wants beside the key: `cache.get(user.key, user, **user.options)`.

        Its scope, `conditional=True`, and what stores write values and failures as.
        """
        return self._resource.options

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.key!r})"


class HttpFetcher(_Keyed, Generic[T]):
    """A `Fetcher` for `Cache`; see `HttpSource.fetcher`. Called with a `Previous`, it asks whether that has changed."""

    __slots__ = ()

    async def __call__(self, previous: object = None, /) -> Result[Directed[T], NetworkFailure]:
        """What the origin answers, with what it says of caching it."""
        inquiry = Inquiry(self._resource, previous)
        while inquiry.answer is None:
            inquiry.take(await self._exchange(inquiry.spec))
        return inquiry.answer


class HttpTokenFetcher(_Keyed, Generic[T]):
    """A `TokenFetcher` for `Cache.get_authenticated`; see `HttpSource.token_fetcher`."""

    __slots__ = ()

    async def __call__(self, token: str, previous: object = None, /) -> Result[Directed[T], NetworkFailure]:
        """What the origin answers to the bearer of `token`, with what it says of caching it."""
        inquiry = Inquiry(self._resource, previous, token)
        while inquiry.answer is None:
            inquiry.take(await self._exchange(inquiry.spec))
        return inquiry.answer


class SyncHttpFetcher(_Keyed, Generic[T]):
    """A `SyncFetcher` for `SyncCache`; see `HttpSource.fetcher`."""

    __slots__ = ()

    def __call__(self, previous: object = None, /) -> Result[Directed[T], NetworkFailure]:
        """What the origin answers, with what it says of caching it."""
        inquiry = Inquiry(self._resource, previous)
        while inquiry.answer is None:
            inquiry.take(self._exchange(inquiry.spec))
        return inquiry.answer


class SyncHttpTokenFetcher(_Keyed, Generic[T]):
    """A `SyncTokenFetcher` for `SyncCache.get_authenticated`; see `HttpSource.token_fetcher`."""

    __slots__ = ()

    def __call__(self, token: str, previous: object = None, /) -> Result[Directed[T], NetworkFailure]:
        """What the origin answers to the bearer of `token`, with what it says of caching it."""
        inquiry = Inquiry(self._resource, previous, token)
        while inquiry.answer is None:
            inquiry.take(self._exchange(inquiry.spec))
        return inquiry.answer


class Fetching:
    """The part of `HttpSource` that makes fetchers."""

    _rules: Rules
    _given: Any

    if TYPE_CHECKING:

        def _exchange(self, spec: Spec) -> Coroutine[Any, Any, Result[Exchange, NetworkFailure]]: ...

    @overload
    def fetcher(self, url: str, **options: Unpack[FetcherOptions]) -> HttpFetcher[bytes]: ...
    @overload
    def fetcher(
        self, url: str, *, parser: type[T] | TypeAdapter[T], **options: Unpack[FetcherOptions]
    ) -> HttpFetcher[T]: ...
    @overload
    def fetcher(self, url: str, *, parser: None, **options: Unpack[FetcherOptions]) -> HttpFetcher[None]: ...
    def fetcher(self, url: str, *, parser: Any = bytes, **options: Any) -> HttpFetcher[Any]:
        """What fetches `url` for `Cache.get` and its kin, and tells the cache what the origin says of caching.

        Cache-Control, Expires, Age and Date decide for how long an answer is
        fresh, and its `serve_stale_for` and `stale_if_error_for` (RFC 9111 and
        5861), in place of the caller's ttl. With `conditional=True`, an ETag or
        a Last-Modified asks the origin whether what is cached has changed, and a
        304 renews it. Where an answer has no lifetime:

        - with an ETag or a Last-Modified it is fresh for 0 seconds, and so asked for each time;
        - otherwise the caller's ttl counts.

        `default_ttl` and `heuristic` say otherwise: see `FetcherOptions`. No
        guess is made by default, as the caller of an API knows better than a
        tenth of its age. Where the origin says nothing of windows, those of the
        caller's `Lifetime` count, unless it says must-revalidate or no-cache.

        `scope` is that of the call. In the `GLOBAL` scope, an answer that is
        `private`, sets a cookie, or came for an `Authorization` that nothing
        permits (section 3.5), is answered to the one who asked and kept nowhere.
        In the others all but `no-store` may be kept. Only GETs are made, and
        failures are never cached by what HTTP says of them.

        Failures: those of `get`; `bad_response` for a 304 that nobody asked for.
        A ttl that makes no sense raises ValueError.

        >>> from cachemesh.sources import HttpSource
        >>> user = HttpSource("https://example.org/api").fetcher("/users/42", parser=dict)
        >>> user.key
        'GET https://example.org/api/users/42'

        and then `await cache.get(user.key, user, conditional=True)`.
        """
        return HttpFetcher(self._exchange, Resource(self._rules, self._given, url, parser, **options))

    @overload
    def token_fetcher(self, url: str, **options: Unpack[FetcherOptions]) -> HttpTokenFetcher[bytes]: ...
    @overload
    def token_fetcher(
        self, url: str, *, parser: type[T] | TypeAdapter[T], **options: Unpack[FetcherOptions]
    ) -> HttpTokenFetcher[T]: ...
    @overload
    def token_fetcher(self, url: str, *, parser: None, **options: Unpack[FetcherOptions]) -> HttpTokenFetcher[None]: ...
    def token_fetcher(self, url: str, *, parser: Any = bytes, **options: Any) -> HttpTokenFetcher[Any]:
        """`fetcher` for `Cache.get_authenticated`: it sends the token that it is handed as `Authorization: Bearer`.

        Its scope is `USER`, if left out, as that of `get_authenticated` is.
        """
        options = {"scope": CacheScope.USER, **options}
        return HttpTokenFetcher(self._exchange, Resource(self._rules, self._given, url, parser, **options))


class SyncFetching:
    """The part of `SyncHttpSource` that makes fetchers."""

    _rules: Rules
    _given: Any

    if TYPE_CHECKING:

        def _exchange(self, spec: Spec) -> Result[Exchange, NetworkFailure]: ...

    @overload
    def fetcher(self, url: str, **options: Unpack[FetcherOptions]) -> SyncHttpFetcher[bytes]: ...
    @overload
    def fetcher(
        self, url: str, *, parser: type[T] | TypeAdapter[T], **options: Unpack[FetcherOptions]
    ) -> SyncHttpFetcher[T]: ...
    @overload
    def fetcher(self, url: str, *, parser: None, **options: Unpack[FetcherOptions]) -> SyncHttpFetcher[None]: ...
    def fetcher(self, url: str, *, parser: Any = bytes, **options: Any) -> SyncHttpFetcher[Any]:
        """What fetches `url` for `SyncCache.get` and its kin, as `HttpSource.fetcher` does."""
        return SyncHttpFetcher(self._exchange, Resource(self._rules, self._given, url, parser, **options))

    @overload
    def token_fetcher(self, url: str, **options: Unpack[FetcherOptions]) -> SyncHttpTokenFetcher[bytes]: ...
    @overload
    def token_fetcher(
        self, url: str, *, parser: type[T] | TypeAdapter[T], **options: Unpack[FetcherOptions]
    ) -> SyncHttpTokenFetcher[T]: ...
    @overload
    def token_fetcher(
        self, url: str, *, parser: None, **options: Unpack[FetcherOptions]
    ) -> SyncHttpTokenFetcher[None]: ...
    def token_fetcher(self, url: str, *, parser: Any = bytes, **options: Any) -> SyncHttpTokenFetcher[Any]:
        """`fetcher` for `SyncCache.get_authenticated`, as `HttpSource.token_fetcher` is for `Cache`."""
        options = {"scope": CacheScope.USER, **options}
        return SyncHttpTokenFetcher(self._exchange, Resource(self._rules, self._given, url, parser, **options))
