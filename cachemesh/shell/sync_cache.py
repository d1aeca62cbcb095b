"""`SyncCache`, the face for threads."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from returns.result import Failure, Result, Success

from cachemesh.core.model import RefreshSource
from cachemesh.core.policies import SERVE, CachePolicy
from cachemesh.core.scopes import CacheScope, visible_owners
from cachemesh.errors import CacheClosed, CacheError, NoActiveUser, NoTokenKeeper
from cachemesh.shell.authenticated import AuthenticatedFetch, answering_results, refusing
from cachemesh.shell.call import NO_OPTIONS, Call, FetchOptions, GetOptions, call_of, reads_plainly, spelled_out
from cachemesh.shell.default import DEFAULT, Default
from cachemesh.shell.face import NO_PLAIN_HITS, Face, bad_read
from cachemesh.shell.identity import followed
from cachemesh.shell.live import Boarding
from cachemesh.shell.many import loading, no_conditional, sort_in
from cachemesh.shell.options import BreakerOptions, RetryOptions
from cachemesh.shell.provenance import Refused, Served, Trace
from cachemesh.shell.runtime import Runtime
from cachemesh.shell.settings import DEFAULT_BREAKERS, Settings
from cachemesh.shell.thread_batch import ThreadBatch
from cachemesh.shell.thread_driver import ThreadDomain
from cachemesh.shell.thread_watch import SyncWatch
from cachemesh.shell.warm_start import Scannable, WarmStart

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Self

    from cachemesh.core import commands
    from cachemesh.shell.durations import Duration, Ttl
    from cachemesh.shell.lifetime import Lifetime
    from cachemesh.shell.live import Plan
    from cachemesh.shell.logging import CacheLogger
    from cachemesh.shell.outcomes import Answer
    from cachemesh.shell.ports import (
        Clock,
        Store,
        SyncFetcher,
        SyncFetchMany,
        SyncTokenFetcher,
        SyncTokenKeeperAdapter,
    )
    from cachemesh.shell.recording import CommandRecorder

T = TypeVar("T")
E = TypeVar("E")


class SyncCache(Face):
    """A Result-first cache for threads: `Cache` without `await`, thread-safe. A hit takes no lock.

    The settings are those of `Cache`. The thread that starts a fetch runs it;
    those that ask for the same key meanwhile wait for it. Background refreshes,
    fetches that are begun with a timeout, and callbacks run in daemon threads. A `clock` that has a `sleep(seconds)`
    method is also what retries wait with.

    >>> from returns.result import Success
    >>> with SyncCache() as cache:
    ...     cache.get("user:42", lambda: Success({"name": "Ada"}), ttl=300)
    <Success: {'name': 'Ada'}>
    """

    __slots__ = ("__weakref__", "_domain", "_recorder")

    def __init__(
        self,
        *,
        store: Store | None = None,
        default_ttl: Ttl | Lifetime = None,
        clock: Clock | None = None,
        logger: CacheLogger | None = None,
        retry: RetryOptions = RetryOptions.NO_RETRY,
        cache_failures: bool = False,
        token_keeper: SyncTokenKeeperAdapter | None = None,
        max_entries: int | None = 65_536,
        max_flight_age: Duration | None = None,
        breakers: BreakerOptions | Mapping[str, BreakerOptions] = DEFAULT_BREAKERS,
        copy_on_read: bool | Callable[[Any], Any] = False,
        freeze: Callable[[Any], Any] | None = None,
        rng: random.Random | None = None,
        schemas: tuple[Any, ...] = (),
        warm_start: bool = False,
        recorder: CommandRecorder | None = None,
    ) -> None:
        settings = Settings(
            default_ttl=default_ttl,
            retry=retry,
            cache_failures=cache_failures,
            max_entries=max_entries,
            max_flight_age=max_flight_age,
            breakers=breakers,
            copy_on_read=copy_on_read,
            freeze=freeze,
            rng=rng,
            schemas=schemas,
            warm_start=warm_start,
            is_browsable=isinstance(store, Scannable),
        )
        runtime = Runtime(settings, store=store, clock=clock, logger=logger, recorder=recorder)
        super().__init__(runtime, token_keeper, None)
        self._domain = ThreadDomain(self._runtime)
        if settings.warm_start and isinstance(store, Scannable):
            self._domain.warm_up(WarmStart(self._runtime, store))
        self._recorder = recorder
        self._identity = followed(self, token_keeper)

    @spelled_out(GetOptions)
    def get(
        self,
        key: str,
        fetch: SyncFetcher[T, E],
        *,
        policy: CachePolicy = CachePolicy.CACHE_FIRST,
        ttl: Ttl | Lifetime | Default = DEFAULT,
        **options: Unpack[GetOptions],
    ) -> Result[T, E | CacheError]:
        """The value under `key`, from the cache or from `fetch`, as `policy` decides.

        `ttl`: how long a value fetched by this call stays fresh, in seconds or
        as a timedelta, or a `Lifetime`; a hit does not look at it. The other
        options are those of `GetOptions`.

        All who ask for a key at the same time share one fetch; a caller who is
        cancelled takes no one down. A fetcher may return `Success(Fresh(...))`,
        `Success(DoNotCache(...))` and, where it is `conditional` and is handed a
        `Previous`, `Success(NotModified())`. Failures: what `fetch` failed with,
        as it is; `FetchRaised`, `InvalidFetchResult`, `FetchTimeout`,
        `FetchCancelled`, `ReentrantFetch`, `CircuitOpen`; `CacheMiss` and
        `CacheExpired` from cache_only; `NoActiveUser`; `InvalidKey`,
        `InvalidTtl`, `InvalidOption`; `ValueNotCopied`; `CacheClosed`.
        """
        if not options or reads_plainly(options):
            try:
                if policy.fresh is SERVE:
                    resident = self._plain.get(key)
                    if resident is not None and resident.hit_until > monotonic():
                        if resident.visits < 3:  # noqa: PLR2004 (MAX_VISITS: a constant is cheaper)
                            resident.visits += 1
                        return resident.answer
            except Exception:  # noqa: BLE001, S110 (a key or policy of the wrong type is named by the checks below)
                pass
        answer = self._get(key, fetch, policy, ttl, call_of(options))
        return self._runtime.values.given(key, answer)

    @spelled_out(GetOptions)
    def get_served(
        self,
        key: str,
        fetch: SyncFetcher[T, E],
        *,
        policy: CachePolicy = CachePolicy.CACHE_FIRST,
        ttl: Ttl | Lifetime | Default = DEFAULT,
        **options: Unpack[GetOptions],
    ) -> Result[Served[T], Refused[E | CacheError]]:
        """`get`, with where the answer came from, how old it is, and the rows of the policy that decided."""
        trace = Trace()
        answer = self._get(key, fetch, policy, ttl, call_of(options), trace)
        return trace.result(answer, self._runtime.time.now(), self._runtime.values.given(key, answer))

    @spelled_out(GetOptions)
    def get_many(
        self,
        keys: Iterable[str],
        fetch_many: SyncFetchMany[T, E],
        *,
        policy: CachePolicy = CachePolicy.CACHE_FIRST,
        ttl: Ttl | Lifetime | Default = DEFAULT,
        **options: Unpack[GetOptions],
    ) -> dict[str, Result[T, E | CacheError]]:
        """`get` for each of `keys`, in their order, with one call of `fetch_many` for all that are to be fetched.

        `fetch_many` is handed those keys and answers a `Result` for each; a
        `Failure` in place of the mapping is everybody's, and a key it leaves out
        has `InvalidFetchResult`. It shares fetches with single gets, and each
        key is cached, retried and refused on its own. A key that is no str has
        `InvalidKey` as its answer.
        """
        answers: dict[str, Any] = dict.fromkeys(keys)
        missing: Iterable[str] = answers
        if reads_plainly(options) and type(policy) is CachePolicy and policy.fresh is SERVE:
            now, plain = monotonic(), self._plain
            left = []
            for key in answers:
                resident = plain.get(key)
                if resident is None or resident.hit_until <= now:
                    left.append(key)
                else:
                    if resident.visits < 3:  # noqa: PLR2004 (as in `get`)
                        resident.visits += 1
                    answers[key] = resident.answer
            missing = left
        if missing:
            answers.update(self._get_many(list(missing), fetch_many, policy, ttl, call_of(options)))
        return answers

    @spelled_out(GetOptions, Call(scope=CacheScope.USER))
    def get_authenticated(
        self,
        key: str,
        fetch: SyncTokenFetcher[T, E],
        *,
        policy: CachePolicy = CachePolicy.CACHE_FIRST,
        ttl: Ttl | Lifetime | Default = DEFAULT,
        **options: Unpack[GetOptions],
    ) -> Result[T, E | CacheError]:
        """`get` with a fetcher that is handed a valid token by the cache's token keeper.

        Once the keeper has refreshed the token within an attempt, a failure of
        that attempt is final: retries do not multiply with the keeper's own.
        Outside the user scope such a failure is not remembered. Failures: those
        of `get`, and `NoTokenKeeper`.
        """
        answer = self._authenticated_get(key, fetch, policy, ttl, options)
        return self._runtime.values.given(key, answer)

    @spelled_out(GetOptions, Call(scope=CacheScope.USER))
    def get_authenticated_served(
        self,
        key: str,
        fetch: SyncTokenFetcher[T, E],
        *,
        policy: CachePolicy = CachePolicy.CACHE_FIRST,
        ttl: Ttl | Lifetime | Default = DEFAULT,
        **options: Unpack[GetOptions],
    ) -> Result[Served[T], Refused[E | CacheError]]:
        """`get_authenticated`, with what `get_served` tells of an answer."""
        trace = Trace()
        answer = self._authenticated_get(key, fetch, policy, ttl, options, trace)
        return trace.result(answer, self._runtime.time.now(), self._runtime.values.given(key, answer))

    @spelled_out(FetchOptions)
    def refresh(
        self,
        key: str,
        fetch: SyncFetcher[T, E],
        *,
        ttl: Ttl | Lifetime | Default = DEFAULT,
        **options: Unpack[FetchOptions],
    ) -> Result[T, E | CacheError]:
        """Fetch whatever is cached, store the value and tell the watchers. Joins a fetch of `key` that is under way.

        Failures: those of `get` that concern a fetch.
        """
        answer = self._refresh(RefreshSource.REFRESH, key, fetch, ttl, call_of(options))
        return self._runtime.values.given(key, answer)

    @spelled_out(FetchOptions)
    def prefetch(
        self,
        key: str,
        fetch: SyncFetcher[T, E],
        *,
        ttl: Ttl | Lifetime | Default = DEFAULT,
        **options: Unpack[FetchOptions],
    ) -> Result[T, E | CacheError]:
        """`refresh`, told to the logger as a warm-up."""
        answer = self._refresh(RefreshSource.PREFETCH, key, fetch, ttl, call_of(options))
        return self._runtime.values.given(key, answer)

    def watch(self, key: str, *, scope: CacheScope | None = None) -> SyncWatch[Any, Any]:
        """The news of `key`: stored values, failed fetches, removals (`Failure(CacheMiss)`).

        With no scope named, those of every partition that the caller sees now.
        An eviction is no news: the value did not become wrong. Where the user
        scope is named and nobody is signed in, the only news is
        `Failure(NoActiveUser)`.
        """
        bad = bad_read(key, scope)
        if bad is None:
            key = str.__str__(key)
        owners = () if bad else visible_owners(scope, self.active_user_id, self._viewer)
        return SyncWatch(self._runtime, owners, key, bad or NoActiveUser(key), self._domain.spawn)

    def for_user(self, user_id: str) -> SyncCache:
        """A view for a server that serves many users at once: the same cache, seen by one user.

        Its user and session scopes are this user's own, its global scope is
        everyone's. It is cheap: make one for each request.
        """
        if not isinstance(user_id, str):
            msg = f"a user id is a str, not {type(user_id).__name__}"
            raise TypeError(msg)
        view = SyncCache.__new__(SyncCache)
        Face.__init__(view, self._runtime, self._keeper, str.__str__(user_id), self._identity)
        view._domain = self._domain  # noqa: SLF001 (its own)
        view._recorder = self._recorder  # noqa: SLF001 (its own)
        return view

    def pause(self, seconds: float) -> None:
        """Wait as the cache's clock does."""
        self._runtime.time.sleep(seconds)

    def flush(self) -> Result[None, CacheError]:
        """Wait until the store has all that it was told, and a store on a disk would keep it if this process ended.

        `Failure(StoreFailed)` where it has missed something, `Failure(CacheClosed)`.
        """
        if self._runtime.is_closed:
            return Failure(CacheClosed())
        missed = self._domain.flush_store()
        return Success(None) if missed is None else Failure(missed)

    def close(self) -> None:
        """Stop: watches end, later calls answer `CacheClosed`.

        Waits a few seconds at the most for background fetches and for the
        store, which is closed as well if it is a shared one (it opens anew when
        it is used). Closing a view closes nothing.
        """
        if self._viewer is not None:
            return
        self._plain = NO_PLAIN_HITS
        if not self._runtime.is_closed:
            if self._identity is not None:
                self._identity.stop()
            for live in self._runtime.close():
                self._domain.release(live)
            self._domain.finish()
            if self._recorder is not None:
                self._runtime.close_recorder(self._recorder)

    def __enter__(self) -> Self:
        """Whoever the token keeper has a token of is the active user from now on, where it can tell."""
        self._known()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _get(
        self,
        key: str,
        fetch: Callable[..., Any],
        policy: CachePolicy,
        ttl: Ttl | Lifetime | Default,
        call: Call,
        trace: Trace | None = None,
    ) -> Answer:
        """The answer to a get that is no plain hit."""
        answer = self._board(key, fetch, policy, ttl, call, trace)
        return self._ride(answer) if type(answer) is Boarding else answer

    def _board(
        self,
        key: str,
        fetch: Callable[..., Any],
        policy: CachePolicy,
        ttl: Ttl | Lifetime | Default,
        call: Call,
        trace: Trace | None = None,
        batch: ThreadBatch | None = None,
    ) -> Answer | Boarding:
        """The answer to a get, or the flight to wait for. What is to be refreshed behind goes to `batch`, if any."""
        runtime, domain_id = self._runtime, self._domain.domain_id
        command = self._plain_get(key, policy, ttl, domain_id) if call is NO_OPTIONS else None
        if command is not None and trace is None and runtime.reads_plainly:
            return self._ask(command, fetch, runtime.default_plan, None, batch)
        plan = runtime.default_plan
        if command is None:
            asked = self._get_command(key, policy, ttl, call, domain_id)
            if isinstance(asked, Failure):
                return asked
            command, plan = asked
        answer = runtime.hit(command) if trace is None else None
        return self._ask(command, fetch, plan, trace, batch) if answer is None else answer

    def _known(self) -> CacheError | None:
        """Have the keeper look whose token it has. Why there is none, where it says so."""
        identity = self._identity
        if identity is None or identity.is_known:
            return None
        changes = identity.changes
        try:
            return identity.known(self._keeper.peek(), changes)
        except Exception as error:  # noqa: BLE001 (a keeper of somebody's own: with_valid_token will tell)
            self._runtime.tell_error("peek", error)
            return None

    def _authenticated_get(
        self,
        key: str,
        fetch: SyncTokenFetcher[T, E],
        policy: CachePolicy,
        ttl: Ttl | Lifetime | Default,
        options: GetOptions,
        trace: Trace | None = None,
    ) -> Answer:
        """The answer to a get with a token."""
        if self._keeper is None:
            return Failure(NoTokenKeeper(key))
        error = self._known()
        if error is not None and self._lacks_user(options):
            return Failure(error)
        call = self._authenticated(dict(options))
        fetched, refused = answering_results(fetch), answering_results(refusing(key))
        while True:
            authenticated = AuthenticatedFetch(self._keeper, fetched, refused, self._identity)
            answer = self._get(key, authenticated, policy, ttl, call, trace)
            if self._lacks_user(options) or not authenticated.joined_one_who_left(answer):
                return answer

    def _get_many(
        self,
        keys: list[str],
        fetch_many: Callable[..., Any],
        policy: CachePolicy,
        ttl: Ttl | Lifetime | Default,
        call: Call,
    ) -> dict[str, Answer]:
        """The answers to gets that are no plain hits. Their fetches are made together, once the store has been asked.

        This call's own loads and fetches come before it waits for others': of
        two calls, none ever waits for what the other has not set going.
        """
        if call.conditional:
            return no_conditional(keys)
        batch = ThreadBatch(fetch_many)
        answers: dict[str, Answer] = {}
        boarded: dict[str, Boarding] = {}
        try:
            for key in keys:
                sort_in(key, self._board(key, batch.fetch, policy, ttl, call, batch=batch), answers, boarded)
            while boarded:
                loads = loading(boarded)
                if loads:
                    self._ride_together(loads, batch, answers, boarded)
                    continue
                self._launch_behind(batch)
                led = [boarding.live for boarding in boarded.values() if boarding.leads]
                if led:
                    self._domain.set_going_together(batch, led)
                self._ride_together(list(boarded), batch, answers, boarded)
        except BaseException:
            self._domain.abandon(boarded.values())
            raise
        finally:
            self._launch_behind(batch)
        given = self._runtime.values.given
        return {key: given(key, each) for key, each in answers.items()}

    def _launch_behind(self, batch: ThreadBatch) -> None:
        behind, batch.behind = batch.behind, []
        if behind:
            self._domain.launch_together(batch, behind)

    def _ride_together(
        self, keys: list[str], batch: ThreadBatch, answers: dict[str, Answer], boarded: dict[str, Boarding]
    ) -> None:
        """Wait for the flights of `keys`; then ask again where that is due, all at once."""
        again: list[tuple[str, Boarding]] = []
        self._domain.load_together([live for key in keys if (live := boarded[key].live).is_load and boarded[key].leads])
        for key in sorted(keys, key=lambda key: not boarded[key].leads):
            boarding = boarded[key]
            told = self._domain.wait(boarding) if boarding.live.is_load else self._domain.wait_on(boarding)
            del boarded[key]
            if told is None and boarding.live.is_load:
                told = self._runtime.brought(boarding)
            if told is None:
                again.append((key, boarding))
            else:
                answers[key] = told
        for key, boarding in again:
            sort_in(key, self._again(boarding, batch), answers, boarded)

    def _refresh(
        self,
        source: RefreshSource,
        key: str,
        fetch: Callable[..., Any],
        ttl: Ttl | Lifetime | Default,
        call: Call,
    ) -> Answer:
        """The answer to a refresh or prefetch."""
        asked = self._refresh_command(source, key, ttl, call, self._domain.domain_id)
        if isinstance(asked, Failure):
            return asked
        answer = self._ask(asked[0], fetch, asked[1])
        return self._ride(answer) if type(answer) is Boarding else answer

    def _ask(
        self,
        command: commands.Get | commands.Refresh,
        fetch: Callable[..., Any],
        plan: Plan,
        trace: Trace | None = None,
        batch: ThreadBatch | None = None,
    ) -> Answer | Boarding:
        runtime = self._runtime
        answer = runtime.ask(command, fetch, plan, None, trace)
        if type(answer) is Boarding:
            if trace is not None:
                trace.boarded(answer.live, leads=answer.leads)
            return answer
        behind = runtime.unmanned(command)
        if behind is not None and batch is not None:
            batch.behind.append(behind)
        elif behind is not None:
            self._domain.launch(behind)
        return answer

    def _ride(self, boarding: Boarding) -> Answer:
        """Wait for a flight; once a load has ended, ask again."""
        while True:
            told = self._domain.wait(boarding)
            if told is None and boarding.live.is_load:
                told = self._runtime.brought(boarding)
            if told is not None:
                return told
            answer = self._again(boarding)
            if type(answer) is not Boarding:
                return answer
            boarding = answer

    def _again(self, boarding: Boarding, batch: ThreadBatch | None = None) -> Answer | Boarding:
        again = self._runtime.asked_again(boarding)
        return self._ask(again, boarding.fetch, boarding.plan, boarding.trace, batch)

    def _domain_id(self) -> int:
        return self._domain.domain_id

    def _after_order(self) -> None:
        self._domain.flush()
