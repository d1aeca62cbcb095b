"""Leases: who is fetching what, and until when others wait for it.

They make fetches few. What keeps writes right is the generation, which each
claim draws anew; so a lease may end too early or too late, whatever the clock
does, and nothing worse comes of it than a fetch too many, or a wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from cachemesh.core.scopes import Owner

if TYPE_CHECKING:
    import sqlite3

    from cachemesh.stores.sqlite.places import PlaceNumber

REFUSED: Final = -1
"""The generation of a claim that was made when nothing could be written: nothing is kept with it."""


class Claiming(Struct, frozen=True):
    """What is asked of the worker. `length_s` None: without a lease.

    `seen`: `n` of what the caller knows under this key; None is whatever is
    there by now. `over`: the token of a lease that the caller has waited out.
    """

    owner: Owner
    key: str
    token: bytes
    length_s: float | None
    waits: bool
    seen: int | None
    over: bytes = b""


class Held(Struct, frozen=True):
    """Somebody else is fetching it. `seen`: as in `Claiming`, for the next time."""

    token: bytes
    length_s: float
    seen: int


def holder(connection: sqlite3.Connection, place: PlaceNumber, now: float) -> tuple[bytes, float] | None:
    """The token of a lease that is not over, and how long it was to last."""
    row = connection.execute(
        "SELECT token, ends_at, length_s FROM leases WHERE owner = ? AND key = ?", place
    ).fetchone()
    if row is None:
        return None
    token, ends_at, length_s = row
    # No lease lasts for longer than it was given for: where more seems to be left, the clock was set back.
    if 0.0 < ends_at - now <= length_s and isinstance(token, bytes):
        return token, length_s
    return None


def take(connection: sqlite3.Connection, place: PlaceNumber, token: bytes, now: float, length_s: float) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)", (*place, token, now + length_s, length_s)
    )


def give_up(connection: sqlite3.Connection, place: PlaceNumber, token: bytes) -> None:
    """By its holder only."""
    connection.execute("DELETE FROM leases WHERE owner = ? AND key = ? AND token = ?", (*place, token))
