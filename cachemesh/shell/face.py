"""What both faces share: the questions and commands that wait for nothing, and the checking of a call's options."""

from __future__ import annotations

from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from returns.result import Failure, Result

from cachemesh.core import commands
from cachemesh.core.lifetimes import LONGEST_TTL_S, verdict
from cachemesh.core.policies import CachePolicy, Freshness
from cachemesh.core.scopes import CacheScope
from cachemesh.errors import CacheExpired, CacheMiss, InvalidKey, InvalidOption, InvalidTtl
from cachemesh.shell.inspection import CacheState, instant
from cachemesh.shell.live import within
from cachemesh.shell.options import RetryOptions, Settings, seconds
from cachemesh.shell.ports import DEFAULT, Default, Ttl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cachemesh.core.model import RefreshSource
    from cachemesh.shell.eviction import Resident
    from cachemesh.shell.outcomes import Answer
    from cachemesh.shell.runtime import Runtime

NO_PLAIN_HITS: Final[Mapping[str, Resident]] = MappingProxyType({})
"""What the hit path looks into where a hit has more to do than to answer."""


class Face:
    """A cache, or a view of it for one user (`viewer`), over a runtime."""

    __slots__ = ("_keeper", "_plain", "_runtime", "_viewer")

    def __init__(self, runtime: Runtime, keeper: Any, viewer: str | None) -> None:  # noqa: ANN401 (either adapter)
        self._runtime = runtime
        self._keeper = keeper
        self._viewer = viewer
        self._plain: Mapping[str, Resident] = runtime.state.plain.hits if runtime.reads_plainly else NO_PLAIN_HITS

    def __repr__(self) -> str:
        of = "" if self._viewer is None else " for a user"
        return f"<{type(self).__name__}{of}: {self._runtime.state.census.count} entries>"

    @property
    def plain(self) -> Mapping[str, Resident]:
        """The table in which a hit may be looked up by itself; empty where a hit has more to do."""
        return self._plain

    # Reading without waiting

    def peek(
        self,
        key: str,
        *,
        allow_expired: bool = False,
        scope: CacheScope | None = None,
    ) -> Result[Any, CacheMiss | CacheExpired]:
        """The cached value, without a fetch and without waiting: the memory is asked, not the store.

        `Failure(CacheMiss)` where nothing is cached, `Failure(CacheExpired)`
        where it is stale and not `allow_expired`. No logger hears of it.
        """
        bad = bad_read(key, scope)
        if bad is not None:
            return Failure(bad)  # type: ignore[arg-type]  # bad input is not in the signature
        key = str.__str__(key)
        found = self._runtime.resident(key, scope, self._viewer)
        if found is None:
            return Failure(CacheMiss(key))
        entry = found[1]
        if not allow_expired and verdict(entry, self._runtime.time.now()) is Freshness.STALE:
            return Failure(CacheExpired(key))
        return entry.answer

    def inspect(self, key: str, *, scope: CacheScope | None = None) -> CacheState[Any]:
        """All there is to know of what is cached under `key`: value, age, freshness. Never fetches."""
        offset = self._runtime.time.epoch_offset
        now = instant(self._runtime.time.now() + offset)
        if bad_read(key, scope) is not None:
            return CacheState(key, now)
        key = str.__str__(key)
        found = self._runtime.resident(key, scope, self._viewer)
        if found is None:
            return CacheState(key, now)
        entry = found[1]
        return CacheState(
            key,
            now,
            entry.answer.unwrap(),
            instant(entry.created_at + offset),
            None if entry.ttl_s is None else timedelta(seconds=entry.ttl_s),
        )

    def has_cached_failure(self, key: str, *, scope: CacheScope | None = None) -> bool:
        """Whether a remembered failure would be answered under `key` now."""
        if bad_read(key, scope) is not None:
            return False
        return self._runtime.remembered_failure(str.__str__(key), scope, self._viewer)

    def scope_of(self, key: str) -> CacheScope:
        """The narrowest scope in which `key` is cached for this caller; GLOBAL when unknown."""
        if bad_read(key, None) is not None:
            return CacheScope.GLOBAL
        found = self._runtime.resident(str.__str__(key), None, self._viewer)
        return CacheScope.GLOBAL if found is None else found[0][0]

    @property
    def active_user_id(self) -> str | None:
        """Who is signed in; for a view, its user."""
        return self._runtime.state.active_user if self._viewer is None else self._viewer

    # Removing

    def invalidate(self, key: str, *, scope: CacheScope | None = None) -> None:
        """Remove what is cached under `key`: from the scope named, or from all that the caller sees.

        A fetch of `key` that is under way still answers those who wait for it,
        and is not stored; who asks from now on is answered by a newer fetch.
        """
        bad = bad_read(key, scope)
        if bad is not None:
            self._runtime.tell_error("invalidate", bad)
            return
        self._order(commands.Invalidate(str.__str__(key), scope, self._viewer))

    def clear(self) -> None:
        """Remove everything; on a view, everything of its user."""
        self._order(commands.Clear(self._viewer))

    def set_active_user(self, user_id: str | None) -> None:
        """Somebody signs in, or out (None). What the one before had cached is dropped, the fetches under way included.

        A view keeps its user: for one, anything but its own user ends its session.
        """
        if user_id is not None and not isinstance(user_id, str):
            msg = f"a user id is a str or None, not {type(user_id).__name__}"
            raise TypeError(msg)
        if self._viewer is None:
            self._order(commands.SetActiveUser(None if user_id is None else str.__str__(user_id)))
        elif user_id != self._viewer:
            self._order(commands.EndSession(self._viewer))

    def end_session(self) -> None:
        """Drop what belongs to the session and to its user; nobody is signed in then."""
        self._order(commands.EndSession(self._viewer))

    def clear_scope(self, scope: CacheScope) -> None:
        """Drop everything in `scope`; on a view, what its user has there (and all, for GLOBAL)."""
        if not isinstance(scope, CacheScope):
            self._runtime.tell_error("clear_scope", InvalidOption("scope", type(scope).__name__))
            return
        self._order(commands.ClearScope(scope, self._viewer))

    def _order(self, command: commands.Command[Answer]) -> None:
        if not self._runtime.is_closed:
            self._runtime.dispatch(command)
            self._after_order()

    def _after_order(self) -> None:
        raise NotImplementedError

    # Asking

    def _get_command(
        self,
        key: str,
        policy: CachePolicy,
        ttl: Ttl | Default,
        retry: RetryOptions | Default,
        cache_failures: bool | Default,
        always_revalidate: bool,
        scope: CacheScope,
        domain_id: int,
    ) -> commands.Get | Failure[Any]:
        """The command that a `get` amounts to, or what is wrong with its options."""
        runtime = self._runtime
        if type(policy) is not CachePolicy:
            return Failure(InvalidOption("policy", type(policy).__name__))
        try:
            always_revalidate = bool(always_revalidate)
        except Exception:  # noqa: BLE001 (an object may refuse to say)
            return Failure(InvalidOption("always_revalidate", type(always_revalidate).__name__))
        checked = self._checked(key, ttl, retry, cache_failures, scope)
        if type(checked) is Failure:
            return checked
        key, ttl_s, rule, store_failures, heed_failures = checked
        return commands.Get(
            key,
            runtime.time.now(),
            next(runtime.flight_ids),
            policy,
            scope,
            self._viewer,
            domain_id,
            ttl_s,
            rule,
            store_failures,
            heed_failures,
            always_revalidate,
            False,
            within(self._runtime),
        )

    def _refresh_command(
        self,
        source: RefreshSource,
        key: str,
        ttl: Ttl | Default,
        retry: RetryOptions | Default,
        cache_failures: bool | Default,
        scope: CacheScope,
        domain_id: int,
    ) -> commands.Refresh | Failure[Any]:
        """The command that a `refresh` or `prefetch` amounts to, or what is wrong with its options."""
        checked = self._checked(key, ttl, retry, cache_failures, scope)
        if type(checked) is Failure:
            return checked
        key, ttl_s, rule, store_failures, _ = checked
        return commands.Refresh(
            key,
            self._runtime.time.now(),
            next(self._runtime.flight_ids),
            source,
            scope,
            self._viewer,
            domain_id,
            ttl_s,
            rule,
            store_failures,
            within(self._runtime),
        )

    def _checked(  # noqa: C901 (a case an option)
        self,
        key: str,
        ttl: Ttl | Default,
        retry: RetryOptions | Default,
        cache_failures: bool | Default,
        scope: CacheScope,
    ) -> Any:  # noqa: ANN401 (a Failure, or the five parts of a command)
        runtime = self._runtime
        if type(key) is not str:
            if not isinstance(key, str):
                return Failure(InvalidKey(key))
            key = str.__str__(key)
        ttl_s: float | None
        if ttl is DEFAULT:
            ttl_s = runtime.default_ttl_s
        elif type(ttl) is int and 0 <= ttl <= LONGEST_TTL_S:
            ttl_s = ttl
        else:
            try:
                ttl_s = seconds(ttl)
            except Exception:  # noqa: BLE001 (an object that is no duration may raise anything when it is looked at)
                return Failure(InvalidTtl(ttl))
        if type(scope) is not CacheScope:
            return Failure(InvalidOption("scope", type(scope).__name__))
        if retry is DEFAULT:
            rule = runtime.default_rule
        elif issubclass(type(retry), RetryOptions):
            rule = retry.rule
        else:
            return Failure(InvalidOption("retry", type(retry).__name__))
        if cache_failures is DEFAULT:
            return key, ttl_s, rule, runtime.stores_failures, True
        if cache_failures is True or cache_failures is False:
            return key, ttl_s, rule, cache_failures, cache_failures
        return Failure(InvalidOption("cache_failures", type(cache_failures).__name__))

    def _keeps_failures(self, scope: CacheScope, cache_failures: bool | Default) -> bool | Default:
        """An authenticated failure is one user's: it is remembered nowhere but with that user."""
        return cache_failures if scope is CacheScope.USER else False


def bad_read(key: object, scope: object) -> InvalidKey | InvalidOption | None:
    """What is wrong with the arguments of a call that fetches nothing.

    A str of another type, such as an enum member, is read as the str that it
    is: `str.__str__` runs none of its code.
    """
    if not isinstance(key, str):
        return InvalidKey(key)
    if scope is not None and not isinstance(scope, CacheScope):
        return InvalidOption("scope", type(scope).__name__)
    return None


def settings_of(
    default_ttl: Ttl,
    retry: RetryOptions,
    cache_failures: bool,
    max_entries: int | None,
) -> Settings:
    """Checks what a cache is configured with: pydantic's `ValidationError` where it makes no sense."""
    return Settings(default_ttl=default_ttl, retry=retry, cache_failures=cache_failures, max_entries=max_entries)
