"""Names as bytes: of owners, keys and tags. Injective, whatever they contain: parts bear their lengths."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from cachemesh.core.scopes import CacheScope

if TYPE_CHECKING:
    from cachemesh.core.scopes import Owner

LETTERS: Final = {CacheScope.GLOBAL: b"g", CacheScope.SESSION: b"s", CacheScope.USER: b"u"}
SCOPES: Final = {letter: scope for scope, letter in LETTERS.items()}


def encoded(text: str) -> bytes:
    """`text` in UTF-8; half a surrogate pair, which Python allows, as well."""
    return text.encode("utf-8", "surrogatepass")


def decoded(name: bytes) -> str:
    """The text that `encoded` made `name` of. UnicodeDecodeError where it made none."""
    return name.decode("utf-8", "surrogatepass")


def joined(*parts: bytes) -> bytes:
    """One name of several. Different parts never join to the same name.

    >>> joined(b"a", b"b:c") == joined(b"a:b", b"c")
    False
    """
    return b"".join(b"%d:%b" % (len(part), part) for part in parts)


def owner_name(owner: Owner) -> bytes:
    """The name of an owner.

    >>> owner_name((CacheScope.USER, "ada")), owner_name((CacheScope.SESSION, None))
    (b'u:ada', b's')
    """
    scope, user = owner
    return LETTERS[scope] if user is None else LETTERS[scope] + b":" + encoded(user)


def owner_of_name(name: bytes) -> Owner:
    """The owner that `owner_name` made `name` of. ValueError where it made none."""
    letter, colon, user = name[:1], name[1:2], name[2:]
    if letter not in SCOPES or colon not in {b"", b":"}:
        msg = "not the name of an owner"
        raise ValueError(msg)
    return SCOPES[letter], decoded(user) if colon else None


def short(name: bytes) -> bytes:
    """A name of 16 bytes for one of any length (BLAKE2b, RFC 7693): two that differ have different ones."""
    return blake2b(name, digest_size=16).digest()
