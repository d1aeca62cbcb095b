"""The line in front of the store: changes go in the order in which their cause was committed.

Calls that do not concern each other run at the same time. Two on one key, or
one that clears what another is about, never overtake each other, and a read
waits for the changes in front of it: a load asked for after an invalidation
cannot see what was invalidated. A change may overtake a read, as what makes it
strikes off the load. A call that hangs holds up nothing but those that concern
the same.

Each event loop makes the calls that were asked for within it; one that ends, or
is never run again, takes its own calls with it and nobody else's. A
`DirectStore` takes changes into a queue of its own: nobody makes a call.

A store that hangs, or fails three times running, is left alone (`health`). What
it missed is remembered, not its content but that its copy is not to be
believed (`doubts`), and made up for when the store is back. Nobody waits for that.

Not neat yet: a store that acts on a call after the call was cancelled, behind
our back (in a thread, on a server), can bring back what was removed. And the
doubts are in memory: a process that ends while its store is down leaves there
what should have gone.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

from msgspec.structs import replace

from cachemesh.core.scopes import GLOBAL_OWNER, CacheScope
from cachemesh.errors import CacheError, StoreFailed, UndecodableEntry
from cachemesh.shell import health
from cachemesh.shell.doubts import MOST_DOUBTS, Doubts
from cachemesh.shell.health import Health
from cachemesh.shell.ports import Change, Claim, DirectStore, Encoded, SharedStore
from cachemesh.shell.store_call import Place, StoreCall, as_exception, damage_of, removal, shown_place

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop as Loop
    from collections.abc import Awaitable, Callable, Iterable

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.ports import Store, StoredEntry

T = TypeVar("T")

MADE_UP_AT_ONCE: Final = 100
"""So many doubts are made up for at the same time."""

OWN_SESSION: Final[Owner] = (CacheScope.SESSION, None)
"""The session of the cache itself is this program's own: in a shared store it would be that of whoever comes next."""

NOBODY: Final = object()

AWAITED: Final = frozenset({"write"})
"""A caller waits for these."""

SHARED: Final = frozenset({"touch", "commit", "release", "mark_tag"})
"""Only a shared store is asked for these."""

LONGEST_CLAIM_S: Final = 60.0
"""For so long the fetch of another process is waited for; a store's lease is shorter."""


def nobody_minds(owner: Owner, key: str) -> None:
    """What is done about an entry that was overtaken, where nobody keeps it in memory."""


class Job(Protocol):
    """Something that the store is asked for."""

    is_given_up: bool

    @property
    def operation(self) -> str: ...

    @property
    def place(self) -> Place: ...

    @property
    def is_over(self) -> bool: ...


class Probe:
    """A read that tells nothing but whether the store answers."""

    operation = "read"

    def __init__(self, place: tuple[Owner, str]) -> None:
        self.place = place
        self.is_over = False
        self.is_given_up = False


class StoreLine:
    """All calls of one cache to its store. `lock` is the runtime's."""

    def __init__(
        self,
        store: Store,
        lock: threading.RLock,
        report: Callable[[str, CacheError], None],
        overtaken: Callable[[Owner, str], None] = nobody_minds,
    ) -> None:
        """`overtaken` hears of entries that a shared store did not take, as others have changed them meanwhile."""
        self.store = store
        self.shared = store if isinstance(store, SharedStore) else None
        self.direct = store if isinstance(store, DirectStore) else None
        self._unshared: object = NOBODY if self.shared is None else OWN_SESSION
        self.health = Health()
        self.doubts = Doubts()
        self.refused: tuple[Owner, str] = (GLOBAL_OWNER, "")
        """What was to be read last while the store was suspect."""
        self._overtaken = overtaken
        self._lock = lock
        self._report = report
        self._numbers = itertools.count(1)
        self._waiting: list[StoreCall] = []
        self._unfinished: dict[Owner | None, dict[int, StoreCall]] = {}
        self._last: dict[Place, StoreCall] = {}
        self._homes: weakref.WeakSet[Loop] = weakref.WeakSet()
        self._tasks: set[asyncio.Task[None]] = set()
        self._nurse: tuple[Loop, asyncio.TimerHandle] | None = None

    # Lining up

    def order(self, change: Change, prefix: str | None = None) -> StoreCall | None:
        """A change, as its cause is committed: the call to wait for, if any. The runtime's lock is held.

        `prefix`: of the keys that are to go, where a "delete" is about no single one.
        """
        if change.owner == self._unshared:
            return None
        if (
            self.direct is not None
            and prefix is None
            and change.operation != "touch"
            and not (self._unfinished or self.doubts or self.health.is_suspect)
            and self._is_enqueued(change)
        ):
            return None
        return self.append(StoreCall(change, prefix))

    def _is_enqueued(self, change: Change) -> bool:
        assert self.direct is not None
        try:
            claim = change.claim
            if change.entry is None or claim is None:
                return self.direct.enqueue(change)
            return self.direct.enqueue(change, partial(self._overtaken, claim.owner, claim.key))
        except Exception:  # noqa: BLE001 (the ordinary call will say what is wrong)
            return False

    def append(self, call: StoreCall) -> StoreCall:
        """Queue `call`. The runtime's lock is held."""
        is_idle = call.operation == "delete" and len(self._waiting) >= MOST_DOUBTS
        if is_idle or self.health.is_suspect:
            # Nobody makes the calls, as this cache is used where no event loop runs; or they would fail.
            call.number = next(self._numbers)
            self.doubts.add(call, call.number)
            call.settle()
            return call
        for doubted in self.doubts.wide_about(call):
            clearing = self._last.get((doubted, None))
            if clearing is None or not clearing.clears_all or clearing.number < self.doubts.number(doubted, None):
                self._waiting.append(self._lined_up(StoreCall(removal(doubted, None))))
        loop = asyncio._get_running_loop()  # noqa: SLF001 (documented for libraries)
        if loop is not None:
            self._homes.add(loop)
            if call.operation in AWAITED:
                call.home = weakref.ref(loop)
        self._waiting.append(self._lined_up(call))
        return call

    def _lined_up(self, call: StoreCall) -> StoreCall:
        call.number = next(self._numbers)
        call.after = tuple(self._in_front_of(call))
        self._last[call.place] = call
        self._unfinished.setdefault(call.owner, {})[call.number] = call
        return call

    def _in_front_of(self, call: StoreCall) -> Iterable[StoreCall]:
        """The calls that `call` must not overtake."""
        if call.owner is None:
            return [each for calls in self._unfinished.values() for each in calls.values()]
        if call.key is None:
            return [each for owner in (None, call.owner) for each in self._unfinished.get(owner, {}).values()]
        return self.in_front_of_read(call.owner, call.key)

    def in_front_of_read(self, owner: Owner, key: str) -> tuple[StoreCall, ...]:
        """The changes that a read must not overtake. The runtime's lock is held."""
        last = self._last
        if not last:
            return ()
        return tuple(last[place] for place in ((None, None), (owner, None), (owner, key)) if place in last)

    def is_settled(self, owner: Owner, key: str) -> bool:
        """Whether the store has made all that was ordered of (owner, key). The runtime's lock is held."""
        return not (self.in_front_of_read(owner, key) or self.doubts.concern(owner, key))

    def lives_in(self, loop: Loop) -> None:
        """There is somebody in `loop` who asks."""
        with self._lock:
            self._homes.add(loop)

    def wants_care(self, time: Callable[[], float]) -> bool:
        """Whether a suspect store is to be tried, or a doubt made up for. `time`: the clock of whoever would do it."""
        return (self.health.is_suspect or bool(self.doubts)) and self.health.may_probe(time())

    def has_work(self, time: Callable[[], float]) -> bool:
        """Whether a `drain` would have something to do."""
        return bool(self._waiting) or self.wants_care(time)

    @property
    def is_busy(self) -> bool:
        """Whether there are changes that the store has not been told yet."""
        return bool(self._unfinished)

    # Reading

    def believes(self, owner: Owner, key: str) -> bool:
        """Whether the store is to be asked for (owner, key) at all."""
        if owner == self._unshared:
            return False
        if self.health.is_suspect:
            self.refused = (owner, key)
            return False
        return not self.doubts.concern(owner, key)

    def read_now(self, owner: Owner, key: str) -> StoredEntry | None:
        """What a direct store has, in the thread that asks. All changes in front are over."""
        assert self.direct is not None
        if (self.doubts or self.health.is_suspect or owner == self._unshared) and not self.believes(owner, key):
            return None
        began = time.monotonic()
        try:
            found = self.direct.read_now(owner, key)
        except Exception as error:  # noqa: BLE001 (a store may raise anything; the answer does not depend on it)
            self._tell_failure("read", (owner, key), error, time.monotonic(), hung=False)
            return None
        ended = time.monotonic()
        if ended - began > health.TIMEOUT_S:
            self._tell_failure("read", (owner, key), TimeoutError(), ended, hung=True)
        else:
            self.health.succeeded()
        return self.checked(found, owner, key)

    def checked(self, found: object, owner: Owner, key: str) -> StoredEntry | None:
        """`found`, if it is an entry of (owner, key), and there is no doubt about it by now."""
        if found is None or (self.doubts and self.doubts.concern(owner, key)):
            return None
        damage = damage_of(found, owner, key)
        if damage is None:
            entry = cast("StoredEntry", found)
            if self.shared is None or type(entry.value) is Encoded:
                return entry
            damage = "a value that is not encoded"
        shown = shown_place(owner, key)
        self._report(shown, UndecodableEntry(shown, damage))
        return None

    # Making the calls

    async def drain(self) -> None:
        """Make the calls, and then look after the store."""
        await self.make_calls()
        await self.care()

    async def make_calls(self, *, waits_for_all: bool = False) -> None:
        """Make the queued calls of this event loop and those of none. `waits_for_all`: also for those under way.

        In a loop in which nobody asks for anything, which is there for the store
        (or for closing), make all of them, and wait for those that other loops make.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            self._close_books()
            serves_all = loop not in self._homes
            calls = self._claimed(loop, serves_all=serves_all)
            awaited = self._all_unfinished() if serves_all or waits_for_all else calls
        for call in calls:
            self.start(self._make(call), loop)
        for call in awaited:
            await self.until_over(call, loop)

    async def care(self) -> None:
        """Try a store that is suspect, with a single call; make up for what it missed while it was."""
        loop = asyncio.get_running_loop()
        while self.doubts or self.health.is_suspect:
            is_probe = self.health.is_suspect
            if not (self.health.takes_probe(loop.time()) if is_probe else self.health.may_probe(loop.time())):
                return
            with self._lock:
                doubted = self.doubts.some(1 if is_probe else MADE_UP_AT_ONCE, self._last)
                calls = [self._lined_up(StoreCall(removal(*place))) for place in doubted]
                for call in calls:
                    call.loop = loop
            for call in calls:
                self.start(self._make(call, is_probe=is_probe), loop)
            for call in calls:
                await self.until_over(call, loop)
            if not calls:
                if not is_probe:
                    return
                await self._probe(loop)
            if any(self.doubts.number(*place) for place in doubted):
                return

    def _call_nurse(self, loop: Loop) -> None:
        """Have somebody look after the store later on, even if nobody asks for anything until then."""
        if self._nurse is None or self._nurse[0] is not loop:
            if self._nurse is not None:
                self._nurse[1].cancel()
            rest_s = self.health.rest_left(loop.time())
            self._nurse = loop, loop.call_later(rest_s, nurse, weakref.ref(self), loop)

    def visit(self, loop: Loop) -> None:
        """The nurse comes, in `loop`: to make up for what was missed. She tries no store that has missed nothing."""
        self._nurse = None
        if self.doubts:
            self.start(self._nursed(loop), loop)
        elif self.health.is_suspect:
            self._call_nurse(loop)

    async def _nursed(self, loop: Loop) -> None:
        await self.care()
        if self.doubts or self.health.is_suspect:
            self._call_nurse(loop)

    async def _probe(self, loop: Loop) -> None:
        probe = Probe(self.refused)
        over: asyncio.Future[None] = loop.create_future()

        def end(found: object) -> None:
            del found
            probe.is_over = True
            if not over.done():
                over.set_result(None)

        self.start(self.limited(probe, lambda: self.store.read(*probe.place), end, loop, is_probe=True), loop)
        await over

    def _claimed(self, loop: Loop, *, serves_all: bool) -> list[StoreCall]:
        claimed: list[StoreCall] = []
        left: list[StoreCall] = []
        for call in self._waiting:
            home = call.home()
            is_ours = serves_all or home is None or home is loop or home.is_closed()
            (claimed if is_ours else left).append(call)
        self._waiting = left
        for call in claimed:
            call.loop = loop
        return claimed

    def _close_books(self) -> None:
        """Strike out the calls over which a loop was closed."""
        for call in self._all_unfinished():
            if call.is_over:
                self._strike_out(call)

    def _all_unfinished(self) -> list[StoreCall]:
        return [call for calls in self._unfinished.values() for call in calls.values()]

    def start(self, making: Any, loop: Loop) -> None:  # noqa: ANN401 (a coroutine)
        """Make a call in a task of its own: a store that does not let itself be cancelled is left behind in it."""
        task = loop.create_task(making)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def until_over(self, call: StoreCall, loop: Loop) -> None:
        """Wait for `call`, but not for ever where another loop makes it."""
        if call.is_over:
            return
        over = asyncio.wrap_future(call.done)
        if call.loop is loop:
            await over
            return
        # Another loop may have stopped for good. One that runs is done with a call sooner than this.
        try:
            await asyncio.wait({over}, timeout=2 * health.TIMEOUT_S)
        finally:
            over.cancel()
        if not call.is_over:
            with self._lock:
                self._waiting = [each for each in self._waiting if each is not call]
            call.is_given_up = True
            self._finish_undone(call)

    async def _make(self, call: StoreCall, *, is_probe: bool = False) -> None:
        loop = asyncio.get_running_loop()
        try:
            for earlier in call.after:
                await self.until_over(earlier, loop)
            call.after = ()
            if call.is_over:
                return
            if is_probe or not self.health.is_suspect:
                await self._make_now(call, loop, is_probe=is_probe)
            else:
                self._finish_undone(call)
        except GeneratorExit:
            # The loop was closed over this call. This may run anywhere, the lock held: the books stay open.
            self.doubts.add(call, call.number)
            call.settle()
            raise
        except BaseException:
            self._finish_undone(call)
            raise

    async def _make_now(self, call: StoreCall, loop: Loop, *, is_probe: bool) -> None:
        def end(made: object) -> None:
            if made is None:
                self._finish_undone(call)
            elif not call.is_over:
                self._finish(call)

        try:
            await self.limited(call, lambda: self._perform(call), end, loop, is_probe=is_probe)
        finally:
            if call.is_given_up:
                # It may have come through after all, and have undone what later calls did.
                self.doubts.add(call, next(self._numbers))

    async def _perform(self, call: StoreCall) -> bool:
        store, change, owner, key = self.store, call.change, call.owner, call.key
        if change.operation == "clear":
            await store.clear()
        elif change.operation in SHARED:
            if not await self._is_performed(change):
                return True
            call.is_kept = change.operation == "commit"
        else:
            assert owner is not None
            if call.prefix is not None:
                prefix = call.prefix
                await self._deleted(owner, [each for each in await store.keys(owner) if each.startswith(prefix)])
            elif key is None:
                await store.clear_partition(owner)
            elif change.entry is not None:
                await store.write(change.entry)
            else:
                await store.delete(owner, key)
        self.doubts.settle(call)
        return True

    async def _is_performed(self, change: Change) -> bool:
        """What only a shared store is asked for: whether it changed what it was about."""
        shared, claim = self.shared, change.claim
        assert shared is not None
        if change.operation == "touch":
            assert change.entry is not None
            return await self._touched(change.entry)
        if claim is None:
            await shared.mark_tag(change.owner, change.tag, change.stale_at)
            return True
        if change.entry is None:
            await shared.release(claim)
            return False
        is_kept = await shared.commit(change.entry, claim)
        if is_kept is False:
            self._overtaken(claim.owner, claim.key)
        return bool(is_kept)

    async def _touched(self, entry: StoredEntry) -> bool:
        """What memory remembers longer lives longer in the store as well, unless there is another value by now."""
        shared = self.shared
        assert shared is not None
        claim = await shared.claim(entry.owner, entry.key, waits=False)
        there = await shared.read(entry.owner, entry.key)
        if there is None or (there.is_failure, there.value) != (entry.is_failure, entry.value):
            await shared.release(claim)
            if there is not None:
                self._overtaken(entry.owner, entry.key)
            return False
        return bool(await shared.commit(entry, claim))

    async def _deleted(self, owner: Owner, keys: list[str]) -> None:
        if self.shared is None:
            for key in keys:
                await self.store.delete(owner, key)
            return
        for first in range(0, len(keys), MADE_UP_AT_ONCE):
            await asyncio.gather(*(self.store.delete(owner, key) for key in keys[first : first + MADE_UP_AT_ONCE]))

    async def limited(
        self,
        job: Job,
        perform: Callable[[], Awaitable[object]],
        end: Callable[[object], None],
        loop: Loop,
        *,
        is_probe: bool = False,
    ) -> None:
        """Have the store do something, and call `end` with its answer: None if there is none within the time.

        To be run as a task.
        """
        task = asyncio.current_task()
        assert task is not None
        timer = loop.call_later(health.TIMEOUT_S, self._give_up, job, end, loop, task, is_probe)
        try:
            answer = await contained(perform())
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            self._failed(job, end, loop, error, is_probe=is_probe)
            if not isinstance(error, Exception):
                raise
        else:
            self.health.succeeded()
            if not job.is_over:
                end(answer)
        finally:
            timer.cancel()

    # Beside the line

    async def claim(self, owner: Owner, key: str, *, waits: bool, knows_none: bool = False) -> Claim | None:
        """The claim of who is about to fetch. None: the store cannot say.

        It does not overtake what was removed before, else that would refuse the commit.
        """
        if self.shared is None or self.health.is_suspect or owner == self._unshared:
            return None
        loop = asyncio.get_running_loop()
        with self._lock:
            in_front = self.in_front_of_read(owner, key)
        deadline = asyncio.timeout(LONGEST_CLAIM_S if waits else health.TIMEOUT_S)
        try:
            async with deadline:
                for call in in_front:
                    await self.until_over(call, loop)
                claim = await self._claimed_by(self.shared, owner, key, waits=waits, knows_none=knows_none)
        except Exception as error:  # noqa: BLE001 (a store may raise anything; the answer does not depend on it)
            self._tell_failure("claim", (owner, key), error, loop.time(), hung=deadline.expired())
            return None
        self.health.succeeded()
        return claim

    async def _claimed_by(self, shared: SharedStore, owner: Owner, key: str, *, waits: bool, knows_none: bool) -> Claim:
        """The claim that the store grants. What it has found is of this key, and there is no doubt about it."""
        was_doubted = self.doubts.concern(owner, key)  # It may be made up for while the answer is under way.
        claim: object = await contained(shared.claim(owner, key, waits=waits, knows_none=knows_none))
        if not isinstance(claim, Claim) or (claim.owner, claim.key) != (owner, key):
            msg = "a claim of another key" if isinstance(claim, Claim) else f"no Claim but {type(claim).__name__}"
            raise TypeError(msg)
        if claim.found is None or (not was_doubted and self.checked(claim.found, owner, key) is not None):
            return claim
        if waits:
            return await self._claimed_by(shared, owner, key, waits=False, knows_none=False)
        return replace(claim, found=None)

    async def flush(self) -> StoreFailed | None:
        """Make all calls, and have a shared store write what it has not yet. What went wrong, if anything did."""
        await self.make_calls(waits_for_all=True)
        await self.care()
        if self.doubts:
            return StoreFailed("flush", RuntimeError("the store has missed something"))
        try:
            if self.shared is not None:
                await contained(self.shared.flush())
        except Exception as error:  # noqa: BLE001 (as above)
            return StoreFailed("flush", error)
        return None

    async def close(self) -> None:
        """Let a shared store write what is left, and let go of it."""
        if self._nurse is not None and self._nurse[0] is asyncio.get_running_loop():
            self._nurse[1].cancel()
            self._nurse = None
        if self.shared is None:
            return
        try:
            await contained(self.shared.aclose())
        except Exception as error:  # noqa: BLE001 (as above)
            self._report("", StoreFailed("aclose", error))

    # What comes of a call

    def _failed(
        self, job: Job, end: Callable[[object], None], loop: Loop, error: BaseException, *, is_probe: bool
    ) -> None:
        if not job.is_over:
            try:
                self._tell_failure(job.operation, job.place, error, loop.time(), hung=False, is_probe=is_probe)
            finally:
                end(None)
                self._call_nurse(loop)

    def _give_up(
        self, job: Job, end: Callable[[object], None], loop: Loop, task: asyncio.Task[None], is_probe: bool
    ) -> None:
        """The time of `job` is up."""
        if not job.is_over:
            job.is_given_up = True
            task.cancel()
            try:
                self._tell_failure(job.operation, job.place, TimeoutError(), loop.time(), hung=True, is_probe=is_probe)
            finally:
                end(None)
                self._call_nurse(loop)

    def _tell_failure(
        self, operation: str, place: Place, error: BaseException, now: float, *, hung: bool, is_probe: bool = False
    ) -> None:
        is_told = self.health.tells(now)
        self.health.failed(now, hung=hung, is_probe=is_probe)
        if is_told:
            self._report(shown_place(*place), StoreFailed(operation, as_exception(error)))

    def _finish_undone(self, call: StoreCall) -> None:
        """`call` was not made, or nobody knows."""
        if not call.is_over:
            self.doubts.add(call, call.number)
            self._finish(call)

    def _finish(self, call: StoreCall) -> None:
        with self._lock:
            self._strike_out(call)
        call.settle()

    def _strike_out(self, call: StoreCall) -> None:
        calls = self._unfinished.get(call.owner)
        if calls is not None:
            calls.pop(call.number, None)
            if not calls:
                del self._unfinished[call.owner]
        if self._last.get(call.place) is call:
            del self._last[call.place]


async def contained(asking: Awaitable[T]) -> T:
    """What a store answers. Whatever it raises is an exception; a cancellation of its own is none of the caller's."""
    task = asyncio.current_task()
    try:
        return await asking
    except asyncio.CancelledError as error:
        if task is not None and task.cancelling():
            raise
        raise as_exception(error) from None
    except GeneratorExit:
        raise
    except (KeyboardInterrupt, SystemExit) as error:
        if threading.current_thread() is threading.main_thread():
            raise
        raise as_exception(error) from None
    except BaseException as error:  # noqa: BLE001 (it goes on, as an exception)
        raise as_exception(error) from None


def nurse(line: weakref.ref[StoreLine], loop: Loop) -> None:
    """Look after a store whose cache is still there."""
    alive = line()
    if alive is not None:
        alive.visit(loop)
