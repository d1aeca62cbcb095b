"""gzip and zstd, recognised by their first bytes and read as they come.

zstd is read by the standard library where it can (`compression.zstd`, from
Python 3.14 on), else by `zstandard`, which comes with the extra `simulation`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol, cast

from msgspec import Struct

from cachemesh.simulation.traces.trouble import TraceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

MAGIC_BYTES: Final = 6
OTHERS: Final = {
    b"BZh": "it is compressed by bzip2; gzip and zstd are read",
    b"\xfd7zXZ\x00": "it is compressed by xz; gzip and zstd are read",
    b"PK\x03\x04": "it is a zip archive; gzip and zstd are read",
    b"\xff\xfe": "it is UTF-16; UTF-8 is read",
    b"\xfe\xff": "it is UTF-16; UTF-8 is read",
}


class Damaged(Exception):
    """The compressed data breaks off, or cannot be what was compressed."""


class Member(Protocol):
    """One stream of those that a compressed file is a row of. zlib, `compression.zstd` and `zstandard` agree on it."""

    def decompress(self, data: bytes, /) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


class Method(Struct, frozen=True):
    """A way to decompress.

    `most_bytes`: so many go in at once, as what comes out must fit into
    memory: gzip makes at most 1,032 bytes of one, zstd 128 KiB of four.
    """

    begin: Callable[[], Member]
    error: type[Exception]
    padding: bytes
    most_bytes: int


def method_of(head: bytes) -> Method | None:
    """How to read what begins with `head`; None where it is not compressed."""
    for magic, reason in OTHERS.items():
        if head.startswith(magic):
            raise TraceError(reason)
    if head.startswith(b"\x1f\x8b"):
        return Method(lambda: zlib.decompressobj(wbits=31), zlib.error, b"\0", 4_096)
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstd()
    return None


def decompressed(chunks: Iterable[bytes], method: Method) -> Iterator[bytes]:
    """The content, or `Damaged` where it cannot go on."""
    member: Member | None = None
    for chunk in chunks:
        for start in range(0, len(chunk), method.most_bytes):
            data = chunk[start : start + method.most_bytes]
            while data:
                if member is None:
                    data = data.lstrip(method.padding)  # gzip's manual: zeros may follow the last member.
                    if not data:
                        break
                    member = method.begin()
                try:
                    content = member.decompress(data)
                except method.error as error:
                    raise Damaged from error
                if content:
                    yield content
                data = member.unused_data if member.eof else b""
                if member.eof:
                    member = None
    if member is not None:
        raise Damaged


def _zstd() -> Method:
    try:
        module = import_module("compression.zstd")
    except ModuleNotFoundError:
        try:
            module = import_module("zstandard")
        except ModuleNotFoundError:
            reason = "it is compressed by zstd, which needs the extra `simulation`: pip install 'cachemesh[simulation]'"
            raise TraceError(reason) from None
        begin = _begin_of_zstandard(module)
    else:
        begin = cast("Callable[[], Member]", module.ZstdDecompressor)
    return Method(begin, module.ZstdError, b"", 512)


def _begin_of_zstandard(module: ModuleType) -> Callable[[], Member]:
    return lambda: cast("Member", module.ZstdDecompressor().decompressobj())
