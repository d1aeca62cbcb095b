"""The `cachemesh` command.

Its packages come with the extra `demo`. The library itself must import without
them, so they are looked for here, before the first import that needs one.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import click

EXTRA: Final = ("click", "rich", "httpx2")
USAGE_ERROR: Final = 2


def main() -> None:
    """Run the command line; without its packages, say in one line what to install."""
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        sys.stderr.write(f"cachemesh: {', '.join(missing)} not found; run: pip install 'cachemesh[demo]'\n")
        sys.exit(USAGE_ERROR)

    command_line()(prog_name="cachemesh")


def command_line() -> click.Group:
    """The group of all commands. Needs the packages of the extra `demo`."""
    import click  # noqa: PLC0415  only after `main` has seen that it is there

    from cachemesh.demo.command import demo  # noqa: PLC0415  as above

    @click.group(context_settings={"help_option_names": ["-h", "--help"]})
    @click.version_option(_version(), prog_name="cachemesh")
    def cachemesh() -> None:
        """A Result-first caching layer for Python."""

    cachemesh.add_command(demo)
    return cachemesh


def _version() -> str:
    try:
        return version("cachemesh")
    except PackageNotFoundError:
        return "(run from a source tree, not installed)"
