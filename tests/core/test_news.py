"""What other processes did: forgotten here, fenced here, and no order to the store."""

from __future__ import annotations

import pytest

from cachemesh.core import (
    GLOBAL_OWNER,
    SESSION_OWNER,
    CacheScope,
    Effects,
    FetchFailed,
    FetchSucceeded,
    FlightKind,
    FoundElsewhere,
    Heard,
    Loaded,
    MarkTag,
    Origin,
    Overtaken,
    Owner,
    Persist,
    ReportFailure,
    Save,
    Settle,
    State,
    TagMarked,
    Terms,
    reduce,
)
from cachemesh.core.lifetimes import CLOCK_SKEW_S
from tests.core.rows import ALICE, BOB, entry, expect, failed, flight, run, state

NOW = 100.0
MINE = (GLOBAL_OWNER, "feed")


def test_a_key_that_was_changed_elsewhere_is_forgotten() -> None:
    expect(
        state(entries={"feed": entry(), "other": entry()}, failures={"feed": failed()}),
        Heard(GLOBAL_OWNER, "feed"),
        state(entries={"other": entry()}),
        Overtaken(GLOBAL_OWNER, frozenset({"feed"}), is_whole=False),
    )


def test_what_is_being_fetched_of_a_key_that_was_changed_elsewhere_is_stored_nowhere() -> None:
    heard, _ = reduce(state(flight(1)), Heard(GLOBAL_OWNER, "feed"))
    after, effects = reduce(heard, FetchSucceeded(1, "late", NOW))
    assert (after, effects) == (state(), (Settle(1, GLOBAL_OWNER, "feed", "late"),))


def test_rd1_an_invalidation_that_comes_before_the_reply_of_the_store_wins() -> None:
    loading = state(flight(1, kind=FlightKind.LOAD))
    after, effects = run(loading, Heard(GLOBAL_OWNER, "feed"), Loaded(1, NOW, entry("old", at=NOW)))
    assert after == state()
    assert not any(isinstance(effect, Save) for effect in effects)


def test_a_partition_that_was_cleared_elsewhere_is_forgotten_whole() -> None:
    there = {(ALICE, "me"): entry(), (BOB, "me"): entry()}
    expect(
        state(entries=there, failures={(ALICE, "it"): failed()}),
        Heard(ALICE),
        state(entries={(BOB, "me"): entry()}),
        Overtaken(ALICE, frozenset({"me", "it"}), is_whole=True),
    )


def test_when_the_news_may_have_been_missed_everything_is_forgotten() -> None:
    expect(
        state(entries={"feed": entry(), (ALICE, "me"): entry()}),
        Heard(),
        state(),
        Overtaken(GLOBAL_OWNER, frozenset({"feed"}), is_whole=True),
        Overtaken(ALICE, frozenset({"me"}), is_whole=True),
    )


def test_where_news_may_have_been_missed_fetches_go_on_and_loads_do_not() -> None:
    """The store says whether what is fetched is too old; what is loaded may be from before."""
    before = state(
        flight(1),
        flight(2, "other", kind=FlightKind.LOAD),
        flight(3, "me", ALICE),
        entries={"feed": entry(), (ALICE, "me"): entry()},
        failures={"feed": failed()},
    )
    after, effects = reduce(before, Heard(is_gap=True))
    assert effects == (
        Overtaken(GLOBAL_OWNER, frozenset({"feed"}), is_whole=True, is_gap=True),
        Overtaken(ALICE, frozenset({"me"}), is_whole=True, is_gap=True),
    )
    assert {owner: dict(part.flights.items()) for owner, part in after.partitions.items()} == {
        GLOBAL_OWNER: {"feed": (1,)},
        ALICE: {"me": (3,)},
    }
    assert not any(len(part.entries) or len(part.failures) for part in after.partitions.values())
    loaded, _ = reduce(after, Loaded(2, NOW, entry("old", at=NOW)))
    assert all("other" not in part.entries for part in loaded.partitions.values())


def test_a_gap_in_the_news_leaves_the_session_of_the_program_alone() -> None:
    """No store has it, and nobody else can change it; the session of a view is in the store."""
    view: Owner = (CacheScope.SESSION, "alice")
    mine = (flight(1, "cart", SESSION_OWNER), flight(2, "cart", view))
    expect(
        state(*mine, entries={(SESSION_OWNER, "cart"): entry(), (view, "cart"): entry()}),
        Heard(is_gap=True),
        state(mine[0], flight(2, "cart", view, spans_gap=True), entries={(SESSION_OWNER, "cart"): entry()}),
        Overtaken(view, frozenset({"cart"}), is_whole=True, is_gap=True),
    )


def test_news_of_what_is_not_here_changes_nothing() -> None:
    before = state(entries={"feed": entry()})
    expect(before, Heard(ALICE, "me"), before)
    expect(before, Heard(ALICE), before, Overtaken(ALICE, frozenset(), is_whole=True))
    expect(state(), Heard(), state())


@pytest.mark.parametrize("owner", [None, ALICE])
@pytest.mark.parametrize("is_soft", [True, False])
def test_a_tag_that_was_marked_elsewhere_is_marked_here_and_told_to_nobody(
    owner: tuple[CacheScope, str | None] | None, is_soft: bool
) -> None:
    after, effects = reduce(state(), MarkTag("a", NOW, 5, is_soft, is_heard=True, owner=owner))
    assert effects == (TagMarked(owner, "a", is_soft, at=None),)
    assert list(after.marks.keys()) == [(owner, "a")]


# A fetch that another process has made


def found(before: State[str], at: float = 90.0, terms: Terms | None = None) -> tuple[State[str], Effects[str]]:
    return reduce(before, FoundElsewhere(1, NOW, entry("theirs", at=at, terms=terms)))


def test_what_another_process_has_fetched_is_this_flights_answer_with_its_own_age() -> None:
    after, effects = found(state(flight(1), failures={"feed": failed()}))
    kept = entry("theirs", at=90.0)
    assert after == state(entries={"feed": kept})
    assert effects == (
        Save(1, GLOBAL_OWNER, "feed", kept, is_new=True, is_stored=True),
        Settle(1, GLOBAL_OWNER, "feed", "theirs"),
    )


def test_it_takes_the_place_of_what_was_there() -> None:
    after, effects = found(state(flight(1), entries={"feed": entry("old")}))
    assert after == state(entries={"feed": entry("theirs", at=90.0)})
    assert effects[0] == Save(1, GLOBAL_OWNER, "feed", entry("theirs", at=90.0), is_new=False, is_stored=True)


def test_a_flight_that_may_not_store_only_answers() -> None:
    overtaken, _ = reduce(state(flight(1)), Heard(GLOBAL_OWNER, "feed"))
    assert found(overtaken) == (state(), (Settle(1, GLOBAL_OWNER, "feed", "theirs"),))
    passing_by = state(flight(1, kind=FlightKind.BYPASS, persist=False))
    assert found(passing_by) == (state(), (Settle(1, GLOBAL_OWNER, "feed", "theirs"),))


def test_it_is_not_kept_where_one_of_its_tags_was_marked_since() -> None:
    marked, _ = reduce(state(flight(1)), MarkTag("a", 95.0, 5))
    after, effects = found(marked, terms=Terms(tags=("a",)))
    assert len(after.partitions) == 0
    assert effects == (Settle(1, GLOBAL_OWNER, "feed", "theirs"),)


def test_with_tags_it_is_as_new_as_the_flight() -> None:
    after, _ = found(state(flight(1)), terms=Terms(tags=("a",)))
    assert after == state(entries={"feed": entry("theirs", at=90.0, terms=Terms(tags=("a",), stamp=1))})


def test_tt3_what_claims_to_be_from_the_future_is_stale() -> None:
    after, _ = found(state(flight(1)), at=NOW + CLOCK_SKEW_S + 1)
    partition = after.partitions.get(GLOBAL_OWNER)
    assert partition is not None
    kept = partition.entries.get("feed")
    assert kept is not None
    assert kept.expires_at == NOW


def test_its_origin_was_not_asked() -> None:
    origin = Origin("github")
    after, _ = found(state(flight(1, origin=origin)))
    assert after == state(entries={"feed": entry("theirs", at=90.0)})


def test_a_flight_that_is_over_finds_nothing() -> None:
    before = state()
    assert found(before)[0] is before


# A fetch that was under way when news were lost


def test_of_a_gap_in_the_news_a_fetch_bears_the_mark() -> None:
    gap = Overtaken(GLOBAL_OWNER, frozenset(), is_whole=True, is_gap=True)
    expect(state(flight(1)), Heard(GLOBAL_OWNER, is_gap=True), state(flight(1, spans_gap=True)), gap)
    before = state(flight(1, spans_gap=True))

    after, effects = reduce(before, Heard(GLOBAL_OWNER, is_gap=True))

    assert after is before
    assert effects == (gap,)


def test_what_it_brings_is_for_the_store_alone() -> None:
    """That knows whether it is still right. Who asks next finds it there, or a newer one."""
    expect(
        state(flight(1, spans_gap=True, ttl_s=60.0)),
        FetchSucceeded(1, "new", NOW),
        state(),
        Persist(1, GLOBAL_OWNER, "feed", entry("new", at=NOW)),
        Settle(1, GLOBAL_OWNER, "feed", "new"),
    )


def test_what_came_into_memory_meanwhile_gives_way_to_it() -> None:
    expect(
        state(
            flight(1, spans_gap=True),
            flight(2, spans_gap=True, ttl_s=60.0),
            flight(3, kind=FlightKind.LOAD),
            flight(4),
            entries={"feed": entry("old"), "other": entry()},
            failures={"feed": failed()},
        ),
        FetchSucceeded(2, "new", NOW),
        state(
            flight(1, spans_gap=True),
            flight(3, kind=FlightKind.LOAD),
            flight(4),
            entries={"other": entry()},
            struck=(1, 3),
        ),
        Persist(2, GLOBAL_OWNER, "feed", entry("new", at=NOW)),
        Settle(2, GLOBAL_OWNER, "feed", "new"),
    )


@pytest.mark.parametrize("found_nothing", [True, False])
def test_its_failure_is_told_and_remembered_by_the_store_alone(found_nothing: bool) -> None:
    """And not even there where it might hide a value."""
    persist = (Persist(1, GLOBAL_OWNER, "feed", failed("down", NOW)),)
    expect(
        state(flight(1, spans_gap=True, store_failures=True, found_nothing=found_nothing)),
        FetchFailed(1, "down", NOW),
        state(),
        *(persist if found_nothing else ()),
        ReportFailure(GLOBAL_OWNER, "feed", "down", notify=True),
        Settle(1, GLOBAL_OWNER, "feed", "down"),
    )


def test_what_another_process_has_fetched_by_then_is_its_answer_and_not_remembered() -> None:
    after, effects = found(state(flight(1, spans_gap=True), entries={"other": entry()}))
    assert after == state(entries={"other": entry()})
    assert effects == (Settle(1, GLOBAL_OWNER, "feed", "theirs"),)


def test_one_that_passes_the_cache_by_is_answered_as_ever() -> None:
    expect(
        state(flight(1, kind=FlightKind.BYPASS, spans_gap=True)),
        FetchSucceeded(1, "new", NOW),
        state(),
        Settle(1, GLOBAL_OWNER, "feed", "new"),
    )
