"""RFC 9111 as a table: what an answer says, and what a shared and a private cache make of it.

A row has the section that it is about (of RFC 9111, unless another is named),
the fields of the answer, and what is expected: `kept(ttl, serve_stale,
stale_if_error)`, or `NOWHERE`. Where one outcome is given, it is that of both
kinds of cache. Unless a row says otherwise, a GET without fields of note is
answered at once with 200 and a `Date` of that instant.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from cachemesh.shell.default import DEFAULT, Default
from cachemesh.sources.dates import http_date
from cachemesh.sources.http.caching import (
    LONGEST_S,
    NOTHING_SAID,
    Answered,
    Asked,
    CacheControl,
    Rules,
    Stored,
    Verdict,
    cache_control,
    conditions,
    said_in,
    stored_in,
    strictest,
    values_of,
    varying,
    verdict,
)

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

T: Final = 1_767_225_600.0
"""The instant of the answer: 2026-01-01 00:00:00."""
MINUTE: Final = 60.0
HOUR: Final = 3_600.0
DAY: Final = 86_400.0


def date(offset: float = 0.0) -> str:
    """An HTTP-date, `offset` seconds from the instant of the answer."""
    return formatdate(T + offset, usegmt=True)


class Kept(Struct, frozen=True):
    """It is stored."""

    ttl: float | Default | None
    serve_stale: float | None = None
    stale_if_error: float | None = None


def kept(ttl: float | Default | None, serve_stale: float | None = None, stale_if_error: float | None = None) -> Kept:
    return Kept(ttl, serve_stale, stale_if_error)


def strict(ttl: float | None) -> Kept:
    """Stored, and never of use once it is stale."""
    return Kept(ttl, 0.0, 0.0)


NOWHERE: Final = "not stored, nor shared among those who wait"
USELESS: Final = "not stored, as nothing could come of it"

Outcome = Kept | str


class Row(Struct, frozen=True):
    section: str
    name: str
    fields: tuple[str, ...]
    shared: Outcome
    private: Outcome
    asks: tuple[str, ...]
    status: int
    method: str
    took: float
    later: float
    rules: dict[str, Any]
    unkeyed: frozenset[str]


def row(
    section: str,
    name: str,
    *fields: str,
    both: Outcome | None = None,
    shared: Outcome | None = None,
    private: Outcome | None = None,
    asks: tuple[str, ...] = (),
    status: int = 200,
    method: str = "GET",
    took: float = 0.0,
    later: float = 0.0,
    rules: dict[str, Any] | None = None,
    unkeyed: tuple[str, ...] = ("authorization", "cookie"),
) -> Row:
    """`took`: seconds from the request to its answer; `later`: from that until it is looked at."""
    of_shared, of_private = (shared, private) if both is None else (both, both)
    assert of_shared is not None, name
    assert of_private is not None, name
    return Row(
        section,
        name,
        fields,
        of_shared,
        of_private,
        asks,
        status,
        method,
        took,
        later,
        rules or {},
        frozenset(unkeyed),
    )


CC: Final = "Cache-Control: "
ETAG: Final = 'ETag: "v1"'
LOGGED_IN: Final = ("Authorization: Bearer t",)
AN_HOUR_OLD: Final = f"Last-Modified: {date(-HOUR)}"
GUESSING: Final[dict[str, Any]] = {"heuristic": True}

TABLE: Final = [
    # 5.2.2: the directives of a response.
    row("5.2.2.1", "max-age", CC + "max-age=60", both=kept(60)),
    row("5.2.2.1", "max-age=0", CC + "max-age=0", both=kept(0)),
    row("5.2.2.1", "max-age=0 and an ETag", CC + "max-age=0", ETAG, both=kept(0)),
    row("5.2.2.2", "must-revalidate closes the windows", CC + "max-age=60, must-revalidate", both=strict(60)),
    row("5.2.2.2", "and those of RFC 5861", CC + "max-age=60, must-revalidate, stale-if-error=9", both=strict(60)),
    row("5.2.2.2", "used up, with an ETag", CC + "max-age=0, must-revalidate", ETAG, both=strict(0)),
    row("5.2.2.2", "used up, with nothing to ask by", CC + "max-age=0, must-revalidate", both=USELESS),
    row("5.2.2.2", "without a lifetime: there is none", CC + "must-revalidate", ETAG, both=strict(0)),
    row("5.2.2.3", "must-understand lifts no-store", CC + "must-understand, no-store, max-age=60", both=kept(60)),
    row(
        "5.2.2.3",
        "where the status is understood",
        CC + "must-understand, no-store, max-age=60",
        status=299,
        both=NOWHERE,
    ),
    row("5.2.2.3", "also without no-store", CC + "must-understand, max-age=60", status=299, both=NOWHERE),
    row("5.2.2.4", "no-cache, with an ETag", CC + "no-cache, max-age=60", ETAG, both=strict(0)),
    row("5.2.2.4", "no-cache and RFC 5861", CC + "no-cache, stale-while-revalidate=9", ETAG, both=strict(0)),
    row("5.2.2.4", "no-cache, with nothing to ask by", CC + "no-cache", both=USELESS),
    row("5.2.2.4", "no-cache with fields is no-cache", CC + 'no-cache="set-x", max-age=60', ETAG, both=strict(0)),
    row("5.2.2.5", "no-store", CC + "no-store", both=NOWHERE),
    row("5.2.2.5", "no-store against everything", CC + "public, max-age=60, no-store", ETAG, both=NOWHERE),
    row("5.2.2.5", "no-store with an argument", CC + "no-store=1, max-age=60", both=NOWHERE),
    row("5.2.2.6", "no-transform says nothing", CC + "no-transform, max-age=60", both=kept(60)),
    row("5.2.2.7", "private", CC + "private, max-age=60", shared=NOWHERE, private=kept(60)),
    row("5.2.2.7", "private alone", CC + "private", shared=NOWHERE, private=kept(DEFAULT)),
    row("5.2.2.7", "private alone, and an ETag", CC + "private", ETAG, shared=NOWHERE, private=kept(0)),
    row("5.2.2.7", "private with fields", CC + 'private="x-me", max-age=60', shared=NOWHERE, private=kept(60)),
    row("5.2.2.7", "public as well", CC + "public, private, max-age=60", shared=NOWHERE, private=kept(60)),
    row(
        "5.2.2.8",
        "proxy-revalidate",
        CC + "max-age=60, proxy-revalidate, stale-if-error=9",
        shared=strict(60),
        private=kept(60, 0, 9),
    ),
    row("5.2.2.9", "public alone leaves the ttl to the caller", CC + "public", both=kept(DEFAULT)),
    row("5.2.2.9", "public makes any status one to keep", CC + "public", status=202, both=kept(DEFAULT)),
    row("5.2.2.9", "public with an argument permits nothing", CC + "public=1", status=202, both=NOWHERE),
    row("5.2.2.10", "s-maxage", CC + "s-maxage=60", shared=strict(60), private=kept(DEFAULT)),
    row("5.2.2.10", "s-maxage before max-age", CC + "max-age=5, s-maxage=60", shared=strict(60), private=kept(5)),
    row("5.2.2.10", "also where it is shorter", CC + "s-maxage=5, max-age=60", shared=strict(5), private=kept(60)),
    row(
        "5.2.2.10",
        "s-maxage has the meaning of proxy-revalidate",
        CC + "s-maxage=60, max-age=5, stale-while-revalidate=9",
        shared=strict(60),
        private=kept(5, 9, 0),
    ),
    row("5.2.2.10", "s-maxage before Expires", CC + "s-maxage=60", "Expires: 0", shared=strict(60), private=kept(0)),
    row("5.2.3", "unknown directives say nothing", CC + 'max-age=60, community="UCI", x', both=kept(60)),
    row("5.2.3", "nor do they alone", CC + "x-cache-me", both=kept(DEFAULT)),
    # 5.2: how they are written.
    row("5.2", "in any case", "cAcHe-CoNtRoL: MAX-AGE=60, Must-Revalidate", both=strict(60)),
    row("5.2", "a quoted argument", CC + 'max-age="60"', both=kept(60)),
    row("5.2", "a quotation with a pair in it", CC + r'max-age="6\0"', both=kept(60)),
    row("5.2", "a comma in a quotation", CC + 'x="no-store, private", max-age=60', both=kept(60)),
    row("5.2", "a quotation without an end", CC + 'x="y, private, max-age=60', shared=NOWHERE, private=kept(60)),
    row("5.2", "a quotation in a wrong place", CC + 'x"y, no-store, z", max-age=60', both=NOWHERE),
    row("5.2", "more behind a quotation", CC + 'x="y, no-store, "z, max-age=60', both=NOWHERE),
    row("5.2", "empty members and blanks", CC + " ,, \t max-age=60 , ,", both=kept(60)),
    row("5.2", "several lines", CC + "max-age=60", CC + "private", shared=NOWHERE, private=kept(60)),
    row("5.2", "an empty field", CC, both=kept(DEFAULT)),
    # 4.2.1: what contradicts itself, or makes no sense, is stale.
    row("4.2.1", "the same twice", CC + "max-age=60, max-age=60", both=kept(60)),
    row("4.2.1", "the shortest counts", CC + "max-age=60, max-age=5", both=kept(5)),
    row("4.2.1", "on several lines, too", CC + "max-age=5", CC + "max-age=60", both=kept(5)),
    row("4.2.1", "negative", CC + "max-age=-1", both=kept(0)),
    row("4.2.1", "with a fraction", CC + "max-age=1.5", both=kept(0)),
    row("4.2.1", "no number", CC + "max-age=soon", both=kept(0)),
    row("4.2.1", "no argument", CC + "max-age", both=kept(0)),
    row("4.2.1", "an empty argument", CC + "max-age=", both=kept(0)),
    row("4.2.1", "digits of another script", CC + "max-age=٦٠", both=kept(0)),
    row("4.2.1", "a blank before the sign", CC + "max-age =60", both=kept(0)),
    row("4.2.1", "a blank behind the sign", CC + "max-age= 60", both=kept(0)),
    row("4.2.1", "one that is none beside one that is", CC + "max-age=60, max-age=x", both=kept(0)),
    row("4.2.1", "an s-maxage that is none", CC + "max-age=60, s-maxage=x", shared=USELESS, private=kept(60)),
    row("4.2.1", "a window that is none", CC + "max-age=60, stale-if-error=x", both=kept(60, 0, 0)),
    row("1.2.2", "too large a number", CC + "max-age=99999999999999999999", both=kept(LONGEST_S)),
    row("1.2.2", "one of a megabyte", CC + "max-age=" + "9" * 1_000_000, both=kept(LONGEST_S)),
    row("1.2.2", "zeros before it", CC + "max-age=" + "0" * 50 + "60", both=kept(60)),
    # 5.3: Expires.
    row("5.3", "Expires", f"Expires: {date(60)}", both=kept(60)),
    row("5.3", "in the past", f"Expires: {date(-60)}", both=kept(0)),
    row("5.3", "0 is in the past", "Expires: 0", both=kept(0)),
    row("5.3", "an empty one, too", "Expires: ", both=kept(0)),
    row("5.3", "none is long past", CC + "stale-if-error=50", "Expires: 0", f"Date: {date(-30)}", both=kept(0, 0, 20)),
    row("5.3", "of two, one that is none", f"Expires: {date(60)}", "Expires: x", both=kept(0)),
    row("5.3", "max-age before Expires", CC + "max-age=5", f"Expires: {date(60)}", both=kept(5)),
    row("5.3", "also an Expires in the past", CC + "max-age=5", "Expires: 0", both=kept(5)),
    row("5.3", "counted from Date", f"Date: {date(-100)}", f"Expires: {date(-40)}", both=kept(0)),
    row("5.3", "of two, the first to come", f"Expires: {date(60)}", f"Expires: {date(5)}", both=kept(5)),
    row("4.2", "another zone is none", "Expires: Thu, 01 Jan 2026 00:01:00 EST", both=kept(0)),
    row("4.2", "UTC is GMT, in any case", "Expires: thu, 01 jan 2026 00:01:00 utc", both=kept(60)),
    row("9110 5.6.7", "the form of RFC 850", "Expires: Thursday, 01-Jan-26 00:01:00 GMT", both=kept(60)),
    row("9110 5.6.7", "that of asctime", "Expires: Thu Jan  1 00:01:00 2026", both=kept(60)),
    row("9110 5.6.7", "a day that there is not", "Expires: Thu, 31 Feb 2026 00:01:00 GMT", both=kept(0)),
    # 4.2.3: the age.
    row("4.2.3", "Age is taken away", CC + "max-age=60", "Age: 20", both=kept(40)),
    row("4.2.3", "more than there is", CC + "max-age=60", "Age: 100", both=kept(0)),
    row("4.2.3", "a Date in the past", CC + "max-age=60", f"Date: {date(-20)}", both=kept(40)),
    row("4.2.3", "the older of both", CC + "max-age=60", f"Date: {date(-20)}", "Age: 30", both=kept(30)),
    row("4.2.3", "a Date in the future", CC + "max-age=60", f"Date: {date(100)}", both=kept(60)),
    row("4.2.3", "the time that the answer took", CC + "max-age=60", "Age: 10", took=5, both=kept(45)),
    row("4.2.3", "and the time since", CC + "max-age=60", "Age: 10", took=5, later=20, both=kept(25)),
    row("4.2.3", "a Date that is none", CC + "max-age=60", "Date: yesterday", both=kept(60)),
    row("4.2.3", "two Dates are none", CC + "max-age=60", f"Date: {date(-9)}", f"Date: {date(-8)}", both=kept(60)),
    row("4.2.3", "Expires, too", f"Expires: {date(60)}", "Age: 20", both=kept(40)),
    row("4.2.3", "windows shrink as well", CC + "max-age=60, stale-if-error=50", "Age: 70", both=kept(0, 0, 40)),
    row("4.2.3", "both", CC + "max-age=60, stale-while-revalidate=50", "Age: 70", both=kept(0, 40, 0)),
    row("4.2.3", "not before", CC + "max-age=60, stale-while-revalidate=50", "Age: 20", both=kept(40, 50, 0)),
    row("4.2.3", "to nothing", CC + "max-age=60, stale-if-error=50", "Age: 500", both=USELESS),
    row("5.1", "an Age that is none", CC + "max-age=60", "Age: -5", both=kept(60)),
    row("5.1", "the first of several", CC + "max-age=60", "Age: 20, 10", "Age: 5", both=kept(40)),
    row("5.1", "a huge one", CC + "max-age=60", "Age: 99999999999999999999", both=kept(0)),
    # RFC 5861 and RFC 8246.
    row("5861 3", "stale-while-revalidate", CC + "max-age=60, stale-while-revalidate=30", both=kept(60, 30, 0)),
    row("5861 4", "stale-if-error", CC + "max-age=60, stale-if-error=30", both=kept(60, 0, 30)),
    row("5861 4", "both", CC + "max-age=6, stale-while-revalidate=30, stale-if-error=9", both=kept(6, 30, 9)),
    row("5861 3", "without a lifetime", CC + "stale-while-revalidate=30", both=kept(0, 30, 0)),
    row("5861 3", "capped", CC + "max-age=6, stale-while-revalidate=9999999999", both=kept(6, LONGEST_S, 0)),
    row("5861 3", "the shorter of two", CC + "max-age=6, stale-if-error=9, stale-if-error=3", both=kept(6, 0, 3)),
    row("8246 2", "immutable makes nothing live longer", CC + "max-age=60, immutable", both=kept(60)),
    row("8246 2", "nor does it alone", CC + "immutable", ETAG, both=kept(0)),
    # 5.4: Pragma is a field of requests.
    row("5.4", "Pragma in an answer", "Pragma: no-cache", CC + "max-age=60", both=kept(60)),
    row("5.4", "and alone", "Pragma: no-cache", both=kept(DEFAULT)),
    # 3: what is stored.
    row("3", "an origin that says nothing leaves it to the caller", both=kept(DEFAULT)),
    row("3", "an ETag alone is asked each time", ETAG, both=kept(0)),
    row("3", "a Last-Modified as well", f"Last-Modified: {date(-DAY)}", both=kept(0)),
    row("3", "a POST", CC + "max-age=60", method="POST", both=NOWHERE),
    row("3", "a HEAD", CC + "max-age=60", method="HEAD", both=NOWHERE),
    row("3", "what is not final", CC + "max-age=60", status=103, both=NOWHERE),
    row("3", "an odd status without a word", status=202, both=NOWHERE),
    row("3", "an odd status with one", CC + "max-age=60", status=202, both=kept(60)),
    row("3", "with Expires", f"Expires: {date(60)}", status=302, both=kept(60)),
    row("3", "s-maxage is a word for a shared cache", CC + "s-maxage=9", status=302, shared=strict(9), private=NOWHERE),
    row("3", "private is one for a private cache", CC + "private", status=302, shared=NOWHERE, private=kept(DEFAULT)),
    row("3.4", "a part", CC + "max-age=60", status=206, both=NOWHERE),
    row("3.4", "a part by its field", CC + "max-age=60", "Content-Range: bytes 0-1/2", both=NOWHERE),
    row("3.4", "the answer to a wish for a part", CC + "max-age=60", asks=("Range: bytes=0-1",), both=NOWHERE),
    row("5.2.1.5", "the request says no-store", CC + "max-age=60", asks=(CC + "No-Store",), both=NOWHERE),
    row("5.2.1.4", "the request says no-cache", CC + "max-age=60", asks=(CC + "no-cache",), both=kept(60)),
    row("4.3.4", "a 304 with nothing stored", CC + "max-age=60", ETAG, status=304, both=NOWHERE),
    # 3.5: Authorization.
    row("3.5", "a lifetime is no permission", CC + "max-age=60", asks=LOGGED_IN, shared=NOWHERE, private=kept(60)),
    row("3.5", "nor is silence", asks=LOGGED_IN, shared=NOWHERE, private=kept(DEFAULT)),
    row("3.5", "public is", CC + "public, max-age=60", asks=LOGGED_IN, both=kept(60)),
    row("3.5", "must-revalidate is", CC + "must-revalidate, max-age=60", asks=LOGGED_IN, both=strict(60)),
    row("3.5", "s-maxage is", CC + "s-maxage=60", asks=LOGGED_IN, shared=strict(60), private=kept(DEFAULT)),
    row("3.5", "no number, no permission", CC + "s-maxage=x", asks=LOGGED_IN, shared=NOWHERE, private=kept(DEFAULT)),
    row("3.5", "public=x is none", CC + "public=x, max-age=9", asks=LOGGED_IN, shared=NOWHERE, private=kept(9)),
    row("3.5", "public and private", CC + "public, private", asks=LOGGED_IN, shared=NOWHERE, private=kept(DEFAULT)),
    row("3.5", "one for caches", CC + "proxy-revalidate, max-age=9", asks=LOGGED_IN, shared=NOWHERE, private=kept(9)),
    # 7.3: cookies, where we are stricter than the RFC.
    row("7.3", "Set-Cookie", CC + "public, max-age=9", "Set-Cookie: a=b", shared=NOWHERE, private=kept(9)),
    row("7.3", "a Cookie, and only a guess", asks=("Cookie: a=b",), shared=NOWHERE, private=kept(DEFAULT)),
    row("7.3", "a Cookie, and a word", CC + "max-age=9", asks=("Cookie: a=b",), both=kept(9)),
    row("7.3", "a Cookie, and public", CC + "public", asks=("Cookie: a=b",), both=kept(DEFAULT)),
    # 4.1: Vary.
    row("4.1", "Vary: *", CC + "max-age=60", "Vary: *", both=NOWHERE),
    row("4.1", "* among others", CC + "max-age=60", "Vary: Accept, *", both=NOWHERE),
    row("4.1", "no name", CC + "max-age=60", "Vary: a b", both=NOWHERE),
    row("4.1", "a header of the key", CC + "max-age=60", "Vary: Accept-Language", both=kept(60)),
    row("4.1", "one that is not in the key", CC + "max-age=60", "Vary: Cookie", shared=NOWHERE, private=kept(60)),
    row("4.1", "in any case", CC + "max-age=60", "vary: COOKIE , Accept", shared=NOWHERE, private=kept(60)),
    row("4.1", "an empty one", CC + "max-age=60", "Vary: ", both=kept(60)),
    # 4.2.2: guesses.
    row("4.2.2", "not unless told", AN_HOUR_OLD, both=kept(0)),
    row("4.2.2", "a tenth", AN_HOUR_OLD, rules=GUESSING, both=kept(360)),
    row("4.2.2", "a day at most", f"Last-Modified: {date(-99 * DAY)}", rules=GUESSING, both=kept(DAY)),
    row("4.2.2", "less its age", AN_HOUR_OLD, "Age: 60", rules=GUESSING, both=kept(300)),
    row("4.2.2", "modified in the future", f"Last-Modified: {date(9)}", rules=GUESSING, both=kept(0)),
    row("4.2.2", "not against a word", CC + "max-age=5", AN_HOUR_OLD, rules=GUESSING, both=kept(5)),
    row("4.2.2", "nor an Expires", "Expires: 0", AN_HOUR_OLD, rules=GUESSING, both=kept(0)),
    row("4.2.2", "nothing to guess by", ETAG, rules=GUESSING, both=kept(0)),
    row("4.2.2", "an odd status", AN_HOUR_OLD, status=202, rules=GUESSING, both=NOWHERE),
    row("4.2.2", "the configured one", rules={"default_ttl_s": 7.0}, both=kept(7)),
    row("4.2.2", "with an ETag", ETAG, rules={"default_ttl_s": 7.0}, both=kept(7)),
    row("4.2.2", "for ever", ETAG, rules={"default_ttl_s": None}, both=kept(None)),
    row("4.2.2", "not against a word, either", CC + "max-age=0", rules={"default_ttl_s": 7.0}, both=kept(0)),
    row("4.2.2", "nor no-cache", CC + "no-cache", ETAG, rules={"default_ttl_s": 7.0}, both=strict(0)),
    row("4.2.2", "a guess comes first", AN_HOUR_OLD, rules=GUESSING | {"default_ttl_s": 7.0}, both=kept(360)),
    # RFC 9110, 15.1: what may be kept without a word.
    *(row("9110 15.1", f"{status}", status=status, both=kept(DEFAULT)) for status in (200, 203, 204, 300, 301, 308)),
    *(row("9110 15.1", f"{status}", status=status, both=kept(DEFAULT)) for status in (404, 405, 410, 414, 501)),
    *(row("9110 15.1", f"{status}", status=status, both=NOWHERE) for status in (201, 302, 303, 307, 400, 403, 500)),
]  # fmt: skip


def fields_of(lines: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    named = [line.partition(":") for line in lines]
    return tuple((name, value.strip(" ")) for name, _, value in named)


def judged(each: Row, *, shared: bool) -> Verdict:
    fields = fields_of(each.fields)
    if not any(name.lower() == "date" for name, _ in fields):
        fields = (("Date", date()), *fields)
    asked = Asked(each.method, fields_of(each.asks), T - each.took, "x", each.unkeyed)
    return verdict(asked, Answered(each.status, fields, T), Rules(shared=shared, **each.rules), T + each.later)


@pytest.mark.parametrize("scope", ["shared", "private"])
@pytest.mark.parametrize("each", TABLE, ids=lambda each: f"{each.section}: {each.name}")
def test_ht1_the_table(each: Row, scope: str) -> None:
    shared = scope == "shared"
    expected = each.shared if shared else each.private

    told = judged(each, shared=shared)

    if isinstance(expected, Kept):
        assert (told.stores, told.ttl_s, told.serve_stale_s, told.stale_if_error_s) == (
            True,
            expected.ttl,
            expected.serve_stale,
            expected.stale_if_error,
        )
        assert told.private is not shared
    elif expected == NOWHERE:
        assert (told.stores, told.private, told.validator) == (False, True, None)
    else:
        assert (told.stores, told.private) == (False, not shared)
    assert re.match(r"RFC 9111 \d(\.\d+)*: \w", told.reason)
    assert not told.renews


def test_the_table_is_one() -> None:
    assert len(TABLE) >= 60
    names = [(each.section, each.name) for each in TABLE]
    assert len(set(names)) == len(names)


# 4.3: validation.

GET: Final = Asked("GET", (), T, "x")


def answer(status: int, *lines: str, at: float = T) -> Answered:
    return Answered(status, (("Date", formatdate(at, usegmt=True)), *fields_of(lines)), at)


def stored(*lines: str, asks: tuple[str, ...] = ()) -> Stored:
    """What is kept of an answer with these fields."""
    told = verdict(Asked("GET", fields_of(asks), T, "x"), answer(200, *lines), Rules(shared=False), T)
    found = stored_in(told.validator)
    assert found is not None
    return found


OBSOLETE: Final = "Wednesday, 31-Dec-25 00:00:00 GMT"
MODIFIED: Final = f"Last-Modified: {date(-DAY)}"


@pytest.mark.parametrize(
    ("lines", "sends"),
    [
        ((ETAG,), {"If-None-Match": '"v1"'}),
        (('ETag: W/"v1"',), {"If-None-Match": 'W/"v1"'}),
        ((MODIFIED,), {"If-Modified-Since": date(-DAY)}),
        ((ETAG, MODIFIED), {"If-None-Match": '"v1"', "If-Modified-Since": date(-DAY)}),
        ((f"Last-Modified: {OBSOLETE}",), {"If-Modified-Since": OBSOLETE}),
    ],
)  # fmt: skip
def test_a_request_is_made_conditional_with_what_is_stored(lines: tuple[str, ...], sends: dict[str, str]) -> None:
    """Section 4.3.1: dates go back as they came."""
    assert conditions(stored(*lines), GET) == sends


@pytest.mark.parametrize(
    "line",
    [
        "ETag: v1",
        "ETag: w/'v1'",
        'ETag: w/"v1"',
        'ETag: "v 1"',
        'ETag: "v\r\nX: 1"',
        'ETag: "ü"',
        'ETag: "' + "x" * 2_000 + '"',
        "Last-Modified: yesterday",
        "Last-Modified: 0",
    ],
)
def test_what_is_no_validator_is_none(line: str) -> None:
    told = verdict(GET, answer(200, line, CC + "max-age=60"), Rules(shared=True), T)
    assert (told.stores, told.ttl_s, told.validator) == (True, 60.0, None)


def test_two_validators_of_a_kind_are_none() -> None:
    assert verdict(GET, answer(200, ETAG, 'ETag: "v2"'), Rules(shared=True), T).validator is None


@pytest.mark.parametrize(
    ("old", "new", "ttl", "windows"),
    [
        ((CC + "max-age=60",), (), 60.0, (None, None)),
        ((CC + "max-age=60",), (CC + "max-age=5",), 5.0, (None, None)),
        ((CC + "max-age=60",), (CC + "max-age=60, stale-if-error=9",), 60.0, (0.0, 9.0)),
        ((CC + "max-age=60, must-revalidate",), (), 60.0, (0.0, 0.0)),
        ((CC + "max-age=60, must-revalidate",), (CC + "max-age=5",), 5.0, (None, None)),
        ((CC + "max-age=60",), ("Age: 20",), 40.0, (None, None)),
        ((CC + "max-age=60",), (CC + "no-cache",), 0.0, (0.0, 0.0)),
        ((f"Expires: {date(3_700)}",), (), 100.0, (None, None)),
        ((f"Expires: {date(60)}",), (), 0.0, (None, None)),
        ((f"Expires: {date(60)}",), (f"Expires: {date(3_700)}",), 100.0, (None, None)),
        ((f"Expires: {date(60)}",), (CC + "max-age=7",), 7.0, (None, None)),
        ((CC + "max-age=60",), (f"Expires: {date(3_700)}",), 60.0, (None, None)),
        ((), (), 0.0, (None, None)),
    ],
)
def test_a_304_renews_with_its_own_fields_before_the_stored_ones(
    old: tuple[str, ...], new: tuple[str, ...], ttl: float, windows: tuple[float | None, float | None]
) -> None:
    """Sections 3.2 and 4.3.4, an hour later."""
    later = T + HOUR
    asked = Asked("GET", (), later, "x")

    told = verdict(asked, answer(304, ETAG, *new, at=later), Rules(shared=True), later, stored(ETAG, *old))

    assert (told.stores, told.renews, told.private) == (True, True, False)
    assert (told.ttl_s, (told.serve_stale_s, told.stale_if_error_s)) == (ttl, windows)
    again = verdict(asked, answer(304, at=later), Rules(shared=True), later, stored_in(told.validator))
    if new != ("Age: 20",):
        assert facts(again) == facts(told), "what a 304 has changed is kept for the next one"


def facts(told: Verdict) -> tuple[Any, ...]:
    return (told.stores, told.ttl_s, told.serve_stale_s, told.stale_if_error_s, told.validator)


@pytest.mark.parametrize(
    ("old", "new", "is_ours"),
    [
        ((ETAG,), (ETAG,), True),
        ((ETAG,), ('ETag: W/"v1"',), True),
        (('ETag: W/"v1"',), (ETAG,), True),
        ((ETAG,), ('ETag: "v2"',), False),
        ((ETAG,), (), True),
        ((ETAG,), (MODIFIED,), True),
        ((MODIFIED,), (MODIFIED,), True),
        ((MODIFIED,), (), True),
        ((MODIFIED,), (f"Last-Modified: {date()}",), False),
        ((MODIFIED,), (ETAG,), False),
        ((ETAG, "Vary: Accept"), (ETAG,), True),
        ((ETAG, "Vary: Accept"), (ETAG, "Vary: accept"), True),
        ((ETAG, "Vary: Accept, Foo"), (ETAG, "Vary: foo", "Vary: Accept"), True),
        ((ETAG, "Vary: Accept"), (ETAG, "Vary: Accept-Language"), False),
        ((ETAG, "Vary: Accept"), (ETAG, "Vary: Accept, Foo"), False),
        ((ETAG,), (ETAG, "Vary: Accept"), False),
        ((ETAG,), (ETAG, "Vary: *"), False),
    ],
)
def test_ht4_a_304_speaks_of_what_is_stored_or_of_nothing(
    old: tuple[str, ...], new: tuple[str, ...], *, is_ours: bool
) -> None:
    """Sections 4.3.4 (validators) and 4.1 (Vary: HT-2)."""
    told = verdict(GET, answer(304, *new), Rules(shared=False), T, stored(*old))
    assert (told.renews, told.stores) == (is_ours, is_ours)


@pytest.mark.parametrize(
    ("asks", "new"),
    [
        ((), (CC + "no-store",)),
        ((), (CC + "private",)),
        ((), ("Set-Cookie: a=b",)),
        (LOGGED_IN, ()),
        ((CC + "no-store",), ()),
    ],
)
def test_ht1_a_304_may_forbid_what_was_allowed(asks: tuple[str, ...], new: tuple[str, ...]) -> None:
    """What is stored answers the one who asked, and is not renewed for anybody else."""
    asked = Asked("GET", fields_of(asks), T, "x")
    told = verdict(asked, answer(304, *new), Rules(shared=True), T, stored(ETAG, CC + "max-age=60"))
    assert (told.renews, told.stores, told.private) == (True, False, True)


@pytest.mark.parametrize(
    ("vary", "first", "then", "matches"),
    [
        ("Accept-Language", ("Accept-Language: de",), ("accept-language: de",), True),
        ("Accept-Language", ("Accept-Language: de",), ("Accept-Language: en",), False),
        ("Accept-Language", ("Accept-Language: de",), (), False),
        ("Accept-Language", (), ("Accept-Language: de",), False),
        ("Accept-Language", (), (), True),
        ("Accept-Language", (), ("Accept: x",), True),
        ("Accept, Foo", ("Foo: 1", "Accept: x"), ("Accept: x", "Foo: 1"), True),
        ("Accept, Foo", ("Foo: 1", "Accept: x"), ("Accept: x", "Foo: 2"), False),
        ("Authorization", LOGGED_IN, ("Authorization: Bearer other",), False),
        ("Foo", ("Foo:",), (), False),
        ("Foo", ("Foo: a", "Foo: b"), ("Foo: a, b",), True),
    ],
)
def test_ht2_only_what_the_headers_that_vary_names_select_is_asked_for(
    vary: str, first: tuple[str, ...], then: tuple[str, ...], *, matches: bool
) -> None:
    """Section 4.1."""
    found = stored(ETAG, f"Vary: {vary}", asks=first)
    asked = Asked("GET", fields_of(then), T, "x")
    assert bool(conditions(found, asked)) is matches
    assert verdict(asked, answer(304, ETAG), Rules(shared=False), T, found).renews is matches


def test_a_validator_is_of_one_resource() -> None:
    assert conditions(stored(ETAG), Asked("GET", (), T, "another")) == {}
    assert conditions(None, GET) == {}


def test_a_validator_is_a_text_and_tells_no_secret() -> None:
    asked = Asked("GET", (("Authorization", "Bearer hunter2"), ("Cookie", "sid=hunter2")), T, "x")
    told = verdict(asked, answer(200, ETAG, "Vary: Cookie, Authorization"), Rules(shared=False), T)
    assert isinstance(told.validator, str)
    assert "hunter2" not in told.validator
    assert hash(told.validator)
    found = stored_in(told.validator)
    assert found is not None
    assert found.vary == ("authorization", "cookie")
    assert found.values == values_of(found.vary, asked.fields)


@pytest.mark.parametrize("text", [None, 5, b"x", "", '"v1"', "{}", "[]", '{"of":5}', "nul", "\ud800", "[" * 100_000])
def test_what_is_no_validator_of_ours_is_none(text: object) -> None:
    assert stored_in(text) is None


# Redirects


def test_behind_redirects_the_strictest_counts() -> None:
    moved = verdict(GET, answer(301, CC + "max-age=5", ETAG), Rules(shared=True), T)
    found = verdict(GET, answer(200, CC + "max-age=60, stale-if-error=9", ETAG), Rules(shared=True), T)

    told = strictest([moved, found])

    assert (told.stores, told.ttl_s, told.stale_if_error_s, told.validator) == (True, 5.0, 0.0, None)
    assert strictest([found]) is found


def test_behind_a_redirect_that_may_not_be_kept_nothing_is() -> None:
    """Section 3: a 302 without a word."""
    moved = verdict(GET, answer(302), Rules(shared=True), T)
    found = verdict(GET, answer(200, CC + "max-age=60"), Rules(shared=True), T)
    assert (strictest([moved, found]).stores, strictest([moved, found]).private) == (False, True)


def test_behind_redirects_that_say_nothing_the_caller_decides() -> None:
    moved, found = (verdict(GET, answer(status), Rules(shared=True), T) for status in (301, 200))
    assert strictest([moved, found]).ttl_s is DEFAULT
    forever = verdict(GET, answer(200), Rules(shared=True, default_ttl_s=None), T)
    assert strictest([forever, forever]).ttl_s is None


# Laws


TIMES: Final = ("max-age", "s-maxage", "stale-while-revalidate", "stale-if-error")
FLAGS: Final = ("public", "private", "no-store", "no-cache", "must-revalidate", "proxy-revalidate", "must-understand")
NAMES: Final = st.sampled_from((*TIMES, *FLAGS, "immutable", "no-transform", "x"))


@st.composite
def spelled(draw: st.DrawFn, names: SearchStrategy[str] = NAMES) -> str:
    """A directive, as somebody may write it."""
    name = "".join(draw(st.sampled_from((each, each.upper()))) for each in draw(names))
    argument = draw(st.sampled_from(("", "=60", "=0", '="5"', "=x", "=", '="a, b"', "=-1", "=99999999999", " =60")))
    before, behind = draw(st.sampled_from(("", " ", "\t", "  "))), draw(st.sampled_from(("", " ", "\t ")))
    return before + name + argument + behind


@st.composite
def fields(draw: st.DrawFn, *certain: str) -> tuple[tuple[str, str], ...]:
    """Lines of Cache-Control with `certain` directives among others, in whatever order and shape."""
    said = draw(st.lists(spelled(), max_size=6)) + [draw(spelled(st.just(name))) for name in certain]
    said = draw(st.permutations(said))
    cut = draw(st.integers(0, len(said)))
    lines = [",".join(part) for part in (said[:cut], said[cut:])]
    name = draw(st.sampled_from(("Cache-Control", "cache-control", "CACHE-CONTROL")))
    rest = draw(st.lists(st.sampled_from((("ETag", '"v"'), ("Age", "3"), ("Expires", date(60)), ("Vary", "Accept")))))
    return tuple(draw(st.permutations([(name, line) for line in lines] + rest)))


STATUSES: Final = st.sampled_from((200, 203, 204, 301, 302, 404, 503))


@given(fields("private"), STATUSES)
def test_ht1_private_is_never_in_a_shared_cache(said: tuple[tuple[str, str], ...], status: int) -> None:
    told = verdict(GET, Answered(status, said, T), Rules(shared=True), T)
    assert (told.stores, told.private) == (False, True)


@given(said=fields("no-store"), status=STATUSES, shared=st.booleans())
def test_ht1_no_store_is_never_stored(said: tuple[tuple[str, str], ...], status: int, *, shared: bool) -> None:
    told = verdict(GET, Answered(status, said, T), Rules(shared=shared), T)
    if not said_in(Answered(status, said, T)).cache_control.must_understand:  # type: ignore[union-attr]  # There is one.
        assert (told.stores, told.private) == (False, True)


@given(fields(), STATUSES)
def test_ht1_authorization_is_never_in_a_shared_cache_unless_allowed(
    said: tuple[tuple[str, str], ...], status: int
) -> None:
    asked = Asked("GET", (("authorization", "Basic x"),), T)
    told = verdict(asked, Answered(status, said, T), Rules(shared=True), T)
    text = ",".join(value for name, value in said if name.lower() == "cache-control").lower()
    may = {each.strip(" \t") for each in text.replace('"a, b"', "q").split(",")} & {
        "public", "must-revalidate", "s-maxage=60", "s-maxage=0", 's-maxage="5"', "s-maxage=99999999999",
    }  # fmt: skip
    assert may or not told.stores
    assert told.stores or told.private or told.ttl_s == 0.0


@given(said=fields(), status=STATUSES, cookie=st.booleans())
def test_ht1_set_cookie_and_any_vary_are_never_in_a_shared_cache(
    said: tuple[tuple[str, str], ...], status: int, *, cookie: bool
) -> None:
    more = ("Set-Cookie", "a=b") if cookie else ("Vary", "*")
    told = verdict(GET, Answered(status, (*said, more), T), Rules(shared=True), T)
    assert (told.stores, told.private) == (False, True)


@given(said=fields(), took=st.floats(0, 1e6), later=st.floats(0, 1e6), shared=st.booleans())
def test_no_ttl_is_negative_or_longer_than_what_was_said(
    said: tuple[tuple[str, str], ...], took: float, later: float, *, shared: bool
) -> None:
    answered = Answered(200, said, T)
    told = verdict(Asked("GET", (), T - took), answered, Rules(shared=shared), T + later)
    if isinstance(told.ttl_s, Default):
        return
    assert told.ttl_s is not None
    text = ",".join(value for _, value in said).lower()
    longest = max(
        [0.0, *(float(number) for number in re.findall(r"(?:age=\"?)(\d+)", text)), 60.0 if "gmt" in text else 0]
    )
    assert 0.0 <= told.ttl_s <= max(0.0, min(longest, LONGEST_S) - later)
    for window in (told.serve_stale_s, told.stale_if_error_s):
        assert window is None or 0.0 <= window <= LONGEST_S


ANY_FIELDS: Final = st.lists(
    st.tuples(
        st.sampled_from(("Cache-Control", "Expires", "Date", "Age", "Vary", "ETag", "Last-Modified", "Pragma")),
        st.text() | st.text('max-age=0123456789,"\\ \t*private') | st.just(date()),
    ),
    max_size=8,
).map(tuple)


@given(asks=ANY_FIELDS, said=ANY_FIELDS, status=st.integers(100, 599), shared=st.booleans(), heuristic=st.booleans())
def test_whatever_is_said_there_is_a_verdict(
    asks: tuple[tuple[str, str], ...],
    said: tuple[tuple[str, str], ...],
    status: int,
    *,
    shared: bool,
    heuristic: bool,
) -> None:
    asked = Asked("GET", asks, T, "x")
    told = verdict(asked, Answered(status, said, T), Rules(shared=shared, heuristic=heuristic), T)
    if told.validator is None:
        return
    found = stored_in(told.validator)
    assert found is not None
    assert conditions(found, asked)
    again = verdict(asked, Answered(304, said, T), Rules(shared=shared, heuristic=heuristic), T, found)
    assert again.renews


@given(st.lists(st.text('max-age=0123456789,"\\ \tprivate\n'), max_size=4))
def test_the_parser_takes_any_text(lines: list[str]) -> None:
    said = cache_control(lines)
    assert isinstance(said, CacheControl)
    assert msgspec.json.decode(msgspec.json.encode(said), type=CacheControl) == said


@pytest.mark.parametrize("text", ['x="' * 40_000, '="\\' * 40_000, '"\\",=' * 40_000, "," * 100_000, "a=b," * 40_000])
def test_a_hostile_field_takes_no_time_to_speak_of(text: str) -> None:
    """A hundred kilobytes; what is quadratic takes minutes, and the test would hang."""
    assert cache_control([text]) == NOTHING_SAID


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d\d (Jan|Feb) \d{4} \d\d:\d\d:\d\d GMT", fullmatch=True))
def test_any_text_is_a_date_or_none(text: str) -> None:
    found = http_date(text, T)
    assert found is None or isinstance(found, float)


def test_a_year_of_two_digits_is_at_most_fifty_years_ahead() -> None:
    """RFC 9110, section 5.6.7."""
    assert http_date("Wednesday, 01-Jan-76 00:00:00 GMT", T) == http_date("Wed, 01 Jan 2076 00:00:00 GMT", T)
    assert http_date("Saturday, 01-Jan-77 00:00:00 GMT", T) == http_date("Sat, 01 Jan 1977 00:00:00 GMT", T)


def test_names_of_vary_are_a_set() -> None:
    assert varying(["Foo, accept", "ACCEPT"]) == ("accept", "foo")
