"""Cases that a mutation run asked for: what else may be confused with what is right."""

from __future__ import annotations

from typing import Any

import pytest

from cachemesh.core import (
    CacheScope,
    FetchFailed,
    Get,
    Join,
    Lifespan,
    MarkTag,
    Refusal,
    Refuse,
    Save,
    Settle,
    StartFetch,
    Touch,
    Update,
    reduce,
)
from cachemesh.core.lifetimes import made, renewed, rescues
from tests.core.rows import ALICE, flight, run, state

SPAN = Lifespan(stale_if_error_s=0.5)
USER = CacheScope.USER


def test_a_lifespan_leaves_the_validator() -> None:
    terms = made("news", 0.0, 60.0, 1, lifespan=SPAN, validator="v1").terms

    assert terms is not None
    assert terms.validator == "v1"


def test_what_is_renewed_lives_from_now_on_and_is_as_old_as_it_was() -> None:
    anew = renewed(made("news", 5.0, 60.0, 1), 100.0, 60.0, None, 2, 0.0)

    assert (anew.created_at, anew.ttl_s, anew.expires_at) == (5.0, 155.0, 160.0)


@pytest.mark.parametrize(("now", "may"), [(60.0, True), (60.4, True), (60.5, False)])
def test_a_window_may_be_shorter_than_a_second(now: float, may: bool) -> None:
    entry = made("news", 0.0, 60.0, 1, lifespan=SPAN)

    assert rescues(entry, now, state(), ALICE) is may


@pytest.mark.parametrize(
    "command",
    [
        Touch("feed", 10.0, 5, USER),
        Update("feed", "news", "newer", 10.0, 5, USER),
    ],
)
def test_the_user_scope_is_that_of_the_active_user(command: Any) -> None:
    before = state(entries={(ALICE, "feed"): made("news", 0.0, 60.0, 1)}, active_user="alice")
    _, effects = reduce(before, command)

    assert [(type(effect), effect.owner) for effect in effects if isinstance(effect, Save)] == [(Save, ALICE)]


def test_a_mark_of_one_user_is_heeded_where_it_is_hers() -> None:
    tagged = made("news", 0.0, 60.0, 1, lifespan=Lifespan(stale_if_error_s=600.0), tags=("feed",))
    marked, _ = run(
        state(flight(2, "feed", ALICE, tags=("feed",)), entries={(ALICE, "feed"): tagged}),
        MarkTag("feed", 10.0, 3, viewer="alice"),
    )

    assert reduce(marked, Touch("feed", 11.0, 4, USER, "alice"))[1] == (Refuse(Refusal.MISS),)
    started, joined = reduce(marked, Get("feed", 11.0, 5, scope=USER, viewer="alice", tags=("feed",)))[1]
    assert isinstance(started, StartFetch)
    assert joined == Join(5)
    told = [each for each in reduce(marked, FetchFailed(2, "down", 12.0))[1] if isinstance(each, Settle)]
    assert [each.rescue for each in told] == [None]
