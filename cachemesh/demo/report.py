"""What the terminal shows: a live table where there is a terminal, plain lines where there is none.

All text of our own is ASCII, so that it prints under any encoding.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, Self

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cachemesh.demo.plan import Trouble
from cachemesh.demo.score import GRACE_S

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from rich.console import Console

    from cachemesh.demo.score import Row, Score

TROUBLE_STYLES: Final = {Trouble.NONE: "green", Trouble.OUTAGE: "bold red", Trouble.RATE_LIMIT: "bold yellow"}

# Heading -> width. Wide enough from the start, so that the live table stands still.
COLUMNS: Final = {
    "policy": 22,
    "calls": 7,
    "origin\nrequests": 8,
    "hit\nratio": 6,
    "p50\nms": 5,
    "p99\nms": 5,
    "stale\nanswers": 7,
    "failures\nseen": 8,
}
DEFINITIONS: Final = {
    "calls": "cache.get calls that were answered; prefetches are not among them",
    "origin": "all HTTP requests: also retries, background refreshes, prefetches",
    "hit": "the cache logged a hit: it answered with an entry, fresh or stale",
    "p50, p99": "time inside cache.get, nearest rank, failures included",
    "stale": f"older than its ttl when the caller got it, by more than {GRACE_S * 1_000:.0f} ms, counted\n"
    "from its arrival. stale_while_revalidate backs off after a failed\n"
    "refresh, so what expires during the outage stays stale for the run",
    "failures": "Failures that callers got; a 503 had been tried twice by then",
}


class Report:
    """Prints to `console`; `is_live` redraws one table in place while the traffic runs."""

    def __init__(self, console: Console, *, is_live: bool) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True) if is_live else None

    @classmethod
    def on(cls, console: Console, *, plain: bool) -> Self:
        """Live on a terminal that can redraw, unless `plain` lines are asked for."""
        return cls(console, is_live=not plain and console.is_interactive and sys.stdout.isatty())

    def say(self, text: str, style: str = "") -> None:
        """One line or more of text, as it is."""
        self._console.print(Text(text, style=style))

    def begin(self, policy: str) -> None:
        """The traffic under `policy` starts."""
        if self._live is None:
            self.say(f"{policy} ...")

    def tick(self, scores: Sequence[Score], waiting: Sequence[str], trouble: Trouble) -> None:
        """The traffic goes on: the last of `scores` moves, and those `waiting` have their turn later."""
        if self._live is not None:
            state = Text.assemble("origin: ", (trouble.value, TROUBLE_STYLES[trouble]))
            table = score_table([score.row() for score in scores], waiting)
            self._live.update(Group(table, state), refresh=True)

    def finish(self, scores: Sequence[Score]) -> None:
        """All is over: the table, what it means, and what the failures were."""
        self._console.print()
        self._console.print(score_table([score.row() for score in scores]))
        self._console.print()
        self._console.print(pairs(DEFINITIONS, "dim"))
        self._console.print("\nWhat the failures were", style="bold")
        self._console.print(pairs({score.policy: _kinds(score) for score in scores}, "cyan"))
        self._console.print()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()


def score_table(rows: Sequence[Row], waiting: Sequence[str] = ()) -> Table:
    """The table of all policies, 75 columns wide; those still `waiting` have no numbers yet."""
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for heading, width in COLUMNS.items():
        table.add_column(heading, justify="left" if heading == "policy" else "right", min_width=width, no_wrap=True)
    for row in rows:
        table.add_row(
            Text(row.policy, style="cyan"),
            f"{row.calls:,}",
            f"{row.origin_requests:,}",
            f"{row.hit_ratio:.1%}",
            _ms(row.p50_ms),
            _ms(row.p99_ms),
            _count(row.stale, "yellow"),
            _count(row.failures, "red"),
        )
    for policy in waiting:
        table.add_row(policy, *("-" for _ in range(len(COLUMNS) - 1)), style="dim")
    return table


def pairs(meanings: Mapping[str, str], style: str) -> Table:
    """Terms and what they mean, a line each."""
    table = Table.grid(padding=(0, 2))
    for term, meaning in meanings.items():
        table.add_row(Text(term, style=style), Text(meaning, style="dim"))
    return table


def _kinds(score: Score) -> str:
    return ", ".join(f"{count:,} x {kind}" for kind, count in score.failures.most_common()) or "none"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.3f}" if milliseconds < 1 else f"{milliseconds:.1f}"


def _count(count: int, style: str) -> Text:
    return Text(f"{count:,}", style=style if count else "dim")
