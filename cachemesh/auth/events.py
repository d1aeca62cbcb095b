"""What happens to a token, for those who listen. A token's repr shows no secret, so events may be logged."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from msgspec import Struct

from cachemesh.auth.errors import TokenError
from cachemesh.auth.token import Token
from cachemesh.core.tokens import Happened

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_EVENTS: Final = 256
"""So many wait for a slow listener; then the oldest go."""


class SignedIn(Struct, frozen=True):
    """`set_tokens` has stored `token`."""

    token: Token


class Refreshed(Struct, frozen=True):
    """A refresh has brought `token`, and it is stored."""

    token: Token


class FoundInStorage(Struct, frozen=True):
    """`token` was in the storage: from an earlier run, or another process has put it there. None: it has signed out."""

    token: Token | None


class SignedOut(Struct, frozen=True):
    """There is no token any more. `error`: why, where the token was refused for good."""

    error: TokenError | None = None


class NotRefreshed(Struct, frozen=True):
    """A refresh has failed with `error`. The token is what it was."""

    error: TokenError


TokenEvent: TypeAlias = SignedIn | Refreshed | FoundInStorage | SignedOut | NotRefreshed


def event_of(happened: Happened, token: Token | None, error: TokenError) -> TokenEvent:
    """The event of what the reducer tells. `error` counts where something has failed."""
    if happened is Happened.REFRESH_FAILED:
        return NotRefreshed(error)
    if happened is Happened.EXPELLED:
        return SignedOut(error)
    if happened is Happened.FOUND:
        return FoundInStorage(token)
    if token is None:
        return SignedOut()
    return SignedIn(token) if happened is Happened.SIGNED_IN else Refreshed(token)


class Mailbox:
    """What has not been taken yet. Above `room` the oldest go: the newest wins."""

    __slots__ = ("__weakref__", "_items", "is_ended", "ring", "wants_tokens")

    def __init__(self, room: int, *, wants_tokens: bool) -> None:
        self._items: deque[Any] = deque(maxlen=room)
        self.wants_tokens = wants_tokens
        self.is_ended = False
        self.ring: Callable[[], None] = _nobody_waits

    def put(self, item: object) -> None:
        """Keep `item` for who takes next."""
        self._items.append(item)

    def take(self) -> tuple[Any, ...]:
        """The oldest one, in a tuple; nothing in it where there is none."""
        try:
            return (self._items.popleft(),)
        except IndexError:
            return ()


def _nobody_waits() -> None:
    pass
