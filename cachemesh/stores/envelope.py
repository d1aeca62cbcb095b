"""The envelope in which a store keeps an entry: it says itself whose it is, and whether it is whole.

    "cm1" | checksum, 16 bytes | header | content

Header: namespace, owner, key, generation, and whether the content is
encrypted. Content: everything else. Both are msgpack arrays.
An envelope that is found under another key, owner or namespace than its own,
or that has one bit flipped, does not open.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import msgspec
from msgspec import Struct

from cachemesh.shell.ports import Encoded, StoredEntry
from cachemesh.stores.names import decoded, encoded, owner_name, owner_of_name

if TYPE_CHECKING:
    from collections.abc import Collection

    from cachemesh.core.scopes import Owner

MAGIC: Final = b"cm1"
DIGEST_SIZE: Final = 16
BODY_AT: Final = len(MAGIC) + DIGEST_SIZE


class DamagedEnvelopeError(ValueError):
    """No envelope of the entry that was asked for. The text says why, and quotes nothing."""


class LockedEnvelopeError(DamagedEnvelopeError):
    """It may be whole, but there is no key for it at hand: a miss that is to be left where it is."""


class KeyUnavailableError(Exception):
    """What a cipher raises that cannot get at a key now. It says nothing against the content."""


class Cipher(Protocol):
    """Encrypts what is in envelopes. `context` is bound to it: decrypting with another one fails."""

    def encrypt(self, content: bytes, owner: Owner, context: bytes) -> bytes:
        """`content`, unreadable without the owner's key."""

    def decrypt(self, content: bytes, owner: Owner, context: bytes) -> bytes:
        """What `encrypt` was given. Raises where that can't be had; `KeyUnavailableError` where it may be later."""

    def forget(self, owner: Owner | None) -> None:
        """Destroy the key of `owner` (None: all keys), so that nobody can ever read what is left of it."""


@runtime_checkable
class WaitingCipher(Cipher, Protocol):
    """A cipher that may have to wait for its keys. A store in an event loop first tries what is `at_hand`."""

    @property
    def at_hand(self) -> Cipher:
        """The same, but it waits for nothing: it raises `KeyUnavailableError` where it would have to."""

    def prepare(self, owners: Collection[Owner], /) -> None:
        """Have keys to encrypt with at hand, of all `owners` in one go. What cannot be had, `encrypt` will say."""


class Header(Struct, frozen=True, array_like=True, gc=False):
    """Whose envelope it is."""

    namespace: bytes
    owner: bytes
    key: bytes
    generation: int
    is_encrypted: bool


class Content(Struct, frozen=True, array_like=True, gc=False):
    """What is in it. Numbers and times as in `StoredEntry`."""

    payload: bytes
    schema: bytes
    version: int
    is_failure: bool
    created_at: float
    ttl_s: float | None
    expires_at: float | None
    serve_stale_s: float | None = None
    stale_if_error_s: float | None = None
    ageing_at: float | None = None
    tags: tuple[bytes, ...] = ()
    validator: str | int | float | bool | None = None


class Body(Struct, frozen=True, array_like=True, gc=False):
    """Both, each as bytes: the header is what an encrypted content is bound to."""

    header: bytes
    content: bytes


pack: Final = msgspec.msgpack.Encoder().encode
unpack_body: Final = msgspec.msgpack.Decoder(Body).decode
unpack_header: Final = msgspec.msgpack.Decoder(Header).decode
unpack_content: Final = msgspec.msgpack.Decoder(Content).decode


def sealed(entry: StoredEntry, namespace: str, cipher: Cipher | None = None) -> bytes:
    """The envelope of `entry`, whose value is `Encoded`. A validator that is no plain scalar is left out."""
    value: Encoded = entry.value
    if isinstance(cipher, NoKey):
        cipher = None
    header = pack(
        Header(encoded(namespace), owner_name(entry.owner), encoded(entry.key), entry.generation, cipher is not None)
    )
    content = pack(
        Content(
            value.payload,
            encoded(value.schema),
            value.version,
            entry.is_failure,
            entry.created_at,
            entry.ttl_s,
            entry.expires_at,
            entry.serve_stale_s,
            entry.stale_if_error_s,
            entry.ageing_at,
            tuple(map(encoded, entry.tags)) if entry.tags else (),
            entry.validator if survives(entry.validator) else None,
        )
    )
    if cipher is not None:
        content = cipher.encrypt(content, entry.owner, header)
    body = pack(Body(header, content))
    return MAGIC + checksum(body) + body


def opened(envelope: bytes, namespace: str, cipher: Cipher | None = None) -> StoredEntry:
    """The entry in an envelope. `DamagedEnvelopeError` where it is not whole, or of another namespace."""
    parts, header = _whole(envelope, namespace, cipher)
    try:
        owner, key = owner_of_name(header.owner), decoded(header.key)
    except ValueError:
        msg = "a header that cannot be read"
        raise DamagedEnvelopeError(msg) from None
    return _entry(owner, key, header.generation, _content(parts, owner, cipher if header.is_encrypted else None))


def opened_for(envelope: bytes, namespace: str, owner: Owner, key: str, cipher: Cipher | None = None) -> StoredEntry:
    """The entry in an envelope that was found under (owner, key). `DamagedEnvelopeError` where it is another one's."""
    parts, header = _whole(envelope, namespace, cipher)
    if header.key != encoded(key) or header.owner != owner_name(owner):
        msg = "of another key or owner"
        raise DamagedEnvelopeError(msg)
    return _entry(owner, key, header.generation, _content(parts, owner, cipher if header.is_encrypted else None))


def _whole(envelope: bytes, namespace: str, cipher: Cipher | None) -> tuple[Body, Header]:
    """The parts of an envelope that is whole, of `namespace`, and for `cipher` to read."""
    if not envelope.startswith(MAGIC):
        msg = "no envelope of a known format"
        raise DamagedEnvelopeError(msg)
    body = envelope[BODY_AT:]
    if envelope[len(MAGIC) : BODY_AT] != checksum(body):
        msg = "the checksum is another one"
        raise DamagedEnvelopeError(msg)
    try:
        parts = unpack_body(body)
        header = unpack_header(parts.header)
    except ValueError:
        msg = "a header that cannot be read"
        raise DamagedEnvelopeError(msg) from None
    if header.namespace != encoded(namespace):
        msg = "of another namespace"
        raise DamagedEnvelopeError(msg)
    if isinstance(cipher, NoKey):
        return parts, header
    if header.is_encrypted is not (cipher is not None):
        if header.is_encrypted:
            msg = "it is encrypted, and there is no cipher"
            raise LockedEnvelopeError(msg)
        msg = "it is not encrypted"
        raise DamagedEnvelopeError(msg)
    return parts, header


def _content(parts: Body, owner: Owner, cipher: Cipher | None) -> Content:
    content = parts.content
    if cipher is not None:
        try:
            content = cipher.decrypt(content, owner, parts.header)
        except KeyUnavailableError:
            msg = "there is no key at hand for it"
            raise LockedEnvelopeError(msg) from None
        except Exception:  # noqa: BLE001 (a wrong key, a tag that does not match: whatever the cipher calls it)
            msg = "it cannot be decrypted"
            raise DamagedEnvelopeError(msg) from None
    try:
        return unpack_content(content)
    except ValueError:
        msg = "a content that cannot be read"
        raise DamagedEnvelopeError(msg) from None


def _entry(owner: Owner, key: str, generation: int, content: Content) -> StoredEntry:
    return StoredEntry(
        owner,
        key,
        Encoded(content.payload, decoded(content.schema) if content.schema else "", content.version),
        content.is_failure,
        content.created_at,
        content.ttl_s,
        content.expires_at,
        content.serve_stale_s,
        content.stale_if_error_s,
        content.ageing_at,
        tuple(map(decoded, content.tags)) if content.tags else (),
        content.validator,
        generation,
    )


def checksum(body: bytes) -> bytes:
    """Against accidents (BLAKE2b, RFC 7693); against an attacker there is the cipher."""
    digest = BLANK.copy()
    digest.update(body)
    return digest.digest()


BLANK: Final = blake2b(digest_size=DIGEST_SIZE, person=b"cachemesh")
"""A copy costs less than to have its parameters looked at again."""


def survives(validator: object) -> bool:
    """Whether a validator can be kept: ETags, dates and numbers can."""
    if type(validator) is str:
        return validator.isascii() or not any(SURROGATES[0] <= each <= SURROGATES[1] for each in validator)
    if type(validator) is int:
        return -(2**63) <= validator < 2**63
    return validator is None or type(validator) in {float, bool}


SURROGATES: Final = ("\ud800", "\udfff")


LOCKED: Final = -(2**63)
"""In the place of a version: what a `NoKey` could not read."""


class NoKey:
    """In the place of a cipher, for who looks from outside: of what is encrypted, it tells whose it is and no more.

    What is not encrypted is read and written as without a cipher.
    """

    def encrypt(self, content: bytes, owner: Owner, context: bytes) -> bytes:
        """`content`: without a key, nothing is encrypted."""
        del owner, context
        return content

    def decrypt(self, content: bytes, owner: Owner, context: bytes) -> bytes:
        """The content of an entry that is `is_locked`."""
        del owner, context
        return pack(Content(content, b"", LOCKED, is_failure=False, created_at=0.0, ttl_s=None, expires_at=None))

    def forget(self, owner: Owner | None) -> None:
        """There is no key to destroy."""


def is_locked(entry: StoredEntry) -> bool:
    """Whether all that is known of `entry` is its owner, key and generation, as a `NoKey` has read it."""
    return isinstance(entry.value, Encoded) and entry.value.version == LOCKED
