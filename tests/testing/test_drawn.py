"""What the strategies for policies, lifetimes and traces draw is what users may write."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from cachemesh import CachePolicy, Lifetime, SyncCache
from cachemesh.core import BUILT_IN
from cachemesh.testing import strategies

if TYPE_CHECKING:
    from cachemesh.simulation import Request

FEW = settings(max_examples=50, deadline=None)


@FEW
@given(strategies.lifetimes())
def test_a_cache_takes_every_lifetime_that_is_drawn(lifetime: Lifetime) -> None:
    with SyncCache(default_ttl=lifetime) as cache:
        cache.put("k", 1)
        assert Lifetime.model_validate(lifetime.model_dump()) == lifetime


@FEW
@given(strategies.traces(max_size=20, max_gap_s=5.0))
def test_a_trace_never_goes_back_and_keeps_its_bounds(trace: list[Request]) -> None:
    assert len(trace) <= 20
    instants = [0.0, *(request.at for request in trace)]
    assert all(0.0 <= later - earlier <= 5.0 + 1e-9 for earlier, later in itertools.pairwise(instants))
    assert all(request.size >= 1 for request in trace)


def test_a_trace_may_ask_for_the_same_key_again_at_once() -> None:
    found = find(
        strategies.traces(),
        lambda trace: len(trace) > 1 and trace[0].key == trace[1].key and trace[0].at == trace[1].at,
        settings=settings(max_examples=2000, database=None, phases=[Phase.generate]),
    )

    assert len(found) >= 2


@given(st.data())
def test_a_policy_is_a_built_in_one_or_any_other_row(data: st.DataObject) -> None:
    policy = data.draw(strategies.policies())

    assert isinstance(policy, CachePolicy)
    assert policy in BUILT_IN or policy.name == "custom"
