"""Entries as lines of JSON, for `export` and `import`: a header, and then an entry a line.

What is read comes from outside: each line is checked by itself, and one that is
not right is left out with its reason, which quotes nothing of it.
"""

from __future__ import annotations

from base64 import b64decode
from itertools import count
from math import isfinite
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from cachemesh.core.scopes import GLOBAL_OWNER, CacheScope
from cachemesh.shell.ports import Encoded, StoredEntry
from cachemesh.store_cli.shown import DEEPEST, Text, is_deeper, plain, text_of, value_of
from cachemesh.stores.envelope import survives

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachemesh.core.scopes import Owner

FORMAT: Final = 1
MOST_TAGS: Final = 1_000
FUTURE_S: Final = 60.0
"""So far the clocks of machines may be apart."""

LONGEST_S: Final = 100 * 366 * 86_400.0
MOST_VERSION: Final = 2**31

LONGEST_HEADER: Final = 65_536
TOO_DEEP: Final = "nested too deeply"


class NoExportError(ValueError):
    """The file does not begin as an export does."""


class NoEntryError(ValueError):
    """A line that is not taken. Its text is the reason, and quotes nothing."""


class Header(Struct, frozen=True):
    """The first line."""

    cachemesh_export: int
    namespace: Text
    exported_at: float


class Line(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One entry. Times are seconds since the epoch, windows are seconds."""

    scope: CacheScope
    key: Text
    created_at: float
    user: Text | None = None
    value: msgspec.Raw | UnsetType = UNSET
    value_base64: str | UnsetType = UNSET
    schema: Text = ""
    version: int = 0
    is_failure: bool = False
    ttl_s: float | None = None
    expires_at: float | None = None
    serve_stale_s: float | None = None
    stale_if_error_s: float | None = None
    ageing_at: float | None = None
    tags: list[Text] = []
    validator: str | int | float | bool | None = None


decode_line: Final = msgspec.json.Decoder(Line).decode
decode_header: Final = msgspec.json.Decoder(Header).decode


def header_line(namespace: str, now: float) -> bytes:
    return msgspec.json.encode(Header(FORMAT, plain(namespace), now)) + b"\n"


def line_of(entry: StoredEntry) -> bytes:
    """`entry` on a line of its own."""
    scope, user = entry.owner
    value: Encoded = entry.value
    name, content = value_of(value.payload)
    return (
        msgspec.json.encode(
            Line(
                scope=scope,
                key=plain(entry.key),
                created_at=entry.created_at,
                user=None if user is None else plain(user),
                value=content if name == "value" else UNSET,
                value_base64=content if name != "value" else UNSET,
                schema=plain(value.schema),
                version=value.version,
                is_failure=entry.is_failure,
                ttl_s=entry.ttl_s,
                expires_at=entry.expires_at,
                serve_stale_s=entry.serve_stale_s,
                stale_if_error_s=entry.stale_if_error_s,
                ageing_at=entry.ageing_at,
                tags=[plain(tag) for tag in entry.tags],
                validator=entry.validator,
            )
        )
        + b"\n"
    )


def entry_of(line: bytes, now: float) -> StoredEntry:
    """The entry on a line. `NoEntryError` where there is none."""
    try:
        line.decode("utf-8")
        read = decode_line(line)
        owner = _owner(read)
        key, schema, tags = text_of(read.key), text_of(read.schema), tuple(map(text_of, read.tags))
        payload = _payload(read)
    except RecursionError:
        raise NoEntryError(TOO_DEEP) from None
    except ValueError:
        msg = "no entry"
        raise NoEntryError(msg) from None
    if is_deeper(payload, DEEPEST):
        raise NoEntryError(TOO_DEEP)
    if len(tags) > MOST_TAGS:
        msg = "too many tags"
        raise NoEntryError(msg)
    if not 0 <= read.version < MOST_VERSION or not survives(read.validator):
        msg = "a number out of range"
        raise NoEntryError(msg)
    times = (read.created_at, read.expires_at, read.ageing_at)
    windows = (read.ttl_s, read.serve_stale_s, read.stale_if_error_s)
    if not all(each is None or isfinite(each) for each in times) or not all(
        each is None or 0 <= each <= LONGEST_S for each in windows
    ):
        msg = "a time out of range"
        raise NoEntryError(msg)
    if read.created_at > now + FUTURE_S:
        msg = "from the future"
        raise NoEntryError(msg)
    if read.expires_at is not None and read.expires_at > now + FUTURE_S + LONGEST_S:
        msg = "a time out of range"
        raise NoEntryError(msg)
    return StoredEntry(
        owner,
        key,
        Encoded(payload, schema, read.version),
        read.is_failure,
        read.created_at,
        read.ttl_s,
        read.expires_at,
        read.serve_stale_s,
        read.stale_if_error_s,
        read.ageing_at,
        tags,
        read.validator,
    )


def lines(file: BinaryIO, longest: int, first: int = 1) -> Iterator[tuple[int, bytes | None]]:
    """The lines of `file` that are not empty, with their numbers, from `first` on.

    None in the place of one of more than `longest` bytes, which is never held whole.
    """
    for number in count(first):
        line = file.readline(longest + 1)
        if not line:
            return
        if len(line) <= longest or line.endswith(b"\n"):
            if line.strip():
                yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(longest)
        yield number, None


def read_header(file: BinaryIO, longest: int) -> Header:
    """The header at the beginning of `file`. `NoExportError` where there is none that we know."""
    try:
        header = decode_header(file.readline(min(longest, LONGEST_HEADER)))
    except (ValueError, RecursionError):
        msg = "no export of cachemesh"
        raise NoExportError(msg) from None
    if header.cachemesh_export != FORMAT:
        msg = f"an export of format {header.cachemesh_export}; this cachemesh reads {FORMAT}"
        raise NoExportError(msg)
    return header


def _owner(read: Line) -> Owner:
    if (read.scope is CacheScope.GLOBAL and read.user is not None) or (
        read.scope is CacheScope.USER and read.user is None
    ):
        msg = "a user who does not go with the scope"
        raise ValueError(msg)
    if read.scope is CacheScope.GLOBAL:
        return GLOBAL_OWNER
    return read.scope, None if read.user is None else text_of(read.user)


def _payload(read: Line) -> bytes:
    if isinstance(read.value_base64, str) and read.value is UNSET:
        return b64decode(read.value_base64, validate=True)
    if isinstance(read.value, msgspec.Raw) and read.value_base64 is UNSET:
        return bytes(read.value)  # It was read as JSON with the line.
    msg = "not one value"
    raise ValueError(msg)
