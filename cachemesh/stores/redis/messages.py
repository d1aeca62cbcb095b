"""What processes tell each other: which place has changed, never what it holds."""

from __future__ import annotations

from math import isfinite
from typing import Final

import msgspec
from msgspec import Struct

from cachemesh.shell.ports import News, NewsKind
from cachemesh.stores.names import decoded, encoded, owner_name, owner_of_name

FORMAT: Final = 1
"""Messages of another format are not for us: an older or younger release sent them."""

NODE_SIZE: Final = 8


class Message(Struct, frozen=True, array_like=True, gc=False):
    """One change, as it travels. `node`: the store that made it, which needs not hear of it."""

    format: int
    node: bytes
    kind: str
    owner: bytes | None = None
    key: bytes | None = None
    tag: bytes = b""
    stale_at: float | None = None


_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(Message).decode


def packed(news: News, node: bytes) -> bytes:
    """The message that tells `news`."""
    return _pack(
        Message(
            FORMAT,
            node,
            news.kind.value,
            None if news.owner is None else owner_name(news.owner),
            None if news.key is None else encoded(news.key),
            encoded(news.tag),
            news.stale_at,
        )
    )


def unpacked(message: bytes) -> tuple[bytes, News] | None:
    """Who sent it, and what it tells. None: it is of another format. ValueError: it is no message."""
    try:
        found = _unpack(message)
    except msgspec.ValidationError:
        if _is_of_another_format(message):
            return None
        raise
    if found.format != FORMAT:
        return None
    kind = NewsKind(found.kind)
    news = News(
        kind,
        None if found.owner is None else owner_of_name(found.owner),
        None if found.key is None else decoded(found.key),
        decoded(found.tag),
        found.stale_at,
    )
    if kind is NewsKind.CHANGED and (news.owner is None or news.key is None):
        msg = "it changes nothing that is named"
        raise ValueError(msg)
    if news.stale_at is not None and not isfinite(news.stale_at):
        msg = "an impossible instant"
        raise ValueError(msg)
    return found.node, news


def _is_of_another_format(message: bytes) -> bool:
    fields = msgspec.msgpack.decode(message)
    return isinstance(fields, list) and bool(fields) and type(fields[0]) is int and fields[0] != FORMAT
