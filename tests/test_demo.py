"""`cachemesh demo`: the command, the origin it starts, and what happens when an invariant breaks."""

from __future__ import annotations

import asyncio
import io
import os
import re
import socket
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

import httpx2
import pytest
from returns.pipeline import is_successful
from returns.result import Failure
from rich.console import Console

from cachemesh import Cache, CacheScope
from cachemesh.demo import traffic
from cachemesh.demo.catalog import Catalog
from cachemesh.demo.client import OriginClient, OriginError
from cachemesh.demo.invariants import Invariant
from cachemesh.demo.origin import Origin
from cachemesh.demo.plan import Plan, Trouble, Window
from cachemesh.demo.report import Report
from cachemesh.demo.run import BROKEN, OK, POLICIES, Settings, run
from cachemesh.demo.score import Score, percentile
from cachemesh.demo.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachemesh.demo.client import Fetch
    from cachemesh.demo.traffic import Answer, Reader

FAST = Plan(usual_s=(0.0, 0.001), slow_s=(0.0, 0.001))
ALWAYS = (Window(0.0, 3600.0),)


# The command


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  our own command
        [sys.executable, "-m", "cachemesh", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def done() -> subprocess.CompletedProcess[str]:
    """The whole command, run once as a user runs it, but shorter."""
    return command("demo", "--seconds", "0.7", "--clients", "30", "--seed", "7", COLUMNS="80")


def test_the_demo_ends_well_and_prints_its_table(done: subprocess.CompletedProcess[str]) -> None:
    """Log lines, a row for each policy, the invariants."""
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert (
        "[cachemesh] miss user:42\n"
        "[cachemesh] refresh user:42 (cache_miss)\n"
        "[cachemesh] write user:42 ttl=300000ms\n"
        "[cachemesh] hit user:42\n"
    ) in done.stdout
    rows = table_rows(done.stdout)
    assert list(rows) == list(POLICIES)
    assert all(int(calls.replace(",", "")) > 0 for calls, *_ in rows.values())
    for invariant in Invariant:
        assert f"ok  {invariant}" in done.stdout
    assert "\x1b" not in done.stdout, "a pipe gets plain text"
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_what_the_policies_promise_shows_in_the_table(done: subprocess.CompletedProcess[str]) -> None:
    """network_only never hits, and cache_only never shows a failure of the origin. Whatever the machine's load."""
    _, printed = done.stdout.split("What the failures were")
    [cache_only] = (line for line in printed.splitlines() if line.startswith("cache_only"))

    assert table_rows(done.stdout)["network_only"][2] == "0.0%"
    assert not re.search(r"503|429|no answer", cache_only)


def test_policies_can_be_picked() -> None:
    done = command("demo", "--seconds", "0.2", "--policy", "cache_only", "--policy", "cache_first", "--plain")

    assert done.returncode == 0, done.stdout + done.stderr
    assert list(table_rows(done.stdout)) == ["cache_only", "cache_first"]


def test_the_demo_prints_under_an_ascii_encoding() -> None:
    done = command("demo", "--seconds", "0.1", "--policy", "cache_first", PYTHONIOENCODING="ascii")

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [("demo", "--policy", "cache_last"), ("demo", "--seconds", "-1"), ("dmeo",)])
def test_a_wrong_argument_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    assert command(*arguments).returncode == 2


def test_help_and_version() -> None:
    assert "demo" in command("--help").stdout
    assert command("--version").stdout.startswith("cachemesh, version ")


def test_missing_packages_are_named_in_one_line() -> None:
    """Without the extra, the command says what to install and ends with 2."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.modules.update(click=None, rich=None); from cachemesh.cli import main; main()",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr == "cachemesh: click, rich not found; run: pip install 'cachemesh[demo]'\n"


# A cache that breaks a promise


class Sound:
    """A small cache that keeps its promises; each kind below breaks one."""

    def __init__(self) -> None:
        self.user = ""
        self.entries: dict[str, Answer] = {}
        self.one_at_a_time = asyncio.Lock()

    async def get(self, key: str, fetch: Fetch, **options: object) -> Answer:
        name = self.name(key, options["scope"])
        async with self.one_at_a_time:
            if name in self.entries:
                return self.entries[name]
            answer = await fetch()
            if is_successful(answer):
                self.entries[name] = answer
            return answer

    async def prefetch(self, key: str, fetch: Fetch, **options: object) -> Answer:
        return await self.get(key, fetch, **options)

    def name(self, key: str, scope: object) -> str:
        return f"{scope} {self.user} {key}"

    def for_user(self, user_id: str) -> Self:
        view = type(self)()
        view.__dict__.update(self.__dict__, user=user_id)
        return view

    async def aclose(self) -> None:
        """There is nothing to close."""


class Stampeding(Sound):
    async def get(self, key: str, fetch: Fetch, **options: object) -> Answer:  # noqa: ARG002
        return await fetch()


class Raising(Sound):
    async def get(self, key: str, fetch: Fetch, **options: object) -> Answer:  # noqa: ARG002
        raise LookupError(key)


class Cancelling(Sound):
    async def get(self, key: str, fetch: Fetch, **options: object) -> Answer:  # noqa: ARG002
        raise asyncio.CancelledError


class RaisingOnClose(Sound):
    async def aclose(self) -> None:
        raise OSError


class Leaking(Sound):
    def name(self, key: str, scope: object) -> str:  # noqa: ARG002
        return key


class Confusing(Sound):
    def name(self, key: str, scope: object) -> str:
        return f"{scope} {self.user} {len(key) % 2}"


class Hanging(Sound):
    async def get(self, key: str, fetch: Fetch, **options: object) -> Answer:  # noqa: ARG002
        return await asyncio.Future()


class HangingOnClose(Sound):
    async def aclose(self) -> None:
        await asyncio.Future()


def run_with(cache: type[Sound], *policies: str) -> tuple[int, str]:
    """The exit code, and what was printed."""
    printed = io.StringIO()
    settings = Settings(seconds=0.3, clients=20, policies=policies or ("cache_first",))
    report = Report(Console(file=printed, width=200), is_live=False)

    def make_cache(_: object) -> Reader:
        return cache()

    return asyncio.run(run(settings, report, make_cache)), printed.getvalue()


def test_a_sound_cache_passes() -> None:
    """What the broken ones are compared with."""
    code, printed = run_with(Sound)

    assert code == OK
    assert "BROKEN" not in printed


@pytest.mark.parametrize(
    ("cache", "invariant"),
    [
        (Stampeding, Invariant.ONE_FETCH),
        (Raising, Invariant.NO_EXCEPTION),
        (Cancelling, Invariant.NO_EXCEPTION),
        (RaisingOnClose, Invariant.NO_EXCEPTION),
        (Leaking, Invariant.OWN_VALUE),
        (Confusing, Invariant.OWN_KEY),
    ],
)
def test_a_broken_invariant_is_named_and_ends_with_1(cache: type[Sound], invariant: Invariant) -> None:
    code, printed = run_with(cache)

    assert code == BROKEN
    assert [line.split('"')[1] for line in printed.splitlines() if line.startswith("BROKEN")] == [invariant]
    assert "All invariants held" not in printed


@pytest.mark.parametrize("cache", [Hanging, HangingOnClose])
def test_a_cache_that_hangs_does_not_hang_the_demo(cache: type[Sound], monkeypatch: pytest.MonkeyPatch) -> None:
    """The policies after it are left out, so that the demo keeps to its time."""
    monkeypatch.setattr(traffic, "PATIENCE_S", 0.2)
    monkeypatch.setattr("cachemesh.demo.run.PATIENCE_S", 0.2)

    code, printed = run_with(cache, "cache_first", "network_only")

    assert code == BROKEN
    assert f'BROKEN under cache_first: "{Invariant.ANSWERED}"' in printed
    assert "network_only" not in printed


def test_an_exception_while_warming_is_seen() -> None:
    code, printed = run_with(Raising, "cache_only")

    assert code == BROKEN
    assert "prefetch(" in printed


# The origin


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        origin.begin(FAST)
        yield origin


def ask(origin: Origin, path: str, user: str | None = None) -> httpx2.Response:
    headers = {} if user is None else {"X-User": user}
    with httpx2.Client(base_url=origin.url, trust_env=False) as client:
        return client.get(path, headers=headers)


def test_a_record_is_stamped(origin: Origin) -> None:
    """With its path, its owner, its version and the time."""
    first, second = (ask(origin, "/users/42").json() for _ in range(2))

    assert first["record"]["login"] == "douglas"
    assert (first["path"], first["owner"]) == ("/users/42", None)
    assert (first["version"], second["version"]) == (1, 2)
    assert first["served_at"] < second["served_at"]


@pytest.mark.parametrize(
    ("path", "user", "status"),
    [
        ("/cities/999", None, 404),
        ("/me/orders", None, 401),
        ("/me/orders", "mallory", 404),
        ("/me/nothing", "alice", 404),
        ("/", None, 404),
    ],
)
def test_what_is_not_there_for_the_asker_is_refused(origin: Origin, path: str, user: str | None, status: int) -> None:
    assert ask(origin, path, user).status_code == status


def test_a_private_record_is_its_owners(origin: Origin) -> None:
    alice, bob = (ask(origin, "/me/profile", user).json() for user in ("alice", "bob"))

    assert (alice["owner"], alice["record"]["login"]) == ("alice", "alice")
    assert (bob["owner"], bob["record"]["login"]) == ("bob", "bob")


def test_every_resource_of_the_catalog_is_served(origin: Origin) -> None:
    catalog = Catalog()
    with httpx2.Client(base_url=origin.url, trust_env=False, headers={"X-User": "carol"}) as client:
        assert {client.get(resource.path).status_code for resource in catalog.resources} == {200}

    assert origin.tally.total == len(catalog.resources)


def test_an_outage_answers_503(origin: Origin) -> None:
    tally = origin.begin(Plan(outages=ALWAYS))

    assert ask(origin, "/cities/1").status_code == 503
    assert origin.trouble is Trouble.OUTAGE
    assert tally.statuses == {503: 1}


def test_a_rate_limit_lets_some_through_and_answers_429_to_the_rest(origin: Origin) -> None:
    tally = origin.begin(Plan(rate_limits=(Window(0.0, 99.5),), slot_s=100.0, requests_per_slot=2))

    answers = [ask(origin, "/cities/1") for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200, 200, 429, 429, 429]
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 100
    assert tally.statuses == {200: 2, 429: 3}


def test_requests_are_counted_by_path_and_by_how_many_were_at_once(origin: Origin) -> None:
    """Requests of different users for the same path do not count as the same thing."""
    tally = origin.begin(Plan(usual_s=(0.3, 0.3), slow_share=0.0))
    users = [{"X-User": "alice"}] * 3 + [{"X-User": "bob"}]

    with httpx2.Client(base_url=origin.url, trust_env=False) as client, ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(client.get, "/me/profile", headers=user) for user in users]
        asked.append(pool.submit(client.get, "/cities/1"))
        assert all(answer.result().is_success for answer in asked)

    assert (tally.of_path("/me/profile"), tally.of_path("/cities/1"), tally.total) == (4, 1, 5)
    assert tally.most_at_once == {("alice", "/me/profile"): 3, ("bob", "/me/profile"): 1, (None, "/cities/1"): 1}
    assert tally.peak() == (3, "alice", "/me/profile")


def test_a_client_that_asks_again_never_overlaps_with_itself(origin: Origin) -> None:
    with httpx2.Client(base_url=origin.url, trust_env=False) as client:
        for _ in range(200):
            client.get("/cities/1")

    assert origin.tally.peak() == (1, None, "/cities/1")


def test_a_late_request_counts_for_the_run_in_which_it_came(origin: Origin) -> None:
    before = origin.begin(Plan(usual_s=(0.2, 0.2), slow_share=0.0))
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(ask, origin, "/cities/1")
        while not before.total:
            time.sleep(0.001)
        after = origin.begin(FAST)
        assert late.result().status_code == 200

    assert (before.total, after.total) == (1, 0)


def test_a_client_that_hangs_up_is_nothing_to_report(capfd: pytest.CaptureFixture[str]) -> None:
    """Cancelled fetches do: at the end of a run, and when a user interrupts the demo."""
    with Origin() as origin:
        tally = origin.begin(Plan(usual_s=(0.1, 0.1), slow_share=0.0))
        with socket.create_connection(("127.0.0.1", int(origin.url.rpartition(":")[2]))) as hasty:
            hasty.sendall(b"GET /cities/1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            # Lingering for 0 s: closing resets the connection.
            hasty.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            while not tally.total:
                time.sleep(0.001)
        while not tally.statuses:
            time.sleep(0.001)
        time.sleep(0.1)

    assert capfd.readouterr().err == ""


# Its plan


def test_a_rough_plan_has_one_outage_and_one_rate_limit() -> None:
    plan = Plan.rough(2.0, seed=1)

    seen = [plan.trouble_at(tenth / 10) for tenth in range(20)]

    assert seen == [*["up"] * 6, *["outage"] * 4, *["up"] * 4, *["rate limit"] * 3, *["up"] * 3]


def test_latency_depends_on_the_seed_and_the_request_alone() -> None:
    def latencies(seed: int) -> list[float]:
        return [Plan(seed=seed).latency_s("alice", "/me/orders", number) for number in range(500)]

    assert latencies(1) == latencies(1)
    assert latencies(1) != latencies(2)
    slow = sum(latency >= 0.06 for latency in latencies(1))
    assert 0 < slow < 50


# The client


def read_once(url: str, path: str = "/cities/1", user: str | None = None) -> Answer:
    async def read() -> Answer:
        async with OriginClient(url) as client:
            [resource] = (resource for resource in Catalog().resources if resource.path == path)
            return await client.fetcher(resource, user)()

    return asyncio.run(read())


def test_a_refusal_is_a_failure_with_its_status(origin: Origin) -> None:
    origin.begin(Plan(outages=ALWAYS))

    assert read_once(origin.url) == Failure(OriginError(503))


def test_retry_after_comes_with_the_failure(origin: Origin) -> None:
    origin.begin(Plan(rate_limits=(Window(0.0, 3.0),), requests_per_slot=0))

    assert read_once(origin.url) == Failure(OriginError(429, retry_after=3.0))


def test_an_origin_that_is_gone_is_a_failure_too() -> None:
    with Origin() as origin:
        url = origin.url

    assert read_once(url) == Failure(OriginError(None))


# The score


def test_a_score_counts_the_hits_of_a_real_cache(origin: Origin) -> None:
    """Those of every user's view."""
    catalog = Catalog()
    score = Score("cache_first", Tally())

    async def read_all_twice() -> None:
        async with OriginClient(origin.url) as client, Cache(logger=score.log) as cache:
            for user in catalog.owners * 2:
                for thing in catalog.resources:
                    scope = CacheScope.USER if thing.is_private else CacheScope.GLOBAL
                    fetch = client.fetcher(thing, user if thing.is_private else None)
                    asked_at = time.perf_counter()
                    answer = await cache.for_user(user).get(thing.key, fetch, scope=scope)
                    score.answered(thing, user, answer, asked_at=asked_at, answered_at=time.perf_counter())

    asyncio.run(read_all_twice())

    assert score.calls == 2 * len(catalog.owners) * len(catalog.resources)
    assert score.log.hits == score.calls - origin.tally.total
    assert (score.failures, score.broken) == ({}, {})


def test_percentiles_are_nearest_rank() -> None:
    hundred = [float(number) for number in range(1, 101)]

    assert (percentile(hundred, 0.50), percentile(hundred, 0.99)) == (50.0, 99.0)
    assert (percentile([7.0], 0.99), percentile([], 0.5)) == (7.0, 0.0)


@pytest.mark.parametrize(("late_s", "stale"), [(-0.1, 0), (0.0, 0), (0.02, 1)])
def test_stale_is_older_than_its_ttl_on_receipt(origin: Origin, late_s: float, stale: int) -> None:
    [resource] = (resource for resource in Catalog().resources if resource.path == "/cities/1")
    answer = read_once(origin.url)
    score = Score("cache_first", Tally())

    at = answer.unwrap().arrived_at + resource.ttl_s + late_s
    score.answered(resource, "alice", answer, asked_at=at - 0.001, answered_at=at)

    assert (score.stale, score.calls, score.broken) == (stale, 1, {})


def table_rows(printed: str) -> dict[str, list[str]]:
    """The rows of the score table, by policy: calls, origin requests, hit ratio, p50, p99, stale, failures."""
    rows = (line.split() for line in printed.splitlines())
    return {row[0]: row[1:] for row in rows if len(row) == 8 and row[0] in POLICIES}
