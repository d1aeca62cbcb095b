"""What people read: tables."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cachemesh.store_cli.shown import shown, shown_duration, shown_size
from cachemesh.stores.report import Level

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cachemesh.core.scopes import CacheScope
    from cachemesh.store_cli.rows import Figures, Row
    from cachemesh.stores.report import Finding, StoreStats

WIDTH: Final = 160
"""Where there is no terminal."""

STYLES: Final = {Level.OK: "green", Level.NOTE: "", Level.WARNING: "yellow", Level.ERROR: "bold red"}
MOST_TAGS: Final = 5


class Output(Console):
    """Leaves it to the command what becomes of a pipe that nobody reads any more."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console() -> Console:
    """Of the standard output as it is now. Nothing that it is given is read as markup, or highlighted."""
    width = None if sys.stdout.isatty() else WIDTH
    return Output(file=sys.stdout, markup=False, highlight=False, emoji=False, width=width, soft_wrap=False)


def cell(text: str, out: Console, style: str = "") -> Text:
    """A text that is safe to show; what the terminal cannot write is escaped."""
    if not out.encoding.startswith("utf"):
        text = text.replace("…", "...").encode(out.encoding, "backslashreplace").decode(out.encoding, "replace")
    return Text(text, style=style, overflow="fold")


def entries(rows: Sequence[Row], total: int, now: float) -> None:
    """What `ls` has found, of `total`."""
    out = console()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("key", "scope", "user", "size", "age", "expires in", "tags", "schema", ""):
        table.add_column(name, justify="right" if name in {"size", "age", "expires in"} else "left")
    for row in rows:
        texts = (
            shown(row.key),
            row.scope.value,
            shown(row.user or "", 24),
            shown_size(row.size_bytes),
            "" if row.created_at is None else shown_duration(now - row.created_at),
            "" if row.is_encrypted else shown_end(row.expires_at, now),
            shown_tags(row.tags),
            shown(row.schema, 24),
            "encrypted" if row.is_encrypted else "failure" if row.is_failure else "",
        )
        table.add_row(*(cell(text, out) for text in texts))
    out.print(table)
    out.print(f"{len(rows)} of {total} entries" if len(rows) < total else f"{total} entries")


def shown_end(expires_at: float | None, now: float) -> str:
    if expires_at is None:
        return "never"
    return "expired" if expires_at <= now else shown_duration(expires_at - now)


def shown_tags(tags: Sequence[str]) -> str:
    more = [f"and {len(tags) - MOST_TAGS} more"] if len(tags) > MOST_TAGS else []
    return ", ".join([*(shown(tag, 24) for tag in tags[:MOST_TAGS]), *more])


def fields(pairs: Mapping[str, str]) -> None:
    """Names and what they are, a line each. What is in `pairs` is escaped already."""
    out = console()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, text in pairs.items():
        table.add_row(name, cell(text, out))
    out.print(table)


def stats(found: StoreStats, scopes: Mapping[CacheScope, Figures], now: float) -> None:
    """How much there is, and of what age, for each scope; what else the store knows of itself."""
    out = console()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("scope", "entries", "failures", "expired", "encrypted", "size", "newest", "oldest"):
        table.add_column(name, justify="left" if name == "scope" else "right")
    for scope, figures in scopes.items():
        ages = ["" if at is None else shown_duration(now - at) for at in (figures.newest_at, figures.oldest_at)]
        counts = (figures.entries, figures.failures, figures.expired, figures.encrypted)
        table.add_row(scope.value, *map(str, counts), shown_size(figures.size_bytes), *ages)
    out.print(table)
    out.print()
    fields(
        {
            "tombstones": str(found.tombstones),
            "size": f"{shown_size(found.size_bytes)} ({found.size_bytes} bytes)",
            **{shown(name.replace("_", " ")): shown(str(value), 500) for name, value in found.details.items()},
        }
    )


def findings(found: Sequence[Finding]) -> None:
    out = console()
    table = Table(box=None, show_header=False, pad_edge=False)
    for each in found:
        table.add_row(
            cell(each.level.value, out, STYLES[each.level]),
            cell(shown(each.subject), out),
            cell(shown(each.text, 500), out),
        )
    out.print(table)
