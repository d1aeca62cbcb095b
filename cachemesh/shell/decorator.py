"""`@cached`: a function whose answers are cached, its signature and types kept."""

from __future__ import annotations

import functools
import inspect
import sys
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, Unpack, cast, overload

from returns.future import FutureResult
from returns.result import Failure, Result

from cachemesh.core.policies import SERVE, CachePolicy
from cachemesh.core.scopes import CacheScope
from cachemesh.errors import CacheError, InvalidKey, InvalidOption
from cachemesh.shell.annotations import types_of_answers
from cachemesh.shell.cache import Cache
from cachemesh.shell.call import Call, GetOptions, call_of
from cachemesh.shell.default import DEFAULT, Default
from cachemesh.shell.face import NO_PLAIN_HITS, Face
from cachemesh.shell.key_template import KeyTemplate
from cachemesh.shell.method import Method, is_in_class
from cachemesh.shell.outcomes import tags_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from returns.io import IOResult

    from cachemesh.shell.durations import Ttl
    from cachemesh.shell.eviction import Resident
    from cachemesh.shell.lifetime import Lifetime
    from cachemesh.shell.outcomes import Answer
    from cachemesh.shell.ports import Directed
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
    def __call__(self, function: Callable[P, Coroutine[Any, Any, Result[Directed[T], E]]]) -> CachedAsync[P, T, E]: ...
    @overload
    def __call__(self, function: Callable[P, FutureResult[Directed[T], E]]) -> CachedFuture[P, T, E]: ...


class SyncDecorator(Protocol):
    """What `cached` gives for a `SyncCache`."""

    @overload
    def __call__(self, function: Callable[P, Result[Directed[T], E]]) -> CachedSync[P, T, E]: ...
    @overload
    def __call__(self, function: Callable[P, IOResult[Directed[T], E]]) -> CachedSync[P, T, E]: ...


@overload
def cached(
    cache: Cache,
    *,
    key: str | Callable[..., str],
    policy: CachePolicy = ...,
    ttl: Ttl | Lifetime | Default = ...,
    **options: Unpack[GetOptions],
) -> AsyncDecorator: ...
@overload
def cached(
    cache: SyncCache,
    *,
    key: str | Callable[..., str],
    policy: CachePolicy = ...,
    ttl: Ttl | Lifetime | Default = ...,
    **options: Unpack[GetOptions],
) -> SyncDecorator: ...
def cached(
    cache: Cache | SyncCache,
    *,
    key: str | Callable[..., str],
    policy: CachePolicy = CachePolicy.CACHE_FIRST,
    ttl: Ttl | Lifetime | Default = DEFAULT,
    **options: Unpack[GetOptions],
) -> AsyncDecorator | SyncDecorator:
    """Cache the answers of a function that returns a `Result` or a `FutureResult`; for threads an `IOResult` as well.

    `key` is a template over the function's parameters, as for `str.format`, or
    a function of the same arguments. In a template with several fields, what
    stands between them is percent-encoded within the values, so that no two
    calls share a key by accident; values that print alike share one (1 and
    "1"). The other options are those of `get`; a tag may be a template as well.
    Value and error are stored as what the return annotation says that they are
    (`schema` and `error_schema` say something else).
    With `conditional=True` the function has a parameter `previous` that is left
    out by its callers: the cache fills it in.

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
    call = call_of(options)
    plain = is_plain(cache, policy, call)

    def decorate(function: Callable[..., Any]) -> Any:  # noqa: ANN401 (one of the three protocols)
        template = KeyTemplate.of(key, signature_of(function, call))
        functions = Functions(cache, function, template, policy, {"ttl": ttl, **options})
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


def is_plain(cache: Face, policy: CachePolicy, call: Call) -> Mapping[str, Resident]:
    """The table in which a call may look for its hit by itself."""
    serves = policy.fresh is SERVE and not call.always_revalidate and call.scope is CacheScope.GLOBAL
    return cache.plain if serves else NO_PLAIN_HITS


def signature_of(function: Callable[..., Any], call: Call) -> inspect.Signature:
    """What the callers of `function` give it: all but what the cache fills in."""
    signature = inspect.signature(function)
    if not call.conditional:
        return signature
    parameters = dict(signature.parameters)
    if parameters.pop("previous", None) is None:
        msg = "a function that is cached with conditional=True has a parameter `previous`"
        raise ValueError(msg)
    return signature.replace(parameters=list(parameters.values()))


def place_of_previous(function: Callable[..., Any]) -> int:
    """Before so many of the arguments that a call gives by place `previous` comes in; `sys.maxsize`: only by name."""
    parameters = list(inspect.signature(function).parameters.values())
    names = [each.name for each in parameters]
    place = names.index("previous")
    return sys.maxsize if parameters[place].kind is inspect.Parameter.KEYWORD_ONLY else place


class Functions:
    """The parts of one cached function."""

    def __init__(
        self,
        cache: Any,  # noqa: ANN401 (either face: the calls are the same but for `await`)
        function: Callable[..., Any],
        template: KeyTemplate,
        policy: CachePolicy,
        options: dict[str, Any],
    ) -> None:
        self._cache = cache
        self._function = function
        self._template = template
        self._options = options
        self._get_options = {"policy": policy, **options}
        self._refresh_options = {name: option for name, option in options.items() if name != "always_revalidate"}
        tags = tags_of(options.get("tags", ())) or ()  # What they are not is said by each call.
        self._tags = [KeyTemplate.of(tag, template.signature) if "{" in tag else tag for tag in tags]
        self._has_tag_templates = any(isinstance(tag, KeyTemplate) for tag in self._tags)
        self._place = place_of_previous(function) if options.get("conditional") else None
        self._is_inferred = False
        with suppress(NameError):  # What the annotation names may be defined further down: then at the first call.
            self._infer()

    def _infer(self) -> None:
        """Let the annotation say what the answers are, where the options do not."""
        value, error = types_of_answers(self._function)
        for name, of in (("schema", value), ("error_schema", error)):
            if of is None or name in self._options:
                continue
            schema = self._cache.expect(of)
            if schema is not None:
                for options in (self._options, self._get_options, self._refresh_options):
                    options[name] = schema
        self._is_inferred = True

    def _infer_late(self) -> None:
        self._is_inferred = True
        with suppress(NameError):  # It is defined for type checkers only: then the answers are taken for plain JSON.
            self._infer()

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
        if not self._is_inferred:
            self._infer_late()
        bound = self._template.bound(args, kwargs)
        key = self._key(bound)
        if isinstance(key, Failure):
            return key
        options = self._get_options
        if self._has_tag_templates:
            tags = self._tags_of(bound)
            if isinstance(tags, Failure):
                return tags
            options = {**options, "tags": tags}
        return self._cache.get(key, self._fetch(args, kwargs), **options)

    def refresh(self, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (an Answer, or a promise of one)
        if not self._is_inferred:
            self._infer_late()
        bound = self._template.bound(args, kwargs)
        key = self._key(bound)
        name = key.failure().key if isinstance(key, Failure) else key
        options = self._refresh_options
        if self._has_tag_templates:
            tags = self._tags_of(bound)
            options = {**options, "tags": (tags,) if isinstance(tags, Failure) else tags}
        return self._cache.refresh(name, self._fetch(args, kwargs), **options)

    def invalidate(self, /, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (the function's own arguments)
        scope = self._options.get("scope", CacheScope.GLOBAL)
        self._cache.invalidate(self._template.key(*args, **kwargs), scope=scope)

    def _fetch(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[..., Any]:
        function, place = self._function, self._place
        if place is None:
            return functools.partial(function, *args, **kwargs)
        if len(args) < place:
            return lambda previous: function(*args, previous=previous, **kwargs)
        return lambda previous: function(*args[:place], previous, *args[place:], **kwargs)

    def _key(self, bound: inspect.BoundArguments) -> Any:  # noqa: ANN401 (a str or a Failure)
        try:
            return self._template.written(bound)
        except Exception as error:  # noqa: BLE001 (a key function or a value's __format__ may raise anything)
            return Failure(InvalidKey(error))

    def _tags_of(self, bound: inspect.BoundArguments) -> Any:  # noqa: ANN401 (a tuple of strs or a Failure)
        try:
            return tuple(tag.written(bound) if isinstance(tag, KeyTemplate) else tag for tag in self._tags)
        except Exception as error:  # noqa: BLE001 (as for a key)
            return Failure(InvalidOption("tags", type(error).__name__))
