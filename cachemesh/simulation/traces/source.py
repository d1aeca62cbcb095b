"""The bytes of a trace: a file or the standard input, decompressed, in pieces."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from cachemesh.simulation.traces.compression import MAGIC_BYTES, decompressed, method_of
from cachemesh.simulation.traces.trouble import TraceError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from contextlib import AbstractContextManager
    from io import BufferedIOBase

CHUNK_BYTES: Final = 1 << 16
STDIN: Final = "-"

Progress: TypeAlias = Callable[[int, int | None], object]
"""Told after each piece: how many bytes of the file were read, and of how many, None where nobody knows."""


def content(path: str | os.PathLike[str], progress: Progress | None) -> Generator[bytes]:
    """The decompressed bytes, at most 16 MiB at once.

    A `TraceError` where there is no such file, `Damaged` where compressed data breaks off.
    """
    name = "the standard input" if path == STDIN else os.fspath(path)
    with _opened(path, name) as stream:
        raw = _chunks(stream, name, progress)
        head = b""
        for chunk in raw:  # A pipe may give one byte at a time.
            head += chunk
            if len(head) >= MAGIC_BYTES:
                break
        chunks = chain([head] if head else [], raw)
        method = method_of(head)
        yield from chunks if method is None else decompressed(chunks, method)


def _chunks(stream: BufferedIOBase, name: str, progress: Progress | None) -> Iterator[bytes]:
    total = _size(stream)
    done = 0
    while chunk := _read(stream, name):
        done += len(chunk)
        if progress is not None:
            progress(done, total)
        yield chunk


def _read(stream: BufferedIOBase, name: str) -> bytes:
    try:
        return stream.read1(CHUNK_BYTES)
    except (OSError, ValueError) as error:  # ValueError: it is closed.
        raise _cannot_be_read(name, error) from error


def _opened(path: str | os.PathLike[str], name: str) -> AbstractContextManager[BufferedIOBase]:
    if path != STDIN:
        try:
            return Path(path).open("rb")
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path.
            raise _cannot_be_read(name, error) from error
    stream: BufferedIOBase | None = getattr(sys.stdin, "buffer", None)
    if stream is None:
        reason = "there is no standard input"
        raise TraceError(reason)
    return nullcontext(stream)  # It is not ours to close.


def _cannot_be_read(name: str, error: Exception) -> TraceError:
    why = error.strerror if isinstance(error, OSError) else None
    return TraceError(f"{name!r} cannot be read: {why or type(error).__name__}")


def _size(stream: BufferedIOBase) -> int | None:
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return None  # A stream in memory, or one that is closed.
    return found.st_size if stat.S_ISREG(found.st_mode) else None
