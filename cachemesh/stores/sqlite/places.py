"""Places as two numbers: of the owner (with the namespace), and of the key.

Each is 64 bits of a digest (BLAKE2b, RFC 7693). Should two places ever have
the same, the envelope says which of them it is of, and the other one misses.
"""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, Final, TypeAlias

from cachemesh.stores.names import encoded, joined, owner_name

if TYPE_CHECKING:
    from cachemesh.core.scopes import Owner

PlaceNumber: TypeAlias = tuple[int, int]

MOST_OWNERS: Final = 4_096

as_number: Final = Struct("<q").unpack


def number_of(name: bytes) -> int:
    number: int = as_number(blake2b(name, digest_size=8).digest())[0]
    return number


class Places:
    """The numbers of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = encoded(namespace)
        self.space = number_of(self._namespace)
        self._owners: dict[Owner, int] = {}

    def number(self, owner: Owner, key: str) -> PlaceNumber:
        number = self._owners.get(owner)
        if number is None:
            number = self.owner(owner)
        return number, as_number(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest())[0]

    def owner(self, owner: Owner) -> int:
        number = self._owners.get(owner)
        if number is None:
            number = number_of(joined(self._namespace, owner_name(owner)))
            if len(self._owners) >= MOST_OWNERS:
                self._owners.clear()
            self._owners[owner] = number
        return number
