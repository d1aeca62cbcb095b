"""`cachemesh simulate` over real files: what it prints and writes, its exit codes, and what it says of bad input."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from cachemesh.cli import COMMANDS, main
from cachemesh.simulation import command, table
from cachemesh.simulation.command import Plan, run, simulate
from cachemesh.simulation.configuration import grid
from cachemesh.simulation.origin import OriginModel
from cachemesh.simulation.study import Study
from cachemesh.simulation.survey import Survey
from cachemesh.simulation.traces.reading import read
from cachemesh.simulation.traces.trouble import TraceError

if TYPE_CHECKING:
    from pathlib import Path


KEYS: Final = ("a", "b", "a", "c", "a", "b", "a", "d", "a", "b")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever terminal the tests are started in."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """200 requests, one a second: half of them for one key."""
    path = tmp_path / "trace.csv"
    lines = [f"{second},{KEYS[second % 10]}" for second in range(200)]
    path.write_text("\n".join(["time_s,key", *lines]) + "\n")
    return path


def ran(*arguments: object) -> Result:
    result = CliRunner().invoke(simulate, [str(each) for each in arguments], standalone_mode=True, terminal_width=200)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def code_of(*arguments: object) -> int:
    """As the command line has it: what a command returns is the exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *(str(each) for each in arguments)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def written(path: Path) -> Study:
    return Study.from_json(path.read_bytes())


def test_hits_are_those_that_can_be_counted_by_hand(trace: Path, tmp_path: Path) -> None:
    document = tmp_path / "out.json"
    result = ran(trace, "--policy", "cache_first", "--ttl", "none", "--json", document)

    assert result.exit_code == 0
    (row,) = written(document).rows
    assert (row.outcome.requests, row.outcome.hits, row.outcome.origin_requests) == (200, 196, 4)
    assert "98 %" in result.output
    assert "200 in 3.32 min" in result.output


def test_a_grid_with_a_goal_is_told_written_and_drawn(trace: Path, tmp_path: Path) -> None:
    page, document = tmp_path / "out.html", tmp_path / "out.json"
    result = ran(
        *(trace, "--policy", "cache_first,stale-while-revalidate", "--policy", "network_first"),
        *("--ttl", "2s,20s", "--stale", "0,1m", "--stale-if-error", "5m", "--capacity", "3,none"),
        *("--eviction", "s3fifo,lru", "--latency", "p50=20ms,p99=200ms", "--failure-rate", "1%"),
        *("--outage", "50s..60s", "--rate-limit", "20/s", "--changes-every", "30s", "--seed", "3", "--warm-up", "10s"),
        *("--goal", "p99 under 1 s, staleness under 2 minutes, least origin load", "--html", page, "--json", document),
    )

    assert result.exit_code == 0, result.output
    found = written(document)
    assert len(found.rows) == 3 * 2 * 2 * (2 + 1)  # Without a capacity there is nothing to evict.
    assert (found.seed, found.warm_up_s) == (3, 10.0)
    assert found.origin.outages == ((50.0, 60.0),)
    assert (found.origin.rate_limit, found.origin.change_every_s, found.origin.failure_rate) == (20.0, 30.0, 0.01)
    assert found.advice is not None
    assert found.advice.is_met
    assert f"recommended: {found.advice.name}" in result.output
    assert found.advice.reason in result.output
    assert found.advice.name in page.read_text()
    assert (
        min(row.outcome.origin_requests for row in found.rows) <= found.rows[found.advice.index].outcome.origin_requests
    )


def test_stale_for_ever_is_a_window_for_every_policy(tmp_path: Path) -> None:
    """Also beside another window, which closes those that are not given."""
    trace, document = tmp_path / "trace.csv", tmp_path / "out.json"
    trace.write_text("time,key\n0,a\n100000,a\n200000,a\n")
    policies = ("--policy", "cache_first,stale_while_revalidate", "--ttl", "1s", "--json", document)
    for more in ((), ("--stale-if-error", "10m")):
        result = ran(trace, *policies, "--stale", "forever", *more)
        assert [row.outcome.stale for row in written(document).rows] == [2, 2]
        assert result.output.count("stale for ever") == 2


def test_a_warm_up_may_lift_a_hit_ratio_above_the_repeats(trace: Path, tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    arguments = (trace, "--policy", "cache_first", "--ttl", "none", "--html", page)
    assert "no hit ratio is above it" in ran(*arguments).output
    assert "no hit ratio is above it" in page.read_text()
    told = ran(*arguments, "--warm-up", "1m").output
    assert "100 %" in told
    assert "98 % of requests" in told
    assert "no hit ratio is above it" not in told + page.read_text()


def test_a_jitter_is_an_axis_like_others(trace: Path, tmp_path: Path) -> None:
    document = tmp_path / "out.json"
    result = ran(trace, "--policy", "cache_first", "--ttl", "20s", "--jitter", "0,50%", "--json", document)

    assert result.exit_code == 0, result.output
    plain, jittered = written(document).rows
    assert (plain.name, jittered.name) == ("cache_first, ttl 20s", "cache_first, ttl 20s, stale 0s, jitter 50%")
    assert plain.outcome.origin_requests < jittered.outcome.origin_requests


def test_the_same_seed_gives_the_same_file(trace: Path, tmp_path: Path) -> None:
    options = ("--ttl", "5s", "--latency", "10ms..90ms", "--failure-rate", "0.2", "--goal", "fewest failures")
    files = [tmp_path / f"{each}.json" for each in range(3)]
    for file, seed in zip(files, (1, 1, 2), strict=True):
        ran(trace, *options, "--seed", seed, "--json", file)
    one, other, third = (file.read_bytes() for file in files)
    assert one == other
    assert one != third


def test_a_goal_that_nobody_meets_is_a_stated_answer(trace: Path, tmp_path: Path, capsys: Any) -> None:
    document = tmp_path / "out.json"
    code = code_of(trace, "--ttl", "2s,20s", "--goal", "hit ratio over 0.99, p99 under 10 ms", "--json", document)

    told = capsys.readouterr()
    assert code == 2
    assert "nobody meets the goal: stale_while_revalidate, ttl" in told.out
    assert "None of 4 configurations meets the goal. This one comes nearest: " in told.out
    assert "points too little for 'hit ratio over 99 %'" in told.out
    assert told.err == ""
    found = written(document)
    assert found.advice is not None
    assert not found.advice.is_met


def test_memory_is_a_goal_where_the_trace_has_sizes(tmp_path: Path) -> None:
    path = tmp_path / "sizes.csv"
    path.write_text("time,key,size\n0,a,700\n1,b,400\n2,a,700\n")
    assert "memory is 1.1 kB" in ran(path, "--goal", "memory under 2 kB").output
    assert ran(path, "--goal", "memory under 1 kB").output.count("too much for 'memory under 1 kB'") == 1
    assert ran(path, "--goal", "memory under 1 kB", "--policy", "network_only").exit_code == 0


def test_unreadable_lines_are_counted_and_shown(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv.gz"
    lines = ["time,key", "1,a", "soon,b", "2,a", "x", "3,b", "secret-token"]
    trace.write_bytes(gzip.compress("\n".join(lines).encode()))
    document = tmp_path / "out.json"
    result = ran(trace, "--json", document)

    assert result.exit_code == 0
    assert "3 lines left out" in result.output
    assert "secret-token" not in result.output
    assert written(document).trace.left_out == 3


def test_times_that_go_backwards_are_told(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("time,key\n10,a\n5,b\n11,a\n")
    result = ran(trace)
    assert result.exit_code == 0
    assert "times that go back  1, all put right" in result.output


def test_the_newest_first_is_no_trace(tmp_path: Path) -> None:
    """As viewers of logs export it. Clamped to nearly one instant, it would have nothing but hits."""
    path = tmp_path / "newest-first.csv"
    path.write_text("time,key\n" + "".join(f"{second},a\n" for second in range(100_000, 0, -10)))
    result = ran(path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: no trace: times go far back, for ")
    assert result.stderr.endswith(" of 10,000 requests; sort it by time\n")


def test_columns_formats_and_users(tmp_path: Path) -> None:
    csv, lines, log = tmp_path / "a.csv", tmp_path / "b.jsonl", tmp_path / "c.log"
    csv.write_text("when;what;who\n1000;x;ada\n2000;x;ada\n3000;x;bob\n")
    lines.write_text("".join(f'{{"at": {each}, "key": "x", "size": 1000}}\n' for each in range(4)))
    log.write_text('::1 - ada [01/Jan/2026:00:00:00 +0000] "GET /x?token=1 HTTP/1.1" 200 512\n' * 2)
    found = {}
    for path, *options in (
        (csv, "--column", "time=when", "--column", "key=what", "--column", "user=who", "--unit", "ms"),
        (lines, "--format", "jsonl"),
        (log, "--format", "common", "--query"),
    ):
        document = tmp_path / "out.json"
        result = ran(path, *options, "--ttl", "none", "--policy", "cache_first", "--json", document)
        assert result.exit_code == 0, result.output
        read_back = written(document)
        found[path.name] = (
            read_back.trace.format,
            read_back.trace.duration_s,
            read_back.rows[0].outcome.origin_requests,
        )
    assert found == {"a.csv": ("csv", 2.0, 2), "b.jsonl": ("jsonl", 3.0, 1), "c.log": ("common", 0.0, 1)}


EMPTY: Final = b""
JUNK: Final = bytes(range(256)) * 20
HEADER: Final = b"time,key\n"
GOOD: Final = b"time,key\n1,a\n2,a\n"


@pytest.mark.parametrize(
    ("content", "options", "error"),
    [
        (EMPTY, (), "no trace: it is empty"),
        (HEADER, (), "no trace: "),
        (JUNK, (), "no trace: it is binary data"),
        (b"\x89PNG\r\n\x1a\n" + JUNK[1:], (), "no trace: "),
        (gzip.compress(GOOD)[:-12], (), "no trace: "),
        (b"no,columns\n1,2\n", (), "no trace: "),
        (GOOD, ("--format", "jsonl"), "no trace: "),
        (GOOD, ("--column", "key=nope"), "no trace: "),
        (GOOD, ("--column", "nope=key"), "--column: a column is said like key=url"),
        (GOOD, ("--delimiter", "ab"), "no trace: a delimiter is one character"),
        (GOOD, ("--policy", "cache_fist"), "--policy: no policy is called 'cache_fist'"),
        (GOOD, ("--ttl", "soon"), "--ttl: 'soon' is no time"),
        (GOOD, ("--ttl", ""), "--ttl: '' is no time"),
        (GOOD, ("--ttl", "9000000d"), "--ttl: a duration lies between 0 seconds and a century"),
        (GOOD, ("--stale", "-1s"), "--stale: '-1s' is no time"),
        (GOOD, ("--jitter", "1.5"), "--jitter: '1.5' is no share"),
        (GOOD, ("--capacity", "0"), "--capacity: '0' is no number of entries"),
        (GOOD, ("--capacity", "1.5"), "--capacity: '1.5' is no number of entries"),
        (GOOD, ("--eviction", "lfu"), "--eviction: no eviction is called 'lfu': there are s3fifo, lru, sieve"),
        (GOOD, ("--latency", "p50"), "--latency: 'p50' is no time"),
        (GOOD, ("--latency", "p101=5s"), "--latency: a latency reads like"),
        (GOOD, ("--latency", "2s..1s"), "--latency: a range goes from less to more"),
        (GOOD, ("--latency", "p10=2s,p20=1s,p30=3s"), "--latency: quantiles are pairs"),
        (GOOD, ("--failure-rate", "2"), "--failure-rate: '2' is no share"),
        (GOOD, ("--outage", "1h"), "--outage: an outage reads like 1h..1h5m"),
        (GOOD, ("--outage", "2h..1h"), "--outage: an outage ends after it begins"),
        (GOOD, ("--rate-limit", "0"), "--rate-limit: a rate limit is above 0"),
        (GOOD, ("--changes-every", "often"), "--changes-every: 'often' is no time"),
        (GOOD, ("--changes-every", "0"), "change_every_s is a number above 0"),
        (GOOD, ("--goal", "p98 under 3 s"), "--goal: a goal knows no 'p98'; did you mean p99?"),
        (GOOD, ("--goal", ""), "--goal: the goal says nothing"),
        (GOOD, ("--goal", "memory under 1 MB"), "--goal: the trace has no sizes, so nobody knows the memory"),
        (GOOD, ("--goal", "least memory"), "--goal: the trace has no sizes, so nobody knows the memory"),
        (GOOD, ("--warm-up", "1d"), "no request is left to be counted"),
        (GOOD, ("--html", "no/such/folder/x.html"), "cannot be written"),
        (GOOD, ("--json", "."), "cannot be written"),
        (GOOD, ("--json", "same", "--html", "same"), "--html and --json name the same file"),
        (GOOD, ("--ttl", ",".join(f"{each}s" for each in range(1_500))), "these are 3,000 configurations"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    options: tuple[str, ...],
    error: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    trace = tmp_path / "trace"
    trace.write_bytes(content)
    result = ran(trace, *options)

    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert error in line
    assert result.stdout == ""
    assert sorted(each.name for each in tmp_path.iterdir()) == ["trace"]


@pytest.mark.parametrize("trace", ["no-such-file", "."])
def test_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trace: str) -> None:
    monkeypatch.chdir(tmp_path)
    result = ran(trace)
    assert result.exit_code == 2
    assert "cannot be read" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_trace_itself_is_not_overwritten(trace: Path) -> None:
    before = trace.read_bytes()
    result = ran(trace, "--json", trace)
    assert result.exit_code == 2
    assert "is the trace itself" in result.stderr
    assert trace.read_bytes() == before


def test_one_file_by_two_names_is_not_written_twice(trace: Path, tmp_path: Path) -> None:
    document, link = tmp_path / "out.json", tmp_path / "link.html"
    link.symlink_to(document)
    result = ran(trace, "--json", document, "--html", link)
    assert (result.exit_code, result.stderr) == (2, "Error: --html and --json name the same file\n")


def test_without_plotly_a_report_is_refused_before_the_work(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "plotly" else object())
    result = ran(trace, "--html", trace.parent / "out.html")
    assert result.exit_code == 2
    assert "pip install 'cachemesh[simulation]'" in result.stderr


def test_the_standard_input_is_a_trace() -> None:
    result = CliRunner().invoke(simulate, ["-", "--ttl", "1m"], input=GOOD.decode())
    assert result.exit_code == 0
    assert "standard input (csv)" in result.output


def plan_of(trace: str) -> Plan:
    return Plan(trace, {}, list(grid(["cache_first", "network_first"], ["5s", "50s"])), OriginModel())


def test_a_trace_too_long_to_be_kept_is_read_again(trace: Path) -> None:
    assert run(plan_of(str(trace)), most_kept=10) == run(plan_of(str(trace)))


def test_what_cannot_be_read_again_is_told(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stdin() -> io.TextIOWrapper:
        return io.TextIOWrapper(io.BytesIO(trace.read_bytes()))

    monkeypatch.setattr(sys, "stdin", stdin())
    with pytest.raises(TraceError, match="more than 10 requests are read once for each configuration"):
        run(plan_of("-"), most_kept=10)
    monkeypatch.setattr(sys, "stdin", stdin())
    assert len(run(plan_of("-"))[1]) == 4


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="pipes have no names here")  # noqa: PTH112 (a str will do)
def test_a_pipe_with_a_name_is_read_once(trace: Path) -> None:
    """As shells make it of `<(zcat ...)`: to open it again would wait for ever, or find nothing."""

    def pipe() -> int:
        reads, writes = os.pipe()
        os.write(writes, trace.read_bytes())
        os.close(writes)
        return reads

    reads = pipe()
    with pytest.raises(TraceError, match="from a file, not from a pipe"):
        run(plan_of(f"/dev/fd/{reads}"), most_kept=10)
    os.close(reads)
    reads = pipe()
    assert len(run(plan_of(f"/dev/fd/{reads}"))[1]) == 4
    os.close(reads)


def test_a_terminal_sees_how_far_it_is(trace: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    run(plan_of(str(trace)), console=console)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "trace" in shown
    assert "100%" in shown
    assert "configurations" in shown


def test_a_pipe_sees_no_progress(trace: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    run(plan_of(str(trace)), console=console)
    assert isinstance(console.file, io.StringIO)
    assert not console.file.getvalue().strip()


def test_a_survey_counts_keys_users_and_repeats(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("time,key,user\n1,x,ada\n2,x,ada\n3,x,bob\n4,x,\n5,y,\n5,y,\n")
    survey = Survey(most_kept=3)
    with read(path) as reading:
        assert len(list(survey.seen(reading))) == 6
        summary = survey.summary("trace.csv", reading)
    assert (summary.requests, summary.keys, summary.users, summary.duration_s) == (6, 2, 2, 4.0)
    assert summary.repeats == pytest.approx(2 / 6)
    assert survey.kept is None


def test_it_is_a_command_of_cachemesh(trace: Path) -> None:
    assert COMMANDS["simulate"].extra == "simulation"
    done = subprocess.run(  # noqa: S603 (this interpreter, and a file of this test)
        [sys.executable, "-m", "cachemesh", "simulate", str(trace), "--goal", "p99 under 1 us"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "is no time" in done.stderr


def test_a_terminal_is_never_taken_to_have_no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "0")
    assert table.console().width > 0
    monkeypatch.setenv("COLUMNS", "91")
    assert table.console().width == 91


def test_an_alphabet_that_the_output_lacks_is_escaped(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = trace.rename(trace.with_name("\u00e9t\u00e9.csv"))
    written_to = io.BytesIO()
    out = io.TextIOWrapper(written_to, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert code_of(renamed, "--ttl", "1m") == 0
    assert rb"\xe9t\xe9.csv (csv)" in written_to.getvalue()


def test_without_a_standard_output_files_are_written(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = tmp_path / "out.json"
    monkeypatch.setattr(sys, "stdout", None)
    assert code_of(trace, "--ttl", "1m", "--json", document) == 0
    assert written(document).rows


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no such device here")  # noqa: PTH110 (as above)
def test_a_full_disk_is_one_line(trace: Path) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 (as above)
        done = subprocess.run(  # noqa: S603 (as above)
            [sys.executable, "-m", "cachemesh", "simulate", str(trace)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("Error: the standard output cannot be written: ")


def test_nobody_reads_what_it_prints(trace: Path) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    try:
        done = subprocess.run(  # noqa: S603 (as above)
            [sys.executable, "-m", "cachemesh", "simulate", str(trace)],
            stdout=writes,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writes)
    assert (done.returncode, done.stderr) == (141, "")
