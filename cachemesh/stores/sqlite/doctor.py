"""What a doctor looks at: the file, its folder, its journal, its bounds, and the SQLite that reads it."""

from __future__ import annotations

import sqlite3
import stat
from typing import TYPE_CHECKING, Any

from cachemesh.stores.report import Finding, Level
from cachemesh.stores.sqlite.browse import size_of
from cachemesh.stores.sqlite.errors import FAILURES, shown
from cachemesh.stores.sqlite.file import PAGE_SIZE, SUFFIXES, beside, pragma, quarantined
from cachemesh.stores.sqlite.lock import HAS_LOCKS
from cachemesh.stores.sqlite.mounts import is_on_network
from cachemesh.stores.sqlite.schema import meta_of
from cachemesh.stores.sqlite.versions import has_wal_reset_bug

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachemesh.stores.sqlite.engine import Engine
    from cachemesh.stores.sqlite.file import Database

MOST_SHOWN: int = 3


def examined(engine: Engine) -> list[Finding]:
    """One finding for each subject."""
    database = engine.opened()
    findings = [_version(), *_queue(engine)]
    if database is None:
        text = engine.complaints.last or "The file cannot be opened."
        return [*findings, Finding(Level.ERROR, "file", text)]
    try:
        connection = database.lend()
        try:
            findings += [
                *_file(engine, database),
                _journal(database),
                _integrity(connection),
                *_bounds(engine, connection),
            ]
        finally:
            database.give_back(connection)
        findings += [_permissions(database), _damaged(database), _size(database)]
    except (*FAILURES, TypeError) as error:
        engine.failed(error, database)
        findings.append(Finding(Level.ERROR, "file", f"The file cannot be read: {shown(error)}."))
    return findings


def _version() -> Finding:
    version = sqlite3.sqlite_version
    if not has_wal_reset_bug():
        return Finding(Level.OK, "SQLite", f"SQLite {version}.")
    how = (
        "a lock beside the file keeps writers and checkpoints from meeting"
        if HAS_LOCKS
        else "a rollback journal is used in its place"
    )
    text = (
        f"SQLite {version} has the WAL-reset bug (3.7.0 to 3.51.2, but for 3.44.6 and 3.50.7): {how}."
        " Programs other than cachemesh should not write to the file."
    )
    return Finding(Level.WARNING, "SQLite", text)


def _queue(engine: Engine) -> Iterator[Finding]:
    doubts = engine.queue.doubts
    if engine.degraded is not None:
        text = f"Nothing can be written ({shown(engine.degraded)}); {doubts} places are not believed until it can."
        yield Finding(Level.ERROR, "queue", text)
    else:
        yield Finding(Level.OK, "queue", f"{len(engine.queue)} orders wait to be written.")
    total = engine.complaints.total
    if total:
        yield Finding(
            Level.WARNING, "reports", f"{total} since the store was made; the last: {engine.complaints.last}."
        )


def _file(engine: Engine, database: Database) -> Iterator[Finding]:
    if database.path == beside(engine.file.path):
        text = f"The file is of another version or another program; ours lies beside it, as {database.path.name}."
        yield Finding(Level.WARNING, "file", text)
    if is_on_network(database.path):
        text = "The file is on a file system that other machines share; SQLite's locks cannot be relied on there."
        yield Finding(Level.WARNING, "file system", text)


def _journal(database: Database) -> Finding:
    mode = database.journal_mode
    if mode == "wal":
        return Finding(Level.OK, "journal", "Write-ahead log: reads and writes do not wait for each other.")
    return Finding(Level.NOTE, "journal", f"Journal mode {mode}, as a write-ahead log is not to be had here.")


def _integrity(connection: sqlite3.Connection) -> Finding:
    problems = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({MOST_SHOWN})")]
    if problems == ["ok"]:
        return Finding(Level.OK, "integrity", "SQLite finds the file whole.")
    return Finding(Level.ERROR, "integrity", f"SQLite finds the file damaged, {len(problems)} times at least.")


def _bounds(engine: Engine, connection: sqlite3.Connection) -> Iterator[Finding]:
    meta = meta_of(connection.execute("SELECT last_mark, state FROM meta WHERE id = 1").fetchone())
    used = (pragma(connection, "page_count") - pragma(connection, "freelist_count")) * PAGE_SIZE
    for subject, value, bound in (
        ("entries", meta.entries, engine.settings.max_entries),
        ("bytes", used, engine.settings.max_bytes),
    ):
        if bound is None:
            yield Finding(Level.NOTE, subject, f"{value} {subject}, without bound.")
        else:
            level = Level.OK if value <= bound else Level.WARNING
            yield Finding(level, subject, f"{value} {subject} of {bound}.")


def _permissions(database: Database) -> Finding:
    open_to_others = [
        path.name
        for path in (database.path.with_name(database.path.name + suffix) for suffix in SUFFIXES)
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    if open_to_others:
        return Finding(Level.WARNING, "permissions", f"Others than the owner may use {', '.join(open_to_others)}.")
    if stat.S_IMODE(database.path.parent.stat().st_mode) & 0o022:
        return Finding(Level.WARNING, "permissions", "Others than the owner may put files into the folder.")
    return Finding(Level.OK, "permissions", "Nobody but the owner may use the file.")


def _damaged(database: Database) -> Finding:
    found = quarantined(database.path)
    if found:
        return Finding(
            Level.NOTE, "quarantine", f"{len(found)} damaged files lie beside it, the last {found[-1].name}."
        )
    return Finding(Level.OK, "quarantine", "No damaged file lies beside it.")


def _size(database: Database) -> Finding:
    details: Any = size_of(database)
    return Finding(Level.NOTE, "size", f"{details} bytes on the disk, with the journal.")
