"""Scenarios of several caches that hear of each other: what is lost, late, doubled, forged, or flushed away."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from returns.result import Failure, Result, Success

from cachemesh import Cache, CacheScope, SyncCache
from cachemesh.core.scopes import GLOBAL_OWNER
from cachemesh.shell import health
from cachemesh.shell.ports import News, NewsKind
from cachemesh.shell.runtime import Runtime
from cachemesh.simulation.fleet import Faults, Step, assert_sound, run_fleet
from cachemesh.stores.redis import RedisStore
from cachemesh.stores.redis.layout import Layout
from cachemesh.stores.redis.messages import packed
from tests.stores.servers import Server
from tests.stores.test_shared_stores import Heard, until

if TYPE_CHECKING:
    from tests.stores.proxy import Proxy
    from tests.stores.worlds import OnServer

SLOW: Final = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
SEEDS: Final = st.integers(0, 2**32)
CALM: Final = Faults(lost=0.0, doubled=0.0, partitions=False, swizzle=False, kills=False, restarts=False)
SWIZZLED: Final = Faults(lost=0.0, partitions=False, kills=False, restarts=False)


@given(SEEDS)
@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
def test_rd1_what_was_read_before_an_invalidation_never_comes_into_memory_after_it(seed: int) -> None:
    """Replies of the store and of the origin arrive in any order, and the news between, before and after them."""
    assert_sound(run_fleet(seed, nodes=3, steps=30, faults=CALM))


@given(SEEDS)
@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
def test_rd4_lost_doubled_and_disordered_news_bring_no_older_version_back(seed: int) -> None:
    assert_sound(run_fleet(seed, nodes=3, steps=30, faults=replace(CALM, lost=0.05, doubled=0.2)))


def test_rd1_a_node_that_is_deaf_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation itself can fail."""
    monkeypatch.setattr(Runtime, "hear", lambda self, news: None)  # noqa: ARG005 (it hears nothing)
    steps = [Step(0.0, "ask", 0, "a"), Step(2.0, "invalidate", 1, "a"), Step(1.0, "ask", 0, "a")]
    report = run_fleet(0, nodes=2, faults=replace(CALM, origin_fails=0.0), schedule=steps)
    with pytest.raises(AssertionError, match="nothing from before a removal"):
        assert_sound(report)


def test_rd1_on_a_slow_network_no_read_brings_back_what_was_invalidated(proxy: Proxy, server: Server) -> None:
    origin = 1

    async def fetch() -> Result[int, str]:
        return Success(origin)

    async def main() -> None:
        nonlocal origin
        near, far = Cache(store=RedisStore(server.url)), Cache(store=RedisStore(proxy.url, timeout=2.0))
        for cache in (near, far):
            await cache.get("k", fetch, ttl=60)
            while not cache._runtime._backplane._bus.is_subscribed:  # type: ignore[union-attr]  # noqa: ASYNC110 (a thread sets it)
                await asyncio.sleep(0.01)
        proxy.jitter_s = 0.03
        for _ in range(40):
            asked = [asyncio.ensure_future(far.get("k", fetch, ttl=60)) for _ in range(3)]
            await asyncio.sleep(random.uniform(0.0, 0.03))
            origin += 1
            near.invalidate("k")
            await near.flush()
            await asyncio.gather(*asked)
        proxy.jitter_s = 0.0
        await asyncio.sleep(0.15)  # What is still under way arrives.
        assert far.peek("k").value_or(origin) == origin
        assert await far.get("k", fetch, ttl=60) == Success(origin)
        await far.aclose()
        await near.aclose()

    asyncio.run(main())


def test_rd4_when_no_message_arrives_memory_is_believed_no_longer_than_its_cap(proxy: Proxy, server: Server) -> None:
    """The connection is half-open: all that is published is lost. After two ping intervals everything is forgotten."""
    ping_s, cap_s = 0.4, 0.3
    with (
        SyncCache(store=RedisStore(server.url)) as near,
        SyncCache(store=RedisStore(proxy.url, ping_interval=ping_s, memory_cap=cap_s, timeout=0.2)) as far,
    ):
        for cache in (near, far):
            cache.get("k", lambda: Success(1), ttl=60)
            until(lambda cache=cache: cache._runtime._backplane._bus.is_subscribed)  # type: ignore[misc]
        until(lambda: far.get("k", lambda: Success(1), ttl=60) == Success(1) == far.peek("k"))
        proxy.is_silent = True
        for version in range(2, 12):
            near.put("k", version, ttl=60)
            near.flush()
        began = time.monotonic()
        until(lambda: far.peek("k") != Success(1))
        assert time.monotonic() - began <= 2 * ping_s + cap_s
        # As long as nothing is heard, nothing is believed for longer than the cap.
        far.get("k", lambda: Success("fetched"), ttl=60)
        until(lambda: isinstance(far.peek("k"), Failure))
        proxy.is_silent = False
        proxy.drop()
        until(lambda: far._runtime._backplane._bus.is_subscribed)  # type: ignore[union-attr]
        until(lambda: far.get("k", lambda: Success(11), ttl=60) == Success(11))


@given(SEEDS)
@settings(max_examples=25, deadline=None, suppress_health_check=SLOW)
def test_rd12_after_each_node_was_cut_off_for_a_while_all_agree(seed: int) -> None:
    """Swizzle-clog (FoundationDB): nodes are cut off one after the other, and come back in another order."""
    assert_sound(run_fleet(seed, nodes=5, steps=40, faults=SWIZZLED))


# A server that goes


def test_rd5_restarts_and_flushes_cost_no_answer(server_world: OnServer) -> None:
    server, asker = server_world.server, server_world.new()
    asker.get("k", Success(0), ttl=60)
    for turn in range(6):
        if turn % 3 == 0:
            server.empty()
        elif turn % 3 == 1:
            server.kill()
        else:
            server.start()
        for number in range(10):
            assert asker.get(f"k{turn}-{number}", Success(number), ttl=60) == Success(number)
            assert asker.get("k", Success(0), ttl=60) == Success(0)
    assert server.is_running
    began = time.monotonic()
    until(lambda: asker.flush() == Success(None))
    asker.get("after", Success("after"), ttl=60)
    asker.flush()
    until(lambda: server_world.new().get("after", Failure("asked")) == Success("after"))
    assert time.monotonic() - began <= 2.0 + health.LONGEST_REST_S


@pytest.mark.parametrize("face_name", ["async", "sync"], indirect=False)
def test_rd13_a_server_that_is_down_or_comes_and_goes_costs_no_time_and_few_lines(
    face_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Down at the start, then up and down each half a second. The soak looks at the 99th percentile."""
    assert added_by_a_flapping_server(face_name, caplog, 0.9) <= 0.005


def added_by_a_flapping_server(face_name: str, caplog: pytest.LogCaptureFixture, share: float) -> float:
    """The latency that a store behind an open breaker adds to a `get`, at the percentile `share`."""
    heard = Heard()
    took: list[tuple[float, bool]] = []
    without: list[float] = []
    with Server() as server, caplog.at_level(logging.WARNING):
        server.kill()
        began = time.monotonic()
        if face_name == "sync":
            with SyncCache() as plain, SyncCache(store=RedisStore(server.url, timeout=0.1), logger=heard) as cache:
                for number in range(600):
                    is_open, started = is_left_alone(cache), time.perf_counter()
                    assert cache.get(f"k{number}", lambda number=number: Success(number), ttl=60) == Success(number)
                    took.append((time.perf_counter() - started, is_open))
                    started = time.perf_counter()
                    plain.get(f"k{number}", lambda number=number: Success(number), ttl=60)
                    without.append(time.perf_counter() - started)
                    time.sleep(0.005)
                    _flap(server, number)
        else:
            asyncio.run(_asked_while_it_flaps(server, heard, took, without))
        seconds = time.monotonic() - began
    behind = sorted(each for each, is_open in took if is_open)
    assert len(behind) > 150
    assert max(took)[0] < 1.0
    # One of each kind in ten seconds: the bus, the pool of connections.
    assert len(caplog.records) <= 2 * (1 + seconds / 10), [record.getMessage() for record in caplog.records]
    assert len(heard.errors) <= health.MOST_TOLD + seconds / health.TOLD_WITHIN_S
    return behind[int(len(behind) * share)] - sorted(without)[int(len(without) * share)]


def is_left_alone(cache: Cache | SyncCache) -> bool:
    line = cache._runtime.line
    return line is not None and line.health.is_suspect


def _flap(server: Server, number: int) -> None:
    if number >= 200 and number % 100 == 0:
        if server.is_running:
            server.kill()
        else:
            server.start()


async def _asked_while_it_flaps(
    server: Server, heard: Heard, took: list[tuple[float, bool]], without: list[float]
) -> None:
    async with Cache() as plain, Cache(store=RedisStore(server.url, timeout=0.1), logger=heard) as cache:
        for number in range(600):

            async def fetch(number: int = number) -> Result[int, str]:
                return Success(number)

            is_open, started = is_left_alone(cache), time.perf_counter()
            assert await cache.get(f"k{number}", fetch, ttl=60) == Success(number)
            took.append((time.perf_counter() - started, is_open))
            started = time.perf_counter()
            await plain.get(f"k{number}", fetch, ttl=60)
            without.append(time.perf_counter() - started)
            await asyncio.sleep(0.005)
            await asyncio.to_thread(_flap, server, number)


def test_rd14_after_a_flush_each_key_is_fetched_once_by_all_nodes(server: Server) -> None:
    names = [f"k{number}" for number in range(20)]
    fetches = dict.fromkeys(names, 0)

    def asked(key: str) -> Any:
        async def fetch() -> Result[str, str]:
            fetches[key] += 1
            await asyncio.sleep(0.02)
            return Success(key)

        return fetch

    async def main() -> None:
        caches = [Cache(store=RedisStore(server.url, timeout=5.0)) for _ in range(10)]
        for cache in caches:
            await cache.get("first", asked("k0"), ttl=60)
            while not cache._runtime._backplane._bus.is_subscribed:  # type: ignore[union-attr]  # noqa: ASYNC110 (a thread sets it)
                await asyncio.sleep(0.01)
        for _ in range(2):
            fetches.update(dict.fromkeys(names, 0))
            server.empty()
            for cache in caches:
                cache._runtime.hear(News(NewsKind.LOST))
            answers = await asyncio.gather(
                *(
                    cache.get(key, asked(key), ttl=60)
                    for cache in caches
                    for key in random.sample(names * 3, 3 * len(names))
                )
            )
            assert {answer.unwrap() for answer in answers} == set(names)
            assert set(fetches.values()) == {1}, fetches
        for cache in caches:
            await cache.aclose()

    asyncio.run(main())


# Forged messages

PLACES: Final = st.sampled_from([b"g", b"s", b"u" + b"alice", b"", b"\xff", b"x" * 300])
FORGED: Final = st.one_of(
    st.binary(max_size=80),
    st.tuples(
        st.sampled_from([0, 1, 2, -1, 2**63]),
        st.binary(max_size=9),
        st.sampled_from([*NewsKind, "changed", "exploded", ""]),
        st.none() | PLACES,
        st.none() | st.binary(max_size=10),
        st.binary(max_size=10),
        st.none() | st.floats() | st.just("soon"),
    ).map(msgspec.msgpack.encode),
    st.lists(st.none() | st.integers(0, 2**60) | st.text(max_size=5), max_size=9).map(msgspec.msgpack.encode),
    st.just(msgspec.msgpack.encode([1, b"n" * 8, "changed", b"g", b"k" * 1_000_000, b"", None])),
)


@given(st.lists(FORGED, min_size=1, max_size=20))
@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
def test_se9_whatever_is_heard_costs_a_fetch_at_most(messages: list[bytes]) -> None:
    """Straight into the ear: no exception, no wrong value, and what follows is heard."""
    store = RedisStore("redis://127.0.0.1:1")
    with SyncCache() as plain:
        runtime = plain._runtime
        store._bus._listeners[1] = lambda: runtime.hear
        alice = plain.for_user("alice")
        alice.get("me", lambda: Success("alice's"), scope=CacheScope.USER, ttl=60)
        plain.get("k", lambda: Success("everyone's"), ttl=60)
        for message in messages:
            store._bus._heard(message)
        assert alice.get("me", lambda: Success("alice's"), scope=CacheScope.USER, ttl=60) == Success("alice's")
        assert plain.for_user("bob").peek("me", scope=CacheScope.USER) != Success("alice's")
        assert plain.get("k", lambda: Success("everyone's"), ttl=60) == Success("everyone's")
        store._bus._heard(packed(News(NewsKind.CHANGED, GLOBAL_OWNER, "k"), b"somebody"))
        assert isinstance(plain.peek("k"), Failure)


def test_se9_forged_messages_on_the_channel_cost_fetches_and_nothing_else(
    server_world: OnServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten thousand of them, some of a megabyte; and those of another namespace, which concern nobody here."""
    rng = random.Random(9)
    ours, theirs = Layout("cachemesh").channel, Layout("another").channel
    asker = server_world.new()
    threads = threading.active_count()
    foreign = packed(News(NewsKind.CLEARED), b"somebody")
    with caplog.at_level(logging.WARNING), server_world.server.client() as client:
        assert asker.get("k", Success("v"), ttl=60) == Success("v")
        asked = asker.fetched
        with client.pipeline(transaction=False) as pipe:
            for _ in range(1_000):
                pipe.publish(theirs, foreign)
            pipe.execute()
        time.sleep(0.1)
        assert asker.get("k", Failure("asked")) == Success("v")
        assert asker.fetched == asked
        for _ in range(20):
            with client.pipeline(transaction=False) as pipe:
                for _ in range(500):
                    pipe.publish(ours, rng.randbytes(rng.randrange(60)))
                pipe.publish(ours, rng.randbytes(1_000_000))
                pipe.publish(ours, packed(News(NewsKind.CHANGED, GLOBAL_OWNER, "k"), rng.randbytes(8)))
                pipe.execute()
            assert asker.get("k", Success("v"), ttl=60) == Success("v")
        client.publish(ours, packed(News(NewsKind.CHANGED, GLOBAL_OWNER, "k"), b"somebody"))
        until(lambda: isinstance(asker.cache.peek("k"), Failure))
        # The record at the server is whole: it is read, and not fetched.
        assert asker.get("k", Failure("asked")) == Success("v")
    assert threading.active_count() <= threads + 1
    assert len(caplog.records) <= 2
