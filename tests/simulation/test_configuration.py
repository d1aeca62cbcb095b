"""Configurations from what people write, their grid, and what they are called."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cachemesh import CachePolicy, Lifetime
from cachemesh.core.lifetimes import LONGEST_TTL_S
from cachemesh.core.model import Lifespan
from cachemesh.core.retry import Retry
from cachemesh.shell.durations import duration_s
from cachemesh.simulation import Configuration, Eviction, grid
from cachemesh.simulation.configuration import shown_duration


def test_a_lifetime_is_taken_where_a_ttl_is() -> None:
    lifetime = Lifetime(ttl="5m", serve_stale_for="1h", failure_ttl=3)

    made = Configuration.of("stale-while-revalidate", lifetime)

    assert made == Configuration(CachePolicy.STALE_WHILE_REVALIDATE, 300.0, lifetime.lifespan)
    assert made == Configuration.of("stale_while_revalidate", "5m", windows=lifetime)
    assert made.remembers_failures
    assert not Configuration.of(ttl=5).remembers_failures
    assert Configuration.of(ttl=5, failure_ttl="1s").remembers_failures


@pytest.mark.parametrize(
    ("configuration", "name"),
    [
        (Configuration(), "cache_first, ttl none"),
        (Configuration(CachePolicy.STALE_WHILE_REVALIDATE, 60.0), "stale_while_revalidate, ttl 1m, stale for ever"),
        (
            Configuration.of(
                "cache_first",
                Lifetime(
                    ttl=60, serve_stale_for=5, stale_if_error_for=90, refresh_ahead=0.8, jitter=0.1, failure_ttl=2
                ),
            ),
            "cache_first, ttl 1m, stale 5s, stale if error 90s, refresh ahead at 80%, jitter 10%, failures 2s",
        ),
        (
            Configuration.of("cache_first", Lifetime(ttl=60, serve_stale_for=LONGEST_TTL_S, jitter=0.005)),
            "cache_first, ttl 1m, stale for ever, jitter 0.5%",
        ),
        (
            Configuration(capacity=10, eviction=Eviction.LRU, retry=Retry(3), failure_ttl_s=0.5),
            "cache_first, ttl none, failures 500ms, 3 attempts, 10 entries (lru)",
        ),
    ],
)
def test_a_name_says_what_is_special(configuration: Configuration, name: str) -> None:
    assert configuration.name == name


def test_a_grid_has_every_combination_once_and_names_that_differ() -> None:
    base = Configuration(retry=Retry(2), failure_ttl_s=1.0)
    made = list(
        grid(
            ["cache_first", CachePolicy.NETWORK_FIRST],
            [30, "5m", None],
            [None, Lifespan(serve_stale_s=10.0)],
            [None, 100, 1_000],
            ["s3fifo", "lru", "sieve"],
            base=base,
        )
    )

    assert len(made) == 2 * 3 * 2 * (1 + 2 * 3)
    assert len({each.name for each in made}) == len(made)
    assert all((each.retry, each.failure_ttl_s) == (Retry(2), 1.0) for each in made)


def test_it_can_be_written_down_and_read_again() -> None:
    made = Configuration.of("network_first", Lifetime(ttl=9, jitter=0.5), capacity=5, eviction="sieve")

    assert msgspec.json.decode(msgspec.json.encode(made), type=Configuration) == made


@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": "cache_sometimes"},
        {"ttl": -1},
        {"ttl": "soon"},
        {"capacity": 0},
        {"eviction": "random"},
        {"failure_ttl": -1},
        {"ttl": Lifetime(ttl=5, failure_ttl=lambda error: error)},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"policy|duration|capacity|Eviction") as refused:
        Configuration.of(**wrong)
    assert not isinstance(refused.value, ValidationError)


@given(st.floats(0.001, 1e7) | st.integers(0, 10**7).map(float))
def test_a_duration_reads_as_what_it_is(seconds: float) -> None:
    shown = shown_duration(seconds)

    if "e" not in shown:
        assert duration_s(shown) == pytest.approx(seconds, rel=1e-5)
