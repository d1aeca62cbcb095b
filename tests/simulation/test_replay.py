"""A replay says what the cache did: its state, and how each caller was answered."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachemesh import MemoryStore
from cachemesh.simulation import Recorder, replay
from tests.simulation.histories import Ask, Do, Got, Identity, frozen, histories, run_async, run_sync


def agrees(steps: list[Ask | Do], run: Any, *, clear_keys: bool, has_store: bool = False) -> Counter[str]:
    """Record `steps`, replay them, and hold the one against the other: the kinds of answers that there were."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "commands.log"
        recorder = Recorder(log, clear_keys=clear_keys)
        got, state = run(steps, recorder, MemoryStore() if has_store else None)
        assert recorder.error is None
        told = replay(log)
        assert told == replay(log)
    assert told.differences == 0
    assert (told.is_whole, told.is_closed, told.is_torn) == (True, True, False)
    assert [Got(each.key, each.kind.value) for each in told.answers] == [
        Got(recorder.hashed(each.key), each.kind) for each in got
    ]
    assert frozen(told.state, Identity) == state
    return Counter(each.kind for each in got)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(histories(is_async=True), st.booleans(), st.booleans())
def test_a_replay_is_what_the_cache_did(steps: list[Ask | Do], clear_keys: bool, has_store: bool) -> None:
    agrees(steps, run_async, clear_keys=clear_keys, has_store=has_store)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(histories(is_async=False), st.booleans(), st.booleans())
def test_a_replay_is_what_the_threaded_cache_did(steps: list[Ask | Do], clear_keys: bool, has_store: bool) -> None:
    agrees(steps, run_sync, clear_keys=clear_keys, has_store=has_store)


def test_every_kind_of_answer_is_told() -> None:
    """The law would hold of nothing if histories had only one kind."""
    steps: list[Ask | Do] = [
        Ask("item:1"),
        Ask("item:1"),
        Do("advance", seconds=6.0),
        Ask("item:1", fails=True, waits=False, options=(("soft_timeout", 0.5),)),
        Do("advance", seconds=3.0),
        Ask("item:2", fails=True),
        Ask("item:2", waits=False),
        Do("cancel"),
    ]
    assert set(agrees(steps, run_async, clear_keys=False)) == {"hit", "stale", "fetched", "failed", "left"}
