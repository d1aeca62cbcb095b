"""`retrying`, `Backoff`, and `retry=` of sources: how long the waits are, and that attempts never overlap."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from returns.future import FutureResult
from returns.result import Failure, Success

from cachemesh import Cache
from cachemesh.shell.directives import Previous
from cachemesh.sources import Backoff, FailureKind, HttpSource, NetworkFailure, SyncHttpSource, retrying
from cachemesh.sources.backoff import Attempts, Waits, asked_s, wait_s
from cachemesh.testing import VirtualClock, VirtualLoop
from tests.sources.servers import Request, raw_server, response

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.sources.driving import Driver

DOWN = NetworkFailure.of_status(503)
GONE = NetworkFailure.of_status(404)
FLAT = Backoff(max_attempts=5, delay=1, factor=1, jitter="none")


class Origin:
    """Answers one after the other, and notes when it was asked; an exception is raised."""

    def __init__(self, clock: VirtualClock, answers: Iterable[Any]) -> None:
        self.clock = clock
        self.asked_at: list[float] = []
        self._answers = iter(answers)

    def __call__(self, *_: Any) -> Any:
        self.asked_at.append(self.clock())
        answer = next(self._answers)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def asked(is_async: bool, answers: Iterable[Any], options: Backoff, *args: Any) -> tuple[Any, list[float]]:
    """What `retrying` makes of `answers`, and when it asked for them, in virtual time."""
    clock = VirtualClock(now=0.0)
    origin = Origin(clock, answers)
    if not is_async:
        return retrying(origin, options, sleep=clock.sleep)(*args), origin.asked_at

    async def fetch(*args: Any) -> Any:
        return origin(*args)

    async def main() -> Any:
        return await retrying(fetch, options)(*args)

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        return runner.run(main()), origin.asked_at


both = pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])


# How long


@pytest.mark.parametrize(
    ("rule", "attempt", "before", "chance", "wait"),
    [
        (Waits(1, 2, 10, "none"), 1, 0, 0.3, 1),
        (Waits(1, 2, 10, "none"), 4, 4, 0.3, 8),
        (Waits(1, 2, 10, "none"), 5, 8, 0.3, 10),
        (Waits(1, 2, 10, "none"), 5000, 10, 0.3, 10),
        (Waits(0, 2, 10, "none"), 5000, 0, 0.3, 0),
        (Waits(1, 1, 10, "none"), 9, 1, 0.3, 1),
        (Waits(1, 2, 10, "full"), 1, 0, 0.0, 0),
        (Waits(1, 2, 10, "full"), 1, 0, 1.0, 1),
        (Waits(1, 2, 10, "full"), 3, 0, 0.5, 2),
        (Waits(1, 2, 10, "full"), 9, 0, 0.5, 5),
        (Waits(1, 2, 10, "full"), 5000, 0, 1.0, 10),
        (Waits(1, 2, 10, "decorrelated"), 1, 0, 0.0, 1),
        (Waits(1, 2, 10, "decorrelated"), 1, 0, 1.0, 3),
        (Waits(1, 2, 10, "decorrelated"), 2, 3, 0.0, 1),
        (Waits(1, 2, 10, "decorrelated"), 2, 3, 1.0, 9),
        (Waits(1, 2, 10, "decorrelated"), 3, 9, 1.0, 10),
        (Waits(5, 2, 3, "decorrelated"), 1, 0, 0.0, 3),
        (Waits(5, 2, 3, "none"), 1, 0, 0.0, 3),
    ],
)
def test_how_long_a_wait_is(rule: Waits, attempt: int, before: float, chance: float, wait: float) -> None:
    assert wait_s(rule, attempt, before, chance) == pytest.approx(wait)


rules = st.builds(
    Waits,
    st.floats(0, 1e6),
    st.floats(1, 1e6),
    st.floats(0, 1e6),
    st.sampled_from(["full", "decorrelated", "none"]),
)


@given(rule=rules, attempt=st.integers(1, 10_000), before=st.floats(0, 1e6), chance=st.floats(0, 1))
def test_b30_no_wait_is_longer_than_the_cap(rule: Waits, attempt: int, before: float, chance: float) -> None:
    """Jitter is no excuse."""
    wait = wait_s(rule, attempt, before, chance)

    assert math.isfinite(wait)
    assert 0 <= wait <= rule.longest_s


@given(rule=rules, attempt=st.integers(1, 100), one=st.floats(0, 1), other=st.floats(0, 1))
def test_more_chance_never_means_a_shorter_wait(rule: Waits, attempt: int, one: float, other: float) -> None:
    less, more = sorted((one, other))

    assert wait_s(rule, attempt, 1.0, less) <= wait_s(rule, attempt, 1.0, more)


@given(delay=st.floats(0, 100), chance=st.floats(0, 1), before=st.floats(0, 100))
def test_decorrelated_waits_lie_between_the_delay_and_three_times_the_last(
    delay: float, chance: float, before: float
) -> None:
    wait = wait_s(Waits(delay, 2, 1e9, "decorrelated"), 2, before, chance)

    assert delay <= wait + 1e-9
    assert wait <= max(delay, before) * 3 + 1e-9


@given(
    options=st.builds(
        Backoff,
        max_attempts=st.integers(1, 6),
        delay=st.floats(0, 50),
        factor=st.floats(1, 10),
        max_delay=st.one_of(st.none(), st.floats(0, 60)),
        jitter=st.sampled_from(["full", "decorrelated", "none"]),
        max_retry_after=st.one_of(st.none(), st.floats(0, 60)),
    ),
    after=st.lists(st.one_of(st.none(), st.floats(0, 100)), max_size=8),
    chance=st.floats(0, 1),
)
def test_b30_nothing_is_asked_before_it_wants_to_be(options: Backoff, after: list[Any], chance: float) -> None:
    attempts = Attempts(options.model_copy(update={"rng": lambda: chance}))
    most = math.inf if options.max_retry_after is None else float(options.max_retry_after)  # type: ignore[arg-type]
    for each in after:
        wait = attempts.wait_after(NetworkFailure.of_status(429, retry_after=each))
        assert (wait is None) == (attempts.count >= options.max_attempts or (each or 0.0) > most)
        if wait is None:
            break
        assert wait >= (each or 0.0)


@pytest.mark.parametrize(
    "bad",
    [
        {"max_attempts": 0},
        {"max_attempts": True},
        {"max_attempts": 2.0},
        {"delay": -1},
        {"delay": "soon"},
        {"delay": None},
        {"delay": float("inf")},
        {"delay": True},
        {"factor": 0.5},
        {"factor": float("nan")},
        {"factor": True},
        {"max_delay": -1},
        {"jitter": "some"},
        {"jitter": 0.5},
        {"max_retry_after": "x"},
        {"attempt_timeout": -1},
        {"retry_when": 5},
        {"rng": None},
        {"attempts": 5},
    ],
)
def test_b32_bad_options_raise_where_they_are_made(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Backoff(**bad)
    with pytest.raises(ValidationError):
        Backoff().model_copy(update=bad)


def test_options_are_frozen_and_take_durations_as_text() -> None:
    options = Backoff(delay="200ms", max_delay="1m", attempt_timeout="5s", max_retry_after=None)

    assert (options.rule, options.attempt_timeout_s) == (Waits(0.2, 2.0, 60.0, "full"), 5.0)
    with pytest.raises(ValidationError):
        options.max_attempts = 5


# How often, and when


@both
def test_it_asks_until_there_is_a_value(is_async: bool) -> None:
    answers = [Failure(DOWN), Failure(DOWN), Success(1)]

    assert asked(is_async, answers, FLAT) == (Success(1), [0, 1, 2])


@both
def test_it_gives_up_after_the_last_attempt(is_async: bool) -> None:
    answers = [Failure(NetworkFailure.of_status(500 + each)) for each in range(9)]

    assert asked(is_async, answers, FLAT) == (Failure(NetworkFailure.of_status(504)), [0, 1, 2, 3, 4])


@both
def test_waits_grow_up_to_the_cap(is_async: bool) -> None:
    options = Backoff(max_attempts=6, delay=1, factor=2, max_delay=5, jitter="none")

    assert asked(is_async, [Failure(DOWN)] * 6, options)[1] == [0, 1, 3, 7, 12, 17]


@both
@pytest.mark.parametrize(("chance", "times"), [(0.0, [0, 0, 0, 0]), (1.0, [0, 1, 3, 7]), (0.5, [0, 0.5, 1.5, 3.5])])
def test_full_jitter_waits_anything_up_to_that(is_async: bool, chance: float, times: list[float]) -> None:
    options = Backoff(max_attempts=4, delay=1, rng=lambda: chance)

    assert asked(is_async, [Failure(DOWN)] * 4, options)[1] == times


@both
def test_decorrelated_jitter_goes_by_the_last_wait(is_async: bool) -> None:
    options = Backoff(max_attempts=4, delay=1, jitter="decorrelated", max_delay=20, rng=lambda: 1.0)

    assert asked(is_async, [Failure(DOWN)] * 4, options)[1] == [0, 3, 12, 32]


@both
@pytest.mark.parametrize(
    ("asks", "times"),
    [(None, [0, 1]), (0.5, [0, 1]), (7, [0, 7]), (60, [0, 60]), (60.5, [0]), (100_000, [0])],
)
def test_b30_retry_after_is_honoured(is_async: bool, asks: float | None, times: list[float]) -> None:
    """Never asked earlier; and not at all where it would be too long a wait."""
    failure = Failure(NetworkFailure.of_status(429, retry_after=asks))
    answers = [failure, Success(1)]

    assert asked(is_async, answers, FLAT) == (Success(1) if len(times) == 2 else failure, times)


@both
@pytest.mark.parametrize(
    ("error", "is_retried"),
    [
        (NetworkFailure.of_status(401), False),
        (NetworkFailure.of_status(403), False),
        (NetworkFailure.of_status(404), False),
        (NetworkFailure.of_status(409), False),
        (NetworkFailure(kind=FailureKind.CANCELLED), False),
        (NetworkFailure(kind=FailureKind.PARSING), False),
        (NetworkFailure(kind=FailureKind.UNKNOWN), False),
        (NetworkFailure(kind=FailureKind.NETWORK), True),
        (NetworkFailure(kind=FailureKind.TIMEOUT), True),
        (NetworkFailure.of_status(429), True),
        (NetworkFailure.of_status(500), True),
        ("an error of another kind", False),
        (None, False),
    ],
)
def test_b31_what_is_retried_where_nothing_else_is_said(is_async: bool, error: Any, is_retried: bool) -> None:
    _, times = asked(is_async, [Failure(error), Success(1)], FLAT)

    assert len(times) == (2 if is_retried else 1)


@both
def test_retry_when_decides(is_async: bool) -> None:
    seen: list[Any] = []

    def is_worth_it(error: Any) -> bool:
        seen.append(error)
        return error is not GONE

    options = FLAT.model_copy(update={"retry_when": is_worth_it})

    assert asked(is_async, [Failure("busy"), Failure(GONE), Success(1)], options) == (Failure(GONE), [0, 1])
    assert seen == ["busy", GONE]


@both
def test_b29_nothing_that_users_raise_gets_out(is_async: bool) -> None:
    def raising(error: Any) -> bool:
        raise KeyError(error)

    options = FLAT.model_copy(update={"retry_when": raising})

    assert asked(is_async, [Failure(DOWN), Success(1)], options) == (Failure(DOWN), [0])
    answer, times = asked(is_async, [KeyError("canary"), Success(1)], FLAT)
    assert (answer.failure(), times) == (NetworkFailure(kind=FailureKind.UNKNOWN, message="KeyError"), [0])
    assert asked(is_async, [ConnectionResetError(), Success(1)], FLAT) == (Success(1), [0, 1])
    answer, times = asked(is_async, [TimeoutError()] * 5, FLAT)
    assert (answer.failure(), times) == (
        NetworkFailure(kind=FailureKind.TIMEOUT, message="TimeoutError"),
        [0, 1, 2, 3, 4],
    )


@both
def test_what_is_no_exception_passes_through(is_async: bool) -> None:
    with pytest.raises(KeyboardInterrupt):
        asked(is_async, [KeyboardInterrupt(), Success(1)], FLAT)


@both
def test_it_is_called_as_the_fetcher_is(is_async: bool) -> None:
    previous = Previous("old", "v1", 5.0)
    seen: list[Any] = []

    def sync_fetch(*args: Any) -> Any:
        seen.append(args)
        return Failure(DOWN) if len(seen) < 2 else Success(1)

    async def fetch(*args: Any) -> Any:
        return sync_fetch(*args)

    options = Backoff(delay=0)
    wrapped: Any = retrying(fetch if is_async else sync_fetch, options)
    answer = wrapped(previous)

    assert (asyncio.run(answer) if is_async else answer) == Success(1)
    assert seen == [(previous,), (previous,)]
    assert wrapped.__name__ == ("fetch" if is_async else "sync_fetch")


def test_any_awaitable_will_do() -> None:
    answers: Any = iter([FutureResult.from_failure(DOWN), FutureResult.from_value(1)])

    def fetch() -> Any:
        return next(answers)

    async def main() -> Any:
        again: Any = retrying(fetch, Backoff(delay=0))
        return await again()

    assert asyncio.run(main()) == Success(1)


def test_an_object_with_an_asynchronous_call_will_do() -> None:
    class Fetch:
        def __init__(self) -> None:
            self.calls = 0

        async def __call__(self, previous: Previous[int] | None = None) -> Any:
            assert previous is None
            self.calls += 1
            return Failure(DOWN) if self.calls < 3 else Success(self.calls)

    async def main() -> Any:
        return await Cache().get("k", retrying(Fetch(), Backoff(delay=0)), conditional=True)

    assert asyncio.run(main()) == Success(3)


@pytest.mark.parametrize("error", [None, 5, object(), "2"])
def test_errors_of_every_kind_are_asked_how_long(error: Any) -> None:
    assert asked_s(error) == 0.0


def test_a_retry_after_that_makes_no_sense_is_none() -> None:
    class Odd:
        retry_after = "soon"

    class Raising:
        @property
        def retry_after(self) -> float:
            msg = "canary"
            raise LookupError(msg)

    assert (asked_s(Odd()), asked_s(Raising())) == (0.0, 0.0)


# Attempts


def in_virtual_time(main: Any) -> Any:
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(VirtualClock(now=0.0))) as runner:
        return runner.run(main)


def test_b32_an_attempt_that_takes_too_long_is_cancelled_before_the_next() -> None:
    running = most = ended = 0

    async def fetch() -> Any:
        nonlocal running, most, ended
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(3)  # It takes its time to clean up.
            running -= 1
            ended += 1

    async def main() -> Any:
        options = FLAT.model_copy(update={"attempt_timeout": 5, "max_attempts": 3})
        answer = await retrying(fetch, options)()
        return answer, asyncio.get_running_loop().time()

    answer, at = in_virtual_time(main())

    assert answer.failure() == NetworkFailure(kind=FailureKind.TIMEOUT, message="no answer within 5 s")
    assert (most, ended, running, at) == (1, 3, 0, 3 * (5 + 3) + 2)


@pytest.mark.parametrize("at", [0.5, 1.5], ids=["in an attempt", "in a wait"])
def test_ca3_cancellation_passes_through_and_nothing_is_asked_again(at: float) -> None:
    calls = 0

    async def fetch() -> Any:
        nonlocal calls
        calls += 1
        await asyncio.sleep(1)
        return Failure(DOWN)

    async def main() -> None:
        task = asyncio.ensure_future(retrying(fetch, FLAT)())
        await asyncio.sleep(at)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(at):
                await retrying(fetch, FLAT.model_copy(update={"attempt_timeout": 100}))()

    in_virtual_time(main())
    assert calls == 2


# Sources

AT_ONCE = Backoff(max_attempts=3, delay=0)


def fails_first(times: int, status: str = "503 Down", **headers: str) -> Any:
    """Answers with `status` so many times, then with 1."""
    left = iter(range(times))

    def script(_: Request) -> Any:
        yield response(b"1") if next(left, None) is None else response(b"", status, **headers)

    return script


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"])
def test_a_source_tries_again(driver: Driver, method: str) -> None:
    with raw_server(fails_first(2)) as server:
        assert driver.open(server.url, retry=AT_ONCE).request(method, "/", parser=None) == Success(None)
        assert len(server.requests) == 3


@pytest.mark.parametrize("method", ["POST", "PATCH", "REPORT"])
def test_what_is_not_idempotent_is_sent_once_unless_told(driver: Driver, method: str) -> None:
    """RFC 9110, section 9.2.2."""
    with raw_server(fails_first(3)) as server:
        source = driver.open(server.url, retry=AT_ONCE)
        assert source.request(method, "/").failure().status == 503
        assert len(server.requests) == 1
        any_method = AT_ONCE.model_copy(update={"any_method": True})
        assert source.request(method, "/", retry=any_method, parser=int) == Success(1)
        assert len(server.requests) == 4


def test_a_call_says_otherwise(driver: Driver) -> None:
    with raw_server(fails_first(3)) as server:
        source = driver.open(server.url, retry=AT_ONCE)
        assert source.get("/", retry=None).failure().status == 503
        assert len(server.requests) == 1
        assert driver.open(server.url).get("/", retry=AT_ONCE, parser=int) == Success(1)


def test_a_body_that_cannot_be_sent_again_is_sent_once(driver: Driver) -> None:
    async def numbers() -> Any:
        yield b"12"

    with raw_server(fails_first(3)) as server:
        content = numbers() if driver.is_async else iter([b"12"])
        assert driver.open(server.url, retry=AT_ONCE).put("/", content=content).failure().status == 503
        assert len(server.requests) == 1


def test_uploads_and_downloads_begin_anew(driver: Driver, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(b"12")
    tries = iter(range(9))

    def script(request: Request) -> Any:
        if request.method == "GET" and next(tries) < 2:
            yield b"HTTP/1.1 200 OK\r\ncontent-length: 900000\r\n\r\n" + b"x" * 600_000
            yield None
        yield response(b"whole")

    with raw_server(fails_first(1)) as up, raw_server(script) as down:
        source = driver.open(retry=AT_ONCE)
        assert source.upload(up.url, tmp_path / "up", method="PUT", parser=int) == Success(1)
        assert [each.body for each in up.requests] == [b"12", b"12"]
        with (tmp_path / "up").open("rb") as file:
            assert source.upload(up.url, file, method="PUT", parser=int) == Success(1)
        assert source.download(down.url, tmp_path / "down") == Success(5)

    assert (tmp_path / "down").read_bytes() == b"whole"
    assert len(down.requests) == 3


def test_b30_a_source_waits_as_long_as_the_origin_asks(driver: Driver) -> None:
    with raw_server(fails_first(9, "429 Slow down", retry_after="3600")) as server:
        failure = driver.open(server.url, retry=AT_ONCE).get("/").failure()
        assert (failure.kind, failure.retry_after) == (FailureKind.RATE_LIMIT, 3600.0)
        assert len(server.requests) == 1


def test_b30_the_threaded_face_waits_with_the_sleep_it_is_given() -> None:
    waits: list[float] = []
    with (
        raw_server(fails_first(2, "503 Down", retry_after="5")) as server,
        SyncHttpSource(server.url, retry=AT_ONCE, sleep=waits.append) as source,
    ):
        assert source.get("/", parser=int) == Success(1)

    assert waits == [5.0, 5.0]


def test_b32_an_attempt_of_a_source_has_its_own_time(driver: Driver) -> None:
    answered = threading.Event()

    def script(_: Request) -> Any:
        if answered.is_set():
            yield response(b"1")
        answered.set()
        yield 5.0

    options = AT_ONCE.model_copy(update={"attempt_timeout": 0.2})
    with raw_server(script) as server:
        assert driver.open(server.url, retry=options).get("/", parser=int) == Success(1)
        assert len(server.requests) == 2


def test_a_source_that_is_closed_meanwhile_asks_no_more() -> None:
    async def main() -> Any:
        source = HttpSource(server.url, retry=Backoff(delay=0.2, jitter="none"))
        task = asyncio.create_task(source.get("/"))
        while not server.requests:  # noqa: ASYNC110 (it is another thread that hears of them)
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        await source.aclose()
        return await task

    with raw_server(fails_first(9)) as server:
        assert asyncio.run(main()).failure().kind is FailureKind.CANCELLED
        assert len(server.requests) == 1
