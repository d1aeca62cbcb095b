"""What holds after any history: the laws of the core.

A history is drawn by `cachemesh.testing.strategies`. Its answers are stamps:
whose an answer is, and the id of the flight that brought it. Ids grow, so the
id also says when the flight was begun.
"""

from __future__ import annotations

from collections import Counter
from math import inf, nextafter
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from hypothesis import example
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from cachemesh.core import (
    GLOBAL_OWNER,
    SESSION_OWNER,
    Abort,
    Action,
    AfterFailure,
    AskAgain,
    Breaker,
    CachePolicy,
    CacheScope,
    CancelFetch,
    Clear,
    ClearScope,
    Directives,
    Effect,
    EndSession,
    Entry,
    Evict,
    Failed,
    FetchAborted,
    FetchFailed,
    FetchSucceeded,
    Flight,
    Forget,
    Freshness,
    GaveUp,
    Get,
    Heard,
    Invalidate,
    InvalidatePrefix,
    Join,
    Loaded,
    Mark,
    MarkTag,
    Origin,
    Overdue,
    Owner,
    Partition,
    Put,
    Refresh,
    Refuse,
    Remember,
    Reply,
    Save,
    SetActiveUser,
    Settle,
    StartFetch,
    State,
    Touch,
    Update,
    WaitedLong,
    reduce,
)
from cachemesh.core.carriers import Map, Table
from cachemesh.core.lifetimes import stands_in, verdict
from cachemesh.core.scopes import owner_of, visible_owners
from cachemesh.core.tags import MOST_MARKS
from cachemesh.shell.tables import LiveState
from cachemesh.testing.strategies import KEYS, Happening, Moment, Stamp, commands, happenings, histories, play
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


def last_mark_in(state: State[Any]) -> int:
    """The stamp of the last order about any tag."""
    marks = (state.marks_floor, *state.marks.values())
    return max(max(mark.gone_stamp, mark.stale_stamp) for mark in marks)


@law(histories())
def test_what_a_partition_lists_is_under_way(history: History) -> None:
    for moment in history:
        for (owner, key), listed in lists_of(moment.after):
            flights = [moment.after.flights.get(each) for each in listed]
            assert all(flight is not None and (flight.owner, flight.key) == (owner, key) for flight in flights)
            assert list(listed) == sorted(set(listed)) != []


@law(histories())
def test_at_most_one_flight_of_a_kind_is_listed_in_a_domain(history: History) -> None:
    """Of those of one generation: whatever a removal or a newer answer has struck off is of an older one.

    So is what began before a tag was marked: who names that tag does not join it.
    """
    for moment in history:
        last = last_mark_in(moment.after)
        for _, listed in lists_of(moment.after):
            flights = [moment.after.flights.get(each) for each in listed if each > last]
            kinds = Counter((each.domain, each.kind) for each in flights if each is not None)
            assert not kinds or max(kinds.values()) == 1


@law(histories(stray=False))
def test_at_most_one_flight_of_a_domain_fetches_for_the_cache(history: History) -> None:
    """One that passes the cache by may run beside it, and only if it began later.

    What began before a tag was marked counts no more: who names that tag does not join it.
    """
    for moment in history:
        last = last_mark_in(moment.after)
        for _, listed in lists_of(moment.after):
            flights = [moment.after.flights.get(each) for each in listed if each > last]
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
        told = [each.flight_id for each in moment.listed(Settle, AskAgain, Abort)]
        cancelled = {each.flight_id for each in moment.listed(CancelFetch)}
        assert len(told) == len(set(told))
        assert gone == set(told) | cancelled
        assert not set(told) & cancelled or isinstance(moment.command, Overdue)


# Answers


@law(histories())
def test_every_ask_is_answered_exactly_once(history: History) -> None:
    for moment in history:
        answers = moment.listed(Reply, Refuse, Join)
        if isinstance(moment.command, Get | Refresh):
            assert len(answers) == 1
        elif isinstance(moment.command, Put | Update | Touch):
            assert len([*answers, *moment.listed(Save)]) == 1
        else:
            assert len(answers) <= (1 if isinstance(moment.command, WaitedLong | GaveUp) else 0)


@law(histories())
def test_whoever_joins_is_told_exactly_once(history: History) -> None:
    """Or the flight is still under way."""
    endings: Counter[int] = Counter()
    joined: set[int] = set()
    for moment in history:
        for effect in moment.listed(Join):
            assert endings[effect.flight_id] == 0, "nobody boards a flight that has ended"
            joined.add(effect.flight_id)
        endings.update({each.flight_id for each in moment.listed(Settle, AskAgain, Abort, CancelFetch)})
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
                assert place(effect.answer) == (asked or (effect.owner, effect.key))
            elif isinstance(effect, Join) and asked is not None:
                waiting.setdefault(effect.flight_id, set()).add(asked)
            elif isinstance(effect, Settle):
                for answer in (effect.answer, effect.fallback, effect.rescue):
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
def test_sf10_what_was_begun_before_a_removal_is_never_stored_after_it(history: History) -> None:
    """Neither as an entry nor as a failure; nor what was begun before the answer or the write that is there already."""
    check_fences(history)


@law(histories(dense=True))
def test_sf10_nor_where_all_of_it_happens_to_one_key(history: History) -> None:
    check_fences(history)


def check_fences(history: History) -> None:
    fence: dict[Place, int] = {}
    touched: dict[Place, int] = {}
    for number, moment in begun_so_far(history):
        for removed in places_removed(moment):
            fence[removed] = number
        for effect in moment.effects:
            if isinstance(effect, Save):
                where = effect.owner, effect.key
                assert effect.flight_id > max(fence.get(where, 0), touched.get(where, 0))
                if isinstance(moment.command, Touch):
                    touched[where] = effect.flight_id
                else:
                    fence[where] = effect.flight_id - 1
        for where, answer in answers_in(moment.after):
            assert answer.flight_id > fence.get(where, 0)


@law(happenings(dense=True))
@example([Happening(Get("feed", 0.0, 0)), Happening(Heard(is_gap=True)), Happening(FetchSucceeded(0, None, 0.0))])
def test_nothing_that_began_before_a_gap_in_the_news_is_remembered(listed: list[Happening]) -> None:
    gap = 0
    for number, moment in begun_so_far(play(listed)):
        if isinstance(moment.command, Heard) and moment.command.is_gap and moment.command.owner is None:
            gap = number
        assert all(answer.flight_id > gap for (owner, _), answer in answers_in(moment.after) if owner != SESSION_OWNER)


@law(histories())
def test_nobody_joins_a_flight_from_before_a_removal(history: History) -> None:
    """Read your writes: whoever asks after an invalidation gets an answer that was begun after it."""
    fence: dict[Place, int] = {}
    for number, moment in begun_so_far(history):
        for removed in places_removed(moment):
            fence[removed] = number
        for saved in moment.listed(Save) if isinstance(moment.command, Put | Update | Touch) else ():
            fence[saved.owner, saved.key] = saved.flight_id
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
        if command.policy.fresh is Action.SERVE and seen(moment, where) is Freshness.FRESH:
            assert moment.effects[0] == Reply(*where, there.answer)


@law(histories())
def test_a_success_ends_the_memory_of_a_failure(history: History) -> None:
    for moment in history:
        for saved in moment.listed(Save):
            partition = moment.after.partitions.get(saved.owner)
            assert partition is not None
            assert saved.key not in partition.failures


@law(histories(stray=False))
def test_fc1_no_failure_is_remembered_for_more_than_a_minute(history: History) -> None:
    """Unless somebody says for how long."""
    most: dict[Place, float] = {}
    for moment in history:
        if isinstance(moment.command, FetchFailed):
            command = moment.command
            flight = moment.before.flights.get(command.flight_id)
            for remembered in moment.listed(Remember):
                assert flight is not None
                given_s = None if flight.lifespan is None else flight.lifespan.failure_ttl_s
                given_s = given_s if command.failure_ttl_s is None else command.failure_ttl_s
                where = remembered.owner, remembered.key
                until = command.now + (60.0 if given_s is None else given_s)
                most[where] = max(until, most.get(where, 0.0))
                assert remembered.failed.serve_until <= most[where]


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
            elif isinstance(effect, Remember) and effect.write and not isinstance(moment.command, Loaded):
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
    """For half a minute or what a lifespan says, unless an answer comes or the key is removed in between."""
    history = play(listed)
    held: dict[Place, float] = {}
    for moment in history:
        for effect in moment.effects:
            if isinstance(effect, Remember) and is_background(moment.before, effect.flight_id):
                flight = moment.before.flights.get(effect.flight_id)
                lifespan = None if flight is None else flight.lifespan
                backoff_s = 30.0 if lifespan is None else lifespan.refresh_backoff_s
                held[effect.owner, effect.key] = effect.failed.failed_at + backoff_s
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


@law(histories(st.just(CachePolicy.NETWORK_ONLY), refreshing=False, stray=False, writing=False))
def test_network_only_never_writes(history: History) -> None:
    for moment in history:
        assert not list(answers_in(moment.after))
        assert not moment.listed(Save, Remember)


@law(histories(st.just(CachePolicy.NETWORK_ONLY), refreshing=False))
def test_network_only_never_reads(history: History) -> None:
    assert not [moment for moment in history if isinstance(moment.command, Get) and moment.listed(Reply)]
    assert all(not each.reads and not each.falls_back for moment in history for each in moment.listed(Join))


@law(histories())
def test_whoever_passes_the_cache_by_joins_nothing_that_began_to_fill_it(history: History) -> None:
    for moment in history:
        if isinstance(moment.command, Get) and moment.command.policy is CachePolicy.NETWORK_ONLY:
            flights = [moment.after.flights.get(each.flight_id) for each in moment.listed(Join)]
            assert all(each is not None and each.kind == "bypass" for each in flights)


@law(histories(st.sampled_from((CachePolicy.CACHE_FIRST, CachePolicy.NETWORK_FIRST, CachePolicy.CACHE_ONLY))))
def test_only_a_policy_with_a_background_refreshes_in_it(history: History) -> None:
    """Or a lifespan: cache_first refreshes what is ageing or in its grace."""
    for moment in history:
        command, where = moment.command, place_of(moment)
        if where is not None and any(each.source == "background" for each in moment.listed(StartFetch)):
            assert isinstance(command, Get)
            assert command.policy is CachePolicy.CACHE_FIRST
            assert seen(moment, where) in {Freshness.AGEING, Freshness.GRACE}


@law(histories(st.just(STALE_IF_ERROR)))
def test_the_sixth_policy_does_as_its_row_says(history: History) -> None:
    """missing: fetch, fresh: serve, stale: fetch; after a failed fetch what its windows allow; heeds failures."""
    for moment in history:
        command, where = moment.command, place_of(moment)
        if isinstance(command, Get) and where is not None and not moment.listed(Refuse):
            there = entry_at(moment.before, where)
            freshness = seen(moment, where)
            if freshness is Freshness.FRESH:
                assert moment.effects == (Reply(*where, there.answer),)
            elif freshness in {Freshness.AGEING, Freshness.GRACE}:
                assert moment.effects[0] == Reply(*where, there.answer)
            else:
                assert all(not each.hit or each.answer == there.answer for each in moment.listed(Reply))
                assert all(each.falls_back for each in moment.listed(Join))
        if not isinstance(command, FetchFailed):
            continue
        for settled in moment.listed(Settle):
            there = entry_at(moment.before, (settled.owner, settled.key))
            usable = stands_in(there, command.now, moment.before, settled.owner)
            assert settled.fallback == (there.answer if usable else None)


# How long an answer may be of use


@law(histories(dense=True))
def test_tt7_no_answer_is_older_than_its_ttl_and_the_window_given(history: History) -> None:
    """Where windows were given; what is plain may be as old as it likes for those who fall back."""
    lives: dict[Stamp, float] = {}
    for moment in history:
        for answer, now, where in old_answers(moment):
            there = entry_at(moment.before, where)
            assert there.answer is answer
            assert now < lives.get(answer, inf)
        for where, kept in entries_in(moment.after):
            terms = kept.terms
            if terms is None or terms.serve_stale_s is None or terms.stale_if_error_s is None:
                lives.pop(kept.answer, None)
                continue
            longest_s = inf if kept.ttl_s is None else kept.ttl_s + max(terms.serve_stale_s, terms.stale_if_error_s)
            # The sum of three floats, in another order.
            lives[kept.answer] = nextafter(nextafter(kept.created_at + longest_s, inf), inf) + 1e-6
            assert where == place(kept.answer)


@law(histories(dense=True))
def test_tt6_chance_never_lengthens_a_life(history: History) -> None:
    for moment in history:
        command = moment.command
        for saved in moment.listed(Save):
            if isinstance(command, Put | Touch):
                ttl_s = command.ttl_s
            elif isinstance(command, FetchSucceeded):
                flight = moment.before.flights.get(command.flight_id)
                assert flight is not None
                said = command.directives
                ttl_s = said.ttl_s if said is not None and said.sets_ttl else flight.ttl_s
            else:
                continue
            assert saved.entry.expires_at <= (inf if ttl_s is None else command.now + ttl_s)


# Tags


@law(histories() | histories(dense=True))
def test_nothing_of_a_marked_tag_is_ever_answered_unless_it_was_begun_after_the_mark(history: History) -> None:
    gone: dict[tuple[Owner | None, str], int] = {}
    for moment in history:
        command = moment.command
        if isinstance(command, MarkTag) and not command.is_soft:
            gone.update(dict.fromkeys(((owner, command.tag) for owner in owners_marked(moment)), command.stamp))
        for answer, _, where in old_answers(moment):
            for tag in tags_of(entry_at(moment.before, where)):
                assert answer.flight_id > max(gone.get((None, tag), 0), gone.get((where[0], tag), 0))


@law(histories() | histories(dense=True))
@example(
    play(
        [
            Happening(Get("feed", 0.0, 0)),
            Happening(MarkTag("red", 0.0, 0)),
            Happening(Get("feed", 0.0, 0)),
            Happening(MarkTag("red", 0.0, 0)),
            Happening(FetchSucceeded(0, None, 0.0, directives=Directives(tags=("red",)))),
        ],
    ),
)
def test_whoever_asked_after_a_mark_is_not_told_what_was_begun_before_it(history: History) -> None:
    """Whether the flight knew its tags when they joined, or the answer brought them."""
    marked: list[tuple[Owner | None, str, int]] = []
    asked: dict[int, list[int]] = {}
    for moment in history:
        command = moment.command
        if isinstance(command, MarkTag):
            marked.extend((owner, command.tag, command.stamp) for owner in owners_marked(moment))
        elif isinstance(command, Get | Refresh):
            for joined in moment.listed(Join):
                asked.setdefault(joined.flight_id, []).append(command.flight_id)
        if not isinstance(command, FetchSucceeded):
            continue
        for settled in moment.listed(Settle):
            flight = moment.before.flights.get(settled.flight_id)
            assert flight is not None
            tags = {*flight.tags, *(() if command.directives is None else command.directives.tags)}
            marks = [at for owner, tag, at in marked if tag in tags and owner in {None, settled.owner}]
            for ask in asked.get(settled.flight_id, ()):
                if any(settled.flight_id < at < ask for at in marks):
                    assert 0 < settled.asks_again_after < ask


@law(histories())
def test_ht1_a_private_answer_is_neither_kept_nor_shared_in_the_global_scope(history: History) -> None:
    for moment in history:
        command = moment.command
        if isinstance(command, FetchSucceeded) and command.directives is not None and command.directives.private:
            for saved in moment.listed(Save):
                assert saved.owner != GLOBAL_OWNER
            for settled in moment.listed(Settle):
                assert settled.owner != GLOBAL_OWNER or settled.asks_again_after == settled.flight_id


@law(histories())
def test_an_entry_bears_all_the_tags_that_anyone_gave_it(history: History) -> None:
    wanted: dict[int, set[str]] = {}
    for moment in history:
        command = moment.command
        for joined in moment.listed(Join):
            flight = moment.after.flights.get(joined.flight_id)
            assert isinstance(command, Get | Refresh)
            if flight is not None and flight.persist and not passes_by(command):
                wanted.setdefault(joined.flight_id, set()).update(command.tags)
        if isinstance(command, FetchSucceeded):
            said = () if command.directives is None else command.directives.tags
            for saved in moment.listed(Save):
                assert tags_of(saved.entry) >= {*said, *wanted.get(saved.flight_id, ())}


# Origins


@law(histories(dense=True))
def test_fc7_one_fetch_at_a_time_tries_an_origin_that_is_left_alone(history: History) -> None:
    for moment in history:
        command = moment.command
        for name, breaker in moment.after.breakers.items():
            probe = None if breaker.probe is None else moment.after.flights.get(breaker.probe)
            assert breaker.probe is None or (probe is not None and probe.origin is not None)
            assert probe is None or (probe.origin is not None and probe.origin.name == name)
        if isinstance(command, Get | Refresh) and command.origin is not None:
            breaker_before = moment.before.breakers.get(command.origin.name)
            if breaker_before is None or breaker_before.open_until is None:
                continue
            for begun in moment.listed(StartFetch):
                tried = moment.after.breakers.get(command.origin.name)
                assert tried is not None
                assert (breaker_before.probe, tried.probe) == (None, begun.flight_id)
                assert command.now >= breaker_before.open_until


@law(histories(dense=True))
def test_no_breaker_stays_half_open(history: History) -> None:
    """Once nothing is under way and its time is over, somebody may ask again."""
    state = history[-1].after if history else State()
    for flight_id in sorted(state.flights.keys()):
        state, _ = reduce(state, FetchAborted(flight_id))
    for name in sorted(state.breakers.keys()):
        asks = Get("elsewhere", 1e9, 10**6, policy=CachePolicy.NETWORK_ONLY, origin=Origin(name))
        _, effects = reduce(state, asks)
        assert [type(effect) for effect in effects] == [StartFetch, Join]


# Carriers


class Transient(State[Any], frozen=True):
    """The state whose maps are all changed in place."""

    def blank(self, owner: Owner) -> Partition[Any]:
        del owner
        entries: Table[str, Entry[Any]] = Table()
        failures: Table[str, Failed[Any]] = Table()
        flights: Table[str, tuple[int, ...]] = Table()
        return Partition(entries, failures, flights)

    def no_marks(self) -> Map[tuple[Owner | None, str], Mark]:
        marks: Table[tuple[Owner | None, str], Mark] = Table()
        return marks


def transient(*, has_store: bool) -> State[Any]:
    partitions: Table[Owner, Partition[Any]] = Table()
    flights: Table[int, Flight] = Table()
    marks: Table[tuple[Owner | None, str], Mark] = Table()
    breakers: Table[str, Breaker] = Table()
    return Transient(partitions, flights, None, has_store, marks, breakers=breakers)


def live(*, has_store: bool) -> State[Any]:
    return LiveState.empty(has_store=has_store)


@pytest.mark.parametrize("carrier", [transient, live])
@law(listed=happenings() | happenings(dense=True), has_store=st.booleans())
@example(
    listed=[
        Happening(Put("feed", None, 0.0, 0)),
        Happening(Put("me", None, 0.0, 0)),
        Happening(Evict(GLOBAL_OWNER, "feed")),
    ],
    has_store=False,
)
def test_both_carriers_end_equal(carrier: Any, listed: list[Happening], has_store: bool) -> None:
    kept = play(listed, State(has_store=has_store))
    changed = play(listed, carrier(has_store=has_store))

    assert [sorted_effects(each) for each in kept] == [sorted_effects(each) for each in changed]
    if kept:
        assert plain(kept[-1].after) == plain(changed[-1].after)
        assert type(changed[-1].after) is not State


@pytest.mark.parametrize("carrier", [State, transient, live])
def test_all_carriers_give_up_marks_that_are_too_many(carrier: Any) -> None:
    state: State[Any] = carrier(has_store=False)
    marks = state.marks
    for number in range(1, MOST_MARKS + 1):
        marks = marks.insert((None, f"tag {number}"), Mark(stale_stamp=number, stale_at=0.0))
    state = replace(state, marks=marks)

    state, _ = reduce(state, MarkTag("red", 1.0, MOST_MARKS + 1))
    assert (dict(state.marks.items()), state.marks_floor) == ({}, Mark(MOST_MARKS + 1, 1.0))
    state, _ = reduce(state, MarkTag("red", 2.0, MOST_MARKS + 2, is_soft=True))
    assert dict(state.marks.items()) == {(None, "red"): Mark(stale_stamp=MOST_MARKS + 2, stale_at=2.0)}


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
    known = dict(state.marks.items()), state.marks_floor, dict(state.breakers.items())
    return partitions, dict(state.flights.items()), state.active_user, state.has_store, known


def values(kept: Any) -> Any:
    """What an entry, a failure or a list of flights says; an entry of the shell's is a class of its own."""
    names = ("answer", "created_at", "ttl_s", "expires_at", "terms")
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


def entries_in(state: State[Any]) -> Iterator[tuple[Place, Entry[Any]]]:
    for owner, partition in state.partitions.items():
        for key, kept in partition.entries.items():
            yield (owner, key), kept


def old_answers(moment: Moment) -> Iterator[tuple[Stamp, float, Place]]:
    """The entries that are answered in `moment`, at which instant, and whose they are."""
    now: float = getattr(moment.command, "now", 0.0)
    for effect in moment.effects:
        if isinstance(effect, Reply) and effect.hit:
            yield effect.answer, now, (effect.owner, effect.key)
        elif isinstance(effect, Settle):
            for answer in (effect.fallback, effect.rescue):
                if answer is not None:
                    yield answer, now, (effect.owner, effect.key)


def tags_of(kept: Entry[Any]) -> set[str]:
    return set() if kept.terms is None else set(kept.terms.tags)


def owners_marked(moment: Moment) -> tuple[Owner | None, ...]:
    """Whose entries are meant by the mark of `moment`; None is everyone."""
    command = moment.command
    assert isinstance(command, MarkTag)
    if command.scope is None and command.viewer is None:
        return (command.owner,)
    return visible_owners(command.scope, moment.before.active_user, command.viewer)


def passes_by(command: Get | Refresh) -> bool:
    """Whether `command` may be for a fetch that passes the cache by."""
    if isinstance(command, Refresh):
        return False
    return Action.BYPASS in {command.policy.missing, command.policy.fresh, command.policy.stale}


def seen(moment: Moment, where: Place) -> Freshness:
    """What there is at `where` when `moment` comes."""
    now: float = getattr(moment.command, "now", 0.0)
    return verdict(entry_at(moment.before, where), now, moment.before, where[0])


def entry_at(state: State[Any], where: Place) -> Any:
    partition = state.partitions.get(where[0])
    return None if partition is None else partition.entries.get(where[1])


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
    """Each moment with the highest id that an ask has had up to then, or the highest stamp."""
    number = 0
    for moment in history:
        if isinstance(moment.command, Get | Refresh):
            number = moment.command.flight_id
        elif isinstance(moment.command, MarkTag | Put | Update | Touch):
            number = moment.command.stamp
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
    if isinstance(command, InvalidatePrefix):
        owners = visible_owners(command.scope, moment.before.active_user, command.viewer)
        return [(owner, key) for owner in owners for key in KEYS if key.startswith(command.prefix)]
    if isinstance(command, Clear):
        return [where for where in everything if command.viewer is None or where[0][1] == command.viewer]
    if isinstance(command, ClearScope):
        own = command.viewer is not None and command.scope is not CacheScope.GLOBAL
        return [
            where for where in everything if where[0][0] is command.scope and (not own or where[0][1] == command.viewer)
        ]
    if isinstance(command, Heard):
        if command.is_gap:
            return []
        return [where for where in everything if command.owner in {None, where[0]} and command.key in {None, where[1]}]
    left = who_leaves(moment)
    return [where for where in everything if where[0] in left]


def places_forgotten(moment: Moment) -> list[Place]:
    command = moment.command
    return [(command.owner, command.key)] if isinstance(command, Forget) else []
