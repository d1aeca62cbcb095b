"""`source.fetcher(...)` through a cache, against a server on loopback, on both faces.

The cache has a clock of its own, which the tests move; what the origin and
the source see is the time of the day.
"""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import httpx2
import pytest
from pydantic import BaseModel
from returns.result import Failure, Result, Success

from cachemesh import Batcher, Cache, CacheScope, Lifetime, SyncBatcher, SyncCache
from cachemesh.sources import FailureKind, HttpSource, NetworkFailure, SyncHttpSource
from cachemesh.stores.sqlite import SqliteStore
from cachemesh.testing.clock import VirtualClock
from tests.sources.scripted_origin import PATIENCE_S, Asked, Origin, Reply, not_modified, reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CC: Final = "Cache-Control: "
ETAG: Final = 'ETag: "1"'
UNAVAILABLE: Final = NetworkFailure.of_status(503)


class User(BaseModel):
    name: str


class Keeper:
    """A token keeper that has one token."""

    async def with_valid_token(self, action: Callable[[str], Any]) -> Any:
        return await action("secret-token")


class SyncKeeper:
    """The same for threads."""

    def with_valid_token(self, action: Callable[[str], Any]) -> Any:
        return action("secret-token")


class World:
    """A cache and a source of one face; what they answer is there when a method returns."""

    def __init__(self, *, is_async: bool) -> None:
        self.is_async = is_async
        self.clock = VirtualClock(now=1_767_225_600.0)
        self._runner = asyncio.Runner() if is_async else None
        self._open: list[Any] = []
        self.cache: Any = self.new_cache()

    def new_cache(self, **settings: Any) -> Any:
        settings = {"clock": self.clock, **settings}
        cache = (
            Cache(token_keeper=Keeper(), **settings)
            if self.is_async
            else SyncCache(token_keeper=SyncKeeper(), **settings)
        )
        self._open.append(cache)
        return cache

    def new_source(self, url: str | None = None, **settings: Any) -> Any:
        source = HttpSource(url, **settings) if self.is_async else SyncHttpSource(url, **settings)
        self._open.append(source)
        return source

    def new_client(self, **settings: Any) -> Any:
        client = httpx2.AsyncClient(**settings) if self.is_async else httpx2.Client(**settings)
        self._open.append(client)
        return client

    def run(self, answer: Any) -> Any:
        return self._runner.run(answer) if self._runner is not None and asyncio.iscoroutine(answer) else answer

    def get(self, fetcher: Any, *, key: str | None = None, cache: Any = None, **options: Any) -> Any:
        options = {"conditional": True, **options}
        return self.run((cache or self.cache).get(key or fetcher.key, fetcher, **options))

    def ttl(self, fetcher: Any, **options: Any) -> float | None:
        """For how long what is cached has been given to live."""
        state = self.cache.inspect(fetcher.key, **options)
        assert state.is_present
        return state.ttl.total_seconds() if isinstance(state.ttl, timedelta) else None

    def keeps(self, fetcher: Any) -> bool:
        """Whether there is anything in the global scope, fresh or not."""
        return bool(self.cache.inspect(fetcher.key, scope=CacheScope.GLOBAL).is_present)

    def until(self, happened: Callable[[], object]) -> None:
        """Let what goes on in the background go on, until something has happened."""
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            assert time.monotonic() < deadline
            if self._runner is not None:
                self._runner.run(asyncio.sleep(0.005))
            else:
                time.sleep(0.005)

    def at_once(self, origin: Origin, *calls: Callable[[], Any]) -> list[Any]:
        """What `calls` answer, each begun while the request of the first one is under way."""
        origin.gate.clear()
        return self.run(self._tasks(origin, calls)) if self.is_async else self._threads(origin, calls)

    async def _tasks(self, origin: Origin, calls: tuple[Callable[[], Any], ...]) -> list[Any]:
        first, *others = calls
        tasks = [asyncio.ensure_future(first())]
        assert await asyncio.to_thread(origin.arrived.wait, PATIENCE_S)
        tasks += [asyncio.ensure_future(call()) for call in others]
        await asyncio.sleep(0.05)
        origin.gate.set()
        return list(await asyncio.gather(*tasks))

    @staticmethod
    def _threads(origin: Origin, calls: tuple[Callable[[], Any], ...]) -> list[Any]:
        answers: dict[int, Any] = {}
        threads = [
            threading.Thread(target=lambda at=at, call=call: answers.update({at: call()}))
            for at, call in enumerate(calls)
        ]
        threads[0].start()
        assert origin.arrived.wait(PATIENCE_S)
        for thread in threads[1:]:
            thread.start()
        time.sleep(0.05)
        origin.gate.set()
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        return [answers[at] for at in range(len(calls))]

    def close_one(self, each: Any) -> None:
        self._open.remove(each)
        self.run(each.aclose() if self.is_async else each.close())

    def close(self) -> None:
        for each in [*self._open]:
            self.close_one(each)
        if self._runner is not None:
            self._runner.close()


@pytest.fixture(params=["async", "sync"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(is_async=request.param == "async")
    yield world
    world.close()


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(lambda _: reply()) as origin:
        yield origin


def says(*lines: str, body: str = '"v1"') -> Callable[[Asked], Reply]:
    """An origin that knows ETags: 304 to who has the one of `lines` (or of a resource that has one), else a 200."""
    etag = next((line.removeprefix("ETag: ") for line in lines if line.startswith("ETag: ")), None)

    def script(asked: Asked) -> Reply:
        if etag is not None and asked.headers.get("if-none-match") == etag:
            return not_modified(*lines)
        return reply(body, *lines)

    return script


# Lifetimes


def test_max_age_is_the_ttl_and_a_304_renews_it_without_a_body(world: World, origin: Origin) -> None:
    origin.script = says(CC + "max-age=60", ETAG, body='{"name": "Ada"}')
    user = world.new_source(origin.url).fetcher("/users/42", parser=User)

    assert world.get(user) == Success(User(name="Ada"))
    world.clock.advance(50)
    assert world.get(user) == Success(User(name="Ada"))
    assert len(origin.asked) == 1

    world.clock.advance(11)
    assert world.get(user) == Success(User(name="Ada"))
    assert len(origin.asked) == 2
    assert origin.asked[1].headers["if-none-match"] == '"1"'

    world.clock.advance(50)
    assert world.get(user) == Success(User(name="Ada"))
    assert len(origin.asked) == 2, "the 304 has renewed it for a minute"


def test_the_fields_of_a_304_change_what_is_stored(world: World, origin: Origin) -> None:
    """RFC 9111, section 4.3.4: also for the next 304, which says nothing."""
    origin.script = says(CC + "max-age=60", ETAG)
    fetcher = world.new_source(origin.url).fetcher("/", parser=str)
    world.get(fetcher)

    for lines, seconds in (((CC + "max-age=5",), 5), ((), 5), ((CC + "max-age=90",), 90)):
        world.clock.advance(100)
        origin.script = lambda _, lines=lines: not_modified(*lines)  # type: ignore[misc]
        assert world.get(fetcher) == Success('"v1"')
        world.clock.advance(seconds - 2)
        asked = len(origin.asked)
        assert world.get(fetcher) == Success('"v1"')
        assert len(origin.asked) == asked
        world.clock.advance(2)
        world.get(fetcher)
        assert len(origin.asked) == asked + 1


def test_an_etag_that_a_304_sharpens_is_the_next_one_to_be_sent(world: World, origin: Origin) -> None:
    origin.script = says(CC + "max-age=60", 'ETag: W/"1"')
    fetcher = world.new_source(origin.url).fetcher("/", parser=str)
    world.get(fetcher)
    origin.script = lambda _: not_modified(ETAG)

    for _ in range(2):
        world.clock.advance(61)
        assert world.get(fetcher) == Success('"v1"')

    assert [asked.headers.get("if-none-match") for asked in origin.asked] == [None, 'W/"1"', '"1"']


def test_last_modified_asks_as_well(world: World, origin: Origin) -> None:
    modified = "Thu, 01 Jan 2026 00:00:00 GMT"

    def script(asked: Asked) -> Reply:
        if asked.headers.get("if-modified-since") == modified:
            return not_modified()
        return reply('"v1"', f"Last-Modified: {modified}")

    origin.script = script
    fetcher = world.new_source(origin.url).fetcher("/", parser=str)

    assert [world.get(fetcher), world.get(fetcher)] == [Success('"v1"')] * 2
    assert "if-modified-since" in origin.asked[1].headers


def test_what_has_changed_comes_anew(world: World, origin: Origin) -> None:
    origin.script = says(CC + "max-age=60", ETAG)
    fetcher = world.new_source(origin.url).fetcher("/", parser=str)
    world.get(fetcher)
    origin.script = says(CC + "max-age=60", 'ETag: "2"', body='"v2"')
    world.clock.advance(60)

    assert world.get(fetcher) == Success('"v2"')
    world.clock.advance(60)
    assert world.get(fetcher) == Success('"v2"')
    assert [asked.headers.get("if-none-match") for asked in origin.asked] == [None, '"1"', '"2"']


def test_the_age_of_an_answer_is_taken_from_its_ttl(world: World, origin: Origin) -> None:
    origin.script = says(CC + "max-age=60", "Age: 50")
    fetcher = world.new_source(origin.url).fetcher("/")
    world.get(fetcher)
    ttl = world.ttl(fetcher)
    assert ttl is not None
    assert 5 < ttl <= 10


def test_where_the_origin_says_nothing_the_callers_ttl_counts(world: World, origin: Origin) -> None:
    fetcher = world.new_source(origin.url).fetcher("/")
    world.get(fetcher, ttl=30)
    assert world.ttl(fetcher) == 30


def test_what_the_origin_says_counts_before_the_callers_ttl(world: World, origin: Origin) -> None:
    origin.script = says(CC + "max-age=0")
    fetcher = world.new_source(origin.url).fetcher("/")
    world.get(fetcher, ttl=30)
    world.get(fetcher, ttl=30)
    assert len(origin.asked) == 2


def test_without_a_lifetime_an_etag_is_asked_for_each_time(world: World, origin: Origin) -> None:
    origin.script = says(ETAG)
    fetcher = world.new_source(origin.url).fetcher("/", parser=str)
    assert [world.get(fetcher, ttl=30) for _ in range(3)] == [Success('"v1"')] * 3
    assert [asked.headers.get("if-none-match") for asked in origin.asked] == [None, '"1"', '"1"']


def test_or_lives_as_long_as_the_fetcher_says(world: World, origin: Origin) -> None:
    origin.script = says(ETAG)
    fetcher = world.new_source(origin.url).fetcher("/", parser=str, default_ttl="5m")
    world.get(fetcher)
    assert world.ttl(fetcher) == 300


def test_or_as_long_as_a_guess(world: World, origin: Origin) -> None:
    origin.script = says("Last-Modified: Thu, 01 Jan 2015 00:00:00 GMT")
    fetcher = world.new_source(origin.url).fetcher("/", parser=str, heuristic=True)
    world.get(fetcher)
    assert world.ttl(fetcher) == pytest.approx(86_400, abs=5)


def test_a_call_that_is_not_conditional_gets_the_whole_answer(world: World, origin: Origin) -> None:
    origin.script = says(CC + "max-age=60", ETAG)
    fetcher = world.new_source(origin.url).fetcher("/", parser=str)
    for _ in range(2):
        assert world.get(fetcher, conditional=False) == Success('"v1"')
        world.clock.advance(60)
    assert [asked.headers.get("if-none-match") for asked in origin.asked] == [None, None]


def test_no_store_is_not_stored(world: World, origin: Origin) -> None:
    origin.script = says(CC + "no-store", ETAG)
    fetcher = world.new_source(origin.url).fetcher("/", parser=str)
    assert [world.get(fetcher) for _ in range(2)] == [Success('"v1"')] * 2
    assert [asked.headers.get("if-none-match") for asked in origin.asked] == [None, None]
    assert not world.keeps(fetcher)


# Windows


def test_stale_while_revalidate_is_served_and_refreshed_behind(world: World, origin: Origin) -> None:
    origin.script = says(CC + "max-age=60, stale-while-revalidate=30")
    fetcher = world.new_source(origin.url).fetcher("/", parser=str)
    world.get(fetcher)
    origin.script = says(CC + "max-age=60, stale-while-revalidate=30", body='"v2"')

    world.clock.advance(70)
    assert world.get(fetcher) == Success('"v1"')
    world.until(lambda: world.cache.peek(fetcher.key) == Success('"v2"'))
    assert world.get(fetcher) == Success('"v2"')
    assert len(origin.asked) == 2

    world.clock.advance(91)
    origin.script = says(CC + "max-age=60", body='"v3"')
    assert world.get(fetcher) == Success('"v3"'), "past the window"


def test_stale_if_error_bridges_a_failure_and_a_dead_origin(world: World, origin: Origin) -> None:
    origin.script = says(CC + "max-age=60, stale-if-error=600", ETAG)
    fetcher = world.new_source(origin.url).fetcher("/", parser=str)
    world.get(fetcher)

    world.clock.advance(100)
    origin.script = lambda _: reply(status=503)
    assert world.get(fetcher) == Success('"v1"')
    assert len(origin.asked) == 2

    world.clock.advance(100)
    origin.close()
    assert world.get(fetcher) == Success('"v1"')

    world.clock.advance(461)
    answer = world.get(fetcher)
    assert answer.failure().kind is FailureKind.NETWORK, "past the window"


def test_where_nothing_is_said_of_windows_the_callers_count(world: World, origin: Origin) -> None:
    """RFC 9111, section 4.2.4: a stale answer where the client allows it."""
    origin.script = says(CC + "max-age=60")
    fetcher = world.new_source(origin.url).fetcher("/", parser=str)
    life = Lifetime(ttl=5, stale_if_error_for=600)
    world.get(fetcher, ttl=life)
    origin.script = lambda _: reply(status=503)
    world.clock.advance(100)
    assert world.get(fetcher, ttl=life) == Success('"v1"')


@pytest.mark.parametrize("control", ["must-revalidate, max-age=60", "no-cache", "s-maxage=60, stale-if-error=600"])
def test_what_must_be_validated_is_never_served_stale(world: World, origin: Origin, control: str) -> None:
    origin.script = says(CC + control, ETAG)
    fetcher = world.new_source(origin.url).fetcher("/", parser=str)
    life = Lifetime(ttl=60, stale_if_error_for=600, serve_stale_for=600)
    world.get(fetcher, ttl=life)
    origin.script = lambda _: reply(status=503)
    world.clock.advance(60)
    assert world.get(fetcher, ttl=life) == Failure(UNAVAILABLE)


# HT-1: what is one user's own


def whose(*lines: str) -> Callable[[Asked], Reply]:
    """An origin that answers with who asks."""
    return lambda asked: reply(f'"{asked.headers.get("authorization")}"', *lines)


@pytest.mark.parametrize(
    "lines",
    [
        (CC + "private, max-age=60",),
        (CC + "max-age=60",),
        (),
        (CC + "no-store",),
        (CC + "public, max-age=60", "Set-Cookie: s=1"),
    ],
)
def test_ht1_two_users_with_one_key_get_each_his_own(world: World, origin: Origin, lines: tuple[str, ...]) -> None:
    origin.script = whose(*lines)
    source = world.new_source(origin.url)
    ada, bob = (source.fetcher("/me", parser=str, headers={"Authorization": name}) for name in ("ada", "bob"))
    assert ada.key == bob.key

    answers = world.at_once(
        origin,
        lambda: world.cache.get(ada.key, ada, conditional=True),
        lambda: world.cache.get(bob.key, bob, conditional=True),
        lambda: world.cache.get(bob.key, bob, conditional=True),
    )

    assert answers == [Success('"ada"'), Success('"bob"'), Success('"bob"')]
    assert not world.keeps(ada)
    assert [world.get(ada), world.get(bob)] == [Success('"ada"'), Success('"bob"')]


def test_ht1_what_may_be_shared_is(world: World, origin: Origin) -> None:
    """RFC 9111, section 3.5."""
    origin.script = whose(CC + "public, max-age=60")
    source = world.new_source(origin.url)
    ada, bob = (source.fetcher("/news", parser=str, headers={"Authorization": name}) for name in ("ada", "bob"))

    answers = world.at_once(
        origin,
        lambda: world.cache.get(ada.key, ada, conditional=True),
        lambda: world.cache.get(bob.key, bob, conditional=True),
    )

    assert answers == [Success('"ada"')] * 2
    assert len(origin.asked) == 1


@pytest.mark.parametrize("lines", [(CC + "private, max-age=60",), ("Set-Cookie: s=1", CC + "max-age=60")])
def test_ht1_a_users_own_scope_keeps_what_is_his(world: World, origin: Origin, lines: tuple[str, ...]) -> None:
    origin.script = whose(*lines)
    source = world.new_source(origin.url)
    ada, bob = (
        source.fetcher("/me", parser=str, headers={"Authorization": name}, scope=CacheScope.USER)
        for name in ("ada", "bob")
    )
    hers, his = world.cache.for_user("ada"), world.cache.for_user("bob")

    for _ in range(2):
        assert world.get(ada, cache=hers, scope=CacheScope.USER) == Success('"ada"')
        assert world.get(bob, cache=his, scope=CacheScope.USER) == Success('"bob"')
    assert len(origin.asked) == 2


def test_ht1_what_is_for_a_users_scope_is_not_kept_in_the_global_one(world: World, origin: Origin) -> None:
    origin.script = says(CC + "max-age=60")
    fetcher = world.new_source(origin.url).fetcher("/", scope=CacheScope.USER)
    world.get(fetcher)
    assert not world.keeps(fetcher)


def test_ht1_vary_on_credentials_is_not_in_the_key(world: World, origin: Origin) -> None:
    origin.script = whose(CC + "public, max-age=60", "Vary: Authorization")
    source = world.new_source(origin.url)
    for name in ("ada", "bob"):
        fetcher = source.fetcher("/me", parser=str, headers={"Authorization": name})
        assert world.get(fetcher) == Success(f'"{name}"')
    assert not world.keeps(fetcher)


def test_ht1_a_source_that_authenticates_by_itself_is_seen_to(world: World, origin: Origin) -> None:
    origin.script = says(CC + "max-age=60")
    fetcher = world.new_source(origin.url, auth=("ada", "hunter2")).fetcher("/", parser=str)
    assert world.get(fetcher) == Success('"v1"')
    assert "authorization" in origin.asked[0].headers
    assert not world.keeps(fetcher)


def test_ht1_a_304_may_take_back_what_was_allowed(world: World, origin: Origin) -> None:
    origin.script = says(CC + "max-age=60", ETAG)
    fetcher = world.new_source(origin.url).fetcher("/", parser=str)
    world.get(fetcher)
    origin.script = lambda _: not_modified(CC + "private, max-age=60")
    for _ in range(2):
        world.clock.advance(60)
        assert world.get(fetcher) == Success('"v1"')
    assert len(origin.asked) == 3
    assert world.ttl(fetcher) == pytest.approx(60, abs=2), "as it was: nothing was renewed"


def test_a_token_fetcher_sends_the_token_and_is_its_users(world: World, origin: Origin) -> None:
    origin.script = says(CC + "private, max-age=60", ETAG, body='{"name": "Ada"}')
    me = world.new_source(origin.url).token_fetcher("/me", parser=User)
    world.cache.set_active_user("ada")

    for _ in range(2):
        answer = world.run(world.cache.get_authenticated(me.key, me, conditional=True))
        assert answer == Success(User(name="Ada"))
    assert [asked.headers["authorization"] for asked in origin.asked] == ["Bearer secret-token"]

    world.clock.advance(60)
    assert world.run(world.cache.get_authenticated(me.key, me, conditional=True)) == Success(User(name="Ada"))
    assert origin.asked[1].headers["if-none-match"] == '"1"'
    assert "secret" not in me.key
    assert not world.keeps(me)


# HT-2: Vary


def in_language(asked: Asked) -> Reply:
    language = asked.headers.get("accept-language", "none")
    if asked.headers.get("if-none-match") == '"1"':
        return not_modified(CC + "max-age=60")
    return reply(f'"{language}"', CC + "max-age=60", ETAG, "Vary: Accept-Language")


def test_ht2_what_other_headers_select_is_a_miss(world: World, origin: Origin) -> None:
    """An ETag that is the same in all languages must not bring German for English."""
    origin.script = in_language
    source = world.new_source(origin.url)
    german, english = (source.fetcher("/", parser=str, headers={"Accept-Language": each}) for each in ("de", "en"))
    assert german.key != english.key

    assert world.get(german, key="page") == Success('"de"')
    world.clock.advance(60)
    assert world.get(english, key="page") == Success('"en"')
    assert [asked.headers.get("if-none-match") for asked in origin.asked] == [None, None]

    world.clock.advance(60)
    assert world.get(english, key="page") == Success('"en"')
    assert origin.asked[2].headers["if-none-match"] == '"1"'


@pytest.mark.parametrize("vary", ["Accept", "Accept-Language, Accept", "*"])
def test_ht2_a_304_with_another_vary_renews_nothing(world: World, origin: Origin, vary: str) -> None:
    origin.script = in_language
    fetcher = world.new_source(origin.url).fetcher("/", parser=str)
    world.get(fetcher)

    def changed(asked: Asked) -> Reply:
        fields = (CC + "max-age=60", ETAG, f"Vary: {vary}")
        return not_modified(*fields) if "if-none-match" in asked.headers else reply('"new"', *fields)

    origin.script = changed
    world.clock.advance(60)
    assert world.get(fetcher) == Success('"new"')
    assert [asked.headers.get("if-none-match") for asked in origin.asked] == [None, '"1"', None]


def test_ht2_vary_any_is_not_stored(world: World, origin: Origin) -> None:
    origin.script = says(CC + "max-age=60", ETAG, "Vary: *")
    fetcher = world.new_source(origin.url).fetcher("/")
    world.get(fetcher)
    assert not world.keeps(fetcher)


def test_headers_that_any_client_sends_select_nothing(world: World, origin: Origin) -> None:
    """A client of one's own has other defaults than the source's."""
    origin.script = says(CC + "max-age=60", ETAG, "Vary: Accept, Accept-Encoding, User-Agent")
    own = world.new_source(origin.url).fetcher("/", parser=str)
    given = world.new_source(origin.url, client=world.new_client()).fetcher("/", parser=str)
    assert own.key == given.key

    world.get(own)
    world.clock.advance(60)
    assert world.get(given) == Success('"v1"')
    assert origin.asked[1].headers["if-none-match"] == '"1"'


# HT-4: what is no proper answer


def test_ht4_a_304_with_nothing_stored_is_a_bad_response(world: World, origin: Origin) -> None:
    origin.script = lambda _: not_modified(CC + "max-age=60", ETAG)
    fetcher = world.new_source(origin.url).fetcher("/")
    answer = world.get(fetcher)
    assert (answer.failure().kind, answer.failure().status) == (FailureKind.BAD_RESPONSE, 304)
    assert not world.keeps(fetcher)


def test_ht4_a_304_for_something_else_is_asked_again_without_conditions(world: World, origin: Origin) -> None:
    origin.script = says(CC + "max-age=60", ETAG)
    fetcher = world.new_source(origin.url).fetcher("/", parser=str)
    world.get(fetcher)

    def another(asked: Asked) -> Reply:
        fields = (CC + "max-age=60", 'ETag: "2"')
        return not_modified(*fields) if "if-none-match" in asked.headers else reply('"v2"', *fields)

    origin.script = another
    world.clock.advance(60)
    assert world.get(fetcher) == Success('"v2"')
    assert len(origin.asked) == 3


def test_ht4_a_304_that_never_fits_is_a_bad_response(world: World, origin: Origin) -> None:
    origin.script = says(CC + "max-age=60", ETAG)
    fetcher = world.new_source(origin.url).fetcher("/", parser=str)
    world.get(fetcher)
    origin.script = lambda _: not_modified('ETag: "2"')
    world.clock.advance(60)
    assert world.get(fetcher).failure().kind is FailureKind.BAD_RESPONSE
    assert len(origin.asked) == 3


def test_ht4_a_truncated_answer_is_not_stored(world: World, origin: Origin) -> None:
    origin.script = lambda _: reply('"a long text"', CC + "max-age=60", cut=4)
    fetcher = world.new_source(origin.url).fetcher("/", parser=str)
    assert world.get(fetcher).failure().kind is FailureKind.BAD_RESPONSE
    assert not world.keeps(fetcher)


def test_ht4_what_does_not_fit_the_parser_is_not_stored(world: World, origin: Origin) -> None:
    origin.script = says(CC + "max-age=60", ETAG, body='{"nome": "Ada"}')
    fetcher = world.new_source(origin.url).fetcher("/", parser=User)
    assert world.get(fetcher).failure().kind is FailureKind.PARSING
    assert not world.keeps(fetcher)


def test_a_validator_is_of_the_resource_that_it_came_from(world: World, origin: Origin) -> None:
    """Under one key, what was at another URL had the same ETag."""
    origin.script = lambda asked: (
        not_modified() if "if-none-match" in asked.headers else reply(f'"{asked.path}"', CC + "max-age=60", ETAG)
    )
    source = world.new_source(origin.url)
    one, other = source.fetcher("/one", parser=str), source.fetcher("/other", parser=str)
    assert world.get(one, key="k") == Success('"/one"')
    world.clock.advance(60)
    assert world.get(other, key="k") == Success('"/other"')


# Redirects


def test_behind_a_redirect_the_strictest_lifetime_counts(world: World, origin: Origin) -> None:
    def script(asked: Asked) -> Reply:
        if asked.path == "/old":
            return reply("", CC + "max-age=5", "Location: /new", status=301)
        return reply('"new"', CC + "max-age=60", ETAG)

    origin.script = script
    fetcher = world.new_source(origin.url).fetcher("/old", parser=str)
    assert world.get(fetcher) == Success('"new"')
    ttl = world.ttl(fetcher)
    assert ttl is not None
    assert 2 < ttl <= 5
    world.clock.advance(5)
    assert world.get(fetcher) == Success('"new"')
    assert all("if-none-match" not in asked.headers for asked in origin.asked), "the ETag is that of another resource"


def test_what_a_302_leads_to_is_not_kept(world: World, origin: Origin) -> None:
    origin.script = lambda asked: (
        reply("", "Location: /new", status=302) if asked.path == "/old" else reply('"new"', CC + "max-age=60")
    )
    fetcher = world.new_source(origin.url).fetcher("/old", parser=str)
    assert world.get(fetcher) == Success('"new"')
    assert not world.keeps(fetcher)


def test_ht4_a_304_from_behind_a_redirect_renews_nothing(world: World, origin: Origin) -> None:
    """The resource has moved to one whose ETag happens to be the same."""
    origin.script = says(CC + "max-age=60", ETAG)
    fetcher = world.new_source(origin.url).fetcher("/old", parser=str)
    world.get(fetcher)

    def moved(asked: Asked) -> Reply:
        if asked.path == "/old":
            return reply("", CC + "max-age=60", "Location: /new", status=301)
        return says(CC + "max-age=60", ETAG, body='"v2"')(asked)

    origin.script = moved
    world.clock.advance(60)
    assert world.get(fetcher) == Success('"v2"')
    assert [asked.headers.get("if-none-match") for asked in origin.asked] == [None, '"1"', '"1"', None, None]


# Stores


def test_an_etag_survives_a_restart(world: World, origin: Origin, tmp_path: Path) -> None:
    origin.script = says(CC + "max-age=60", ETAG, body='{"name": "Ada"}')

    def session() -> tuple[Any, Any]:
        cache = world.new_cache(store=SqliteStore(tmp_path / "cache.db"))
        source = world.new_source(origin.url)
        user = source.fetcher("/users/42", parser=User)
        answers = [world.get(user, cache=cache, schema=User)]
        world.clock.advance(30)
        answers.append(world.get(user, cache=cache, schema=User))
        assert isinstance(world.run(cache.flush()), Success)
        world.close_one(cache)
        world.close_one(source)
        return tuple(answers)

    ada = Success(User(name="Ada"))
    assert session() == (ada, ada)
    assert len(origin.asked) == 1
    world.clock.advance(60)
    assert session() == (ada, ada)
    assert [asked.headers.get("if-none-match") for asked in origin.asked] == [None, '"1"']
    assert session() == (ada, ada), "renewed in the store as well"


@pytest.mark.parametrize(
    ("parser", "body", "value"),
    [
        (User, '{"name": "Ada"}', User(name="Ada")),
        (list[User], '[{"name": "Ada"}]', [User(name="Ada")]),
        (bytes, "no JSON", b"no JSON"),
        (str, "no JSON", "no JSON"),
        (None, "whatever", None),
    ],
)
def test_its_options_are_those_of_the_call(
    world: World, origin: Origin, tmp_path: Path, parser: Any, body: str, value: Any
) -> None:
    """The scope, conditional requests, and what a store writes: all that the fetcher knows already."""
    origin.script = says("Cache-Control: private, max-age=60", ETAG, body=body)
    for _ in range(2):
        cache, source = world.new_cache(store=SqliteStore(tmp_path / "cache.db")), world.new_source(origin.url)
        cache.set_active_user("ada")
        fetch = source.fetcher("/users/42", parser=parser, scope=CacheScope.USER)
        for seconds in (30, 60):
            assert world.run(cache.get(fetch.key, fetch, **fetch.options)) == Success(value)
            world.clock.advance(seconds)
        assert cache.scope_of(fetch.key) is CacheScope.USER
        assert isinstance(world.run(cache.flush()), Success)
        world.close_one(cache)
        world.close_one(source)
    assert [asked.headers.get("if-none-match") for asked in origin.asked] == [None, '"1"']


# Keys and bad input


def test_a_key_tells_resources_and_headers_apart_and_no_secrets() -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"params": {"token": "hunter2"}},
        {"params": {"token": "hunter3"}},
        {"headers": {"Accept": "text/plain"}},
        {"headers": {"accept": "text/csv"}},
        {"headers": {"X-Tenant": "t2"}},
    ]
    alike: list[dict[str, Any]] = [
        {"headers": {"Authorization": "Bearer x"}},
        {"headers": {"COOKIE": "a=b"}},
        {"headers": {"Accept": "*/*"}},
        {"parser": dict},
    ]
    with SyncHttpSource("https://ada:hunter2@example.org/api", headers={"X-Tenant": "t1"}) as source:
        keys = [source.fetcher("/users", **options).key for options in variants]
        assert len(set(keys)) == len(keys)
        assert all(key.startswith("GET https://example.org/api/users ") for key in keys)
        assert "hunter" not in " ".join(keys)
        assert "t1" not in " ".join(keys)
        assert {source.fetcher("/users", **options).key for options in alike} == {keys[0]}
        assert source.fetcher("/users?a=1").key != source.fetcher("/users?a=2").key


def test_a_key_is_the_same_in_every_process() -> None:
    with SyncHttpSource("https://example.org") as source:
        assert source.fetcher("/a").key == "GET https://example.org/a"
        key = source.fetcher("/a?b=c", headers={"Accept": "text/csv"}).key
        assert key == "GET https://example.org/a f06898fc22c2d78c547392dd"


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("/relative", {}, "a relative URL needs a base_url"),
        ("ftp://x/", {}, "the URL has another scheme than http and https"),
        ("http://x/", {"parser": 5}, "the parser is no type that pydantic knows"),
        ("http://x/", {"headers": {"X": "a\nb"}}, "headers: the value of X is illegal"),
        ("http://x/", {"headers": 5}, "headers: no mapping of names to values"),
        ("http://x/", {"timeout": "soon"}, "timeout: no duration"),
    ],
)
def test_what_cannot_be_asked_for_is_a_failure(world: World, url: str, options: dict[str, Any], message: str) -> None:
    fetcher = world.new_source().fetcher(url, **options)
    assert fetcher.key.startswith("GET ")
    assert world.get(fetcher).failure().message == message


def test_a_setting_that_makes_no_sense_is_refused(world: World) -> None:
    source = world.new_source("http://x")
    with pytest.raises(ValueError, match="a duration"):
        source.fetcher("/", default_ttl=-1)
    with pytest.raises(ValueError, match="galaxy"):
        source.fetcher("/", scope="galaxy")


def test_what_is_no_previous_or_no_validator_of_ours_is_not_sent(world: World, origin: Origin) -> None:
    fetcher = world.new_source(origin.url).fetcher("/", parser=str)
    world.run(world.cache.put(fetcher.key, "by hand", ttl=5))
    world.clock.advance(5)
    assert world.get(fetcher) == Success('"v1"')
    assert "if-none-match" not in origin.asked[0].headers


def test_many_keys_have_each_a_lifetime_of_its_own(world: World, origin: Origin) -> None:
    origin.script = lambda asked: reply(f'"{asked.path}"', CC + f"max-age={asked.path[1:]}")
    source = world.new_source(origin.url)

    async def fetch(keys: tuple[str, ...]) -> dict[str, Result[Any, NetworkFailure]]:
        return {key: await source.fetcher(f"/{key}", parser=str)() for key in keys}

    def sync_fetch(keys: tuple[str, ...]) -> dict[str, Result[Any, NetworkFailure]]:
        return {key: source.fetcher(f"/{key}", parser=str)() for key in keys}

    fetch_many: Any = fetch if world.is_async else sync_fetch
    assert world.run(world.cache.get_many(["10", "20"], fetch_many)) == {"10": Success('"/10"'), "20": Success('"/20"')}
    batcher: Any = (Batcher if world.is_async else SyncBatcher)(world.cache, fetch_many)
    world.clock.advance(15)
    assert world.run(batcher.get("20")) == Success('"/20"')
    assert len(origin.asked) == 2
    assert world.run(batcher.get("10")) == Success('"/10"')
    assert len(origin.asked) == 3
