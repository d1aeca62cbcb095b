"""Encryption at rest: `PartitionCipher`, for `SqliteStore(cipher=...)` and `RedisStore(cipher=...)`.

It needs the extra `encryption`. Each partition has a key of its own, which the
application's root key encrypts and a key ring keeps. Whatever clears a partition
destroys its key; then nobody can read what is left of it, in old pages,
backups or replicas (docs/decisions/0024).
"""

from __future__ import annotations

import os
import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

from msgspec import Struct

from cachemesh.stores.envelope import KeyUnavailableError
from cachemesh.stores.keyring import FileKeyRing, KeyRing, KeyRingError, MemoryKeyRing, WrappedKey
from cachemesh.stores.names import owner_name

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import ECB
except ImportError as error:  # pragma: no cover (the tests have it)
    message = "encryption at rest needs the extra `encryption`: pip install 'cachemesh[encryption]'"
    raise ImportError(message) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from cachemesh.core.scopes import Owner
    from cachemesh.stores import envelope
    from cachemesh.stores.keyring import Keys

__all__ = ["FileKeyRing", "KeyRing", "KeyRingError", "MemoryKeyRing", "PartitionCipher", "WrappedKey"]

T = TypeVar("T")

KEY_SIZE: Final = 32
NONCE_SIZE: Final = 24
TAG_SIZE: Final = 16
ID_SIZE: Final = 16
ROOT_ID_SIZE: Final = 8

FORMAT: Final = b"\x01"
"""The first byte of an encrypted content. There is one algorithm, XAES-256-GCM, and no way to ask for another."""

HEAD_SIZE: Final = len(FORMAT) + ID_SIZE

MOST_OWNERS: Final = 10_000
"""The keys of so many are kept in memory."""

RETRY_S: Final = 1.0
"""A ring that has failed is asked again after so long."""

REWRAPPED_AT_ONCE: Final = 500


class UndecipherableError(Exception):
    """Nothing that was encrypted with a key that is there, for this owner and this context."""


class PartitionCipher:
    """Encrypts with a key for each partition, which is destroyed when the partition is cleared.

    `root_keys`: 32 random bytes that the application keeps (in its secrets, not
    beside the data), or several: the first one encrypts, the others still open
    what they encrypted, until `rewrap` has made them superfluous. `keyring`
    keeps the keys of the partitions, encrypted with the root key; stores and
    namespaces that share a ring forget together. `recheck`: seconds for which
    a process relies on a key that another one may have destroyed. ValueError
    where a root key is none.

    >>> from cachemesh.core.scopes import CacheScope
    >>> cipher = PartitionCipher(os.urandom(32), keyring=MemoryKeyRing())
    >>> ada = (CacheScope.USER, "ada")
    >>> content = cipher.encrypt(b"secret", ada, b"context")
    >>> cipher.decrypt(content, ada, b"context")
    b'secret'
    >>> cipher.forget(ada)
    >>> cipher.decrypt(content, ada, b"context")
    Traceback (most recent call last):
    ...
    cachemesh.stores.encryption.UndecipherableError: its key is gone
    """

    def __init__(self, root_keys: bytes | Sequence[bytes], *, keyring: KeyRing, recheck: float = 5.0) -> None:
        keys = [root_keys] if isinstance(root_keys, bytes) else list(root_keys)
        if not keys or any(type(key) is not bytes or len(key) != KEY_SIZE for key in keys):
            msg = f"a root key is {KEY_SIZE} bytes, and there is at least one"
            raise ValueError(msg)
        self._roots: Final = {root_id(key): Xaes(key) for key in keys}
        self._newest_root: Final = root_id(keys[0])
        self._ring: Final = keyring
        self._recheck_s: Final = recheck
        self._cached: dict[Owner, PartitionKeys] = {}
        self._epoch = object()
        """Another one after each `forget`: what was looked up before is not kept after it."""
        self._retry_at = 0.0
        self.at_hand: Final[envelope.Cipher] = AtHand(self)

    def __repr__(self) -> str:
        return f"PartitionCipher(<{len(self._roots)} root keys>, keyring={self._ring!r})"

    def __reduce__(self) -> NoReturn:
        msg = "a cipher is not pickled: it has keys"
        raise TypeError(msg)

    def encrypt(self, content: bytes, owner: Owner, context: bytes) -> bytes:
        """`content`, unreadable without the owner's key. KeyUnavailableError where that cannot be had."""
        keys = self.cached(owner)
        if keys is None:
            keys = self._usable([owner])[owner]
        return encrypted(keys, content, context)

    def decrypt(self, content: bytes, owner: Owner, context: bytes) -> bytes:
        """What `encrypt` was given. UndecipherableError where it was not, or where the key is gone."""
        keys = self.cached(owner)
        if keys is None or content[len(FORMAT) : HEAD_SIZE] not in keys.opened:
            # Another process may have made a key since we looked.
            keys = self._look_up([owner]).get(owner, NO_KEYS)
        return decrypted(keys, content, context)

    def forget(self, owner: Owner | None) -> None:
        """Destroy the key of `owner`; None: all keys of the ring. KeyUnavailableError where it may not have worked."""
        try:
            asked(lambda: self._ring.forget(None if owner is None else digest(owner)))
        finally:
            self._epoch = object()
            if owner is None:
                self._cached = {}
            else:
                self._cached.pop(owner, None)

    def prepare(self, owners: Collection[Owner], /) -> None:
        """Have keys to encrypt with at hand, of all `owners` in one go. What cannot be had, `encrypt` will say."""
        missing = [owner for owner in owners if self.cached(owner) is None]
        if missing:
            try:
                self._usable(missing)
            except KeyUnavailableError:
                return  # As the docstring says.

    def rewrap(self) -> int:
        """Encrypt all keys of the ring with the first root key; how many are left that no root key here opens.

        Once it has answered 0, the other root keys may be given up, and then
        old copies of the ring are worthless too.
        """
        left = 0
        changed: list[tuple[bytes, WrappedKey]] = []
        for owner, key in self._ring.scan():
            opened = self._unwrapped(owner, key)
            if opened is None:
                left += 1
            elif key.root != self._newest_root:
                changed.append((owner, self._wrapped(owner, key.id, opened)))
            if len(changed) >= REWRAPPED_AT_ONCE:
                self._ring.replace(changed)
                changed = []
        if changed:
            self._ring.replace(changed)
        return left

    # Keys

    def cached(self, owner: Owner) -> PartitionKeys | None:
        """The keys of `owner`, if they were looked up lately."""
        keys = self._cached.get(owner)
        return keys if keys is not None and time.monotonic() < keys.until else None

    def _usable(self, owners: Sequence[Owner]) -> Mapping[Owner, PartitionKeys]:
        """Keys that encrypt, of all `owners`; made where there are none yet."""
        found = self._look_up(owners)
        missing = [owner for owner in owners if owner not in found or found[owner].newest is None]
        if not missing:
            return found
        fresh = {}
        for owner in missing:
            name = digest(owner)
            fresh[name] = self._wrapped(name, os.urandom(ID_SIZE), os.urandom(KEY_SIZE))
        # A key that none of our root keys opens stays where it is: whoever has the right one reads on with it.
        locked = [each for owner in missing if owner in found for each in found[owner].locked]
        epoch = self._epoch
        there = self._asked(lambda: self._ring.add(fresh, locked))
        made = self._kept(missing, there, epoch)
        if any(owner not in made or made[owner].newest is None for owner in missing):
            msg = "the key ring did not keep a key"
            raise KeyUnavailableError(msg)
        return {**found, **made}

    def _look_up(self, owners: Sequence[Owner]) -> Mapping[Owner, PartitionKeys]:
        epoch = self._epoch
        return self._kept(owners, self._asked(lambda: self._ring.find([digest(owner) for owner in owners])), epoch)

    def _kept(self, owners: Sequence[Owner], there: Keys, epoch: object) -> Mapping[Owner, PartitionKeys]:
        """The keys that are `there`, opened, and remembered unless somebody has forgotten since `epoch`."""
        found: dict[Owner, PartitionKeys] = {}
        until = time.monotonic() + self._recheck_s
        for owner in owners:
            name = digest(owner)
            opened: dict[bytes, Xaes] = {}
            locked: list[bytes] = []
            for key in there.get(name, ()):
                unwrapped = self._unwrapped(name, key)
                if unwrapped is None:
                    locked.append(key.id)
                else:
                    opened[key.id] = Xaes(unwrapped)
            if opened or locked:
                found[owner] = PartitionKeys(opened, next(reversed(opened), None), tuple(locked), until)
            if opened:
                self._remember(owner, found[owner], epoch)
        return found

    def _remember(self, owner: Owner, keys: PartitionKeys, epoch: object) -> None:
        cached = self._cached
        cached[owner] = keys
        if self._epoch is not epoch:
            cached.pop(owner, None)
        elif len(cached) > MOST_OWNERS:
            self._cached = {}

    def _wrapped(self, owner: bytes, key_id: bytes, key: bytes) -> WrappedKey:
        root = self._newest_root
        return WrappedKey(key_id, root, self._roots[root].encrypt(key, wrapping_context(owner, key_id, root)))

    def _unwrapped(self, owner: bytes, key: WrappedKey) -> bytes | None:
        """None where no root key here opens it."""
        root = self._roots.get(key.root)
        if root is None:
            return None
        try:
            opened = root.decrypt(key.wrapped, wrapping_context(owner, key.id, key.root))
        except UndecipherableError:
            return None
        return opened if len(opened) == KEY_SIZE else None

    def _asked(self, ask: Callable[[], Keys]) -> Keys:
        """The answer of the ring. One that has failed is left alone for a moment: each read would wait for it."""
        if time.monotonic() < self._retry_at:
            msg = "the key ring has failed a moment ago"
            raise KeyUnavailableError(msg)
        try:
            return asked(ask)
        except KeyUnavailableError:
            self._retry_at = time.monotonic() + RETRY_S
            raise


class AtHand:
    """A `PartitionCipher` that asks no ring: with the keys that were looked up lately, or not at all."""

    def __init__(self, cipher: PartitionCipher) -> None:
        self._cipher = cipher

    def encrypt(self, content: bytes, owner: Owner, context: bytes) -> bytes:
        """As `PartitionCipher.encrypt`."""
        return encrypted(self._keys(owner), content, context)

    def decrypt(self, content: bytes, owner: Owner, context: bytes) -> bytes:
        """As `PartitionCipher.decrypt`."""
        keys = self._keys(owner)
        if content[len(FORMAT) : HEAD_SIZE] not in keys.opened:
            raise KeyUnavailableError
        return decrypted(keys, content, context)

    def forget(self, owner: Owner | None) -> None:
        """As `PartitionCipher.forget`, which waits."""
        self._cipher.forget(owner)

    def _keys(self, owner: Owner) -> PartitionKeys:
        keys = self._cipher.cached(owner)
        if keys is None:
            raise KeyUnavailableError
        return keys


class PartitionKeys(Struct, frozen=True):
    """What the ring has for an owner: `opened` by id, the `newest` of those, and the ids of what we cannot open."""

    opened: dict[bytes, Xaes]
    newest: bytes | None
    locked: tuple[bytes, ...]
    until: float

    def __repr__(self) -> str:
        return f"PartitionKeys(<{len(self.opened)}>)"


NO_KEYS: Final = PartitionKeys({}, None, (), 0.0)


def encrypted(keys: PartitionKeys, content: bytes, context: bytes) -> bytes:
    """Format, id of the key, nonce, ciphertext, tag. What stands before the nonce is bound to it, as `context` is."""
    if keys.newest is None:
        raise KeyUnavailableError
    head = FORMAT + keys.newest
    return head + keys.opened[keys.newest].encrypt(content, head + context)


def decrypted(keys: PartitionKeys, content: bytes, context: bytes) -> bytes:
    head = content[:HEAD_SIZE]
    if head[: len(FORMAT)] != FORMAT or len(head) < HEAD_SIZE:
        msg = "of an unknown format"
        raise UndecipherableError(msg)
    key = keys.opened.get(head[len(FORMAT) :])
    if key is None:
        if keys.locked:
            msg = "there is a key that no root key here opens"
            raise KeyUnavailableError(msg)
        msg = "its key is gone"
        raise UndecipherableError(msg)
    return key.decrypt(content[HEAD_SIZE:], head + context)


class Xaes:
    """XAES-256-GCM (c2sp.org/XAES-256-GCM): AES-256-GCM with a key of its own for each nonce of 24 random bytes.

    NIST SP 800-38D, 8.3, allows 2**32 messages a key where nonces of 12 bytes are
    random; here that many are nothing to count (2**80).
    """

    __slots__ = ("_idle", "_key", "_mask")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._idle: list[CipherContext] = []
        """Of AES in ECB mode, which has no state between blocks. Taken out while it is used, so there is no lock."""
        aes = self._lend()
        doubled = int.from_bytes(aes.update(bytes(16)), "big") << 1
        # The subkey K1 of CMAC (NIST SP 800-38B, 6.1), with both counters and the label that the blocks begin with.
        k1 = (doubled ^ 0x87) & MASK_128 if doubled >> 128 else doubled
        self._mask = ((k1 ^ FIRST) << 128) | (k1 ^ SECOND)
        self._idle.append(aes)

    def __repr__(self) -> str:
        return "Xaes(<key>)"

    def encrypt(self, content: bytes, context: bytes) -> bytes:
        """Nonce, ciphertext, tag."""
        nonce = os.urandom(NONCE_SIZE)
        return nonce + self._of(nonce).encrypt(nonce[12:], content, context)

    def decrypt(self, content: bytes, context: bytes) -> bytes:
        """What was encrypted with `context`. The tag is compared by OpenSSL, in constant time."""
        if len(content) < NONCE_SIZE + TAG_SIZE:
            msg = "too short"
            raise UndecipherableError(msg)
        nonce = content[:NONCE_SIZE]
        try:
            return self._of(nonce).decrypt(nonce[12:], content[NONCE_SIZE:], context)
        except InvalidTag:
            msg = "not encrypted with this key and context"
            raise UndecipherableError(msg) from None

    def _of(self, nonce: bytes) -> AESGCM:
        """With the key of `nonce`: two blocks of CMAC in counter mode (NIST SP 800-108r1, 4.1)."""
        half = int.from_bytes(nonce[:12], "big")
        blocks = (((half << 128) | half) ^ self._mask).to_bytes(32, "big")
        aes = self._lend()
        key = aes.update(blocks)
        self._idle.append(aes)
        return AESGCM(key)

    def _lend(self) -> CipherContext:
        try:
            return self._idle.pop()
        except IndexError:
            return Cipher(AES(self._key), ECB()).encryptor()  # noqa: S305 (a block cipher, within CMAC)


MASK_128: Final = 2**128 - 1
FIRST: Final = int.from_bytes(b"\0\1X\0" + bytes(12), "big")
SECOND: Final = int.from_bytes(b"\0\2X\0" + bytes(12), "big")


def asked(ask: Callable[[], T]) -> T:
    """The answer of a ring. It may be anybody's, and raise anything."""
    try:
        return ask()
    except KeyUnavailableError:
        raise
    except Exception as error:  # noqa: BLE001 (the text of an unknown error may quote what it likes)
        msg = f"the key ring has raised {type(error).__name__}"
        raise KeyUnavailableError(msg) from None


def root_id(key: bytes) -> bytes:
    """What tells root keys apart. It tells nothing of the key."""
    return blake2b(digest_size=ROOT_ID_SIZE, key=key, person=b"cachemesh root").digest()


def digest(owner: Owner) -> bytes:
    """What a ring knows an owner by."""
    return blake2b(owner_name(owner), digest_size=32, person=b"cachemesh owner").digest()


def wrapping_context(owner: bytes, key_id: bytes, root: bytes) -> bytes:
    """What a wrapped key is bound to. Each part has one length only."""
    return b"cachemesh partition key" + FORMAT + root + owner + key_id
