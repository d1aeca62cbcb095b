"""The one runtime under both keepers: it reduces, commits and tells, and says what is to be done in which order.

It waits for nothing itself. A flight or an order is a *script*, a generator
that yields requests (`Blocking`, `Refreshing`, `Pausing`) and is sent what came of them;
the keepers perform those, each in its way, and lend a bell to who waits.
No code of others runs under the lock.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
import weakref
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from returns.result import Failure

from cachemesh.auth.errors import (
    InvalidToken,
    KeeperClosed,
    NotSignedIn,
    ReentrantRefresh,
    RefreshTimedOut,
    TokenError,
    TokenNotRefreshable,
    TokenStorageFailed,
)
from cachemesh.auth.events import MOST_EVENTS, Mailbox, event_of
from cachemesh.auth.ports import Kept
from cachemesh.auth.token import Token
from cachemesh.auth.verdicts import Raised, error_in, guarded, is_invalid_grant, is_unauthorized, refreshed
from cachemesh.core import tokens as core
from cachemesh.core.retry import delay_before_next_s
from cachemesh.core.tokens import Happened, Held, Refusal
from cachemesh.shell.clock import GuardedClock
from cachemesh.shell.outcomes import strip_tracebacks

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from cachemesh.auth.settings import KeeperSettings

FIRST_POLL_S: Final = 0.02
"""Who waits for another process looks again after so long; then at intervals that double, up to the longest."""
LONGEST_POLL_S: Final = 0.5

MOST_TRIES: Final = 64
"""An order writes whatever is there; where that changes more often in between, the storage does not work."""

INSIDE: Final[ContextVar[tuple[tuple[object, int], ...]]] = ContextVar("cachemesh_token_inside", default=())
"""The refreshes, by runtime and id, inside of which the present code runs: it must not wait for them."""

FINALIZER_PATIENCE_S: Final = 0.05


class Blocking:
    """Call `act`, which may block, in the storage's time.

    `RAN_OUT` where that is over; `late` takes what comes then. Here and below.
    """

    __slots__ = ("act", "late")

    def __init__(self, act: Callable[[], Any], late: Callable[[object], None] | None = None) -> None:
        self.act = act
        self.late = late


class Refreshing:
    """Call the refresher with `token`, for `timeout_s`. In the context of that call, `enter` is called first."""

    __slots__ = ("enter", "late", "timeout_s", "token")

    def __init__(
        self, token: Token, timeout_s: float, late: Callable[[object], None], enter: Callable[[], object]
    ) -> None:
        self.token = token
        self.timeout_s = timeout_s
        self.late = late
        self.enter = enter


class Pausing:
    """Let `seconds` pass. `polls`: to look again after them at what others do, who have clocks of their own."""

    __slots__ = ("polls", "seconds")

    def __init__(self, seconds: float, *, polls: bool = False) -> None:
        self.seconds = seconds
        self.polls = polls


Request: TypeAlias = Blocking | Refreshing | Pausing
Script: TypeAlias = "Generator[Request, Any, None]"

RAN_OUT: Final = Raised(TimeoutError())
"""The answer to a request that took too long."""


class Live:
    """What is under way under an id: who waits for it, what came of it, and what its script is to do next."""

    __slots__ = ("bells", "crash", "deadline", "error", "is_flying", "outcome", "source_id", "step", "token")

    def __init__(self, source_id: int) -> None:
        self.source_id = source_id
        self.outcome: core.Outcome | None = None
        self.error: TokenError | None = None
        self.bells: dict[object, Callable[[], None]] = {}
        self.crash: BaseException | None = None
        self.deadline = inf
        self.is_flying = False
        self.step: core.Effect | None = None
        self.token: Token | None = None


Answer: TypeAlias = Held | TokenError | Live
"""What an ask comes to: a token, why there is none, or what to wait for."""

Plain: TypeAlias = tuple[float, str, Held]
"""Until when the token is simply used; its text; all that is known of it."""


class Runtime:
    """`launch`: perform a script, beside whoever is running. `aside`: call something that may block, for nobody."""

    def __init__(
        self,
        settings: KeeperSettings,
        refresher: object,
        monotonic: Callable[[], float],
        launch: Callable[[Live, Script], None],
        aside: Callable[[Callable[[], object]], None],
    ) -> None:
        self.settings = settings
        self.storage = settings.storage
        self.state = core.State(settings.rules)
        self.plain: Plain | None = None
        clock = settings.clock
        self.now = time.time if clock is None else GuardedClock(clock, partial(self.report, "the clock raised"))
        self._monotonic = monotonic
        self._launch = launch
        self._aside = aside
        self._needs_refresh_token = getattr(refresher, "needs_refresh_token", True) is not False
        own = settings.unauthorized
        self._is_unauthorized = guarded(is_unauthorized if own is None else own, self.report)
        self._is_final = guarded(is_invalid_grant, self.report)
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._lives: dict[int, Live] = {}
        self._listeners: tuple[Callable[[str | None], object], ...] = ()
        self._mailboxes: weakref.WeakSet[Mailbox] = weakref.WeakSet()

    def report(self, what: str, error: BaseException) -> None:
        """Log that something of the user's has failed: by its type, as its text may hold secrets."""
        if self.settings.logger is not None:
            with suppress(Exception):  # A filter or a handler of the user's.
                self.settings.logger.warning("token keeper: %s: %s", what, type(error).__name__)

    # Asking

    def token_wanted(self) -> Answer:
        return self._ask(core.TokenWanted(self.now(), next(self._ids)))

    def rejected(self, version: int) -> Answer:
        return self._ask(core.Rejected(version, self.now(), next(self._ids)))

    def forced(self) -> Answer:
        return self._ask(core.Forced(self.now(), next(self._ids)))

    def peek(self) -> Answer:
        return self._ask(core.Peek(next(self._ids)))

    def timer_due(self, window_s: float) -> Answer:
        return self._ask(core.TimerDue(window_s, self.now(), next(self._ids)))

    def ordered(self, token: Token | None) -> Answer:
        """Somebody signs in with `token`, or (None) out."""
        if token is not None and not isinstance(token, Token):
            return InvalidToken(f"a {type(token).__name__} is no Token")
        live = Live(next(self._ids))
        live.token = token
        effects, _ = self._reduced(core.Ordered(live.source_id, signs_out=token is None), live)
        return KeeperClosed() if any(type(each) is core.Refuse for each in effects) else live

    def is_rejected(self, answer: object) -> bool:
        """Whether what an action answered says "unauthorized"."""
        error = error_in(answer)
        return bool(error) and self._is_unauthorized(error[0])

    def _ask(self, command: core.Ask) -> Answer:
        effects, waited_for = self._reduced(command)
        if waited_for is not None:
            return ReentrantRefresh() if (self, waited_for.source_id) in INSIDE.get() else waited_for
        for effect in effects:
            if type(effect) is core.Use:
                return effect.held
            if type(effect) is core.Refuse:
                return refused(effect.refusal, None)
        msg = f"{type(command).__name__} was not answered"
        raise AssertionError(msg)

    # Waiting

    def join(self, live: Live, key: object, bell: Callable[[], None]) -> bool:
        """Have `bell` rung when `live` is over. False: it is over."""
        with self._lock:
            if live.outcome is not None:
                return False
            live.bells[key] = bell
            return True

    def leave(self, live: Live, key: object) -> None:
        """Ring no more."""
        with self._lock:
            live.bells.pop(key, None)

    def told(self, live: Live) -> Held | TokenError | None:
        """What `live` has come to. None: ask again."""
        outcome = live.outcome
        if outcome is None:  # Who was to settle it is gone, with its event loop or its thread.
            live.error = RefreshTimedOut(self.settings.patience_s)
            self._abandoned(live)
            return live.error
        if type(outcome) is Held:
            return outcome
        return refused(outcome, live.error) if isinstance(outcome, Refusal) else None

    def told_of_order(self, live: Live) -> TokenError | None:
        """Why an order has failed; None where it has not."""
        if live.outcome is None:
            self._abandoned(live)
            return TokenStorageFailed("swap", TimeoutError())
        return live.error

    def crash_of(self, live: Live) -> BaseException | None:
        """What has ended the thread of `live`, for one of those who wait."""
        with self._lock:
            crash, live.crash = live.crash, None
            return crash

    # The present

    @property
    def is_refreshing(self) -> bool:
        flight = self.state.flight
        return flight is not None and flight.phase is not core.Phase.RESTORE

    @property
    def subject(self) -> str | None:
        announced = self.state.announced
        return None if announced is None else announced.subject

    def on_identity(self, callback: Callable[[str | None], object]) -> Callable[[], None]:
        listener = partial(callback)  # One of its own each time, so that each is taken away alone.
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def unsubscribe() -> None:
            with self._lock:
                self._listeners = tuple(each for each in self._listeners if each is not listener)

        return unsubscribe

    def mailbox(self, *, wants_tokens: bool) -> Mailbox:
        """A mailbox for tokens (the newest one) or events. `listen` opens it."""
        return Mailbox(1 if wants_tokens else MOST_EVENTS, wants_tokens=wants_tokens)

    def listen(self, mailbox: Mailbox) -> None:
        """Put into `mailbox` what comes from now on; one for tokens has the present one to begin with."""
        with self._lock:
            if mailbox.wants_tokens:
                held = self.state.held
                mailbox.put(None if held is None else held.token)
            mailbox.is_ended = mailbox.is_ended or self.state.is_closed
            self._mailboxes.add(mailbox)

    def end(self, mailbox: Mailbox) -> None:
        """Put nothing into it any more."""
        with self._lock:
            self._mailboxes.discard(mailbox)
            mailbox.is_ended = True
        mailbox.ring()

    def close(self) -> None:
        self.dispatch(core.Closed())
        with self._lock:
            mailboxes = tuple(self._mailboxes)
        for mailbox in mailboxes:
            self.end(mailbox)

    # Reducing

    def dispatch(self, command: core.Command) -> None:
        """Reduce, commit, and set going what follows."""
        self._reduced(command)

    def _reduced(self, command: core.Command, order: Live | None = None) -> tuple[core.Effects, Live | None]:
        """The same: what was ordered, and what is to be waited for. `order`: that of an `Ordered`."""
        with self._lock:
            state, effects = core.reduce(self.state, command)
            if state is not self.state:
                self.state = state
                self.plain = plainly(state)
                if order is not None:
                    self._lives[order.source_id] = order
            waited_for = next((self._live(each.source_id) for each in effects if type(each) is core.Wait), None)
            bells, starts = self._committed(effects)
        for bell in bells:
            bell()
        for live, effect in starts:
            self._launch(live, self._script(live, effect))
        for effect in effects:
            if type(effect) is core.Announce:
                self._announce(effect)
        return effects, waited_for

    def _committed(self, effects: core.Effects) -> tuple[list[Callable[[], None]], list[tuple[Live, Any]]]:
        bells: list[Callable[[], None]] = []
        starts: list[tuple[Live, Any]] = []
        effect: Any
        for effect in effects:
            kind = type(effect)
            if kind is core.Settle:
                live = self._lives.pop(effect.source_id, None)
                if live is not None:
                    live.outcome = effect.outcome
                    bells += live.bells.values()
                    live.bells = {}
            elif kind is core.Emit:
                bells += self._emitted(effect)
            elif kind in STEPS:
                live = self._live(effect.order_id if kind is core.Write else effect.flight_id)
                if live.is_flying:
                    live.step = effect
                else:
                    live.is_flying = True
                    starts.append((live, effect))
        return bells, starts

    def _live(self, source_id: int) -> Live:
        live = self._lives.get(source_id)
        if live is None:
            live = self._lives[source_id] = Live(source_id)
            live.deadline = self._monotonic() + self.settings.refresh_timeout
        return live

    def _emitted(self, effect: core.Emit) -> list[Callable[[], None]]:
        """What rings, now that something has happened."""
        live = self._lives.get(effect.source_id)
        error = None if live is None else live.error
        token = None if effect.held is None else effect.held.token
        event = event_of(effect.happened, token, refused(Refusal.STORAGE, None) if error is None else error)
        bells = []
        for mailbox in self._mailboxes:
            if not mailbox.wants_tokens:
                mailbox.put(event)
            elif effect.happened is not Happened.REFRESH_FAILED:
                mailbox.put(token)
            else:
                continue
            bells.append(mailbox.ring)
        return bells

    def _announce(self, effect: core.Announce) -> None:
        within = INSIDE.set((*INSIDE.get(), (self, effect.source_id)))
        try:
            for listener in self._listeners:
                try:
                    listener(effect.subject)
                except Exception as error:  # noqa: BLE001 (it hinders nobody)
                    self.report("a listener raised", error)
        finally:
            INSIDE.reset(within)
            self.dispatch(core.Announced(effect.source_id))

    # Scripts

    def ended(self, live: Live) -> None:
        """The script of `live` has ended, or was stopped: then somebody else begins anew."""
        if live.is_flying:
            live.is_flying = False
            self._abandoned(live)

    def _abandoned(self, live: Live) -> None:
        """Whatever `live` was doing, it will not report.

        A finalizer may say so, in a thread that holds the lock; those who wait find it out themselves then.
        """
        if self._lock.acquire(timeout=FINALIZER_PATIENCE_S):
            self._lock.release()
            self.dispatch(core.Aborted(live.source_id))
            self.dispatch(core.WriteFailed(live.source_id))

    def _script(self, live: Live, effect: Any) -> Script:  # noqa: ANN401 (one of STEPS)
        return self._writing(live) if type(effect) is core.Write else self._flying(live, effect)

    def _writing(self, live: Live) -> Script:
        """An order's: it writes whatever is there."""
        version: int | None = None
        token = live.token
        for _ in range(MOST_TRIES):
            kept = yield from self._read(live)
            if kept is None:
                break
            version = kept.version
            written, is_done = yield from self._swap(live, version, token)
            if written is not None:
                live.is_flying = False
                self.dispatch(core.Written(live.source_id, written, None if token is None else self._held(token)))
                return
            if not is_done:
                break
        live.is_flying = False
        live.error = live.error or refused(Refusal.STORAGE, None)
        self.dispatch(core.WriteFailed(live.source_id, version))

    def _flying(self, live: Live, effect: Any) -> Script:  # noqa: ANN401 (one of STEPS)
        """A flight's: one step after the other, as the reducer orders them."""
        step: Any = effect
        unlock: Callable[[], None] | None = None
        try:
            while step is not None:
                report: core.Command | None = None
                if type(step) is core.Read:
                    if step.locks:
                        unlock = yield from self._locked(live)
                        report = None if unlock is not None else self._failed(live)
                    if report is None:
                        kept = yield from self._read(live)
                        report = self._failed(live) if kept is None else self._found(live, kept)
                elif type(step) is core.Call:
                    report = yield from self._call(live, step.held)
                else:
                    report = yield from self._store(live, step)
                live.step = None
                self.dispatch(report)
                step = live.step
            live.is_flying = False
            if unlock is not None:
                release, unlock = unlock, None
                got = yield Blocking(release)
                if type(got) is Raised:
                    self.report("giving back the right to refresh raised", got.error)
        finally:
            if unlock is not None:
                self._aside(unlock)

    def _failed(self, live: Live) -> core.Command:
        kind = core.TimedOut if type(live.error) is RefreshTimedOut else core.StorageFailed
        return kind(live.source_id, self.now())

    def _found(self, live: Live, kept: Kept) -> core.Command:
        held = None if kept.token is None else self._held(kept.token)
        return core.Found(live.source_id, kept.version, held, self.now())

    def _held(self, token: Token) -> Held:
        return Held(
            token,
            inf if token.expires_at is None else token.expires_at,
            token.refresh_token is not None or not self._needs_refresh_token,
            token.subject,
        )

    def _locked(self, live: Live) -> Generator[Request, Any, Callable[[], None] | None]:
        """The right to refresh; None where it was not to be had, and `live` knows why."""
        holds_s = self.settings.patience_s
        pause_s = FIRST_POLL_S
        while True:
            got = yield Blocking(partial(self.storage.try_lock, holds_s), self._give_back)
            if type(got) is Raised or not (got is None or callable(got)):
                live.error = storage_failed("try_lock", got)
                return None
            if got is not None:
                unlock: Callable[[], None] = got
                return unlock
            left = live.deadline - self._monotonic()
            if left <= 0:
                live.error = RefreshTimedOut(self.settings.refresh_timeout)
                return None
            yield Pausing(min(pause_s, left), polls=True)
            pause_s = min(2 * pause_s, LONGEST_POLL_S)

    def _give_back(self, got: object) -> None:
        """The right to refresh has come too late."""
        if callable(got):
            self._aside(got)

    def _read(self, live: Live) -> Generator[Request, Any, Kept | None]:
        """What the storage holds; None where it does not say, and `live` knows why."""
        got = yield Blocking(self.storage.read)
        if type(got) is Kept and type(got.version) is int and (got.token is None or isinstance(got.token, Token)):
            return got
        self._complain(live, storage_failed("read", got))
        return None

    def _swap(self, live: Live, expected: int, token: Token | None) -> Generator[Request, Any, tuple[int | None, bool]]:
        """The new version, or None; and whether the storage did its work, so that None means "overtaken"."""
        got = yield Blocking(partial(self.storage.swap, expected, token))
        if got is None or type(got) is int:
            return got, True
        self._complain(live, storage_failed("swap", got))
        return None, False

    def _complain(self, live: Live, error: TokenStorageFailed) -> None:
        """The storage has failed `live`; but where its token was refused for good, that is what matters."""
        if live.error is None:
            live.error = error
        else:
            self.report("the storage failed", error.error)

    def _store(self, live: Live, step: core.Persist) -> Generator[Request, Any, core.Command]:
        token = None if step.held is None else step.held.token
        version, is_done = yield from self._swap(live, step.expected, token)
        if version is not None:
            return core.Stored(live.source_id, version)
        if is_done:
            return core.Overtaken(live.source_id)
        return core.StorageFailed(live.source_id, self.now())

    def _call(self, live: Live, held: Held) -> Generator[Request, Any, core.Command]:
        """The refresher, as often as it may try."""
        settings, retry = self.settings, self.settings.retry
        longest_s = inf if retry.attempt_timeout_s is None else retry.attempt_timeout_s
        for attempt in itertools.count(1):
            left = live.deadline - self._monotonic()
            allowed_s = min(left, longest_s)
            got = RAN_OUT
            if allowed_s > 0:
                inside = (*INSIDE.get(), (self, live.source_id))
                got = yield Refreshing(
                    held.token, allowed_s, partial(self._came_late, held), partial(INSIDE.set, inside)
                )
            if got is RAN_OUT:
                live.error = RefreshTimedOut(min(longest_s, settings.refresh_timeout))
                if left <= longest_s:
                    return core.TimedOut(live.source_id, self.now())
                seen: Any = live.error
            else:
                brought = refreshed(got, held.token)
                if isinstance(brought, Token):
                    live.error = None
                    return core.RefreshSucceeded(live.source_id, held.version, self._held(brought))
                live.error = brought
                seen = getattr(brought, "error", brought)
                strip_tracebacks(Failure(seen))  # It is kept, and shared by all who wait; its frames hold tokens.
                if self._is_unauthorized(seen) or self._is_final(seen):
                    return core.RefreshFailed(live.source_id, is_final=True, now=self.now())
            delay_s = delay_before_next_s(retry.rule, attempt, random.random())  # noqa: S311 (jitter)
            left = live.deadline - self._monotonic()
            if attempt >= retry.max_attempts or delay_s >= left or not self._tries_again(seen):
                return core.RefreshFailed(live.source_id, is_final=False, now=self.now())
            yield Pausing(delay_s)
        raise AssertionError

    def _tries_again(self, error: object) -> bool:
        rule = self.settings.retry.retry_when
        return rule is None or guarded(rule, self.report)(error)

    def _came_late(self, held: Held, got: object) -> None:
        """The refresher has answered after its time. The old refresh token may have been used up by that."""
        brought = refreshed(got, held.token)
        if isinstance(brought, Token):
            self.dispatch(core.RefreshSucceeded(next(self._ids), held.version, self._held(brought)))


STEPS: Final = frozenset({core.Read, core.Call, core.Persist, core.Write})


def plainly(state: core.State) -> Plain | None:
    held = core.plain_of(state)
    return None if held is None else (core.plain_until(held, state.rules), held.token.access_token, held)


def refused(refusal: Refusal, error: TokenError | None) -> TokenError:
    """The failure that a refusal is answered with. `error`: what whoever was waited for knows of it."""
    if refusal is Refusal.NOT_SIGNED_IN:
        return NotSignedIn()
    if refusal is Refusal.NOT_REFRESHABLE:
        return TokenNotRefreshable()
    if refusal is Refusal.CLOSED:
        return KeeperClosed()
    if error is not None:
        return error
    return TokenStorageFailed("swap", RuntimeError("the storage takes nothing, and does not say why"))


def storage_failed(operation: str, got: object) -> TokenStorageFailed:
    """`operation` has raised, hung, or answered what it never may."""
    if type(got) is not Raised:
        return TokenStorageFailed(operation, TypeError(f"it answered with a {type(got).__name__}"))
    error = TimeoutError() if got is RAN_OUT else got.error
    strip_tracebacks(Failure(error))
    return TokenStorageFailed(operation, error)
