"""The fleet at full size: eight real processes, 200 users, 100,000 requests, and a server that dies: `make soak`."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from cachemesh.shell import health
from tests.stores.fleet import (
    Fleet,
    assert_kept_apart,
    assert_none_too_old,
    figures,
    next_leader_after_a_kill,
    one_fetch_a_generation,
    one_fetch_a_round,
    while_they_ask,
)
from tests.stores.fleet_children import MEMORY_CAP_S
from tests.stores.servers import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROCESSES = 8
REQUESTS = 100_000
RESTARTS = 12

UNTOLD_S = health.LONGEST_REST_S + 2 * health.TIMEOUT_S
"""For so long a process that has been refused by the server may keep an invalidation to itself."""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(PROCESSES, tmp_path) as fleet:
        yield fleet


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "cache.db")
        return
    with Server() as server:
        yield server.url


def test_sc5_rd1_a_hundred_thousand_requests_while_all_is_well(fleet: Fleet) -> None:
    with Server() as server:
        seen = fleet.all("mix", store=server.url, requests=REQUESTS // PROCESSES)
    print(figures(seen))  # noqa: T201 (the figures are what it is run for)
    assert_kept_apart(seen)
    assert_none_too_old(seen)


@pytest.mark.parametrize("keeps", ["no", "yes"], ids=["forgetful", "durable"])
def test_sc5_rd2_a_hundred_thousand_requests_while_the_server_is_killed_again_and_again(
    fleet: Fleet, keeps: str
) -> None:
    """It comes back empty, or with what it had."""
    chance = random.Random(0)

    with Server(appendonly=keeps, appendfsync="always") as server:

        def restart() -> None:
            server.kill()
            time.sleep(chance.uniform(0.0, 1.5))
            server.start()

        fleet.begin("mix", store=server.url, requests=REQUESTS // PROCESSES, seed=1)
        while_they_ask(fleet, REQUESTS, restart, RESTARTS)
        seen = fleet.answers()
    print(figures(seen))  # noqa: T201 (as above)
    assert_kept_apart(seen)
    assert_none_too_old(seen, MEMORY_CAP_S + UNTOLD_S)


def test_sf14_one_fetch_a_key_while_healthy(fleet: Fleet) -> None:
    with Server() as server:
        one_fetch_a_generation(fleet, server.url, rounds=60, keys=40)


def test_sf14_two_hundred_rounds(fleet: Fleet, store: str) -> None:
    one_fetch_a_round(fleet, store, rounds=200)


def test_sf14_no_key_is_stuck_whoever_is_killed(fleet: Fleet, store: str) -> None:
    for number in range(40):
        next_leader_after_a_kill(fleet, store, PROCESSES + number)


def test_sc5_two_hundred_users_with_a_thousand_requests_each(fleet: Fleet, store: str) -> None:
    seen = fleet.all("serve", store=store, requests=1_000 // PROCESSES)
    print(figures(seen))  # noqa: T201 (as above)
    assert_kept_apart(seen)
