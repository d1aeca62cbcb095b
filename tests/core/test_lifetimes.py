"""How long things live."""

from __future__ import annotations

from math import inf, nextafter

import pytest
from hypothesis import strategies as st

from cachemesh.core import FetchSucceeded, Freshness, Get, Save, reduce
from cachemesh.core.lifetimes import (
    CLOCK_SKEW_S,
    LONGEST_FAILURE_TTL_S,
    LONGEST_TTL_S,
    REFRESH_BACKOFF_S,
    expiry,
    failure_ttl,
    shorter,
    verdict,
)
from cachemesh.testing.strategies import ttls
from tests.core.rows import entry, flight, law, state


@pytest.mark.parametrize(
    ("now", "freshness"),
    [
        (0.0, Freshness.FRESH),
        (nextafter(60.0, 0.0), Freshness.FRESH),
        (60.0, Freshness.STALE),
        (nextafter(60.0, inf), Freshness.STALE),
        (inf, Freshness.STALE),
        (-5.0, Freshness.FRESH),
    ],
)
def test_an_entry_is_stale_from_exactly_its_expiry_on(now: float, freshness: Freshness) -> None:
    assert verdict(entry(ttl_s=60.0), now) is freshness


def test_no_entry_is_missing() -> None:
    assert verdict(None, 0.0) is Freshness.MISSING


@pytest.mark.parametrize(
    ("created_at", "ttl_s", "expires_at"),
    [(5.0, None, inf), (5.0, 0.0, 5.0), (5.0, 60.0, 65.0), (0.0, LONGEST_TTL_S, LONGEST_TTL_S)],
)
def test_an_entry_expires_a_ttl_after_it_was_made(created_at: float, ttl_s: float | None, expires_at: float) -> None:
    assert expiry(created_at, ttl_s) == expires_at


@pytest.mark.parametrize(
    ("ttl_s", "kept_s"),
    [(None, 60.0), (0.0, 0.0), (59.5, 59.5), (60.0, 60.0), (60.5, 60.0), (3600.0, 60.0)],
)
def test_a_failure_is_kept_for_its_ttl_but_a_minute_at_most(ttl_s: float | None, kept_s: float) -> None:
    assert failure_ttl(ttl_s) == kept_s


@pytest.mark.parametrize(
    ("one", "other", "shortest"),
    [
        (None, None, None),
        (None, 5.0, 5.0),
        (5.0, None, 5.0),
        (5.0, 6.0, 5.0),
        (6.0, 5.0, 5.0),
        (5.0, 5.0, 5.0),
        (0.0, None, 0.0),
    ],
)
def test_the_shorter_of_two_lifetimes(one: float | None, other: float | None, shortest: float | None) -> None:
    assert shorter(one, other) == shortest


@law(ttls(), ttls())
def test_shorter_is_the_minimum_where_none_is_for_ever(one: float | None, other: float | None) -> None:
    least = min(inf if one is None else one, inf if other is None else other)

    assert shorter(one, other) == (None if least == inf else least)


@law(st.floats(0.0, 1e9), st.floats(0.0, LONGEST_TTL_S))
def test_an_answer_is_fresh_until_its_ttl_has_passed(now: float, ttl_s: float) -> None:
    after, (saved, _) = reduce(state(flight(ttl_s=ttl_s)), FetchSucceeded(1, "news", now))

    assert isinstance(saved, Save)
    assert verdict(saved.entry, now + ttl_s) is Freshness.STALE
    assert verdict(saved.entry, nextafter(now + ttl_s, -inf)) is Freshness.FRESH
    assert reduce(after, Get("feed", nextafter(now + ttl_s, -inf), 2))[0] is after


def test_the_bounds_are_what_the_documents_say() -> None:
    assert LONGEST_FAILURE_TTL_S == 60.0
    assert REFRESH_BACKOFF_S == 30.0
    assert CLOCK_SKEW_S == 60.0
    assert LONGEST_TTL_S == 100 * 365.25 * 86_400
