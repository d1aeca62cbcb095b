"""Lines of text, in blocks, whatever the bytes are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachemesh.simulation.traces.compression import Damaged
from cachemesh.simulation.traces.trouble import TraceError, Why

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from cachemesh.simulation.traces.trouble import Unreadable

MOST_BYTES: Final = 1 << 20
JUNK_WITHIN: Final = 512


def blocks(chunks: Iterable[bytes], unreadable: Unreadable) -> Generator[list[str]]:
    """All lines, without their ends. What is no text leaves an empty line behind, so that numbers stay right.

    A byte order mark at the beginning is dropped. A file that begins as no
    text does is a `TraceError`.
    """
    number = 0  # Of lines that are done.
    rest = b""
    skipping = False
    begun = False
    try:
        for chunk in chunks:
            data = chunk
            if skipping:
                end = data.find(b"\n")
                if end < 0:
                    continue
                data = data[end:]  # The empty line stands for the one that was too long.
                skipping = False
            data = rest + data
            if not begun:
                begun = True
                data = data.removeprefix(b"\xef\xbb\xbf")
                if _is_junk(data[:JUNK_WITHIN]):
                    reason = "it is binary data"
                    raise TraceError(reason)
            whole, newline, rest = data.rpartition(b"\n")
            if newline:
                found = _texts(whole, number, unreadable)
                number += len(found)
                yield found
            if len(rest) > MOST_BYTES:
                unreadable.add(Why.TOO_LONG, number + 1)
                rest = b""
                skipping = True
    except Damaged:
        unreadable.add(Why.DAMAGED, number + 1)
        yield [""]  # Half a line could pass for a whole one.
        return
    if rest or skipping:
        yield _texts(rest, number, unreadable)


def _is_junk(head: bytes) -> bool:
    """Whether there are NULs and the first line is no text; further down they are left by a crash, in one line."""
    first = head.partition(b"\n")[0]
    return b"\0" in first or (b"\0" in head and not _is_text(first))


def _is_text(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _texts(data: bytes, number: int, unreadable: Unreadable) -> list[str]:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        found = [_text(line, number + 1 + index, unreadable) for index, line in enumerate(data.split(b"\n"))]
    else:
        found = (text.replace("\r\n", "\n").removesuffix("\r") if "\r" in text else text).split("\n")
    if b"\0" in data:
        found = _without(found, lambda line: "\0" in line, Why.BINARY, number, unreadable)
    if len(data) > MOST_BYTES:
        found = _without(found, lambda line: len(line.encode()) > MOST_BYTES, Why.TOO_LONG, number, unreadable)
    return found


def _text(line: bytes, number: int, unreadable: Unreadable) -> str:
    try:
        return line.removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        unreadable.add(Why.NOT_UTF_8, number)
        return ""


def _without(
    lines: list[str], refused: Callable[[str], bool], why: Why, number: int, unreadable: Unreadable
) -> list[str]:
    kept = []
    for index, line in enumerate(lines):
        if refused(line):
            unreadable.add(why, number + 1 + index)
            kept.append("")
        else:
            kept.append(line)
    return kept
