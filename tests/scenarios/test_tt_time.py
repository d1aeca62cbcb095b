"""Time: lifetimes end at the instant, and no clock, right or wrong, breaks anything."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from returns.result import Failure, Success

from cachemesh import CacheExpired, CachePolicy, InvalidTtl, RetryOptions, SyncCache
from cachemesh.testing.clock import VirtualClock
from tests.scenarios.helpers import ScriptedStore, under_way

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shell.faces import Face

CENTURY_S = 100 * 31_557_600.0


@pytest.mark.parametrize("ttl", [5e-324, 1e-9, 0.1, 1, 60, 1e6, CENTURY_S])
def test_tt1_stale_from_exactly_the_end_of_its_lifetime_on(face: Face, ttl: float) -> None:
    began = face.clock()
    face.fill("k", "v", ttl=ttl)
    end = began + ttl
    if math.nextafter(end, 0) >= began and end > began:
        face.clock.advance_to(math.nextafter(end, 0))
        assert face.peek("k") == Success("v")
        assert face.get("k", face.fetcher(Failure("?"))) == Success("v")
    face.clock.advance_to(end)
    assert face.peek("k") == Failure(CacheExpired("k"))
    assert face.peek("k", allow_expired=True) == Success("v")
    assert face.get("k", face.fetcher(Failure("?")), policy=CachePolicy.CACHE_ONLY) == Failure(CacheExpired("k"))
    assert face.get("k", face.fetcher(Success("new"))) == Success("new")


@pytest.mark.parametrize("epoch", [0.0, 1_767_225_600.0, -1_000.0])
def test_tt1_memory_store_and_inspection_agree(face: Face, epoch: float) -> None:
    store = ScriptedStore()
    clock = VirtualClock(now=epoch)
    first = face.new(store=store, clock=clock)
    first.fill("k", "v", ttl=60)
    for instant, is_fresh in ((epoch + 59.5, True), (epoch + 60, False), (epoch + 60.5, False)):
        clock.advance_to(instant)
        second = face.new(store=store, clock=clock)
        assert (
            second.get("k", second.fetcher(Failure("?")), policy=CachePolicy.CACHE_ONLY) == Success("v")
        ) is is_fresh
        assert (first.get("k", first.fetcher(Failure("?")), policy=CachePolicy.CACHE_ONLY) == Success("v")) is is_fresh
        for each in (first, second):
            state = each.inspect("k")
            assert (state.is_fresh, state.is_stale) == (is_fresh, not is_fresh)
        second.close()
    first.close()


@pytest.mark.parametrize("shift", [-31_557_600.0, 31_557_600.0, 3_600.0, -3_600.0, 1.0, -0.01])
def test_tt2_wall_clock_does_not_move_freshness(monkeypatch: pytest.MonkeyPatch, shift: float) -> None:
    cache = SyncCache()
    cache.get("fresh", lambda: Success(1), ttl=60)
    cache.get("stale", lambda: Success(1), ttl=0)
    before = cache.inspect("fresh")
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + shift)
    assert cache.peek("fresh") == Success(1)
    assert cache.peek("stale") == Failure(CacheExpired("stale"))
    after = cache.inspect("fresh")
    assert after.is_fresh
    assert after.created_at == before.created_at
    assert after.age is not None
    assert timedelta(0) <= after.age < timedelta(seconds=30)
    assert cache.get("fresh", lambda: Failure("?")) == Success(1)
    assert cache.get("new", lambda: Success(2), ttl=60) == Success(2)
    assert cache.peek("new") == Success(2)


BAD_TTLS: list[object] = [
    -1,
    -1e-300,
    -5e-324,
    math.nan,
    -math.nan,
    math.inf,
    -math.inf,
    1e20,
    10**400,
    -(10**400),
    math.nextafter(CENTURY_S, math.inf),
    timedelta.max,
    timedelta.min,
    timedelta(microseconds=-1),
    True,
    False,
    "60",
    "",
    b"1",
    Decimal(60),
    Fraction(1, 2),
    60j,
    [],
    {},
    object(),
    float,
    ...,
]


@pytest.mark.parametrize("ttl", BAD_TTLS, ids=repr)
@pytest.mark.parametrize("method", ["get", "refresh", "prefetch", "get_authenticated"])
def test_tt5_bad_lifetime_is_a_failure_and_changes_nothing(face: Face, method: str, ttl: Any) -> None:
    fetch = face.fetcher(Success(1))
    cache = face.new(token_keeper=face.keeper("token")) if method == "get_authenticated" else face
    answer = cache.call(method, "k", fetch, ttl=ttl)
    assert isinstance(answer.failure(), InvalidTtl | type(answer.failure()))
    if method != "get_authenticated":
        failure = answer.failure()
        assert type(failure) is InvalidTtl
        assert failure.value is ttl
        assert repr(failure).startswith("InvalidTtl(")
    assert fetch.calls == 0
    assert cache.inspect("k").is_missing
    assert under_way(cache.cache) == 0


@pytest.mark.parametrize("ttl", [0, 0.0, -0.0, timedelta(0)], ids=repr)
def test_tt5_no_lifetime_at_all_is_stale_at_once(face: Face, ttl: Any) -> None:
    assert face.get("k", face.fetcher(Success(1)), ttl=ttl) == Success(1)
    assert face.peek("k") == Failure(CacheExpired("k"))
    assert face.get("k", face.fetcher(Success(2)), ttl=ttl) == Success(2)


@pytest.mark.parametrize("ttl", [ttl for ttl in BAD_TTLS if not isinstance(ttl, str | bytes)], ids=repr)
def test_tt5_bad_default_lifetime_is_refused_at_once(ttl: Any) -> None:
    with pytest.raises(ValueError, match="default_ttl"):
        SyncCache(default_ttl=ttl)


@pytest.mark.parametrize("ttl", ["60", "", b"1", "P1D"], ids=repr)
def test_tt5_text_is_no_default_lifetime(ttl: Any) -> None:
    """Pydantic would read a duration out of it, if it were let."""
    with pytest.raises(ValueError, match="default_ttl"):
        SyncCache(default_ttl=ttl)
    with pytest.raises(ValueError, match="delay"):
        RetryOptions(delay=ttl)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.floats(),
        st.integers(),
        st.integers(-(10**400), 10**400),
        st.timedeltas(),
        st.decimals(),
        st.booleans(),
        st.text(max_size=3),
        st.fractions(),
        st.none(),
        st.complex_numbers(),
    ),
)
@example(CENTURY_S)
@example(0)
def test_tt5_any_lifetime_at_all(ttl: Any) -> None:
    """Never an exception, and an entry for ever only where None asked for it."""
    clock = VirtualClock(now=1e9)
    cache = SyncCache(clock=clock)
    answer = cache.get("k", lambda: Success(1), ttl=ttl)
    if answer == Success(1):
        state = cache.inspect("k")
        assert state.is_present
        clock.advance(CENTURY_S * 1.001)
        assert cache.inspect("k").is_fresh is (ttl is None)
        assert repr(state)
    else:
        assert type(answer.failure()) is InvalidTtl
        assert cache.inspect("k").is_missing


def broken_clock(kind: str) -> Callable[[], Any]:
    readings = iter(range(10**9))

    def read() -> Any:
        reading = next(readings)
        if kind == "backwards":
            return 1e9 - reading * 1e-9
        if kind == "far backwards":
            return 1e9 - reading * 1e6
        if kind == "sometimes":
            if reading % 3 == 1:
                raise OSError
            return 1e9 + reading
        if kind == "never":
            raise OSError
        return {
            "nan": math.nan,
            "inf": math.inf,
            "-inf": -math.inf,
            "huge": 1e308,
            "-huge": -1e308,
            "text": "12:00",
            "none": None,
            "bool": True,
            "int": 5,
            "big int": 10**400,
        }[kind]

    return read


CLOCKS = [
    "backwards",
    "far backwards",
    "sometimes",
    "never",
    "nan",
    "inf",
    "-inf",
    "huge",
    "-huge",
    "text",
    "none",
    "bool",
    "int",
    "big int",
]


@pytest.mark.parametrize("kind", CLOCKS)
def test_tt8_broken_clock_breaks_nothing(face: Face, kind: str) -> None:
    other = face.new(clock=broken_clock(kind), cache_failures=True, retry=RetryOptions(max_attempts=2))
    swr = CachePolicy.STALE_WHILE_REVALIDATE
    for number in range(10):
        assert isinstance(other.get("k", other.fetcher(Success(number)), ttl=1), Success)
        assert isinstance(other.get("k", other.fetcher(Success(number)), ttl=1, policy=swr), Success)
        assert other.refresh("k", other.fetcher(Success(number)), ttl=None) == Success(number)
        assert other.get("f", other.fetcher(Failure("no"))) == Failure("no")
        other.peek("k")
        state = other.inspect("k")
        assert state.age is not None
        assert state.age >= timedelta(0)
        assert repr(state)
        assert isinstance(state.is_fresh, bool)
        assert state.time_to_expiry is None
        other.has_cached_failure("f")
        other.invalidate("k")
    other.settle()
    assert under_way(other.cache) == 0
    if kind in ("never", "nan", "inf", "text"):
        assert other.log.named("error")
    other.close()
