"""Circuit breakers: an origin that failed several times in a row is left alone, and then tried by one fetch."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError
from returns.result import Failure, Success

from cachemesh import (
    BreakerOptions,
    Cache,
    CachePolicy,
    CacheScope,
    Circuit,
    CircuitOpen,
    CircuitState,
    FetchRaised,
    FetchTimeout,
    InvalidOption,
    Lifetime,
    RetryOptions,
    SyncCache,
)
from tests.scenarios.helpers import ScriptedStore, under_way
from tests.shell.faces import Recorder

if TYPE_CHECKING:
    from tests.shell.faces import Answer, AsyncFace, Calls, Face, Pending

OLD, UP = Success("old"), Success("up")
DOWN = Failure("down")
CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN

THREE = BreakerOptions(failures=3, open_for=10)


class Circuits(Recorder):
    """A recorder that hears of circuits too."""

    def on_circuit(self, origin: str, until: float | None) -> None:
        self.events.append(("circuit", origin, until))


@pytest.fixture(name="api")
def face_with_breakers(face: Face) -> Face:
    """A cache whose origins are left alone for 10 s after 3 failures."""
    return face.new(breakers=THREE)


def fail(face: Face, times: int = 3, *, origin: str = "api", outcome: Any = DOWN) -> None:
    """Let `origin` fail, each time under another key."""
    for number in range(times):
        face.get(f"failing {origin} {number}", face.fetcher(outcome), origin=origin)


def circuit(face: Face, origin: str = "api") -> Circuit:
    found: Circuit = face.at_once("circuit", origin)
    return found


def open_until(face: Face, seconds: float, origin: str = "api") -> Answer:
    return Failure(CircuitOpen(origin, face.clock() + seconds))


# Closed, open, half-open


def test_an_origin_that_failed_in_a_row_is_left_alone(api: Face) -> None:
    fetch = api.fetcher(UP)
    fail(api, 2)
    assert circuit(api) == Circuit("api", CLOSED, 2)
    fail(api, 1)
    until = datetime.fromtimestamp(api.clock() + 10, UTC)
    assert circuit(api) == Circuit("api", OPEN, 3, until)
    assert api.get("k", fetch, origin="api") == open_until(api, 10)
    api.clock.advance(9.9)
    assert api.get("k", fetch, origin="api") == open_until(api, 0.1)
    assert fetch.calls == 0
    api.clock.advance(0.1)
    assert circuit(api) == Circuit("api", HALF_OPEN, 3, until)
    assert api.get("k", fetch, origin="api") == UP
    assert circuit(api) == Circuit("api")
    assert fetch.calls == 1


def test_a_success_in_between_starts_the_count_anew(api: Face) -> None:
    for number in range(5):
        fail(api, 2)
        assert api.get(f"k{number}", api.fetcher(UP), origin="api") == UP
        assert circuit(api) == Circuit("api")


def test_a_probe_that_fails_opens_the_circuit_again(api: Face) -> None:
    fail(api)
    for number in range(3):
        api.clock.advance(10)
        assert api.get(f"k{number}", api.fetcher(DOWN), origin="api") == DOWN
        assert circuit(api).state is OPEN
        assert api.get("k", api.fetcher(UP), origin="api") == open_until(api, 10)
    api.clock.advance(10)
    assert api.get("k", api.fetcher(UP), origin="api") == UP


def test_raised_exceptions_and_bad_answers_tell_against_the_origin_too(api: Face) -> None:
    fail(api, 1, outcome=OSError("down"))
    fail(api, 1, outcome=lambda: 5)
    fail(api, 1)
    assert circuit(api).state is OPEN


def test_origins_do_not_know_of_each_other(api: Face) -> None:
    fail(api, origin="one")
    assert api.get("k", api.fetcher(UP), origin="two") == UP
    assert api.get("l", api.fetcher(UP)) == UP
    assert api.get("m", api.fetcher(UP), origin="one") == open_until(api, 10, "one")


@pytest.mark.parametrize("method", ["get", "refresh", "prefetch", "network_first", "network_only", "swr"])
def test_an_open_circuit_refuses_every_kind_of_fetch(api: Face, method: str) -> None:
    fail(api)
    fetch = api.fetcher(UP)
    policies = {
        "network_first": CachePolicy.NETWORK_FIRST,
        "network_only": CachePolicy.NETWORK_ONLY,
        "swr": CachePolicy.STALE_WHILE_REVALIDATE,
    }
    if method in policies:
        answer = api.get("k", fetch, origin="api", policy=policies[method])
    else:
        answer = api.call(method, "k", fetch, origin="api")
    assert answer == open_until(api, 10)
    assert fetch.calls == 0
    assert under_way(api.cache) == 0


def test_what_is_fresh_is_served_whatever_the_circuit_says(api: Face) -> None:
    api.fill("k", "old", ttl=60)
    fail(api)
    assert api.get("k", api.fetcher(UP), origin="api") == OLD


def test_an_open_circuit_is_no_failure_to_be_remembered(api: Face) -> None:
    fail(api)
    assert api.get("k", api.fetcher(UP), origin="api", cache_failures=True) == open_until(api, 10)
    assert not api.has_cached_failure("k")
    api.clock.advance(10)
    assert api.get("k", api.fetcher(UP), origin="api") == UP


def test_until_is_in_seconds_of_the_epoch() -> None:
    """Also where the cache counts on the monotonic clock, which begins at the machine's start."""
    with SyncCache(breakers=BreakerOptions(failures=1, open_for=1_000)) as cache:
        assert cache.get("k", lambda: DOWN, origin="api") == DOWN
        error = cache.get("k", lambda: UP, origin="api").failure()
        assert isinstance(error, CircuitOpen)
        left = error.until - datetime.now(UTC).timestamp()
        assert 900 < left <= 1_000
        until = cache.circuit("api").until
        assert until is not None
        assert until.timestamp() == pytest.approx(error.until)


# Old values


@pytest.mark.parametrize(
    ("policy", "ttl", "age", "answer"),
    [
        (CachePolicy.CACHE_FIRST, Lifetime(ttl=10, stale_if_error_for=60), 69, OLD),
        (CachePolicy.CACHE_FIRST, Lifetime(ttl=10, stale_if_error_for=60), 70, None),
        (CachePolicy.CACHE_FIRST, Lifetime(ttl=10, serve_stale_for=60), 69, OLD),
        (CachePolicy.CACHE_FIRST, Lifetime(ttl=10, serve_stale_for=60), 70, None),
        (CachePolicy.CACHE_FIRST, 10, 20, None),
        (CachePolicy.NETWORK_FIRST, 10, 20, OLD),
        (CachePolicy.NETWORK_FIRST, Lifetime(ttl=10), 20, None),
        (CachePolicy.NETWORK_FIRST, Lifetime(ttl=10, stale_if_error_for=60), 69, OLD),
        (CachePolicy.STALE_WHILE_REVALIDATE, 10, 20, OLD),
        (CachePolicy.NETWORK_ONLY, Lifetime(ttl=10, stale_if_error_for=60), 5, None),
    ],
)
def test_an_open_circuit_answers_an_old_value_where_that_is_allowed(
    face: Face, policy: CachePolicy, ttl: Any, age: float, answer: Any
) -> None:
    api = face.new(breakers=BreakerOptions(failures=3, open_for=1_000))
    api.fill("k", "old", ttl=ttl)
    fail(api)
    api.clock.advance(age)
    fetch = api.fetcher(UP)
    expected = open_until(api, 1_000 - age) if answer is None else answer
    assert api.get("k", fetch, policy=policy, origin="api") == expected
    api.settle()
    assert fetch.calls == 0
    api.close()


def test_an_open_circuit_holds_refreshes_behind_back(api: Face) -> None:
    life = Lifetime(ttl=100, refresh_ahead=0.1, serve_stale_for=100)
    api.fill("k", "old", ttl=life)
    api.clock.advance(50)
    fail(api)
    fetch = api.fetcher(UP)
    for _ in range(9):
        assert api.get("k", fetch, ttl=life, origin="api") == OLD
        api.settle()
        api.clock.advance(1)
    assert fetch.calls == 0
    api.clock.advance(1)
    assert api.get("k", fetch, ttl=life, origin="api") == OLD
    api.settle()
    assert fetch.calls == 1
    assert api.get("k", fetch, ttl=life, origin="api") == UP
    assert circuit(api) == Circuit("api")


# The probe


def test_fc7_half_open_admits_exactly_one_probe_of_a_thousand(api: Face) -> None:
    fail(api)
    api.clock.advance(10)
    fetch = api.fetcher(UP, held=True)
    numbers = iter(range(1_000))

    def ask(begin: Calls[Pending]) -> Pending:
        return begin.get(f"k{next(numbers)}", fetch, origin="api")

    def probe_is_out() -> None:
        assert fetch.calls == 1
        assert circuit(api).state is HALF_OPEN
        for _ in range(4):
            assert api.concurrently(200, ask, lambda: None) == [open_until(api, 10)] * 200
        fetch.release()

    answers = api.concurrently(200, ask, probe_is_out)
    assert (answers.count(UP), answers.count(open_until(api, 10))) == (1, 199)
    assert next(numbers, None) is None
    assert fetch.calls == 1
    assert circuit(api) == Circuit("api")


def test_fc7_gets_of_one_key_share_the_probe(api: Face) -> None:
    fail(api)
    api.clock.advance(10)
    fetch = api.fetcher(UP, held=True)
    count = 100
    answers = api.concurrently(count, lambda begin: begin.get("k", fetch, origin="api"), fetch.release)
    assert answers == [UP] * count
    assert fetch.calls == 1


def test_fc7_probe_that_fails_is_one_call_in_each_period(api: Face) -> None:
    fail(api)
    fetch = api.fetcher(DOWN)
    for second in range(100):
        api.clock.advance(1)
        for number in range(10):
            api.get(f"{second} {number}", fetch, origin="api")
    assert fetch.calls == 10


def test_a_probe_that_is_cancelled_makes_room_for_another_one(async_face: AsyncFace) -> None:
    api = async_face.new(breakers=THREE)
    fail(api)
    api.clock.advance(10)
    hung = api.fetcher(UP, held=True)
    probe = api.begin.get("k", hung, origin="api")
    assert api.get("l", api.fetcher(UP), origin="api") == open_until(api, 10)
    probe.task.cancel()  # type: ignore[attr-defined]  # an AsyncPending
    with pytest.raises(asyncio.CancelledError):
        probe.result()
    assert circuit(api).state is HALF_OPEN
    assert api.get("l", api.fetcher(UP), origin="api") == UP
    assert circuit(api) == Circuit("api")


class Crash(BaseException):
    """What no fetch should raise."""


@pytest.mark.parametrize("options", [{}, {"hard_timeout": 50}])
def test_a_probe_that_crashes_makes_room_for_another_one(api: Face, options: dict[str, Any]) -> None:
    fail(api)
    api.clock.advance(10)
    with pytest.raises(Crash):
        api.call("get", "k", api.fetcher(Crash()), origin="api", **options)
    assert api.get("l", api.fetcher(UP), origin="api") == UP


@pytest.mark.parametrize("options", [{"hard_timeout": 5}, {"max_flight_age": 5, "hard_timeout": 9}])
def test_a_probe_that_hangs_is_a_failure_of_its_origin(api: Face, options: dict[str, float]) -> None:
    fail(api)
    api.clock.advance(10)
    hung = api.fetcher(UP, held=True)
    probe = api.begin.call("get", "k", hung, origin="api", **options)
    api.clock.advance(5)
    assert probe.result() == Failure(FetchTimeout("k", 5.0))
    assert api.get("l", api.fetcher(UP), origin="api") == open_until(api, 10)
    hung.release()
    api.settle()
    assert circuit(api).state is OPEN  # Nobody asked for that late success.
    assert under_way(api.cache) == 0


def test_a_probe_that_hangs_for_ever_holds_nobody_up_for_ever(api: Face) -> None:
    """It has as long as its origin was left alone for; then another one is sent."""
    fail(api)
    api.clock.advance(10)
    hung, fetch = api.fetcher(DOWN, held=True), api.fetcher(UP)
    probe = api.begin.get("k", hung, origin="api")
    api.clock.advance(9.9)
    assert api.get("l", fetch, origin="api") == open_until(api, 0.1)
    api.clock.advance(0.1)
    assert api.get("l", fetch, origin="api") == UP
    assert circuit(api) == Circuit("api")
    hung.release()
    assert probe.result() == DOWN
    assert circuit(api) == Circuit("api", CLOSED, 1)  # An ordinary failure, by now.


@pytest.mark.parametrize("removal", ["invalidate", "clear", "put"])
def test_a_probe_whose_key_was_removed_still_tells_of_its_origin(api: Face, removal: str) -> None:
    fail(api)
    api.clock.advance(10)
    fetch = api.fetcher(UP, held=True)
    probe = api.begin.get("k", fetch, origin="api")
    api.at_once(removal, *{"invalidate": ("k",), "clear": (), "put": ("k", "mine")}[removal])
    fetch.release()
    assert probe.result() == UP
    assert circuit(api) == Circuit("api")


def test_a_probe_that_goes_on_behind_after_a_soft_timeout_closes_the_circuit(api: Face) -> None:
    api.fill("k", "old", ttl=1)
    fail(api)
    api.clock.advance(10)
    fetch = api.fetcher(UP, held=True)
    probe = api.begin.get("k", fetch, origin="api", soft_timeout=1)
    api.clock.advance(1)
    assert probe.result() == OLD
    assert api.get("l", api.fetcher(UP), origin="api") == open_until(api, 9)
    fetch.release()
    api.settle()
    assert circuit(api) == Circuit("api")


def test_a_fetch_from_before_the_circuit_opened_tells_nothing_new(api: Face) -> None:
    late_up, late_down = api.fetcher(UP, held=True), api.fetcher(DOWN, held=True)
    one, two = api.begin.get("k", late_up, origin="api"), api.begin.get("l", late_down, origin="api")
    fail(api)
    before = circuit(api)
    for fetch, pending, answer in ((late_up, one, UP), (late_down, two, DOWN)):
        fetch.release()
        assert pending.result() == answer
        assert circuit(api) == before


# What there is to see, and to set back


def test_the_logger_hears_when_a_circuit_opens_and_closes(face: Face) -> None:
    log = Circuits()
    api = face.new(breakers=THREE, logger=log)
    began = face.clock()
    fail(api)
    face.clock.advance(10)
    api.get("k", api.fetcher(DOWN), origin="api")
    face.clock.advance(10)
    api.get("k", api.fetcher(UP), origin="api")
    assert log.named("circuit") == [
        ("circuit", "api", began + 10),
        ("circuit", "api", began + 20),
        ("circuit", "api", None),
    ]
    api.close()


def test_a_circuit_can_be_set_back(api: Face) -> None:
    fail(api)
    api.at_once("reset_circuit", "api")
    assert circuit(api) == Circuit("api")
    assert api.get("k", api.fetcher(UP), origin="api") == UP
    fail(api)
    assert circuit(api).state is OPEN


def test_a_circuit_can_be_set_back_while_its_probe_is_out(api: Face) -> None:
    for outcome, failures in ((UP, 0), (DOWN, 1)):
        api.at_once("reset_circuit", "api")
        fail(api)
        api.clock.advance(10)
        fetch = api.fetcher(outcome, held=True)
        probe = api.begin.get("k", fetch, origin="api")
        api.at_once("reset_circuit", "api")
        assert api.get("l", api.fetcher(UP), origin="api", policy=CachePolicy.NETWORK_ONLY) == UP
        fetch.release()
        assert probe.result() == outcome
        assert circuit(api) == Circuit("api", CLOSED, failures)
        api.clear()


def test_a_circuit_that_nobody_knows_of_is_closed(api: Face) -> None:
    assert circuit(api, "nobody") == Circuit("nobody")
    api.at_once("reset_circuit", "nobody")
    assert circuit(api, "nobody") == Circuit("nobody")


def test_views_and_scopes_share_the_circuits(api: Face) -> None:
    alice, bob = api.for_user("alice"), api.for_user("bob")
    for view in (api, alice, bob):
        view.get("k", view.fetcher(DOWN), origin="api", scope=CacheScope.SESSION)
    for view in (api, alice, bob):
        assert circuit(view).state is OPEN
        assert view.get("l", view.fetcher(UP), origin="api", scope=CacheScope.SESSION) == open_until(api, 10)
    alice.at_once("reset_circuit", "api")
    assert circuit(bob) == Circuit("api")


def test_clearing_and_signing_out_leave_the_circuits(api: Face) -> None:
    fail(api)
    api.clear()
    api.end_session()
    assert circuit(api).state is OPEN


# Options


def test_each_origin_may_have_limits_of_its_own(face: Face) -> None:
    api = face.new(breakers={"weak": BreakerOptions(failures=1, open_for=100), "strong": BreakerOptions(failures=9)})
    for origin, limit, seconds in (("weak", 1, 100), ("strong", 9, 30), ("other", 5, 30)):
        fail(api, limit - 1, origin=origin)
        assert circuit(api, origin).state is CLOSED
        fail(api, 1, origin=origin)
        assert api.get("k", api.fetcher(UP), origin=origin) == open_until(api, seconds, origin)
    api.close()


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [(Failure("not found"), False), (DOWN, True), (OSError("down"), True), (ValueError("not found"), False)],
)
def test_the_caller_says_what_tells_against_an_origin(face: Face, outcome: Any, counts: bool) -> None:
    seen: list[object] = []

    def tells(error: object) -> bool:
        seen.append(error)
        return "not found" not in str(error)

    api = face.new(breakers=BreakerOptions(failures=2, open_for=10, counts=tells))
    fail(api, 3, outcome=outcome)
    assert circuit(api).state is (OPEN if counts else CLOSED)
    assert [type(error) for error in seen[:1]] == [
        type(outcome if isinstance(outcome, Exception) else outcome.failure())
    ]
    api.close()


@pytest.mark.parametrize("tells", [True, False])
def test_the_caller_says_whether_a_timeout_tells_against_an_origin(face: Face, tells: bool) -> None:
    seen: list[object] = []

    def counts(error: object) -> bool:
        seen.append(error)
        return tells

    api = face.new(breakers=BreakerOptions(failures=1, open_for=10, counts=counts))
    hung = api.fetcher(UP, held=True)
    waiting = api.begin.get("k", hung, origin="api", hard_timeout=5)
    api.clock.advance(5)
    assert waiting.result() == Failure(FetchTimeout("k", 5.0))
    assert circuit(api).state is (OPEN if tells else CLOSED)
    assert seen == [FetchTimeout("k", 5.0)]
    hung.release()
    api.settle()
    api.close()


@pytest.mark.parametrize("outcome", [DOWN, OSError("down")], ids=["returned", "raised"])
def test_a_predicate_that_raises_costs_nothing_and_counts(face: Face, outcome: Any) -> None:
    class Evil:
        def __bool__(self) -> bool:
            raise LookupError

    def raises(error: object) -> bool:
        raise LookupError(error)

    predicates: list[Any] = [raises, lambda _: Evil(), lambda: True]
    for counts in predicates:
        api = face.new(breakers=BreakerOptions(failures=2, open_for=10, counts=counts))
        fetch = api.fetcher(outcome)
        expected = Failure(FetchRaised("k", outcome)) if isinstance(outcome, Exception) else outcome
        for _ in range(2):
            assert api.get("k", fetch, origin="api") == expected
        errors = [event[2] for event in api.log.named("error")]
        assert [isinstance(error, LookupError | TypeError) for error in errors] == [True, False, True, False]
        assert circuit(api).state is OPEN
        assert under_way(api.cache) == 0
        api.close()


def test_a_failure_that_does_not_count_gives_the_probe_back(face: Face) -> None:
    """It tells neither for the origin nor against it: the next fetch tries anew."""
    api = face.new(breakers=BreakerOptions(failures=1, open_for=10, counts=lambda error: error == "down"))
    fail(api, 1)
    api.clock.advance(10)
    assert api.get("k", api.fetcher(Failure("not found")), origin="api") == Failure("not found")
    assert circuit(api).state is HALF_OPEN
    assert api.get("k", api.fetcher(UP), origin="api") == UP
    assert circuit(api) == Circuit("api")
    api.close()


def test_a_fetch_that_is_tried_again_counts_once(api: Face) -> None:
    fetch = api.fetcher(DOWN)
    assert api.get("k", fetch, origin="api", retry=RetryOptions(max_attempts=3)) == DOWN
    assert fetch.calls == 3
    assert circuit(api).failures == 1


def test_a_store_is_asked_although_the_circuit_is_open(face: Face) -> None:
    store = ScriptedStore()
    first = face.new(store=store)
    first.fill("k", "old")
    first.close()
    second = face.new(store=store, breakers=THREE)
    fail(second)
    assert second.get("k", second.fetcher(UP), origin="api") == OLD
    assert second.get("l", second.fetcher(UP), origin="api") == open_until(face, 10)
    second.close()


@pytest.mark.parametrize("origin", [5, b"api", ("api",), object(), True], ids=repr)
def test_an_origin_is_a_str(api: Face, origin: Any) -> None:
    fetch = api.fetcher(UP)
    for method in ("get", "refresh", "prefetch"):
        assert api.call(method, "k", fetch, origin=origin) == Failure(InvalidOption("origin", type(origin).__name__))
    assert fetch.calls == 0


@pytest.mark.parametrize("kind", [Cache, SyncCache])
@pytest.mark.parametrize(
    "breakers",
    [5, "api", {"api": 5}, {5: THREE}, [THREE], {"api": {"failures": 0}}, None],
    ids=repr,
)
def test_breakers_that_make_no_sense_are_refused_at_construction(kind: Any, breakers: Any) -> None:
    with pytest.raises(ValidationError):
        kind(breakers=breakers)


@pytest.mark.parametrize(
    "bad",
    [
        {"failures": 0},
        {"failures": -1},
        {"failures": True},
        {"failures": 2.5},
        {"open_for": -1},
        {"open_for": float("nan")},
        {"open_for": float("inf")},
        {"open_for": True},
        {"counts": 5},
        {"half_open": 3},
    ],
    ids=repr,
)
def test_breaker_options_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BreakerOptions(**bad)


@pytest.mark.parametrize("open_for", [0, None])
def test_a_circuit_may_be_open_for_no_time_or_for_ever(face: Face, open_for: float | None) -> None:
    api = face.new(breakers=BreakerOptions(failures=1, open_for=open_for))
    fail(api, 1)
    api.clock.advance(10**9)
    fetch = api.fetcher(UP)
    answer = api.get("k", fetch, origin="api")
    assert (answer == UP) is (open_for == 0)
    assert isinstance(circuit(api).until, datetime | None)
    api.close()


# FC-4


@pytest.mark.parametrize("attempts", [1, 2])
def test_fc4_origin_that_is_down_is_asked_once_a_second(face: Face, attempts: int) -> None:
    """Down for a minute at a thousand calls a second, each failure remembered for a second."""
    life = Lifetime(ttl=100, failure_ttl=1)
    api = face.new(default_ttl=life, retry=RetryOptions(max_attempts=attempts), logger=None)
    fetch = api.fetcher(DOWN)

    async def minute() -> None:
        for _ in range(60_000):
            assert await api.cache.get("k", fetch) == DOWN
            face.clock.advance(0.001)

    def same() -> None:
        for _ in range(60_000):
            assert api.cache.get("k", fetch) == DOWN
            face.clock.advance(0.001)

    if face.name == "async":
        face.runner.run(minute())  # type: ignore[attr-defined]  # an AsyncFace
    else:
        same()
    assert 59 * attempts <= fetch.calls <= 61 * attempts
    api.close()
