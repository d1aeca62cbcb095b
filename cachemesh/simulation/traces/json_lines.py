"""JSON lines: one object a line, its fields under the names that columns have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from cachemesh.simulation.request import Request
from cachemesh.simulation.traces.columns import find, key_of, size_of, user_of
from cachemesh.simulation.traces.trouble import Unread, Why, requests_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cachemesh.simulation.traces.columns import Field, Found
    from cachemesh.simulation.traces.instants import Instants
    from cachemesh.simulation.traces.trouble import Unreadable

MOST_SHAPES: Final = 1_000
MOST_NAMES: Final = 64


class JsonLines:
    """Reads lines of JSON. Each object may have its own fields: a user that is left out is nobody."""

    def __init__(self, columns: Mapping[Field, str | int], instants: Instants, unreadable: Unreadable) -> None:
        self._columns = columns
        self._instants = instants
        self._unreadable = unreadable
        self._texts: dict[str, str] = {}
        self._shapes: dict[tuple[str, ...], Found | None] = {}

    def read(self, lines: list[str], number: int) -> list[Request]:
        """The requests of `lines`, the first of which has the `number`."""
        return requests_of(lines, number, self._request, self._unreadable)

    def _request(self, line: str) -> Request:
        read = decoded(line)
        names = tuple(read)
        found = self._found(names)
        if found is None:
            raise Unread(Why.FIELDS)
        at = self._instants.read(read[names[found.time]], found.scale)
        key = key_of(read[names[found.key]])
        user = None if found.user is None else user_of(read[names[found.user]])
        size = 1 if found.size is None else size_of(read[names[found.size]])
        same = self._texts.setdefault
        return Request(at, same(key, key), user and same(user, user), size)

    def _found(self, names: tuple[str, ...]) -> Found | None:
        try:
            return self._shapes[names]
        except KeyError:
            found = find(names, self._columns)
        if len(self._shapes) >= MOST_SHAPES:
            self._shapes.clear()
        if len(names) <= MOST_NAMES:  # Objects with names that are data would fill the memory.
            self._shapes[names] = found
        return found


_DECODER: Final = msgspec.json.Decoder()


def decoded(line: str) -> dict[str, object]:
    """The object of a line; `Unread` where it has none."""
    try:
        read: object = _DECODER.decode(line)
    except (msgspec.DecodeError, RecursionError):
        raise Unread(Why.NOT_JSON) from None
    if not isinstance(read, dict):
        raise Unread(Why.NOT_AN_OBJECT)
    return read
