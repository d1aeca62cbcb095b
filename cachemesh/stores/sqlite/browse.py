"""What is asked about more than one place: keys, scans, figures. Each page is read on a connection lent for it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from cachemesh.stores.report import StoreStats
from cachemesh.stores.sqlite import lease
from cachemesh.stores.sqlite.errors import FAILURES, ClosedError
from cachemesh.stores.sqlite.file import SUFFIXES, pragma
from cachemesh.stores.sqlite.queue import applied
from cachemesh.stores.sqlite.records import some_record_of
from cachemesh.stores.sqlite.schema import meta_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.ports import StoredEntry
    from cachemesh.stores.sqlite.engine import Engine
    from cachemesh.stores.sqlite.file import Database

BEGIN: Final = -(2**63)
PAGE: Final = 256


def keys_of(engine: Engine, owner: Owner) -> list[str]:
    """The keys of `owner`. What was ordered before is on the disk, or doubted."""
    number = engine.places.owner(owner)
    found: list[str] = []
    cursor = BEGIN
    while True:
        rows = _rows(
            engine,
            "SELECT key, generation, envelope FROM entries WHERE owner = ? AND key > ? ORDER BY key LIMIT ?",
            (number, cursor, PAGE),
        )
        found += [entry.key for entry in _entries(engine, rows) if entry.owner == owner]
        if len(rows) < PAGE:
            return found
        cursor = rows[-1][0]


def page(engine: Engine, cursor: int) -> tuple[list[StoredEntry], int | None]:
    """Some entries of the namespace, and where the next ones begin; None where none do."""
    rows = _rows(
        engine,
        "SELECT n, generation, envelope FROM entries WHERE n > ? AND space = ? ORDER BY n LIMIT ?",
        (cursor, engine.places.space, PAGE),
    )
    return list(_entries(engine, rows)), rows[-1][0] if len(rows) == PAGE else None


def is_held(engine: Engine, owner: Owner, key: str, token: bytes) -> bool:
    """Whether the lease `token` of (owner, key) is not over."""

    def look(database: Database, connection: sqlite3.Connection) -> bool:
        del database
        held = lease.holder(connection, engine.places.number(owner, key), engine.clock())
        return held is not None and held[0] == token

    return bool(_reading(engine, look))


def stats(engine: Engine) -> StoreStats:
    by_scope: Counter[str] = Counter()
    failures = 0
    cursor: int | None = BEGIN
    while cursor is not None:
        entries, cursor = page(engine, cursor)
        for entry in entries:
            by_scope[entry.owner[0].value] += 1
            failures += entry.is_failure
    details: dict[str, str | int | float] = {
        "sqlite": sqlite3.sqlite_version,
        "path": str(engine.file.path),
        "queued": len(engine.queue),
        "doubts": engine.queue.doubts,
        "reports": engine.complaints.total,
    }

    def look(database: Database, connection: sqlite3.Connection) -> tuple[int, int]:
        meta = meta_of(connection.execute("SELECT last_mark, state FROM meta WHERE id = 1").fetchone())
        (tombs,) = connection.execute("SELECT count(*) FROM tombs").fetchone()
        (leases,) = connection.execute("SELECT count(*) FROM leases").fetchone()
        details.update(
            journal_mode=database.journal_mode,
            generation=meta.seq,
            entries_of_all_namespaces=meta.entries,
            marks=meta.marks,
            leases=leases,
            free_bytes=pragma(connection, "freelist_count") * pragma(connection, "page_size"),
        )
        return tombs, size_of(database)

    tombs, size = _reading(engine, look) or (0, 0)
    return StoreStats(by_scope.total(), failures, tombs, size, dict(by_scope), details)


def size_of(database: Database) -> int:
    """Bytes on the disk."""
    size = 0
    for suffix in SUFFIXES:
        path = database.path.with_name(database.path.name + suffix)
        if path.exists():
            size += path.stat().st_size
    return size


def _rows(engine: Engine, statement: str, values: tuple[int, ...]) -> Sequence[Any]:
    def look(database: Database, connection: sqlite3.Connection) -> Sequence[Any]:
        rows = connection.execute(statement, values).fetchall()
        database.view.load(connection)
        return rows

    return _reading(engine, look) or []


def _reading(engine: Engine, look: Callable[[Database, sqlite3.Connection], Any]) -> Any:  # noqa: ANN401 (what `look` answers)
    """None where the file cannot be read."""
    database = engine.opened()
    if database is None:
        return None
    try:
        connection = database.lend()
        try:
            return look(database, connection)
        finally:
            database.give_back(connection)
    except ClosedError:
        return _reading(engine, look)
    except (*FAILURES, TypeError) as error:
        engine.failed(error, database)
        return None


def _entries(engine: Engine, rows: Sequence[Any]) -> Iterator[StoredEntry]:
    """Those that are whole, and that neither marks nor doubts speak against."""
    database = engine.database
    for _, generation, envelope in rows:
        found = some_record_of(envelope, generation, engine.namespace, engine.cipher)
        if found is None or database is None:
            continue
        entry = database.view.applied(found)
        order, marks = engine.queue.pending((found.owner, found.key))
        if order is not None and order.kind not in {"write", "commit"}:
            continue
        if entry is not None and marks is not None:
            entry = applied(marks, entry, 0)
        if entry is not None:
            yield entry
