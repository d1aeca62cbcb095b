"""A policy of one's own, and a machine that looks for whatever breaks its promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from cachemesh import Action, AfterFailure, CachePolicy
from cachemesh.core import Get, Lifespan, StartFetch
from cachemesh.testing import policy_machine, strategies

if TYPE_CHECKING:
    from cachemesh.testing.observed import Observed
    from cachemesh.testing.strategies import Moment

HOARDER = CachePolicy("hoarder", stale=Action.SERVE, after_failure=AfterFailure.SERVE_STALE)


def never_refuses_what_it_has(seen: Observed) -> bool:
    """Whoever asks for what is in memory is answered at once."""
    command, before = seen.moment.command, seen.moment.before
    if not isinstance(command, Get) or command.scope != "global":
        return True
    partition = before.partitions.get(("global", None))  # type: ignore[arg-type]  # A scope is a str.
    there = partition is not None and command.key in partition.entries
    return not there or bool(seen.given)


TestHoarder = policy_machine(HOARDER, invariants=[never_refuses_what_it_has]).TestCase
TestHoarder.settings = settings(max_examples=30, deadline=None)

# With windows its answers have an age that is bounded: by the ttl and the wider window.
BOUNDED = policy_machine(HOARDER, ttl_s=60.0, lifespan=Lifespan(serve_stale_s=30.0, stale_if_error_s=300.0))
TestBoundedHoarder = BOUNDED.TestCase
TestBoundedHoarder.settings = settings(max_examples=30, deadline=None)


@settings(max_examples=50, deadline=None)
@given(strategies.histories(st.just(CachePolicy("miser", missing=Action.REFUSE, stale=Action.SERVE))))
def test_a_miser_never_fetches(history: tuple[Moment, ...]) -> None:
    for moment in history:
        assert not (isinstance(moment.command, Get) and moment.listed(StartFetch))
