"""`cachemesh replay`, as click sees it: what a recorded cache held, and why it answered as it did."""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cachemesh.core.lifetimes import verdict
from cachemesh.simulation.log import fold
from cachemesh.simulation.log.reader import LogReader, NoCommandLogError
from cachemesh.simulation.log.what_if import NO_CHANGE, WhatIf

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cachemesh.core.model import State
    from cachemesh.simulation.log.callers import Answered, Totals
    from cachemesh.simulation.log.fold import Replay

MOST_ROWS: Final = 20
WIDEST: Final = 60
WIDTH: Final = 160
"""Where there is no terminal."""
MOST_JSON_ANSWERS: Final = 100_000


@click.command("replay")
@click.argument("log", metavar="LOG", type=click.Path(path_type=Path))
@click.option("--at", "at", metavar="T", help="Stop there: seconds since the log began, or an instant of ISO 8601.")
@click.option("--key", metavar="K", help="Only this key: its hash, or itself in a log with clear keys.")
@click.option(
    "--what-if", "what_if", metavar="CHANGES", help="The same asks otherwise, as in ttl=30s,policy=network_first."
)
@click.option("--limit", type=click.IntRange(0), default=MOST_ROWS, show_default=True, help="Rows of each table.")
@click.option("--json", "as_json", is_flag=True, help="JSON for machines, in ASCII.")
def replay(  # noqa: PLR0913 (the options of the command)
    *, log: Path, at: str | None, key: str | None, what_if: str | None, limit: int, as_json: bool
) -> int:
    """Fold a command log again: what the cache held, and why each answer was given.

    LOG is what a Recorder wrote; older files beside it (LOG.1, ...) are found. The reducer is the cache's own, so a
    log that is whole replays exactly. Keys are shown as they stand in the log.

    --what-if takes ttl, policy, serve_stale, stale_if_error, refresh_ahead and capacity. The asks and the orders of
    the program are kept; a fetch takes as long, and ends in the same way, as the recorded one of its key that began
    nearest to it. Left out are the store, the timeouts of callers, and callers that were cancelled. The column
    "modelled" is the same model with nothing changed: how far it is from "recorded" is the error of the model.

    The exit code is 2 where LOG cannot be read or an option is wrong.
    """
    try:
        changes = None if what_if is None else WhatIf.parse(what_if)
        stop = None if at is None else seconds_of(at, log)
        told = fold.replay(log, at=stop)
        modelled = None if changes is None else fold.replay(log, NO_CHANGE, at=stop).totals
        other = None if changes is None else fold.replay(log, changes, at=stop).totals
    except NoCommandLogError as error:
        raise wrong(log, str(error)) from None
    except OSError as error:
        raise wrong(log, f"cannot be read: {error.strerror or type(error).__name__}") from None
    except ValueError as error:
        raise wrong(None, str(error)) from None
    if as_json:
        click.echo(as_ascii(document(told, modelled, other, key)))
    else:
        _print(told, modelled, other, key, limit)
    return 0


class WrongInputError(click.ClickException):
    """One line, and exit code 2."""

    exit_code = 2


def wrong(log: Path | None, what: str) -> WrongInputError:
    return WrongInputError(shown(what, 200) if log is None else f"{shown(str(log))} {shown(what, 200)}")


def seconds_of(at: str, log: Path) -> float:
    """`--at` in seconds since the log began. ValueError where it is none."""
    try:
        seconds = float(at)
    except ValueError:
        seconds = _since_beginning(at, log)
    if not isfinite(seconds) or seconds < 0:
        msg = "--at is a number of seconds, from 0 on, or an instant that the log has come to"
        raise ValueError(msg)
    return seconds


def _since_beginning(at: str, log: Path) -> float:
    try:
        instant = datetime.fromisoformat(at).timestamp()
    except (ValueError, OverflowError, OSError):
        msg = "--at is a number of seconds since the log began, or an instant as in 2026-01-31T12:00:00+00:00"
        raise ValueError(msg) from None
    reader = LogReader(log)
    first = next((now for line in reader if (now := _instant(line)) is not None), 0.0)
    return instant - reader.header.epoch_offset - first


def _instant(line: object) -> float | None:
    now = getattr(getattr(line, "command", None), "now", None)
    return now if isinstance(now, float) else None


def document(told: Replay, modelled: Totals | None, other: Totals | None, key: str | None) -> dict[str, Any]:
    """All of it, for JSON."""
    chosen = [each for each in told.answers if key is None or each.key == key]
    found: dict[str, Any] = {
        "log": {
            **msgspec.structs.asdict(told.header),
            "is_whole": told.is_whole,
            "is_closed": told.is_closed,
            "is_torn": told.is_torn,
            "unreadable": told.unreadable,
            "lost": told.lost,
            "missing_files": told.missing,
            "unknown": told.unknown,
            "differences": told.differences,
        },
        "lasted_s": told.lasted_s,
        "totals": totals_of(told.totals),
        "entries": list(entries_of(told, key)),
        "answers": [msgspec.structs.asdict(each) for each in chosen[:MOST_JSON_ANSWERS]],
        "answers_left_out": max(0, len(chosen) - MOST_JSON_ANSWERS),
    }
    if modelled is not None and other is not None:
        found["modelled"], found["what_if"] = totals_of(modelled), totals_of(other)
    return found


def totals_of(totals: Totals) -> dict[str, Any]:
    return {**msgspec.structs.asdict(totals), "served": totals.served}


def entries_of(told: Replay, key: str | None) -> Iterable[dict[str, Any]]:
    """What the cache held, by owner and key."""
    state: State[Any] = told.state
    now = told.began_at + told.lasted_s
    owners = sorted(state.partitions.keys(), key=lambda owner: (owner[0], owner[1] or ""))
    for owner in owners:
        partition = state.partitions.get(owner)
        assert partition is not None
        for name in sorted(partition.entries.keys()):
            entry = partition.entries.get(name)
            if entry is None or (key is not None and name != key):
                continue
            yield {
                "key": name,
                "scope": owner[0].value,
                "user": owner[1],
                "type": entry.answer.kind,
                "age_s": max(0.0, now - entry.created_at),
                "expires_in_s": None if not isfinite(entry.expires_at) else entry.expires_at - now,
                "freshness": verdict(entry, now, state, owner).value,
                "tags": [] if entry.terms is None else list(entry.terms.tags),
            }


def as_ascii(found: object) -> str:
    """JSON that a terminal can do nothing with but show. Numbers that JSON has not are null."""
    plain = msgspec.json.decode(msgspec.json.encode(found))
    return json.dumps(plain, ensure_ascii=True, allow_nan=False).replace("\x7f", "\\u007f")


def shown(text: str, widest: int = WIDEST) -> str:
    r"""`text` on one line, without what a terminal would act upon.

    >>> print(shown("a\x1b[31mb\n"))
    a\x1b[31mb\n
    """
    cut = text if len(text) <= widest else f"{text[: widest - 1]}…"
    return re.sub(r"[^ -~]", _escape, cut)


def _escape(found: re.Match[str]) -> str:
    char = found[0]
    return char if (char.isprintable() and char.isalnum()) or char == "…" else ascii(char)[1:-1]


def _print(told: Replay, modelled: Totals | None, other: Totals | None, key: str | None, limit: int) -> None:
    width = None if sys.stdout.isatty() else WIDTH
    console = Console(file=sys.stdout, markup=False, highlight=False, emoji=False, width=width)
    for line in remarks(told):
        console.print(Text(line))
    console.print(_totals_table(told, modelled, other))
    entries = list(entries_of(told, key))
    table = Table(
        "key", "scope", "user", "type", "age", "expires in", "freshness", title="Entries", title_justify="left"
    )
    for each in entries[:limit]:
        left = each["expires_in_s"]
        table.add_row(
            *(Text(shown(str(part))) for part in (each["key"], each["scope"], each["user"] or "", each["type"])),
            f"{each['age_s']:.3f} s",
            "never" if left is None else f"{left:.3f} s",
            each["freshness"],
        )
    console.print(table)
    _tell_rest(console, len(entries), limit)
    _print_answers(console, [each for each in told.answers if key is None or each.key == key], limit)


def _print_answers(console: Console, answers: list[Answered], limit: int) -> None:
    table = Table("at", "key", "answer", "waited", "why", title="Last answers")
    for answer in answers[-limit:] if limit else []:
        table.add_row(
            f"{answer.at:.3f} s",
            Text(shown(answer.key)),
            answer.kind.value + (" (joined)" if answer.joined else ""),
            "" if answer.waited_s is None else f"{answer.waited_s:.3f} s",
            Text(shown(answer.why, 200)),
        )
    console.print(table)
    _tell_rest(console, len(answers), limit)


def _tell_rest(console: Console, count: int, limit: int) -> None:
    if count > limit:
        console.print(f"... and {count - limit} more: --limit shows more, --json all.")


def remarks(told: Replay) -> Iterable[str]:
    """What is to be known of the log before its figures are believed."""
    yield (
        f"Command log {told.header.log}: {told.totals.asks} asks in {told.lasted_s:.3f} s"
        f"{'' if told.header.keys == 'clear' else ', keys hashed'}."
    )
    if told.unreadable:
        yield f"{told.unreadable} lines are unreadable, and left out."
    if told.lost:
        yield f"{told.lost} lines were left out by the recorder: the disk was too slow."
    if told.missing:
        yield f"{told.missing} older files were rotated away: the log begins in the middle."
    if told.unknown:
        yield f"{told.unknown} asks were about what the log has lost the beginning of."
    if told.is_torn:
        yield "The last line was cut off."
    if told.differences:
        yield f"{told.differences} asks were answered otherwise than the log says: another version wrote it."


def _totals_table(told: Replay, modelled: Totals | None, other: Totals | None) -> Table:
    columns = [told.totals, *(each for each in (modelled, other) if each is not None)]
    table = Table("", *("recorded", "modelled", "what if")[: len(columns)])
    for name in columns[0].__struct_fields__:
        table.add_row(name, *(str(getattr(each, name)) for each in columns))
    table.add_row("served from memory", *(f"{each.served:.1%}" for each in columns))
    return table
