"""What processes hear of each other: over a real server, through a bad network, and from liars."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemesh.core.scopes import GLOBAL_OWNER, CacheScope, Owner
from cachemesh.shell.ports import Encoded, News, NewsKind, StoredEntry
from cachemesh.stores.redis import RedisStore
from cachemesh.stores.redis.layout import Layout
from cachemesh.stores.redis.messages import packed, unpacked
from cachemesh.stores.report import Level

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.stores.proxy import Proxy
    from tests.stores.servers import Server

ALICE: Final[Owner] = (CacheScope.USER, "alice")
LOST: Final = News(NewsKind.LOST)
CHANNEL: Final = Layout("cachemesh").channel


class Listener:
    """Remembers what it hears, and when."""

    def __init__(self) -> None:
        self.heard: list[News] = []
        self.at: list[float] = []

    def hear(self, news: News) -> None:
        self.heard.append(news)
        self.at.append(time.monotonic())

    async def until(self, is_so: Callable[[list[News]], bool], seconds: float = 10.0) -> float:
        """Wait until what was heard is as expected; how long that took."""
        started = time.monotonic()
        while not is_so(self.heard):
            assert time.monotonic() - started < seconds, self.heard
            await asyncio.sleep(0.005)
        return time.monotonic() - started

    async def until_subscribed(self) -> None:
        await self.until(lambda heard: LOST in heard)
        self.heard.clear()
        self.at.clear()


def entry(key: str = "k", *, owner: Owner = GLOBAL_OWNER) -> StoredEntry:
    return StoredEntry(owner, key, Encoded(b"1"), False, 1_000.0, 60.0, 1_060.0)  # noqa: FBT003 (a success)


def run(act: Callable[[RedisStore, RedisStore], Awaitable[None]], url: str, theirs: str, **settings: Any) -> None:
    """Run `act` on a store that listens at `url`, and another one at `theirs`."""

    async def acting() -> None:
        ours, others = RedisStore(url, **settings), RedisStore(theirs)
        try:
            await act(ours, others)
        finally:
            await ours.aclose()
            await others.aclose()

    asyncio.run(acting())


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "cachemesh-redis-bus"]


def test_all_changes_of_another_process_are_heard_and_ones_own_are_not(server: Server) -> None:
    async def act(ours: RedisStore, others: RedisStore) -> None:
        listener = Listener()
        ours.listen(listener.hear)
        await listener.until_subscribed()
        await ours.write(entry("own"))
        await ours.clear()
        await others.write(entry())
        await others.delete(ALICE, "\ud800")
        claim = await others.claim(ALICE, "fetched", waits=True)
        await others.commit(entry("fetched", owner=ALICE), claim)
        await others.clear_partition(ALICE)
        await others.clear()
        await others.mark_tag(ALICE, "t", 5.5)
        await others.mark_tag(None, "t", None)
        expected = [
            News(NewsKind.CHANGED, GLOBAL_OWNER, "k"),
            News(NewsKind.CHANGED, ALICE, "\ud800"),
            News(NewsKind.CHANGED, ALICE, "fetched"),
            News(NewsKind.CLEARED, ALICE),
            News(NewsKind.CLEARED),
            News(NewsKind.MARKED, ALICE, None, "t", 5.5),
            News(NewsKind.MARKED, None, None, "t"),
        ]
        await listener.until(lambda heard: len(heard) >= len(expected))
        assert listener.heard == expected
        assert (await ours.doctor())[-1].level is Level.OK

    run(act, server.url, server.url)


def test_a_commit_that_was_refused_is_no_news(server: Server) -> None:
    async def act(ours: RedisStore, others: RedisStore) -> None:
        listener = Listener()
        ours.listen(listener.hear)
        await listener.until_subscribed()
        claim = await others.claim(GLOBAL_OWNER, "k", waits=True)
        await others.delete(GLOBAL_OWNER, "k")
        assert not await others.commit(entry(), claim)
        await others.delete(GLOBAL_OWNER, "end")
        await listener.until(lambda heard: bool(heard) and heard[-1].key == "end")
        assert [news.key for news in listener.heard] == ["k", "end"]

    run(act, server.url, server.url)


def test_several_who_share_a_store_hear_of_each_other_in_one_thread(server: Server) -> None:
    async def act(ours: RedisStore, _others: RedisStore) -> None:
        listeners = [Listener() for _ in range(3)]
        ends = [ours.listen(listener.hear) for listener in listeners]
        await listeners[0].until_subscribed()
        assert len(threads()) == 1
        await ours.write(entry())
        for listener in listeners:
            await listener.until(lambda heard: News(NewsKind.CHANGED, GLOBAL_OWNER, "k") in heard)
        for end in ends:
            end()
            end()
        for _ in range(400):
            if not threads():
                break
            await asyncio.sleep(0.005)
        assert threads() == []

    run(act, server.url, server.url)


def test_a_listener_that_is_forgotten_takes_the_thread_with_it(server: Server) -> None:
    async def act(ours: RedisStore, _others: RedisStore) -> None:
        listener = Listener()
        ours.listen(listener.hear)
        await listener.until_subscribed()
        del listener
        gc.collect()
        for _ in range(400):
            if not threads():
                break
            await asyncio.sleep(0.005)
        assert threads() == []

    run(act, server.url, server.url, ping_interval=0.2)


def test_closed_and_used_again_it_listens_again(server: Server) -> None:
    async def act(ours: RedisStore, others: RedisStore) -> None:
        listener = Listener()
        ours.listen(listener.hear)
        await listener.until_subscribed()
        await ours.aclose()
        assert threads() == []
        await ours.read(GLOBAL_OWNER, "k")
        await listener.until_subscribed()
        await others.write(entry())
        await listener.until(lambda heard: News(NewsKind.CHANGED, GLOBAL_OWNER, "k") in heard)

    run(act, server.url, server.url)


def test_a_listener_that_raises_keeps_the_news_from_nobody(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async def act(ours: RedisStore, others: RedisStore) -> None:
        def fail(news: News) -> None:
            raise ValueError(news.key)

        ours.listen(fail)
        listener = Listener()
        ours.listen(listener.hear)
        await listener.until_subscribed()
        for number in range(5):
            await others.write(entry(f"secret{number}"))
        await listener.until(lambda heard: len(heard) == 5)

    with caplog.at_level(logging.WARNING):
        run(act, server.url, server.url)
    assert [record.getMessage() for record in caplog.records] == ["a listener raised ValueError"]


# When the network is bad


def test_rd3_a_half_open_connection_is_noticed_within_two_ping_intervals(server: Server, proxy: Proxy) -> None:
    async def act(ours: RedisStore, others: RedisStore) -> None:
        listener = Listener()
        ours.listen(listener.hear)
        await listener.until_subscribed()
        await asyncio.sleep(0.5)  # Pings are answered: a quiet connection is not a lost one.
        assert listener.heard == []
        silent_at = time.monotonic()
        proxy.is_silent = True
        await listener.until(lambda heard: heard == [LOST])
        assert listener.at[0] - silent_at < 2 * 0.2
        # And while it lasts, again and again.
        await listener.until(lambda heard: len(heard) >= 4)
        assert listener.heard == [LOST] * len(listener.heard)
        pauses = [later - earlier for earlier, later in zip(listener.at[:3], listener.at[1:4], strict=True)]
        assert max(pauses) < 3 * 0.3
        assert (await ours.doctor())[-1].level is Level.WARNING
        proxy.is_silent = False
        await others.delete(GLOBAL_OWNER, "meanwhile")
        for _ in range(400):
            if ours._bus.is_subscribed:
                break
            await asyncio.sleep(0.01)
        await others.write(entry())
        await listener.until(lambda heard: heard[-1] == News(NewsKind.CHANGED, GLOBAL_OWNER, "k"))

    run(act, proxy.url, server.url, ping_interval=0.2, memory_cap=0.3, timeout=0.1)


@pytest.mark.parametrize("how", ["dropped", "killed", "restarted"])
def test_rd2_b31_a_lost_connection_is_told_at_once_and_once_more_when_there_is_another(
    server: Server, proxy: Proxy, how: str
) -> None:
    async def act(ours: RedisStore, others: RedisStore) -> None:
        listener = Listener()
        ours.listen(listener.hear)
        await listener.until_subscribed()
        lost_at = time.monotonic()
        if how == "dropped":
            proxy.drop()
        elif how == "killed":
            with server.client() as client:
                client.client_kill_filter(_type="pubsub")
        else:
            server.restart()
        await listener.until(lambda heard: heard[:2] == [LOST, LOST])
        assert listener.at[0] - lost_at < 1.0
        assert listener.at[1] - lost_at < 3.0
        await others.write(entry())
        await listener.until(lambda heard: heard[-1] == News(NewsKind.CHANGED, GLOBAL_OWNER, "k"))

    run(act, proxy.url, server.url)


def test_a_server_that_is_not_there_at_first_is_listened_to_when_it_is(server: Server, proxy: Proxy) -> None:
    async def act(ours: RedisStore, others: RedisStore) -> None:
        proxy.refuses = True
        listener = Listener()
        ours.listen(listener.hear)
        await listener.until(lambda heard: heard[:2] == [LOST, LOST])
        proxy.refuses = False
        for _ in range(1_000):
            if ours._bus.is_subscribed:
                break
            await asyncio.sleep(0.01)
        await others.write(entry())
        await listener.until(lambda heard: heard[-1] == News(NewsKind.CHANGED, GLOBAL_OWNER, "k"))

    run(act, proxy.url, server.url, memory_cap=0.2)


# What others may send


def test_forged_damaged_and_doubled_messages_do_no_harm(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    pack = msgspec.msgpack.encode
    real = packed(News(NewsKind.CHANGED, GLOBAL_OWNER, "k"), b"somebody")
    damaged = [
        b"",
        b"\x00",
        b"{}",
        b"\xc1" * 50,
        real[:-1],
        real + b"x",
        pack([1]),
        pack([1, b"node", "exploded", None, None, b"", None]),
        pack([1, b"node", "changed", None, None, b"", None]),
        pack([1, b"node", "changed", b"nobody", b"k", b"", None]),
        pack([1, b"node", "changed", b"g", b"\xff", b"", None]),
        pack([1, b"node", "marked", None, None, b"t", float("nan")]),
        pack({"format": 1}),
    ]
    of_others = [pack([2, "whatever"]), pack([99, b"node", "changed", b"g", b"k", b"", None, 1, 2, 3]), pack([0])]

    async def act(ours: RedisStore, others: RedisStore) -> None:
        listener = Listener()
        ours.listen(listener.hear)
        await listener.until_subscribed()
        await ours.write(entry())
        with server.client() as client:
            for message in (*damaged, *of_others, real, real):
                client.publish(CHANNEL, message)
            client.publish(b"another channel", real)
        await listener.until(lambda heard: len(heard) == 2)
        await others.delete(GLOBAL_OWNER, "end")
        await listener.until(lambda heard: heard[-1].key == "end")
        assert listener.heard == [
            *[News(NewsKind.CHANGED, GLOBAL_OWNER, "k")] * 2,
            News(NewsKind.CHANGED, GLOBAL_OWNER, "end"),
        ]
        found = await ours.read(GLOBAL_OWNER, "k")
        assert found is not None, "a message changes nothing at the server"

    with caplog.at_level(logging.WARNING):
        run(act, server.url, server.url)
    assert [record.getMessage() for record in caplog.records] == ["a message of another process is damaged"]


@given(st.binary(max_size=60))
def test_no_bytes_are_more_than_no_message(message: bytes) -> None:
    try:
        told = unpacked(message)
    except ValueError:
        return
    assert told is None or isinstance(told[1], News)


@given(
    st.sampled_from(NewsKind),
    st.none() | st.just(GLOBAL_OWNER) | st.builds(lambda user: (CacheScope.USER, user), st.text()),
    st.none() | st.text(),
    st.text(),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
def test_a_message_says_what_it_was_made_of(
    kind: NewsKind, owner: Owner | None, key: str | None, tag: str, stale_at: float | None
) -> None:
    news = News(kind, owner, key, tag, stale_at)
    if kind is NewsKind.CHANGED and (owner is None or key is None):
        return
    assert unpacked(packed(news, b"12345678")) == (b"12345678", news)


# Processes


def test_a_forked_child_hears_for_itself(server: Server) -> None:
    async def act(ours: RedisStore, others: RedisStore) -> None:
        listener = Listener()
        ours.listen(listener.hear)
        await listener.until_subscribed()
        parent, child = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=hear_in_child, args=(listener, child))
        process.start()
        assert await asyncio.to_thread(parent.recv) == "subscribed"
        await others.write(entry())
        await ours.write(entry("parent's"))
        assert await asyncio.to_thread(parent.recv) == ["k", "parent's"]
        await asyncio.to_thread(process.join)
        assert [news.key for news in listener.heard] == ["k"]

    run(act, server.url, server.url)


def hear_in_child(listener: Listener, pipe: Any) -> None:
    ends_at = time.monotonic() + 10.0
    while LOST not in listener.heard and time.monotonic() < ends_at:
        time.sleep(0.005)
    # Told when it is subscribed: from now on it misses nothing.
    pipe.send("subscribed")
    while len(listener.heard) < 3 and time.monotonic() < ends_at:
        time.sleep(0.005)
    pipe.send([news.key for news in listener.heard[1:]])
