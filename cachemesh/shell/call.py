"""The options of one call, as its caller wrote them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping  # noqa: TC003 (for `typing.get_type_hints`)
from typing import Any, Final, TypedDict, TypeVar

from msgspec import Struct

from cachemesh.core.scopes import GLOBAL, CacheScope
from cachemesh.shell.default import DEFAULT, Default
from cachemesh.shell.durations import Duration  # noqa: TC001 (as above)
from cachemesh.shell.options import RetryOptions  # noqa: TC001 (as above)


class FetchOptions(TypedDict, total=False):
    """What `get`, `refresh` and their kin take beside policy and ttl.

    `retry`: how often a failed fetch is tried. `cache_failures`: True also
    remembers a failed fetch (for the ttl, 60 s at the most); False neither
    remembers one nor is answered from one. `scope`: whose entry it is. `tags`:
    what it can be invalidated by, together with others. `origin`: the name of
    what is asked, for its circuit breaker. `soft_timeout`: who has waited for
    so long is answered with an old value, if there is one, while the fetch goes
    on for the cache. `hard_timeout`: who has waited for so long waits no longer,
    and gets an old value within its `stale_if_error_for`, or `FetchTimeout`; the
    next one starts anew. `max_flight_age`: a fetch that takes longer fails with
    `FetchTimeout` for everybody, and the next one starts anew. Who asks for a
    fetch whatever is cached gets no old value; and the store has a limit of its
    own, a second. With a timeout or an age, `SyncCache` fetches in a thread of
    its own: one that hangs cannot be stopped, only left. `conditional`: the fetcher is handed what is
    cached, as a `Previous`, or None. `schema`: what the value is (any type that
    pydantic takes, or a `Schema`), for stores and snapshots; left out, it is
    plain JSON there. `error_schema`: the same for an error that is remembered.
    """

    retry: RetryOptions | Default
    cache_failures: bool | Default
    scope: CacheScope
    tags: Collection[str]
    origin: str | None
    soft_timeout: Duration | None
    hard_timeout: Duration | None
    max_flight_age: Duration | Default | None
    conditional: bool
    schema: Any
    error_schema: Any


class GetOptions(FetchOptions, total=False):
    """What `get` takes beside policy and ttl.

    `always_revalidate`: stale_while_revalidate refreshes in the background even
    what is fresh.
    """

    always_revalidate: bool


class Call(Struct, frozen=True):
    """The options of one call. An unknown one raises TypeError, as an unknown argument does."""

    retry: Any = DEFAULT
    cache_failures: Any = DEFAULT
    scope: Any = GLOBAL
    tags: Any = ()
    origin: Any = None
    soft_timeout: Any = None
    hard_timeout: Any = None
    max_flight_age: Any = DEFAULT
    conditional: Any = False
    schema: Any = None
    error_schema: Any = None
    always_revalidate: Any = False


NO_OPTIONS: Final = Call()

F = TypeVar("F", bound="Callable[..., Any]")


def spelled_out(options: type, defaults: Call = NO_OPTIONS) -> Callable[[F], F]:
    """Let `help` and `inspect` show the keyword arguments that `**options` stands for."""

    def of(function: F) -> F:
        signature = inspect.signature(function)
        named = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        optional = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=getattr(defaults, name),
                annotation=kind.__forward_arg__,
            )
            for name, kind in inspect.get_annotations(options).items()
        ]
        function.__signature__ = signature.replace(parameters=[*named, *optional])  # type: ignore[attr-defined]  # a function's
        return function

    return of


OF_A_PLAIN_HIT: Final = frozenset(Call.__struct_fields__)


def reads_plainly(options: Mapping[str, object]) -> bool:
    """Whether a hit for the global scope has nothing to look at in these options (decision 0006)."""
    return (
        options.keys() <= OF_A_PLAIN_HIT
        and options.get("scope", GLOBAL) is GLOBAL
        and options.get("always_revalidate", False) is False
    )


def call_of(options: Mapping[str, Any]) -> Call:
    """The options of a call. TypeError where one is unknown."""
    return Call(**options) if options else NO_OPTIONS
