"""Hydration: a snapshot is taken of what the memory holds, and memory is filled from one.

User code (serializers, validators) runs outside the lock: what is there is
listed under the lock, at one instant, and written as JSON behind it; what comes
is read first, and taken in a few at a time. What is removed or written in
between is not brought back.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from math import isinf
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct
from msgspec.structs import replace
from returns.result import Failure, Result, Success

from cachemesh.core.effects import Why
from cachemesh.core.lifetimes import over_from
from cachemesh.core.model import Entry, Failed
from cachemesh.core.scopes import GLOBAL, GLOBAL_OWNER, SESSION, SESSION_OWNER, USER, CacheScope, Owner
from cachemesh.core.tags import expiry_by_marks, was_marked
from cachemesh.errors import CacheClosed, CacheError, InvalidOption, InvalidSnapshot
from cachemesh.shell.intake import termed
from cachemesh.shell.ports import Encoded, StoredEntry
from cachemesh.shell.runtime import ASIDE, FULL, REMOVED, TAKEN
from cachemesh.shell.schema import TIMEOUT, EncodingError, encoded_failure
from cachemesh.shell.snapshot import Snapshot, is_sound, is_writable, writable_validator

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from cachemesh.shell.intake import Arrival, Found
    from cachemesh.shell.runtime import Runtime

AT_ONCE: Final = 256
"""So many entries are taken in within one passage of the lock."""

ALL_SCOPES: Final = frozenset(CacheScope)


class Hydrated(Struct, frozen=True):
    """What became of the entries and failures of a snapshot.

    `admitted`: are in memory now. `staged`: wait, as bytes, until their key is
    asked for with their schema. The others were left out: `newer`: what is in
    memory is newer, or still good. `expired`: past their windows. `future`: made
    more than a minute from now. `invalidated`: one of their tags was.
    `foreign`: of another user, session or scope than is taken in here.
    `damaged`: could not be read. `full`: there was no room. `removed`: removed
    or written while this went on.
    """

    admitted: int = 0
    staged: int = 0
    newer: int = 0
    expired: int = 0
    future: int = 0
    invalidated: int = 0
    foreign: int = 0
    damaged: int = 0
    full: int = 0
    removed: int = 0

    @property
    def left_out(self) -> int:
        """How many were not taken in."""
        return sum(getattr(self, name) for name in LEFT_OUT)


LEFT_OUT: Final = ("newer", "expired", "future", "invalidated", "foreign", "damaged", "full", "removed")

COUNTED: Final = {
    TAKEN: "admitted",
    ASIDE: "staged",
    FULL: "full",
    REMOVED: "removed",
    Why.NEWER: "newer",
    Why.EXPIRED: "expired",
    Why.FUTURE: "future",
    Why.INVALIDATED: "invalidated",
}
"""The field of `Hydrated` that an end is counted in."""


def asked_scopes(scopes: object) -> frozenset[CacheScope] | None:
    """`scopes` as a set; None where it is no scope, and no collection of some."""
    if isinstance(scopes, CacheScope):
        return frozenset({scopes})
    if not isinstance(scopes, tuple | list | set | frozenset) or not all(type(each) is CacheScope for each in scopes):
        return None
    return frozenset(scopes)


# Taking a snapshot


def dehydrated(runtime: Runtime, viewer: str | None, scopes: frozenset[CacheScope], prefix: str) -> Snapshot:
    """What the memory holds at this instant, for a caller who sees it as `viewer`."""
    now = runtime.time.now()
    with runtime.exclusive():
        session_of = runtime.state.active_user if viewer is None and SESSION in scopes else None
        listed = list(held(runtime, viewer, scopes, prefix, now))
        staged = [
            each.stored
            for owner in runtime.intake.aside.owners()
            if is_taken(owner, viewer, scopes)
            for key, each in runtime.intake.aside.of(owner)
            if key.startswith(prefix) and is_current(runtime, each.stored, each.stamp, now)
        ]
    records = [record_of(runtime, owner, key, found) for owner, key, found in listed]
    there = {(owner, key) for owner, key, _ in listed}
    records += [each for each in staged if (each.owner, each.key) not in there]
    kept = tuple(each for each in records if each is not None and is_writable(each))
    return Snapshot(now + runtime.time.epoch_offset, kept, len(records) - len(kept), session_of=session_of)


def held(
    runtime: Runtime, viewer: str | None, scopes: frozenset[CacheScope], prefix: str, now: float
) -> Iterator[tuple[Owner, str, Found]]:
    """The entries and failures that are still good for something. The lock is held."""
    state = runtime.state
    for owner, partition in state.partitions.items():
        if not is_taken(owner, viewer, scopes):
            continue
        for key, resident in partition.entries.items():
            if key.startswith(prefix):
                entry = as_marked(runtime, owner, resident.as_entry())  # type: ignore[attr-defined]  # a Resident
                if entry is not None and now < over_from(entry):
                    yield owner, key, entry
        for key, failed in partition.failures.items():
            if key.startswith(prefix) and now < failed.serve_until:
                yield owner, key, failed


def as_marked(runtime: Runtime, owner: Owner, entry: Entry[Any]) -> Entry[Any] | None:
    """`entry`, with what the marks of its tags say of it: a snapshot knows of none. None: it is gone."""
    if entry.terms is None or not entry.terms.tags:
        return entry
    expires_at = expiry_by_marks(runtime.state, owner, entry, entry.terms)
    if expires_at is None or expires_at >= entry.expires_at:
        return None if expires_at is None else entry
    return replace(entry, expires_at=expires_at, ttl_s=max(0.0, expires_at - entry.created_at))


def is_current(runtime: Runtime, stored: StoredEntry, stamp: int, now: float) -> bool:
    """Whether what is kept aside is still good for something."""
    found = runtime.found_in(stored, NOTHING, None)
    if isinstance(found, Failed):
        return now < found.serve_until
    return now < over_from(found) and not was_marked(runtime.state, stored.owner, found, stamp)


NOTHING: Final = Success(None)
"""In the place of an answer that nobody looks at."""


def record_of(runtime: Runtime, owner: Owner, key: str, found: Found) -> StoredEntry | None:
    """What is written of an entry or a failure; None where there is no JSON for it."""
    value: Encoded
    try:
        if isinstance(found, Failed):
            value = encoded_failure(found.answer.failure(), found.schema)
            return stored_failure(runtime, owner, key, found, value)
        schema = None if found.terms is None else found.terms.schema
        value = runtime.values.encoded(key, found.answer.unwrap(), schema)
    except EncodingError:
        return None
    stored = runtime.as_stored(owner, key, found, value)
    validator = writable_validator(stored.validator)
    return stored if validator is stored.validator else replace(stored, validator=validator)


def stored_failure(runtime: Runtime, owner: Owner, key: str, failed: Failed[Any], value: Encoded) -> StoredEntry:
    offset = runtime.time.epoch_offset
    return StoredEntry(
        owner,
        key,
        value,
        is_failure=True,
        created_at=failed.failed_at + offset,
        ttl_s=failed.serve_until - failed.failed_at,
        expires_at=None if isinf(failed.serve_until) else failed.serve_until + offset,
    )


# Whose


def is_taken(owner: Owner, viewer: str | None, scopes: frozenset[CacheScope]) -> bool:
    """Whether what is `owner`'s is any business of a caller who named `scopes`."""
    return owner[0] in scopes and (viewer is None or owner in {GLOBAL_OWNER, (USER, viewer), (SESSION, viewer)})


# Filling memory from one


def hydrated(
    runtime: Runtime,
    viewer: str | None,
    source: object,
    scopes: CacheScope | Collection[CacheScope] | None,
    max_bytes: int,
    max_entries: int,
) -> Result[Hydrated, CacheError]:
    """Take in what `source` has for a caller who is `viewer`."""
    asked = ALL_SCOPES if scopes is None else asked_scopes(scopes)
    if asked is None:
        return Failure(InvalidOption("scopes", type(scopes).__name__))
    for name, limit in (("max_bytes", max_bytes), ("max_entries", max_entries)):
        if type(limit) is not int or limit < 0:
            return Failure(InvalidOption(name, type(limit).__name__))
    if runtime.is_closed:
        return Failure(CacheClosed())
    arrival = runtime.begin_arrival()
    try:
        opened = as_snapshot(source, max_bytes, max_entries)
        if isinstance(opened, InvalidSnapshot):
            return Failure(opened)
        counts = Counter(damaged=opened.damaged)
        ours = our_session(runtime, viewer, opened)
        rows = sorted_out(opened.records, viewer, asked, counts, ours=ours)
        while few := list(islice(rows, AT_ONCE)):
            read_all(runtime, arrival, few, counts)
    finally:
        runtime.end_arrival(arrival)
    return Success(Hydrated(**counts))


def as_snapshot(source: object, max_bytes: int, max_entries: int) -> Snapshot | InvalidSnapshot:
    """The snapshot that `source` is, or holds."""
    if not isinstance(source, Snapshot):
        opened: Result[Snapshot, InvalidSnapshot] = Snapshot.from_json(
            source,  # type: ignore[arg-type]  # whatever it is, it is looked at there
            max_bytes=max_bytes,
            max_entries=max_entries,
        )
        return opened.unwrap() if isinstance(opened, Success) else opened.failure()
    if type(source.records) is not tuple or type(source.damaged) is not int:
        return InvalidSnapshot("no snapshot")
    if len(source.records) > max_entries:
        return InvalidSnapshot(f"more than {max_entries} entries")
    sound = tuple(each for each in source.records if is_sound(each))
    if sum(len(each.value.payload) for each in sound) > max_bytes:
        return InvalidSnapshot(f"more than {max_bytes} bytes")
    return replace(source, records=sound, damaged=source.damaged + len(source.records) - len(sound))


def our_session(runtime: Runtime, viewer: str | None, snapshot: Snapshot) -> bool:
    """Whether the session of the cache that `snapshot` was taken of is this one's: that of the same user."""
    return viewer is None and snapshot.session_of == runtime.state.active_user


def sorted_out(
    records: Iterable[StoredEntry],
    viewer: str | None,
    scopes: frozenset[CacheScope],
    counts: Counter[str],
    *,
    ours: bool,
) -> Iterator[StoredEntry]:
    """Those of `records` that are the caller's business."""
    for each in records:
        if is_taken(each.owner, viewer, scopes) and (ours or each.owner != SESSION_OWNER):
            yield each
        else:
            counts["foreign"] += 1


def read_all(runtime: Runtime, arrival: Arrival, few: list[StoredEntry], counts: Counter[str]) -> list[str]:
    """Read a few of what has arrived, all of it sound, and take them in: what became of those that could be read."""
    rows = [(each, read(runtime, each, counts)) for each in few]
    good = [(stored, found) for stored, found in rows if not isinstance(found, Unreadable)]
    ends = runtime.take_in(arrival, good)
    counts.update(COUNTED[end] for end in ends)
    return ends


class Unreadable(Struct, frozen=True):
    """In the place of what could not be read."""


UNREADABLE: Final = Unreadable()


def read(runtime: Runtime, stored: StoredEntry, counts: Counter[str]) -> Found | Unreadable | None:
    """What `stored` is; None where nobody has named its schema yet."""
    name = stored.value.schema
    is_plain = not name or (stored.is_failure and name == TIMEOUT)
    schema = None if is_plain else runtime.schemas.known.get(name)
    if schema is None and not is_plain:
        return None
    answer = runtime.decoded(stored, schema)
    if answer is None:
        counts["damaged"] += 1
        return UNREADABLE
    return termed(runtime.found_in(stored, answer, schema))


GLOBAL_ONLY: Final = (GLOBAL,)
"""What a snapshot is taken of, unless more is asked for."""
