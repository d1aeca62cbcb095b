"""The one runtime under both faces: it reduces a command, commits what follows from it, and tells the logger.

What must happen in the order of the commands happens under the lock and runs
no code of a user's: the state, the flights, the queue of store calls, the
mailboxes of watchers. Loggers, fetchers and callbacks run outside it. Waiting
is the drivers' part: this file knows neither event loops nor threads.
"""

from __future__ import annotations

import itertools
import logging
import random
import threading
import weakref
from collections import deque
from contextlib import contextmanager
from functools import partial
from math import inf, isinf
from typing import TYPE_CHECKING, Any, Final, cast

from msgspec.structs import replace
from returns.result import Failure, Success

from cachemesh.core import commands, effects
from cachemesh.core.effects import Join, StartFetch
from cachemesh.core.explain import Explanation, explain
from cachemesh.core.lifetimes import plain_until, verdict
from cachemesh.core.model import BACKGROUND, Breaker, Entry, Failed, RefreshSource, Terms
from cachemesh.core.policies import AGEING, FRESH, MISSING, SERVE, CachePolicy, Freshness
from cachemesh.core.reducer import reduce
from cachemesh.core.scopes import GLOBAL_OWNER, USER, CacheScope, Owner, owner_of, visible_owners
from cachemesh.core.tags import expiry_by_marks
from cachemesh.errors import (
    CacheClosed,
    CacheExpired,
    CacheMiss,
    CircuitOpen,
    FetchCancelled,
    FetchTimeout,
    NoActiveUser,
    ReentrantFetch,
    StoreFailed,
    UndecodableEntry,
)
from cachemesh.shell.authenticated import AuthenticatedFetch
from cachemesh.shell.batch import batch_of
from cachemesh.shell.clock import Timekeeper
from cachemesh.shell.directives import DoNotCache, Fresh, NotModified, Previous
from cachemesh.shell.durations import duration_s, seconds
from cachemesh.shell.eviction import MAX_VISITS, S3Fifo
from cachemesh.shell.intake import Arrival, Aside, Found, Intake, fits, termed
from cachemesh.shell.lifetime import Lifetime
from cachemesh.shell.live import Boarding, Drops, LiveFlight, Phase, Plan, Wish, within
from cachemesh.shell.logging import shown_error, shown_key
from cachemesh.shell.outcomes import (
    Answer,
    directed,
    is_cacheable,
    origin_traceback,
    seen_by_predicate,
    strip_tracebacks,
    with_traceback,
)
from cachemesh.shell.ports import Backplane, Change, Encoded, NewsKind, SharedStore, StoredEntry
from cachemesh.shell.recording import Beginning, CommandLog, Ended, Follows, Told
from cachemesh.shell.reports import events_of
from cachemesh.shell.schema import (
    DecodingError,
    EncodingError,
    Schema,
    Schemas,
    decoded_failure,
    decoded_plainly,
    encoded_failure,
)
from cachemesh.shell.store_line import StoreLine
from cachemesh.shell.tables import LiveState
from cachemesh.shell.values import Values
from cachemesh.shell.watch import Mailbox, WatchTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from cachemesh.shell.logging import CacheLogger
    from cachemesh.shell.ports import Claim, Clock, News, Store
    from cachemesh.shell.provenance import Trace
    from cachemesh.shell.recording import CommandRecorder
    from cachemesh.shell.settings import Settings
    from cachemesh.shell.store_call import StoreCall

MOST_REREADS: Final = 3
"""So often is a store read again whose entry others change meanwhile; after that it is fetched."""

MOST_FAILURES: Final = 10_000
"""So many failures are remembered, whatever the number of entries."""

TAKEN: Final = "taken"
ASIDE: Final = "aside"
REMOVED: Final = "removed"
FULL: Final = "full"

reduce_live: Final = cast(
    "Callable[[LiveState, commands.Command[Answer]], tuple[LiveState, effects.Effects[Answer]]]", reduce
)
"""`reduce`, which answers in the carrier that it was asked in."""

_LOG: Final = logging.getLogger("cachemesh")


class Runtime:
    """What a cache and its views share."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store | None,
        clock: Clock | None,
        logger: CacheLogger | None,
        recorder: CommandRecorder | None = None,
    ) -> None:
        ttl = settings.default_ttl
        self.default_lifetime = ttl if isinstance(ttl, Lifetime) else None
        self.default_ttl_s = ttl.ttl_s if isinstance(ttl, Lifetime) else seconds(ttl)
        self.default_rule = settings.retry.rule
        self.default_plan = Plan(
            settings.retry,
            settings.retry.attempt_timeout_s,
            self.default_lifetime,
            age_s=duration_s(settings.max_flight_age),
        )
        self.stores_failures = settings.cache_failures
        self.breakers = settings.breakers
        self.values = Values(settings.copy_on_read, settings.freeze)
        self._chance: Callable[[], float] = random.random if settings.rng is None else settings.rng.random
        self._ageing: dict[int, LiveFlight] = {}
        """The flights that may get too old, by id."""
        self._overdue_from = inf
        """None of them is too old before this instant."""
        self.logger = logger
        self.time = Timekeeper(clock, lambda error: self.tell_error("clock", error))
        self.lock = threading.RLock()
        self._drops = Drops()
        self._is_busy = False
        self._deferred: deque[commands.Command[Answer]] = deque()
        """What finalizers ordered while this very thread held the lock: a value may use the cache as it dies."""
        self.state = LiveState.empty(has_store=store is not None, max_entries=settings.max_entries)
        self.flight_ids = itertools.count(1)
        self.domain_ids = itertools.count()
        self.is_closed = False
        self.line = None if store is None else StoreLine(store, self.lock, self.tell_error, self._overtaken)
        self.schemas = Schemas(settings.schemas)
        self.intake = Intake()
        self.keeps_bytes = isinstance(store, SharedStore)
        """Whether the store gets values as bytes: they are made of them before a command, outside the lock."""
        self._backplane = backplane_of(store)
        self._stop_listening: Callable[[], None] | None = None
        self._by_hand: tuple[Answer, Encoded | None] | None = None
        """What is being written by hand, and its bytes."""
        self.lives: dict[int, LiveFlight] = {}
        self.alike: dict[str, LiveFlight] = {}
        """By key, a flight of the global scope that may still store."""
        self._order = S3Fifo(settings.max_entries)
        self._max_entries = settings.max_entries
        self._watches = WatchTable()
        self._unrung: deque[Mailbox] = deque()
        self._remembered: deque[tuple[Owner, str]] = deque()
        self.log: CommandLog | None = (
            None if recorder is None else self._recorded_by(recorder, has_store=store is not None)
        )
        self._reduce = reduce_live if self.log is None else self.log.recorded(reduce_live)
        self.reads_plainly = logger is None and clock is None and self.values.copy is None and self.log is None
        """Whether a hit needs nothing but the table and `time.monotonic`."""

    def _recorded_by(self, recorder: CommandRecorder, *, has_store: bool) -> CommandLog:
        """The log that `recorder` writes from now on. Every answer then goes by the reducer, also a plain hit."""
        beginning = Beginning(has_store, self._max_entries, self.default_ttl_s, self.time.epoch_offset)
        runtime = weakref.ref(self)

        def report(error: Exception) -> None:
            alive = runtime()
            if alive is not None:
                alive.tell_error("recorder", error)

        log = CommandLog(beginning, report)
        recorder.begin(log)
        return log

    def close_recorder(self, recorder: CommandRecorder) -> None:
        """Let `recorder` write what has come. What it raises costs nothing but the log."""
        try:
            recorder.close()
        except Exception as error:  # noqa: BLE001 (it may be a user's own)
            self.tell_error("recorder", error)

    # Asking

    def hit(self, command: commands.Get) -> Answer | None:
        """The answer of a fresh entry, without the lock, for a policy that just serves one. None leads to `ask`."""
        policy = command.policy
        if self.log is not None or policy.action(FRESH, command.always_revalidate) is not SERVE:
            return None
        owner = owner_of(command.scope, self.state.active_user, command.viewer)
        partition = None if owner is None else self.state.partitions.get(owner)
        resident = None if partition is None else partition.entries.get(command.key)
        if owner is None or resident is None or command.now >= resident.hit_until:  # type: ignore[attr-defined]  # a Resident
            return None
        answer: Answer = resident.answer
        _visit(resident)
        if self.logger is not None:
            self.tell("on_hit", shown_key(owner, command.key))
        return answer

    def ask(  # noqa: C901, PLR0912, PLR0915 (a case an effect)
        self,
        command: commands.Get | commands.Refresh,
        fetch: Callable[..., Any],
        plan: Plan,
        wish: Wish | None = None,
        trace: Trace | None = None,
    ) -> Answer | Boarding:
        """Reduce what a caller asks. A `Boarding` that leads obliges the driver to set the flight going.

        So does a background refresh that was started; it comes through
        `unmanned`. `wish`: the policy and ttl of a get without other options.
        `trace`: notes down what is decided, and why.
        """
        if command.now >= self._overdue_from or self.intake.is_asked:
            self._look_up(command, plan)
        answer: Answer | Boarding | None = None
        started: LiveFlight | None = None
        self.lock.acquire()  # `with` costs twice as much, and this is on the path of every miss.
        if self._is_busy:
            self.lock.release()
            return Failure(ReentrantFetch(command.key))
        self._is_busy = True
        try:
            if self.is_closed:
                return Failure(CacheClosed())
            if trace is not None:
                self._note(trace, command)
            self.state, ordered = self._reduce(self.state, command)
            for effect in ordered:
                if type(effect) is Join:
                    live = started or self.lives[effect.flight_id]
                    live.waiting += 1
                    leads = live is started
                    answer = Boarding(live, effect.falls_back, effect.reads, leads, command, fetch, plan, trace)
                elif type(effect) is StartFetch:
                    started = LiveFlight(
                        effect.flight_id, effect.owner, command, fetch, plan, self._drops.of(effect.owner)
                    )
                    if plan is not self.default_plan or plan.age_s is not None:
                        self._prepare(started)
                    if self.keeps_bytes:
                        self._prepare_claim(started, effect)
                    if effect.source is BACKGROUND:
                        started.is_background = True
                        started.leader_waits = False
                    elif wish is not None and not command.within:
                        started.wish = wish
                        self.alike[command.key] = started
                    self.lives[effect.flight_id] = started
                elif type(effect) is effects.Reply:
                    answer = self._replied(effect)
                elif type(effect) is effects.Refuse:
                    answer = Failure(self._refusal(effect, command.key))
                elif type(effect) is effects.Load:
                    started = LiveFlight(
                        effect.flight_id, effect.owner, command, fetch, plan, self._drops.of(effect.owner)
                    )
                    started.is_load = True
                    assert self.line is not None
                    started.in_front = self.line.in_front_of_read(effect.owner, effect.key)
                    self.lives[effect.flight_id] = started
        finally:
            self._is_busy = False
            self.lock.release()
        if self._deferred:
            self._catch_up()
        if self.logger is not None:
            self._report(ordered, command)
        assert answer is not None
        return answer

    def _prepare(self, live: LiveFlight) -> None:
        """What only some flights need before they start: who hands over the previous value, who looks at the clock."""
        if live.plan.is_conditional:
            live.fetcher = live.fetch
            live.fetch = partial(self._fetch_conditionally, live)
        if live.plan.age_s is not None:
            live.overdue_at = live.asked.now + live.plan.age_s
            self._ageing[live.flight_id] = live
            self._overdue_from = min(self._overdue_from, live.overdue_at)

    def _prepare_claim(self, live: LiveFlight, effect: StartFetch) -> None:
        """Whether a flight asks a shared store first: not where it passes the cache by."""
        flight = self.state.flights.get(effect.flight_id)
        live.claims = flight is not None and flight.persist
        live.waits_for_others = effect.source in WAITING and batch_of(live.fetch) is None
        if live.waits_for_others and effect.source is RefreshSource.CACHE_MISS:
            live.knows_none = self._remembers_nothing(live.owner, live.key)

    def _remembers_nothing(self, owner: Owner, key: str) -> bool:
        """Neither a failure nor a value, but for one that was invalidated by a tag: the store knows since when."""
        partition = self.state.partitions.get(owner)
        if partition is None:
            return True
        entry = partition.entries.get(key)
        is_gone = entry is None or verdict(entry, self.time.now(), self.state, owner) is MISSING
        return is_gone and key not in partition.failures

    def _fetch_conditionally(self, live: LiveFlight) -> Any:  # noqa: ANN401 (whatever a fetcher answers)
        fetch: Callable[[Previous[Any] | None], Any] = live.fetcher
        now, found = self.time.now(), None
        with self.exclusive():  # Another thread may be writing the entry anew, one part after the other.
            partition = self.state.partitions.get(live.owner)
            entry = None if partition is None else partition.entries.get(live.key)
            if entry is not None and verdict(entry, now, self.state, live.owner) is not MISSING:
                found = entry.answer, entry.terms, entry.created_at
        if found is None:
            live.previous = None
            return fetch(None)
        answer, terms, created_at = found
        live.previous = answer, terms
        copied = self.values.given(live.key, answer)
        if isinstance(copied, Failure):
            return copied
        return fetch(Previous(copied.unwrap(), None if terms is None else terms.validator, max(0.0, now - created_at)))

    def _note(self, trace: Trace, command: commands.Get | commands.Refresh) -> None:
        if not isinstance(command, commands.Get):
            return
        explanation = explain(self.state, command)
        partition = None if explanation.owner is None else self.state.partitions.get(explanation.owner)
        entry = None if partition is None else partition.entries.get(command.key)
        trace.explained(explanation, None if entry is None else entry.created_at)

    def explained(self, command: commands.Get) -> Explanation:
        """What `ask` would decide, with nothing done about it."""
        with self.exclusive():
            return explain(self.state, command)

    def _refusal(self, effect: effects.Refuse, key: str) -> Exception:
        """The error that a caller who is refused gets."""
        if effect.reason is effects.Refusal.CIRCUIT_OPEN:
            return CircuitOpen(effect.origin, effect.until + self.time.epoch_offset)
        return REFUSALS[effect.reason](key)

    def _replied(self, effect: effects.Reply[Answer]) -> Answer:
        if not effect.hit:
            return with_traceback(effect.answer, None)
        partition = self.state.partitions.get(effect.owner)
        resident = None if partition is None else partition.entries.get(effect.key)
        if resident is not None:
            _visit(resident)
        return effect.answer

    def unmanned(self, command: commands.Get | commands.Refresh) -> LiveFlight | None:
        """The background refresh that `command` has started, for the driver to set going."""
        live = self.lives.get(command.flight_id)
        return live if live is not None and live.is_background else None

    def told(self, boarding: Boarding) -> Answer | None:
        """What a flight that is over brings to one of those who waited; None: ask again. A crash is its leader's."""
        live = boarding.live
        if boarding.leads and live.crash is not None:
            crash, live.crash = live.crash, None
            raise crash
        answer = live.answer
        if answer is None:
            return None if live.phase is Phase.ASK_AGAIN else Failure(FetchCancelled(live.key))
        if type(answer) is not Failure:
            return answer if not live.joiners_ask_again or boarding.leads else None
        old = live.fallback if boarding.falls_back else live.rescue if boarding.reads else None
        if old is not None:
            if self.logger is not None:
                self.tell("on_hit", shown_key(live.owner, live.key))
            return old
        return with_traceback(answer, live.traceback)

    def brought(self, boarding: Boarding) -> Answer | None:
        """What a load has brought, to one who waited for it and just wants what is fresh; None: ask again."""
        live, asked = boarding.live, boarding.asked
        if not live.is_admitted or boarding.trace is not None or type(asked) is not commands.Get:
            return None
        if self.log is not None or asked.policy.action(FRESH, asked.always_revalidate) is not SERVE:
            return None
        partition = self.state.partitions.get(live.owner)
        resident: Any = None if partition is None else partition.entries.get(live.key)
        if resident is None or self.time.now() >= resident.hit_until:
            return None
        answer: Answer = resident.answer
        if self.logger is not None:
            self.tell("on_hit", shown_key(live.owner, live.key))
        return answer

    def asked_again(self, boarding: Boarding) -> commands.Get | commands.Refresh:
        """What was asked, now that the store has been, or a fetch that began too early.

        The question stays with the owner it was put for, whoever is active by
        now. If that owner may have left meanwhile, the answer is stored nowhere.
        """
        again = self._asked_again(boarding)
        if self.log is not None:
            with self.exclusive():
                self.log.put(Follows(again.flight_id, boarding.asked.flight_id))
        return again

    def _asked_again(self, boarding: Boarding) -> commands.Get | commands.Refresh:
        live, asked = boarding.live, boarding.asked
        if isinstance(asked, commands.Refresh):
            return replace(asked, now=self.time.now(), flight_id=next(self.flight_ids))
        has_left = live.owner != GLOBAL_OWNER and live.drops_before != self._drops.of(live.owner)
        may_be_struck = live.is_struck or live.has_found
        reads_again = may_be_struck and self._backplane is not None and asked.rereads < MOST_REREADS
        return replace(
            asked,
            now=self.time.now(),
            flight_id=next(self.flight_ids),
            viewer=live.owner[1] if asked.scope is USER else asked.viewer,
            policy=CachePolicy.NETWORK_ONLY if has_left else asked.policy,
            asked_store=not reads_again,
            rereads=asked.rereads + reads_again,
        )

    def boarding_alike(self, key: str, wish: Wish, domain_id: int) -> LiveFlight | None:
        """The flight that a get for the global scope is sure to join, as its leader asked for the very same.

        What the reducer would answer is known: `Join`, and the same state. So
        thousands of callers of one key need not ask it thousands of times.
        """
        live = None if self.log is not None else self.alike.get(key)
        if live is None or live.asked.domain != domain_id or live.wish is None or within(self):
            return None
        if live.overdue_at is not None and self.time.now() >= live.overdue_at:
            return None
        policy, ttl = live.wish
        return live if policy is wish[0] and ttl is wish[1] else None

    # Flights

    def answered(self, live: LiveFlight, answer: Answer) -> float | None:
        """An attempt of `live` is over: the seconds to wait before the next one; None when it was the last.

        A success goes to the core as the fetcher's directives and the cache's
        own `freeze` leave it.
        """
        live.attempts += 1
        directives = None
        if type(answer) is Success:
            kind = type(answer._inner_value)
            if kind is Fresh or kind is NotModified or kind is DoNotCache:
                answer, directives = directed(answer, live.key, live.previous)
            if self.keeps_bytes:
                self._encode(live, answer)
            if self.values.freeze is not None and not (directives is not None and directives.renews):
                answer = self.values.kept(live.key, answer)
        if type(answer) is Failure:
            return self._failed(live, answer)
        plain = directives is None and live.plan is self.default_plan and live.asked.lifespan is None
        chance = 0.0 if plain else self._chance()
        self.dispatch(
            commands.FetchSucceeded(live.flight_id, answer, self.time.now(), chance, directives, live.plan.schema)
        )
        return None

    def _encode(self, live: LiveFlight, answer: Answer) -> None:
        """Make the bytes that the store will get of an answer."""
        flight = self.state.flights.get(live.flight_id)
        if flight is None or not flight.persist:
            return
        live.encoded = None
        if type(answer) is Failure:
            if flight.store_failures:
                live.encoded = self.encoded_error(live.owner, live.key, answer.failure(), live.plan.error_schema)
        else:
            live.encoded = self.encoded(live.owner, live.key, answer.unwrap(), live.plan.schema)

    def encoded(self, owner: Owner, key: str, value: Any, schema: Schema | None) -> Encoded | None:  # noqa: ANN401
        """`value` as bytes; None where it has none that would bring it back, which the logger is told."""
        try:
            return self.values.encoded(key, value, schema)
        except EncodingError as error:
            self._tell_unencodable(owner, key, error)
            return None

    def encoded_error(self, owner: Owner, key: str, error: Any, schema: Schema | None) -> Encoded | None:  # noqa: ANN401
        """`error` as bytes, as for `encoded`."""
        try:
            return encoded_failure(error, schema)
        except EncodingError as raised:
            self._tell_unencodable(owner, key, raised)
            return None

    def _tell_unencodable(self, owner: Owner, key: str, error: EncodingError) -> None:
        self.tell_error(shown_key(owner, key), StoreFailed("encode", error))

    def decoded(self, stored: StoredEntry, schema: Schema | None) -> Answer | None:
        """The answer in what was stored. None where it is none of this schema, which the logger is told."""
        try:
            return self.read_out(stored, schema)
        except DecodingError as error:
            self._tell_undecodable(stored.owner, stored.key, str(error))
            return None

    def read_out(self, stored: StoredEntry, schema: Schema | None) -> Answer | None:
        """The same. `DecodingError` where it is none of this schema; None where it cannot be frozen."""
        value = stored.value
        if type(value) is not Encoded:
            return Failure(value) if stored.is_failure else Success(value)
        if stored.is_failure:
            return Failure(decoded_failure(value, schema))
        answer = Success(decoded_plainly(value) if schema is None else schema.decode(value))
        if self.values.freeze is None:
            return answer
        kept = self.values.kept(stored.key, answer)
        return kept if isinstance(kept, Success) else None

    def _tell_undecodable(self, owner: Owner, key: str, reason: str) -> None:
        shown = shown_key(owner, key)
        self.tell_error(shown, UndecodableEntry(shown, reason))

    def _failed(self, live: LiveFlight, answer: Answer) -> float | None:
        error = answer.failure()
        if self.keeps_bytes:
            self._encode(live, answer)
        ordered = self.dispatch(
            commands.FetchFailed(
                live.flight_id,
                answer,
                self.time.now(),
                self._would_retry(live, error),
                is_cacheable(error),
                self._chance(),
                self._failure_ttl_s(live, error),
                self._counts(live, error),
                live.plan.error_schema,
            ),
        )
        first = ordered[0] if ordered else None
        return first.delay_s if isinstance(first, effects.WaitUntil) else None

    def _failure_ttl_s(self, live: LiveFlight, error: object) -> float | None:
        lifetime = live.plan.lifetime
        if lifetime is None:
            return None
        try:
            return lifetime.failure_ttl_s(seen_by_predicate(error))
        except Exception as raised:  # noqa: BLE001 (the failure is answered, and remembered for the ordinary time)
            self.tell_error(shown_key(live.owner, live.key), raised)
            return None

    def _counts(self, live: LiveFlight, error: object) -> bool:
        counts = live.plan.counts
        if counts is None:
            return True
        try:
            return bool(counts(seen_by_predicate(error)))
        except Exception as raised:  # noqa: BLE001 (as for `retry_when`)
            self.tell_error(shown_key(live.owner, live.key), raised)
            return True

    def waited_long(self, boarding: Boarding) -> Answer | None:
        """A caller has waited for its soft timeout: the old value that it gets, or None."""
        live = boarding.live
        old = self._old_value(commands.WaitedLong(live.flight_id, self.time.now()))
        flight = self.state.flights.get(live.flight_id)
        if flight is not None and flight.is_detached:
            live.is_background = True
        if old is not None:
            self.told_early(boarding, "old")
        return old

    def told_early(self, boarding: Boarding, how: str) -> None:
        """A caller does not wait for the end of its flight: for the recorder."""
        if self.log is not None:
            with self.exclusive():
                self.log.put(Told(boarding.asked.flight_id, how))

    def gave_up(self, boarding: Boarding) -> Answer:
        """A caller has waited for its hard timeout: what it gets."""
        live, hard_s = boarding.live, boarding.plan.hard_s
        assert hard_s is not None
        with self.exclusive():
            is_first, live.is_given_up = not live.is_given_up, True
            if self.alike.get(live.key) is live:
                del self.alike[live.key]
        error = FetchTimeout(live.key, hard_s)
        counts = self._counts(live, error)
        old = self._old_value(
            commands.GaveUp(live.flight_id, self.time.now(), boarding.reads, boarding.falls_back, counts),
        )
        if is_first:
            self.tell_error(shown_key(live.owner, live.key), shown_error(live.owner, error))
        self.told_early(boarding, "failed" if old is None else "old")
        return Failure(error) if old is None else old

    def _old_value(self, command: commands.WaitedLong | commands.GaveUp) -> Answer | None:
        replies = (effect.answer for effect in self.dispatch(command) if isinstance(effect, effects.Reply))
        return next(replies, None)

    def give_up_overdue(self, now: float) -> None:
        """End the flights that are too old, and let those who wait for them go."""
        if now < self._overdue_from:
            return
        with self.exclusive():
            due = [each for each in self._ageing.values() if each.overdue_at is not None and now >= each.overdue_at]
            left = (each.overdue_at for each in self._ageing.values() if each.overdue_at is not None)
            self._overdue_from = min((instant for instant in left if now < instant), default=inf)
        for live in due:
            self.overdue(live)

    def overdue(self, live: LiveFlight) -> None:
        """`live` is too old: it fails, whatever its fetch is doing."""
        if live.phase is Phase.UNDER_WAY:
            answer = Failure(FetchTimeout(live.key, live.plan.age_s or 0.0))
            self.dispatch(commands.Overdue(live.flight_id, answer, self.time.now()))
            if live.driver is not None:
                live.driver.cancel(live)

    def is_due(self, live: LiveFlight) -> bool:
        """Whether the flight still wants its next attempt, now that the wait is over."""
        return bool(self.dispatch(commands.RetryDue(live.flight_id)))

    def aborted(self, live: LiveFlight) -> None:
        """The fetch of `live` will not answer."""
        self.dispatch(commands.FetchAborted(live.flight_id))

    def loaded(self, live: LiveFlight, stored: StoredEntry | None) -> None:
        """The store has answered the load `live`."""
        entry, failed = self._as_loaded(stored, live.plan)
        live.has_found = entry is not None  # Before anybody is woken.
        ordered = self.dispatch(commands.Loaded(live.flight_id, self.time.now(), entry, failed))
        live.is_admitted = len(ordered) > 0 and type(ordered[0]) is effects.Admit

    # Other processes

    def claimed(self, live: LiveFlight, claim: Claim | None) -> None:
        """`live` may fetch, with `claim`. One that is over by now gives it back."""
        if claim is None:
            return
        with self.exclusive():
            if live.flight_id in self.lives:
                live.claim = claim
            else:
                self._release(live.owner, live.key, claim)

    def found_elsewhere(self, live: LiveFlight, stored: StoredEntry) -> bool:
        """Whether what another process has fetched meanwhile can be the answer of `live`: then it is."""
        if stored.is_failure or stored.owner != live.owner or stored.key != live.key:
            return False
        entry, _ = self._as_loaded(stored, live.plan)
        now = self.time.now()
        if entry is None or verdict(entry, now) not in FRESH_ENOUGH:
            return False
        self.dispatch(commands.FoundElsewhere(live.flight_id, now, entry))
        return True

    def listen(self) -> None:
        """Hear from now on what other processes do, where the store tells."""
        if self._backplane is None or self._stop_listening is not None or self.is_closed:
            return
        self._stop_listening = do_nothing
        try:
            self._stop_listening = self._backplane.listen(self.hear)
        except Exception as error:  # noqa: BLE001 (a store may raise anything)
            self.tell_error("", StoreFailed("listen", error))

    def hear(self, news: News) -> None:
        """Another process has done something, in whatever thread that is told."""
        if self.is_closed:
            return
        if news.kind is NewsKind.MARKED:
            now = self.time.now()
            is_soft = news.stale_at is not None
            at = now if news.stale_at is None else min(now, news.stale_at - self.time.epoch_offset)
            self.dispatch(commands.MarkTag(news.tag, at, 0, is_soft, is_heard=True, owner=news.owner), True)
        elif news.kind is NewsKind.LOST:
            self.dispatch(commands.Heard(is_gap=True))
        else:
            self.dispatch(commands.Heard(news.owner, news.key))

    def _overtaken(self, owner: Owner, key: str) -> None:
        """A shared store has not taken what was fetched, as somebody has changed it meanwhile."""
        self.dispatch(commands.Heard(owner, key))

    def _release(self, owner: Owner, key: str, claim: Claim) -> None:
        assert self.line is not None
        self.line.order(Change("release", owner, key, claim=claim))

    def _commit_overtaken(self, effect: effects.Overtaken) -> None:
        owner = effect.owner
        if owner == GLOBAL_OWNER:
            for key in list(self.alike) if effect.is_whole else effect.keys:
                self.alike.pop(key, None)
        elif effect.is_whole and not effect.is_gap:
            self._drops.add(owner)
        for key in self._watches.keys(owner) & effect.keys:
            self._announce(owner, key, Failure(CacheMiss(key)))

    def _would_retry(self, live: LiveFlight, error: object) -> bool:
        flight = self.state.flights.get(live.flight_id)
        if flight is None or flight.attempt >= flight.retry.max_attempts:
            return False
        fetch = live.fetch if live.fetcher is None else live.fetcher
        if isinstance(fetch, AuthenticatedFetch) and fetch.is_spent:
            return False
        retry_when = live.plan.options.retry_when
        if retry_when is None:
            return True
        try:
            return bool(retry_when(seen_by_predicate(error)))
        except Exception as raised:  # noqa: BLE001 (a predicate that raises must not cost the answer)
            self.tell_error(shown_key(live.owner, live.key), raised)
            return False

    def _as_loaded(
        self,
        stored: StoredEntry | None,
        plan: Plan,
    ) -> tuple[Entry[Answer] | None, Failed[Answer] | None]:
        if stored is None:
            return None, None
        schema = plan.error_schema if stored.is_failure else plan.schema
        answer = self.decoded(stored, schema)
        if answer is None:
            return None, None
        found = self.found_in(stored, answer, schema)
        return (None, found) if isinstance(found, Failed) else (found, None)

    def found_in(self, stored: StoredEntry, answer: Answer, schema: Schema | None) -> Entry[Answer] | Failed[Answer]:
        """The entry or the failure that was stored, as the memory keeps it."""
        created_at = stored.created_at - self.time.epoch_offset
        expires_at = inf if stored.expires_at is None else stored.expires_at - self.time.epoch_offset
        if stored.is_failure:
            return Failed(answer, created_at, expires_at, created_at, schema)
        terms = None
        is_plain = stored.validator is None and stored.serve_stale_s is None and schema is None
        if stored.tags or not is_plain:
            ageing_at = inf if stored.ageing_at is None else stored.ageing_at - self.time.epoch_offset
            terms = Terms(
                stored.serve_stale_s,
                stored.stale_if_error_s,
                ageing_at,
                stored.tags,
                stored.validator,
                schema=schema,
            )
        return Entry(answer, created_at, stored.ttl_s, expires_at, terms)

    # Commands and what follows from them

    def dispatch(
        self,
        command: commands.Command[Answer],
        stamps: bool = False,  # noqa: FBT002 (a keyword costs)
        by_hand: tuple[Answer, Encoded | None] | None = None,
    ) -> effects.Effects[Answer]:
        """Reduce `command`, commit its effects, tell the logger, wake nobody: that is the driver's part.

        `stamps`: the command gets a stamp from the row of the flights' ids. It is
        drawn under the lock, so that the row is also the order of the commands.
        `by_hand`: an answer that it is to write, and what the store gets for it.
        """
        self.lock.acquire()  # As in `ask`.
        if stamps:
            command = replace(command, stamp=next(self.flight_ids))
        if self._is_busy:
            self._deferred.append(command)
            self.lock.release()
            return ()
        self._is_busy = True
        self._by_hand = by_hand
        try:
            followed = self._commit(command)
        finally:
            self._is_busy = False
            self._by_hand = None
            self.lock.release()
        if self._deferred:
            self._catch_up()
        if self._unrung:
            self._ring()
        if self.logger is not None:
            self._report(followed, command)
        return followed

    def _commit(self, command: commands.Command[Answer]) -> effects.Effects[Answer]:
        """Reduce `command` and commit its effects, within a passage of the lock: what follows from it."""
        self.state, ordered = self._reduce(self.state, command)
        if self.intake.is_open:
            self.intake.note(command, ordered)
        followed = ordered
        for effect in ordered:
            commit = COMMITS.get(type(effect))
            if commit is not None:
                more = commit(self, effect)
                if more:
                    followed += more
        return followed

    def _landed(self, flight_id: int) -> LiveFlight:
        live = self.lives.pop(flight_id)
        if live.claim is not None:
            self._release(live.owner, live.key, live.claim)
        if live.overdue_at is not None:
            del self._ageing[flight_id]
        if live.wish is not None and self.alike.get(live.key) is live:
            del self.alike[live.key]
        return live

    def _struck_off(self, owner: Owner, key: str) -> None:
        """Flights of `key` may no longer be what a newcomer would join."""
        if owner == GLOBAL_OWNER:
            self.alike.pop(key, None)

    def _commit_settle(self, effect: effects.Settle[Answer]) -> None:
        live = self._landed(effect.flight_id)
        answer = live.answer = effect.answer
        if type(answer) is Failure:
            live.fallback = effect.fallback
            live.rescue = effect.rescue
            live.traceback = origin_traceback(answer.failure())
        elif effect.asks_again_after:
            live.joiners_ask_again = True
        live.phase = ANSWERED

    def _commit_ask_again(self, effect: effects.AskAgain) -> None:
        live = self._landed(effect.flight_id)
        live.phase = Phase.ASK_AGAIN
        live.is_struck = effect.is_struck

    def _commit_abort(self, effect: effects.Abort) -> None:
        live = self._landed(effect.flight_id)
        live.phase = Phase.ABORTED
        if self.is_closed:
            live.answer = Failure(CacheClosed())

    def _commit_cancel(self, effect: effects.CancelFetch) -> None:
        if effect.flight_id in self.lives:  # Not where the flight was settled by the same command.
            self._landed(effect.flight_id).phase = Phase.ABORTED

    def _commit_save(self, effect: effects.Save[Answer]) -> effects.Effects[Answer]:
        owner, key, entry = effect.owner, effect.key, effect.entry
        if self.alike:
            self._struck_off(owner, key)
        expires_at: float | None = entry.expires_at
        if entry.terms is not None and entry.terms.tags:
            expires_at = expiry_by_marks(self.state, owner, entry, entry.terms)
        if self._watches.boxes and effect.is_news and expires_at is not None:
            self._announce(owner, key, entry.answer)
        if self.line is not None and not effect.is_stored:
            live = self.lives.get(effect.flight_id)
            call = self._written_through(owner, key, entry, expires_at, live, is_renewal=not effect.is_news)
            if live is not None and call is not None:
                live.store_call = call
        return self._admitted(owner, key) if effect.is_new and self._max_entries is not None else ()

    def _commit_persist(self, effect: effects.Persist[Answer]) -> None:
        owner, key, entry = effect.owner, effect.key, effect.entry
        self._struck_off(owner, key)
        if self.line is None:
            return
        live = self.lives[effect.flight_id]
        if isinstance(entry, Failed):
            live.store_call = self._failure_written(owner, key, entry, live)
            return
        expires_at: float | None = entry.expires_at
        if entry.terms is not None:
            expires_at = expiry_by_marks(self.state, owner, entry, entry.terms)
        call = live.store_call = self._written_through(owner, key, entry, expires_at, live)
        if call is not None and self._watches.boxes:
            call.done.add_done_callback(lambda _: self._persisted(call, owner, key, entry.answer))

    def _persisted(self, call: StoreCall, owner: Owner, key: str, answer: Answer) -> None:
        """Watchers hear of what only the store can judge, if it has taken it and nothing has come since."""
        if not call.is_kept:
            return
        assert self.line is not None
        with self.exclusive():
            partition = self.state.partitions.get(owner)
            is_newest = partition is None or key not in partition.entries
            if is_newest and self.line.is_settled(owner, key):
                self._announce(owner, key, answer)
        self._ring()

    def _written_through(
        self,
        owner: Owner,
        key: str,
        entry: Entry[Answer],
        expires_at: float | None,
        live: LiveFlight | None,
        *,
        is_renewal: bool = False,
    ) -> StoreCall | None:
        """The call that has the store keep an entry until then; None: one of its tags was invalidated on the way.

        The store knows of no marks, so what they say of an entry goes with it.
        What it cannot keep takes the place of what it has all the same: that is
        deleted.
        """
        assert self.line is not None
        value = self._bytes_for(entry.answer, live) if self.keeps_bytes else entry.answer.unwrap()
        if expires_at is None or (self.keeps_bytes and value is None):
            return self.line.order(Change("delete", owner, key))
        if expires_at < entry.expires_at:
            entry = replace(entry, expires_at=expires_at, ttl_s=max(0.0, expires_at - entry.created_at))
        stored = self.as_stored(owner, key, entry, value)
        if live is None and is_renewal and self.keeps_bytes:
            return self.line.order(Change("touch", owner, key, stored))
        return self._kept(stored, live)

    def _kept(self, stored: StoredEntry, live: LiveFlight | None) -> StoreCall | None:
        """The call that has the store keep what `live` has brought, or what was written by hand.

        What was fetched without a claim may be older than what is there, which may be older still: nothing stays.
        """
        assert self.line is not None
        if live is None or not self.keeps_bytes:
            return self.line.order(Change("write", stored.owner, stored.key, stored))
        claim, live.claim = live.claim, None
        if claim is None:
            return self.line.order(Change("delete", stored.owner, stored.key))
        return self.line.order(Change("commit", stored.owner, stored.key, stored, claim))

    def _bytes_for(self, answer: Answer, live: LiveFlight | None) -> Encoded | None:
        """The bytes that were made of an answer of `live`, or of what is written by hand.

        What was fetched without a claim is not written: nobody knows whether it is newer than what is there.
        """
        if live is not None:
            return None if live.claim is None else live.encoded
        expected, encoded = self._by_hand or (None, None)
        return encoded if expected is answer else None

    def as_stored(self, owner: Owner, key: str, entry: Entry[Answer], value: Any) -> StoredEntry:  # noqa: ANN401
        offset, terms = self.time.epoch_offset, entry.terms
        stored = StoredEntry(
            owner,
            key,
            value,
            is_failure=False,
            created_at=entry.created_at + offset,
            ttl_s=entry.ttl_s,
            expires_at=None if isinf(entry.expires_at) else entry.expires_at + offset,
        )
        if terms is None:
            return stored
        return replace(
            stored,
            serve_stale_s=terms.serve_stale_s,
            stale_if_error_s=terms.stale_if_error_s,
            ageing_at=None if isinf(terms.ageing_at) else terms.ageing_at + offset,
            tags=terms.tags,
            validator=terms.validator,
        )

    def _commit_admit(self, effect: effects.Admit) -> effects.Effects[Answer]:
        if self.alike:
            self._struck_off(effect.owner, effect.key)
        return self._admitted(effect.owner, effect.key) if effect.is_new and self._max_entries is not None else ()

    def _admitted(self, owner: Owner, key: str) -> effects.Effects[Answer]:
        """Make room for a new entry: the evictions that follow from it."""
        partition = self.state.partitions.get(owner)
        assert partition is not None
        resident = partition.entries.get(key)
        assert resident is not None
        victims = self._order.admit(resident, self.state.census.count)  # type: ignore[arg-type]  # a Resident
        evicted: effects.Effects[Answer] = ()
        for victim in victims:
            self.state, logged = self._reduce(self.state, commands.Evict(victim.home.owner, victim.key))  # type: ignore[attr-defined]  # a Residents
            evicted += logged  # All that follows from an eviction is that the logger hears of it.
        return evicted

    def _commit_remember(self, effect: effects.Remember[Answer]) -> None:
        self._struck_off(effect.owner, effect.key)
        strip_tracebacks(effect.failed.answer)
        if effect.is_new:
            self._remembered.append((effect.owner, effect.key))
            if len(self._remembered) > MOST_FAILURES:
                self._commit(commands.Forget(*self._remembered.popleft()))
        if effect.write and self.line is not None:
            live = self.lives[effect.flight_id]
            live.store_call = self._failure_written(effect.owner, effect.key, effect.failed, live)

    def _failure_written(self, owner: Owner, key: str, failed: Failed[Answer], live: LiveFlight) -> StoreCall | None:
        """The call that has the store keep a failure; None: there are no bytes of it, or no claim."""
        if self.keeps_bytes and (live.encoded is None or live.claim is None):
            return None
        offset = self.time.epoch_offset
        stored = StoredEntry(
            owner,
            key,
            live.encoded if self.keeps_bytes else failed.answer.failure(),
            is_failure=True,
            created_at=failed.failed_at + offset,
            ttl_s=failed.serve_until - failed.failed_at,
            expires_at=failed.serve_until + offset,
        )
        return self._kept(stored, live)

    def _commit_report(self, effect: effects.ReportFailure[Answer]) -> None:
        if effect.notify:
            self._announce(effect.owner, effect.key, effect.answer)

    def _commit_drop(self, effect: effects.Drop) -> None:
        self._struck_off(effect.owner, effect.key)
        self._change_store(Change("delete", effect.owner, effect.key))
        if effect.existed or self.line is not None:
            self._announce(effect.owner, effect.key, Failure(CacheMiss(effect.key)))

    def _commit_drop_prefix(self, effect: effects.DropPrefix) -> None:
        owner = effect.owner
        if owner == GLOBAL_OWNER:
            self.alike.clear()
        if self.line is not None:
            self.line.order(Change("delete", owner), effect.prefix)
        watched = {key for key in self._watches.keys(owner) if key.startswith(effect.prefix)}
        for key in watched if self.line is not None else watched & effect.keys:
            self._announce(owner, key, Failure(CacheMiss(key)))

    def _commit_tag(self, effect: effects.TagMarked) -> None:
        self.alike.clear()
        if self.keeps_bytes and effect.at is not None:
            stale_at = effect.at + self.time.epoch_offset if effect.is_soft else None
            self._change_store(Change("mark_tag", effect.owner, tag=effect.tag, stale_at=stale_at))
        if effect.is_soft:
            return
        for owner in list(self._watches.boxes):
            partition = self.state.partitions.get(owner)
            if partition is None or effect.owner not in {None, owner}:
                continue
            for key in self._watches.keys(owner):
                entry = partition.entries.get(key)
                if entry is not None and entry.terms is not None and effect.tag in entry.terms.tags:
                    self._announce(owner, key, Failure(CacheMiss(key)))
                    self._commit(commands.Evict(owner, key))  # So that it goes once.

    def _commit_drop_partition(self, effect: effects.DropPartition) -> None:
        if effect.owner == GLOBAL_OWNER:
            self.alike.clear()
        else:
            self._drops.add(effect.owner)
        self._change_store(Change("clear_partition", effect.owner))
        for mailbox in self._watches.watching_any(effect.owner):
            mailbox.withdraw(effect.owner)
        for key in self._watches.keys(effect.owner) & effect.keys:
            self._announce(effect.owner, key, Failure(CacheMiss(key)))
        if effect.ends:
            for mailbox in self._watches.leave(effect.owner):
                mailbox.end()
                self._unrung.append(mailbox)

    def _announce(self, owner: Owner, key: str, answer: Answer) -> None:
        for mailbox in self._watches.watching(owner, key):
            mailbox.post(answer, owner)
            self._unrung.append(mailbox)

    def _catch_up(self) -> None:
        """Carry out what finalizers ordered meanwhile."""
        while True:
            try:
                command = self._deferred.popleft()
            except IndexError:  # Another thread was faster.
                return
            self.dispatch(command)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """The lock, for what neither asks nor orders: what finalizers order meanwhile is carried out behind it."""
        with self.lock:
            was_busy, self._is_busy = self._is_busy, True
            try:
                yield
            finally:
                self._is_busy = was_busy
        if self._deferred and not was_busy:
            self._catch_up()

    def _ring(self) -> None:
        """Tell watchers that there is news for them, the lock released."""
        while True:
            try:
                mailbox = self._unrung.popleft()
            except IndexError:  # Another thread was faster.
                return
            mailbox.ring()

    def _commit_clear_store(self, effect: effects.ClearStore) -> None:
        del effect
        self._order.forget_all()
        self._change_store(Change("clear"))

    def _change_store(self, change: Change) -> None:
        if self.line is not None:
            self.line.order(change)

    # From outside

    def begin_arrival(self) -> Arrival:
        """Something from outside is on its way from now on: what is removed meanwhile is not taken in."""
        self.listen()
        with self.exclusive():
            return self.intake.begin(next(self.flight_ids))

    def end_arrival(self, arrival: Arrival) -> None:
        """Nothing of it is on its way any longer."""
        with self.exclusive():
            self.intake.end(arrival)

    def take_in(self, arrival: Arrival, found: Iterable[tuple[StoredEntry, Found | None]]) -> list[str]:
        """Take in a few of what has arrived: what became of each, TAKEN, ASIDE, or why it was left out.

        None in the place of what was found is kept aside until somebody names
        its schema.
        """
        now = self.time.now()
        ends: list[str] = []
        evicted: effects.Effects[Answer] = ()
        with self.exclusive():
            for stored, each in found:
                if self.is_closed:
                    ends.append(REMOVED)
                    continue
                end, more = self._take_in(arrival, stored, each, now)
                ends.append(end)
                evicted += more
        if self.logger is not None:
            self._report(evicted, commands.Clear())
        return ends

    def _take_in(
        self, arrival: Arrival, stored: StoredEntry, found: Found | None, now: float
    ) -> tuple[str, effects.Effects[Answer]]:
        owner, key = stored.owner, stored.key
        if self.intake.was_removed(arrival, owner, key):
            return REMOVED, ()
        if found is None:
            return (ASIDE if self.intake.keep(stored, arrival.stamp) else FULL), ()
        if not self._has_room(owner, key, found):
            return FULL, ()
        ordered = self._commit(commands.Hydrate(owner, key, found, now, arrival.stamp))
        first = ordered[0]
        if isinstance(first, effects.Skip):
            return first.why, ()
        if type(stored.value) is Encoded:
            self.intake.doubt(owner, key, arrival.stamp)
            self._set_hit_until(owner, key, proved=False)
        return TAKEN, ordered[1:]

    def _has_room(self, owner: Owner, key: str, found: Found) -> bool:
        """Whether it can be taken in without driving anything out."""
        partition = self.state.partitions.get(owner)
        if isinstance(found, Failed):
            return len(self._remembered) < MOST_FAILURES or (partition is not None and key in partition.failures)
        most = self._max_entries
        is_there = partition is not None and key in partition.entries
        return most is None or is_there or self.state.census.count < most

    def _set_hit_until(self, owner: Owner, key: str, *, proved: bool) -> None:
        """Let hits of an entry that is unproved come through `ask`."""
        partition = self.state.partitions.get(owner)
        resident: Any = None if partition is None else partition.entries.get(key)
        if resident is not None and resident.terms is not None:
            resident.hit_until = plain_until(resident.as_entry()) if proved else -inf

    def _look_up(self, command: commands.Get | commands.Refresh, plan: Plan) -> None:
        """Somebody asks: flights may be overdue, and something from outside may wait for the schema that is named."""
        self.give_up_overdue(command.now)
        owner = owner_of(command.scope, self.state.active_user, command.viewer)
        if owner is None:
            return
        aside = self.intake.aside.get(owner, command.key)
        if aside is not None:
            self._bring_in(aside, plan)
        if self.intake.unproved.get(owner, command.key) is not None:
            self._prove(owner, command.key, plan)

    def _bring_in(self, aside: Aside, plan: Plan) -> None:
        stored = aside.stored
        schema = plan.error_schema if stored.is_failure else plan.schema
        if schema is None or schema.name != stored.value.schema:
            return
        answer, flaw = None, ""
        try:
            answer = self.read_out(stored, schema)
        except DecodingError as error:
            flaw = str(error)
        found = None if answer is None else termed(self.found_in(stored, answer, schema))
        owner, key, now = stored.owner, stored.key, self.time.now()
        evicted: effects.Effects[Answer] = ()
        with self.exclusive():
            if self.intake.aside.get(owner, key) is not aside:  # It was removed meanwhile, or somebody was faster.
                return
            self.intake.let_go(owner, key)
            if found is not None and self._has_room(owner, key, found):
                evicted = self._commit(commands.Hydrate(owner, key, found, now, aside.stamp))[1:]
        if flaw:
            self._tell_undecodable(owner, key, flaw)
        if self.logger is not None:
            self._report(evicted, command=commands.Clear())

    def _prove(self, owner: Owner, key: str, plan: Plan) -> None:
        """Whether what was taken in under `key` is of the schema that is named now. If not, it goes."""
        misfits = False
        with self.exclusive():
            stamp = self.intake.unproved.get(owner, key)
            partition = self.state.partitions.get(owner)
            entry = None if partition is None else partition.entries.get(key)
            failed = None if partition is None else partition.failures.get(key)
            terms = None if entry is None else entry.terms
            if failed is not None and plan.error_schema is not None and not fits(failed.schema, plan.error_schema):
                misfits = type(failed.answer.failure()) is not FetchTimeout
                if misfits:
                    self._commit(commands.Forget(owner, key))
            if terms is not None and terms.stamp == stamp:
                if plan.schema is None and terms.schema is not None:
                    return  # Whoever expects nothing gets what there is, and the next one may expect something.
                if fits(terms.schema, plan.schema):
                    self._set_hit_until(owner, key, proved=True)
                else:
                    misfits = True
                    self._commit(commands.Evict(owner, key))
            self.intake.prove(owner, key)
        if misfits:
            self._tell_undecodable(owner, key, "of another schema")

    # Writing by hand

    def write(
        self,
        command: commands.Put[Answer] | commands.Update[Answer] | commands.Touch,
        answer: Answer,
        encoded: Encoded | None,
    ) -> Failure[Any] | None:
        """Reduce a write of `answer`: the failure that it is refused with, `CHANGED` where it was for another value.

        `encoded`: what a store that keeps bytes gets for it.
        """
        for effect in self.dispatch(command, True, (answer, encoded)):
            if type(effect) is effects.Refuse:
                if effect.reason is effects.Refusal.CHANGED:
                    return CHANGED
                return Failure(self._refusal(effect, command.key))
        return None

    def chance(self) -> float:
        """A number from 0 to 1, from the cache's own source of chance."""
        return self._chance()

    # Reading without asking

    def resident(self, key: str, scope: CacheScope | None, viewer: str | None) -> tuple[Owner, Entry[Answer]] | None:
        """The entry that a caller sees under `key`, narrowest scope first."""
        for owner in visible_owners(scope, self.state.active_user, viewer):
            partition = self.state.partitions.get(owner)
            resident: Any = None if partition is None else partition.entries.get(key)
            if resident is None:
                continue
            with self.lock:  # It is rewritten one part after the other.
                entry: Entry[Answer] = resident.as_entry()
            if entry.terms is None or self.verdict(owner, entry) is not MISSING:
                return owner, entry
        return None

    def ttl_left(self, owner: Owner, entry: Entry[Answer]) -> float | None:
        """The seconds that `entry` is fresh for since it was made; fewer where its tag was made stale."""
        if entry.terms is None or not entry.terms.tags:
            return entry.ttl_s
        expires_at = expiry_by_marks(self.state, owner, entry, entry.terms)
        if expires_at is None or expires_at >= entry.expires_at:
            return entry.ttl_s
        return max(0.0, expires_at - entry.created_at)

    def verdict(self, owner: Owner, entry: Entry[Answer]) -> Freshness:
        """How fresh `entry` is now."""
        return verdict(entry, self.time.now(), self.state, owner)

    def breaker(self, origin: str) -> Breaker | None:
        """What is known of an origin; None where that is nothing."""
        return self.state.breakers.get(origin)

    def remembered_failure(self, key: str, scope: CacheScope | None, viewer: str | None) -> bool:
        """Whether a failure would be answered under `key` now."""
        now = self.time.now()
        for owner in visible_owners(scope, self.state.active_user, viewer):
            partition = self.state.partitions.get(owner)
            failed = None if partition is None else partition.failures.get(key)
            if failed is not None and now < failed.serve_until:
                return True
        return False

    # Watching

    def watch(self, owners: tuple[Owner, ...], key: str, mailbox: Mailbox, *, keep: bool) -> Callable[[], None]:
        """Post the news of `key` to `mailbox`. The answer stops that; it may be called more than once."""
        with self.exclusive():
            if self.is_closed:
                mailbox.end()
                return lambda: None
            token = self._watches.add(owners, key, mailbox, keep=keep)
        runtime = weakref.ref(self)

        def unwatch() -> None:
            alive = runtime()
            if alive is not None:
                with alive.exclusive():
                    alive._watches.remove(owners, key, token)

        return unwatch

    @property
    def watcher_count(self) -> int:
        """How many mailboxes are in the table."""
        with self.exclusive():
            return len(self._watches)

    # The end

    def close(self) -> list[LiveFlight]:
        """Refuse whatever comes from now on: the flights that are still to be stopped. Empty when called again."""
        with self.exclusive():
            if self.is_closed:
                return []
            self.is_closed = True
            stop_listening = self._stop_listening
            left = list(self.lives.values())
            for live in left:
                self._commit(commands.FetchAborted(live.flight_id))
            for owner in list(self.state.partitions.keys()):
                self.state.partitions.discard(owner)
            if self.log is not None:
                self.log.put(Ended())
            ended = self._watches.end_all()
        for mailbox in ended:
            mailbox.end()
            mailbox.ring()
        self._ring()
        if stop_listening is not None:
            stop_listening()
        return left

    # The logger

    def tell(self, event: str, *details: object) -> None:
        """Tell the logger of `event`. It never breaks a read: what it raises is named in the standard log."""
        if self.logger is None:
            return
        try:
            getattr(self.logger, event)(*details)
        except Exception as raised:  # noqa: BLE001 (a logger may raise anything)
            _LOG.warning("a CacheLogger raised %s in %s", type(raised).__name__, event)

    def tell_error(self, key: str, error: object) -> None:
        self.tell("on_error", key, error)

    def _report(self, ordered: effects.Effects[Answer], command: commands.Command[Answer]) -> None:
        for effect in ordered:
            for event in events_of(effect, self.time.epoch_offset):
                self.tell(*event)
            if isinstance(effect, effects.Refuse) and effect.reason in MISSES and isinstance(command, commands.Get):
                self.tell("on_miss", self._shown(command))

    def _shown(self, command: commands.Get) -> str:
        owners = visible_owners(command.scope, self.state.active_user, command.viewer)
        return shown_key(owners[0], command.key) if owners else command.key


COMMITS: Final[Mapping[type, Callable[[Runtime, Any], effects.Effects[Answer] | None]]] = {
    effects.Settle: Runtime._commit_settle,
    effects.AskAgain: Runtime._commit_ask_again,
    effects.Abort: Runtime._commit_abort,
    effects.CancelFetch: Runtime._commit_cancel,
    effects.Save: Runtime._commit_save,
    effects.Persist: Runtime._commit_persist,
    effects.Admit: Runtime._commit_admit,
    effects.Remember: Runtime._commit_remember,
    effects.ReportFailure: Runtime._commit_report,
    effects.Drop: Runtime._commit_drop,
    effects.DropPartition: Runtime._commit_drop_partition,
    effects.DropPrefix: Runtime._commit_drop_prefix,
    effects.TagMarked: Runtime._commit_tag,
    effects.Overtaken: Runtime._commit_overtaken,
    effects.ClearStore: Runtime._commit_clear_store,
}
"""What an effect changes, under the lock."""

WAITING: Final = frozenset({RefreshSource.CACHE_MISS, RefreshSource.BACKGROUND})
"""Fetches that another process's does just as well for."""

FRESH_ENOUGH: Final = frozenset({FRESH, AGEING})


def backplane_of(store: object) -> Backplane | None:
    """`store`, where its processes hear of each other."""
    return store if isinstance(store, Backplane) else None


def do_nothing() -> None:
    """Ends what never began."""


CHANGED: Final = Failure(effects.Refusal.CHANGED)
"""Not for callers: an update is to be tried again."""

MISSES: Final = frozenset({effects.Refusal.MISS, effects.Refusal.EXPIRED})

ANSWERED: Final = Phase.ANSWERED

REFUSALS: Final[Mapping[effects.Refusal, Callable[[str], Exception]]] = {
    effects.Refusal.MISS: CacheMiss,
    effects.Refusal.EXPIRED: CacheExpired,
    effects.Refusal.NO_ACTIVE_USER: NoActiveUser,
    effects.Refusal.REENTRANT: ReentrantFetch,
}


def _visit(resident: Any) -> None:  # noqa: ANN401 (an Entry to the core, a Resident here)
    if resident.visits < MAX_VISITS:
        resident.visits += 1
