"""What a get would lead to is what it then leads to, and nothing has changed for having asked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

from cachemesh.core import (
    GLOBAL_OWNER,
    Breaker,
    CachePolicy,
    CacheScope,
    FlightKind,
    Freshness,
    Get,
    Join,
    Lifespan,
    Load,
    Mark,
    Origin,
    Refusal,
    Refuse,
    Reply,
    StartFetch,
    State,
    reduce,
)
from cachemesh.core.carriers import Overlay, Table, persistent
from cachemesh.core.explain import Ending, Explanation, explain
from cachemesh.core.lifetimes import made
from cachemesh.shell.tables import LiveState
from cachemesh.testing.strategies import Happening, gets, happenings, play
from tests.core.rows import entry, failed, flight, law, state

NOW = 100.0
GITHUB = Origin("github")
OPEN: Any = {"github": Breaker(5, 130.0)}
OLD: Any = {"feed": entry(at=90.0, ttl_s=5.0)}
FRESH: Any = {"feed": entry(at=90.0, ttl_s=60.0)}
GRACE: Any = {"feed": made("news", 90.0, 5.0, 1, lifespan=Lifespan(60.0, 60.0))}
TAGGED: Any = {"feed": made("news", 90.0, 60.0, 1, tags=("a",))}

# what there is; what is asked; freshness, ending, age, refusal
EXPLAINED: list[tuple[State[str], dict[str, Any], tuple[Any, ...]]] = [
    (state(), {}, ("missing", "fetch", None, None)),
    (state(has_store=True), {}, ("missing", "load", None, None)),
    (state(flight()), {}, ("missing", "join", None, None)),
    (state(flight(kind=FlightKind.LOAD), has_store=True), {}, ("missing", "join", None, None)),
    (state(entries=FRESH), {}, ("fresh", "serve", 10.0, None)),
    (state(entries={"feed": entry(at=200.0)}), {}, ("fresh", "serve", 0.0, None)),
    (state(entries=OLD), {}, ("stale", "fetch", 10.0, None)),
    (state(entries=GRACE), {}, ("grace", "serve_and_refresh", 10.0, None)),
    (state(flight(), entries=GRACE), {}, ("grace", "serve", 10.0, None)),
    (state(failures={"feed": failed(at=90.0)}), {}, ("missing", "remembered_failure", None, None)),
    (
        state(entries=OLD, breakers=OPEN),
        {"origin": GITHUB, "policy": CachePolicy.NETWORK_FIRST},
        ("stale", "stand_in", 10.0, None),
    ),
    (state(breakers=OPEN), {"origin": GITHUB}, ("missing", "refuse", None, Refusal.CIRCUIT_OPEN)),
    (state(), {"scope": CacheScope.USER}, ("missing", "refuse", None, Refusal.NO_ACTIVE_USER)),
    (state(entries=TAGGED, marks={(None, "a"): Mark(5, NOW)}), {}, ("missing", "fetch", None, None)),
]


@pytest.mark.parametrize(("before", "options", "explained"), EXPLAINED)
def test_a_get_is_explained(before: State[str], options: dict[str, Any], explained: tuple[Any, ...]) -> None:
    freshness, ending, age_s, refusal = explained
    policy = options.get("policy", CachePolicy.CACHE_FIRST)
    owner = None if "scope" in options else GLOBAL_OWNER

    said = explain(before, Get("feed", NOW, 9, **options))

    assert said == Explanation("feed", owner, policy.name, Freshness(freshness), Ending(ending), age_s, refusal)
    because = "" if refusal is None else f" ({refusal.value})"
    assert said.why == f"{policy.name}: {freshness} -> {ending}{because}"


@pytest.mark.parametrize(
    "carrier", [lambda has_store: State(has_store=has_store), lambda has_store: LiveState.empty(has_store=has_store)]
)
@law(listed=happenings() | happenings(dense=True), asks=gets(), has_store=st.booleans())
def test_it_is_what_the_reducer_then_does(carrier: Any, listed: list[Happening], asks: Get, has_store: bool) -> None:
    history = play(listed, carrier(has_store))
    here: Any = history[-1].after if history else carrier(has_store)

    first, again = explain(here, asks), explain(here, asks)
    _, effects = reduce(here, asks)

    assert first == again
    kinds = {type(effect) for effect in effects}
    assert (
        kinds
        == {
            Ending.SERVE: {Reply},
            Ending.SERVE_AND_REFRESH: {Reply, StartFetch},
            Ending.STAND_IN: {Reply},
            Ending.REMEMBERED_FAILURE: {Reply},
            Ending.FETCH: {StartFetch, Join},
            Ending.JOIN: {Join},
            Ending.LOAD: {Load, Join},
            Ending.REFUSE: {Refuse},
        }[first.ending]
    )


# The carrier of a glance ahead

CHANGES = st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers()), max_size=12)


@law(CHANGES, CHANGES)
def test_an_overlay_is_a_map_and_leaves_what_is_below_as_it_is(below: Any, above: Any) -> None:
    bases: list[Any] = [persistent(), Table()]
    for base in bases:
        under = base
        for key, value in below:
            under = under.discard(key) if value is None else under.insert(key, value)
        snapshot = dict(under.items())
        expected, over = dict(snapshot), Overlay(under)
        for key, value in above:
            over = over.discard(key) if value is None else over.insert(key, value)
            if value is None:
                expected.pop(key, None)
            else:
                expected[key] = value

        assert dict(over.items()) == expected
        assert len(over) == len(expected)
        assert [over.get(key) for key in "abcd"] == [expected.get(key) for key in "abcd"]
        assert [key in over for key in "abcd"] == [key in expected for key in "abcd"]
        assert dict(under.items()) == snapshot


def test_an_overlay_has_no_more_than_there_is() -> None:
    table: Table[str, int] = Table()
    over = Overlay(table.insert("a", 1).insert("b", 2)).discard("a")

    assert (over["b"], over.get("a"), over.get("a", 7)) == (2, None, 7)
    with pytest.raises(KeyError, match="a"):
        over["a"]
