"""How what is in a store is shown. Keys come from outside, so nothing of them reaches a terminal as it is.

For people: escaped and shortened, and what is about a user as a hash. For
machines: JSON that every parser takes; a text that is no Unicode (Python allows
half a surrogate pair) is `{"base64": ...}` of its bytes.
"""

from __future__ import annotations

import re
import unicodedata
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from cachemesh.core.scopes import CacheScope
from cachemesh.shell.logging import PrivateKey
from cachemesh.stores.names import decoded, encoded

if TYPE_CHECKING:
    from cachemesh.core.scopes import Owner

Text: TypeAlias = str | dict[str, str]

WIDEST: Final = 60
"""Characters of a key in a table, escapes and all."""

RIGHT_TO_LEFT: Final = frozenset({"R", "AL", "AN", "RLE", "RLO", "RLI"})
"""Classes of characters (Unicode Standard Annex 9) that move what stands around them."""

check_json: Final = msgspec.json.Decoder(msgspec.Raw).decode
"""Reads, and builds nothing: ValueError or RecursionError where it is no JSON. UTF-8 it does not look at."""

DEEPEST: Final = 200
"""Nesting of a value: what is deeper breaks parsers."""

BRACKETS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])')

NOT_PLAIN: Final = re.compile(r"[^ -\[\]-~]")


def shown(text: str, widest: int = WIDEST) -> str:
    r"""`text` on one line, without control characters, and no longer than `widest`.

    >>> print(shown("a\x1b[31mb\\c\n"), shown("x" * 1_000_000, widest=12))
    a\x1b[31mb\\c\n xxxx…1000000
    """
    # No escape is shorter than its character.
    begin = NOT_PLAIN.sub(_escape, text[: widest + 1])
    if len(begin) <= widest and len(text) <= widest:
        return begin
    end = f"…{len(text)}"
    kept = begin[: max(0, widest - len(end))]
    # Not half an escape.
    whole = re.match(r"(?:[^\\]|\\\\|\\[nrt]|\\x..|\\u....|\\U.{8})*", kept)
    return (whole[0] if whole else "") + end


def _escape(found: re.Match[str]) -> str:
    char = found[0]
    if char == "\\":
        return "\\\\"
    if char.isprintable() and unicodedata.bidirectional(char) not in RIGHT_TO_LEFT:
        return char
    return char.encode("unicode_escape").decode("ascii")


def shown_json(payload: bytes) -> str | None:
    """A JSON value on several lines, and still JSON, with what a terminal would act upon as escapes.

    None where it is no JSON.
    """
    if not is_json(payload):
        return None
    return escaped_json(msgspec.json.format(payload, indent=2)).decode("utf-8")


def escaped_json(text: bytes) -> bytes:
    """JSON, and still JSON, with what a terminal would act upon as escapes."""
    return re.sub(r"[^\n -~]", _escape_json, text.decode("utf-8")).encode("utf-8")


def _escape_json(found: re.Match[str]) -> str:
    char = found[0]
    if char.isprintable() and unicodedata.bidirectional(char) not in RIGHT_TO_LEFT:
        return char
    return _escape_unit(found)


def _escape_unit(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def is_json(payload: bytes) -> bool:
    """Whether every parser would take it."""
    if is_deeper(payload, DEEPEST - 1):
        return False
    try:
        payload.decode("utf-8")
        check_json(payload)
    except (ValueError, RecursionError):
        return False
    return True


def is_deeper(payload: bytes, bound: int) -> bool:
    """Whether what looks like JSON is nested deeper than `bound`."""
    if payload.count(b"[") + payload.count(b"{") <= bound:
        return False
    depth = 0
    for found in BRACKETS.finditer(payload):
        depth += (found[1] is not None) - (found[2] is not None)
        if depth > bound:
            return True
    return False


def value_of(payload: bytes) -> tuple[str, Any]:
    """The name and the content of the field of a JSON object that holds a stored value."""
    if is_json(payload):
        return "value", msgspec.Raw(msgspec.json.format(payload, indent=-1))
    return "value_base64", b64encode(payload).decode("ascii")


def plain(text: str) -> Text:
    r"""`text` for JSON.

    >>> plain("ada"), plain("\ud800")
    ('ada', {'base64': '7aCA'})
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return {"base64": b64encode(encoded(text)).decode("ascii")}
    return text


def text_of(value: Text) -> str:
    """What `plain` made `value` of. ValueError where it made none."""
    if isinstance(value, str):
        return value
    if list(value) != ["base64"]:
        msg = "no text"
        raise ValueError(msg)
    return decoded(b64decode(value["base64"], validate=True))


def is_private(owner: Owner) -> bool:
    """Whether keys, tags and users are shown as hashes, other ones in each process, unless somebody asks for them."""
    return owner[0] is not CacheScope.GLOBAL


def hashed(text: str) -> str:
    return str(PrivateKey(text))


def ascii_json(document: object) -> str:
    """`document` as JSON on one line that a terminal can do nothing with but show."""
    return re.sub(r"[^ -~]", _escape_unit, msgspec.json.encode(document).decode("utf-8"))


def shown_size(size: int) -> str:
    """Bytes in a unit that fits.

    >>> shown_size(900), shown_size(20_000), shown_size(3 * 2**20)
    ('900 B', '19.5 KiB', '3.0 MiB')
    """
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:  # noqa: PLR2004 (the unit's size)
            return f"{size} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def shown_duration(seconds: float) -> str:
    """Seconds in a unit that fits.

    >>> shown_duration(0.25), shown_duration(90), shown_duration(-7200), shown_duration(1e6)
    ('0.2 s', '1.5 min', '-2.0 h', '11.6 d')
    """
    for unit, length in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if abs(seconds) >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
