"""What other processes did, heard on a connection of its own, in a thread of its own.

A connection that has said nothing for half of `ping_interval` is asked whether
it is still there, and given up when it says nothing for the other half. From
then on until there is another one, and once more when there is, listeners are
told that news may be lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, cast

from cachemesh.shell.ports import News, NewsKind
from cachemesh.stores.redis.fleet import fleet_of
from cachemesh.stores.redis.messages import NODE_SIZE, unpacked
from cachemesh.stores.redis.orders import NO_SLOT, packed
from cachemesh.stores.redis.replies import ProtocolError, Reader
from cachemesh.stores.redis.wire import writer_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachemesh.stores.redis.complaints import Complaints
    from cachemesh.stores.redis.fleet import Fleet
    from cachemesh.stores.redis.settings import Settings
    from cachemesh.stores.redis.source import Address, Source

    Hear = Callable[[News], None]

LOST: Final = News(NewsKind.LOST)

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 2.0
"""Between two attempts to connect: twice as long each time, and a random part of that."""

PING: Final = packed((b"PING",))


class Bus:
    """One channel, and those who listen to it. `node`: who we are; what we did ourselves is no news."""

    def __init__(self, source: Source, channel: bytes, settings: Settings, complaints: Complaints) -> None:
        self._source = source
        self._channel = channel
        self.node = secrets.token_bytes(NODE_SIZE)
        self._timeout_s = settings.timeout
        self._ping_interval_s = settings.ping_interval
        self._memory_cap_s = settings.memory_cap
        self._complaints = complaints
        self._lock = threading.Lock()
        self._listeners: dict[int, Callable[[], Hear | None]] = {}
        self._last_number = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self.is_subscribed = False
        _BUSES.add(self)

    def listen(self, hear: Hear) -> Callable[[], None]:
        """Call `hear` from now on. A bound method is held weakly, so that whoever listens may be forgotten."""
        bound = getattr(hear, "__self__", None) is not None and hasattr(hear, "__func__")
        reference: Callable[[], Hear | None] = weakref.WeakMethod(hear) if bound else lambda: hear
        with self._lock:
            self._last_number += 1
            number = self._last_number
            self._listeners[number] = reference
            self._start()
        return lambda: self._forget(number)

    def resume(self) -> None:
        """Listen again, if anybody still wants to hear and nobody listens."""
        with self._lock:
            if self._is_wanted():
                self._start()

    async def aclose(self) -> None:
        """Stop listening. Who listens is remembered."""
        with self._lock:
            thread = self._thread
            end(self._loop, self._stop)
        while thread is not None and thread.is_alive():  # noqa: ASYNC110 (a thread sets no event of ours when it ends)
            await asyncio.sleep(0.002)

    def _forget(self, number: int) -> None:
        with self._lock:
            self._listeners.pop(number, None)
            if not self._listeners:
                end(self._loop, self._stop)

    @property
    def has_listeners(self) -> bool:
        return bool(self._listeners)

    def _is_wanted(self) -> bool:
        self._listeners = {number: each for number, each in self._listeners.items() if each() is not None}
        return bool(self._listeners)

    def after_fork(self) -> None:
        """We are a child: the thread and its connection are the parent's, and its lock may be held for ever."""
        self._lock = threading.Lock()
        self.node = secrets.token_bytes(NODE_SIZE)
        self._thread = self._loop = self._stop = None
        self.is_subscribed = False
        self.resume()

    # In the thread

    def _start(self) -> None:
        if self._thread is None:
            self._stop = asyncio.Event()
            self._thread = threading.Thread(target=self._run, name="cachemesh-redis-bus", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            asyncio.run(self._listen())
        finally:
            self.is_subscribed = False
            with self._lock:
                was_stopped = self._stop is not None and self._stop.is_set()
                self._thread = self._loop = self._stop = None
                if self._is_wanted() and not was_stopped:
                    self._start()

    async def _listen(self) -> None:
        stop = self._stop
        assert stop is not None
        with self._lock:
            self._loop = asyncio.get_running_loop()
        fleet = fleet_of(self._source)
        failures = 0
        told_at = -self._memory_cap_s
        while not stop.is_set() and self._has_listeners():
            ear = await self._subscribed(fleet)
            if ear is not None:
                failures = 0
                self._tell(LOST)
                self.is_subscribed = True
                await self._hear(ear, fleet, stop)
                self.is_subscribed = False
                ear.close()
                if stop.is_set() or not self._has_listeners():
                    break
                self._tell(LOST)
                told_at = time.monotonic()
            elif time.monotonic() - told_at >= self._memory_cap_s:
                self._tell(LOST)
                told_at = time.monotonic()
            failures += 1
            longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**failures, self._memory_cap_s)
            await waited(stop, random.uniform(FIRST_PAUSE_S, max(FIRST_PAUSE_S, longest)))  # noqa: S311 (not all at once)

    def _has_listeners(self) -> bool:
        with self._lock:
            return self._is_wanted()

    async def _subscribed(self, fleet: Fleet) -> Ear | None:
        """A connection on which news arrive; None where there is none to be had."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await fleet.learn()
                address = fleet.address(NO_SLOT)
                ear = Ear(await writer_of(fleet.connection(address)), address, self._heard)
                try:
                    ear.write(packed((b"SUBSCRIBE", self._channel)))
                    await ear.is_subscribed
                except BaseException:
                    ear.close()
                    raise
                return ear
        except Exception as error:  # noqa: BLE001 (whatever it is, there is no connection)
            self._complaints.log("no connection to hear of other processes: %s", type(error).__name__)
            return None

    async def _hear(self, ear: Ear, fleet: Fleet, stop: asyncio.Event) -> None:
        """Until the connection is lost, or nobody wants to hear any more."""
        half = self._ping_interval_s / 2
        stopping = asyncio.create_task(waiting(stop))
        try:
            while not stop.is_set() and self._has_listeners():
                await asyncio.wait({stopping, ear.is_lost}, timeout=half / 2, return_when=asyncio.FIRST_COMPLETED)
                silent_s = time.monotonic() - ear.heard_at
                if ear.is_lost.done() or silent_s >= self._ping_interval_s:
                    return
                if silent_s >= half and not ear.is_asked:
                    ear.is_asked = True
                    ear.write(PING)
                    if not await self._is_vouched_for(ear, fleet):
                        return
        finally:
            stopping.cancel()

    async def _is_vouched_for(self, ear: Ear, fleet: Fleet) -> bool:
        """Whether the others still count the server in: one that is cut off from them answers, and hears nothing."""
        try:
            async with asyncio.timeout(min(self._timeout_s, self._ping_interval_s / 2)):
                return await fleet.vouches_for(ear.address)
        except Exception:  # noqa: BLE001 (nobody answers: that is what the ping is for)
            return True

    # What was heard

    def _heard(self, message: bytes) -> None:
        try:
            told = unpacked(message)
        except ValueError:
            self._complaints.log("a message of another process is damaged")
            return
        if told is None:
            return
        node, news = told
        # Ours is no news, unless several of us share the store.
        if node != self.node or len(self._listeners) > 1:
            self._tell(news)

    def _tell(self, news: News) -> None:
        with self._lock:
            listeners = list(self._listeners.values())
        for reference in listeners:
            hear = reference()
            if hear is None:
                continue
            try:
                hear(news)
            except Exception as error:  # noqa: BLE001 (the others are to hear it too)
                self._complaints.log("a listener raised %s", type(error).__name__)


class Ear(asyncio.Protocol):
    """A connection in the state of listening."""

    def __init__(self, writer: asyncio.StreamWriter, address: Address, heard: Callable[[bytes], None]) -> None:
        loop = asyncio.get_running_loop()
        self.address = address
        self.heard_at = time.monotonic()
        self.is_asked = False
        self.is_subscribed: asyncio.Future[None] = loop.create_future()
        self.is_lost: asyncio.Future[None] = loop.create_future()
        self._heard = heard
        self._reader = Reader()
        self._writer = writer
        self._transport = cast("asyncio.Transport", writer.transport)
        self._transport.set_protocol(self)

    def write(self, command: bytes) -> None:
        self._transport.write(command)

    def data_received(self, data: bytes) -> None:
        self.heard_at = time.monotonic()
        self.is_asked = False
        try:
            replies = self._reader.feed(data)
        except ProtocolError:
            self.close()
            return
        for reply in replies:
            match reply:
                case [b"message", bytes(), bytes(message)]:
                    self._heard(message)
                case [b"subscribe", *_]:
                    if not self.is_subscribed.done():
                        self.is_subscribed.set_result(None)
                case [b"pong", *_] | b"PONG":
                    pass
                case _:
                    # The server refuses.
                    self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.is_lost.done():
            self.is_lost.set_result(None)
        if not self.is_subscribed.done():
            self.is_subscribed.set_exception(exc or ConnectionResetError())

    def close(self) -> None:
        """Let go of it at once."""
        self._transport.abort()


async def waiting(stop: asyncio.Event) -> None:
    await stop.wait()


def end(loop: asyncio.AbstractEventLoop | None, stop: asyncio.Event | None) -> None:
    """Set `stop` in `loop`, which may not run yet, or not any more."""
    if stop is None:
        return
    if loop is None:
        stop.set()
        return
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(stop.set)


async def waited(stop: asyncio.Event, seconds: float) -> None:
    """Wait for `seconds`, or until `stop`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


_BUSES: Final[weakref.WeakSet[Bus]] = weakref.WeakSet()


def _after_fork() -> None:
    for bus in list(_BUSES):
        bus.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
