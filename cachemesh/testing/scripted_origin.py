"""An origin that answers what a test has written down, and notes what it was asked."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from threading import Condition
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeAlias

from msgspec import Struct
from returns.result import Failure, Result, Success
from typing_extensions import TypeVar

from cachemesh.testing.clock import VirtualClock
from cachemesh.testing.gate import PATIENCE_S, Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T", default=Any)
E = TypeVar("E", default=Any)
T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)

Outcome: TypeAlias = "Result[T, E] | BaseException | Callable[[Asked], Result[T, E]]"
"""An answer, an exception to raise, or a function that says the answer."""

Takes: TypeAlias = "float | Callable[[Asked], float]"


class Asked(Struct, frozen=True):
    """One request: number `number` (from 1 on) for `key`, begun at the instant `at`.

    `arguments`: what the fetcher was called with, such as a token or a
    `Previous`. They are not in the repr.
    """

    key: str
    number: int
    at: float
    arguments: tuple[Any, ...] = ()

    def __repr__(self) -> str:
        return f"Asked({self.key!r}, number={self.number}, at={self.at})"


class Answered(Struct, frozen=True):
    """How a request ended: with `answer`, at the instant `at`; None where it raised or was cancelled."""

    asked: Asked
    answer: Result[Any, Any] | None
    at: float


class Seen(Struct, frozen=True):
    """What a caller was given, and when."""

    answer: Result[Any, Any]
    at: float


class ScriptedFetcher(Protocol[T_co, E_co]):
    """A fetcher for `Cache`: of its own, with a token, with a `Previous`, or with both."""

    async def __call__(self, *arguments: object) -> Result[T_co, E_co]:
        """What the origin answers."""


class SyncScriptedFetcher(Protocol[T_co, E_co]):
    """The same for `SyncCache`."""

    def __call__(self, *arguments: object) -> Result[T_co, E_co]:
        """What the origin answers."""


class OriginDown(Struct, frozen=True):
    """The error of a `ScriptedOrigin` that is down."""


DOWN: Final = Failure(OriginDown())


class ScriptedOrigin(Generic[T, E]):
    """Answers from a script, one outcome a request of a key; the last one repeats.

    An outcome is a `Result`, an exception to raise, or a function of what was
    `Asked`. Without any, request 2 for "feed" succeeds with "feed #2". `takes`:
    virtual seconds that an answer takes, or a function of what was asked. In
    an event loop those are seconds of the loop (virtual in
    `cachemesh.testing.run`); in a thread, of `clock`, which is moved.

    >>> from returns.result import Failure, Success
    >>> from cachemesh import SyncCache
    >>> origin = ScriptedOrigin(Failure("busy"), Success("news"))
    >>> with SyncCache() as cache:
    ...     fetch = origin.sync_fetcher("feed")
    ...     [cache.get("feed", fetch) for _ in range(3)]
    [<Failure: busy>, <Success: news>, <Success: news>]
    >>> origin.times("feed")
    2

    The same origin for `Cache`, held for as long as the test wants it to be:

    >>> import asyncio
    >>> from cachemesh import Cache
    >>> from cachemesh.testing import run
    >>> async def two_at_once() -> None:
    ...     origin = ScriptedOrigin()
    ...     origin.hold()
    ...     async with Cache() as cache:
    ...         calls = [asyncio.create_task(cache.get("feed", origin.fetcher("feed"))) for _ in range(2)]
    ...         await origin.reached(1)
    ...         print(origin.under_way())
    ...         origin.release()
    ...         print(await asyncio.gather(*calls))
    >>> run(two_at_once())
    1
    [<Success: feed #1>, <Success: feed #1>]
    """

    def __init__(
        self, *script: Outcome[T, E], clock: Callable[[], float] | None = None, takes: Takes = 0.0, held: bool = False
    ) -> None:
        self._own_clock = VirtualClock()
        self.clock: Callable[[], float] = self._own_clock if clock is None else clock
        self.takes = takes
        self._script: Sequence[Outcome[T, E]] = checked(script)
        self._scripts: dict[str, Sequence[Outcome[T, E]]] = {}
        self._said: dict[str, int] = {}
        self._down: Outcome[T, E] | None = None
        self._gate = Gate()
        self._gates: dict[str, Gate] = {}
        self._asked: list[Asked] = []
        self._times: dict[str, int] = {}
        self._answered: list[Answered] = []
        self._seen: list[Seen] = []
        self._at_once: dict[str, int] = {}
        self._most: dict[str, int] = {}
        self._changed = Condition()
        self._waiting: list[Gate] = []
        if held:
            self.hold()

    # What it answers

    def fetcher(self, key: str = "") -> ScriptedFetcher[T, E]:
        """A fetcher of `key` for `Cache`. It takes a token or a `Previous` where it is given one."""

        async def fetch(*arguments: object) -> Result[T, E]:
            asked, outcome = self._enter(key, arguments)
            answer: Result[T, E] | None = None
            try:
                for gate in self._gates_of(key):
                    await gate.passed()
                takes_s = self._takes_s(asked)
                if takes_s:
                    await asyncio.sleep(takes_s)
                answer = _answer(outcome, asked)
                return answer
            finally:
                self._leave(asked, answer)

        return fetch

    def sync_fetcher(self, key: str = "") -> SyncScriptedFetcher[T, E]:
        """The same for `SyncCache`. Held for too long in real time, it raises `TimeoutError`."""

        def fetch(*arguments: object) -> Result[T, E]:
            asked, outcome = self._enter(key, arguments)
            answer: Result[T, E] | None = None
            try:
                for gate in self._gates_of(key):
                    gate.wait()
                takes_s = self._takes_s(asked)
                if takes_s:
                    getattr(self.clock, "sleep", time.sleep)(takes_s)
                answer = _answer(outcome, asked)
                return answer
            finally:
                self._leave(asked, answer)

        return fetch

    def answers(self, *script: Outcome[T, E], key: str | None = None) -> None:
        """Go by another script from now on, for one `key` or (None) for all that have none of their own.

        >>> origin = ScriptedOrigin()
        >>> origin.answers(Success("mine"), key="me")
        >>> origin.sync_fetcher("me")(), origin.sync_fetcher("feed")()
        (<Success: mine>, <Success: feed #1>)
        """
        checked(script)
        with self._changed:
            if key is None:
                self._script = script
                self._said = {each: said for each, said in self._said.items() if each in self._scripts}
            else:
                self._scripts[key] = script
                self._said[key] = 0

    # In what condition it is

    def hold(self, key: str | None = None) -> None:
        """Keep requests of `key`, or (None) all, until `release`; those that come from now on."""
        self._gate_of(key).shut()

    def release(self, key: str | None = None) -> None:
        """Let the requests that are held go on, and those to come pass. From any thread."""
        self._gate_of(key).open()

    def go_down(self, answer: Outcome[T, E] | None = None) -> None:
        """Answer all that comes from now on with `answer`; by default `Failure(OriginDown())`."""
        down: Any = DOWN if answer is None else answer
        checked((down,))
        self._down = down

    def come_back(self) -> None:
        """Go by the script again, where it was left."""
        self._down = None

    @contextmanager
    def down(self, answer: Outcome[T, E] | None = None) -> Iterator[None]:
        """Be down for the length of a block.

        >>> origin = ScriptedOrigin()
        >>> with origin.down():
        ...     origin.sync_fetcher("feed")()
        <Failure: OriginDown()>
        >>> origin.sync_fetcher("feed")()
        <Success: feed #2>
        """
        self.go_down(answer)
        try:
            yield
        finally:
            self.come_back()

    # What it has seen

    @property
    def asked(self) -> tuple[Asked, ...]:
        """All requests, in the order in which they came."""
        return tuple(self._asked)

    @property
    def answered(self) -> tuple[Answered, ...]:
        """How those that are over ended, in that order."""
        return tuple(self._answered)

    def times(self, key: str | None = None) -> int:
        """How often it was asked for `key`; None is for anything."""
        return len(self._asked) if key is None else self._times.get(key, 0)

    def under_way(self, key: str | None = None) -> int:
        """How many requests have come and are not over."""
        return self.times(key) - sum(key is None or each.asked.key == key for each in self.answered)

    def most_at_once(self, key: str) -> int:
        """The most requests for `key` that were ever under way at one time."""
        return self._most.get(key, 0)

    async def reached(self, times: int, key: str | None = None) -> None:
        """Wait until it has been asked so often."""
        while True:
            with self._changed:
                if self.times(key) >= times:
                    return
                gate = Gate()
                gate.shut()
                self._waiting.append(gate)
            await gate.passed()

    def wait_until_reached(self, times: int, key: str | None = None, patience_s: float = PATIENCE_S) -> None:
        """The same for a thread. Raises `TimeoutError` after `patience_s` real seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.times(key) >= times, patience_s):
                msg = f"asked {self.times(key)} times, not {times}, after {patience_s} s"
                raise TimeoutError(msg)

    def seen(self, answer: Result[Any, Any]) -> Result[Any, Any]:
        """Note that a caller is given `answer` now, and hand it on; for `assert_never_stale_beyond`."""
        self._seen.append(Seen(answer, self.clock()))
        return answer

    @property
    def knows_time(self) -> bool:
        """Whether it has been given a clock, or its own one has been moved."""
        return self.clock is not self._own_clock or self._own_clock() > 0.0

    @property
    def seen_so_far(self) -> tuple[Seen, ...]:
        """What `seen` has noted."""
        return tuple(self._seen)

    def __repr__(self) -> str:
        state = "down" if self._down is not None else "up"
        return f"ScriptedOrigin({state}, asked {self.times()} times, {self.under_way()} under way)"

    def _enter(self, key: str, arguments: tuple[Any, ...]) -> tuple[Asked, Outcome[T, E]]:
        now = self.clock()
        with self._changed:
            number = self._times[key] = self.times(key) + 1
            asked = Asked(key, number, now, arguments)
            self._asked.append(asked)
            self._at_once[key] = self._at_once.get(key, 0) + 1
            self._most[key] = max(self._most.get(key, 0), self._at_once[key])
            outcome = self._next_outcome(key)
            waiting, self._waiting = self._waiting, []
            self._changed.notify_all()
        for gate in waiting:
            gate.open()
        return asked, outcome

    def _next_outcome(self, key: str) -> Outcome[T, E]:
        if self._down is not None:
            return self._down
        script = self._scripts.get(key, self._script)
        said = self._said.get(key, 0)
        self._said[key] = said + 1
        default: Any = _numbered
        return script[min(said, len(script) - 1)] if script else default

    def _leave(self, asked: Asked, answer: Result[T, E] | None) -> None:
        now = self.clock()
        with self._changed:
            self._at_once[asked.key] -= 1
            self._answered.append(Answered(asked, answer, now))
            self._changed.notify_all()

    def _takes_s(self, asked: Asked) -> float:
        return self.takes(asked) if callable(self.takes) else self.takes

    def _gates_of(self, key: str) -> tuple[Gate, ...]:
        own = self._gates.get(key)
        return (self._gate,) if own is None else (self._gate, own)

    def _gate_of(self, key: str | None) -> Gate:
        return self._gate if key is None else self._gates.setdefault(key, Gate())


def checked(script: Sequence[Outcome[T, E]]) -> Sequence[Outcome[T, E]]:
    """`script`, if it is one. TypeError."""
    for outcome in script:
        if isinstance(outcome, type) or not (isinstance(outcome, Result | BaseException) or callable(outcome)):
            msg = f"an outcome is a Result, an exception or a function of what was asked, not {outcome!r}"
            raise TypeError(msg)
    return script


def _numbered(asked: Asked) -> Result[str, Any]:
    return Success(f"{asked.key} #{asked.number}")


def _answer(outcome: Outcome[T, E], asked: Asked) -> Result[T, E]:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome if isinstance(outcome, Result) else outcome(asked)
