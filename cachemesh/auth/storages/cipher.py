"""`TokenCipher`: tokens at rest, enciphered with a key that the application keeps. It needs the extra `encryption`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from cachemesh.stores.encryption import KEY_SIZE, ROOT_ID_SIZE, UndecipherableError, Xaes, root_id

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT: Final = b"\x01"
"""The first byte. There is one algorithm, XAES-256-GCM, and no way to ask for another."""

HEAD_SIZE: Final = len(FORMAT) + ROOT_ID_SIZE


class TokenCipher:
    """Enciphers what a storage of tokens writes, bound to its place: a row is worth nothing under another name.

    `keys`: 32 random bytes that the application keeps (in its secrets, not
    beside the tokens), or several: the first one enciphers, the others still
    decipher what they enciphered. Whoever has the key and an old copy of the
    file has the old token: end it at its issuer. ValueError where a key is none.

    >>> cipher = TokenCipher(b"k" * 32)
    >>> cipher.decrypt(cipher.encrypt(b"secret", b"here"), b"here")
    b'secret'
    >>> cipher.decrypt(cipher.encrypt(b"secret", b"here"), b"there")
    Traceback (most recent call last):
    ...
    cachemesh.stores.encryption.UndecipherableError: not encrypted with this key and context
    """

    def __init__(self, keys: bytes | Sequence[bytes]) -> None:
        all_keys = [keys] if isinstance(keys, bytes) else list(keys)
        if not all_keys or any(type(key) is not bytes or len(key) != KEY_SIZE for key in all_keys):
            msg = f"a key is {KEY_SIZE} bytes, and there is at least one"
            raise ValueError(msg)
        self._ciphers: Final = {root_id(key): Xaes(key) for key in all_keys}
        self._newest: Final = root_id(all_keys[0])

    def __repr__(self) -> str:
        return f"TokenCipher(<{len(self._ciphers)} keys>)"

    def __reduce__(self) -> NoReturn:
        msg = "a cipher is not pickled: it has keys"
        raise TypeError(msg)

    def encrypt(self, content: bytes, context: bytes, /) -> bytes:
        """`content`, unreadable without the key and `context`."""
        head = FORMAT + self._newest
        return head + self._ciphers[self._newest].encrypt(content, head + context)

    def decrypt(self, content: bytes, context: bytes, /) -> bytes:
        """What `encrypt` was given. UndecipherableError where it was not."""
        head = content[:HEAD_SIZE]
        cipher = self._ciphers.get(head[len(FORMAT) :])
        if head[: len(FORMAT)] != FORMAT or cipher is None:
            msg = "of an unknown format, or its key is not here"
            raise UndecipherableError(msg)
        return cipher.decrypt(content[HEAD_SIZE:], head + context)
