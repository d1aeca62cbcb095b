"""The Common and the Combined Log Format of web servers.

`host ident authuser [day/month/year:hour:minute:second zone] "request line" status bytes`, and in the combined one
`"referrer" "user agent"` behind it: https://httpd.apache.org/docs/current/logs.html. What follows is left alone.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final

from cachemesh.simulation.request import Request
from cachemesh.simulation.traces.trouble import Unread, Why, requests_of

if TYPE_CHECKING:
    from cachemesh.simulation.traces.trouble import Unreadable

LINE: Final = re.compile(
    r"(?:[^\s:]+:\d+ )?"  # The virtual host, where the server writes it.
    r"\S+ \S+ (?P<user>\S.*?) "
    r"\[(?P<minute>\d\d?/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d):(?P<second>\d\d) (?P<zone>[+-]\d{4})\] "
    r'"(?P<request>(?:[^"\\]|\\.)*+)" (?:\d{3}|-) (?P<size>\d{1,18}|-)(?=\s|\Z)'
    r'(?P<combined> "(?:[^"\\]|\\.)*+" "(?:[^"\\]|\\.)*+")?',
    re.ASCII,
)
MONTHS: Final = {
    name: number
    for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)  # noqa: SIM905 (reads better)
}
MINUTE: Final = re.compile(r"(\d+)/(...)/(\d+):(\d+):(\d+)")
MOST_SECONDS: Final = 60  # A leap second is the 60th.
READS: Final = frozenset({"GET", "HEAD"})
NOBODY: Final = frozenset({"-", '""'})


class WebLog:
    """Reads lines of a web log.

    The key is the path of the target, with its query where `query` is true.
    Methods other than GET and HEAD are left out and counted, as they do not
    read. A size of `-` is 0: nothing was sent.
    """

    def __init__(self, unreadable: Unreadable, *, query: bool) -> None:
        self._unreadable = unreadable
        self._query = query
        self._texts: dict[str, str] = {}
        self._minute = ("", "")
        self._minute_at = 0.0

    def read(self, lines: list[str], number: int) -> list[Request]:
        """The requests of `lines`, the first of which has the `number`."""
        return requests_of(lines, number, self._request, self._unreadable)

    def _request(self, line: str) -> Request:
        found = LINE.match(line)
        if found is None:
            raise Unread(Why.NOT_A_LOG_LINE)
        user, minute, second, zone, request, size, _ = found.groups()
        at = self._instant(minute, zone) + float(second)
        if float(second) > MOST_SECONDS:
            raise Unread(Why.TIME)
        key = self._key(request)
        same = self._texts.setdefault
        whose = None if user in NOBODY else same(user, user)
        return Request(at, same(key, key), whose, 0 if size == "-" else int(size))

    def _key(self, request: str) -> str:
        method, _, rest = request.partition(" ")
        target = rest.partition(" ")[0]
        if not target:
            raise Unread(Why.NO_TARGET)
        if method not in READS:
            raise Unread(Why.NO_READ)
        target = target.partition("#")[0]
        key = target if self._query else target.partition("?")[0]
        if not key:
            raise Unread(Why.KEY)
        return key

    def _instant(self, minute: str, zone: str) -> float:
        if (minute, zone) != self._minute:
            self._minute_at = _instant(minute, zone)
            self._minute = (minute, zone)
        return self._minute_at


def _instant(minute: str, zone: str) -> float:
    found = MINUTE.match(minute)
    assert found is not None  # It is a part of LINE.
    day, month, year, hour, past = found.groups()
    offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:5]))
    try:
        zoned = timezone(-offset if zone[0] == "-" else offset)
        return datetime(int(year), MONTHS[month], int(day), int(hour), int(past), tzinfo=zoned).timestamp()
    except (ValueError, KeyError, OverflowError):
        raise Unread(Why.TIME) from None
