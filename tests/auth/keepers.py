"""Keepers on both faces, as the cases of this folder use them; tokens; storages that misbehave."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from returns.result import Failure, Result, Success

from cachemesh.auth import Kept, MemoryTokenStorage, SyncTokenKeeper, Token, TokenKeeper
from tests.shell.faces import AsyncFace, Face, SyncFace

if TYPE_CHECKING:
    from collections.abc import Callable

NOW: Final = 1_767_225_600.0
"""Where the clock of the tests begins."""

HOUR: Final = 3_600.0


def token(name: str = "a1", sub: str | None = "ada", *, lives: float = HOUR, refresh: bool = True) -> Token:
    """A token that expires so many seconds after the beginning."""
    return Token(
        access_token=name,
        refresh_token=f"r-{name}" if refresh else None,
        expires_at=NOW + lives,
        metadata={} if sub is None else {"sub": sub},
    )


OLD: Final = token(lives=0.0)
"""One that has expired."""
NEW: Final = token("a2")


def keeping(face: Face, refresher: Any, **options: Any) -> Face:
    """A keeper in the world of `face`, with the methods of a face: `call`, `begin`, `concurrently`, `settle`."""
    options = {"clock": face.clock, "leeway": 0, **options}
    if isinstance(face, AsyncFace):
        return AsyncFace(TokenKeeper(refresher, **options), face.clock, face.log, face.runner)
    return SyncFace(SyncTokenKeeper(refresher, **options), face.clock, face.log)


def signed_in(face: Face, refresher: Any, first: Token = OLD, **options: Any) -> Face:
    """The same, where somebody has signed in with `first`."""
    keeper = keeping(face, refresher, **options)
    assert keeper.call("set_tokens", first) == Success(first)
    return keeper


def done(keeper: Face) -> None:
    """Close it."""
    keeper.call("aclose" if isinstance(keeper, AsyncFace) else "close")


def action(face: Face, says: Callable[[str], Any]) -> Any:
    """An action that answers what `says` makes of the access token. It notes the tokens that it was run with."""
    used: list[str] = []

    def run(text: str) -> Any:
        used.append(text)
        return says(text)

    async def run_async(text: str) -> Any:
        return run(text)

    made: Any = run_async if isinstance(face, AsyncFace) else run
    made.used = used
    return made


def rejecting(*texts: str) -> Callable[[str], Result[str, int]]:
    """What an origin says that rejects these tokens."""
    return lambda text: Failure(401) if text in texts else Success(f"for {text}")


class Faulty(MemoryTokenStorage):
    """A storage that does as it is told: `faults[operation]` is called before the operation, with its number."""

    is_near = False  # type: ignore[misc]  # not final here

    def __init__(self, token: Token | None = None) -> None:
        super().__init__(token)
        self.faults: dict[str, Callable[[int], object]] = {}
        self.calls: dict[str, int] = {"read": 0, "swap": 0, "try_lock": 0}
        self.written: list[Token | None] = []

    def _enter(self, operation: str) -> None:
        self.calls[operation] += 1
        fault = self.faults.get(operation)
        if fault is not None:
            fault(self.calls[operation])

    def read(self) -> Kept:
        self._enter("read")
        return super().read()

    def swap(self, expected: int, token: Token | None, /) -> int | None:
        self._enter("swap")
        version = super().swap(expected, token)
        if version is not None:
            self.written.append(token)
        return version

    def try_lock(self, holds_s: float, /) -> Callable[[], None] | None:
        self._enter("try_lock")
        return super().try_lock(holds_s)


def raising(error: Exception | None = None, times: int = 1_000) -> Callable[[int], None]:
    """A fault: the first so many calls raise."""

    def fault(number: int) -> None:
        if number <= times:
            raise OSError(28, "No space left on device") if error is None else error

    return fault


class Gate:
    """A fault: a call stands still until the gate is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()

    def __call__(self, number: int) -> None:
        del number
        self.reached.set()
        assert self._open.wait(10.0), "nobody opened the gate"

    def open(self) -> None:
        self._open.set()
