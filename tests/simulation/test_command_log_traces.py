"""cachemesh's own command log as a trace: what a real cache was asked, simulated."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any, Final

import pytest
from click.testing import CliRunner
from returns.result import Failure, Result, Success

from cachemesh import Cache, CachePolicy, CacheScope, Lifetime, MemoryStore
from cachemesh.core.policies import BUILT_IN
from cachemesh.simulation import Configuration, Constant, OriginModel, Recorder, Request, Study, replay, simulate
from cachemesh.simulation.command import simulate as command
from cachemesh.simulation.traces import Reading, TraceError, TraceFormat, Why, read
from cachemesh.testing import VirtualClock, run

if TYPE_CHECKING:
    from pathlib import Path

LATENCY_S: Final = 0.4
OUTAGE: Final = (20.0, 27.0)
WINDOWS: Final = Lifetime(ttl=5, serve_stale_for=3, stale_if_error_for=20, failure_ttl=2, refresh_backoff=4)


def recorded(path: Path, policy: CachePolicy, ttl: Any, **settings: Any) -> tuple[Counter[str], int]:
    """300 requests of a real cache in virtual time: how often what was asked for, and the fetches."""
    clock = VirtualClock(now=1_000.0)
    return run(_recorded(path, policy, ttl, clock, settings), clock=clock)


async def _recorded(
    path: Path, policy: CachePolicy, ttl: Any, clock: VirtualClock, settings: dict[str, Any]
) -> tuple[Counter[str], int]:
    random = Random(7)
    asked: Counter[str] = Counter()
    fetches = 0
    began_at = clock()

    async def fetch() -> Result[str, str]:
        nonlocal fetches
        fetches += 1
        begins, ends = OUTAGE
        is_down = begins <= clock() - began_at < ends
        await asyncio.sleep(LATENCY_S)
        return Failure("down") if is_down else Success("value")

    async with (
        Cache(clock=clock, recorder=Recorder(path, clear_keys=True, **settings)) as cache,
        asyncio.TaskGroup() as callers,
    ):
        cache.set_active_user("ada")
        for number in range(300):
            await asyncio.sleep(random.expovariate(6.0) if number else 0.0)
            key, scope = f"item:{int(random.paretovariate(0.8)) % 12}", random.choice(tuple(CacheScope))
            viewer = random.choice((None, None, "bob"))
            view = cache if viewer is None else cache.for_user(viewer)
            asked[f"{key} {scope.value} {None if scope is CacheScope.GLOBAL else viewer}"] += 1
            callers.create_task(view.get(key, fetch, policy=policy, ttl=ttl, scope=scope))
    return asked, fetches


@pytest.mark.parametrize("ttl", [3.0, WINDOWS], ids=["ttl", "windows"])
@pytest.mark.parametrize("policy", BUILT_IN, ids=lambda policy: policy.name)
def test_a_simulated_log_has_the_hits_and_fetches_of_the_cache(tmp_path: Path, policy: CachePolicy, ttl: Any) -> None:
    path = tmp_path / "log"
    asked, fetches = recorded(path, policy, ttl)
    totals = replay(path).totals

    with read(path) as reading:
        requests = list(reading)
    outcome = simulate(requests, OriginModel(Constant(LATENCY_S), outages=(OUTAGE,)), Configuration.of(policy, ttl))

    assert (reading.format, reading.unreadable.total, len(requests)) == (TraceFormat.COMMAND_LOG, 0, 300)
    named = Counter((request.key, request.user) for request in requests)
    assert sorted(named.values()) == sorted(asked.values())
    assert outcome.hits + outcome.stood_in == totals.hit + totals.stale
    assert (outcome.origin_requests, outcome.failures) == (fetches, totals.failed)
    assert fetches == totals.fetches


def test_each_owner_has_keys_of_its_own(tmp_path: Path) -> None:
    asked, _ = recorded(tmp_path / "log", CachePolicy.CACHE_FIRST, 3.0)
    with read(tmp_path / "log") as reading:
        users = Counter(request.user for request in reading)
    by_scope: Counter[str] = Counter()
    for name, count in asked.items():
        by_scope[name.partition(" ")[2]] += count
    assert users[None] == by_scope["global None"]
    assert users["session"] == by_scope["session None"]
    (of_the_view,) = (user for user in users if user is not None and user.startswith("session #"))
    assert users[of_the_view] == by_scope["session bob"]
    assert users[of_the_view.removeprefix("session ")] == by_scope["user bob"]
    assert len(users) == 5


def test_rotated_files_are_read_in_their_order(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for path, settings in ((whole, {}), (parts, {"max_bytes": 4_096, "keep": 100})):
        recorded(path, CachePolicy.CACHE_FIRST, 3.0, **settings)
    assert len(list(tmp_path.iterdir())) > 10
    seen: list[tuple[int, int | None]] = []

    with read(parts, progress=lambda done, total: seen.append((done, total))) as reading:
        requests = list(reading)

    with read(whole) as one:
        assert [(each.at, each.key) for each in one] == [(each.at, each.key) for each in requests]
    assert (reading.unreadable.total, reading.backwards) == (0, 0)
    assert len({request.user for request in requests}) == 5
    size = sum(file.stat().st_size for file in tmp_path.glob("parts*"))
    assert seen == sorted(seen)
    assert seen[-1] == (size, size)


def test_a_log_that_begins_in_its_middle_does_not_know_who_had_signed_in(tmp_path: Path) -> None:
    recorded(tmp_path / "log", CachePolicy.CACHE_FIRST, 3.0, max_bytes=4_096, keep=1)
    with read(tmp_path / "log") as reading:
        users = {request.user for request in reading}
    assert "somebody" in users


HEADER: Final = {
    "cachemesh_log": 1,
    "log": "1",
    "segment": 0,
    "keys": "clear",
    "has_store": False,
    "max_entries": None,
    "default_ttl_s": None,
    "epoch_offset": 0.0,
}
LATER: Final = {**HEADER, "cachemesh_log": 9}


def get(key: str, now: float, **others: Any) -> dict[str, Any]:
    return {"do": "Get", "key": key, "now": now, "flight_id": 1, "was": 1, **others}


def reading_of(path: Path, *lines: Any, header: Any = HEADER, end: bytes = b"\n", **said: Any) -> Reading:
    """Of a log with these lines: objects, or text as it is."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in (header, *lines)]
    path.write_bytes("\n".join(texts).encode() + end)
    return read(path, **said)


def test_whose_an_entry_is_follows_from_who_has_signed_in(tmp_path: Path) -> None:
    user = {"scope": "user"}
    reading = reading_of(
        tmp_path / "log",
        get("k", 1.0, **user, was="refused:no_active_user"),
        {"do": "SetActiveUser", "user_id": "#a"},
        get("k", 2.0, **user),
        get("k", 3.0, **user, viewer="#b"),
        {"do": "EndSession", "viewer": "#b"},
        get("k", 4.0, **user),
        {"do": "EndSession"},
        {"do": "SetActiveUser"},
        get("k", 5.0, **user, was="refused:no_active_user"),
        {"do": "Lost", "lines": 1},
        get("k", 6.0, **user),
    )
    assert [each.user for each in reading] == ["#a", "#b", "#a", "somebody"]
    assert reading.unreadable[Why.NOBODY].first == [2, 10]


def test_a_line_ends_with_its_file(tmp_path: Path) -> None:
    reading_of(tmp_path / "log.1", get("a", 1.0), end=b"").close()
    reading = reading_of(tmp_path / "log", get("b", 2.0), header={**HEADER, "segment": 1})
    assert [request.key for request in reading] == ["a", "b"]
    assert reading.unreadable.total == 0


def test_another_log_beside_it_is_left_alone(tmp_path: Path) -> None:
    reading_of(tmp_path / "log.1", get("a", 1.0), header={**HEADER, "log": "another"}).close()
    (tmp_path / "log.2").write_bytes(bytes(100))
    assert [request.key for request in reading_of(tmp_path / "log", get("b", 2.0))] == ["b"]


def test_who_has_to_ask_anew_is_one_request(tmp_path: Path) -> None:
    again = ({"do": "Follows", "ask": 2, "before": 1}, get("k", 2.0, flight_id=2))
    reading = reading_of(tmp_path / "log", get("k", 1.0), *again, get("k", 3.0, flight_id=3))
    assert [request.at for request in reading] == [1.0, 3.0]


def test_a_real_cache_whose_callers_ask_anew_is_read_so(tmp_path: Path) -> None:
    """What is invalidated while it is loaded or fetched is asked for once more."""

    async def main() -> None:
        async def fetch() -> Result[int, str]:
            await asyncio.sleep(1.0)
            return Success(1)

        async with Cache(recorder=Recorder(tmp_path / "log"), store=MemoryStore()) as cache:
            callers = [asyncio.create_task(cache.get("k", fetch, ttl=9)) for _ in range(3)]
            await asyncio.sleep(0.5)
            cache.invalidate("k")
            callers += [asyncio.create_task(cache.get("k", fetch, ttl=9)) for _ in range(3)]
            await asyncio.gather(*callers)

    run(main())
    assert b'"do":"Follows"' in (tmp_path / "log").read_bytes()
    with read(tmp_path / "log") as reading:
        assert len(list(reading)) == replay(tmp_path / "log").totals.asks == 6


def test_what_cannot_be_read_is_counted_and_a_line_that_breaks_off_as_well(tmp_path: Path) -> None:
    reading = reading_of(
        tmp_path / "log",
        get("a", 1.0),
        {"do": "Fly"},
        {"do": "Get", "key": "a", "flight_id": 1},
        {"do": "Get", "now": 2.0},
        get("a", 1e300),
        "no JSON",
        get("a", 2.0, scope="planet"),
        {"do": "Lost", "lines": 40},
        {"do": "Told", "ask": 1, "how": "old"},
        get("b", 3.0),
        '{"do":"Get","key":"c","no',
        end=b"",
    )
    assert list(reading) == [Request(1.0, "a"), Request(3.0, "b")]
    unreadable = reading.unreadable
    assert (unreadable[Why.NOT_A_COMMAND].first, unreadable[Why.NOT_A_COMMAND].count) == ([3, 7, 8, 12], 4)
    assert (unreadable[Why.TIME].first, unreadable[Why.KEY].first, unreadable[Why.LOST].count) == ([4, 6], [5], 40)


def test_a_compressed_log_and_the_end_of_one(tmp_path: Path) -> None:
    plain, squeezed = tmp_path / "log", tmp_path / "log.gz"
    recorded(plain, CachePolicy.CACHE_FIRST, 3.0)
    squeezed.write_bytes(gzip.compress(plain.read_bytes()))
    with read(plain) as one, read(squeezed) as other:
        requests = list(one)
        assert list(other) == requests
    tail = tmp_path / "tail"
    tail.write_bytes(b"".join(plain.read_bytes().splitlines(keepends=True)[-100:]))
    with read(tail, format="cachemesh") as reading:
        last = list(reading)
    assert [request.key for request in last] == [request.key for request in requests[-len(last) :]]
    assert len(last) > 20


@pytest.mark.parametrize(
    ("header", "said", "reason"),
    [
        (LATER, {}, "it is a command log of version 9; version 1 is read"),
        (LATER, {"format": "cachemesh"}, "it is a command log of version 9; version 1 is read"),
        (HEADER, {}, "there is no request in it"),
        ("time,key", {"format": "cachemesh"}, "no line could be read; 1 line left out: 1 no line of a command log"),
    ],
)
def test_no_trace(tmp_path: Path, header: Any, said: dict[str, Any], reason: str) -> None:
    with pytest.raises(TraceError) as caught:
        reading_of(tmp_path / "log", header=header, **said)
    assert str(caught.value).startswith(f"no trace: {reason}")


def test_the_command_finds_out_what_it_is(tmp_path: Path) -> None:
    path, document = tmp_path / "commands.log", tmp_path / "out.json"
    asked, fetches = recorded(path, CachePolicy.CACHE_FIRST, 3.0, max_bytes=4_096, keep=100)
    options = ["--policy", "cache_first", "--ttl", "3s", "--latency", "400ms", "--outage", "20s..27s"]
    for more in ([], ["--format", "cachemesh"]):
        done = CliRunner().invoke(command, [str(path), *options, *more, "--json", str(document)])
        assert done.exit_code == 0, done.output
        found = Study.from_json(document.read_bytes())
        assert (found.trace.format, found.trace.requests, found.trace.users) == ("cachemesh", 300, 4)
        assert found.trace.repeats == pytest.approx(1.0 - len(asked) / 300)
        assert found.rows[0].outcome.origin_requests == fetches


def test_the_command_says_in_one_line_what_is_no_log(tmp_path: Path) -> None:
    path = tmp_path / "commands.log"
    path.write_bytes(json.dumps(HEADER).encode()[:40] + bytes(range(256)) * 20)
    for more in ([], ["--format", "cachemesh"]):
        done = CliRunner().invoke(command, [str(path), *more])
        assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert "no trace: it is binary data" in done.stderr
