"""A cache follows the identity of its token keeper."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Failure, Result, Success

from cachemesh import CacheMiss, CacheScope, NoActiveUser
from cachemesh.auth import MemoryTokenStorage, NotSignedIn, TokenStorageFailed
from tests.auth.keepers import NEW, OLD, Faulty, done, keeping, raising, signed_in, token
from tests.shell.faces import AsyncFace

if TYPE_CHECKING:
    from tests.shell.faces import Face

ADA, BOB, NOBODYS = token("ada's"), token("bob's", "bob"), token("nobody's", None)
MISS = Failure(CacheMiss("me"))


class Odd:
    """A keeper of somebody's own that breaks where it is asked."""

    def on_identity(self, callback: Any) -> Any:
        del callback
        return lambda: None

    def peek(self) -> Any:
        message = "no"
        raise LookupError(message)

    def with_valid_token(self, action: Any) -> Any:
        return action("odd")


def owner_of(access_token: str) -> Result[str, str]:
    return Success(f"read with {access_token}")


def following(face: Face, keeper: Face, **options: Any) -> Face:
    """A cache with that keeper, in the world of `face`."""
    return face.new(token_keeper=keeper.cache, **options)


def test_who_signs_in_is_the_active_user(face: Face) -> None:
    keeper = keeping(face, face.fetcher(Success(NEW)))
    cache = following(face, keeper)
    keeper.call("set_tokens", ADA)
    assert cache.active_user_id == "ada"
    assert cache.get_authenticated("me", cache.fetcher(owner_of)) == Success("read with ada's")
    assert cache.peek("me", scope=CacheScope.USER) == Success("read with ada's")
    done(keeper)


def test_signing_out_ends_the_session(face: Face) -> None:
    keeper = keeping(face, face.fetcher(Success(NEW)))
    cache = following(face, keeper)
    keeper.call("set_tokens", ADA)
    cache.get_authenticated("me", cache.fetcher(owner_of))
    cache.fill("cart", 3, scope=CacheScope.SESSION)
    cache.fill("news", "old")
    keeper.call("sign_out")
    assert cache.active_user_id is None
    assert cache.peek("me") == MISS
    assert cache.peek("cart") == Failure(CacheMiss("cart"))
    assert cache.peek("news") == Success("old")
    done(keeper)


def test_the_next_user_sees_nothing_of_the_one_before(face: Face) -> None:
    keeper = keeping(face, face.fetcher(Success(NEW)))
    cache = following(face, keeper)
    keeper.call("set_tokens", ADA)
    cache.get_authenticated("me", cache.fetcher(owner_of))
    keeper.call("set_tokens", BOB)
    assert cache.peek("me") == MISS
    assert cache.get_authenticated("me", cache.fetcher(owner_of)) == Success("read with bob's")
    done(keeper)


def test_a_refresh_for_the_same_user_keeps_what_is_cached(face: Face) -> None:
    keeper = signed_in(face, face.fetcher(Success(NEW)), OLD)
    cache = following(face, keeper)
    assert cache.get_authenticated("me", cache.fetcher(owner_of)) == Success("read with a2")
    keeper.call("force_refresh")
    assert cache.peek("me") == Success("read with a2")
    done(keeper)


def test_who_was_signed_in_in_an_earlier_run_is_the_active_user(face: Face) -> None:
    """A keeper reads its storage when it is first asked; the cache asks it before it needs to know the user."""
    storage = MemoryTokenStorage(ADA)
    keeper = keeping(face, face.fetcher(Success(NEW)), storage=storage)
    cache = following(face, keeper)
    assert cache.active_user_id is None
    assert cache.get_authenticated("me", cache.fetcher(owner_of)) == Success("read with ada's")
    assert cache.active_user_id == "ada"
    done(keeper)


def test_a_cache_that_is_entered_knows_who_was_signed_in_before(face: Face) -> None:
    storage = MemoryTokenStorage(ADA)
    keeper = keeping(face, face.fetcher(Success(NEW)), storage=storage)
    cache = following(face, keeper)
    cache.call("__aenter__" if isinstance(cache, AsyncFace) else "__enter__")
    assert cache.active_user_id == "ada"
    done(keeper)


def test_a_keeper_that_was_there_first_is_followed_from_its_present_token(face: Face) -> None:
    keeper = signed_in(face, face.fetcher(Success(NEW)), ADA)
    cache = following(face, keeper)
    assert cache.get_authenticated("me", cache.fetcher(owner_of)) == Success("read with ada's")
    assert cache.active_user_id == "ada"
    done(keeper)


def test_who_signs_in_while_a_cache_begins_to_follow_is_not_overlooked(face: Face) -> None:
    """Another thread announces bob just before the cache takes ada for the present user."""

    class Racing(Odd):
        def on_identity(self, callback: Any) -> Any:
            self.callback = callback
            return lambda: None

        @property
        def subject(self) -> str:
            self.callback("bob")
            return "ada"

    assert face.new(token_keeper=Racing()).active_user_id == "bob"


def test_nobody_is_signed_in(face: Face) -> None:
    keeper = keeping(face, face.fetcher(Success(NEW)))
    cache = following(face, keeper)
    fetch = cache.fetcher(owner_of)
    assert cache.get_authenticated("me", fetch) == Failure(NotSignedIn())
    assert cache.get_authenticated("me", fetch, scope=CacheScope.GLOBAL) == Failure(NotSignedIn())
    assert fetch.calls == 0
    keeper.call("set_tokens", ADA)
    assert cache.get_authenticated("me", fetch) == Success("read with ada's")
    done(keeper)


def test_a_storage_that_fails_is_told_and_asked_again(face: Face) -> None:
    error = OSError("no disk")
    storage = Faulty(ADA)
    storage.faults["read"] = raising(error)
    keeper = keeping(face, face.fetcher(Success(NEW)), storage=storage)
    cache = following(face, keeper)
    assert cache.get_authenticated("me", cache.fetcher(owner_of)) == Failure(TokenStorageFailed("read", error))
    storage.faults.clear()
    assert cache.get_authenticated("me", cache.fetcher(owner_of)) == Success("read with ada's")
    done(keeper)


@pytest.mark.parametrize("before", [True, False], ids=["active before the token", "active after it"])
def test_a_token_that_names_nobody_leaves_the_active_user_alone(face: Face, before: bool) -> None:
    keeper = keeping(face, face.fetcher(Success(NEW)))
    cache = following(face, keeper)
    if before:
        cache.set_active_user("ada")
    keeper.call("set_tokens", NOBODYS)
    cache.set_active_user("ada")
    assert cache.get_authenticated("me", cache.fetcher(owner_of)) == Success("read with nobody's")
    assert cache.active_user_id == "ada"
    keeper.call("sign_out")
    assert cache.active_user_id is None
    assert cache.peek("me") == MISS
    done(keeper)


def test_another_sign_in_that_names_nobody_ends_the_session(face: Face) -> None:
    """It may be anybody's."""
    keeper = keeping(face, face.fetcher(Success(NEW)))
    cache = following(face, keeper)
    keeper.call("set_tokens", NOBODYS)
    cache.set_active_user("ada")
    keeper.call("set_tokens", token("another's", None))
    assert cache.active_user_id is None
    done(keeper)


@pytest.mark.parametrize("order", ["bob signs in", "ada signs out"])
def test_what_is_in_flight_for_who_has_left_is_told_and_lands_nowhere(face: Face, order: str) -> None:
    keeper = keeping(face, face.fetcher(Success(NEW)))
    cache = following(face, keeper)
    keeper.call("set_tokens", ADA)
    fetch = cache.fetcher(owner_of, held=True)
    asked = cache.begin.get_authenticated("me", fetch)
    keeper.call(*(("set_tokens", BOB) if order == "bob signs in" else ("sign_out",)))
    fetch.release()
    assert asked.result() == Success("read with ada's")
    assert cache.peek("me") == MISS
    keeper.call("set_tokens", ADA)
    assert cache.peek("me") == MISS
    done(keeper)


def test_what_was_asked_for_who_has_left_is_never_fetched_with_the_token_of_the_next(face: Face) -> None:
    """Ada's question waits for a refresh; bob signs in meanwhile."""
    refresher = face.fetcher(Success(NEW), held=True)
    keeper = signed_in(face, refresher, OLD)
    cache = following(face, keeper)
    keeper.call("peek")
    fetch = cache.fetcher(owner_of)
    asked = cache.begin.get_authenticated("me", fetch)
    keeper.call("set_tokens", BOB)
    refresher.release()
    assert asked.result() == Failure(NoActiveUser("me"))
    assert fetch.calls == 0
    assert cache.get_authenticated("me", fetch) == Success("read with bob's")
    done(keeper)


def test_a_keeper_does_not_keep_a_cache_alive(face: Face) -> None:
    keeper = keeping(face, face.fetcher(Success(NEW)))
    cache = following(face, keeper)
    is_alive = weakref.ref(cache.cache)
    cache.close()
    del cache
    gc.collect()
    assert is_alive() is None
    assert keeper.call("set_tokens", ADA) == Success(ADA)
    done(keeper)


def test_a_view_is_its_users_whoever_the_keeper_knows(face: Face) -> None:
    """A server reads for its users with a token of its own."""
    keeper = keeping(face, face.fetcher(Success(NEW)))
    cache = following(face, keeper)
    keeper.call("set_tokens", token("the server's", "server"))
    view = cache.for_user("ada")
    assert view.get_authenticated("me", cache.fetcher(owner_of)) == Success("read with the server's")
    assert view.peek("me", scope=CacheScope.USER) == Success("read with the server's")
    assert cache.peek("me", scope=CacheScope.USER) == MISS
    done(keeper)


def test_a_keeper_of_ones_own_that_raises_where_it_is_asked_who_it_is_costs_no_answer(face: Face) -> None:
    cache = face.new(token_keeper=Odd())
    cache.set_active_user("ada")
    assert cache.get_authenticated("me", cache.fetcher(owner_of)) == Success("read with odd")
    assert [entry[0] for entry in cache.log.take()].count("error") == 1
