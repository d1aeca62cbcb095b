"""What a store tells of itself, for `cachemesh store stats` and `cachemesh store doctor`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from cachemesh.shell.ports import SharedStore, StoredEntry


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class Finding(Struct, frozen=True):
    """One thing that a doctor looked at. `text` is a sentence, and quotes no key and no value."""

    level: Level
    subject: str
    text: str


class StoreStats(Struct, frozen=True):
    """How much a store holds: entries by the name of their scope, and bytes where they lie."""

    entries: int
    failures: int
    tombstones: int
    size_bytes: int
    by_scope: Mapping[str, int]
    details: Mapping[str, str | int | float]
    """What else this kind of store knows of itself: versions, modes, queue lengths."""


class BrowsableStore(SharedStore, Protocol):
    """A store that can be looked through from outside a cache."""

    def scan(self) -> AsyncIterator[StoredEntry]:
        """Every entry, expired or not, in no particular order. What is damaged, or gone by a mark, is left out."""

    async def stats(self) -> StoreStats:
        """How much it holds."""

    async def doctor(self) -> Sequence[Finding]:
        """What is well with it, and what is not."""
