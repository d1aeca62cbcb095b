"""What there is to see. Nothing is asked or decided here."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from returns.pipeline import is_successful
from rich.console import Group
from rich.progress import BarColumn, DownloadColumn, Progress
from rich.table import Table
from rich.text import Text

from cachemesh import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from note import Notebook
    from returns.result import Result
    from rich.console import Console, RenderableType

    from cachemesh import CacheError, Refused, Served
    from cachemesh.sources import NetworkFailure

SOURCES: Final[Mapping[Source, str]] = {
    Source.ORIGIN: "from the server",
    Source.JOINED: "from the server",
    Source.MEMORY: "from memory",
    Source.STORE: "from the file",
    Source.STAND_IN: "OFFLINE, from the cache",
}

HELP: Final = "login NAME, logout, add TEXT, done N, draw N FILE, look N FILE, offline, online, restart, quit"


def screen(
    user: str | None, notes: Result[Served[Notebook], Refused[NetworkFailure | CacheError]], said: str
) -> RenderableType:
    """The whole screen: `notes` of `user`, how old they are, what there is to say, and the commands."""
    top = Text("Nobody is signed in.", style="bold") if user is None else table(user, notes)
    return Group(top, Text(said), Text(HELP, style="dim"))


def table(user: str, notes: Result[Served[Notebook], Refused[NetworkFailure | CacheError]]) -> Table:
    """The notes, each with the number that commands know it by."""
    shown = Table("", "", title=f"{user}'s notes", caption=caption(notes), show_header=False, width=50)
    if is_successful(notes):
        for number, note in enumerate(notes.unwrap().value, start=1):
            shown.add_row(f"{number}", Text(note.text, style="strike dim" if note.is_done else ""))
    return shown


def caption(notes: Result[Served[Notebook], Refused[NetworkFailure | CacheError]]) -> str:
    """Where they come from. What is old says so."""
    if not is_successful(notes):
        return f"nothing to show: {notes.failure().error!r}"
    served = notes.unwrap()
    return f"{SOURCES[served.source]}, {age(served.age)} old"


def age(seconds: float) -> str:
    """A length of time, as one says it."""
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


@contextmanager
def bar(console: Console) -> Iterator[Callable[[int, int | None], None]]:
    """A bar for a file on its way. What is yielded moves it."""
    with Progress(BarColumn(), DownloadColumn(), console=console) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
