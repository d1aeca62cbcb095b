"""One command on its way to a server and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachemesh.stores.redis.scripts import Script
    from cachemesh.stores.redis.source import Address
    from cachemesh.stores.redis.wire import Wire

Reply: TypeAlias = object
"""What a server answers: bytes, int, None, a list of them, or a `ServerError`; an exception where it is not there."""

NO_SLOT: Final = -1
"""The command may go to any server."""


class Order:
    """A command. `settled` is called once, with what came of it; it must not raise.

    `asks`: a server that is to be asked though it does not own the slot yet.
    `skips`: replies that come before the one that counts.
    """

    __slots__ = ("args", "asks", "attempts", "deadline", "is_over", "script", "settled", "skips", "slot", "wire")

    def __init__(
        self,
        args: tuple[bytes, ...],
        slot: int,
        deadline: float,
        settled: Callable[[Reply], None],
        script: Script | None = None,
    ) -> None:
        self.args = args
        self.slot = slot
        self.deadline = deadline
        self.settled = settled
        self.script = script
        self.attempts = 0
        self.asks: Address | None = None
        self.is_over = False
        self.skips = 0
        self.wire: Wire | None = None

    def settle(self, reply: Reply) -> None:
        if not self.is_over:
            self.is_over = True
            self.settled(reply)

    def packed(self) -> bytes:
        """The command as it is written to the server (RESP)."""
        if self.asks is None:
            return packed(self.args)
        self.skips = 1
        return ASKING + packed(self.args)


def packed(args: tuple[bytes, ...]) -> bytes:
    r"""A command in RESP.

    >>> packed((b"GET", b"k"))
    b'*2\r\n$3\r\nGET\r\n$1\r\nk\r\n'
    """
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        parts += (b"$%d\r\n" % len(arg), arg, b"\r\n")
    return b"".join(parts)


ASKING: Final = packed((b"ASKING",))
