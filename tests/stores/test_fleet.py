"""Eight real processes with a cache each over one store: whose values are seen, how old, and who fetches them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.stores.fleet import (
    Fleet,
    assert_kept_apart,
    assert_none_too_old,
    next_leader_after_a_kill,
    one_fetch_a_generation,
    one_fetch_a_round,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.stores.servers import Server

PROCESSES = 8


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(PROCESSES, tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where their store is."""
    if request.param == "sqlite":
        return str(tmp_path / "cache.db")
    server: Server = request.getfixturevalue("server")
    return server.url


def test_sc5_rd1_a_fleet_that_does_everything_sees_no_foreign_value_and_no_old_one(
    fleet: Fleet, server: Server
) -> None:
    """2,400 requests here; 100,000 in the soak, and the server is killed meanwhile."""
    fleet.origin.forget()
    seen = fleet.all("mix", store=server.url, requests=300)
    assert_kept_apart(seen)
    assert_none_too_old(seen)


def test_sf14_a_fleet_fetches_each_key_once_a_generation(fleet: Fleet, server: Server) -> None:
    """3 generations of 20 keys here, 60 of 40 in the soak."""
    one_fetch_a_generation(fleet, server.url, rounds=3, keys=20)


def test_sf14_of_eight_processes_that_ask_at_once_one_fetches(fleet: Fleet, store: str) -> None:
    """5 rounds here, 200 in the soak."""
    one_fetch_a_round(fleet, store, rounds=5)


@pytest.mark.parametrize("holder", [PROCESSES, PROCESSES + 1], ids=["async", "sync"])
def test_sf14_a_leader_that_is_killed_keeps_nobody_longer_than_its_lease_and_a_second(
    fleet: Fleet, store: str, holder: int
) -> None:
    next_leader_after_a_kill(fleet, store, holder)


def test_sc5_two_hundred_users_at_once_see_only_what_is_theirs(fleet: Fleet, store: str) -> None:
    """8 processes with a request a user here; in the soak 1,000 requests of each of 200 users."""
    fleet.origin.forget()
    seen = fleet.all("serve", store=store, requests=1)
    assert_kept_apart(seen)
