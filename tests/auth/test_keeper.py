"""Token keepers, both faces on the same cases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError
from returns.io import IOResult
from returns.result import Failure, Success

from cachemesh import RetryOptions
from cachemesh.auth import (
    InvalidRefreshResult,
    InvalidToken,
    KeeperClosed,
    MemoryTokenStorage,
    NotSignedIn,
    RefreshFailed,
    SyncTokenKeeper,
    Token,
    TokenError,
    TokenKeeper,
    TokenNotRefreshable,
    TokenStorageFailed,
)
from cachemesh.sources import NetworkFailure
from tests.auth.keepers import (
    HOUR,
    NEW,
    NOW,
    OLD,
    Faulty,
    action,
    done,
    keeping,
    raising,
    rejecting,
    signed_in,
    token,
)

if TYPE_CHECKING:
    from tests.shell.faces import Face

UNAUTHORIZED = NetworkFailure.of_status(401)
DOWN = NetworkFailure.of_status(503)


# A token is asked for


def test_nobody_is_signed_in_at_first(face: Face) -> None:
    keeper = keeping(face, face.fetcher(Success(NEW)))

    for method in ("get_valid_token", "force_refresh", "peek"):
        assert keeper.call(method) == Failure(NotSignedIn())
    assert keeper.call("with_valid_token", action(face, Success)) == Failure(NotSignedIn())
    assert keeper.cache.subject is None


def test_a_valid_token_is_used_as_it_is(face: Face) -> None:
    refresh = face.fetcher(Success(NEW))
    keeper = signed_in(face, refresh, token())
    run = action(face, Success)

    assert keeper.call("get_valid_token") == keeper.call("peek") == Success(token())
    assert keeper.call("with_valid_token", run) == Success("a1")
    assert refresh.calls == 0


def test_an_expired_token_is_refreshed(face: Face) -> None:
    refresh = face.fetcher(Success(NEW))
    keeper = signed_in(face, refresh)

    assert keeper.call("peek") == Success(OLD)
    assert keeper.call("get_valid_token") == Success(NEW)
    assert keeper.call("with_valid_token", action(face, Success)) == Success("a2")
    assert refresh.arguments == [(OLD,)]


def test_a_token_expires_at_the_very_instant_less_its_leeway(face: Face) -> None:
    refresh = face.fetcher(Success(token("a2", lives=2 * HOUR)))
    keeper = signed_in(face, refresh, token(), leeway=10)
    face.clock.advance_to(NOW + HOUR - 10.001)
    assert keeper.call("get_valid_token").unwrap().access_token == "a1"
    face.clock.advance_to(NOW + HOUR - 10)
    assert keeper.call("get_valid_token").unwrap().access_token == "a2"


def test_a_second_refresh_works_later(face: Face) -> None:
    refresh = face.fetcher(Success(NEW), Success(token("a3", lives=2 * HOUR)))
    keeper = signed_in(face, refresh)
    keeper.call("get_valid_token")
    face.clock.advance(HOUR)

    assert keeper.call("get_valid_token").unwrap().access_token == "a3"


def test_within_the_window_a_token_is_used_and_refreshed_behind(face: Face) -> None:
    refresh = face.fetcher(Success(token("a2", lives=2 * HOUR)), held=True)
    keeper = signed_in(face, refresh, token(), proactive_window="10m")
    face.clock.advance(HOUR - 300)

    assert keeper.call("get_valid_token").unwrap().access_token == "a1"
    keeper.settle()
    assert keeper.cache.is_refreshing
    assert keeper.call("with_valid_token", action(face, Success)) == Success("a1")
    refresh.release()
    keeper.settle()
    assert keeper.call("get_valid_token").unwrap().access_token == "a2"
    assert refresh.calls == 1
    assert not keeper.cache.is_refreshing


def test_a_refresh_behind_that_failed_is_not_begun_again_at_once(face: Face) -> None:
    refresh = face.fetcher(Failure(DOWN))
    keeper = signed_in(face, refresh, token(), proactive_window="10m")
    face.clock.advance(HOUR - 300)
    for _ in range(5):
        assert keeper.call("get_valid_token").unwrap().access_token == "a1"
        keeper.settle()
    assert refresh.calls == 1
    face.clock.advance(31)
    keeper.call("get_valid_token")
    keeper.settle()

    assert refresh.calls == 2


def test_a_refresh_can_be_forced(face: Face) -> None:
    refresh = face.fetcher(Success(NEW))
    keeper = signed_in(face, refresh, token())

    assert keeper.call("force_refresh") == Success(NEW)
    assert refresh.calls == 1


def test_what_a_refresh_leaves_out_stays_as_it_was(face: Face) -> None:
    """RFC 6749, sections 5.1 and 6."""
    first = token(lives=0.0).model_copy(update={"scopes": ("read",)})
    keeper = signed_in(face, face.fetcher(Success(Token(access_token="a2"))), first)

    got = keeper.call("get_valid_token").unwrap()
    assert (got.refresh_token, got.scopes, got.subject) == ("r-a1", ("read",), "ada")


def test_a_token_that_cannot_be_refreshed_says_so(face: Face) -> None:
    refresh = face.fetcher(Success(NEW))
    keeper = signed_in(face, refresh, token(lives=0.0, refresh=False))

    assert keeper.call("get_valid_token") == Failure(TokenNotRefreshable())
    assert refresh.calls == 0


def test_a_refresher_may_need_no_refresh_token(face: Face) -> None:
    """Client credentials (RFC 6749, section 4.4) are all that it needs."""
    refresh: Any = face.fetcher(Success(NEW))
    refresh.needs_refresh_token = False
    keeper = signed_in(face, refresh, token(lives=0.0, refresh=False))

    assert keeper.call("get_valid_token") == Success(NEW)


def test_a_refresher_may_answer_an_io_result(face: Face) -> None:
    keeper = signed_in(face, face.fetcher(lambda _: IOResult.from_value(NEW)))

    assert keeper.call("get_valid_token") == Success(NEW)


# Failures


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (Failure(DOWN), RefreshFailed(DOWN)),
        (Failure("no"), RefreshFailed("no")),
        (ValueError("boom"), RefreshFailed(ValueError("boom"))),
        (lambda _: None, InvalidRefreshResult("NoneType")),
        (Success("a2"), InvalidRefreshResult("str")),
        (lambda _: NEW, InvalidRefreshResult("Token")),
    ],
)
def test_a_refresh_that_fails_leaves_the_token(face: Face, outcome: Any, error: TokenError) -> None:
    refresh = face.fetcher(outcome, Success(NEW))
    keeper = signed_in(face, refresh)

    assert keeper.call("get_valid_token") == Failure(error)
    assert keeper.call("peek") == Success(OLD)
    assert keeper.call("get_valid_token") == Success(NEW), "and the keeper lives on"


@pytest.mark.parametrize("error", [UNAUTHORIZED, 401, "invalid_grant"])
def test_a_token_that_is_refused_for_good_is_removed(face: Face, error: object) -> None:
    refresh = face.fetcher(Failure(error))
    storage = MemoryTokenStorage()
    keeper = signed_in(face, refresh, storage=storage)

    assert keeper.call("get_valid_token") == Failure(RefreshFailed(error))
    assert storage.read().token is None
    assert keeper.call("get_valid_token") == keeper.call("peek") == Failure(NotSignedIn())
    assert refresh.calls == 1


def test_an_oauth_error_that_is_raised_is_final_too(face: Face) -> None:
    class OAuthError(Exception):
        error = "invalid_grant"

    keeper = signed_in(face, face.fetcher(OAuthError()))

    assert keeper.call("get_valid_token").failure().error.error == "invalid_grant"
    assert keeper.call("peek") == Failure(NotSignedIn())


# Retries of the refresher


def test_by_default_a_refresher_is_called_once(face: Face) -> None:
    refresh = face.fetcher(Failure(DOWN))
    signed_in(face, refresh).call("get_valid_token")

    assert refresh.calls == 1


def test_b40_retries_keep_their_predicate_and_their_delays(face: Face) -> None:
    seen: list[object] = []

    def retry_when(error: object) -> bool:
        seen.append(error)
        return error == DOWN

    refresh = face.fetcher(Failure(DOWN), Failure(DOWN), Success(NEW))
    options = RetryOptions(max_attempts=5, delay=1, backoff_factor=3, retry_when=retry_when)
    keeper = signed_in(face, refresh, retry=options)

    assert keeper.call("get_valid_token") == Success(NEW)
    assert face.clock() == NOW + 1 + 3
    assert seen == [DOWN, DOWN]

    refresh = face.fetcher(Failure("other"))
    assert signed_in(face, refresh, retry=options).call("get_valid_token") == Failure(RefreshFailed("other"))
    assert refresh.calls == 1


def test_what_is_refused_for_good_is_never_tried_again(face: Face) -> None:
    refresh = face.fetcher(Failure(UNAUTHORIZED))
    signed_in(face, refresh, retry=RetryOptions(max_attempts=5)).call("get_valid_token")

    assert refresh.calls == 1


def test_a_predicate_that_raises_ends_the_retries(face: Face) -> None:
    def retry_when(_: object) -> bool:
        raise ZeroDivisionError

    refresh = face.fetcher(Failure(DOWN))
    keeper = signed_in(face, refresh, retry=RetryOptions(max_attempts=5, retry_when=retry_when))

    assert keeper.call("get_valid_token") == Failure(RefreshFailed(DOWN))
    assert refresh.calls == 1


# Actions


def test_a_rejected_token_is_refreshed_and_the_action_run_once_more(face: Face) -> None:
    refresh = face.fetcher(Success(NEW))
    keeper = signed_in(face, refresh, token())
    run = action(face, rejecting("a1"))

    assert keeper.call("with_valid_token", run) == Success("for a2")
    assert run.used == ["a1", "a2"]
    assert refresh.calls == 1


def test_tk5_an_endless_401_costs_one_refresh_and_one_retry_a_call(face: Face) -> None:
    refresh = face.fetcher(lambda old: Success(token(f"a{int(old.access_token[1:]) + 1}")))
    keeper = signed_in(face, refresh, token())
    run = action(face, lambda _: Failure(UNAUTHORIZED))

    for calls in (1, 2, 3):
        assert keeper.call("with_valid_token", run) == Failure(UNAUTHORIZED)
        assert (refresh.calls, len(run.used)) == (calls, 2 * calls)


@pytest.mark.parametrize("answer", [Success(1), Failure("no"), Failure(DOWN), Failure(403), Failure(None)])
def test_what_is_not_unauthorized_is_not_tried_again(face: Face, answer: Any) -> None:
    refresh = face.fetcher(Success(NEW))
    run = action(face, lambda _: answer)

    assert signed_in(face, refresh, token()).call("with_valid_token", run) == answer
    assert (refresh.calls, run.used) == (0, ["a1"])


class Coded:
    code = 401


class Touchy:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize(
    ("error", "tries"), [(Coded(), 2), (Touchy(), 1), (401, 2), (True, 1), (401.0, 1)], ids=range(5)
)
def test_an_error_says_itself_that_it_is_unauthorized(face: Face, error: object, tries: int) -> None:
    run = action(face, lambda _: Failure(error))
    signed_in(face, face.fetcher(Success(NEW)), token()).call("with_valid_token", run)

    assert len(run.used) == tries


def test_unauthorized_may_be_decided_otherwise(face: Face) -> None:
    run = action(face, lambda _: Failure("expired"))
    keeper = signed_in(face, face.fetcher(Success(NEW)), token(), unauthorized=lambda error: error == "expired")
    keeper.call("with_valid_token", run)
    assert run.used == ["a1", "a2"]

    def broken(_: object) -> bool:
        raise ZeroDivisionError

    run = action(face, lambda _: Failure(401))
    keeper = signed_in(face, face.fetcher(Success(NEW)), token(), unauthorized=broken)
    assert keeper.call("with_valid_token", run) == Failure(401)
    assert run.used == ["a1"]


def test_where_the_refresh_fails_that_is_the_answer(face: Face) -> None:
    run = action(face, rejecting("a1"))
    keeper = signed_in(face, face.fetcher(Failure(DOWN)), token())

    assert keeper.call("with_valid_token", run) == Failure(RefreshFailed(DOWN))
    assert run.used == ["a1"]


def test_where_there_is_nothing_to_refresh_with_the_rejection_is_the_answer(face: Face) -> None:
    keeper = signed_in(face, face.fetcher(Success(NEW)), token(refresh=False))

    assert keeper.call("with_valid_token", action(face, rejecting("a1"))) == Failure(401)


def test_what_an_action_raises_is_raised(face: Face) -> None:
    def boom(_: str) -> Any:
        raise ZeroDivisionError

    keeper = signed_in(face, face.fetcher(Success(NEW)), token())
    with pytest.raises(ZeroDivisionError):
        keeper.call("with_valid_token", action(face, boom))
    assert keeper.call("with_valid_token", action(face, Success)) == Success("a1")


def test_an_action_may_answer_an_io_result(face: Face) -> None:
    run = action(face, lambda text: IOResult.from_failure(401) if text == "a1" else IOResult.from_value(text))
    keeper = signed_in(face, face.fetcher(Success(NEW)), token())

    assert keeper.call("with_valid_token", run) == IOResult.from_value("a2")


def test_it_is_never_tried_again_with_the_token_of_another_user(face: Face) -> None:
    refresh = face.fetcher(Success(token("b1", "bob")))
    run = action(face, rejecting("a1"))

    assert signed_in(face, refresh, token()).call("with_valid_token", run) == Failure(401)
    assert run.used == ["a1"]


# Storages


def test_a_token_is_restored_from_the_storage(face: Face) -> None:
    storage = Faulty(token())
    keeper = keeping(face, face.fetcher(Success(NEW)), storage=storage)

    assert keeper.call("get_valid_token") == Success(token())
    assert keeper.call("get_valid_token") == keeper.call("peek") == Success(token())
    assert storage.calls["read"] == 1
    assert keeper.cache.subject == "ada"


def test_what_somebody_else_signs_in_with_is_found(face: Face) -> None:
    storage = MemoryTokenStorage()
    keeper = keeping(face, face.fetcher(Success(NEW)), storage=storage)
    assert keeper.call("get_valid_token") == Failure(NotSignedIn())
    storage.swap(0, token())

    assert keeper.call("get_valid_token") == Success(token())


def test_b36_a_storage_that_cannot_be_read_fails_and_nothing_hangs(face: Face) -> None:
    storage = Faulty(token())
    storage.faults["read"] = raising(times=1)
    keeper = keeping(face, face.fetcher(Success(NEW)), storage=storage)

    failure = keeper.call("get_valid_token").failure()
    assert isinstance(failure, TokenStorageFailed)
    assert (failure.operation, type(failure.error)) == ("read", OSError)
    assert keeper.call("get_valid_token") == Success(token())


def test_b36_a_lock_that_raises_fails_and_nothing_hangs(face: Face) -> None:
    storage = Faulty()
    storage.faults["try_lock"] = raising(times=1)
    keeper = signed_in(face, face.fetcher(Success(NEW)), storage=storage)

    assert keeper.call("get_valid_token").failure().operation == "try_lock"
    assert keeper.call("get_valid_token") == Success(NEW)


def test_tk6_what_could_not_be_stored_is_kept_and_stored_without_another_refresh(face: Face) -> None:
    refresh = face.fetcher(Success(NEW))
    storage = Faulty()
    keeper = signed_in(face, refresh, storage=storage)
    storage.faults["swap"] = raising(times=3)
    run = action(face, Success)

    for _ in range(2):
        assert keeper.call("get_valid_token").failure().operation == "swap"
    assert keeper.call("with_valid_token", run) == Success("a2")
    assert (refresh.calls, run.used) == (1, ["a2"])
    assert storage.read().token == NEW


@pytest.mark.parametrize("failing", range(1, 13))
def test_tk6_whatever_fails_a_token_that_is_used_is_in_the_storage(face: Face, failing: int) -> None:
    """Each access token is good for one call, so each call refreshes; one call of the storage's in a dozen fails."""
    storage = Faulty()
    refresh = face.fetcher(lambda old: Success(token(f"a{int(old.access_token[1:]) + 1}", lives=0.0)))
    keeper = signed_in(face, refresh, storage=storage)

    def fault(number: int) -> None:
        if number % 12 == failing % 12:
            raise OSError

    storage.faults = {"swap": fault, "read": fault, "try_lock": fault}
    used = 0
    for _ in range(24):
        run = action(face, lambda text: Success((text, storage.written[-1])))
        got = keeper.call("with_valid_token", run)
        keeper.settle()  # The right to refresh is given back as well.
        if got == Failure(NotSignedIn()):
            raise AssertionError
        for text, stored in [got.unwrap()] if isinstance(got, Success) else []:
            used += 1
            assert stored.access_token == text

    names = [each.access_token for each in storage.written if each is not None]
    assert names == [f"a{number}" for number in range(1, len(names) + 1)], "no token was lost"
    assert refresh.calls in {len(names) - 1, len(names)}
    assert used >= 18


def test_a_storage_that_answers_nonsense_has_failed(face: Face) -> None:
    class Nonsense(MemoryTokenStorage):
        def read(self) -> Any:
            return {"token": "a1"}

    assert keeping(face, face.fetcher(Success(NEW)), storage=Nonsense()).call("get_valid_token") == Failure(
        TokenStorageFailed("read", TypeError("it answered with a dict"))
    )

    class Strange(MemoryTokenStorage):
        def swap(self, expected: int, token: Token | None, /) -> Any:
            del expected, token
            return True

    failure = keeping(face, face.fetcher(Success(NEW)), storage=Strange()).call("set_tokens", NEW).failure()
    assert failure == TokenStorageFailed("swap", TypeError("it answered with a bool"))


def test_a_storage_that_takes_nothing_has_failed(face: Face) -> None:
    class Stubborn(MemoryTokenStorage):
        takes = True

        def swap(self, expected: int, token: Token | None, /) -> int | None:
            return super().swap(expected, token) if self.takes else None

    storage = Stubborn()
    refresh = face.fetcher(Success(NEW))
    keeper = signed_in(face, refresh, storage=storage)
    storage.takes = False

    for _ in range(3):
        assert keeper.call("get_valid_token").failure().operation == "swap"
    assert keeper.call("set_tokens", NEW).failure().operation == "swap"
    assert refresh.calls == 1


# Signing in and out


def test_signing_in_and_out(face: Face) -> None:
    storage = MemoryTokenStorage()
    keeper = signed_in(face, face.fetcher(Success(NEW)), token(), storage=storage)
    assert (keeper.cache.subject, storage.read().token) == ("ada", token())

    assert keeper.call("set_tokens", token("b1", "bob")) == Success(token("b1", "bob"))
    assert keeper.cache.subject == "bob"
    assert keeper.call("with_valid_token", action(face, Success)) == Success("b1")

    assert keeper.call("sign_out") == Success(None)
    assert (keeper.cache.subject, storage.read().token) == (None, None)
    assert keeper.call("with_valid_token", action(face, Success)) == Failure(NotSignedIn())
    assert keeper.call("clear") == Success(None)


def test_only_a_token_signs_in(face: Face) -> None:
    keeper = keeping(face, face.fetcher(Success(NEW)))

    assert keeper.call("set_tokens", "a1") == Failure(InvalidToken("a str is no Token"))


def test_a_sign_in_that_cannot_be_stored_changes_nothing(face: Face) -> None:
    storage = Faulty()
    keeper = signed_in(face, face.fetcher(Success(NEW)), token(), storage=storage)
    storage.faults["swap"] = raising()

    assert keeper.call("set_tokens", token("b1", "bob")).failure().operation == "swap"
    assert keeper.call("get_valid_token") == Success(token())
    assert keeper.cache.subject == "ada"


def test_a_sign_out_that_cannot_be_stored_holds_in_this_process(face: Face) -> None:
    storage = Faulty()
    keeper = signed_in(face, face.fetcher(Success(NEW)), token(), storage=storage)
    storage.faults["swap"] = raising(times=2)

    assert keeper.call("sign_out").failure().operation == "swap"
    assert keeper.call("get_valid_token") == Failure(NotSignedIn())
    assert keeper.cache.subject is None
    assert storage.read().token == token()
    assert keeper.call("sign_out") == Success(None)
    assert storage.read().token is None


# Closing, settings


def test_a_closed_keeper_hands_out_nothing(face: Face) -> None:
    keeper = signed_in(face, face.fetcher(Success(NEW)), token())
    done(keeper)
    done(keeper)

    for method in ("get_valid_token", "force_refresh", "peek", "sign_out"):
        assert keeper.call(method) == Failure(KeeperClosed())
    assert keeper.call("set_tokens", NEW) == Failure(KeeperClosed())
    assert keeper.call("with_valid_token", action(face, Success)) == Failure(KeeperClosed())


def test_closing_waits_until_a_refresh_is_stored(face: Face) -> None:
    refresh = face.fetcher(Success(NEW), takes=10.0)
    storage = MemoryTokenStorage()
    keeper = signed_in(face, refresh, storage=storage)
    waiting = keeper.begin.call("get_valid_token")
    done(keeper)

    assert storage.read().token == NEW
    assert waiting.result() == Success(NEW)


@pytest.mark.parametrize(
    "options",
    [
        {"leeway": -1},
        {"refresh_timeout": 0},
        {"storage_timeout": None},
        {"proactive_window": "soon"},
        {"retry": 3},
        {"clock": 7},
        {"unauthorized": 401},
        {"nonsense": 1},
    ],
)
@pytest.mark.parametrize("kind", [TokenKeeper, SyncTokenKeeper])
def test_a_setting_that_makes_no_sense_is_refused(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kind(lambda _: Success(NEW), **options)


def test_a_clock_that_fails_stands_still(face: Face) -> None:
    readings = iter([NOW, NOW])

    def clock() -> float:
        return next(readings)  # StopIteration, from the third time on.

    keeper = signed_in(face, face.fetcher(Success(NEW)), token(), clock=clock)
    for _ in range(4):
        assert keeper.call("with_valid_token", action(face, Success)) == Success("a1")
