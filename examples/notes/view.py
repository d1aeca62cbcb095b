"""What there is to see. Nothing is asked or decided here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from returns.pipeline import is_successful
from rich.console import Group
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from cachemesh import Source

if TYPE_CHECKING:
    from note import Notebook
    from returns.result import Result
    from rich.console import Console, RenderableType

    from cachemesh import CacheError, Refused, Served
    from cachemesh.sources import NetworkFailure

HELP = "login NAME, logout, add TEXT, done N, draw N FILE, look N FILE, offline, online, restart, quit"


def screen(
    user: str | None, notes: Result[Served[Notebook], Refused[NetworkFailure | CacheError]], said: str
) -> RenderableType:
    """The whole screen: `notes` of `user`, how old they are, what there is to say, and the commands."""
    if user is None:
        return Group(Text("Nobody is signed in.", style="bold"), Text(said), Text(HELP, style="dim"))
    return Group(table(user, notes), Text(said), Text(HELP, style="dim"))


def table(user: str, notes: Result[Served[Notebook], Refused[NetworkFailure | CacheError]]) -> Table:
    """The notes, each with the number that commands know it by."""
    shown = Table("", "", title=f"{user}'s notes", caption=caption(notes), show_header=False, min_width=40)
    if is_successful(notes):
        for number, note in enumerate(notes.unwrap().value, start=1):
            shown.add_row(f"{number}", f"[strike dim]{note.text}" if note.is_done else note.text)
    return shown


def caption(notes: Result[Served[Notebook], Refused[NetworkFailure | CacheError]]) -> str:
    """Where they come from. What is old says so."""
    if not is_successful(notes):
        return f"nothing to show: {notes.failure().error!r}"
    served = notes.unwrap()
    if served.source is Source.STAND_IN:
        return f"OFFLINE: as of {age(served.age)} ago"
    return f"from the {served.source}, {age(served.age)} old"


def age(seconds: float) -> str:
    """A length of time, as one says it."""
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def bar(console: Console) -> Progress:
    """A bar for a file on its way."""
    return Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=console)
