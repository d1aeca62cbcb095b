"""What went wrong under attack, named for what it was: keepers, storages, OAuth, and caches that follow a keeper."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError
from returns.result import Failure, Result, Success

from cachemesh.auth import (
    MemoryTokenStorage,
    NotSignedIn,
    Refreshed,
    SyncTokenKeeper,
    Token,
    TokenKeeper,
    TokenStorageFailed,
)
from tests.auth.keepers import HOUR, NEW, NOW, Faulty, action, done, keeping, raising, signed_in, token
from tests.scenarios.helpers import in_real_time

if TYPE_CHECKING:
    from tests.shell.faces import Face

ADA, BOB = token("ada's"), token("bob's", "bob")


class Mint:
    """A refresher whose tokens live for so long from when they are made."""

    def __init__(self, face: Face, lives: float) -> None:
        self.count = 0
        self._face, self._lives = face, lives

    def __call__(self, old: Token) -> Any:
        self.count += 1
        made = Token(
            access_token=f"m{self.count}",
            refresh_token="r",
            expires_at=self._face.clock() + self._lives,
            metadata=old.metadata,
        )
        return Success(made)


# Refresh storms


def test_tokens_that_live_for_less_than_the_leeway_are_not_refreshed_at_each_call(face: Face) -> None:
    mint = Mint(face, 2.0)
    keeper = signed_in(face, mint, leeway=5)

    for _ in range(10):
        assert keeper.call("with_valid_token", action(face, Success)) == Success("m1")
    assert mint.count == 1

    face.clock.advance(1.0)
    assert keeper.call("with_valid_token", action(face, Success)) == Success("m2")
    done(keeper)


def test_a_window_that_is_longer_than_a_life_is_no_storm_of_refreshes(face: Face) -> None:
    mint = Mint(face, HOUR)
    keeper = signed_in(face, mint, leeway=0, proactive_window=2 * HOUR)

    for _ in range(10):
        keeper.call("with_valid_token", action(face, Success))
        face.settle()
        face.clock.advance(60.0)
    assert mint.count == 1

    face.clock.advance(HOUR / 2)
    keeper.call("with_valid_token", action(face, Success))
    face.settle()
    assert mint.count == 2
    done(keeper)


# Signing out


def test_who_signs_out_while_the_storage_cannot_be_read_is_not_back_when_it_can(face: Face) -> None:
    storage = Faulty()
    assert storage.swap(0, token()) == 1
    storage.faults["read"] = raising(times=1)
    keeper = keeping(face, face.fetcher(Success(NEW)), storage=storage)

    assert keeper.call("sign_out") == Failure(TokenStorageFailed("read", OSError(28, "No space left on device")))
    for _ in range(2):
        assert keeper.call("get_valid_token") == Failure(NotSignedIn())

    assert keeper.call("set_tokens", BOB) == Success(BOB)
    assert keeper.call("get_valid_token") == Success(BOB)
    done(keeper)


def test_who_waited_for_a_refresh_does_not_use_it_once_a_sign_out_has_begun() -> None:
    """The sign-out answers to the very event that wakes those who wait."""
    log: list[str] = []

    async def main() -> None:
        refreshed = asyncio.Event()

        async def refresh(old: Token) -> Result[Token, str]:
            del old
            await refreshed.wait()
            return Success(NEW)

        async def act(text: str) -> Result[str, int]:
            log.append(text)
            return Success(text)

        keeper = TokenKeeper(refresh, clock=lambda: NOW)
        await keeper.set_tokens(token(lives=0.0))
        events = keeper.events()

        async def leave() -> None:
            async for event in events:
                if isinstance(event, Refreshed):
                    log.append("sign out")
                    await keeper.sign_out()
                    return

        leaving = asyncio.create_task(leave())
        asking = asyncio.create_task(keeper.with_valid_token(act))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        refreshed.set()
        assert await asking == Failure(NotSignedIn())
        await leaving
        await keeper.aclose()

    asyncio.run(main())
    assert log == ["sign out"]


# Storages


class Handleless:
    """Something that is no storage: it has no `try_lock`."""

    is_near = True

    def __init__(self) -> None:
        self._inner = MemoryTokenStorage(token(lives=0.0))
        self.read, self.swap = self._inner.read, self._inner.swap


class Unsure(MemoryTokenStorage):
    """A storage that does not know whether it is near."""

    @property
    def is_near(self) -> bool:  # type: ignore[override]  # that is the point
        raise LookupError


@pytest.mark.parametrize("keeper", [TokenKeeper, SyncTokenKeeper])
@pytest.mark.parametrize("storage", ["token.json", object(), Handleless(), MemoryTokenStorage])
def test_what_is_no_storage_is_told_at_once_and_not_asked_for_ever(keeper: Any, storage: Any) -> None:
    with pytest.raises(ValidationError, match="storage"):
        keeper(_never, storage=storage)


def test_no_storage_is_the_memory(face: Face) -> None:
    keeper = signed_in(face, face.fetcher(Success(NEW)), ADA, storage=None)
    assert keeper.call("get_valid_token") == Success(ADA)
    done(keeper)


def test_a_bug_in_a_storage_is_raised_and_not_run_into_for_ever(face: Face) -> None:
    keeper = keeping(face, face.fetcher(Success(NEW)), storage=Unsure())
    with pytest.raises(LookupError):
        keeper.call("get_valid_token")
    with pytest.raises(LookupError):
        keeper.call("set_tokens", ADA)
    done(keeper)


# Streams


def test_a_token_stream_whose_first_wait_was_cancelled_still_tells() -> None:
    storage, gate = Faulty(token()), threading.Event()
    storage.faults["read"] = lambda _: gate.wait(5.0)

    async def main() -> None:
        keeper = TokenKeeper(_never, storage=storage, clock=lambda: NOW)
        stream = keeper.token_stream()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.05)
        gate.set()
        assert await asyncio.wait_for(anext(stream), 5.0) == token()
        await keeper.aclose()

    in_real_time(main())


async def _never(old: Token) -> Result[Token, str]:
    """A refresher that nobody needs."""
    raise AssertionError(old)
