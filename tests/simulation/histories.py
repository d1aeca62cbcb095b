"""Random histories on a recorded cache of either face, and what its callers got."""

from __future__ import annotations

import asyncio
from threading import Event
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace
from returns.result import Failure, Success

from cachemesh import BreakerOptions, Cache, CachePolicy, CacheScope, Lifetime, RetryOptions, Source, SyncCache
from cachemesh.core.commands import Hydrate
from cachemesh.core.policies import BUILT_IN
from cachemesh.core.scopes import GLOBAL_OWNER
from cachemesh.shell.eviction import Resident
from cachemesh.shell.recording import Kept, scrubbed
from cachemesh.testing.clock import VirtualClock
from cachemesh.testing.loop import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
    nests: bool = False
    """Whether its fetch asks the cache itself."""


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
        Lifetime(ttl=3.0, serve_stale_for=4.0, stale_if_error_for=8.0),
        Lifetime(ttl=4.0, refresh_ahead=0.5, jitter=0.25),
        Lifetime(ttl=1.0, stale_if_error_for=30.0, failure_ttl=2.0),
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
        st.sampled_from((True, False) if is_async else (True,)),
        st.integers(0, 4).map(lambda number: number == 0),
    )


ORDERS: Final[Mapping[str, Callable[[Any, Do, int], object]]] = {
    "advance": lambda cache, step, number: None,  # noqa: ARG005 (the clock's part)
    "cancel": lambda cache, step, number: None,  # noqa: ARG005 (the tasks' part)
    "put": lambda cache, step, number: cache.put(step.key, f"put {number}", ttl=step.seconds, tags=("red",)),
    "update": lambda cache, step, _: cache.update(step.key, lambda value: f"{value}!"),
    "touch": lambda cache, step, _: cache.touch(step.key, step.seconds),
    "invalidate": lambda cache, step, _: cache.invalidate(step.key),
    "prefix": lambda cache, *_: cache.invalidate_prefix("item:"),
    "tag": lambda cache, *_: cache.invalidate_tag("red"),
    "expire_tag": lambda cache, *_: cache.expire_tag("red"),
    "sign_in": lambda cache, _, number: cache.set_active_user(USERS[number % 2]),
    "sign_out": lambda cache, *_: cache.set_active_user(None),
    "end_session": lambda cache, *_: cache.end_session(),
    "clear": lambda cache, *_: cache.clear(),
    "clear_scope": lambda cache, *_: cache.clear_scope(CacheScope.SESSION),
    "reset": lambda cache, *_: cache.reset_circuit("api"),
}

orders = st.builds(Do, st.sampled_from(tuple(ORDERS)), st.sampled_from(KEYS), st.sampled_from((0.1, 1.0, 2.5, 6.0)))


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
        "max_entries": 2,
        "breakers": BreakerOptions(failures=2, open_for=3.0),
    }


def frozen(state: Any, names: Any) -> dict[str, Any]:
    """All of a state, without its answers, as values that can be compared; keys and users as the log has them."""

    def scrub(found: Any) -> Any:
        found = found.as_entry() if isinstance(found, Resident) else found
        if not isinstance(found.answer, Kept):
            found = scrubbed(Hydrate(GLOBAL_OWNER, "", found, 0.0, 0)).found  # type: ignore[union-attr]  # a Hydrate
        terms = getattr(found, "terms", None)
        if terms is None:
            return found
        return replace(found, terms=replace(terms, tags=tuple(names.key(tag) for tag in terms.tags)))

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


class Identity:
    """Names of a log that has been read: they are hashed already."""

    @staticmethod
    def key(text: str) -> str:
        return text

    @staticmethod
    def user(text: str) -> str:
        return text


def do(cache: Any, step: Do, number: int) -> None:
    """An order that needs no waiting."""
    ORDERS[step.what](cache, step, number)


class Ledger:
    """What callers got, in the order in which they asked."""

    def __init__(self) -> None:
        self.got: list[Got | None] = []

    def begin(self) -> int:
        self.got.append(None)
        return len(self.got) - 1

    def whole(self) -> list[Got]:
        assert None not in self.got, "somebody was never answered"
        return [each for each in self.got if each is not None]


def run_async(  # noqa: C901 (its fetcher and its caller are in it)
    steps: list[Ask | Do], recorder: Recorder, store: Any = None
) -> tuple[list[Got], Any]:
    """What the callers of a `Cache` got, in the order in which they asked, and its state."""
    clock = VirtualClock(now=BEGAN_AT)
    ledger = Ledger()

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        cache: Cache = Cache(**settings(clock, recorder), store=store)
        tasks: list[asyncio.Task[None]] = []
        for number, step in enumerate(steps):
            if isinstance(step, Do):
                if step.what == "advance":
                    await asyncio.sleep(step.seconds)
                elif step.what == "cancel" and tasks:
                    tasks[-1].cancel()
                do(cache, step, number)
                await loop.settle()
                continue
            task = asyncio.ensure_future(call(cache, step, number))
            tasks.append(task)
            await loop.settle()
            if step.waits:
                await asyncio.wait({task})
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(20.0)
        state = frozen(cache._runtime.state, recorder._names)
        await cache.aclose()
        return state

    async def call(cache: Cache, step: Ask, number: int) -> None:
        async def fetch() -> Any:
            if step.nests:
                await call(cache, replace(step, key=KEYS[2], nests=False, refreshes=False), number)
            await asyncio.sleep(step.takes_s)
            return Failure(ValueError("no")) if step.fails else Success(f"fetched {number}")

        place = ledger.begin()
        kind = "left"
        asked: Any = cache if step.user is None else cache.for_user(step.user)
        given = dict(step.options)
        try:
            if step.refreshes:
                told = await asked.refresh(step.key, fetch, ttl=step.ttl, **given)
                kind = "fetched" if isinstance(told, Success) else "failed"
            else:
                kind = kind_of(await asked.get_served(step.key, fetch, policy=step.policy, ttl=step.ttl, **given))
        finally:
            ledger.got[place] = Got(step.key, kind)

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        state = runner.run(main())
    return ledger.whole(), state


def settle(cache: SyncCache) -> None:
    """Wait until no fetch is under way behind anybody's back."""
    patience = Event()
    for _ in range(5_000):
        if not cache._runtime.lives:
            return
        patience.wait(0.001)
    msg = "a fetch hangs"
    raise AssertionError(msg)


def run_sync(steps: list[Ask | Do], recorder: Recorder, store: Any = None) -> tuple[list[Got], Any]:
    """The same for a `SyncCache`."""
    clock = VirtualClock(now=BEGAN_AT)
    ledger = Ledger()

    def call(step: Ask, number: int) -> None:
        def fetch() -> Any:
            if step.nests:
                call(replace(step, key=KEYS[2], nests=False, refreshes=False), number)
            clock.advance(step.takes_s)
            return Failure(ValueError("no")) if step.fails else Success(f"fetched {number}")

        place = ledger.begin()
        asked: Any = cache if step.user is None else cache.for_user(step.user)
        given = dict(step.options)
        if step.refreshes:
            told = asked.refresh(step.key, fetch, ttl=step.ttl, **given)
            kind = "fetched" if isinstance(told, Success) else "failed"
        else:
            kind = kind_of(asked.get_served(step.key, fetch, policy=step.policy, ttl=step.ttl, **given))
        ledger.got[place] = Got(step.key, kind)

    with SyncCache(**settings(clock, recorder), store=store) as cache:
        for number, step in enumerate(steps):
            if isinstance(step, Ask):
                call(step, number)
                settle(cache)
                continue
            if step.what == "advance":
                clock.advance(step.seconds)
            do(cache, step, number)
        state = frozen(cache._runtime.state, recorder._names)
    return ledger.whole(), state
