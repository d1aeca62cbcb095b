"""Circuit breakers: an origin that failed several times in a row is left alone for a while.

Closed, it is asked. Open, it is not. Half-open, from `open_until` on, one fetch
tries it while the others still hold off: its success closes the breaker, its
failure opens it again (Nygard, Release It!, 2007, chapter 5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from cachemesh.core.effects import LogBreaker
from cachemesh.core.model import A, Breaker, Flight, State

if TYPE_CHECKING:
    from cachemesh.core.effects import Effect
    from cachemesh.core.model import Origin

CLOSED = Breaker()


def held_off_until(state: State[Any], origin: Origin | None, now: float) -> float | None:
    """Until when `origin` is not to be asked; None where it may be.

    A probe has as long as the origin was left alone for. After that another
    one may be sent: a fetch that hangs holds nobody up for ever.
    """
    breaker = None if origin is None else state.breakers.get(origin.name)
    if breaker is None or breaker.open_until is None:
        return None
    if now < breaker.open_until:
        return breaker.open_until
    return None if breaker.probe is None or now >= breaker.probe_until else breaker.probe_until


def with_probe(state: State[A], origin: Origin, flight_id: int, now: float) -> State[A]:
    """`flight_id` is about to ask `origin`: where its breaker is half-open, that is the probe."""
    breaker = state.breakers.get(origin.name)
    if breaker is None or breaker.open_until is None:
        return state
    return with_breaker(state, origin.name, replace(breaker, probe=flight_id, probe_until=now + origin.open_s))


def after_success(state: State[A], flight: Flight) -> tuple[State[A], tuple[Effect[A], ...]]:
    """The origin of `flight` has answered."""
    origin = flight.origin
    breaker = None if origin is None else state.breakers.get(origin.name)
    if origin is None or breaker is None or (breaker.open_until is not None and breaker.probe != flight.flight_id):
        return state, ()
    log: tuple[Effect[A], ...] = () if breaker.open_until is None else (LogBreaker(origin.name, None),)
    return with_breaker(state, origin.name, CLOSED), log


def after_failure(state: State[A], flight: Flight, now: float) -> tuple[State[A], tuple[Effect[A], ...]]:
    """The origin of `flight` has failed."""
    origin = flight.origin
    if origin is None:
        return state, ()
    breaker = state.breakers.get(origin.name) or CLOSED
    if breaker.open_until is not None and breaker.probe != flight.flight_id:
        return state, ()  # It was asked before the breaker opened, and tells nothing new.
    failures = breaker.failures + 1
    if breaker.open_until is None and failures < origin.failures:
        return with_breaker(state, origin.name, Breaker(failures)), ()
    until = now + origin.open_s
    return with_breaker(state, origin.name, Breaker(failures, until)), (LogBreaker(origin.name, until),)


def is_left_alone(state: State[Any], flight: Flight) -> bool:
    """Whether the origin of `flight` is to be asked by others only, if at all: it is not tried again."""
    breaker = None if flight.origin is None else state.breakers.get(flight.origin.name)
    return breaker is not None and breaker.open_until is not None and breaker.probe != flight.flight_id


def without_probe(state: State[A], flight: Flight) -> State[A]:
    """`flight` will tell nothing of its origin: if it was the probe, another one may be."""
    origin = flight.origin
    breaker = None if origin is None else state.breakers.get(origin.name)
    if origin is None or breaker is None or breaker.probe != flight.flight_id:
        return state
    return with_breaker(state, origin.name, replace(breaker, probe=None, probe_until=0.0))


def with_breaker(state: State[A], name: str, breaker: Breaker) -> State[A]:
    """`state` with what is now known of an origin. One without failures is not kept."""
    if breaker == CLOSED:
        breakers = state.breakers.discard(name) if name in state.breakers else state.breakers
    else:
        breakers = state.breakers.insert(name, breaker)
    return state if breakers is state.breakers else replace(state, breakers=breakers)
