"""What is on its way into memory from outside, and what was removed meanwhile.

A snapshot is taken in bit by bit, and the store is read in advance while the
cache is in use. Whoever removes or writes something in between must not find
the old value there afterwards. So whatever is on its way began at a moment,
removals are noted with theirs, and what was removed since is not taken in.

Kept aside: what was written with a schema that nobody has named yet. It waits,
as bytes, until its key is asked for with that schema; a removal takes it away.

Unproved: what was taken in before anybody said what it should be. The first who
asks for it with a schema finds it of that schema, or gone.

Every method is called with the runtime's lock held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from cachemesh.core import commands, effects
from cachemesh.core.model import Entry, Failed, Terms
from cachemesh.shell.ports import StoredEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from cachemesh.core.scopes import CacheScope, Owner
    from cachemesh.shell.schema import Schema

V = TypeVar("V")

Found: TypeAlias = Entry[Any] | Failed[Any]

MOST_REMOVALS: Final = 10_000
"""More are not noted one by one: then everything that is on its way counts as removed."""

MOST_ASIDE: Final = 65_536
MOST_BYTES_ASIDE: Final = 64 * 2**20
"""So much is kept aside at the most."""

EVERYTHING: Final = "everything"


class Arrival(Struct, frozen=True):
    """Something is on its way since the moment `since`. `stamp`: from the row of the flights' ids, drawn then."""

    stamp: int
    since: int


class Aside(Struct, frozen=True):
    """An entry that is kept aside, and the stamp of its arrival."""

    stored: StoredEntry
    stamp: int


class Intake:
    """What a runtime keeps of it."""

    def __init__(self) -> None:
        self.is_open = False
        """Whether what is removed has to be noted."""
        self.is_asked = False
        """Whether who asks has to look here."""
        self.aside: Places[Aside] = Places()
        self.unproved: Places[int] = Places()
        self._bytes_aside = 0
        self._moment = 0
        self._arrivals: list[Arrival] = []
        self._removed: dict[Any, int] = {}
        self._prefixes: list[tuple[Owner, str, int]] = []

    # On its way

    def begin(self, stamp: int) -> Arrival:
        """Something will arrive."""
        arrival = Arrival(stamp, self._moment)
        self._arrivals.append(arrival)
        self._settle()
        return arrival

    def end(self, arrival: Arrival) -> None:
        """It has arrived, or never will."""
        self._arrivals = [each for each in self._arrivals if each is not arrival]
        if not self._arrivals:
            self._removed.clear()
            self._prefixes.clear()
        self._settle()

    def was_removed(self, arrival: Arrival, owner: Owner, key: str) -> bool:
        """Whether (owner, key) was removed or written while it was on its way."""
        if self._moment == arrival.since:
            return False
        removed, since = self._removed, arrival.since
        if any(removed.get(place, 0) > since for place in ((owner, key), owner, owner[0], EVERYTHING)):
            return True
        return any(
            moment > since and owner == each and key.startswith(prefix) for each, prefix, moment in self._prefixes
        )

    # Kept aside

    def keep(self, stored: StoredEntry, stamp: int) -> bool:
        """Keep `stored` aside. False: there is too much of it."""
        size = size_of(stored)
        if len(self.aside) >= MOST_ASIDE or self._bytes_aside + size > MOST_BYTES_ASIDE:
            return False
        before = self.aside.get(stored.owner, stored.key)
        if before is not None:
            if before.stored.created_at >= stored.created_at:
                return True
            self.let_go(stored.owner, stored.key)
        self.aside.add(stored.owner, stored.key, Aside(stored, stamp))
        self._bytes_aside += size
        self._settle()
        return True

    def let_go(self, owner: Owner, key: str) -> None:
        """Nothing of (owner, key) is kept aside any longer."""
        self._forget([self.aside.pop(owner, key)])

    # Removals

    def note(self, command: commands.Command[Any], ordered: Iterable[effects.Effect[Any]]) -> None:
        """What `command` has led to: something may be removed by it, or written."""
        if isinstance(command, commands.ClearScope) and command.viewer is None:
            self.drop_scope(command.scope)
        elif isinstance(command, commands.Heard):  # Also of what the memory had nothing of.
            self._heard(command.owner, command.key)
        for effect in ordered:
            removes = REMOVES.get(type(effect))
            if removes is not None:
                removes(self, effect)
        self._settle()

    def prove(self, owner: Owner, key: str) -> None:
        """What is there is as it should be, or gone."""
        self.unproved.pop(owner, key)
        self._settle()

    def doubt(self, owner: Owner, key: str, stamp: int) -> None:
        """Nobody has said yet what is there should be."""
        self.unproved.add(owner, key, stamp)
        self._settle()

    def _heard(self, owner: Owner | None, key: str | None) -> None:
        if owner is None:
            self.drop_everything()
        elif key is None:
            self.drop_owner(owner)
        else:
            self.drop(owner, key)

    def drop(self, owner: Owner, key: str) -> None:
        """(owner, key) was removed or written."""
        self._forget([self.aside.pop(owner, key)])
        self.unproved.pop(owner, key)
        self._note((owner, key))

    def drop_prefix(self, owner: Owner, prefix: str) -> None:
        self._forget(self.aside.pop_prefix(owner, prefix))
        self.unproved.pop_prefix(owner, prefix)
        if self._arrivals:
            self._moment += 1
            self._prefixes.append((owner, prefix, self._moment))
            self._bound()

    def drop_owner(self, owner: Owner) -> None:
        self._forget(self.aside.pop_prefix(owner, ""))
        self.unproved.pop_prefix(owner, "")
        self._note(owner)

    def drop_scope(self, scope: CacheScope) -> None:
        for owner in {*self.aside.owners(), *self.unproved.owners()}:
            if owner[0] is scope:
                self.drop_owner(owner)
        self._note(scope)

    def drop_everything(self) -> None:
        self.aside.clear()
        self.unproved.clear()
        self._bytes_aside = 0
        self._note(EVERYTHING)

    def _forget(self, gone: Iterable[Aside | None]) -> None:
        self._bytes_aside -= sum(size_of(each.stored) for each in gone if each is not None)

    def _note(self, place: tuple[Owner, str] | Owner | CacheScope | str) -> None:
        if self._arrivals:
            self._moment += 1
            self._removed[place] = self._moment
            self._bound()

    def _bound(self) -> None:
        if len(self._removed) + len(self._prefixes) > MOST_REMOVALS:
            self._prefixes.clear()
            self._removed = {EVERYTHING: self._moment}

    def _settle(self) -> None:
        self.is_asked = bool(self.aside) or bool(self.unproved)
        self.is_open = self.is_asked or bool(self._arrivals)


REMOVES: Final[Mapping[type, Callable[[Intake, Any], None]]] = {
    effects.Save: lambda intake, effect: intake.drop(effect.owner, effect.key),
    effects.Persist: lambda intake, effect: intake.drop(effect.owner, effect.key),
    effects.Drop: lambda intake, effect: intake.drop(effect.owner, effect.key),
    effects.DropPrefix: lambda intake, effect: intake.drop_prefix(effect.owner, effect.prefix),
    effects.DropPartition: lambda intake, effect: intake.drop_owner(effect.owner),
    effects.ClearStore: lambda intake, _: intake.drop_everything(),
}
"""Effects by which what was there before is there no longer."""


class Places(Generic[V]):
    """Something under (owner, key), for few owners and many keys."""

    def __init__(self) -> None:
        self._owners: dict[Owner, dict[str, V]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, owner: Owner, key: str) -> V | None:
        keys = self._owners.get(owner)
        return None if keys is None else keys.get(key)

    def add(self, owner: Owner, key: str, value: V) -> None:
        keys = self._owners.setdefault(owner, {})
        self._count += key not in keys
        keys[key] = value

    def pop(self, owner: Owner, key: str) -> V | None:
        keys = self._owners.get(owner)
        if keys is None or key not in keys:
            return None
        found = keys.pop(key)
        self._count -= 1
        if not keys:
            del self._owners[owner]
        return found

    def pop_prefix(self, owner: Owner, prefix: str) -> list[V]:
        """What is under the keys of `owner` that begin with `prefix`, taken out."""
        keys = [key for key in self._owners.get(owner, ()) if key.startswith(prefix)]
        return [found for found in (self.pop(owner, key) for key in keys) if found is not None]

    def owners(self) -> list[Owner]:
        return list(self._owners)

    def of(self, owner: Owner) -> Iterator[tuple[str, V]]:
        """The keys of `owner`, and what is under them."""
        yield from self._owners.get(owner, {}).items()

    def clear(self) -> None:
        self._owners.clear()
        self._count = 0


def termed(found: Found) -> Found:
    """`found` with terms of its own: they bear the stamp of its arrival, and its schema."""
    return replace(found, terms=Terms()) if isinstance(found, Entry) and found.terms is None else found


def fits(one: Schema | None, other: Schema | None) -> bool:
    """Whether they are the same schema, at least by name and version."""
    if one is None or other is None:
        return one is other
    return one is other or (one.name, one.version) == (other.name, other.version)


def size_of(stored: StoredEntry) -> int:
    """About how many bytes it takes."""
    size: int = len(stored.value.payload) + len(stored.key) + 500
    return size
