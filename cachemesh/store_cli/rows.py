"""What is told of an entry, and of the entries of a scope. The names of the fields are those of `--json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

from cachemesh.core.scopes import CacheScope
from cachemesh.store_cli.shown import hashed, is_private, plain
from cachemesh.stores.envelope import is_locked

if TYPE_CHECKING:
    from cachemesh.shell.ports import Encoded, StoredEntry


class Row(Struct, frozen=True):
    """An entry without its value. Times are seconds since the epoch; None is never.

    Where it `is_encrypted`, its times, tags and schema are not known. Where it
    `is_hashed`, its key, user and tags are hashes.
    """

    key: str
    scope: CacheScope
    user: str | None
    is_hashed: bool
    is_encrypted: bool
    is_failure: bool
    size_bytes: int
    created_at: float | None
    expires_at: float | None
    tags: tuple[str, ...]
    schema: str
    version: int | None


def row_of(entry: StoredEntry, *, clear: bool) -> Row:
    scope, user = entry.owner
    value: Encoded = entry.value
    key, tags = entry.key, entry.tags
    is_hashed, is_encrypted = is_private(entry.owner) and not clear, is_locked(entry)
    if is_hashed:
        key, user, tags = hashed(key), None if user is None else hashed(user), tuple(map(hashed, tags))
    return Row(
        key=key,
        scope=scope,
        user=user,
        is_hashed=is_hashed,
        is_encrypted=is_encrypted,
        is_failure=entry.is_failure,
        size_bytes=len(value.payload),
        created_at=None if is_encrypted else entry.created_at,
        expires_at=entry.expires_at,
        tags=tags,
        schema=value.schema,
        version=None if is_encrypted else value.version,
    )


def document_of(row: Row) -> dict[str, Any]:
    """`row` for JSON, with texts that are no Unicode as `plain` has them."""
    document = structs.asdict(row)
    document.update(
        key=plain(row.key),
        user=None if row.user is None else plain(row.user),
        tags=[plain(tag) for tag in row.tags],
        schema=plain(row.schema),
    )
    return document


class Figures(Struct):
    """How many entries a scope has, of how many bytes (of their values), and when they were made."""

    entries: int = 0
    failures: int = 0
    expired: int = 0
    encrypted: int = 0
    size_bytes: int = 0
    oldest_at: float | None = None
    newest_at: float | None = None

    def add(self, entry: StoredEntry, now: float) -> None:
        self.entries += 1
        self.size_bytes += len(entry.value.payload)
        if is_locked(entry):
            self.encrypted += 1
            return
        self.failures += entry.is_failure
        self.expired += entry.expires_at is not None and entry.expires_at <= now
        at = entry.created_at
        self.oldest_at = at if self.oldest_at is None else min(at, self.oldest_at)
        self.newest_at = at if self.newest_at is None else max(at, self.newest_at)
