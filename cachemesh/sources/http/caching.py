"""What HTTP says of caching an answer (RFC 9111), as a pure function: facts in, a `Verdict` out.

Here are the rules: what of a request and its answer counts, whether the answer
is kept, for how long, and what asks the origin later whether it has changed.
No clock, no I/O, no client: who sends requests, and what a cache does with the
verdict, is `fetcher.py`. Sections are those of RFC 9111 unless another is named.

A restriction counts in any form, however it is written; a permission only as
its RFC writes it. Where two things that are said contradict each other, the
stricter one counts (4.2.1).
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from cachemesh.shell.default import DEFAULT, Default
from cachemesh.sources.dates import BLANKS, http_date

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Fields: TypeAlias = tuple[tuple[str, str], ...]
"""Header fields: name and value, a line each, in their order. The case of names does not matter."""

LONGEST_S: Final = 2**31
"""A longer time than this is this (1.2.2)."""

HEURISTIC_SHARE: Final = 0.1
"""Of the time since it was last modified, an answer is taken to be fresh for so much (4.2.2)."""
LONGEST_HEURISTIC_S: Final = 86_400.0
"""And for no longer than a day: after that it is a guess about a guess."""

HEURISTIC_STATUSES: Final = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
"""What may be kept without a word of its lifetime (RFC 9110, 15.1); 206 is left out, as parts are never kept here."""

UNDERSTOOD: Final = HEURISTIC_STATUSES | {302, 303, 307}
"""The statuses whose rules of caching are known here, for must-understand (5.2.2.3)."""

LONGEST_ETAG: Final = 1_024

NOT_MODIFIED: Final = 304


class Asked(Struct, frozen=True):
    """A request: what of it counts.

    `fields`: as they were sent. `at`: the instant, in seconds since the epoch.
    `of`: whatever names the resource; a validator counts for that one alone.
    `unkeyed`: the headers, in lower case, whose values another request under the
    same key of the cache may have otherwise.
    """

    method: str
    fields: Fields
    at: float
    of: str = ""
    unkeyed: frozenset[str] = frozenset()


class Answered(Struct, frozen=True):
    """Its answer: `at` is the instant at which it came."""

    status: int
    fields: Fields
    at: float


class Rules(Struct, frozen=True):
    """By which rules an answer is judged.

    `shared`: those of a cache that several users share, not of one user's own.
    `heuristic`: without a lifetime, a tenth of the time since it was last
    modified counts, a day at the most (4.2.2). `default_ttl_s`: what counts
    where there is no lifetime at all; None is for ever, `DEFAULT` the caller's own.
    """

    shared: bool
    heuristic: bool = False
    default_ttl_s: float | Default | None = DEFAULT


class Verdict(Struct, frozen=True):
    """What becomes of an answer.

    `stores`: it may be kept. `private`: in a shared cache it is only for the one
    who asked. `ttl_s`: fresh for so long from now on; `DEFAULT` where the origin
    leaves that to the caller. `serve_stale_s`, `stale_if_error_s`: its windows
    after that (RFC 5861); None where the origin says nothing, 0.0 where it
    allows nothing. `validator`: what asks the origin later. `renews`: it is a
    304 for what is stored. `reason`: why, with the section of the RFC.
    """

    stores: bool
    private: bool
    ttl_s: float | Default | None
    serve_stale_s: float | None
    stale_if_error_s: float | None
    validator: str | None
    renews: bool
    reason: str


class CacheControl(Struct, frozen=True, omit_defaults=True):
    """The directives of a response that count, as the strictest reading has them. Times are in seconds.

    `permits`: it says public, s-maxage or must-revalidate, and so allows a
    shared cache to keep the answer to a request with Authorization (3.5).
    """

    max_age: int | None = None
    s_maxage: int | None = None
    stale_while_revalidate: int | None = None
    stale_if_error: int | None = None
    public: bool = False
    private: bool = False
    no_store: bool = False
    no_cache: bool = False
    must_revalidate: bool = False
    proxy_revalidate: bool = False
    must_understand: bool = False
    permits: bool = False


NOTHING_SAID: Final = CacheControl()


class Stored(Struct, frozen=True, omit_defaults=True):
    """What is kept of a response, so that a 304 can renew it: its validators, and what the 304 may leave unsaid.

    `vary`, `values`: the headers of the request that selected it, in lower case,
    and the digest of what each was.
    """

    of: str
    etag: str | None = None
    last_modified: str | None = None
    cache_control: CacheControl = NOTHING_SAID
    expires: float | None = None
    vary: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


class Said(Struct, frozen=True):
    """The fields of a response that count. None: there is none; for `vary`, `*` is whatever nobody can match."""

    cache_control: CacheControl | None
    expires: float | None
    date: float
    age_s: int
    vary: tuple[str, ...] | None
    etag: str | None
    last_modified: str | None


def verdict(asked: Asked, answered: Answered, rules: Rules, now: float, stored: Stored | None = None) -> Verdict:
    """What becomes of an answer, at the instant `now`. `stored`: what the request was made conditional with.

    A 304 that does not speak of `stored` neither stores nor renews anything
    (4.3.4): the resource is to be asked for again, without conditions.

    >>> asked = Asked("GET", (), at=1_767_225_600.0)
    >>> answered = Answered(200, (("Cache-Control", "max-age=60, stale-if-error=600"), ("Age", "20")), 1_767_225_600.0)
    >>> told = verdict(asked, answered, Rules(shared=True), now=1_767_225_600.0)
    >>> told.stores, told.ttl_s, told.stale_if_error_s
    (True, 40.0, 600.0)
    """
    said, status, renews = said_in(answered), answered.status, False
    if status == NOT_MODIFIED:
        if stored is None or not (speaks_of(said, stored) and selects(asked, stored)):
            return _kept_nowhere("RFC 9111 4.3.4: the 304 speaks of nothing that is stored")
        said, status, renews = updated(said, stored), 200, True
    refusal = _refusal(asked, answered, status, said, rules)
    if refusal is not None:
        return _kept_nowhere(refusal, renews=renews)
    age_s = current_age_s(asked, answered, said, now)
    return _kept(said, rules, age_s, _validator(asked, said), renews=renews)


def strictest(hops: Iterable[Verdict]) -> Verdict:
    """What becomes of an answer behind redirects: every one on the way was an answer of its own, and may change.

    It has no validator: that is of another resource than the one asked for.
    """
    first, *others = hops
    if not others:
        return first
    told = replace(first, validator=None)
    for each in others:
        ages = [ttl for ttl in (told.ttl_s, each.ttl_s) if ttl is not None]
        known = [ttl for ttl in ages if not isinstance(ttl, Default)]
        told = Verdict(
            told.stores and each.stores,
            told.private or each.private,
            min(known) if known else DEFAULT if ages else None,
            _narrower(told.serve_stale_s, each.serve_stale_s),
            _narrower(told.stale_if_error_s, each.stale_if_error_s),
            None,
            told.renews and each.renews,
            told.reason if not told.stores else each.reason,
        )
    return told


def conditions(stored: Stored | None, asked: Asked) -> Mapping[str, str]:
    """The fields that make a request conditional (4.3.1). None where `stored` is not what it would select (4.1)."""
    if stored is None or not selects(asked, stored):
        return {}
    said = {"If-None-Match": stored.etag, "If-Modified-Since": stored.last_modified}
    return {name: value for name, value in said.items() if value is not None}


def selects(asked: Asked, stored: Stored) -> bool:
    """Whether a request selects what is stored: by its resource, and by the headers that Vary named (4.1)."""
    return stored.of == asked.of and values_of(stored.vary, asked.fields) == stored.values


def stored_in(validator: object) -> Stored | None:
    """What a `Verdict.validator` holds. None where it is anything else."""
    if not isinstance(validator, str):
        return None
    try:
        return READ(validator)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return None


READ: Final = msgspec.json.Decoder(Stored).decode
WRITE: Final = msgspec.json.Encoder().encode


# Whether it is kept


def _refusal(asked: Asked, answered: Answered, status: int, said: Said, rules: Rules) -> str | None:
    """Why an answer is not kept (3, and what is stricter here); None where it is."""
    sends = {name.lower() for name, _ in asked.fields}
    brings = {name.lower() for name, _ in answered.fields}
    if asked.method != "GET":
        return "RFC 9111 3: only what a GET answers is kept"
    if request_says_no_store(asked.fields):
        return "RFC 9111 5.2.1.5: the request says no-store"
    if status < 200:  # noqa: PLR2004 (what is not final)
        return "RFC 9111 3: the status is not final"
    if status == 206 or "range" in sends or "content-range" in brings:  # noqa: PLR2004 (as it is called)
        return "RFC 9111 3.4: parts are not kept"
    refusal = _refusal_of_any(said, status)
    if refusal is None and rules.shared:
        refusal = _refusal_of_shared(said, sends, brings, asked.unkeyed)
    if refusal is None and not _is_cacheable(said, status, rules):
        refusal = "RFC 9111 3: nothing says that it may be kept"
    return refusal


def _refusal_of_any(said: Said, status: int) -> str | None:
    control = said.cache_control or NOTHING_SAID
    if control.must_understand and status not in UNDERSTOOD:
        return "RFC 9111 5.2.2.3: must-understand, and the status is not understood"
    if control.no_store and not control.must_understand:
        return "RFC 9111 5.2.2.5: no-store"
    return "RFC 9111 4.1: Vary: * matches nothing" if said.vary == ANYTHING else None


def _refusal_of_shared(said: Said, sends: set[str], brings: set[str], unkeyed: frozenset[str]) -> str | None:
    control = said.cache_control or NOTHING_SAID
    if control.private:
        return "RFC 9111 5.2.2.7: private, and the cache is shared"
    if "set-cookie" in brings or "set-cookie2" in brings:
        return "RFC 9111 7.3: Set-Cookie, and the cache is shared (stricter than the RFC)"
    if "authorization" in sends and not control.permits:
        return "RFC 9111 3.5: Authorization, and nothing allows a shared cache to keep it"
    if not unkeyed.isdisjoint(said.vary or ()):
        return "RFC 9111 4.1: Vary names a header that is not part of the key"
    if "cookie" in sends and not (control.public or _lifetime_s(said, shared=True) is not None):
        return "RFC 9111 7.3: Cookie, and only a guess would allow a shared cache to keep it (stricter than the RFC)"
    return None


def _is_cacheable(said: Said, status: int, rules: Rules) -> bool:
    """Whether anything says that an answer may be kept: the last item of the list in 3."""
    control = said.cache_control or NOTHING_SAID
    says = control.public or control.private  # A shared cache has refused what is private by now.
    return says or _lifetime_s(said, shared=rules.shared) is not None or status in HEURISTIC_STATUSES


def _kept_nowhere(reason: str, *, renews: bool = False) -> Verdict:
    """What may not be kept may not be shared by those who wait for it, either (4, on collapsed requests)."""
    return Verdict(
        stores=False,
        private=True,
        ttl_s=0.0,
        serve_stale_s=0.0,
        stale_if_error_s=0.0,
        validator=None,
        renews=renews,
        reason=reason,
    )


# For how long


def _kept(said: Said, rules: Rules, age_s: float, validator: str | None, *, renews: bool) -> Verdict:
    control = said.cache_control or NOTHING_SAID
    serve_stale_s, stale_if_error_s = _windows(control, shared=rules.shared)
    lifetime_s, reason = _lifetime_s(said, shared=rules.shared), "RFC 9111 4.2.1: an explicit lifetime"
    if lifetime_s is None and rules.heuristic:
        lifetime_s, reason = _guess_s(said), "RFC 9111 4.2.2: a guess by Last-Modified"
    ttl_s: float | Default | None
    if control.no_cache:
        ttl_s, reason = 0.0, "RFC 9111 5.2.2.4: no-cache"
    elif lifetime_s is not None:
        left_s = lifetime_s - age_s
        ttl_s, overdue_s = max(0.0, left_s), max(0.0, -left_s)
        serve_stale_s = _less(serve_stale_s, overdue_s)
        stale_if_error_s = _less(stale_if_error_s, overdue_s)
    elif not isinstance(rules.default_ttl_s, Default):
        ttl_s, reason = rules.default_ttl_s, "RFC 9111 4.2.2: no lifetime, so the configured one"
    elif validator is not None or serve_stale_s is not None:
        ttl_s, reason = 0.0, "RFC 9111 4.2.2: no lifetime, so it is validated each time"
    else:
        ttl_s, reason = DEFAULT, "RFC 9111 4.2.2: the origin says nothing, so the caller's ttl counts"
    useless = ttl_s == 0.0 and validator is None and serve_stale_s == stale_if_error_s == 0.0
    return Verdict(
        stores=not useless,
        private=not rules.shared,
        ttl_s=ttl_s,
        serve_stale_s=serve_stale_s,
        stale_if_error_s=stale_if_error_s,
        validator=validator,
        renews=renews,
        reason=f"{reason}, used up, and nothing to validate it with" if useless else reason,
    )


def _lifetime_s(said: Said, *, shared: bool) -> float | None:
    """For how long an answer is fresh by what is said (4.2.1). None: nothing is."""
    control = said.cache_control or NOTHING_SAID
    if shared and control.s_maxage is not None:
        return float(control.s_maxage)
    if control.max_age is not None:
        return float(control.max_age)
    if said.expires is not None:
        return min(max(0.0, said.expires - said.date), float(LONGEST_S))
    return None


def _guess_s(said: Said) -> float | None:
    modified = http_date(said.last_modified, said.date)
    if modified is None:
        return None
    return min(HEURISTIC_SHARE * max(0.0, said.date - modified), LONGEST_HEURISTIC_S)


def _windows(control: CacheControl, *, shared: bool) -> tuple[float | None, float | None]:
    """How long a stale answer may be used (RFC 5861, 3 and 4). None where nothing is said of it.

    Never where it must be validated first: 4.2.4 counts s-maxage among what says so (5.2.2.10).
    """
    if control.no_cache or control.must_revalidate:
        return 0.0, 0.0
    if shared and (control.proxy_revalidate or control.s_maxage is not None):
        return 0.0, 0.0
    if control.stale_while_revalidate is None and control.stale_if_error is None:
        return None, None
    return float(control.stale_while_revalidate or 0), float(control.stale_if_error or 0)


def current_age_s(asked: Asked, answered: Answered, said: Said, now: float) -> float:
    """How old an answer is at `now` (4.2.3). A clock that was set back makes nothing younger."""
    apparent_s = max(0.0, answered.at - said.date)
    corrected_s = said.age_s + max(0.0, answered.at - asked.at)
    return max(apparent_s, corrected_s) + max(0.0, now - answered.at)


def _less(window_s: float | None, by_s: float) -> float | None:
    return None if window_s is None else max(0.0, window_s - by_s)


def _narrower(one_s: float | None, other_s: float | None) -> float | None:
    return None if one_s is None and other_s is None else min(one_s or 0.0, other_s or 0.0)


# Validation


def _validator(asked: Asked, said: Said) -> str | None:
    if said.etag is None and said.last_modified is None:
        return None
    vary = said.vary or ()
    kept = Stored(
        asked.of,
        said.etag,
        said.last_modified,
        said.cache_control or NOTHING_SAID,
        said.expires,
        vary,
        values_of(vary, asked.fields),
    )
    return WRITE(kept).decode()


def speaks_of(said: Said, stored: Stored) -> bool:
    """Whether a 304 is about what is stored: by its validators (4.3.4), and by what selects it (4.1).

    ETags are compared weakly, as If-None-Match is (RFC 9110, 13.1.2): servers
    that compress make the ETag of a 200 weak, and not that of the 304.
    """
    if said.vary is not None and said.vary != stored.vary:
        return False
    if said.etag is not None:
        return stored.etag is not None and opaque(said.etag) == opaque(stored.etag)
    return said.last_modified is None or stored.etag is not None or said.last_modified == stored.last_modified


def updated(said: Said, stored: Stored) -> Said:
    """What a 304 and what it renews say together: the fields of the 304 take the place of the old ones (3.2)."""
    return Said(
        stored.cache_control if said.cache_control is None else said.cache_control,
        stored.expires if said.expires is None else said.expires,
        said.date,
        said.age_s,
        stored.vary,
        stored.etag if said.etag is None else said.etag,
        stored.last_modified if said.last_modified is None else said.last_modified,
    )


def opaque(etag: str) -> str:
    """An ETag without its mark of weakness."""
    return etag.removeprefix("W/")


def values_of(names: tuple[str, ...], fields: Fields) -> tuple[str, ...]:
    """The digests of what a request has under `names`, "" where it has nothing. Credentials may be among it."""
    digests = []
    for name in names:
        lines = lines_of(fields, name)
        text = ", ".join(line.strip() for line in lines).encode("utf-8", "surrogatepass")
        digests.append(blake2b(text, digest_size=12, person=b"cachemesh-vary").hexdigest() if lines else "")
    return tuple(digests)


# Reading


def said_in(answered: Answered) -> Said:
    """The fields of a response that count. Whatever is in them, this raises nothing."""
    fields, at = answered.fields, answered.at
    control = lines_of(fields, "cache-control")
    expires = lines_of(fields, "expires")
    vary = lines_of(fields, "vary")
    date = http_date(_only(lines_of(fields, "date")), at)
    return Said(
        cache_control(control) if control else None,
        # An invalid date is one in the past (5.3); of several, the first to come counts.
        min((http_date(line, at) or 0.0 for line in expires), default=None),
        at if date is None else date,
        _age_s(lines_of(fields, "age")),
        varying(vary) if vary else None,
        _etag(lines_of(fields, "etag")),
        _last_modified(lines_of(fields, "last-modified"), at),
    )


def cache_control(lines: Iterable[str]) -> CacheControl:
    """What a Cache-Control of a response says (5.2.2).

    A time that is none, or is missing, is 0 (4.2.1); of several, the shortest
    counts. `private` and `no-cache` with field names are taken as without.

    >>> said = cache_control(['Max-Age="60", private="x", max-age=30', "no-store"])
    >>> said.max_age, said.private, said.no_store
    (30, True, True)
    """
    times: dict[str, int] = {}
    flags: set[str] = set()
    permits = public = must_understand = False
    for name, argument, is_proper in directives(lines):
        if name in TIMES:
            seconds = _delta_s(argument) if is_proper else None
            times[name] = min(times.get(name, LONGEST_S), 0 if seconds is None else seconds)
            permits |= name == "s-maxage" and seconds is not None
        else:
            flags.add(name)
            is_bare = argument is None
            public |= name == "public" and is_bare
            must_understand |= name == "must-understand" and is_bare
            permits |= name in {"public", "must-revalidate"} and is_bare
    return CacheControl(
        times.get("max-age"),
        times.get("s-maxage"),
        times.get("stale-while-revalidate"),
        times.get("stale-if-error"),
        public,
        "private" in flags,
        "no-store" in flags,
        "no-cache" in flags,
        "must-revalidate" in flags,
        "proxy-revalidate" in flags,
        must_understand,
        permits,
    )


TIMES: Final = frozenset({"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"})


def request_says_no_store(fields: Fields) -> bool:
    """Whether a request forbids to keep anything of it or of its answer (5.2.1.5)."""
    return any(name == "no-store" for name, _, _ in directives(lines_of(fields, "cache-control")))


def directives(lines: Iterable[str]) -> Iterable[tuple[str, str | None, bool]]:
    """The directives of a Cache-Control: name in lower case, argument without its quotes, and whether it is proper.

    A quotation that does not end is none: what comes after its commas counts.
    """
    for line in lines:
        for found in DIRECTIVE.finditer(line):
            name, argument = found[1], found[2]
            is_quoted = argument is not None and len(argument) > 1 and argument[0] == argument[-1] == '"'
            if argument is not None:
                argument = ESCAPED.sub(r"\1", argument[1:-1]) if is_quoted else argument.rstrip(BLANKS)
            is_proper = argument is None or name == name.rstrip(BLANKS)
            if name := name.strip(BLANKS).lower():
                yield name, argument, is_proper


DIRECTIVE: Final = re.compile(r'([^,=]*)(?:=("(?:[^"\\]|\\.)*"(?=[ \t]*(?:,|$))|[^,]*))?', re.DOTALL)
ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


def _delta_s(text: str | None) -> int | None:
    """Seconds, capped (1.2.2). None where it is no number."""
    if text is None or not DIGITS.fullmatch(text):
        return None
    digits = text.lstrip("0")
    return LONGEST_S if len(digits) > len(str(LONGEST_S)) else min(int(digits or "0"), LONGEST_S)


DIGITS: Final = re.compile(r"[0-9]+")


def _age_s(lines: tuple[str, ...]) -> int:
    """The first member counts, and what is no number does not (5.1)."""
    return 0 if not lines else _delta_s(lines[0].partition(",")[0].strip(BLANKS)) or 0


ANYTHING: Final = ("*",)


def varying(lines: Iterable[str]) -> tuple[str, ...]:
    """The names in a Vary, in lower case and order. `*` where it is among them, or one that is no name."""
    names = {name.strip(BLANKS).lower() for line in lines for name in line.split(",")} - {""}
    return tuple(sorted(names)) if all(map(NAME.fullmatch, names - {"*"})) and "*" not in names else ANYTHING


NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")


def _etag(lines: tuple[str, ...]) -> str | None:
    """An entity tag (RFC 9110, 8.8.3), such as can be sent back: in ASCII, and not endless."""
    etag = _only(lines)
    if etag is None or len(etag) > LONGEST_ETAG or not ETAG.fullmatch(etag):
        return None
    return etag


ETAG: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e]*"')


def _last_modified(lines: tuple[str, ...], at: float) -> str | None:
    text = _only(lines)
    return None if http_date(text, at) is None else text


def lines_of(fields: Fields, name: str) -> tuple[str, ...]:
    """The values under `name`, which is in lower case."""
    return tuple(value for each, value in fields if each.lower() == name)


def _only(lines: tuple[str, ...]) -> str | None:
    """What all of `lines` say. None where they say different things."""
    return lines[0].strip(BLANKS) if len(set(lines)) == 1 else None
