"""`Cache`, the face for asyncio."""

from __future__ import annotations

import asyncio
import weakref
from asyncio import get_running_loop
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from returns.result import Failure, Result, Success

from cachemesh.core.commands import DomainClosed
from cachemesh.core.model import RefreshSource
from cachemesh.core.policies import BYPASS, SERVE, SERVE_STALE, CachePolicy
from cachemesh.core.scopes import CacheScope, visible_owners
from cachemesh.errors import CacheClosed, CacheError, NoActiveUser, NoTokenKeeper
from cachemesh.shell.async_batch import Batch
from cachemesh.shell.async_driver import AsyncDomain
from cachemesh.shell.async_watch import Watch
from cachemesh.shell.authenticated import AuthenticatedFetch, awaiting_results, refusing
from cachemesh.shell.call import NO_OPTIONS, Call, FetchOptions, GetOptions, call_of, reads_plainly, spelled_out
from cachemesh.shell.default import DEFAULT, Default
from cachemesh.shell.face import NO_DOMAIN, NO_PLAIN_HITS, Face, bad_read
from cachemesh.shell.identity import followed
from cachemesh.shell.live import Boarding
from cachemesh.shell.many import loading, no_conditional, sort_in
from cachemesh.shell.options import BreakerOptions, RetryOptions
from cachemesh.shell.provenance import Refused, Served, Trace
from cachemesh.shell.runtime import Runtime
from cachemesh.shell.settings import DEFAULT_BREAKERS, Settings
from cachemesh.shell.warm_start import Scannable, WarmStart

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Self

    from cachemesh.core import commands
    from cachemesh.shell.durations import Duration, Ttl
    from cachemesh.shell.lifetime import Lifetime
    from cachemesh.shell.live import Plan, Wish
    from cachemesh.shell.logging import CacheLogger
    from cachemesh.shell.outcomes import Answer
    from cachemesh.shell.ports import (
        Clock,
        Fetcher,
        FetchMany,
        Store,
        TokenFetcher,
        TokenKeeperAdapter,
    )
    from cachemesh.shell.recording import CommandRecorder

T = TypeVar("T")
E = TypeVar("E")


class Cache(Face):
    """A Result-first cache for asyncio. Nothing is raised for an expected failure: it comes back as `Failure`.

    `store`: a place behind the memory, read on a memory miss and written
    through. `default_ttl`: seconds, a timedelta or a `Lifetime`; None never
    expires. `clock`: seconds since the epoch. `retry`, `cache_failures`,
    `max_flight_age`: for calls that do not say otherwise. `token_keeper`: for
    `get_authenticated`. `max_entries`: how many entries the memory holds, evicted
    by S3-FIFO; None is unbounded. `breakers`: when an origin is left alone; one
    for all, or by name. `copy_on_read`: a value is copied for each caller (True:
    `copy.deepcopy`). `freeze`: what is done to a value before it is cached; such
    as `frozen`. By default everybody gets the very same object. `rng`: where
    jitter comes from. `schemas`: what will be asked for, so that a snapshot or a
    warm start can be read before it is. `warm_start`: memory is filled from the
    store in the background, as far as there is room; for stores that can be
    looked through, such as `SqliteStore`. It begins as soon as an event loop
    runs. `recorder`: writes down what the cache is asked and decides, without
    values, such as `cachemesh.simulation.Recorder`. A setting that makes no sense raises pydantic's `ValidationError`.

    One cache may be used from several event loops: they share its data, and
    each has its own fetches under way.

    >>> from returns.result import Success
    >>> async def fetch_user():
    ...     return Success({"name": "Ada"})
    >>> async def main():
    ...     async with Cache() as cache:
    ...         return await cache.get("user:42", fetch_user, ttl=300)
    >>> asyncio.run(main())
    <Success: {'name': 'Ada'}>
    """

    __slots__ = ("__weakref__", "_domain", "_domains", "_recorder", "_warm_start")

    def __init__(
        self,
        *,
        store: Store | None = None,
        default_ttl: Ttl | Lifetime = None,
        clock: Clock | None = None,
        logger: CacheLogger | None = None,
        retry: RetryOptions = RetryOptions.NO_RETRY,
        cache_failures: bool = False,
        token_keeper: TokenKeeperAdapter | None = None,
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
        self._domain: AsyncDomain | None = None
        self._domains: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncDomain] = weakref.WeakKeyDictionary()
        self._warm_start: WarmStart | None = None
        if settings.warm_start and isinstance(store, Scannable):
            self._warm_start = WarmStart(self._runtime, store)
        if self._warm_start is not None and asyncio._get_running_loop() is not None:  # noqa: SLF001 (documented for libraries)
            self._here()
        self._recorder = recorder
        self._identity = followed(self, token_keeper)

    @spelled_out(GetOptions)
    async def get(
        self,
        key: str,
        fetch: Fetcher[T, E],
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
        if type(answer) is Boarding:
            answer = await self._ride(answer)
        return self._runtime.values.given(key, answer)

    @spelled_out(GetOptions)
    async def get_served(
        self,
        key: str,
        fetch: Fetcher[T, E],
        *,
        policy: CachePolicy = CachePolicy.CACHE_FIRST,
        ttl: Ttl | Lifetime | Default = DEFAULT,
        **options: Unpack[GetOptions],
    ) -> Result[Served[T], Refused[E | CacheError]]:
        """`get`, with where the answer came from, how old it is, and the rows of the policy that decided."""
        trace = Trace()
        answer = self._get(key, fetch, policy, ttl, call_of(options), trace)
        if type(answer) is Boarding:
            answer = await self._ride(answer)
        return trace.result(answer, self._runtime.time.now(), self._runtime.values.given(key, answer))

    @spelled_out(GetOptions)
    async def get_many(
        self,
        keys: Iterable[str],
        fetch_many: FetchMany[T, E],
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
            answers.update(await self._get_many(list(missing), fetch_many, policy, ttl, call_of(options)))
        return answers

    @spelled_out(GetOptions, Call(scope=CacheScope.USER))
    async def get_authenticated(
        self,
        key: str,
        fetch: TokenFetcher[T, E],
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
        answer = await self._authenticated_get(key, fetch, policy, ttl, options)
        return self._runtime.values.given(key, answer)

    @spelled_out(GetOptions, Call(scope=CacheScope.USER))
    async def get_authenticated_served(
        self,
        key: str,
        fetch: TokenFetcher[T, E],
        *,
        policy: CachePolicy = CachePolicy.CACHE_FIRST,
        ttl: Ttl | Lifetime | Default = DEFAULT,
        **options: Unpack[GetOptions],
    ) -> Result[Served[T], Refused[E | CacheError]]:
        """`get_authenticated`, with what `get_served` tells of an answer."""
        trace = Trace()
        answer = await self._authenticated_get(key, fetch, policy, ttl, options, trace)
        return trace.result(answer, self._runtime.time.now(), self._runtime.values.given(key, answer))

    @spelled_out(FetchOptions)
    async def refresh(
        self,
        key: str,
        fetch: Fetcher[T, E],
        *,
        ttl: Ttl | Lifetime | Default = DEFAULT,
        **options: Unpack[FetchOptions],
    ) -> Result[T, E | CacheError]:
        """Fetch whatever is cached, store the value and tell the watchers. Joins a fetch of `key` that is under way.

        Failures: those of `get` that concern a fetch.
        """
        answer = self._refresh(RefreshSource.REFRESH, key, fetch, ttl, call_of(options))
        if type(answer) is Boarding:
            answer = await self._ride(answer)
        return self._runtime.values.given(key, answer)

    @spelled_out(FetchOptions)
    async def prefetch(
        self,
        key: str,
        fetch: Fetcher[T, E],
        *,
        ttl: Ttl | Lifetime | Default = DEFAULT,
        **options: Unpack[FetchOptions],
    ) -> Result[T, E | CacheError]:
        """`refresh`, told to the logger as a warm-up."""
        answer = self._refresh(RefreshSource.PREFETCH, key, fetch, ttl, call_of(options))
        if type(answer) is Boarding:
            answer = await self._ride(answer)
        return self._runtime.values.given(key, answer)

    def watch(self, key: str, *, scope: CacheScope | None = None) -> Watch[Any, Any]:
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
        return Watch(self._runtime, owners, key, bad or NoActiveUser(key))

    def for_user(self, user_id: str) -> Cache:
        """A view for a server that serves many users at once: the same cache, seen by one user.

        Its user and session scopes are this user's own, its global scope is
        everyone's. It is cheap: make one for each request.
        """
        if not isinstance(user_id, str):
            msg = f"a user id is a str, not {type(user_id).__name__}"
            raise TypeError(msg)
        view = Cache.__new__(Cache)
        Face.__init__(view, self._runtime, self._keeper, str.__str__(user_id), self._identity)
        view._domain = self._domain  # noqa: SLF001 (its own)
        view._recorder = self._recorder  # noqa: SLF001 (its own)
        view._domains = self._domains  # noqa: SLF001 (its own)
        view._warm_start = self._warm_start  # noqa: SLF001 (its own)
        return view

    async def flush(self) -> Result[None, CacheError]:
        """Wait until the store has all that it was told, and a store on a disk would keep it if this process ended.

        `Failure(StoreFailed)` where it has missed something, `Failure(CacheClosed)`.
        """
        if self._runtime.is_closed:
            return Failure(CacheClosed())
        line = self._runtime.line
        missed = None if line is None else await line.flush()
        return Success(None) if missed is None else Failure(missed)

    async def aclose(self) -> None:
        """Stop: fetches under way are cancelled, watches end, later calls answer `CacheClosed`.

        Waits a few seconds at the most for what is under way and for the store,
        which is closed as well if it is a shared one (it opens anew when it is used).
        Closing a view closes nothing.
        """
        if self._viewer is not None:
            return
        self._plain = NO_PLAIN_HITS
        if self._identity is not None:
            self._identity.stop()
        left = self._runtime.close()
        for live in left:
            live.is_stopped = True
            if live.driver is not None:
                live.driver.cancel(live)
        await self._here().finish()
        if self._recorder is not None:
            await asyncio.to_thread(self._runtime.close_recorder, self._recorder)

    async def __aenter__(self) -> Self:
        """Whoever the token keeper has a token of is the active user from now on, where it can tell."""
        await self._known()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _get(
        self,
        key: str,
        fetch: Callable[..., Any],
        policy: CachePolicy,
        ttl: Ttl | Lifetime | Default,
        call: Call,
        trace: Trace | None = None,
    ) -> Answer | Boarding:
        """The answer to a get that is no plain hit, or the flight to wait for."""
        runtime, domain = self._runtime, self._domain
        if domain is None or domain.loop() is not get_running_loop():
            domain = self._here()
        if call is NO_OPTIONS and trace is None:
            wish = (policy, ttl)
            if key.__class__ is str and key in runtime.alike:
                live = runtime.boarding_alike(key, wish, domain.domain_id)
                if live is not None:
                    live.waiting += 1
                    falls_back = policy.after_failure is SERVE_STALE
                    reads = policy.missing is not BYPASS
                    return Boarding(live, falls_back, reads, False, live.asked, fetch, live.plan)
            command = self._plain_get(key, policy, ttl, domain.domain_id)
            if command is not None:
                answer = None if runtime.reads_plainly else runtime.hit(command)
                return self._ask(command, fetch, runtime.default_plan, domain, wish) if answer is None else answer
        asked = self._get_command(key, policy, ttl, call, domain.domain_id)
        if isinstance(asked, Failure):
            return asked
        command, plan = asked
        answer = runtime.hit(command) if trace is None else None
        return self._ask(command, fetch, plan, domain, None, trace) if answer is None else answer

    async def _known(self) -> CacheError | None:
        """Have the keeper look whose token it has. Why there is none, where it says so."""
        identity = self._identity
        if identity is None or identity.is_known:
            return None
        changes = identity.changes
        try:
            return identity.known(await self._keeper.peek(), changes)
        except Exception as error:  # noqa: BLE001 (a keeper of somebody's own: with_valid_token will tell)
            self._runtime.tell_error("peek", error)
            return None

    async def _authenticated_get(
        self,
        key: str,
        fetch: TokenFetcher[T, E],
        policy: CachePolicy,
        ttl: Ttl | Lifetime | Default,
        options: GetOptions,
        trace: Trace | None = None,
    ) -> Answer:
        """The answer to a get with a token."""
        if self._keeper is None:
            return Failure(NoTokenKeeper(key))
        error = await self._known()
        if error is not None and self._lacks_user(options):
            return Failure(error)
        call = self._authenticated(dict(options))
        fetched, refused = awaiting_results(fetch), awaiting_results(refusing(key))
        while True:
            authenticated = AuthenticatedFetch(self._keeper, fetched, refused, self._identity)
            answer = self._get(key, authenticated, policy, ttl, call, trace)
            if type(answer) is Boarding:
                answer = await self._ride(answer)
            if self._lacks_user(options) or not authenticated.joined_one_who_left(answer):
                return answer

    async def _get_many(
        self,
        keys: list[str],
        fetch_many: Callable[..., Any],
        policy: CachePolicy,
        ttl: Ttl | Lifetime | Default,
        call: Call,
    ) -> dict[str, Answer]:
        """The answers to all but plain hits. The fetches are made together, once the store has been asked."""
        if call.conditional:
            return no_conditional(keys)
        batch = Batch(fetch_many, get_running_loop())
        answers: dict[str, Answer] = {}
        boarded: dict[str, Boarding] = {}
        try:
            batch.hold()
            try:
                for key in keys:
                    sort_in(key, self._get(key, batch.fetch, policy, ttl, call), answers, boarded)
                await self._ride_together(loading(boarded), answers, boarded)
            finally:
                batch.release()
            while boarded:
                await self._ride_together(list(boarded), answers, boarded)
        except BaseException:
            for boarding in boarded.values():
                boarding.live.driver.leave(boarding)
            raise
        given = self._runtime.values.given
        return {key: given(key, each) for key, each in answers.items()}

    def _refresh(
        self,
        source: RefreshSource,
        key: str,
        fetch: Callable[..., Any],
        ttl: Ttl | Lifetime | Default,
        call: Call,
    ) -> Answer | Boarding:
        """The flight of a refresh to wait for, or its answer where there is nothing to wait for."""
        domain = self._here()
        asked = self._refresh_command(source, key, ttl, call, domain.domain_id)
        return asked if isinstance(asked, Failure) else self._ask(asked[0], fetch, asked[1], domain)

    def _ask(
        self,
        command: commands.Get | commands.Refresh,
        fetch: Callable[..., Any],
        plan: Plan,
        domain: AsyncDomain,
        wish: Wish | None = None,
        trace: Trace | None = None,
    ) -> Answer | Boarding:
        runtime = self._runtime
        answer = runtime.ask(command, fetch, plan, wish, trace)
        if type(answer) is not Boarding:
            behind = runtime.unmanned(command)
            if behind is not None:
                domain.launch(behind)
            return answer
        if trace is not None:
            trace.boarded(answer.live, leads=answer.leads)
        if answer.leads:
            domain.launch(answer.live)
            live = answer.live
            if live.is_over:
                if type(live.answer) is Success and not live.joiners_ask_again:
                    return live.answer
                told = runtime.told(answer)
                return answer if told is None else told
        return answer

    async def _ride(self, boarding: Boarding) -> Answer:
        """Wait for a flight; once a load has ended, ask again."""
        domain: AsyncDomain = boarding.live.driver
        while True:
            told = await domain.wait(boarding)
            if told is None and boarding.live.is_load:
                told = self._runtime.brought(boarding)
            if told is not None:
                return told
            again = self._runtime.asked_again(boarding)
            answer = self._ask(again, boarding.fetch, boarding.plan, domain, None, boarding.trace)
            if type(answer) is not Boarding:
                return answer
            boarding = answer

    async def _ride_together(self, keys: list[str], answers: dict[str, Answer], boarded: dict[str, Boarding]) -> None:
        """Wait for the flights of `keys`; then ask again where that is due, all at once."""
        again: list[tuple[str, Boarding]] = []
        for key in keys:
            boarding = boarded.pop(key)
            told = await boarding.live.driver.wait(boarding)
            if told is None and boarding.live.is_load:
                told = self._runtime.brought(boarding)
            if told is None:
                again.append((key, boarding))
            else:
                answers[key] = told
        for key, boarding in again:
            command, domain = self._runtime.asked_again(boarding), boarding.live.driver
            sort_in(key, self._ask(command, boarding.fetch, boarding.plan, domain), answers, boarded)

    def _domain_id(self) -> int:
        loop = asyncio._get_running_loop()  # noqa: SLF001 (documented for libraries)
        domain = None if loop is None else self._domains.get(loop)
        return NO_DOMAIN if domain is None else domain.domain_id

    def _here(self) -> AsyncDomain:
        """The domain of the running event loop."""
        loop = asyncio.get_running_loop()
        domain = self._domain
        if domain is not None and domain.loop() is loop:
            return domain
        with self._runtime.lock:
            domain = self._domains.get(loop)
            if domain is None:
                domain = AsyncDomain(self._runtime, loop)
                self._domains[loop] = domain
                weakref.finalize(loop, _loop_is_gone, weakref.ref(self._runtime), domain.domain_id).atexit = False
        self._domain = domain
        warm_start = self._warm_start
        if warm_start is not None and warm_start.begins():
            domain.warm_up(warm_start)
        return domain

    def _after_order(self) -> None:
        if self._runtime.line is not None and asyncio._get_running_loop() is not None:  # noqa: SLF001 (documented for libraries)
            self._here().kick()


def _loop_is_gone(runtime: weakref.ref[Runtime], domain_id: int) -> None:
    alive = runtime()
    if alive is not None:
        alive.dispatch(DomainClosed(domain_id))
