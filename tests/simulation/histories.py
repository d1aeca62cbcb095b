"""Random histories on a recorded cache of either face, and what its callers got."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st
from msgspec import Struct
from returns.result import Failure, Success

from cachemesh import BreakerOptions, Cache, CachePolicy, CacheScope, Lifetime, RetryOptions, Source, SyncCache
from cachemesh.core.policies import BUILT_IN
from cachemesh.core.scopes import GLOBAL_OWNER
from cachemesh.shell.recording import kept, scrubbed
from cachemesh.testing.clock import VirtualClock
from cachemesh.testing.loop import VirtualLoop

if TYPE_CHECKING:
    from cachemesh.simulation import Recorder

KEYS: Final = ("item:1", "item:2", "thing:1")
USERS: Final = ("ada", "bob")
BEGAN_AT: Final = 1_767_225_600.0


class Ask(Struct, frozen=True):
    """A get, with what its fetch will answer and how long that takes."""

    key: str
    policy: CachePolicy = CachePolicy.CACHE_FIRST
    takes_s: float = 1.0
    fails: bool = False
    ttl: Any = 5.0
    options: tuple[tuple[str, Any], ...] = ()
    user: str | None = None
    refreshes: bool = False
    waits: bool = True
    """Whether its end is waited for before the next step."""


class Do(Struct, frozen=True):
    """Something else: the name of a step, and what it is done to."""

    what: str
    key: str = KEYS[0]
    seconds: float = 1.0


lifetimes = st.sampled_from(
    (
        None,
        2.0,
        5.0,
        Lifetime(3.0, serve_stale_for=4.0, stale_if_error_for=8.0),
        Lifetime(4.0, refresh_ahead=0.5, jitter=0.25),
        Lifetime(1.0, stale_if_error_for=30.0, failure_ttl=2.0),
    )
)
options = st.fixed_dictionaries(
    {},
    optional={
        "cache_failures": st.booleans(),
        "retry": st.sampled_from((RetryOptions(max_attempts=2, delay=0.5),)),
        "scope": st.sampled_from(tuple(CacheScope)),
        "tags": st.sampled_from((("red",), ("red", "blue"))),
        "origin": st.just("api"),
    },
)
timeouts = st.fixed_dictionaries(
    {}, optional={"soft_timeout": st.just(0.5), "hard_timeout": st.just(1.5), "max_flight_age": st.just(2.0)}
)


def asks(*, is_async: bool) -> st.SearchStrategy[Ask]:
    given = st.tuples(options, timeouts if is_async else st.just({})).map(
        lambda both: tuple(sorted({**both[0], **both[1]}.items()))
    )
    return st.builds(
        Ask,
        st.sampled_from(KEYS),
        st.sampled_from(BUILT_IN),
        st.sampled_from((0.25, 1.0, 3.0)),
        st.integers(0, 3).map(lambda number: number == 0),
        lifetimes,
        given,
        st.sampled_from((None, None, *USERS)),
        st.integers(0, 5).map(lambda number: number == 0),
        st.booleans() if is_async else st.just(True),
    )


ORDERS: Final = [
    "advance",
    "put",
    "update",
    "touch",
    "invalidate",
    "prefix",
    "tag",
    "expire_tag",
    "sign_in",
    "sign_out",
    "end_session",
    "clear",
    "clear_scope",
    "cancel",
    "reset",
]

orders = st.builds(Do, st.sampled_from(ORDERS), st.sampled_from(KEYS), st.sampled_from((0.1, 1.0, 2.5, 6.0)))


def histories(*, is_async: bool) -> st.SearchStrategy[list[Ask | Do]]:
    return st.lists(st.one_of(asks(is_async=is_async), orders), min_size=1, max_size=25)


class Got(Struct, frozen=True):
    """What a caller got, told by the cache itself (`get_served`); "fetched" or "failed" of a refresh."""

    key: str
    kind: str


def kind_of(told: Any) -> str:
    """What `get_served` says of an answer, in the words of a replay."""
    if isinstance(told, Failure):
        return "failed"
    served = told.unwrap()
    if served.source in {Source.ORIGIN, Source.JOINED}:
        return "fetched"
    if served.source is Source.STAND_IN:
        return "stale"
    freshness = served.why.split("; ")[-1].split(": ")[1].split(" ")[0]
    return "hit" if freshness in {"fresh", "ageing"} else "stale"


def settings(clock: VirtualClock, recorder: Recorder) -> dict[str, Any]:
    return {
        "clock": clock,
        "recorder": recorder,
        "max_entries": 3,
        "breakers": BreakerOptions(failures=2, open_for=3.0),
    }


def frozen(state: Any, names: Any) -> dict[str, Any]:
    """All of a state, without its answers, as values that can be compared; keys and users as the log has them."""

    def scrub(entry: Any) -> Any:
        entry = entry.as_entry() if hasattr(entry, "as_entry") else entry
        return entry if type(entry.answer).__name__ == "Kept" else scrubbed_entry(entry)

    partitions = {
        (owner[0].value, None if owner[1] is None else names.user(owner[1])): (
            {names.key(key): scrub(entry) for key, entry in partition.entries.items()},
            {names.key(key): scrub(failed) for key, failed in partition.failures.items()},
            {names.key(key): listed for key, listed in partition.flights.items()},
        )
        for owner, partition in state.partitions.items()
        if owner != GLOBAL_OWNER or len(partition.entries) + len(partition.failures) + len(partition.flights)
    }
    flights = {
        number: (flight.kind, flight.source, flight.persist, flight.ttl_s, flight.lifespan, flight.attempt,
                 flight.is_detached, flight.domain, flight.waits_on)
        for number, flight in state.flights.items()
    }  # fmt: skip
    marks = {(place[0] and place[0][0], names.key(place[1])): mark for place, mark in state.marks.items()}
    breakers = {names.key(name): breaker for name, breaker in state.breakers.items()}
    user = None if state.active_user is None else names.user(state.active_user)
    return {
        "partitions": partitions,
        "flights": flights,
        "marks": marks,
        "floor": state.marks_floor,
        "breakers": breakers,
        "user": user,
    }


def scrubbed_entry(found: Any) -> Any:
    """An entry or a failure as the log has it."""
    from cachemesh.core.commands import Hydrate  # noqa: PLC0415 (for this alone)

    return scrubbed(Hydrate(GLOBAL_OWNER, "", found, 0.0, 0)).found  # type: ignore[union-attr]  # a Hydrate


class Identity:
    """Names of a log that has been read: they are hashed already."""

    @staticmethod
    def key(text: str) -> str:
        return text

    @staticmethod
    def user(text: str) -> str:
        return text


def untagged(state: dict[str, Any], names: Any) -> dict[str, Any]:
    """The same with hashed tags in the terms of its entries."""
    from msgspec.structs import replace  # noqa: PLC0415 (for this alone)

    def retagged(entry: Any) -> Any:
        if entry.terms is None:
            return entry
        return replace(entry, terms=replace(entry.terms, tags=tuple(names.key(tag) for tag in entry.terms.tags)))

    state["partitions"] = {
        owner: ({key: retagged(entry) for key, entry in parts[0].items()}, *parts[1:])
        for owner, parts in state["partitions"].items()
    }
    return state


def do(cache: Any, step: Do, number: int) -> None:
    """An order that needs no waiting."""
    match step.what:
        case "put":
            cache.put(step.key, f"put {number}", ttl=step.seconds, tags=("red",))
        case "update":
            cache.update(step.key, lambda value: f"{value}!")
        case "touch":
            cache.touch(step.key, step.seconds)
        case "invalidate":
            cache.invalidate(step.key)
        case "prefix":
            cache.invalidate_prefix("item:")
        case "tag":
            cache.invalidate_tag("red")
        case "expire_tag":
            cache.expire_tag("red")
        case "sign_in":
            cache.set_active_user(USERS[number % 2])
        case "sign_out":
            cache.set_active_user(None)
        case "end_session":
            cache.end_session()
        case "clear":
            cache.clear()
        case "clear_scope":
            cache.clear_scope(CacheScope.SESSION)
        case "reset":
            cache.reset_circuit("api")


def run_async(steps: list[Ask | Do], recorder: Recorder) -> tuple[list[Got], Any]:
    """What the callers of a `Cache` got, in the order in which they asked, and its state."""
    clock = VirtualClock(now=BEGAN_AT)

    async def main() -> tuple[list[Got], Any]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        cache: Cache = Cache(**settings(clock, recorder))
        tasks: list[tuple[Ask, asyncio.Task[Any]]] = []
        for number, step in enumerate(steps):
            if isinstance(step, Do):
                if step.what == "advance":
                    await asyncio.sleep(step.seconds)
                elif step.what == "cancel" and tasks:
                    tasks[-1][1].cancel()
                else:
                    do(cache, step, number)
                await loop.settle()
                continue
            task = asyncio.ensure_future(call(cache, step, number))
            tasks.append((step, task))
            await loop.settle()
            if step.waits:
                await asyncio.wait({task})
        await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)
        await asyncio.sleep(20.0)
        got = [Got(step.key, "left" if task.cancelled() else task.result()) for step, task in tasks]
        recorder_state = cache._runtime.state
        shot = untagged(frozen(recorder_state, recorder._names), recorder._names)
        await cache.aclose()
        return got, shot

    async def call(cache: Cache, step: Ask, number: int) -> str:
        async def fetch() -> Any:
            await asyncio.sleep(step.takes_s)
            return Failure(ValueError("no")) if step.fails else Success(f"fetched {number}")

        asked: Any = cache if step.user is None else cache.for_user(step.user)
        given = dict(step.options)
        if step.refreshes:
            told = await asked.refresh(step.key, fetch, ttl=step.ttl, **given)
            return "fetched" if isinstance(told, Success) else "failed"
        return kind_of(await asked.get_served(step.key, fetch, policy=step.policy, ttl=step.ttl, **given))

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        return runner.run(main())


def run_sync(steps: list[Ask | Do], recorder: Recorder) -> tuple[list[Got], Any]:
    """The same for a `SyncCache`."""
    clock = VirtualClock(now=BEGAN_AT)
    got: list[Got] = []
    with SyncCache(**settings(clock, recorder)) as cache:
        for number, step in enumerate(steps):
            if isinstance(step, Do):
                if step.what == "advance":
                    clock.advance(step.seconds)
                elif step.what != "cancel":
                    do(cache, step, number)
                continue
            got.append(Got(step.key, call_sync(cache, step, number, clock)))
            for thread in threading.enumerate():
                if thread.name.startswith("cachemesh") and thread.name != "cachemesh recorder":
                    thread.join(5.0)
        shot = untagged(frozen(cache._runtime.state, recorder._names), recorder._names)
    return got, shot


def call_sync(cache: SyncCache, step: Ask, number: int, clock: VirtualClock) -> str:
    def fetch() -> Any:
        clock.advance(step.takes_s)
        return Failure(ValueError("no")) if step.fails else Success(f"fetched {number}")

    asked: Any = cache if step.user is None else cache.for_user(step.user)
    given = dict(step.options)
    if step.refreshes:
        told = asked.refresh(step.key, fetch, ttl=step.ttl, **given)
        return "fetched" if isinstance(told, Success) else "failed"
    return kind_of(asked.get_served(step.key, fetch, policy=step.policy, ttl=step.ttl, **given))


__all__ = ["Ask", "Do", "Got", "Identity", "frozen", "histories", "kept", "run_async", "run_sync"]
