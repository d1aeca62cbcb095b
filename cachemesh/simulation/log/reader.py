"""Reads a command log: its files in their order, line by line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cachemesh.simulation.log.lines import Header, UnreadableLineError, decoded, header_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from cachemesh.shell.recording import Line

LONGEST_LINE: Final = 8 * 2**20
"""Bytes. What is longer is no line of a log."""


class NoCommandLogError(ValueError):
    """What was given is no command log. The message is one line, and says why."""


class LogReader:
    """The command log whose newest file is `path`, together with its older ones beside it.

    `unreadable`: how many lines were none, so far; a last one that was cut off
    by a crash does not count. `missing`: how many files are not there any more.
    NoCommandLogError, OSError.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.unreadable = 0
        self.is_torn = False
        newest = header_at(self.path)
        files = {newest.segment: (newest, self.path)}
        for found in self.path.parent.iterdir():
            if re.fullmatch(re.escape(self.path.name) + r"\.[0-9]+", found.name) and found.is_file():
                try:
                    header = header_at(found)
                except NoCommandLogError:
                    continue  # Of somebody else's, by its name.
                if header.log == newest.log:
                    files.setdefault(header.segment, (header, found))  # It may be a copy.
        self._files = [files[segment] for segment in sorted(files)]
        self.header = self._files[0][0]
        self.missing = newest.segment + 1 - len(self._files)

    @property
    def paths(self) -> list[Path]:
        """The files, the oldest one first."""
        return [path for _, path in self._files]

    def __iter__(self) -> Iterator[Line]:
        self.unreadable, self.is_torn = 0, False
        for header, path in self._files:
            yield from self._lines_of(path, header)

    def _lines_of(self, path: Path, header: Header) -> Iterator[Line]:
        with path.open("rb") as file:
            if header_in(file.readline(LONGEST_LINE)) != header:
                msg = "was rotated while it was read: read it again"
                raise NoCommandLogError(msg)
            while line := file.readline(LONGEST_LINE):
                is_whole = line.endswith(b"\n")
                try:
                    found = decoded(line)
                except UnreadableLineError:
                    if is_whole or len(line) == LONGEST_LINE:
                        self.unreadable += 1
                    else:
                        self.is_torn = True
                    continue
                yield found


def header_at(path: Path) -> Header:
    """What the file at `path` says of itself."""
    if path.is_dir():
        msg = "is a folder, not a command log"
        raise NoCommandLogError(msg)
    with path.open("rb") as file:
        return header_in(file.readline(LONGEST_LINE))


def header_in(line: bytes) -> Header:
    """The same, of its first line."""
    if not line:
        msg = "is empty"
        raise NoCommandLogError(msg)
    try:
        return header_of(line)
    except UnreadableLineError as error:
        msg = f"is {error}"
        raise NoCommandLogError(msg) from None
