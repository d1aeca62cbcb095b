"""Scenarios that take a whole cache in front of the stores: time, users, a bad disk."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import math
import random
import shutil
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest
from returns.result import Failure, Result, Success

from cachemesh import Cache, CacheScope, Lifetime, NoActiveUser
from cachemesh.core.lifetimes import CLOCK_SKEW_S
from cachemesh.stores.sqlite import SqliteStore
from tests.stores.sqlite_files import Trouble, failure, writing
from tests.stores.test_shared_stores import Heard
from tests.stores.worlds import OnDisk, OnServer

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


def test_sc7_no_user_gets_another_ones_failures_values_or_news(world: World) -> None:
    """Three processes that share a store; whatever is answered or told bears the name of the one it is for."""
    users = [f"user{number}" for number in range(4)]
    processes = [world.new() for _ in range(3)]
    foreign: list[tuple[str, object]] = []
    told = 0

    def noted(user: str, news: Result[Any, Any]) -> None:
        nonlocal told
        told += 1
        text = str(news.failure() if isinstance(news, Failure) else news.unwrap())
        if user not in text and "CacheMiss" not in repr(news):
            foreign.append((user, news))

    subscriptions = [
        process.call_in_loop(process.user(user).cache.watch(key, scope=USER).subscribe, partial(noted, user))
        for process, user, key in itertools.product(processes, users, "ab")
    ]
    rng = random.Random(7)
    failed = 0
    for _ in range(120):
        process, user, key = rng.choice(processes), rng.choice(users), rng.choice("ab")
        asker = process.user(user)
        match rng.randrange(6):
            case 0:
                asker.cache.invalidate(key, scope=USER)
                process.flush()
            case 1:
                asker.cache.put(key, f"{user}'s, by hand", scope=USER, ttl=60)
            case 2 | 3:
                got = asker.get(key, Failure(f"{user} may not"), scope=USER, cache_failures=True, ttl=60)
                failed += isinstance(got, Failure)
                noted(user, got)
            case _:
                noted(user, asker.get(key, Success(f"{user}'s"), scope=USER, ttl=60))
    for process in processes:
        process.flush()
    for subscription in subscriptions:
        subscription.cancel()
    assert foreign == []
    assert failed > 3
    assert told > 120


def test_sc7_a_failure_in_the_store_is_answered_to_its_user_alone(world: World) -> None:
    alice = world.new().user("alice")
    assert alice.get("me", Failure("alice may not"), scope=USER, cache_failures=True, ttl=60) == Failure(
        "alice may not"
    )
    alice.flush()
    another = world.new()
    assert another.user("alice").get("me", Success("asked"), scope=USER) == Failure("alice may not")
    assert another.user("bob").get("me", Success("bob's"), scope=USER) == Success("bob's")
    assert another.get("me", Success("everyone's")) == Success("everyone's")
    assert another.get("me", Success("nobody's"), scope=USER).failure() == NoActiveUser("me")


# A bad disk


def broken(path: Path, kind: str, trouble: Trouble) -> None:
    """Take away what the file needs, while it is in use."""
    if kind == "read-only":
        trouble.raises = lambda statement: failure("SQLITE_READONLY") if writing(statement) else None
    elif kind == "i/o":
        trouble.raises = lambda statement: failure("SQLITE_IOERR")  # noqa: ARG005 (all fail)
    elif kind == "folder removed":
        shutil.rmtree(path.parent)
        path.parent.write_text("in the way")
    else:
        path.unlink()
        path.write_bytes(b"something else" * 500)


@pytest.mark.parametrize("kind", ["read-only", "i/o", "folder removed", "file replaced"])
def test_st13_memory_serves_on_and_one_line_a_minute_is_logged(
    face_name: str, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cachemesh")
    path = tmp_path / "folder" / "cache.db"
    world, trouble, heard = OnDisk(face_name, path), Trouble(), Heard()
    try:
        one = world.new(store=world.store(connect=trouble.connect), logger=heard)
        for number in range(20):
            one.get(f"k{number}", Success(number), ttl=60)
        assert one.flush() == Success(None)
        broken(path, kind, trouble)
        for turn in range(5):
            for number in range(20):
                assert one.get(f"k{number}", ASKED) == Success(number)
                key = f"new{turn}-{number}"
                assert one.get(key, Success(key), ttl=60) == Success(key)
                assert one.get(key, ASKED) == Success(key)
        one.flush()
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == len(set(lines)) <= 2, lines
        assert len(heard.errors) <= 3
    finally:
        world.close()


def test_st13_a_file_that_never_could_be_opened_costs_nothing_but_its_help(
    face_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    world, heard = OnDisk(face_name, tmp_path / "file" / "cache.db"), Heard()
    try:
        one = world.new(logger=heard)
        for number in range(100):
            assert one.get(f"k{number}", Success(number), ttl=60) == Success(number)
            assert one.get(f"k{number}", ASKED) == Success(number)
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == len(set(lines)) == 2, lines  # That it cannot be opened, and that nothing can be written.
        assert len(heard.errors) <= 3
    finally:
        world.close()


def test_st14_the_event_loop_does_not_wait_for_a_disk_that_stalls(tmp_path: Path) -> None:
    """Each call of SQLite takes 200 ms; the loop of a cache that is asked all the time lags by less than 10."""
    trouble = Trouble()
    lags: list[float] = []

    async def beat() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append(time.perf_counter() - began - 0.001)

    async def fetch() -> Result[str, str]:
        return Success("fetched")

    async def main() -> None:
        cache = Cache(store=SqliteStore(tmp_path / "cache.db", connect=trouble.connect))
        await cache.get("k", fetch, ttl=60)
        await cache.flush()
        trouble.stall_s = 0.2
        heart = asyncio.ensure_future(beat())
        ends_at = time.perf_counter() + 2.0
        number = 0
        while time.perf_counter() < ends_at:
            answers = await asyncio.gather(*(cache.get(f"k{number + each}", fetch, ttl=60) for each in range(5)))
            assert set(answers) == {Success("fetched")}
            assert await cache.get("k", fetch) == Success("fetched")
            cache.invalidate(f"k{number}")
            number += 5
        heart.cancel()
        trouble.stall_s = 0.0
        await cache.aclose()

    asyncio.run(main())
    lags.sort()
    assert len(lags) > 300
    assert lags[int(len(lags) * 0.99)] < 0.01, lags[-20:]
