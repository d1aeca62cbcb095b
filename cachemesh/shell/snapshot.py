"""Snapshots: what a cache holds, as JSON that another cache can be filled from.

The format, version 1, is one JSON object:

    {"format": "cachemesh-snapshot", "version": 1, "taken_at": 1767225600.0, "entries": [
      {"scope": "global", "key": "user:42", "created_at": 1767225590.5, "value": {"name": "Ada"},
       "schema": "shop.User", "ttl": 300.0, "expires_at": 1767225890.5, "tags": ["users"], "validator": "v7"}]}

`session_of` says who was signed in, where there are entries of that session.
`scope`, `key`, `created_at` and `value` are always there; `user` wherever a user
stands behind the scope; of the others, those that say something: `schema` and
`version` (of the schema; without, the value is plain JSON), `is_failure`,
`ttl`, `expires_at` (never, if it is left out), `serve_stale`, `stale_if_error`,
`ageing_at`, `tags`, `validator`. Instants are seconds since the epoch,
durations seconds. A value that strict JSON cannot say (it holds a NaN or an
infinity) stands as a text in `text` in place of `value`. Fields that are not
known are ignored: whoever adds one need not call that version 2.

A snapshot may come from anybody. So it is counted before it is parsed, the
values in it are not parsed until each is decoded with its own schema, and
nothing of it is ever quoted.
"""

from __future__ import annotations

from itertools import chain
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw, Struct
from returns.result import Failure, Result, Success

from cachemesh.core.scopes import CacheScope
from cachemesh.errors import InvalidSnapshot
from cachemesh.shell.ports import Encoded, StoredEntry
from cachemesh.shell.schema import ANYTHING, DEEPEST, PLAIN, TEXT

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT: Final = "cachemesh-snapshot"
VERSION: Final = 1

MAX_BYTES: Final = 16 * 2**20
MAX_ENTRIES: Final = 100_000

MOST_PARTS: Final = 1_000_000
"""So many lists and dicts may be in a snapshot, or so many values if it comes parsed."""

MOST_COMMAS: Final = 2_000_000
"""The same for what is within them."""

LARGEST_VALUE: Final = 8 * 2**20
"""A single value that takes more bytes is left out,"""
MOST_VALUE_PARTS: Final = 250_000
"""and one that holds more parts: each takes many times the byte or two that it takes as JSON."""

LARGEST_TEXT: Final = 4 * 2**20
"""As a text, a value takes up to four times as much while it is read; and so does what stands beside it."""
MOST_BESIDE: Final = 10_000
"""So many tags and other fields an entry may have."""

SMALL_ENTRY: Final = 4_096
"""Whatever is in an entry of so few bytes, it cannot be too much."""

LAST_INSTANT: Final = 253_402_300_800.0
"""The end of the year 9999."""


class Snapshot(Struct, frozen=True):
    """What a cache held at an instant: `cache.dehydrate()` makes one, `cache.hydrate(snapshot)` takes one in.

    `taken_at`: seconds since the epoch. `left_out`: how many entries there was
    no JSON for. `damaged`: how many could not be read, where it came from JSON.
    `session_of`: who was signed in, where the session scope was asked for.

    >>> from cachemesh import SyncCache
    >>> cache = SyncCache()
    >>> _ = cache.put("user:42", {"name": "Ada"})
    >>> snapshot = cache.dehydrate()
    >>> snapshot
    Snapshot(1 entries, 0 failures, 0 left out)
    >>> SyncCache().hydrate(snapshot.to_json()).unwrap().admitted
    1
    """

    taken_at: float
    records: tuple[StoredEntry, ...]
    left_out: int = 0
    damaged: int = 0
    session_of: str | None = None

    def __repr__(self) -> str:
        failures = sum(each.is_failure for each in self.records)
        return f"Snapshot({len(self.records) - failures} entries, {failures} failures, {self.left_out} left out)"

    def __rich_repr__(self) -> list[tuple[str, int]]:
        """The same for rich, whose tracebacks print locals."""
        return [("records", len(self.records)), ("left_out", self.left_out)]

    def __len__(self) -> int:
        return len(self.records)

    def to_json(self) -> bytes:
        """As JSON: to be written to a file, sent, or kept in a database."""
        entries = [ENCODE(wire_of(each)) for each in self.records]
        raw = [Raw(each) for each in entries]
        return ENCODE(Document(FORMAT, VERSION, raw, self.taken_at, self.left_out, self.session_of))

    def to_builtins(self) -> dict[str, Any]:
        """As dicts, lists, strs and numbers: what `to_json` says."""
        said: dict[str, Any] = ANYTHING.validate_json(self.to_json())
        return said

    @classmethod
    def from_json(
        cls,
        source: bytes | str | Mapping[str, Any],
        *,
        max_bytes: int = MAX_BYTES,
        max_entries: int = MAX_ENTRIES,
    ) -> Result[Snapshot, InvalidSnapshot]:
        """The snapshot in `source`: JSON, or JSON that was parsed. Failures: `InvalidSnapshot`."""
        opened = open_snapshot(source, max_bytes, max_entries)
        if isinstance(opened, InvalidSnapshot):
            return Failure(opened)
        records = [record_of(each) for each in opened.entries]
        read = tuple(each for each in records if each is not None)
        damaged = len(records) - len(read)
        return Success(cls(opened.taken_at, read, opened.left_out, damaged, opened.session_of))


NO_VALUE: Final = Raw()
"""One and the same: what is a field's very default is not written."""


class Unread(Struct, frozen=True, gc=False):
    """Any JSON object, for counting them."""


class Cover(Struct, frozen=True, gc=False):
    """What a snapshot says of itself, and how many entries there are. Counting them first takes little."""

    format: str
    version: int
    entries: list[Unread]


class Glance(Struct, frozen=True, gc=False):
    """What of an entry may be large, unread."""

    value: Raw = NO_VALUE
    text: Raw = NO_VALUE


class Document(Struct, frozen=True, omit_defaults=True):
    """The whole, its entries unread."""

    format: str
    version: int
    entries: list[Raw]
    taken_at: float = 0.0
    left_out: int = 0
    session_of: str | None = None


class Wire(Struct, frozen=True, omit_defaults=True, gc=False):
    """An entry as it is written."""

    scope: CacheScope
    key: str
    created_at: float
    user: str | None = None
    value: Raw = NO_VALUE
    text: str | None = None
    schema: str = ""
    version: int = 0
    is_failure: bool = False
    ttl: float | None = None
    expires_at: float | None = None
    serve_stale: float | None = None
    stale_if_error: float | None = None
    ageing_at: float | None = None
    tags: tuple[str, ...] = ()
    validator: str | int | float | bool | None = None


ENCODE: Final = msgspec.json.Encoder().encode
READ_COVER: Final = msgspec.json.Decoder(Cover).decode
READ_DOCUMENT: Final = msgspec.json.Decoder(Document).decode
READ_GLANCE: Final = msgspec.json.Decoder(Glance).decode
READ_WIRE: Final = msgspec.json.Decoder(Wire).decode
READ_RAW: Final = msgspec.json.Decoder(Raw).decode


# Writing


def wire_of(record: StoredEntry) -> Wire:
    value: Encoded = record.value
    is_strict = is_json(value.payload)
    return Wire(
        record.owner[0],
        record.key,
        record.created_at,
        record.owner[1],
        Raw(value.payload) if is_strict else NO_VALUE,
        None if is_strict else value.payload.decode(),
        value.schema,
        value.version,
        record.is_failure,
        record.ttl_s,
        record.expires_at,
        record.serve_stale_s,
        record.stale_if_error_s,
        record.ageing_at,
        record.tags,
        record.validator,
    )


def is_json(payload: bytes) -> bool:
    """Whether it is JSON as RFC 8259 has it. What pydantic writes for a NaN is none."""
    try:
        READ_RAW(payload)
    except (ValueError, RecursionError):
        return False
    return True


def is_writable(record: StoredEntry) -> bool:
    """Whether it can be said in JSON, which half a surrogate pair cannot, and would be read again."""
    texts = (record.key, record.owner[1] or "", record.value.schema, *record.tags)
    if not all(each.isascii() or is_whole(each) for each in texts):
        return False
    payload = record.value.payload
    return is_modest(payload) and (len(payload) <= LARGEST_TEXT or is_json(payload))


def is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def writable_validator(validator: object) -> str | int | float | bool | None:
    """`validator`, if JSON can say it; else the next conditional fetch has none."""
    if type(validator) is str:
        return validator if is_whole(validator) else None
    if type(validator) is int:
        return validator if -(2**63) <= validator < 2**63 else None
    if type(validator) is float:
        return validator if isfinite(validator) else None
    return validator if type(validator) is bool else None


# Reading


def open_snapshot(source: object, max_bytes: int, max_entries: int) -> Document | InvalidSnapshot:
    """The document in `source`, or what is wrong with it as a whole."""
    if isinstance(source, dict):
        flaw = flaw_of_parsed(source, max_bytes, max_entries)
        if flaw is not None:
            return InvalidSnapshot(flaw)
        try:
            data = ANYTHING.dump_json(source)
        except Exception:  # noqa: BLE001 (a surrogate, whatever pydantic calls it)
            return InvalidSnapshot("no JSON")
    elif isinstance(source, bytes | bytearray | str):
        try:
            if len(source) > max_bytes or (isinstance(source, str) and grows_beyond(source, max_bytes)):
                return InvalidSnapshot(f"more than {max_bytes} bytes")
            data = str.encode(source) if isinstance(source, str) else bytes(source)
        except UnicodeEncodeError:
            return InvalidSnapshot("no JSON")
    else:
        return InvalidSnapshot(f"no snapshot but {type(source).__name__}")
    return read_document(data, max_bytes, max_entries)


def grows_beyond(text: str, max_bytes: int) -> bool:
    """Whether `text` takes more bytes than that: looked at bit by bit, before it takes them."""
    if str.isascii(text):
        return False
    return sum(len(text[at : at + SMALL].encode()) for at in range(0, len(text), SMALL)) > max_bytes


def read_document(data: bytes, max_bytes: int, max_entries: int) -> Document | InvalidSnapshot:
    if len(data) > max_bytes:
        return InvalidSnapshot(f"more than {max_bytes} bytes")
    flaw = flaw_of_shape(data)
    if flaw is not None:
        return InvalidSnapshot(flaw)
    try:
        cover = READ_COVER(data)
        if cover.format != FORMAT:
            return InvalidSnapshot("no snapshot")
        if cover.version != VERSION:
            return InvalidSnapshot("of another version")
        if len(cover.entries) > max_entries:
            return InvalidSnapshot(f"more than {max_entries} entries")
        return READ_DOCUMENT(data)
    except msgspec.ValidationError:
        return InvalidSnapshot("no snapshot")
    except (ValueError, RecursionError):
        return InvalidSnapshot("no JSON")


DEEPEST_DOCUMENT: Final = DEEPEST + 3
"""A value stands within an entry, within the entries, within the whole."""

NO_BRACKET: Final = bytes(set(range(256)) - set(b"[]{}"))
MOST_WORK: Final = 8 * 2**20
HARMLESS: Final = 256
"""So many brackets more cannot overflow any stack."""


def flaw_of_shape(data: bytes) -> str | None:
    """What is wrong with the nesting of `data`. A parser goes down a level by calling itself, until its stack ends.

    So brackets are counted first, and what stands between them taken away, pair
    by pair: each round is one level. Brackets in strings need not be in pairs;
    where many are left over, the strings are taken out first.
    """
    parts = data.count(b"[") + data.count(b"{")
    if parts > MOST_PARTS or data.count(b",") > MOST_COMMAS:
        return "too many parts"
    if parts <= HARMLESS:
        return None
    left = without_pairs(data.translate(None, NO_BRACKET))
    if left is not None and left > HARMLESS:
        left = without_pairs(without_strings(data).translate(None, NO_BRACKET))
    if left is None or left > HARMLESS:
        return "too deeply nested"
    return None


def without_pairs(brackets: bytes) -> int | None:
    """How many brackets are left over; None where there are more levels than a snapshot has."""
    work = 0
    for _ in range(DEEPEST_DOCUMENT + 1):
        before = len(brackets)
        if not before:
            return 0
        work += before
        if work > MOST_WORK:
            return None
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(brackets) == before:
            return before
    return None


def without_strings(data: bytes) -> bytes:
    """`data` with what stands in quotes taken out."""
    plain = data.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in data else data
    return b"".join(plain.split(b'"')[::2])


def flaw_of_parsed(source: dict[Any, Any], max_bytes: int, max_entries: int) -> str | None:
    """What is wrong with a snapshot that comes parsed: a list may hold itself, or the same one a thousand times."""
    entries = source.get("entries")
    if type(entries) is not list:
        return "no snapshot"
    if len(entries) > max_entries:
        return f"more than {max_entries} entries"
    level: list[Any] = [source]
    parts = size = 0
    for _ in range(DEEPEST_DOCUMENT):
        kinds = set(map(type, level))
        if not kinds <= PLAIN:
            return "no JSON"
        dicts = of_type(dict, kinds, level)
        lists = of_type(list, kinds, level)
        parts += sum(map(len, dicts)) + sum(map(len, lists))
        if parts > MOST_PARTS:
            return "too many parts"
        if not set(map(type, chain.from_iterable(dicts))) <= TEXT:
            return "no JSON"
        texts = [*chain.from_iterable(dicts), *of_type(str, kinds, level)]
        size += sum(map(len, texts)) + sum(map(int.bit_length, of_type(int, kinds, level)))
        if size <= max_bytes and size > SMALL:
            size += 5 * sum(map(escapes_in, texts))
        if size > max_bytes:
            return f"more than {max_bytes} bytes"
        level = list(chain.from_iterable(each.values() for each in dicts)) + list(chain.from_iterable(lists))
        if not level:
            return None
    return "too deeply nested"


def of_type(kind: type, kinds: set[type], level: list[Any]) -> list[Any]:
    """Those of `level` that are of this kind; `kinds` are all of its kinds."""
    if kind not in kinds:
        return []
    return level if len(kinds) == 1 else [each for each in level if type(each) is kind]


SMALL: Final = 2**20
"""Below so many characters it does not matter that JSON may take six bytes for one."""


def escapes_in(text: str) -> int:
    """How many characters of `text` JSON has to write as six."""
    if text.isprintable():
        return 0
    plain = text.encode(errors="replace")
    return len(plain) - len(plain.translate(None, ESCAPED))


ESCAPED: Final = bytes(set(range(32)) - set(b"\b\t\n\f\r"))


def record_of(raw: Raw) -> StoredEntry | None:
    """The entry in a record; None where it is none."""
    try:
        if not is_small(raw):
            return None
        wire = READ_WIRE(raw)
        payload = wire.text.encode() if wire.text is not None else payload_of(wire.value)
    except (ValueError, RecursionError):
        return None
    if payload is None or (wire.text is not None and bool(memoryview(wire.value))):
        return None
    record = StoredEntry(
        (wire.scope, wire.user),
        wire.key,
        Encoded(payload, wire.schema, wire.version),
        wire.is_failure,
        wire.created_at,
        wire.ttl,
        expiry_of(wire),
        wire.serve_stale,
        wire.stale_if_error,
        wire.ageing_at,
        wire.tags,
        wire.validator,
    )
    return record if is_sound(record) else None


def is_small(raw: Raw) -> bool:
    """Whether what stands beside the value of an entry may be read."""
    size = len(memoryview(raw))
    if size <= SMALL_ENTRY:
        return True
    commas = bytes(raw).count(b",")
    if commas > MOST_VALUE_PARTS + MOST_BESIDE:
        return False
    glance = READ_GLANCE(raw)
    value, text = memoryview(glance.value), memoryview(glance.text)
    if len(text) > LARGEST_TEXT or size - len(value) - len(text) > LARGEST_TEXT:
        return False
    return commas - bytes(value).count(b",") - bytes(text).count(b",") <= MOST_BESIDE


def payload_of(value: Raw) -> bytes | None:
    """The bytes of a value, as a copy: it must not keep all of the snapshot. None where it is too large."""
    return bytes(value) if 0 < len(memoryview(value)) <= LARGEST_VALUE else None


def is_modest(payload: bytes) -> bool:
    """Whether a value may be parsed: it is not too large, and holds not too much."""
    if len(payload) > LARGEST_VALUE:
        return False
    return payload.count(b",") + payload.count(b"[") + payload.count(b"{") <= MOST_VALUE_PARTS


def expiry_of(wire: Wire) -> float | None:
    """When it is past its ttl. One that claims to live for longer than that is not believed."""
    if wire.ttl is None:
        return wire.expires_at
    by_ttl = wire.created_at + wire.ttl
    return by_ttl if wire.expires_at is None else min(wire.expires_at, by_ttl)


def is_sound(record: object) -> bool:
    """Whether it is an entry that could have been stored: whatever was put together by others may be anything."""
    if type(record) is not StoredEntry:
        return False
    try:
        return all(rule(record) for rule in RULES)
    except Exception:  # noqa: BLE001 (whatever a damaged field does when it is looked at)
        return False


def _is_owned(record: StoredEntry) -> bool:
    scope, user = record.owner
    if type(scope) is not CacheScope or not (user is None or type(user) is str):
        return False
    return scope is CacheScope.SESSION or (scope is CacheScope.USER) == (user is not None)


def _is_dated(record: StoredEntry) -> bool:
    instants = (record.expires_at, record.ageing_at)
    are_instants = abs(record.created_at) < LAST_INSTANT and all(
        each is None or abs(each) < LAST_INSTANT for each in instants
    )
    return are_instants and not (record.is_failure and record.expires_at is None)


def _has_windows(record: StoredEntry) -> bool:
    windows = (record.ttl_s, record.serve_stale_s, record.stale_if_error_s)
    are_sound = all(each is None or 0.0 <= each < inf for each in windows)
    return are_sound and (record.serve_stale_s is None) == (record.stale_if_error_s is None)


def _has_texts(record: StoredEntry) -> bool:
    tags = record.tags
    return type(record.key) is str and type(tags) is tuple and all(type(each) is str for each in tags)


def _has_flags(record: StoredEntry) -> bool:
    hash(record.validator)
    return type(record.is_failure) is bool


def _has_bytes(record: StoredEntry) -> bool:
    value = record.value
    return (
        type(value) is Encoded
        and type(value.payload) is bytes
        and type(value.schema) is str
        and type(value.version) is int
        and is_modest(value.payload)
    )


RULES: Final = (_is_owned, _has_texts, _has_flags, _has_bytes, _is_dated, _has_windows)
