"""`get_many` on both faces: one answer for each key, one call of the origin for all that are missing."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from returns.io import IOResult
from returns.result import Failure, Result, Success

from cachemesh import (
    CacheClosed,
    CacheExpired,
    CacheMiss,
    CachePolicy,
    CacheScope,
    FetchCancelled,
    FetchRaised,
    FetchTimeout,
    Fresh,
    InvalidFetchResult,
    InvalidKey,
    InvalidOption,
    InvalidTtl,
    Lifetime,
    NoActiveUser,
    ReentrantFetch,
    RetryOptions,
)
from tests.shell.faces import AsyncPending
from tests.stores.faulty import FaultyStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.shell.faces import AsyncFace, Face, Fetch, Pending, SyncFace

USER = CacheScope.USER


def origin(face: Face, **options: Any) -> Fetch:
    """A `fetch_many` that knows a value for every key."""
    return face.fetcher(lambda keys: {key: Success(key.upper()) for key in keys}, **options)


def asked(fetch: Fetch) -> list[tuple[str, ...]]:
    """The keys of each call."""
    return [arguments[0] for arguments in fetch.arguments]


def many(face: Face, keys: Any, fetch: Any, **options: Any) -> dict[str, Result[Any, Any]]:
    answers: Any = face.call("get_many", keys, fetch, **options)
    return dict(answers)


def answers_of(pending: Pending) -> dict[str, Result[Any, Any]]:
    answers: Any = pending.result()
    return dict(answers)


def nothing_under_way(face: Face) -> bool:
    runtime = face.cache._runtime
    return not runtime.lives and len(runtime.state.flights) == 0


# The answers


def test_one_call_answers_for_every_key_in_the_order_that_was_asked(face: Face) -> None:
    fetch = origin(face)

    answers = many(face, ["b", "a", "c"], fetch)

    assert list(answers.items()) == [("b", Success("B")), ("a", Success("A")), ("c", Success("C"))]
    assert asked(fetch) == [("b", "a", "c")]
    assert [face.peek(key) for key in "abc"] == [Success("A"), Success("B"), Success("C")]


def test_only_what_is_missing_is_fetched(face: Face) -> None:
    face.fill("b", "cached", ttl=60)
    fetch = origin(face)

    answers = many(face, ["a", "b", "c"], fetch, ttl=60)

    assert list(answers.items()) == [("a", Success("A")), ("b", Success("cached")), ("c", Success("C"))]
    assert asked(fetch) == [("a", "c")]


def test_where_everything_is_a_hit_nothing_is_fetched(face: Face) -> None:
    many(face, "abc", origin(face), ttl=60)
    fetch = origin(face)

    assert many(face, "abc", fetch, ttl=60) == {key: Success(key.upper()) for key in "abc"}
    assert many(face, "abc", fetch, ttl=60, cache_failures=True) == {key: Success(key.upper()) for key in "abc"}
    assert fetch.calls == 0


@pytest.mark.parametrize("own_clock", [False, True])
def test_plain_hits_are_served_without_the_logger_too(face: Face, own_clock: bool) -> None:
    plain = face.new(logger=None, **({"clock": None} if own_clock else {}))
    fetch = origin(plain)
    many(plain, ["a", "b"], fetch, ttl=60)

    assert many(plain, ["c", "b", "a"], fetch, ttl=60) == {"c": Success("C"), "b": Success("B"), "a": Success("A")}
    assert asked(fetch) == [("a", "b"), ("c",)]
    plain.close()


@pytest.mark.parametrize("keys", [[], (), {}, iter(())], ids=repr)
def test_no_keys_are_no_call(face: Face, keys: Any) -> None:
    fetch = origin(face)

    assert many(face, keys, fetch) == {}
    assert fetch.calls == 0


def test_a_key_that_comes_twice_is_one(face: Face) -> None:
    fetch = origin(face)

    assert many(face, ["a", "b", "a"], fetch) == {"a": Success("A"), "b": Success("B")}
    assert asked(fetch) == [("a", "b")]


def test_keys_may_come_from_any_iterable(face: Face) -> None:
    assert list(many(face, (key for key in "ab"), origin(face))) == ["a", "b"]
    assert list(many(face, {"c": 1, "d": 2}, origin(face))) == ["c", "d"]


def test_a_str_of_another_type_is_the_str_that_it_is(face: Face) -> None:
    fetch = origin(face)

    assert many(face, [USER], fetch) == {"user": Success("USER")}
    assert [type(key) for key in asked(fetch)[0]] == [str]


# One that is bad


def test_one_bad_key_is_one_failure(face: Face) -> None:
    fetch = origin(face)

    answers = many(face, ["a", 42, None, "b"], fetch)

    assert answers == {
        "a": Success("A"),
        42: Failure(InvalidKey(42)),
        None: Failure(InvalidKey(None)),
        "b": Success("B"),
    }
    assert asked(fetch) == [("a", "b")]


def test_one_key_that_fails_is_one_failure(face: Face) -> None:
    fetch = face.fetcher(lambda _: {"a": Success(1), "b": Failure("no b"), "c": Success(3)})

    assert many(face, "abc", fetch) == {"a": Success(1), "b": Failure("no b"), "c": Success(3)}
    assert face.peek("b") == Failure(CacheMiss("b"))
    assert face.log.named("error") == [("error", "b", "no b")]


def test_what_raises_failed_for_everybody(face: Face) -> None:
    error = LookupError("down")

    assert many(face, "ab", face.fetcher(error)) == {key: Failure(FetchRaised(key, error)) for key in "ab"}
    assert nothing_under_way(face)


@pytest.mark.parametrize("wrapped", [Failure("down"), IOResult.from_failure("down")], ids=["Result", "IOResult"])
def test_a_failure_in_place_of_the_answers_is_everybodys(face: Face, wrapped: Any) -> None:
    assert many(face, "ab", face.fetcher(lambda _: wrapped)) == {"a": Failure("down"), "b": Failure("down")}


@pytest.mark.parametrize("wrap", [Success, IOResult.from_value], ids=["Result", "IOResult"])
def test_the_answers_may_come_in_a_result(face: Face, wrap: Callable[[Any], Any]) -> None:
    fetch = face.fetcher(lambda keys: wrap({key: Success(key.upper()) for key in keys}))

    assert many(face, "ab", fetch) == {"a": Success("A"), "b": Success("B")}


def test_a_key_that_is_left_out_has_no_answer(face: Face) -> None:
    fetch = face.fetcher(lambda _: {"a": Success(1), "z": Success(26)})

    assert many(face, "ab", fetch) == {"a": Success(1), "b": Failure(InvalidFetchResult("b", "nothing"))}
    assert face.peek("z") == Failure(CacheMiss("z"))


@pytest.mark.parametrize("got", [None, 42, "ab", [Success(1), Success(2)], Success(None)], ids=repr)
def test_what_is_no_mapping_is_named(face: Face, got: Any) -> None:
    name = "NoneType" if isinstance(got, Success) else type(got).__name__

    answers = many(face, "ab", face.fetcher(lambda _: got))

    assert answers == {key: Failure(InvalidFetchResult(key, name)) for key in "ab"}


def test_an_answer_that_is_no_result_is_one_failure(face: Face) -> None:
    async def never_awaited() -> None: ...

    fetch = face.fetcher(lambda _: {"a": 1, "b": never_awaited(), "c": None, "d": Success(4)})

    assert many(face, "abcd", fetch) == {
        "a": Failure(InvalidFetchResult("a", "int")),
        "b": Failure(InvalidFetchResult("b", "coroutine")),
        "c": Failure(InvalidFetchResult("c", "NoneType")),
        "d": Success(4),
    }


@pytest.mark.filterwarnings("error")
def test_a_coroutine_function_is_none_for_threads(sync_face: SyncFace) -> None:
    async def fetch(keys: tuple[str, ...]) -> Any:
        return {key: Success(1) for key in keys}

    assert many(sync_face, "a", fetch) == {"a": Failure(InvalidFetchResult("a", "coroutine"))}


def test_answers_that_cannot_be_looked_at_are_a_failure(face: Face) -> None:
    class Hostile(dict[str, Any]):
        def __contains__(self, key: object) -> bool:
            raise OSError(key)

    answers = many(face, "ab", face.fetcher(lambda _: Hostile()))

    assert [type(answer.failure()) for answer in answers.values()] == [FetchRaised, FetchRaised]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"policy": "cache_first"}, InvalidOption("policy", "str")),
        ({"ttl": -1}, InvalidTtl(-1)),
        ({"tags": "feed"}, InvalidOption("tags", "str")),
        ({"scope": "user"}, InvalidOption("scope", "str")),
        ({"scope": USER}, None),
        ({"conditional": True}, InvalidOption("conditional", "get_many")),
    ],
    ids=repr,
)
def test_a_bad_option_is_everybodys_failure(face: Face, options: dict[str, Any], error: Exception | None) -> None:
    fetch = origin(face)

    answers = many(face, ["a", "b"], fetch, **options)

    assert answers == {key: Failure(error or NoActiveUser(key)) for key in "ab"}
    assert fetch.calls == 0
    assert nothing_under_way(face)


def test_a_cache_that_is_closed_says_so_for_each_key(face: Face) -> None:
    other = face.new()
    many(other, ["a"], origin(face), ttl=60)
    other.close()

    assert many(other, ["a", "b"], origin(face)) == {key: Failure(CacheClosed()) for key in "ab"}


# Shared with single gets


def test_it_joins_the_fetch_of_a_single_get(face: Face) -> None:
    single, fetch = face.fetcher(Success("single"), held=True), origin(face)
    first = face.begin.get("a", single)
    second = face.begin.call("get_many", ["a", "b"], fetch)
    assert not second.is_done
    single.release()

    assert (first.result(), answers_of(second)) == (Success("single"), {"a": Success("single"), "b": Success("B")})
    assert asked(fetch) == [("b",)]


@pytest.mark.parametrize("method", ["get", "refresh", "prefetch"])
def test_a_single_call_joins_its_fetch(face: Face, method: str) -> None:
    fetch, single = origin(face, held=True), face.fetcher(Success("single"))
    first = face.begin.call("get_many", ["a", "b"], fetch)
    second = [face.begin.call(method, key, single) for key in "ba"]
    fetch.release()

    assert first.result() == {"a": Success("A"), "b": Success("B")}
    assert [each.result() for each in second] == [Success("B"), Success("A")]
    assert (single.calls, asked(fetch)) == (0, [("a", "b")])


def test_two_of_them_share_what_both_ask_for(face: Face) -> None:
    one, other = origin(face, held=True), origin(face, held=True)
    first = face.begin.call("get_many", ["a", "b", "c"], one)
    second = face.begin.call("get_many", ["d", "c", "b"], other)
    other.release()
    one.release()

    assert first.result() == {key: Success(key.upper()) for key in "abc"}
    assert list(answers_of(second).items()) == [("d", Success("D")), ("c", Success("C")), ("b", Success("B"))]
    assert (asked(one), asked(other)) == ([("a", "b", "c")], [("d",)])


def test_overlapping_in_opposite_order_never_stands_still(face: Face) -> None:
    """Each leads some of what the other one joins, whoever comes first."""
    fetch = origin(face)
    keys = [f"k{number}" for number in range(20)]
    orders = [keys, keys[::-1], keys[10:] + keys[:10], keys[::2] + keys[1::2]] * 3
    turn = iter(orders)

    answers = face.concurrently(len(orders), lambda calls: calls.call("get_many", next(turn), fetch), then=lambda: None)

    assert answers == [{key: Success(key.upper()) for key in keys}] * len(orders)
    assert sorted(key for call in asked(fetch) for key in call) == sorted(keys)


def test_those_who_wait_are_told_as_soon_as_their_key_is_there(face: Face) -> None:
    """A key that is tried again holds up nobody who waits for another one."""
    rounds = iter([{"a": Failure("busy"), "b": Success("B")}, {"a": Success("A")}])
    fetch = face.fetcher(lambda _: next(rounds), held=True)
    first = face.begin.call("get_many", ["a", "b"], fetch, retry=RetryOptions(max_attempts=2, delay=30))
    waiting = face.begin.get("b", face.fetcher(Success("single")))
    began = face.clock()
    fetch.release()

    assert waiting.result() == Success("B")
    if face.name == "async":
        assert face.clock() == began
    assert first.result() == {"a": Success("A"), "b": Success("B")}
    assert face.clock() == began + 30
    assert asked(fetch) == [("a", "b"), ("a",)]


# Tried again, and timed out


def test_what_failed_is_tried_again_together(face: Face) -> None:
    rounds = iter([Failure("busy"), {"a": Failure("busy"), "b": Success(2), "c": Failure("busy")}, Failure("still")])
    fetch = face.fetcher(lambda _: next(rounds))
    began = face.clock()

    answers = many(face, "abc", fetch, retry=RetryOptions(max_attempts=3, delay=10))

    assert answers == {"a": Failure("still"), "b": Success(2), "c": Failure("still")}
    assert asked(fetch) == [("a", "b", "c"), ("a", "b", "c"), ("a", "c")]
    assert face.clock() == began + 20


def test_who_is_not_to_be_tried_again_is_not(face: Face) -> None:
    fetch = face.fetcher(lambda keys: {key: Failure("gone" if key == "a" else "busy") for key in keys})
    options = RetryOptions(max_attempts=3, retry_when=lambda error: error == "busy")

    assert many(face, "ab", fetch, retry=options) == {"a": Failure("gone"), "b": Failure("busy")}
    assert asked(fetch) == [("a", "b"), ("b",), ("b",)]


def test_delays_of_their_own_are_kept(face: Face) -> None:
    """With jitter the keys come due one after the other: each has its number of attempts, none is lost."""
    fetch = face.fetcher(Failure("busy"))

    answers = many(face, "abcd", fetch, retry=RetryOptions(max_attempts=4, delay=10, backoff_factor=2, jitter=1.0))

    assert answers == {key: Failure("busy") for key in "abcd"}
    calls = asked(fetch)
    assert {key: sum(key in call for call in calls) for key in "abcd"} == dict.fromkeys("abcd", 4)


def test_an_attempt_that_takes_too_long_failed_for_all(async_face: AsyncFace) -> None:
    fetch = origin(async_face, takes=10)

    answers = many(async_face, "ab", fetch, retry=RetryOptions(max_attempts=1, attempt_timeout=5))

    assert answers == {key: Failure(FetchTimeout(key, 5.0)) for key in "ab"}


def test_an_attempt_of_threads_that_takes_too_long_failed_for_all(sync_face: SyncFace) -> None:
    fetch = origin(sync_face, held=True)

    answers = many(sync_face, "ab", fetch, retry=RetryOptions(max_attempts=1, attempt_timeout=0.01))
    fetch.release()

    assert answers == {key: Failure(FetchTimeout(key, 0.01)) for key in "ab"}
    assert nothing_under_way(sync_face)


def test_a_hard_timeout_is_everybodys(face: Face) -> None:
    face.fill("old", "O", ttl=Lifetime(ttl=1, stale_if_error_for=1000))
    face.clock.advance(2)
    fetch = origin(face, held=True)
    pending = face.begin.call("get_many", ["a", "old", "b"], fetch, hard_timeout=5)
    face.clock.advance(5)

    assert pending.result() == {
        "a": Failure(FetchTimeout("a", 5.0)),
        "old": Success("O"),
        "b": Failure(FetchTimeout("b", 5.0)),
    }
    assert asked(fetch) == [("a", "old", "b")]
    fetch.release()
    face.settle()


def test_flights_that_get_too_old_are_given_up_one_and_all(face: Face) -> None:
    fetch = origin(face, held=True)
    pending = face.begin.call("get_many", ["a", "b"], fetch, max_flight_age=5)
    face.clock.advance(5)

    assert pending.result() == {key: Failure(FetchTimeout(key, 5.0)) for key in "ab"}
    assert many(face, "ab", origin(face)) == {"a": Success("A"), "b": Success("B")}
    fetch.release()
    face.settle()
    assert face.peek("a") == Success("A")
    assert nothing_under_way(face)


def test_a_soft_timeout_serves_what_there_is(face: Face) -> None:
    many(face, "ab", face.fetcher(lambda keys: {key: Success(f"old {key}") for key in keys}), ttl=1)
    face.clock.advance(2)
    fetch = origin(face, held=True)
    pending = face.begin.call("get_many", ["a", "b"], fetch, soft_timeout=5)
    face.clock.advance(5)

    assert pending.result() == {"a": Success("old a"), "b": Success("old b")}
    fetch.release()
    face.settle()
    assert (face.peek("a"), face.peek("b")) == (Success("A"), Success("B"))
    assert asked(fetch) == [("a", "b")]
    assert nothing_under_way(face)


# Policies, scopes, options


def test_stale_values_are_served_and_refreshed_behind_in_one_call(face: Face) -> None:
    policy = CachePolicy.STALE_WHILE_REVALIDATE
    many(face, "abc", face.fetcher(lambda keys: {key: Success(f"old {key}") for key in keys}), ttl=5)
    face.clock.advance(6)
    fetch = origin(face)

    answers = many(face, "abc", fetch, policy=policy, ttl=5)
    face.settle()

    assert answers == {key: Success(f"old {key}") for key in "abc"}
    assert asked(fetch) == [("a", "b", "c")]
    assert [face.peek(key) for key in "abc"] == [Success("A"), Success("B"), Success("C")]
    assert nothing_under_way(face)


def test_what_is_missing_does_not_wait_for_what_is_refreshed_behind(face: Face) -> None:
    many(face, "ab", face.fetcher(lambda keys: {key: Success(f"old {key}") for key in keys}), ttl=5)
    face.clock.advance(6)
    fetch = origin(face)

    answers = many(face, "abcd", fetch, policy=CachePolicy.STALE_WHILE_REVALIDATE, ttl=5)
    face.settle()

    assert answers == {"a": Success("old a"), "b": Success("old b"), "c": Success("C"), "d": Success("D")}
    assert sorted(key for call in asked(fetch) for key in call) == ["a", "b", "c", "d"]
    assert len(asked(fetch)) <= 2
    assert [face.peek(key) for key in "abcd"] == [Success(key.upper()) for key in "abcd"]


def test_network_only_fetches_everything_and_stores_nothing(face: Face) -> None:
    face.fill("a", "cached")
    fetch = origin(face)

    assert many(face, "ab", fetch, policy=CachePolicy.NETWORK_ONLY) == {"a": Success("A"), "b": Success("B")}
    assert (face.peek("a"), face.peek("b")) == (Success("cached"), Failure(CacheMiss("b")))


def test_cache_only_fetches_nothing(face: Face) -> None:
    face.fill("fresh", 1, ttl=60)
    face.fill("old", 2, ttl=1)
    face.clock.advance(2)
    fetch = origin(face)

    assert many(face, ["fresh", "old", "none"], fetch, policy=CachePolicy.CACHE_ONLY) == {
        "fresh": Success(1),
        "old": Failure(CacheExpired("old")),
        "none": Failure(CacheMiss("none")),
    }
    assert fetch.calls == 0


def test_network_first_falls_back_key_by_key(face: Face) -> None:
    face.fill("a", "cached")
    fetch = face.fetcher(lambda keys: {key: Failure("down") for key in keys})

    assert many(face, "ab", fetch, policy=CachePolicy.NETWORK_FIRST) == {"a": Success("cached"), "b": Failure("down")}


def test_a_remembered_failure_spares_its_key(face: Face) -> None:
    face.get("a", face.fetcher(Failure("gone")), cache_failures=True)
    fetch = origin(face)

    assert many(face, "ab", fetch, cache_failures=True) == {"a": Failure("gone"), "b": Success("B")}
    assert asked(fetch) == [("b",)]


def test_each_view_has_its_own(face: Face) -> None:
    ada, bob = face.for_user("ada"), face.for_user("bob")
    many(ada, "ab", face.fetcher(lambda keys: {key: Success(f"ada's {key}") for key in keys}), scope=USER)

    answers = many(bob, "ab", face.fetcher(lambda keys: {key: Success(f"bob's {key}") for key in keys}), scope=USER)

    assert answers == {key: Success(f"bob's {key}") for key in "ab"}
    assert (ada.peek("a"), bob.peek("a"), face.peek("a")) == (
        Success("ada's a"),
        Success("bob's a"),
        Failure(CacheMiss("a")),
    )


def test_two_views_at_once_share_nothing(face: Face) -> None:
    ada, bob = face.for_user("ada"), face.for_user("bob")
    of_ada = face.fetcher(lambda keys: {key: Success("ada") for key in keys}, held=True)
    of_bob = face.fetcher(lambda keys: {key: Success("bob") for key in keys}, held=True)
    first = ada.begin.call("get_many", ["a", "b"], of_ada, scope=USER)
    second = bob.begin.call("get_many", ["a", "b"], of_bob, scope=USER)
    of_bob.release()
    of_ada.release()

    assert (answers_of(first), answers_of(second)) == (
        {"a": Success("ada"), "b": Success("ada")},
        {"a": Success("bob"), "b": Success("bob")},
    )


def test_directives_are_heeded_key_by_key(face: Face) -> None:
    fetch = face.fetcher(lambda _: {"a": Success(Fresh(1, ttl=5, tags=("t",))), "b": Success(2)})

    assert many(face, "ab", fetch, ttl=60) == {"a": Success(1), "b": Success(2)}
    face.clock.advance(6)
    assert (face.peek("a"), face.peek("b")) == (Failure(CacheExpired("a")), Success(2))
    face.at_once("invalidate_tag", "t")
    assert face.peek("a", allow_expired=True) == Failure(CacheMiss("a"))


def test_tags_and_lifetimes_go_for_every_key(face: Face) -> None:
    many(face, "ab", origin(face), tags=("t",), ttl=Lifetime(ttl=5, serve_stale_for=5))
    fetch = origin(face)
    face.clock.advance(6)

    assert many(face, "ab", fetch, tags=["t"]) == {"a": Success("A"), "b": Success("B")}
    face.settle()
    assert sorted(asked(fetch)[0]) == ["a", "b"]

    face.at_once("invalidate_tag", "t")
    again = origin(face)
    many(face, "ab", again)
    assert asked(again) == [("a", "b")]


def test_those_who_asked_after_a_mark_ask_again_together(face: Face) -> None:
    """The tags come with the answers: whoever asked after the mark gets newer ones, in one more call."""
    number = iter(range(1, 9))
    fetch = face.fetcher(lambda keys: dict.fromkeys(keys, Success(Fresh(next(number), tags=("t",)))), held=True)
    first = face.begin.call("get_many", ["a", "b"], fetch)
    face.at_once("invalidate_tag", "t")
    second = face.begin.call("get_many", ["a", "b"], fetch)
    fetch.release()

    assert first.result() == {"a": Success(1), "b": Success(1)}
    assert second.result() == {"a": Success(2), "b": Success(2)}
    assert asked(fetch) == [("a", "b"), ("a", "b")]
    assert (face.peek("a"), face.peek("b")) == (Success(2), Success(2))


def test_a_breaker_opens_for_all_of_them(face: Face) -> None:
    down = face.fetcher(Failure("down"))
    many(face, "abcde", down, origin="api")

    answers = many(face, "ab", down, origin="api")

    assert {type(answer.failure()).__name__ for answer in answers.values()} == {"CircuitOpen"}
    assert down.calls == 1


# With a store


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def stored(face: Face, store: FaultyStore) -> Iterator[Face]:
    cache = face.new(store=store)
    yield cache
    cache.close()


def test_the_store_is_asked_first_and_then_the_origin_once(face: Face, stored: Face, store: FaultyStore) -> None:
    many(stored, ["b", "d"], origin(stored))
    other = face.new(store=store)
    fetch = origin(other)
    store.calls.clear()

    answers = many(other, ["a", "b", "c", "d", "e"], fetch)

    assert answers == {key: Success(key.upper()) for key in "abcde"}
    assert asked(fetch) == [("a", "c", "e")]
    assert [call[2] for call in store.asked("read")] == ["a", "b", "c", "d", "e"]
    assert sorted(str(call[2]) for call in store.asked("write")) == ["a", "c", "e"]
    other.close()


class SlowStore(FaultyStore):
    """Each read takes its own number of virtual seconds."""

    def __init__(self, **takes: float) -> None:
        super().__init__()
        self.takes = takes

    async def read(self, owner: Any, key: str) -> Any:
        await asyncio.sleep(self.takes.get(key, 0.0))
        return await super().read(owner, key)


def test_loads_that_end_at_different_ticks_lead_to_one_call(async_face: AsyncFace) -> None:
    cache = async_face.new(store=SlowStore(a=0.1, b=0.5, c=0.3))
    cache.at_once("put", "gone", 1, tags=("t",))
    cache.at_once("invalidate_tag", "t")
    fetch = origin(cache)

    answers = many(cache, ["a", "gone", "b", "c", "d"], fetch)

    assert answers == {key: Success(key.upper()) for key in ["a", "gone", "b", "c", "d"]}
    assert sorted(asked(fetch)[0]) == sorted(answers)
    assert fetch.calls == 1
    cache.close()


def test_a_load_that_hangs_holds_up_the_call_no_longer_than_the_store_may_take(async_face: AsyncFace) -> None:
    cache = async_face.new(store=SlowStore(b=100.0))
    fetch = origin(cache)
    began = cache.clock()

    assert many(cache, ["a", "b"], fetch) == {"a": Success("A"), "b": Success("B")}
    assert fetch.calls == 1
    assert cache.clock() - began == 1.0
    cache.close()


def test_two_of_them_in_opposite_order_with_a_store(stored: Face) -> None:
    fetch = origin(stored)
    turn = iter([["a", "b", "c"], ["c", "b", "a"]] * 4)

    answers = stored.concurrently(8, lambda calls: calls.call("get_many", next(turn), fetch), then=lambda: None)

    assert answers == [{key: Success(key.upper()) for key in "abc"}] * 8
    assert sorted(key for call in asked(fetch) for key in call) == ["a", "b", "c"]


def test_what_is_loaded_stale_is_refreshed_behind(face: Face, stored: Face, store: FaultyStore) -> None:
    many(stored, "ab", origin(stored), ttl=5)
    stored.clock.advance(6)
    other = face.new(store=store)
    fetch = face.fetcher(lambda keys: {key: Success(f"new {key}") for key in keys})

    answers = many(other, "ab", fetch, policy=CachePolicy.STALE_WHILE_REVALIDATE, ttl=5)
    other.settle()

    assert answers == {"a": Success("A"), "b": Success("B")}
    assert (fetch.calls, other.peek("a"), other.peek("b")) == (1, Success("new a"), Success("new b"))
    other.close()


# Cancelled


def test_a_caller_who_is_cancelled_takes_nobody_down(async_face: AsyncFace) -> None:
    fetch = origin(async_face, held=True)
    first = async_face.begin.call("get_many", ["a", "b"], fetch)
    second = async_face.begin.get("b", async_face.fetcher(Success("single")))
    assert isinstance(first, AsyncPending)
    first.task.cancel()
    async_face.settle()
    fetch.release()

    assert second.result() == Success("B")
    assert asked(fetch) == [("a", "b")]
    assert async_face.peek("a") == Failure(CacheMiss("a"))
    with pytest.raises(asyncio.CancelledError):
        first.result()


def test_the_last_one_cancelled_ends_the_call(async_face: AsyncFace) -> None:
    ended: list[str] = []

    async def fetch(keys: tuple[str, ...]) -> Any:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.extend(keys)

    pending = [async_face.begin.call("get_many", keys, fetch) for keys in (["a", "b"], ["b", "c"], ["b"])]
    for number, each in enumerate(pending):
        assert isinstance(each, AsyncPending)
        assert sorted(ended) == [[], [], ["c"]][number]
        each.task.cancel()
        async_face.settle()

    assert sorted(ended) == ["a", "b", "c"]
    assert nothing_under_way(async_face)
    assert many(async_face, "abc", origin(async_face)) == {key: Success(key.upper()) for key in "abc"}


@pytest.mark.parametrize("ticks", range(6))
@pytest.mark.parametrize("has_store", [False, True])
def test_cancelled_at_any_tick_it_leaves_nothing_behind(async_face: AsyncFace, ticks: int, has_store: bool) -> None:
    cache = async_face.new(**({"store": SlowStore(a=0.0, b=3.0)} if has_store else {}))
    fetch = origin(cache, held=True)

    async def cancelled() -> None:
        task = asyncio.ensure_future(cache.cache.get_many(["a", "b"], fetch))
        for _ in range(ticks):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    cache.runner.run(cancelled())
    cache.clock.advance(5)
    cache.settle()

    assert nothing_under_way(cache)
    fetch.release()
    assert many(cache, "ab", origin(cache)) == {"a": Success("A"), "b": Success("B")}
    cache.close()


def test_a_fetch_that_cancels_itself_is_told_to_all(async_face: AsyncFace) -> None:
    fetch = async_face.fetcher(asyncio.CancelledError())

    assert many(async_face, "ab", fetch) == {key: Failure(FetchCancelled(key)) for key in "ab"}
    assert nothing_under_way(async_face)


class Crash(BaseException):
    """No Exception: it ends whatever it comes through."""


@pytest.mark.parametrize("crash", [Crash, KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_ends_the_call_and_frees_its_keys(face: Face, crash: type[BaseException]) -> None:
    fetch = face.fetcher(crash())

    with pytest.raises(crash):
        many(face, "abc", fetch)
    face.settle()

    assert nothing_under_way(face)
    assert many(face, "abc", origin(face)) == {key: Success(key.upper()) for key in "abc"}


@pytest.mark.parametrize("options", [{}, {"hard_timeout": 50}], ids=["patient", "impatient"])
def test_those_who_joined_a_call_that_crashed_are_told(face: Face, options: dict[str, Any]) -> None:
    fetch = face.fetcher(Crash(), held=True)
    first = face.begin.call("get_many", ["a", "b"], fetch, **options)
    others = [face.begin.get(key, face.fetcher(Success("single"))) for key in "ba"]
    fetch.release()

    assert [each.result() for each in others] == [Failure(FetchCancelled("b")), Failure(FetchCancelled("a"))]
    with pytest.raises(Crash):
        first.result()
    assert nothing_under_way(face)


@pytest.mark.parametrize("seat", range(4))
def test_a_crash_before_anything_was_fetched_frees_what_was_asked_for(sync_face: SyncFace, seat: int) -> None:
    """Between boarding and flying there is a logger, at the least."""

    class Mine(Exception):
        """What a crash is hidden in, to come out of the logger."""

    cache = sync_face.new()
    keys = ["a", "b", "c", "d"]
    tell = cache.cache._runtime.tell

    def crashing(event: str, *details: object) -> None:
        if event == "on_miss" and details == (keys[seat],):
            raise Crash
        tell(event, *details)

    cache.cache._runtime.tell = crashing
    fetch = origin(cache)
    with pytest.raises(Crash):
        many(cache, keys, fetch)
    cache.cache._runtime.tell = tell

    assert fetch.calls == 0
    left = set(cache.cache._runtime.lives)
    assert len(left) <= 1, "only the one whose own asking crashed can be left"
    assert many(cache, [key for key in keys if key != keys[seat]], origin(cache)) == {
        key: Success(key.upper()) for key in keys if key != keys[seat]
    }
    cache.close()


# Within a fetch


@pytest.mark.parametrize("asked_for", list("abc"))
def test_a_fetch_that_asks_for_one_of_its_own_keys_is_told_so(face: Face, asked_for: str) -> None:
    """Whichever of them: all are being fetched by it."""
    single = face.fetcher(Success("never"))
    fetch = face.fetcher(lambda keys: then(face.cache.get(asked_for, single), lambda got: dict.fromkeys(keys, got)))

    assert many(face, "abc", fetch) == dict.fromkeys("abc", Failure(ReentrantFetch(asked_for)))
    assert (single.calls, fetch.calls) == (0, 1)


def test_a_fetch_may_ask_for_other_keys(face: Face) -> None:
    other = origin(face)
    outer = face.fetcher(
        lambda keys: then(
            face.cache.get_many(["x", keys[0]], other),
            lambda found: {key: Success(found["x"].unwrap() + key) for key in keys},
        )
    )

    assert many(face, "ab", outer) == {"a": Success("Xa"), "b": Success("Xb")}
    assert asked(other) == [("x",)]


@pytest.mark.parametrize("back", list("ab"))
def test_a_circle_through_another_key_is_told(face: Face, back: str) -> None:
    """The call for (a, b) asks for c, whose fetch began earlier and asks for one of them."""
    never = face.fetcher(Success("never"))
    together = face.fetcher(
        lambda keys: then(face.cache.get("c", never), lambda got: dict.fromkeys(keys, got)), held=True
    )
    single = face.fetcher(lambda: face.cache.get(back, never), held=True)
    of_c = face.begin.get("c", single)
    of_ab = face.begin.call("get_many", ["a", "b"], together)
    together.release()
    face.settle()
    single.release()

    assert of_c.result() == Failure(ReentrantFetch(back))
    assert answers_of(of_ab) == dict.fromkeys("ab", Failure(ReentrantFetch(back)))
    assert never.calls == 0


def test_within_a_fetch_it_refuses_the_key_that_is_fetched(face: Face) -> None:
    fetch = origin(face)
    outer = face.fetcher(lambda: then(face.cache.get_many(["k", "a"], fetch), lambda got: Success(dict(got))))

    assert face.get("k", outer) == Success({"k": Failure(ReentrantFetch("k")), "a": Success("A")})
    assert asked(fetch) == [("a",)]


def then(got: Any, act: Callable[[Any], Any]) -> Any:
    """`act` on what a call of the cache comes to, awaited where that is due."""
    if not asyncio.iscoroutine(got):
        return act(got)

    async def awaited() -> Any:
        return act(await got)

    return awaited()


# Threads


def test_threads_share_their_calls_however_they_overlap(sync_face: SyncFace) -> None:
    """Thirty threads over a handful of keys, every one with its own order: each key is fetched once."""
    cache = sync_face.new(logger=None, clock=None)
    counts: dict[str, int] = {}
    lock = threading.Lock()

    def fetch(keys: tuple[str, ...]) -> Any:
        with lock:
            for key in keys:
                counts[key] = counts.get(key, 0) + 1
        return {key: Success(key) for key in keys}

    keys = [f"k{number}" for number in range(12)]
    for round_ in range(20):
        cache.clear()
        counts.clear()
        shift = iter(range(30))

        def call(calls: Any, shift: Iterator[int] = shift) -> Any:
            by = next(shift) % len(keys)
            return calls.call("get_many", keys[by:] + keys[:by], fetch)

        answers = cache.concurrently(30, call, then=lambda: None)

        assert answers == [{key: Success(key) for key in keys}] * 30, round_
        assert counts == dict.fromkeys(keys, 1), round_
    assert nothing_under_way(cache)
    cache.close()
