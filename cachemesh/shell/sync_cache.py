"""`SyncCache`, the face for threads."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from returns.result import Failure, Result

from cachemesh.core.model import RefreshSource
from cachemesh.core.policies import SERVE, CachePolicy
from cachemesh.core.scopes import GLOBAL, CacheScope, visible_owners
from cachemesh.errors import CacheError, NoActiveUser, NoTokenKeeper
from cachemesh.shell.authenticated import AuthenticatedFetch, answering_results
from cachemesh.shell.face import NO_PLAIN_HITS, Face, bad_read, settings_of
from cachemesh.shell.live import Boarding
from cachemesh.shell.options import RetryOptions
from cachemesh.shell.ports import (
    DEFAULT,
    Clock,
    Default,
    Store,
    SyncFetcher,
    SyncTokenFetcher,
    SyncTokenKeeperAdapter,
    Ttl,
)
from cachemesh.shell.runtime import Runtime
from cachemesh.shell.thread_driver import ThreadDomain
from cachemesh.shell.thread_watch import SyncWatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from cachemesh.core import commands
    from cachemesh.shell.logging import CacheLogger
    from cachemesh.shell.outcomes import Answer

T = TypeVar("T")
E = TypeVar("E")


class SyncCache(Face):
    """A Result-first cache for threads: `Cache` without `await`, thread-safe. A hit takes no lock.

    The settings are those of `Cache`. The thread that starts a fetch runs it;
    those that ask for the same key meanwhile wait for it. Background refreshes
    and callbacks run in daemon threads. A `clock` that has a `sleep(seconds)`
    method is also what retries wait with.

    >>> from returns.result import Success
    >>> with SyncCache() as cache:
    ...     cache.get("user:42", lambda: Success({"name": "Ada"}), ttl=300)
    <Success: {'name': 'Ada'}>
    """

    __slots__ = ("__weakref__", "_domain")

    def __init__(
        self,
        *,
        store: Store | None = None,
        default_ttl: Ttl = None,
        clock: Clock | None = None,
        logger: CacheLogger | None = None,
        retry: RetryOptions = RetryOptions.NO_RETRY,
        cache_failures: bool = False,
        token_keeper: SyncTokenKeeperAdapter | None = None,
        max_entries: int | None = 65_536,
    ) -> None:
        settings = settings_of(default_ttl, retry, cache_failures, max_entries)
        super().__init__(Runtime(settings, store=store, clock=clock, logger=logger), token_keeper, None)
        self._domain = ThreadDomain(self._runtime)

    def get(
        self,
        key: str,
        fetch: SyncFetcher[T, E],
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
                        answer: Result[T, E | CacheError] = resident.answer
                        return answer
            except Exception:  # noqa: BLE001, S110 (a key or policy of the wrong type is named by the checks below)
                pass
        return self._get(key, fetch, policy, ttl, retry, cache_failures, always_revalidate, scope)

    def get_authenticated(
        self,
        key: str,
        fetch: SyncTokenFetcher[T, E],
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
        return self._get(
            key,
            AuthenticatedFetch(self._keeper, answering_results(fetch)),
            policy,
            ttl,
            retry,
            self._keeps_failures(scope, cache_failures),
            always_revalidate,
            scope,
        )

    def refresh(
        self,
        key: str,
        fetch: SyncFetcher[T, E],
        *,
        ttl: Ttl | Default = DEFAULT,
        retry: RetryOptions | Default = DEFAULT,
        cache_failures: bool | Default = DEFAULT,
        scope: CacheScope = CacheScope.GLOBAL,
    ) -> Result[T, E | CacheError]:
        """Fetch whatever is cached, store the value and tell the watchers. Joins a fetch of `key` that is under way.

        Failures: those of `get` that concern a fetch.
        """
        return self._refresh(RefreshSource.REFRESH, key, fetch, ttl, retry, cache_failures, scope)

    def prefetch(
        self,
        key: str,
        fetch: SyncFetcher[T, E],
        *,
        ttl: Ttl | Default = DEFAULT,
        retry: RetryOptions | Default = DEFAULT,
        cache_failures: bool | Default = DEFAULT,
        scope: CacheScope = CacheScope.GLOBAL,
    ) -> Result[T, E | CacheError]:
        """`refresh`, told to the logger as a warm-up."""
        return self._refresh(RefreshSource.PREFETCH, key, fetch, ttl, retry, cache_failures, scope)

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
        Face.__init__(view, self._runtime, self._keeper, str.__str__(user_id))
        view._domain = self._domain  # noqa: SLF001 (its own)
        return view

    def close(self) -> None:
        """Stop: watches end, later calls answer `CacheClosed`.

        Waits a few seconds at the most for background fetches and for the
        store. Closing a view closes nothing.
        """
        if self._viewer is not None:
            return
        self._plain = NO_PLAIN_HITS
        if not self._runtime.is_closed:
            for live in self._runtime.close():
                self._domain.release(live)
            self._domain.finish()

    def __enter__(self) -> Self:
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
        fetch: Callable[[], Any],
        policy: CachePolicy,
        ttl: Ttl | Default,
        retry: RetryOptions | Default,
        cache_failures: bool | Default,
        always_revalidate: bool,
        scope: CacheScope,
    ) -> Answer:
        """The answer to a get that is no plain hit."""
        domain_id = self._domain.domain_id
        command = self._get_command(key, policy, ttl, retry, cache_failures, always_revalidate, scope, domain_id)
        if type(command) is Failure:
            return command
        answer = self._runtime.hit(command)
        return self._ask(command, fetch, retry) if answer is None else answer

    def _refresh(
        self,
        source: RefreshSource,
        key: str,
        fetch: Callable[[], Any],
        ttl: Ttl | Default,
        retry: RetryOptions | Default,
        cache_failures: bool | Default,
        scope: CacheScope,
    ) -> Answer:
        """The answer to a refresh or prefetch."""
        domain_id = self._domain.domain_id
        command = self._refresh_command(source, key, ttl, retry, cache_failures, scope, domain_id)
        return command if isinstance(command, Failure) else self._ask(command, fetch, retry)

    def _ask(
        self,
        command: commands.Get | commands.Refresh,
        fetch: Callable[[], Any],
        retry: RetryOptions | Default,
    ) -> Answer:
        """Ask, and wait for the flight; once a load has ended, ask again."""
        runtime = self._runtime
        options = runtime.default_options if isinstance(retry, Default) else retry
        while True:
            answer = runtime.ask(command, fetch, options)
            if type(answer) is not Boarding:
                behind = runtime.unmanned(command)
                if behind is not None:
                    self._domain.launch(behind)
                return answer
            told = self._domain.wait(answer)
            if told is not None:
                return told
            command = runtime.asked_again(answer)

    def _after_order(self) -> None:
        self._domain.flush()
