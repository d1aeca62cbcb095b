"""The `cachemesh` command.

Its packages come with the extras `cli` and `demo`. The library itself must
import without them, so they are looked for here, before the first import that
needs one; and each command is imported when it is asked for, so that none wants
the packages of another one.
"""

from __future__ import annotations

import io
import re
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, NoReturn

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    import click


class Part(Struct, frozen=True):
    """Where a command is, and what it takes to import it."""

    module: str
    extra: str
    packages: tuple[str, ...]
    help: str

    @property
    def missing(self) -> list[str]:
        return [name for name in self.packages if find_spec(name) is None]

    @property
    def advice(self) -> str:
        """What to do about the packages that are not there."""
        return f"{', '.join(self.missing)} not found; run: pip install 'cachemesh[{self.extra}]'"


COMMANDS: Final = {
    "demo": Part(
        "cachemesh.demo.command",
        "demo",
        ("click", "rich", "httpx2"),
        "Read a slow, flaky HTTP origin through the cache, under each policy.",
    ),
    "simulate": Part(
        "cachemesh.simulation.command",
        "simulation",
        ("click", "rich"),
        "Choose a policy on your own traffic, in virtual time.",
    ),
    "replay": Part(
        "cachemesh.simulation.log.command",
        "cli",
        ("click", "rich"),
        "Say what a recorded cache held, and why it answered as it did.",
    ),
    "store": Part("cachemesh.store_cli.command", "cli", ("click", "rich"), "Look into a store."),
}
ALL: Final = Part("", "demo", ("click", "rich"), "")
"""What it takes to say which commands there are."""

USAGE_ERROR: Final = 2


INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it.


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; without its packages, say in one line what to install. SystemExit with the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    asked = next((each for each in given if not each.startswith("-")), "")
    part = COMMANDS.get(asked, ALL)
    if part.missing:
        sys.stderr.write(f"cachemesh: {part.advice}\n")
        sys.exit(USAGE_ERROR)
    sys.exit(carried_out(given))


def carried_out(arguments: Sequence[str]) -> int:
    """The exit code. Errors are told as click does, but without the URLs among the arguments: they have passwords."""
    import click  # noqa: PLC0415  only after `main` has seen that it is there

    try:
        code = command_line().main(list(arguments), prog_name="cachemesh", standalone_mode=False)
    except click.ClickException as error:
        told = io.StringIO()
        error.show(file=told)
        click.echo(harmless(told.getvalue(), arguments), err=True, nl=False)
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def harmless(text: str, arguments: Sequence[str]) -> str:
    r"""`text` for a terminal, without what follows :// in an argument.

    >>> print(harmless("no command 'redis://:secret@host' \x1b[2J", ["redis://:secret@host"]))
    no command 'redis://...' \x1b[2J
    """
    for argument in arguments:
        for url in re.findall(r"://(.+)", argument, re.DOTALL):
            for form in (url, repr(url)[1:-1]):
                text = text.replace(f"://{form}", "://...")
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode("ascii") for char in text
    )


def command_line() -> click.Group:
    """The group of all commands. Needs the packages of the extra `cli`."""
    import click  # noqa: PLC0415  only after `main` has seen that it is there

    class Commands(click.Group):
        """Imports a command when it is asked for."""

        def list_commands(self, ctx: click.Context) -> list[str]:
            del ctx
            return sorted(COMMANDS)

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            del ctx
            part = COMMANDS.get(cmd_name)
            if part is None:
                return None
            if part.missing:
                return click.Command(cmd_name, help=f"{part.help} (Not here: {part.advice})")
            command: click.Command = getattr(import_module(part.module), cmd_name)
            return command

    @click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
    @click.version_option(_version(), prog_name="cachemesh")
    def cachemesh() -> None:
        """A Result-first caching layer for Python."""

    return cachemesh


def _version() -> str:
    try:
        return version("cachemesh")
    except PackageNotFoundError:
        return "(run from a source tree, not installed)"
