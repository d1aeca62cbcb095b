"""`cachemesh replay`: what it prints, and what it says of bad input."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Failure, Success

from cachemesh import CachePolicy, Lifetime, MemoryStore, SyncCache
from cachemesh.cli import carried_out
from cachemesh.simulation import Recorder, WhatIf, replay
from cachemesh.simulation.log.command import entries_of
from cachemesh.simulation.log.what_if import NO_CHANGE
from cachemesh.testing.clock import VirtualClock

if TYPE_CHECKING:
    from pathlib import Path

BEGAN_AT = 1_767_225_600.0


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A key that is asked for every 10 seconds for 100 seconds, with a ttl of 35; a fetch takes 2 seconds."""
    clock = VirtualClock(now=BEGAN_AT)
    path = tmp_path / "commands.log"

    def fetch() -> Any:
        clock.advance(2.0)
        return Success("news")

    with SyncCache(clock=clock, recorder=Recorder(path, clear_keys=True)) as cache:
        for number in range(10):
            clock.advance_to(BEGAN_AT + 10.0 * number)
            cache.get("feed", fetch, ttl=35)
        clock.advance(1.0)
        cache.get("broken", lambda: Failure(ValueError("no")), ttl=35)
    return path


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = carried_out(["replay", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_it_prints_the_state_and_why(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = told(capsys, str(log))
    assert (code, err) == (0, "")
    assert "11 asks in 91.000 s" in out
    assert "cache_first: stale -> fetch" in out
    assert "cache_first: fresh -> serve" in out


def test_why_says_what_became_of_a_fetch_that_failed(tmp_path: Path) -> None:
    clock = VirtualClock()
    path = tmp_path / "commands.log"
    lifetime = Lifetime(ttl=60, stale_if_error_for=60)
    with SyncCache(clock=clock, recorder=Recorder(path)) as cache:
        cache.get("feed", lambda: Success("news"), ttl=lifetime)
        for _ in range(2):
            clock.advance(90)
            cache.get("feed", lambda: Failure("down"), ttl=lifetime)

    assert [(answer.kind.value, answer.why) for answer in replay(path).answers] == [
        ("fetched", "cache_first: missing -> fetch"),
        ("stale", "cache_first: expired -> fetch; the fetch failed, an old value stands in"),
        ("failed", "cache_first: expired -> fetch; the fetch failed"),
    ]


def test_json_says_all_of_it(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told(capsys, str(log), "--json")
    found = json.loads(out)
    assert code == 0
    assert out.isascii()
    assert found["totals"]["asks"] == 11
    assert [each["kind"] for each in found["answers"] if each["key"] == "feed"] == [
        *["fetched", "hit", "hit", "hit"] * 2,
        "fetched",
        "hit",
    ]
    (entry,) = found["entries"]
    assert (entry["key"], entry["type"], entry["freshness"]) == ("feed", "str", "fresh")
    assert told(capsys, str(log), "--json")[1] == out


@pytest.mark.parametrize("at", ["36.9", "2026-01-01T00:00:36.9+00:00"])
def test_at_an_instant_the_state_is_what_it_was_then(log: Path, capsys: pytest.CaptureFixture[str], at: str) -> None:
    _, out, _ = told(capsys, str(log), "--json", "--at", at)
    found = json.loads(out)
    assert found["totals"]["asks"] == 4
    (entry,) = found["entries"]
    assert (entry["age_s"], entry["expires_in_s"]) == (pytest.approx(34.9), pytest.approx(0.1))


def test_what_has_expired_by_an_instant_is_not_fresh_then(log: Path) -> None:
    """Also where nothing happens between the end of its life and that instant."""
    (entry,) = entries_of(replay(log, at=38.0), None)
    assert (entry["freshness"], entry["age_s"]) == ("stale", pytest.approx(36.0))


def test_a_model_of_the_time_before_an_instant_ends_there_too(log: Path) -> None:
    """A fetch takes 2 seconds: after one, its caller waits."""
    assert replay(log, NO_CHANGE, at=1.0).totals == replay(log, at=1.0).totals
    assert replay(log, NO_CHANGE, at=1.0).totals.waiting == 1


def test_after_its_end_a_log_has_no_instants(log: Path) -> None:
    assert replay(log, at=10_000.0) == replay(log)


def test_a_key_is_looked_at_alone(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = told(capsys, str(log), "--json", "--key", "broken")
    found = json.loads(out)
    assert ([each["kind"] for each in found["answers"]], found["entries"]) == (["failed"], [])


def test_what_if_the_ttl_were_another_one(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With 15 seconds from the answer, 2 after the ask, each second ask fetches."""
    _, out, _ = told(capsys, str(log), "--json", "--what-if", "ttl=15s")
    found = json.loads(out)
    assert found["modelled"] == found["totals"]
    assert found["what_if"]["fetched"] == 5
    assert found["what_if"]["hit"] == 5


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ("policy=network_first", ["fetched"] * 10),
        ("policy=cache_only", ["failed"] * 10),
        ("policy=stale_while_revalidate", ["fetched", *["hit"] * 3, "stale", *["hit"] * 3, "stale", "hit"]),
        ("ttl=1ms,serve_stale=1h", ["fetched", *["stale"] * 9]),
        ("ttl=1000s", ["fetched", *["hit"] * 9]),
        ("capacity=1", [*["fetched", "hit", "hit", "hit"] * 2, "fetched", "hit"]),
    ],
)
def test_what_if_changes_what_it_names(log: Path, changes: str, kinds: list[str]) -> None:
    found = replay(log, WhatIf.parse(changes))
    assert [each.kind for each in found.answers if each.key == "feed"] == kinds
    assert replay(log, WhatIf.parse(changes)).answers == found.answers


def test_a_modelled_fetch_fails_as_the_nearest_recorded_one_did(log: Path) -> None:
    found = replay(log, WhatIf(policy=CachePolicy.NETWORK_ONLY))
    assert [each.kind for each in found.answers if each.key == "broken"] == ["failed"]
    assert {each.waited_s for each in found.answers if each.key == "feed"} == {2.0}


def test_a_modelled_memory_of_one_entry_evicts(tmp_path: Path) -> None:
    clock = VirtualClock()
    with SyncCache(recorder=Recorder(tmp_path / "log"), store=MemoryStore(), clock=clock) as cache:
        for number in range(40):
            clock.advance(1.0)
            cache.get(f"k{number % 4}", lambda: Success(1))
    assert replay(tmp_path / "log", WhatIf(capacity=4)).totals.evictions == 0
    assert replay(tmp_path / "log", WhatIf(capacity=1)).totals.evictions > 30


def test_a_model_evicts_the_same_in_another_process(tmp_path: Path) -> None:
    """Hashes of strings differ from one process to the next, and ghosts are known by a hash."""
    with SyncCache(recorder=Recorder(tmp_path / "log", clear_keys=True), clock=VirtualClock()) as cache:
        chance = random.Random(3)
        for _ in range(1_000):
            cache.get(f"k{min(chance.randrange(60), chance.randrange(60))}", lambda: Success(1))
    program = "import sys; from cachemesh.simulation import *; print(replay(sys.argv[1], WhatIf(capacity=12)).totals)"
    seen = {
        subprocess.run(  # noqa: S603 (our own program)
            [sys.executable, "-c", program, str(tmp_path / "log")],
            env={**os.environ, "PYTHONHASHSEED": number},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for number in ("1", "2", "3")
    }
    assert seen == {f"{replay(tmp_path / 'log', WhatIf(capacity=12)).totals}\n"}


def test_a_torn_last_line_is_fine_and_an_unreadable_one_is_counted(log: Path) -> None:
    whole = log.read_bytes()
    log.write_bytes(whole[:-9])
    torn = replay(log)
    assert (torn.is_torn, torn.unreadable, torn.is_whole, torn.totals.asks) == (True, 0, True, 11)
    lines = whole.splitlines(keepends=True)
    lines[3] = b"\x00\xffjunk\n"
    lines.insert(5, b'{"do":"Get","key":1}\n')
    log.write_bytes(b"".join(lines))
    broken = replay(log)
    assert (broken.unreadable, broken.is_whole, broken.differences) == (2, False, 0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--at", "yesterday"], "--at is a number of seconds since the log began"),
        (["--at", "-1"], "--at is a number of seconds, from 0 on"),
        (["--at", "nan"], "--at is a number of seconds, from 0 on"),
        (["--what-if", "ttl=fast"], "ttl is a duration, such as"),
        (["--what-if", "policy=best"], "policy is one of cache_first"),
        (["--what-if", "colour=red"], "what-if takes policy, ttl"),
        (["--what-if", "capacity=0"], "capacity is a number of entries"),
        (["--what-if", "refresh_ahead=2"], "refresh_ahead is a share"),
        (["--what-if", "ttl=1s,ttl=2s"], "ttl is given twice"),
        (["--limit", "-1"], "--limit"),
    ],
)
def test_bad_options_are_told_in_one_line(
    log: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    code, out, err = told(capsys, str(log), *arguments)
    assert (code, out) == (2, "")
    assert says in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize("content", [None, b"", b"\x7fELF\x00\n" * 1_000, b"{}\n", b"time,key\n1,a\n"])
def test_what_is_no_log_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any) -> None:
    path = tmp_path / "x\x1b[2J.log"
    if content is not None:
        path.write_bytes(content)
    code, out, err = told(capsys, str(path))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "\x1b" not in err
    assert told(capsys, str(tmp_path))[0] == 2


def test_what_a_log_says_does_nothing_to_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SyncCache(recorder=Recorder(tmp_path / "log", clear_keys=True)) as cache:
        cache.get("a\x1b[31m[bold]\u202e", lambda: Success(1))
    for extra in ([], ["--json"]):
        _, out, _ = told(capsys, str(tmp_path / "log"), *extra)
        assert "\x1b" not in out
        assert "\u202e" not in out
        assert "[bold]" in out


@pytest.mark.parametrize("now", ["inf", "nan", 1e308])
def test_an_instant_that_no_clock_shows_is_null_in_json(
    log: Path, capsys: pytest.CaptureFixture[str], now: str | float
) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    first = json.loads(lines[1])
    log.write_bytes(b"".join((lines[0], json.dumps({**first, "now": -1e308}).encode() + b"\n", *lines[2:])))
    with log.open("ab") as file:
        file.write(json.dumps({**first, "key": "other", "now": now}).encode() + b"\n")
    for extra in ([], ["--what-if", "ttl=1s"], ["--at", "1"]):
        code, out, err = told(capsys, str(log), "--json", *extra)
        assert (code, err) == (0, "")
        json.loads(out, parse_constant=pytest.fail)
        assert told(capsys, str(log), *extra)[0] == 0


def test_it_is_a_command_of_cachemesh(log: Path) -> None:
    done = subprocess.run(  # noqa: S603 (this interpreter, and a path of the test's own)
        [sys.executable, "-m", "cachemesh", "replay", str(log)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "served from memory" in done.stdout
