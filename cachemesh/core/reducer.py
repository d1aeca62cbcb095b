"""`reduce`: the one door. It only dispatches; the handlers are in the files beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cachemesh.core import commands
from cachemesh.core.asks import on_get, on_refresh
from cachemesh.core.flights import (
    on_abandoned,
    on_domain_closed,
    on_fetch_aborted,
    on_fetch_failed,
    on_fetch_succeeded,
    on_found_elsewhere,
    on_gave_up,
    on_loaded,
    on_overdue,
    on_retry_due,
    on_stopped_waiting,
    on_waited_long,
)
from cachemesh.core.hydration import on_hydrate
from cachemesh.core.news import on_heard
from cachemesh.core.removals import (
    on_clear,
    on_clear_scope,
    on_end_session,
    on_evict,
    on_forget,
    on_invalidate,
    on_invalidate_prefix,
    on_mark_tag,
    on_reset_breaker,
    on_set_active_user,
)
from cachemesh.core.writes import on_put, on_touch, on_update

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cachemesh.core.commands import Command
    from cachemesh.core.effects import Effects
    from cachemesh.core.model import A, State

HANDLERS: Final[Mapping[type, Callable[[Any, Any], Any]]] = {
    commands.Get: on_get,
    commands.Refresh: on_refresh,
    commands.RetryDue: on_retry_due,
    commands.FetchSucceeded: on_fetch_succeeded,
    commands.FetchFailed: on_fetch_failed,
    commands.FetchAborted: on_fetch_aborted,
    commands.Abandoned: on_abandoned,
    commands.WaitedLong: on_waited_long,
    commands.GaveUp: on_gave_up,
    commands.Overdue: on_overdue,
    commands.StoppedWaiting: on_stopped_waiting,
    commands.DomainClosed: on_domain_closed,
    commands.Loaded: on_loaded,
    commands.FoundElsewhere: on_found_elsewhere,
    commands.Hydrate: on_hydrate,
    commands.Invalidate: on_invalidate,
    commands.InvalidatePrefix: on_invalidate_prefix,
    commands.MarkTag: on_mark_tag,
    commands.Put: on_put,
    commands.Update: on_update,
    commands.Touch: on_touch,
    commands.Heard: on_heard,
    commands.ResetBreaker: on_reset_breaker,
    commands.Clear: on_clear,
    commands.SetActiveUser: on_set_active_user,
    commands.EndSession: on_end_session,
    commands.ClearScope: on_clear_scope,
    commands.Evict: on_evict,
    commands.Forget: on_forget,
}


def reduce(state: State[A], command: Command[A]) -> tuple[State[A], Effects[A]]:
    """The next state, and what is to be done about it.

    Total, deterministic, and without side effects; `state` itself where
    nothing changes.

    >>> from cachemesh.core import FetchSucceeded, Get, State
    >>> state, effects = reduce(State(), Get(key="feed", now=0.0, flight_id=1, ttl_s=60.0))
    >>> [type(effect).__name__ for effect in effects]
    ['StartFetch', 'Join']
    >>> state, effects = reduce(state, FetchSucceeded(flight_id=1, answer="news", now=0.2))
    >>> [type(effect).__name__ for effect in effects]
    ['Save', 'Settle']
    >>> reduce(state, Get(key="feed", now=1.0, flight_id=2))[0] is state
    True
    """
    handle: Callable[[State[A], Command[A]], tuple[State[A], Effects[A]]] = HANDLERS[type(command)]
    return handle(state, command)
