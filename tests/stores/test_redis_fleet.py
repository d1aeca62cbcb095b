"""`RedisStore` on a cluster and behind sentinels: slots that move, servers that die, writes that get lost."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
import redis
import redis.asyncio as aio
from redis.crc import key_slot

from cachemesh.core.scopes import GLOBAL_OWNER, CacheScope, Owner
from cachemesh.shell.ports import Encoded, News, NewsKind, StoredEntry
from cachemesh.stores.redis import RedisStore, ServerRefusedError, ServerTooSlowError, ServerUnreachableError
from cachemesh.stores.redis.layout import Layout
from tests.stores.servers import Cluster, Replicated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ALICE: Final[Owner] = (CacheScope.USER, "alice")
LAYOUT: Final = Layout("cachemesh")
UNAVAILABLE: Final = (ServerRefusedError, ServerTooSlowError, ServerUnreachableError)


def entry(key: str = "k", value: object = 1, *, owner: Owner = GLOBAL_OWNER) -> StoredEntry:
    return StoredEntry(owner, key, Encoded(repr(value).encode()), False, 1_000.0, 60.0, 1_060.0)  # noqa: FBT003 (a success)


async def value(store: RedisStore, key: str = "k") -> bytes | None:
    found = await store.read(GLOBAL_OWNER, key)
    return None if found is None else found.value.payload


def run(source: Any, act: Callable[[RedisStore], Awaitable[None]], **settings: Any) -> None:
    async def acting() -> None:
        store = RedisStore(source, **settings)
        try:
            await act(store)
        finally:
            await store.aclose()

    asyncio.run(acting())


async def until_it_works(call: Callable[[], Awaitable[object]], seconds: float = 20.0) -> None:
    ends_at = time.monotonic() + seconds
    while True:
        try:
            await call()
        except UNAVAILABLE:
            assert time.monotonic() < ends_at
            await asyncio.sleep(0.05)
        else:
            return


def test_rd10_an_entry_and_its_lease_share_a_slot_and_so_does_the_counter() -> None:
    for user in ("a", "{", "}{", "{}", "", "{a}b", "x" * 300, "\ud800"):
        for key in ("", "{}", "}", "k", "y" * 300):
            name = LAYOUT.entry((CacheScope.USER, user), key)
            assert key_slot(name) == key_slot(LAYOUT.lease(name))
    for namespace in ("cachemesh", "{}", "}{", "", "n" * 300):
        assert len({key_slot(name) for name in Layout(namespace).counter}) == 1


def test_clients_of_a_cluster_are_taken_as_settings(cluster: Cluster) -> None:
    first = cluster.servers[0]
    sync = redis.RedisCluster(host=first.host, port=first.port)

    async def act(store: RedisStore) -> None:
        client = aio.RedisCluster(host=first.host, port=first.port)
        other = RedisStore(client)
        await store.write(entry())
        assert await value(other) == b"1"
        await other.aclose()
        await client.aclose()

    run(sync, act)
    sync.close()


def test_b38_a_slot_on_the_move_is_followed(cluster: Cluster) -> None:
    """ASK while it moves, MOVED when it has."""
    name = LAYOUT.entry(GLOBAL_OWNER, "k")
    slot = key_slot(name)

    async def act(store: RedisStore) -> None:
        await store.write(entry(value="before"))
        claim = await store.claim(GLOBAL_OWNER, "k", waits=True)
        here = cluster.owner_of(name)
        there = next(each for each in cluster.servers[:3] if each is not here)
        with here.client() as source, there.client() as target:
            ids = [client.execute_command("CLUSTER MYID").decode() for client in (source, target)]
            target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
            source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[1])
            source.migrate(there.host, there.port, [name, LAYOUT.lease(name)], 0, 1_000)
            assert await value(store) == b"'before'"
            assert await store.keys(GLOBAL_OWNER) == ["k"]
            for client in (target, source):
                client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[1])
        assert await value(store) == b"'before'"
        # Another server, another history: it may not know what was removed on the first.
        assert not await store.commit(entry(value="after"), claim)
        again = await store.claim(GLOBAL_OWNER, "k", waits=True)
        assert await store.commit(entry(value="after"), again)
        assert await value(store) == b"'after'"
        with there.client() as target, here.client() as source:
            target.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[0])
            source.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[1])
            target.migrate(here.host, here.port, [name], 0, 1_000)
            for client in (source, target):
                client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[0])
        assert await value(store) == b"'after'"

    run(cluster.url, act)


def test_rd10_a_primary_killed_under_load_costs_misses_and_no_wrong_value() -> None:
    with Cluster() as cluster:

        async def act(store: RedisStore) -> None:
            keys = [f"k{number}" for number in range(60)]
            written = dict.fromkeys(keys, -1)
            wrong: list[object] = []
            strange: list[BaseException] = []
            listener = RedisStore(cluster.url, ping_interval=0.5)
            news: list[News] = []
            listener.listen(news.append)
            stop = asyncio.Event()

            async def use(key: str) -> None:
                number = 0
                while not stop.is_set():
                    number += 1
                    try:
                        written[key] = number
                        await store.write(entry(key, (key, number)))
                        found = await store.read(GLOBAL_OWNER, key)
                    except UNAVAILABLE:
                        await asyncio.sleep(0.02)
                        continue
                    except Exception as error:  # noqa: BLE001 (it is what the test is about)
                        strange.append(error)
                        continue
                    if found is not None:
                        name, seen = eval(found.value.payload, {})  # noqa: S307 (our own repr)
                        if name != key or seen > written[key]:
                            wrong.append((key, found.value.payload))
                    await asyncio.sleep(0.005)

            tasks = [asyncio.create_task(use(key)) for key in keys]
            await asyncio.sleep(0.3)
            claim = await store.claim(GLOBAL_OWNER, "under way", waits=True)
            cluster.owner_of(LAYOUT.entry(GLOBAL_OWNER, "under way")).kill()
            started = time.monotonic()
            await until_it_works(lambda: store.read_many([(GLOBAL_OWNER, key) for key in (*keys, "under way")]))
            recovered_s = time.monotonic() - started
            await asyncio.sleep(0.3)
            stop.set()
            await asyncio.gather(*tasks)
            assert not await store.commit(entry("under way"), claim)
            assert wrong == []
            assert strange == []
            assert recovered_s < 10.0
            for key in keys:
                await store.write(entry(key, (key, "last")))
                assert await value(store, key) == repr((key, "last")).encode()
            assert News(NewsKind.LOST) in news
            await listener.aclose()

        run(cluster.url, act)


def test_in_a_cluster_everybody_hears_the_news_whatever_node_they_listen_to(cluster: Cluster) -> None:
    async def act(store: RedisStore) -> None:
        heard: list[list[News]] = [[] for _ in range(6)]
        listeners = [RedisStore(f"redis+cluster://{each.host}:{each.port}") for each in cluster.servers]
        for listener, news in zip(listeners, heard, strict=True):
            listener.listen(news.append)
        while not all(heard):  # noqa: ASYNC110 (threads fill it)
            await asyncio.sleep(0.01)
        for number in range(20):
            await store.delete(GLOBAL_OWNER, f"k{number}")
        expected = {News(NewsKind.CHANGED, GLOBAL_OWNER, f"k{number}") for number in range(20)}
        ends_at = time.monotonic() + 10
        while not all(expected <= set(news) for news in heard):
            assert time.monotonic() < ends_at
            await asyncio.sleep(0.01)
        for listener in listeners:
            await listener.aclose()

    run(cluster.url, act)


def test_rd6_after_a_failover_nothing_is_stored_with_a_claim_from_before_it() -> None:
    with Replicated(replicas=1, sentinels=1) as servers:
        first = servers.sentinels[0]
        sentinel = redis.Sentinel([(first.host, first.port)])  # type: ignore[no-untyped-call]
        heard: list[News] = []

        async def act(store: RedisStore) -> None:
            store.listen(heard.append)
            client: redis.Redis = sentinel.master_for(servers.service)  # type: ignore[no-untyped-call]
            other = RedisStore(client)
            await store.write(entry(value="kept"))
            await store.write(entry("removed", value="old"))
            claims = [await store.claim(GLOBAL_OWNER, key, waits=True) for key in ("k", "removed", "new")]
            await other.delete(GLOBAL_OWNER, "removed")
            await asyncio.to_thread(servers.catch_up)
            servers.primary().kill()
            await until_it_works(lambda: store.read(GLOBAL_OWNER, "k"))
            for claim in claims:
                refused: list[bool] = []

                async def commit(claim: Any = claim, refused: list[bool] = refused) -> None:
                    refused.append(not await store.commit(entry(claim.key, value="stale"), claim))

                await until_it_works(commit)
                assert refused == [True]
            assert await value(store, "removed") is None
            assert await value(store) == b"'kept'"
            fresh = await store.claim(GLOBAL_OWNER, "new", waits=True)
            assert fresh.generation > max(claim.generation for claim in claims)
            assert await other.commit(entry("new", value="fresh"), fresh)
            assert await value(store, "new") == b"'fresh'"
            await other.aclose()

        run(servers.url, act)
        assert News(NewsKind.LOST) in heard


@pytest.mark.parametrize("url", ["redis+sentinel://127.0.0.1:1/main", "redis+cluster://127.0.0.1:1,127.0.0.1:2"])
def test_a_fleet_that_is_not_there_fails_at_once(url: str) -> None:
    async def act(store: RedisStore) -> None:
        started = time.monotonic()
        for _ in range(3):
            with pytest.raises(ServerUnreachableError):
                await store.read(GLOBAL_OWNER, "k")
            with pytest.raises(ServerUnreachableError):
                await store.write(entry())
        assert time.monotonic() - started < 1.0

    run(url, act, timeout=5.0)
