"""Which entries of a store are meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from cachemesh.core.scopes import GLOBAL_OWNER, CacheScope

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.ports import StoredEntry


class Choice(Struct, frozen=True):
    """Entries that are all of what is given. None is whatever it is.

    A `user` has a partition of the user scope, and one of the session scope, if
    somebody has looked with a view.
    """

    scope: CacheScope | None = None
    user: str | None = None
    prefix: str | None = None

    def takes(self, entry: StoredEntry) -> bool:
        return self.takes_owner(entry.owner) and (self.prefix is None or entry.key.startswith(self.prefix))

    def takes_owner(self, owner: Owner) -> bool:
        return (self.scope is None or owner[0] is self.scope) and (self.user is None or owner[1] == self.user)

    def owners(self, found: Iterable[Owner] = ()) -> set[Owner]:
        """Those that are meant: of `found`, and beside them those that can be named; the global one if none is said."""
        if self.user is not None:
            named: set[Owner] = {(CacheScope.USER, self.user), (CacheScope.SESSION, self.user)}
        elif self.scope is CacheScope.SESSION:
            named = {(CacheScope.SESSION, None)}
        else:
            named = {GLOBAL_OWNER} if self.scope is not CacheScope.USER else set()
        return {owner for owner in named.union(found) if self.takes_owner(owner)}
