"""Which releases of SQLite have the WAL-reset bug.

From https://sqlite.org/wal.html#walresetbug: in WAL mode a checkpoint that begins
while another connection commits and so begins the log anew may take pages for
copied that were not, from 3.7.0 up to 3.51.2; put right in 3.51.3, and in 3.44.6
and 3.50.7 for those who stay with them.
"""

from __future__ import annotations

import sqlite3
from typing import Final, TypeAlias

Version: TypeAlias = tuple[int, int, int]

FIRST: Final[Version] = (3, 7, 0)
MENDED: Final[Version] = (3, 51, 3)
MENDED_BRANCHES: Final[tuple[Version, ...]] = ((3, 44, 6), (3, 50, 7))


def has_wal_reset_bug(version: Version = sqlite3.sqlite_version_info) -> bool:
    """Whether a checkpoint must not meet a commit.

    >>> [has_wal_reset_bug(each) for each in [(3, 40, 1), (3, 44, 6), (3, 45, 0), (3, 50, 7), (3, 51, 2), (3, 51, 3)]]
    [True, False, True, False, True, False]
    """
    if not FIRST <= version < MENDED:
        return False
    return not any(version[:2] == branch[:2] and version >= branch for branch in MENDED_BRANCHES)
