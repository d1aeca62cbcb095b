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

_refreshing: Final[ContextVar[tuple[object, ...]]] = ContextVar("cachemesh_refreshing", default=())


@contextmanager
def refreshing(keeper: object) -> Iterator[None]:
    """While the refresher of `keeper` is at work: what it asks for must not wait for the refresh that it is part of."""
    token = _refreshing.set((*_refreshing.get(), keeper))
    try:
        yield
    finally:
        _refreshing.reset(token)


def is_refreshing(keeper: object) -> bool:
    """Whether the caller is the refresher of `keeper`, or was begun by it."""
    return any(each is keeper for each in _refreshing.get())
