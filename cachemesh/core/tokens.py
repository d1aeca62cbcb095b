"""Whose token is used, when it is refreshed, and whose change wins: `reduce(state, command) -> (state, effects)`.

A machine of its own beside the cache's. The token is opaque but for what
`Held` says of it. Three things can be under way, each under an id of its own:
a *flight* reads the storage, refreshes, and stores what came of it; an *order*
is a sign-in or a sign-out of this process; an *incoming* token is of another
identity than the last, and waits until that has been announced. Orders come one
after the other and strike off the flight: a struck flight changes nothing any
more. Who waits for an id is answered by exactly one `Settle` of it.

A version is the storage's. What a flight or an order reports of the storage is
true when it is reported: nobody else in this process writes at that time, and
other processes are found out by a compare-and-set that fails.
"""

from __future__ import annotations

from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from cachemesh.core.model import Redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# What is known


class Held(Redacted, frozen=True):
    """A token and what is known of it. `expires_at`: on the clock of the commands, `inf` never.

    `lives_s`: for how long, when a refresh brought it; `inf` where nobody knows.
    `version`, `session`: the storage's, and how many had signed in, when it became known.
    """

    token: Any
    expires_at: float = inf
    is_refreshable: bool = True
    subject: str | None = None
    version: int = 0
    session: int = 0
    lives_s: float = inf


class Phase(StrEnum):
    """What a flight is at."""

    RESTORE = "restore"
    """Reading the storage, for want of a token."""
    READ = "read"
    """Getting the right to refresh, then reading the storage: somebody else may have refreshed."""
    CALL = "call"
    """The refresher is at work."""
    STORE = "store"
    """What it brought is being stored."""
    VERIFY = "verify"
    """The token was refused for good. Is it still the one in the storage?"""
    REMOVE = "remove"
    """It is being removed."""
    REREAD = "reread"
    """Somebody else wrote at the same time: reading what."""


class Flight(Struct, frozen=True):
    """What is done about the token of `version`."""

    flight_id: int
    version: int
    phase: Phase


class Order(Struct, frozen=True):
    """A sign-in or a sign-out."""

    order_id: int
    signs_out: bool


class Happened(StrEnum):
    """What listeners hear of."""

    SIGNED_IN = "signed_in"
    REFRESHED = "refreshed"
    FOUND = "found"
    """In the storage: restored, or written by another process."""
    SIGNED_OUT = "signed_out"
    EXPELLED = "expelled"
    """The token was refused for good, and removed."""
    REFRESH_FAILED = "refresh_failed"


class Refusal(StrEnum):
    """Why there is no token for who asked."""

    NOT_SIGNED_IN = "not_signed_in"
    NOT_REFRESHABLE = "not_refreshable"
    FAILED = "failed"
    """The refresher's failure."""
    TIMED_OUT = "timed_out"
    STORAGE = "storage"
    """The storage's failure."""
    CLOSED = "closed"


class Again(StrEnum):
    """The third outcome beside a token and a refusal."""

    AGAIN = "again"
    """Things have changed: ask again."""


AGAIN: Final = Again.AGAIN

Outcome: TypeAlias = Held | Refusal | Again


class Incoming(Struct, frozen=True):
    """A token (or none) of another identity, not usable before that is announced."""

    source_id: int
    held: Held | None
    happened: Happened
    outcome: Outcome


class Rules(Struct, frozen=True):
    """When a token is refreshed. Durations are seconds.

    `leeway_s`: it counts as expired so long before it is. `window_s`: so long
    before that it is refreshed behind. Each at most for half of what it has to
    live, or a server that gives short lives would be asked at each use.
    `backoff_s`: a refresh behind follows another one, or one that failed, after
    so long at the earliest.
    """

    leeway_s: float = 0.0
    window_s: float = 0.0
    backoff_s: float = 0.0


class State(Struct, frozen=True):
    """All that is known of the token of one storage."""

    rules: Rules = Rules()
    held: Held | None = None
    version: int = 0
    is_restored: bool = False
    """Whether the storage has been read, or written."""
    is_blind: bool = False
    """Somebody signed out while the storage did not say what it holds: what it says next is theirs."""
    announced: Held | None = None
    """The token whose identity listeners know of; None: that there is none."""
    session: int = 0
    flight: Flight | None = None
    orders: tuple[Order, ...] = ()
    incoming: Incoming | None = None
    pending: Held | None = None
    """A refreshed token that is not stored yet, while it is the only copy."""
    behind_after: float = -inf
    is_closed: bool = False


# What happens


class TokenWanted(Struct, frozen=True):
    """A token is asked for. It and the next three are answered by exactly one of `Use`, `Refuse` and `Wait`.

    `flight_id`: of the flight that this may start; here and below.
    """

    now: float
    flight_id: int


class Rejected(Struct, frozen=True):
    """An origin has refused the token of `version`: a better one is asked for."""

    version: int
    now: float
    flight_id: int


class Forced(Struct, frozen=True):
    """A refreshed token is asked for, however good the present one is."""

    now: float
    flight_id: int


class Peek(Struct, frozen=True):
    """The token is asked for as it is."""

    flight_id: int


class TimerDue(Struct, frozen=True):
    """A timer asks whether the token expires within `window_s`."""

    window_s: float
    now: float
    flight_id: int


class Ordered(Struct, frozen=True):
    """Somebody signs in or out. Answered by a `Settle` of the order, or by `Refuse`."""

    order_id: int
    signs_out: bool


class Written(Struct, frozen=True):
    """The storage holds what the order wanted."""

    order_id: int
    version: int
    held: Held | None


class WriteFailed(Struct, frozen=True):
    """The storage did not take what the order wanted. `version`: of what it holds, where that is known."""

    order_id: int
    version: int | None = None


class Found(Struct, frozen=True):
    """The storage was read for a flight."""

    flight_id: int
    version: int
    held: Held | None
    now: float


class RefreshSucceeded(Struct, frozen=True):
    """The refresher answered with a token, for the one of `version`."""

    flight_id: int
    version: int
    held: Held


class RefreshFailed(Struct, frozen=True):
    """The refresher failed. `is_final`: so will it always, for this token."""

    flight_id: int
    is_final: bool
    now: float


class Stored(Struct, frozen=True):
    """The storage has taken what the flight had for it, as `version`; a token or a removal."""

    flight_id: int
    version: int


class Overtaken(Struct, frozen=True):
    """The storage had changed before it could take what the flight had for it."""

    flight_id: int


class StorageFailed(Struct, frozen=True):
    """The storage failed the flight."""

    flight_id: int
    now: float


class TimedOut(Struct, frozen=True):
    """The flight has taken too long."""

    flight_id: int
    now: float


class Aborted(Struct, frozen=True):
    """The flight was stopped from outside: it will report nothing any more."""

    flight_id: int


class Announced(Struct, frozen=True):
    """All listeners know of the incoming identity."""

    source_id: int


class Closed(Struct, frozen=True):
    """Nobody gets a token any more. What is under way ends as it would have."""


Ask: TypeAlias = TokenWanted | Rejected | Forced | Peek | TimerDue
Command: TypeAlias = (
    Ask
    | Ordered
    | Written
    | WriteFailed
    | Found
    | RefreshSucceeded
    | RefreshFailed
    | Stored
    | Overtaken
    | StorageFailed
    | TimedOut
    | Aborted
    | Announced
    | Closed
)

# What is to be done


class Use(Struct, frozen=True):
    """The answer is this token."""

    held: Held


class Refuse(Struct, frozen=True):
    """The answer is that there is none."""

    refusal: Refusal


class Wait(Struct, frozen=True):
    """The answer is the `Settle` of `source_id`."""

    source_id: int


class Settle(Struct, frozen=True):
    """Those who wait for `source_id` are answered."""

    source_id: int
    outcome: Outcome


class Read(Struct, frozen=True):
    """Read the storage, and report `Found` or `StorageFailed`. `locks`: get the right to refresh first."""

    flight_id: int
    locks: bool


class Call(Struct, frozen=True):
    """Call the refresher, and report what came of it."""

    flight_id: int
    held: Held


class Persist(Struct, frozen=True):
    """Store `held` if the version is `expected`; None: remove what is there.

    Report `Stored`, `Overtaken` or `StorageFailed`.
    """

    flight_id: int
    expected: int
    held: Held | None


class Write(Struct, frozen=True):
    """It is this order's turn to write, whatever is there: `Written` or `WriteFailed`."""

    order_id: int


class Announce(Struct, frozen=True):
    """Tell the listeners, then report `Announced`."""

    source_id: int
    subject: str | None


class Emit(Struct, frozen=True):
    """What happened; `held` is the token since then. `source_id` knows the error, where there is one."""

    happened: Happened
    held: Held | None
    source_id: int


Effect: TypeAlias = Use | Refuse | Wait | Settle | Read | Call | Persist | Write | Announce | Emit
Effects: TypeAlias = tuple[Effect, ...]
Step: TypeAlias = tuple[State, Effects]


def reduce(state: State, command: Command) -> Step:
    """The next state, and what is to be done. Total and deterministic; `state` itself where nothing changes.

    >>> state, effects = reduce(State(), TokenWanted(now=0.0, flight_id=1))
    >>> effects
    (Wait(source_id=1), Read(flight_id=1, locks=False))
    >>> held = Held("t", expires_at=60.0, subject="ada")
    >>> state, effects = reduce(state, Found(flight_id=1, version=3, held=held, now=0.0))
    >>> effects
    (Announce(source_id=1, subject='ada'),)
    >>> state, effects = reduce(state, Announced(source_id=1))
    >>> [type(effect).__name__ for effect in reduce(state, TokenWanted(now=59.9, flight_id=2))[1]]
    ['Use']
    >>> [type(effect).__name__ for effect in reduce(state, TokenWanted(now=60.0, flight_id=3))[1]]
    ['Wait', 'Read']
    """
    handle: Callable[[State, Command], Step] = HANDLERS[type(command)]
    return handle(state, command)


# The rules of one token


def plain_until(held: Held, rules: Rules) -> float:
    """Until when `held` is simply used: nothing is to be decided about it before that."""
    left_s = held.lives_s - leeway_of(held, rules)
    return valid_until(held, rules) - (min(rules.window_s, left_s / 2) if held.is_refreshable else 0.0)


def plain_of(state: State) -> Held | None:
    """The token that may be used without asking the reducer, until `plain_until`."""
    return None if state.is_closed or state.orders or state.pending is not None else state.held


def is_valid(held: Held, rules: Rules, now: float) -> bool:
    return now < valid_until(held, rules)


def valid_until(held: Held, rules: Rules) -> float:
    return held.expires_at - leeway_of(held, rules)


def leeway_of(held: Held, rules: Rules) -> float:
    return min(rules.leeway_s, held.lives_s / 2)


def may_follow(used: Held, other: Held) -> bool:
    """Whether who was rejected with `used` may try again with `other`: it is another token of the same identity."""
    return used.version != other.version and is_same(used, other)


def is_same(one: Held | None, other: Held | None) -> bool:
    """Whether two tokens are one identity's: of one subject; without any, of one session."""
    if one is None or other is None:
        return one is other
    return one.subject == other.subject and (one.subject is not None or one.session == other.session)


def is_nobodys_change(held: Held | None, announced: Held | None) -> bool:
    """Whether a first token says nothing of whose it is: who listens knows as much of that as before."""
    return announced is None and held is not None and held.subject is None


# Somebody asks


def on_token_wanted(state: State, command: TokenWanted) -> Step:
    held = plain_of(state)
    if held is not None and command.now < plain_until(held, state.rules):
        return state, (Use(held),)
    return asked(state, command.flight_id) or wanted(state, command.now, command.flight_id)


def wanted(state: State, now: float, flight_id: int) -> Step:
    """A token that is valid is used; within the window it is refreshed as well, behind whoever asked."""
    held = state.held
    assert held is not None
    if not is_valid(held, state.rules, now):
        return refreshing(state, flight_id)
    if now < plain_until(held, state.rules) or not may_begin_behind(state, now):
        return state, (Use(held),)
    return begun(replace(state, behind_after=now + state.rules.backoff_s), flight_id, Use(held))


def on_rejected(state: State, command: Rejected) -> Step:
    """A late rejection, of a token that has been replaced, asks for nothing but the present one."""
    ending = asked(state, command.flight_id)
    if ending is not None:
        return ending
    if command.version != state.version:
        return wanted(state, command.now, command.flight_id)
    return refreshing(state, command.flight_id)


def on_forced(state: State, command: Forced) -> Step:
    return asked(state, command.flight_id) or refreshing(state, command.flight_id)


def on_peek(state: State, command: Peek) -> Step:
    ending = asked(state, command.flight_id, stores=False)
    if ending is not None:
        return ending
    assert state.held is not None
    return state, (Use(state.held),)


def on_timer_due(state: State, command: TimerDue) -> Step:
    ending = asked(state, command.flight_id)
    if ending is not None:
        return ending
    held = state.held
    assert held is not None
    is_due = command.now >= valid_until(held, state.rules) - command.window_s
    return refreshing(state, command.flight_id) if is_due and held.is_refreshable else (state, (Use(held),))


def asked(state: State, flight_id: int, *, stores: bool = True) -> Step | None:
    """What every ask comes to before the token itself is looked at; None where there is one to look at."""
    if state.is_closed:
        return state, (Refuse(Refusal.CLOSED),)
    if state.incoming is not None:
        return state, (Wait(state.incoming.source_id),)
    if state.orders:
        return state, (Wait(state.orders[0].order_id),)
    if state.held is None:  # Somebody may have signed in elsewhere.
        if state.flight is not None:
            return state, (Wait(state.flight.flight_id),)
        flight = Flight(flight_id, state.version, Phase.RESTORE)
        return replace(state, flight=flight), (Wait(flight_id), Read(flight_id, locks=False))
    if state.pending is not None and stores:
        return refreshing(state, flight_id)
    return None


def refreshing(state: State, flight_id: int) -> Step:
    """Who asks waits for the one refresh."""
    assert state.held is not None
    if state.flight is not None:
        return state, (Wait(state.flight.flight_id),)
    if not state.held.is_refreshable and state.pending is None:
        return state, (Refuse(Refusal.NOT_REFRESHABLE),)
    return begun(state, flight_id, Wait(flight_id))


def begun(state: State, flight_id: int, answer: Effect) -> Step:
    """A flight begins: with what was got and could not be stored, if there is such a thing."""
    phase, order = (
        (Phase.READ, Read(flight_id, locks=True))
        if state.pending is None
        else (Phase.STORE, Persist(flight_id, state.version, state.pending))
    )
    return replace(state, flight=Flight(flight_id, state.version, phase)), (answer, order)


def may_begin_behind(state: State, now: float) -> bool:
    assert state.held is not None
    return state.flight is None and state.held.is_refreshable and now >= state.behind_after


# Somebody signs in or out


def on_ordered(state: State, command: Ordered) -> Step:
    """Whatever is being refreshed is not to land any more: who waits for it waits for the order."""
    if state.is_closed:
        return state, (Refuse(Refusal.CLOSED),)
    order = Order(command.order_id, command.signs_out)
    struck = () if state.flight is None else (Settle(state.flight.flight_id, AGAIN),)
    turn = (Write(command.order_id),) if state.incoming is None and not state.orders else ()
    return replace(state, flight=None, pending=None, orders=(*state.orders, order)), (*struck, *turn)


def on_written(state: State, command: Written) -> Step:
    if not is_turn(state, command.order_id):
        return state, ()
    session = state.session + (command.held is not None)
    left = replace(state, orders=state.orders[1:], session=session)
    happened = Happened.SIGNED_OUT if command.held is None else Happened.SIGNED_IN
    return landed(left, command.order_id, command.version, command.held, happened, AGAIN)


def on_write_failed(state: State, command: WriteFailed) -> Step:
    """Nobody is signed in by it; but who wanted to sign out has, as far as this process goes."""
    if not is_turn(state, command.order_id):
        return state, ()
    left = replace(state, orders=state.orders[1:])
    if state.orders[0].signs_out:
        version = state.version if command.version is None else command.version
        there, effects = landed(left, command.order_id, version, None, Happened.SIGNED_OUT, AGAIN)
        return replace(there, is_blind=command.version is None), effects
    return left, (Settle(command.order_id, AGAIN), *next_turn(left))


def is_turn(state: State, order_id: int) -> bool:
    return state.incoming is None and bool(state.orders) and state.orders[0].order_id == order_id


def next_turn(state: State) -> tuple[Write, ...]:
    return (Write(state.orders[0].order_id),) if state.orders else ()


# A flight reports


def on_found(state: State, command: Found) -> Step:
    flight = state.flight
    if flight is None or flight.flight_id != command.flight_id:
        return state, ()
    held = None if command.held is None else replace(command.held, version=command.version)
    is_known = state.is_restored and command.version == flight.version
    if flight.phase is Phase.RESTORE:
        if is_known or state.is_blind:  # Of somebody who signed out here, it may still be there.
            left = replace(state, version=command.version, is_blind=False, flight=None)
            return left, (Settle(flight.flight_id, Refusal.NOT_SIGNED_IN),)
        outcome: Outcome = Refusal.NOT_SIGNED_IN if held is None else AGAIN
        return landed(state, flight.flight_id, command.version, held, Happened.FOUND, outcome)
    if is_known and held is not None:
        if flight.phase is Phase.READ:
            return at(state, flight, Phase.CALL), (Call(flight.flight_id, held),)
        if flight.phase is Phase.VERIFY:
            return at(state, flight, Phase.REMOVE), (Persist(flight.flight_id, flight.version, None),)
        return failed(state, flight, Refusal.STORAGE, command.now)  # It takes nothing, though nobody was first.
    if held is None:
        return landed(state, flight.flight_id, command.version, None, Happened.FOUND, Refusal.NOT_SIGNED_IN)
    outcome = held if is_valid(held, state.rules, command.now) else AGAIN
    return landed(state, flight.flight_id, command.version, held, Happened.FOUND, outcome)


def on_refresh_succeeded(state: State, command: RefreshSucceeded) -> Step:
    """It is stored before anybody gets it. One that comes too late for its flight is not wasted, if it still counts."""
    flight = state.flight
    if flight is None:
        is_wanted = state.held is not None and plain_of(state) is not None and command.version == state.version
        if not is_wanted:
            return state, ()
        flight = Flight(command.flight_id, command.version, Phase.CALL)
    elif flight.flight_id != command.flight_id or flight.phase is not Phase.CALL:
        return state, ()
    storing = replace(at(state, flight, Phase.STORE), pending=command.held)
    return storing, (Persist(flight.flight_id, flight.version, command.held),)


def on_refresh_failed(state: State, command: RefreshFailed) -> Step:
    """A token that is refused for good is removed; but not one that another process has put in its place."""
    flight = state.flight
    if flight is None or flight.flight_id != command.flight_id or flight.phase is not Phase.CALL:
        return state, ()
    if command.is_final:
        return at(state, flight, Phase.VERIFY), (Read(flight.flight_id, locks=False),)
    return failed(state, flight, Refusal.FAILED, command.now)


def on_stored(state: State, command: Stored) -> Step:
    flight = state.flight
    if flight is None or flight.flight_id != command.flight_id:
        return state, ()
    if flight.phase is Phase.REMOVE:
        return landed(state, flight.flight_id, command.version, None, Happened.EXPELLED, Refusal.FAILED)
    if flight.phase is not Phase.STORE or state.pending is None:
        return state, ()
    return landed(state, flight.flight_id, command.version, state.pending, Happened.REFRESHED, state.pending)


def on_overtaken(state: State, command: Overtaken) -> Step:
    flight = state.flight
    if flight is None or flight.flight_id != command.flight_id or flight.phase not in {Phase.STORE, Phase.REMOVE}:
        return state, ()
    return at(state, flight, Phase.REREAD), (Read(flight.flight_id, locks=False),)


def on_storage_failed(state: State, command: StorageFailed) -> Step:
    flight = state.flight
    if flight is None or flight.flight_id != command.flight_id:
        return state, ()
    if flight.phase is Phase.REMOVE:  # It is of no use to anybody, wherever it is left.
        return landed(state, flight.flight_id, flight.version, None, Happened.EXPELLED, Refusal.FAILED)
    refusal = Refusal.FAILED if flight.phase is Phase.VERIFY else Refusal.STORAGE
    return failed(state, flight, refusal, command.now)


def on_timed_out(state: State, command: TimedOut) -> Step:
    flight = state.flight
    if flight is None or flight.flight_id != command.flight_id:
        return state, ()
    return failed(state, flight, Refusal.TIMED_OUT, command.now)


def on_aborted(state: State, command: Aborted) -> Step:
    flight = state.flight
    if flight is None or flight.flight_id != command.flight_id:
        return state, ()
    return replace(state, flight=None), (Settle(flight.flight_id, AGAIN),)


def at(state: State, flight: Flight, phase: Phase) -> State:
    return replace(state, flight=replace(flight, phase=phase))


def failed(state: State, flight: Flight, refusal: Refusal, now: float) -> Step:
    """The flight is over, and the token is what it was."""
    told = () if flight.phase is Phase.RESTORE else (Emit(Happened.REFRESH_FAILED, state.held, flight.flight_id),)
    left = replace(state, flight=None, behind_after=now + state.rules.backoff_s)
    return left, (*told, Settle(flight.flight_id, refusal))


# The token changes


def landed(state: State, source_id: int, version: int, held: Held | None, happened: Happened, outcome: Outcome) -> Step:
    """What the storage holds is the token from now on; if it is of another identity, once that is announced."""
    there = replace(
        state,
        held=None if held is None else replace(held, version=version, session=state.session),
        version=version,
        is_restored=True,
        is_blind=False,
        flight=None,
        pending=None,
    )
    if is_nobodys_change(there.held, state.announced):
        there = replace(there, announced=there.held)
    if is_same(there.held, there.announced):
        told = () if held is None and happened is Happened.FOUND else (Emit(happened, there.held, source_id),)
        return there, (*told, Settle(source_id, now_known(outcome, there)), *next_turn(there))
    incoming = Incoming(source_id, there.held, happened, now_known(outcome, there))
    return replace(there, held=None, incoming=incoming), (Announce(source_id, None if held is None else held.subject),)


def now_known(outcome: Outcome, state: State) -> Outcome:
    """A token as the state knows it."""
    return state.held if type(outcome) is Held and state.held is not None else outcome


def on_announced(state: State, command: Announced) -> Step:
    """Who signs in or out meanwhile comes before those who waited for this one."""
    incoming = state.incoming
    if incoming is None or incoming.source_id != command.source_id:
        return state, ()
    there = replace(state, held=incoming.held, announced=incoming.held, incoming=None)
    outcome = AGAIN if state.orders else incoming.outcome
    return there, (
        Emit(incoming.happened, incoming.held, incoming.source_id),
        Settle(incoming.source_id, outcome),
        *next_turn(there),
    )


def on_closed(state: State, command: Closed) -> Step:
    """Those who wait already are answered, and what a refresh still brings is stored."""
    del command
    if state.is_closed:
        return state, ()
    return replace(state, is_closed=True), ()


HANDLERS: Final[Mapping[type, Callable[[Any, Any], Step]]] = {
    TokenWanted: on_token_wanted,
    Rejected: on_rejected,
    Forced: on_forced,
    Peek: on_peek,
    TimerDue: on_timer_due,
    Ordered: on_ordered,
    Written: on_written,
    WriteFailed: on_write_failed,
    Found: on_found,
    RefreshSucceeded: on_refresh_succeeded,
    RefreshFailed: on_refresh_failed,
    Stored: on_stored,
    Overtaken: on_overtaken,
    StorageFailed: on_storage_failed,
    TimedOut: on_timed_out,
    Aborted: on_aborted,
    Announced: on_announced,
    Closed: on_closed,
}
