"""What the logger hears of an effect: events, each a method of `CacheLogger` with its arguments."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from cachemesh.core import effects
from cachemesh.core.model import CACHE_MISS, Failed
from cachemesh.shell.logging import shown_error, shown_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cachemesh.shell.outcomes import Answer

Event: TypeAlias = tuple[Any, ...]
"""The name of the logger's method, and its arguments."""


def events_of(effect: effects.Effect[Answer], epoch_offset: float) -> tuple[Event, ...]:
    """What is told of `effect`. `epoch_offset`: what makes seconds since the epoch of an instant of the cache."""
    if isinstance(effect, effects.LogBreaker):
        return (("on_circuit", effect.origin, None if effect.until is None else effect.until + epoch_offset),)
    report = REPORTS.get(type(effect))
    return () if report is None else report(effect)


def of_start(effect: effects.StartFetch) -> tuple[Event, ...]:
    if effect.attempt > 1:
        return ()
    key = shown_key(effect.owner, effect.key)
    refresh = ("on_refresh", key, effect.source)
    return (("on_miss", key), refresh) if effect.source is CACHE_MISS else (refresh,)


def of_wait(effect: effects.WaitUntil[Answer]) -> tuple[Event, ...]:
    error = shown_error(effect.owner, effect.answer.failure())
    return (("on_retry", shown_key(effect.owner, effect.key), effect.attempt, error, effect.delay_s),)


def of_write(effect: effects.Save[Answer] | effects.Persist[Answer]) -> tuple[Event, ...]:
    if isinstance(effect.entry, Failed):
        return ()
    return (("on_write", shown_key(effect.owner, effect.key), effect.entry.ttl_s),)


def of_failure(effect: effects.ReportFailure[Answer]) -> tuple[Event, ...]:
    error = shown_error(effect.owner, effect.answer.failure())
    return (("on_error", shown_key(effect.owner, effect.key), error),)


def of_tag(effect: effects.LogTag) -> tuple[Event, ...]:
    shown = effect.tag if effect.owner is None else shown_key(effect.owner, effect.tag)
    return (("on_expire_tag" if effect.is_soft else "on_invalidate_tag", shown),)


def of_scope_cleared(effect: effects.LogScopeCleared) -> tuple[Event, ...]:
    keys = [shown_key(owner, key) for owner, key in sorted(effect.keys, key=itemgetter(1))]
    return (*(("on_invalidate", key) for key in keys), ("on_scope_cleared", effect.reason, keys))


REPORTS: Final[Mapping[type, Callable[[Any], tuple[Event, ...]]]] = {
    effects.Reply: lambda effect: (("on_hit", shown_key(effect.owner, effect.key)),) if effect.hit else (),
    effects.StartFetch: of_start,
    effects.WaitUntil: of_wait,
    effects.Save: of_write,
    effects.Persist: of_write,
    effects.ReportFailure: of_failure,
    effects.LogInvalidate: lambda effect: (("on_invalidate", shown_key(effect.owner, effect.key)),),
    effects.LogPrefix: lambda effect: (("on_invalidate_prefix", shown_key(effect.owner, effect.prefix)),),
    effects.LogTag: of_tag,
    effects.LogClear: lambda _: (("on_clear",),),
    effects.LogScopeCleared: of_scope_cleared,
    effects.LogEvict: lambda effect: (("on_evict", shown_key(effect.owner, effect.key)),),
}
