"""`policy_machine` lets every policy pass that keeps its row, and finds each promise that is broken."""

from __future__ import annotations

import itertools
import unittest
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from msgspec.structs import replace

from cachemesh import Action, AfterFailure, CachePolicy
from cachemesh.core import (
    BUILT_IN,
    CacheScope,
    Clear,
    ClearScope,
    EndSession,
    Entry,
    FetchSucceeded,
    Get,
    Invalidate,
    InvalidatePrefix,
    Join,
    Lifespan,
    Partition,
    Reply,
    Retry,
    Save,
    StartFetch,
    reduce,
)
from cachemesh.core.policies import SERVING
from cachemesh.core.scopes import owner_of
from cachemesh.testing import policy_machine, strategies
from cachemesh.testing.machine import longest_age_s
from tests.stores.sizes import tries

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachemesh.testing.observed import Observed

WINDOWS = Lifespan(serve_stale_s=30.0, stale_if_error_s=120.0, refresh_ahead=0.5, jitter=0.5)

PASSING = settings(max_examples=tries(15), stateful_step_count=25, deadline=None, database=None, derandomize=True)

SEEKING = settings(
    max_examples=3000,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=True,
    print_blob=False,
    phases=[Phase.generate],
)
"""Long enough to find what is broken; nobody reads it, so it need not be small."""


@pytest.mark.parametrize("lifespan", [None, WINDOWS], ids=["ttl", "windows"])
@pytest.mark.parametrize("policy", BUILT_IN, ids=lambda policy: policy.name)
def test_every_built_in_policy_keeps_its_row(policy: CachePolicy, lifespan: Lifespan | None) -> None:
    machine = policy_machine(policy, lifespan=lifespan, retry=Retry(max_attempts=2, delay_s=1.0))

    run_state_machine_as_test(machine, settings=PASSING)


def rows() -> list[CachePolicy]:
    """All rows that may be written."""
    fetches = [action for action in Action if action not in SERVING]
    columns = itertools.product(fetches, Action, Action, AfterFailure, [True, False])
    return [CachePolicy("row", *each) for each in columns]


@pytest.mark.parametrize("lifespan", [None, WINDOWS], ids=["ttl", "windows"])
def test_so_does_any_other_row(lifespan: Lifespan | None) -> None:
    once = settings(PASSING, max_examples=1)
    for policy in rows()[:: 1 if tries(15) > 15 else 7]:
        run_state_machine_as_test(policy_machine(policy, lifespan=lifespan, always_revalidate=True), settings=once)


def test_it_is_a_test_case_for_pytest() -> None:
    case = policy_machine(CachePolicy.CACHE_ONLY).TestCase

    assert issubclass(case, unittest.TestCase)
    assert policy_machine(CachePolicy.CACHE_ONLY).__name__ == "PolicyMachine_cache_only"


@pytest.mark.parametrize(
    ("policy", "lifespan", "longest_s"),
    [
        (CachePolicy.CACHE_FIRST, None, 60.0),
        (CachePolicy.NETWORK_FIRST, None, float("inf")),
        (CachePolicy.STALE_WHILE_REVALIDATE, None, float("inf")),
        (CachePolicy.NETWORK_ONLY, None, 0.0),
        (CachePolicy.CACHE_ONLY, None, 60.0),
        (CachePolicy.CACHE_FIRST, WINDOWS, 180.0),
        (CachePolicy.NETWORK_FIRST, WINDOWS, 180.0),
        (CachePolicy.NETWORK_ONLY, WINDOWS, 0.0),
        (CachePolicy.CACHE_ONLY, WINDOWS, 60.0),
        (CachePolicy.CACHE_FIRST, Lifespan(serve_stale_s=30.0), 90.0),
        (CachePolicy.CACHE_ONLY, Lifespan(serve_stale_s=30.0), 60.0),
        (CachePolicy("hoarder", stale=Action.SERVE), None, float("inf")),
    ],
)
def test_a_row_says_how_old_an_answer_may_be(policy: CachePolicy, lifespan: Lifespan | None, longest_s: float) -> None:
    assert longest_age_s(policy, 60.0, lifespan) == longest_s


# What it finds


def broken(monkeypatch: pytest.MonkeyPatch, reducer: Callable[[Any, Any], Any]) -> None:
    monkeypatch.setattr(strategies, "reduce", reducer)


def found(policy: CachePolicy = CachePolicy.CACHE_FIRST, **options: Any) -> str:
    """The first sentence of what it finds."""
    with pytest.raises(AssertionError) as failure:
        run_state_machine_as_test(policy_machine(policy, **options), settings=SEEKING)
    return str(failure.value)


def test_it_finds_a_value_that_is_too_old() -> None:
    told = found(CachePolicy.STALE_WHILE_REVALIDATE, max_age_s=90.0)

    assert told.startswith("a caller was given a value of ")
    assert told.endswith(": 90.0 s are allowed")


def test_it_finds_an_old_value_in_the_place_of_a_failure() -> None:
    patient = CachePolicy("patient", after_failure=AfterFailure.SERVE_STALE)

    assert found(patient, max_age_s=60.0).startswith("a caller was given a value of ")


def test_it_finds_an_invariant_of_ones_own_that_does_not_hold() -> None:
    def nobody_waits(seen: Observed) -> bool:
        return not seen.moment.listed(Join)

    assert found(invariants=[nobody_waits]).startswith("nobody_waits does not hold: Observed(")


def test_it_finds_one_that_raises() -> None:
    def at_most_one_failure(seen: Observed) -> None:
        failures = [given for each in (*seen.earlier, seen) for given in each.given if given.age_s is None]
        assert len(failures) < 2, "twice"

    assert found(invariants=[at_most_one_failure]).startswith("twice")


def test_it_finds_a_user_who_is_given_what_is_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    def asks_not_whose(state: Any, command: Any) -> Any:
        """Who asks for a key finds what some other user has under it."""
        if isinstance(command, Get) and command.scope is CacheScope.USER:
            mine = owner_of(command.scope, state.active_user, command.viewer)
            for owner, partition in state.partitions.items():
                if (
                    mine is not None
                    and owner[0] is CacheScope.USER
                    and owner != mine
                    and command.key in partition.entries
                ):
                    state = replace(state, partitions=state.partitions.insert(mine, partition))
                    break
        return reduce(state, command)

    broken(monkeypatch, asks_not_whose)

    assert found().startswith("who asked for ")


def test_it_finds_a_second_flight_of_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def joins_nobody(state: Any, command: Any) -> Any:
        if isinstance(command, Get):
            owner = owner_of(command.scope, state.active_user, command.viewer)
            partition = None if owner is None else state.partitions.get(owner)
            if owner is not None and partition is not None and command.key in partition.flights:
                alone = Partition(partition.entries, partition.failures, partition.flights.discard(command.key))
                state = replace(state, partitions=state.partitions.insert(owner, alone))
        return reduce(state, command)

    broken(monkeypatch, joins_nobody)

    assert " began while fetch " in found()


def test_it_finds_an_answer_that_is_stored_after_a_removal(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgets_the_fence(state: Any, command: Any) -> Any:
        """A removal drops the entry, and leaves the fetch under way to store its answer."""
        after, effects = reduce(state, command)
        if isinstance(command, Invalidate | InvalidatePrefix | Clear | ClearScope | EndSession):
            for owner, partition in state.partitions.items():
                kept: Partition[Any] = after.partitions.get(owner) or Partition()
                listed = Partition(kept.entries, kept.failures, partition.flights)
                if not listed.is_empty:
                    after = replace(after, partitions=after.partitions.insert(owner, listed))
        return after, effects

    broken(monkeypatch, forgets_the_fence)

    assert "which was removed after it began" in found()


def test_it_finds_an_entry_that_lives_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    def never_expires(state: Any, command: Any) -> Any:
        after, effects = reduce(state, command)
        for effect in effects:
            if isinstance(effect, Save) and isinstance(command, FetchSucceeded):
                partition: Any = after.partitions.get(effect.owner)
                entry: Entry[Any] = replace(effect.entry, expires_at=float("inf"))
                entries = partition.entries.insert(effect.key, entry)
                partitions = after.partitions.insert(effect.owner, replace(partition, entries=entries))
                after = replace(after, partitions=partitions)
        return after, effects

    broken(monkeypatch, never_expires)

    assert found().endswith(": 60.0 s are allowed")


def test_what_it_finds_can_be_read_back_step_by_step() -> None:
    """Hypothesis prints the steps as calls, the fewest that break it."""

    def never_served(seen: Observed) -> bool:
        return not (isinstance(seen.moment.command, Get) and seen.moment.listed(Reply))

    with pytest.raises(AssertionError) as failure:
        run_state_machine_as_test(
            policy_machine(CachePolicy.CACHE_FIRST, invariants=[never_served]),
            settings=settings(SEEKING, phases=[Phase.generate, Phase.shrink]),
        )
    steps = [line for note in failure.value.__notes__ for line in note.splitlines() if line.startswith("state.")]

    assert len(steps) <= 6, steps
    assert steps[-2].startswith("state.get(")
    assert steps[-1] == "state.teardown()"


def test_histories_from_the_outside_are_those_of_the_core() -> None:
    """A get that starts a fetch is answered when that has ended, and not before."""
    seen: list[Observed] = []
    run_state_machine_as_test(policy_machine(CachePolicy.CACHE_FIRST, invariants=[seen.append]), settings=PASSING)

    assert any(each.given for each in seen)
    for each in seen:
        if each.moment.listed(StartFetch, Join):
            assert not each.given


async def waits_for_nothing(seen: Observed) -> bool:
    return not seen.given


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_age_s": float("nan")}, "max_age_s"),
        ({"max_age_s": -1.0}, "max_age_s"),
        ({"ttl_s": float("nan")}, "ttl_s"),
        ({"invariants": ["never_old"]}, "an invariant is a function"),
        ({"invariants": [waits_for_nothing]}, "an invariant is a function"),
    ],
)
def test_a_promise_that_cannot_be_broken_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        policy_machine(CachePolicy.CACHE_FIRST, **options)
