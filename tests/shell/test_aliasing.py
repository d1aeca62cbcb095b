"""`copy_on_read` and `freeze` on both faces: nobody can change what is cached under the cache's hands."""

from __future__ import annotations

import copy
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError
from returns.result import Failure, Success

from cachemesh import (
    Batcher,
    Cache,
    CacheMiss,
    CachePolicy,
    Fresh,
    Lifetime,
    NotModified,
    SyncBatcher,
    SyncCache,
    ValueNotCopied,
    cached,
    frozen,
)
from tests.stores.faulty import FaultyStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.shell.faces import Face


def value() -> Any:
    return {"list": [1], "set": {1}}


def spoil(given: Any) -> None:
    """What a careless caller does to a value."""
    given["list"].append("spoilt")
    given["set"].clear()


@pytest.fixture
def copying(face: Face) -> Iterator[Face]:
    cache = face.new(copy_on_read=True)
    yield cache
    cache.close()


@pytest.fixture
def freezing(face: Face) -> Iterator[Face]:
    cache = face.new(freeze=frozen)
    yield cache
    cache.close()


def read_get(face: Face) -> Any:
    return face.get("k", face.fetcher(Success("fetched"))).unwrap()


def read_many(face: Face) -> Any:
    answers: Any = face.call("get_many", ["k"], face.fetcher(lambda _: {}))
    return answers["k"].unwrap()


def read_served(face: Face) -> Any:
    return face.call("get_served", "k", face.fetcher(Success("fetched"))).unwrap().value


def read_batched(face: Face) -> Any:
    batcher: Any = (Batcher if face.name == "async" else SyncBatcher)(face.cache, face.fetcher(lambda _: {}))
    real, face.cache = face.cache, batcher
    try:
        return face.call("get", "k").unwrap()
    finally:
        face.cache = real


def read_update(face: Face) -> Any:
    """What the function of an update is handed; it then fails, so that nothing is stored."""
    seen = []

    def change(given: Any) -> Any:
        seen.append(given)
        raise ValueError

    face.at_once("update", "k", change)
    return seen[0]


def read_previous(face: Face) -> Any:
    seen = []

    def fetch(previous: Any) -> Any:
        seen.append(previous.value)
        return Failure("down")

    face.refresh("k", face.fetcher(fetch), conditional=True)
    return seen[0]


def read_fallback(face: Face) -> Any:
    return face.get("k", face.fetcher(Failure("down")), policy=CachePolicy.NETWORK_FIRST).unwrap()


READS: dict[str, Callable[[Face], Any]] = {
    "get": read_get,
    "get_many": read_many,
    "get_served": read_served,
    "batcher": read_batched,
    "peek": lambda face: face.peek("k").unwrap(),
    "inspect": lambda face: face.inspect("k").value,
    "update": read_update,
    "previous": read_previous,
    "fallback": read_fallback,
    "view": lambda face: face.for_user("ada").peek("k").unwrap(),
}


@pytest.mark.parametrize("read", READS)
def test_whoever_reads_gets_a_copy(copying: Face, read: str) -> None:
    copying.fill("k", value())

    for _ in range(2):
        given = READS[read](copying)
        assert given == value()
        spoil(given)
    assert copying.peek("k") == Success(value())


@pytest.mark.parametrize("read", READS)
def test_whoever_reads_gets_what_cannot_be_changed(freezing: Face, read: str) -> None:
    freezing.refresh("k", freezing.fetcher(Success(value())))
    given = READS[read](freezing)

    assert given == {"list": (1,), "set": frozenset({1})}
    assert isinstance(given, MappingProxyType)
    with pytest.raises((TypeError, AttributeError)):
        spoil(given)


@pytest.mark.parametrize("read", ["get", "peek"])
def test_by_default_everybody_gets_the_very_object(face: Face, read: str) -> None:
    original = value()
    face.fill("k", original)

    assert READS[read](face) is original


@pytest.mark.parametrize("method", ["get", "get_served", "refresh", "prefetch", "get_many"])
def test_those_who_share_a_fetch_share_no_value(copying: Face, method: str) -> None:
    fetch = copying.fetcher(
        (lambda _: {"k": Success(value())}) if method == "get_many" else Success(value()), held=True
    )
    arguments: Any = (["k"], fetch) if method == "get_many" else ("k", fetch)
    pending = [copying.begin.call(method, *arguments) for _ in range(3)]
    fetch.release()

    for each in pending:
        answer: Any = each.result()
        given = answer["k"].unwrap() if method == "get_many" else answer.unwrap()
        given = given.value if method == "get_served" else given
        assert given == value()
        spoil(given)
    assert copying.peek("k") == Success(value())


@pytest.mark.parametrize("how", ["listen", "follow"])
def test_watchers_share_no_value(copying: Face, how: str) -> None:
    heard = [getattr(copying, how)("k") for _ in range(2)]
    copying.at_once("put", "k", value())
    copying.settle()

    for each in heard:
        assert each.results == [Success(value())]
        spoil(each.results[0].unwrap())
    assert copying.peek("k") == Success(value())


def test_what_is_put_may_be_changed_afterwards(copying: Face) -> None:
    mine = value()
    answer = copying.at_once("put", "k", mine).unwrap()
    spoil(mine)
    assert copying.peek("k") == Success(value())

    mine = value()
    answer = copying.at_once("update", "k", lambda _: mine).unwrap()
    spoil(answer)
    assert copying.peek("k") == Success(value())


def test_what_is_put_is_frozen(freezing: Face) -> None:
    freezing.at_once("put", "k", value())
    freezing.at_once("update", "k", lambda given: {**given, "more": [1]})

    assert freezing.peek("k") == Success({"list": (1,), "set": frozenset({1}), "more": (1,)})


def test_an_update_that_changes_in_place_and_fails_has_changed_nothing(copying: Face) -> None:
    copying.fill("k", value())

    def change(given: Any) -> Any:
        spoil(given)
        raise ValueError

    copying.at_once("update", "k", change)
    assert copying.peek("k") == Success(value())


@pytest.mark.parametrize("wrap", [Success, lambda given: Success(Fresh(given, ttl=5))], ids=["plain", "fresh"])
def test_directives_are_unwrapped_first(freezing: Face, wrap: Callable[[Any], Any]) -> None:
    answer = freezing.get("k", freezing.fetcher(wrap(value())))

    assert answer == Success({"list": (1,), "set": frozenset({1})})


def test_not_modified_keeps_what_was_frozen(freezing: Face) -> None:
    freezing.refresh("k", freezing.fetcher(Success(value())), ttl=5)
    before = freezing.peek("k").unwrap()
    freezing.clock.advance(6)

    assert freezing.get("k", freezing.fetcher(lambda _: Success(NotModified())), conditional=True).unwrap() is before


def test_old_values_are_copied_too(copying: Face) -> None:
    copying.fill("k", value(), ttl=Lifetime(ttl=5, serve_stale_for=50, stale_if_error_for=100))
    down = copying.fetcher(Failure("down"))
    for wait in (6, 60):
        copying.clock.advance(wait)
        for options in ({}, {"soft_timeout": 1}, {"hard_timeout": 1}):
            spoil(copying.get("k", down, **options).unwrap())
            copying.settle()
    assert copying.peek("k", allow_expired=True) == Success(value())


def test_what_comes_from_a_store_is_copied(face: Face) -> None:
    store = FaultyStore()
    first, other = (face.new(store=store, copy_on_read=True) for _ in range(2))
    first.fill("k", value())

    spoil(read_get(other))
    assert (first.peek("k"), other.peek("k")) == (Success(value()), Success(value()))
    first.close()
    other.close()


def test_a_cached_function_gives_copies(copying: Face) -> None:
    fetch = copying.fetcher(lambda _: Success(value()))

    async def awaits(number: int) -> Any:
        return await fetch(number)

    def calls(number: int) -> Any:
        return fetch(number)

    of_either_kind: Any = awaits if copying.name == "async" else calls
    function = cached(copying.cache, key="f:{number}")(of_either_kind)
    real, copying.cache = copying.cache, type("Of", (), {"call": staticmethod(function)})
    for _ in range(3):
        spoil(copying.call("call", 1).unwrap())
    copying.cache = real

    assert fetch.calls == 1


def test_failures_are_not_copied(copying: Face) -> None:
    error = LookupError("x")
    copying.get("k", copying.fetcher(Failure(error)), cache_failures=True)

    assert copying.get("k", copying.fetcher(Success(1)), cache_failures=True).failure() is error


# A copier or a freezer of one's own


def test_a_copier_of_ones_own_is_used(face: Face) -> None:
    cache = face.new(copy_on_read=copy.copy)
    cache.fill("k", value())
    given = cache.peek("k").unwrap()

    given["more"] = 1
    assert cache.peek("k") == Success(value())
    spoil(given)
    assert cache.peek("k").unwrap()["list"] == [1, "spoilt"], "a shallow one goes no deeper"
    cache.close()


def refuses(_: Any) -> Any:
    raise TypeError


NOT_COPIED = Failure(ValueNotCopied("k", TypeError()))


def test_a_copier_that_raises_is_a_typed_failure_wherever_it_is_asked(face: Face) -> None:
    broken: list[bool] = []
    cache = face.new(copy_on_read=lambda given: refuses(given) if broken else copy.copy(given))
    heard, following = cache.listen("k"), cache.follow("k")
    fetch = cache.fetcher(Success(1))
    broken.append(True)

    assert cache.get("k", fetch) == NOT_COPIED
    assert cache.get("k", fetch) == NOT_COPIED
    assert cache.refresh("k", fetch) == NOT_COPIED
    assert cache.peek("k") == NOT_COPIED
    assert cache.call("get_many", ["k"], cache.fetcher(lambda _: {})) == {"k": NOT_COPIED}
    assert cache.call("get_served", "k", fetch).failure().error == NOT_COPIED.failure()
    assert cache.at_once("put", "k", 2) == NOT_COPIED
    assert cache.at_once("update", "k", lambda _: 2) == NOT_COPIED
    assert cache.refresh("k", cache.fetcher(lambda _: Success(2)), conditional=True) == NOT_COPIED
    cache.settle()
    assert set(map(str, heard.results)) == {str(NOT_COPIED)}
    assert set(map(str, following.results)) == {str(NOT_COPIED)}
    broken.clear()
    assert cache.peek("k") == Success(1)
    cache.close()


def test_a_freezer_that_raises_stores_nothing(face: Face) -> None:
    cache = face.new(freeze=refuses)

    assert cache.get("k", cache.fetcher(Success(1))) == NOT_COPIED
    assert cache.at_once("put", "k", 1) == NOT_COPIED
    assert cache.peek("k") == Failure(CacheMiss("k"))
    assert not cache.cache._runtime.lives
    cache.close()


def test_a_crash_in_a_copier_comes_through_and_costs_nobody_else(face: Face) -> None:
    def crashes(_: Any) -> Any:
        raise KeyboardInterrupt

    cache = face.new(copy_on_read=crashes)
    with pytest.raises(KeyboardInterrupt):
        cache.get("k", cache.fetcher(Success(1)))
    assert not cache.cache._runtime.lives
    cache.close()


@pytest.mark.parametrize("setting", [{"copy_on_read": 1}, {"copy_on_read": "deep"}, {"freeze": True}, {"freeze": 1}])
def test_a_setting_that_makes_no_sense_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Cache(**setting)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1, [2, {3}]], (1, (2, frozenset({3})))),
        ((1, [2]), (1, (2,))),
        ({"a": {"b": [1]}}, {"a": {"b": (1,)}}),
        ("text", "text"),
        (None, None),
    ],
    ids=repr,
)
def test_frozen_goes_all_the_way_down(given: Any, expected: Any) -> None:
    assert frozen(given) == expected


@pytest.mark.parametrize("kind", [Cache, SyncCache])
def test_a_cache_protects_its_values_in_one_way(kind: Any) -> None:
    with pytest.raises(ValidationError, match="choose one"):
        kind(copy_on_read=True, freeze=frozen)
