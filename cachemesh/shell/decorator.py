"""`@cached`: a function whose answers are cached, its signature and types kept."""

from __future__ import annotations

import functools
import inspect
from time import monotonic
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, cast, overload

from returns.future import FutureResult
from returns.result import Failure, Result

from cachemesh.core.policies import SERVE, CachePolicy
from cachemesh.core.scopes import CacheScope
from cachemesh.errors import CacheError, InvalidKey
from cachemesh.shell.cache import Cache
from cachemesh.shell.face import NO_PLAIN_HITS, Face
from cachemesh.shell.key_template import KeyTemplate
from cachemesh.shell.method import Method, is_in_class
from cachemesh.shell.ports import DEFAULT, Default, Ttl

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from returns.io import IOResult

    from cachemesh.shell.eviction import Resident
    from cachemesh.shell.options import RetryOptions
    from cachemesh.shell.outcomes import Answer
    from cachemesh.shell.sync_cache import SyncCache

P = ParamSpec("P")
Q = ParamSpec("Q")
S = TypeVar("S")
T = TypeVar("T")
E = TypeVar("E")
T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)


class Keyed(Protocol[P]):
    """What every cached function can be asked, with the arguments of a call.

    In a class each of the three below is a descriptor: `instance.method` takes the remaining arguments.
    """

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of a call with these arguments."""

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Remove the answer of a call with these arguments."""


class CachedAsync(Keyed[P], Protocol[P, T_co, E_co]):
    """A cached `async def` that returns a `Result`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Result[T_co, E_co | CacheError]]: ...
    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Result[T_co, E_co | CacheError]]: ...

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(
        self: CachedAsync[Concatenate[S, Q], T, E], instance: S, owner: type | None = None
    ) -> CachedAsync[Q, T, E]: ...


class CachedFuture(Keyed[P], Protocol[P, T_co, E_co]):
    """A cached function that returns a `FutureResult`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> FutureResult[T_co, E_co | CacheError]: ...
    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> FutureResult[T_co, E_co | CacheError]: ...

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(
        self: CachedFuture[Concatenate[S, Q], T, E], instance: S, owner: type | None = None
    ) -> CachedFuture[Q, T, E]: ...


class CachedSync(Keyed[P], Protocol[P, T_co, E_co]):
    """A cached function for threads."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Result[T_co, E_co | CacheError]: ...
    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> Result[T_co, E_co | CacheError]: ...

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(
        self: CachedSync[Concatenate[S, Q], T, E], instance: S, owner: type | None = None
    ) -> CachedSync[Q, T, E]: ...


class AsyncDecorator(Protocol):
    """What `cached` gives for a `Cache`."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, Result[T, E]]]) -> CachedAsync[P, T, E]: ...
    @overload
    def __call__(self, function: Callable[P, FutureResult[T, E]]) -> CachedFuture[P, T, E]: ...


class SyncDecorator(Protocol):
    """What `cached` gives for a `SyncCache`."""

    @overload
    def __call__(self, function: Callable[P, Result[T, E]]) -> CachedSync[P, T, E]: ...
    @overload
    def __call__(self, function: Callable[P, IOResult[T, E]]) -> CachedSync[P, T, E]: ...


@overload
def cached(
    cache: Cache,
    *,
    key: str | Callable[..., str],
    policy: CachePolicy = ...,
    ttl: Ttl | Default = ...,
    retry: RetryOptions | Default = ...,
    cache_failures: bool | Default = ...,
    always_revalidate: bool = ...,
    scope: CacheScope = ...,
) -> AsyncDecorator: ...
@overload
def cached(
    cache: SyncCache,
    *,
    key: str | Callable[..., str],
    policy: CachePolicy = ...,
    ttl: Ttl | Default = ...,
    retry: RetryOptions | Default = ...,
    cache_failures: bool | Default = ...,
    always_revalidate: bool = ...,
    scope: CacheScope = ...,
) -> SyncDecorator: ...
def cached(
    cache: Cache | SyncCache,
    *,
    key: str | Callable[..., str],
    policy: CachePolicy = CachePolicy.CACHE_FIRST,
    ttl: Ttl | Default = DEFAULT,
    retry: RetryOptions | Default = DEFAULT,
    cache_failures: bool | Default = DEFAULT,
    always_revalidate: bool = False,
    scope: CacheScope = CacheScope.GLOBAL,
) -> AsyncDecorator | SyncDecorator:
    """Cache the answers of a function that returns a `Result` or a `FutureResult`; for threads an `IOResult` as well.

    `key` is a template over the function's parameters, as for `str.format`, or
    a function of the same arguments. In a template with several fields, what
    stands between them is percent-encoded within the values, so that no two
    calls share a key by accident; values that print alike share one (1 and
    "1"). The other options are those of `get`.

    The decorated function also has `.key(...)`, `.invalidate(...)` and
    `.refresh(...)`, each called like the function itself. A key that cannot be
    made answers `Failure(InvalidKey)`. A template that names no parameter of
    the function raises ValueError at decoration.

    In a class, `instance.method` has all three with its `self` bound, and
    `Class.method` takes the instance first. What the key says of `self` is for
    the template to name (`{self.tenant}`; a bare `{self}` is refused, for it may
    be no more than an address). Where it names nothing, all instances share one
    entry, as they share the cache. Class methods are not supported but for the
    call itself.

    >>> import asyncio
    >>> from returns.result import Result, Success
    >>> cache = Cache()
    >>> @cached(cache, key="user:{user_id}", ttl=300)
    ... async def user(user_id: str) -> Result[str, str]:
    ...     return Success(f"the user {user_id}")
    >>> asyncio.run(user("42"))
    <Success: the user 42>
    >>> user.key("42")
    'user:42'
    """
    options = {"ttl": ttl, "retry": retry, "cache_failures": cache_failures, "scope": scope}
    get_options = {**options, "policy": policy, "always_revalidate": always_revalidate}
    plain = is_plain(cache, policy, scope, always_revalidate=always_revalidate)

    def decorate(function: Callable[..., Any]) -> Any:  # noqa: ANN401 (one of the three protocols)
        template = KeyTemplate.of(function, key)
        functions = Functions(cache, function, template, get_options, options)
        if not isinstance(cache, Cache):
            wrapper: Any = functions.sync_get(plain)
            wrapper.refresh = functions.refresh
        elif inspect.iscoroutinefunction(function):
            wrapper = functions.async_get(plain)
            wrapper.refresh = functions.refresh
        else:
            get = functions.async_get(plain)
            refresh = functions.refresh

            def future_get(*args: Any, **kwargs: Any) -> FutureResult[Any, Any]:  # noqa: ANN401
                return FutureResult(get(*args, **kwargs))

            def future_refresh(*args: Any, **kwargs: Any) -> FutureResult[Any, Any]:  # noqa: ANN401
                return FutureResult(refresh(*args, **kwargs))

            wrapper = future_get
            wrapper.refresh = future_refresh
        functools.update_wrapper(wrapper, function)
        wrapper.key = template.key
        wrapper.invalidate = functions.invalidate
        return Method(wrapper) if is_in_class(function) else wrapper

    return cast("AsyncDecorator | SyncDecorator", decorate)


def is_plain(cache: Face, policy: CachePolicy, scope: CacheScope, *, always_revalidate: bool) -> Mapping[str, Resident]:
    """The table in which a call may look for its hit by itself."""
    serves = policy.fresh is SERVE and not always_revalidate and scope is CacheScope.GLOBAL
    return cache.plain if serves else NO_PLAIN_HITS


class Functions:
    """The parts of one cached function."""

    def __init__(
        self,
        cache: Any,  # noqa: ANN401 (either face: the calls are the same but for `await`)
        function: Callable[..., Any],
        template: KeyTemplate,
        get_options: dict[str, Any],
        refresh_options: dict[str, Any],
    ) -> None:
        self._cache = cache
        self._function = function
        self._template = template
        self._get_options = get_options
        self._refresh_options = refresh_options

    def async_get(self, plain: Mapping[str, Resident]) -> Callable[..., Coroutine[Any, Any, Answer]]:
        ask = self.ask
        shortcut = self._template.shortcut

        async def get(*args: Any, **kwargs: Any) -> Answer:  # noqa: ANN401 (the function's own arguments)
            asked = ask(args, kwargs)
            return asked if isinstance(asked, Failure) else await asked

        if shortcut is None:
            return get
        prefix, suffix = shortcut.prefix, shortcut.suffix

        async def get_one(argument: Any) -> Answer:  # noqa: ANN401 (the function's own argument)
            if type(argument) is str:
                resident = plain.get(f"{prefix}{argument}{suffix}")
                if resident is not None and resident.hit_until > monotonic():
                    if resident.visits < 3:  # noqa: PLR2004 (MAX_VISITS: a constant is cheaper)
                        resident.visits += 1
                    return resident.answer
            asked = ask((argument,), {})
            return asked if isinstance(asked, Failure) else await asked

        return shortcut.named(get_one)

    def sync_get(self, plain: Mapping[str, Resident]) -> Callable[..., Answer]:
        ask = self.ask
        shortcut = self._template.shortcut

        def get(*args: Any, **kwargs: Any) -> Answer:  # noqa: ANN401 (the function's own arguments)
            asked: Answer = ask(args, kwargs)
            return asked

        if shortcut is None:
            return get
        prefix, suffix = shortcut.prefix, shortcut.suffix

        def get_one(argument: Any) -> Answer:  # noqa: ANN401 (the function's own argument)
            if type(argument) is str:
                resident = plain.get(f"{prefix}{argument}{suffix}")
                if resident is not None and resident.hit_until > monotonic():
                    if resident.visits < 3:  # noqa: PLR2004 (MAX_VISITS: a constant is cheaper)
                        resident.visits += 1
                    return resident.answer
            asked: Answer = ask((argument,), {})
            return asked

        return shortcut.named(get_one)

    def ask(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 (an Answer, or a promise of one)
        key = self._key(args, kwargs)
        if isinstance(key, Failure):
            return key
        fetch = functools.partial(self._function, *args, **kwargs)
        return self._cache.get(key, fetch, **self._get_options)

    def refresh(self, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (an Answer, or a promise of one)
        key = self._key(args, kwargs)
        fetch = functools.partial(self._function, *args, **kwargs)
        name = key.failure().key if isinstance(key, Failure) else key
        return self._cache.refresh(name, fetch, **self._refresh_options)

    def invalidate(self, /, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (the function's own arguments)
        self._cache.invalidate(self._template.key(*args, **kwargs), scope=self._get_options["scope"])

    def _key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 (a str or a Failure)
        bound = self._template.bound(args, kwargs)
        try:
            return self._template.written(bound)
        except Exception as error:  # noqa: BLE001 (a key function or a value's __format__ may raise anything)
            return Failure(InvalidKey(error))
