"""Requests that no token belongs to: those that say so, and those that a refresher makes."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

SKIPPED: Final = "cachemesh_skip_auth"
"""A request of httpx2 with this extension, and a true value, goes through `KeeperAuth` as it is.

For signing in: `client.post("/login", ..., extensions={"cachemesh_skip_auth": True})`.
"""


class _Call:
    """A call of the refresher of `keeper`."""

    __slots__ = ("is_over", "keeper")

    def __init__(self, keeper: object) -> None:
        self.keeper = keeper
        self.is_over = False


_calls: Final[ContextVar[tuple[_Call, ...]]] = ContextVar("cachemesh_refresher_calls", default=())
"""Those that the present code is part of, or was begun by."""


@contextmanager
def refreshing(keeper: object) -> Iterator[None]:
    """While the refresher of `keeper` is at work: what it asks for must not wait for the refresh that it is part of."""
    call = _Call(keeper)
    token = _calls.set((*_calls.get(), call))
    try:
        yield
    finally:
        call.is_over = True
        _calls.reset(token)


def is_refreshing(keeper: object) -> bool:
    """Whether the caller is the refresher of `keeper`, or was begun by it and it is still at work."""
    return any(call.keeper is keeper and not call.is_over for call in _calls.get())
