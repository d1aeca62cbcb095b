"""What happens at the same time: many callers, sign-outs in the middle of a refresh, other processes, hangs."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Failure, Result, Success

from cachemesh.auth import (
    MemoryTokenStorage,
    NotSignedIn,
    ReentrantRefresh,
    RefreshFailed,
    RefreshTimedOut,
    Token,
    TokenKeeper,
    TokenStorageFailed,
)
from cachemesh.testing.loop import run
from tests.auth.keepers import HOUR, NEW, NOW, OLD, Faulty, Gate, action, keeping, rejecting, signed_in, token
from tests.scenarios.helpers import in_real_time
from tests.shell.faces import AsyncFace, Face, SyncFace

if TYPE_CHECKING:
    from collections.abc import Callable

BOBS = token("b1", "bob")


def each_with_a_run(keeper: Face, count: int, says: Callable[[str], Any], then: Callable[[], None]) -> tuple[Any, Any]:
    runs = [action(keeper, says) for _ in range(count)]
    waiting = iter(runs)
    answers = keeper.concurrently(count, lambda begin: begin.call("with_valid_token", next(waiting)), then)
    return runs, answers


# Single flight


def test_tk1_a_thousand_rejections_at_once_are_one_refresh(async_face: AsyncFace) -> None:
    refresh = async_face.fetcher(Success(NEW), held=True)
    keeper = signed_in(async_face, refresh, token())

    runs, answers = each_with_a_run(keeper, 1_000, rejecting("a1"), refresh.release)

    assert answers == [Success("for a2")] * 1_000
    assert all(each.used == ["a1", "a2"] for each in runs)
    assert refresh.calls == 1


def test_tk1_a_thousand_threads_rejected_at_once_are_one_refresh(sync_face: SyncFace) -> None:
    calls: list[Token] = []
    count = 1_000
    barrier = threading.Barrier(count)

    def refresh(old: Token) -> Result[Token, str]:
        calls.append(old)
        return Success(NEW)

    def act(text: str) -> Result[str, int]:
        if text == "a1":
            barrier.wait(30.0)
            return Failure(401)
        return Success(text)

    keeper = signed_in(sync_face, refresh, token())
    answers: list[object] = []
    threads = [
        threading.Thread(target=lambda: answers.append(keeper.cache.with_valid_token(act))) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)

    assert answers == [Success("a2")] * count
    assert calls == [token()]


def test_a_hundred_who_ask_at_once_are_one_refresh(face: Face) -> None:
    refresh = face.fetcher(Success(NEW), held=True)
    keeper = signed_in(face, refresh)
    answers = keeper.concurrently(100, lambda begin: begin.call("get_valid_token"), refresh.release)

    assert answers == [Success(NEW)] * 100
    assert refresh.calls == 1


def test_a_failure_is_told_to_all_who_waited(face: Face) -> None:
    refresh = face.fetcher(Failure("down"), held=True)
    keeper = signed_in(face, refresh)
    answers = keeper.concurrently(20, lambda begin: begin.call("get_valid_token"), refresh.release)

    assert answers == [Failure(RefreshFailed("down"))] * 20
    assert refresh.calls == 1


def test_b38_a_late_rejection_is_no_second_refresh(face: Face) -> None:
    """Two calls with one token; the second hears of its rejection when the first has had it refreshed."""
    refresh = face.fetcher(Success(NEW))
    keeper = signed_in(face, refresh, token())
    late = face.fetcher(lambda text: Failure(401) if text == "a1" else Success(text), held=True)
    waiting = keeper.begin.call("with_valid_token", late)

    assert keeper.call("with_valid_token", action(face, rejecting("a1"))) == Success("for a2")
    late.release()
    assert waiting.result() == Success("a2")
    assert late.arguments == [("a1",), ("a2",)]
    assert refresh.calls == 1


# Signing in and out in the middle


@pytest.mark.parametrize("answer", [Success(NEW), Failure(401), Failure("down")])
def test_b35_who_signs_in_during_a_refresh_stays_signed_in(face: Face, answer: Any) -> None:
    refresh = face.fetcher(answer, held=True)
    storage = MemoryTokenStorage()
    keeper = signed_in(face, refresh, storage=storage)
    waiting = keeper.begin.call("get_valid_token")

    assert keeper.call("set_tokens", BOBS) == Success(BOBS)
    assert waiting.result() == Success(BOBS)
    refresh.release()
    keeper.settle()
    assert keeper.call("get_valid_token") == Success(BOBS)
    assert storage.read().token == BOBS
    assert keeper.cache.subject == "bob"


def test_tk3_a_token_that_comes_after_the_sign_out_is_neither_stored_nor_used(face: Face) -> None:
    refresh = face.fetcher(Success(NEW), held=True)
    storage = Faulty()
    keeper = signed_in(face, refresh, token(), storage=storage)
    runs = [action(face, rejecting("a1")) for _ in range(5)]
    waiting = [keeper.begin.call("with_valid_token", each) for each in runs]

    assert keeper.call("sign_out") == Success(None)
    refresh.release()
    keeper.settle()
    assert [each.result() for each in waiting] == [Failure(NotSignedIn())] * 5
    assert [each.used for each in runs] == [["a1"]] * 5
    assert storage.written == [token(), None]
    assert keeper.call("get_valid_token") == Failure(NotSignedIn())


def test_tk3_nothing_is_sent_from_the_moment_of_the_sign_out(face: Face) -> None:
    """Though the storage takes its time, and the refresh is just being stored."""
    storage, gate = Faulty(), Gate()
    refresh = face.fetcher(Success(NEW))
    keeper = signed_in(face, refresh, storage=storage, storage_timeout=20)
    storage.faults["swap"] = lambda number: gate(number) if number == 2 else None
    run = action(face, Success)
    asking = in_the_background(keeper, "with_valid_token", run)
    assert gate.reached.wait(5.0)
    leaving = in_the_background(keeper, "sign_out")
    gate.open()

    assert leaving() == Success(None)
    assert asking() == Failure(NotSignedIn())
    assert run.used == []
    assert storage.read().token is None


def in_the_background(keeper: Face, method: str, *arguments: Any) -> Callable[[], Any]:
    """Begin a call and let it go as far as it goes without the storage; the answer waits for its end."""
    if isinstance(keeper, SyncFace):
        return keeper.begin.call(method, *arguments).result
    assert isinstance(keeper, AsyncFace)
    loop = keeper.runner.get_loop()
    task = loop.create_task(keeper.coroutine(method, *arguments))

    async def turns() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def wait() -> Any:
        return await task

    keeper.runner.run(turns())
    return lambda: keeper.runner.run(wait())


@pytest.mark.parametrize(
    ("mine", "theirs", "tries"),
    [
        (token("a1"), token("a2"), ["a1", "a2"]),
        (token("a1"), BOBS, ["a1"]),
        (token("x1", None), token("x2", None), ["x1"]),
        (token("x1", None), BOBS, ["x1"]),
    ],
)
def test_who_is_rejected_after_another_sign_in_uses_only_tokens_of_the_same_user(
    face: Face, mine: Token, theirs: Token, tries: list[str]
) -> None:
    """Without a subject nobody can tell, so it counts as another."""
    refresh = face.fetcher(Success(NEW))
    keeper = signed_in(face, refresh, mine)
    late = face.fetcher(lambda text: Failure(401) if text == mine.access_token else Success(text), held=True)
    waiting = keeper.begin.call("with_valid_token", late)
    keeper.call("set_tokens", theirs)
    late.release()

    assert waiting.result() == (Failure(401) if len(tries) == 1 else Success(tries[-1]))
    assert [text for (text,) in late.arguments] == tries
    assert refresh.calls == 0


@pytest.mark.parametrize("method", ["sign_out", "set_tokens"])
def test_an_order_is_carried_out_though_its_caller_is_cancelled(async_face: AsyncFace, method: str) -> None:
    storage, gate = Faulty(), Gate()
    keeper = signed_in(async_face, async_face.fetcher(Success(NEW)), token(), storage=storage)
    storage.faults["swap"] = gate
    arguments = [BOBS] if method == "set_tokens" else []

    async def main() -> None:
        ordering = asyncio.ensure_future(keeper.coroutine(method, *arguments))  # type: ignore[attr-defined]  # AsyncFace's
        await asyncio.to_thread(gate.reached.wait, 5.0)
        ordering.cancel()
        await asyncio.wait({ordering})
        gate.open()

    async_face.runner.run(main())
    expected = Success(BOBS) if arguments else Failure(NotSignedIn())
    assert keeper.call("get_valid_token") == expected
    assert storage.read().token == (BOBS if arguments else None)


# Other processes


def test_tk2_a_token_that_another_process_has_rotated_is_no_logout(face: Face) -> None:
    """A thousand times: the refresh token is refused, as another process has used it, and written its own."""
    storage = MemoryTokenStorage()
    keeper = signed_in(face, None, token("a0", lives=0.0), storage=storage)
    logouts = 0
    for number in range(1, 1_001):
        rotated = token(f"a{number}")

        def refused(_: Token, rotated: Token = rotated) -> Result[Token, str]:
            assert storage.swap(storage.read().version, rotated) is not None
            return Failure("invalid_grant")

        keeper.cache._refresher = face.fetcher(refused)
        got = keeper.call("force_refresh")
        logouts += got != Success(rotated)

    assert logouts == 0


def test_tk2_another_process_that_has_refreshed_already_spares_the_refresh(face: Face) -> None:
    storage = MemoryTokenStorage()
    refresh = face.fetcher(Success(token("a3")))
    keeper = signed_in(face, refresh, storage=storage)
    storage.swap(storage.read().version, NEW)

    assert keeper.call("get_valid_token") == Success(NEW)
    assert refresh.calls == 0


def test_two_keepers_of_one_storage_refresh_once(face: Face) -> None:
    """While one refreshes the other waits for the right to, and then finds what has been written."""
    storage = MemoryTokenStorage()
    refresh = face.fetcher(Success(NEW), held=True)
    other_refresh = face.fetcher(Success(token("a3")))
    keeper = signed_in(face, refresh, storage=storage)
    other = keeping(face, other_refresh, storage=storage)
    first = keeper.begin.call("get_valid_token")
    release = storage.try_lock(1.0)
    assert release is None, "the first one has the right to refresh"
    second = in_the_background(other, "get_valid_token")
    refresh.release()

    assert first.result() == second() == Success(NEW)
    assert (refresh.calls, other_refresh.calls) == (1, 0)


def test_where_another_process_signs_out_nobody_is_signed_in(face: Face) -> None:
    storage = MemoryTokenStorage()
    keeper = signed_in(face, face.fetcher(Success(NEW)), storage=storage)
    storage.swap(storage.read().version, None)

    assert keeper.call("get_valid_token") == Failure(NotSignedIn())
    assert keeper.cache.subject is None


@pytest.mark.parametrize("theirs", [token("a9"), BOBS, None])
def test_who_wrote_while_a_refresh_was_stored_was_first(face: Face, theirs: Token | None) -> None:
    storage = Faulty()

    def refreshed(_: Token) -> Result[Token, str]:
        storage.swap(storage.read().version, theirs)
        return Success(NEW)

    keeper = signed_in(face, face.fetcher(refreshed), storage=storage)
    expected = Failure(NotSignedIn()) if theirs is None else Success(theirs)

    assert keeper.call("get_valid_token") == expected
    assert keeper.cache.subject == (None if theirs is None else theirs.subject)


def test_an_order_writes_whatever_others_write(face: Face) -> None:
    storage = Faulty()
    keeper = keeping(face, face.fetcher(Success(NEW)), storage=storage)
    others = iter(range(5))

    def fault(_: int) -> None:
        if next(others, None) is not None:
            MemoryTokenStorage.swap(storage, MemoryTokenStorage.read(storage).version, token("other"))

    storage.faults["swap"] = fault
    assert keeper.call("set_tokens", BOBS) == Success(BOBS)
    assert storage.read().token == BOBS


# Circles


def test_b37_a_refresher_that_asks_its_own_keeper_is_told_so(face: Face) -> None:
    """It would wait for itself. What it leaves behind waits as anybody does."""
    asked: list[object] = []

    async def refresh_async(_: Token) -> Result[Token, str]:
        asked.append(await keeper.cache.get_valid_token())
        asked.append(await asyncio.create_task(keeper.cache.with_valid_token(action(face, Success))))
        return Success(NEW)

    def refresh(_: Token) -> Result[Token, str]:
        asked.append(keeper.cache.get_valid_token())
        asked.append(keeper.cache.with_valid_token(action(face, Success)))
        return Success(NEW)

    keeper = signed_in(face, refresh_async if isinstance(face, AsyncFace) else refresh)
    assert keeper.call("get_valid_token") == Success(NEW)
    assert asked == [Failure(ReentrantRefresh())] * 2


def test_a_refresher_may_sign_out(face: Face) -> None:
    async def refresh_async(_: Token) -> Result[Token, str]:
        await keeper.cache.sign_out()
        return Success(NEW)

    def refresh(_: Token) -> Result[Token, str]:
        keeper.cache.sign_out()
        return Success(NEW)

    keeper = signed_in(face, refresh_async if isinstance(face, AsyncFace) else refresh)
    assert keeper.call("get_valid_token") == Failure(NotSignedIn())


def test_a_listener_that_asks_its_own_keeper_is_told_so(sync_face: SyncFace) -> None:
    keeper = keeping(sync_face, sync_face.fetcher(Success(NEW)))
    asked: list[object] = []
    keeper.cache.on_identity(lambda _: asked.append(keeper.cache.get_valid_token()))
    keeper.call("set_tokens", BOBS)

    assert asked == [Failure(ReentrantRefresh())]


# Hangs and cancellations


def test_tk4_a_waiter_that_is_cancelled_leaves_the_refresh_to_the_others(async_face: AsyncFace) -> None:
    refresh = async_face.fetcher(Success(NEW), held=True)
    keeper = signed_in(async_face, refresh)
    waiting = [keeper.begin.call("get_valid_token") for _ in range(5)]
    for each in (waiting[0], waiting[2]):
        each.task.cancel()  # type: ignore[attr-defined]  # a task of the async face
    keeper.settle()
    refresh.release()

    assert [waiting[number].result() for number in (1, 3, 4)] == [Success(NEW)] * 3
    assert refresh.calls == 1
    for each in (waiting[0], waiting[2]):
        with pytest.raises(asyncio.CancelledError):
            each.result()


def test_tk4_a_refresh_goes_on_when_all_who_waited_are_gone(async_face: AsyncFace) -> None:
    refresh = async_face.fetcher(Success(NEW), held=True)
    keeper = signed_in(async_face, refresh)
    waiting = keeper.begin.call("get_valid_token")
    waiting.task.cancel()  # type: ignore[attr-defined]  # as above
    keeper.settle()
    refresh.release()
    keeper.settle()

    assert keeper.call("peek") == Success(NEW)


def test_tk4_a_refresh_that_hangs_is_over_in_time(async_face: AsyncFace) -> None:
    """Also one that takes no notice of being cancelled; those who come later begin anew."""
    calls = 0

    async def refresh(old: Token) -> Result[Token, str]:
        nonlocal calls
        del old
        calls += 1
        if calls > 1:
            return Success(NEW)
        forever = asyncio.get_running_loop().create_future()
        for _attempt in range(3):
            try:
                await asyncio.shield(forever)
            except asyncio.CancelledError:
                continue
        return Failure("too late")

    keeper = signed_in(async_face, refresh, refresh_timeout=30)
    waiting = [keeper.begin.call("get_valid_token") for _ in range(3)]

    assert [each.result() for each in waiting] == [Failure(RefreshTimedOut(30.0))] * 3
    assert async_face.clock() == NOW + 30
    assert keeper.call("get_valid_token") == Success(NEW)
    async_face.runner.run(cancelled_all())


async def cancelled_all() -> None:
    for _ in range(3):
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)


def test_tk4_a_thread_that_hangs_in_a_refresh_is_left_behind_in_time(sync_face: SyncFace) -> None:
    """What it brings in the end is not lost: the old refresh token may have been used up for it."""
    gate = threading.Event()
    calls = []

    def refresh(old: Token) -> Result[Token, str]:
        calls.append(old)
        assert gate.wait(10.0)
        return Success(NEW)

    storage = MemoryTokenStorage()
    keeper = signed_in(sync_face, refresh, storage=storage, refresh_timeout=0.05)
    assert keeper.call("get_valid_token") == Failure(RefreshTimedOut(0.05))

    gate.set()
    sync_face.settle()
    assert storage.read().token == NEW
    assert keeper.call("get_valid_token") == Success(NEW)
    assert len(calls) == 1


def test_b36_a_storage_that_hangs_is_over_in_time(face: Face) -> None:
    storage, gate = Faulty(token()), Gate()
    keeper = keeping(face, face.fetcher(Success(NEW)), storage=storage, storage_timeout=0.05)
    for operation, method, expected in (
        ("read", "get_valid_token", Success(token())),
        ("try_lock", "force_refresh", Success(NEW)),
        ("swap", "sign_out", Success(None)),
    ):
        gate = Gate()
        storage.faults = {operation: gate}
        assert keeper.call(method) == Failure(TokenStorageFailed(operation, TimeoutError()))
        gate.open()
        keeper.settle()
        storage.faults = {}
        assert keeper.call(method) == expected


def test_a_lock_that_another_process_holds_for_ever_is_over_in_time(async_face: AsyncFace) -> None:
    storage = MemoryTokenStorage()
    storage.try_lock(1e9)
    refresh = async_face.fetcher(Success(NEW))
    keeper = signed_in(async_face, refresh, storage=storage, refresh_timeout=30)

    assert keeper.call("get_valid_token") == Failure(RefreshTimedOut(30.0))
    assert async_face.clock() == NOW + 30
    assert refresh.calls == 0


def test_a_refresher_that_is_cancelled_fails_and_the_keeper_lives_on(async_face: AsyncFace) -> None:
    refresh = async_face.fetcher(asyncio.CancelledError(), Success(NEW))
    keeper = signed_in(async_face, refresh)

    failure = keeper.call("get_valid_token").failure()
    assert type(failure) is RefreshFailed
    assert type(failure.error).__name__ == "RefresherCancelled"
    assert keeper.call("get_valid_token") == Success(NEW)


def test_a_refresh_whose_task_is_cancelled_is_begun_anew(async_face: AsyncFace) -> None:
    refresh = async_face.fetcher(Success(NEW), takes=5.0)
    keeper = signed_in(async_face, refresh)
    waiting = keeper.begin.call("get_valid_token")
    assert len(keeper.cache._tasks) == 2
    for task in tuple(keeper.cache._tasks):
        task.cancel()

    assert waiting.result() == Success(NEW)
    assert refresh.calls == 2


def test_what_ends_a_program_passes_through_a_thread(sync_face: SyncFace) -> None:
    refresh = sync_face.fetcher(KeyboardInterrupt(), Success(NEW))
    keeper = signed_in(sync_face, refresh)
    with pytest.raises(KeyboardInterrupt):
        keeper.call("get_valid_token")

    assert keeper.call("get_valid_token") == Success(NEW)


def test_a_keeper_may_be_used_in_one_loop_after_the_other() -> None:
    async def refresh(_: Token) -> Result[Token, str]:
        await asyncio.sleep(1)
        return Success(NEW)

    keeper = TokenKeeper(refresh, clock=lambda: NOW)

    async def first() -> None:
        await keeper.set_tokens(OLD)
        task = asyncio.ensure_future(keeper.get_valid_token())
        await asyncio.sleep(0.5)
        task.cancel()  # The loop ends with the refresh under way.

    run(first())
    assert run(keeper.get_valid_token()) == Success(NEW)


def test_a_keeper_in_two_loops_at_once_refreshes_once() -> None:
    """The one who did not begin it is woken in its own loop."""
    gate, calls = threading.Event(), []

    async def refresh(old: Token) -> Result[Token, str]:
        calls.append(old)
        await asyncio.to_thread(gate.wait, 10.0)
        return Success(NEW)

    keeper = TokenKeeper(refresh, clock=lambda: NOW)
    in_real_time(sign_in(keeper))
    answers: list[object] = []
    threads = [threading.Thread(target=lambda: answers.append(asyncio.run(keeper.get_valid_token()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    while not keeper.is_refreshing:
        pass
    gate.set()
    for thread in threads:
        thread.join(10.0)

    assert answers == [Success(NEW)] * 2
    assert calls == [OLD]


async def sign_in(keeper: TokenKeeper) -> None:
    assert await keeper.set_tokens(OLD) == Success(OLD)


class OwnedLock:
    """A lock that knows which thread holds it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.owner: int | None = None

    def acquire(self, timeout: float = -1) -> bool:
        got = self._lock.acquire(timeout=timeout)
        if got:
            self.owner = threading.get_ident()
        return got

    def release(self) -> None:
        self.owner = None
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Curious:
    """Everything that a user brings, each part noting whether the keeper's lock was held as it was called."""

    def __init__(self) -> None:
        self.keeper: Any = None
        self.held: list[str] = []
        self.called: set[str] = set()

    def note(self, what: str) -> None:
        self.called.add(what)
        if self.keeper.cache._runtime._lock.owner == threading.get_ident():
            self.held.append(what)

    def clock(self) -> float:
        self.note("clock")
        return NOW

    def unauthorized(self, error: object) -> bool:
        self.note("predicate")
        return error == 401

    def refreshed(self, _: Token) -> Result[Token, str]:
        self.note("refresher")
        return Success(token("b1", "bob", lives=2 * HOUR))

    def listen(self, subject: str | None) -> None:
        self.note(f"listener of {subject}")


def test_nothing_of_the_users_runs_under_the_lock(face: Face) -> None:
    user, storage = Curious(), Faulty()
    for operation in ("read", "swap", "try_lock"):
        storage.faults[operation] = lambda _, operation=operation: user.note(operation)  # type: ignore[misc]
    user.keeper = keeping(
        face, face.fetcher(user.refreshed), storage=storage, clock=user.clock, unauthorized=user.unauthorized
    )
    user.keeper.cache._runtime._lock = OwnedLock()
    user.keeper.cache.on_identity(user.listen)
    user.keeper.call("set_tokens", token())
    user.keeper.call("with_valid_token", action(face, rejecting("a1")))
    user.keeper.call("sign_out")

    listeners = {f"listener of {subject}" for subject in ("ada", "bob", None)}
    assert user.called == {"clock", "predicate", "refresher", "read", "swap", "try_lock", *listeners}
    assert user.held == []
