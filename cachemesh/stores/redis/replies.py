"""What a server answers, read piece by piece as it arrives (RESP2)."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

BULK: Final = ord("$")
ARRAY: Final = ord("*")
INTEGER: Final = ord(":")
SIMPLE: Final = ord("+")
ERROR: Final = ord("-")

END: Final = b"\r\n"

LONGEST_LINE: Final = 64 * 1024
"""A reply that is longer before its first line ends is none."""


class ServerError(Struct, frozen=True):
    """An error that the server answered. `text` may quote what it was sent, so it goes no further than this package."""

    code: str
    text: str


class ProtocolError(ValueError):
    """That was no reply. What follows is not to be believed either."""


class Reader:
    """Takes in bytes, and gives out whole replies."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._size = 0
        self._needed = 0
        self._open: list[tuple[list[object], int]] = []
        """Arrays that are not complete: what is in them, and how many there will be."""

    def feed(self, data: bytes) -> list[object]:
        """The replies that `data` completes."""
        if not self._chunks and not self._needed:
            return self._read(data)
        self._chunks.append(data)
        self._size += len(data)
        if self._size < self._needed:
            return []
        buffer = b"".join(self._chunks)
        self._chunks.clear()
        return self._read(buffer)

    def _read(self, buffer: bytes) -> list[object]:
        replies: list[object] = []
        at, size, self._needed = 0, len(buffer), 0
        while (line_end := buffer.find(END, at)) >= 0:
            kind, line = buffer[at], buffer[at + 1 : line_end]
            start = line_end + len(END)
            value: object = None
            if kind == BULK:
                length = number(line)
                if length >= 0:
                    stop = start + length
                    if stop + len(END) > size:
                        self._needed = stop + len(END) - at
                        break
                    value, start = buffer[start:stop], stop + len(END)
            elif kind == ARRAY:
                length = number(line)
                if length > 0:
                    self._open.append(([], length))
                    at = start
                    continue
                value = [] if length == 0 else None
            else:
                value = scalar(kind, line)
            at = start
            self._place(value, replies)
        if not self._needed and size - at > LONGEST_LINE:
            raise ProtocolError
        self._size = size - at
        if self._size:
            self._chunks.append(buffer[at:])
        return replies

    def _place(self, value: object, replies: list[object]) -> None:
        """Put `value` into the array that it belongs to, and that into its own where it is complete now."""
        while self._open:
            items, length = self._open[-1]
            items.append(value)
            if len(items) < length:
                return
            self._open.pop()
            value = items
        replies.append(value)


def scalar(kind: int, line: bytes) -> object:
    """A reply of one line."""
    if kind == INTEGER:
        return number(line)
    if kind == SIMPLE:
        return line
    if kind == ERROR:
        text = line.decode("utf-8", "replace")
        return ServerError(text.split(" ", 1)[0], text)
    raise ProtocolError


def number(line: bytes) -> int:
    try:
        return int(line)
    except ValueError:
        raise ProtocolError from None
