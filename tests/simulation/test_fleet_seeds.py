"""Five hundred seeds of a fleet with every fault, and nothing wrong. `make soak` has twenty times as many."""

from __future__ import annotations

import pytest

from cachemesh.simulation.fleet import assert_sound, run_fleet

SEEDS = 500


@pytest.mark.parametrize("part", range(5))
def test_fleet_five_hundred_seeds_with_every_fault_and_nothing_wrong(part: int) -> None:
    for seed in range(part, SEEDS, 5):
        assert_sound(run_fleet(seed))
