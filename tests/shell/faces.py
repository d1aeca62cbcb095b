"""One way to run the same case on both faces of the cache.

A `Face` is a cache and its world: a virtual clock, a recording logger, and for
the async face a loop in virtual time. Its methods are those of the cache, run
to their end; `face.begin` has the same ones, started and left under way, so
that a test can do something in the middle of a fetch.

No test sleeps. The threaded face has to wait for threads that others start: it
watches them until they have ended or stand still in a blocking call.
"""

from __future__ import annotations

import asyncio
import linecache
import re
import sys
import threading
import time
from abc import ABC, abstractmethod
from inspect import isawaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

from returns.result import Failure, Result, Success

from cachemesh import Cache, CacheLogger, CacheScope, CacheState, RefreshSource, SyncCache
from cachemesh.testing.loop import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from cachemesh.testing.clock import VirtualClock

Answer: TypeAlias = "Result[Any, Any]"
Outcome: TypeAlias = "Answer | BaseException | Callable[..., Any]"
Event: TypeAlias = tuple[object, ...]
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

PATIENCE_S: Final = 5.0
"""A real thread that takes longer than this hangs."""


class Recorder(CacheLogger):
    """Keeps every event as a tuple: `("write", "k", 60.0)`."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def take(self) -> list[Event]:
        """The events since the last call."""
        taken, self.events = self.events, []
        return taken

    def named(self, *names: str) -> list[Event]:
        """The events of these names only."""
        return [event for event in self.events if event[0] in names]

    def on_hit(self, key: str) -> None:
        self.events.append(("hit", key))

    def on_miss(self, key: str) -> None:
        self.events.append(("miss", key))

    def on_write(self, key: str, ttl: float | None) -> None:
        self.events.append(("write", key, ttl))

    def on_refresh(self, key: str, source: RefreshSource) -> None:
        self.events.append(("refresh", key, str(source)))

    def on_invalidate(self, key: str) -> None:
        self.events.append(("invalidate", key))

    def on_clear(self) -> None:
        self.events.append(("clear",))

    def on_error(self, key: str, error: object) -> None:
        self.events.append(("error", key, error))

    def on_scope_cleared(self, reason: str, keys: Sequence[str]) -> None:
        self.events.append(("scope_cleared", reason, tuple(keys)))

    def on_retry(self, key: str, attempt: int, error: object, delay: float) -> None:
        self.events.append(("retry", key, attempt, error, delay))

    def on_evict(self, key: str) -> None:
        self.events.append(("evict", key))


class Fetch(ABC):
    """A fetcher that answers from a script; the last outcome repeats. It notes the arguments of every call.

    An outcome is an answer, an exception to raise, or a function that is called
    for the answer: with the fetcher's arguments, and awaited where it is `Cache` that fetches.
    """

    def __init__(self, outcomes: tuple[Outcome, ...], takes: float) -> None:
        assert outcomes, "a fetcher needs something to answer"
        self.arguments: list[tuple[Any, ...]] = []
        self._outcomes = outcomes
        self._takes = takes

    @property
    def calls(self) -> int:
        """How often it was called."""
        return len(self.arguments)

    @abstractmethod
    def __call__(self, *arguments: Any) -> Any:
        """Answer what the script says."""

    @abstractmethod
    def release(self) -> None:
        """Let calls that are held go on, and those still to come pass."""

    def _enter(self, arguments: tuple[Any, ...]) -> Outcome:
        self.arguments.append(arguments)
        return self._outcomes[min(len(self.arguments), len(self._outcomes)) - 1]

    @staticmethod
    def _leave(outcome: Outcome, arguments: tuple[Any, ...]) -> Any:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome if isinstance(outcome, Result) else outcome(*arguments)


class AsyncFetch(Fetch):
    """A scripted coroutine function."""

    def __init__(self, outcomes: tuple[Outcome, ...], takes: float, *, held: bool) -> None:
        super().__init__(outcomes, takes)
        self._gate = asyncio.Event() if held else None

    async def __call__(self, *arguments: Any) -> Any:
        outcome = self._enter(arguments)
        if self._gate is not None:
            await self._gate.wait()
        if self._takes:
            await asyncio.sleep(self._takes)
        answer = self._leave(outcome, arguments)
        return await answer if isawaitable(answer) else answer

    def release(self) -> None:
        assert self._gate is not None
        self._gate.set()


class SyncFetch(Fetch):
    """A scripted function."""

    def __init__(self, outcomes: tuple[Outcome, ...], takes: float, clock: VirtualClock, *, held: bool) -> None:
        super().__init__(outcomes, takes)
        self._clock = clock
        self._gate = threading.Event() if held else None

    def __call__(self, *arguments: Any) -> Any:
        outcome = self._enter(arguments)
        if self._gate is not None:
            assert self._gate.wait(PATIENCE_S), "nobody released this fetch"
        if self._takes:
            self._clock.sleep(self._takes)
        return self._leave(outcome, arguments)

    def release(self) -> None:
        assert self._gate is not None
        self._gate.set()


class Keeper(ABC):
    """A token keeper with a list of tokens: it goes to the next one when the origin answers `REJECTED`, once a call."""

    REJECTED: Final = Failure("unauthorized")

    def __init__(self, tokens: tuple[str, ...]) -> None:
        self.calls = 0
        self._tokens = list(tokens)

    @abstractmethod
    def with_valid_token(self, action: Callable[[str], Any], /) -> Any:
        """Run `action` with a token, and once more with the next one where the first is rejected."""

    def _has_another(self, answer: Answer) -> bool:
        if answer != self.REJECTED or len(self._tokens) < 2:
            return False
        self._tokens.pop(0)
        return True


class AsyncKeeper(Keeper):
    async def with_valid_token(self, action: Callable[[str], Any], /) -> Any:
        self.calls += 1
        answer = await action(self._tokens[0])
        return await action(self._tokens[0]) if self._has_another(answer) else answer


class SyncKeeper(Keeper):
    def with_valid_token(self, action: Callable[[str], Any], /) -> Any:
        self.calls += 1
        answer = action(self._tokens[0])
        return action(self._tokens[0]) if self._has_another(answer) else answer


class Pending(ABC):
    """A call under way."""

    @property
    @abstractmethod
    def is_done(self) -> bool:
        """Whether it has ended."""

    @abstractmethod
    def result(self) -> Answer:
        """Its answer, waited for. Raises what the call raised."""


class Heard:
    """What a watch has brought so far."""

    def __init__(self) -> None:
        self.results: list[Answer] = []
        self.has_ended = False
        self.cancel: Callable[[], None] = lambda: None

    def take(self) -> list[Answer]:
        """The results since the last call."""
        taken, self.results = self.results, []
        return taken


class Calls(ABC, Generic[R_co]):
    """The methods that may wait."""

    def get(self, key: str, fetch: Any, **options: Any) -> R_co:
        return self.call("get", key, fetch, **options)

    def refresh(self, key: str, fetch: Any, **options: Any) -> R_co:
        return self.call("refresh", key, fetch, **options)

    def prefetch(self, key: str, fetch: Any, **options: Any) -> R_co:
        return self.call("prefetch", key, fetch, **options)

    def get_authenticated(self, key: str, fetch: Any, **options: Any) -> R_co:
        return self.call("get_authenticated", key, fetch, **options)

    @abstractmethod
    def call(self, method: str, /, *arguments: Any, **options: Any) -> R_co:
        """Call `method` of the cache."""


class Face(Calls[Answer]):
    """A cache, and the world in which it lives."""

    name: str
    begin: Calls[Pending]

    def __init__(self, cache: Any, clock: VirtualClock, log: Recorder) -> None:
        self.cache = cache
        self.clock = clock
        self.log = log

    # -- the cache's methods that never wait

    def peek(self, key: str, **options: Any) -> Answer:
        answer: Answer = self.at_once("peek", key, **options)
        return answer

    def inspect(self, key: str, **options: Any) -> CacheState[Any]:
        state: CacheState[Any] = self.at_once("inspect", key, **options)
        return state

    def has_cached_failure(self, key: str, **options: Any) -> bool:
        has: bool = self.at_once("has_cached_failure", key, **options)
        return has

    def scope_of(self, key: str) -> CacheScope:
        scope: CacheScope = self.at_once("scope_of", key)
        return scope

    def invalidate(self, key: str, **options: Any) -> None:
        self.at_once("invalidate", key, **options)

    def clear(self) -> None:
        self.at_once("clear")

    @property
    def active_user_id(self) -> str | None:
        user_id: str | None = self.cache.active_user_id
        return user_id

    def set_active_user(self, user_id: str | None) -> None:
        self.at_once("set_active_user", user_id)

    def end_session(self) -> None:
        self.at_once("end_session")

    def clear_scope(self, scope: CacheScope) -> None:
        self.at_once("clear_scope", scope)

    def at_once(self, method: str, /, *arguments: Any, **options: Any) -> Any:
        """Call a `method` that never waits."""
        return self.inside(lambda: getattr(self.cache, method)(*arguments, **options))

    @abstractmethod
    def inside(self, act: Callable[[], T]) -> T:
        """Do something where the cache is at home: in its loop, if it has one."""

    # -- the world

    def fill(self, key: str, value: object, **options: Any) -> None:
        """Put `value` under `key`, without a trace in the log."""
        assert self.refresh(key, self.fetcher(Success(value)), **options) == Success(value)
        self.settle()
        self.log.take()

    @abstractmethod
    def new(self, **options: Any) -> Face:
        """Another cache in the same world, with a recorder of its own unless `logger` is given."""

    @abstractmethod
    def for_user(self, user_id: str) -> Face:
        """The view of `user_id` on this cache."""

    @abstractmethod
    def fetcher(self, *outcomes: Outcome, takes: float = 0.0, held: bool = False) -> Fetch:
        """A scripted fetcher of this face's kind.

        Each call `takes` so many virtual seconds, and when `held`, waits for `release()` first.
        """

    def nested(self, call: Callable[[Any], Any], *, after_a_pause: bool = False) -> Fetch:
        """A fetcher that answers what `call(cache)` answers."""
        return self.fetcher(lambda: call(self.cache), takes=1.0 if after_a_pause else 0.0)

    @abstractmethod
    def keeper(self, *tokens: str) -> Keeper:
        """A token keeper of this face's kind."""

    @abstractmethod
    def concurrently(
        self, count: int, call: Callable[[Calls[Pending]], Pending], then: Callable[[], None]
    ) -> list[Answer]:
        """The answers to `count` calls that are all under way when `then` is called."""

    @abstractmethod
    def settle(self) -> None:
        """Let what goes on in the background end, or come to a wait. No time passes."""

    def listen(self, key: str, **options: Any) -> Heard:
        """Watch `key` with a callback."""
        heard = Heard()
        subscription = self.inside(lambda: self.cache.watch(key, **options).subscribe(heard.results.append))
        heard.cancel = lambda: self.inside(subscription.cancel)
        return heard

    @abstractmethod
    def follow(self, key: str, **options: Any) -> Heard:
        """Watch `key` by iterating, in the background, until the watch ends."""

    @abstractmethod
    def close(self) -> None:
        """Close the cache."""


# ---------------------------------------------------------------- async


class AsyncFace(Face):
    name = "async"

    def __init__(self, cache: Any, clock: VirtualClock, log: Recorder, runner: asyncio.Runner) -> None:
        super().__init__(cache, clock, log)
        self.runner = runner
        self.begin = _AsyncBegin(self)

    def call(self, method: str, /, *arguments: Any, **options: Any) -> Answer:
        answer: Answer = self.runner.run(self.coroutine(method, *arguments, **options))
        return answer

    def inside(self, act: Callable[[], T]) -> T:
        async def acting() -> T:
            return act()

        return self.runner.run(acting())

    async def coroutine(self, method: str, /, *arguments: Any, **options: Any) -> Any:
        return await getattr(self.cache, method)(*arguments, **options)

    def new(self, **options: Any) -> AsyncFace:
        log = Recorder()
        cache = Cache(**{"clock": self.clock, "logger": log, **options})
        return AsyncFace(cache, self.clock, log, self.runner)

    def for_user(self, user_id: str) -> AsyncFace:
        return AsyncFace(self.cache.for_user(user_id), self.clock, self.log, self.runner)

    def fetcher(self, *outcomes: Outcome, takes: float = 0.0, held: bool = False) -> AsyncFetch:
        return AsyncFetch(outcomes, takes, held=held)

    def keeper(self, *tokens: str) -> AsyncKeeper:
        return AsyncKeeper(tokens)

    def concurrently(
        self, count: int, call: Callable[[Calls[Pending]], Pending], then: Callable[[], None]
    ) -> list[Answer]:
        begin = _AsyncBegin(self, settle=False)
        pending = [call(begin) for _ in range(count)]
        self.settle()
        then()
        return [each.result() for each in pending]

    def settle(self) -> None:
        loop = self.runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        self.runner.run(loop.settle())

    def follow(self, key: str, **options: Any) -> Heard:
        heard = Heard()

        async def follow() -> None:
            async with self.cache.watch(key, **options) as updates:
                async for result in updates:
                    heard.results.append(result)
            heard.has_ended = True

        task = self.runner.get_loop().create_task(follow())
        heard.cancel = task.cancel  # type: ignore[assignment]  # It returns a bool that nobody needs.
        self.settle()
        return heard

    def close(self) -> None:
        self.runner.run(self.coroutine("aclose"))


class _AsyncBegin(Calls[Pending]):
    def __init__(self, face: AsyncFace, *, settle: bool = True) -> None:
        self._face = face
        self._settle = settle

    def call(self, method: str, /, *arguments: Any, **options: Any) -> AsyncPending:
        coroutine = self._face.coroutine(method, *arguments, **options)
        pending = AsyncPending(self._face.runner.get_loop().create_task(coroutine), self._face)
        if self._settle:
            self._face.settle()
        return pending


class AsyncPending(Pending):
    """A call in a task. Threads cannot be cancelled, so only this one can."""

    def __init__(self, task: asyncio.Task[Answer], face: AsyncFace) -> None:
        self.task = task
        self._face = face

    @property
    def is_done(self) -> bool:
        return self.task.done()

    def result(self) -> Answer:
        async def wait() -> Answer:
            return await self.task

        return self._face.runner.run(wait())


# -------------------------------------------------------------- threads


class SyncFace(Face):
    name = "sync"

    def __init__(self, cache: Any, clock: VirtualClock, log: Recorder) -> None:
        super().__init__(cache, clock, log)
        self.begin = _SyncBegin(self)

    # Each call has a thread of its own, so that one that hangs fails its test instead of hanging it.

    def call(self, method: str, /, *arguments: Any, **options: Any) -> Answer:
        answer: Answer = self.at_once(method, *arguments, **options)
        return answer

    def inside(self, act: Callable[[], T]) -> T:
        return _InThread(act).result()

    def new(self, **options: Any) -> SyncFace:
        log = Recorder()
        cache = SyncCache(**{"clock": self.clock, "logger": log, **options})
        return SyncFace(cache, self.clock, log)

    def for_user(self, user_id: str) -> SyncFace:
        return SyncFace(self.cache.for_user(user_id), self.clock, self.log)

    def fetcher(self, *outcomes: Outcome, takes: float = 0.0, held: bool = False) -> SyncFetch:
        return SyncFetch(outcomes, takes, self.clock, held=held)

    def keeper(self, *tokens: str) -> SyncKeeper:
        return SyncKeeper(tokens)

    def concurrently(
        self, count: int, call: Callable[[Calls[Pending]], Pending], then: Callable[[], None]
    ) -> list[Answer]:
        begin = _SyncBegin(self, barrier=threading.Barrier(count))
        pending = [call(begin) for _ in range(count)]
        self.settle()
        then()
        return [each.result() for each in pending]

    def settle(self) -> None:
        wait_until_quiet()

    def follow(self, key: str, **options: Any) -> Heard:
        heard = Heard()

        def follow() -> None:
            with self.cache.watch(key, **options) as updates:
                for result in updates:
                    heard.results.append(result)
            heard.has_ended = True

        threading.Thread(target=follow, daemon=True, name="follow").start()
        self.settle()
        return heard

    def close(self) -> None:
        self.at_once("close")


class _SyncBegin(Calls[Pending]):
    def __init__(self, face: SyncFace, barrier: threading.Barrier | None = None) -> None:
        self._face = face
        self._barrier = barrier

    def call(self, method: str, /, *arguments: Any, **options: Any) -> Pending:
        def act() -> Answer:
            if self._barrier is not None:
                self._barrier.wait(PATIENCE_S)
            answer: Answer = getattr(self._face.cache, method)(*arguments, **options)
            return answer

        pending = SyncPending(act)
        if self._barrier is None:
            self._face.settle()
        return pending


class _InThread(Generic[T]):
    """Something that is being done in a daemon thread."""

    def __init__(self, act: Callable[[], T]) -> None:
        self._act = act
        self._outcome: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="test")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome.append(self._act())
        except BaseException as error:  # noqa: BLE001 (raised again in the thread of the test)
            self._error = error
        del self._act

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> T:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), f"hangs at {_place(self._thread)}"
        if self._error is not None:
            raise self._error
        return self._outcome[0]


class SyncPending(_InThread[Answer], Pending):
    """A call in a thread."""


# A thread counts as waiting when it stands in a blocking call, and so often in a row has not moved.
LOOKS: Final = 3
BLOCKING: Final = re.compile(r"\b(acquire|wait|get|join|result|select|poll|recv)\(|\bwith \S*lock")
TASKS: Final = Path("/proc/self/task")
BETWEEN_LOOKS_S: Final = 0.001 if TASKS.is_dir() else 0.02


def wait_until_quiet() -> None:
    """Wait until every other thread has ended or waits for something."""
    deadline = time.monotonic() + PATIENCE_S
    last: list[object] = []
    quiet_looks = 0
    while quiet_looks < LOOKS:
        others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
        if not others:
            return
        assert time.monotonic() < deadline, f"neither ends nor waits: {[_place(thread) for thread in others]}"
        stands = [_where_it_waits(thread) for thread in others]
        quiet_looks = quiet_looks + 1 if None not in stands and stands == last else 0
        last = stands
        time.sleep(BETWEEN_LOOKS_S)


def _where_it_waits(thread: threading.Thread) -> object | None:
    """The place of a thread that is in a blocking call; None of one that is on its way.

    Not its very frame: who waits impatiently calls the same again every few milliseconds.
    """
    frame = _frame(thread)
    if frame is None or _has_work(thread):
        return None
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return (thread, frame.f_code, frame.f_lasti) if BLOCKING.search(line) else None


def _has_work(thread: threading.Thread) -> bool:
    """Whether the kernel would run the thread if it had a processor left. On a busy machine that can take its time."""
    try:
        stat = (TASKS / str(thread.native_id) / "stat").read_text()
    except OSError:  # It has just ended, or this is no Linux, where we look less often instead.
        return False
    return stat.rpartition(")")[2].split()[0] == "R"


def _place(thread: threading.Thread) -> str:
    frame = _frame(thread)
    return f"{thread.name} at {frame.f_code.co_filename}:{frame.f_lineno}" if frame else f"{thread.name}, ended"


def _frame(thread: threading.Thread) -> FrameType | None:
    return sys._current_frames().get(thread.ident or 0)
