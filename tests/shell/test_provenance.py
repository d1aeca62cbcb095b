"""`get_served` says where an answer came from and why; `explain` says what a get would do, and does nothing."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure, Success

from cachemesh import (
    CacheClosed,
    CacheExpired,
    CacheMiss,
    CachePolicy,
    CacheScope,
    CircuitOpen,
    DoNotCache,
    FetchRaised,
    FetchTimeout,
    Fresh,
    InvalidKey,
    InvalidOption,
    InvalidTtl,
    Lifetime,
    NoActiveUser,
    NotModified,
    NoTokenKeeper,
    ReentrantFetch,
    Refused,
    RetryOptions,
    Served,
    Source,
    SyncCache,
    ValueNotCopied,
)
from cachemesh.core.explain import Ending, explain
from cachemesh.core.policies import BUILT_IN, Freshness
from cachemesh.testing import VirtualClock
from tests.stores.faulty import FaultyStore

if TYPE_CHECKING:
    from tests.shell.faces import Face

USER = CacheScope.USER
WINDOWS = Lifetime(ttl=10, serve_stale_for=10, stale_if_error_for=30, refresh_ahead=0.5)


def served(face: Face, key: Any, fetch: Any, **options: Any) -> Served[Any]:
    answer: Served[Any] = face.call("get_served", key, fetch, **options).unwrap()
    return answer


def refused(face: Face, key: Any, fetch: Any, **options: Any) -> Refused[Any]:
    answer: Refused[Any] = face.call("get_served", key, fetch, **options).failure()
    return answer


def explained(face: Face, key: str, **options: Any) -> Any:
    return face.at_once("explain", key, **options).unwrap()


# Each source


def test_from_the_origin(face: Face) -> None:
    fetch = face.fetcher(Failure("busy"), Success(1), takes=2)

    assert served(face, "k", fetch, retry=RetryOptions(max_attempts=2)) == Served(
        1, Source.ORIGIN, 0.0, Freshness.MISSING, 2, "cache_first: missing -> fetch"
    )


def test_from_memory(face: Face) -> None:
    face.fill("k", 1, ttl=60)
    face.clock.advance(5)

    assert served(face, "k", face.fetcher(Success(2))) == Served(
        1, Source.MEMORY, 5.0, Freshness.FRESH, 0, "cache_first: fresh -> serve"
    )


def test_from_memory_while_it_is_refreshed(face: Face) -> None:
    face.fill("k", 1, ttl=WINDOWS)
    face.clock.advance(5)
    fetch = face.fetcher(Success(2))

    assert served(face, "k", fetch) == Served(
        1, Source.MEMORY, 5.0, Freshness.AGEING, 0, "cache_first: ageing -> serve_and_refresh"
    )
    face.settle()
    assert fetch.calls == 1


def test_from_another_calls_fetch(face: Face) -> None:
    fetch = face.fetcher(Success(1), held=True)
    leads = face.begin.call("get_served", "k", fetch)
    joins = face.begin.call("get_served", "k", fetch)
    fetch.release()

    assert leads.result().unwrap().source is Source.ORIGIN
    assert joins.result().unwrap() == Served(
        1, Source.JOINED, 0.0, Freshness.MISSING, 1, "cache_first: missing -> join"
    )


def test_from_an_old_value_in_place_of_a_failure(face: Face) -> None:
    face.fill("k", 1, ttl=WINDOWS)
    face.fill("plain", 2, ttl=5)
    face.clock.advance(25)
    down = face.fetcher(Failure("down"))

    assert served(face, "k", down) == Served(
        1, Source.STAND_IN, 25.0, Freshness.EXPIRED, 1, "cache_first: expired -> fetch"
    )
    assert served(face, "k", down) == Served(
        1, Source.STAND_IN, 25.0, Freshness.EXPIRED, 0, "cache_first: expired -> stand_in"
    )
    assert served(face, "plain", down, policy=CachePolicy.NETWORK_FIRST) == Served(
        2, Source.STAND_IN, 25.0, Freshness.STALE, 1, "network_first: stale -> fetch"
    )


@pytest.mark.parametrize("timeout", ["soft_timeout", "hard_timeout"])
def test_from_an_old_value_in_place_of_a_wait(face: Face, timeout: str) -> None:
    face.fill("k", 1, ttl=WINDOWS)
    face.clock.advance(25)
    fetch = face.fetcher(Success(2), held=True)
    options: dict[str, Any] = {timeout: 3}
    pending = face.begin.call("get_served", "k", fetch, **options)
    face.clock.advance(3)

    assert pending.result().unwrap() == Served(
        1, Source.STAND_IN, 28.0, Freshness.EXPIRED, 0, "cache_first: expired -> fetch"
    )
    fetch.release()
    face.settle()


def test_from_an_old_value_where_the_origin_is_left_alone(face: Face) -> None:
    face.fill("k", 1, ttl=WINDOWS)
    down = face.fetcher(Failure("down"))
    for number in range(5):
        face.get(f"other {number}", down, origin="api")
    face.clock.advance(25)

    found = served(face, "k", down, origin="api")
    assert (found.source, found.why) == (Source.STAND_IN, "cache_first: expired -> stand_in")
    gone = refused(face, "none", down, origin="api")
    assert isinstance(gone.error, CircuitOpen)
    assert (gone.source, gone.why) == (Source.CACHE, "cache_first: missing -> refuse (circuit_open)")


def test_from_the_store(face: Face) -> None:
    store = FaultyStore()
    first, other = face.new(store=store), face.new(store=store)
    first.fill("k", 1, ttl=60)
    face.clock.advance(5)
    fetch = face.fetcher(Success(2))

    assert served(other, "k", fetch) == Served(
        1, Source.STORE, 5.0, Freshness.MISSING, 0, "cache_first: missing -> load; cache_first: fresh -> serve"
    )
    assert served(other, "k", fetch).source is Source.MEMORY
    missing = served(other, "other", fetch)
    assert (missing.source, missing.attempts) == (Source.ORIGIN, 1)
    assert missing.why == "cache_first: missing -> load; cache_first: missing -> fetch"
    first.close()
    other.close()


def test_what_was_put_while_the_store_was_asked_is_from_memory(face: Face) -> None:
    """The store had it as well, and was too late."""
    store = FaultyStore()
    cache = face.new(store=store)

    def meanwhile(*_: Any) -> None:
        cache.cache.put("k", "put")

    store.faults["read"] = meanwhile

    assert served(cache, "k", face.fetcher(Success("fetched"))).source is Source.MEMORY
    cache.close()


def test_who_asks_again_after_a_mark_is_told_both(face: Face) -> None:
    old, new = (face.fetcher(Success(Fresh(value, tags=("t",))), held=value == "old") for value in ("old", "new"))
    before = face.begin.get("k", old)
    face.at_once("invalidate_tag", "t")
    after = face.begin.call("get_served", "k", new)
    old.release()

    before.result()
    found = after.result().unwrap()
    assert (found.value, found.source, found.attempts) == ("new", Source.ORIGIN, 1)
    assert found.why.startswith("cache_first: missing -> join; cache_first: missing -> ")


def test_not_modified_is_from_the_origin(face: Face) -> None:
    face.fill("k", 1, ttl=5)
    face.clock.advance(6)
    fetch = face.fetcher(lambda _: Success(NotModified()))

    found = served(face, "k", fetch, conditional=True)
    assert (found.value, found.source, found.age) == (1, Source.ORIGIN, 0.0)


def test_what_is_not_cached_is_from_the_origin_each_time(face: Face) -> None:
    fetch = face.fetcher(Success(DoNotCache(1)))

    assert [served(face, "k", fetch).source for _ in range(2)] == [Source.ORIGIN] * 2


# What was refused


def test_a_failure_is_the_origins(face: Face) -> None:
    assert refused(face, "k", face.fetcher(Failure("down")), cache_failures=True) == Refused(
        "down", Source.ORIGIN, Freshness.MISSING, 1, "cache_first: missing -> fetch"
    )
    assert refused(face, "k", face.fetcher(Success(1)), cache_failures=True) == Refused(
        "down", Source.CACHE, Freshness.MISSING, 0, "cache_first: missing -> remembered_failure"
    )
    error = LookupError("x")
    assert refused(face, "raised", face.fetcher(error)).error == FetchRaised("raised", error)


def test_a_failure_that_was_joined_is_another_ones(face: Face) -> None:
    fetch = face.fetcher(Failure("down"), held=True)
    pending = [face.begin.call("get_served", "k", fetch) for _ in range(2)]
    fetch.release()

    assert [each.result().failure().source for each in pending] == [Source.ORIGIN, Source.JOINED]


def test_what_the_cache_refuses_it_refuses_itself(face: Face) -> None:
    face.fill("old", 1, ttl=1)
    face.clock.advance(2)
    fetch, policy = face.fetcher(Success(1)), CachePolicy.CACHE_ONLY

    assert refused(face, "k", fetch, policy=policy) == Refused(
        CacheMiss("k"), Source.CACHE, Freshness.MISSING, 0, "cache_only: missing -> refuse (miss)"
    )
    assert refused(face, "old", fetch, policy=policy) == Refused(
        CacheExpired("old"), Source.CACHE, Freshness.STALE, 0, "cache_only: stale -> refuse (expired)"
    )
    assert refused(face, "k", fetch, scope=USER) == Refused(
        NoActiveUser("k"), Source.CACHE, Freshness.MISSING, 0, "cache_first: missing -> refuse (no_active_user)"
    )
    assert fetch.calls == 0


def test_a_fetch_within_itself_is_refused(face: Face) -> None:
    fetch = face.nested(lambda cache: cache.get_served("k", face.fetcher(Success(1))))

    inner = face.get("k", fetch).failure()
    assert (inner.error, inner.source) == (ReentrantFetch("k"), Source.CACHE)


def test_a_hard_timeout_is_refused(face: Face) -> None:
    fetch = face.fetcher(Success(1), held=True)
    pending = face.begin.call("get_served", "k", fetch, hard_timeout=5)
    face.clock.advance(5)

    assert pending.result().failure().error == FetchTimeout("k", 5.0)
    fetch.release()
    face.settle()


@pytest.mark.parametrize(
    ("key", "options", "error"),
    [
        (42, {}, InvalidKey(42)),
        ("k", {"policy": "x"}, InvalidOption("policy", "str")),
        ("k", {"ttl": -1}, InvalidTtl(-1)),
        ("k", {"tags": "x"}, InvalidOption("tags", "str")),
    ],
    ids=repr,
)
def test_bad_input_never_gets_to_the_cache(face: Face, key: Any, options: dict[str, Any], error: Exception) -> None:
    assert refused(face, key, face.fetcher(Success(1)), **options) == Refused(
        error, Source.CACHE, Freshness.MISSING, 0, "the call was not put to the cache"
    )
    if "ttl" not in options:
        assert face.at_once("explain", key, **options) == Failure(error)


def test_a_closed_cache_says_so(face: Face) -> None:
    other = face.new()
    other.close()

    assert refused(other, "k", face.fetcher(Success(1))).error == CacheClosed()
    assert other.at_once("explain", "k") == Failure(CacheClosed())


def test_what_could_not_be_copied_is_refused(face: Face) -> None:
    def refuses(_: Any) -> Any:
        raise TypeError

    cache = face.new(copy_on_read=refuses)
    assert isinstance(refused(cache, "k", face.fetcher(Success(1))).error, ValueNotCopied)
    cache.close()


def test_nothing_of_a_value_is_printed(face: Face) -> None:
    secret = "s3cr3t"  # noqa: S105 (a value that must not be seen)
    assert secret not in repr(served(face, "k", face.fetcher(Success(secret))))
    assert secret not in repr(refused(face, "other", face.fetcher(Failure(secret))))


# Explain


def test_it_tells_of_a_fetch_that_would_be_joined(face: Face) -> None:
    """In the caller's own event loop, or among the threads."""
    fetch = face.fetcher(Success(1), held=True)
    pending = face.begin.get("k", fetch)

    assert explained(face, "k").ending is Ending.JOIN
    assert explained(face, "other").ending is Ending.FETCH
    fetch.release()
    pending.result()
    assert explained(face, "k").ending is Ending.SERVE


def test_it_tells_of_no_second_refresh(face: Face) -> None:
    face.fill("k", 1, ttl=WINDOWS)
    face.clock.advance(15)
    fetch = face.fetcher(Success(2), held=True)
    assert explained(face, "k").ending is Ending.SERVE_AND_REFRESH
    face.get("k", fetch, ttl=WINDOWS)
    face.settle()

    assert explained(face, "k").ending is Ending.SERVE
    fetch.release()
    face.settle()


def test_outside_of_every_loop_it_joins_nothing(async_face: Any) -> None:
    fetch = async_face.fetcher(Success(1), held=True)
    pending = async_face.begin.get("k", fetch)

    assert async_face.cache.explain("k").unwrap().ending is Ending.FETCH
    fetch.release()
    pending.result()


def test_views_are_told_of_their_own(face: Face) -> None:
    ada, bob = face.for_user("ada"), face.for_user("bob")
    ada.fill("k", 1, scope=USER)

    assert (explained(ada, "k", scope=USER).ending, explained(bob, "k", scope=USER).ending) == (
        Ending.SERVE,
        Ending.FETCH,
    )


def test_of_an_unknown_option_it_raises_as_get_does(face: Face) -> None:
    with pytest.raises(TypeError):
        face.at_once("explain", "k", unknown=1)
    with pytest.raises(TypeError):
        face.call("get_served", "k", face.fetcher(Success(1)), unknown=1)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from([None, 5, WINDOWS])),
        st.tuples(st.just("fetch"), st.sampled_from([None, 5, WINDOWS])),
        st.tuples(st.just("fail"), st.booleans()),
        st.tuples(st.just("wait"), st.sampled_from([1, 4, 10, 30])),
        st.tuples(st.sampled_from(["invalidate_tag", "expire_tag", "invalidate", "evict"]), st.just("t")),
        st.tuples(st.just("user"), st.sampled_from([None, "ada"])),
    ),
    max_size=8,
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "policy": st.sampled_from(BUILT_IN),
        "scope": st.sampled_from(CacheScope),
        "always_revalidate": st.booleans(),
        "cache_failures": st.booleans(),
        "origin": st.just("api"),
        "tags": st.just(("t",)),
    },
)


@given(STEPS, OPTIONS, st.booleans())
def test_a_get_does_what_was_explained_and_explaining_does_nothing(
    steps: list[tuple[str, Any]], options: dict[str, Any], has_store: bool
) -> None:
    clock = VirtualClock(now=1_000_000.0)
    with SyncCache(clock=clock, store=FaultyStore() if has_store else None) as cache:
        scope = options.get("scope", CacheScope.GLOBAL)
        play(cache, clock, steps, scope)
        before = snapshot(cache)

        told = cache.explain("k", **options).unwrap()

        assert snapshot(cache) == before
        outcome = cache.get_served("k", lambda: Success("fetched"), **options)
        found: Any = outcome.unwrap() if isinstance(outcome, Success) else outcome.failure()
        assert found.why.split("; ")[0] == told.why
        assert found.freshness is told.freshness
        if told.ending is not Ending.LOAD:
            assert found.source in SOURCES[told.ending]
        if isinstance(found, Served) and found.source in {Source.MEMORY, Source.STAND_IN} and not has_store:
            assert told.age_s is not None
            assert abs(found.age - told.age_s) < 1e-6
        cache._domain.finish()


SOURCES = {
    Ending.SERVE: {Source.MEMORY},
    Ending.SERVE_AND_REFRESH: {Source.MEMORY},
    Ending.STAND_IN: {Source.STAND_IN},
    Ending.REMEMBERED_FAILURE: {Source.CACHE},
    Ending.FETCH: {Source.ORIGIN},
    Ending.REFUSE: {Source.CACHE},
}


def play(cache: SyncCache, clock: VirtualClock, steps: list[tuple[str, Any]], scope: CacheScope) -> None:
    for step, detail in steps:
        if step == "put":
            cache.put("k", 1, ttl=detail, scope=scope, tags=("t",) if detail == 5 else ())
        elif step == "fetch":
            cache.refresh("k", lambda: Success(2), ttl=detail, scope=scope, tags=("t",), origin="api")
        elif step == "fail":
            cache.refresh("k", lambda: Failure("down"), scope=scope, cache_failures=detail, origin="api")
            cache.refresh("k", lambda: Failure("down"), scope=scope, ttl=WINDOWS, origin="api")
        elif step == "wait":
            clock.advance(detail)
        elif step == "user":
            cache.set_active_user(detail)
        elif step == "evict":
            for partition in list(cache._runtime.state.partitions.values()):
                partition.entries.discard("k")
        else:
            getattr(cache, step)("k" if step == "invalidate" else detail)


def snapshot(cache: SyncCache) -> Any:
    """All of the state that explaining could have changed."""
    state = cache._runtime.state
    partitions = {
        owner: (
            {key: (entry.answer, entry.expires_at, entry.terms) for key, entry in each.entries.items()},
            copy.copy(each.failures),
            copy.copy(each.flights),
        )
        for owner, each in state.partitions.items()
    }
    return (
        state,
        partitions,
        *(copy.copy(each) for each in (state.flights, state.marks, state.breakers)),
        dict(cache._runtime.lives),
        state.census.count,
    )


def test_explaining_changes_neither_carrier() -> None:
    """The persistent one cannot be changed at all; the one in place must not be, not even where there was nothing."""
    from cachemesh.core import Get, State  # noqa: PLC0415 (of the core, for this case alone)

    empty: State[Any] = State()
    assert explain(empty, Get("k", now=0.0, flight_id=1)).ending is Ending.FETCH
    assert empty == State()
    with SyncCache() as cache:
        before = snapshot(cache)
        cache.explain("k")
        assert snapshot(cache) == before
        assert len(cache._runtime.state.partitions) == 0


# With a token


def test_an_authenticated_get_tells_the_same(face: Face) -> None:
    keeper = face.keeper("tok")
    face = face.new(token_keeper=keeper)
    face.set_active_user("alice")
    fetch = face.fetcher(lambda token: Success(f"hello({token})"))
    before = face.call("get_authenticated_served", "me", fetch).unwrap()
    face.clock.advance(3)
    after = face.call("get_authenticated_served", "me", fetch).unwrap()

    assert (before.value, before.source, before.age) == ("hello(tok)", Source.ORIGIN, 0.0)
    assert (after.value, after.source, after.age) == ("hello(tok)", Source.MEMORY, 3.0)
    assert face.get("me", face.fetcher(Success("another's")), scope=CacheScope.GLOBAL) == Success("another's")


def test_an_authenticated_get_tells_that_an_old_value_stands_in(face: Face) -> None:
    face = face.new(token_keeper=face.keeper("tok"))
    face.set_active_user("alice")
    fetch = face.fetcher(Success(1), Failure("down"))
    face.call("get_authenticated_served", "me", fetch, ttl=WINDOWS)
    face.clock.advance(25)
    stand_in = face.call("get_authenticated_served", "me", fetch, ttl=WINDOWS).unwrap()

    assert (stand_in.value, stand_in.source, stand_in.age) == (1, Source.STAND_IN, 25.0)


def test_an_authenticated_get_tells_why_there_is_nothing(face: Face) -> None:
    without_user = face.new(token_keeper=face.keeper("tok"))
    fetch = face.fetcher(Success(1))
    no_keeper = face.call("get_authenticated_served", "me", fetch).failure()
    no_user = without_user.call("get_authenticated_served", "me", fetch).failure()

    assert (no_keeper.error, no_keeper.source) == (NoTokenKeeper("me"), Source.CACHE)
    assert (no_user.error, no_user.source) == (NoActiveUser("me"), Source.CACHE)
    assert fetch.calls == 0
