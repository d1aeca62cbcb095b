"""What the simulator says of loads whose outcome is known beforehand."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from itertools import count
from random import Random
from typing import TYPE_CHECKING

import msgspec
import pytest

from cachemesh import CachePolicy, Lifetime
from cachemesh.core.policies import BUILT_IN
from cachemesh.simulation import (
    Configuration,
    Constant,
    Eviction,
    LogNormal,
    OriginModel,
    Outcome,
    OutOfOrder,
    Request,
    simulate,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

AT_ONCE = OriginModel(Constant(0.0))


def poisson(seed: int, rates: Sequence[float], requests: int) -> Iterator[Request]:
    """Requests for each of some keys at its own rate, at random."""
    random = Random(seed)
    keys = [f"item:{number}" for number in range(len(rates))]
    at = 0.0
    for key in random.choices(keys, rates, k=requests):
        at += random.expovariate(sum(rates))
        yield Request(at, key)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(("rate", "ttl_s"), [(0.2, 1.0), (1.0, 2.0), (5.0, 3.0), (0.01, 60.0)])
def test_poisson_arrivals_hit_as_often_as_renewal_theory_says(seed: int, rate: float, ttl_s: float) -> None:
    """One in 1 + rate * ttl is a miss: that which begins the life of an entry."""
    outcome = simulate(poisson(seed, [rate], 150_000), AT_ONCE, Configuration(ttl_s=ttl_s))

    assert outcome.hit_ratio == pytest.approx(rate * ttl_s / (1 + rate * ttl_s), rel=0.01)
    assert outcome.hits + outcome.origin_requests == outcome.requests == 150_000


@pytest.mark.parametrize("jitter", [0.2, 1.0])
def test_a_jitter_takes_half_of_its_share_of_each_ttl_on_the_average(jitter: float) -> None:
    """How long each entry lives does not matter to renewal theory, but how long they live on the average."""
    configuration = Configuration.of("cache_first", Lifetime(ttl=4.0, jitter=jitter))

    outcome = simulate(poisson(5, [2.0], 80_000), AT_ONCE, configuration, seed=3)

    lives_s = 4.0 * (1.0 - jitter / 2)
    assert outcome.hit_ratio == pytest.approx(2.0 * lives_s / (1 + 2.0 * lives_s), rel=0.01)
    assert outcome == simulate(poisson(5, [2.0], 80_000), AT_ONCE, configuration, seed=3)
    assert outcome != simulate(poisson(5, [2.0], 80_000), AT_ONCE, configuration, seed=4)


def test_many_keys_hit_as_often_as_each_of_them_would() -> None:
    rates, ttl_s = [1 / rank for rank in range(1, 101)], 20.0
    expected = sum(rate * rate * ttl_s / (1 + rate * ttl_s) for rate in rates) / sum(rates)

    outcome = simulate(poisson(3, rates, 200_000), AT_ONCE, Configuration(ttl_s=ttl_s))

    assert outcome.hit_ratio == pytest.approx(expected, rel=0.01)


def test_staleness_is_that_of_values_that_change_at_random() -> None:
    """An entry that never expires, of a value that changes: how long ago it did is known for every answer."""
    every_s, load = 50.0, [Request(number / 10, "feed") for number in range(200_000)]
    model = OriginModel(Constant(0.0), change_every_s=every_s)
    changes_at = model.started(9).changes_at("feed", 0.0)

    outcome = simulate(load, model, Configuration(), seed=9)

    assert outcome.outdated == sum(request.at > changes_at for request in load)
    assert outcome.staleness.most == pytest.approx(load[-1].at - changes_at)
    assert outcome.ages.most == load[-1].at


def test_of_values_that_change_at_random_those_of_an_age_are_outdated_by_its_exponential() -> None:
    load = poisson(4, [1.0] * 200, 200_000)

    outcome = simulate(load, OriginModel(Constant(0.0), change_every_s=30.0), Configuration(ttl_s=3.0))

    # Ages are spread evenly over the ttl, and 1 in 4 answers has just come: mean of 1 - exp(-age / 30).
    outdated = 1 - 30.0 / 3.0 * (1 - 2.718281828 ** (-3.0 / 30.0))
    assert outcome.outdated / outcome.hits == pytest.approx(outdated, rel=0.03)


def test_who_asks_while_a_fetch_is_under_way_waits_for_the_rest_of_it() -> None:
    load = [Request(0.0, "feed"), Request(0.25, "feed"), Request(1.0, "feed"), Request(1.5, "feed")]

    outcome = simulate(load, OriginModel(Constant(1.0)), Configuration(ttl_s=60.0))

    assert outcome.origin_requests == 1
    assert outcome.hits == 2, "a fetch that ends at the instant of a request ends first"
    assert outcome.waits.most == 1.0
    assert outcome.waits.mean == (1.0 + 0.75) / 4
    assert outcome.duration_s == 1.5


def test_an_outage_is_seen_by_callers_and_bridged_by_a_window() -> None:
    load = [Request(float(second), "feed") for second in range(100)]
    model = OriginModel(Constant(0.5), outages=((50.0, 80.0),))

    bare = simulate(load, model, Configuration.of(ttl=10))
    bridged = simulate(load, model, Configuration.of(ttl=Lifetime(ttl=10, stale_if_error_for=60, refresh_backoff=5)))

    assert bare.failures > 20
    assert bridged.failures == 0
    assert bridged.stood_in > 0
    assert 10 <= bridged.ages.most <= 70
    assert bridged.stale > 20
    assert bridged.origin_failures < bare.origin_failures


def test_a_failure_that_is_remembered_spares_the_origin() -> None:
    load = [Request(number / 10, "feed") for number in range(100)]
    down = OriginModel(Constant(0.01), failure_rate=1.0)

    eager = simulate(load, down, Configuration(ttl_s=60.0))
    patient = simulate(load, down, Configuration(ttl_s=60.0, failure_ttl_s=5.0))

    assert (eager.failures, eager.origin_requests) == (100, 100)
    assert (patient.failures, patient.origin_requests) == (100, 2)


def test_a_rate_limit_refuses_what_is_too_much() -> None:
    load = [Request(number / 100, f"item:{number}") for number in range(1_000)]

    outcome = simulate(load, OriginModel(Constant(0.0), rate_limit=20.0), Configuration())

    assert outcome.origin_failures == outcome.failures == pytest.approx(1_000 - 20 - 20 * 10, abs=2)
    assert outcome.peak_rate == 100


def test_each_user_has_entries_of_its_own() -> None:
    load = [Request(float(number), "me", f"user:{number % 4}") for number in range(40)]

    outcome = simulate(load, AT_ONCE, Configuration(ttl_s=1_000.0))

    assert (outcome.origin_requests, outcome.hits, outcome.most_entries) == (4, 36, 4)


@pytest.mark.parametrize("eviction", Eviction)
def test_sizes_are_those_of_what_is_held(eviction: Eviction) -> None:
    random = Random(6)
    sizes = {f"item:{number}": random.randrange(1, 100) for number in range(50)}
    load = [Request(at / 10, key, size=sizes[key]) for at, key in enumerate(random.choices(list(sizes), k=3_000))]

    bounded = simulate(load, AT_ONCE, Configuration(ttl_s=20.0, capacity=10, eviction=eviction))
    unbounded = simulate(load, AT_ONCE, Configuration(ttl_s=20.0))

    assert unbounded.most_size == sum(sizes.values())
    assert unbounded.most_entries == 50
    assert unbounded.evictions == 0
    assert bounded.most_entries == 10
    assert bounded.evictions > 0
    assert 10 <= bounded.most_size <= sum(sorted(sizes.values())[-10:])


def test_a_value_that_grows_is_counted_at_its_new_size() -> None:
    load = [Request(0.0, "feed", size=5), Request(2.0, "feed", size=9), Request(4.0, "feed")]

    assert simulate(load, AT_ONCE, Configuration(ttl_s=1.0)).most_size == 9


@pytest.mark.parametrize("policy", BUILT_IN, ids=lambda policy: policy.name)
def test_every_request_has_one_ending(policy: CachePolicy) -> None:
    model = OriginModel(LogNormal(0.2, 3.0), failure_rate=0.2, change_every_s=5.0)

    outcome = simulate(poisson(8, [2.0] * 5, 5_000), model, Configuration.of(policy, Lifetime(ttl=2, jitter=0.5)))

    fetched = outcome.requests - outcome.hits - outcome.stood_in - outcome.failures
    assert outcome.requests == 5_000
    assert 0 <= fetched <= 5_000
    assert outcome.stale <= outcome.hits + outcome.stood_in
    assert outcome.outdated <= outcome.hits + outcome.stood_in + fetched
    assert outcome.waits.p50 <= outcome.waits.p95 <= outcome.waits.p99 <= outcome.waits.most


def test_what_happens_in_the_warm_up_is_not_counted() -> None:
    """The entries that it brought are there, and its failures are forgotten."""
    load = [Request(100.0 + number, f"item:{number % 10}") for number in range(60)]
    model = OriginModel(Constant(0.1), outages=((0.0, 5.0),))

    outcome = simulate(load, model, Configuration(), warm_up_s=20.0)

    assert (outcome.requests, outcome.hits, outcome.origin_requests) == (40, 40, 0)
    assert (outcome.failures, outcome.most_entries, outcome.most_size) == (0, 10, 10)
    assert outcome.duration_s == 39.0
    assert outcome.waits.most == 0.0


def test_who_has_asked_in_the_warm_up_is_not_counted_when_answered_after_it() -> None:
    load = [Request(0.0, "feed"), Request(1.5, "feed"), Request(3.5, "feed")]

    outcome = simulate(load, OriginModel(Constant(3.0)), Configuration(), warm_up_s=1.0)

    assert (outcome.requests, outcome.hits, outcome.waits.most, outcome.waits.mean) == (2, 1, 1.5, 0.75)


def test_a_load_without_requests_has_an_empty_outcome() -> None:
    empty = Outcome(configuration=Configuration())

    assert simulate([], AT_ONCE, Configuration()) == empty
    assert simulate([Request(0.0, "feed")], AT_ONCE, Configuration(), warm_up_s=1.0) == empty
    assert empty.hit_ratio == empty.stale_share == empty.failure_share == empty.origin_rate == 0.0


@pytest.mark.parametrize("late", [0.5, float("nan")])
@pytest.mark.parametrize("warm_up_s", [0.0, 1.5])
def test_times_that_go_backwards_are_named(late: float, warm_up_s: float) -> None:
    load = [Request(0.0, "a"), Request(1.0, "b"), Request(2.0, "b"), Request(late, "c")]

    with pytest.raises(OutOfOrder, match=f"request 4 is at {late}, and the one before it at 2.0"):
        simulate(load, AT_ONCE, Configuration(), warm_up_s=warm_up_s)


SCRIPT = """
import sys
import msgspec
from random import Random
from cachemesh import Lifetime
from cachemesh.simulation import *
random, at, load = Random(1), 0.0, []
for number in range(20_000):
    at += random.expovariate(50)
    load.append(Request(at, f"item:{int(random.paretovariate(0.6)) % 2_000}"))
origin = OriginModel(LogNormal(0.05, 0.9), failure_rate=0.1, change_every_s=9.0)
lifetime = Lifetime(ttl=20, serve_stale_for=5, jitter=0.3)
for each in grid(["cache_first"], [20], [lifetime], [100], ["s3fifo", "lru", "sieve"]):
    sys.stdout.buffer.write(msgspec.json.encode(simulate(load, origin, each, seed=4)) + b"\\n")
"""


def test_the_same_arguments_give_the_same_outcome_bit_for_bit_in_every_process() -> None:
    said = {
        subprocess.run(  # noqa: S603 (this very Python, with a script of our own)
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert len(said) == 1
    lines = said.pop().splitlines()
    outcomes = [msgspec.json.decode(line, type=Outcome) for line in lines]
    assert len({outcome.hits for outcome in outcomes}) == 3, "three orders of eviction"


def test_another_seed_is_another_world() -> None:
    load = list(poisson(2, [5.0], 2_000))
    model = OriginModel(LogNormal(0.1, 1.0), failure_rate=0.3)

    assert simulate(load, model, Configuration(ttl_s=1.0), 1) == simulate(load, model, Configuration(ttl_s=1.0), 1)
    assert simulate(load, model, Configuration(ttl_s=1.0), 1) != simulate(load, model, Configuration(ttl_s=1.0), 2)


def test_memory_does_not_grow_with_the_number_of_requests() -> None:
    def held_at_most(requests: int) -> int:
        ticks = count()
        load = (Request(next(ticks) / 100, f"item:{number % 100}") for number in range(requests))
        tracemalloc.start()
        simulate(load, OriginModel(change_every_s=3.0), Configuration(ttl_s=2.0, capacity=50))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    held_at_most(500)  # What is imported and cached once.
    assert held_at_most(14_000) < 1.2 * held_at_most(9_000)  # Both are more than two pieces of what is read ahead.
