"""`SqliteStore`: entries in a file, for all processes of a machine, with nothing but the standard library."""

from __future__ import annotations

import asyncio
import random
import secrets
import sqlite3
import threading
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cachemesh.shell.ports import Change, Claim
from cachemesh.stores.sqlite import browse, doctor
from cachemesh.stores.sqlite.engine import Engine
from cachemesh.stores.sqlite.errors import SqliteStoreError
from cachemesh.stores.sqlite.fork import watch_over
from cachemesh.stores.sqlite.lane import Lane, one_by_one
from cachemesh.stores.sqlite.lease import REFUSED, Claiming, Held
from cachemesh.stores.sqlite.settings import Settings

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Callable, Collection, Sequence
    from pathlib import Path

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.ports import StoredEntry
    from cachemesh.stores.envelope import Cipher
    from cachemesh.stores.report import Finding, StoreStats
    from cachemesh.stores.sqlite.complaints import Complaints
    from cachemesh.stores.sqlite.file import Connect
    from cachemesh.stores.sqlite.worker import Worker

T = TypeVar("T")

POLL_S: Final = (0.01, 0.05)
"""Between two looks at somebody else's lease: at first, and at most."""

MOST_LEASES: Final = 2
"""So many times the length of a lease a claim waits altogether. Then it goes without one: better twice than never."""

DAY_S: Final = 86_400.0


class SqliteStore:
    """Keeps entries in the file `path`, which many processes may use at once, and which outlives them.

    Changes are written behind, by a thread of its own: `flush` waits until what
    was written so far would survive the end of the process. Reads see them at
    once. The file is opened when it is first needed; bad settings raise here,
    a path that cannot be used does not: then nothing is read, and what is
    written is lost, until it can be.

    `max_entries`, `max_bytes` (of the file) and `max_age` (seconds) bound what is
    kept, of all namespaces together; what was written longest ago leaves first.
    None is unbounded. `lease`: for how many seconds one process may keep the
    others waiting for its fetch; None is not at all. `queue_size` and
    `queue_bytes`: so much waits to be written, then those who write wait.
    `cipher` encrypts what is in the file. `clock`: seconds since the epoch, as
    other processes know them. `connect` is called in the place of
    `sqlite3.connect`.

    >>> import asyncio, tempfile
    >>> from cachemesh.core.scopes import GLOBAL_OWNER
    >>> from cachemesh.shell.ports import Encoded, StoredEntry
    >>> entry = StoredEntry(GLOBAL_OWNER, "a", Encoded(b"1"), False, created_at=0.0, ttl_s=None, expires_at=None)
    >>> async def use(path: str) -> bytes:
    ...     store = SqliteStore(path)
    ...     await store.write(entry)
    ...     await store.aclose()
    ...     found = await SqliteStore(path).read(GLOBAL_OWNER, "a")
    ...     return found.value.payload
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     asyncio.run(use(f"{folder}/cache.db"))
    b'1'
    """

    def __init__(  # noqa: PLR0913 (settings, by keyword)
        self,
        path: str | os.PathLike[str],
        *,
        namespace: str = "cachemesh",
        max_entries: int | None = None,
        max_bytes: int | None = 2**30,
        max_age: float | None = 30 * DAY_S,
        lease: float | None = 10.0,
        queue_size: int = 10_000,
        queue_bytes: int = 64 * 2**20,
        cipher: Cipher | None = None,
        clock: Callable[[], float] = time.time,
        connect: Connect | None = None,
    ) -> None:
        settings = Settings.model_validate(
            {
                "path": path,
                "namespace": namespace,
                "max_entries": max_entries,
                "max_bytes": max_bytes,
                "max_age": max_age,
                "lease": lease,
                "queue_size": queue_size,
                "queue_bytes": queue_bytes,
            }
        )
        self._engine = Engine(settings, cipher, clock, sqlite3.connect if connect is None else connect)
        self._lanes = new_lanes(self._engine)
        self._pid = self._engine.pid
        self._finalizer = weakref.finalize(self, let_go, self._engine, self._lanes)
        self._finalizer.atexit = False
        watch_over(self._engine)

    def __repr__(self) -> str:
        return f"SqliteStore({str(self.path)!r}, namespace={self._engine.settings.namespace!r})"

    @property
    def path(self) -> Path:
        """Of the file."""
        return self._engine.file.path

    @property
    def report(self) -> Callable[[Exception], None]:
        """Who is told what goes wrong, at most once a minute of each kind, from any thread; at first, the log."""
        return self._engine.complaints.report

    @report.setter
    def report(self, report: Callable[[Exception], None]) -> None:
        self._engine.complaints.report = report

    # Without waiting

    def read_now(self, owner: Owner, key: str) -> StoredEntry | None:
        """The entry last written under (owner, key), expired or not. It reads the disk in the thread that calls."""
        return self._engine.read(owner, key)

    def enqueue(self, change: Change, overtaken: Callable[[], object] | None = None) -> bool:
        """Take `change` into the queue; reads see it at once. False: the queue is full. It waits for nothing.

        `overtaken` is called, from whatever thread and perhaps before this
        returns, where the claim of a "commit" is too old, so that nothing was
        kept. What was lost with a disk that failed was not overtaken.
        """
        claim = change.claim
        if overtaken is None or claim is None or claim.generation == REFUSED:
            return self._engine.put(change)
        answer = partial(tell_overtaken, overtaken, self._engine.complaints)
        return self._engine.put(change, answer, is_awaited=False)

    # Reading

    async def read(self, owner: Owner, key: str) -> StoredEntry | None:
        """The entry last written under (owner, key), expired or not."""
        found: StoredEntry | None = await self._lane().ask((owner, key))
        return found

    async def read_many(self, places: Sequence[tuple[Owner, str]], /) -> Sequence[StoredEntry | None]:
        """What `read` answers to each of `places`, in one go."""
        found: list[StoredEntry | None] = await self._lane().ask_at_once(list(places))
        return found

    async def keys(self, owner: Owner) -> Collection[str]:
        """The keys of one owner."""
        await self._settled()
        engine = self._engine
        return await self._chore(lambda: browse.keys_of(engine, owner))

    # Writing

    async def write(self, entry: StoredEntry) -> None:
        """Keep `entry` under its owner and key, in place of what was there."""
        await self._put(Change("write", entry.owner, entry.key, entry=entry))

    async def delete(self, owner: Owner, key: str) -> None:
        """Forget what is under (owner, key), if anything is."""
        await self._put(Change("delete", owner, key))

    async def clear_partition(self, owner: Owner) -> None:
        """Forget all of one owner."""
        await self._put(Change("clear_partition", owner))

    async def clear(self) -> None:
        """Forget everything of this namespace."""
        await self._put(Change("clear"))

    async def mark_tag(self, owner: Owner | None, tag: str, stale_at: float | None) -> None:
        """What bears `tag`, of `owner` or (None) of all, is gone; or stale from `stale_at` on (since the epoch)."""
        await self._put(Change("mark_tag", owner, tag=tag, stale_at=stale_at))

    # One fetch at a time

    async def claim(self, owner: Owner, key: str, *, waits: bool, knows_none: bool = False) -> Claim:
        """Before a fetch of (owner, key). With `waits`: first wait for another process that is fetching it."""
        engine = self._engine
        length_s = engine.settings.lease if waits else None
        token = b"" if length_s is None else secrets.token_bytes(16)
        seen = None
        if waits:
            seen = 0 if knows_none else engine.seen(owner, key)
        ends_at = time.monotonic() + MOST_LEASES * (length_s or 0.0)
        over, holder, held_from, pause_s = b"", b"", 0.0, POLL_S[0]
        while True:
            answer = await self._claimed(Claiming(owner, key, token, length_s, waits, seen, over))
            if isinstance(answer, Claim):
                return answer
            assert isinstance(answer, Held)
            now = time.monotonic()
            seen = answer.seen
            if answer.token != holder:
                holder, held_from, pause_s = answer.token, now, POLL_S[0]
            if now >= ends_at:
                token, length_s = b"", None
                continue
            # As the clocks of processes may disagree, no lease is waited for longer than it is long.
            if now - held_from >= answer.length_s:
                over = holder
                continue
            pause_s = await self._while_held(owner, key, holder, pause_s, min(ends_at, held_from + answer.length_s))

    async def _while_held(self, owner: Owner, key: str, holder: bytes, pause_s: float, until: float) -> float:
        """Look again and again whether `holder` has given up its lease; how long the last pause was."""
        engine = self._engine
        while time.monotonic() < until:
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 (so that not all look at once)
            pause_s = min(1.5 * pause_s, POLL_S[1])
            if not await self._chore(lambda: browse.is_held(engine, owner, key, holder)):
                break
        return pause_s

    async def _claimed(self, claiming: Claiming) -> Claim | Held:
        """The worker's answer. Who leaves before it comes, leaves no lease behind."""
        engine = self._engine
        handover = Handover(asyncio.get_running_loop(), lambda claim: engine.put(Change("release", claim=claim)))
        engine.ask("claim", handover.give, claiming)
        try:
            return await handover.future
        except BaseException:
            handover.leave()
            raise

    async def commit(self, entry: StoredEntry, claim: Claim) -> bool | None:
        """Keep what was fetched, and give up the lease. False: the claim is too old, and nothing was kept.

        None: nothing could be written, now or when it was claimed.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool | None] = loop.create_future()
        await self._put(Change("commit", entry.owner, entry.key, entry=entry, claim=claim), answering(loop, future))
        return await future

    async def release(self, claim: Claim) -> None:
        """Nothing was fetched: give up the lease."""
        if claim.token:
            await self._put(Change("release", claim=claim))

    # Coming and going

    async def flush(self) -> None:
        """Wait until all that was written so far would survive the end of this process.

        `NotFlushedError` where it would not, or where some of what was written
        since the last flush was lost.
        """
        await self._asked("flush")

    async def aclose(self) -> None:
        """Write what is left, and let go of the file and of all threads. Used again, it opens anew."""
        await self._settled()
        engine = self._engine
        loop = asyncio.get_running_loop()
        with engine.queue.lock:
            worker = engine.worker
            if worker is not None:
                ended: asyncio.Future[None] = loop.create_future()
                answer = answering(loop, ended)
                worker.let_go(lambda: answer(None, None))
        if worker is not None:
            await ended
        await asyncio.to_thread(self._join, worker)

    def _join(self, worker: Worker | None) -> None:
        """Wait until the threads have ended, unless others use the store meanwhile."""
        if worker is not None and self._engine.worker is not worker:
            worker.thread.join(JOIN_S)
        for lane in self._lanes:
            lane.join(JOIN_S)
        with self._engine.io:
            if self._engine.worker is None:
                self._engine.close()
                self._engine.file.lock.close()

    # From outside

    async def scan(self) -> AsyncIterator[StoredEntry]:
        """Every entry, expired or not, the oldest first. What is damaged, or gone by a mark, is left out."""
        await self._settled()
        engine = self._engine
        cursor: int | None = browse.BEGIN
        while cursor is not None:
            at = cursor
            entries, cursor = await self._chore(lambda: browse.page(engine, at))  # noqa: B023 (awaited at once)
            for entry in entries:
                yield entry

    async def stats(self) -> StoreStats:
        """How much it holds."""
        await self._settled()
        engine = self._engine
        return await self._chore(lambda: browse.stats(engine))

    async def doctor(self) -> Sequence[Finding]:
        """What is well with it, and what is not."""
        await self._settled()
        engine = self._engine
        return await self._chore(lambda: doctor.examined(engine))

    # Helpers

    async def _put(self, change: Change, answer: Callable[[Any, Exception | None], None] | None = None) -> None:
        while not self._engine.put(change, answer):
            await self._space()

    async def _space(self) -> None:
        """Until the worker has taken something out of the queue."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        settle = answering(loop, future)
        queue = self._engine.queue
        with queue.lock:
            if not len(queue):
                return
            queue.on_space.append(lambda: settle(None, None))
        await future

    async def _settled(self) -> None:
        """Until what is queued is on the disk, or is known not to come there."""
        await self._asked("settle")

    async def _asked(self, kind: str) -> Any:  # noqa: ANN401 (whatever the worker answers)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._engine.ask(kind, answering(loop, future))
        return await future

    def _lane(self) -> Lane:
        if self._engine.pid != self._pid:
            self._forked()
        return self._lanes[0]

    async def _chore(self, chore: Callable[[], T]) -> T:
        """What takes longer, and is not to hold up reads."""
        if self._engine.pid != self._pid:
            self._forked()
        answer: T = await self._lanes[1].ask(chore)
        return answer

    def _forked(self) -> None:
        """We are a child: the threads are the parent's."""
        self._lanes[:] = new_lanes(self._engine)
        self._pid = self._engine.pid


class Handover:
    """Brings an answer from the worker to who waits for it; if that one has left, a lease goes back.

    Each side says what it does before the other one can: the loop may stop at any moment.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, give_back: Callable[[Claim], object]) -> None:
        self.future: asyncio.Future[Claim | Held] = loop.create_future()
        self._loop = loop
        self._give_back = give_back
        self._lock = threading.Lock()
        self._answer: Claim | Held | None = None
        self._has_left = False

    def give(self, answer: Claim | Held, _: Exception | None) -> None:
        """The worker's side."""
        with self._lock:
            self._answer = answer
            has_left = self._has_left
        if not has_left:
            try:
                self._loop.call_soon_threadsafe(self._settle, answer)
            except RuntimeError:  # The loop was closed.
                self.leave()
        elif isinstance(answer, Claim) and answer.token:
            self._give_back(answer)

    def leave(self) -> None:
        """Nobody waits any more."""
        with self._lock:
            has_left, self._has_left = self._has_left, True
            answer = self._answer
        if not has_left and isinstance(answer, Claim) and answer.token:
            self._give_back(answer)

    def _settle(self, answer: Claim | Held) -> None:
        if not self.future.done():
            self.future.set_result(answer)


JOIN_S: Final = 5.0


def new_lanes(engine: Engine) -> list[Lane]:
    """One for reads, and one for what would hold them up."""
    return [Lane("cachemesh-sqlite-reader", engine.read_turn), Lane("cachemesh-sqlite-browser", one_by_one)]


def let_go(engine: Engine, lanes: list[Lane]) -> None:
    """Nobody has the store any more. This may run in any thread, at any moment."""
    for lane in lanes:
        lane.stop()
    worker = engine.worker
    if worker is not None:
        worker.stop()
    elif engine.io.acquire(blocking=False):
        try:
            engine.close()
            engine.file.lock.close()
        finally:
            engine.io.release()


def tell_overtaken(
    overtaken: Callable[[], object],
    complaints: Complaints,
    is_kept: bool | None,  # noqa: FBT001 (an `Answer`)
    error: Exception | None,
) -> None:
    """The answer to a commit that nobody waits for. What is made of it is not to end the thread that writes."""
    del error
    if is_kept is not False:
        return
    try:
        overtaken()
    except Exception as raised:  # noqa: BLE001 (whatever it is, it is told, and writing goes on)
        complaints.tell(SqliteStoreError(f"who was told of a commit raised {type(raised).__name__}"))


def answering(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> Callable[[Any, Exception | None], None]:
    """Settles `future` from another thread."""

    def settle(answer: object, error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(answer)
        else:
            future.set_exception(error)

    def answer(answer: object, error: Exception | None) -> None:
        try:
            loop.call_soon_threadsafe(settle, answer, error)
        except RuntimeError:  # The loop was closed: nobody waits any more.
            return

    return answer
