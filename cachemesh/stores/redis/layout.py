"""How a store lies on the server: the names of its keys, and what stands in front of an envelope.

    cm1:NAMESPACE:e:{OWNER KEY}     an entry, or the place that is kept for one
    cm1:NAMESPACE:l:{OWNER KEY}     who is fetching it: the lease
    cm1:{NAMESPACE}:head            the counter's id and the generation of its last mark: one glance, in each read
    cm1:{NAMESPACE}:meta            the counter: id, generation, last mark
    cm1:{NAMESPACE}:marks, :soft    the marks by generation; from when on the soft ones count

What stands in braces decides the slot in a cluster (the hash tag of the Cluster
specification), so an entry and its lease never part. `cm1` is the format.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from cachemesh.stores.names import encoded, owner_name, owner_of_name, short

if TYPE_CHECKING:
    from cachemesh.core.scopes import Owner
    from cachemesh.stores.marks import Place

FORMAT: Final = b"cm1"
LONGEST_PART: Final = 200
"""Of a name; of a longer one, only its hash is in the key. The envelope has it whole."""

COUNTER_SIZE: Final = 12
GENERATION_SIZE: Final = 16
STAMP_SIZE: Final = 12
HEADER_SIZE: Final = 1 + COUNTER_SIZE + GENERATION_SIZE + STAMP_SIZE
HEAD_SIZE: Final = COUNTER_SIZE + GENERATION_SIZE

ENTRY: Final = b"E"
PLACEHOLDER: Final = b"P"

GLOB: Final = frozenset(b"*?[]^-\\")


class Layout:
    """The keys of one namespace."""

    def __init__(self, namespace: str) -> None:
        name = part(encoded(namespace))
        self._entry = FORMAT + b":" + name + b":e:{"
        self._lease = FORMAT + b":" + name + b":l:{"
        shared = FORMAT + b":{" + name + b"}:"
        self.head = shared + b"head"
        self.meta = shared + b"meta"
        self.counter = (self.head, self.meta, shared + b"marks", shared + b"soft")
        """All that the counter is: they share a slot, so a script may use them together."""
        self.channel = shared + b"news"

    def entry(self, owner: Owner, key: str) -> bytes:
        return self._entry + part(owner_name(owner)) + part(encoded(key)) + b"}"

    def lease(self, entry: bytes) -> bytes:
        """The lease beside `entry`."""
        return self._lease + entry[len(self._entry) :]

    def pattern(self, owner: Owner | None = None) -> bytes:
        """Matches the entries of `owner`, or of all, and nothing else."""
        return escaped(self._entry + (b"" if owner is None else part(owner_name(owner)))) + b"*"


def part(name: bytes) -> bytes:
    """A part of a key: it bears its length, so that no two names run into each other, and has no braces.

    >>> part(b"user:1"), part(b"{}")
    (b'6:user:1', b'#Kvubg_kxTl0Cl2YZf1OXkg')
    """
    if len(name) > LONGEST_PART or b"{" in name or b"}" in name:
        return b"#" + base64.urlsafe_b64encode(short(name)).rstrip(b"=")
    return b"%d:%b" % (len(name), name)


def escaped(name: bytes) -> bytes:
    r"""`name` as a pattern that matches it alone.

    >>> escaped(b"a*[b]")
    b'a\\*\\[b\\]'
    """
    return b"".join(b"\\%c" % each if each in GLOB else b"%c" % each for each in name)


class Header(Struct, frozen=True, gc=False):
    """What a script sees of an entry. `stamp` is another one for each writing: the same header means untouched."""

    kind: bytes
    counter: bytes
    generation: int
    stamp: bytes

    def packed(self) -> bytes:
        return self.kind + self.counter + b"%016d" % self.generation + self.stamp


NO_COUNTER: Final = b"-" * COUNTER_SIZE


def header_of(record: bytes) -> Header | None:
    """The header of what is under a key; None where it has none."""
    counter_to, generation_to = 1 + COUNTER_SIZE, 1 + COUNTER_SIZE + GENERATION_SIZE
    generation = record[counter_to:generation_to]
    if len(record) < HEADER_SIZE or not generation.isdigit():
        return None
    return Header(record[:1], record[1:counter_to], int(generation), record[generation_to:HEADER_SIZE])


class Glance(Struct, frozen=True, gc=False):
    """What the head says: which counter it is, and the generation of the last mark."""

    counter: bytes
    last_mark: int


def glance_of(head: bytes | None) -> Glance | None:
    """None where there is no counter, or something else is in its place."""
    if head is None or len(head) != HEAD_SIZE or not head[COUNTER_SIZE:].isdigit():
        return None
    return Glance(head[:COUNTER_SIZE], int(head[COUNTER_SIZE:]))


SOFT: Final = b"s"
HARD: Final = b"h"

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(tuple[bytes | None, bytes | None]).decode


def mark_name(place: Place, *, is_soft: bool) -> bytes:
    """The member of the set of marks for `place`; a later order takes the place of an earlier one."""
    owner, tag = place
    return (SOFT if is_soft else HARD) + _pack(
        (None if owner is None else owner_name(owner), None if tag is None else encoded(tag))
    )


def mark_of_name(name: bytes) -> tuple[Place, bool]:
    """The place, and whether it is soft. ValueError where it is no mark."""
    owner, tag = _unpack(name[1:])
    return (
        None if owner is None else owner_of_name(owner),
        None if tag is None else tag.decode("utf-8", "surrogatepass"),
    ), name[:1] == SOFT
