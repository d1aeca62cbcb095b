"""A store in a file: SQLite, with nothing but the standard library."""

from cachemesh.stores.sqlite.errors import NotFlushedError, SqliteStoreError
from cachemesh.stores.sqlite.store import SqliteStore

__all__ = ["NotFlushedError", "SqliteStore", "SqliteStoreError"]
