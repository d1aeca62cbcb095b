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
from typing import TYPE_CHECKING, Any, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from returns.result import Failure, Success

from cachemesh import (
    DEFAULT,
    AfterFailure,
    Cache,
    CacheExpired,
    CacheMiss,
    CachePolicy,
    CacheScope,
    FetchCancelled,
    FetchRaised,
    InvalidFetchResult,
    NoActiveUser,
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
    EndSession,
    FetchAborted,
    FetchFailed,
    FetchSucceeded,
    FlightKind,
    Freshness,
    Get,
    Invalidate,
    Join,
    Refresh,
    RefreshSource,
    Refusal,
    Refuse,
    Reply,
    Retry,
    RetryDue,
    SetActiveUser,
    Settle,
    StartFetch,
    State,
    WaitUntil,
    reduce,
)
from cachemesh.core.lifetimes import verdict
from cachemesh.core.scopes import owner_of, visible_owners
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
MATCH_S: Final = 3.0
"""For so long, in real time, threads may take until they stand where the model says."""

CANCELLED: Final = "cancelled"
CRASHED: Final = "crashed"


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
    answer: Any = None


@dataclass(frozen=True)
class Value:
    """What an origin answers: whose it is, and in which step its fetch began."""

    owner: Owner
    key: str
    begun_in: int
    serial: int


class Model:
    """A shell made of values: `reduce` over the immutable state, and lists of who waits."""

    def __init__(self) -> None:
        self.state: State[Any] = State()
        self.ids = itertools.count(1)
        self.waiting: dict[int, list[tuple[Call, bool]]] = {}
        self.running: dict[int, Call] = {}
        self.led_by: dict[int, Call] = {}

    def ask(self, call: Call, now: float) -> None:
        flight_id = next(self.ids)
        retry = Retry(max_attempts=2) if call.options.get("retry") is TWICE else Retry()
        stores = call.options["cache_failures"] is True
        command: Get | Refresh
        if call.method == "get":
            command = Get(
                key=call.key,
                now=now,
                flight_id=flight_id,
                policy=call.options["policy"],
                scope=call.scope,
                viewer=call.viewer,
                ttl_s=call.options["ttl"],
                retry=retry,
                store_failures=stores,
                heed_failures=call.options["cache_failures"] is not False,
                always_revalidate=call.options["always_revalidate"],
            )
        else:
            command = Refresh(
                key=call.key,
                now=now,
                flight_id=flight_id,
                source=RefreshSource(call.method),
                scope=call.scope,
                viewer=call.viewer,
                ttl_s=call.options["ttl"],
                retry=retry,
                store_failures=stores,
            )
        for effect in self.fold(command):
            if isinstance(effect, Reply):
                call.answer = effect.answer
            elif isinstance(effect, Refuse):
                call.answer = Failure(ERRORS[effect.reason](call.key))
            elif isinstance(effect, StartFetch):
                self.running[effect.flight_id] = call
                self.waiting[effect.flight_id] = []
                if effect.source is not RefreshSource.BACKGROUND:
                    self.led_by[effect.flight_id] = call
            elif isinstance(effect, Join):
                self.waiting[effect.flight_id].append((call, effect.falls_back))

    def end_fetch(self, flight_id: int, outcome: Any, now: float) -> None:
        if outcome in (CANCELLED, CRASHED):
            effects = self.fold(FetchAborted(flight_id))
        elif isinstance(outcome, Success):
            effects = self.fold(FetchSucceeded(flight_id, outcome, now))
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
                return
            if isinstance(effect, Settle):
                self._tell(flight_id, effect.answer, effect.fallback)
            elif isinstance(effect, Abort):
                leader = self.led_by.get(flight_id)
                everyone = [call for call, _ in self.waiting[flight_id]]
                self._tell(flight_id, Failure(FetchCancelled(effect.key)), None)
                if outcome == CRASHED and leader in everyone:
                    assert leader is not None
                    leader.answer = CRASHED

    def cancel(self, call: Call) -> None:
        call.answer = CANCELLED
        for flight_id, waiting in self.waiting.items():
            if any(each is call for each, _ in waiting):
                waiting[:] = [(each, falls_back) for each, falls_back in waiting if each is not call]
                if not waiting:
                    for effect in self.fold(Abandoned(flight_id)):
                        assert isinstance(effect, CancelFetch)
                        self._forget(flight_id)
                return

    def fold(self, command: Any) -> tuple[Any, ...]:
        self.state, effects = reduce(self.state, command)
        return effects

    def _tell(self, flight_id: int, answer: Any, fallback: Any) -> None:
        for call, falls_back in self.waiting[flight_id]:
            call.answer = fallback if falls_back and fallback is not None else answer
        self._forget(flight_id)

    def _forget(self, flight_id: int) -> None:
        del self.waiting[flight_id], self.running[flight_id]
        self.led_by.pop(flight_id, None)

    def peek(self, key: str, scope: CacheScope | None, viewer: str | None, now: float) -> Any:
        entry = self.entry(key, scope, viewer)
        if entry is None:
            return Failure(CacheMiss(key))
        return Failure(CacheExpired(key)) if verdict(entry, now) is Freshness.STALE else entry.answer

    def entry(self, key: str, scope: CacheScope | None, viewer: str | None) -> Any:
        for owner in visible_owners(scope, self.state.active_user, viewer):
            partition = self.state.partitions.get(owner)
            entry = None if partition is None else partition.entries.get(key)
            if entry is not None:
                return entry
        return None

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
        self.cache = Cache(clock=clock)
        self.parked: dict[int, asyncio.Future[Any]] = {}
        self.answers: dict[int, Any] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.loop = self.runner.get_loop()
        self.loop.set_exception_handler(lambda *_: None)

    def begin(self, call: Call) -> None:
        async def fetch() -> Any:
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
        self.cache = SyncCache(clock=clock)
        self.gates: dict[int, tuple[threading.Event, list[Any]]] = {}
        self.answers: dict[int, Any] = {}
        self.lock = threading.Lock()

    @property
    def parked(self) -> dict[int, Any]:
        return self.gates

    def begin(self, call: Call) -> None:
        def fetch() -> Any:
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

    def settle(self, model: Model) -> None:
        """Until parked, answered and waiting are what the model says; whether they are is checked afterwards."""
        parked = {call.number for call in model.running.values()}
        waiting = sum(len(each) for each in model.waiting.values())
        deadline = time.monotonic() + MATCH_S
        while time.monotonic() < deadline:
            lives = list(self.cache._runtime.lives.values())
            if (
                set(self.gates) == parked
                and len(lives) == len(parked)
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
        if call.method == "get" or name not in ("policy", "always_revalidate")
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
        self.removals = Removals()

    def after(self) -> None:
        """A step has been taken by both: let it take effect, and compare."""
        if isinstance(self.world, ThreadWorld):
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
        ttl=st.sampled_from([None, 10.0, 10.0, 0.0]),
        cache_failures=st.sampled_from([DEFAULT, True, False]),
        retry=st.sampled_from([DEFAULT, DEFAULT, TWICE]),
        always_revalidate=st.sampled_from([False, False, True]),
    )
    def ask(self, method: str, key: str, viewer: str | None, scope: CacheScope, **options: Any) -> None:
        self._ask(method, key, viewer, scope, options)

    def _ask(self, method: str, key: str, viewer: str | None, scope: CacheScope, options: dict[str, Any]) -> None:
        self.step += 1
        owner = owner_of(scope, self.model.state.active_user, viewer)
        not_before = self.removals.of(owner, key)
        call = Call(len(self.calls), method, key, viewer, scope, options, owner, not_before)
        self.calls.append(call)
        self.begun_in[call.number] = self.step
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
            ["success", "failure", "failure", "raises", "raises TypeError", "returns 5", CANCELLED, CRASHED]
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
        assert starter.owner is not None
        value = Value(starter.owner, starter.key, self.begun_in[starter.number], self.step)
        outcome: Any = {
            "success": Success(value),
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

    @rule(seconds=st.sampled_from([0.0, 1.0, 9.0, 10.0, 29.0, 30.0, 31.0, 60.0]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
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
        assert set(world.parked) == {call.number for call in model.running.values()}
        for viewer, key, scope in itertools.product(VIEWERS, KEYS, [None, GLOBAL, SESSION, USER]):
            self._compare_reads(viewer, key, scope)

    def _compare_reads(self, viewer: str | None, key: str, scope: CacheScope | None) -> None:
        now, view = self.clock(), view_of(self.world.cache, viewer)
        peeked = view.peek(key, scope=scope)
        assert peeked == self.model.peek(key, scope, viewer, now)
        assert view.has_cached_failure(key, scope=scope) == self.model.has_failure(key, scope, viewer, now)
        entry, state = self.model.entry(key, scope, viewer), view.inspect(key, scope=scope)
        assert state.is_present is (entry is not None)
        if entry is not None:
            assert state.value == entry.answer.unwrap()
            assert state.is_fresh is (verdict(entry, now) is Freshness.FRESH)
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

    @invariant()
    def at_most_one_fetch_of_a_kind_may_store(self) -> None:
        flights = self.model.state.flights
        for partition in self.model.state.partitions.values():
            for listed in partition.flights.values():
                kinds = [flights.get(each).kind for each in listed]  # type: ignore[union-attr]
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
