"""What went wrong under attack, named for what it was: keepers, storages, OAuth, and caches that follow a keeper."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from pydantic import ValidationError
from returns.result import Failure, Result, Success

from cachemesh import Cache, CacheScope, NoActiveUser, SyncCache
from cachemesh.auth import (
    FileTokenStorage,
    InvalidRefreshResult,
    InvalidToken,
    KeeperAuth,
    KeeperClosed,
    MemoryTokenStorage,
    NotSignedIn,
    OAuthClient,
    OAuthFailure,
    ReentrantRefresh,
    Refreshed,
    RefreshFailed,
    RefreshTimedOut,
    SyncTokenKeeper,
    SyncTokenRefreshTimer,
    Token,
    TokenError,
    TokenKeeper,
    TokenNotRefreshable,
    TokenStorageFailed,
)
from cachemesh.auth.daemons import MOST_CALLS
from cachemesh.auth.oauth import Ask
from cachemesh.auth.storages.errors import TokenStorageError
from cachemesh.sources import Backoff, NetworkFailure, retrying
from cachemesh.sources.websocket.upgrade import failure_of
from tests.auth.keepers import HOUR, NEW, NOW, Faulty, Gate, action, done, keeping, raising, signed_in, token
from tests.auth.storage_children import storage_at
from tests.scenarios.helpers import in_real_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.shell.faces import Face, SyncFace

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


class Unsure:
    """A storage that does not know whether it is near."""

    def __init__(self) -> None:
        inner = MemoryTokenStorage()
        self.read, self.swap, self.try_lock = inner.read, inner.swap, inner.try_lock

    @property
    def is_near(self) -> bool:
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


def test_a_storage_that_hangs_for_ever_does_not_take_ever_more_threads(face: Face) -> None:
    """A mount that has gone, for one. Once it is back, all goes on."""
    gate, storage = Gate(), Faulty(token())
    storage.faults["read"] = gate
    options: Any = {"storage": storage, "storage_timeout": 0.05, "clock": lambda: NOW}
    before = threading.active_count()

    def opened() -> int:
        grown = threading.active_count() - before
        gate.open()
        assert until(lambda: threading.active_count() <= before + 2)
        return grown

    async def main() -> tuple[list[Any], int]:
        keeper = TokenKeeper(_never, **options)
        answers = [await keeper.get_valid_token() for _ in range(40)]
        grown = await asyncio.to_thread(opened)
        return [*answers, await keeper.get_valid_token()], grown

    def main_of_threads() -> tuple[list[Any], int]:
        keeper = SyncTokenKeeper(Success, **options)
        answers = [keeper.get_valid_token() for _ in range(40)]
        grown = opened()
        return [*answers, keeper.get_valid_token()], grown

    (*failures, last), grown = main_of_threads() if face.name == "sync" else asyncio.run(main())
    assert last == Success(token())
    assert set(failures) == {Failure(TokenStorageFailed("read", TimeoutError()))}
    assert grown <= MOST_CALLS + 1  # Where tasks wait, so does a thread of ours.


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="links are followed")
@pytest.mark.parametrize("suffix", ["lock", "refresh"])
def test_a_link_in_the_place_of_a_lock_makes_no_file_elsewhere(tmp_path: Path, suffix: str) -> None:
    storage = FileTokenStorage(tmp_path / "token.json")
    (tmp_path / f"token.json.{suffix}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TokenStorageError):
        storage.try_lock(5.0)
    assert not (tmp_path / "elsewhere").exists()


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


# From inside


def test_a_refresher_that_closes_its_keeper_does_not_wait_for_itself() -> None:
    async def main() -> None:
        async def refresh(old: Token) -> Result[Token, str]:
            del old
            await keeper.aclose()
            return Success(NEW)

        keeper = TokenKeeper(refresh, clock=lambda: NOW)
        await keeper.set_tokens(token(lives=0.0))
        async with asyncio.timeout(2.0):
            assert await keeper.get_valid_token() == Success(NEW)
        await keeper.aclose()

    in_real_time(main())


def test_a_refresher_of_threads_that_closes_its_keeper_does_not_wait_for_itself() -> None:
    def refresh(old: Token) -> Result[Token, str]:
        del old
        keeper.close()
        return Success(NEW)

    keeper = SyncTokenKeeper(refresh, clock=lambda: NOW, refresh_timeout=2.0)
    keeper.set_tokens(token(lives=0.0))
    assert keeper.get_valid_token() == Success(NEW)
    keeper.close()


def test_a_listener_that_signs_out_is_told_that_it_cannot_and_does_not_wait_for_itself() -> None:
    keeper = SyncTokenKeeper(Success, clock=lambda: NOW, refresh_timeout=1.0, storage_timeout=0.1)
    told: list[Any] = []
    keeper.on_identity(lambda subject: told.append((subject, keeper.sign_out())))
    assert keeper.set_tokens(ADA) == Success(ADA)
    assert told == [("ada", Failure(ReentrantRefresh()))]
    assert keeper.get_valid_token() == Success(ADA)
    keeper.close()


def test_a_task_that_a_listener_begins_may_sign_out() -> None:
    async def main() -> None:
        keeper = TokenKeeper(_never, clock=lambda: NOW)
        tasks: list[Any] = []
        stop = keeper.on_identity(lambda _: tasks.append(asyncio.create_task(keeper.sign_out())))
        await keeper.set_tokens(ADA)
        stop()
        assert await tasks[0] == Success(None)
        assert await keeper.get_valid_token() == Failure(NotSignedIn())
        await keeper.aclose()

    in_real_time(main())


def test_what_a_refresher_leaves_running_gets_a_token_once_the_refresh_is_over() -> None:
    """A connection that is kept up, or a queue that is worked off, begun by the refresher's first call."""
    sent: list[str | None] = []

    async def main() -> None:
        over, tasks = asyncio.Event(), []

        async def later() -> None:
            await over.wait()
            await client.get("/later")

        async def refresh(old: Token) -> Result[Token, str]:
            del old
            tasks.append(asyncio.create_task(later()))
            await client.get("/refresh")
            return Success(NEW)

        def answer(request: httpx2.Request) -> httpx2.Response:
            sent.append(request.headers.get("authorization"))
            return httpx2.Response(200)

        keeper = TokenKeeper(refresh, clock=lambda: NOW)
        auth = KeeperAuth(keeper, "https://api.example.com")
        transport = httpx2.MockTransport(answer)
        async with httpx2.AsyncClient(base_url="https://api.example.com", auth=auth, transport=transport) as client:
            await keeper.set_tokens(token(lives=0.0))
            assert await keeper.get_valid_token() == Success(NEW)
            over.set()
            await tasks[0]
        await keeper.aclose()

    in_real_time(main())
    assert sent == [None, "Bearer a2"]


def test_a_keeper_of_the_other_face_is_told_as_that() -> None:
    origin = "https://api.example.com"
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, request=request))
    with (
        httpx2.Client(auth=KeeperAuth(TokenKeeper(_never), origin), transport=transport) as client,
        pytest.raises(TypeError, match="SyncTokenKeeper"),
    ):
        client.get(origin)

    async def main() -> None:
        auth = KeeperAuth(SyncTokenKeeper(Success), origin)
        async with httpx2.AsyncClient(auth=auth, transport=transport) as client:
            with pytest.raises(TypeError, match="TokenKeeper"):
                await client.get(origin)

    in_real_time(main())


# Forks


def in_child(act: Callable[[], bool]) -> bool:
    """Whether the child of a fork finds `act` true, in time."""
    child = os.fork()
    if child == 0:  # pragma: no cover (it ends here)
        code = 1
        try:
            signal.alarm(5)
            code = 0 if act() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("kind", ["memory", "file", "sqlite"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_child_of_a_fork_does_not_wait_for_a_refresh_of_its_parent(kind: str, tmp_path: Path) -> None:
    """Which no thread of its own will bring."""
    gate, parent = Gate(), os.getpid()

    def refresh(old: Token) -> Result[Token, str]:
        del old
        if os.getpid() == parent:
            gate(1)
        return Success(NEW)

    storage = MemoryTokenStorage() if kind == "memory" else storage_at(kind, tmp_path)
    keeper = SyncTokenKeeper(refresh, storage=storage, clock=lambda: NOW)
    keeper.set_tokens(token(lives=0.0))
    asking = threading.Thread(target=keeper.get_valid_token)
    asking.start()
    assert gate.reached.wait(5.0)
    try:
        if kind == "memory":
            assert in_child(lambda: keeper.get_valid_token() == Success(NEW))
        else:  # The right to refresh is the parent's; but signing in needs none, and reading neither.
            assert in_child(lambda: keeper.peek() == Success(token(lives=0.0)))
        assert in_child(lambda: keeper.set_tokens(ADA) == Success(ADA) and keeper.get_valid_token() == Success(ADA))
    finally:
        gate.open()
        asking.join()
    keeper.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_child_of_a_fork_does_not_wait_for_a_sign_out_of_its_parent() -> None:
    gate, storage = Gate(), Faulty()
    keeper = SyncTokenKeeper(Success, storage=storage, clock=lambda: NOW)
    keeper.set_tokens(ADA)
    storage.faults["swap"] = gate
    leaving = threading.Thread(target=keeper.sign_out)
    leaving.start()
    assert gate.reached.wait(5.0)
    assert in_child(lambda: keeper.get_valid_token() == Success(ADA))
    gate.open()
    leaving.join()
    assert keeper.get_valid_token() == Failure(NotSignedIn())
    keeper.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_child_of_a_fork_does_not_wait_for_a_lock_of_its_parent() -> None:
    keeper = SyncTokenKeeper(Success, clock=lambda: NOW)
    keeper.set_tokens(ADA)
    stop = threading.Event()

    def use() -> None:
        while not stop.is_set():
            keeper.peek()

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            assert in_child(lambda: keeper.peek() == Success(ADA) and keeper.sign_out() == Success(None))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    keeper.close()


# Timers


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # It is what is tried.
def test_a_timer_whose_thread_has_ended_is_not_running_and_starts_anew() -> None:
    class Ending(SyncTokenKeeper):
        looks = 0

        def check(self, window_s: float) -> Any:
            self.looks += 1
            if self.looks == 1:
                raise SystemExit
            return super().check(window_s)

    keeper = Ending(Success, clock=lambda: NOW)
    timer = SyncTokenRefreshTimer(keeper)
    timer.start()
    assert until(lambda: not timer.is_running)
    timer.start()
    assert until(lambda: keeper.looks == 2)
    assert timer.is_running
    timer.stop()
    assert not timer.is_running
    keeper.close()


# OAuth


@pytest.mark.parametrize("secret", ["", "a", "grant", "invalid_grant"])
def test_a_code_of_rfc_6749_is_one_whatever_the_secret_is(secret: str) -> None:
    oauth = OAuthClient("https://id.example.com/token", "app", secret)
    told = oauth.answer(refresh_of(oauth), httpx2.Response(400), b'{"error": "invalid_grant"}')
    assert told == Failure(OAuthFailure(error="invalid_grant", http_status=400))


@pytest.mark.parametrize(
    "more", ['"expires_at": "2030-01-01T00:00:00Z"', '"expires_at": 1893456000000', '"expires_at": {}']
)
def test_when_a_token_expires_is_for_expires_in_to_say(more: str) -> None:
    """What RFC 6749 does not know (section 5.1) some servers write in milliseconds, or as text."""
    oauth = OAuthClient("https://id.example.com/token", "app", clock=lambda: NOW)
    body = f'{{"access_token": "x", "expires_in": 60, {more}}}'.encode()
    assert oauth.answer(refresh_of(oauth), httpx2.Response(200), body).unwrap().expires_at == NOW + 60.0


def refresh_of(oauth: OAuthClient) -> Ask:
    ask = oauth.refresh(token())
    assert isinstance(ask, Ask)
    return ask


# What to try again


class Busy:
    is_retryable, retry_after = True, 7.0


class Hostile:
    def __getattr__(self, name: str) -> object:
        raise LookupError(name)


ERRORS: list[tuple[TokenError, bool]] = [
    (RefreshTimedOut(30.0), True),
    (TokenStorageFailed("read", OSError()), True),
    (RefreshFailed(NetworkFailure.of_status(503, retry_after=7.0)), True),
    (RefreshFailed(NetworkFailure.of_status(404)), False),
    (RefreshFailed(Busy()), True),
    (RefreshFailed(ConnectionError()), True),
    (RefreshFailed(TimeoutError()), True),
    (RefreshFailed(ValueError()), False),
    (RefreshFailed("no"), False),
    (RefreshFailed(OAuthFailure(error="invalid_grant")), False),
    (NotSignedIn(), False),
    (TokenNotRefreshable(), False),
    (InvalidRefreshResult("int"), False),
    (ReentrantRefresh(), False),
    (InvalidToken("no"), False),
    (KeeperClosed(), False),
]


@pytest.mark.parametrize(("error", "is_retryable"), ERRORS)
def test_whether_to_try_again_is_the_same_for_all_who_ask(error: TokenError, *, is_retryable: bool) -> None:
    tries = 0
    waits: list[float] = []

    def fetch() -> Result[str, TokenError]:
        nonlocal tries
        tries += 1
        return Failure(error)

    assert error.is_retryable is is_retryable
    assert retrying(fetch, Backoff(delay=1, jitter="none"), sleep=waits.append)() == Failure(error)
    assert tries == (3 if is_retryable else 1)
    asks = 7.0 if getattr(error, "retry_after", None) == 7.0 else 0.0
    assert waits == ([max(asks, 1.0), max(asks, 2.0)] if is_retryable else [])
    assert failure_of(error) == error.failure
    assert error.failure.is_retryable is is_retryable


def test_an_error_that_breaks_where_it_is_asked_is_not_tried_again() -> None:
    error = RefreshFailed(Hostile())
    assert (error.is_retryable, error.retry_after) == (False, None)


# A cache that follows a keeper


def reader(cache: Face) -> Any:
    """A fetcher whose answer tells with what token it was read."""
    return cache.fetcher(lambda text: Success(f"read with {text}"))


@pytest.mark.parametrize("scope", list(CacheScope))
def test_what_a_session_has_is_not_for_the_next_user_where_nobody_signed_out_between(
    face: Face, scope: CacheScope
) -> None:
    keeper = signed_in(face, face.fetcher(Success(NEW)), ADA)
    cache = face.new(token_keeper=keeper.cache)
    cache.get_authenticated("me", reader(cache), scope=scope)
    keeper.call("set_tokens", BOB)

    seen = cache.get_authenticated("me", reader(cache), scope=scope)

    assert seen == Success("read with ada's" if scope is CacheScope.GLOBAL else "read with bob's")
    assert cache.active_user_id == "bob"
    done(keeper)


def test_what_a_session_without_a_name_has_is_not_for_who_signs_in_with_one(face: Face) -> None:
    keeper = signed_in(face, face.fetcher(Success(NEW)), token("nobody's", None))
    cache = face.new(token_keeper=keeper.cache)
    cache.get_authenticated("me", reader(cache), scope=CacheScope.SESSION)
    keeper.call("set_tokens", BOB)
    assert cache.get_authenticated("me", reader(cache), scope=CacheScope.SESSION) == Success("read with bob's")
    done(keeper)


def test_what_was_there_before_anybody_signed_in_stays(face: Face) -> None:
    """A cart, for one."""
    keeper = keeping(face, face.fetcher(Success(NEW)))
    cache = face.new(token_keeper=keeper.cache)
    cache.get_authenticated("me", reader(cache))
    cache.fill("cart", 3, scope=CacheScope.SESSION)
    keeper.call("set_tokens", ADA)
    assert cache.peek("cart") == Success(3)
    done(keeper)


def test_who_signs_in_elsewhere_after_a_sign_out_is_found_by_the_cache(face: Face) -> None:
    storage = MemoryTokenStorage()
    here, elsewhere = (keeping(face, face.fetcher(Success(NEW)), storage=storage) for _ in range(2))
    cache = face.new(token_keeper=here.cache)
    here.call("set_tokens", ADA)
    cache.get_authenticated("me", reader(cache))
    here.call("sign_out")
    assert cache.get_authenticated("me", reader(cache)) == Failure(NotSignedIn())

    elsewhere.call("set_tokens", BOB)

    assert cache.get_authenticated("me", reader(cache)) == Success("read with bob's")
    done(here)
    done(elsewhere)


class Announcing:
    """A keeper of somebody's own, that says when it announces whom."""

    def __init__(self) -> None:
        self.subject = "ada"
        self.announced = threading.Event()
        self.callback: Callable[[str | None], object] = str

    def on_identity(self, callback: Callable[[str | None], object]) -> Callable[[], object]:
        self.callback = callback
        return lambda: None

    def peek(self) -> Result[object, object]:
        return Success(None)

    def with_valid_token(self, action: Callable[[str], Any]) -> Any:
        assert self.announced.wait(5.0)
        return action("bob's")


def test_who_joined_the_fetch_of_one_who_left_is_not_refused_for_it(sync_face: SyncFace) -> None:
    """Ada's fetch waits for a token; bob signs in and joins it; it must not run with his token."""
    keeper = Announcing()
    cache = sync_face.new(token_keeper=keeper)
    adas = cache.begin.get_authenticated("news", Success, scope=CacheScope.GLOBAL)
    keeper.callback("bob")
    bobs = cache.begin.get_authenticated("news", Success, scope=CacheScope.GLOBAL)
    keeper.announced.set()
    assert bobs.result() == Success("bob's")
    assert adas.result() == Failure(NoActiveUser("news"))


def test_who_joined_the_fetch_of_one_who_left_is_not_refused_for_it_among_tasks() -> None:
    async def fetch(text: str) -> Result[str, str]:
        return Success(text)

    async def main() -> None:
        ends = asyncio.Event()

        async def refresh(old: Token) -> Result[Token, str]:
            del old
            await ends.wait()
            return Success(NEW)

        keeper = TokenKeeper(refresh, clock=lambda: NOW)
        cache = Cache(token_keeper=keeper)
        await keeper.set_tokens(token(lives=0.0))
        calls = [asyncio.create_task(cache.get_authenticated("news", fetch, scope=CacheScope.GLOBAL))]
        await asyncio.sleep(0.01)

        def join(subject: str | None) -> None:
            assert subject == "bob"
            calls.append(asyncio.create_task(cache.get_authenticated("news", fetch, scope=CacheScope.GLOBAL)))

        keeper.on_identity(join)
        await keeper.set_tokens(BOB)
        assert await asyncio.gather(*calls) == [Failure(NoActiveUser("news")), Success("bob's")]
        ends.set()
        await keeper.aclose()
        await cache.aclose()

    in_real_time(main())


def test_a_call_that_begins_while_the_user_changes_is_not_served_with_the_token_of_the_next() -> None:
    """Another thread asks when bob has been announced to the cache, and the cache has not taken that in yet."""
    keeper = Announcing()
    answers: list[Any] = []

    class Slow(SyncCache):
        def end_session(self) -> None:
            asking.start()
            assert until(lambda: bool(answers) or _waits_for_a_token(keeper, asking))
            super().end_session()

    cache = Slow(token_keeper=keeper)
    asking = threading.Thread(target=lambda: answers.append(cache.get_authenticated("me", Success)))
    keeper.callback("bob")
    keeper.announced.set()
    asking.join(5.0)
    assert answers == [Failure(NoActiveUser("me"))]
    assert cache.get_authenticated("me", Success) == Success("bob's")


def _waits_for_a_token(keeper: Announcing, thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and frame.f_code is not keeper.with_valid_token.__func__.__code__:  # type: ignore[attr-defined]
        frame = frame.f_back
    return frame is not None


def test_caches_that_are_gone_leave_no_listener_with_the_keeper(face: Face) -> None:
    keeper = signed_in(face, face.fetcher(Success(NEW)), ADA)
    for _ in range(3):
        face.new(token_keeper=keeper.cache)
    gc.collect()
    keeper.call("set_tokens", BOB)
    assert len(keeper.cache._runtime._listeners) == 0
    done(keeper)


def until(is_so: Callable[[], bool]) -> bool:
    for _ in range(500):
        if is_so():
            return True
        time.sleep(0.01)
    return False


async def _never(old: Token) -> Result[Token, str]:
    """A refresher that nobody needs."""
    raise AssertionError(old)
