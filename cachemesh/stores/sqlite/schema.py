"""What is in the file.

`entries`: the live ones. `n` grows with each writing, so the oldest come first,
and what is written together lies together. `tombs`: places that were removed,
and when, for as long as fetches from before may come in. `marks` and `leases`:
as their names say. `meta`: one row with the counters.

Rows that no envelope protects bear a checksum themselves: a counter or a mark
with one bit flipped would bring back what was removed.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from msgspec import Struct

from cachemesh.stores.names import decoded, encoded, owner_name, owner_of_name
from cachemesh.stores.sqlite.errors import DamagedFileError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachemesh.stores.marks import Place

APPLICATION_ID: Final = 0x434D5348
"""CMSH. What bears another one is somebody else's."""

VERSION: Final = 1
"""Of the schema; in `user_version`. What bears another one is left alone."""

TABLES: Final = (
    "CREATE TABLE meta (id INTEGER PRIMARY KEY, last_mark INTEGER NOT NULL, state BLOB NOT NULL)",
    """CREATE TABLE entries (
    n INTEGER PRIMARY KEY, owner INTEGER NOT NULL, key INTEGER NOT NULL,
    space INTEGER NOT NULL, generation INTEGER NOT NULL, dies REAL, envelope BLOB NOT NULL
)""",
    "CREATE UNIQUE INDEX places ON entries (owner, key)",
    """CREATE TABLE tombs (
    owner INTEGER NOT NULL, key INTEGER NOT NULL, generation INTEGER NOT NULL, PRIMARY KEY (owner, key)
) WITHOUT ROWID""",
    """CREATE TABLE marks (
    space INTEGER NOT NULL, owner BLOB NOT NULL, tag BLOB NOT NULL, last INTEGER NOT NULL, state BLOB NOT NULL,
    PRIMARY KEY (space, owner, tag)
) WITHOUT ROWID""",
    "CREATE INDEX marks_by_last ON marks (last)",
    """CREATE TABLE leases (
    owner INTEGER NOT NULL, key INTEGER NOT NULL, token BLOB NOT NULL, ends_at REAL NOT NULL, length_s REAL NOT NULL,
    PRIMARY KEY (owner, key)
) WITHOUT ROWID""",
)
"""In the order of `sqlite_master`: a file whose tables read otherwise is damaged."""

READ: Final = (
    "SELECT envelope, generation, n, (SELECT last_mark FROM meta WHERE id = 1) FROM entries WHERE owner = ? AND key = ?"
)
AT_ONCE: Final = 32
READ_MANY: Final = (
    f"WITH asked(o, k) AS (VALUES {', '.join(['(?, ?)'] * AT_ONCE)})"  # noqa: S608 (placeholders)
    " SELECT envelope, generation, n, owner, key FROM asked CROSS JOIN entries ON owner = o AND key = k"
)
"""Of so many places; those that are left over are NULL."""

LAST_MARK: Final = "SELECT last_mark FROM meta WHERE id = 1"
FENCE: Final = (
    "SELECT max(generation) FROM (SELECT generation FROM entries WHERE owner = ? AND key = ?"
    " UNION ALL SELECT generation FROM tombs WHERE owner = ? AND key = ?)"
)
"""Of a place, which is given twice."""

DIGEST_SIZE: Final = 8


class Meta(Struct, gc=False, array_like=True, kw_only=True):
    """The counters. `floor`: claims of an older generation are refused: nobody knows any more what came after them."""

    seq: int = 0
    """The generation."""
    written: int = 0
    """`n` of what was written last."""
    entries: int = 0
    tombs: int = 0
    """So many at most."""
    floor: int = 0
    next_floor: int = 0
    next_floor_from: float = 0.0
    last_mark: int = 0
    marks: int = 0
    swept_at: float = 0.0


class MarkState(Struct, gc=False, array_like=True):
    """A mark as `stores.marks.Mark` has it, bound to what it is about."""

    space: int
    owner: bytes
    tag: bytes
    gone: int
    stale: int
    stale_at: float


pack: Final = msgspec.msgpack.Encoder().encode
unpack_meta: Final[Callable[[bytes], Meta]] = msgspec.msgpack.Decoder(Meta).decode
unpack_mark: Final[Callable[[bytes], MarkState]] = msgspec.msgpack.Decoder(MarkState).decode

S = TypeVar("S")


def guarded(state: Meta | MarkState) -> bytes:
    """`state` as bytes, behind their checksum."""
    packed = pack(state)
    return blake2b(packed, digest_size=DIGEST_SIZE).digest() + packed


def meta_of(row: object) -> Meta:
    """The counters in the row (last_mark, state). DamagedFileError where it is no such row."""
    match row:
        case (int() as last_mark, bytes() as state):
            meta = _unguarded(state, unpack_meta)
            if meta.last_mark == last_mark:
                return meta
    msg = "the counters are damaged"
    raise DamagedFileError(msg)


def mark_of(row: object) -> MarkState:
    """The mark in the row (space, owner, tag, last, state). DamagedFileError where it is no such row."""
    match row:
        case (int() as space, bytes() as owner, bytes() as tag, int() as last, bytes() as state):
            mark = _unguarded(state, unpack_mark)
            if (mark.space, mark.owner, mark.tag, max(mark.gone, mark.stale)) == (space, owner, tag, last):
                return mark
    msg = "a mark is damaged"
    raise DamagedFileError(msg)


def place_names(place: Place) -> tuple[bytes, bytes]:
    """What a mark is about, as bytes: nothing, or a name that is never empty."""
    owner, tag = place
    return b"" if owner is None else owner_name(owner), b"" if tag is None else b"t" + encoded(tag)


def place_of(owner: bytes, tag: bytes) -> Place:
    """What `place_names` made these of."""
    return owner_of_name(owner) if owner else None, decoded(tag[1:]) if tag else None


def _unguarded(state: bytes, unpack: Callable[[bytes], S]) -> S:
    packed = state[DIGEST_SIZE:]
    if blake2b(packed, digest_size=DIGEST_SIZE).digest() != state[:DIGEST_SIZE]:
        msg = "a checksum is another one"
        raise DamagedFileError(msg)
    try:
        return unpack(packed)
    except ValueError:
        msg = "a row that cannot be read"
        raise DamagedFileError(msg) from None
