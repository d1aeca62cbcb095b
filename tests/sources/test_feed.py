"""`WebSocketSource.feed`: messages in a cache, and whose they are."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any, Final

import pytest
from returns.result import Failure, Result, Success

from cachemesh import Cache, CacheClosed, CacheError, CacheMiss, CacheScope, InvalidKey, NoActiveUser, SyncCache
from cachemesh.sources import FailureKind, NetworkFailure, ReconnectOptions, WebSocketSource
from cachemesh.testing import VirtualClock
from tests.sources.websockets_here import SOON, Price, Server, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.asyncio.server import ServerConnection


OVER: Final = Failure(NetworkFailure(kind=FailureKind.CANCELLED, message="the session is over"))


class Channel:
    """What a test lets the server say."""

    def __init__(self) -> None:
        self.connections: list[ServerConnection] = []
        self.arrived = asyncio.Event()

    async def serve(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        self.arrived.set()
        await connection.wait_closed()

    async def say(self, *messages: str) -> None:
        await self.arrived.wait()
        for message in messages:
            await self.connections[-1].send(message)

    async def hang_up(self) -> None:
        self.arrived.clear()
        self.connections[-1].transport.abort()

    async def gone(self) -> None:
        """Wait until the client has left."""
        await self.arrived.wait()
        await self.connections[-1].wait_closed()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 (there is no event for it)
            await asyncio.sleep(0.002)


def price(cents: int) -> str:
    return Price(name="tea", cents=cents).model_dump_json()


def test_watch_is_a_live_view() -> None:
    async def main() -> None:
        channel = Channel()
        async with Server(channel.serve) as server, Cache() as cache:
            source = WebSocketSource(server.url, parser=Price)
            async with cache.watch("tea") as news, source.feed(cache, key="tea", tags=["prices"]) as feed:
                for cents in (3, 4, 5):
                    await channel.say(price(cents))
                    assert await anext(news) == Success(Price(name="tea", cents=cents))
                assert feed.written == 3
                assert not feed.is_over
            assert cache.peek("tea") == Success(Price(name="tea", cents=5))
            await channel.gone()
            cache.invalidate_tag("prices")
            assert isinstance(cache.peek("tea"), Failure)
            assert await feed.wait() == Success(None)

    run(main())


def test_a_sync_cache_is_fed_as_well() -> None:
    async def main() -> None:
        channel = Channel()
        with SyncCache() as cache:
            async with Server(channel.serve) as server:
                async with WebSocketSource(server.url, parser=Price).feed(cache, key=lambda each: each.name) as feed:
                    await channel.say(price(3))
                    await until(lambda: feed.written)
                    assert cache.peek("tea") == Success(Price(name="tea", cents=3))
                    cache.close()
                    assert await feed.wait() == Failure(CacheClosed())
                await channel.gone()

    run(main())


def test_a_key_is_made_of_each_message_and_one_that_cannot_be_made_is_told() -> None:
    def key(each: Price) -> str:
        if each.cents == 4:
            raise LookupError(each.name)
        return None if each.cents == 5 else f"price:{each.cents}"  # type: ignore[return-value]  # It is broken.

    async def main() -> None:
        channel = Channel()
        told: list[NetworkFailure | CacheError] = []
        async with Server(channel.serve) as server, Cache() as cache:
            source = WebSocketSource(server.url, parser=Price)
            async with source.feed(cache, key=key, on_failure=told.append) as feed:
                await channel.say(price(3), price(4), price(5), price(6))
                await until(lambda: feed.written == 2)
            assert cache.peek("price:3").unwrap().cents == 3
            assert cache.peek("price:6").unwrap().cents == 6
            assert told == [
                NetworkFailure(kind=FailureKind.PARSING, message="the function for the key raised LookupError"),
                InvalidKey(None),
            ]

    run(main())


def test_what_goes_wrong_is_told_and_the_feed_goes_on() -> None:
    """A message that cannot be read, and each lost connection, once. What is cached stays, and ages."""

    async def main() -> None:
        channel, clock = Channel(), VirtualClock()
        told: list[NetworkFailure | CacheError] = []

        def on_failure(failure: NetworkFailure | CacheError) -> None:
            told.append(failure)
            raise LookupError

        async with Server(channel.serve) as server, Cache(clock=clock) as cache:
            source = WebSocketSource(server.url, parser=Price, reconnect=SOON)
            async with source.feed(cache, key="tea", ttl=10, on_failure=on_failure) as feed:
                await channel.say(price(3), "nonsense")
                await until(lambda: told)
                await channel.hang_up()
                await channel.arrived.wait()
                assert cache.peek("tea") == Success(Price(name="tea", cents=3))

                clock.advance(10)
                assert isinstance(cache.peek("tea"), Failure)
                assert await cache.get("tea", lambda: asyncio.sleep(0, Success("fetched"))) == Success("fetched")

                await channel.say(price(4))
                await until(lambda: feed.written == 2)
                assert cache.peek("tea") == Success(Price(name="tea", cents=4))
            assert [each.kind for each in told if isinstance(each, NetworkFailure)] == [
                FailureKind.PARSING,
                FailureKind.NETWORK,
            ]

    run(main())


def test_without_a_callback_failures_are_logged_and_quote_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        channel = Channel()
        async with Server(channel.serve) as server, Cache(freeze=_refuse) as cache:
            cache.set_active_user("s3cret-user")
            source = WebSocketSource(server.url, parser=str)
            async with source.feed(cache, key="s3cret-key", scope=CacheScope.USER):
                await channel.say("s3cret")
                await until(lambda: caplog.records)

    caplog.set_level(logging.WARNING, "cachemesh.sources")
    run(main())
    assert "ValueNotCopied" in caplog.text
    assert "s3cret" not in caplog.text


def _refuse(value: object) -> object:
    raise LookupError(value)


def test_once_the_source_has_given_up_the_feed_is_over() -> None:
    async def main() -> None:
        channel = Channel()
        told: list[object] = []
        async with Server(channel.serve) as server, Cache() as cache:
            source = WebSocketSource(server.url, parser=Price, reconnect=ReconnectOptions(max_attempts=1))
            async with source.feed(cache, key="tea", on_failure=told.append) as feed:
                await channel.say(price(3))
                await until(lambda: feed.written)
                await channel.hang_up()
                ended = await feed.wait()
                assert isinstance(ended, Failure)
                assert told == [ended.failure()]
                assert feed.is_over
            assert await feed.wait() == ended

    run(main())


def test_with_the_cache_the_feed_is_over_at_once() -> None:
    async def main() -> None:
        channel = Channel()
        async with Server(channel.serve) as server:
            cache = Cache()
            async with WebSocketSource(server.url).feed(cache, key="tea") as feed:
                await channel.arrived.wait()
                await cache.aclose()
                assert await feed.wait() == Failure(CacheClosed())
                await channel.gone()
            async with WebSocketSource(server.url).feed(cache, key="tea") as feed:
                assert await feed.wait() == Failure(CacheClosed())

    run(main())


# Whose it is


def user_switches(cache: Cache | SyncCache) -> None:
    cache.set_active_user("bob")


def user_leaves(cache: Cache | SyncCache) -> None:
    cache.set_active_user(None)


def user_comes_back(cache: Cache | SyncCache) -> None:
    cache.set_active_user("bob")
    cache.set_active_user("ada")


def session_ends(cache: Cache | SyncCache) -> None:
    cache.end_session()


def same_user_signs_in_again(cache: Cache | SyncCache) -> None:
    cache.end_session()
    cache.set_active_user("ada")


@pytest.mark.parametrize("make", [Cache, SyncCache])
@pytest.mark.parametrize("leave", [user_switches, user_leaves, user_comes_back, session_ends, same_user_signs_in_again])
def test_se6_nothing_of_a_user_lands_once_they_have_left(make: Callable[[], Any], leave: Callable[[Any], None]) -> None:
    """Neither in the partition of the next one nor in their own, and the connection made in their name is closed."""

    async def main() -> None:
        channel, cache = Channel(), make()
        cache.set_active_user("ada")
        async with Server(channel.serve) as server:
            source = WebSocketSource(server.url, parser=Price)
            async with source.feed(cache, key="tea", scope=CacheScope.USER) as feed:
                await channel.say(price(3))
                await until(lambda: feed.written)
                assert cache.peek("tea", scope=CacheScope.USER) == Success(Price(name="tea", cents=3))

                for cents in range(4, 40):  # They are on their way.
                    await channel.say(price(cents))
                leave(cache)

                assert await feed.wait() == OVER
                await channel.gone()
                await asyncio.sleep(0.02)
                for each in (cache, cache.for_user("ada"), cache.for_user("bob")):
                    assert each.peek("tea", allow_expired=True) == Failure(CacheMiss("tea"))
        await cache.aclose() if isinstance(cache, Cache) else cache.close()

    run(main())


def test_se6_a_switch_between_the_look_and_the_write_leaves_nothing_behind() -> None:
    async def main() -> None:
        channel = Channel()
        async with Server(channel.serve) as server, Cache() as cache:

            def key(each: Price) -> str:
                cache.set_active_user("bob")
                return each.name

            seen_by_bob: list[object] = []
            watching = cache.for_user("bob").watch("tea").subscribe(seen_by_bob.append)
            cache.set_active_user("ada")
            source = WebSocketSource(server.url, parser=Price)
            async with source.feed(cache, key=key, scope=CacheScope.USER) as feed:
                await channel.say(price(3))
                assert await feed.wait() == OVER
                assert feed.written == 1
                await asyncio.sleep(0)
                assert seen_by_bob == []
                watching.cancel()
                for each in (cache, cache.for_user("ada")):
                    assert each.peek("tea", allow_expired=True) == Failure(CacheMiss("tea"))

    run(main())


def test_se6_a_switch_in_another_thread_leaves_nothing_behind_either() -> None:
    """Between the look and the write there is a moment, in which only another thread can come."""

    async def main() -> None:
        cache = SyncCache()
        seen = 0

        async def serve(connection: ServerConnection) -> None:
            closed = asyncio.Event()
            leaving = asyncio.ensure_future(connection.wait_closed())
            leaving.add_done_callback(lambda _: closed.set())
            cents = 0
            while not closed.is_set():
                cents += 1
                await connection.send(price(cents))
                await asyncio.sleep(0)

        async with Server(serve) as server:
            source = WebSocketSource(server.url, parser=Price)
            for _ in range(20):
                cache.set_active_user("ada")
                async with source.feed(cache, key="tea", scope=CacheScope.USER) as feed:
                    while not feed.written:  # noqa: ASYNC110 (there is no event for it)
                        await asyncio.sleep(0)
                    switch = threading.Thread(target=cache.set_active_user, args=("bob",))
                    switch.start()
                    assert await feed.wait() == OVER
                    switch.join()
                    for each in (cache, cache.for_user("ada")):
                        seen += each.peek("tea", allow_expired=True) != Failure(CacheMiss("tea"))
        assert seen == 0
        cache.close()

    run(main())


def test_a_feed_of_the_session_ends_with_it_and_not_with_the_user() -> None:
    async def main() -> None:
        channel = Channel()
        async with Server(channel.serve) as server, Cache() as cache:
            source = WebSocketSource(server.url, parser=Price)
            async with source.feed(cache, key="tea", scope=CacheScope.SESSION) as feed:
                cache.set_active_user("ada")
                await channel.say(price(3))
                await until(lambda: feed.written)
                cache.end_session()
                assert await feed.wait() == OVER
            assert cache.peek("tea", allow_expired=True) == Failure(CacheMiss("tea"))

    run(main())


def test_a_global_feed_goes_on_whoever_is_signed_in() -> None:
    async def main() -> None:
        channel = Channel()
        async with (
            Server(channel.serve) as server,
            Cache() as cache,
            WebSocketSource(server.url, parser=Price).feed(cache, key="tea") as feed,
        ):
            cache.set_active_user("ada")
            await channel.say(price(3))
            await until(lambda: feed.written == 1)
            cache.end_session()
            await channel.say(price(4))
            await until(lambda: feed.written == 2)
            assert not feed.is_over

    run(main())


def test_a_feed_of_a_view_is_that_users() -> None:
    async def main() -> None:
        channel = Channel()
        async with Server(channel.serve) as server, Cache() as cache:
            ada, bob = cache.for_user("ada"), cache.for_user("bob")
            source = WebSocketSource(server.url, parser=Price)
            async with source.feed(ada, key="tea", scope=CacheScope.USER) as feed:
                cache.set_active_user("bob")
                bob.end_session()
                await channel.say(price(3))
                await until(lambda: feed.written)
                assert ada.peek("tea") == Success(Price(name="tea", cents=3))
                assert isinstance(bob.peek("tea"), Failure)

                ada.end_session()
                assert await feed.wait() == OVER
                assert isinstance(ada.peek("tea", allow_expired=True), Failure)

    run(main())


def test_where_nobody_is_signed_in_nothing_is_connected() -> None:
    async def main() -> None:
        channel = Channel()
        async with Server(channel.serve) as server, Cache() as cache:
            source = WebSocketSource(server.url, parser=Price)
            async with source.feed(cache, key="tea", scope=CacheScope.USER) as feed:
                assert await feed.wait() == Failure(NoActiveUser("tea"))
            assert server.opened == 0

    run(main())


# The block


def test_ca3_a_timeout_around_a_feed_passes_through() -> None:
    async def main() -> None:
        channel = Channel()
        async with Server(channel.serve) as server, Cache() as cache:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1), WebSocketSource(server.url).feed(cache, key="tea") as feed:
                    await feed.wait()
            await channel.gone()
            assert await feed.wait() == Success(None)

    run(main())


def test_a_feed_is_entered_once_and_waited_for_inside() -> None:
    async def main() -> None:
        channel = Channel()
        async with Server(channel.serve) as server, Cache() as cache:
            feed = WebSocketSource(server.url).feed(cache, key="tea")
            with pytest.raises(RuntimeError, match="async with"):
                await feed.wait()
            async with feed:
                pass
            with pytest.raises(RuntimeError, match="once"):
                await feed.__aenter__()

    run(main())


def test_a_mistake_in_the_cache_is_raised_to_who_waits_and_to_who_leaves() -> None:
    class Broken(Cache):
        def put(self, *arguments: Any, **options: Any) -> Result[Any, CacheError]:
            del arguments, options
            message = "a bug"
            raise AssertionError(message)

    async def main() -> None:
        channel = Channel()
        async with Server(channel.serve) as server, Broken() as cache:
            with pytest.raises(AssertionError, match="a bug"):  # noqa: PT012 (a context manager is what raises)
                async with WebSocketSource(server.url).feed(cache, key="tea") as feed:
                    await channel.say("x")
                    with pytest.raises(AssertionError, match="a bug"):
                        await feed.wait()

    run(main())
