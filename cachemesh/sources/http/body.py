"""The body of an answer as it comes in: decoded, counted, and whole or nothing.

Decoding is done here, and not by the client, for two reasons: what a few bytes
unpack to is counted before there is more of it, and a gzip that ends too early is noticed.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

PIECE: Final = 256 * 1024
"""Bytes that are unpacked at a time."""

ACCEPTED: Final = "gzip, deflate"
"""The content codings that are understood here (RFC 9110, section 8.4.1)."""


class BrokenBodyError(Exception):
    """The body is not what its coding says. The text quotes nothing of it."""


class TooLargeError(Exception):
    """The body has more bytes than are wanted."""


class Decoder(Protocol):
    """Takes the bytes of a content coding, and hands what they stand for to a sink."""

    def feed(self, data: bytes, /) -> None: ...
    def end(self) -> None: ...


class Body:
    """Counts what comes, decodes it, and keeps it or hands it on to `sink`.

    `limit`: decoded bytes; None is no limit.
    """

    __slots__ = ("_chunks", "_decoder", "_limit", "_sink", "size")

    def __init__(self, coding: str, limit: int | None, sink: Callable[[bytes], object] | None = None) -> None:
        self._chunks: list[bytes] = []
        self._sink = self._chunks.append if sink is None else sink
        self._limit = limit
        self._decoder = decoder_of(coding, self._take)
        self.size = 0

    def feed(self, data: bytes) -> None:
        """The next bytes from the wire. Raises `TooLargeError` and `BrokenBodyError`."""
        if self._decoder is None:
            self._take(data)
        else:
            self._decoder.feed(data)

    def feed_decoded(self, data: bytes) -> None:
        """All of it, from a client that has read and decoded it already. Raises `TooLargeError`."""
        self._take(data)

    def end(self) -> bytes:
        """That was all: the bytes, where there was no sink. Raises `BrokenBodyError` where some are missing."""
        if self._decoder is not None:
            self._decoder.end()
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    def _take(self, data: bytes) -> None:
        self.size += len(data)
        if self._limit is not None and self.size > self._limit:
            raise TooLargeError
        self._sink(data)


def decoder_of(coding: str, sink: Callable[[bytes], object]) -> Decoder | None:
    """What undoes a Content-Encoding; None where there is nothing to undo. `BrokenBodyError`: nobody asked for that."""
    name = coding.strip().lower()
    if name in {"", "identity"}:
        return None
    if name in {"gzip", "x-gzip"}:
        return Unzip(sink)
    if name == "deflate":
        return Inflate(sink)
    msg = "the content coding is none that was asked for"
    raise BrokenBodyError(msg)


class Unzip:
    """Members of gzip, one after the other (RFC 1952, section 2.2); the last one may be followed by zeros."""

    __slots__ = ("_inflater", "_is_begun", "_sink")

    def __init__(self, sink: Callable[[bytes], object]) -> None:
        self._sink = sink
        self._inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._is_begun = False

    def feed(self, data: bytes) -> None:
        while data:
            if self._inflater.eof:
                data = data.lstrip(b"\0")
                if not data:
                    return
                self._inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
            self._is_begun = True
            data = _unpack(self._inflater, data, self._sink)

    def end(self) -> None:
        if self._is_begun and not self._inflater.eof:
            msg = "the body is cut short"
            raise BrokenBodyError(msg)


class Inflate:
    """Deflate with the wrapper of zlib, or without, as some send it (RFC 9110, section 8.4.1.2)."""

    __slots__ = ("_head", "_inflater", "_sink")

    def __init__(self, sink: Callable[[bytes], object]) -> None:
        self._sink = sink
        self._head = b""
        self._inflater: zlib._Decompress | None = None

    def feed(self, data: bytes) -> None:
        if self._inflater is None:
            self._head += data
            if len(self._head) < 2:  # noqa: PLR2004 (the header of RFC 1950 has two bytes)
                return
            data = self._head
            is_wrapped = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0  # noqa: PLR2004 (RFC 1950, 2.2)
            self._inflater = zlib.decompressobj(zlib.MAX_WBITS if is_wrapped else -zlib.MAX_WBITS)
        if _unpack(self._inflater, data, self._sink):
            msg = "there is more after the end of the body"
            raise BrokenBodyError(msg)

    def end(self) -> None:
        if self._head and (self._inflater is None or not self._inflater.eof):
            msg = "the body is cut short"
            raise BrokenBodyError(msg)


def _unpack(inflater: zlib._Decompress, data: bytes, sink: Callable[[bytes], object]) -> bytes:
    """Hand on what `data` stands for, a piece at a time; answer what comes after the end of the stream."""
    try:
        while True:
            piece = inflater.decompress(data, PIECE)
            if piece:
                sink(piece)
            data = inflater.unconsumed_tail
            if inflater.eof or not (data or len(piece) == PIECE):
                return inflater.unused_data
    except zlib.error:
        msg = "the body is not what its coding says"
        raise BrokenBodyError(msg) from None
