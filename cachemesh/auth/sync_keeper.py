"""`SyncTokenKeeper`: the same as `TokenKeeper`, for threads."""

from __future__ import annotations

import threading
import time
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

from returns.result import Failure, Result, Success

from cachemesh.auth.daemons import DAEMONS, MOST_CALLS, DaemonExecutor, aside, caught
from cachemesh.auth.errors import TokenError, TokenNotRefreshable
from cachemesh.auth.forks import watch
from cachemesh.auth.runtime import RAN_OUT, Answer, Blocking, Live, Pausing, Request, Runtime, Script
from cachemesh.auth.settings import KeeperOptions, KeeperSettings
from cachemesh.auth.skip import is_refreshing, refreshing
from cachemesh.auth.verdicts import Raised
from cachemesh.core.tokens import Held, may_follow

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from types import TracebackType

    from typing_extensions import Unpack

    from cachemesh.auth.events import Mailbox, TokenEvent
    from cachemesh.auth.ports import SyncRefresher
    from cachemesh.auth.token import Token

T = TypeVar("T")
E = TypeVar("E")
N = TypeVar("N")


class SyncTokenKeeper:
    """`TokenKeeper` for threads: the same settings, answers and promises.

    A refresh runs in a daemon thread, in the context of whoever needed it; one
    that hangs is left behind when its time is up, and if it does bring a token
    later, that is stored, provided that nothing else has been meanwhile. The
    child of a fork goes on with what was known; what was under way is its parent's.

    >>> from cachemesh.auth import Token
    >>> def refresh(token: Token) -> Result[Token, str]:
    ...     return Success(Token(access_token="n3w", refresh_token="r", expires_at=2e9))
    >>> def me(access_token: str) -> Result[str, int]:
    ...     return Success("Ada") if access_token == "n3w" else Failure(401)
    >>> with SyncTokenKeeper(refresh, clock=lambda: 1e9) as keeper:
    ...     signed_in = keeper.set_tokens(Token(access_token="0ld", refresh_token="r"))
    ...     print(keeper.with_valid_token(me))
    <Success: Ada>
    """

    def __init__(
        self,
        refresher: SyncRefresher[Any],
        **options: Unpack[KeeperOptions],
    ) -> None:
        settings = KeeperSettings.model_validate(options)
        self._refresher = refresher
        self._sleep: Callable[[float], object] = getattr(settings.clock, "sleep", time.sleep)
        self._runtime = Runtime(settings, refresher, time.monotonic, self._launch, aside)
        self._threads: set[threading.Thread] = set()
        self._threads_lock = threading.Lock()
        self._storage_calls = DaemonExecutor(MOST_CALLS)
        watch(self)

    def after_fork(self) -> None:
        """In the child, which has none of them."""
        self._threads = set()
        self._threads_lock = threading.Lock()

    def with_valid_token(self, action: Callable[[str], Result[T, E]], /) -> Result[T, E | TokenError]:
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
            got = self._got(runtime.token_wanted)
            if type(got) is not Held:
                return Failure(cast("TokenError", got))
            held, text = got, got.token.access_token
        answer = action(text)
        if type(answer) is Success or not runtime.is_rejected(answer):
            return answer
        other = self.instead_of(held)
        if other is None:
            return answer
        if type(other) is not Held:
            return Failure(cast("TokenError", other))
        return action(other.token.access_token)

    def get_valid_token(self) -> Result[Token, TokenError]:
        """A token that has not expired: refreshed if it must be, once for all who ask."""
        return _answered(self._got(self._runtime.token_wanted))

    def held(self) -> Held | TokenError:
        """What `get_valid_token` answers, with what is known of it: for `instead_of`."""
        return self._got(self._runtime.token_wanted)

    def instead_of(self, held: Held) -> Held | TokenError | None:
        """A better token, since an origin has refused `held`: refreshed, if nobody has done that meanwhile.

        None: there is none to try again with. Nothing can be refreshed, or somebody else has signed in.
        """
        other = self._got(partial(self._runtime.rejected, held.version))
        if type(other) is TokenNotRefreshable or (type(other) is Held and not may_follow(held, other)):
            return None
        return other

    def force_refresh(self) -> Result[Token, TokenError]:
        """A new token, however good the present one is. Joins a refresh that is under way."""
        return _answered(self._got(self._runtime.forced))

    def peek(self) -> Result[Token, TokenError]:
        """The token as it is, expired or not; `NotSignedIn` where there is none. Nothing is refreshed."""
        return _answered(self._got(self._runtime.peek))

    def set_tokens(self, token: Token) -> Result[Token, TokenError]:
        """Sign in: `token` is stored, and used from now on. A refresh under way changes nothing any more."""
        told = self._ordered(token)
        return Success(token) if told is None else Failure(told)

    def sign_out(self) -> Result[None, TokenError]:
        """There is no token any more, and one that is being refreshed will not be used.

        `TokenStorageFailed`: nobody uses it here, but it may still be in the storage.
        """
        told = self._ordered(None)
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

        As for `TokenKeeper`; from whatever thread brings the token.
        """
        return self._runtime.on_identity(callback)

    def events(self) -> SyncTokenStream[TokenEvent]:
        """What happens from now on. For a slow listener the oldest of 256 go."""
        mailbox = self._runtime.mailbox(wants_tokens=False)
        self._runtime.listen(mailbox)
        return SyncTokenStream(self, mailbox)

    def token_stream(self) -> SyncTokenStream[Token | None]:
        """The present token, and each that takes its place; None for none. A slow listener gets the newest."""
        return SyncTokenStream(self, self._runtime.mailbox(wants_tokens=True))

    def check(self, window_s: float) -> Result[Token, TokenError]:
        """The token, refreshed if it expires within `window_s`: what a timer asks for."""
        return _answered(self._got(partial(self._runtime.timer_due, window_s)))

    def close(self) -> None:
        """Hand out no token any more, and wait until a refresh that is under way is stored. Streams end.

        A refresher that closes its own keeper does not wait.
        """
        self._runtime.close()
        if is_refreshing(self):
            return
        until = time.monotonic() + self._runtime.settings.patience_s
        with self._threads_lock:
            threads = tuple(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SyncTokenKeeper(subject={self.subject!r})"

    # Waiting

    def _got(self, ask: Callable[[], Answer]) -> Held | TokenError:
        while True:
            answer = ask()
            if type(answer) is not Live:
                return cast("Held | TokenError", answer)
            self._wait(answer)
            told = self._runtime.told(answer)
            if told is not None:
                return told

    def _ordered(self, token: Token | None) -> TokenError | None:
        answer = self._runtime.ordered(token)
        if type(answer) is not Live:
            return cast("TokenError", answer)
        self._wait(answer)
        return self._runtime.told_of_order(answer)

    def _wait(self, live: Live) -> None:
        """Wait until `live` is over, or for longer than anything takes. Raises what has ended its thread."""
        over = threading.Event()
        if self._runtime.join(live, over, over.set):
            try:
                over.wait(self._runtime.settings.patience_s)
            finally:
                self._runtime.leave(live, over)
        crash = self._runtime.crash_of(live)
        if crash is not None:
            raise crash

    # Performing

    def _launch(self, live: Live, script: Script) -> None:
        context = copy_context()
        thread = threading.Thread(
            target=context.run, args=(self._perform, live, script), name="cachemesh-token", daemon=True
        )
        with self._threads_lock:
            self._threads = {each for each in self._threads if each.is_alive()} | {thread}
            try:
                thread.start()
            except RuntimeError:  # There is no room for another thread, or the program ends.
                self._threads.discard(thread)
                thread = None  # type: ignore[assignment]  # whoever asked runs it
        if thread is None:
            self._perform(live, script)

    def _perform(self, live: Live, script: Script) -> None:
        got: Any = None
        try:
            while True:
                try:
                    request = script.send(got)
                except StopIteration:
                    return
                got = self._performed(request)
        except BaseException as crash:  # noqa: BLE001 (raised again by one of those who wait)
            live.crash = crash
        finally:
            script.close()
            self._runtime.ended(live)

    def _performed(self, request: Request) -> object:
        settings = self._runtime.settings
        if type(request) is Pausing:
            (_pause if request.polls else self._sleep)(request.seconds)
            return None
        if type(request) is Blocking:
            if settings.storage.is_near:
                return caught(request.act)
            return _within(self._storage_calls, settings.storage_timeout, partial(caught, request.act), request.late)
        assert not isinstance(request, Blocking | Pausing)
        context = copy_context()
        context.run(request.enter)
        call = partial(self._refreshed, request.token)
        return _within(DAEMONS, request.timeout_s, partial(context.run, caught, call), request.late)

    def _refreshed(self, token: Token) -> object:
        with refreshing(self):
            return self._refresher(token)


class SyncTokenStream(Generic[N]):
    """What a keeper tells, as an iterator that blocks. It ends with the keeper, and with `close`."""

    def __init__(self, keeper: SyncTokenKeeper, mailbox: Mailbox) -> None:
        self._runtime = keeper._runtime  # noqa: SLF001 (its own stream)
        self._restored = keeper.peek
        self._mailbox = mailbox
        self._has_begun = not mailbox.wants_tokens

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> N:
        mailbox = self._mailbox
        if not self._has_begun:
            self._restored()
            self._has_begun = True  # Not before: Ctrl-C may end this.
            if not mailbox.is_ended:
                self._runtime.listen(mailbox)
        while True:
            bell = threading.Event()
            mailbox.ring = bell.set
            for item in mailbox.take():
                return cast("N", item)
            if mailbox.is_ended:
                raise StopIteration
            bell.wait()

    def close(self) -> None:
        """End it."""
        self._runtime.end(self._mailbox)


def _within(
    executor: DaemonExecutor, seconds: float, call: Callable[[], Any], late: Callable[[object], None] | None
) -> object:
    """What `call` brings; `RAN_OUT` where it takes longer: then `late` takes that. Raises what ends a program."""
    try:
        future = executor.submit(call)
    except (RuntimeError, TimeoutError) as error:  # There is no room for another thread.
        return Raised(error)
    try:
        return future.result(timeout=seconds)
    except TimeoutError:
        if late is not None:
            future.add_done_callback(partial(_late, late))
        return RAN_OUT


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def _late(take: Callable[[object], None], call: Future[Any]) -> None:
    if call.exception() is None:
        take(call.result())


def _answered(got: Held | TokenError) -> Result[Token, TokenError]:
    return Success(got.token) if type(got) is Held else Failure(cast("TokenError", got))
