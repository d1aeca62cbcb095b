"""Hypothesis strategies for those who property-test a policy of their own against the pure core.

What lives here: strategies for the parts of a command, for whole commands, and
for *histories*; and `play`, which makes a history out of a list of happenings.
Not here: properties. Say what your policy promises, and let a history break it.

A history is consistent where a program's would be: flight ids and stamps are
unique and grow, a fetch answers only while it is under way, everyone who waited
for a load asks again, an update knows what it replaces. Now and then it is not,
because a cache must survive that too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from cachemesh.core.commands import (
    Abandoned,
    Clear,
    ClearScope,
    Command,
    Directives,
    DomainClosed,
    EndSession,
    Evict,
    FetchAborted,
    FetchFailed,
    FetchSucceeded,
    Forget,
    FoundElsewhere,
    GaveUp,
    Get,
    Heard,
    Hydrate,
    Invalidate,
    InvalidatePrefix,
    Loaded,
    MarkTag,
    Overdue,
    Put,
    Refresh,
    ResetBreaker,
    RetryDue,
    SetActiveUser,
    StoppedWaiting,
    Touch,
    Update,
    WaitedLong,
)
from cachemesh.core.effects import AskAgain, Effects, Join, Load, Settle, StartFetch, WaitUntil
from cachemesh.core.model import (
    Ancestor,
    Entry,
    Failed,
    Flight,
    FlightKind,
    Lifespan,
    Origin,
    RefreshSource,
    State,
    Terms,
)
from cachemesh.core.policies import BUILT_IN, SERVING, Action, AfterFailure, CachePolicy
from cachemesh.core.reducer import reduce
from cachemesh.core.retry import Retry
from cachemesh.core.scopes import GLOBAL_OWNER, SESSION_OWNER, CacheScope, Owner, owner_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hypothesis.strategies import SearchStrategy

    from cachemesh.shell.lifetime import Lifetime
    from cachemesh.simulation.request import Request

KEYS: Final = ("feed", "me")

USERS: Final = ("alice", "bob")

TAGS: Final = ("news", "red")

ORIGINS: Final = ("github", "mail")

DOMAINS: Final = (0, 0, 0, 1)
"""Mostly one event loop, sometimes a second one."""

SECONDS: Final = (0.0, 0.5, 1.0, 29.5, 30.0, 60.0, 61.0, 3600.0)
"""Durations that lie on and beside the bounds of the core."""

Ask: TypeAlias = Get | Refresh

Stamped: TypeAlias = MarkTag | Put[Any] | Update[Any] | Touch
"""Commands with a stamp from the row of the flights' ids."""


# A history


class Stamp(Struct, frozen=True):
    """The answer of a flight in a history, or what was written by hand.

    It tells whose it is and, by the id of its flight or the stamp of its write, when it was begun.
    """

    flight_id: int
    owner: Owner | None
    """None where no flight of that id was ever begun."""
    key: str
    good: bool = True


class Happening(Struct, frozen=True):
    """What is to happen next. `play` fills in what depends on the history so far.

    `after_s`: seconds since the happening before. `aim`: which of the flights
    under way an event is about, counted from the oldest, and round again.
    `inside`: which fetch an ask comes from inside of, counted alike. `stray`:
    the event is about flight number `aim`, whether or not that makes sense.
    """

    command: Command[Any]
    after_s: float = 0.0
    aim: int = 0
    inside: int | None = None
    stray: bool = False


class Moment(Struct, frozen=True):
    """One step of a history."""

    before: State[Any]
    command: Command[Stamp]
    after: State[Any]
    effects: Effects[Stamp]

    def listed(self, *kinds: type) -> tuple[Any, ...]:
        """The effects of this moment that are one of `kinds`, in their order."""
        return tuple(effect for effect in self.effects if isinstance(effect, kinds))


def play(happenings: Iterable[Happening], state: State[Any] | None = None) -> tuple[Moment, ...]:
    """What becomes of `state` (a new one without a store) when all this happens, step by step.

    An event that can be about no flight under way is left out.

    >>> from cachemesh.core import FetchSucceeded, Get
    >>> asked, answered = play([Happening(Get("feed", 0.0, 0)), Happening(FetchSucceeded(0, None, 0.0), after_s=0.2)])
    >>> asked.effects
    (StartFetch(flight_id=1, owner=(<CacheScope.GLOBAL: 'global'>, None), key='feed', \
source=<RefreshSource.CACHE_MISS: 'cache_miss'>, attempt=1), Join(flight_id=1, falls_back=False, reads=True))
    >>> answered.after.partitions.get(GLOBAL_OWNER).entries.get("feed").answer.key
    'feed'
    """
    world = World(State() if state is None else state)
    return tuple(moment for each in happenings for moment in world.see(each))


class World:
    """The shell's part in a history: flight ids, the clock, and who waits for a load."""

    def __init__(self, state: State[Any]) -> None:
        self.state = state
        self.now = 0.0
        self.last_id = 0
        self.stamps: dict[int, Stamp] = {}
        self.lines: dict[int, tuple[Ancestor, ...]] = {}
        self.waits_to_retry: set[int] = set()
        self.waiting: dict[int, list[tuple[Ask, Owner]]] = {}

    def see(self, happening: Happening) -> Iterator[Moment]:
        self.now += happening.after_s
        command = self.grounded(happening)
        if command is None:
            return
        moment = self.step(command)
        yield moment
        for asked in self.asking_again(moment):
            yield self.step(asked)

    def step(self, command: Command[Stamp]) -> Moment:
        before = self.state
        owner = None
        if isinstance(command, Get | Refresh):
            owner = owner_of(command.scope, before.active_user, command.viewer)
        self.state, effects = reduce(before, command)
        for effect in effects:
            if isinstance(effect, StartFetch | Load) and isinstance(command, Get | Refresh):
                self.begun(effect, command)
            elif isinstance(effect, WaitUntil):
                self.waits_to_retry.add(effect.flight_id)
            elif isinstance(effect, Join) and isinstance(command, Get | Refresh) and owner is not None:
                self.waiting.setdefault(effect.flight_id, []).append((command, owner))
        if isinstance(command, RetryDue):
            self.waits_to_retry.discard(command.flight_id)
        return Moment(before, command, self.state, effects)

    def begun(self, effect: StartFetch | Load, command: Ask) -> None:
        flight_id = effect.flight_id
        me = Ancestor(flight_id, effect.owner, effect.key)
        self.stamps[flight_id] = Stamp(flight_id, effect.owner, effect.key)
        if isinstance(effect, StartFetch):
            background = effect.source is RefreshSource.BACKGROUND
            self.lines[flight_id] = (me,) if background else (*command.within, me)

    def asking_again(self, moment: Moment) -> Iterator[Ask]:
        """The asks that come once more, in the name of whom they came for, whoever has signed in since."""
        for effect in moment.effects:
            if isinstance(effect, AskAgain):
                for asked, owner in self.waiting.pop(effect.flight_id, ()):
                    again = self.again(asked, owner)
                    yield replace(again, asked_store=True) if isinstance(again, Get) else again
            elif isinstance(effect, Settle) and effect.asks_again_after:
                for asked, owner in self.waiting.pop(effect.flight_id, ()):
                    if asked.flight_id > effect.asks_again_after:
                        yield self.again(asked, owner)

    def again(self, asked: Ask, owner: Owner) -> Ask:
        viewer = owner[1] if asked.scope is CacheScope.USER else asked.viewer
        again: Ask = replace(asked, flight_id=self.next_id(), now=self.now, viewer=viewer)
        return again

    def grounded(self, happening: Happening) -> Command[Stamp] | None:
        """The command of `happening` as it comes in this history; None where it cannot."""
        command = happening.command
        if isinstance(command, Get | Refresh):
            return self.asked_from(command, happening)
        if isinstance(command, MarkTag | Put | Update | Touch):
            return self.written(command, happening)
        if isinstance(command, Hydrate):
            return self.from_outside(command)
        if not isinstance(command, AIMED):
            return command
        flight_id = happening.aim if happening.stray else self.aimed_at(command, happening.aim)
        if flight_id is None:
            return None
        return self.about(command, flight_id, happening)

    def asked_from(self, command: Ask, happening: Happening) -> Ask:
        asked: Ask = replace(command, flight_id=self.next_id(), now=self.now)
        fetch = (
            None
            if happening.inside is None
            else pick(self.under_way(FlightKind.FETCH, FlightKind.BYPASS), happening.inside)
        )
        if fetch is not None:
            asked = replace(asked, within=self.lines.get(fetch.flight_id, ()), domain=fetch.domain)
        return asked

    def written(self, command: Stamped, happening: Happening) -> Command[Stamp]:
        stamp = self.next_id()
        given: dict[str, Any] = {"now": self.now, "stamp": stamp}
        if isinstance(command, Put | Update):
            owner = owner_of(command.scope, self.state.active_user, command.viewer)
            given["answer"] = Stamp(stamp, owner, command.key)
            partition = None if owner is None else self.state.partitions.get(owner)
            entry = None if partition is None else partition.entries.get(command.key)
            if isinstance(command, Update) and entry is not None and not happening.stray:
                given["expected"] = entry.answer
        written: Command[Stamp] = replace(command, **given)
        return written

    def from_outside(self, command: Hydrate[Any]) -> Hydrate[Stamp]:
        answer = Stamp(self.next_id(), command.owner, command.key)
        found = command.found
        here = self.remembered(found, answer) if isinstance(found, Failed) else self.dated(found, answer)
        hydrate: Hydrate[Stamp] = replace(command, found=here, now=self.now, stamp=answer.flight_id)
        return hydrate

    def about(self, command: Command[Any], flight_id: int, happening: Happening) -> Command[Stamp]:
        if isinstance(command, StoppedWaiting):
            fetch = pick(self.under_way(FlightKind.FETCH, FlightKind.BYPASS), happening.inside or 0)
            within = () if fetch is None else self.lines.get(fetch.flight_id, ())
            return StoppedWaiting(flight_id, within)
        stamp = self.stamps.get(flight_id, Stamp(flight_id, None, ""))
        if isinstance(command, FetchSucceeded | FetchFailed | Overdue):
            answer = replace(stamp, good=isinstance(command, FetchSucceeded))
            ended: Command[Stamp] = replace(command, flight_id=flight_id, answer=answer, now=self.now)
            return ended
        if isinstance(command, WaitedLong | GaveUp):
            waited: Command[Stamp] = replace(command, flight_id=flight_id, now=self.now)
            return waited
        if isinstance(command, Loaded):
            return Loaded(flight_id, self.now, self.dated(command.entry, stamp), self.remembered(command.failed, stamp))
        if isinstance(command, FoundElsewhere):
            found = self.dated(command.entry, stamp)
            assert found is not None
            return FoundElsewhere(flight_id, self.now, found)
        rest: Command[Stamp] = replace(cast("Any", command), flight_id=flight_id)
        return rest

    def dated(self, entry: Entry[Any] | None, stamp: Stamp) -> Entry[Stamp] | None:
        if entry is None:
            return None
        terms = None if entry.terms is None else replace(entry.terms, ageing_at=self.now + entry.terms.ageing_at)
        return Entry(stamp, self.now + entry.created_at, entry.ttl_s, self.now + entry.expires_at, terms)

    def remembered(self, failed: Failed[Any] | None, stamp: Stamp) -> Failed[Stamp] | None:
        if failed is None:
            return None
        now = self.now
        return Failed(
            replace(stamp, good=False), now + failed.failed_at, now + failed.serve_until, now + failed.refresh_after
        )

    def aimed_at(self, command: Command[Any], aim: int) -> int | None:
        flights = self.under_way(*AIMED_KINDS.get(type(command), tuple(FlightKind)))
        if isinstance(command, RetryDue):
            flights = [flight for flight in flights if flight.flight_id in self.waits_to_retry]
        elif isinstance(command, FetchSucceeded | FetchFailed):
            flights = [flight for flight in flights if flight.flight_id not in self.waits_to_retry]
        flight = pick(flights, aim)
        return None if flight is None else flight.flight_id

    def under_way(self, *kinds: FlightKind) -> list[Flight]:
        flights = (flight for flight in self.state.flights.values() if flight.kind in kinds)
        return sorted(flights, key=lambda flight: flight.flight_id)

    def next_id(self) -> int:
        self.last_id += 1
        return self.last_id


def pick(flights: list[Flight], aim: int) -> Flight | None:
    """Number `aim` of `flights`, round and round; None where there is none."""
    return flights[aim % len(flights)] if flights else None


AIMED: Final = (
    FetchSucceeded,
    FetchFailed,
    RetryDue,
    FetchAborted,
    Abandoned,
    WaitedLong,
    GaveUp,
    Overdue,
    StoppedWaiting,
    Loaded,
    FoundElsewhere,
)
"""Commands about one flight."""

AIMED_KINDS: Final = {
    FetchSucceeded: (FlightKind.FETCH, FlightKind.BYPASS),
    FetchFailed: (FlightKind.FETCH, FlightKind.BYPASS),
    RetryDue: (FlightKind.FETCH, FlightKind.BYPASS),
    Loaded: (FlightKind.LOAD,),
    FoundElsewhere: (FlightKind.FETCH, FlightKind.BYPASS),
}


# The parts of a command


def keys() -> SearchStrategy[str]:
    """A key, one of a few; mostly the first, so that commands meet."""
    return st.sampled_from((KEYS[0], *KEYS))


def users() -> SearchStrategy[str]:
    """A user's id, one of two."""
    return st.sampled_from(USERS)


def viewers() -> SearchStrategy[str | None]:
    """The user of a view; mostly None, the cache itself."""
    return st.sampled_from((None, None, None, *USERS))


def scopes() -> SearchStrategy[CacheScope]:
    """Any scope; mostly the application's."""
    return st.sampled_from((CacheScope.GLOBAL, *CacheScope))


def owners() -> SearchStrategy[Owner]:
    """An owner that a history may have."""
    named = [(scope, user) for scope in (CacheScope.SESSION, CacheScope.USER) for user in USERS]
    return st.sampled_from((GLOBAL_OWNER, SESSION_OWNER, *named))


def seconds() -> SearchStrategy[float]:
    """A duration: on a bound of the core, beside one, or anywhere."""
    return st.sampled_from(SECONDS) | st.floats(0.0, 1e6)


def ttls() -> SearchStrategy[float | None]:
    """A lifetime; None is for ever."""
    return st.none() | seconds()


def lifespans() -> SearchStrategy[Lifespan]:
    """What may be wanted beyond a ttl."""
    return st.builds(
        Lifespan,
        serve_stale_s=seconds(),
        stale_if_error_s=seconds(),
        refresh_ahead=st.sampled_from((0.5, 1.0)) | st.floats(0.0, 1.0),
        jitter=st.sampled_from((0.0, 1.0)) | st.floats(0.0, 1.0),
        failure_ttl_s=st.none() | seconds(),
        refresh_backoff_s=seconds(),
    )


def lifetimes() -> SearchStrategy[Lifetime]:
    """What a caller may say as `ttl=` of a cache.

    >>> from hypothesis import given
    >>> @given(lifetimes())
    ... def test_a_lifetime_says_the_same_to_the_core(lifetime):
    ...     assert lifetime.lifespan.serve_stale_s == lifetime.serve_stale_for
    >>> test_a_lifetime_says_the_same_to_the_core()
    """
    from cachemesh.shell.lifetime import Lifetime  # noqa: PLC0415 (the rest of this file does without the shell)

    shares = st.sampled_from((0.0, 0.5, 1.0)) | st.floats(0.0, 1.0)
    return st.builds(
        Lifetime,
        ttl=st.none() | seconds(),
        serve_stale_for=seconds(),
        stale_if_error_for=seconds(),
        refresh_ahead=st.none() | shares,
        jitter=shares,
        failure_ttl=st.none() | seconds(),
        refresh_backoff=seconds(),
    )


def tags() -> SearchStrategy[tuple[str, ...]]:
    """Some tags, of two; mostly one or none."""
    return st.sampled_from(((), TAGS[:1], TAGS[:1], TAGS[1:], TAGS))


def origins() -> SearchStrategy[Origin]:
    """An origin that is left alone soon."""
    return st.builds(Origin, st.sampled_from((ORIGINS[0], *ORIGINS)), st.integers(1, 3), seconds())


def directives() -> SearchStrategy[Directives]:
    """What an answer may say of its own caching."""
    return st.builds(
        Directives,
        sets_ttl=st.booleans(),
        ttl_s=ttls(),
        lifespan=st.none() | lifespans(),
        tags=tags(),
        validator=st.none() | st.just("etag"),
        renews=st.booleans(),
        stores=st.sampled_from((True, True, True, False)),
        private=st.sampled_from((False, False, False, True)),
    )


def chances() -> SearchStrategy[float]:
    """A number for a jitter."""
    return st.floats(0.0, 1.0)


def retries() -> SearchStrategy[Retry]:
    """How often a fetch is tried, and how patiently."""
    return st.builds(
        Retry,
        max_attempts=st.integers(1, 3),
        delay_s=seconds(),
        backoff_factor=st.floats(1.0, 10.0),
        max_delay_s=st.none() | seconds(),
        jitter=st.floats(0.0, 1.0),
    )


def custom_policies() -> SearchStrategy[CachePolicy]:
    """Any row that may be written: the sixth policy of somebody else."""
    return st.builds(
        CachePolicy,
        name=st.just("custom"),
        missing=st.sampled_from([action for action in Action if action not in SERVING]),
        fresh=st.sampled_from(Action),
        stale=st.sampled_from(Action),
        after_failure=st.sampled_from(AfterFailure),
        heeds_failures=st.booleans(),
    )


def policies() -> SearchStrategy[CachePolicy]:
    """A built-in policy, or one of any other legal row."""
    return st.sampled_from(BUILT_IN) | custom_policies()


# Commands


def gets(of: SearchStrategy[CachePolicy] | None = None) -> SearchStrategy[Get]:
    """A `Get` under one of the policies `of`, by anyone, with any options."""
    return st.builds(
        Get,
        key=keys(),
        now=seconds(),
        flight_id=_ids(),
        policy=policies() if of is None else of,
        scope=scopes(),
        viewer=viewers(),
        domain=st.sampled_from(DOMAINS),
        ttl_s=ttls(),
        retry=retries(),
        store_failures=st.booleans(),
        heed_failures=st.booleans(),
        always_revalidate=st.booleans(),
        lifespan=st.none() | lifespans(),
        tags=tags(),
        origin=st.none() | origins(),
    )


def refreshes() -> SearchStrategy[Refresh]:
    """A `Refresh` by anyone, with any options."""
    return st.builds(
        Refresh,
        key=keys(),
        now=seconds(),
        flight_id=_ids(),
        source=st.sampled_from((RefreshSource.REFRESH, RefreshSource.PREFETCH)),
        scope=scopes(),
        viewer=viewers(),
        domain=st.sampled_from(DOMAINS),
        ttl_s=ttls(),
        retry=retries(),
        store_failures=st.booleans(),
        lifespan=st.none() | lifespans(),
        tags=tags(),
        origin=st.none() | origins(),
    )


def events() -> SearchStrategy[Command[Any]]:
    """What happens to a flight."""
    said = st.none() | directives()
    failed = st.builds(
        FetchFailed,
        _ids(),
        st.just("error"),
        seconds(),
        retryable=st.booleans(),
        cacheable=st.booleans(),
        chance=chances(),
        failure_ttl_s=st.none() | seconds(),
        counts=st.booleans(),
    )
    return st.one_of(
        st.builds(FetchSucceeded, _ids(), st.just("answer"), seconds(), chances(), said),
        failed,
        st.builds(RetryDue, _ids()),
        st.builds(FetchAborted, _ids()),
        st.builds(Abandoned, _ids()),
        st.builds(WaitedLong, _ids(), seconds()),
        st.builds(GaveUp, _ids(), seconds(), st.booleans(), st.booleans()),
        st.builds(Overdue, _ids(), st.just("error"), seconds()),
        st.builds(StoppedWaiting, _ids(), _ancestries()),
        st.builds(DomainClosed, st.sampled_from(DOMAINS)),
        st.builds(Loaded, _ids(), seconds(), st.none() | _stored_entries(), st.none() | _stored_failures()),
        st.builds(FoundElsewhere, _ids(), seconds(), _stored_entries()),
    )


def removals() -> SearchStrategy[Command[Any]]:
    """What makes things go."""
    return st.one_of(
        st.builds(Invalidate, keys(), st.none() | scopes(), viewers()),
        st.builds(InvalidatePrefix, st.sampled_from(("", "f", *KEYS)), st.none() | scopes(), viewers()),
        marks(),
        st.builds(Clear, viewers()),
        st.builds(SetActiveUser, st.none() | users()),
        st.builds(EndSession, viewers()),
        st.builds(ClearScope, scopes(), viewers()),
        st.builds(Evict, owners(), keys()),
        st.builds(Forget, owners(), keys()),
        st.builds(ResetBreaker, st.sampled_from(ORIGINS)),
        heard(),
    )


def heard() -> SearchStrategy[Command[Any]]:
    """News of other processes."""
    return st.one_of(
        st.builds(Heard, owners(), st.none() | keys()),
        st.builds(Heard, is_gap=st.booleans()),
        st.builds(
            MarkTag,
            st.sampled_from(TAGS),
            seconds(),
            _ids(),
            st.booleans(),
            is_heard=st.just(True),  # noqa: FBT003 (drawn)
            owner=st.none() | owners(),
        ),
    )


def marks() -> SearchStrategy[MarkTag]:
    """A tag is invalidated, or made stale."""
    return st.builds(MarkTag, st.sampled_from(TAGS), seconds(), _ids(), st.booleans(), st.none() | scopes(), viewers())


def writes() -> SearchStrategy[Command[Any]]:
    """Somebody writes by hand."""
    where = {"scope": scopes(), "viewer": viewers()}
    life = {"ttl_s": ttls(), "lifespan": st.none() | lifespans(), "chance": chances()}
    return st.one_of(
        st.builds(Put, keys(), st.just("answer"), seconds(), _ids(), tags=tags(), **where, **life),
        st.builds(Update, keys(), st.just("before"), st.just("answer"), seconds(), _ids(), **where),
        st.builds(Touch, keys(), seconds(), _ids(), **where, **life),
    )


def hydrations() -> SearchStrategy[Hydrate[Any]]:
    """Something comes from outside."""
    return st.builds(Hydrate, owners(), keys(), _stored_entries() | _stored_failures(), seconds(), _ids())


def commands(of: SearchStrategy[CachePolicy] | None = None) -> SearchStrategy[Command[Any]]:
    """Any command, sensible or not: about flights that never were, from inside fetches that nobody made."""
    astray = st.builds(
        lambda asked, within, asked_store: replace(asked, within=within, asked_store=asked_store),
        gets(of),
        _ancestries(),
        st.booleans(),
    )
    return st.one_of(astray, refreshes(), events(), removals(), writes(), hydrations())


# Histories


def happenings(  # noqa: PLR0913 (each may be left out, and by keyword only)
    of: SearchStrategy[CachePolicy] | None = None,
    *,
    refreshing: bool = True,
    stray: bool = True,
    writing: bool = True,
    dense: bool = False,
    max_size: int = 40,
) -> SearchStrategy[list[Happening]]:
    """What may happen to a cache that is asked under the policies `of`, for `play`.

    Without `refreshing` nobody asks but by `Get`; without `writing` nobody
    writes by hand, and nothing comes from outside; without `stray` every event makes sense where it comes. If
    it is `dense` all of it happens to a single key of the application's.
    """
    asks: SearchStrategy[Command[Any]] = gets(of) | refreshes() if refreshing else gets(of)
    after_s = st.sampled_from((0.0, 0.0, *SECONDS))
    strays = st.sampled_from((False,) * 9 + (True,)) if stray else st.just(value=False)
    ask = st.builds(Happening, asks, after_s, st.just(0), st.none() | st.integers(0, 3), st.just(value=False))
    event = st.builds(Happening, events(), after_s, st.integers(0, 8), st.integers(0, 3), strays)
    removal = st.builds(Happening, removals(), after_s)
    written = st.builds(Happening, writes(), after_s, stray=strays)
    write = written | st.builds(Happening, hydrations(), after_s) if writing else removal
    each = st.one_of(ask, ask, ask, event, event, event, removal, write)
    if dense:
        each = each.map(_here)
    return st.lists(each, max_size=max_size) | st.lists(each, min_size=max_size // 3, max_size=max_size)


def histories(  # noqa: PLR0913 (as for happenings)
    of: SearchStrategy[CachePolicy] | None = None,
    *,
    refreshing: bool = True,
    stray: bool = True,
    writing: bool = True,
    dense: bool = False,
    max_size: int = 40,
) -> SearchStrategy[tuple[Moment, ...]]:
    """A whole history of a cache, with a store or without one, that is asked under the policies `of`.

    A policy that never fetches, and makes do with what others have fetched:

    >>> from hypothesis import given
    >>> miser = CachePolicy("miser", missing=Action.REFUSE, stale=Action.SERVE)
    >>> @given(histories(st.just(miser)))
    ... def test_a_miser_never_fetches(history):
    ...     for moment in history:
    ...         assert not (isinstance(moment.command, Get) and moment.listed(StartFetch))
    >>> test_a_miser_never_fetches()
    """
    listed = happenings(of, refreshing=refreshing, stray=stray, writing=writing, dense=dense, max_size=max_size)
    return st.builds(lambda has_store, each: play(each, State(has_store=has_store)), st.booleans(), listed)


def traces(*, max_size: int = 100, max_gap_s: float = 3600.0) -> SearchStrategy[list[Request]]:
    """Accesses as a log has them: in the order of their instants, some at the same one, a few keys again and again.

    >>> from hypothesis import given
    >>> @given(traces())
    ... def test_time_never_goes_back(trace):
    ...     assert trace == sorted(trace, key=lambda request: request.at)
    >>> test_time_never_goes_back()
    """
    from cachemesh.simulation.request import Request  # noqa: PLC0415 (the rest of this file does without simulations)

    names = st.sampled_from((*KEYS, "k1", "k2", "k3")) | st.text(max_size=8)
    gaps = st.just(0.0) | st.sampled_from([each for each in SECONDS if each <= max_gap_s]) | st.floats(0.0, max_gap_s)
    each = st.tuples(gaps, names, st.none() | users(), st.integers(1, 4096))

    def dated(accesses: list[tuple[float, str, str | None, int]]) -> list[Request]:
        now, trace = 0.0, []
        for gap_s, key, user, size in accesses:
            now += gap_s
            trace.append(Request(now, key, user, size))
        return trace

    return st.lists(each, max_size=max_size).map(dated)


def _here(happening: Happening) -> Happening:
    """`happening`, as it may come to one key of the application's, in one event loop."""
    command: Any = happening.command
    here = {"key": KEYS[0], "scope": CacheScope.GLOBAL, "viewer": None, "domain": 0, "owner": GLOBAL_OWNER}
    said = {name: value for name, value in here.items() if name in command.__struct_fields__}
    return replace(happening, command=replace(command, **said) if said else command, inside=None)


def _ids() -> SearchStrategy[int]:
    return st.integers(0, 8)


def _ancestries() -> SearchStrategy[tuple[Ancestor, ...]]:
    return st.lists(st.builds(Ancestor, _ids(), owners(), keys()), max_size=2).map(tuple)


def _stored_entries() -> SearchStrategy[Entry[Any]]:
    """An entry as a store may hold it; its instants count from now."""
    return st.builds(
        lambda age_s, ttl_s, terms: Entry(
            "answer", -age_s, ttl_s, float("inf") if ttl_s is None else ttl_s - age_s, terms
        ),
        seconds() | seconds().map(lambda ahead: -ahead),
        ttls(),
        st.none() | _stored_terms(),
    )


def _stored_terms() -> SearchStrategy[Terms]:
    """What a store may hold of an entry's terms: with both windows or none, and with no stamp."""
    windows = st.just((None, None)) | st.tuples(seconds(), seconds())
    return st.builds(
        lambda both, ageing_at, marked: Terms(both[0], both[1], ageing_at, marked), windows, seconds(), tags()
    )


def _stored_failures() -> SearchStrategy[Failed[Any]]:
    """A failure as a store may hold it; its instants count from now."""
    return st.builds(lambda age_s, ttl_s: Failed("error", -age_s, ttl_s - age_s, -age_s), seconds(), seconds())
