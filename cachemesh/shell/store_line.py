"""The line in front of the store: calls go in the order in which their cause was committed.

Calls that do not concern each other run at the same time. Two on one key, or
one that clears what another is about, never overtake each other, so that a
load asked for after an invalidation cannot see what was invalidated. A call
that hangs holds up nothing but those that concern the same.

Each event loop makes the calls that were asked for within it; one that ends, or
is never run again, takes its own calls with it and nobody else's.

A store that hangs, or fails three times running, is left alone for a while,
and then tried with a single call. What it missed is remembered, not its
content but that its copy is not to be believed, and made up for when the store
is back.

Not neat yet: a store that acts on a call after the call was cancelled, behind
our back (in a thread, on a server), can bring back what was removed. And the
doubts are in memory: a process that ends while its store is down leaves there
what should have gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import weakref
from concurrent.futures import Future, InvalidStateError
from math import isfinite
from typing import TYPE_CHECKING, Final

from cachemesh.errors import CacheError, StoreFailed, UndecodableEntry
from cachemesh.shell.logging import PrivateKey
from cachemesh.shell.ports import SharedStore, StoredEntry

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop as Loop
    from collections.abc import Callable, Iterable

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.ports import Claim, Store

TIMEOUT_S: Final = 1.0
"""A call that takes longer counts as failed."""

COOL_DOWN_S: Final = 1.0
"""For so long the store is left alone."""

MOST_FAILURES_RUNNING: Final = 3
"""So many failed calls, none of them made good by a success between, and the store is left alone."""

MOST_DOUBTS: Final = 10_000
"""Above so many doubts, everything in the store is doubtful."""

MADE_UP_AT_ONCE: Final = 100
"""So many doubts are made up for at the same time."""

AWAITED: Final = frozenset({"read", "write"})
"""A caller waits for these."""

LONGEST_CLAIM_S: Final = 60.0
"""For so long the fetch of another process is waited for; a store's lease is shorter."""

LAST_INSTANT: Final = 253_402_300_800.0
"""The end of the year 9999. An entry that claims to be from beyond is damaged."""


def nobody_minds(owner: Owner, key: str) -> None:
    """What is done about an entry that was overtaken, where nobody keeps it in memory."""


class StoreCall:
    """One call to the store; `key` None concerns all of `owner`, `owner` None everything. It is over when `done` is.

    `prefix`: of the keys of `owner` that are to go, where not all of them are.
    `tag`: what bears it is to go, or to be stale from `stale_at` on. `claim`:
    what a "commit" or a "release" comes with. `home` answers the event loop in
    which somebody waits for it; `loop` is the one that makes it.
    """

    __slots__ = (
        "after",
        "claim",
        "done",
        "entry",
        "home",
        "is_given_up",
        "key",
        "loop",
        "number",
        "operation",
        "owner",
        "prefix",
        "stale_at",
        "tag",
    )

    def __init__(self, operation: str, owner: Owner | None, key: str | None, entry: StoredEntry | None = None) -> None:
        self.operation = operation
        self.owner = owner
        self.key = key
        self.entry = entry
        self.prefix: str | None = None
        self.tag: str | None = None
        self.stale_at: float | None = None
        self.claim: Claim | None = None
        self.number = 0
        self.after: tuple[StoreCall, ...] = ()
        self.home: Callable[[], Loop | None] = nowhere
        self.loop: Loop | None = None
        self.is_given_up = False
        self.done: Future[StoredEntry | None] = Future()
        # From now on it cannot be cancelled: a waiter who leaves, leaves alone.
        self.done.set_running_or_notify_cancel()

    @property
    def is_over(self) -> bool:
        return self.done.done()

    @property
    def changes(self) -> bool:
        """Whether it changes what the store has."""
        return self.operation not in {"read", "release"}

    @property
    def clears_all(self) -> bool:
        """Whether everything that it is about is to go."""
        return self.key is None and self.prefix is None and self.tag is None


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
        self._store = store
        self._shared = store if isinstance(store, SharedStore) else None
        self._overtaken = overtaken
        self._lock = lock
        self._report = report
        self._numbers = itertools.count(1)
        self._waiting: list[StoreCall] = []
        self._unfinished: dict[Owner | None, dict[int, StoreCall]] = {}
        self._last: dict[tuple[Owner | None, str | None], StoreCall] = {}
        self._homes: weakref.WeakSet[Loop] = weakref.WeakSet()
        self._tasks: set[asyncio.Task[None]] = set()
        self._health = Health()
        self._doubts = Doubts()

    # Lining up

    def append(self, call: StoreCall) -> StoreCall:
        """Queue `call`. The runtime's lock is held."""
        if call.operation == "delete" and len(self._waiting) >= MOST_DOUBTS:
            # Nobody makes the calls: this cache is used where no event loop runs.
            call.number = next(self._numbers)
            self._doubts.add(call, call.number)
            call.done.set_result(None)
            return call
        for doubted in self._doubts.wide_about(call):
            clearing = self._last.get((doubted, None))
            if clearing is None or not clearing.clears_all or clearing.number < self._doubts.number(doubted, None):
                self._line_up(StoreCall("clear", doubted, None))
        loop = asyncio._get_running_loop()  # noqa: SLF001 (documented for libraries)
        if loop is not None:
            self._homes.add(loop)
            if call.operation in AWAITED:
                call.home = weakref.ref(loop)
        self._line_up(call)
        return call

    def _line_up(self, call: StoreCall) -> None:
        call.number = next(self._numbers)
        call.after = tuple(self._in_front_of(call))
        self._last[call.owner, call.key] = call
        self._unfinished.setdefault(call.owner, {})[call.number] = call
        self._waiting.append(call)

    def _in_front_of(self, call: StoreCall) -> Iterable[StoreCall]:
        """The calls that `call` must not overtake."""
        if call.owner is None:
            return [each for calls in self._unfinished.values() for each in calls.values()]
        if call.key is None:
            return [each for owner in (None, call.owner) for each in self._unfinished.get(owner, {}).values()]
        places = ((None, None), (call.owner, None), (call.owner, call.key))
        return [self._last[place] for place in places if place in self._last]

    @property
    def has_work(self) -> bool:
        return bool(self._waiting) or bool(self._doubts)

    # Making the calls

    async def drain(self) -> None:
        """Make the queued calls of this event loop and those of none.

        In a loop in which nobody asks for anything, which is there for the store
        (or for closing), make all of them, and wait for those that other loops make.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            serves_all = loop not in self._homes
            calls = self._claimed(loop, serves_all=serves_all)
            awaited = self._all_unfinished() if serves_all else calls
        await self._make_all(calls, awaited, loop)
        while self._doubts and self._health.may_try(loop.time()):
            with self._lock:
                doubted = self._doubts.some(1 if self._health.is_suspect else MADE_UP_AT_ONCE)
                for owner, key in doubted:
                    self._line_up(StoreCall("clear" if key is None else "delete", owner, key))
                calls = self._claimed(loop, serves_all=serves_all)
            await self._make_all(calls, calls, loop)
            if any(self._doubts.number(*place) for place in doubted):
                return

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

    def _all_unfinished(self) -> list[StoreCall]:
        return [call for calls in self._unfinished.values() for call in calls.values()]

    async def _make_all(self, calls: Iterable[StoreCall], awaited: Iterable[StoreCall], loop: Loop) -> None:
        for call in calls:
            self._start(call, loop)
        for call in awaited:
            await self._until_over(call, loop)

    def _start(self, call: StoreCall, loop: Loop) -> None:
        """Make `call` in a task of its own: a store that does not let itself be cancelled is left behind in it."""
        task = loop.create_task(self._make(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _until_over(self, call: StoreCall, loop: Loop) -> None:
        if call.is_over:
            return
        over = asyncio.wrap_future(call.done)
        if call.loop is loop:
            await over
            return
        # Another loop may have stopped for good. One that runs is done with a call sooner than this.
        try:
            await asyncio.wait({over}, timeout=2 * TIMEOUT_S)
        finally:
            over.cancel()
        if not call.is_over:
            with self._lock:
                self._waiting = [each for each in self._waiting if each is not call]
            call.is_given_up = True
            self._finish_undone(call)

    async def _make(self, call: StoreCall) -> None:
        loop = asyncio.get_running_loop()
        try:
            for earlier in call.after:
                await self._until_over(earlier, loop)
            call.after = ()
            if call.is_over:
                return
            if self._health.takes_call(loop.time()):
                await self._make_now(call, loop)
            else:
                self._finish_undone(call)
        except GeneratorExit:
            # The loop was closed over this call. This may run anywhere, the lock held: the books stay open.
            self._doubts.add(call, call.number)
            settle(call, None)
            raise
        except BaseException:
            self._finish_undone(call)
            raise

    async def _make_now(self, call: StoreCall, loop: Loop) -> None:
        task = asyncio.current_task()
        assert task is not None
        timer = loop.call_later(TIMEOUT_S, self._give_up, call, loop, task)
        try:
            found = await self._perform(call)
        except asyncio.CancelledError as error:
            if call.is_over or task.cancelling():
                raise
            self._failed(call, loop, error)
        except GeneratorExit:
            raise
        except (KeyboardInterrupt, SystemExit) as error:
            self._failed(call, loop, error)
            if threading.current_thread() is threading.main_thread():
                raise
        except BaseException as error:  # noqa: BLE001 (a store may raise anything; the answer does not depend on it)
            self._failed(call, loop, error)
        else:
            self._succeeded(call, found)
        finally:
            timer.cancel()
            if call.is_given_up:
                # It may have come through after all, and have undone what later calls did.
                self._doubts.add(call, next(self._numbers))

    async def _perform(self, call: StoreCall) -> object:
        store, owner, key = self._store, call.owner, call.key
        if call.tag is not None or call.claim is not None:
            await self._perform_shared(call)
        elif owner is None:
            await store.clear()
        elif call.prefix is not None:
            for each in [each for each in await store.keys(owner) if each.startswith(call.prefix)]:
                await store.delete(owner, each)
        elif key is None:
            await store.clear_partition(owner)
        elif call.operation == "write":
            assert call.entry is not None
            await store.write(call.entry)
        elif call.operation == "delete" or self._doubts.number(owner, key):
            # Read, a copy that is not to be believed is taken away: then nothing is what is there.
            await store.delete(owner, key)
        elif self._doubts.wide_about(call):
            return None
        else:
            return await store.read(owner, key)
        self._doubts.settle(call)
        return None

    async def _perform_shared(self, call: StoreCall) -> None:
        """What only a shared store is asked for."""
        shared = self._shared
        assert shared is not None
        if call.tag is not None:
            await shared.mark_tag(call.owner, call.tag, call.stale_at)
        elif call.entry is None:
            assert call.claim is not None
            await shared.release(call.claim)
        else:
            assert call.claim is not None
            if not await shared.commit(call.entry, call.claim):
                self._overtaken(call.entry.owner, call.entry.key)

    # Beside the line

    async def claim(self, owner: Owner, key: str, *, waits: bool) -> Claim | None:
        """The claim of who is about to fetch. None: the store cannot say."""
        loop = asyncio.get_running_loop()
        if self._shared is None or self._health.is_suspect:
            return None
        try:
            async with asyncio.timeout(LONGEST_CLAIM_S):
                return await self._shared.claim(owner, key, waits=waits)
        except Exception as error:  # noqa: BLE001 (a store may raise anything; the answer does not depend on it)
            self._health.failed(loop.time(), hung=False)
            self._report(PrivateKey(key) if owner[1] is not None else key, StoreFailed("claim", error))
            return None

    async def flush(self) -> StoreFailed | None:
        """Make all calls, and have a shared store write what it has not yet. What went wrong, if anything did."""
        await self.drain()
        if self._doubts:
            return StoreFailed("flush", RuntimeError("the store has missed something"))
        try:
            if self._shared is not None:
                await self._shared.flush()
        except Exception as error:  # noqa: BLE001 (as above)
            return StoreFailed("flush", error)
        return None

    async def close(self) -> None:
        """Let a shared store write what is left, and let go of it."""
        if self._shared is None:
            return
        try:
            await self._shared.aclose()
        except Exception as error:  # noqa: BLE001 (as above)
            self._report("", StoreFailed("aclose", error))

    # What comes of a call

    def _succeeded(self, call: StoreCall, found: object) -> None:
        self._health.succeeded()
        entry: StoredEntry | None = None
        if found is not None and not call.is_over:
            damage = damage_of(found, call)
            if damage is None:
                assert isinstance(found, StoredEntry)
                entry = found
            else:
                self._report(shown_key(call), UndecodableEntry(call.key or "", damage))
        self._finish(call, entry)

    def _failed(self, call: StoreCall, loop: Loop, error: BaseException) -> None:
        if not call.is_over:
            self._health.failed(loop.time(), hung=False)
            try:
                self._report(shown_key(call), StoreFailed(call.operation, as_exception(error)))
            finally:
                self._finish_undone(call)

    def _give_up(self, call: StoreCall, loop: Loop, task: asyncio.Task[None]) -> None:
        """The time of `call` is up."""
        if not call.is_over:
            call.is_given_up = True
            self._health.failed(loop.time(), hung=True)
            task.cancel()
            try:
                self._report(shown_key(call), StoreFailed(call.operation, TimeoutError()))
            finally:
                self._finish_undone(call)

    def _finish_undone(self, call: StoreCall) -> None:
        """`call` was not made, or nobody knows."""
        if not call.is_over:
            self._doubts.add(call, call.number)
            self._finish(call, None)

    def _finish(self, call: StoreCall, found: StoredEntry | None) -> None:
        with self._lock:
            calls = self._unfinished.get(call.owner)
            if calls is not None:
                calls.pop(call.number, None)
                if not calls:
                    del self._unfinished[call.owner]
            if self._last.get((call.owner, call.key)) is call:
                del self._last[call.owner, call.key]
        settle(call, found)


class Health:
    """Whether the store is to be bothered. Instants are those of the event loops, which need not agree."""

    def __init__(self) -> None:
        self._failures_running = 0
        self._rests_from = 0.0
        self._rests_for = 0.0
        self.is_suspect = False

    def may_try(self, now: float) -> bool:
        return not (self.is_suspect and 0.0 <= now - self._rests_from < self._rests_for)

    def takes_call(self, now: float) -> bool:
        """Whether a call is to be made now. A suspect store is tried with one at a time."""
        if not self.may_try(now):
            return False
        if self.is_suspect:
            self._rest(now, TIMEOUT_S + COOL_DOWN_S)
        return True

    def succeeded(self) -> None:
        self._failures_running = 0
        self.is_suspect = False

    def failed(self, now: float, *, hung: bool) -> None:
        self._failures_running += 1
        if hung or self.is_suspect or self._failures_running >= MOST_FAILURES_RUNNING:
            self.is_suspect = True
            self._rest(now, COOL_DOWN_S)

    def _rest(self, now: float, seconds: float) -> None:
        self._rests_from = now
        self._rests_for = seconds


class Doubts:
    """What the store should not have any more, or has wrong.

    Each doubt bears the number of the call that left it behind: it is settled by
    a call that came later. Every method is a few atomic steps: no lock is needed.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[Owner | None, str | None], int] = {}

    def __bool__(self) -> bool:
        return bool(self._numbers)

    def number(self, owner: Owner | None, key: str | None) -> int:
        """The number of the doubt about exactly this; 0 where there is none."""
        return self._numbers.get((owner, key), 0)

    def wide_about(self, call: StoreCall) -> list[Owner | None]:
        """The owners, or None for all of them, whose doubts concern `call` and are not settled by it."""
        if not self._numbers or call.owner is None:
            return []
        owners = (None,) if call.key is None else (None, call.owner)
        return [owner for owner in owners if (owner, None) in self._numbers]

    def some(self, most: int) -> list[tuple[Owner | None, str | None]]:
        """A few of the places that are doubted, the widest first."""
        return sorted(self._numbers.copy(), key=_narrowness)[:most]

    def add(self, call: StoreCall, number: int) -> None:
        """`call` may not have been made, or too late. Not having read leaves no doubt."""
        if call.changes:
            place = (call.owner, call.key) if len(self._numbers) < MOST_DOUBTS else (None, None)
            self._numbers[place] = max(number, self._numbers.get(place, 0))

    def settle(self, call: StoreCall) -> None:
        """`call` has been made: what it changed is as it should be."""
        if not self._numbers or not (call.clears_all or call.key is not None):
            return
        places: list[tuple[Owner | None, str | None]] = [(call.owner, call.key)]
        if call.key is None:
            places = [place for place in list(self._numbers) if call.owner is None or place[0] == call.owner]
        for place in places:
            if self._numbers.get(place, call.number + 1) <= call.number:
                self._numbers.pop(place, None)


def _narrowness(place: tuple[Owner | None, str | None]) -> int:
    return sum(part is not None for part in place)


def damage_of(found: object, call: StoreCall) -> str | None:
    """What is wrong with what the store returned for a read; None where it is an entry of this owner and key."""
    if not isinstance(found, StoredEntry):
        return f"no StoredEntry but {type(found).__name__}"
    try:
        if found.owner != call.owner or found.key != call.key:
            return "an entry of another key"
        instants = (found.created_at,) if found.expires_at is None else (found.created_at, found.expires_at)
        if not all(abs(instant) < LAST_INSTANT for instant in instants):
            return "an impossible instant"
        if type(found.is_failure) is not bool:
            return "a damaged field: is_failure"
        windows = (found.ttl_s, found.serve_stale_s, found.stale_if_error_s)
        if not all(window is None or (isfinite(window) and window >= 0) for window in windows):
            return "an impossible ttl"
        if found.ageing_at is not None and not abs(found.ageing_at) < LAST_INSTANT:
            return "an impossible instant"
        if type(found.tags) is not tuple or not all(type(tag) is str for tag in found.tags):
            return "a damaged field: tags"
        hash(found.validator)
    except Exception as error:  # noqa: BLE001 (whatever a damaged field does when it is looked at)
        return f"a damaged field: {type(error).__name__}"
    return None


def shown_key(call: StoreCall) -> str:
    """The key of `call` as a logger gets it."""
    if call.key is None or call.owner is None or call.owner[1] is None:
        return call.key or ""
    return PrivateKey(call.key)


def as_exception(error: BaseException) -> Exception:
    """`error`, or an exception that names it: a `CacheError` holds no exit and no cancellation."""
    return error if isinstance(error, Exception) else RuntimeError(f"the store raised {type(error).__name__}")


def settle(call: StoreCall, found: StoredEntry | None) -> None:
    """`call` is over, unless somebody else has just said so."""
    with contextlib.suppress(InvalidStateError):
        call.done.set_result(found)


def nowhere() -> None:
    """The home of a call that nobody waits for."""
