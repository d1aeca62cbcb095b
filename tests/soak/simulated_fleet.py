"""The simulated fleet at length: ten thousand seeds, and each safety rule taken away until it is missed: `make soak`.

`CACHEMESH_SEEDS=100` makes it shorter.
"""

from __future__ import annotations

import os
from typing import Final

import pytest

from cachemesh.simulation.fleet import HEALTHY, Faults, assert_sound, run_fleet
from tests.simulation.broken import RULES, first_violation
from tests.stores.test_scenarios_news import SWIZZLED

SEEDS: Final = int(os.environ.get("CACHEMESH_SEEDS", "10000"))


def test_fleet_ten_thousand_seeds_with_every_fault_and_nothing_wrong() -> None:
    for seed in range(SEEDS):
        assert_sound(run_fleet(seed))


def test_fleet_two_thousand_healthy_seeds() -> None:
    for seed in range(SEEDS // 5):
        assert_sound(run_fleet(seed, faults=HEALTHY, ttl_s=3600.0))


def test_rd4_two_thousand_seeds_of_a_worse_network() -> None:
    faults = Faults(longest_delay_s=0.2, lost=0.1, doubled=0.2, skew=20.0)
    for seed in range(SEEDS // 5):
        assert_sound(run_fleet(seed, faults=faults))


def test_rd12_two_thousand_seeds_of_five_nodes_that_are_cut_off_one_by_one() -> None:
    for seed in range(SEEDS // 5):
        assert_sound(run_fleet(seed, nodes=5, steps=80, faults=SWIZZLED))


@pytest.mark.parametrize("rule", RULES)
def test_fleet_finds_what_is_wrong_without_a_rule(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = first_violation(rule, monkeypatch, range(SEEDS))
    assert found is not None
    assert found.violations[0].rule in RULES[rule].broken


def test_fleet_of_a_thousand_nodes() -> None:
    for seed in range(5):
        assert_sound(run_fleet(seed, nodes=1_000, steps=200))
