"""What holds after any history: the laws of the core.

A history is drawn by `cachemesh.testing.strategies`. Its answers are stamps:
whose an answer is, and the id of the flight that brought it. Ids grow, so the
id also says when the flight was begun.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from hypothesis import example
from hypothesis import strategies as st
from msgspec.structs import asdict

from cachemesh.core import (
    GLOBAL_OWNER,
    Abort,
    Action,
    AfterFailure,
    AskAgain,
    CachePolicy,
    CacheScope,
    CancelFetch,
    Clear,
    ClearScope,
    Effect,
    EndSession,
    Entry,
    Evict,
    Failed,
    FetchFailed,
    FetchSucceeded,
    Flight,
    Forget,
    Freshness,
    Get,
    Invalidate,
    Join,
    Loaded,
    Owner,
    Partition,
    Refresh,
    Refuse,
    Remember,
    Reply,
    Save,
    SetActiveUser,
    Settle,
    StartFetch,
    State,
    reduce,
)
from cachemesh.core.carriers import Table
from cachemesh.core.lifetimes import verdict
from cachemesh.core.scopes import owner_of, visible_owners
from cachemesh.shell.tables import LiveState
from cachemesh.testing.strategies import Happening, Moment, Stamp, commands, happenings, histories, play
from tests.core.rows import law, members

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

History: TypeAlias = "tuple[Moment, ...]"
Place: TypeAlias = tuple[Owner, str]

EFFECTS = members(Effect)
STALE_IF_ERROR = CachePolicy("stale_if_error", after_failure=AfterFailure.SERVE_STALE)


# The reducer as a function


@law(histories(), commands())
def test_every_state_answers_every_command(history: History, command: Any) -> None:
    """Also commands about flights that never were, or that are of another kind."""
    state = history[-1].after if history else State()

    after, effects = reduce(state, command)

    assert isinstance(after, State)
    assert all(isinstance(effect, EFFECTS) for effect in effects)


@law(histories(), commands())
def test_the_same_command_always_leads_to_the_same(history: History, command: Any) -> None:
    state = history[-1].after if history else State()

    assert reduce(state, command) == reduce(state, command)


def test_a_history_that_is_replayed_orders_the_same_effects() -> None:
    views = [Happening(Get("feed", 0.0, 0, scope=CacheScope.USER, viewer=f"user {number}")) for number in range(12)]
    history = [*views, Happening(ClearScope(CacheScope.USER)), *views, Happening(Clear())]

    assert all(effects_of(play(history)) == effects_of(play(history)) for _ in range(8))


@law(happenings())
def test_a_history_that_is_replayed_ends_the_same(listed: list[Happening]) -> None:
    assert [sorted_effects(each) for each in play(listed)] == [sorted_effects(each) for each in play(listed)]
    assert [plain(each.after) for each in play(listed)] == [plain(each.after) for each in play(listed)]


@law(histories(), commands())
def test_a_state_is_never_changed(history: History, command: Any) -> None:
    state = history[-1].after if history else State()
    before = plain(state)

    reduce(state, command)

    assert plain(state) == before


@law(histories())
def test_a_history_keeps_all_its_states(history: History) -> None:
    """Time travel: replaying from the middle of a history leads to the same end."""
    for moment in history:
        assert reduce(moment.before, moment.command) == (moment.after, moment.effects)


@law(histories(), commands())
def test_where_nothing_changes_the_state_is_the_same_object(history: History, command: Any) -> None:
    state = history[-1].after if history else State()

    after, _ = reduce(state, command)

    assert after is state or after != state
    assert all(each.after is each.before or each.after != each.before for each in history)


# The shape of a state


@law(histories())
def test_what_a_partition_lists_is_under_way(history: History) -> None:
    for moment in history:
        for (owner, key), listed in lists_of(moment.after):
            flights = [moment.after.flights.get(each) for each in listed]
            assert all(flight is not None and (flight.owner, flight.key) == (owner, key) for flight in flights)
            assert list(listed) == sorted(set(listed)) != []


@law(histories())
def test_at_most_one_flight_of_a_kind_is_listed_in_a_domain(history: History) -> None:
    """Of those of one generation: whatever a removal or a newer answer has struck off is of an older one."""
    for moment in history:
        for _, listed in lists_of(moment.after):
            flights = [moment.after.flights.get(each) for each in listed]
            kinds = Counter((each.domain, each.kind) for each in flights if each is not None)
            assert not kinds or max(kinds.values()) == 1


@law(histories(stray=False))
def test_at_most_one_flight_of_a_domain_fetches_for_the_cache(history: History) -> None:
    """One that passes the cache by may run beside it, and only if it began later."""
    for moment in history:
        for _, listed in lists_of(moment.after):
            flights = [moment.after.flights.get(each) for each in listed]
            fetches = [(each.domain, each.kind) for each in flights if each is not None and each.kind != "load"]
            for domain in {domain for domain, _ in fetches}:
                kinds = [kind for each, kind in fetches if each == domain]
                assert kinds in (["fetch"], ["bypass"], ["fetch", "bypass"])


@law(histories())
def test_no_empty_partition_is_kept(history: History) -> None:
    for moment in history:
        for partition in moment.after.partitions.values():
            assert len(partition.entries) + len(partition.failures) + len(partition.flights) > 0


@law(histories())
def test_a_flight_ends_with_the_effect_that_says_so(history: History) -> None:
    """No flight is lost: it leaves the state in the moment in which those who wait are told."""
    for moment in history:
        gone = set(moment.before.flights.keys()) - set(moment.after.flights.keys())
        told = [each.flight_id for each in moment.listed(Settle, AskAgain, Abort, CancelFetch)]
        assert sorted(gone) == sorted(told)


# Answers


@law(histories())
def test_every_ask_is_answered_exactly_once(history: History) -> None:
    for moment in history:
        answers = moment.listed(Reply, Refuse, Join)
        assert len(answers) == (1 if isinstance(moment.command, Get | Refresh) else 0)


@law(histories())
def test_whoever_joins_is_told_exactly_once(history: History) -> None:
    """Or the flight is still under way."""
    endings: Counter[int] = Counter()
    joined: set[int] = set()
    for moment in history:
        for effect in moment.effects:
            if isinstance(effect, Join):
                assert endings[effect.flight_id] == 0, "nobody boards a flight that has ended"
                joined.add(effect.flight_id)
            elif isinstance(effect, Settle | AskAgain | Abort | CancelFetch):
                endings[effect.flight_id] += 1
    under_way = set(history[-1].after.flights.keys()) if history else set()
    for flight_id in joined:
        assert endings[flight_id] == (0 if flight_id in under_way else 1)


@law(histories())
def test_whoever_asks_is_only_ever_answered_what_is_theirs(history: History) -> None:
    waiting: dict[int, set[Place]] = {}
    for moment in history:
        asked = place_of(moment)
        for effect in moment.effects:
            if isinstance(effect, Reply):
                assert place(effect.answer) == asked
            elif isinstance(effect, Join) and asked is not None:
                waiting.setdefault(effect.flight_id, set()).add(asked)
            elif isinstance(effect, Settle):
                for answer in (effect.answer, effect.fallback):
                    assert answer is None or waiting.get(effect.flight_id, set()) <= {place(answer)}


@law(histories())
def test_nothing_of_a_user_who_left_is_ever_answered(history: History) -> None:
    """Not even to the same user, back again: what is answered or joined was begun after they came back."""
    left: dict[Owner, int] = {}
    for number, moment in begun_so_far(history):
        for owner in who_leaves(moment):
            left[owner] = number
        asked = place_of(moment)
        if asked is None:
            continue
        since = left.get(asked[0], 0)
        assert all(each.answer.flight_id > since for each in moment.listed(Reply))
        assert all(each.flight_id > since for each in moment.listed(Join))


@law(histories())
def test_what_was_begun_before_a_removal_is_never_stored_after_it(history: History) -> None:
    """Neither as an entry nor as a failure; nor what was begun before the answer that is there already."""
    fence: dict[Place, int] = {}
    for number, moment in begun_so_far(history):
        for removed in places_removed(moment):
            fence[removed] = number
        for effect in moment.effects:
            if isinstance(effect, Save):
                assert effect.flight_id > fence.get((effect.owner, effect.key), 0)
                fence[effect.owner, effect.key] = effect.flight_id - 1
        for where, answer in answers_in(moment.after):
            assert answer.flight_id > fence.get(where, 0)


@law(histories())
def test_nobody_joins_a_flight_from_before_a_removal(history: History) -> None:
    """Read your writes: whoever asks after an invalidation gets an answer that was begun after it."""
    fence: dict[Place, int] = {}
    for number, moment in begun_so_far(history):
        for removed in places_removed(moment):
            fence[removed] = number
        asked = place_of(moment)
        if asked is not None:
            assert all(each.flight_id > fence.get(asked, 0) for each in moment.listed(Join))


def test_what_a_store_held_before_a_newer_answer_is_never_taken_in() -> None:
    stored = Entry(None, -10.0, None, float("inf"))
    *_, last = play(
        [
            Happening(Refresh("feed", 0.0, 0)),
            Happening(Get("feed", 0.0, 0)),
            Happening(FetchSucceeded(0, None, 0.0)),
            Happening(Evict(GLOBAL_OWNER, "feed")),
            Happening(Loaded(0, 0.0, stored)),
        ],
        State(has_store=True),
    )

    assert not list(answers_in(last.after))


# Failures


@law(histories())
def test_a_failure_never_displaces_an_entry(history: History) -> None:
    for moment in history:
        if isinstance(moment.command, FetchFailed):
            assert plain(moment.before, "entries") == plain(moment.after, "entries")


@law(histories())
def test_a_fresh_entry_is_served_whatever_has_failed(history: History) -> None:
    for moment in history:
        command, where = moment.command, place_of(moment)
        if not isinstance(command, Get) or where is None:
            continue
        there = entry_at(moment.before, where)
        if command.policy.fresh is Action.SERVE and verdict(there, command.now) is Freshness.FRESH:
            assert moment.effects[0] == Reply(*where, there.answer)


@law(histories())
def test_a_success_ends_the_memory_of_a_failure(history: History) -> None:
    for moment in history:
        for saved in moment.listed(Save):
            partition = moment.after.partitions.get(saved.owner)
            assert partition is not None
            assert saved.key not in partition.failures


@law(histories(stray=False))
def test_no_failure_is_remembered_for_more_than_a_minute(history: History) -> None:
    for moment in history:
        if isinstance(moment.command, FetchFailed):
            for remembered in moment.listed(Remember):
                assert remembered.failed.serve_until <= moment.command.now + 60.0


@law(happenings(stray=False))
@example(
    [
        Happening(Get("feed", 0.0, 0)),
        Happening(Loaded(0, 0.0)),
        Happening(FetchSucceeded(0, None, 0.0)),
        Happening(Evict(GLOBAL_OWNER, "feed")),
        Happening(Refresh("feed", 0.0, 0, store_failures=True)),
        Happening(FetchFailed(0, None, 0.0)),
    ],
)
def test_a_failure_never_displaces_a_fresh_entry_of_the_store(listed: list[Happening]) -> None:
    history = play(listed, State(has_store=True))
    store: dict[Place, Entry[Stamp]] = {}
    for moment in history:
        for effect in moment.effects:
            if isinstance(effect, Save):
                store[effect.owner, effect.key] = effect.entry
            elif isinstance(effect, Remember) and effect.write:
                assert verdict(store.get((effect.owner, effect.key)), effect.failed.failed_at) is not Freshness.FRESH
        for removed in places_removed(moment):
            store.pop(removed, None)


@law(happenings(stray=False))
@example(
    [
        Happening(Get("feed", 0.0, 0, ttl_s=0.0)),
        Happening(FetchSucceeded(0, None, 0.0)),
        Happening(Get("feed", 0.0, 0, policy=CachePolicy.STALE_WHILE_REVALIDATE)),
        Happening(FetchFailed(0, None, 0.0)),
        Happening(Refresh("feed", 0.0, 0, store_failures=True), after_s=1.0),
        Happening(FetchFailed(0, None, 0.0)),
        Happening(Get("feed", 0.0, 0, policy=CachePolicy.STALE_WHILE_REVALIDATE), after_s=1.0),
    ],
)
def test_a_failed_background_refresh_holds_the_next_one_back(listed: list[Happening]) -> None:
    """For half a minute, unless an answer comes or the key is removed in between."""
    history = play(listed)
    held: dict[Place, float] = {}
    for moment in history:
        for effect in moment.effects:
            if isinstance(effect, Remember) and is_background(moment.before, effect.flight_id):
                held[effect.owner, effect.key] = effect.failed.failed_at + 30.0
            elif isinstance(effect, Save):
                held.pop((effect.owner, effect.key), None)
            elif isinstance(effect, StartFetch) and effect.source == "background" and isinstance(moment.command, Get):
                assert moment.command.now >= held.get((effect.owner, effect.key), 0.0)
        for removed in [*places_removed(moment), *places_forgotten(moment)]:
            held.pop(removed, None)


# Policies


@law(histories(st.just(CachePolicy.CACHE_ONLY), refreshing=False))
def test_cache_only_never_fetches(history: History) -> None:
    assert not [effect for moment in history for effect in moment.listed(StartFetch)]


@law(histories(st.just(CachePolicy.NETWORK_ONLY), refreshing=False, stray=False))
def test_network_only_never_writes(history: History) -> None:
    for moment in history:
        assert not list(answers_in(moment.after))
        assert not moment.listed(Save, Remember)


@law(histories(st.just(CachePolicy.NETWORK_ONLY), refreshing=False))
def test_network_only_never_reads(history: History) -> None:
    assert not [effect for moment in history for effect in moment.listed(Reply)]


@law(histories())
def test_whoever_passes_the_cache_by_joins_nothing_that_began_to_fill_it(history: History) -> None:
    for moment in history:
        if isinstance(moment.command, Get) and moment.command.policy is CachePolicy.NETWORK_ONLY:
            flights = [moment.after.flights.get(each.flight_id) for each in moment.listed(Join)]
            assert all(each is not None and each.kind == "bypass" for each in flights)


@law(histories(st.sampled_from((CachePolicy.CACHE_FIRST, CachePolicy.NETWORK_FIRST, CachePolicy.CACHE_ONLY))))
def test_only_a_policy_with_a_background_refreshes_in_it(history: History) -> None:
    assert all(effect.source != "background" for moment in history for effect in moment.listed(StartFetch))


@law(histories(st.just(STALE_IF_ERROR)))
def test_the_sixth_policy_does_as_its_row_says(history: History) -> None:
    """missing: fetch, fresh: serve, stale: fetch; after a failed fetch whatever there is; heeds failures."""
    for moment in history:
        command, where = moment.command, place_of(moment)
        if isinstance(command, Get) and where is not None and not moment.listed(Refuse):
            there = entry_at(moment.before, where)
            if verdict(there, command.now) is Freshness.FRESH:
                assert moment.effects == (Reply(*where, there.answer),)
            else:
                assert all(not each.hit for each in moment.listed(Reply))
                assert all(each.falls_back for each in moment.listed(Join))
        for settled in moment.listed(Settle) if isinstance(moment.command, FetchFailed) else ():
            there = entry_at(moment.before, (settled.owner, settled.key))
            if settled.flight_id in listed_under(moment.before, (settled.owner, settled.key)):
                assert settled.fallback == (None if there is None else there.answer)


# Carriers


class Transient(State[Any], frozen=True):
    """The state whose maps are all changed in place."""

    def blank(self, owner: Owner) -> Partition[Any]:
        del owner
        entries: Table[str, Entry[Any]] = Table()
        failures: Table[str, Failed[Any]] = Table()
        flights: Table[str, tuple[int, ...]] = Table()
        return Partition(entries, failures, flights)


def transient(*, has_store: bool) -> State[Any]:
    partitions: Table[Owner, Partition[Any]] = Table()
    flights: Table[int, Flight] = Table()
    return Transient(partitions, flights, None, has_store)


def live(*, has_store: bool) -> State[Any]:
    return LiveState.empty(has_store=has_store)


@pytest.mark.parametrize("carrier", [transient, live])
@law(listed=happenings(), has_store=st.booleans())
def test_both_carriers_end_equal(carrier: Any, listed: list[Happening], has_store: bool) -> None:
    kept = play(listed, State(has_store=has_store))
    changed = play(listed, carrier(has_store=has_store))

    assert [sorted_effects(each) for each in kept] == [sorted_effects(each) for each in changed]
    if kept:
        assert plain(kept[-1].after) == plain(changed[-1].after)
        assert type(changed[-1].after) is not State


# What the laws are said in


def plain(state: State[Any], *fields: str) -> Any:
    """`state` as plain dicts, whatever carries it: all of it, or of its partitions only `fields`."""
    partitions = {
        owner: {
            name: {key: values(each) for key, each in getattr(partition, name).items()}
            for name in fields or ("entries", "failures", "flights")
        }
        for owner, partition in state.partitions.items()
    }
    if fields:
        return {owner: tables for owner, tables in partitions.items() if any(tables.values())}
    return partitions, dict(state.flights.items()), state.active_user, state.has_store


def values(kept: Any) -> Any:
    """What an entry, a failure or a list of flights says; an entry of the shell's is a class of its own."""
    names = ("answer", "created_at", "ttl_s", "expires_at")
    if hasattr(kept, "expires_at"):
        return {name: getattr(kept, name) for name in names}
    return kept if isinstance(kept, tuple) else asdict(kept)


def sorted_effects(moment: Moment) -> list[str]:
    """The effects of `moment`, where the order of whole partitions, and of the keys of one, is of no account."""
    named = [{**asdict(effect), "": type(effect).__name__} for effect in moment.effects]
    for each in named:
        if "keys" in each:
            each["keys"] = sorted(each["keys"], key=repr)
    return sorted(map(repr, named))


def effects_of(history: Sequence[Moment]) -> list[Any]:
    return [moment.effects for moment in history]


def lists_of(state: State[Any]) -> Iterator[tuple[Place, tuple[int, ...]]]:
    for owner, partition in state.partitions.items():
        for key, listed in partition.flights.items():
            yield (owner, key), listed


def answers_in(state: State[Any]) -> Iterator[tuple[Place, Stamp]]:
    for owner, partition in state.partitions.items():
        for table in (partition.entries, partition.failures):
            for key, kept in table.items():
                yield (owner, key), kept.answer


def entry_at(state: State[Any], where: Place) -> Any:
    partition = state.partitions.get(where[0])
    return None if partition is None else partition.entries.get(where[1])


def listed_under(state: State[Any], where: Place) -> tuple[int, ...]:
    partition = state.partitions.get(where[0])
    return () if partition is None else partition.flights.get(where[1]) or ()


def is_background(state: State[Any], flight_id: int) -> bool:
    flight = state.flights.get(flight_id)
    return flight is not None and flight.source == "background"


def place(answer: Stamp) -> Place | None:
    return None if answer.owner is None else (answer.owner, answer.key)


def place_of(moment: Moment) -> Place | None:
    """What is asked for in `moment`, and in whose name."""
    command = moment.command
    if not isinstance(command, Get | Refresh):
        return None
    owner = owner_of(command.scope, moment.before.active_user, command.viewer)
    return None if owner is None else (owner, command.key)


def begun_so_far(history: Iterable[Moment]) -> Iterator[tuple[int, Moment]]:
    """Each moment with the highest id that an ask has had up to then."""
    number = 0
    for moment in history:
        if isinstance(moment.command, Get | Refresh):
            number = moment.command.flight_id
        yield number, moment


def who_leaves(moment: Moment) -> list[Owner]:
    """The owners whose time is over with `moment`: a user who signs out, a session that ends."""
    command, user = moment.command, moment.before.active_user
    if isinstance(command, SetActiveUser):
        return [(CacheScope.USER, user)] if user not in (None, command.user_id) else []
    if not isinstance(command, EndSession):
        return []
    gone = user if command.viewer is None else command.viewer
    session: Owner = (CacheScope.SESSION, command.viewer)
    return [session] if gone is None else [session, (CacheScope.USER, gone)]


def places_removed(moment: Moment) -> list[Place]:
    """What goes in `moment` at somebody's request. Not by eviction, which makes no answer old."""
    command = moment.command
    everything = {*(where for where, _ in lists_of(moment.before)), *(where for where, _ in answers_in(moment.before))}
    if isinstance(command, Invalidate):
        owners = visible_owners(command.scope, moment.before.active_user, command.viewer)
        return [(owner, command.key) for owner in owners]
    if isinstance(command, Clear):
        return [where for where in everything if command.viewer is None or where[0][1] == command.viewer]
    if isinstance(command, ClearScope):
        own = command.viewer is not None and command.scope is not CacheScope.GLOBAL
        return [
            where for where in everything if where[0][0] is command.scope and (not own or where[0][1] == command.viewer)
        ]
    left = who_leaves(moment)
    return [where for where in everything if where[0] in left]


def places_forgotten(moment: Moment) -> list[Place]:
    command = moment.command
    return [(command.owner, command.key)] if isinstance(command, Forget) else []
