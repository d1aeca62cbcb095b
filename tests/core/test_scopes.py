"""Who owns an entry, and who sees it."""

from __future__ import annotations

import itertools

import pytest

from cachemesh.core import (
    GLOBAL_OWNER,
    SESSION_OWNER,
    CacheScope,
    Get,
    Invalidate,
    Owner,
    Refresh,
    Refusal,
    Refuse,
    StartFetch,
)
from cachemesh.core.scopes import owner_of, visible_owners
from tests.core.rows import ALICE, BOB, expect, run, state

GLOBAL, SESSION, USER = CacheScope.GLOBAL, CacheScope.SESSION, CacheScope.USER
ALICES_SESSION: Owner = (SESSION, "alice")

# scope, active user, user of the view, owner
OWNERS = [
    (GLOBAL, None, None, GLOBAL_OWNER),
    (GLOBAL, "bob", None, GLOBAL_OWNER),
    (GLOBAL, None, "alice", GLOBAL_OWNER),
    (GLOBAL, "bob", "alice", GLOBAL_OWNER),
    (SESSION, None, None, SESSION_OWNER),
    (SESSION, "bob", None, SESSION_OWNER),
    (SESSION, None, "alice", ALICES_SESSION),
    (SESSION, "bob", "alice", ALICES_SESSION),
    (USER, None, None, None),
    (USER, "bob", None, BOB),
    (USER, None, "alice", ALICE),
    (USER, "bob", "alice", ALICE),
]


@pytest.mark.parametrize(("scope", "active_user", "viewer", "owner"), OWNERS)
def test_a_scope_names_an_owner(
    scope: CacheScope, active_user: str | None, viewer: str | None, owner: Owner | None
) -> None:
    assert owner_of(scope, active_user, viewer) == owner


@pytest.mark.parametrize(("scope", "active_user", "viewer", "owner"), OWNERS)
def test_whoever_asks_in_a_scope_fetches_for_its_owner(
    scope: CacheScope,
    active_user: str | None,
    viewer: str | None,
    owner: Owner | None,
) -> None:
    before = state(active_user=active_user)
    asks = Get("feed", 0.0, 1, scope=scope, viewer=viewer), Refresh("feed", 0.0, 1, scope=scope, viewer=viewer)

    for ask in asks:
        if owner is None:
            expect(before, ask, before, Refuse(Refusal.NO_ACTIVE_USER))
        else:
            _, effects = run(before, ask)
            assert isinstance(effects[0], StartFetch)
            assert effects[0].owner == owner


@pytest.mark.parametrize(
    ("scope", "active_user", "viewer", "owners"),
    [
        (None, None, None, (SESSION_OWNER, GLOBAL_OWNER)),
        (None, "bob", None, (BOB, SESSION_OWNER, GLOBAL_OWNER)),
        (None, None, "alice", (ALICE, ALICES_SESSION, GLOBAL_OWNER)),
        (None, "bob", "alice", (ALICE, ALICES_SESSION, GLOBAL_OWNER)),
        (USER, None, None, ()),
        (USER, "bob", None, (BOB,)),
        (SESSION, "bob", "alice", (ALICES_SESSION,)),
        (GLOBAL, "bob", "alice", (GLOBAL_OWNER,)),
    ],
)
def test_a_read_looks_at_the_narrowest_scope_first(
    scope: CacheScope | None,
    active_user: str | None,
    viewer: str | None,
    owners: tuple[Owner, ...],
) -> None:
    assert visible_owners(scope, active_user, viewer) == owners


def test_no_two_users_meet_in_one_owner() -> None:
    """Whatever their ids look like."""
    ids = ["", "alice", "alice:session", "global", "('user', 'alice')", None]
    named = [owner_of(scope, None, viewer) for scope, viewer in itertools.product(CacheScope, ids)]
    expected = 1 + len(ids) + (len(ids) - 1)

    assert len({owner for owner in named if owner is not None}) == expected


def test_an_empty_id_is_a_user_too() -> None:
    assert owner_of(USER, "", None) == (USER, "")
    assert owner_of(USER, "bob", "") == (USER, "")
    assert owner_of(SESSION, None, "") == (SESSION, "")


def test_whoever_sees_nothing_removes_nothing() -> None:
    expect(state(), Invalidate("feed", USER), state())
