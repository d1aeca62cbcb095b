"""Scenarios that take a whole cache in front of the stores: time, users, a bad disk. Those of the news are elsewhere."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
from returns.result import Failure, Success

from cachemesh import CacheScope, Lifetime
from cachemesh.core.lifetimes import CLOCK_SKEW_S
from tests.stores.worlds import OnServer

if TYPE_CHECKING:
    from pathlib import Path

    from cachemesh.core.scopes import Owner
    from tests.stores.worlds import World

USER: Final = CacheScope.USER
ALICE: Final[Owner] = (USER, "alice")
BOB: Final[Owner] = (USER, "bob")
THEN: Final = 1_767_225_600.0
HOUR: Final = 3_600.0
YEAR: Final = 365.25 * 24 * HOUR
ASKED: Final = Failure("asked")


class Hands:
    """A clock that can be set: forward and back."""

    def __init__(self, now: float = THEN) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


# Time


@pytest.mark.parametrize("ttl", [60.0, 0.1, 1e-3])
def test_tt1_memory_and_stores_agree_on_the_boundary(world: World, ttl: float) -> None:
    """Fresh before `created + ttl`, stale from exactly there on, in whatever tier it is found."""
    hands = Hands()
    one = world.new(clock=hands)
    assert one.get("k", Success("old"), ttl=ttl) == Success("old")
    one.flush()
    ends_at = THEN + ttl
    for instant, is_fresh in (
        (THEN, True),
        (ends_at - 1e-3 if ttl > 1e-3 else THEN, True),
        (math.nextafter(ends_at, 0.0), True),
        (ends_at, False),
        (math.nextafter(ends_at, math.inf), False),
        (ends_at + 1e-3, False),
    ):
        hands.now = instant
        expected = Success("old") if is_fresh else ASKED
        later = world.new(clock=Hands(instant))
        assert (one.get("k", ASKED), later.get("k", ASKED)) == (expected, expected), instant - ends_at


def test_tt1_memory_and_stores_agree_on_the_end_of_the_windows(world: World) -> None:
    hands = Hands()
    one = world.new(clock=hands)
    one.get("k", Success("old"), ttl=Lifetime(ttl=10, stale_if_error_for=20))
    one.flush()
    for instant, expected in (
        (THEN + 30 - 1e-3, Success("old")),
        (THEN + 30, ASKED),
        (THEN + 30 + 1e-3, ASKED),
    ):
        hands.now = instant
        later = world.new(clock=Hands(instant))
        assert (one.get("k", ASKED), later.get("k", ASKED)) == (expected, expected)


@pytest.mark.parametrize("back_s", [CLOCK_SKEW_S / 2, CLOCK_SKEW_S, CLOCK_SKEW_S + 1e-3, HOUR, YEAR, THEN])
def test_tt3_what_was_stored_in_the_future_is_stale_and_not_immortal(world: World, back_s: float) -> None:
    before = world.new(clock=Hands())
    before.get("k", Success("future"), ttl=10 * YEAR)
    before.flush()
    before.close()

    hands = Hands(THEN - back_s)
    after = world.new(clock=hands)
    is_forgiven = back_s <= CLOCK_SKEW_S
    assert after.get("k", Success("now"), ttl=60) == Success("future" if is_forgiven else "now")
    age = after.cache.inspect("k").age
    assert 0.0 <= age.total_seconds() < 1.0
    if not is_forgiven:
        # What is fetched takes its place, and lives for as long as it is to.
        after.flush()
        assert world.new(clock=hands).get("k", ASKED) == Success("now")
        assert world.new(clock=Hands(hands.now + 60)).get("k", ASKED) == ASKED


@pytest.mark.parametrize("forward_s", [60.0, HOUR, YEAR])
def test_tt3_a_clock_that_goes_forward_makes_old_what_is_old_by_it(world: World, forward_s: float) -> None:
    before = world.new(clock=Hands())
    before.get("k", Success("old"), ttl=60)
    before.get("for ever", Success("old"), ttl=None)
    before.flush()
    before.close()
    after = world.new(clock=Hands(THEN + forward_s))
    assert after.get("k", ASKED) == ASKED
    assert after.get("for ever", ASKED) == Success("old")


def test_tt3_a_clock_that_goes_back_under_a_running_cache(world: World) -> None:
    """No age is negative, and what is past its end by the clock is not served, wherever it lies."""
    hands = Hands()
    one = world.new(clock=hands)
    one.get("k", Success(THEN), ttl=60)
    for change in (-30.0, 30.0, -HOUR, -30.0, 90.0, -YEAR, 0.0, YEAR, 0.0):
        now = hands.now = THEN + change
        for asker in (one, world.new(clock=hands)):
            stored_at = asker.get("k", Success(now), ttl=60).unwrap()
            assert now < stored_at + 60
            state = asker.cache.inspect("k")
            assert state.age.total_seconds() == max(0.0, now - stored_at)
            asker.flush()


def machine(world: World, program: list[list[Any]], *, monotonic: float, ahead: float = 0.0) -> list[list[Any]]:
    """What a process on a machine with these clocks answers."""
    where = world.server.url if isinstance(world, OnServer) else str(world.path)  # type: ignore[attr-defined]
    done = subprocess.run(  # noqa: S603 (our own program)
        [sys.executable, "-m", "tests.stores.time_children", where, str(monotonic), str(ahead)],
        input="".join(json.dumps(step) + "\n" for step in program),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("face_name", ["sync"], indirect=False)
def test_tt4_after_a_reboot_what_is_stored_is_judged_by_the_wall_clock(world: World) -> None:
    """The monotonic clock begins anew; the one before showed 40 days, or less than now."""
    get = [["get", "short", "new", 60], ["get", "long", "new", 7_200]]
    assert [got for got, _, _ in machine(world, get, monotonic=40 * 24 * HOUR)] == ["new", "new"]

    rebooted = machine(world, [["get", "short", "newer", 60], ["get", "long", "newer", 7_200]], monotonic=5, ahead=HOUR)
    assert [got for got, _, _ in rebooted] == ["newer", "new"]
    assert [is_fresh for _, _, is_fresh in rebooted] == [True, True]
    ages = [age for _, age, _ in rebooted]
    assert 0.0 <= ages[0] < 5.0
    assert HOUR <= ages[1] < HOUR + 60.0

    up_for_long = machine(world, [["get", "long", "newest", 60]], monotonic=400 * 24 * HOUR, ahead=2.01 * HOUR)
    assert [got for got, _, _ in up_for_long] == ["newest"]


@pytest.mark.parametrize("face_name", ["sync"], indirect=False)
def test_tt4_a_machine_that_slept_dates_nothing_into_the_future(world: World) -> None:
    """Its clock stood still: what it stores is older than it thinks, what others have stored is younger."""
    slept = machine(world, [["get", "a", "before", 60], ["wait", HOUR], ["get", "b", "after", 60]], monotonic=1_000)
    assert [got for got, _, _ in slept] == ["before", "after"]

    awake = machine(world, [["get", "a", "now", 60], ["get", "b", "now", 60]], monotonic=1_000, ahead=HOUR)
    assert [(got, is_fresh) for got, _, is_fresh in awake] == [("now", True), ("now", True)]
    again = machine(world, [["get", "a", "then", 60], ["get", "b", "then", 60]], monotonic=9, ahead=HOUR + 1)
    assert [(got, is_fresh) for got, _, is_fresh in again] == [("now", True), ("now", True)]
    assert all(0.0 <= age < 60.0 for _, age, _ in (*slept, *awake, *again))


# Users


def test_sc10_what_was_swapped_by_hand_is_a_miss_for_both_and_told(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    one = world.new()
    for user in ("alice", "bob"):
        assert one.user(user).get("me", Success(f"{user}'s"), scope=USER, ttl=60) == Success(f"{user}'s")
    one.flush()
    assert world.new().user("bob").get("me", ASKED, scope=USER) == Success("bob's")
    world.swap(ALICE, BOB, "me")

    with caplog.at_level(logging.WARNING):
        another = world.new()
        for user in ("alice", "bob"):
            asker = another.user(user)
            assert asker.get("me", ASKED, scope=USER) == ASKED
            assert asker.get("me", Success(f"{user}'s again"), scope=USER, ttl=60) == Success(f"{user}'s again")
            another.flush()
            assert world.new().user(user).get("me", ASKED, scope=USER) == Success(f"{user}'s again")
    assert "of another key or owner" in caplog.text
    assert "alice" not in caplog.text
    assert "'s" not in caplog.text
