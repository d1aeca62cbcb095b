"""Things go, and whatever is under way for them may no longer be stored."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from cachemesh.core import (
    GLOBAL_OWNER,
    SESSION_OWNER,
    CacheScope,
    Clear,
    ClearScope,
    ClearStore,
    Drop,
    DropPartition,
    EndSession,
    Evict,
    FetchSucceeded,
    Forget,
    Invalidate,
    LogClear,
    LogEvict,
    LogInvalidate,
    LogScopeCleared,
    Owner,
    SetActiveUser,
    Settle,
    State,
    reduce,
)
from tests.core.rows import ALICE, BOB, entry, expect, failed, flight, run, state

GLOBAL, SESSION, USER = CacheScope.GLOBAL, CacheScope.SESSION, CacheScope.USER
ALICES_SESSION: Owner = (SESSION, "alice")
BOBS_SESSION: Owner = (SESSION, "bob")
OWNERS = (GLOBAL_OWNER, SESSION_OWNER, ALICES_SESSION, BOBS_SESSION, ALICE, BOB)


def everywhere(*gone: Owner, key: str | None = None, active_user: str | None = "bob") -> State[str]:
    """Everyone has "feed", failed at "me", fetches "feed"; but of whom is `gone` nothing, or nothing under `key`."""
    left = [owner for owner in OWNERS if owner not in gone or key is not None]
    hit = {(owner, key) for owner in gone}
    return state(
        *(flight(number, owner=owner) for number, owner in enumerate(OWNERS, start=1)),
        entries={(owner, "feed"): entry() for owner in left if (owner, "feed") not in hit},
        failures={(owner, "me"): failed() for owner in left if (owner, "me") not in hit},
        struck=[number for number, owner in enumerate(OWNERS, start=1) if owner in gone and key in (None, "feed")],
        active_user=active_user,
    )


def dropped(owner: Owner, *, ends: bool, keys: tuple[str, ...] = ("feed", "me")) -> DropPartition:
    return DropPartition(owner, frozenset(keys), ends)


def logged(reason: str, *owners: Owner) -> LogScopeCleared:
    return LogScopeCleared(reason, frozenset(itertools.product(owners, ("feed", "me"))))


# By name

# scope, user of the view, owners from whom the key goes
INVALIDATED = [
    (None, None, (BOB, SESSION_OWNER, GLOBAL_OWNER)),
    (None, "alice", (ALICE, ALICES_SESSION, GLOBAL_OWNER)),
    (GLOBAL, None, (GLOBAL_OWNER,)),
    (GLOBAL, "alice", (GLOBAL_OWNER,)),
    (SESSION, None, (SESSION_OWNER,)),
    (SESSION, "alice", (ALICES_SESSION,)),
    (USER, None, (BOB,)),
    (USER, "alice", (ALICE,)),
]


@pytest.mark.parametrize("key", ["feed", "me"])
@pytest.mark.parametrize(("scope", "viewer", "owners"), INVALIDATED)
def test_a_key_goes_from_wherever_the_caller_sees_it(
    scope: CacheScope | None,
    viewer: str | None,
    owners: tuple[Owner, ...],
    key: str,
) -> None:
    expect(
        everywhere(),
        Invalidate(key, scope, viewer),
        everywhere(*owners, key=key),
        *(Drop(owner, key, existed=key == "feed") for owner in owners),
        LogInvalidate(key, owners[0]),
    )


def test_a_key_that_is_not_there_is_dropped_from_the_store() -> None:
    for before in (state(), everywhere(active_user=None)):
        expect(
            before,
            Invalidate("news"),
            before,
            Drop(SESSION_OWNER, "news", existed=False),
            Drop(GLOBAL_OWNER, "news", existed=False),
            LogInvalidate("news", SESSION_OWNER),
        )


def test_a_failure_and_an_entry_of_one_key_go_together() -> None:
    expect(
        state(entries={"feed": entry(), "me": entry()}, failures={"feed": failed()}),
        Invalidate("feed", GLOBAL),
        state(entries={"me": entry()}),
        Drop(GLOBAL_OWNER, "feed", existed=True),
        LogInvalidate("feed", GLOBAL_OWNER),
    )


def test_a_partition_is_not_kept_for_nothing() -> None:
    expect(
        state(flight(), entries={"feed": entry()}),
        Invalidate("feed", GLOBAL),
        state(flight(), struck=[1]),
        Drop(GLOBAL_OWNER, "feed", existed=True),
        LogInvalidate("feed", GLOBAL_OWNER),
    )


# All of it


def test_everything_goes() -> None:
    after, effects = reduce(everywhere(), Clear())

    assert after == everywhere(*OWNERS)
    assert effects[-2:] == (ClearStore(), LogClear())
    assert set(effects[:-2]) == {dropped(owner, ends=False) for owner in OWNERS}
    assert len(effects) == len(OWNERS) + 2


def test_where_nothing_is_the_store_is_emptied_all_the_same() -> None:
    expect(state(), Clear(), state(), ClearStore(), LogClear())


def test_a_view_clears_what_is_its_users() -> None:
    expect(
        everywhere(),
        Clear("alice"),
        everywhere(ALICE, ALICES_SESSION),
        dropped(ALICE, ends=False),
        dropped(ALICES_SESSION, ends=False),
        LogClear(),
    )
    expect(
        state(),
        Clear("alice"),
        state(),
        dropped(ALICE, ends=False, keys=()),
        dropped(ALICES_SESSION, ends=False, keys=()),
        LogClear(),
    )


def test_the_keys_of_a_partition_are_named_once() -> None:
    expect(
        state(entries={"b": entry(), "d": entry(), "a": entry()}, failures={"c": failed(), "a": failed()}),
        ClearScope(GLOBAL),
        state(),
        dropped(GLOBAL_OWNER, ends=False, keys=("a", "b", "c", "d")),
        LogScopeCleared("clear_scope:global", frozenset((GLOBAL_OWNER, key) for key in "abcd")),
    )


# With a user


@pytest.mark.parametrize("user_id", ["alice", None])
def test_a_user_who_leaves_takes_everything_along(user_id: str | None) -> None:
    expect(
        everywhere(),
        SetActiveUser(user_id),
        everywhere(BOB, active_user=user_id),
        dropped(BOB, ends=True),
        logged("set_active_user", BOB),
    )


def test_where_nobody_was_signed_in_nobody_leaves() -> None:
    expect(everywhere(active_user=None), SetActiveUser("alice"), everywhere(active_user="alice"))


@pytest.mark.parametrize("user_id", ["bob", None])
def test_the_same_user_again_is_no_news(user_id: str | None) -> None:
    before = everywhere(active_user=user_id)
    expect(before, SetActiveUser(user_id), before)


def test_a_user_of_whom_there_is_nothing_leaves_the_store() -> None:
    expect(state(active_user="bob"), SetActiveUser(None), state(), DropPartition(BOB, frozenset(), ends=True))


def test_what_is_fetched_for_a_user_who_left_is_told_and_stored_nowhere() -> None:
    before = state(flight(owner=ALICE), active_user="alice")
    after, effects = run(before, SetActiveUser("bob"), FetchSucceeded(1, "alice's", 0.0))

    assert effects == (Settle(1, ALICE, "feed", "alice's"),)
    assert after == state(active_user="bob")


# With a session

# active user, user of the view, owners who go
ENDED = [
    ("bob", None, (SESSION_OWNER, BOB)),
    (None, None, (SESSION_OWNER,)),
    ("bob", "alice", (ALICES_SESSION, ALICE)),
    (None, "alice", (ALICES_SESSION, ALICE)),
    ("bob", "bob", (BOBS_SESSION, BOB)),
]


@pytest.mark.parametrize(("active_user", "viewer", "owners"), ENDED)
def test_a_session_ends_with_its_user(active_user: str | None, viewer: str | None, owners: tuple[Owner, ...]) -> None:
    """The end of a view's session signs nobody out of the cache itself."""
    expect(
        everywhere(active_user=active_user),
        EndSession(viewer),
        everywhere(*owners, active_user=None if viewer is None else active_user),
        *(dropped(owner, ends=True) for owner in owners),
        logged("end_session", *owners),
    )


def test_a_session_of_which_there_is_nothing_ends_in_the_store() -> None:
    expect(state(), EndSession(), state(), DropPartition(SESSION_OWNER, frozenset(), ends=True))
    expect(
        state(active_user="bob"),
        EndSession(),
        state(),
        DropPartition(SESSION_OWNER, frozenset(), ends=True),
        DropPartition(BOB, frozenset(), ends=True),
    )


# By scope

# scope, user of the view, owners who go
CLEARED = [
    (GLOBAL, None, (GLOBAL_OWNER,)),
    (GLOBAL, "alice", (GLOBAL_OWNER,)),
    (SESSION, None, (SESSION_OWNER, ALICES_SESSION, BOBS_SESSION)),
    (SESSION, "alice", (ALICES_SESSION,)),
    (USER, None, (ALICE, BOB)),
    (USER, "alice", (ALICE,)),
]


@pytest.mark.parametrize(("scope", "viewer", "owners"), CLEARED)
def test_a_scope_is_cleared(scope: CacheScope, viewer: str | None, owners: tuple[Owner, ...]) -> None:
    """For everyone; by a view, for its user."""
    after, effects = reduce(everywhere(), ClearScope(scope, viewer))
    *drops, log = effects

    assert after == everywhere(*owners)
    assert set(drops) == {dropped(owner, ends=False) for owner in owners}
    assert len(drops) == len(owners)
    assert isinstance(log, LogScopeCleared)
    assert log.reason == f"clear_scope:{scope.value}"
    assert log.keys == frozenset(itertools.product(owners, ("feed", "me")))


@pytest.mark.parametrize(
    ("scope", "viewer", "active_user", "owners"),
    [
        (GLOBAL, None, None, (GLOBAL_OWNER,)),
        (SESSION, None, "bob", (SESSION_OWNER,)),
        (SESSION, "alice", "bob", (ALICES_SESSION,)),
        (USER, None, "bob", (BOB,)),
        (USER, None, None, ()),
        (USER, "alice", None, (ALICE,)),
    ],
)
def test_a_scope_of_which_memory_holds_nothing_is_cleared_in_the_store(
    scope: CacheScope,
    viewer: str | None,
    active_user: str | None,
    owners: tuple[Owner, ...],
) -> None:
    before = state(active_user=active_user)
    expect(
        before, ClearScope(scope, viewer), before, *(DropPartition(owner, frozenset(), ends=False) for owner in owners)
    )


def test_the_callers_own_partition_of_a_scope_is_cleared_beside_others() -> None:
    expect(
        state(entries={(ALICE, "feed"): entry()}, active_user="bob"),
        ClearScope(USER),
        state(active_user="bob"),
        DropPartition(ALICE, frozenset({"feed"}), ends=False),
        DropPartition(BOB, frozenset(), ends=False),
        LogScopeCleared("clear_scope:user", frozenset({(ALICE, "feed")})),
    )


# One by one


def test_an_entry_is_evicted() -> None:
    there: Any = {"failures": {"feed": failed()}}
    expect(
        state(flight(), entries={"feed": entry(), "me": entry(), (ALICE, "feed"): entry()}, **there),
        Evict(GLOBAL_OWNER, "feed"),
        state(flight(), entries={"me": entry(), (ALICE, "feed"): entry()}, **there),
        LogEvict(GLOBAL_OWNER, "feed"),
    )


def test_the_last_entry_takes_its_partition_along() -> None:
    expect(state(entries={(ALICE, "feed"): entry()}), Evict(ALICE, "feed"), state(), LogEvict(ALICE, "feed"))


def test_an_eviction_does_not_stop_what_is_under_way() -> None:
    after, _ = run(
        state(flight(ttl_s=60.0), entries={"feed": entry("older")}),
        Evict(GLOBAL_OWNER, "feed"),
        FetchSucceeded(1, "news", 0.0),
    )
    assert after == state(entries={"feed": entry()})


def test_a_failure_is_forgotten() -> None:
    there: Any = {"entries": {"feed": entry()}}
    expect(
        state(flight(), failures={"feed": failed(), "me": failed(), (ALICE, "feed"): failed()}, **there),
        Forget(GLOBAL_OWNER, "feed"),
        state(flight(), failures={"me": failed(), (ALICE, "feed"): failed()}, **there),
    )


def test_the_last_failure_takes_its_partition_along() -> None:
    expect(state(failures={(ALICE, "feed"): failed()}), Forget(ALICE, "feed"), state())


@pytest.mark.parametrize(
    "command", [Evict(ALICE, "feed"), Evict(GLOBAL_OWNER, "me"), Forget(ALICE, "me"), Forget(GLOBAL_OWNER, "feed")]
)
def test_what_is_not_there_does_not_go(command: Any) -> None:
    before = state(entries={"feed": entry()}, failures={"me": failed()})
    expect(before, command, before)
