"""The model: what both shells answer is what a fold of `reduce` over the immutable state answers.

Hypothesis starts calls, and every fetch parks until it is let go, so that any
step may come between any other two: another call, another fetch's end, a user
switch, an invalidation, a cancelled caller, the passing of time. After each
step every answer given, every fetch begun, and all that can be read is compared.

The model plays the shell on values alone: it remembers who waits for which
flight, and tells them on `Settle` and `Abort`.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Final

from hypothesis import HealthCheck, reject, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from returns.result import Failure, Success

from cachemesh import (
    DEFAULT,
    AfterFailure,
    BreakerOptions,
    Cache,
    CacheExpired,
    CacheMiss,
    CachePolicy,
    CacheScope,
    CircuitOpen,
    DoNotCache,
    FetchCancelled,
    FetchRaised,
    FetchTimeout,
    Fresh,
    InvalidFetchResult,
    Lifetime,
    NoActiveUser,
    NotModified,
    Previous,
    ReentrantFetch,
    RetryOptions,
    SyncCache,
)
from cachemesh.core import (
    Abandoned,
    Abort,
    CancelFetch,
    Clear,
    ClearScope,
    Directives,
    EndSession,
    FetchAborted,
    FetchFailed,
    FetchSucceeded,
    FlightKind,
    Freshness,
    GaveUp,
    Get,
    Invalidate,
    InvalidatePrefix,
    Join,
    Lifespan,
    MarkTag,
    Origin,
    Overdue,
    Put,
    Refresh,
    RefreshSource,
    Refusal,
    Refuse,
    Reply,
    ResetBreaker,
    Retry,
    RetryDue,
    Save,
    SetActiveUser,
    Settle,
    StartFetch,
    State,
    Touch,
    Update,
    WaitedLong,
    WaitUntil,
    reduce,
)
from cachemesh.core.lifetimes import verdict
from cachemesh.core.scopes import GLOBAL_OWNER, owner_of, visible_owners
from cachemesh.testing.clock import VirtualClock
from cachemesh.testing.loop import VirtualLoop
from tests.scenarios.helpers import guarded

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachemesh.core import Owner

GLOBAL, SESSION, USER = CacheScope.GLOBAL, CacheScope.SESSION, CacheScope.USER
STALE_IF_ERROR: Final = CachePolicy("stale_if_error", after_failure=AfterFailure.SERVE_STALE)
POLICIES: Final = [
    CachePolicy.CACHE_FIRST,
    CachePolicy.NETWORK_FIRST,
    CachePolicy.STALE_WHILE_REVALIDATE,
    CachePolicy.NETWORK_ONLY,
    CachePolicy.CACHE_ONLY,
    STALE_IF_ERROR,
]
KEYS: Final = ["a", "b"]
VIEWERS: Final = [None, "alice", "bob"]
TWICE: Final = RetryOptions(max_attempts=2)
LONG: Final = Lifetime(
    ttl=10,
    serve_stale_for=20,
    stale_if_error_for=60,
    refresh_ahead=0.5,
    failure_ttl=5,
    refresh_backoff=15,
)
STRICT: Final = Lifetime(ttl=10)
TTLS: Final = [None, 10.0, 10.0, 0.0, LONG, LONG, STRICT]
TAGS: Final = [(), (), (), ("t",), ("t", "u")]
ORIGIN: Final = Origin("github", 2, 20.0)
BREAKERS: Final = BreakerOptions(failures=2, open_for=20)
TIMEOUTS: Final = [{}, {}, {"soft_timeout": 3}, {"hard_timeout": 7}]
"""For the first key. The second one has a `max_flight_age`: it makes a difference which of two comes first."""
AGES: Final = [{}, {}, {"max_flight_age": 13}]
MATCH_S: Final = 3.0
"""For so long, in real time, threads may take until they stand where the model says."""

CANCELLED: Final = "cancelled"
CRASHED: Final = "crashed"
NOT_MODIFIED: Final = "not modified"


class Crash(BaseException):
    """Like KeyboardInterrupt, but of no interest to event loops and test runners."""


@dataclass
class Call:
    """One call of a user's, and what the model knows of it."""

    number: int
    method: str
    key: str
    viewer: str | None
    scope: CacheScope
    options: dict[str, Any]
    owner: Owner | None
    not_before: int
    """The step of the last removal from its partition before it asked: nothing fetched before may answer it."""
    asked_in: int = 0
    """The step in which it asked."""
    asked_at: float = 0.0
    flight_id: int = 0
    """The id of its last command."""
    answer: Any = None
    answered_at: float = 0.0


@dataclass(frozen=True)
class Value:
    """What an origin answers: whose it is, and in which step its fetch began."""

    owner: Owner
    key: str
    begun_in: int
    serial: int


def life(ttl: Any) -> tuple[float | None, Lifespan | None]:
    return (ttl.ttl_s, ttl.lifespan) if isinstance(ttl, Lifetime) else (ttl, None)


class Model:
    """A shell made of values: `reduce` over the immutable state, and lists of who waits."""

    def __init__(self) -> None:
        self.state: State[Any] = State()
        self.ids = itertools.count(1)
        self.waiting: dict[int, list[tuple[Call, bool, bool]]] = {}
        self.running: dict[int, Call] = {}
        self.led_by: dict[int, Call] = {}
        self.has_raced = False
        """Several have asked again at once: of threads, nobody can say which of them leads now."""
        self.overdue_at: dict[int, float] = {}
        self.left_behind: set[int] = set()
        """The calls whose fetches nobody waits for any more: a thread can't be stopped."""
        self.previous: dict[int, Any] = {}
        self.usable_until: dict[Any, float] = {}
        """Of each value: until when it may be answered, where its entry has windows."""
        self.tags_of: dict[Any, tuple[str, ...]] = {}

    def ask(self, call: Call, now: float) -> None:
        flight_id = call.flight_id = next(self.ids)
        retry = Retry(max_attempts=2) if call.options.get("retry") is TWICE else Retry()
        ttl_s, lifespan = life(call.options["ttl"])
        failures = call.options["cache_failures"]
        stores = failures is True or (failures is DEFAULT and lifespan is not None and call.options["ttl"].remembers)
        origin = ORIGIN if call.options.get("origin") else None
        tags = call.options.get("tags", ())
        command: Get | Refresh
        if call.method == "get":
            command = Get(
                key=call.key,
                now=now,
                flight_id=flight_id,
                policy=call.options["policy"],
                scope=call.scope,
                viewer=call.viewer,
                ttl_s=ttl_s,
                retry=retry,
                store_failures=stores,
                heed_failures=failures is not False,
                always_revalidate=call.options["always_revalidate"],
                lifespan=lifespan,
                tags=tags,
                origin=origin,
            )
        else:
            command = Refresh(
                key=call.key,
                now=now,
                flight_id=flight_id,
                source=RefreshSource(call.method),
                scope=call.scope,
                viewer=call.viewer,
                ttl_s=ttl_s,
                retry=retry,
                store_failures=stores,
                lifespan=lifespan,
                tags=tags,
                origin=origin,
            )
        for effect in self.fold(command):
            if isinstance(effect, Reply):
                self._answer(call, effect.answer, now)
            elif isinstance(effect, Refuse):
                error = (
                    CircuitOpen(effect.origin, effect.until)
                    if effect.reason is Refusal.CIRCUIT_OPEN
                    else ERRORS[effect.reason](call.key)
                )
                self._answer(call, Failure(error), now)
            elif isinstance(effect, StartFetch):
                self.running[effect.flight_id] = call
                self.waiting[effect.flight_id] = []
                self._hand_over(effect.flight_id, call, now)
                if "max_flight_age" in call.options:
                    self.overdue_at[effect.flight_id] = now + call.options["max_flight_age"]
                if effect.source is not RefreshSource.BACKGROUND:
                    self.led_by[effect.flight_id] = call
            elif isinstance(effect, Join):
                self.waiting[effect.flight_id].append((call, effect.falls_back, effect.reads))

    def _hand_over(self, flight_id: int, call: Call, now: float) -> None:
        """What a conditional fetch gets as it begins: nothing of what its tag has taken away."""
        partition = self.state.partitions.get(call.owner) if call.owner else None
        entry = None if partition is None else partition.entries.get(call.key)
        is_there = verdict(entry, now, self.state, call.owner) is not Freshness.MISSING
        self.previous[flight_id] = entry if is_there and call.options.get("conditional") else None

    def _answer(self, call: Call, answer: Any, now: float) -> None:
        call.answer, call.answered_at = answer, now

    def directed(self, flight_id: int, outcome: Any) -> tuple[Any, Directives | None]:
        """What a fetcher's directive comes to."""
        if outcome == NOT_MODIFIED:
            entry = self.previous[flight_id]
            if entry is None:
                return Failure(InvalidFetchResult(self.running[flight_id].key, "NotModified")), None
            tags, validator = ((), None) if entry.terms is None else (entry.terms.tags, entry.terms.validator)
            return entry.answer, Directives(tags=tags, validator=validator, renews=True)
        said = outcome.unwrap() if isinstance(outcome, Success) else None
        if isinstance(said, Fresh):
            told = Directives(True, said.ttl, tags=said.tags, validator=said.validator, private=said.private)  # noqa: FBT003 (the first field says that there is a ttl)
            return Success(said.value), told
        if isinstance(said, DoNotCache):
            return Success(said.value), Directives(stores=False)
        return outcome, None

    def end_fetch(self, flight_id: int, outcome: Any, now: float) -> None:
        outcome, directives = self.directed(flight_id, outcome)
        if outcome in (CANCELLED, CRASHED):
            effects = self.fold(FetchAborted(flight_id))
        elif isinstance(outcome, Success):
            effects = self.fold(FetchSucceeded(flight_id, outcome, now, 0.0, directives))
        else:
            error = outcome.failure()
            cacheable = not isinstance(error, InvalidFetchResult) and not (
                isinstance(error, FetchRaised) and isinstance(error.error, TypeError)
            )
            effects = self.fold(FetchFailed(flight_id, outcome, now, cacheable=cacheable))
        for effect in effects:
            if isinstance(effect, WaitUntil):
                assert effect.due_at == now
                self.fold(RetryDue(flight_id))
                self._hand_over(flight_id, self.running[flight_id], now)
                return
            if isinstance(effect, Settle):
                self._settle(effect, now)
            elif isinstance(effect, Abort):
                leader = self.led_by.get(flight_id)
                everyone = [call for call, _, _ in self.waiting[flight_id]]
                self._settle(Settle(flight_id, GLOBAL_OWNER, effect.key, Failure(FetchCancelled(effect.key))), now)
                if outcome == CRASHED and leader in everyone:
                    assert leader is not None
                    leader.answer = CRASHED

    def cancel(self, call: Call) -> None:
        call.answer = CANCELLED
        self._leave(call)

    def _leave(self, call: Call) -> None:
        for flight_id, waiting in self.waiting.items():
            if any(each is call for each, _, _ in waiting):
                waiting[:] = [each for each in waiting if each[0] is not call]
                if not waiting:
                    for effect in self.fold(Abandoned(flight_id)):
                        assert isinstance(effect, CancelFetch)
                        self.left_behind.add(self.running[flight_id].number)
                        self._forget(flight_id)
                return

    def pass_time(self, now: float) -> None:
        """Flights grow too old, and callers lose their patience."""
        for flight_id in [each for each, at in self.overdue_at.items() if at <= now]:
            call = self.running[flight_id]
            answer = Failure(FetchTimeout(call.key, call.options["max_flight_age"]))
            self.left_behind.add(call.number)
            for effect in self.fold(Overdue(flight_id, answer, now)):
                if isinstance(effect, Settle):
                    self._settle(effect, now)
        impatient = [
            (call.asked_at + call.options[option], call.number, option, call, falls_back, reads, flight_id)
            for flight_id, waiting in self.waiting.items()
            for call, falls_back, reads in waiting
            for option in ("soft_timeout", "hard_timeout")
            if option in call.options and not call.options.get("was soft")
            if reads or option == "hard_timeout"
        ]
        for at, _, option, call, falls_back, reads, flight_id in sorted(impatient, key=lambda each: each[:2]):
            if at > now:
                continue
            if option == "soft_timeout":
                call.options["was soft"] = True
                effects = self.fold(WaitedLong(flight_id, now))
            else:
                effects = self.fold(GaveUp(flight_id, now, reads, falls_back))
            old = next((effect.answer for effect in effects if isinstance(effect, Reply)), None)
            if old is None and option == "hard_timeout":
                old = Failure(FetchTimeout(call.key, call.options["hard_timeout"]))
            if old is not None:
                self._answer(call, old, now)
                self._leave(call)

    def fold(self, command: Any) -> tuple[Any, ...]:
        self.state, effects = reduce(self.state, command)
        for effect in effects:
            if isinstance(effect, Save) and isinstance(effect.entry.answer, Success):
                value, terms = effect.entry.answer.unwrap(), effect.entry.terms
                self.usable_until[value] = inf
                if terms is not None and terms.serve_stale_s is not None and terms.stale_if_error_s is not None:
                    window = max(terms.serve_stale_s, terms.stale_if_error_s)
                    self.usable_until[value] = effect.entry.expires_at + window
                self.tags_of[value] = () if terms is None else terms.tags
        return effects

    def _settle(self, settled: Settle[Any], now: float) -> None:
        waiting = self.waiting[settled.flight_id]
        self._forget(settled.flight_id)
        after = settled.asks_again_after or inf
        self.has_raced = self.has_raced or sum(call.flight_id > after for call, _, _ in waiting) > 1
        for call, falls_back, reads in waiting:
            if isinstance(settled.answer, Success):
                if settled.asks_again_after and call.flight_id > settled.asks_again_after:
                    self.ask(call, now)
                else:
                    self._answer(call, settled.answer, now)
                continue
            old = settled.fallback if falls_back else settled.rescue if reads else None
            self._answer(call, settled.answer if old is None else old, now)

    def _forget(self, flight_id: int) -> None:
        del self.waiting[flight_id], self.running[flight_id], self.previous[flight_id]
        self.led_by.pop(flight_id, None)
        self.overdue_at.pop(flight_id, None)

    def peek(self, key: str, scope: CacheScope | None, viewer: str | None, now: float) -> Any:
        owner, entry = self.entry(key, scope, viewer, now)
        if entry is None:
            return Failure(CacheMiss(key))
        is_fresh = verdict(entry, now, self.state, owner) in (Freshness.FRESH, Freshness.AGEING)
        return entry.answer if is_fresh else Failure(CacheExpired(key))

    def entry(self, key: str, scope: CacheScope | None, viewer: str | None, now: float) -> tuple[Any, Any]:
        for owner in visible_owners(scope, self.state.active_user, viewer):
            partition = self.state.partitions.get(owner)
            entry = None if partition is None else partition.entries.get(key)
            if entry is not None and verdict(entry, now, self.state, owner) is not Freshness.MISSING:
                return owner, entry
        return None, None

    def has_failure(self, key: str, scope: CacheScope | None, viewer: str | None, now: float) -> bool:
        for owner in visible_owners(scope, self.state.active_user, viewer):
            partition = self.state.partitions.get(owner)
            failed = None if partition is None else partition.failures.get(key)
            if failed is not None and now < failed.serve_until:
                return True
        return False


ERRORS: Final[dict[Refusal, Callable[[str], Exception]]] = {
    Refusal.MISS: CacheMiss,
    Refusal.EXPIRED: CacheExpired,
    Refusal.NO_ACTIVE_USER: NoActiveUser,
    Refusal.REENTRANT: ReentrantFetch,
}


def ended(outcome: Any) -> Any:
    """What a fetch that is to end with `outcome` does."""
    if outcome == NOT_MODIFIED:
        return Success(NotModified())
    if outcome == CANCELLED:
        raise asyncio.CancelledError
    if outcome == CRASHED:
        raise Crash
    if isinstance(outcome, Failure):
        error = outcome.failure()
        if isinstance(error, FetchRaised):
            raise error.error
        if isinstance(error, InvalidFetchResult):
            return 5
    return outcome


class AsyncWorld:
    """`Cache` on a loop in virtual time, which runs until nothing moves after each step."""

    can_cancel = True

    def __init__(self, clock: VirtualClock) -> None:
        self.runner = asyncio.Runner(loop_factory=lambda: VirtualLoop(clock))
        self.cache = Cache(clock=clock, breakers=BREAKERS)
        self.parked: dict[int, asyncio.Future[Any]] = {}
        self.answers: dict[int, Any] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.loop = self.runner.get_loop()
        self.loop.set_exception_handler(lambda *_: None)

    def begin(self, call: Call) -> None:
        async def fetch(_: Previous[Any] | None = None) -> Any:
            assert call.number not in self.parked, "two attempts of one fetch at the same time"
            self.parked[call.number] = asyncio.get_running_loop().create_future()
            try:
                outcome = await self.parked[call.number]
            finally:
                del self.parked[call.number]
            return ended(outcome)

        async def make() -> None:
            try:
                method = getattr(view_of(self.cache, call.viewer), call.method)
                self.answers[call.number] = await method(call.key, fetch, scope=call.scope, **given_options(call))
            except asyncio.CancelledError:
                self.answers[call.number] = CANCELLED
            except Crash:
                self.answers[call.number] = CRASHED

        self.tasks[call.number] = self.loop.create_task(make())
        self.settle()

    def end_fetch(self, call: Call, outcome: Any) -> None:
        self.parked[call.number].set_result(outcome)
        self.settle()

    def cancel(self, call: Call) -> None:
        self.tasks[call.number].cancel()
        self.settle()

    def order(self, act: Callable[[], None]) -> None:
        async def acting() -> None:
            act()

        self.runner.run(acting())
        self.settle()

    def pass_time(self) -> None:
        """Timers go off by themselves."""

    def settle(self, model: Model | None = None) -> None:
        del model
        assert isinstance(self.loop, VirtualLoop)
        self.runner.run(self.loop.settle())

    def close(self) -> None:
        self.runner.run(self.cache.aclose())
        self.settle()
        assert not self.parked
        self.runner.close()


class ThreadWorld:
    """`SyncCache`, a thread for each call. A step is over when the threads stand where the model says."""

    can_cancel = False

    def __init__(self, clock: VirtualClock) -> None:
        self.cache = SyncCache(clock=clock, breakers=BREAKERS)
        self.gates: dict[int, tuple[threading.Event, list[Any]]] = {}
        self.answers: dict[int, Any] = {}
        self.lock = threading.Lock()

    @property
    def parked(self) -> dict[int, Any]:
        return self.gates

    def begin(self, call: Call) -> None:
        def fetch(_: Previous[Any] | None = None) -> Any:
            gate, outcomes = threading.Event(), []  # type: ignore[var-annotated]
            with self.lock:
                assert call.number not in self.gates, "two attempts of one fetch at the same time"
                self.gates[call.number] = gate, outcomes
            assert gate.wait(60)
            return ended(outcomes[0])

        def make() -> None:
            try:
                method = getattr(view_of(self.cache, call.viewer), call.method)
                self.answers[call.number] = method(call.key, fetch, scope=call.scope, **given_options(call))
            except asyncio.CancelledError:
                self.answers[call.number] = CANCELLED
            except Crash:
                self.answers[call.number] = CRASHED

        threading.Thread(target=make, daemon=True, name="model").start()

    def end_fetch(self, call: Call, outcome: Any) -> None:
        with self.lock:
            gate, outcomes = self.gates.pop(call.number)
        outcomes.append(outcome)
        gate.set()

    def cancel(self, call: Call) -> None:
        raise NotImplementedError

    def order(self, act: Callable[[], None]) -> None:
        guarded(act, MATCH_S)

    def pass_time(self) -> None:
        """A flight that nobody waits for is looked at by the next one who asks."""
        self.cache._runtime.give_up_overdue(self.cache._runtime.time.now())

    def settle(self, model: Model) -> None:
        """Until parked, answered and waiting are what the model says; whether they are is checked afterwards."""
        parked = {call.number for call in model.running.values()} | model.left_behind
        waiting = sum(len(each) for each in model.waiting.values())
        deadline = time.monotonic() + MATCH_S
        while time.monotonic() < deadline:
            lives = list(self.cache._runtime.lives.values())
            if (
                set(self.gates) == parked
                and len(lives) == len(model.running)
                and sum(live.waiting for live in lives) == waiting
                and len(self.answers) == self.expected
            ):
                return
            time.sleep(0.0002)

    expected = 0

    def close(self) -> None:
        deadline = time.monotonic() + MATCH_S
        while self.gates and time.monotonic() < deadline:
            with self.lock:
                gates, self.gates = self.gates, {}
            for gate, outcomes in gates.values():
                outcomes.append(Failure("the end"))
                gate.set()
            time.sleep(0.001)
        guarded(self.cache.close)


def view_of(cache: Any, viewer: str | None) -> Any:
    return cache if viewer is None else cache.for_user(viewer)


def given_options(call: Call) -> dict[str, Any]:
    return {
        name: value
        for name, value in call.options.items()
        if name != "was soft" and (call.method == "get" or name not in ("policy", "always_revalidate"))
    }


@dataclass
class Removals:
    """When something was last removed, by partition and key."""

    last: dict[tuple[Owner, str], int] = field(default_factory=dict)

    def of(self, owner: Owner | None, key: str) -> int:
        return 0 if owner is None else self.last.get((owner, key), 0)

    def note(self, owner: Owner, key: str | None, step: int) -> None:
        for each in KEYS if key is None else [key]:
            self.last[owner, each] = step


class ShellAgainstModel(RuleBasedStateMachine):
    """The rules are the steps; see the file's own lines above."""

    world_type: type[AsyncWorld | ThreadWorld]

    @initialize()
    def begin(self) -> None:
        self.clock = VirtualClock(now=1_000_000.0)
        self.world = self.world_type(self.clock)
        self.model = Model()
        self.calls: list[Call] = []
        self.step = 0
        self.begun_in: dict[int, int] = {}
        """Of each flight: the step in which it began, which is later than that of who had to ask again."""
        self.removals = Removals()
        self.renewed_in: dict[Any, int] = {}
        """Of each value that an origin has said to be right still: the step in which that fetch began."""
        self.tag_removals: list[tuple[str, tuple[Owner, ...] | None, int]] = []

    def after(self) -> None:
        """A step has been taken by both: let it take effect, and compare."""
        for flight_id in self.model.running:
            self.begun_in.setdefault(flight_id, self.step)
        if isinstance(self.world, ThreadWorld):
            if self.model.has_raced:
                reject()
            self.world.expected = sum(call.answer is not None for call in self.calls)
        self.world.settle(self.model)
        self.compare()

    # steps

    @rule(
        method=st.sampled_from(["get", "get", "get", "refresh", "prefetch"]),
        key=st.sampled_from(KEYS),
        viewer=st.sampled_from(VIEWERS),
        scope=st.sampled_from([GLOBAL, GLOBAL, SESSION, USER, USER]),
        policy=st.sampled_from(POLICIES),
        ttl=st.sampled_from(TTLS),
        tags=st.sampled_from(TAGS),
        origin=st.sampled_from([None, None, None, ORIGIN.name]),
        conditional=st.sampled_from([False, False, True]),
        impatience=st.sampled_from(TIMEOUTS),
        age=st.sampled_from(AGES),
        cache_failures=st.sampled_from([DEFAULT, True, False]),
        retry=st.sampled_from([DEFAULT, DEFAULT, TWICE]),
        always_revalidate=st.sampled_from([False, False, True]),
    )
    def ask(
        self,
        method: str,
        key: str,
        viewer: str | None,
        scope: CacheScope,
        impatience: dict[str, int],
        age: dict[str, int],
        **options: Any,
    ) -> None:
        self._ask(method, key, viewer, scope, {**options, **(impatience if key == KEYS[0] else age)})

    def _ask(self, method: str, key: str, viewer: str | None, scope: CacheScope, options: dict[str, Any]) -> None:
        self.step += 1
        owner = owner_of(scope, self.model.state.active_user, viewer)
        not_before = self.removals.of(owner, key)
        call = Call(len(self.calls), method, key, viewer, scope, options, owner, not_before, self.step, self.clock())
        self.calls.append(call)
        self.model.ask(call, self.clock())
        self.world.begin(call)
        self.after()

    @rule(
        policy=st.sampled_from(POLICIES),
        viewer=st.sampled_from([None, None, "alice"]),
        scope=st.sampled_from([GLOBAL, GLOBAL, USER]),
    )
    def ask_as_many_do(self, policy: CachePolicy, viewer: str | None, scope: CacheScope) -> None:
        """Calls that are alike join each other."""
        options = {
            "policy": policy,
            "ttl": 10.0,
            "cache_failures": DEFAULT,
            "retry": DEFAULT,
            "always_revalidate": False,
        }
        self._ask("get", "a", viewer, scope, options)

    @precondition(lambda self: self.model.running)
    @rule(place=st.integers(0, 50))
    def answer(self, place: int) -> None:
        self._end_fetch(place, "success")

    @precondition(lambda self: self.model.running)
    @rule(
        place=st.integers(0, 50),
        kind=st.sampled_from(
            [
                "success",
                "fresh",
                "private",
                "do not cache",
                NOT_MODIFIED,
                "failure",
                "failure",
                "raises",
                "raises TypeError",
                "returns 5",
                CANCELLED,
                CRASHED,
            ]
        ),
    )
    def end_fetch(self, place: int, kind: str) -> None:
        self._end_fetch(place, kind)

    def _end_fetch(self, place: int, kind: str) -> None:
        self.step += 1
        flights = sorted(self.model.running)
        flight_id = flights[place % len(flights)]
        starter = self.model.running[flight_id]
        leader = self.model.led_by.get(flight_id)
        if kind in (CANCELLED, CRASHED) and isinstance(self.world, ThreadWorld):
            if leader is None:
                kind = "failure"  # It would end up in `threading.excepthook`, which is as it should be.
            else:
                kind = CRASHED  # Threads are not cancelled: it is a BaseException like any other.
        if kind == NOT_MODIFIED and self.model.previous[flight_id] is not None:
            renewed = self.model.previous[flight_id].answer.unwrap()
            self.renewed_in[renewed] = max(self.renewed_in.get(renewed, 0), self.begun_in[flight_id])
        assert starter.owner is not None
        value = Value(starter.owner, starter.key, self.begun_in[flight_id], self.step)
        outcome: Any = {
            "success": Success(value),
            "fresh": Success(Fresh(value, ttl=5.0, tags=("u",), validator=1)),
            "private": Success(Fresh(value, ttl=5.0, private=True)),
            "do not cache": Success(DoNotCache(value)),
            "failure": Failure(("down", value)),
            "raises": Failure(FetchRaised(starter.key, ValueError(value))),
            "raises TypeError": Failure(FetchRaised(starter.key, TypeError(value))),
            "returns 5": Failure(InvalidFetchResult(starter.key, "int")),
        }.get(kind, kind)
        self.model.end_fetch(flight_id, outcome, self.clock())
        self.world.end_fetch(starter, outcome)
        self.after()

    @precondition(lambda self: self.world_type.can_cancel and any(call.answer is None for call in self.calls))
    @rule(place=st.integers(0, 50))
    def cancel(self, place: int) -> None:
        self.step += 1
        waiting = [call for call in self.calls if call.answer is None]
        call = waiting[place % len(waiting)]
        self.model.cancel(call)
        self.world.cancel(call)
        self.after()

    @rule(seconds=st.sampled_from([0.0, 1.0, 3.0, 5.0, 9.0, 10.0, 20.0, 29.0, 30.0, 31.0, 60.0]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.model.pass_time(self.clock())
        self.world.pass_time()
        self.after()

    @rule(
        kind=st.sampled_from(["switch", "switch", "end session", "invalidate", "invalidate", "clear", "clear scope"]),
        key=st.sampled_from(KEYS),
        scope=st.sampled_from([GLOBAL, SESSION, USER]),
        everywhere=st.booleans(),
        viewer=st.sampled_from([None, *VIEWERS]),
        user=st.sampled_from([None, "alice", "bob", "carol"]),
    )
    def order(
        self,
        kind: str,
        key: str,
        scope: CacheScope,
        everywhere: bool,
        viewer: str | None,
        user: str | None,
    ) -> None:
        """One rule for all, so that calls are no rarer than orders."""
        active, cache = self.model.state.active_user, self.world.cache
        view = view_of(cache, viewer)
        gone: list[tuple[Owner, str | None]] = []
        if kind == "switch":
            self._order(SetActiveUser(user), lambda: cache.set_active_user(user))
            gone = [((USER, active), None)] if active != user else []
        elif kind == "end session":
            self._order(EndSession(viewer), view.end_session)
            gone = [((SESSION, viewer), None), ((USER, active if viewer is None else viewer), None)]
        elif kind == "invalidate":
            named = None if everywhere else scope
            self._order(Invalidate(key, named, viewer), lambda: view.invalidate(key, scope=named))
            gone = [(owner, key) for owner in visible_owners(named, active, viewer)]
        elif kind == "clear":
            self._order(Clear(viewer), view.clear)
            gone = [(owner, None) for owner in EVERY_OWNER if viewer is None or owner[1] == viewer]
        else:
            self._order(ClearScope(scope, viewer), lambda: view.clear_scope(scope))
            gone = [
                (owner, None)
                for owner in EVERY_OWNER
                if owner[0] is scope and (viewer is None or scope is GLOBAL or owner[1] == viewer)
            ]
        for owner, each in gone:
            self.removals.note(owner, each, self.step)

    @rule(
        kind=st.sampled_from(["put", "update", "touch", "prefix", "tag", "tag", "expire tag", "reset circuit"]),
        key=st.sampled_from(KEYS),
        ttl=st.sampled_from(TTLS),
        tags=st.sampled_from(TAGS),
        tag=st.sampled_from(["t", "u"]),
        scope=st.sampled_from([GLOBAL, GLOBAL, SESSION, USER]),
        everywhere=st.booleans(),
        viewer=st.sampled_from(VIEWERS),
    )
    def write(
        self,
        kind: str,
        key: str,
        ttl: Any,
        tags: tuple[str, ...],
        tag: str,
        scope: CacheScope,
        everywhere: bool,
        viewer: str | None,
    ) -> None:
        """Writing by hand, and removing many at once."""
        active, view, now = self.model.state.active_user, view_of(self.world.cache, viewer), self.clock()
        owner = owner_of(scope, active, viewer)
        stamp, step = next(self.model.ids), self.step + 1
        ttl_s, lifespan = life(ttl)
        named = None if everywhere else scope
        if kind == "put":
            value = Value(owner or GLOBAL_OWNER, key, step, step)
            put = Put(key, Success(value), now, stamp, scope, viewer, ttl_s, lifespan, tags)
            self._order(put, lambda: view.put(key, value, ttl=ttl, tags=tags, scope=scope))
            if owner is not None:
                self.removals.note(owner, key, step)
        elif kind == "update":
            _, entry = self.model.entry(key, scope, viewer, now)
            value = Value(owner or GLOBAL_OWNER, key, step, step)
            expected = None if entry is None else entry.answer
            update = Update(key, expected, Success(value), now, stamp, scope, viewer)
            self._order(update, lambda: view.update(key, lambda _: value, scope=scope))
            if entry is not None and owner is not None:
                self.removals.note(owner, key, step)
        elif kind == "touch":
            touch = Touch(key, now, stamp, scope, viewer, ttl_s, lifespan)
            self._order(touch, lambda: view.touch(key, ttl=ttl, scope=scope))
        elif kind == "prefix":
            self._order(InvalidatePrefix(key, named, viewer), lambda: view.invalidate_prefix(key, scope=named))
            for each in visible_owners(named, active, viewer):
                self.removals.note(each, key, step)
        elif kind == "reset circuit":
            self._order(ResetBreaker(ORIGIN.name), lambda: view.reset_circuit(ORIGIN.name))
        else:
            is_soft = kind == "expire tag"
            order = view.expire_tag if is_soft else view.invalidate_tag
            self._order(MarkTag(tag, now, stamp, is_soft, named, viewer), lambda: order(tag, scope=named))
            if not is_soft:
                everyone = named is None and viewer is None
                concerned = None if everyone else visible_owners(named, active, viewer)
                self.tag_removals.append((tag, concerned, step))

    def _order(self, command: Any, act: Callable[[], None]) -> None:
        self.step += 1
        self.model.fold(command)
        self.world.order(act)
        self.after()

    # what must be so after each step

    def compare(self) -> None:
        model, world = self.model, self.world
        expected = {call.number: call.answer for call in self.calls if call.answer is not None}
        assert dict(world.answers) == expected
        left_behind = set() if world.can_cancel else model.left_behind
        assert set(world.parked) == {call.number for call in model.running.values()} | left_behind
        for viewer, key, scope in itertools.product(VIEWERS, KEYS, [None, GLOBAL, SESSION, USER]):
            self._compare_reads(viewer, key, scope)

    def _compare_reads(self, viewer: str | None, key: str, scope: CacheScope | None) -> None:
        now, view = self.clock(), view_of(self.world.cache, viewer)
        peeked = view.peek(key, scope=scope)
        assert peeked == self.model.peek(key, scope, viewer, now)
        assert view.has_cached_failure(key, scope=scope) == self.model.has_failure(key, scope, viewer, now)
        owner, entry = self.model.entry(key, scope, viewer, now)
        state = view.inspect(key, scope=scope)
        assert state.is_present is (entry is not None)
        if entry is not None:
            assert state.value == entry.answer.unwrap()
            is_fresh = verdict(entry, now, self.model.state, owner) in (Freshness.FRESH, Freshness.AGEING)
            assert state.is_fresh is is_fresh
            assert state.created_at.timestamp() == entry.created_at
        owners = visible_owners(scope, self.model.state.active_user, viewer)
        if isinstance(peeked, Success):
            value = peeked.unwrap()
            assert value.owner in owners
            assert value.begun_in >= self.removals.of(value.owner, key)

    @invariant()
    def nobody_is_answered_what_is_foreign_or_too_old(self) -> None:
        for call in self.calls:
            answer = call.answer
            if isinstance(answer, Success):
                value = answer.unwrap()
                assert (value.owner, value.key) == (call.owner, call.key)
                assert value.begun_in >= call.not_before
                tags = self.model.tags_of.get(value, ())
                for tag, owners, step in self.tag_removals:
                    is_concerned = tag in tags and (owners is None or value.owner in owners)
                    begun_in = max(value.begun_in, self.renewed_in.get(value, 0))
                    assert not (is_concerned and begun_in < step <= call.asked_in)

    @invariant()
    def no_answer_is_older_than_its_windows(self) -> None:
        """TT-7. A value that was answered as it came has just been stored, or was not to be."""
        for call in self.calls:
            if isinstance(call.answer, Success):
                assert call.answered_at <= self.model.usable_until.get(call.answer.unwrap(), inf)

    @invariant()
    def at_most_one_fetch_of_a_kind_may_store(self) -> None:
        flights = self.model.state.flights
        for partition in self.model.state.partitions.values():
            for listed in partition.flights.values():
                live = [flights.get(each) for each in listed]
                kinds = [flight.kind for flight in live if flight is not None and not flight.tags]
                assert len(kinds) == len(set(kinds))
                assert FlightKind.LOAD not in kinds

    @invariant()
    def shell_and_model_have_the_same_flights(self) -> None:
        if isinstance(self.world, AsyncWorld):
            assert len(self.world.cache._runtime.state.flights) == len(self.model.state.flights)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()


EVERY_OWNER: Final[list[Owner]] = [
    (GLOBAL, None),
    (SESSION, None),
    *((scope, user) for scope in (SESSION, USER) for user in ("alice", "bob", "carol")),
]


class AsyncShellAgainstModel(ShellAgainstModel):
    world_type = AsyncWorld


class ThreadedShellAgainstModel(ShellAgainstModel):
    world_type = ThreadWorld


QUICK: Final = {"deadline": None, "suppress_health_check": list(HealthCheck)}

TestAsyncShell = AsyncShellAgainstModel.TestCase
TestAsyncShell.settings = settings(max_examples=100, stateful_step_count=30, **QUICK)  # type: ignore[arg-type]
TestThreadedShell = ThreadedShellAgainstModel.TestCase
TestThreadedShell.settings = settings(max_examples=50, stateful_step_count=25, **QUICK)  # type: ignore[arg-type]
