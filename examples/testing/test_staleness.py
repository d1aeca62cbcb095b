"""How old an answer may get, and what is answered while the origin is down. `SyncCache`, on a clock of the test's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from returns.result import Success

from cachemesh import CachePolicy, Lifetime
from cachemesh.testing import assert_never_stale_beyond

if TYPE_CHECKING:
    from cachemesh import SyncCache
    from cachemesh.testing import ScriptedOrigin, VirtualClock

MINUTE = Lifetime(ttl=60, stale_if_error_for=600)


def test_no_answer_is_older_than_its_ttl(
    sync_cache: SyncCache, scripted_origin: ScriptedOrigin, virtual_clock: VirtualClock
) -> None:
    fetch = scripted_origin.sync_fetcher("feed")
    for _ in range(20):
        scripted_origin.seen(sync_cache.get("feed", fetch, ttl=60))
        virtual_clock.advance(25)

    assert_never_stale_beyond(60, scripted_origin)
    with pytest.raises(AssertionError, match=r"a value of 50.0 s was given to a caller, and 30 s were allowed"):
        assert_never_stale_beyond(30, scripted_origin)


def test_an_outage_of_ten_minutes_is_not_noticed(
    sync_cache: SyncCache, scripted_origin: ScriptedOrigin, virtual_clock: VirtualClock
) -> None:
    fetch = scripted_origin.sync_fetcher("feed")
    sync_cache.get("feed", fetch, ttl=MINUTE)
    with scripted_origin.down():
        for _ in range(10):
            virtual_clock.advance(60)
            answer = scripted_origin.seen(sync_cache.get("feed", fetch, ttl=MINUTE, policy=CachePolicy.CACHE_FIRST))
            assert answer == Success("feed #1")

    assert_never_stale_beyond(60 + 600, scripted_origin)
