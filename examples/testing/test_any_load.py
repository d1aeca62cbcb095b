"""Whatever a log may hold, and whatever lifetime is asked for: what a cache promises on any load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings

from cachemesh import SyncCache
from cachemesh.testing import (
    ScriptedOrigin,
    VirtualClock,
    assert_never_stale_beyond,
    assert_never_two_at_once,
    strategies,
)

if TYPE_CHECKING:
    from cachemesh import Lifetime
    from cachemesh.simulation import Request


@settings(deadline=None, max_examples=30)
@given(strategies.traces(max_size=30), strategies.lifetimes())
def test_no_answer_is_older_than_its_lifetime(trace: list[Request], lifetime: Lifetime) -> None:
    clock = VirtualClock()
    origin = ScriptedOrigin(clock=clock)
    with SyncCache(clock=clock, default_ttl=lifetime) as cache:
        for request in trace:
            clock.advance_to(request.at)
            origin.seen(cache.get(request.key, origin.sync_fetcher(request.key)))

    assert_never_two_at_once(origin)
    if trace:
        longest_s = float("inf") if lifetime.ttl_s is None else lifetime.ttl_s + lifetime.lifespan.serve_stale_s
        assert_never_stale_beyond(longest_s + 1e-6, origin)
