"""`cachemesh simulate`, as click sees it. Needs click and rich, and for a report plotly: the extra `simulation`."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cachemesh.simulation import arguments, table
from cachemesh.simulation.configuration import Configuration, grid, policy_named
from cachemesh.simulation.engine import simulate as simulated
from cachemesh.simulation.goal import Goal, GoalError
from cachemesh.simulation.measures import MEMORY, OF_UNKNOWN_CHANGES, WORDS
from cachemesh.simulation.origin import OriginModel
from cachemesh.simulation.study import Study
from cachemesh.simulation.survey import MOST_KEPT, Survey
from cachemesh.simulation.traces.instants import IN_A_SECOND
from cachemesh.simulation.traces.reading import TraceFormat, read
from cachemesh.simulation.traces.source import STDIN
from cachemesh.simulation.traces.trouble import TraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from cachemesh.core.policies import CachePolicy
    from cachemesh.shell.lifetime import Lifetime
    from cachemesh.simulation.configuration import Eviction
    from cachemesh.simulation.measures import Measure
    from cachemesh.simulation.origin import Latency
    from cachemesh.simulation.outcome import Outcome
    from cachemesh.simulation.request import Request
    from cachemesh.simulation.survey import TraceSummary
    from cachemesh.simulation.traces.columns import Columns
    from cachemesh.simulation.traces.reading import Reading

T = TypeVar("T")

OK: Final = 0
NOBODY_MEETS_IT: Final = 2
NOBODY_READS: Final = 141  # 128 + SIGPIPE, as shells have it.

POLICIES: Final = "cache_first,stale_while_revalidate"
TTLS: Final = "30s,5m,1h"
MOST_CONFIGURATIONS: Final = 2_000
MOST_CLAMPED: Final = 0.1
"""Of a load. More of them moved to a later time, and figures would be of another load."""
LONGEST_NAME: Final = 200


class CannotSimulate(click.ClickException):
    """Ends the command with 2 and one line."""

    exit_code = 2


def one(parse: Callable[[str], T]) -> Callable[[click.Context, click.Parameter, str | None], T | None]:
    """For an option with one value."""

    def callback(context: click.Context, parameter: click.Parameter, text: str | None) -> T | None:
        del context
        return None if text is None else _parsed(parse, parameter, text)

    return callback


def many(parse: Callable[[str], T]) -> Callable[[click.Context, click.Parameter, Sequence[str]], list[T]]:
    """For one with values between commas, that may be given more than once."""

    def callback(context: click.Context, parameter: click.Parameter, texts: Sequence[str]) -> list[T]:
        del context
        return [_parsed(parse, parameter, each) for text in texts for each in text.split(",")]

    return callback


def _parsed(parse: Callable[[str], T], parameter: click.Parameter, text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        msg = f"{parameter.opts[0]}: {error}"
        raise CannotSimulate(msg) from None


def _columns(context: click.Context, parameter: click.Parameter, texts: Sequence[str]) -> Columns | None:
    del context
    try:
        return arguments.columns(texts)
    except ValueError as error:
        msg = f"{parameter.opts[0]}: {error}"
        raise CannotSimulate(msg) from None


@click.command()
@click.argument("trace")
@click.option(
    "--format",
    "form",
    type=click.Choice([each.value for each in TraceFormat]),
    help="Of the trace.  [default: by content]",
)
@click.option("--column", "columns", multiple=True, callback=_columns, help="key=NAME; for time, key, user, size.")
@click.option("--unit", type=click.Choice(list(IN_A_SECOND)), help="Of times that are numbers.  [default: by size]")
@click.option("--delimiter", help="Of CSV.  [default: by content]")
@click.option("--query", is_flag=True, help="Keys of a web log with the query.")
@click.option("--policy", "policies", multiple=True, default=[POLICIES], show_default=True, callback=many(policy_named))
@click.option(
    "--ttl",
    "ttls",
    multiple=True,
    default=[TTLS],
    show_default=True,
    callback=many(arguments.duration_or_none),
    help="Durations, or none: for ever.",
)
@click.option(
    "--stale", multiple=True, callback=many(arguments.window), help="Served so long past the ttl; also ever, or none."
)
@click.option(
    "--stale-if-error", multiple=True, callback=many(arguments.duration), help="The same where a fetch fails."
)
@click.option(
    "--jitter",
    multiple=True,
    callback=many(arguments.share),
    help="Of the ttl, taken away by chance. Like any window, it closes those not given.",
)
@click.option(
    "--capacity",
    "capacities",
    multiple=True,
    default=["none"],
    show_default=True,
    callback=many(arguments.capacity),
    help="Entries.",
)
@click.option(
    "--eviction",
    "evictions",
    multiple=True,
    default=["s3fifo"],
    show_default=True,
    callback=many(arguments.eviction),
    help="s3fifo, lru, sieve.",
)
@click.option(
    "--latency",
    default="50ms",
    show_default=True,
    callback=one(arguments.latency),
    help="Of the origin: 50ms, 20ms..200ms, p50=50ms,p99=400ms.",
)
@click.option("--failure-rate", default="0", show_default=True, callback=one(arguments.share), help="Of its requests.")
@click.option(
    "--outage",
    "outages",
    multiple=True,
    callback=many(arguments.outage),
    help="FROM..UNTIL, after the first request: 1h..1h5m.",
)
@click.option("--rate-limit", callback=one(arguments.rate), help="Requests a second that it answers.")
@click.option("--changes-every", callback=one(arguments.duration), help="How often a value becomes another one.")
@click.option("--goal", "wish", help='Such as "p99 under 50 ms, staleness under 60 s, least origin load".')
@click.option("--html", "page", metavar="FILE", help="Write a report with charts.")
@click.option("--json", "document", metavar="FILE", help="Write the same for machines.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the origin's chance.")
@click.option(
    "--warm-up", default="0", show_default=True, callback=one(arguments.duration), help="So long nothing is counted."
)
def simulate(  # noqa: PLR0913 (the options of the command)
    *,
    trace: str,
    form: str | None,
    columns: Columns | None,
    unit: str | None,
    delimiter: str | None,
    query: bool,
    policies: list[CachePolicy],
    ttls: list[float | None],
    stale: list[float | None],
    stale_if_error: list[float],
    jitter: list[float],
    capacities: list[int | None],
    evictions: list[Eviction],
    latency: Latency,
    failure_rate: float,
    outages: list[tuple[float, float]],
    rate_limit: float | None,
    changes_every: float | None,
    wish: str | None,
    page: str | None,
    document: str | None,
    seed: int,
    warm_up: float,
) -> int:
    """Choose a policy on your own traffic: run the cache over TRACE in virtual time, in many configurations.

    TRACE is CSV with named columns, JSON lines, a Common or Combined Log, or what a Recorder wrote (older files beside
    it are found), also compressed by gzip or zstd; - is the standard input. Lines that cannot be read are counted and
    left out. Options with several values take them between commas, or are given more than once; every combination is
    tried, each against the same modelled origin.

    The table marks with * who is on the Pareto front. A goal names limits and one thing to make least or most, of: p50,
    p95, p99, mean wait, staleness, age, hit ratio, origin load, peak rate, failures, stale share, outdated share,
    entries, memory. Staleness is for how long a value had been outdated, or without --changes-every how old it is.

    Not modelled: stores and other processes, writes, removals and tags, timeouts and callers who leave, circuit
    breakers, retries (programs have them: see Configuration), and what an answer says of its own lifetime.

    The exit code is 0, or 2 if the trace or an option cannot be used, or if nobody meets the goal; the table, the one
    that comes nearest, and the files that were asked for are there in this case too.
    """
    goal = _goal(wish, WORDS if changes_every is not None else OF_UNKNOWN_CHANGES)
    _check_files(trace, page, document)
    try:
        configurations = _grid(policies, ttls, arguments.windows(stale, stale_if_error, jitter), capacities, evictions)
        origin = OriginModel(latency, failure_rate, tuple(outages), rate_limit, changes_every)
        plan = Plan(
            trace,
            {"format": form, "columns": columns, "unit": unit, "delimiter": delimiter, "query": query},
            configurations,
            origin,
            seed,
            warm_up,
        )
        summary, outcomes = run(plan)
    except ValueError as error:
        raise CannotSimulate(table.plain(str(error))) from None
    if not outcomes[0].requests:
        msg = f"no request is left to be counted: all {summary.requests:,} are in the warm-up"
        raise CannotSimulate(msg)
    if goal is not None and MEMORY in goal.measures and not _knows_sizes(outcomes):
        msg = "--goal: the trace has no sizes, so nobody knows the memory; a goal may speak of entries"
        raise CannotSimulate(msg)
    found = Study.of(outcomes, goal, trace=summary, origin=origin, seed=seed, warm_up_s=warm_up)
    if document is not None:
        _write(document, found.to_json())
    if page is not None:
        from cachemesh.simulation.report import to_page  # noqa: PLC0415 (plotly is large, and may not be there)

        _write(page, to_page(found).encode())
    try:
        if sys.stdout is not None:  # It was closed: the exit code is told, and files are written.
            table.show(found, table.console())
            sys.stdout.flush()
    except BrokenPipeError:
        _write_no_more()
        return NOBODY_READS
    except OSError as error:
        _write_no_more()
        msg = f"the standard output cannot be written: {error.strerror or type(error).__name__}"
        raise CannotSimulate(msg) from None
    return OK if found.advice is None or found.advice.is_met else NOBODY_MEETS_IT


def _knows_sizes(outcomes: Sequence[Outcome]) -> bool:
    """Whether sizes are more than counts of entries. Where no entry was held, it is all the same."""
    held = [(each.most_entries, each.most_size) for each in outcomes if each.most_entries]
    return not held or any(size != entries for entries, size in held)


def _write_no_more() -> None:
    """What is left to be written goes nowhere, at the interpreter's end as well."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _goal(wish: str | None, words: Mapping[str, Measure]) -> Goal | None:
    try:
        return None if wish is None else Goal.parse(wish, words)
    except GoalError as error:
        msg = f"--goal: {error}"
        raise CannotSimulate(msg) from None


def _grid(
    policies: list[CachePolicy],
    ttls: list[float | None],
    windows: list[Lifetime | None],
    capacities: list[int | None],
    evictions: list[Eviction],
) -> list[Configuration]:
    count = len(policies) * len(ttls) * len(windows) * len(capacities) * len(evictions)
    if count > MOST_CONFIGURATIONS:
        msg = f"these are {count:,} configurations; {MOST_CONFIGURATIONS:,} can be tried at once"
        raise CannotSimulate(msg)
    return list(grid(policies, ttls, windows, capacities, evictions))


# Running


class Plan(Struct, frozen=True):
    """What is to be run. `reading`: what is said to the reader of the trace."""

    trace: str
    reading: dict[str, Any]
    configurations: list[Configuration]
    origin: OriginModel
    seed: int = 0
    warm_up_s: float = 0.0


def run(
    plan: Plan, *, most_kept: int = MOST_KEPT, console: Console | None = None
) -> tuple[TraceSummary, list[Outcome]]:
    """The first configuration runs while the trace is read. The others run over what was kept, or read it again."""
    survey = Survey(most_kept)
    name = "standard input" if plan.trace == STDIN else Path(plan.trace).name
    with bars(console) as shown:
        with _reading(plan, shown) as reading:
            outcomes = [_outcome(plan, survey.seen(reading), plan.configurations[0])]
        summary = survey.summary(name[:LONGEST_NAME], reading)
        if summary.clamped > summary.requests * MOST_CLAMPED:
            msg = f"times go far back, for {summary.clamped:,} of {summary.requests:,} requests; sort it by time"
            raise TraceError(msg)
        if len(plan.configurations) > 1 and survey.kept is None and not _can_be_read_again(plan.trace):
            msg = (
                f"more than {most_kept:,} requests are read once for each configuration, "
                f"so from a file, not from {'-' if plan.trace == STDIN else 'a pipe'}"
            )
            raise TraceError(msg)
        for done, configuration in enumerate(plan.configurations[1:], 1):
            shown.configurations(done, len(plan.configurations))
            if survey.kept is not None:
                outcomes.append(_outcome(plan, survey.kept, configuration))
            else:
                with _reading(plan, shown) as again:
                    outcomes.append(_outcome(plan, again, configuration))
    return summary, outcomes


def _can_be_read_again(trace: str) -> bool:
    return trace != STDIN and Path(trace).is_file()


def _reading(plan: Plan, shown: Bars) -> Reading:
    return read(plan.trace, progress=shown.bytes_read, **plan.reading)


def _outcome(plan: Plan, requests: Iterable[Request], configuration: Configuration) -> Outcome:
    return simulated(requests, plan.origin, configuration, plan.seed, warm_up_s=plan.warm_up_s)


class Bars:
    """How far the reading is, and how far the configurations are."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._reading = progress.add_task("trace", total=None)
        self._running = progress.add_task("configurations", total=None, visible=False)

    def bytes_read(self, done: int, total: int | None) -> None:
        """As the reader of a trace tells it."""
        self._progress.update(self._reading, completed=done, total=total)

    def configurations(self, done: int, total: int) -> None:
        self._progress.update(self._running, completed=done, total=total, visible=True)


@contextmanager
def bars(console: Console | None = None) -> Iterator[Bars]:
    """On a terminal, and gone when all is done; elsewhere nothing is shown."""
    out = console or Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        yield Bars(progress)


# Files


def _check_files(trace: str, *files: str | None) -> None:
    """Said before the work, not after it."""
    if files[0] is not None and find_spec("plotly") is None:
        msg = "--html needs plotly; run: pip install 'cachemesh[simulation]'"
        raise CannotSimulate(msg)
    given = [Path(file) for file in files if file is not None]
    for path in given:
        try:
            is_well = path.absolute().parent.is_dir() and not path.is_dir()
            is_trace = trace != STDIN and path.exists() and Path(trace).exists() and path.samefile(trace)
        except (OSError, ValueError):
            is_well, is_trace = False, False
        if not is_well or is_trace:
            reason = "is the trace itself" if is_trace else "cannot be written: no such folder, or a folder itself"
            msg = f"{table.plain(str(path))[:LONGEST_NAME]} {reason}"
            raise CannotSimulate(msg)
    if len(given) > 1 and os.path.realpath(given[0]) == os.path.realpath(given[1]):
        msg = "--html and --json name the same file"
        raise CannotSimulate(msg)


def _write(file: str, content: bytes) -> None:
    try:
        Path(file).write_bytes(content)
    except OSError as error:
        msg = f"{table.plain(file)[:LONGEST_NAME]} cannot be written: {error.strerror or type(error).__name__}"
        raise CannotSimulate(msg) from None
