"""Looking through all that a server has of one namespace, a page at a time: other calls get their turn in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachemesh.stores.redis.errors import ServerRefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cachemesh.stores.redis.batch import Batcher

PAGE: Final = 1_000
"""Keys that a server looks at in one go."""


async def pages(batcher: Batcher, pattern: bytes) -> AsyncIterator[list[bytes]]:
    """The keys that match `pattern`, each once, on whatever server they are."""
    seen: set[bytes] = set()
    for address in await batcher.primaries():
        cursor = b"0"
        while True:
            reply = await batcher.ask_at(
                address, b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % PAGE, b"TYPE", b"string"
            )
            if not (isinstance(reply, list) and len(reply) == 2 and isinstance(reply[1], list)):  # noqa: PLR2004 (cursor, keys)
                msg = "an answer of another kind"
                raise ServerRefusedError(msg)
            cursor, names = reply
            # A key may come twice, and at two servers while its slot is moving.
            fresh = [name for name in dict.fromkeys(names) if name not in seen]
            seen.update(fresh)
            if fresh:
                yield fresh
            if cursor == b"0":
                break
