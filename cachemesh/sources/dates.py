"""Dates as HTTP writes them (RFC 9110, section 5.6.7)."""

from __future__ import annotations

import re
from calendar import isleap, timegm
from typing import Final

BLANKS: Final = " \t\r\n"
MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS: Final = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
SECONDS_OF_A_YEAR: Final = 31_556_952

_MONTH: Final = "|".join(MONTHS)
_TIME: Final = r"\d\d:\d\d:\d\d"
DATE: Final = re.compile(
    rf"[a-z]{{3}}, (?P<day1>\d\d) (?P<month1>{_MONTH}) (?P<year1>\d{{4}}) (?P<time1>{_TIME}) (?:gmt|utc)"
    rf"|[a-z]{{6,9}}, (?P<day2>\d\d)-(?P<month2>{_MONTH})-(?P<year2>\d\d) (?P<time2>{_TIME}) (?:gmt|utc)"
    rf"|[a-z]{{3}} (?P<month3>{_MONTH}) (?P<day3>[ \d]\d) (?P<time3>{_TIME}) (?P<year3>\d{{4}})",
    re.ASCII | re.IGNORECASE,
)


def http_date(text: str | None, now: float) -> float | None:
    """Seconds since the epoch, of any of the three forms of a date (RFC 9110, 5.6.7). None where it is none.

    Case does not matter, and no other zone counts than GMT and UTC (RFC 9111, 4.2).
    `now`: of which century a year of two digits is.

    >>> http_date("Sunday, 06-Nov-94 08:49:37 GMT", 1_767_225_600.0)
    784111777.0
    """
    found = None if text is None else DATE.fullmatch(text.strip(BLANKS))
    if found is None:
        return None
    part = {name.rstrip("123"): value for name, value in found.groupdict().items() if value is not None}
    year, month, day = int(part["year"]), MONTHS.index(part["month"].lower()) + 1, int(part["day"])
    hour, minute, second = (int(number) for number in part["time"].split(":"))
    if len(part["year"]) == 2:  # noqa: PLR2004 (digits)
        this_year = 1970 + int(now // SECONDS_OF_A_YEAR)
        year += this_year // 100 * 100
        year -= 100 if year > this_year + 50 else 0
    longest = 29 if month == 2 and isleap(year) else DAYS[month - 1]  # noqa: PLR2004 (February)
    if not (year >= 1 and 1 <= day <= longest and hour < 24 and minute < 60 and second <= 60):  # noqa: PLR2004 (a time of day)
        return None
    return float(timegm((year, month, day, hour, minute, second)))
