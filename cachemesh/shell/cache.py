"""`Cache`, the face for asyncio."""

from __future__ import annotations

import asyncio
import weakref
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from returns.result import Failure, Result, Success

from cachemesh.core import commands
from cachemesh.core.model import RefreshSource
from cachemesh.core.policies import SERVE, SERVE_STALE, CachePolicy
from cachemesh.core.scopes import GLOBAL, CacheScope, visible_owners
from cachemesh.errors import CacheError, NoActiveUser, NoTokenKeeper
from cachemesh.shell.async_driver import AsyncDomain
from cachemesh.shell.async_watch import Watch
from cachemesh.shell.authenticated import AuthenticatedFetch, awaiting_results
from cachemesh.shell.face import NO_PLAIN_HITS, Face, bad_read, settings_of
from cachemesh.shell.live import Boarding
from cachemesh.shell.options import RetryOptions
from cachemesh.shell.ports import DEFAULT, Clock, Default, Fetcher, Store, TokenFetcher, TokenKeeperAdapter, Ttl
from cachemesh.shell.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from cachemesh.shell.live import Wish
    from cachemesh.shell.logging import CacheLogger
    from cachemesh.shell.outcomes import Answer

T = TypeVar("T")
E = TypeVar("E")


class Cache(Face):
    """A Result-first cache for asyncio. Nothing is raised for an expected failure: it comes back as `Failure`.

    `store`: a place behind the memory, read on a memory miss and written
    through. `default_ttl`: seconds or a timedelta; None never expires. `clock`:
    seconds since the epoch. `retry`, `cache_failures`: for calls that do not say
    otherwise. `token_keeper`: for `get_authenticated`. `max_entries`: how many
    entries the memory holds, evicted by S3-FIFO; None is unbounded. A setting
    that makes no sense raises pydantic's `ValidationError`.

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

    __slots__ = ("__weakref__", "_domain", "_domains")

    def __init__(
        self,
        *,
        store: Store | None = None,
        default_ttl: Ttl = None,
        clock: Clock | None = None,
        logger: CacheLogger | None = None,
        retry: RetryOptions = RetryOptions.NO_RETRY,
        cache_failures: bool = False,
        token_keeper: TokenKeeperAdapter | None = None,
        max_entries: int | None = 65_536,
    ) -> None:
        settings = settings_of(default_ttl, retry, cache_failures, max_entries)
        super().__init__(Runtime(settings, store=store, clock=clock, logger=logger), token_keeper, None)
        self._domain: AsyncDomain | None = None
        self._domains: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncDomain] = weakref.WeakKeyDictionary()

    async def get(
        self,
        key: str,
        fetch: Fetcher[T, E],
        *,
        policy: CachePolicy = CachePolicy.CACHE_FIRST,
        ttl: Ttl | Default = DEFAULT,
        retry: RetryOptions | Default = DEFAULT,
        cache_failures: bool | Default = DEFAULT,
        always_revalidate: bool = False,
        scope: CacheScope = CacheScope.GLOBAL,
    ) -> Result[T, E | CacheError]:
        """The value under `key`, from the cache or from `fetch`, as `policy` decides.

        `ttl`: how long a value fetched by this call stays fresh, in seconds or
        as a timedelta; a hit does not look at it. `cache_failures`: True also
        remembers a failed fetch (for the ttl, 60 s at the most); False neither
        remembers one nor is answered from one. `always_revalidate`:
        stale_while_revalidate refreshes in the background even what is fresh.

        All who ask for a key at the same time share one fetch; a caller who is
        cancelled takes no one down. Failures: what `fetch` failed with, as it
        is; `FetchRaised`, `InvalidFetchResult`, `FetchTimeout`,
        `FetchCancelled`, `ReentrantFetch`; `CacheMiss` and `CacheExpired` from
        cache_only; `NoActiveUser`; `InvalidKey`, `InvalidTtl`, `InvalidOption`;
        `CacheClosed`.
        """
        if scope is GLOBAL and always_revalidate is False:
            try:
                if policy.fresh is SERVE:
                    resident = self._plain.get(key)
                    if resident is not None and resident.hit_until > monotonic():
                        if resident.visits < 3:  # noqa: PLR2004 (MAX_VISITS: a constant is cheaper)
                            resident.visits += 1
                        return resident.answer
            except Exception:  # noqa: BLE001, S110 (a key or policy of the wrong type is named by the checks below)
                pass
        answer = self._get(key, fetch, policy, ttl, retry, cache_failures, always_revalidate, scope)
        return await self._ride(answer) if type(answer) is Boarding else answer

    async def get_authenticated(
        self,
        key: str,
        fetch: TokenFetcher[T, E],
        *,
        policy: CachePolicy = CachePolicy.CACHE_FIRST,
        ttl: Ttl | Default = DEFAULT,
        retry: RetryOptions | Default = DEFAULT,
        cache_failures: bool | Default = DEFAULT,
        always_revalidate: bool = False,
        scope: CacheScope = CacheScope.USER,
    ) -> Result[T, E | CacheError]:
        """`get` with a fetcher that is handed a valid token by the cache's token keeper.

        Once the keeper has refreshed the token within an attempt, a failure of
        that attempt is final: retries do not multiply with the keeper's own.
        Outside the user scope such a failure is not remembered. Failures: those
        of `get`, and `NoTokenKeeper`.
        """
        if self._keeper is None:
            return Failure(NoTokenKeeper(key))
        answer = self._get(
            key,
            AuthenticatedFetch(self._keeper, awaiting_results(fetch)),
            policy,
            ttl,
            retry,
            self._keeps_failures(scope, cache_failures),
            always_revalidate,
            scope,
        )
        return await self._ride(answer) if type(answer) is Boarding else answer

    async def refresh(
        self,
        key: str,
        fetch: Fetcher[T, E],
        *,
        ttl: Ttl | Default = DEFAULT,
        retry: RetryOptions | Default = DEFAULT,
        cache_failures: bool | Default = DEFAULT,
        scope: CacheScope = CacheScope.GLOBAL,
    ) -> Result[T, E | CacheError]:
        """Fetch whatever is cached, store the value and tell the watchers. Joins a fetch of `key` that is under way.

        Failures: those of `get` that concern a fetch.
        """
        answer = self._refresh(RefreshSource.REFRESH, key, fetch, ttl, retry, cache_failures, scope)
        return await self._ride(answer) if type(answer) is Boarding else answer

    async def prefetch(
        self,
        key: str,
        fetch: Fetcher[T, E],
        *,
        ttl: Ttl | Default = DEFAULT,
        retry: RetryOptions | Default = DEFAULT,
        cache_failures: bool | Default = DEFAULT,
        scope: CacheScope = CacheScope.GLOBAL,
    ) -> Result[T, E | CacheError]:
        """`refresh`, told to the logger as a warm-up."""
        answer = self._refresh(RefreshSource.PREFETCH, key, fetch, ttl, retry, cache_failures, scope)
        return await self._ride(answer) if type(answer) is Boarding else answer

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
        Face.__init__(view, self._runtime, self._keeper, str.__str__(user_id))
        view._domain = self._domain  # noqa: SLF001 (its own)
        view._domains = self._domains  # noqa: SLF001 (its own)
        return view

    async def aclose(self) -> None:
        """Stop: fetches under way are cancelled, watches end, later calls answer `CacheClosed`.

        Waits a few seconds at the most for what is under way and for the store.
        Closing a view closes nothing.
        """
        if self._viewer is not None:
            return
        self._plain = NO_PLAIN_HITS
        left = self._runtime.close()
        for live in left:
            if live.driver is not None:
                live.driver.cancel(live)
        await self._here().finish()

    async def __aenter__(self) -> Self:
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
        fetch: Callable[[], Any],
        policy: CachePolicy,
        ttl: Ttl | Default,
        retry: RetryOptions | Default,
        cache_failures: bool | Default,
        always_revalidate: bool,
        scope: CacheScope,
    ) -> Answer | Boarding:
        """The answer to a get that is no plain hit, or the flight to wait for."""
        runtime, domain = self._runtime, self._here()
        is_alike = scope is GLOBAL and type(key) is str and always_revalidate is False
        wish = (policy, ttl, retry, cache_failures)
        if is_alike and key in runtime.alike:
            live = runtime.boarding_alike(key, wish, domain.domain_id)
            if live is not None:
                live.waiting += 1
                falls_back = policy.after_failure is SERVE_STALE
                return Boarding(live, falls_back, False, live.asked, live.fetch, live.options)
        command = self._get_command(key, policy, ttl, retry, cache_failures, always_revalidate, scope, domain.domain_id)
        if type(command) is Failure:
            return command
        if not is_alike or not runtime.reads_plainly:
            answer = runtime.hit(command)
            if answer is not None:
                return answer
        options = runtime.default_options if isinstance(retry, Default) else retry
        return self._ask(command, fetch, options, domain, wish if is_alike else None)

    def _refresh(
        self,
        source: RefreshSource,
        key: str,
        fetch: Callable[[], Any],
        ttl: Ttl | Default,
        retry: RetryOptions | Default,
        cache_failures: bool | Default,
        scope: CacheScope,
    ) -> Answer | Boarding:
        """The flight of a refresh to wait for, or its answer where there is nothing to wait for."""
        domain = self._here()
        command = self._refresh_command(source, key, ttl, retry, cache_failures, scope, domain.domain_id)
        if type(command) is Failure:
            return command
        options = self._runtime.default_options if isinstance(retry, Default) else retry
        return self._ask(command, fetch, options, domain)

    def _ask(
        self,
        command: commands.Get | commands.Refresh,
        fetch: Callable[[], Any],
        options: RetryOptions,
        domain: AsyncDomain,
        wish: Wish | None = None,
    ) -> Answer | Boarding:
        runtime = self._runtime
        answer = runtime.ask(command, fetch, options, wish)
        if type(answer) is not Boarding:
            behind = runtime.unmanned(command)
            if behind is not None:
                domain.launch(behind)
            return answer
        if answer.leads:
            domain.launch(answer.live)
            live = answer.live
            if live.is_over:
                if type(live.answer) is Success:
                    return live.answer
                told = domain.told(answer)
                return answer if told is None else told
        return answer

    async def _ride(self, boarding: Boarding) -> Answer:
        """Wait for a flight; once a load has ended, ask again."""
        domain: AsyncDomain = boarding.live.driver
        while True:
            told = await domain.wait(boarding)
            if told is not None:
                return told
            again = self._runtime.asked_again(boarding)
            answer = self._ask(again, boarding.fetch, boarding.options, domain)
            if type(answer) is not Boarding:
                return answer
            boarding = answer

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
        return domain

    def _after_order(self) -> None:
        if self._runtime.line is not None and asyncio._get_running_loop() is not None:  # noqa: SLF001 (documented for libraries)
            self._here().kick()


def _loop_is_gone(runtime: weakref.ref[Runtime], domain_id: int) -> None:
    alive = runtime()
    if alive is not None:
        alive.dispatch(commands.DomainClosed(domain_id))
