"""What is wrong with the options of a call: everything is checked before anything happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct
from returns.result import Failure

from cachemesh.core.lifetimes import LONGEST_TTL_S
from cachemesh.core.model import Lifespan, Origin
from cachemesh.core.retry import Retry
from cachemesh.core.scopes import CacheScope
from cachemesh.errors import CacheError, InvalidKey, InvalidOption, InvalidTtl
from cachemesh.shell.call import NO_OPTIONS, Call
from cachemesh.shell.default import DEFAULT
from cachemesh.shell.durations import duration_s
from cachemesh.shell.lifetime import Lifetime
from cachemesh.shell.live import Plan
from cachemesh.shell.options import BreakerOptions, RetryOptions
from cachemesh.shell.outcomes import life_of, tags_of

if TYPE_CHECKING:
    from cachemesh.shell.runtime import Runtime
    from cachemesh.shell.schema import Schema


class Checked(Struct, frozen=True):
    """The options of a call, as the core takes them, and the plan that is the shell's."""

    key: str
    ttl_s: float | None
    lifespan: Lifespan | None
    tags: tuple[str, ...]
    origin: Origin | None
    rule: Retry
    store_failures: bool
    heed_failures: bool
    plan: Plan


class BadOptionError(Exception):
    """Ends the checking of a call: `error` is what its caller gets. It never leaves this file."""

    def __init__(self, error: CacheError) -> None:
        super().__init__()
        self.error = error


def checked_call(runtime: Runtime, key: object, ttl: object, call: Call) -> Checked | Failure[Any]:
    """The options of a call; or the one that is wrong."""
    try:
        return _checked(runtime, key, ttl, call)
    except BadOptionError as bad:
        return Failure(bad.error)


def _checked(runtime: Runtime, key: object, ttl: object, call: Call) -> Checked:
    key = checked_key(key)
    ttl_s, lifespan, lifetime = checked_life(runtime, ttl)
    checked_scope(call.scope)
    options = _retry(runtime, call)
    if call.cache_failures is DEFAULT:
        stores = runtime.stores_failures or (lifetime is not None and lifetime.remembers)
        heeds = True
    elif call.cache_failures is True or call.cache_failures is False:
        stores = heeds = call.cache_failures
    else:
        raise BadOptionError(InvalidOption("cache_failures", type(call.cache_failures).__name__))
    if call is NO_OPTIONS and lifetime is runtime.default_lifetime:
        return Checked(key, ttl_s, lifespan, (), None, options.rule, stores, heeds, runtime.default_plan)
    origin, counts = _origin(runtime, call)
    if call.conditional is not True and call.conditional is not False:
        raise BadOptionError(InvalidOption("conditional", type(call.conditional).__name__))
    age = runtime.default_plan.age_s if call.max_flight_age is DEFAULT else _duration(call.max_flight_age)
    plan = Plan(
        options,
        options.attempt_timeout_s,
        lifetime,
        _duration(call.soft_timeout),
        _duration(call.hard_timeout),
        age,
        call.conditional,
        counts,
        checked_schema(runtime, "schema", call.schema),
        checked_schema(runtime, "error_schema", call.error_schema),
    )
    return Checked(key, ttl_s, lifespan, checked_tags(call.tags), origin, options.rule, stores, heeds, plan)


def checked_key(key: object) -> str:
    """`key` as a plain str."""
    if type(key) is str:
        return key
    if not isinstance(key, str):
        raise BadOptionError(InvalidKey(key))
    return str.__str__(key)


def checked_life(runtime: Runtime, ttl: object) -> tuple[float | None, Lifespan | None, Lifetime | None]:
    """The ttl in seconds, with what a `Lifetime` says beside it."""
    if ttl is DEFAULT:
        lifetime = runtime.default_lifetime
        return runtime.default_ttl_s, None if lifetime is None else lifetime.lifespan, lifetime
    if type(ttl) is int and 0 <= ttl <= LONGEST_TTL_S:
        return float(ttl), None, None
    try:
        ttl_s, lifespan = life_of(ttl)
    except Exception:  # noqa: BLE001 (an object that is no duration may raise anything when it is looked at)
        raise BadOptionError(InvalidTtl(ttl)) from None
    return ttl_s, lifespan, ttl if isinstance(ttl, Lifetime) else None


def checked_scope(scope: object) -> CacheScope:
    """`scope`, which is one."""
    if type(scope) is not CacheScope:
        raise BadOptionError(InvalidOption("scope", type(scope).__name__))
    return scope


def checked_schema(runtime: Runtime, option: str, schema: object) -> Schema | None:
    """`schema` as one."""
    try:
        return runtime.schemas.of(schema)
    except Exception:  # noqa: BLE001 (a type of somebody's own may raise anything when it is looked at)
        raise BadOptionError(InvalidOption(option, type(schema).__name__)) from None


def checked_tags(tags: object) -> tuple[str, ...]:
    """`tags` as plain strs."""
    found = tags_of(tags)
    if found is None:
        raise BadOptionError(InvalidOption("tags", type(tags).__name__))
    return found


def _retry(runtime: Runtime, call: Call) -> RetryOptions:
    if call.retry is DEFAULT:
        return runtime.default_plan.options
    if not issubclass(type(call.retry), RetryOptions):
        raise BadOptionError(InvalidOption("retry", type(call.retry).__name__))
    options: RetryOptions = call.retry
    return options


def _duration(value: object) -> float | None:
    try:
        return duration_s(value)
    except Exception:  # noqa: BLE001 (as for a ttl)
        raise BadOptionError(InvalidTtl(value)) from None


def _origin(runtime: Runtime, call: Call) -> tuple[Origin | None, Any]:
    """The origin and its limits, and what counts against it."""
    name = call.origin
    if name is None:
        return None, None
    if not isinstance(name, str):
        raise BadOptionError(InvalidOption("origin", type(name).__name__))
    name = str.__str__(name)
    breakers = runtime.breakers
    options = breakers if isinstance(breakers, BreakerOptions) else breakers.get(name, BreakerOptions())
    return Origin(name, options.failures, options.open_s), options.counts
