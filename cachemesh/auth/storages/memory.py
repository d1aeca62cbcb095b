"""A token in memory: for tests, and for programs that sign in anew each time."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from cachemesh.auth.ports import Kept

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachemesh.auth.token import Token


class MemoryTokenStorage:
    """Keeps a token for as long as the process lives. Keepers that share one share the token.

    >>> from cachemesh.auth.token import Token
    >>> storage = MemoryTokenStorage()
    >>> storage.swap(storage.read().version, Token(access_token="s3cret"))
    1
    >>> storage.swap(0, None) is None
    True
    """

    is_near: Final = True

    def __init__(self, token: Token | None = None) -> None:
        self._lock = threading.Lock()
        self._kept = Kept(token, 0)
        self._holder = object()
        self._held_until = 0.0

    def read(self) -> Kept:
        """What is kept now."""
        return self._kept

    def swap(self, expected: int, token: Token | None, /) -> int | None:
        """Keep `token` if the version is still `expected`: the new version, or None."""
        with self._lock:
            if self._kept.version != expected:
                return None
            self._kept = Kept(token, expected + 1)
            return expected + 1

    def try_lock(self, holds_s: float, /) -> Callable[[], None] | None:
        """The right to refresh; None: somebody has it."""
        with self._lock:
            now = time.monotonic()
            if now < self._held_until:
                return None
            self._holder = holder = object()
            self._held_until = now + holds_s
        return partial(self._give_back, holder)

    def _give_back(self, holder: object) -> None:
        with self._lock:
            if self._holder is holder:
                self._held_until = 0.0

    def __repr__(self) -> str:
        return f"MemoryTokenStorage({self._kept!r})"
