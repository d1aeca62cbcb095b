"""What went wrong under attack, named for what it was: keepers, storages, OAuth, and caches that follow a keeper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from returns.result import Failure, Success

from cachemesh.auth import NotSignedIn, Token, TokenStorageFailed
from tests.auth.keepers import HOUR, NEW, Faulty, action, done, keeping, raising, signed_in, token

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
