"""What can be wrong with a trace: with a line of it, which is counted, and with the whole, which is a `TraceError`.

Neither quotes what it read: a line of a log may hold a token in its query or a password in its user.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cachemesh.simulation.request import Request

EXAMPLES: Final = 5


class TraceError(ValueError):
    """There is no trace to simulate: `no trace: ...` and the reason, on one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"no trace: {reason}")


class Why(StrEnum):
    """Why a line was left out."""

    TOO_LONG = "longer than 1 MiB"
    NOT_UTF_8 = "not UTF-8"
    BINARY = "binary data"
    QUOTES = "quotes that do not match"
    CELLS = "too few cells"
    NOT_JSON = "no JSON"
    NOT_AN_OBJECT = "no JSON object"
    FIELDS = "no field for the time or the key"
    NOT_A_LOG_LINE = "no line of a web log"
    NO_TARGET = "no request line with a target"
    NO_READ = "a request that is neither GET nor HEAD"
    NOT_A_COMMAND = "no line of a command log"
    LOST = "that the recorder has lost"
    NOBODY = "a request for a user's entry while nobody was signed in"
    KEY = "no key"
    USER = "a user that is neither text nor a number"
    TIME = "a time that cannot be read"
    SIZE = "a size that cannot be read"
    DAMAGED = "the compressed data is damaged or ends here"


class Unread(ValueError):
    """A line is left out. It ends inside the reader of the line."""

    def __init__(self, why: Why) -> None:
        super().__init__(why)
        self.why = why


class LeftOut(Struct):
    """How many lines were left out for one reason, and the numbers of the first five, from 1."""

    count: int = 0
    first: list[int] = field(default_factory=list)


class Unreadable:
    """The lines that were left out: a count and the first line numbers for each reason.

    >>> unreadable = Unreadable()
    >>> unreadable.add(Why.TIME, line=7)
    >>> str(unreadable)
    '1 line left out: 1 a time that cannot be read (line 7)'
    """

    def __init__(self) -> None:
        self._by_reason: dict[Why, LeftOut] = {}

    @property
    def total(self) -> int:
        return sum(each.count for each in self._by_reason.values())

    def add(self, why: Why, line: int, count: int = 1) -> None:
        found = self._by_reason.setdefault(why, LeftOut())
        found.count += count
        if len(found.first) < EXAMPLES:
            found.first.append(line)

    def __getitem__(self, why: Why) -> LeftOut:
        """Of one reason; a count of 0 where no line had it."""
        return self._by_reason.get(why) or LeftOut()

    def __iter__(self) -> Iterator[tuple[Why, LeftOut]]:
        """The reasons that occurred, the most frequent one first."""
        return iter(sorted(self._by_reason.items(), key=lambda item: -item[1].count))

    def __len__(self) -> int:
        return len(self._by_reason)

    def __str__(self) -> str:
        total = self.total
        if not total:
            return "no line left out"
        return f"{_lines(total)} left out: {'; '.join(_told(why, found) for why, found in self)}"

    def __repr__(self) -> str:
        return f"<Unreadable: {self}>"


def _told(why: Why, found: LeftOut) -> str:
    numbers = ", ".join(map(str, found.first))
    more = ", ..." if found.count > len(found.first) else ""
    return f"{found.count:,} {why} ({'line' if found.count == 1 else 'lines'} {numbers}{more})"


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count:,} lines"


def requests_of(
    lines: list[str], number: int, request_of: Callable[[str], Request], unreadable: Unreadable
) -> list[Request]:
    """What `request_of` reads in each of `lines`, the first of which has the `number`; empty ones are no trouble."""
    requests = []
    for index, line in enumerate(lines):
        if not line or line.isspace():
            continue
        try:
            requests.append(request_of(line))
        except Unread as error:
            unreadable.add(error.why, number + index)
    return requests
