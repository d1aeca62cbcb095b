"""When a failed fetch is tried again."""

from __future__ import annotations

from math import isfinite
from typing import Any

import pytest
from hypothesis import strategies as st

from cachemesh.core import (
    GLOBAL_OWNER,
    NO_RETRY,
    FetchFailed,
    FetchSucceeded,
    ReportFailure,
    Retry,
    RetryDue,
    Settle,
    StartFetch,
    WaitUntil,
)
from cachemesh.core.retry import LONGEST_DELAY_S, delay_before_next_s, more_patient
from tests.core.rows import entry, expect, flight, law, run, state

# The delay


@pytest.mark.parametrize(
    ("retry", "attempt", "chance", "delay_s"),
    [
        (NO_RETRY, 1, 0.5, 0.0),
        (Retry(3, delay_s=2.0), 1, 0.5, 2.0),
        (Retry(3, delay_s=2.0), 9, 0.5, 2.0),
        (Retry(9, delay_s=2.0, backoff_factor=3.0), 1, 0.5, 2.0),
        (Retry(9, delay_s=2.0, backoff_factor=3.0), 2, 0.5, 6.0),
        (Retry(9, delay_s=2.0, backoff_factor=3.0), 4, 0.5, 54.0),
        (Retry(9, delay_s=2.0, backoff_factor=3.0, max_delay_s=18.0), 3, 0.5, 18.0),
        (Retry(9, delay_s=2.0, backoff_factor=3.0, max_delay_s=10.0), 4, 0.5, 10.0),
        (Retry(9, delay_s=2.0, max_delay_s=0.0), 1, 0.5, 0.0),
        (Retry(3, delay_s=8.0, jitter=1.0), 1, 0.0, 0.0),
        (Retry(3, delay_s=8.0, jitter=1.0), 1, 0.5, 4.0),
        (Retry(3, delay_s=8.0, jitter=1.0), 1, 1.0, 8.0),
        (Retry(3, delay_s=8.0, jitter=0.25), 1, 0.0, 6.0),
        (Retry(3, delay_s=8.0, jitter=0.25), 1, 0.5, 7.0),
        (Retry(3, delay_s=8.0, jitter=0.25), 1, 1.0, 8.0),
        (Retry(3, delay_s=8.0, jitter=0.25, max_delay_s=7.0), 1, 0.25, 6.5),
        (Retry(3, delay_s=LONGEST_DELAY_S * 2), 1, 0.5, LONGEST_DELAY_S),
        (Retry(5000, delay_s=0.2, backoff_factor=2.0), 3000, 0.5, LONGEST_DELAY_S),
        (Retry(5000, delay_s=0.2, backoff_factor=2.0, max_delay_s=30.0), 3000, 0.5, 30.0),
        (Retry(5000, delay_s=0.2, backoff_factor=2.0, max_delay_s=30.0, jitter=0.5), 3000, 0.0, 30.0),
        (Retry(5000, delay_s=0.0, backoff_factor=2.0), 3000, 0.5, 0.0),
        (Retry(5000, delay_s=0.2, backoff_factor=0.5), 3000, 0.5, 0.0),
    ],
)
def test_the_delay_grows_is_shaken_and_is_capped(retry: Retry, attempt: int, chance: float, delay_s: float) -> None:
    assert delay_before_next_s(retry, attempt, chance) == pytest.approx(delay_s)


def finite(top: float) -> Any:
    return st.floats(0.0, top, allow_nan=False)


@law(
    st.builds(Retry, st.just(9), finite(1e5), st.floats(1.0, 100.0), st.none() | finite(1e5), finite(1.0)),
    st.integers(1, 9),
    finite(1.0),
)
def test_the_delay_is_never_more_than_its_cap_nor_less_than_its_sure_share(
    retry: Retry, attempt: int, chance: float
) -> None:
    longest = LONGEST_DELAY_S if retry.max_delay_s is None else retry.max_delay_s
    whole = retry.delay_s * retry.backoff_factor ** (attempt - 1)

    delay_s = delay_before_next_s(retry, attempt, chance)

    assert 0.0 <= delay_s <= longest
    assert delay_s <= whole * (1 + 1e-9)
    assert delay_s >= min(whole * (1.0 - retry.jitter), longest) * (1 - 1e-9)


@law(
    st.builds(Retry, st.just(2000), finite(1.0), st.floats(1.0, 1e3), finite(60.0), finite(1.0)),
    st.integers(1, 2000),
    finite(1.0),
)
def test_no_number_of_attempts_overflows(retry: Retry, attempt: int, chance: float) -> None:
    assert retry.max_delay_s is not None
    assert 0.0 <= delay_before_next_s(retry, attempt, chance) <= retry.max_delay_s


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_a_product_that_overflows_is_capped_as_well(jitter: float) -> None:
    delay_s = delay_before_next_s(Retry(9, delay_s=10.0, backoff_factor=1e154, max_delay_s=30.0, jitter=jitter), 3, 1.0)

    assert isfinite(delay_s)
    assert delay_s == 30.0


def test_the_year_is_one_of_365_and_a_quarter_days() -> None:
    assert LONGEST_DELAY_S == 365.25 * 86_400


# Of two callers


@pytest.mark.parametrize(
    ("one", "other", "decides"),
    [
        (Retry(2), Retry(3), Retry(3)),
        (Retry(3), Retry(2), Retry(3)),
        (Retry(2, delay_s=1.0), Retry(2, delay_s=9.0), Retry(2, delay_s=1.0)),
    ],
)
def test_the_more_patient_of_two_callers_decides(one: Retry, other: Retry, decides: Retry) -> None:
    assert more_patient(one, other) == decides


# The flight

TWICE = Retry(2, delay_s=4.0, backoff_factor=3.0, jitter=0.5)
DOWN = ReportFailure(GLOBAL_OWNER, "feed", "down", notify=True)
TOLD = Settle(1, GLOBAL_OWNER, "feed", "down")


def test_a_failed_attempt_waits_for_the_next_one() -> None:
    expect(
        state(flight(retry=TWICE)),
        FetchFailed(1, "down", now=100.0, chance=0.5),
        state(flight(retry=TWICE, attempt=2)),
        WaitUntil(1, GLOBAL_OWNER, "feed", attempt=1, answer="down", due_at=103.0, delay_s=3.0),
    )


def test_a_later_attempt_waits_longer() -> None:
    patient = Retry(3, delay_s=4.0, backoff_factor=3.0)
    expect(
        state(flight(retry=patient, attempt=2)),
        FetchFailed(1, "down", now=100.0),
        state(flight(retry=patient, attempt=3)),
        WaitUntil(1, GLOBAL_OWNER, "feed", attempt=2, answer="down", due_at=112.0, delay_s=12.0),
    )


def test_a_due_retry_fetches_again() -> None:
    before = state(flight(retry=TWICE, attempt=2))
    expect(before, RetryDue(1), before, StartFetch(1, GLOBAL_OWNER, "feed", flight().source, attempt=2))


def test_a_retry_of_a_flight_that_is_gone_is_due_for_nobody() -> None:
    expect(state(), RetryDue(1), state())


def test_a_flight_that_was_struck_off_still_tries_again_for_those_who_wait() -> None:
    before = state(flight(retry=TWICE), struck=[1])
    expect(
        before,
        FetchFailed(1, "down", now=100.0, chance=1.0),
        state(flight(retry=TWICE, attempt=2), struck=[1]),
        WaitUntil(1, GLOBAL_OWNER, "feed", attempt=1, answer="down", due_at=104.0, delay_s=4.0),
    )


@pytest.mark.parametrize(
    ("retry", "attempt", "retryable"),
    [(NO_RETRY, 1, True), (TWICE, 2, True), (TWICE, 1, False), (TWICE, 3, True)],
)
def test_the_last_attempt_fails_the_flight(retry: Retry, attempt: int, retryable: bool) -> None:
    expect(
        state(flight(retry=retry, attempt=attempt)),
        FetchFailed(1, "down", now=100.0, retryable=retryable),
        state(),
        DOWN,
        TOLD,
    )


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_a_flight_is_tried_as_often_as_it_may_be(attempts: int) -> None:
    here, tried = state(flight(retry=Retry(attempts))), 1
    while True:
        here, effects = run(here, FetchFailed(1, "down", now=0.0))
        if not any(isinstance(effect, WaitUntil) for effect in effects):
            break
        here, (started,) = run(here, RetryDue(1))
        tried += 1
        assert isinstance(started, StartFetch)
        assert started.attempt == tried
    assert tried == attempts
    assert here == state()


def test_a_later_attempt_may_succeed() -> None:
    after, effects = run(
        state(flight(retry=TWICE)), FetchFailed(1, "down", 0.0), RetryDue(1), FetchSucceeded(1, "news", 9.0)
    )

    assert after == state(entries={"feed": entry(at=9.0, ttl_s=None)})
    assert [type(effect).__name__ for effect in effects] == ["Save", "Settle"]
