"""`RedisStore`: entries on a server that many processes share."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import weakref
from collections import Counter
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import structs

from cachemesh.shell.ports import Claim, News, NewsKind, StoredEntry
from cachemesh.stores.envelope import (
    DamagedEnvelopeError,
    KeyUnavailableError,
    LockedEnvelopeError,
    WaitingCipher,
    opened,
    opened_for,
    sealed,
)
from cachemesh.stores.marks import MOST_MARKS
from cachemesh.stores.redis import scripts
from cachemesh.stores.redis.batch import Batcher
from cachemesh.stores.redis.browse import pages
from cachemesh.stores.redis.bus import Bus
from cachemesh.stores.redis.complaints import Complaints
from cachemesh.stores.redis.doctor import examined, info_of, server_of
from cachemesh.stores.redis.errors import ServerRefusedError
from cachemesh.stores.redis.layout import (
    COUNTER_SIZE,
    ENTRY,
    HEADER_SIZE,
    NO_COUNTER,
    PLACEHOLDER,
    STAMP_SIZE,
    Glance,
    Header,
    Layout,
    glance_of,
    header_of,
    mark_name,
)
from cachemesh.stores.redis.messages import packed
from cachemesh.stores.redis.settings import Settings
from cachemesh.stores.redis.source import source_of
from cachemesh.stores.redis.sweep import Sweeper
from cachemesh.stores.redis.view import View, Views, new_marks
from cachemesh.stores.report import Finding, Level, StoreStats

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence

    from cachemesh.core.scopes import Owner
    from cachemesh.stores.envelope import Cipher
    from cachemesh.stores.redis.orders import Reply
    from cachemesh.stores.redis.source import Client

Found: TypeAlias = "tuple[Owner | None, str | None, bytes | None]"
"""A record, and under whom and what it was found; (None) wherever it says itself."""

MOST_REMEMBERED: Final = 10_000
"""Headers of what was read last: who claims what has been stored since need not fetch it."""

PLACEHOLDER_S: Final = 3_600.0
"""For so long a fetch of what is not there may take, to be stored after it."""

POLL_S: Final = (0.01, 0.05)
"""Between two looks at somebody else's lease."""

EVERYTHING: Final = mark_name((None, None), is_soft=False)
UNKNOWN: Final = b"?"

SHORTEST_S: Final = 60.0
"""What is written is kept for so long at least: the clocks of servers jump."""


class RedisStore:
    """Keeps entries on a Valkey or Redis server, for as many processes as there are.

    `url_or_client`: `redis://`, `rediss://`, `valkey://`, `valkeys://`, `unix://`;
    of a cluster `redis+cluster://host:port,host:port`; with Sentinel
    `redis+sentinel://host:port,host:port/service`; or a client of redis-py,
    whose settings are taken (it is not used itself). Durations are in seconds.
    `cipher` encrypts what is on the server; what clears a partition has it
    destroy the partition's key.
    `timeout`: no call takes longer, but for a `claim` that waits. `lease`: how
    long one process may keep the others waiting for its fetch; None is not at
    all. `max_age`: what has no windows of its own is kept for so long.
    `ping_interval`: a server that has said nothing for so long is asked whether
    it is there; `memory_cap`: how often listeners are told that nothing is to
    be believed while it isn't. Bad settings raise here; a server that is not
    there raises in each call. `rediss://` checks the server's certificate
    (`?ssl_ca_certs=PATH` names who is trusted); `rights.RIGHTS` is what a user of
    the server must be allowed to do.
    """

    def __init__(  # noqa: PLR0913 (settings, by keyword)
        self,
        url_or_client: str | Client,
        *,
        namespace: str = "cachemesh",
        timeout: float = 0.5,
        lease: float | None = 10.0,
        max_age: float = 30 * 86_400.0,
        cipher: Cipher | None = None,
        memory_cap: float = 10.0,
        ping_interval: float = 5.0,
    ) -> None:
        self._settings = Settings(
            namespace=namespace,
            timeout=timeout,
            lease=lease,
            max_age=max_age,
            memory_cap=memory_cap,
            ping_interval=ping_interval,
        )
        self._source = source_of(url_or_client)
        self._cipher = cipher
        self._at_hand = cipher.at_hand if isinstance(cipher, WaitingCipher) else cipher
        """What does not hold up the event loop."""
        self._layout = Layout(namespace)
        self._views = Views()
        self._remembered: dict[bytes, bytes] = {}
        self._complaints = Complaints()
        self._bus = Bus(self._source, self._layout.channel, self._settings, self._complaints)
        self._sweepers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Sweeper] = weakref.WeakKeyDictionary()
        self._batchers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Batcher] = weakref.WeakKeyDictionary()
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"RedisStore({self._source!r}, namespace={self._settings.namespace!r})"

    # Reading

    async def read(self, owner: Owner, key: str) -> StoredEntry | None:
        """The entry last written under (owner, key), expired or not."""
        batcher = self._batcher()
        name = self._layout.entry(owner, key)
        found = await batcher.read((name,))
        view = await self._view(batcher, glance_of(found.head))
        record = found.records[0]
        self._remember(name, b"" if record is None else record[:HEADER_SIZE])
        if record is None or view is None:
            return None
        try:
            return self._judged(owner, key, record, view, self._at_hand)
        except LockedEnvelopeError:
            (entry,) = await self._all_judged([(owner, key, record)], view)
            return entry

    async def read_many(self, places: Sequence[tuple[Owner, str]], /) -> Sequence[StoredEntry | None]:
        """What `read` answers to each of `places`, in one go."""
        if not places:
            return []
        batcher = self._batcher()
        names = [self._layout.entry(*place) for place in places]
        found = await batcher.read(names)
        view = await self._view(batcher, glance_of(found.head))
        for name, record in zip(names, found.records, strict=True):
            self._remember(name, b"" if record is None else record[:HEADER_SIZE])
        return await self._all_judged(
            [(owner, key, record) for (owner, key), record in zip(places, found.records, strict=True)], view
        )

    async def keys(self, owner: Owner) -> Collection[str]:
        """The keys of one owner."""
        return [entry.key async for entry in self._all(owner)]

    async def scan(self) -> AsyncIterator[StoredEntry]:
        """Every entry, expired or not, in no particular order."""
        async for entry in self._all(None):
            yield entry

    async def _all(self, owner: Owner | None) -> AsyncIterator[StoredEntry]:
        """The entries of `owner`, or all of them."""
        async for entry, _ in self._records(owner):
            if entry is not None:
                yield entry

    async def _records(self, owner: Owner | None) -> AsyncIterator[tuple[StoredEntry | None, bytes]]:
        """What is there of `owner`, or of all, with the entry in it, if there is one."""
        batcher = self._batcher()
        async for names in pages(batcher, self._layout.pattern(owner)):
            found = await batcher.read(names)
            view = await self._view(batcher, glance_of(found.head))
            records = [(None, None, record) for record in found.records]
            entries = await self._all_judged(records, view)
            for name, record, entry in zip(names, found.records, entries, strict=True):
                # An entry that lies under another name than its own is not to be believed.
                is_right = entry is not None and name == self._layout.entry(entry.owner, entry.key)
                if record is not None:
                    yield entry if is_right else None, record

    # Looking at it from outside

    async def stats(self) -> StoreStats:
        """How much it holds. `size_bytes` is that of the records, whoever may still read them."""
        by_scope: Counter[str] = Counter()
        failures = placeholders = size = 0
        async for entry, record in self._records(None):
            size += len(record)
            placeholders += record[:1] == PLACEHOLDER
            if entry is not None:
                by_scope[entry.owner[0].value] += 1
                failures += entry.is_failure
        batcher = self._batcher()
        addresses = await batcher.primaries()
        infos = [await info_of(batcher, address) for address in addresses]
        kind, version = server_of(infos[0])
        return StoreStats(
            by_scope.total(),
            failures,
            placeholders,
            size,
            dict(by_scope),
            {
                "server": f"{kind} {version}",
                "mode": self._source.kind,
                "servers": len(addresses),
                "server_memory_bytes": sum(int(info.get("used_memory", 0)) for info in infos),
                "marks": len(self._views.present.marks),
                "connections": batcher.connections,
            },
        )

    async def doctor(self) -> Sequence[Finding]:
        """What is well with it, and what is not."""
        findings = await examined(self._batcher(), self._settings.timeout)
        if self._bus.is_subscribed:
            findings.append(Finding(Level.OK, "news", "We hear what other processes do."))
        elif self._bus.has_listeners:
            text = "We do not hear what other processes do; nothing in memory is believed for long."
            findings.append(Finding(Level.WARNING, "news", text))
        else:
            findings.append(Finding(Level.NOTE, "news", "Nobody here wants to hear what other processes do."))
        return findings

    async def _all_judged(self, found: Sequence[Found], view: View | None) -> list[StoredEntry | None]:
        """The entries in records, in a thread where a cipher has to wait for its keys."""
        entries: list[StoredEntry | None] = [None] * len(found)
        locked: list[int] = []
        why = ""
        for number, (owner, key, record) in enumerate(found):
            if record is not None and view is not None:
                try:
                    entries[number] = self._judged(owner, key, record, view, self._at_hand)
                except LockedEnvelopeError as error:
                    locked.append(number)
                    why = str(error)
        if not locked:
            return entries
        if self._at_hand is self._cipher:
            self._complaints.log("an entry of the store cannot be read: %s", why)
            return entries
        assert view is not None
        judged = await asyncio.to_thread(self._judged_patiently, [found[number] for number in locked], view)
        for number, entry in zip(locked, judged, strict=True):
            entries[number] = entry
        return entries

    def _judged_patiently(self, found: Sequence[Found], view: View) -> list[StoredEntry | None]:
        """The same in a thread that may wait."""
        entries: list[StoredEntry | None] = []
        for owner, key, record in found:
            assert record is not None
            try:
                entries.append(self._judged(owner, key, record, view, self._cipher))
            except LockedEnvelopeError as error:
                self._complaints.log("an entry of the store cannot be read: %s", error)
                entries.append(None)
        return entries

    def _judged(
        self, owner: Owner | None, key: str | None, record: bytes, view: View, cipher: Cipher | None
    ) -> StoredEntry | None:
        """The entry in a record that was found under (owner, key), or (None) wherever it says itself."""
        header = header_of(record)
        if header is None or header.kind not in {ENTRY, PLACEHOLDER}:
            self._damaged("no record of this format")
            return None
        if header.kind == PLACEHOLDER or header.counter != view.counter:
            return None
        try:
            envelope, namespace = record[HEADER_SIZE:], self._settings.namespace
            if owner is None or key is None:
                entry = opened(envelope, namespace, cipher)
            else:
                entry = opened_for(envelope, namespace, owner, key, cipher)
        except DamagedEnvelopeError as error:
            if owner is not None and view.marks.is_over(owner, header.generation):
                return None  # Its key may be gone as well, and there is nothing wrong about that.
            if isinstance(error, LockedEnvelopeError):
                raise
            self._damaged(str(error))
            return None
        if entry.generation != header.generation:
            self._damaged("of another generation")
            return None
        return view.marks.applied(entry)

    def _remember(self, name: bytes, header: bytes) -> None:
        remembered = self._remembered
        remembered[name] = header
        if len(remembered) > MOST_REMEMBERED:
            remembered.pop(next(iter(remembered)), None)

    async def _view(self, batcher: Batcher, glance: Glance | None) -> View | None:
        """What is known of the marks, which is all that `glance` speaks of; None where there is no counter."""
        if glance is None:
            return None
        view = self._views.present
        if view.covers(glance):
            return view
        told = bytes_of(
            await batcher.run(scripts.MARKS, self._layout.counter, fresh_id(), view.counter, b"%016d" % view.last_mark),
            at_least=2,
        )
        counter, last_mark, *marks = told
        return self._views.learn(counter, int(last_mark), new_marks(marks))

    # Writing

    async def write(self, entry: StoredEntry) -> None:
        """Keep `entry` in place of what was there."""
        batcher = self._batcher()
        counter, generation = bytes_of(await batcher.run(scripts.DRAW, self._layout.counter, fresh_id()), at_least=2)
        name = self._layout.entry(entry.owner, entry.key)
        record = await self._record(entry, counter, int(generation))
        reply = await batcher.run(
            scripts.PUT,
            (name, self._layout.lease(name)),
            record,
            b"%d" % HEADER_SIZE,
            self._lifetime_ms(entry),
            *scripts.HEADER,
            self._layout.channel,
            packed(News(NewsKind.CHANGED, entry.owner, entry.key), self._bus.node),
        )
        if reply == 1:
            self._remember(name, record[:HEADER_SIZE])

    async def delete(self, owner: Owner, key: str) -> None:
        """Forget what is under (owner, key), if anything is."""
        batcher = self._batcher()
        name = self._layout.entry(owner, key)
        await asyncio.gather(
            batcher.run(scripts.DRAW, self._layout.counter, fresh_id()),
            batcher.run(
                scripts.DELETE,
                (name, self._layout.lease(name)),
                self._layout.channel,
                packed(News(NewsKind.CHANGED, owner, key), self._bus.node),
            ),
        )

    async def clear_partition(self, owner: Owner) -> None:
        """Forget all of one owner."""
        await self._clear(owner)

    async def clear(self) -> None:
        """Forget everything."""
        await self._clear(None)

    async def _clear(self, owner: Owner | None) -> None:
        counter, generation = await self._mark(owner, None, None, News(NewsKind.CLEARED, owner))
        sweeper = self._sweepers.get(asyncio.get_running_loop())
        if sweeper is not None:
            sweeper.sweep(self._layout.pattern(owner), counter, generation)
        if self._cipher is not None:
            await asyncio.to_thread(self._cipher.forget, owner)

    async def mark_tag(self, owner: Owner | None, tag: str, stale_at: float | None) -> None:
        """What bears `tag`, of `owner` or (None) of all, is gone; or stale from `stale_at` on (since the epoch)."""
        await self._mark(owner, tag, stale_at, News(NewsKind.MARKED, owner, None, tag, stale_at))

    async def _mark(
        self, owner: Owner | None, tag: str | None, stale_at: float | None, news: News
    ) -> tuple[bytes, int]:
        """The counter, and the generation that begins with the mark."""
        reply = await self._batcher().run(
            scripts.MARK,
            self._layout.counter,
            fresh_id(),
            mark_name((owner, tag), is_soft=stale_at is not None),
            b"" if stale_at is None else repr(stale_at).encode(),
            EVERYTHING,
            b"%d" % MOST_MARKS,
            self._layout.channel,
            packed(news, self._bus.node),
        )
        counter, generation = bytes_of(reply, at_least=2)
        return counter, int(generation)

    async def _record(self, entry: StoredEntry, counter: bytes, generation: int) -> bytes:
        header = Header(ENTRY, counter, generation, fresh_stamp())
        bound = structs.replace(entry, generation=generation)
        namespace = self._settings.namespace
        try:
            return header.packed() + sealed(bound, namespace, self._at_hand)
        except KeyUnavailableError:
            if self._at_hand is self._cipher:
                raise
        return header.packed() + await asyncio.to_thread(sealed, bound, namespace, self._cipher)

    def _lifetime_ms(self, entry: StoredEntry) -> bytes:
        """How long the server keeps it. What is expired is still read, so that is its whole life and not its ttl."""
        windows = [window for window in (entry.serve_stale_s, entry.stale_if_error_s) if window is not None]
        seconds = self._settings.max_age
        if windows and entry.ttl_s is not None:
            seconds = min(seconds, max(SHORTEST_S, entry.ttl_s + max(windows)))
        return b"%d" % max(1, int(seconds * 1000))

    # One fetch at a time

    async def claim(self, owner: Owner, key: str, *, waits: bool, knows_none: bool = False) -> Claim:
        """Before a fetch of (owner, key). With `waits`: first wait for another process that is fetching it."""
        batcher = self._batcher()
        name = self._layout.entry(owner, key)
        lease = self._settings.lease if waits else None
        token = b"" if lease is None else secrets.token_bytes(16)
        seen = UNKNOWN
        if waits:
            seen = b"" if knows_none else self._remembered.get(name, UNKNOWN)
        placeholder = Header(PLACEHOLDER, NO_COUNTER, 0, fresh_stamp()).packed()
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + (lease or 0.0)
        while True:
            current, answer = await asyncio.gather(
                batcher.run(scripts.CURRENT, self._layout.counter, fresh_id()),
                batcher.run(
                    scripts.CLAIM,
                    (name, self._layout.lease(name)),
                    token,
                    b"%d" % ((lease or 0.0) * 1000),
                    seen,
                    placeholder,
                    b"%d" % (PLACEHOLDER_S * 1000),
                ),
            )
            counter, generation, last_mark = bytes_of(current, at_least=3)
            verdict, header, *history = bytes_of(answer, at_least=2)
            if verdict == b"granted":
                return Claim(owner, key, int(generation), token, fence=counter + header + history[0])
            if verdict == b"found":
                record, header = header, header[:HEADER_SIZE]
                view = await self._view(batcher, Glance(counter, int(last_mark)))
                (found,) = await self._all_judged([(owner, key, record)], view)
                if found is not None:
                    return Claim(owner, key, int(generation), found=found)
                seen = header
                continue
            seen = header if seen == UNKNOWN else seen
            if loop.time() >= ends_at:
                # It goes from one to the next; better twice than never.
                token = b""
                continue
            await asyncio.sleep(self._pause_s())

    def _pause_s(self) -> float:
        """Before the next look at somebody else's lease."""
        return random.uniform(*POLL_S)  # noqa: S311 (so that not all look at once)

    async def commit(self, entry: StoredEntry, claim: Claim) -> bool:
        """Keep what was fetched, and give up the lease. False: the claim is too old, and nothing was kept."""
        counter, seen, history = fence_of(claim)
        name = self._layout.entry(claim.owner, claim.key)
        try:
            record = await self._record(entry, counter, claim.generation)
        except KeyUnavailableError:
            await self.release(claim)
            raise
        reply = await self._batcher().run(
            scripts.COMMIT,
            (name, self._layout.lease(name)),
            claim.token,
            seen,
            history,
            record,
            b"%d" % HEADER_SIZE,
            self._lifetime_ms(entry),
            self._layout.channel,
            packed(News(NewsKind.CHANGED, entry.owner, entry.key), self._bus.node),
        )
        if reply != 1:
            return False
        self._remember(name, record[:HEADER_SIZE])
        return True

    async def release(self, claim: Claim) -> None:
        """Nothing was fetched: give up the lease."""
        _, seen, _ = fence_of(claim)
        name = self._layout.entry(claim.owner, claim.key)
        await self._batcher().run(scripts.RELEASE, (name, self._layout.lease(name)), claim.token, seen)

    # What others do

    def listen(self, hear: Callable[[News], None], /) -> Callable[[], None]:
        """Call `hear` for all that other processes do from now on, from a thread of the store's. The answer ends it.

        A bound method is held weakly.
        """
        return self._bus.listen(hear)

    # Coming and going

    async def flush(self) -> None:
        """What was written is at the server when a call returns. What it does with it is a matter of its settings."""

    async def aclose(self) -> None:
        """Let go of connections. Used again, it opens anew."""
        loop = asyncio.get_running_loop()
        sweeper, batcher = self._sweepers.pop(loop, None), self._batchers.pop(loop, None)
        if sweeper is not None:
            sweeper.close()
        if batcher is not None:
            await batcher.aclose()
        await self._bus.aclose()

    def _batcher(self) -> Batcher:
        """That of the running event loop."""
        if os.getpid() != self._pid:
            self._forked()
        loop = asyncio.get_running_loop()
        batcher = self._batchers.get(loop)
        if batcher is None:
            batcher = self._batchers[loop] = Batcher(self._source, self._layout.head, self._settings.timeout)
            self._sweepers[loop] = Sweeper(batcher, self._layout, PLACEHOLDER_S, self._complaints)
            self._bus.resume()
        return batcher

    def _forked(self) -> None:
        """We are a child: the connections are the parent's."""
        self._batchers = weakref.WeakKeyDictionary()
        self._views = Views()
        self._pid = os.getpid()

    def _damaged(self, why: str) -> None:
        self._complaints.log("an entry of the store is not to be believed: %s", why)


def fence_of(claim: Claim) -> tuple[bytes, bytes, bytes]:
    """What the claim remembers of the server: its counter, the header that was there, its history."""
    header_to = COUNTER_SIZE + HEADER_SIZE
    return claim.fence[:COUNTER_SIZE], claim.fence[COUNTER_SIZE:header_to], claim.fence[header_to:]


def fresh_id() -> bytes:
    """For a counter, should there be none."""
    return secrets.token_hex(COUNTER_SIZE // 2).encode()


def fresh_stamp() -> bytes:
    return secrets.token_hex(STAMP_SIZE // 2).encode()


def bytes_of(reply: Reply, *, at_least: int) -> list[bytes]:
    """The answer of a script that answers with several strings."""
    if isinstance(reply, list) and len(reply) >= at_least and all(type(each) is bytes for each in reply):
        return reply
    msg = "an answer of another kind"
    raise ServerRefusedError(msg)
