"""Who owns an entry. A scope is a namespace: the identity of an entry is (owner, key)."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, TypeAlias


class CacheScope(StrEnum):
    """How long an entry may live beside its lifetime: for ever, for a session, or while one user is signed in."""

    GLOBAL = "global"
    SESSION = "session"
    USER = "user"


Owner: TypeAlias = tuple[CacheScope, str | None]
"""A scope and, where a user stands behind it, the user's id. Compared whole, so no two ids can meet in one owner."""

GLOBAL: Final = CacheScope.GLOBAL
SESSION: Final = CacheScope.SESSION
USER: Final = CacheScope.USER

GLOBAL_OWNER: Final[Owner] = (CacheScope.GLOBAL, None)
SESSION_OWNER: Final[Owner] = (CacheScope.SESSION, None)


def owner_of(scope: CacheScope, active_user: str | None, viewer: str | None) -> Owner | None:
    """The owner that `scope` names for a caller; None for the user scope while nobody is signed in.

    A `viewer` is the user of a view: it has a session and a user partition of
    its own, whoever is active on the cache itself.
    """
    if scope is GLOBAL:
        return GLOBAL_OWNER
    if scope is SESSION:
        return SESSION_OWNER if viewer is None else (SESSION, viewer)
    user = active_user if viewer is None else viewer
    return None if user is None else (USER, user)


def visible_owners(scope: CacheScope | None, active_user: str | None, viewer: str | None) -> tuple[Owner, ...]:
    """The owners that a read looks at, narrowest first: user, session, global; or the named one only."""
    scopes = (USER, SESSION, GLOBAL) if scope is None else (scope,)
    owners = (owner_of(each, active_user, viewer) for each in scopes)
    return tuple(owner for owner in owners if owner is not None)
