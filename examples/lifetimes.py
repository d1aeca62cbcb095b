"""`Lifetime`: how long an answer is fresh, and what it is good for after that. Every window has an end."""

from __future__ import annotations

import random

from returns.result import Failure, Result, Success

from cachemesh import CachePolicy, Lifetime, SyncCache
from cachemesh.testing import VirtualClock


def through_an_outage() -> None:
    """Fresh for a minute; an hour of outage is bridged, and not a second more."""
    clock = VirtualClock()
    up_until = 120.0

    def rate() -> Result[str, str]:
        return Success(f"as of {clock():.0f} s") if clock() <= up_until else Failure("the origin is down")

    bridging = Lifetime(ttl="1m", stale_if_error_for="1h", refresh_backoff="30s")
    with SyncCache(clock=clock, default_ttl=bridging) as cache:
        assert cache.get("rate", rate) == Success("as of 0 s")
        clock.advance(120)
        assert cache.get("rate", rate) == Success("as of 120 s"), "the origin is up: what is stale is fetched anew"
        cache.get("unbounded", rate, ttl=60)

        clock.advance(60 + 3600 - 1)
        assert cache.get("rate", rate) == Success("as of 120 s"), "down: the old value, within its window"
        clock.advance(1)
        assert cache.get("rate", rate) == Failure("the origin is down"), "never older than ttl and window"
        clock.advance(1_000_000)
        unbounded = cache.get("unbounded", rate, policy=CachePolicy.NETWORK_FIRST)
        assert unbounded == Success("as of 120 s"), "a plain ttl sets no bound"


def apart() -> None:
    """Jitter: what was stored at the same time does not expire at the same time."""
    clock = VirtualClock()
    with SyncCache(clock=clock, rng=random.Random(7)) as cache:  # noqa: S311 (repeatable, not secret)
        for number in range(1000):
            cache.put(f"key {number}", number, ttl=Lifetime(ttl=100, jitter=0.2))
        fresh: list[int] = []
        for _ in range(3):  # At 80 s, 90 s and 100 s.
            clock.advance(10 if fresh else 80)
            fresh.append(sum(cache.inspect(f"key {number}").is_fresh for number in range(1000)))
    assert fresh[0] == 1000
    assert 400 < fresh[1] < 600
    assert fresh[2] == 0
    print(f"lifetimes: an hour bridged and no more; fresh of 1,000 after 80, 90 and 100 s: {fresh}")


if __name__ == "__main__":
    through_an_outage()
    apart()
