"""The `cachemesh` command.

Its packages come with the extras `cli` and `demo`. The library itself must
import without them, so they are looked for here, before the first import that
needs one; and each command is imported when it is asked for, so that none wants
the packages of another one.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
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
    "store": Part("cachemesh.store_cli.command", "cli", ("click", "rich"), "Look into a store."),
}
ALL: Final = Part("", "demo", ("click", "rich"), "")
"""What it takes to say which commands there are."""

USAGE_ERROR: Final = 2


def main() -> None:
    """Run the command line; without its packages, say in one line what to install."""
    asked = next((each for each in sys.argv[1:] if not each.startswith("-")), "")
    part = COMMANDS.get(asked, ALL)
    if part.missing:
        sys.stderr.write(f"cachemesh: {part.advice}\n")
        sys.exit(USAGE_ERROR)

    command_line()(prog_name="cachemesh")


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
