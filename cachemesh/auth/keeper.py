"""`TokenKeeper`: a token for all tasks of an event loop, valid when it is used, refreshed once when it is not."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

from returns.result import Failure, Result, Success

from cachemesh.auth.daemons import MOST_CALLS, DaemonExecutor, aside, caught
from cachemesh.auth.errors import TokenError, TokenNotRefreshable
from cachemesh.auth.runtime import RAN_OUT, Answer, Blocking, Live, Pausing, Refreshing, Request, Runtime, Script
from cachemesh.auth.settings import KeeperOptions, KeeperSettings
from cachemesh.auth.skip import is_refreshing, refreshing
from cachemesh.auth.verdicts import Raised
from cachemesh.core.tokens import Held, may_follow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from typing_extensions import Unpack

    from cachemesh.auth.events import Mailbox, TokenEvent
    from cachemesh.auth.ports import Refresher
    from cachemesh.auth.token import Token

T = TypeVar("T")
E = TypeVar("E")
N = TypeVar("N")


class TokenKeeper:
    """Keeps a token, and has it refreshed by `refresher`, once for all who need it, here and in other processes.

    `storage`: where the token lives; processes that share one share the token.
    `proactive_window`: so long before it expires a token that is used is
    refreshed as well, behind whoever uses it. `leeway`: it counts as expired so
    long before it is, for clocks that differ. Of what a refresh brings, neither
    takes more than half of its life. `refresh_timeout`: a refresh, its
    retries and the wait for another process's included, takes so long at most;
    `storage_timeout`: so does each call of the storage. `retry`: how often the
    refresher is called for one refresh; what is refused for good (unauthorized,
    `invalid_grant`) is not tried again. `clock`: seconds since the epoch.
    `unauthorized`: whether an error says that the token was rejected; left out,
    one does that has a true `is_unauthorized`, or 401 as its `status` or
    `code`, or is 401. `logger` hears what went wrong without costing an answer.
    Durations are seconds, timedeltas, or such as "5m". A setting that makes no
    sense raises pydantic's `ValidationError`.

    Every answer is a `Result`; its failures are `TokenError`s. A refreshed token
    is used once it is stored. Signing in and out win over a refresh under way.

    A keeper belongs to one event loop at a time. One whose loop has ended may be
    used in the next. From two loops at once it loses nothing, but a refresh
    runs in the loop that began it: if that ends or stands still, those who wait
    in the other one begin anew, or wait until their time is up.

    >>> import asyncio
    >>> from cachemesh.auth import Token
    >>> async def refresh(token: Token) -> Result[Token, str]:
    ...     return Success(Token(access_token="n3w", refresh_token="r", expires_at=2e9))
    >>> async def me(access_token: str) -> Result[str, int]:
    ...     return Success("Ada") if access_token == "n3w" else Failure(401)
    >>> async def main() -> Result[str, int | TokenError]:
    ...     async with TokenKeeper(refresh, clock=lambda: 1e9) as keeper:
    ...         await keeper.set_tokens(Token(access_token="0ld", refresh_token="r"))
    ...         return await keeper.with_valid_token(me)
    >>> asyncio.run(main())
    <Success: Ada>
    """

    def __init__(
        self,
        refresher: Refresher[Any],
        **options: Unpack[KeeperOptions],
    ) -> None:
        settings = KeeperSettings.model_validate(options)
        self._refresher: Callable[[Token], Any] = refresher
        self._runtime = Runtime(settings, refresher, _monotonic, self._launch, aside)
        self._tasks: set[asyncio.Future[Any]] = set()
        self._storage_calls = DaemonExecutor(MOST_CALLS)

    async def with_valid_token(self, action: Callable[[str], Awaitable[Result[T, E]]], /) -> Result[T, E | TokenError]:
        """What `action` answers to a valid access token.

        Where it answers "unauthorized", the token is refreshed, if nobody has
        done that meanwhile, and `action` is run once more; not with the token
        of another user. Fails with a `TokenError` where there is no token to be
        had. What `action` raises is raised.
        """
        runtime = self._runtime
        plain = runtime.plain
        if plain is not None and runtime.now() < plain[0]:
            _, text, held = plain
        else:
            got = await self._got(runtime.token_wanted)
            if type(got) is not Held:
                return Failure(cast("TokenError", got))
            held, text = got, got.token.access_token
        answer = await action(text)
        if type(answer) is Success or not runtime.is_rejected(answer):
            return answer
        other = await self.instead_of(held)
        if other is None:
            return answer
        if type(other) is not Held:
            return Failure(cast("TokenError", other))
        return await action(other.token.access_token)

    async def get_valid_token(self) -> Result[Token, TokenError]:
        """A token that has not expired: refreshed if it must be, once for all who ask."""
        return _answered(await self._got(self._runtime.token_wanted))

    async def held(self) -> Held | TokenError:
        """What `get_valid_token` answers, with what is known of it: for `instead_of`."""
        return await self._got(self._runtime.token_wanted)

    async def instead_of(self, held: Held) -> Held | TokenError | None:
        """A better token, since an origin has refused `held`: refreshed, if nobody has done that meanwhile.

        None: there is none to try again with. Nothing can be refreshed, or somebody else has signed in.
        """
        other = await self._got(partial(self._runtime.rejected, held.version))
        if type(other) is TokenNotRefreshable or (type(other) is Held and not may_follow(held, other)):
            return None
        return other

    async def force_refresh(self) -> Result[Token, TokenError]:
        """A new token, however good the present one is. Joins a refresh that is under way."""
        return _answered(await self._got(self._runtime.forced))

    async def peek(self) -> Result[Token, TokenError]:
        """The token as it is, expired or not; `NotSignedIn` where there is none. Nothing is refreshed."""
        return _answered(await self._got(self._runtime.peek))

    async def set_tokens(self, token: Token) -> Result[Token, TokenError]:
        """Sign in: `token` is stored, and used from now on. A refresh under way changes nothing any more."""
        told = await self._ordered(token)
        return Success(token) if told is None else Failure(told)

    async def sign_out(self) -> Result[None, TokenError]:
        """There is no token any more, and one that is being refreshed will not be used.

        `TokenStorageFailed`: nobody uses it here, but it may still be in the storage.
        """
        told = await self._ordered(None)
        return Success(None) if told is None else Failure(told)

    clear = sign_out

    @property
    def is_refreshing(self) -> bool:
        """Whether a refresh is under way in this process."""
        return self._runtime.is_refreshing

    @property
    def subject(self) -> str | None:
        """Whose token it is, as far as that is known by now."""
        return self._runtime.subject

    def on_identity(self, callback: Callable[[str | None], object]) -> Callable[[], None]:
        """Call `callback` with the new subject before a token of another identity can be used; None: of nobody.

        That is at a sign-in and a sign-out, and where a refresh or another
        process brings a token of somebody else. A token without a `sub` makes
        nobody known: it is told of when it is taken away, or another sign-in
        replaces it. The callback must not wait for the keeper, which waits for
        it. One that raises hinders nobody. The answer ends it.
        """
        return self._runtime.on_identity(callback)

    def events(self) -> TokenStream[TokenEvent]:
        """What happens from now on. For a slow listener the oldest of 256 go."""
        mailbox = self._runtime.mailbox(wants_tokens=False)
        self._runtime.listen(mailbox)
        return TokenStream(self, mailbox)

    def token_stream(self) -> TokenStream[Token | None]:
        """The present token, and each that takes its place; None for none. A slow listener gets the newest."""
        return TokenStream(self, self._runtime.mailbox(wants_tokens=True))

    async def aclose(self) -> None:
        """Hand out no token any more, and wait until a refresh that is under way is stored. Streams end.

        A refresher that closes its own keeper does not wait.
        """
        self._runtime.close()
        if is_refreshing(self):
            return
        loop = asyncio.get_running_loop()
        tasks = [each for each in self._tasks if each.get_loop() is loop and each is not asyncio.current_task()]
        if tasks:
            await asyncio.wait(tasks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"TokenKeeper(subject={self.subject!r})"

    async def check(self, window_s: float) -> Result[Token, TokenError]:
        """The token, refreshed if it expires within `window_s`: what a timer asks for."""
        return _answered(await self._got(partial(self._runtime.timer_due, window_s)))

    # Waiting

    async def _got(self, ask: Callable[[], Answer]) -> Held | TokenError:
        while True:
            answer = ask()
            if type(answer) is not Live:
                return cast("Held | TokenError", answer)
            await self._wait(answer)
            told = self._runtime.told(answer)
            if told is not None:
                return told

    async def _ordered(self, token: Token | None) -> TokenError | None:
        answer = self._runtime.ordered(token)
        if type(answer) is not Live:
            return cast("TokenError", answer)
        await self._wait(answer)
        return self._runtime.told_of_order(answer)

    async def _wait(self, live: Live) -> None:
        """Wait until `live` is over, or for longer than anything takes. Raises what has ended its task."""
        over = _Bell()
        if self._runtime.join(live, over, over.ring):
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._runtime.settings.patience_s):
                        await over.rung
            finally:
                self._runtime.leave(live, over)
        crash = self._runtime.crash_of(live)
        if crash is not None:
            raise crash

    # Performing

    def _launch(self, live: Live, script: Script) -> None:
        loop = asyncio._get_running_loop()  # noqa: SLF001 (documented for libraries)
        if loop is None:  # A loop has ended with something under way. Who waits for this begins anew in time.
            script.close()
            return
        task = loop.create_task(self._perform(live, script), name="cachemesh-token")
        self._tasks.add(task)
        task.add_done_callback(partial(self._done, live))

    def _done(self, live: Live, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._runtime.ended(live)  # It may have been cancelled before it began.

    async def _perform(self, live: Live, script: Script) -> None:
        got: Any = None
        try:
            while True:
                try:
                    request = script.send(got)
                except StopIteration:
                    return
                got = await self._performed(request)
        except Exception as crash:  # noqa: BLE001 (raised again by one of those who wait)
            live.crash = crash
        finally:
            script.close()
            self._runtime.ended(live)

    async def _performed(self, request: Request) -> object:
        settings = self._runtime.settings
        if type(request) is Pausing:
            await asyncio.sleep(request.seconds)
            return None
        if type(request) is Blocking:
            if settings.storage.is_near:
                return caught(request.act)
            try:
                call = asyncio.get_running_loop().run_in_executor(self._storage_calls, caught, request.act)
            except (RuntimeError, TimeoutError) as error:  # There is no room for another thread.
                return Raised(error)
            return await _within(settings.storage_timeout, call, request.late)
        assert not isinstance(request, Blocking | Pausing)
        task = asyncio.ensure_future(self._refreshed(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        got: object = RAN_OUT
        try:
            got = await _within(request.timeout_s, task, request.late)
        finally:
            if got is RAN_OUT:
                task.cancel()
        return got

    async def _refreshed(self, request: Refreshing) -> object:
        request.enter()
        try:
            with refreshing(self):
                got = self._refresher(request.token)
                return await got if isawaitable(got) else got
        except Exception as error:  # noqa: BLE001 (a refresher of the user's)
            return Raised(error)


class RefresherCancelled(Exception):
    """The refresher was cancelled, and not by the keeper."""


class TokenStream(Generic[N]):
    """What a keeper tells, as an asynchronous iterator. It ends with the keeper, and with `aclose`."""

    def __init__(self, keeper: TokenKeeper, mailbox: Mailbox) -> None:
        self._runtime = keeper._runtime  # noqa: SLF001 (its own stream)
        self._restored = keeper.peek
        self._mailbox = mailbox
        self._has_begun = not mailbox.wants_tokens

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> N:
        mailbox = self._mailbox
        if not self._has_begun:
            await self._restored()
            self._has_begun = True  # Not before: this may be cancelled.
            if not mailbox.is_ended:
                self._runtime.listen(mailbox)
        while True:
            bell = _Bell()
            mailbox.ring = bell.ring
            for item in mailbox.take():
                return cast("N", item)
            if mailbox.is_ended:
                raise StopAsyncIteration
            await bell.rung

    async def aclose(self) -> None:
        """End it."""
        self._runtime.end(self._mailbox)


class _Bell:
    """Wakes a task, from whatever thread."""

    __slots__ = ("_loop", "rung")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.rung: asyncio.Future[None] = self._loop.create_future()

    def ring(self) -> None:
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001 (documented for libraries)
            self._wake()
        else:
            with suppress(RuntimeError):  # The loop has been closed: nobody waits.
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if not self.rung.done():
            self.rung.set_result(None)


def _answered(got: Held | TokenError) -> Result[Token, TokenError]:
    return Success(got.token) if type(got) is Held else Failure(cast("TokenError", got))


async def _within(seconds: float, future: asyncio.Future[Any], late: Callable[[object], None] | None) -> object:
    """What `future` brings; `RAN_OUT` where it takes longer. Then, as when nobody waits for it, it goes to `late`."""
    try:
        await asyncio.wait({future}, timeout=seconds)
    finally:
        if late is not None and not future.done():
            future.add_done_callback(partial(_late, late))
    if not future.done():
        return RAN_OUT
    return Raised(RefresherCancelled()) if future.cancelled() else future.result()


def _late(take: Callable[[object], None], call: asyncio.Future[Any]) -> None:
    if not call.cancelled() and call.exception() is None:
        take(call.result())


def _monotonic() -> float:
    """What the timers of the running loop go by; while it is virtual, so is this."""
    loop = asyncio._get_running_loop()  # noqa: SLF001 (documented for libraries)
    return time.monotonic() if loop is None else loop.time()
