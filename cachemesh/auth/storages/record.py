"""What a storage writes: a token and its version as JSON, enciphered where it is told to."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
from returns.pipeline import is_successful

from cachemesh.auth.ports import Kept
from cachemesh.auth.storages.errors import UnreadableTokenError
from cachemesh.auth.token import Token

if TYPE_CHECKING:
    from typing import NoReturn

FORMAT: Final = 1

NOTHING: Final = Kept(None, 0)
"""Where nothing was ever written."""


class Cipher(Protocol):
    """Enciphers what a storage writes. `TokenCipher` is one."""

    def encrypt(self, content: bytes, context: bytes, /) -> bytes: ...

    def decrypt(self, content: bytes, context: bytes, /) -> bytes: ...


def next_version(current: int) -> int:
    """A version that no storage at this place ever had, also where it was removed meanwhile: it is a time."""
    return max(current + 1, int(time.time() * 1e6))


def written(kept: Kept, cipher: Cipher | None, context: bytes) -> bytes:
    """`kept` as bytes. `context`: where they belong; nowhere else are they deciphered."""
    token = "null" if kept.token is None else kept.token.to_json()
    content = f'{{"format":{FORMAT},"version":{kept.version},"token":{token}}}'.encode()
    return content if cipher is None else cipher.encrypt(content, context)


def read_back(content: bytes, cipher: Cipher | None, context: bytes) -> Kept:
    """What `written` was given. UnreadableTokenError where it was not."""
    if cipher is not None:
        content = _deciphered(content, cipher, context)
    try:
        fields = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        _unreadable("no JSON")
    if not isinstance(fields, dict) or "format" not in fields:
        _unreadable("not ours")
    if fields["format"] != FORMAT:
        _unreadable("of another version of cachemesh")
    version, token = fields.get("version"), fields.get("token", ...)
    if isinstance(version, bool) or not isinstance(version, int) or version <= 0:
        _unreadable("without a version")
    if token is None:
        return Kept(None, version)
    if not isinstance(token, dict):
        _unreadable("without a token")
    read = Token.from_response(token)
    if not is_successful(read):
        _unreadable(read.failure().reason)
    return Kept(read.unwrap(), version)


def _deciphered(content: bytes, cipher: Cipher, context: bytes) -> bytes:
    try:
        return cipher.decrypt(content, context)
    except Exception as error:  # noqa: BLE001 (it may be anybody's, and its text may quote what it likes)
        told = UnreadableTokenError(f"what is stored cannot be deciphered: {type(error).__name__}")
    raise told


def _unreadable(why: str) -> NoReturn:
    msg = f"what is stored is no token: {why}"
    raise UnreadableTokenError(msg) from None
