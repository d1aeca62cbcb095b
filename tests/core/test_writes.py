"""Somebody writes by hand, and no fetch that began before overwrites it. SF-10: nor at any other point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cachemesh.core import (
    GLOBAL_OWNER,
    AskAgain,
    CacheScope,
    Clear,
    Directives,
    Drop,
    DropPrefix,
    Entry,
    FetchSucceeded,
    FlightKind,
    Get,
    Invalidate,
    InvalidatePrefix,
    Join,
    Lifespan,
    Loaded,
    LogPrefix,
    MarkTag,
    Put,
    Refresh,
    RefreshSource,
    Refusal,
    Refuse,
    Reply,
    RetryDue,
    Save,
    Settle,
    StartFetch,
    Terms,
    Touch,
    Update,
    reduce,
)
from cachemesh.core.lifetimes import made
from tests.core.rows import ALICE, BOB, entry, expect, failed, flight, run, state
from tests.core.test_removals import INVALIDATED, OWNERS, everywhere

if TYPE_CHECKING:
    from cachemesh.core import Command, Owner

NOW = 100.0
USER = CacheScope.USER
SPAN = Lifespan(serve_stale_s=10.0, stale_if_error_s=20.0, refresh_ahead=0.5, jitter=0.5)
NOBODY = Refuse(Refusal.NO_ACTIVE_USER)

OTHERS: Any = {"failures": {"me": failed(), (ALICE, "feed"): failed()}}
UNDER_WAY = (flight(1), flight(2, domain=1), flight(3, "me"), flight(4, owner=ALICE), flight(5, kind=FlightKind.LOAD))
FENCED = [1, 2, 5]


# Put


def test_what_is_put_is_stored_and_nothing_that_was_under_way_is() -> None:
    stored = entry("mine", at=NOW, ttl_s=9.0)
    expect(
        state(*UNDER_WAY, entries={"feed": entry()}, failures={"feed": failed(), **OTHERS["failures"]}),
        Put("feed", "mine", NOW, 7, ttl_s=9.0),
        state(*UNDER_WAY, entries={"feed": stored}, struck=FENCED, **OTHERS),
        Save(7, GLOBAL_OWNER, "feed", stored, is_new=False),
    )


def test_what_is_put_has_a_life_of_its_own() -> None:
    stored = made("mine", NOW, 8.0, 7, lifespan=SPAN, tags=("a",), chance=0.5)
    expect(
        state(active_user="bob"),
        Put("feed", "mine", NOW, 7, USER, ttl_s=8.0, lifespan=SPAN, tags=("a",), chance=0.5),
        state(entries={(BOB, "feed"): stored}, active_user="bob"),
        Save(7, BOB, "feed", stored, is_new=True),
    )
    assert stored.expires_at == NOW + 6.0


def test_a_view_puts_for_its_user() -> None:
    after, _ = run(state(active_user="bob"), Put("feed", "mine", NOW, 7, USER, "alice"))

    assert after == state(entries={(ALICE, "feed"): entry("mine", at=NOW, ttl_s=None)}, active_user="bob")


@pytest.mark.parametrize(
    "command",
    [Put("feed", "mine", NOW, 7, USER), Update("feed", "news", "mine", NOW, 7, USER), Touch("feed", NOW, 7, USER)],
)
def test_nothing_is_written_for_a_user_where_nobody_is_signed_in(command: Any) -> None:
    before = state(entries={"feed": entry()})
    expect(before, command, before, NOBODY)


# Update


@pytest.mark.parametrize("terms", [None, Terms(1.0, 2.0, 30.0, ("a",), "etag", 3)])
def test_an_update_takes_the_place_of_what_it_knows_for_the_rest_of_its_life(terms: Terms | None) -> None:
    """The origin knows the new value by no validator."""
    kept = None if terms is None else Terms(1.0, 2.0, 30.0, ("a",), None, 3)
    stored = entry("mine", at=5.0, ttl_s=60.0, terms=kept)
    expect(
        state(*UNDER_WAY, entries={"feed": entry(at=5.0, terms=terms)}, **OTHERS),
        Update("feed", "news", "mine", 10.0, 7),
        state(*UNDER_WAY, entries={"feed": stored}, struck=FENCED, **OTHERS),
        Save(7, GLOBAL_OWNER, "feed", stored, is_new=False),
    )


def test_what_is_old_may_be_updated_and_stays_old() -> None:
    after, _ = run(state(entries={"feed": entry()}), Update("feed", "news", "mine", NOW, 7))

    assert after == state(entries={"feed": entry("mine")})


def test_an_update_of_something_else_is_refused() -> None:
    before = state(flight(), entries={"feed": entry()})
    expect(before, Update("feed", "older", "mine", NOW, 7), before, Refuse(Refusal.CHANGED))
    empty = state(flight())
    expect(empty, Update("feed", "news", "mine", NOW, 7), empty, Refuse(Refusal.MISS))


def test_what_is_expected_is_the_very_same_object() -> None:
    """The core compares no answers: they are opaque, and comparing them may be anything."""
    there: Any = Directives()
    alike: Any = Directives()
    before = state(entries={"feed": entry(there)})

    assert run(before, Update("feed", alike, "mine", NOW, 7))[1] == (Refuse(Refusal.CHANGED),)
    assert isinstance(run(before, Update("feed", there, "mine", NOW, 7))[1][0], Save)


# Touch


def test_what_is_touched_lives_anew_and_is_no_news() -> None:
    stored = Entry("news", 0.0, 109.0, 109.0)
    expect(
        state(*UNDER_WAY, entries={"feed": entry()}, **OTHERS),
        Touch("feed", NOW, 7, ttl_s=9.0),
        state(*UNDER_WAY, entries={"feed": stored}, struck=FENCED, **OTHERS),
        Save(7, GLOBAL_OWNER, "feed", stored, is_new=False, is_news=False),
    )


def test_a_touch_may_give_windows_and_chance() -> None:
    after, _ = run(state(entries={"feed": entry()}), Touch("feed", NOW, 7, ttl_s=8.0, lifespan=SPAN, chance=1.0))

    assert after == state(entries={"feed": Entry("news", 0.0, 104.0, 104.0, Terms(10.0, 20.0, 102.0, stamp=7))})


def test_where_nothing_is_nothing_is_touched() -> None:
    before = state(flight(), failures={"feed": failed()})
    expect(before, Touch("feed", NOW, 7, ttl_s=9.0), before, Refuse(Refusal.MISS))


# By prefix


@pytest.mark.parametrize("prefix", ["", "f", "fe", "feed", "m", "feedback"])
@pytest.mark.parametrize(("scope", "viewer", "owners"), INVALIDATED)
def test_keys_go_by_their_prefix_from_wherever_the_caller_sees_them(
    scope: CacheScope | None, viewer: str | None, owners: tuple[Owner, ...], prefix: str
) -> None:
    after, effects = reduce(everywhere(), InvalidatePrefix(prefix, scope, viewer))
    gone = frozenset(key for key in ("feed", "me") if key.startswith(prefix))
    one_by_one, _ = run(everywhere(), *(Invalidate(key, scope, viewer) for key in gone))

    assert after == one_by_one
    assert effects == (*(DropPrefix(owner, prefix, gone) for owner in owners), LogPrefix(prefix, owners[0]))


def test_where_nothing_is_the_store_is_told_of_a_prefix_all_the_same() -> None:
    before = state()
    expect(
        before,
        InvalidatePrefix("f", CacheScope.GLOBAL),
        before,
        DropPrefix(GLOBAL_OWNER, "f", frozenset()),
        LogPrefix("f", GLOBAL_OWNER),
    )
    expect(before, InvalidatePrefix("f", USER), before)
    assert len(OWNERS) == 6


# SF-10: a removal or a write at every point of a fetch

REMOVALS: dict[str, Command[str]] = {
    "invalidate": Invalidate("feed"),
    "prefix": InvalidatePrefix("fe"),
    "clear": Clear(),
    "tag": MarkTag("a", NOW, 5),
    "soft tag": MarkTag("a", NOW, 5, is_soft=True),
    "put": Put("feed", "mine", NOW, 5),
    "update": Update("feed", "old", "mine", NOW, 5),
    "touch": Touch("feed", NOW, 5),
}
TAGGED = made("old", 0.0, None, 0, tags=("a",))
FETCH: list[Command[str]] = [
    Refresh("feed", NOW, 1, tags=("a",)),
    RetryDue(1),
    FetchSucceeded(1, "from before", NOW),
]
LOAD: list[Command[str]] = [Get("feed", NOW, 1), Loaded(1, NOW, made("from before", 0.0, None, 0, tags=("a",)))]


@pytest.mark.parametrize("point", range(len(FETCH)))
@pytest.mark.parametrize("name", REMOVALS)
@pytest.mark.parametrize("there", [True, False], ids=["something cached", "nothing cached"])
def test_sf10_what_was_fetched_before_is_never_served_after(there: bool, name: str, point: int) -> None:
    before = state(entries={"feed": TAGGED} if there else {})
    commands = [*FETCH[: point + 1], REMOVALS[name], *FETCH[point + 1 :]]
    after, _ = run(before, *commands)
    _, effects = run(after, Get("feed", NOW, 9, tags=("a",)))

    written = name == "put" or (there and name == "update")
    if point == len(FETCH) - 1:  # It had been stored before.
        written = name == "put"
    if written:
        assert effects == (Reply(GLOBAL_OWNER, "feed", "mine"),)
    elif name == "touch" and (there or point == len(FETCH) - 1):
        answer = "old" if point < len(FETCH) - 1 else "from before"
        assert effects == (Reply(GLOBAL_OWNER, "feed", answer),)
    elif name in {"update", "touch"}:  # There was nothing to write to, so it did nothing.
        assert effects == (Reply(GLOBAL_OWNER, "feed", "from before"),)
    else:
        assert effects == (StartFetch(9, GLOBAL_OWNER, "feed", RefreshSource.CACHE_MISS), Join(9))


@pytest.mark.parametrize("name", REMOVALS)
def test_sf10_nor_what_was_loaded_before(name: str) -> None:
    after, effects = run(state(has_store=True), LOAD[0], REMOVALS[name], LOAD[1])

    assert effects[-1] == AskAgain(1, is_struck=name in {"invalidate", "prefix", "clear", "put"})
    _, effects = run(after, Get("feed", NOW, 9, tags=("a",), asked_store=True))
    if name == "put":
        assert effects == (Reply(GLOBAL_OWNER, "feed", "mine"),)
    elif name in {"update", "touch"}:  # Memory had nothing to write to.
        assert effects == (Reply(GLOBAL_OWNER, "feed", "from before"),)
    else:
        assert effects == (StartFetch(9, GLOBAL_OWNER, "feed", RefreshSource.CACHE_MISS), Join(9))


@pytest.mark.parametrize("name", REMOVALS)
def test_sf10_whoever_asks_after_it_joins_nothing_from_before(name: str) -> None:
    after, _ = run(state(entries={"feed": TAGGED}), FETCH[0], REMOVALS[name])
    _, effects = run(after, Refresh("feed", NOW, 9))

    assert effects == (StartFetch(9, GLOBAL_OWNER, "feed", RefreshSource.REFRESH), Join(9, reads=False))


def test_a_fetch_from_after_a_write_is_stored() -> None:
    stored = entry("newer", at=NOW, ttl_s=None)
    after, effects = run(state(), Put("feed", "mine", NOW, 1), Refresh("feed", NOW, 2), FetchSucceeded(2, "newer", NOW))
    assert after == state(entries={"feed": stored})
    assert effects == (
        Save(2, GLOBAL_OWNER, "feed", stored, is_new=False),
        Settle(2, GLOBAL_OWNER, "feed", "newer"),
    )


def test_a_key_that_is_dropped_is_dropped_once() -> None:
    _, effects = run(state(entries={"feed": TAGGED}), Invalidate("feed", CacheScope.GLOBAL))

    assert effects[0] == Drop(GLOBAL_OWNER, "feed", existed=True)
