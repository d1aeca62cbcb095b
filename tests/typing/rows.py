"""The types of a policy of one's own and of what the pure core answers, for mypy. None of this is ever run."""

from __future__ import annotations

from typing import assert_type

from cachemesh import Action, AfterFailure, CachePolicy, Freshness, RetryOptions
from cachemesh.core import (
    Effects,
    FetchSucceeded,
    Get,
    Reply,
    Settle,
    State,
    reduce,
)
from tests.typing.fetchers import User


def a_row_is_made_of_actions() -> None:
    row = CachePolicy("hoarder", stale=Action.SERVE, after_failure=AfterFailure.SERVE_STALE)
    assert_type(row.action(Freshness.STALE), Action)
    CachePolicy("typo", stale="serve")  # type: ignore[arg-type]
    CachePolicy("typo", after_failure=Action.SERVE)  # type: ignore[arg-type]
    CachePolicy(stale=Action.SERVE)  # type: ignore[call-arg]
    row.stale = Action.FETCH  # type: ignore[misc]


def the_core_keeps_the_type_of_an_answer(state: State[User]) -> None:
    after, effects = reduce(state, Get("me", now=0.0, flight_id=1))
    assert_type(after, State[User])
    assert_type(effects, Effects[User])
    for effect in effects:
        if isinstance(effect, Reply | Settle):
            assert_type(effect.answer, User)
    reduce(state, FetchSucceeded(1, User("Ada"), now=1.0))
    reduce(state, FetchSucceeded(1, "Ada", now=1.0))  # type: ignore[misc]
    reduce(state, "get me")  # type: ignore[arg-type]
    after.active_user = "ada"  # type: ignore[misc]


def a_setting_has_a_type() -> None:
    RetryOptions(max_attempts=3, delay=0.5, retry_when=lambda error: isinstance(error, OSError))
    RetryOptions(max_attempts="3")  # type: ignore[arg-type]
    RetryOptions(attempts=3)  # type: ignore[call-arg]
