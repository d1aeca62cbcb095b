"""cachemesh's own command log, as a `Recorder` writes it: its asks are the requests.

What else is in a log is passed over: how a fetch ended, writes, removals. So is
the second ask of a caller who had to ask anew. `cachemesh replay` looks at all of
it; here the asks alone are the load.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from cachemesh.core.effects import Refusal
from cachemesh.core.scopes import GLOBAL, SESSION, CacheScope
from cachemesh.shell.recording import REFUSED
from cachemesh.simulation.log.lines import COMMANDS, OTHERS, VERSION
from cachemesh.simulation.log.reader import LogReader
from cachemesh.simulation.request import Request
from cachemesh.simulation.traces.instants import MOST_S
from cachemesh.simulation.traces.source import STDIN, content
from cachemesh.simulation.traces.trouble import TraceError, Unread, Why

if TYPE_CHECKING:
    import os
    from collections.abc import Generator, Sequence

    from cachemesh.simulation.traces.source import Progress
    from cachemesh.simulation.traces.trouble import Unreadable


class CommandLog:
    """Reads lines of a command log.

    The key and the user are as they stand there, so hashed as a rule. A session
    has entries of its own, as a user has: its `user` is "session", and that of a
    view's "session" with the hash of the view's user.
    """

    def __init__(self, unreadable: Unreadable) -> None:
        self._unreadable = unreadable
        self._texts: dict[str, str] = {}
        self._active = SOMEBODY
        self._asked_before: set[int] = set()

    def read(self, lines: list[str], number: int) -> list[Request]:
        """The requests of `lines`, the first of which has the `number`."""
        requests = []
        for index, line in enumerate(lines):
            if not line or line.isspace():
                continue
            try:
                request = self._request(line, number + index)
            except Unread as error:
                self._unreadable.add(error.why, number + index)
                continue
            if request is not None:
                requests.append(request)
        return requests

    def _request(self, line: str, number: int) -> Request | None:
        found = decoded(line)
        match found.do:
            case "Get":
                return self._asked(found)
            case "SetActiveUser":
                self._active = found.user_id or SOMEBODY
            case "Follows":
                self._asked_before.add(found.ask)
            case "Lost":
                self._unreadable.add(Why.LOST, number, found.lines)
        return None

    def _asked(self, found: _Line) -> Request | None:
        if found.flight_id in self._asked_before:
            self._asked_before.remove(found.flight_id)
            return None
        if found.key is None:
            raise Unread(Why.KEY)
        if found.now is None or not -MOST_S < found.now < MOST_S:
            raise Unread(Why.TIME)
        if found.was == NOBODY:
            raise Unread(Why.NOBODY)
        key, user = found.key, self._user(found)
        same = self._texts.setdefault
        return Request(found.now, same(key, key), user and same(user, user))

    def _user(self, found: _Line) -> str | None:
        """Whose entry it is. Where nobody had signed in, the log says that the ask was refused."""
        if found.scope is GLOBAL:
            return None
        if found.scope is SESSION:
            return "session" if found.viewer is None else f"session {found.viewer}"
        return self._active if found.viewer is None else found.viewer


NOBODY: Final = REFUSED[Refusal.NO_ACTIVE_USER]
SOMEBODY: Final = "somebody"
"""Whoever had signed in, where the log has lost who that was."""


class _Line(Struct, gc=False):
    """What is looked at in a line, whichever it is; what is not there has its default."""

    do: str | None = None
    key: str | None = None
    now: float | None = None
    flight_id: int = 0
    scope: CacheScope = GLOBAL
    viewer: str | None = None
    was: str | int | None = None
    user_id: str | None = None
    ask: int = 0
    lines: int = 0
    cachemesh_log: int | None = None


KINDS: Final = COMMANDS.keys() | OTHERS.keys()

_decode: Final = msgspec.json.Decoder(_Line).decode


def decoded(line: str) -> _Line:
    """What a line says; `Unread` where it is none of a command log."""
    try:
        found = _decode(line)
    except (msgspec.DecodeError, RecursionError):
        raise Unread(Why.NOT_A_COMMAND) from None
    if found.do not in KINDS and (found.do is not None or found.cachemesh_log != VERSION):
        raise Unread(Why.NOT_A_COMMAND)
    return found


class _Header(Struct):
    cachemesh_log: int


_decode_header: Final = msgspec.json.Decoder(_Header).decode


def is_header(line: str) -> bool:
    """Whether a command log begins with `line`. `TraceError` where that is of another version."""
    try:
        version = _decode_header(line).cachemesh_log
    except (msgspec.DecodeError, RecursionError):
        return False
    if version != VERSION:
        reason = f"it is a command log of version {version}; version {VERSION} is read"
        raise TraceError(reason)
    return True


def files_of(path: str | os.PathLike[str]) -> Sequence[Path]:
    """The files of the command log whose newest file is `path`, in their order; none where it is no such log.

    One that is compressed is looked at alone. What is no ordinary file, such as a pipe, could be read only once.
    """
    try:
        return LogReader(path).paths if path != STDIN and Path(path).is_file() else ()
    except (OSError, ValueError):  # ValueError: it is none, or there is a NUL in the path.
        return ()


def content_of(files: Sequence[Path], progress: Progress | None) -> Generator[bytes]:
    """The bytes of the files, one after the other. A line ends with its file."""
    total = sum(map(_size, files))
    done = 0
    for file in files:
        last = b""
        with closing(content(file, None)) as chunks:
            for chunk in chunks:
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
                yield chunk
                last = chunk
        if not last.endswith(b"\n"):
            yield b"\n"


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0  # That it cannot be read, is said when its turn comes.
