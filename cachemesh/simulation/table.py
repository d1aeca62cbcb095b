"""A study on a terminal: a table of configurations. Needs rich, of the extra `simulation`."""

from __future__ import annotations

import io
import os
import re
import sys
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cachemesh.simulation.amounts import shown
from cachemesh.simulation.figures import columns, origin_in_words, trace_in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cachemesh.simulation.measures import Measure
    from cachemesh.simulation.study import Advice, Study

WIDTH: Final = 220
"""Where there is no terminal, and no COLUMNS in the environment."""

NAMES: Final = 24
"""So wide are names in a narrow terminal at the least: the longest name of a policy fits in."""

LEFT_OUT_FIRST: Final = (
    *("peak rate", "entries", "memory", "p50", "outdated share", "stale share", "p95", "age", "failures", "hit ratio"),
    *("p99", "staleness", "origin load"),
)
"""Columns, by what is missed least where a terminal is narrow."""

ON_FRONT: Final = "*"
CHOSEN: Final = ">"
BETWEEN: Final = 2
"""Spaces from one column to the next."""


class Output(Console):
    """Leaves it to the command what becomes of a pipe that nobody reads any more."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console() -> Console:
    """Of the standard output as it is now. Nothing that it is given is read as markup, or highlighted.

    What its encoding lacks is escaped there: the name of a file may be in any alphabet.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    said = os.environ.get("COLUMNS", "")
    width = int(said) if re.fullmatch("[1-9][0-9]{0,4}", said) else WIDTH
    if sys.stdout.isatty():
        width = get_terminal_size().columns  # Never 0: rich would believe a COLUMNS of 0, and show nothing.
    return Output(file=sys.stdout, markup=False, highlight=False, emoji=False, width=width, soft_wrap=False)


def show(study: Study, out: Console) -> None:
    """The trace, the origin, the configurations, and what is recommended."""
    out.print(facts((*trace_in_words(study.trace, study.warm_up_s), *origin_in_words(study.origin))))
    out.print()
    made, left_out = with_room(study, out.width)
    out.print(made)
    if left_out:
        names = ", ".join(measure.name for measure in left_out)
        out.print(f"No room here for {names}: a wider terminal has them, and so have --html and --json.")
    out.print(f"{ON_FRONT} on the Pareto front: no other has it better in one of {', '.join(study.front_of)},")
    out.print("  and in none of them worse.")
    if not study.knows_changes:
        out.print("  How often values change was not said (--changes-every), so staleness is taken to be the age.")
    if study.advice is not None:
        out.print()
        for line in advice(study.advice):
            out.print(line)


def facts(told: Iterable[tuple[str, str]]) -> Table:
    """Names and values, in two columns."""
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="dim")
    made.add_column()
    for name, value in told:
        made.add_row(Text(name), Text(plain(value), overflow="fold"))
    return made


def table(study: Study, measures: Sequence[Measure]) -> Table:
    """A row a configuration, in the order of the study. Only names may be wrapped: a figure is whole, or not there."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    made.add_column("", no_wrap=True)
    made.add_column("configuration", min_width=NAMES, vertical="bottom")
    for measure in measures:
        made.add_column(measure.name.replace(" ", "\n"), justify="right", vertical="bottom", no_wrap=True)
    chosen = None if study.advice is None else study.advice.index
    for index, row in enumerate(study.rows):
        marks = (CHOSEN if index == chosen else " ") + (ON_FRONT if row.is_on_front else "")
        style = "bold green" if index == chosen else "" if row.is_on_front else "dim"
        cells = (marks, row.name, *(shown(row.figures[each.name], each.unit) for each in measures))
        made.add_row(*map(Text, cells), style=style)
    return made


def with_room(study: Study, width: int) -> tuple[Table, list[Measure]]:
    """The table, `width` characters wide at the most, and the measures for which there is no room in it."""
    measures = columns(study)
    needed = {measure.name: _width(study, measure) for measure in measures}
    left_out: list[Measure] = []
    for measure in sorted(measures, key=lambda each: LEFT_OUT_FIRST.index(each.name)):
        wanted = (len(CHOSEN + ON_FRONT), NAMES, *(needed[each.name] for each in measures if each not in left_out))
        if sum(wanted) + BETWEEN * (len(wanted) - 1) <= width:
            break
        left_out.append(measure)
    return table(study, [each for each in measures if each not in left_out]), left_out


def _width(study: Study, measure: Measure) -> int:
    cells = (shown(row.figures[measure.name], measure.unit) for row in study.rows)
    return max(map(len, (*measure.name.split(), *cells)))


def advice(given: Advice) -> list[Text]:
    """The lines that say what to take."""
    head = "recommended" if given.is_met else "nobody meets the goal"
    return [
        Text(f"goal: {given.goal}"),
        Text.assemble((f"{head}: ", "bold"), (given.name, "bold green" if given.is_met else "bold yellow")),
        Text(f"  {given.reason}"),
    ]


def plain(text: str) -> str:
    r"""`text` without what a terminal would act upon: the name of a file may be anything.

    >>> print(plain("a\x1b[2Jb.csv"))
    a\x1b[2Jb.csv
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape", "replace").decode() for each in text)
