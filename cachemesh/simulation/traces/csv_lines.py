"""CSV (RFC 4180), one request a line: a header with names, or columns by their places.

A line is a record: a quoted cell may hold delimiters and quotes, but no end
of line, so that one quote too many costs one line and not the rest of the
file.
"""

from __future__ import annotations

import csv
from math import nan
from typing import TYPE_CHECKING, Final

from cachemesh.simulation.request import Request
from cachemesh.simulation.traces.columns import MOST_SIZE, find, key_of, size_of, user_of
from cachemesh.simulation.traces.instants import MOST_S
from cachemesh.simulation.traces.trouble import TraceError, Unread, Why

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cachemesh.simulation.traces.columns import Field, Found
    from cachemesh.simulation.traces.instants import Instants
    from cachemesh.simulation.traces.trouble import Unreadable

DELIMITERS: Final = (",", "\t", ";", "|", " ")


class CsvLines:
    """Reads lines of CSV.

    `first`: the first line that is not blank: the header, unless columns are
    given by place. The delimiter is the first of comma, tab, semicolon, bar
    and blanks under which it has a time and a key, unless one is given.
    """

    def __init__(
        self,
        first: str,
        columns: Mapping[Field, str | int],
        delimiter: str | None,
        instants: Instants,
        unreadable: Unreadable,
    ) -> None:
        self._instants = instants
        self._unreadable = unreadable
        self._texts: dict[str, str] = {}
        self._delimiter, self._found = _sniffed(first, columns, delimiter)
        self._awaits_header = not any(isinstance(column, int) for column in columns.values())

    def read(self, lines: list[str], number: int) -> list[Request]:
        """The requests of `lines`, the first of which has the `number`."""
        if self._awaits_header:
            header = next((index for index, line in enumerate(lines) if line and not line.isspace()), None)
            if header is None:
                return []
            self._awaits_header = False
            number += header + 1
            lines = lines[header + 1 :]
        if '"' in "".join(lines):
            return self._carefully(lines, number)
        return self._fast(lines, number)

    def _fast(self, lines: list[str], number: int) -> list[Request]:
        """Lines without quotes."""
        found = self._found
        time_at, key_at, user_at, size_at = found.time, found.key, found.user, found.size
        delimiter = None if self._delimiter == " " else self._delimiter
        same = self._texts.setdefault  # Attributes and globals cost what the loop cannot spare.
        request_of = Request
        least, most = -MOST_S, MOST_S
        scale = self._scale()
        requests: list[Request] = []
        append = requests.append
        user, size = None, 1
        for line in lines:
            cells = line.split(delimiter)
            try:
                at = float(cells[time_at]) / scale
                key = cells[key_at]
                if user_at is not None:
                    user = cells[user_at] or None
                    user = user and same(user, user)
                if size_at is not None:
                    size = int(cells[size_at])
            except (ValueError, IndexError):
                requests += self._carefully([line], number)
                scale = self._scale()
            else:
                if least < at < most and key and 0 <= size < MOST_SIZE:
                    append(request_of(at, same(key, key), user, size))
                else:
                    requests += self._carefully([line], number)
                    scale = self._scale()
            number += 1
        return requests

    def _scale(self) -> float:
        """How many of the times' unit are in a second; nan until it is known, so that no time passes."""
        return self._instants.scale or self._found.scale or nan

    def _carefully(self, lines: list[str], number: int) -> list[Request]:
        requests = []
        for index, line in enumerate(lines):
            try:
                request = self._request(line)
            except Unread as error:
                self._unreadable.add(error.why, number + index)
            else:
                if request is not None:
                    requests.append(request)
        return requests

    def _request(self, line: str) -> Request | None:
        """The request of any line; None for a blank one."""
        if not line or line.isspace():
            return None
        cells = _cells(line, self._delimiter)
        found = self._found
        if len(cells) <= max(found.time, found.key, found.user or 0):
            raise Unread(Why.CELLS)
        at = self._instants.read(cells[found.time], found.scale)
        key = key_of(cells[found.key])
        user = None if found.user is None else user_of(cells[found.user])
        size = 1 if found.size is None else size_of(cells[found.size].strip() if found.size < len(cells) else None)
        same = self._texts.setdefault
        return Request(at, same(key, key), user and same(user, user), size)


def _sniffed(first: str, columns: Mapping[Field, str | int], delimiter: str | None) -> tuple[str, Found]:
    found = sniffed(first, columns, delimiter)
    if found is not None:
        return found
    reason = (
        f"no column for the {' and the '.join(_asked(columns))} in the first line; "
        "say which it is, or the delimiter, or the format"
    )
    raise TraceError(reason)


def sniffed(first: str, columns: Mapping[Field, str | int], delimiter: str | None) -> tuple[str, Found] | None:
    """The delimiter and the columns, as the first line shows them; None where it shows none."""
    for each in DELIMITERS if delimiter is None else (delimiter,):
        try:
            cells = _cells(first, each)
        except Unread:
            continue
        found = find(cells, columns)
        if found is not None and max(found.time, found.key) < len(cells):
            return each, found
    return None


def _asked(columns: Mapping[Field, str | int]) -> list[str]:
    fields: tuple[Field, ...] = ("time", "key")
    return [f"{field} ({columns[field]!r})" if field in columns else field for field in fields]


def _cells(line: str, delimiter: str) -> list[str]:
    if '"' not in line:
        return line.split(None if delimiter == " " else delimiter)
    try:
        return next(csv.reader((line,), delimiter=delimiter, strict=True, skipinitialspace=delimiter == " "))
    except csv.Error:
        raise Unread(Why.QUOTES) from None
