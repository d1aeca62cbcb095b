"""The policy table, in all its cases."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from msgspec.structs import asdict, replace

from cachemesh.core import (
    BUILT_IN,
    GLOBAL_OWNER,
    Action,
    AfterFailure,
    CachePolicy,
    FlightKind,
    Freshness,
    Get,
    Join,
    Load,
    RefreshSource,
    Refusal,
    Refuse,
    Reply,
    StartFetch,
    policies,
    reduce,
)
from cachemesh.core.lifetimes import verdict
from cachemesh.core.policies import SERVING
from tests.core.rows import entry, failed, flight, state

NOW = 10.0
ENTRIES = {"missing": {}, "fresh": {"feed": entry(ttl_s=60.0)}, "stale": {"feed": entry(ttl_s=NOW)}}
FAILURES = {"failed": {"feed": failed()}, "-": {}}

CASES = list(
    itertools.product(
        [policy.name for policy in BUILT_IN],
        ["missing", "fresh", "stale"],
        ["failed", "-"],
        ["heeds", "-"],
        ["always", "-"],
        ["unasked", "asked", "no store"],
    ),
)

# What a Get leads to. "|" is or, "*" is whatever.
TABLE = """
    policy                  entry        failure  heed_failures  always_revalidate  store           : leads to
    cache_first             missing      *        *              *                  unasked         : load
    cache_first             missing      failed   heeds          *                  asked|no store  : failure
    cache_first             missing      failed   -              *                  asked|no store  : fetch for a miss
    cache_first             missing      -        *              *                  asked|no store  : fetch for a miss
    cache_first             fresh        *        *              *                  *               : entry
    cache_first             stale        failed   heeds          *                  *               : failure
    cache_first             stale        failed   -              *                  *               : fetch for a miss
    cache_first             stale        -        *              *                  *               : fetch for a miss
    network_first           missing      *        *              *                  unasked         : load, else entry
    network_first           missing      *        *              *                  asked|no store  : fetch, else entry
    network_first           fresh|stale  *        *              *                  *               : fetch, else entry
    stale_while_revalidate  missing      *        *              *                  unasked         : load
    stale_while_revalidate  missing      failed   heeds          *                  asked|no store  : failure
    stale_while_revalidate  missing      failed   -              *                  asked|no store  : fetch for a miss
    stale_while_revalidate  missing      -        *              *                  asked|no store  : fetch for a miss
    stale_while_revalidate  fresh        *        *              always             *               : entry and refresh
    stale_while_revalidate  fresh        *        *              -                  *               : entry
    stale_while_revalidate  stale        *        *              *                  *               : entry and refresh
    network_only            *            *        *              *                  *               : bypass
    cache_only              missing      *        *              *                  unasked         : load
    cache_only              missing      failed   heeds          *                  asked|no store  : failure
    cache_only              missing      failed   -              *                  asked|no store  : miss
    cache_only              missing      -        *              *                  asked|no store  : miss
    cache_only              fresh        *        *              *                  *               : entry
    cache_only              stale        failed   heeds          *                  *               : failure
    cache_only              stale        failed   -              *                  *               : expired
    cache_only              stale        -        *              *                  *               : expired
"""

OUTCOMES: dict[str, tuple[Any, ...]] = {
    "entry": (Reply(GLOBAL_OWNER, "feed", "news"),),
    "entry and refresh": (
        Reply(GLOBAL_OWNER, "feed", "news"),
        StartFetch(7, GLOBAL_OWNER, "feed", RefreshSource.BACKGROUND),
    ),
    "failure": (Reply(GLOBAL_OWNER, "feed", "down", hit=False),),
    "fetch for a miss": (StartFetch(7, GLOBAL_OWNER, "feed", RefreshSource.CACHE_MISS), Join(7)),
    "fetch, else entry": (StartFetch(7, GLOBAL_OWNER, "feed", RefreshSource.POLICY), Join(7, falls_back=True)),
    "bypass": (StartFetch(7, GLOBAL_OWNER, "feed", RefreshSource.POLICY), Join(7, reads=False)),
    "load": (Load(7, GLOBAL_OWNER, "feed"), Join(7)),
    "load, else entry": (Load(7, GLOBAL_OWNER, "feed"), Join(7, falls_back=True)),
    "miss": (Refuse(Refusal.MISS),),
    "expired": (Refuse(Refusal.EXPIRED),),
}

FLIGHTS = {
    "entry and refresh": flight(7, source=RefreshSource.BACKGROUND),
    "fetch for a miss": flight(7),
    "fetch, else entry": flight(7, source=RefreshSource.POLICY),
    "bypass": flight(7, kind=FlightKind.BYPASS, source=RefreshSource.POLICY),
    "load": flight(7, kind=FlightKind.LOAD),
    "load, else entry": flight(7, kind=FlightKind.LOAD),
}


def rows() -> list[tuple[list[str], str]]:
    header, *lines = TABLE.strip().splitlines()
    starts = [header.index(name) for name in header.split(" :")[0].split()]
    parsed = []
    for line in lines:
        cells, leads_to = line.strip().split(" : ")
        bounds = itertools.pairwise([*starts, len(cells)])
        parsed.append(([cells[start:end].strip() for start, end in bounds], leads_to))
    return parsed


def outcome(case: tuple[str, ...]) -> str:
    found = [leads_to for cells, leads_to in rows() if all(map(fits, cells, case))]
    assert len(found) == 1, f"{case} is in {len(found)} rows"
    return found[0]


def fits(cell: str, value: str) -> bool:
    return cell == "*" or value in cell.split("|")


def test_the_table_has_every_case_once_and_no_row_in_vain() -> None:
    assert len(CASES) == 5 * 3 * 2 * 2 * 2 * 3
    assert {outcome(case) for case in CASES} == set(OUTCOMES)
    for cells, _ in rows():
        assert any(all(map(fits, cells, case)) for case in CASES), cells


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_a_get_leads_to_what_its_row_says(case: tuple[str, ...]) -> None:
    name, freshness, failure, heeds, always, store = case
    there: Any = {"entries": ENTRIES[freshness], "failures": FAILURES[failure], "has_store": store != "no store"}
    before = state(**there)
    command = Get(
        "feed",
        NOW,
        flight_id=7,
        policy=by_name(name),
        heed_failures=heeds == "heeds",
        always_revalidate=always == "always",
        asked_store=store == "asked",
    )

    after, effects = reduce(before, command)

    expected = outcome(case)
    assert effects == OUTCOMES[expected]
    begun = FLIGHTS.get(expected)
    if begun is not None and begun.persist:
        begun = replace(begun, found_nothing=store == "asked" and freshness == "missing")
    assert after == (before if begun is None else state(begun, **there))
    assert (after is before) == (begun is None)


def by_name(name: str) -> CachePolicy:
    (found,) = (policy for policy in BUILT_IN if policy.name == name)
    return found


# A row


def test_the_docstring_prints_the_table() -> None:
    lines = [line for line in (policies.__doc__ or "").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    printed, lived = cells[: len(BUILT_IN) + 2], cells[len(BUILT_IN) + 2 :]

    assert printed[0] == ["policy", "missing", "fresh", "stale", "after a failed fetch", "heeds cached failures"]
    assert printed[2:] == [
        [row.name, row.missing, row.fresh, row.stale, row.after_failure, "yes" if row.heeds_failures else "no"]
        for row in BUILT_IN
    ]
    assert lived[0] == ["policy", "ageing", "grace", "expired"]
    assert lived[2:] == [
        [row.name, *(row.action(each) for each in (Freshness.AGEING, Freshness.GRACE, Freshness.EXPIRED))]
        for row in BUILT_IN
    ]


def test_the_five_policies_are_built_in() -> None:
    assert [policy.name for policy in BUILT_IN] == [
        "cache_first",
        "network_first",
        "stale_while_revalidate",
        "network_only",
        "cache_only",
    ]
    assert all(getattr(CachePolicy, policy.name.upper()) is policy for policy in BUILT_IN)


def test_a_row_of_nothing_but_a_name_is_cache_first() -> None:
    assert asdict(CachePolicy("mine")) == {**asdict(CachePolicy.CACHE_FIRST), "name": "mine"}
    assert Get("feed", NOW, 1).policy is CachePolicy.CACHE_FIRST


LEGAL = [action for action in Action if action not in {Action.SERVE, Action.SERVE_AND_REFRESH}]


@pytest.mark.parametrize(
    ("missing", "fresh", "stale", "always"), list(itertools.product(LEGAL, Action, Action, [True, False]))
)
def test_a_cell_is_what_its_row_says(missing: Action, fresh: Action, stale: Action, always: bool) -> None:
    """But for always_revalidate, which widens the refresh of a stale entry to a fresh one that would be served."""
    policy = CachePolicy("any", missing, fresh, stale)
    widened = always and (fresh, stale) == (Action.SERVE, Action.SERVE_AND_REFRESH)

    assert policy.action(Freshness.MISSING, always_revalidate=always) is missing
    assert policy.action(Freshness.STALE, always_revalidate=always) is stale
    assert policy.action(Freshness.FRESH, always_revalidate=always) is (Action.SERVE_AND_REFRESH if widened else fresh)
    assert policy.action(Freshness.FRESH) is fresh


@pytest.mark.parametrize(
    ("missing", "fresh", "stale", "always"), list(itertools.product(LEGAL, Action, Action, [True, False]))
)
def test_the_states_of_a_lifespan_follow_from_the_row(
    missing: Action, fresh: Action, stale: Action, always: bool
) -> None:
    """Who fetches what is missing and serves what is fresh refreshes in time; what has expired counts as missing."""
    policy = CachePolicy("any", missing, fresh, stale)
    refreshes = missing is Action.FETCH and fresh in SERVING

    assert policy.action(Freshness.AGEING, always_revalidate=always) is (
        Action.SERVE_AND_REFRESH if refreshes else fresh
    )
    assert policy.action(Freshness.GRACE, always_revalidate=always) is (
        Action.SERVE_AND_REFRESH if refreshes else stale
    )
    assert policy.action(Freshness.EXPIRED, always_revalidate=always) is missing


@pytest.mark.parametrize("action", [Action.SERVE, Action.SERVE_AND_REFRESH])
def test_nothing_is_served_where_an_entry_is_missing(action: Action) -> None:
    with pytest.raises(ValueError, match=r"^odd: there is nothing to serve where an entry is missing$"):
        CachePolicy("odd", missing=action)


# Rows of somebody else


@pytest.mark.parametrize(("freshness", "fresh", "stale"), list(itertools.product(["fresh", "stale"], Action, Action)))
def test_a_custom_row_leads_to_what_it_says(freshness: str, fresh: Action, stale: Action) -> None:
    policy = CachePolicy("custom", fresh=fresh, stale=stale)
    source = RefreshSource.POLICY if fresh is Action.FETCH else RefreshSource.CACHE_MISS
    expected = {
        Action.SERVE: OUTCOMES["entry"],
        Action.SERVE_AND_REFRESH: OUTCOMES["entry and refresh"],
        Action.FETCH: (StartFetch(7, GLOBAL_OWNER, "feed", source), Join(7)),
        Action.BYPASS: OUTCOMES["bypass"],
        Action.REFUSE: OUTCOMES["expired"],
    }

    _, effects = reduce(state(entries=ENTRIES[freshness]), Get("feed", NOW, 7, policy=policy))

    assert effects == expected[fresh if freshness == "fresh" else stale]


@pytest.mark.parametrize("heeds", [True, False])
@pytest.mark.parametrize("after_failure", AfterFailure)
def test_a_custom_row_may_heed_failures_and_fall_back(heeds: bool, after_failure: AfterFailure) -> None:
    policy = CachePolicy("custom", heeds_failures=heeds, after_failure=after_failure)
    falls_back = after_failure is AfterFailure.SERVE_STALE
    fetched = (StartFetch(7, GLOBAL_OWNER, "feed", RefreshSource.CACHE_MISS), Join(7, falls_back))

    _, effects = reduce(state(failures=FAILURES["failed"]), Get("feed", NOW, 7, policy=policy))

    assert effects == (OUTCOMES["failure"] if heeds else fetched)


def test_a_row_that_passes_the_cache_by_asks_no_store() -> None:
    policy = CachePolicy("custom", missing=Action.BYPASS)

    _, effects = reduce(state(has_store=True), Get("feed", NOW, 7, policy=policy))

    assert effects == OUTCOMES["bypass"]


def test_the_freshness_of_the_table_is_that_of_the_entries() -> None:
    assert {name: verdict(each.get("feed"), NOW) for name, each in ENTRIES.items()} == {
        "missing": Freshness.MISSING,
        "fresh": Freshness.FRESH,
        "stale": Freshness.STALE,
    }


@pytest.mark.parametrize("cell", [{"missing": "fetch"}, {"fresh": "serve"}, {"stale": 1}, {"after_failure": "fail"}])
def test_a_row_takes_no_cell_that_only_looks_like_one(cell: Any) -> None:
    """The reducers compare by identity: "serve" would be no `Action.SERVE`."""
    with pytest.raises(ValueError, match="Actions, and an AfterFailure"):
        CachePolicy("almost", **cell)
