"""The rules of reconnecting, without a network: rows of "phase, event, next phase, orders", and laws."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemesh.sources import FailureKind, NetworkFailure, Phase, ReconnectOptions
from cachemesh.sources.backoff import Waits
from cachemesh.sources.websocket import link
from cachemesh.sources.websocket.link import (
    Begun,
    Connect,
    Finish,
    Left,
    Link,
    Listen,
    Lost,
    Opened,
    Rest,
    Rested,
    Rules,
    Tell,
    step,
)

DOWN = NetworkFailure(kind=FailureKind.NETWORK, message="down")
RULES = Rules(Waits(1.0, 2.0, 30.0, "none"), max_losses=None, steady_s=5.0)


def lost(*, now: float = 0.0, is_final: bool = False, failure: NetworkFailure = DOWN, chance: float = 0.5) -> Lost:
    return Lost(failure, is_final, now, chance)


@pytest.mark.parametrize(
    ("before", "event", "after", "orders"),
    [
        (Link(), Begun(), Link(Phase.CONNECTING), (Connect(),)),
        (Link(), Left(), Link(Phase.CLOSED), (Finish(),)),
        (Link(Phase.CONNECTING, 2, 2.0), Opened(9.0), Link(Phase.UP, 2, 2.0, 9.0), (Listen(),)),
        (Link(Phase.CONNECTING), lost(), Link(Phase.WAITING, 1, 1.0), (Tell(DOWN), Rest(1.0))),
        (Link(Phase.CONNECTING, 3, 4.0), lost(), Link(Phase.WAITING, 4, 8.0), (Tell(DOWN), Rest(8.0))),
        (Link(Phase.CONNECTING, 3), lost(is_final=True), Link(Phase.GIVEN_UP, 4), (Tell(DOWN), Finish())),
        (Link(Phase.CONNECTING), Left(), Link(Phase.CLOSED), (Finish(),)),
        # It fell before it had stood for 5 s: the row goes on.
        (Link(Phase.UP, 2, 2.0, 10.0), lost(now=14.9), Link(Phase.WAITING, 3, 4.0), (Tell(DOWN), Rest(4.0))),
        # It had stood: a new row begins.
        (Link(Phase.UP, 2, 2.0, 10.0), lost(now=15.0), Link(Phase.WAITING, 1, 1.0), (Tell(DOWN), Rest(1.0))),
        (Link(Phase.UP), Left(), Link(Phase.CLOSED), (Finish(),)),
        (Link(Phase.WAITING, 2, 2.0), Rested(), Link(Phase.CONNECTING, 2, 2.0), (Connect(),)),
        (Link(Phase.WAITING, 2), Left(), Link(Phase.CLOSED, 2), (Finish(),)),
        (Link(Phase.GIVEN_UP, 2), Left(), Link(Phase.CLOSED, 2), (Finish(),)),
    ],
)
def test_what_follows(before: Link, event: link.Event, after: Link, orders: link.Orders) -> None:
    assert step(before, event, RULES) == (after, orders)


EVENTS: tuple[link.Event, ...] = (Begun(), Opened(1.0), lost(), Rested(), Left())


def test_all_events_are_tried_below() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(link.Event))


@pytest.mark.parametrize(("phase", "event"), list(itertools.product(Phase, EVENTS)))
def test_an_event_without_a_row_changes_nothing(phase: Phase, event: link.Event) -> None:
    before = Link(phase, 3, 4.0, 1.0)
    after, orders = step(before, event, RULES)

    if (phase, type(event)) in link.TABLE:
        assert after.phase is not phase
        assert orders
    else:
        assert after is before
        assert orders == ()


def test_b34_the_backoff_is_not_reset_by_an_accepted_upgrade() -> None:
    """A server that accepts and drops at once is called after 1, 2, 4, 8, ... seconds."""
    at, state, rests = 0.0, step(Link(), Begun(), RULES)[0], []
    for _ in range(8):
        state, _ = step(state, Opened(at), RULES)
        state, orders = step(state, lost(now=at + 0.1), RULES)
        rest = orders[-1]
        assert isinstance(rest, Rest)
        rests.append(rest.delay_s)
        at += rest.delay_s
        state, _ = step(state, Rested(), RULES)

    assert rests == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_retry_after_is_waited_for() -> None:
    _, orders = step(Link(Phase.CONNECTING), lost(failure=NetworkFailure.of_status(503, retry_after=120)), RULES)

    assert orders[-1] == Rest(120.0)


events = st.one_of(
    st.builds(Begun),
    st.builds(Opened, st.floats(0, 1e6)),
    st.builds(Lost, st.just(DOWN), st.booleans(), st.floats(0, 1e6), st.floats(0, 1)),
    st.builds(Rested),
    st.builds(Left),
)
waits = st.builds(
    Waits, st.floats(0, 10), st.floats(1, 4), st.floats(0, 60), st.sampled_from(["none", "full", "decorrelated"])
)
rules = st.builds(Rules, waits, st.none() | st.integers(1, 4), st.floats(0, 100))


@given(st.lists(events, max_size=40), rules)
def test_laws_of_any_history(history: list[link.Event], rule: Rules) -> None:
    """One loss is one failure and one step; delays are bounded; after the end comes nothing."""
    state = Link()
    for event in history:
        before = state
        state, orders = step(before, event, rule)
        told = [order for order in orders if isinstance(order, Tell)]
        if isinstance(event, Lost) and before.phase in {Phase.CONNECTING, Phase.UP}:
            assert len(told) == 1
            assert state.losses in {before.losses + 1, 1}
        else:
            assert told == []
            assert state.losses == before.losses
        for order in orders:
            if isinstance(order, Rest):
                assert 0.0 <= order.delay_s <= rule.waits.longest_s
        if rule.max_losses is not None:
            assert state.losses <= rule.max_losses
            assert state.phase is Phase.GIVEN_UP or state.phase is Phase.CLOSED or state.losses < rule.max_losses
        if before.phase is Phase.CLOSED:
            assert state is before
        assert (Finish() in orders) == (state.phase in {Phase.GIVEN_UP, Phase.CLOSED} and state is not before)


@given(rules, st.lists(st.floats(0, 1), min_size=10, max_size=10))
def test_b34_a_dead_host_is_given_up_after_max_attempts(rule: Rules, chances: list[float]) -> None:
    state, orders = step(Link(), Begun(), rule)
    attempts = 0
    for chance in chances:
        if orders[-1] == Finish():
            break
        attempts += 1
        state, orders = step(state, lost(chance=chance), rule)
        if orders[-1] != Finish():
            state, orders = step(state, Rested(), rule)

    assert attempts == (10 if rule.max_losses is None else rule.max_losses)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"max_attempts": True},
        {"delay": -1},
        {"delay": "soon"},
        {"factor": 0.5},
        {"jitter": "some"},
        {"steady_after": -1},
        {"max_delay": float("nan")},
        {"delays": 1},
    ],
)
def test_bad_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="ReconnectOptions"):
        ReconnectOptions(**wrong)


def test_options_are_the_rules() -> None:
    options = ReconnectOptions(delay="500ms", factor=3, max_delay=None, jitter="none", steady_after=0, max_attempts=7)

    assert options.rules == Rules(Waits(0.5, 3.0, 31_557_600.0, "none"), 7, 0.0)
