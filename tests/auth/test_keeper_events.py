"""What keepers tell: identities before they can be used, events, streams of tokens; and timers. No secrets."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError
from returns.result import Failure, Result, Success
from rich.console import Console

from cachemesh.auth import (
    FoundInStorage,
    MemoryTokenStorage,
    NotRefreshed,
    Refreshed,
    RefreshFailed,
    SignedIn,
    SignedOut,
    SyncTokenKeeper,
    SyncTokenRefreshTimer,
    Token,
    TokenKeeper,
    TokenRefreshTimer,
    TokenStorageFailed,
)
from cachemesh.testing.loop import run
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
from tests.shell.faces import AsyncFace, Face, SyncFace

if TYPE_CHECKING:
    from tests.shell.faces import Pending

BOBS = token("b1", "bob")


def subjects(keeper: Face) -> list[str | None]:
    """The subjects that are announced from now on."""
    heard: list[str | None] = []
    keeper.cache.on_identity(heard.append)
    return heard


def stream_of(keeper: Face, method: str) -> Any:
    return keeper.at_once(method)


def following(keeper: Face, stream: Any) -> Pending:
    """The next item of a stream, waited for in the background."""
    name = "__anext__" if isinstance(keeper, AsyncFace) else "__next__"
    other: Face = (
        AsyncFace(stream, keeper.clock, keeper.log, keeper.runner)
        if isinstance(keeper, AsyncFace)
        else SyncFace(stream, keeper.clock, keeper.log)
    )
    return other.begin.call(name)


def taken(keeper: Face, stream: Any) -> Any:
    return following(keeper, stream).result()


# Identities


def test_each_new_identity_is_announced(face: Face) -> None:
    keeper = keeping(face, face.fetcher(Success(NEW)))
    heard = subjects(keeper)
    for step in (OLD, token("a7", lives=0.0), BOBS):
        keeper.call("set_tokens", step)
    assert heard == ["ada", "bob"]
    keeper.call("sign_out")
    keeper.call("sign_out")
    assert heard == ["ada", "bob", None]
    keeper.call("set_tokens", OLD)
    keeper.call("get_valid_token")
    assert heard == ["ada", "bob", None, "ada"]


def test_a_token_without_a_subject_is_of_nobody_known(face: Face) -> None:
    keeper = keeping(face, face.fetcher(Success(token("x2", None))))
    heard = subjects(keeper)
    keeper.call("set_tokens", token("x1", None, lives=0.0))
    keeper.call("get_valid_token")
    assert heard == [], "nobody was known, and nobody is"
    keeper.call("set_tokens", token("x1", None))
    assert heard == [None], "that may be somebody else"
    keeper.call("sign_out")

    assert heard == [None, None]


def test_an_identity_is_announced_before_its_token_can_be_used(face: Face) -> None:
    """Neither the token of before nor the new one is handed out while listeners are told."""
    keeper = signed_in(face, face.fetcher(Success(BOBS)))
    seen: list[tuple[str | None, object]] = []
    keeper.cache.on_identity(lambda subject: seen.append((subject, keeper.cache._runtime.plain)))

    assert keeper.call("get_valid_token") == Success(BOBS)
    keeper.call("set_tokens", token())
    keeper.call("sign_out")
    assert seen == [("bob", None), ("ada", None), (None, None)]


def test_who_was_restored_is_announced_first(face: Face) -> None:
    keeper = keeping(face, face.fetcher(Success(NEW)), storage=MemoryTokenStorage(BOBS))
    heard = subjects(keeper)
    run = action(face, lambda text: Success((text, tuple(heard))))

    assert keeper.call("with_valid_token", run) == Success(("b1", ("bob",)))


def test_a_user_who_changes_in_another_process_is_announced(face: Face) -> None:
    storage = MemoryTokenStorage()
    keeper = signed_in(face, face.fetcher(Success(NEW)), storage=storage)
    heard = subjects(keeper)
    storage.swap(storage.read().version, BOBS)

    assert keeper.call("get_valid_token") == Success(BOBS)
    assert heard == ["bob"]


def test_a_listener_that_raises_hinders_nobody(face: Face) -> None:
    keeper = keeping(face, face.fetcher(Success(NEW)))

    def boom(_: str | None) -> None:
        raise ZeroDivisionError

    keeper.cache.on_identity(boom)
    heard = subjects(keeper)
    keeper.call("set_tokens", BOBS)

    assert heard == ["bob"]
    assert keeper.call("get_valid_token") == Success(BOBS)


def test_a_listener_may_leave(face: Face) -> None:
    keeper = keeping(face, face.fetcher(Success(NEW)))
    heard: list[object] = []
    leave, leave_again = (keeper.cache.on_identity(heard.append) for _ in range(2))
    leave()
    leave()
    keeper.call("set_tokens", BOBS)
    assert heard == ["bob"]
    leave_again()
    keeper.call("sign_out")

    assert heard == ["bob"]


# Events


def test_b40_a_sign_in_and_a_refresh_are_different_events(face: Face) -> None:
    refresh = face.fetcher(Success(NEW), Failure("down"), Failure(401))
    keeper = keeping(face, refresh)
    events = stream_of(keeper, "events")
    keeper.call("set_tokens", OLD)
    keeper.call("get_valid_token")
    keeper.call("force_refresh")
    keeper.call("force_refresh")
    keeper.call("set_tokens", BOBS)
    keeper.call("sign_out")

    assert [taken(keeper, events) for _ in range(6)] == [
        SignedIn(OLD),
        Refreshed(NEW),
        NotRefreshed(RefreshFailed("down")),
        SignedOut(RefreshFailed(401)),
        SignedIn(BOBS),
        SignedOut(),
    ]


def test_what_is_found_in_the_storage_is_an_event_of_its_own(face: Face) -> None:
    storage = MemoryTokenStorage(OLD)
    keeper = keeping(face, face.fetcher(Success(NEW)), storage=storage)
    events = stream_of(keeper, "events")
    keeper.call("peek")
    storage.swap(0, BOBS)
    keeper.call("get_valid_token")

    assert [taken(keeper, events) for _ in range(2)] == [FoundInStorage(OLD), FoundInStorage(BOBS)]


def test_a_storage_that_fails_is_an_event(face: Face) -> None:
    storage = Faulty()
    keeper = signed_in(face, face.fetcher(Success(NEW)), storage=storage)
    storage.faults["try_lock"] = raising(OSError("full"))
    events = stream_of(keeper, "events")
    keeper.call("get_valid_token")

    assert taken(keeper, events) == NotRefreshed(TokenStorageFailed("try_lock", OSError("full")))


def test_for_a_slow_listener_the_oldest_events_go(face: Face) -> None:
    keeper = keeping(face, face.fetcher(Success(NEW)))
    events = stream_of(keeper, "events")
    for number in range(300):
        keeper.call("set_tokens", token(f"a{number}"))

    heard = [taken(keeper, events).token.access_token for _ in range(256)]
    assert heard == [f"a{number}" for number in range(44, 300)]


def test_streams_end_with_the_keeper(face: Face) -> None:
    keeper = keeping(face, face.fetcher(Success(NEW)))
    events, tokens = stream_of(keeper, "events"), stream_of(keeper, "token_stream")
    assert taken(keeper, tokens) is None
    waiting = [following(keeper, each) for each in (events, tokens)]
    done(keeper)

    for each in waiting:
        with pytest.raises((StopIteration, StopAsyncIteration, RuntimeError)):
            each.result()


def test_a_stream_can_be_ended(face: Face) -> None:
    keeper = keeping(face, face.fetcher(Success(NEW)))
    events = stream_of(keeper, "events")
    waiting = following(keeper, events)
    if isinstance(face, AsyncFace):
        face.runner.run(events.aclose())
    else:
        events.close()

    with pytest.raises((StopIteration, StopAsyncIteration, RuntimeError)):
        waiting.result()


def test_a_stream_that_is_dropped_leaves_nothing_behind(face: Face) -> None:
    keeper = keeping(face, face.fetcher(Success(NEW)))
    streams = [stream_of(keeper, "events") for _ in range(10)]
    assert len(keeper.cache._runtime._mailboxes) == 10
    streams.clear()
    gc.collect()

    assert len(keeper.cache._runtime._mailboxes) == 0


# The stream of tokens


def test_b39_a_token_stream_begins_with_the_present_token(face: Face) -> None:
    keeper = keeping(face, face.fetcher(Success(NEW)), storage=MemoryTokenStorage(OLD))
    tokens = stream_of(keeper, "token_stream")
    assert taken(keeper, tokens) == OLD

    keeper.call("get_valid_token")
    assert taken(keeper, tokens) == NEW
    keeper.call("sign_out")
    assert taken(keeper, tokens) is None
    waiting = following(keeper, tokens)
    keeper.call("set_tokens", BOBS)
    assert waiting.result() == BOBS


def test_b39_a_slow_listener_gets_the_newest_token(face: Face) -> None:
    keeper = signed_in(face, face.fetcher(Success(NEW)))
    tokens = stream_of(keeper, "token_stream")
    assert taken(keeper, tokens) == OLD
    for step in (NEW, BOBS, token("a9")):
        keeper.call("set_tokens", step)

    assert taken(keeper, tokens) == token("a9")


def test_b39_nothing_is_lost_between_the_present_token_and_the_next() -> None:
    """Whoever begins to listen while tokens come and go ends with the one that is there."""
    for turn in range(50):
        keeper = SyncTokenKeeper(lambda _: Success(NEW), clock=lambda: NOW)
        heard: list[Token | None] = []

        def listen(keeper: SyncTokenKeeper = keeper, heard: list[Token | None] = heard) -> None:
            heard.extend(keeper.token_stream())

        listening = threading.Thread(target=listen)
        listening.start()
        names = [f"a{number}" for number in range(turn % 5 + 1)]
        for name in names:
            keeper.set_tokens(token(name))
        keeper.close()
        listening.join(10.0)
        heard_names = [each.access_token for each in heard if each is not None]
        assert heard_names == sorted(heard_names)
        if heard:  # It had begun before the keeper was closed.
            assert heard_names[-1:] == names[-1:]


# Timers


def test_a_timer_refreshes_what_would_expire_before_its_next_look(async_face: AsyncFace) -> None:
    refresh = async_face.fetcher(lambda old: Success(token("a2", lives=2 * HOUR) if old == token() else old))
    keeper = signed_in(async_face, refresh, token())
    timer = TokenRefreshTimer(keeper.cache, check_interval="5m")

    async def main() -> None:
        async with timer:
            assert timer.is_running
            timer.start()
            await asyncio.sleep(HOUR - 301)
            assert refresh.calls == 0
            await asyncio.sleep(2)
            assert refresh.calls == 1
        assert not timer.is_running
        await timer.stop()
        await asyncio.sleep(10 * HOUR)

    async_face.runner.run(main())
    assert refresh.calls == 1


def test_a_timer_lives_on_whatever_fails(async_face: AsyncFace) -> None:
    refresh = async_face.fetcher(ValueError(), Failure("down"), Success(token("a2", lives=9 * HOUR)))
    keeper = signed_in(async_face, refresh)

    async def main() -> None:
        async with TokenRefreshTimer(keeper.cache, check_interval=60):
            await asyncio.sleep(300)

    async_face.runner.run(main())
    assert refresh.calls == 3
    assert keeper.call("peek") == Success(token("a2", lives=9 * HOUR))


def test_a_timer_can_look_at_once(face: Face) -> None:
    refresh = face.fetcher(Success(token("a2", lives=2 * HOUR)))
    keeper = signed_in(face, refresh, token())
    kind: Any = TokenRefreshTimer if isinstance(face, AsyncFace) else SyncTokenRefreshTimer
    timer = kind(keeper.cache, check_interval=60)
    looking = (
        AsyncFace(timer, face.clock, face.log, face.runner)
        if isinstance(face, AsyncFace)
        else SyncFace(timer, face.clock, face.log)
    )

    assert looking.call("run_now") == Success(token())
    face.clock.advance(HOUR - 60)
    assert looking.call("run_now") == Success(token("a2", lives=2 * HOUR))
    assert not timer.is_running
    with pytest.raises(ValidationError):
        kind(keeper.cache, check_interval=0)


def test_a_timer_for_threads_looks_in_a_thread_of_its_own(sync_face: SyncFace) -> None:
    looked = threading.Event()

    def refresh(_: Token) -> Result[Token, str]:
        looked.set()
        return Success(NEW)

    keeper = signed_in(sync_face, refresh)
    with SyncTokenRefreshTimer(keeper.cache, check_interval=1_000) as timer:
        timer.start()
        assert looked.wait(10.0)
        assert timer.is_running
    assert not timer.is_running
    timer.stop()


# Secrets

CANARY = "c4n4ry-c4n4ry-c4n4ry"


def test_se6_a_canary_appears_nowhere(face: Face, caplog: pytest.LogCaptureFixture) -> None:
    """Tokens with a canary, through all that succeeds and fails, into logs, reprs, exceptions and tracebacks."""
    caplog.set_level(logging.DEBUG)
    mine = Token(access_token=CANARY, refresh_token=f"r{CANARY}", expires_at=NOW, metadata={"sub": "ada", "x": CANARY})
    fresh = mine.model_copy(update={"expires_at": NOW + HOUR, "access_token": f"2{CANARY}"})
    storage = Faulty()
    shown: list[object] = []
    refresh = face.fetcher(
        Success(fresh), ValueError(f"refresh_token={CANARY}"), Success(CANARY), Failure({"body": CANARY}), Failure(401)
    )
    keeper = keeping(face, refresh, storage=storage, logger=logging.getLogger("tests.auth"))
    events, tokens = stream_of(keeper, "events"), stream_of(keeper, "token_stream")

    def broken(_: object) -> None:
        raise ValueError(CANARY)

    keeper.cache.on_identity(broken)
    shown.append(keeper.call("set_tokens", mine))
    shown += [keeper.call(method) for method in ("peek", "get_valid_token")]
    shown += [keeper.call("force_refresh") for _ in range(3)]
    for operation, method in (("try_lock", "force_refresh"), ("swap", "sign_out")):
        storage.faults = {operation: raising(OSError(CANARY))}
        shown.append(keeper.call(method))
    storage.faults = {}
    shown += [taken(keeper, events) for _ in range(6)]
    shown += [keeper.call("set_tokens", mine), taken(keeper, tokens), keeper.call("force_refresh")]
    runtime = keeper.cache._runtime
    shown += [keeper.cache, storage, storage.read(), runtime, runtime.state, runtime.settings]
    console = Console(record=True, width=500, quiet=True)
    for each in shown:
        console.print(each)
        error = each.failure() if isinstance(each, Failure) else None
        assert "c4n4ry" not in f"{each!r} {each} {error!r} {error}"
        if isinstance(error, BaseException):
            assert "c4n4ry" not in "".join(traceback.format_exception(error))

    assert "c4n4ry" not in caplog.text
    assert "a listener raised: ValueError" in caplog.text
    assert "c4n4ry" not in console.export_text()


def test_a_keeper_is_made_outside_of_any_loop_and_used_in_several() -> None:

    async def refresh(_: Token) -> Result[Token, str]:
        return Success(NEW)

    async def main(keeper: TokenKeeper) -> Any:
        await keeper.set_tokens(OLD)
        return await keeper.with_valid_token(answering)

    async def answering(text: str) -> Any:
        return rejecting()(text)

    keeper = TokenKeeper(refresh, clock=lambda: NOW)
    assert run(main(keeper)) == asyncio.run(main(keeper)) == Success("for a2")
