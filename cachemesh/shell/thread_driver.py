"""The driver for threads: the caller who starts a flight runs it; those who join wait on a lock each."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from returns.result import Failure

from cachemesh.core.commands import Abandoned, StoppedWaiting
from cachemesh.errors import FetchRaised, FetchTimeout, ReentrantFetch, StoreFailed
from cachemesh.shell import health
from cachemesh.shell.live import WITHIN, Phase, within
from cachemesh.shell.logging import shown_key
from cachemesh.shell.outcomes import Answer, judged
from cachemesh.shell.store_reads import Read, Reads
from cachemesh.shell.thread_waits import waits_for

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence
    from concurrent.futures import Future

    from cachemesh.shell.live import Boarding, LiveFlight
    from cachemesh.shell.ports import Claim, StoredEntry
    from cachemesh.shell.runtime import Runtime
    from cachemesh.shell.store_call import StoreCall
    from cachemesh.shell.thread_batch import ThreadBatch
    from cachemesh.shell.warm_start import WarmStart

R = TypeVar("R")

FIRST_LOOK_S: Final = 0.05
"""Who has waited for so long looks whether the wait can ever end; then at intervals that double, up to the longest."""
LONGEST_LOOK_S: Final = 5.0

JUMPING_CLOCK_LOOK_S: Final = 0.002
"""How often a waiting thread looks at a clock that is not the system's."""

CLOSE_GRACE_S: Final = 5.0
"""How long `close` waits for what is under way,"""
LONGEST_CLOSE_S: Final = 60.0
"""and for a store that writes what it has not yet."""


class ThreadDomain:
    """The flights of all threads that use a cache. Background work runs in daemon threads."""

    def __init__(self, runtime: Runtime) -> None:
        self.domain_id = next(runtime.domain_ids)
        self._runtime = runtime
        self._closing = threading.Event()
        self._threads: set[threading.Thread] = set()
        self._threads_lock = threading.RLock()
        self._look_lock = threading.Lock()
        self._portal = None if runtime.line is None else Portal()
        self._reads = None if runtime.line is None else Reads(runtime.line, serves=True)
        self._warming: Future[None] | None = None

    def wait(self, boarding: Boarding) -> Answer | None:
        """What the flight brings to one of its callers. None: ask again."""
        live = boarding.live
        live.driver = self
        if not boarding.leads:
            return self.wait_on(boarding)
        if live.is_load:
            self._load(live)
        elif live.may_be_left and self._goes_beside([live], partial(self._fly, live)):
            return self._wait_impatiently(boarding)
        else:
            self._fly(live)
        return self._runtime.told(boarding)

    def wait_on(self, boarding: Boarding) -> Answer | None:
        """`wait`, for a flight that has been set going already."""
        live = boarding.live
        if not (boarding.plan.is_patient or live.is_load):
            return self._wait_impatiently(boarding)
        return self._runtime.told(boarding) if self._wait_for(live) else Failure(ReentrantFetch(live.key))

    def _goes_beside(self, lives: Sequence[LiveFlight], fly: Callable[[], None]) -> bool:
        """Set flights going in a thread of their own, in their caller's context: who leads them may stop waiting.

        False where there is no room for another thread.
        """
        for live in lives:
            live.is_beside = True

        def go() -> None:
            try:
                fly()
            except BaseException:
                if not lives[0].leader_waits:  # Nobody else would hear of it.
                    raise

        try:
            self.spawn(go, copy_context())
        except RuntimeError:
            for live in lives:
                live.is_beside = False
            return False
        return True

    def _wait_impatiently(self, boarding: Boarding) -> Answer | None:
        """`wait`, for as long as the caller's timeouts allow."""
        live, plan, runtime = boarding.live, boarding.plan, self._runtime
        asked_at, is_over = boarding.asked.now, None
        if plan.soft_s is not None and boarding.reads and (plan.hard_s is None or plan.soft_s < plan.hard_s):
            is_over = self._wait_for(live, asked_at + plan.soft_s)
            if is_over is None:
                answer = runtime.waited_long(boarding)
                if answer is not None:
                    self._leave(boarding)
                    return answer
        if is_over is None:
            is_over = self._wait_for(live, None if plan.hard_s is None else asked_at + plan.hard_s)
        if is_over is None:
            answer = runtime.gave_up(boarding)
            self._leave(boarding)
            return answer
        if not is_over:
            return Failure(ReentrantFetch(live.key))
        return runtime.told(boarding)

    def _leave(self, boarding: Boarding) -> None:
        """A caller waits no longer. The flight ends with the last one, as far as the cache is concerned."""
        live = boarding.live
        self._runtime.told_early(boarding, "left")
        with self._runtime.lock:
            live.waiting -= 1
            is_last = live.waiting == 0
            if boarding.leads:
                live.leader_waits = False
        if is_last:
            self._runtime.dispatch(Abandoned(live.flight_id))
        outer = within(self._runtime)
        if outer:
            self._runtime.dispatch(StoppedWaiting(live.flight_id, outer))

    def _wait_for(self, live: LiveFlight, until: float | None = None) -> bool | None:
        """Wait until `live` is over. False where it never would be: its fetch waits for this thread.

        None where it is not over `until` an instant of the cache's clock. One
        that jumps is looked at every few milliseconds. A flight that has its
        answer is over then, also while that is still being written to the store.
        """
        waiter = threading.Lock()
        waiter.acquire()
        with self._runtime.lock:
            if live.is_over:
                return True
            live.waiters.append(waiter)
        patience_s = FIRST_LOOK_S
        while not self._acquired(waiter, live, patience_s, until):
            if until is not None and self._runtime.time.now() >= until:
                self._withdraw(waiter, live)
                return True if live.phase is Phase.ANSWERED else None
            if self._look_lock.acquire(blocking=False):  # One at a time; the others look later.
                try:
                    if live.handle is not None and waits_for(live.handle, threading.current_thread()):
                        return False
                finally:
                    self._look_lock.release()
            patience_s = min(2 * patience_s, LONGEST_LOOK_S)
        return True

    def _withdraw(self, waiter: threading.Lock, live: LiveFlight) -> None:
        """`waiter` waits no longer. Those that are gone leave the list together, so that each costs little."""
        with self._runtime.lock:
            if live.is_over:
                return
            waiter.release()
            if live.is_crowded:
                live.waiters = [each for each in live.waiters if each.locked()]

    def _acquired(self, waiter: threading.Lock, live: LiveFlight, patience_s: float, until: float | None) -> bool:
        """Whether the flight was over within `patience_s`, or before an instant that matters."""
        overdue_at = live.overdue_at if live.phase is Phase.UNDER_WAY else None
        instants = [each for each in (until, overdue_at) if each is not None]
        if not instants:
            return waiter.acquire(timeout=patience_s)
        time = self._runtime.time
        if not time.is_own:
            patience_s = JUMPING_CLOCK_LOOK_S
        if waiter.acquire(timeout=max(0.0, min(patience_s, min(instants) - time.now()))):
            return True
        self._runtime.give_up_overdue(time.now())
        return waiter.acquire(blocking=False)

    def cancel(self, live: LiveFlight) -> None:
        """Let those who wait for a flight go. A thread cannot be stopped: what it still brings is stored nowhere."""
        self.release(live)

    def launch(self, live: LiveFlight) -> None:
        """Set a background flight going."""
        live.driver = self
        self._go_behind([live], partial(self._fly, live))

    def _go_behind(self, lives: Sequence[LiveFlight], fly: Callable[[], None]) -> None:
        """Set background flights going; where there is no room for another thread they end."""
        try:
            self.spawn(fly)
        except RuntimeError as error:
            for live in lives:
                self._runtime.aborted(live)
                self.release(live)
                self._runtime.tell_error(shown_key(live.owner, live.key), error)

    def spawn(self, work: Callable[[], object], context: Context | None = None) -> None:
        """Run `work` in a daemon thread, in `context`; where there is none, it knows nothing of its caller's."""

        def run() -> None:
            try:
                (Context() if context is None else context).run(work)
            finally:
                with self._threads_lock:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name="cachemesh", daemon=True)
        with self._threads_lock:
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # There is no room for another one.
            with self._threads_lock:
                self._threads.discard(thread)
            raise

    def _fly(self, live: LiveFlight) -> None:
        runtime = self._runtime
        live.handle = threading.current_thread()
        token = WITHIN.set(live.inside(self._runtime))
        try:
            if live.claims and self._found([live]):
                return
            while True:
                delay_s = runtime.answered(live, self._attempt(live))
                if delay_s is None:
                    break
                self._sleep(delay_s)
                if not runtime.is_due(live):
                    break
            if live.store_call is not None:
                self._made(live.store_call)
        except BaseException as crash:
            runtime.aborted(live)
            if live.is_beside:
                live.crash = crash  # For the caller who leads: before it is woken.
            raise
        finally:
            WITHIN.reset(token)
            self.release(live)
            if live.claims:
                self.kick()

    def _found(self, lives: Sequence[LiveFlight]) -> list[LiveFlight]:
        """Claim the fetches of `lives`: those that another process has made, whose answers are theirs."""
        runtime, line = self._runtime, self._runtime.line
        assert line is not None
        runtime.listen()
        self.kick()  # What was removed before is not to come after the claim.
        claims = self._claims(
            [
                line.claim(live.owner, live.key, waits=live.waits_for_others, knows_none=live.knows_none)
                for live in lives
            ]
        )
        found = []
        for live, first in zip(lives, claims, strict=True):
            claim = first
            if claim is not None and claim.found is not None:
                if runtime.found_elsewhere(live, claim.found):
                    found.append(live)
                    continue
                (claim,) = self._claims([line.claim(live.owner, live.key, waits=live.knows_none)])
            runtime.claimed(live, claim)
        return found

    def _claims(self, claims: Sequence[Coroutine[Any, Any, Claim | None]]) -> list[Claim | None]:
        """What the store says to `claims`, all made at once."""
        assert self._portal is not None
        claimed = self._portal.call(together(claims))
        return [None] * len(claims) if claimed is None else claimed

    # Several flights at once

    def fly_together(self, batch: ThreadBatch, lives: Sequence[LiveFlight]) -> None:
        """Make the fetches of `lives` as one, in this thread, until all have landed."""
        runtime = self._runtime
        left = dict.fromkeys(lives)
        waiting: dict[LiveFlight, float] = {}
        for live in lives:
            live.driver, live.handle = self, threading.current_thread()
        due = list(lives)
        try:
            claiming = [live for live in lives if live.claims]
            for live in self._found(claiming) if claiming else ():
                self._land(live)
                del left[live]
                due.remove(live)
            while due:
                answers = self._attempt_together(batch, due)
                now = runtime.time.now()
                delays = {live: runtime.answered(live, answers[live.key]) for live in due}
                waiting.update({live: now + delay_s for live, delay_s in delays.items() if delay_s is not None})
                for live in due:
                    if delays[live] is None:
                        self._land(live)
                        del left[live]
                due = self._next_due(waiting)
        except BaseException as crash:
            for live in left:
                runtime.aborted(live)
                if live.is_beside:
                    live.crash = crash
            raise
        finally:
            for live in left:
                self.release(live)
            self.kick()

    def _land(self, live: LiveFlight) -> None:
        """Let those who wait for `live` go on, once its answer is in the store."""
        if live.store_call is not None:
            self._made(live.store_call)
        self.release(live)

    def _next_due(self, waiting: dict[LiveFlight, float]) -> list[LiveFlight]:
        """Wait until the first of those that wait may be tried again: all that may, and still are to be."""
        while waiting:
            due_at = min(waiting.values())
            self._sleep(max(0.0, due_at - self._runtime.time.now()))
            due = [live for live, instant in waiting.items() if instant <= due_at]
            for live in due:
                del waiting[live]
            due = [live for live in due if self._runtime.is_due(live)]
            if due:
                return due
        return []

    def set_going_together(self, batch: ThreadBatch, lives: Sequence[LiveFlight]) -> None:
        """`fly_together`, in a thread of their own where who leads them may stop waiting, and there is room for one."""
        fly = partial(self.fly_together, batch, lives)
        if not (lives[0].may_be_left and self._goes_beside(lives, fly)):
            fly()

    def launch_together(self, batch: ThreadBatch, lives: Sequence[LiveFlight]) -> None:
        """Set background flights going, whose fetches are made as one."""
        self._go_behind(lives, partial(self.fly_together, batch, lives))

    def abandon(self, boardings: Iterable[Boarding]) -> None:
        """A caller goes without having waited: what it should have set going never will be, by it."""
        for boarding in boardings:
            live = boarding.live
            if live.is_over:
                continue
            if boarding.leads and live.handle in {None, threading.current_thread()}:
                self._runtime.aborted(live)
                self.release(live)
            else:
                self._leave(boarding)

    def _attempt_together(self, batch: ThreadBatch, lives: Sequence[LiveFlight]) -> dict[str, Answer]:
        """Ask for several keys once."""
        flights = [live.inside(self._runtime) for live in lives]
        timeout_s = lives[0].plan.attempt_timeout_s
        if timeout_s is None:
            return batch.attempt(flights)
        outcome = in_time(lambda: batch.attempt(flights), timeout_s)
        if outcome is None:
            return {live.key: Failure(FetchTimeout(live.key, timeout_s)) for live in lives}
        if isinstance(outcome[1], Exception):
            return {live.key: Failure(FetchRaised(live.key, outcome[1])) for live in lives}
        if outcome[1] is not None:
            raise outcome[1]
        answers: dict[str, Answer] = outcome[0]
        return answers

    def _attempt(self, live: LiveFlight) -> Answer:
        """Call the fetcher once."""
        timeout_s = live.plan.attempt_timeout_s
        if timeout_s is not None:
            return self._attempt_within(live, timeout_s)
        try:
            got = live.fetch()
        except Exception as error:  # noqa: BLE001 (whatever a fetcher raises is a Failure)
            return Failure(FetchRaised(live.key, error))
        return judged(got, live.key)

    def _attempt_within(self, live: LiveFlight, timeout_s: float) -> Answer:
        """Call the fetcher once, for so long at the most."""
        outcome = in_time(live.fetch, timeout_s)
        if outcome is None:
            return Failure(FetchTimeout(live.key, timeout_s))
        got, error = outcome
        if error is None:
            return judged(got, live.key)
        if isinstance(error, Exception):
            return Failure(FetchRaised(live.key, error))
        raise error

    def _sleep(self, delay_s: float) -> None:
        sleep = self._runtime.time.sleep
        if sleep is time.sleep:
            self._closing.wait(delay_s)
        else:
            sleep(delay_s)

    def load_together(self, lives: Sequence[LiveFlight]) -> None:
        """Read what the store has for `lives`, unless that has been done."""
        waiting = [(live, reading) for live in lives if (reading := self._begin_load(live)) is not None]
        for live, reading in waiting:
            self._loaded(live, reading.wait)

    def _load(self, live: LiveFlight) -> None:
        """`load_together`, of one."""
        reading = self._begin_load(live)
        if reading is not None:
            self._loaded(live, reading.wait)

    def _begin_load(self, live: LiveFlight) -> Answers | None:
        """Have the store read over there: what to wait for. None where it is near enough to be read at once."""
        if live.is_over:
            return None
        live.handle = threading.current_thread()
        runtime = self._runtime
        line = runtime.line
        assert line is not None
        runtime.listen()
        if line.direct is not None and not (live.in_front and any(not call.is_over for call in live.in_front)):
            self._loaded(live, line.read_now, live.owner, live.asked.key)
            self.kick()
            return None
        self.kick()
        reading = Answers()
        assert self._reads is not None
        assert self._portal is not None
        read = Read(live.owner, live.key, live.in_front, reading.tell)
        if not self._portal.post(self._reads.add, read):
            reading.tell(None)
        return reading

    def _loaded(self, live: LiveFlight, read: Callable[..., StoredEntry | None], *place: Any) -> None:  # noqa: ANN401
        try:
            self._runtime.loaded(live, read(*place))
        except BaseException:
            self._runtime.aborted(live)
            raise
        finally:
            self.release(live)

    def _made(self, call: StoreCall) -> None:
        """Wait until the store has been told; not where nobody will, as the cache was closed."""
        self.kick()
        with suppress(TimeoutError):
            call.done.result(timeout=3 * health.TIMEOUT_S)

    def kick(self) -> None:
        """See to it that queued store calls are made."""
        line = self._runtime.line
        if line is not None and self._portal is not None and line.has_work(time.monotonic):
            self._runtime.listen()
            self._portal.start(line.drain())

    def warm_up(self, warm_start: WarmStart) -> None:
        """Fill memory from the store, behind everybody's back."""
        if self._portal is not None:
            self._warming = self._portal.start(warm_start.run())
        if self._warming is None:
            warm_start.give_up()

    def flush(self) -> None:
        """Wait until the store has been told everything so far."""
        line = self._runtime.line
        if line is None or self._portal is None:
            return
        if line.is_busy:
            self._portal.run(line.make_calls())
        if line.wants_care(time.monotonic):
            self._portal.start(line.care())

    def flush_store(self) -> StoreFailed | None:
        """`flush`, and have a shared store write what it has not yet. What went wrong, if anything did."""
        line = self._runtime.line
        return None if line is None or self._portal is None else self._portal.call(line.flush())

    def release(self, live: LiveFlight) -> None:
        """Let those who wait for `live` go on."""
        lock = self._runtime.lock
        lock.acquire()  # As in `Runtime.ask`.
        try:
            live.is_over = True
            waiters, live.waiters = live.waiters, []
            for waiter in waiters:
                if waiter.locked():  # Else whoever waited with it is gone.
                    waiter.release()
        finally:
            lock.release()

    def finish(self, *, patience_s: float = CLOSE_GRACE_S) -> None:
        """Wait, but not for ever, for the threads behind; then stop."""
        self._closing.set()
        deadline = time.monotonic() + patience_s
        with self._threads_lock:
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                self._join(thread, deadline)
        if self._portal is not None:
            if self._warming is not None:
                self._warming.cancel()
            self._finish_calls()
            assert self._runtime.line is not None
            self._portal.run(self._runtime.line.close(), patience_s=LONGEST_CLOSE_S)
            self._portal.stop()

    def _join(self, thread: threading.Thread, deadline: float) -> None:
        """Wait for `thread`, which may be about to begin."""
        while True:
            try:
                thread.join(max(0.0, deadline - time.monotonic()))
            except RuntimeError:  # It has not begun; and never will, if there was no room for it.
                if thread not in self._threads or time.monotonic() >= deadline:
                    return
                time.sleep(0.001)
            else:
                return

    def _finish_calls(self) -> None:
        """Tell the store what it has not been told yet."""
        line = self._runtime.line
        assert line is not None
        assert self._portal is not None
        if line.is_busy or line.doubts:
            self._portal.run(line.drain(), patience_s=LONGEST_CLOSE_S)


def in_time(call: Callable[[], Any], timeout_s: float) -> tuple[Any, BaseException | None] | None:
    """What `call` came to, in a thread that is left behind when it takes too long: a thread cannot be stopped."""
    outcome: list[tuple[Any, BaseException | None]] = []
    context = copy_context()
    ended = threading.Event()

    def run() -> None:
        try:
            outcome.append((context.run(call), None))
        except BaseException as error:  # noqa: BLE001 (carried over to the caller's thread)
            outcome.append((None, error))
        ended.set()

    try:
        threading.Thread(target=run, name="cachemesh-attempt", daemon=True).start()
    except RuntimeError as error:  # There is no room for another one.
        return None, error
    return outcome[0] if ended.wait(timeout_s) else None


class Answers:
    """What a store answers over there, for the thread that waits for it."""

    def __init__(self) -> None:
        self._is_there = threading.Lock()
        self._is_there.acquire()
        self._found: StoredEntry | None = None

    def tell(self, found: StoredEntry | None) -> None:
        self._found = found
        self._is_there.release()

    def wait(self) -> StoredEntry | None:
        """The answer; None as well where nobody will give it any more, as the cache was closed."""
        self._is_there.acquire(timeout=3 * health.TIMEOUT_S)
        return self._found


class Portal:
    """An event loop in a daemon thread: how threads use an async store. It starts when it is first needed.

    The thread ends with `stop`, or with the portal. The child of a fork gets one of its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._is_stopped = False
        self._pid = os.getpid()
        self._finalizer: weakref.finalize[..., Any] | None = None

    def start(self, coroutine: Coroutine[Any, Any, R]) -> Future[R] | None:
        """Run `coroutine` over there. None once the portal has been stopped, and where it cannot be started."""
        with self._own_lock():
            loop = self._running()
            if loop is None:
                coroutine.close()
                return None
            # A timer keeps its context: nothing of the caller's is to be kept alive by it.
            return Context().run(asyncio.run_coroutine_threadsafe, coroutine, loop)

    def post(self, callback: Callable[..., object], *arguments: object) -> bool:
        """Call `callback` over there. False where `start` would answer None."""
        with self._own_lock():
            loop = self._running()
            if loop is None:
                return False
            loop.call_soon_threadsafe(callback, *arguments, context=Context())
            return True

    def _own_lock(self) -> threading.Lock:
        """The lock. In the child of a fork there is nobody in the thread, and whoever held the lock is not there."""
        pid = os.getpid()
        if pid != self._pid:
            self._lock, self._loop, self._thread, self._pid = threading.Lock(), None, None, pid
            if self._finalizer is not None:
                self._finalizer.detach()
        return self._lock

    def _running(self) -> asyncio.AbstractEventLoop | None:
        if self._is_stopped:
            return None
        if self._loop is None:
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=serve, args=(loop,), name="cachemesh-store", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # There is no room for another one.
                loop.close()
                return None
            self._loop, self._thread = loop, thread
            self._finalizer = weakref.finalize(self, wind_up, loop)
            self._finalizer.atexit = False
        return self._loop

    def run(self, coroutine: Coroutine[Any, Any, None], *, patience_s: float | None = None) -> None:
        """Run `coroutine` over there, and wait for it; a store, or a logger told of it, is over there itself."""
        running = self.start(coroutine)
        if running is not None and threading.current_thread() is not self._thread:
            with suppress(TimeoutError):
                running.result(patience_s)

    def call(self, coroutine: Coroutine[Any, Any, R]) -> R | None:
        """What `coroutine` answers over there. None where it cannot be asked, or not be waited for."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            return None
        running = self.start(coroutine)
        return None if running is None else running.result()

    def stop(self) -> None:
        """Cancel what is left, and end the thread. A store that does not let itself be cancelled is left behind."""
        with self._own_lock():
            self._is_stopped = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None or loop.is_closed():
            return
        if self._finalizer is not None:
            self._finalizer.detach()
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result(CLOSE_GRACE_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CLOSE_GRACE_S)


def serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run `loop` until somebody stops it."""
    try:
        loop.run_forever()
    finally:
        loop.close()


def wind_up(loop: asyncio.AbstractEventLoop) -> None:
    """Nobody has the portal any more: end it, once what is under way is over. This may run in any thread."""

    async def end() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            _, left = await asyncio.wait(others, timeout=CLOSE_GRACE_S)
            for task in left:
                task.cancel()
            await asyncio.sleep(0)
        loop.stop()

    ending = end()
    try:
        Context().run(asyncio.run_coroutine_threadsafe, ending, loop)
    except RuntimeError:  # It has been closed.
        ending.close()


async def together(coroutines: Iterable[Coroutine[Any, Any, R]]) -> list[R]:
    """What all of them answer."""
    return await asyncio.gather(*coroutines)


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
