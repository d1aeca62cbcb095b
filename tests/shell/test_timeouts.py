"""`soft_timeout`, `hard_timeout` and `max_flight_age`: who waits for how long, and what becomes of the fetch.

In virtual time on both faces. On `SyncCache` a waiting thread looks at a clock
that jumps every few milliseconds, so a case moves the clock and waits for it.
"""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError
from returns.result import Failure, Success

from cachemesh import (
    Cache,
    CacheClosed,
    CacheMiss,
    CachePolicy,
    FetchCancelled,
    FetchTimeout,
    InvalidTtl,
    Lifetime,
    RetryOptions,
    SyncCache,
)
from tests.scenarios.helpers import ScriptedStore, under_way

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shell.faces import Answer, AsyncFace, Face, SyncFace

OLD, NEW, LATE = Success("old"), Success("new"), Success("late")
DOWN = Failure("down")


def with_old_value(face: Face, *, ttl: Any = 10, age: float = 20) -> None:
    """`k` holds "old", which is `age` seconds old."""
    face.fill("k", "old", ttl=ttl)
    face.clock.advance(age)


class Crash(BaseException):
    """What no fetch should raise."""


# The soft timeout


def test_after_a_soft_timeout_the_old_value_is_answered_and_the_fetch_stores(face: Face) -> None:
    with_old_value(face)
    fetch = face.fetcher(NEW, held=True)
    waiting = face.begin.get("k", fetch, soft_timeout=1)
    assert not waiting.is_done

    face.clock.advance(1)
    assert waiting.result() == OLD
    assert face.peek("k", allow_expired=True) == OLD

    fetch.release()
    face.settle()
    assert face.peek("k") == NEW
    assert (fetch.calls, under_way(face.cache)) == (1, 0)


@pytest.mark.parametrize("timeout", [1, 1.0, "1s", "1000ms", timedelta(seconds=1)])
def test_a_timeout_is_written_like_any_duration(face: Face, timeout: Any) -> None:
    with_old_value(face)
    fetch = face.fetcher(NEW, held=True)
    soft, hard = face.begin.get("k", fetch, soft_timeout=timeout), face.begin.get("k", fetch, hard_timeout=timeout)
    face.clock.advance(1)
    assert soft.result() == OLD
    assert hard.result() == Failure(FetchTimeout("k", 1.0))
    fetch.release()
    face.settle()


def test_a_fetch_within_the_soft_timeout_answers_itself(face: Face) -> None:
    with_old_value(face)
    assert face.get("k", face.fetcher(NEW), soft_timeout=1, hard_timeout=2) == NEW


def test_without_an_old_value_a_soft_timeout_waits_on(face: Face) -> None:
    fetch = face.fetcher(NEW, held=True)
    waiting = face.begin.get("k", fetch, soft_timeout=1)
    face.clock.advance(100)
    face.settle()
    assert not waiting.is_done
    fetch.release()
    assert waiting.result() == NEW


def test_the_old_value_of_a_soft_timeout_is_within_its_windows(face: Face) -> None:
    """No answer is older than its ttl and the window given, whatever the caller's patience."""
    with_old_value(face, ttl=Lifetime(ttl=10, serve_stale_for=5, stale_if_error_for=15), age=24)
    fetch = face.fetcher(NEW, held=True)
    waiting = face.begin.get("k", fetch, soft_timeout=1)
    face.clock.advance(1)
    face.settle()
    assert not waiting.is_done
    fetch.release()
    assert waiting.result() == NEW


@pytest.mark.parametrize("ask", ["refresh", "prefetch", "network_only"])
def test_who_wants_a_fetch_gets_no_old_value(face: Face, ask: str) -> None:
    face.fill("k", "old", ttl=Lifetime(ttl=10, stale_if_error_for=1_000))
    fetch = face.fetcher(NEW, held=True)
    options = {"soft_timeout": 1, "hard_timeout": 5}
    if ask == "network_only":
        waiting = face.begin.get("k", fetch, policy=CachePolicy.NETWORK_ONLY, **options)
    else:
        waiting = face.begin.call(ask, "k", fetch, **options)
    face.clock.advance(1)
    face.settle()
    assert not waiting.is_done
    face.clock.advance(4)
    assert waiting.result() == Failure(FetchTimeout("k", 5.0))
    fetch.release()
    face.settle()
    assert face.peek("k") == OLD


def test_network_first_takes_a_fresh_value_after_its_soft_timeout(face: Face) -> None:
    face.fill("k", "old")
    fetch = face.fetcher(NEW, held=True)
    waiting = face.begin.get("k", fetch, policy=CachePolicy.NETWORK_FIRST, soft_timeout=1)
    face.clock.advance(1)
    assert waiting.result() == OLD
    fetch.release()
    face.settle()
    assert face.peek("k") == NEW


def test_who_comes_after_a_soft_timeout_joins_the_same_fetch(face: Face) -> None:
    with_old_value(face)
    fetch = face.fetcher(NEW, held=True)
    first = face.begin.get("k", fetch, soft_timeout=1)
    face.clock.advance(1)
    assert first.result() == OLD
    patient, hasty = face.begin.get("k", fetch), face.begin.get("k", fetch, soft_timeout=1)
    face.clock.advance(1)
    assert hasty.result() == OLD
    fetch.release()
    assert patient.result() == NEW
    assert fetch.calls == 1


def test_a_fetch_that_fails_after_the_soft_timeout_is_logged_and_keeps_the_old_value(face: Face) -> None:
    with_old_value(face)
    fetch = face.fetcher(DOWN, held=True)
    waiting = face.begin.get("k", fetch, soft_timeout=1)
    face.clock.advance(1)
    assert waiting.result() == OLD
    fetch.release()
    face.settle()
    assert face.log.named("error") == [("error", "k", "down")]
    assert face.peek("k", allow_expired=True) == OLD
    assert under_way(face.cache) == 0


def test_an_invalidation_fences_the_fetch_that_goes_on(face: Face) -> None:
    with_old_value(face)
    fetch = face.fetcher(NEW, held=True)
    waiting = face.begin.get("k", fetch, soft_timeout=1)
    face.clock.advance(1)
    assert waiting.result() == OLD
    face.invalidate("k")
    fetch.release()
    face.settle()
    assert face.peek("k", allow_expired=True) == Failure(CacheMiss("k"))
    assert under_way(face.cache) == 0


def test_a_soft_timeout_that_is_not_the_shorter_one_does_nothing(face: Face) -> None:
    with_old_value(face)
    fetch = face.fetcher(NEW, held=True)
    waiting = face.begin.get("k", fetch, soft_timeout=5, hard_timeout=2)
    face.clock.advance(2)
    assert waiting.result() == Failure(FetchTimeout("k", 2.0))
    fetch.release()
    face.settle()


# The hard timeout


def test_after_a_hard_timeout_the_key_is_free_and_the_late_result_stored_nowhere(face: Face) -> None:
    late = face.fetcher(LATE, held=True)
    waiting = face.begin.get("k", late, hard_timeout=5)
    face.clock.advance(4.9)
    face.settle()
    assert not waiting.is_done
    face.clock.advance(0.1)
    assert waiting.result() == Failure(FetchTimeout("k", 5.0))
    assert under_way(face.cache) == 0

    assert face.get("k", face.fetcher(NEW)) == NEW
    late.release()
    face.settle()
    assert face.peek("k") == NEW
    assert face.log.named("write") == [("write", "k", None)]


def test_the_next_one_after_a_hard_timeout_does_not_wait_for_the_hung_fetch(face: Face) -> None:
    hung, patient_fetch = face.fetcher(LATE, held=True), face.fetcher(NEW)
    patient = face.begin.get("k", hung)
    hasty = face.begin.get("k", hung, hard_timeout=5)
    face.clock.advance(5)
    assert hasty.result() == Failure(FetchTimeout("k", 5.0))
    assert face.get("k", patient_fetch) == NEW
    assert not patient.is_done
    hung.release()
    assert patient.result() == LATE
    face.settle()
    assert face.peek("k") == NEW
    assert under_way(face.cache) == 0


@pytest.mark.parametrize("policy", [CachePolicy.CACHE_FIRST, CachePolicy.NETWORK_FIRST])
def test_a_hard_timeout_is_a_failure_for_which_an_old_value_stands_in(face: Face, policy: CachePolicy) -> None:
    with_old_value(face, ttl=Lifetime(ttl=10, stale_if_error_for=60))
    fetch = face.fetcher(NEW, held=True)
    waiting = face.begin.get("k", fetch, policy=policy, hard_timeout=5)
    face.clock.advance(5)
    assert waiting.result() == OLD
    fetch.release()
    face.settle()


def test_a_hard_timeout_beyond_the_window_fails(face: Face) -> None:
    with_old_value(face, ttl=Lifetime(ttl=10, stale_if_error_for=60), age=66)
    fetch = face.fetcher(NEW, held=True)
    waiting = face.begin.get("k", fetch, hard_timeout=5)
    face.clock.advance(5)
    assert waiting.result() == Failure(FetchTimeout("k", 5.0))
    fetch.release()
    face.settle()


def test_callers_with_different_patience_each_get_theirs(face: Face) -> None:
    with_old_value(face)
    fetch = face.fetcher(NEW, held=True)
    began = face.clock()
    patient = face.begin.get("k", fetch)
    soft = face.begin.get("k", fetch, soft_timeout=1)
    hard = face.begin.get("k", fetch, hard_timeout=2)
    both = face.begin.get("k", fetch, soft_timeout=3, hard_timeout=4)
    answers: list[Answer] = []
    for instant, each in ((1, soft), (2, hard), (3, both)):
        face.clock.advance_to(began + instant)
        answers.append(each.result())
    assert answers == [OLD, Failure(FetchTimeout("k", 2.0)), OLD]
    assert not patient.is_done
    fetch.release()
    assert patient.result() == NEW
    assert fetch.calls == 1
    face.settle()
    assert under_way(face.cache) == 0


def test_many_who_give_up_on_one_fetch_are_one_line_in_the_log(face: Face) -> None:
    fetch = face.fetcher(NEW, held=True)
    waiting = [face.begin.get("k", fetch, hard_timeout=5) for _ in range(3)]
    face.clock.advance(5)
    assert [each.result() for each in waiting] == [Failure(FetchTimeout("k", 5.0))] * 3
    assert face.log.named("error") == [("error", "k", FetchTimeout("k", 5.0))]
    fetch.release()
    face.settle()


def test_a_hard_timeout_also_ends_the_retries(face: Face) -> None:
    fetch = face.fetcher(DOWN, NEW, held=True)
    retry = RetryOptions(max_attempts=2, delay=1)
    waiting = face.begin.get("k", fetch, hard_timeout=5, retry=retry)
    face.clock.advance(5)
    assert waiting.result() == Failure(FetchTimeout("k", 5.0))
    fetch.release()
    face.settle()
    assert under_way(face.cache) == 0
    assert face.peek("k") == Failure(CacheMiss("k"))


@pytest.mark.parametrize("timeout", [0, -0.0])
def test_a_hard_timeout_of_nothing_waits_for_nothing(face: Face, timeout: float) -> None:
    fetch = face.fetcher(NEW, held=True)
    assert face.get("k", fetch, hard_timeout=timeout) == Failure(FetchTimeout("k", 0.0))
    fetch.release()
    face.settle()
    assert under_way(face.cache) == 0


def test_the_last_one_who_gives_up_cancels_the_fetch(async_face: AsyncFace) -> None:
    seen: list[str] = []

    async def fetch() -> Answer:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return NEW

    first = async_face.begin.get("k", fetch, hard_timeout=1)
    second = async_face.begin.get("k", fetch, hard_timeout=2)
    async_face.clock.advance(1)
    assert first.result() == Failure(FetchTimeout("k", 1.0))
    assert seen == []
    async_face.clock.advance(1)
    assert second.result() == Failure(FetchTimeout("k", 2.0))
    async_face.settle()
    assert seen == ["cancelled"]


def test_a_fetch_that_resists_its_cancellation_is_stored_nowhere(async_face: AsyncFace) -> None:
    gate = asyncio.Event()

    async def fetch() -> Answer:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue
        return LATE

    waiting = async_face.begin.get("k", fetch, hard_timeout=1)
    async_face.clock.advance(1)
    assert waiting.result() == Failure(FetchTimeout("k", 1.0))
    async_face.settle()
    gate.set()
    async_face.settle()
    assert async_face.peek("k") == Failure(CacheMiss("k"))
    assert under_way(async_face.cache) == 0


@pytest.mark.parametrize("options", [{"soft_timeout": 5}, {"hard_timeout": 5}, {"soft_timeout": 2, "hard_timeout": 5}])
@pytest.mark.parametrize("after", [0, 3])
def test_a_caller_who_is_cancelled_while_impatient_leaves_alone(
    async_face: AsyncFace, options: dict[str, float], after: float
) -> None:
    fetch = async_face.fetcher(NEW, held=True)
    leader = async_face.begin.call("get", "k", fetch, **options)
    joiner = async_face.begin.get("k", fetch)
    async_face.clock.advance(after)
    async_face.settle()
    leader.task.cancel()  # type: ignore[attr-defined]  # an AsyncPending
    with pytest.raises(asyncio.CancelledError):
        leader.result()
    fetch.release()
    assert joiner.result() == NEW
    assert (fetch.calls, async_face.peek("k")) == (1, NEW)
    assert under_way(async_face.cache) == 0


@pytest.mark.parametrize("options", [{"soft_timeout": 5}, {"hard_timeout": 5}, {"soft_timeout": 2, "hard_timeout": 5}])
def test_the_only_caller_who_is_cancelled_while_impatient_takes_the_fetch_with_it(
    async_face: AsyncFace, options: dict[str, float]
) -> None:
    fetch = async_face.fetcher(NEW, held=True)
    only = async_face.begin.call("get", "k", fetch, **options)
    async_face.clock.advance(3)
    async_face.settle()
    only.task.cancel()  # type: ignore[attr-defined]  # as above
    with pytest.raises(asyncio.CancelledError):
        only.result()
    assert under_way(async_face.cache) == 0
    assert async_face.get("k", async_face.fetcher(NEW)) == NEW


# The age of a flight


def test_sf8_hung_fetch_beyond_its_age_frees_the_key(face: Face) -> None:
    hung = face.fetcher(LATE, held=True)
    leader = face.begin.get("k", hung, max_flight_age=60)
    joiner = face.begin.get("k", hung)
    face.clock.advance(59.9)
    face.settle()
    assert not joiner.is_done
    face.clock.advance(0.1)
    assert joiner.result() == Failure(FetchTimeout("k", 60.0))
    assert under_way(face.cache) == 0
    assert face.get("k", face.fetcher(NEW)) == NEW

    hung.release()
    assert leader.result() == Failure(FetchTimeout("k", 60.0))
    face.settle()
    assert face.peek("k") == NEW
    assert face.log.named("write") == [("write", "k", None)]
    assert face.log.named("error") == [("error", "k", FetchTimeout("k", 60.0))]


@pytest.mark.parametrize("ask", ["get", "refresh", "prefetch", "joined by options"])
def test_sf8_new_leader_starts_as_soon_as_the_old_flight_is_too_old(face: Face, ask: str) -> None:
    """Nobody but the newcomer looks at the clock: the cache's own age, and a patient leader."""
    other = face.new(max_flight_age="1m")
    hung = other.fetcher(LATE, held=True)
    leader = other.begin.get("k", hung)
    face.clock.advance(60)
    fetch = other.fetcher(NEW)
    if ask == "joined by options":
        assert other.get("k", fetch, ttl=5, retry=RetryOptions(max_attempts=2)) == NEW
    else:
        assert other.call(ask, "k", fetch) == NEW
    assert fetch.calls == 1
    hung.release()
    assert leader.result() == Failure(FetchTimeout("k", 60.0))
    other.settle()
    assert other.peek("k") == NEW
    assert under_way(other.cache) == 0
    other.close()


def test_sf8_background_refresh_that_hangs_is_replaced(face: Face) -> None:
    other = face.new(max_flight_age=60, default_ttl=Lifetime(ttl=10, serve_stale_for=1_000))
    other.fill("k", "old")
    face.clock.advance(20)
    hung, fetch = other.fetcher(LATE, held=True), other.fetcher(NEW)
    assert other.get("k", hung) == OLD
    other.settle()
    face.clock.advance(59)
    assert other.get("k", fetch) == OLD
    other.settle()
    assert (hung.calls, fetch.calls) == (1, 0)
    face.clock.advance(1)
    assert other.get("k", fetch) == OLD
    other.settle()
    assert (hung.calls, fetch.calls) == (1, 1)
    hung.release()
    other.settle()
    assert other.get("k", hung) == NEW
    other.close()


def test_the_age_of_a_call_goes_before_that_of_the_cache(face: Face) -> None:
    other = face.new(max_flight_age=60)
    hung = other.fetcher(LATE, held=True)
    leaders = [
        other.begin.get("k1", hung, max_flight_age=None),
        other.begin.get("k2", hung, max_flight_age=120),
        other.begin.get("k3", hung),
    ]
    for after, freed in ((60, ["k3"]), (60, ["k3", "k2"]), (1_000, ["k3", "k2"])):
        face.clock.advance(after)
        other.get("other", other.fetcher(NEW), policy=CachePolicy.NETWORK_ONLY)
        other.settle()
        flights = {flight.key for flight in other.cache._runtime.state.flights.values()}
        assert flights == {"k1", "k2", "k3"} - set(freed)
    hung.release()
    assert [leader.result() for leader in leaders] == [
        LATE,
        Failure(FetchTimeout("k2", 120.0)),
        Failure(FetchTimeout("k3", 60.0)),
    ]
    other.close()


def test_an_old_value_stands_in_for_a_fetch_that_got_too_old(face: Face) -> None:
    with_old_value(face, ttl=Lifetime(ttl=10, stale_if_error_for=100))
    hung = face.fetcher(LATE, held=True)
    leader = face.begin.get("k", hung, max_flight_age=5)
    joiner, refresher = face.begin.get("k", hung), face.begin.refresh("k", hung)
    face.clock.advance(5)
    assert (joiner.result(), refresher.result()) == (OLD, Failure(FetchTimeout("k", 5.0)))
    hung.release()
    assert leader.result() == OLD


def test_watchers_hear_that_a_fetch_got_too_old_and_nothing_of_its_late_result(face: Face) -> None:
    heard = face.listen("k")
    hung = face.fetcher(LATE, held=True)
    leader = face.begin.get("k", hung, max_flight_age=5, hard_timeout=5)
    face.clock.advance(5)
    assert leader.result() == Failure(FetchTimeout("k", 5.0))
    hung.release()
    face.settle()
    assert LATE not in heard.results


def test_a_flight_of_no_age_at_all_answers_and_is_forgotten(face: Face) -> None:
    fetch = face.fetcher(NEW, held=True)
    waiting = face.begin.get("k", fetch, max_flight_age=0)
    joiner = face.begin.get("other", fetch, max_flight_age=0, hard_timeout=9)
    assert joiner.result() == Failure(FetchTimeout("other", 0.0))
    fetch.release()
    assert waiting.result() == Failure(FetchTimeout("k", 0.0))
    face.settle()
    assert under_way(face.cache) == 0
    assert not face.cache._runtime._ageing


def test_flights_that_end_in_time_are_not_looked_at_any_more(face: Face) -> None:
    other = face.new(max_flight_age=5)
    for number in range(100):
        assert other.get(f"k{number}", other.fetcher(NEW)) == NEW
    assert not other.cache._runtime._ageing
    face.clock.advance(10)
    assert other.get("k", other.fetcher(NEW)) == NEW
    other.close()


# What else may end a wait


@pytest.mark.parametrize("options", [{}, {"soft_timeout": 50}, {"hard_timeout": 50}, {"max_flight_age": 50}])
def test_closing_the_cache_lets_everybody_go(face: Face, options: dict[str, float]) -> None:
    other = face.new()
    fetch = other.fetcher(NEW, held=True)
    waiting = [other.begin.call("get", "k", fetch, **options) for _ in range(3)]
    if face.name == "sync":  # A thread cannot be stopped: `close` waits for it, but not for ever.
        closing = threading.Thread(target=other.close, daemon=True)
        closing.start()
        other.settle()
        late = [each for each in waiting if not each.is_done]
        assert len(late) <= (0 if "soft_timeout" in options or "hard_timeout" in options else 1)
        fetch.release()
        closing.join(5)
    else:
        other.close()
    assert [each.result() for each in waiting] == [Failure(CacheClosed())] * 3


def test_a_crash_reaches_the_caller_who_leads_and_nobody_else(face: Face) -> None:
    """Whether the fetch runs in the leader's own thread or beside it."""
    for options in ({}, {"soft_timeout": 50}, {"hard_timeout": 50}):
        fetch = face.fetcher(Crash(), held=True)
        leader = face.begin.call("get", "k", fetch, **options)
        joiners = [face.begin.get("k", fetch), face.begin.get("k", fetch, hard_timeout=50)]
        fetch.release()
        with pytest.raises(Crash):
            leader.result()
        assert [each.result() for each in joiners] == [Failure(FetchCancelled("k"))] * 2
        assert under_way(face.cache) == 0
        assert face.get("k", face.fetcher(NEW)) == NEW
        face.invalidate("k")


def test_a_crash_beside_its_leader_is_there_before_the_leader_is_woken(
    sync_face: SyncFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken_with: list[object] = []
    domain = sync_face.cache._domain
    release = domain.release

    def watched(live: Any) -> None:
        woken_with.append(live.crash)
        release(live)

    monkeypatch.setattr(domain, "release", watched)
    crash = Crash()
    with pytest.raises(Crash):
        sync_face.get("k", sync_face.fetcher(crash), hard_timeout=50)
    assert woken_with == [crash]


def test_a_crash_after_the_leader_has_left_is_the_threads_own(
    sync_face: SyncFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda crashed: seen.append(crashed.exc_type))
    with_old_value(sync_face)
    fetch = sync_face.fetcher(Crash(), held=True)
    leader = sync_face.begin.get("k", fetch, soft_timeout=1)
    sync_face.clock.advance(1)
    assert leader.result() == OLD
    fetch.release()
    sync_face.settle()
    assert seen == [Crash]
    assert under_way(sync_face.cache) == 0


def test_where_there_is_no_room_for_another_thread_the_caller_fetches_itself(
    sync_face: SyncFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spawn(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(sync_face.cache._domain, "spawn", spawn)
    assert sync_face.get("k", sync_face.fetcher(NEW), hard_timeout=5) == NEW
    with pytest.raises(Crash):
        sync_face.get("other", sync_face.fetcher(Crash()), hard_timeout=5)
    assert under_way(sync_face.cache) == 0


def test_no_thread_and_no_task_is_left_behind(face: Face) -> None:
    with_old_value(face)
    held = face.fetcher(NEW, held=True)
    for key, options in (("k", {"soft_timeout": 1}), ("a", {"hard_timeout": 1}), ("b", {"max_flight_age": 1})):
        waiting = face.begin.call("get", key, held, **options)
        face.clock.advance(1)
        if face.name == "async" or key != "b":
            waiting.result()
    held.release()
    face.settle()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("cachemesh")] == []
    if face.name == "async":
        face.inside(lambda: None)
        tasks = asyncio.all_tasks(face.runner.get_loop())  # type: ignore[attr-defined]  # an AsyncFace
        assert [task for task in tasks if not task.done()] == []
    assert under_way(face.cache) == 0


def test_a_wait_that_was_given_up_is_no_wait(face: Face) -> None:
    """`a` waited for `b` and gave up. When `b` then asks for `a`, that is no circle."""
    held_a, held_b = face.fetcher(Success("a"), held=True), face.fetcher(Success("b"), held=True)

    def ask_b(cache: Any) -> Any:
        if isinstance(cache, SyncCache):
            gave_up.append(cache.get("b", held_b, hard_timeout=1))
            return held_a()

        async def asking() -> Answer:
            gave_up.append(await cache.get("b", held_b, hard_timeout=1))
            answer: Answer = await held_a()
            return answer

        return asking()

    def ask_a(cache: Any) -> Any:
        if isinstance(cache, SyncCache):
            held_b()
            return cache.get("a", held_a)

        async def asking() -> Answer:
            await held_b()
            answer: Answer = await cache.get("a", held_a)
            return answer

        return asking()

    gave_up: list[Answer] = []
    b = face.begin.get("b", face.nested(ask_a))
    a = face.begin.get("a", face.nested(ask_b))
    face.clock.advance(1)
    face.settle()
    assert gave_up == [Failure(FetchTimeout("b", 1.0))]
    held_b.release()
    face.settle()
    held_a.release()
    assert (a.result(), b.result()) == (Success("a"), Success("a"))


def test_a_caller_inside_its_own_fetch_is_told_so_whatever_its_patience(face: Face) -> None:
    for options in ({"soft_timeout": 5}, {"hard_timeout": 5}):
        inner: Callable[[Any], Any] = lambda cache, options=options: cache.get("k", face.fetcher(NEW), **options)  # type: ignore[misc]  # noqa: E731
        answer = face.get("k", face.nested(inner), **options)
        assert type(answer.failure()).__name__ == "ReentrantFetch"


# With a store


@pytest.mark.parametrize(
    "options", [{"hard_timeout": 0.5}, {"soft_timeout": 0.5}, {"soft_timeout": 0.2, "hard_timeout": 0.5}]
)
def test_an_answer_that_the_store_is_slow_to_take_is_an_answer(
    async_face: AsyncFace, options: dict[str, float]
) -> None:
    """The fetch was in time; only the writing through was not."""
    gate = asyncio.Event()
    store = ScriptedStore(lambda operation, *_: gate.wait() if operation == "write" else None)
    other = async_face.new(store=store, default_ttl=1)
    waiting = other.begin.call("get", "k", other.fetcher(NEW), **options)
    async_face.clock.advance(0.5)
    assert waiting.result() == NEW
    assert other.log.named("error") == []
    gate.set()
    other.settle()
    other.close()


def test_what_went_on_after_a_soft_timeout_is_written_through(face: Face) -> None:
    store = ScriptedStore()
    other = face.new(store=store, default_ttl=10)
    other.fill("k", "old")
    face.clock.advance(20)
    fetch = other.fetcher(NEW, held=True)
    waiting = other.begin.get("k", fetch, soft_timeout=1)
    face.clock.advance(1)
    assert waiting.result() == OLD
    fetch.release()
    other.settle()
    assert other.peek("k") == NEW
    other.close()
    assert [entry.value for entry in store.kept.values()] == ["new"]


# Bad input


@pytest.mark.parametrize("option", ["soft_timeout", "hard_timeout", "max_flight_age"])
@pytest.mark.parametrize(
    "value",
    [
        -1,
        -0.001,
        float("nan"),
        float("inf"),
        float("-inf"),
        1e20,
        10**400,
        timedelta.max,
        timedelta(-1),
        True,
        "",
        "5",
        "5 minutes",
        "-5m",
        Decimal(5),
        b"5m",
        (5,),
        object(),
    ],
    ids=repr,
)
def test_tt5_timeout_that_makes_no_sense_is_a_failure_and_nothing_is_fetched(
    face: Face, option: str, value: Any
) -> None:
    fetch = face.fetcher(NEW)
    for method in ("get", "refresh", "prefetch"):
        answer = face.call(method, "k", fetch, **{option: value})
        assert isinstance(answer.failure(), InvalidTtl), answer
    assert fetch.calls == 0
    assert under_way(face.cache) == 0


@pytest.mark.parametrize("kind", [Cache, SyncCache])
@pytest.mark.parametrize("value", [-1, float("nan"), 1e20, True, "5", Decimal(5), object()], ids=repr)
def test_tt5_age_that_makes_no_sense_is_refused_at_construction(kind: type[Cache | SyncCache], value: Any) -> None:
    with pytest.raises(ValidationError):
        kind(max_flight_age=value)
