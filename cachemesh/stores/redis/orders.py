"""One command on its way to a server and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachemesh.stores.redis.scripts import Script
    from cachemesh.stores.redis.source import Address

Reply: TypeAlias = object
"""What a server answers: bytes, int, None, a list of them; or an exception where it refuses, or is not to be had."""

NO_SLOT: Final = -1
"""The command may go to any server."""


class Order:
    """A command. `settle` is called once, with what came of it; it must not raise."""

    __slots__ = ("args", "asks", "attempts", "deadline", "is_over", "script", "settled", "slot")

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

    def settle(self, reply: Reply) -> None:
        if not self.is_over:
            self.is_over = True
            self.settled(reply)

    def packed(self) -> bytes:
        """The command as it is written to the server (RESP)."""
        asking = b"" if self.asks is None else ASKING
        return asking + packed(self.args)

    @property
    def replies(self) -> int:
        return 1 if self.asks is None else 2


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
