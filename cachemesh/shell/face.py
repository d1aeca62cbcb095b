"""What both faces share: the questions and commands that wait for nothing, and the checking of a call's options."""

from __future__ import annotations

from datetime import timedelta
from inspect import iscoroutine
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack

from msgspec.structs import replace
from returns.result import Failure, Result, Success

from cachemesh.core import commands
from cachemesh.core.lifetimes import LONGEST_TTL_S
from cachemesh.core.policies import CachePolicy, Freshness
from cachemesh.core.scopes import GLOBAL, CacheScope, owner_of
from cachemesh.errors import (
    CacheClosed,
    CacheError,
    CacheExpired,
    CacheMiss,
    InvalidFetchResult,
    InvalidKey,
    InvalidOption,
    NoActiveUser,
    UpdateRaised,
)
from cachemesh.shell.call import Call, GetOptions, call_of
from cachemesh.shell.checks import (
    BadOptionError,
    checked_call,
    checked_key,
    checked_life,
    checked_schema,
    checked_scope,
    checked_tags,
)
from cachemesh.shell.default import DEFAULT, Default
from cachemesh.shell.hydration import GLOBAL_ONLY, Hydrated, asked_scopes, dehydrated, hydrated
from cachemesh.shell.inspection import CacheState, Circuit, circuit_of, instant
from cachemesh.shell.live import WITHIN, within
from cachemesh.shell.runtime import CHANGED
from cachemesh.shell.snapshot import MAX_BYTES, MAX_ENTRIES, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from cachemesh.core.explain import Explanation
    from cachemesh.core.model import Entry, RefreshSource
    from cachemesh.shell.durations import Ttl
    from cachemesh.shell.eviction import Resident
    from cachemesh.shell.identity import Identity
    from cachemesh.shell.lifetime import Lifetime
    from cachemesh.shell.live import Plan
    from cachemesh.shell.outcomes import Answer
    from cachemesh.shell.ports import Encoded
    from cachemesh.shell.runtime import Runtime
    from cachemesh.shell.schema import Schema

NO_PLAIN_HITS: Final[Mapping[str, Resident]] = MappingProxyType({})
"""What the hit path looks into where a hit has more to do than to answer."""

FRESH_ENOUGH: Final = frozenset({Freshness.FRESH, Freshness.AGEING})

UNSTAMPED: Final = 0
"""The runtime puts the stamp in its place."""

NOTHING: Final = Success(None)
"""The answer of a write that brings none."""

NO_DOMAIN: Final = -1
"""Where no flight is: outside of all event loops."""

MOST_TRIES: Final = 10_000
"""An update that other writes keep coming between is made again so often."""

T = TypeVar("T")


class Face:
    """A cache, or a view of it for one user (`viewer`), over a runtime."""

    __slots__ = ("_identity", "_keeper", "_plain", "_runtime", "_viewer")

    def __init__(
        self,
        runtime: Runtime,
        keeper: Any,  # noqa: ANN401 (either adapter)
        viewer: str | None,
        identity: Identity | None = None,
    ) -> None:
        self._runtime = runtime
        self._keeper = keeper
        self._viewer = viewer
        self._identity = identity
        self._plain: Mapping[str, Resident] = runtime.state.plain.hits if runtime.reads_plainly else NO_PLAIN_HITS

    def __repr__(self) -> str:
        of = "" if self._viewer is None else " for a user"
        return f"<{type(self).__name__}{of}: {self._runtime.state.census.count} entries>"

    @property
    def plain(self) -> Mapping[str, Resident]:
        """The table in which a hit may be looked up by itself; empty where a hit has more to do."""
        return self._plain

    def expect(self, of: Any) -> Schema | None:  # noqa: ANN401 (a type)
        """The schema of values that a function of this cache will answer; None where they cannot be written."""
        try:
            return self._runtime.schemas.of(of)
        except TypeError:
            return None

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
        owner, entry = found
        if not (allow_expired or self._runtime.verdict(owner, entry) in FRESH_ENOUGH):
            return Failure(CacheExpired(key))
        return self._runtime.values.given(key, entry.answer)

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
        owner, entry = found
        given = self._runtime.values.given(key, entry.answer)
        if isinstance(given, Failure):
            return CacheState(key, now)
        ttl_s = self._runtime.ttl_left(owner, entry)
        return CacheState(
            key,
            now,
            given.unwrap(),
            instant(entry.created_at + offset),
            None if ttl_s is None else timedelta(seconds=ttl_s),
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

    def explain(
        self,
        key: str,
        *,
        policy: CachePolicy = CachePolicy.CACHE_FIRST,
        **options: Unpack[GetOptions],
    ) -> Result[Explanation, CacheError]:
        """What a `get` of `key` would do now, and why; nothing is done about it.

        >>> from cachemesh import Cache
        >>> Cache().explain("feed").unwrap().why
        'cache_first: missing -> fetch'
        """
        asked = self._get_command(key, policy, DEFAULT, call_of(options), self._domain_id())
        if isinstance(asked, Failure):
            return asked
        return Failure(CacheClosed()) if self._runtime.is_closed else Success(self._runtime.explained(asked[0]))

    def _domain_id(self) -> int:
        """The domain of whoever asks now: whose flights a get would join."""
        raise NotImplementedError

    def circuit(self, origin: str) -> Circuit:
        """The circuit breaker of `origin`, as it is now. One that nobody knows of is closed."""
        if not isinstance(origin, str):
            return circuit_of(origin, None, self._runtime.time)
        return circuit_of(origin, self._runtime.breaker(str.__str__(origin)), self._runtime.time)

    def reset_circuit(self, origin: str) -> None:
        """Ask `origin` again, whatever it did."""
        if not isinstance(origin, str):
            self._runtime.tell_error("reset_circuit", InvalidOption("origin", type(origin).__name__))
            return
        self._order(commands.ResetBreaker(str.__str__(origin)))

    # Writing

    def put(
        self,
        key: str,
        value: T,
        *,
        ttl: Ttl | Lifetime | Default = DEFAULT,
        tags: Collection[str] = (),
        scope: CacheScope = CacheScope.GLOBAL,
        schema: Any = None,  # noqa: ANN401 (as for `get`)
    ) -> Result[T, CacheError]:
        """Store `value` under `key`, and tell the watchers. A fetch that began before never overwrites it.

        `schema`: as for `get`. Failures: `InvalidKey`, `InvalidTtl`, `InvalidOption`, `NoActiveUser`,
        `ValueNotCopied`, `CacheClosed`.
        """
        runtime = self._runtime
        try:
            key = checked_key(key)
            ttl_s, lifespan, _ = checked_life(runtime, ttl)
            checked = checked_tags(tags)
            scope = checked_scope(scope)
            known = checked_schema(runtime, "schema", schema)
        except BadOptionError as bad:
            return Failure(bad.error)
        if iscoroutine(value):
            value.close()
            return Failure(InvalidFetchResult(key, "coroutine"))
        answer = runtime.values.taken(key, value)
        if isinstance(answer, Failure):
            return answer
        now, chance = runtime.time.now(), 0.0 if lifespan is None else runtime.chance()
        put = commands.Put(key, answer, now, UNSTAMPED, scope, self._viewer, ttl_s, lifespan, checked, chance, known)
        written: Result[T, CacheError] = self._write(put, answer, self._encoded(key, scope, value, known), value)
        return written

    def _encoded(self, key: str, scope: CacheScope, value: object, schema: Schema | None) -> Encoded | None:
        """What a store that keeps bytes gets for a value that is written by hand; None where there is no such store."""
        runtime = self._runtime
        owner = owner_of(scope, runtime.state.active_user, self._viewer) if runtime.keeps_bytes else None
        return None if owner is None else runtime.encoded(owner, key, value, schema)

    def update(
        self,
        key: str,
        change: Callable[[T], T],
        *,
        scope: CacheScope = CacheScope.GLOBAL,
    ) -> Result[T, CacheError]:
        """Put `change(value)` in the place of the cached value, for the rest of its life: atomically.

        Where another write comes between, `change` is called again, with the
        newer value; so it should do nothing but compute. One that itself writes
        under `key` comes between each time, and is given up on. The memory is
        asked, not the store. Failures: `CacheMiss` where nothing is cached,
        `UpdateRaised`, and those of `put`.
        """
        runtime = self._runtime
        bad = bad_read(key, scope)
        if bad is None and scope is None:
            bad = InvalidOption("scope", "NoneType")
        if bad is not None:
            return Failure(bad)
        key = str.__str__(key)
        if owner_of(scope, runtime.state.active_user, self._viewer) is None:
            return Failure(NoActiveUser(key))
        for _ in range(MOST_TRIES):
            found = runtime.resident(key, scope, self._viewer)
            if found is None:
                return Failure(CacheClosed() if runtime.is_closed else CacheMiss(key))
            expected = found[1].answer
            changed = self._changed(key, change, expected)
            if isinstance(changed, Failure):
                return changed
            value = changed.unwrap()
            answer = runtime.values.taken(key, value)
            if isinstance(answer, Failure):
                return answer
            update = commands.Update(key, expected, answer, runtime.time.now(), UNSTAMPED, scope, self._viewer)
            written = self._write(update, answer, self._encoded(key, scope, value, schema_of(found[1])), value)
            if written is not CHANGED:
                done: Result[T, CacheError] = written
                return done
        return Failure(UpdateRaised(key, RuntimeError("other writes kept coming between")))

    def _changed(self, key: str, change: Callable[[T], T], expected: Answer) -> Result[T, CacheError]:
        """What `change` makes of a cached value."""
        given = self._runtime.values.given(key, expected)
        if isinstance(given, Failure):
            return given
        try:
            value = change(given.unwrap())
        except Exception as error:  # noqa: BLE001 (whatever the function raises is a Failure)
            return Failure(UpdateRaised(key, error))
        if iscoroutine(value):
            value.close()
            return Failure(InvalidFetchResult(key, "coroutine"))
        return Success(value)

    def touch(
        self,
        key: str,
        ttl: Ttl | Lifetime | Default = DEFAULT,
        *,
        scope: CacheScope = CacheScope.GLOBAL,
    ) -> Result[None, CacheError]:
        """Let what is cached under `key` live anew, from now on, also where it had expired; its age stays.

        The memory is asked, not the store. Failures: `CacheMiss` where nothing
        is cached, and those of `put`.
        """
        try:
            key = checked_key(key)
            ttl_s, lifespan, _ = checked_life(self._runtime, ttl)
            scope = checked_scope(scope)
        except BadOptionError as bad:
            return Failure(bad.error)
        runtime = self._runtime
        now, chance = runtime.time.now(), runtime.chance()
        touch = commands.Touch(key, now, UNSTAMPED, scope, self._viewer, ttl_s, lifespan, chance)
        found = runtime.resident(key, scope, self._viewer) if runtime.keeps_bytes else None
        answer: Answer = NOTHING
        encoded = None
        if found is not None:
            answer = found[1].answer
            encoded = self._encoded(key, scope, answer.unwrap(), schema_of(found[1]))
        written: Result[None, CacheError] = self._write(touch, answer, encoded, None)
        return written

    def _write(
        self,
        command: commands.Put[Answer] | commands.Update[Answer] | commands.Touch,
        answer: Answer,
        encoded: Encoded | None,
        value: Any,  # noqa: ANN401 (whatever was written)
    ) -> Any:  # noqa: ANN401 (a Result of it)
        """`value`, or the failure that the core refused `command` with."""
        if self._runtime.is_closed:
            return Failure(CacheClosed())
        refused = self._runtime.write(command, answer, encoded)
        if refused is not None:
            return refused
        self._after_order()
        return answer if answer.unwrap() is value else Success(value)

    # Snapshots

    def dehydrate(
        self,
        *,
        scopes: CacheScope | Collection[CacheScope] = GLOBAL_ONLY,
        prefix: str = "",
    ) -> Snapshot:
        """What is in memory now, values and remembered failures, as a snapshot that `hydrate` takes in.

        Of the global scope; the user and session scopes only where `scopes`
        names them, and then of all users: on a view, of its own. `prefix`: only
        keys that begin with it. What is expired is left out, and what there is
        no JSON for (`Snapshot.left_out` says how many): a value that is no plain
        JSON and was cached without a `schema`. A cache that was closed holds
        nothing. It may be called from another thread, as by `asyncio.to_thread`.
        """
        asked = asked_scopes(scopes)
        if asked is None:
            msg = f"scopes are CacheScopes, not {type(scopes).__name__}"
            raise TypeError(msg)
        if not isinstance(prefix, str):
            msg = f"a prefix is a str, not {type(prefix).__name__}"
            raise TypeError(msg)
        return dehydrated(self._runtime, self._viewer, asked, str.__str__(prefix))

    def hydrate(
        self,
        snapshot: Snapshot | bytes | str | Mapping[str, Any],
        *,
        scopes: CacheScope | Collection[CacheScope] | None = None,
        max_bytes: int = MAX_BYTES,
        max_entries: int = MAX_ENTRIES,
    ) -> Result[Hydrated, CacheError]:
        """Fill gaps in memory from a snapshot: one of `dehydrate`, its JSON, or that JSON parsed.

        Ages go on: an entry is as old as it says. What is good in memory stays,
        and nothing is taken in that is over, from the future, for another user
        than it says, or more than there is room for; the `Hydrated` counts
        them. A value whose schema this cache has not met is kept as bytes until
        somebody asks for its key with that schema. Watchers and the store hear
        nothing of it. `scopes`: take in no others. A view takes in what its user sees.

        Failures: `InvalidSnapshot`, where the whole is none, or larger than
        `max_bytes` or `max_entries` allow; then nothing has changed.
        `InvalidOption`, `CacheClosed`.
        """
        return hydrated(self._runtime, self._viewer, snapshot, scopes, max_bytes, max_entries)

    # Removing

    def invalidate_tag(self, tag: str, *, scope: CacheScope | None = None) -> Result[str, CacheError]:
        """Remove whatever was stored with `tag`, in all scopes or in the one named; on a view, what its user sees.

        It costs the same for one entry and for a million, and holds against
        fetches that are under way, also if they learn of the tag only with
        their answer. Failures: `InvalidOption`, `CacheClosed`.
        """
        return self._mark(tag, scope, is_soft=False)

    def expire_tag(self, tag: str, *, scope: CacheScope | None = None) -> Result[str, CacheError]:
        """As `invalidate_tag`, but what was stored with `tag` is only stale: its windows begin now."""
        return self._mark(tag, scope, is_soft=True)

    def _mark(self, tag: str, scope: CacheScope | None, *, is_soft: bool) -> Result[str, CacheError]:
        if not isinstance(tag, str):
            return Failure(InvalidOption("tag", type(tag).__name__))
        if scope is not None and type(scope) is not CacheScope:
            return Failure(InvalidOption("scope", type(scope).__name__))
        tag = str.__str__(tag)
        runtime = self._runtime
        if runtime.is_closed:
            return Failure(CacheClosed())
        self._order(commands.MarkTag(tag, runtime.time.now(), UNSTAMPED, is_soft, scope, self._viewer), stamps=True)
        return Success(tag)

    def invalidate_prefix(self, prefix: str, *, scope: CacheScope | None = None) -> Result[str, CacheError]:
        """Remove every key that begins with `prefix`, from where `invalidate` would. It looks at every key there is.

        Failures: `InvalidKey`, `InvalidOption`, `CacheClosed`.
        """
        bad = bad_read(prefix, scope)
        if bad is not None:
            return Failure(bad)
        prefix = str.__str__(prefix)
        if self._runtime.is_closed:
            return Failure(CacheClosed())
        self._order(commands.InvalidatePrefix(prefix, scope, self._viewer))
        return Success(prefix)

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

    def _order(self, command: commands.Command[Answer], *, stamps: bool = False) -> None:
        if not self._runtime.is_closed:
            self._runtime.dispatch(command, stamps)
            self._after_order()

    def _after_order(self) -> None:
        raise NotImplementedError

    # Asking

    def _plain_get(
        self,
        key: str,
        policy: CachePolicy,
        ttl: Ttl | Lifetime | Default,
        domain_id: int,
    ) -> commands.Get | None:
        """The command of a get without options; None where something of it is to be looked at."""
        runtime = self._runtime
        if type(key) is not str or type(policy) is not CachePolicy:
            return None
        ttl_s: float | None
        if type(ttl) is int and 0 <= ttl <= LONGEST_TTL_S:
            ttl_s = ttl
        elif ttl is DEFAULT and runtime.default_lifetime is None:
            ttl_s = runtime.default_ttl_s
        else:
            return None
        return commands.Get(
            key,
            runtime.time.now(),
            next(runtime.flight_ids),
            policy,
            GLOBAL,
            self._viewer,
            domain_id,
            ttl_s,
            runtime.default_rule,
            runtime.stores_failures,
            True,
            False,
            False,
            () if WITHIN.get() is None else within(runtime),
        )

    def _get_command(
        self,
        key: str,
        policy: CachePolicy,
        ttl: Ttl | Lifetime | Default,
        call: Call,
        domain_id: int,
    ) -> tuple[commands.Get, Plan] | Failure[Any]:
        """The command that a `get` amounts to, and how it is fetched; or what is wrong with its options."""
        runtime = self._runtime
        if type(policy) is not CachePolicy:
            return Failure(InvalidOption("policy", type(policy).__name__))
        try:
            always_revalidate = bool(call.always_revalidate)
        except Exception:  # noqa: BLE001 (an object may refuse to say)
            return Failure(InvalidOption("always_revalidate", type(call.always_revalidate).__name__))
        checked = checked_call(self._runtime, key, ttl, call)
        if isinstance(checked, Failure):
            return checked
        command = commands.Get(
            checked.key,
            runtime.time.now(),
            next(runtime.flight_ids),
            policy,
            call.scope,
            self._viewer,
            domain_id,
            checked.ttl_s,
            checked.rule,
            checked.store_failures,
            checked.heed_failures,
            always_revalidate,
            False,
            within(runtime),
            checked.lifespan,
            checked.tags,
            checked.origin,
        )
        return command, checked.plan

    def _refresh_command(
        self,
        source: RefreshSource,
        key: str,
        ttl: Ttl | Lifetime | Default,
        call: Call,
        domain_id: int,
    ) -> tuple[commands.Refresh, Plan] | Failure[Any]:
        """The command that a `refresh` or `prefetch` amounts to; or what is wrong with its options."""
        checked = checked_call(self._runtime, key, ttl, call)
        if isinstance(checked, Failure):
            return checked
        command = commands.Refresh(
            checked.key,
            self._runtime.time.now(),
            next(self._runtime.flight_ids),
            source,
            call.scope,
            self._viewer,
            domain_id,
            checked.ttl_s,
            checked.rule,
            checked.store_failures,
            within(self._runtime),
            checked.lifespan,
            checked.tags,
            checked.origin,
        )
        return command, checked.plan

    def _authenticated(self, options: dict[str, Any]) -> Call:
        """The options of an authenticated call. Its failure is one user's, and remembered with that user or nowhere."""
        call = call_of({"scope": CacheScope.USER, **options})
        return call if call.scope is CacheScope.USER else replace(call, cache_failures=False)

    def _lacks_user(self, options: Mapping[str, Any]) -> bool:
        """Whether an authenticated call is for the active user, and there is none."""
        is_users = options.get("scope", CacheScope.USER) is CacheScope.USER
        return is_users and self._viewer is None and self.active_user_id is None


def schema_of(entry: Entry[Answer]) -> Schema | None:
    """What `entry` was stored as."""
    schema: Schema | None = None if entry.terms is None else entry.terms.schema
    return schema


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
