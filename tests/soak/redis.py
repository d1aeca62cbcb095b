"""The long variants of what `RedisStore` promises, on real servers and with real processes: `make soak`.

`CACHEMESH_ROUNDS=20` makes them shorter.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any, Final

from redis.crc import key_slot

from cachemesh.core.scopes import GLOBAL_OWNER
from cachemesh.shell.ports import Claim, Encoded, News, NewsKind, StoredEntry
from cachemesh.stores.redis import RedisStore, ServerRefusedError, ServerTooSlowError, ServerUnreachableError
from cachemesh.stores.redis.layout import Layout
from tests.stores.proxy import Proxy
from tests.stores.servers import Cluster, Replicated, Server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from multiprocessing.synchronize import Barrier, Event

    import pytest

ROUNDS: Final = int(os.environ.get("CACHEMESH_ROUNDS", "200"))
LAYOUT: Final = Layout("cachemesh")
UNAVAILABLE: Final = (ServerRefusedError, ServerTooSlowError, ServerUnreachableError)
SPAWN: Final = multiprocessing.get_context("spawn")


def entry(key: str, value: object = 1) -> StoredEntry:
    return StoredEntry(GLOBAL_OWNER, key, Encoded(repr(value).encode()), False, 1_000.0, 60.0, 1_060.0)  # noqa: FBT003 (a success)


async def value(store: RedisStore, key: str) -> str | None:
    found = await store.read(GLOBAL_OWNER, key)
    return None if found is None else found.value.payload.decode()


def run(url: str, act: Callable[[RedisStore], Awaitable[None]], **settings: Any) -> None:
    async def acting() -> None:
        store = RedisStore(url, **settings)
        try:
            await act(store)
        finally:
            await store.aclose()

    asyncio.run(acting())


async def waiting_claim(store: RedisStore, key: str) -> Claim:
    return await store.claim(GLOBAL_OWNER, key, waits=True)


async def until_it_works(call: Callable[..., Awaitable[Any]], *args: object) -> Any:
    ends_at = time.monotonic() + 30.0
    while True:
        try:
            return await call(*args)
        except UNAVAILABLE:
            assert time.monotonic() < ends_at
            await asyncio.sleep(0.05)


async def subscribed(store: RedisStore) -> None:
    """Wait until `store` listens, and what it was told then has been heard."""
    while not store._bus.is_subscribed:  # noqa: ASYNC110 (a thread sets it)
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)


async def fetched(store: RedisStore, key: str, fetch: Callable[[], Awaitable[object]]) -> str:
    """What a cache does: read, claim, fetch, commit."""
    found = await value(store, key)
    if found is not None:
        return found
    claim = await store.claim(GLOBAL_OWNER, key, waits=True)
    if claim.found is not None:
        payload: bytes = claim.found.value.payload
        return payload.decode()
    answer = await fetch()
    await store.commit(entry(key, answer), claim)
    return repr(answer)


# SF-14


def fetching_process(server_url: str, port: int, rounds: int, together: Barrier) -> None:
    import redis  # noqa: PLC0415 (in the process that needs it)

    async def act(store: RedisStore) -> None:
        with redis.Redis(port=port) as client:
            for number in range(rounds):
                await asyncio.to_thread(together.wait, 60)

                async def fetch(number: int = number) -> int:
                    client.incr(f"fetches:{number}")
                    await asyncio.sleep(0.02)
                    return number

                assert await fetched(store, f"k{number}", fetch) == repr(number)

    run(server_url, act, timeout=5.0)


def test_sf14_eight_processes_fetch_each_key_once() -> None:
    with Server() as server:
        together = SPAWN.Barrier(8)
        processes = [
            SPAWN.Process(target=fetching_process, args=(server.url, server.port, ROUNDS, together)) for _ in range(8)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 8
        with server.client() as client:
            counts = client.mget([f"fetches:{number}" for number in range(ROUNDS)])
        assert counts == [b"1"] * ROUNDS


def holding_process(url: str, key: str, holds: Event, goes_on: Event, committed: Any) -> None:
    async def act(store: RedisStore) -> None:
        claim = await store.claim(GLOBAL_OWNER, key, waits=True)
        assert claim.token
        holds.set()
        await asyncio.to_thread(goes_on.wait)
        committed.value = 1 + await store.commit(entry(key, "late"), claim)

    run(url, act, lease=0.5, timeout=5.0)


def holding(url: str, key: str) -> tuple[Any, Event, Any]:
    holds, goes_on, committed = SPAWN.Event(), SPAWN.Event(), SPAWN.Value("i", 0)
    process = SPAWN.Process(target=holding_process, args=(url, key, holds, goes_on, committed))
    process.start()
    assert holds.wait(60)
    return process, goes_on, committed


def test_sf14_a_killed_holder_keeps_nobody_longer_than_its_lease_and_a_second() -> None:
    with Server() as server:

        async def act(store: RedisStore) -> None:
            for number in range(max(5, ROUNDS // 10)):
                process, _, _ = holding(server.url, f"k{number}")
                process.kill()
                process.join()
                started = time.monotonic()
                claim = await store.claim(GLOBAL_OWNER, f"k{number}", waits=True)
                assert claim.token
                assert time.monotonic() - started < 1.5

        run(server.url, act, lease=5.0)


def test_rd7_a_stopped_holder_that_goes_on_writes_nothing() -> None:
    with Server() as server:

        async def act(store: RedisStore) -> None:
            for number in range(max(5, ROUNDS // 10)):
                key = f"k{number}"
                process, goes_on, committed = holding(server.url, key)
                os.kill(process.pid, signal.SIGSTOP)
                claim = await store.claim(GLOBAL_OWNER, key, waits=True)
                assert await store.commit(entry(key, "in time"), claim)
                os.kill(process.pid, signal.SIGCONT)
                goes_on.set()  # Which waits for those who wait for it.
                await asyncio.to_thread(process.join)
                assert committed.value == 1, "its write was refused"
                assert await value(store, key) == "'in time'"

        run(server.url, act, lease=5.0)


# RD-2, 8, 13, 14


def test_rd2_ten_thousand_writes_while_nobody_hears() -> None:
    with Server() as server, Proxy(server.host, server.port) as proxy:

        async def act(store: RedisStore) -> None:
            other = RedisStore(server.url)
            keys = [f"k{number}" for number in range(1_000)]
            await asyncio.gather(*(other.write(entry(key, 0)) for key in keys))
            memory: dict[str, str | None] = {}

            def hear(news: News) -> None:
                if news.kind is NewsKind.CHANGED:
                    memory.pop(news.key or "", None)
                else:
                    memory.clear()

            store.listen(hear)
            await subscribed(store)
            memory.update({key: await value(other, key) for key in keys})
            proxy.refuses = True
            proxy.drop()
            await asyncio.sleep(0.1)
            assert memory == {}, "told at once"
            memory.update({key: await value(other, key) for key in keys})
            for number in range(1, 11):
                await asyncio.gather(*(other.write(entry(key, number)) for key in keys))
            proxy.refuses = False
            await subscribed(store)
            assert memory == {}, "told once more"
            assert {await value(other, key) for key in keys} == {"10"}
            await other.aclose()

        run(proxy.url, act)


def test_rd8_ten_thousand_releases_by_others_end_no_lease() -> None:
    with Server() as server:

        async def act(store: RedisStore) -> None:
            claim = await store.claim(GLOBAL_OWNER, "k", waits=True)
            lease = LAYOUT.lease(LAYOUT.entry(GLOBAL_OWNER, "k"))
            others = [
                Claim(GLOBAL_OWNER, "k", claim.generation, os.urandom(16), fence=claim.fence[:12] + b"x" * 41 + b"y")
                for _ in range(10_000)
            ]
            await asyncio.gather(*(store.release(other) for other in others))
            with server.client() as client:
                assert client.get(lease) == claim.token
            assert await store.commit(entry("k"), claim)

        run(server.url, act, timeout=30.0, lease=60.0)


def test_rd13_a_server_that_comes_and_goes_costs_no_time_and_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    with Server() as server, caplog.at_level(logging.WARNING):

        async def act(store: RedisStore) -> None:
            news: list[News] = []
            store.listen(news.append)
            longest = 0.0
            for number in range(max(10, ROUNDS // 10)):
                if number % 2:
                    server.start()
                else:
                    server.kill()
                ends_at = time.monotonic() + 0.5
                while time.monotonic() < ends_at:
                    started = time.monotonic()
                    try:
                        await store.read(GLOBAL_OWNER, "k")
                    except UNAVAILABLE:
                        assert not server.is_running or time.monotonic() > ends_at - 0.5
                    longest = max(longest, time.monotonic() - started)
                    await asyncio.sleep(0.005)
            assert longest < 0.2

        started = time.monotonic()
        run(server.url, act, timeout=0.1)
        assert len(caplog.records) <= 1 + (time.monotonic() - started) / 10 * 2


def test_rd14_after_a_flush_twenty_nodes_fetch_each_key_once() -> None:
    with Server() as server:

        async def act(_: RedisStore) -> None:
            nodes = [RedisStore(server.url, timeout=5.0) for _ in range(20)]
            keys = [f"k{number}" for number in range(50)]
            fetches = dict.fromkeys(keys, 0)

            async def ask(node: RedisStore, key: str) -> None:
                async def fetch() -> str:
                    fetches[key] += 1
                    await asyncio.sleep(0.05)
                    return key

                assert await fetched(node, key, fetch) == repr(key)

            for number in range(max(3, ROUNDS // 40)):
                server.empty()
                await asyncio.gather(*(ask(node, key) for node in nodes for key in random.sample(keys, len(keys))))
                assert set(fetches.values()) == {number + 1}
            for node in nodes:
                await node.aclose()

        run(server.url, act)


# RD-6, 10


def test_rd6_failovers_while_a_lease_is_held_let_no_stale_write_through() -> None:
    """Each round a claim, then a removal by another; the primary is killed, and the claim commits at the new one."""
    with Replicated(replicas=2, sentinels=1, down_after_ms=300) as servers:

        async def act(store: RedisStore) -> None:
            other = RedisStore(servers.url)
            for number in range(ROUNDS):
                key = f"k{number}"
                await until_it_works(store.write, entry(key, "old"))
                claim = await until_it_works(waiting_claim, store, key)
                await until_it_works(other.delete, GLOBAL_OWNER, key)
                await asyncio.to_thread(servers.catch_up)
                primary = servers.primary()
                primary.kill()
                assert not await until_it_works(store.commit, entry(key, "old"), claim)
                assert await until_it_works(value, store, key) is None
                again = await until_it_works(waiting_claim, store, key)
                assert await until_it_works(store.commit, entry(key, "new"), again)
                assert await until_it_works(value, other, key) == "'new'"
                primary.start()
                await asyncio.to_thread(servers.come_together)
            await other.aclose()

        run(servers.url, act, lease=2.0)


def test_rd10_slots_move_under_load_and_nobody_sees_a_wrong_value() -> None:
    with Cluster() as cluster:

        async def act(store: RedisStore) -> None:
            keys = [f"k{number}" for number in range(200)]
            for key in keys:
                await store.write(entry(key, (key, 0)))
            latencies: list[float] = []
            failures: list[str] = []
            wrong: list[object] = []
            stop = asyncio.Event()

            async def use(seed: int) -> None:
                rng = random.Random(seed)
                while not stop.is_set():
                    key = rng.choice(keys)
                    started = time.monotonic()
                    try:
                        if rng.random() < 0.2:
                            await store.write(entry(key, (key, seed)))
                        else:
                            found = await value(store, key)
                            if found is not None and not found.startswith(f"({key!r},"):
                                wrong.append((key, found))
                    except UNAVAILABLE as error:
                        failures.append(repr(error))
                    latencies.append(time.monotonic() - started)
                    await asyncio.sleep(max(0.0, 0.01 - (time.monotonic() - started)))

            tasks = [asyncio.create_task(use(seed)) for seed in range(10)]
            slots = sorted({key_slot(LAYOUT.entry(GLOBAL_OWNER, key)) for key in keys})
            for slot in slots[: max(20, ROUNDS)]:
                await asyncio.to_thread(cluster.move, slot)
            stop.set()
            await asyncio.gather(*tasks)
            assert wrong == []
            assert len(failures) <= len(latencies) / 100, failures[:5]
            assert sorted(latencies)[int(len(latencies) * 0.99)] < 0.1
            for key in keys:
                assert await value(store, key) is not None

        run(cluster.url, act)
