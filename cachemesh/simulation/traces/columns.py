"""Which column is which."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, cast

from msgspec import Struct

from cachemesh.simulation.traces.instants import IN_A_SECOND, Unit
from cachemesh.simulation.traces.trouble import TraceError, Unread, Why

Field: TypeAlias = Literal["time", "key", "user", "size"]
Columns: TypeAlias = Mapping[Field, str] | Mapping[Field, int]
"""The names of columns; or their places, from 0, in a CSV file without a header."""

FIELDS: Final[tuple[Field, ...]] = ("time", "key", "user", "size")
ALIASES: Final[Mapping[Field, tuple[str, ...]]] = {
    "time": ("time", "timestamp", "@timestamp", "ts", "at", "datetime", "date", "epoch", "t"),
    "key": (
        *("key", "cache_key", "obj_id", "object_id", "object"),
        *("url", "uri", "path", "request", "block", "lbn", "id"),
    ),
    "user": (
        "user",
        "user_id",
        "userid",
        "uid",
        "authuser",
        "remote_user",
        "owner",
        "tenant",
        "tenant_id",
        "client_id",
    ),
    "size": (
        *("size", "size_bytes", "bytes", "obj_size", "object_size", "value_size"),
        *("length", "content_length", "body_bytes_sent"),
    ),
}
"""What columns are called where nobody says so, the first one first. Case does not matter."""

UNIT_AT_THE_END: Final = re.compile(r"_(s|ms|us|ns)\Z")
MOST_SIZE: Final = 2**63


class Found(Struct, frozen=True):
    """The places of the columns. `scale`: how many of the unit in the time's name (`time_ms`) are in a second."""

    time: int
    key: int
    user: int | None
    size: int | None
    scale: float | None


def checked(columns: Mapping[Any, Any] | None) -> dict[Field, str | int]:
    """`columns`, or a `TraceError` for what no column can be: they come from users."""
    found: dict[Field, str | int] = {}
    for field, column in (columns or {}).items():
        if field not in FIELDS:
            reason = f"columns are given for {', '.join(FIELDS)}, and not for {field!r}"
            raise TraceError(reason)
        if isinstance(column, bool) or not isinstance(column, str | int) or (isinstance(column, int) and column < 0):
            reason = f"the column for the {field} is a name, or a place from 0 on"
            raise TraceError(reason)
        found[field] = column
    if len({type(column) for column in found.values()}) > 1:
        reason = "columns are given all by name or all by place"
        raise TraceError(reason)
    if by_place(found) and not {"time", "key"} <= found.keys():
        reason = "columns by place need both the time and the key"
        raise TraceError(reason)
    return found


def by_place(columns: Mapping[Field, str | int]) -> bool:
    return any(isinstance(column, int) for column in columns.values())


def find(names: Sequence[str], columns: Mapping[Field, str | int]) -> Found | None:
    """Where the columns are among `names`; None without a time or a key.

    >>> find(["Time_ms", "URL"], {})
    Found(time=0, key=1, user=None, size=None, scale=1000.0)

    Beside a URL, an `id` is that of the line:

    >>> find(["ts", "id", "url"], {}).key
    2
    """
    if by_place(columns):
        places = {field: cast("int", column) for field, column in columns.items()}
        return Found(places["time"], places["key"], places.get("user"), places.get("size"), None)
    names = [name.strip() for name in names]
    plain = [name.lower() for name in names]
    time, key, user, size = (_place(field, columns.get(field), names, plain) for field in FIELDS)
    if time is None or key is None:
        return None
    unit = UNIT_AT_THE_END.search(plain[time])
    return Found(time, key, user, size, IN_A_SECOND[cast("Unit", unit[1])] if unit else None)


def _place(field: Field, column: str | int | None, names: Sequence[str], plain: Sequence[str]) -> int | None:
    if column is not None:
        return names.index(str(column)) if column in names else None
    bare = [UNIT_AT_THE_END.sub("", name) for name in plain] if field == "time" else plain
    return next((bare.index(alias) for alias in ALIASES[field] if alias in bare), None)


def key_of(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return _digits(value, Why.KEY)
    raise Unread(Why.KEY)


def user_of(value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return _digits(value, Why.USER)
    raise Unread(Why.USER)


def size_of(value: object) -> int:
    """A size that is not told is 1."""
    if value is None or value == "":
        return 1
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Unread(Why.SIZE)
    try:
        size = int(value)
    except (ValueError, OverflowError):
        size = _rounded(value)
    if not 0 <= size < MOST_SIZE:
        raise Unread(Why.SIZE)
    return size


def _rounded(value: str | float) -> int:
    """Of a size that is written `512.0`."""
    try:
        return int(float(value))
    except (ValueError, OverflowError):
        raise Unread(Why.SIZE) from None


def _digits(value: int, why: Why) -> str:
    try:
        return str(value)
    except ValueError:  # More than 4,300 digits.
        raise Unread(why) from None
