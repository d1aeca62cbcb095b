"""The driver for asyncio: what waits, waits here. One `AsyncDomain` for each event loop that uses a cache."""

from __future__ import annotations

import asyncio
import sys
import weakref
from contextlib import suppress
from contextvars import Context
from functools import partial
from inspect import isawaitable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

from returns.result import Failure, Success

from cachemesh.core import commands
from cachemesh.errors import FetchRaised, FetchTimeout
from cachemesh.shell.async_batch import Batch
from cachemesh.shell.batch import batch_of
from cachemesh.shell.live import WITHIN, Phase, within
from cachemesh.shell.outcomes import Answer, judged
from cachemesh.shell.store_reads import Read, Reads

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from cachemesh.shell.live import Boarding, LiveFlight
    from cachemesh.shell.ports import StoredEntry
    from cachemesh.shell.runtime import Runtime
    from cachemesh.shell.store_call import StoreCall
    from cachemesh.shell.warm_start import WarmStart

CLOSE_GRACE_S: Final = 5.0
"""How long `aclose` waits for what is under way."""

TASK_NAME: Final = "cachemesh"
"""Of every flight: making up a name for each would cost a tenth of a miss in CPython 3.11."""

HAS_EAGER_TASKS: Final = sys.version_info >= (3, 12)


class AsyncDomain:
    """The flights of one event loop. They are shared within it, and gone with it; the data outlives it."""

    def __init__(self, runtime: Runtime, loop: asyncio.AbstractEventLoop) -> None:
        self.domain_id = next(runtime.domain_ids)
        self.loop = weakref.ref(loop)
        self._runtime = runtime
        self._journeys: set[LiveFlight] = set()
        """Keeps the tasks of flights from being collected. A done callback would cost another turn of the loop."""
        self._errands: set[asyncio.Task[None]] = set()
        self._reads = None if runtime.line is None else Reads(runtime.line)
        self._warming: asyncio.Task[None] | None = None

    async def wait(self, boarding: Boarding) -> Answer | None:
        """What the flight brings to one of its callers. None: ask again."""
        live = boarding.live
        if not live.is_over:
            plan = boarding.plan
            if not (plan.soft_s is None and plan.hard_s is None) and not live.is_load:
                return await self._wait_impatiently(boarding)
            waiter = self._running_loop().create_future()
            live.waiters.append(waiter)
            try:
                await waiter
            except BaseException:
                self.leave(boarding)
                raise
        answer = live.answer
        if type(answer) is Success and not live.joiners_ask_again and live.crash is None:
            return answer
        return self._runtime.told(boarding)

    async def _wait_impatiently(self, boarding: Boarding) -> Answer | None:
        """`wait`, for as long as the caller's timeouts allow."""
        plan, runtime = boarding.plan, self._runtime
        try:
            if plan.soft_s is not None and boarding.reads and (plan.hard_s is None or plan.soft_s < plan.hard_s):
                if await self._is_over_within(boarding, plan.soft_s):
                    return self._runtime.told(boarding)
                answer = runtime.waited_long(boarding)
                if answer is not None:
                    self.leave(boarding)
                    return answer
            if await self._is_over_within(boarding, plan.hard_s):
                return self._runtime.told(boarding)
            answer = runtime.gave_up(boarding)
        except BaseException:
            self.leave(boarding)
            raise
        self.leave(boarding)
        return answer

    async def _is_over_within(self, boarding: Boarding, seconds: float | None) -> bool:
        """Whether the flight is over `seconds` after its caller asked; None waits for as long as it takes.

        One that has its answer is, also while that is still being written to the store.
        """
        live, loop = boarding.live, self._running_loop()
        waiter = loop.create_future()
        live.waiters.append(waiter)
        alarm = None
        if seconds is not None:
            left_s = boarding.asked.now + seconds - self._runtime.time.now()
            alarm = loop.call_later(max(0.0, left_s), _wake_up, waiter)
        try:
            await waiter
        finally:
            if alarm is not None:
                alarm.cancel()
        return live.is_over or live.phase is Phase.ANSWERED

    def leave(self, boarding: Boarding) -> None:
        """A caller was cancelled, or waits no longer. The flight goes on for the others, and ends with the last one."""
        live = boarding.live
        self._runtime.told_early(boarding, "left")
        live.waiting -= 1
        if live.is_crowded:
            live.waiters = [waiter for waiter in live.waiters if not waiter.done()]
        if boarding.leads:
            live.leader_waits = False
        if live.waiting == 0:
            self._runtime.dispatch(commands.Abandoned(live.flight_id))
            loop = self.loop()
            if live.phase is Phase.ABORTED and live.handle is not None and loop is not None and not loop.is_closed():
                live.handle.cancel()
                self._journeys.discard(live)
        outer = within(self._runtime)
        if outer:
            self._runtime.dispatch(commands.StoppedWaiting(live.flight_id, outer))

    def launch(self, live: LiveFlight) -> None:
        """Set a flight going, in a task of its own: no caller's cancellation reaches it. Loads share one."""
        live.driver = self
        if live.is_load:
            self._load(live)
            return
        journey = self._fly(live)
        context = Context() if live.is_background else None
        loop = self.loop()
        assert loop is not None
        if loop.get_task_factory() is not None:
            live.handle = loop.create_task(journey, name=TASK_NAME, context=context)
        elif HAS_EAGER_TASKS:
            live.handle = asyncio.Task(journey, loop=loop, name=TASK_NAME, context=context, eager_start=True)  # type: ignore[call-arg]  # 3.12
        else:
            live.handle = asyncio.Task(journey, loop=loop, name=TASK_NAME, context=context)
        if not live.is_over:
            self._journeys.add(live)
            if live.overdue_at is not None:
                left_s = max(0.0, live.overdue_at - self._runtime.time.now())
                live.alarm = loop.call_later(left_s, self._runtime.overdue, live)
            if live.is_stopped:  # Before its task was known: an eager one runs at once.
                self.cancel(live)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run `coroutine` behind everybody's back, and keep it from being collected."""
        task = self._running_loop().create_task(coroutine, context=Context())
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    def warm_up(self, warm_start: WarmStart) -> None:
        """Fill memory from the store, behind everybody's back."""
        self._warming = self._running_loop().create_task(warm_start.run(), name=TASK_NAME, context=Context())

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        """The domain's loop, which is the one that runs: cheaper than asking asyncio."""
        loop = self.loop()
        assert loop is not None
        return loop

    async def _fly(self, live: LiveFlight) -> None:  # noqa: C901, PLR0912 (in one frame: every miss comes through here)
        WITHIN.set(live.inside(self._runtime))
        runtime = self._runtime
        answer: Answer
        try:
            if live.claims and await self._is_found(live):
                return
            while True:
                if live.plan.attempt_timeout_s is None:
                    try:
                        got = live.fetch()
                        if type(got) is CoroutineType or isawaitable(got):
                            got = await got
                    except Exception as error:  # noqa: BLE001 (whatever a fetcher raises is a Failure)
                        answer = Failure(FetchRaised(live.key, error))
                    else:
                        answer = got if type(got) is Success else judged(got, live.key)
                else:
                    answer = await self._attempt_within(live, live.plan.attempt_timeout_s)
                delay_s = runtime.answered(live, answer)
                if delay_s is None:
                    break
                await asyncio.sleep(delay_s)
                if not runtime.is_due(live):
                    break
            if live.store_call is not None:
                await self._made(live.store_call)
        except asyncio.CancelledError:
            runtime.aborted(live)
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
        except BaseException as crash:
            runtime.aborted(live)
            if not live.leader_waits:
                raise
            live.crash = crash
        finally:
            self._wake(live)
            if live.claims and asyncio._get_running_loop() is not None:  # noqa: SLF001 (documented for libraries)
                self.kick()

    async def _is_found(self, live: LiveFlight) -> bool:
        """Claim the fetch of `live`. True: another process has made it, and its answer is this flight's."""
        runtime, batch = self._runtime, batch_of(live.fetch)
        assert batch is None or isinstance(batch, Batch)
        assert runtime.line is not None
        runtime.listen()
        self.kick()  # What was removed before is not to come after the claim.
        if batch is not None:
            batch.hold()
        try:
            claim = await runtime.line.claim(
                live.owner, live.key, waits=live.waits_for_others, knows_none=live.knows_none
            )
            if claim is not None and claim.found is not None:
                if runtime.found_elsewhere(live, claim.found):
                    return True
                claim = await runtime.line.claim(live.owner, live.key, waits=live.knows_none)
        finally:
            if batch is not None:
                batch.release()
        runtime.claimed(live, claim)
        return False

    async def _attempt_within(self, live: LiveFlight, timeout_s: float) -> Answer:
        """Call the fetcher once, for so long at the most."""
        try:
            async with asyncio.timeout(timeout_s) as deadline:
                got = live.fetch()
                if isawaitable(got):
                    got = await got
        except Exception as error:  # noqa: BLE001 (whatever a fetcher raises is a Failure)
            if deadline.expired() and isinstance(error, TimeoutError):
                return Failure(FetchTimeout(live.key, timeout_s))
            return Failure(FetchRaised(live.key, error))
        return judged(got, live.key)

    def _load(self, live: LiveFlight) -> None:
        assert self._reads is not None
        read = Read(live.owner, live.asked.key, live.in_front, partial(self._loaded, live))
        if self._reads.add(read):
            self._runtime.listen()
            self.kick()

    def _loaded(self, live: LiveFlight, found: StoredEntry | None) -> None:
        try:
            self._runtime.loaded(live, found)
        except BaseException:
            self._runtime.aborted(live)
            raise
        finally:
            self._wake(live)

    async def _made(self, call: StoreCall) -> None:
        """The store has been called, or has been given up on."""
        self.kick()
        if not call.done.done():
            await asyncio.wrap_future(call.done)

    def kick(self) -> None:
        """See to it that queued store calls are made."""
        line = self._runtime.line
        if line is not None and line.has_work(self._running_loop().time):
            self._runtime.listen()
            self.spawn(line.drain())

    def _wake(self, live: LiveFlight) -> None:
        self._journeys.discard(live)
        if live.alarm is not None:
            live.alarm.cancel()
        if not live.waiters:
            live.is_over = True
            return
        loop = self.loop()
        if loop is not None and not loop.is_closed():
            self._release(live)

    @staticmethod
    def _release(live: LiveFlight) -> None:
        """Let those who wait for `live` go on."""
        live.is_over = True
        for waiter in live.waiters:
            if not waiter.done():
                waiter.set_result(None)
        live.waiters.clear()

    def cancel(self, live: LiveFlight) -> None:
        """Stop a flight, from whatever thread."""
        loop = self.loop()
        live.is_stopped = True
        if loop is not None and (live.handle is not None or live.is_load):
            with suppress(RuntimeError):  # The loop has been closed, and what ran on it with it.
                loop.call_soon_threadsafe(self._stop, live)

    def _stop(self, live: LiveFlight) -> None:
        if live.handle is not None:
            live.handle.cancel()
        self._release(live)

    async def finish(self) -> None:
        """Wait, but not for ever, until nothing of this loop is under way, and the store has been told everything."""
        if self._warming is not None:
            self._warming.cancel()
            await self._wait_for({self._warming})
        reading = set() if self._reads is None else self._reads.tasks
        await self._wait_for({live.handle for live in self._journeys} | self._errands | reading)
        self.kick()
        await self._wait_for(self._errands)
        if self._runtime.line is not None:
            self.spawn(self._runtime.line.close())
            await self._wait_for(self._errands)

    @staticmethod
    async def _wait_for(tasks: set[asyncio.Task[None]]) -> None:
        others = tasks - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=CLOSE_GRACE_S)


def _wake_up(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
