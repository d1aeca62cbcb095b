"""One call to a store that changes what it has, and what is told of calls that failed."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, InvalidStateError
from math import isfinite
from typing import TYPE_CHECKING, Final, TypeAlias

from cachemesh.shell.logging import PrivateKey
from cachemesh.shell.ports import Change, StoredEntry

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop as Loop
    from collections.abc import Callable

    from cachemesh.core.scopes import Owner

Place: TypeAlias = "tuple[Owner | None, str | None]"
"""What a call is about: no key is all of the owner, no owner is everything."""

CLEARING: Final = frozenset({"clear", "clear_partition"})

LAST_INSTANT: Final = 253_402_300_800.0
"""The end of the year 9999. An entry that claims to be from beyond is damaged."""


class StoreCall:
    """One call to the store: `change` names the method. It is over when `done` is.

    `prefix`: of the keys that are to go, where a "delete" is about no single one.
    `home` answers the event loop in which somebody waits for it; `loop` is the
    one that makes it. `is_kept`: the store has said that it took the entry of a "commit".
    """

    __slots__ = (
        "after",
        "change",
        "done",
        "home",
        "is_given_up",
        "is_kept",
        "key",
        "loop",
        "number",
        "owner",
        "prefix",
    )

    def __init__(self, change: Change, prefix: str | None = None) -> None:
        self.change = change
        self.owner = change.owner
        self.key = change.key
        self.prefix = prefix
        self.number = 0
        self.after: tuple[StoreCall, ...] = ()
        self.home: Callable[[], Loop | None] = nowhere
        self.loop: Loop | None = None
        self.is_given_up = False
        self.is_kept = False
        self.done: Future[None] = Future()
        # From now on it cannot be cancelled: a waiter who leaves, leaves alone.
        self.done.set_running_or_notify_cancel()

    @property
    def operation(self) -> str:
        return self.change.operation

    @property
    def place(self) -> Place:
        return self.owner, self.key

    @property
    def is_over(self) -> bool:
        return self.done.done()

    @property
    def clears_all(self) -> bool:
        """Whether everything under several keys is to go."""
        return self.operation in CLEARING

    def settle(self) -> None:
        """It is over, unless somebody else has just said so."""
        with contextlib.suppress(InvalidStateError):
            self.done.set_result(None)


def removal(owner: Owner | None, key: str | None) -> Change:
    """The change that removes what is under a place."""
    if key is not None:
        return Change("delete", owner, key)
    return Change("clear") if owner is None else Change("clear_partition", owner)


def nowhere() -> None:
    """The home of a call that nobody waits for."""


def damage_of(found: object, owner: Owner, key: str) -> str | None:
    """What is wrong with what the store returned for a read; None where it is an entry of this owner and key."""
    try:
        if not isinstance(found, StoredEntry):
            return f"no StoredEntry but {type(found).__name__}"
        if found.owner != owner or found.key != key:
            return "an entry of another key"
        if not (abs(found.created_at) < LAST_INSTANT and is_instant(found.expires_at) and is_instant(found.ageing_at)):
            return "an impossible instant"
        if type(found.is_failure) is not bool:
            return "a damaged field: is_failure"
        for window in (found.ttl_s, found.serve_stale_s, found.stale_if_error_s):
            if window is not None and not (isfinite(window) and window >= 0):
                return "an impossible ttl"
        if type(found.tags) is not tuple or (found.tags and not all(type(tag) is str for tag in found.tags)):
            return "a damaged field: tags"
        if found.validator is not None:
            hash(found.validator)
    except Exception as error:  # noqa: BLE001 (whatever a damaged field does when it is looked at)
        return f"a damaged field: {type(error).__name__}"
    return None


def is_instant(instant: float | None) -> bool:
    return instant is None or abs(instant) < LAST_INSTANT


def shown_place(owner: Owner | None, key: str | None) -> str:
    """The key that a call is about, as a logger gets it."""
    if key is None or owner is None or owner[1] is None:
        return key or ""
    return PrivateKey(key)


def as_exception(error: BaseException) -> Exception:
    """`error`, or an exception that names it: a `CacheError` holds no exit and no cancellation."""
    return error if isinstance(error, Exception) else RuntimeError(f"the store raised {type(error).__name__}")
