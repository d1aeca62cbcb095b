"""`policy_machine`: a Hypothesis state machine that plays with a policy of yours until a promise is broken.

It drives the pure core as a shell would, with several users, a few keys and a
clock of its own: asks, answers, failures, retries, cancellations, writes,
removals, users who come and go, in whatever order Hypothesis can think of, and
it shrinks what breaks to the fewest steps. There are no threads and no loop in
it, so a run of fifty steps takes milliseconds.
"""

from __future__ import annotations

from inspect import iscoroutinefunction
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from cachemesh.core.commands import (
    Abandoned,
    Clear,
    ClearScope,
    Command,
    EndSession,
    Evict,
    FetchAborted,
    FetchFailed,
    FetchSucceeded,
    Get,
    Invalidate,
    InvalidatePrefix,
    Put,
    Refresh,
    RetryDue,
    SetActiveUser,
)
from cachemesh.core.effects import Abort, CancelFetch, Join, Save, Settle, StartFetch
from cachemesh.core.model import FlightKind, Lifespan, State
from cachemesh.core.policies import SERVING, Action, AfterFailure, CachePolicy
from cachemesh.core.retry import NO_RETRY, Retry
from cachemesh.core.scopes import CacheScope, Owner, visible_owners
from cachemesh.testing.observed import Observed, Observer
from cachemesh.testing.strategies import KEYS, USERS, Happening, World, owners, scopes, users

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from hypothesis.strategies import SearchStrategy

    from cachemesh.testing.strategies import Moment

Invariant: TypeAlias = "Callable[[Observed], object]"
"""Is shown each step. Where that breaks it, it raises an `AssertionError` or answers False."""

Place: TypeAlias = tuple[Owner, str]

ROUNDING_S: Final = 1e-6
"""The sum of three floats, in another order."""

WAITS_S: Final = (0.5, 1.0, 29.5, 30.0, 59.5, 60.0, 3600.0)

IS_SLOW, ANSWERS, FAILS = "is slow", "answers", "fails"

ANSWERABLE: Final = (FlightKind.FETCH, FlightKind.BYPASS)


def policy_machine(  # noqa: PLR0913 (all but the policy by keyword)
    policy: CachePolicy,
    *,
    invariants: Iterable[Invariant] = (),
    ttl_s: float | None = 60.0,
    lifespan: Lifespan | None = None,
    max_age_s: float | None = None,
    retry: Retry = NO_RETRY,
    store_failures: bool = True,
    always_revalidate: bool = False,
) -> type[PolicyMachine]:
    """A state machine whose callers all ask under `policy`, with these settings; its `TestCase` is for pytest.

    It checks after each step that
    - no value is older than `max_age_s`; None: than the row of the policy
      allows (see `longest_age_s`);
    - nobody is given what another owner or another key has;
    - a key has at most one fetch under way that may still store (and one that
      passes the cache by);
    - what was asked for before a removal is not stored after it;
    and the `invariants`: functions that are shown each step as an `Observed`.
    `ttl_s` and `lifespan` are those of all that is stored. `store_failures`: a
    failed fetch is remembered.

    >>> from hypothesis import Phase, settings
    >>> from hypothesis.stateful import run_state_machine_as_test
    >>> from cachemesh import AfterFailure, CachePolicy
    >>> few = settings(max_examples=20, stateful_step_count=20, deadline=None, database=None, derandomize=True)
    >>> patient = CachePolicy("patient", after_failure=AfterFailure.SERVE_STALE)
    >>> run_state_machine_as_test(policy_machine(patient), settings=few)

    In a file of tests, `TestPatient = policy_machine(patient).TestCase` is
    all, and what breaks is shown as the fewest steps that break it. A
    promise that this policy does not keep, as it stands in with old values:

    >>> def never_two_minutes_old(seen):
    ...     return all(given.age_s is None or given.age_s < 120 for given in seen.given)
    >>> many = settings(few, max_examples=2000, stateful_step_count=30, phases=[Phase.generate], print_blob=False)
    >>> run_state_machine_as_test(policy_machine(patient, invariants=[never_two_minutes_old]), settings=many)
    Traceback (most recent call last):
    ...
    AssertionError: never_two_minutes_old does not hold: ...
    """
    checked: tuple[Any, ...] = tuple(invariants)
    for invariant in checked:
        if not callable(invariant) or iscoroutinefunction(invariant):
            msg = f"an invariant is a function of what was seen (no coroutine function), not {invariant!r}"
            raise TypeError(msg)
    for name, seconds in (("ttl_s", ttl_s), ("max_age_s", max_age_s)):
        if seconds is not None and not seconds >= 0:
            msg = f"{name} is a number of seconds from 0 on, or None, not {seconds}"
            raise ValueError(msg)
    named: dict[str, Any] = {
        "__module__": __name__,
        "__doc__": f"What may happen under the policy {policy.name}.",
        "policy": policy,
        "checked": checked,
        "ttl_s": ttl_s,
        "lifespan": lifespan,
        "max_age_s": longest_age_s(policy, ttl_s, lifespan) if max_age_s is None else max_age_s,
        "options": {"retry": retry, "store_failures": store_failures},
        "always_revalidate": always_revalidate,
    }
    made: type[PolicyMachine] = type(f"PolicyMachine_{policy.name}", (PolicyMachine,), named)
    return made


def longest_age_s(policy: CachePolicy, ttl_s: float | None, lifespan: Lifespan | None = None) -> float:
    """How old a value may be that a caller is given under `policy`, in seconds; `inf` where its row sets no bound.

    >>> longest_age_s(CachePolicy.CACHE_FIRST, 60.0)
    60.0
    >>> longest_age_s(CachePolicy.STALE_WHILE_REVALIDATE, 60.0)
    inf
    >>> longest_age_s(CachePolicy.STALE_WHILE_REVALIDATE, 60.0, Lifespan(serve_stale_s=30.0))
    90.0
    """
    life_s = inf if ttl_s is None else ttl_s
    takes_any = policy.after_failure is AfterFailure.SERVE_STALE
    if lifespan is None:
        if takes_any or policy.stale in SERVING:
            return inf
        return life_s if policy.fresh in SERVING else 0.0
    longest_s = life_s if policy.fresh in SERVING else 0.0
    refreshes = policy.missing is Action.FETCH and policy.fresh in SERVING
    if refreshes or policy.stale in SERVING:
        longest_s = life_s + lifespan.serve_stale_s
    if lifespan.stale_if_error_s > 0.0 and Action.FETCH in {policy.missing, policy.fresh, policy.stale}:
        longest_s = max(longest_s, life_s + lifespan.stale_if_error_s)
    if takes_any:
        longest_s = max(longest_s, life_s + max(lifespan.serve_stale_s, lifespan.stale_if_error_s))
    return longest_s


def _origins() -> SearchStrategy[str]:
    return st.sampled_from((IS_SLOW, ANSWERS, FAILS))


def _keys() -> SearchStrategy[str]:
    """Mostly the same, so that steps meet."""
    return st.sampled_from((KEYS[0], KEYS[0], KEYS[0], *KEYS))


def _scopes() -> SearchStrategy[CacheScope | None]:
    return st.sampled_from((None, None, None, *CacheScope))


def _viewers() -> SearchStrategy[str | None]:
    return st.sampled_from((None, None, None, None, *USERS))


def _removals() -> SearchStrategy[Command[Any]]:
    return st.one_of(
        st.builds(Invalidate, _keys(), _scopes(), _viewers()),
        st.builds(InvalidatePrefix, st.sampled_from(("", "f")), st.none(), _viewers()),
        st.builds(Clear, _viewers()),
        st.builds(ClearScope, scopes(), _viewers()),
        st.builds(Evict, owners(), _keys()),
    )


def _arrivals() -> SearchStrategy[Command[Any]]:
    signs_in = st.builds(SetActiveUser, st.sampled_from((*USERS, *USERS, None)))
    return st.one_of(signs_in, signs_in, st.builds(EndSession, _viewers()))


class PolicyMachine(RuleBasedStateMachine):
    """The machine itself; `policy_machine` makes one for a policy."""

    policy: ClassVar[CachePolicy] = CachePolicy.CACHE_FIRST
    checked: ClassVar[tuple[Invariant, ...]] = ()
    ttl_s: ClassVar[float | None] = 60.0
    lifespan: ClassVar[Lifespan | None] = None
    max_age_s: ClassVar[float] = 60.0
    options: ClassVar[dict[str, Any]] = {}
    always_revalidate: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.home = CacheScope.GLOBAL
        self.world = World(State())
        self.observer = Observer()
        self.referee = Referee(self.max_age_s)

    @initialize(home=st.sampled_from(CacheScope), user=st.none() | users())
    def begins(self, home: CacheScope, user: str | None) -> None:
        """A run has a scope in which most of it takes place: where a step says None."""
        self.home = home
        self._happens(SetActiveUser(user))

    # What callers do

    @rule(key=_keys(), scope=_scopes(), viewer=_viewers(), origin=_origins())
    def get(self, key: str, scope: CacheScope | None, viewer: str | None, origin: str) -> None:
        """Somebody asks. What it comes to wait for, if anything, goes on where the `origin` is slow, or ends."""
        how = {"policy": self.policy, "always_revalidate": self.always_revalidate, **self._terms(), **self.options}
        self._asks(Get(key, 0.0, 0, scope=scope or self.home, viewer=viewer, **how), origin)

    @rule(key=_keys(), scope=_scopes(), viewer=_viewers(), origin=_origins())
    def refresh(self, key: str, scope: CacheScope | None, viewer: str | None, origin: str) -> None:
        """Somebody asks for an answer anew, whatever there is."""
        self._asks(
            Refresh(key, 0.0, 0, scope=scope or self.home, viewer=viewer, **self._terms(), **self.options), origin
        )

    @rule(key=_keys(), scope=_scopes(), viewer=_viewers())
    def put(self, key: str, scope: CacheScope | None, viewer: str | None) -> None:
        """Somebody writes by hand."""
        self._happens(Put(key, None, 0.0, 0, scope=scope or self.home, viewer=viewer, **self._terms()))

    @precondition(lambda self: self.is_under_way())
    @rule(which=st.integers(0, 3))
    def everybody_gives_up(self, which: int) -> None:
        """Those who wait for a fetch are cancelled; which one, counted from the oldest."""
        self._happens(Abandoned(0), aim=which)

    # What the origin does

    @precondition(lambda self: self.is_under_way())
    @rule(which=st.integers(0, 3))
    def origin_answers(self, which: int) -> None:
        """A fetch succeeds."""
        self._happens(FetchSucceeded(0, None, 0.0), aim=which)

    @precondition(lambda self: self.is_under_way())
    @rule(which=st.integers(0, 3), retryable=st.booleans())
    def origin_fails(self, which: int, retryable: bool) -> None:  # noqa: FBT001 (drawn)
        """A fetch fails."""
        self._happens(FetchFailed(0, None, 0.0, retryable=retryable), aim=which)

    @precondition(lambda self: bool(self.world.waits_to_retry))
    @rule(which=st.integers(0, 3))
    def retry_is_due(self, which: int) -> None:
        """The wait before a next attempt is over."""
        self._happens(RetryDue(0), aim=which)

    @precondition(lambda self: self.is_under_way())
    @rule(which=st.integers(0, 3))
    def fetch_is_cancelled(self, which: int) -> None:
        """A fetch ends without an answer."""
        self._happens(FetchAborted(0), aim=which)

    # What goes, who comes, and when

    @rule(by=_removals())
    def is_removed(self, by: Command[Any]) -> None:
        """Something of what is cached goes."""
        self._happens(by)

    @rule(by=_arrivals())
    def somebody_comes_or_goes(self, by: Command[Any]) -> None:
        """A user signs in or (None) out, or a session ends."""
        self._happens(by)

    @rule(seconds=st.sampled_from(WAITS_S) | st.floats(0.0, 300.0))
    def time_passes(self, seconds: float) -> None:
        """Nothing else happens for a while."""
        self.world.now += seconds

    def is_under_way(self) -> bool:
        """Whether any fetch is."""
        return bool(self.world.under_way(*ANSWERABLE))

    def _terms(self) -> dict[str, Any]:
        return {"ttl_s": self.ttl_s, "lifespan": self.lifespan}

    def _asks(self, asked: Get | Refresh, origin: str) -> None:
        for moment in self._happens(asked):
            for joined in moment.listed(Join):
                if origin == ANSWERS:
                    self._happens(FetchSucceeded(0, None, 0.0), aim=joined.flight_id, stray=True)
                elif origin == FAILS:
                    self._happens(FetchFailed(0, None, 0.0), aim=joined.flight_id, stray=True)

    def _happens(self, command: Command[Any], *, aim: int = 0, stray: bool = False) -> list[Moment]:
        moments = list(self.world.see(Happening(command, aim=aim, stray=stray)))
        for moment in moments:
            seen = self.observer.saw(moment, self.world.now)
            self.referee.judge(seen)
            for invariant in self.checked:
                if invariant(seen) is False:
                    name = getattr(invariant, "__name__", repr(invariant))
                    msg = f"{name} does not hold: {seen}"
                    raise AssertionError(msg)
        return moments


class Referee:
    """The built-in invariants, judged from outside: by commands and effects, not by the state that the core keeps."""

    def __init__(self, max_age_s: float) -> None:
        self._max_age_s = max_age_s
        self._last_id = 0
        self._places: set[Place] = set()
        self._removed: dict[Place, int] = {}
        """Of each place the last id that was given before it was removed."""
        self._struck: dict[Place, int] = {}
        """The same for what else makes a fetch too old to store: a newer answer, a write."""
        self._under_way: dict[int, tuple[Place, FlightKind]] = {}

    def judge(self, seen: Observed) -> None:
        """Raise `AssertionError` where this step breaks one of the four."""
        moment = seen.moment
        self._nobody_is_given_what_is_not_theirs(seen)
        self._nothing_is_too_old(seen)
        removed = [place for place in self._places if _is_removed(moment, *place)]
        self._removed.update(dict.fromkeys(removed, self._last_id))
        self._last_id = max(self._last_id, _id_of(moment))
        self._stores_nothing_from_before_a_removal(moment)
        self._one_flight_a_key(moment)

    @staticmethod
    def _nobody_is_given_what_is_not_theirs(seen: Observed) -> None:
        for given in seen.given:
            answer = given.answer
            if answer is not None and (answer.owner, answer.key) != (given.owner, given.key):
                theirs = f"{given.key!r} of {_told(given.owner)}"
                msg = f"who asked for {theirs} was given {answer.key!r} of {_told(answer.owner)}"
                raise AssertionError(msg)

    def _nothing_is_too_old(self, seen: Observed) -> None:
        for given in seen.given:
            if given.age_s is not None and given.age_s > self._max_age_s + ROUNDING_S:
                told = f"{given.key!r} of {_told(given.owner)}"
                msg = f"a caller was given a value of {given.age_s} s for {told}: {self._max_age_s} s are allowed"
                raise AssertionError(msg)

    def _stores_nothing_from_before_a_removal(self, moment: Moment) -> None:
        for effect in moment.listed(Save):
            place = (effect.owner, effect.key)
            self._places.add(place)
            if effect.flight_id <= self._removed.get(place, 0):
                told = f"{effect.key!r} of {_told(effect.owner)}"
                msg = f"fetch {effect.flight_id} stored {told}, which was removed after it began"
                raise AssertionError(msg)
            self._struck[place] = max(self._struck.get(place, 0), effect.flight_id)

    def _one_flight_a_key(self, moment: Moment) -> None:
        for effect in moment.listed(Settle, Abort, CancelFetch):
            self._under_way.pop(effect.flight_id, None)
        for effect in moment.listed(StartFetch):
            flight = moment.after.flights.get(effect.flight_id)
            if flight is None or effect.attempt > 1:
                continue
            place = (effect.owner, effect.key)
            self._places.add(place)
            floor = max(self._removed.get(place, 0), self._struck.get(place, 0))
            for other, (where, kind) in self._under_way.items():
                if where == place and kind is flight.kind and other > floor:
                    told = f"{effect.key!r} of {_told(effect.owner)}"
                    msg = f"fetch {effect.flight_id} of {told} began while fetch {other} was under way"
                    raise AssertionError(msg)
            self._under_way[effect.flight_id] = (place, flight.kind)


def _is_removed(moment: Moment, owner: Owner, key: str) -> bool:
    """Whether somebody had (owner, key) removed. Not by eviction, which makes no answer old."""
    command, user = moment.command, moment.before.active_user
    if isinstance(command, Invalidate):
        return key == command.key and owner in visible_owners(command.scope, user, command.viewer)
    if isinstance(command, InvalidatePrefix):
        return key.startswith(command.prefix) and owner in visible_owners(command.scope, user, command.viewer)
    if isinstance(command, Clear):
        return command.viewer is None or owner[1] == command.viewer
    if isinstance(command, ClearScope):
        is_own = command.viewer is not None and command.scope is not CacheScope.GLOBAL
        return owner[0] is command.scope and (not is_own or owner[1] == command.viewer)
    return owner in _leaving(moment)


def _leaving(moment: Moment) -> Iterator[Owner]:
    """The owners whose time is over: a user who signs out, a session that ends."""
    command, user = moment.command, moment.before.active_user
    if isinstance(command, SetActiveUser) and user is not None and user != command.user_id:
        yield (CacheScope.USER, user)
    elif isinstance(command, EndSession):
        gone = user if command.viewer is None else command.viewer
        yield (CacheScope.SESSION, command.viewer)
        if gone is not None:
            yield (CacheScope.USER, gone)


def _id_of(moment: Moment) -> int:
    command = moment.command
    if isinstance(command, Get | Refresh):
        return command.flight_id
    return command.stamp if isinstance(command, Put) else 0


def _told(owner: Owner | None) -> str:
    if owner is None:
        return "nobody"
    scope, user = owner
    return str(scope) if user is None else f"{scope} {user}"
